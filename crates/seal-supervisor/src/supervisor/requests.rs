//! The parent's side: its requests, and answers that the supervisor writes itself.

use std::time::{Duration, Instant, SystemTime};

use seal_wire::{ErrorCode, RequestHead, Response, TaskError, ready_line, to_line};

use super::Supervisor;
use crate::facts::EndedTask;
use crate::parent::{RequestLine, sector_of};
use crate::place::Place;
use crate::queue::Request;

/// What the log tells of a request beside its number.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Whose<'a> {
    /// Its sector, if that is known.
    pub(super) sector: Option<&'a str>,
    /// The executor that had it, if one had.
    pub(super) pid: Option<u32>,
}

impl<'a> Whose<'a> {
    /// Of a request that no executor has had.
    fn of(sector: Option<&'a str>) -> Self {
        Self { sector, pid: None }
    }
}

impl Supervisor {
    pub(super) fn accept(&mut self, head: RequestHead, line: RequestLine) {
        let RequestHead { id, sector } = head;
        let sector = sector_of(id, sector);
        if self.outstanding.contains(&id) {
            return self.bad_request(Some(id), "its id is that of a request not answered yet");
        }
        if let Some(end) = self.end.as_ref().filter(|_| self.is_ending()) {
            let reason = format!("{}; the request was not started", end.reason);
            return self.refuse(id, Whose::of(sector.as_deref()), ErrorCode::Cancelled, &reason);
        }
        if let Some(reason) = self.none_left().filter(|_| !self.waits_for_the_first()) {
            let whose = Whose::of(sector.as_deref());
            return self.refuse(id, whose, ErrorCode::Unavailable, &reason);
        }
        tracing::debug!(req = id, sector, "request");
        self.outstanding.insert(id);
        self.queue.add(id, sector.map(Into::into), line, Instant::now());
    }

    pub(super) fn bad_request(&mut self, id: Option<u64>, reason: &str) {
        match id {
            // An answer would be taken for that of the first request with this id.
            Some(id) if self.outstanding.contains(&id) => {
                tracing::error!(req = id, reason, "a request repeats an id in use; it is ignored");
            }
            Some(id) => self.refuse(id, Whose::default(), ErrorCode::BadRequest, reason),
            None => tracing::error!(reason, "a line is no request and has no id; it is ignored"),
        }
    }

    /// Answers a request with an error.
    fn refuse(&mut self, id: u64, whose: Whose<'_>, code: ErrorCode, reason: &str) {
        let error = TaskError::new(code, reason);
        let Whose { sector, pid } = whose;
        tracing::warn!(req = id, sector, pid, %error, "request failed");
        *self.totals.failed.entry(code.name().to_owned()).or_default() += 1;
        self.outlet.send(to_line(&Response::<()>::failed(id, &error)));
    }

    /// Answers an outstanding request with an error.
    pub(super) fn fail(&mut self, id: u64, whose: Whose<'_>, code: ErrorCode, reason: &str) {
        if self.outstanding.remove(&id) {
            self.refuse(id, whose, code, reason);
        }
    }

    pub(super) fn fail_queue(&mut self, code: ErrorCode, reason: &str) {
        let now = Instant::now();
        for request in self.queue.clear() {
            self.fail_waiting(request, code, reason, now);
        }
    }

    /// Answers a request that no executor has.
    pub(super) fn fail_waiting(
        &mut self,
        request: Request,
        code: ErrorCode,
        reason: &str,
        now: Instant,
    ) {
        let Request { id, sector, since, .. } = request;
        self.fail(id, Whose::of(sector.as_deref()), code, reason);
        self.board.ended(EndedTask {
            req: id,
            sector: sector.map(|sector| sector.to_string()),
            executor: None,
            ended: SystemTime::now(),
            waited: now.saturating_duration_since(since),
            ran: Duration::ZERO,
            held: Vec::new(),
            error: Some(TaskError::new(code, reason).to_string()),
        });
    }

    pub(super) fn announce(&mut self, now: Instant) {
        if self.announced || self.end.is_some() {
            return;
        }
        let ready = self.places.iter().filter(|place| Place::takes_tasks(place)).count();
        // One that failed has ended the start, where that is not waited with.
        if ready > 0 || now >= self.timing.announce_by {
            tracing::info!(ready, executors = self.places.len(), "ready");
            self.outlet.send(format!("{}\n", ready_line(self.stage)).into_bytes());
            self.announced = true;
        }
    }
}
