//! The end: of the input, of the parent, by signals.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use seal_config::Drain;
use seal_wire::{ErrorCode, ExitCode};

use super::{End, Served, Supervisor};
use crate::place::{Place, State};

/// How long after the end of the input it is known whether somebody still reads answers.
const PARENT_DIES_WITHIN: Duration = Duration::from_millis(200);

impl Supervisor {
    pub(super) fn signalled(&mut self, signal: Signal) {
        if self.is_ending() {
            tracing::warn!(%signal, "told again to end: executors are killed");
            return self.kill_all("the supervisor was told twice to end");
        }
        tracing::info!(%signal, drain = ?self.drain, "told to end");
        self.drain(ExitCode::Success, &format!("the supervisor was told to end by {signal}"));
    }

    /// Ends the supervisor; what runs goes on as far as `drain` says.
    pub(super) fn drain(&mut self, code: ExitCode, reason: &str) {
        let now = Instant::now();
        match self.drain {
            Drain::Checkpoint => self.end_from(code, reason, now),
            Drain::Now => {
                self.end_from(code, reason, now);
                self.kill_all(reason);
            }
            Drain::Task => {
                if !self.begin_end(code, reason) {
                    return;
                }
                for place in &mut self.places {
                    if let State::Running(running) = &mut place.state {
                        running.process.close_input();
                        // Who is done, or not even ready, has nothing to end; the others end by
                        // themselves and are reminded if they do not.
                        if running.tasks.is_empty() {
                            running.end(reason, now);
                        }
                    }
                }
            }
        }
    }

    /// After the end of the input: ends as `drain` says. With `task`, what was asked for is finished
    /// first, also what has not started yet, as long as somebody reads the answers.
    pub(super) fn end_when_drained(&mut self, now: Instant) {
        if self.input_open || self.is_ending() {
            return;
        }
        if !self.announced {
            // Nobody will ask any more for what could not be started.
            let failed = self.places.iter().filter(|_| !self.was_ready);
            if let Some(story) = failed.filter_map(|place| place.last_end.clone()).next() {
                self.end_from(ExitCode::Start, &format!("the start failed: {story}"), now);
            }
            return;
        }
        if self.outstanding.is_empty() {
            // Executors end by themselves when their input does; a reminder comes with grace.
            self.end_from(ExitCode::Success, "the input ended", now + self.timing.grace);
        } else if !self.outlet.has_reader() {
            tracing::error!("nobody reads answers any more");
            self.drain(ExitCode::ParentGone, "the parent is gone");
        } else if self.drain != Drain::Task {
            // A parent that dies closes one thing after the other: see first whether it is gone.
            let at = self.input_ended.unwrap_or(now) + PARENT_DIES_WITHIN;
            if now >= at {
                self.drain(ExitCode::Success, "the input ended");
            } else {
                self.look_at = Some(self.look_at.map_or(at, |other| other.min(at)));
            }
        }
    }

    /// Ends the supervisor: closes the executors' input, and ends from `from` on those that do not
    /// end by themselves. What has not been started is cancelled.
    pub(super) fn end_from(&mut self, code: ExitCode, reason: &str, from: Instant) {
        if !self.begin_end(code, reason) {
            return;
        }
        for place in &mut self.places {
            if let State::Running(running) = &mut place.state {
                running.process.close_input();
                running.end(reason, from);
            }
        }
    }

    /// Whether the supervisor ends for good.
    pub(super) fn is_ending(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.how != Served::ConfigurationChanged)
    }

    /// Ends what cannot be started when the configuration has changed: from the new one it perhaps
    /// can. Requests go on waiting.
    pub(super) fn begin_anew(&mut self) {
        let reason = "the configuration has changed before any executor was ready";
        tracing::info!("{reason}; it is read again");
        let how = Served::ConfigurationChanged;
        self.end = Some(End { how, reason: reason.to_owned() });
        self.stop_places();
        self.kill_all(reason);
    }

    /// Starts nothing any more. Returns whether that is new.
    fn begin_end(&mut self, code: ExitCode, reason: &str) -> bool {
        if self.is_ending() {
            return false;
        }
        self.end = Some(End { how: Served::Ended(code), reason: reason.to_owned() });
        self.fail_queue(ErrorCode::Cancelled, reason);
        self.stop_places();
        true
    }

    /// Nothing that does not run is started any more.
    fn stop_places(&mut self) {
        for place in &mut self.places {
            if !matches!(place.state, State::Running(_)) {
                place.enter(State::Stopped);
            }
        }
    }

    fn kill_all(&mut self, why: &str) {
        let now = Instant::now();
        for running in self.places.iter_mut().filter_map(Place::running_mut) {
            running.kill(why, now);
        }
    }
}
