//! What the parent sees of a supervisor that could not be started.
//!
//! A worker starts a processor that has ended once more, three seconds later, and then never again:
//! a supervisor that ends because of a typo in its file has ended its stage until the worker is
//! restarted. So it stays, takes requests and lets them wait, while whoever looks after the machine
//! mends what is wrong; those that have waited long enough are answered with what it is.

use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use seal_wire::{ErrorCode, ExitCode, RequestHead, Response, TaskError, to_line};

use crate::event::Event;
use crate::facts::{Board, Facts, Life, QUEUE_SHOWN, Totals, WaitingFacts};
use crate::parent::{Parent, RequestLine, sector_of};
use crate::queue::Request;
use crate::watched_file::{LOOK_AT_FILE, WatchedFile};

/// How often the start is tried again without a change of the file: a binary may have been put in
/// its place, or a supervisor have ended whose limits were others.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// So many requests wait at most, and so many bytes of them, or one of any length. Those of a
/// sector have a few thousand bytes, of C2 some million.
const MOST: usize = 1024;
const MOST_BYTES: usize = 256 << 20;

/// Why the start failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// With what this process ends if nobody waits any more.
    pub(crate) code: ExitCode,
    /// What is wrong, in one line.
    pub(crate) reason: String,
}

/// Times of the wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// When the parent is told to be ready.
    pub(crate) announce_by: Instant,
    /// How long a request waits.
    pub(crate) longest: Duration,
}

/// What comes after the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The start is tried again.
    Start,
    /// The process ends.
    End(ExitCode),
}

/// Looks after the parent until there is a point in trying the start again, or the end comes.
pub(crate) fn wait(
    parent: &mut Parent,
    fault: &Fault,
    patience: Patience,
    file: &WatchedFile,
    board: Option<&Board>,
) -> Next {
    let again_at = Instant::now() + TRY_AGAIN;
    loop {
        if parent.input_ended.is_some() {
            fail_all(parent, ErrorCode::Unavailable, &fault.reason);
            return Next::End(fault.code);
        }
        let now = Instant::now();
        fail_overdue(parent, fault, patience.longest, now);
        if let Some(board) = board {
            board.publish(facts(parent, fault, now));
        }
        if !parent.announced && now >= patience.announce_by {
            tracing::warn!("ready, to let requests wait until the start succeeds");
            parent.announce();
        }
        if now >= again_at || file.has_changed() {
            return Next::Start;
        }
        let oldest = parent.requests.first().map(|request| request.since + patience.longest);
        let announce = (!parent.announced).then_some(patience.announce_by);
        let at = [Some(again_at), Some(now + LOOK_AT_FILE), oldest, announce].into_iter().flatten();
        let pause = at.min().unwrap_or(again_at).saturating_duration_since(now);
        if let Ok(event) = parent.events.recv_timeout(pause)
            && let Some(code) = handle(parent, fault, event)
        {
            return Next::End(code);
        }
    }
}

/// Returns the exit code if the event ends the process.
fn handle(parent: &mut Parent, fault: &Fault, event: Event) -> Option<ExitCode> {
    match event {
        Event::Request { head, line } => accept(parent, fault, head, line),
        Event::BadRequest { id, reason } => match id {
            Some(id) if !holds(parent, id) => fail(parent, id, ErrorCode::BadRequest, &reason),
            _ => tracing::error!(req = id, reason, "a line is no request; it is ignored"),
        },
        Event::InputEnded(error) => {
            match error {
                Some(error) => tracing::error!(%error, "standard input cannot be read"),
                None => tracing::info!(unanswered = parent.requests.len(), "input ended"),
            }
            parent.input_ended = Some(Instant::now());
        }
        Event::OutputGone(error) => {
            tracing::error!(%error, "the parent does not take answers any more");
            return Some(ExitCode::ParentGone);
        }
        Event::Signal(signal) => {
            told_to_end(parent, signal);
            return Some(ExitCode::Success);
        }
        // Left over from executors that are no more.
        Event::LimitsChanged | Event::Executor { .. } => {}
    }
    None
}

fn told_to_end(parent: &mut Parent, signal: Signal) {
    tracing::info!(%signal, "told to end");
    let reason = format!("the supervisor was told to end by {signal}");
    fail_all(parent, ErrorCode::Cancelled, &reason);
}

fn accept(parent: &mut Parent, fault: &Fault, head: RequestHead, line: RequestLine) {
    let RequestHead { id, sector } = head;
    if holds(parent, id) {
        tracing::error!(req = id, "a request repeats an id in use; it is ignored");
        return;
    }
    let bytes: usize = parent.requests.iter().map(|request| request.line.len()).sum();
    let is_full = parent.requests.len() >= MOST || bytes + line.text.len() > MOST_BYTES;
    if is_full && !parent.requests.is_empty() {
        let count = parent.requests.len();
        let reason = format!("{}; {count} requests wait already", fault.reason);
        return fail(parent, id, ErrorCode::Unavailable, &reason);
    }
    let sector = sector_of(id, sector);
    tracing::info!(req = id, sector, "a request waits until the start succeeds");
    parent.requests.add(id, sector.map(Into::into), line, Instant::now());
}

fn holds(parent: &Parent, id: u64) -> bool {
    parent.requests.iter().any(|request| request.id == id)
}

fn fail_overdue(parent: &mut Parent, fault: &Fault, longest: Duration, now: Instant) {
    let is_overdue = |request: &Request| now >= request.since + longest;
    while parent.requests.first().is_some_and(is_overdue) {
        let Some(request) = parent.requests.take() else { return };
        let waited = humantime::format_duration(longest);
        let reason = format!("{}; the request has waited for {waited}", fault.reason);
        fail(parent, request.id, ErrorCode::Unavailable, &reason);
    }
}

fn fail_all(parent: &mut Parent, code: ErrorCode, reason: &str) {
    for request in parent.requests.clear() {
        fail(parent, request.id, code, reason);
    }
}

fn fail(parent: &Parent, id: u64, code: ErrorCode, reason: &str) {
    let error = TaskError::new(code, reason);
    tracing::warn!(req = id, %error, "request failed");
    parent.outlet.send(to_line(&Response::<()>::failed(id, &error)));
}

/// What is told of a supervisor that waits.
pub(crate) fn facts(parent: &Parent, fault: &Fault, now: Instant) -> Facts {
    let told = |request: &Request| WaitingFacts {
        req: request.id,
        sector: request.sector.as_deref().map(str::to_owned),
        since: SystemTime::now() - now.saturating_duration_since(request.since),
        reason: "the supervisor cannot start".to_owned(),
    };
    Facts {
        stage: parent.stage,
        life: Life::CannotStart(fault.reason.clone()),
        executors: Vec::new(),
        waiting: parent.requests.len(),
        queue: parent.requests.iter().take(QUEUE_SHOWN).map(told).collect(),
        totals: Totals::default(),
    }
}
