//! What a running task may ask and tell: whether to stop, and how far it is.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use seal_wire::{Corruption, Event, Progress, ProgressUnit};

use crate::answers::Answers;
use crate::logging::bars;
use crate::{CancelToken, CorruptionLog};

/// How often progress is logged where there is no terminal.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// How often progress is told to a parent that asked for it.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// What progress is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Nodes of a sector, 32 bytes each.
    Nodes,
    /// Anything else.
    Steps,
}

/// A task's view of the process it runs in.
#[derive(Debug)]
pub struct TaskContext {
    label: String,
    cancel: CancelToken,
    /// What is going on: parts of a task can run side by side.
    parts: Mutex<Vec<Part>>,
    parent: Option<Parent>,
    /// Where wrong results are written down, and the sector.
    corruption: Option<(Arc<CorruptionLog>, String)>,
    /// The task's own, so that lines say whose progress it is, whichever thread tells it.
    span: tracing::Span,
}

/// A parent that asked to be told how far the task is.
#[derive(Debug)]
struct Parent {
    id: u64,
    answers: Arc<Answers>,
}

#[derive(Debug)]
struct Part {
    name: String,
    started: Instant,
    /// How much was done when it started: of a part that goes on with something.
    first: u64,
    logged: Instant,
    told: Option<Instant>,
    bar: ProgressBar,
}

impl TaskContext {
    /// A context for the task that people know as `label`, stopped by `cancel`. What it logs is
    /// of the span that is current now.
    pub fn new(label: String, cancel: CancelToken) -> Self {
        let span = tracing::Span::current();
        Self { label, cancel, parts: Mutex::default(), parent: None, corruption: None, span }
    }

    /// What it logs is of `span`.
    pub(crate) fn within(mut self, span: tracing::Span) -> Self {
        self.span = span;
        self
    }

    /// Tells progress to the parent too, as that of request `id`.
    pub(crate) fn telling(mut self, id: u64, answers: Arc<Answers>) -> Self {
        self.parent = Some(Parent { id, answers });
        self
    }

    /// Writes wrong results of the task, which is of `sector`, down in `log`.
    pub(crate) fn recording(mut self, log: Option<Arc<CorruptionLog>>, sector: &str) -> Self {
        self.corruption = log.map(|log| (log, sector.to_owned()));
        self
    }

    /// Says that a result is wrong: it is written down for the machine, if that is wanted, and
    /// logged. The task fails with an error of its own, or goes on without that result.
    pub fn corrupted(&self, found: Corruption) {
        let _of_task = self.span.enter();
        match &self.corruption {
            Some((log, sector)) => log.note(Some(sector), found),
            None => tracing::error!("a wrong result: {found}"),
        }
    }

    /// Whether the task should stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Says that `done` of `total` of the part called `name` are done. A bar with the time left
    /// on a terminal, lines elsewhere. Cheap enough to be called often.
    pub fn progress(&self, name: &str, done: u64, total: u64, unit: Unit) {
        let mut parts = self.parts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let index = parts.iter().position(|part| part.name == name).unwrap_or_else(|| {
            parts.push(self.start(name, (done, total), unit));
            parts.len() - 1
        });
        let part = &mut parts[index];
        part.bar.set_position(done);
        let complete = done >= total;
        if let Some(parent) = &self.parent
            && (complete || part.told.is_none_or(|told| told.elapsed() >= TELL_EVERY))
        {
            part.told = Some(Instant::now());
            parent.tell(part, done, total, unit);
        }
        if complete {
            part.bar.finish_and_clear();
        }
        if complete || part.logged.elapsed() >= LOG_EVERY {
            part.logged = Instant::now();
            if part.bar.is_hidden() || complete {
                let _of_task = self.span.enter();
                log_progress(part, done, total);
            }
        }
        if complete {
            parts.remove(index);
        }
    }

    fn start(&self, name: &str, (first, total): (u64, u64), unit: Unit) -> Part {
        let counts = match unit {
            Unit::Bytes => "{binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}",
            Unit::Nodes => "{human_pos}/{human_len} nodes {rate}",
            Unit::Steps => "{human_pos}/{human_len}",
        };
        let template = format!(
            "{{prefix}} {{msg:24}} {{wide_bar}} {{percent:>3}}% {counts} ETA {{eta_precise}}"
        );
        let style = ProgressStyle::with_template(&template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key("rate", |state: &ProgressState, text: &mut dyn fmt::Write| {
                // A rate without the digits that nobody reads. A bar that cannot be written is
                // not worth an error.
                let _ = write!(text, "{:.0}/s", state.per_sec());
            });
        let bar = bars().add(ProgressBar::new(total).with_style(style));
        bar.set_prefix(self.label.clone());
        bar.set_message(name.to_owned());
        let now = Instant::now();
        Part { name: name.to_owned(), started: now, first, logged: now, told: None, bar }
    }
}

impl Parent {
    fn tell(&self, part: &Part, done: u64, total: u64, unit: Unit) {
        let unit = match unit {
            Unit::Bytes => ProgressUnit::Bytes,
            Unit::Nodes => ProgressUnit::Nodes,
            Unit::Steps => ProgressUnit::Steps,
        };
        let progress = Progress { id: self.id, part: part.name.clone(), done, total, unit };
        // Progress that a slow parent misses is soon told anew.
        self.answers.tell(&Event::Progress(progress));
    }
}

impl Drop for TaskContext {
    fn drop(&mut self) {
        let parts = self.parts.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        for part in parts.drain(..) {
            part.bar.finish_and_clear();
        }
    }
}

fn log_progress(part: &Part, done: u64, total: u64) {
    let elapsed = part.started.elapsed();
    let per_second = rate(done.saturating_sub(part.first), elapsed);
    let left = total.saturating_sub(done) as f64;
    let eta_s = match per_second {
        Some(rate) if rate > 0.0 => Some(left / rate),
        _ => (left == 0.0).then_some(0.0),
    };
    tracing::info!(
        part = part.name,
        done,
        total,
        percent = done.saturating_mul(100) / total.max(1),
        per_second = per_second.map(f64::round),
        elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        eta_s = eta_s.map(f64::round),
        "progress"
    );
}

/// How many of `done` were done in a second; `None` before any time has passed.
fn rate(done: u64, elapsed: Duration) -> Option<f64> {
    (!elapsed.is_zero()).then(|| done as f64 / elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, PipeReader};

    use super::*;

    fn told(reader: PipeReader) -> Vec<Event> {
        let lines = BufReader::new(reader).lines();
        lines.map(|line| Event::parse(line.expect("text").as_bytes()).expect("an event")).collect()
    }

    #[test]
    fn a_rate_is_of_what_was_done_since_the_start() {
        assert_eq!(rate(3000, Duration::from_millis(1500)), Some(2000.0));
        assert_eq!(rate(0, Duration::from_secs(1)), Some(0.0));
        assert_eq!(rate(7, Duration::ZERO), None);
    }

    #[test]
    fn a_parent_that_asked_is_told_each_parts_begin_and_end_and_little_between() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let file = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
        let answers = Arc::new(Answers::start(file).expect("a thread"));
        let context = TaskContext::new("pc1 7".to_owned(), CancelToken::default());
        let context = context.telling(9, answers);
        for part in ["layer 1 of 2", "layer 2 of 2"] {
            for done in 1..=1000 {
                context.progress(part, done, 1000, Unit::Nodes);
            }
        }
        drop(context);
        let told = told(reader);
        let of = |part: &str, done| {
            let (part, unit) = (part.to_owned(), ProgressUnit::Nodes);
            Event::Progress(Progress { id: 9, part, done, total: 1000, unit })
        };
        for part in ["layer 1 of 2", "layer 2 of 2"] {
            assert!(told.contains(&of(part, 1)) && told.contains(&of(part, 1000)), "{told:?}");
        }
        assert!(told.len() < 200, "{} lines for 2000 calls", told.len());
    }
}
