//! One executor of the plan through all its lives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use seal_limits::{History, Resource};
use seal_types::shown_bytes;
use seal_wire::{DeviceReport, ErrorCode, Event as Told, Line, RawResponse, salvage_id};

use crate::event::Tag;
use crate::facts::DeviceFacts;
use crate::limits::{ExecutorSlots, Held};
use crate::process::Process;
use crate::queue::Request;
use crate::told::TaskProgress;
use crate::{ExecutorPlan, Timing};

/// An executor of the plan.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) plan: ExecutorPlan,
    pub(crate) state: State,
    /// Since when it is in this state.
    pub(crate) since: SystemTime,
    pub(crate) history: History,
    pub(crate) starts: u64,
    /// How it ended the last time.
    pub(crate) last_end: Option<String>,
    /// What it has told of the device that it computes on.
    pub(crate) device: Option<DeviceFacts>,
}

#[derive(Debug)]
pub(crate) enum State {
    /// It is to be started then.
    Waiting {
        until: Instant,
        /// Why there is no use in waiting for it, if its starts fail again and again.
        looping: Option<String>,
    },
    /// Its process runs, or has ended and is not buried yet.
    Running(Box<Running>),
    /// It is not started any more, and why.
    GivenUp(String),
    /// The supervisor ends and so did it.
    Stopped,
}

/// The process of an executor with what it is doing.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) process: Process,
    /// What its tasks hold their locks through.
    pub(crate) slots: ExecutorSlots,
    /// When its ready line came.
    pub(crate) ready: Option<Instant>,
    /// Why it can do no task, if it has told so: its device is left out.
    pub(crate) left_out: Option<String>,
    /// How often its device had computed wrongly when it told of it last.
    pub(crate) wrong: u64,
    /// The tasks it has, by request.
    pub(crate) tasks: BTreeMap<u64, Task>,
    /// Whether answers may still come.
    pub(crate) output_open: bool,
    /// Whether it may still write to its log.
    pub(crate) log_open: bool,
    /// How it ended.
    pub(crate) ended: Option<String>,
    /// Whether what it may have left behind is still looked for.
    pub(crate) seeks_strays: bool,
    /// Why the supervisor ends it.
    pub(crate) why: Option<String>,
    /// Whether that is what the executor did itself: it closed its output or input. Which of its
    /// ends is told first, that or the end of its process, is chance.
    pub(crate) by_itself: bool,
    /// Whether a signal ended it that the supervisor had not sent.
    pub(crate) crashed: bool,
    /// Whether the supervisor has sent it SIGKILL.
    pub(crate) killed: bool,
    /// Whether the supervisor did something that ends it: it may have ended by itself before.
    pub(crate) signalled: bool,
    /// What the supervisor does next about it.
    pub(crate) next: Option<(Instant, Next)>,
}

/// A task that an executor has.
#[derive(Debug)]
pub(crate) struct Task {
    /// What it holds, released with this.
    pub(crate) held: Held,
    /// What that is.
    pub(crate) holds: Vec<Resource>,
    pub(crate) sector: Option<Arc<str>>,
    /// How many executors have had it.
    pub(crate) tries: u32,
    /// The request, if it is to be sent again when the executor dies.
    pub(crate) again: Option<Request>,
    /// When it was handed over.
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    /// How long it had waited until then.
    pub(crate) waited: Duration,
    /// When the executor last told something of it, or had it handed over.
    pub(crate) heard: Instant,
    /// Whether the executor has told that it runs.
    pub(crate) runs: bool,
    pub(crate) progress: TaskProgress,
}

/// What is done about a process when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It should have been ready by now.
    NotReady,
    /// Ask it to end.
    Terminate,
    /// End it.
    Kill,
    /// End it: it has not ended in the time it had for that.
    KillLate,
    /// It does not even die.
    Undead,
    /// It has ended, and somebody else holds its output open, or what it left behind is still
    /// looked for.
    StopReading,
}

/// How long tasks may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskTimes {
    /// In all.
    pub(crate) deadline: Option<Duration>,
    /// Without any progress.
    pub(crate) no_progress: Option<Duration>,
}

/// A task whose time is up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overdue {
    pub(crate) id: u64,
    /// What it did wrong.
    pub(crate) why: String,
    /// Whether it may run again: it would not be quicker the next time.
    pub(crate) again: bool,
}

/// What a line of an executor means.
#[derive(Debug)]
pub(crate) enum Answer {
    /// An answer to pass on as it is, with its error if it is one.
    Whole { id: u64, line: Vec<u8>, error: Option<String> },
    /// Something about a task, not for the parent.
    Told(Told),
    /// Not an answer, but it says which request it belongs to.
    Broken { id: u64, reason: String },
    /// Nothing that could be passed on.
    Junk { reason: String },
}

impl Place {
    pub(crate) fn new(plan: ExecutorPlan, now: Instant) -> Self {
        let state = State::Waiting { until: now, looping: None };
        let (history, since) = (History::default(), SystemTime::now());
        Self { plan, state, since, history, starts: 0, last_end: None, device: None }
    }

    pub(crate) fn enter(&mut self, state: State) -> State {
        self.since = SystemTime::now();
        std::mem::replace(&mut self.state, state)
    }

    pub(crate) fn running(&self) -> Option<&Running> {
        match &self.state {
            State::Running(running) => Some(running),
            _ => None,
        }
    }

    pub(crate) fn running_mut(&mut self) -> Option<&mut Running> {
        match &mut self.state {
            State::Running(running) => Some(running),
            _ => None,
        }
    }

    /// The process that an event is about, unless a later start has replaced it.
    pub(crate) fn tagged(&mut self, tag: Tag) -> Option<&mut Running> {
        if tag.start == self.starts { self.running_mut() } else { None }
    }

    /// Whether it takes tasks.
    pub(crate) fn takes_tasks(&self) -> bool {
        self.running().is_some_and(|running| {
            running.ready.is_some() && !running.is_ending() && running.left_out.is_none()
        })
    }

    /// Takes note of what the executor thinks of its device.
    pub(crate) fn device(&mut self, report: DeviceReport) {
        let key = self.plan.key.clone();
        let Some(running) = self.running_mut() else { return };
        let pid = running.process.pid();
        let new = report.wrong.saturating_sub(running.wrong);
        running.wrong = report.wrong;
        let reason = report.reason.as_deref();
        let standing = report.standing.name();
        if new > 0 {
            tracing::warn!(
                pid,
                executor = key,
                device = report.device,
                standing,
                wrong = report.wrong,
                reason,
                replaced_by = report.replaced_by,
                "a device computed wrongly"
            );
        } else {
            tracing::debug!(pid, executor = key, device = report.device, standing, "a device");
        }
        running.left_out = (!report.computes()).then(|| {
            let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            format!(
                "{key}: {} computes wrongly and is left out{reason}; replace it, or end the \
                 executor to have it tried again",
                report.device
            )
        });
        // The counter of another device begins anew.
        let before = self.device.as_ref().filter(|known| known.report.device == report.device);
        let wrong = before.map_or(0, |known| known.wrong) + new;
        self.device = Some(DeviceFacts { report, since: SystemTime::now(), wrong });
    }

    /// When something is to be done about it.
    pub(crate) fn next(&self, times: TaskTimes) -> Option<Instant> {
        match &self.state {
            State::Waiting { until, .. } => Some(*until),
            State::Running(running) => {
                let step = running.next.map(|(at, _)| at);
                running.times_up(times).map(|(at, _)| at).into_iter().chain(step).min()
            }
            State::GivenUp(_) | State::Stopped => None,
        }
    }

    /// Its name in messages.
    pub(crate) fn name(&self) -> String {
        let program = self.plan.program.file_name().unwrap_or(self.plan.program.as_os_str());
        program.display().to_string()
    }
}

impl Running {
    pub(crate) fn new(process: Process, slots: ExecutorSlots, ready_by: Instant) -> Self {
        Self {
            process,
            slots,
            ready: None,
            left_out: None,
            wrong: 0,
            tasks: BTreeMap::new(),
            output_open: true,
            log_open: true,
            ended: None,
            seeks_strays: false,
            why: None,
            by_itself: false,
            crashed: false,
            killed: false,
            signalled: false,
            next: Some((ready_by, Next::NotReady)),
        }
    }

    /// Whether it has ended or is being ended.
    pub(crate) fn is_ending(&self) -> bool {
        self.ended.is_some() || self.why.is_some()
    }

    /// Whether its process has ended and nothing can come from it any more.
    pub(crate) fn is_dead(&self) -> bool {
        self.ended.is_some() && !self.output_open && !self.log_open && !self.seeks_strays
    }

    /// Ends it, beginning at `from`: SIGTERM, a time of grace, SIGKILL. Once begun it takes its
    /// course; an earlier beginning is kept.
    pub(crate) fn end(&mut self, why: &str, from: Instant) {
        if !self.is_ending() {
            self.why = Some(why.to_owned());
            self.next = Some((from, Next::Terminate));
        } else if let Some((at, Next::Terminate)) = self.next {
            self.next = Some((at.min(from), Next::Terminate));
        }
    }

    /// Ends it, from `from` on, because it has closed what it and its supervisor talk through: its
    /// process is about to end, or it is of no use any more.
    pub(crate) fn has_closed(&mut self, what: &str, from: Instant) {
        self.by_itself |= !self.is_ending();
        self.end(what, from);
    }

    /// Whether it died, and did not end because it was asked to.
    pub(crate) fn has_died(&self) -> bool {
        self.why.is_none() || self.by_itself || self.crashed
    }

    /// Ends it without asking.
    pub(crate) fn kill(&mut self, why: &str, now: Instant) {
        if self.ended.is_none() {
            self.why.get_or_insert_with(|| why.to_owned());
            self.next = Some((now, Next::Kill));
        }
    }

    /// Takes the next step of ending it.
    pub(crate) fn step(&mut self, next: Next, now: Instant, timing: &Timing) {
        let pid = self.process.pid();
        match next {
            Next::NotReady => {}
            Next::Terminate => {
                self.process.close_input();
                self.process.signal(Signal::SIGTERM);
                self.signalled = true;
                self.next = Some((now + timing.grace, Next::KillLate));
            }
            Next::Kill | Next::KillLate => {
                let why = self.why.as_deref();
                match next {
                    Next::KillLate => {
                        tracing::warn!(pid, why, "an executor did not end in time and is killed");
                    }
                    _ => tracing::info!(pid, why, "an executor is killed"),
                }
                self.process.signal(Signal::SIGKILL);
                (self.signalled, self.killed) = (true, true);
                self.next = Some((now + timing.undead, Next::Undead));
            }
            Next::Undead => {
                tracing::error!(
                    pid,
                    "an executor survives SIGKILL: it hangs in the kernel, perhaps in a disk or \
                     device that does not answer"
                );
                self.next = None;
            }
            Next::StopReading => {
                if self.output_open || self.log_open {
                    tracing::warn!(pid, "an executor ended while something held its output open");
                }
                if self.seeks_strays {
                    tracing::warn!(pid, "what an executor left behind is not found in time");
                }
                self.output_open = false;
                self.log_open = false;
                self.seeks_strays = false;
                self.next = None;
            }
        }
    }

    /// The first time when a task will have taken too long, and which. Nothing is due about an
    /// executor that is ended anyway.
    fn times_up(&self, times: TaskTimes) -> Option<(Instant, Overdue)> {
        if self.is_ending() {
            return None;
        }
        // An executor that tells of its tasks may let some wait, which then make no progress.
        let any_runs = self.tasks.values().any(|task| task.runs);
        let dues = self.tasks.iter().flat_map(|(id, task)| {
            let told = |limit: Duration| humantime::format_duration(limit);
            let deadline = times.deadline.map(|limit| {
                let why = format!("request {id} ran longer than the deadline of {}", told(limit));
                (task.started + limit, Overdue { id: *id, why, again: false })
            });
            // Whoever it waits for makes progress, or is ended for that.
            let waits = any_runs && !task.runs || task.progress.waits.is_some();
            let silent = times.no_progress.filter(|_| !waits).map(|limit| {
                let why = format!("request {id} made no progress for {}", told(limit));
                (task.heard + limit, Overdue { id: *id, why, again: true })
            });
            deadline.into_iter().chain(silent)
        });
        dues.min_by_key(|(at, _)| *at)
    }

    /// A task that has taken too long.
    pub(crate) fn overdue(&self, times: TaskTimes, now: Instant) -> Option<Overdue> {
        self.times_up(times).filter(|(at, _)| *at <= now).map(|(_, overdue)| overdue)
    }

    /// Takes note of what the executor tells of a task.
    pub(crate) fn told(&mut self, told: Told, now: Instant) {
        match told {
            Told::Started(started) => {
                if let Some(task) = self.tasks.get_mut(&started.id) {
                    task.heard = now;
                    task.runs = true;
                    task.sector.get_or_insert_with(|| started.sector.into());
                }
            }
            Told::Progress(progress) => {
                let Some(task) = self.tasks.get_mut(&progress.id) else { return };
                task.runs = true;
                if task.progress.take(progress, now) {
                    task.heard = now;
                }
            }
            // Not of a task: see `Place::device`.
            Told::Device(_) | Told::Other => {}
        }
    }
}

/// Understands a line that an executor wrote.
pub(crate) fn understand(line: Line) -> Answer {
    let beginning = shown(&line);
    let (id, reason) = match line {
        Line::Whole(mut text) => match RawResponse::parse(&text) {
            Ok(response) => {
                text.push(b'\n');
                return Answer::Whole { id: response.id, line: text, error: response.err_msg };
            }
            Err(bad) => match Told::parse(&text) {
                Ok(told) => return Answer::Told(told),
                Err(_) => (bad.id, bad.reason),
            },
        },
        Line::Unterminated(text) => {
            (salvage_id(&text), "it ended in the middle of the line".to_owned())
        }
        Line::TooLong { id, length, .. } => (id, format!("the line has {length} bytes")),
    };
    match id {
        Some(id) => Answer::Broken { id, reason },
        None => Answer::Junk { reason: format!("{reason}; it is {beginning:?}") },
    }
}

/// The code of an error as it is counted.
pub(crate) fn code_of(error: &str) -> String {
    ErrorCode::of_message(error).map(|code| code.name().to_owned()).unwrap_or_default()
}

/// What is shown of a line in the log.
pub(crate) fn shown(line: &Line) -> String {
    let (Line::Whole(text) | Line::Unterminated(text) | Line::TooLong { head: text, .. }) = line;
    shown_bytes(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_answers_events_broken_answers_or_junk() {
        let whole = |text: &str| understand(Line::Whole(text.into()));
        let answer = r#"{"id":7,"err_msg":null,"output":{"a":[1, 2]},"extra":0}"#;
        match whole(answer) {
            Answer::Whole { id: 7, line, error: None } => {
                assert_eq!(line, format!("{answer}\n").as_bytes());
            }
            other => panic!("{other:?}"),
        }
        match whole(r#"{"id":7,"err_msg":"[io] cannot","output":null}"#) {
            Answer::Whole { error: Some(error), .. } => assert_eq!(code_of(&error), "io"),
            other => panic!("{other:?}"),
        }
        assert_eq!(code_of("of other software"), "");
        let told = r#"{"event":"started","id":7,"sector":"1"}"#;
        assert!(matches!(whole(told), Answer::Told(Told::Started(_))));
        for line in [
            Line::Whole(br#"{"id":7,"err_msg":null,"output":null}"#.into()),
            Line::Whole(br#"{"id":7,"err_msg":"x","output":1}"#.into()),
            Line::Unterminated(br#"{"id":7,"err_msg":null,"output":{"a""#.into()),
            Line::TooLong { head: br#"{"output":"#.into(), length: 1 << 30, id: Some(7) },
        ] {
            assert!(matches!(understand(line), Answer::Broken { id: 7, .. }));
        }
        for junk in ["", "pc1 processor ready", "thread panicked", r#"{"output":[,"id":7}"#] {
            assert!(matches!(whole(junk), Answer::Junk { .. }), "{junk}");
        }
    }
}
