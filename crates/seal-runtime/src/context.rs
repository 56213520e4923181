//! What a running task may ask and tell: whether to stop, and how far it is.

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::CancelToken;
use crate::logging::bars;

/// How often progress is logged where there is no terminal.
const LOG_EVERY: Duration = Duration::from_secs(10);

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
    part: Mutex<Option<Part>>,
}

#[derive(Debug)]
struct Part {
    name: String,
    started: Instant,
    logged: Instant,
    bar: ProgressBar,
}

impl TaskContext {
    /// A context for the task that people know as `label`, stopped by `cancel`.
    pub fn new(label: String, cancel: CancelToken) -> Self {
        Self { label, cancel, part: Mutex::new(None) }
    }

    /// Whether the task should stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Says that `done` of `total` of the part called `name` are done. A bar with the time left
    /// on a terminal, lines elsewhere. Cheap enough to be called often.
    pub fn progress(&self, name: &str, done: u64, total: u64, unit: Unit) {
        let mut current = self.part.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if current.as_ref().is_none_or(|part| part.name != name) {
            if let Some(before) = current.take() {
                before.bar.finish_and_clear();
            }
            *current = Some(self.start(name, total, unit));
        }
        let Some(part) = current.as_mut() else { return };
        part.bar.set_position(done);
        let complete = done >= total;
        if complete {
            part.bar.finish_and_clear();
        }
        if complete || part.logged.elapsed() >= LOG_EVERY {
            part.logged = Instant::now();
            if part.bar.is_hidden() || complete {
                log_progress(part, done, total);
            }
        }
        if complete {
            *current = None;
        }
    }

    fn start(&self, name: &str, total: u64, unit: Unit) -> Part {
        let counts = match unit {
            Unit::Bytes => "{binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}",
            Unit::Nodes => "{human_pos}/{human_len} nodes {rate}",
            Unit::Steps => "{human_pos}/{human_len}",
        };
        let template =
            format!("{{prefix}} {{msg:24}} {{wide_bar}} {{percent:>3}}% {counts} ETA {{eta}}");
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
        Part { name: name.to_owned(), started: now, logged: now, bar }
    }
}

impl Drop for TaskContext {
    fn drop(&mut self) {
        let part = self.part.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(part) = part.take() {
            part.bar.finish_and_clear();
        }
    }
}

fn log_progress(part: &Part, done: u64, total: u64) {
    let elapsed = part.started.elapsed();
    let left = total.saturating_sub(done);
    let eta_s = (done > 0).then(|| elapsed.as_secs_f64() / done as f64 * left as f64);
    tracing::info!(
        part = part.name,
        done,
        total,
        percent = done.saturating_mul(100) / total.max(1),
        elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        eta_s = eta_s.map(f64::round),
        "progress"
    );
}
