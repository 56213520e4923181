//! What a running task may ask and tell: whether to stop, and how far it is.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};
use seal_wire::{Corruption, Event, Progress, ProgressUnit};

use crate::answers::Answers;
use crate::logging::bars;
use crate::paces::Memory;
use crate::whole::{Plan, Standing, Whole};
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
    begun: Instant,
    told: Mutex<Told>,
    parent: Option<Parent>,
    /// Where wrong results are written down, and the sector.
    corruption: Option<(Arc<CorruptionLog>, String)>,
    /// How fast earlier tasks went.
    memory: Option<Arc<Memory>>,
    /// The task's own, so that lines say whose progress it is, whichever thread tells it.
    span: tracing::Span,
}

/// What was told of the task.
#[derive(Debug, Default)]
struct Told {
    /// What is going on: parts of a task can run side by side.
    parts: Vec<Part>,
    /// Why the task does not go on.
    waits: Option<String>,
    whole: Option<(Whole, ProgressBar)>,
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
        let (begun, told) = (Instant::now(), Mutex::default());
        Self { label, cancel, begun, told, parent: None, corruption: None, memory: None, span }
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

    /// Goes by what earlier tasks have shown, and tells later ones.
    pub(crate) fn remembering(mut self, memory: Arc<Memory>) -> Self {
        self.memory = Some(memory);
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

    /// The parts that the whole task has: from now on it is told how far it is with them, and when
    /// it will be done.
    pub fn plan(&self, plan: Plan) {
        let style = ProgressStyle::with_template("{prefix} {msg:24} {wide_bar} {percent:>3}%")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = bars().add(ProgressBar::new(1000).with_style(style));
        bar.set_prefix(self.label.clone());
        let plan = match &self.memory {
            Some(memory) => memory.plan(plan),
            None => plan,
        };
        self.lock().whole = Some((Whole::new(plan), bar));
    }

    /// An earlier run has done `part` of the plan.
    pub fn already(&self, part: &str) {
        if let Some((whole, _)) = &mut self.lock().whole {
            whole.already(part);
        }
    }

    /// Says that the task does not go on for now, and why: for a seat, memory, a lock. Told once,
    /// until it is another reason or the task goes on; what goes on beside is told meanwhile.
    pub fn waits(&self, reason: &str) {
        let mut told = self.lock();
        if told.waits.as_deref() == Some(reason) {
            return;
        }
        {
            let _of_task = self.span.enter();
            tracing::info!("waiting: {reason}");
        }
        told.waits = Some(reason.to_owned());
        let now = self.begun.elapsed();
        if let Some((whole, _)) = &mut told.whole {
            whole.waits(now, true);
        }
        self.tell(&mut told, Progress::WAITING, (0, 1), Unit::Steps);
    }

    /// The task goes on. So it does by the progress of any part that does not go on beside others.
    pub fn goes_on(&self) {
        self.go_on(&mut self.lock());
    }

    fn go_on(&self, told: &mut Told) {
        if told.waits.take().is_none() {
            return;
        }
        let now = self.begun.elapsed();
        if let Some((whole, _)) = &mut told.whole {
            whole.waits(now, false);
        }
        self.tell(told, Progress::WAITING, (1, 1), Unit::Steps);
    }

    /// Says that `done` of `total` of the part called `name` are done. A bar with the time left
    /// on a terminal, lines elsewhere. Cheap enough to be called often.
    pub fn progress(&self, name: &str, done: u64, total: u64, unit: Unit) {
        // What recorded runs are made of, which the model of the whole is judged by.
        tracing::trace!(at_us = self.at_us(), part = name, done, total, "step");
        let told = &mut *self.lock();
        if told.waits.is_some() && !told.is_aside(name) {
            self.go_on(told);
        }
        let now = self.begun.elapsed();
        if let Some((whole, _)) = &mut told.whole {
            whole.at(now, name, done, total);
        }
        let index = told.parts.iter().position(|part| part.name == name).unwrap_or_else(|| {
            told.parts.push(self.start(name, (done, total), unit));
            told.parts.len() - 1
        });
        let part = &mut told.parts[index];
        part.bar.set_position(done);
        let complete = done >= total;
        if complete || part.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            part.told = Some(Instant::now());
            self.tell(told, name, (done, total), unit);
        }
        let part = &mut told.parts[index];
        if complete {
            part.bar.finish_and_clear();
        }
        if complete || part.logged.elapsed() >= LOG_EVERY {
            part.logged = Instant::now();
            if part.bar.is_hidden() || complete {
                let _of_task = self.span.enter();
                let standing = told.whole.as_ref().map(|(whole, _)| whole.standing(now));
                log_progress(&told.parts[index], done, total, standing);
            }
        }
        if complete {
            told.parts.remove(index);
        }
    }

    /// Tells the parent of a part, and a terminal of the whole.
    fn tell(&self, told: &mut Told, part: &str, (done, total): (u64, u64), unit: Unit) {
        let whole = told.whole.as_ref().map(|(whole, bar)| {
            let standing = whole.standing(self.begun.elapsed());
            show(bar, &standing, told.waits.is_some());
            of_whole(&standing)
        });
        let Some(parent) = &self.parent else { return };
        let unit = match unit {
            Unit::Bytes => ProgressUnit::Bytes,
            Unit::Nodes => ProgressUnit::Nodes,
            Unit::Steps => ProgressUnit::Steps,
        };
        let (beside, waits) = (told.is_aside(part), told.waits.clone());
        let progress = Progress::of(parent.id, part.to_owned(), (done, total), unit);
        // Progress that a slow parent misses is soon told anew.
        parent.answers.tell(&Event::Progress(Progress { beside, waits, whole, ..progress }));
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

    fn at_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    fn is_aside(&self, part: &str) -> bool {
        self.whole.as_ref().is_some_and(|(whole, _)| whole.is_aside(part))
    }
}

impl Drop for TaskContext {
    fn drop(&mut self) {
        tracing::trace!(at_us = self.at_us(), "end");
        let told = self.told.get_mut().unwrap_or_else(PoisonError::into_inner);
        for part in told.parts.drain(..) {
            part.bar.finish_and_clear();
        }
        if let Some((whole, bar)) = &told.whole {
            bar.finish_and_clear();
            if let Some(memory) = &self.memory {
                memory.keep(whole);
            }
        }
    }
}

/// The whole as the wire has it.
fn of_whole(standing: &Standing) -> seal_wire::Whole {
    let left = |left: Duration| u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    // Not all of it before the answer.
    let permille = ((standing.share * 1000.0) as u32).min(999);
    seal_wire::Whole { permille, left_ms: standing.left.map(left) }
}

/// Draws the whole on a terminal.
fn show(bar: &ProgressBar, standing: &Standing, waits: bool) {
    bar.set_position((standing.share * 1000.0) as u64);
    let left = standing.left.map(|left| Duration::from_secs(left.as_secs()));
    bar.set_message(match left {
        Some(left) if waits => format!("waits, then {}", HumanDuration(left)),
        Some(left) => format!("whole, {} left", HumanDuration(left)),
        None if waits => "waits".to_owned(),
        None => "whole".to_owned(),
    });
}

fn log_progress(part: &Part, done: u64, total: u64, standing: Option<Standing>) {
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
        whole_percent = standing.map(|standing| (standing.share * 100.0) as u64),
        whole_eta_s = standing.and_then(|standing| standing.left).map(|left| left.as_secs()),
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
    use crate::Step;

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
            Event::Progress(Progress::of(9, part, (done, 1000), unit))
        };
        for part in ["layer 1 of 2", "layer 2 of 2"] {
            assert!(told.contains(&of(part, 1)) && told.contains(&of(part, 1000)), "{told:?}");
        }
        assert!(told.len() < 200, "{} lines for 2000 calls", told.len());
    }

    #[test]
    fn a_parent_is_told_of_the_whole_of_what_waits_and_of_what_goes_on_beside() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let file = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
        let context = TaskContext::new("pc1 7".to_owned(), CancelToken::default());
        let context = context.telling(9, Arc::new(Answers::start(file).expect("a thread")));
        let layer = |number| Step::new(format!("layer {number}"), "label", 10.0);
        let steps = [layer(1), layer(2)];
        context.plan(Plan::default().then(steps).beside([Step::new("copy", "copy", 1.0)]));
        context.already("layer 1");
        context.waits("all seats are taken");
        context.waits("all seats are taken");
        context.progress("copy", 5, 5, Unit::Bytes);
        context.progress("layer 2", 1, 10, Unit::Nodes);
        drop(context);
        let told: Vec<_> = told(reader)
            .into_iter()
            .map(|event| match event {
                Event::Progress(Progress { part, done, beside, waits, whole, .. }) => {
                    let whole = whole.expect("it has a plan");
                    (part, done, beside, waits.is_some(), whole.permille)
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let expected = [
            ("waiting", 0, false, true, 500),
            // It does not end the waiting.
            ("copy", 5, true, true, 500),
            ("waiting", 1, false, false, 500),
            ("layer 2", 1, false, false, 550),
        ];
        assert_eq!(told, expected.map(|(part, a, b, c, d)| (part.to_owned(), a, b, c, d)));
    }
}
