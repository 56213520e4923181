//! Recorded runs, by which it is judged whether people are told the right time.
//!
//! An executor with `RUST_LOG=info,seal_runtime=trace` logs every step of a task; a line of a trace
//! is the time since the begin in microseconds, the part, how much of it is done and how much it is,
//! with tabs between. The last line has the end alone. `benches/README.md` tells how to make one.

use std::time::Duration;

/// A recorded run.
#[derive(Clone, Debug)]
pub struct Trace {
    /// What was told, in order.
    pub steps: Vec<TracedStep>,
    /// When the task was done.
    pub took: Duration,
}

/// What was told at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedStep {
    /// When, since the begin.
    pub at: Duration,
    /// The part.
    pub part: String,
    /// How much of it was done.
    pub done: u64,
    /// How much it was in all.
    pub total: u64,
}

/// What a model says after a step: how much is done, from 0 to 1, and how long the rest takes.
pub type Said = (f64, Option<Duration>);

/// How wrong a model was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wrong {
    /// How much was done as the model had it.
    pub share: f64,
    /// The time left that was told, and the true one.
    pub told: Duration,
    /// As it was.
    pub left: Duration,
    /// The difference by the true time left, or by a tenth of the run where less is left.
    pub error: f64,
}

impl Trace {
    /// Reads a trace.
    ///
    /// # Panics
    ///
    /// If it is none.
    pub fn read(text: &str) -> Self {
        let micros = |text: &str| Duration::from_micros(text.parse().expect("microseconds"));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
        let (end, steps) = lines.split_last().expect("an end");
        let steps = steps.iter().map(|fields| {
            let [at, part, done, total] = fields[..] else { panic!("{fields:?}") };
            let number = |text: &str| text.parse().expect("a number");
            let (done, total) = (number(done), number(total));
            TracedStep { at: micros(at), part: part.to_owned(), done, total }
        });
        Self { steps: steps.collect(), took: micros(end[0]) }
    }

    /// How wrong `model` is after each step once a tenth of the work is done.
    ///
    /// # Panics
    ///
    /// If it says no time then.
    pub fn judge(&self, mut model: impl FnMut(&TracedStep) -> Said) -> Vec<Wrong> {
        let judged = self.steps.iter().filter_map(|step| {
            let (share, told) = model(step);
            if share < 0.1 {
                return None;
            }
            let told = told.expect("a tenth is done, and no time is told");
            let left = self.took.saturating_sub(step.at);
            Some(Wrong { share, told, left, error: error_of(told, left, self.took) })
        });
        judged.collect()
    }
}

/// How wrong it is to tell `told` where `left` is left of a run that took `took`: by the true time
/// left, or by a tenth of the run where less is left.
pub fn error_of(told: Duration, left: Duration, took: Duration) -> f64 {
    told.abs_diff(left).as_secs_f64() / left.max(took / 10).as_secs_f64()
}

/// The worst judgement from `share` on.
///
/// # Panics
///
/// If so much never is done.
pub fn worst_from(judged: &[Wrong], share: f64) -> Wrong {
    let judged = judged.iter().filter(|wrong| wrong.share >= share).copied();
    judged.max_by(|one, other| one.error.total_cmp(&other.error)).expect("it comes to its end")
}
