//! One executor of the plan through all its lives.

use std::collections::BTreeMap;
use std::time::Instant;

use nix::sys::signal::Signal;
use seal_wire::{Line, RawResponse, salvage_id};

use crate::event::Tag;
use crate::process::Process;
use crate::queue::Request;
use crate::restart::History;
use crate::semaphores::Held;
use crate::{ExecutorPlan, Timing};

/// An executor of the plan.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) plan: ExecutorPlan,
    pub(crate) state: State,
    pub(crate) history: History,
    pub(crate) starts: u64,
}

#[derive(Debug)]
pub(crate) enum State {
    /// It is to be started then.
    Waiting { until: Instant },
    /// Its process runs, or has ended and is not buried yet.
    Running(Running),
    /// It is not started any more, and why.
    GivenUp(String),
    /// The supervisor ends and so did it.
    Stopped,
}

/// The process of an executor with what it is doing.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) process: Process,
    /// When its ready line came.
    pub(crate) ready: Option<Instant>,
    /// The tasks it has, by request.
    pub(crate) tasks: BTreeMap<u64, Task>,
    /// Whether answers may still come.
    pub(crate) output_open: bool,
    /// How it ended.
    pub(crate) ended: Option<String>,
    /// Why the supervisor ends it.
    pub(crate) why: Option<String>,
    /// Whether the supervisor did something that ends it: it may have ended by itself before.
    pub(crate) signalled: bool,
    /// What the supervisor does next about it.
    pub(crate) next: Option<(Instant, Next)>,
}

/// A task that an executor has.
#[derive(Debug)]
pub(crate) struct Task {
    /// What it holds, released with this.
    pub(crate) _held: Held,
    /// How many executors have had it.
    pub(crate) tries: u32,
    /// The request, if it is to be sent again when the executor dies.
    pub(crate) again: Option<Request>,
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
    /// It does not even die.
    Undead,
    /// It has ended, and somebody else holds its output open.
    StopReading,
}

/// What a line of an executor means.
#[derive(Debug)]
pub(crate) enum Answer {
    /// An answer to pass on as it is.
    Whole { id: u64, line: Vec<u8> },
    /// Not an answer, but it says which request it belongs to.
    Broken { id: u64, reason: String },
    /// Nothing that could be passed on.
    Junk { reason: String },
}

impl Place {
    pub(crate) fn new(plan: ExecutorPlan, now: Instant) -> Self {
        let state = State::Waiting { until: now };
        Self { plan, state, history: History::default(), starts: 0 }
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
        self.running().is_some_and(|running| running.ready.is_some() && !running.is_ending())
    }

    /// When something is to be done about it.
    pub(crate) fn next(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { until } => Some(*until),
            State::Running(running) => running.next.map(|(at, _)| at),
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
    pub(crate) fn new(process: Process, ready_by: Instant) -> Self {
        Self {
            process,
            ready: None,
            tasks: BTreeMap::new(),
            output_open: true,
            ended: None,
            why: None,
            signalled: false,
            next: Some((ready_by, Next::NotReady)),
        }
    }

    /// Whether it has ended or is being ended.
    pub(crate) fn is_ending(&self) -> bool {
        self.ended.is_some() || self.why.is_some()
    }

    /// Whether its process has ended and no answer can come any more.
    pub(crate) fn is_dead(&self) -> bool {
        self.ended.is_some() && !self.output_open
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

    /// Takes the next step of ending it.
    pub(crate) fn step(&mut self, next: Next, now: Instant, timing: &Timing) {
        let pid = self.process.pid();
        match next {
            Next::NotReady => {}
            Next::Terminate => {
                self.process.close_input();
                self.process.signal(Signal::SIGTERM);
                self.signalled = true;
                self.next = Some((now + timing.grace, Next::Kill));
            }
            Next::Kill => {
                tracing::warn!(pid, "an executor did not end in time and is killed");
                self.process.signal(Signal::SIGKILL);
                self.signalled = true;
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
                tracing::warn!(pid, "an executor ended while something held its output open");
                self.output_open = false;
                self.next = None;
            }
        }
    }
}

/// Understands a line that an executor wrote.
pub(crate) fn understand(line: Line) -> Answer {
    let beginning = shown(&line);
    let (text, reason) = match line {
        Line::Whole(mut text) => match RawResponse::parse(&text) {
            Ok(response) => {
                text.push(b'\n');
                return Answer::Whole { id: response.id, line: text };
            }
            Err(bad) => (text, bad.reason),
        },
        Line::Unterminated(text) => (text, "it ended in the middle of the line".to_owned()),
        Line::TooLong { head, length } => (head, format!("the line has {length} bytes")),
    };
    match salvage_id(&text) {
        Some(id) => Answer::Broken { id, reason },
        None => Answer::Junk { reason: format!("{reason}; it begins with {beginning:?}") },
    }
}

/// The beginning of a line, for the log.
pub(crate) fn shown(line: &Line) -> String {
    const SHOWN: usize = 200;
    let (Line::Whole(text) | Line::Unterminated(text) | Line::TooLong { head: text, .. }) = line;
    String::from_utf8_lossy(&text[..text.len().min(SHOWN)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_answers_broken_answers_or_junk() {
        let whole = |text: &str| understand(Line::Whole(text.into()));
        let answer = r#"{"id":7,"err_msg":null,"output":{"a":[1, 2]},"extra":0}"#;
        match whole(answer) {
            Answer::Whole { id: 7, line } => assert_eq!(line, format!("{answer}\n").as_bytes()),
            other => panic!("{other:?}"),
        }
        for line in [
            Line::Whole(br#"{"id":7,"err_msg":null,"output":null}"#.into()),
            Line::Whole(br#"{"id":7,"err_msg":"x","output":1}"#.into()),
            Line::Unterminated(br#"{"id":7,"err_msg":null,"output":{"a""#.into()),
            Line::TooLong { head: br#"{"id":7,"err_msg":null,"#.into(), length: 1 << 30 },
        ] {
            assert!(matches!(understand(line), Answer::Broken { id: 7, .. }));
        }
        for junk in ["", "pc1 processor ready", "thread panicked", r#"{"output":[,"id":7}"#] {
            assert!(matches!(whole(junk), Answer::Junk { .. }), "{junk}");
        }
    }
}
