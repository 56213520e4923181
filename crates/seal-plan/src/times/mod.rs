//! How long the stages take, how much that varies, and what goes wrong: what a calculation and a
//! simulation go by.
//!
//! How long a task takes is estimated (`estimate`) until a user knows better: from a file written by
//! hand, results of `cargo xtask bench-pc1` and its like, or the history of supervisors. Each file
//! replaces what it tells of and leaves the rest.

mod measured;
mod written;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use seal_host::open_input;
use seal_types::{SectorSize, StageName};

use crate::given::{Given, GivenTime, Reference};

/// No file of times is as long as this; what is, was given by mistake.
const LONGEST: u64 = 64 << 20;

/// From the message that PC2 ends with to the randomness that C1 needs: 150 epochs of 30 seconds.
pub(crate) const SEED_WAIT: Duration = Duration::from_secs(150 * 30);

/// Layers of the sectors that are sealed in earnest.
const LAYERS: u32 = 11;

/// How long a worker waits before it sends a task again that was answered with an error.
const RETRY_WAIT: Duration = Duration::from_secs(60);

/// The times of all stages.
#[derive(Clone, Debug, PartialEq)]
pub struct Times {
    /// The sectors they are for.
    pub sector_size: SectorSize,
    /// By stage. Of a stage that is missing nothing was told.
    pub stages: BTreeMap<StageName, StageTimes>,
    /// Between the end of PC2 and the request of C2: the wait for the chain's randomness.
    pub seed_wait: Duration,
    /// Before the worker sends a task again that was answered with an error.
    pub retry_wait: Duration,
}

/// The times of one stage.
#[derive(Clone, Debug, PartialEq)]
pub struct StageTimes {
    /// How long a task runs on average; `None` where nobody told.
    pub time: Option<Duration>,
    /// What that time was measured on.
    pub reference: Reference,
    /// How much that varies: the standard deviation as a part of the mean. 0 is not at all.
    pub spread: f64,
    /// The share of tasks that end with an error, from 0 to less than 1.
    pub fails: f64,
    /// After how much running of its tasks an executor dies on average; `None` is never.
    pub dies: Option<Duration>,
    /// How long an executor takes from its start until it is ready.
    pub ready: Duration,
    /// In how many equal parts a task is done, after each of which the same request can go on when
    /// its executor died. 1 is that nothing is kept.
    pub parts: u32,
    /// Where the time comes from, if there is one.
    pub source: String,
}

/// Times that cannot be had or used.
#[derive(Debug, thiserror::Error)]
pub enum TimesError {
    /// A file cannot be read.
    #[error("cannot read the times in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// A file says something that cannot be meant.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
}

impl StageTimes {
    /// A stage whose tasks always take `time` and never fail.
    pub fn fixed(time: Duration, source: impl Into<String>) -> Self {
        Self {
            time: Some(time),
            spread: 0.0,
            parts: 1,
            source: source.into(),
            ..Self::unknown(StageName::Pc2)
        }
    }

    /// What holds for a stage of which nobody told anything: its times vary a little, nothing goes
    /// wrong, and PC1 keeps its layers.
    pub fn unknown(stage: StageName) -> Self {
        Self {
            time: None,
            reference: Reference::Unknown,
            spread: 0.03,
            fails: 0.0,
            dies: None,
            ready: Duration::from_secs(10),
            parts: if stage == StageName::Pc1 { LAYERS } else { 1 },
            source: String::new(),
        }
    }
}

impl Times {
    /// Nothing told of any stage yet.
    ///
    /// ```
    /// use std::path::Path;
    /// use seal_plan::times::Times;
    /// use seal_types::{SectorSize, StageName};
    ///
    /// let mut times = Times::new(SectorSize::GIB_32);
    /// times.take_over(Path::new("t.toml"), "[pc1]\ntime = '2h 52min'").expect("good times");
    /// assert_eq!(times.of(StageName::Pc1).time.map(|time| time.as_secs()), Some(10_320));
    /// ```
    pub fn new(sector_size: SectorSize) -> Self {
        let (seed_wait, retry_wait) = (SEED_WAIT, RETRY_WAIT);
        Self { sector_size, stages: BTreeMap::new(), seed_wait, retry_wait }
    }

    /// Takes over what the file `path` tells: times written by hand (TOML), a result of a
    /// benchmark, or a status of supervisors (both JSON).
    pub fn read(&mut self, path: &Path) -> Result<(), TimesError> {
        let read = |source| TimesError::Read { path: path.to_path_buf(), source };
        let mut text = String::new();
        open_input(path)
            .map_err(|error| error.source)
            .and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text))
            .map_err(read)?;
        if text.len() as u64 > LONGEST {
            let text = format!("it has more than {} MiB", LONGEST >> 20);
            return Err(read(io::Error::new(io::ErrorKind::FileTooLarge, text)));
        }
        self.take_over(path, &text)
    }

    /// Takes over what `text` tells; `path` is for messages.
    pub fn take_over(&mut self, path: &Path, text: &str) -> Result<(), TimesError> {
        let taken = if text.trim_start().starts_with('{') {
            measured::take_over(self, path, text)
        } else {
            written::take_over(self, path, text)
        };
        taken.map_err(|reason| TimesError::Invalid { path: path.to_path_buf(), reason })
    }

    /// The times of `stage`.
    pub fn of(&self, stage: StageName) -> StageTimes {
        self.stages.get(&stage).cloned().unwrap_or_else(|| StageTimes::unknown(stage))
    }

    /// The times of tasks that were told, for estimates to go by.
    pub fn given(&self) -> Given {
        let told = self.stages.iter().filter_map(|(stage, times)| {
            let (reference, source) = (times.reference, times.source.clone());
            Some((*stage, GivenTime { time: times.time?, reference, source }))
        });
        told.collect()
    }
}
