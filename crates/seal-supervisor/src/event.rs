//! What the threads around the supervisor's loop tell it.

use std::io;

use nix::sys::signal::Signal;
use seal_host::Ending;
use seal_wire::{Line, RequestHead};

use crate::parent::RequestLine;

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A request from the parent, as it came.
    Request {
        /// What it is about.
        head: RequestHead,
        /// The line without its end.
        line: RequestLine,
    },
    /// A line from the parent that is no request.
    BadRequest {
        /// The id, if it could be read all the same.
        id: Option<u64>,
        /// What is wrong.
        reason: String,
    },
    /// No more lines come from the parent.
    InputEnded(Option<io::Error>),
    /// Answers do not reach the parent any more.
    OutputGone(io::Error),
    /// Another supervisor changed something about limits and locks.
    LimitsChanged,
    /// This process was sent a signal.
    Signal(Signal),
    /// Something happened to an executor.
    Executor { tag: Tag, what: FromExecutor },
}

/// Which process of which executor. Numbers tell a restarted executor from its predecessor, some
/// of whose events may still be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// Under which service of the parent it was started.
    pub(crate) service: u64,
    /// The executor's place in the plan.
    pub(crate) place: usize,
    /// Which start of it.
    pub(crate) start: u64,
}

/// Something that happened to an executor.
#[derive(Debug)]
pub(crate) enum FromExecutor {
    /// It wrote a line.
    Line(Line),
    /// It closed its standard output.
    OutputEnded,
    /// It closed its standard error.
    LogEnded,
    /// It does not read its standard input any more.
    InputClosed(io::Error),
    /// What it had left behind was looked for, and ended.
    StraysEnded,
    /// It ended. Its status has not been taken from it yet.
    Ended(io::Result<Ending>),
}
