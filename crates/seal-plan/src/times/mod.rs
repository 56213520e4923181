//! How long the stages take, how much that varies, and what goes wrong: what a calculation and a
//! simulation go by.
//!
//! Times come from published figures until a user has better ones: a file written by hand, results
//! of `cargo xtask bench-pc1` and its like, or the history of supervisors. Each file replaces what
//! it tells of and leaves the rest.

mod measured;
mod written;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use seal_types::{SectorSize, StageName};

/// No file of times is as long as this; what is, was given by mistake.
const LONGEST: u64 = 64 << 20;

/// From the message that PC2 ends with to the randomness that C1 needs: 150 epochs of 30 seconds.
const SEED_WAIT: Duration = Duration::from_secs(150 * 30);

/// How long a worker waits before it sends a task again that was answered with an error.
const RETRY_WAIT: Duration = Duration::from_secs(60);

/// The times of all stages.
#[derive(Clone, Debug, PartialEq)]
pub struct Times {
    /// The sectors they are for.
    pub sector_size: SectorSize,
    /// By stage. A stage that is missing takes no part.
    pub stages: BTreeMap<StageName, StageTimes>,
    /// Between the end of PC2 and the request of C2: the wait for the chain's randomness.
    pub seed_wait: Duration,
    /// Before the worker sends a task again that was answered with an error.
    pub retry_wait: Duration,
}

/// The times of one stage.
#[derive(Clone, Debug, PartialEq)]
pub struct StageTimes {
    /// How long a task runs on average.
    pub time: Duration,
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
    /// Where the time comes from.
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
    /// There are no published figures for sectors of this size.
    #[error(
        "nothing is published about the time that {stage} takes for {size} sectors; give the times \
         with --times FILE, such as a result of `cargo xtask bench-{stage}`"
    )]
    Unknown {
        /// The stage.
        stage: StageName,
        /// The size of the sectors.
        size: SectorSize,
    },
}

impl StageTimes {
    /// A stage whose tasks always take `time` and never fail.
    pub fn fixed(time: Duration, source: impl Into<String>) -> Self {
        Self {
            time,
            spread: 0.0,
            fails: 0.0,
            dies: None,
            ready: Duration::from_secs(10),
            parts: 1,
            source: source.into(),
        }
    }
}

impl Times {
    /// Published figures of other machines, for sizes for which there are some (32 GiB and 64 GiB),
    /// else no stage at all. They are a start; one's own measurements are better.
    ///
    /// ```
    /// use seal_plan::times::Times;
    /// use seal_types::{SectorSize, StageName};
    ///
    /// let times = Times::published(SectorSize::GIB_32);
    /// assert_eq!(times.stages[&StageName::Pc1].time.as_secs(), 2 * 3600 + 52 * 60);
    /// ```
    pub fn published(sector_size: SectorSize) -> Self {
        // Everything that a sector of 64 GiB takes is twice that of one of 32 GiB.
        let factor = match sector_size {
            SectorSize::GIB_32 => Some(1),
            SectorSize::GIB_64 => Some(2),
            _ => None,
        };
        let mut stages = BTreeMap::new();
        if let Some(factor) = factor {
            let twice = if factor == 2 { "twice that of a 32 GiB sector: " } else { "" };
            let figures = [
                (StageName::Pc1, 10_320, 11, "EPYC 7502, two cores a sector (published)"),
                (StageName::Pc2, 1424, 1, "RTX 3090, neptune (published)"),
                (StageName::C2, 525, 1, "RTX 3090, bellperson (published)"),
            ];
            for (stage, seconds, parts, source) in figures {
                let time = Duration::from_secs(seconds) * factor;
                let fixed = StageTimes::fixed(time, format!("{twice}{source}"));
                stages.insert(stage, StageTimes { spread: 0.03, parts, ..fixed });
            }
        }
        Self { sector_size, stages, seed_wait: SEED_WAIT, retry_wait: RETRY_WAIT }
    }

    /// Takes over what the file `path` tells: times written by hand (TOML), a result of a
    /// benchmark, or a status of supervisors (both JSON).
    pub fn read(&mut self, path: &Path) -> Result<(), TimesError> {
        let read = |source| TimesError::Read { path: path.to_path_buf(), source };
        let mut text = String::new();
        File::open(path)
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
    pub fn of(&self, stage: StageName) -> Result<&StageTimes, TimesError> {
        let unknown = || TimesError::Unknown { stage, size: self.sector_size };
        self.stages.get(&stage).ok_or_else(unknown)
    }
}
