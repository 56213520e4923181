//! Tasks: which one starts where, and what executors answer.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant, SystemTime};

use seal_config::Drain;
use seal_limits::{Openings, Resource, TICKETS_MOST};
use seal_types::{MESSAGE_MOST, shortened};
use seal_wire::{ErrorCode, Line};

use super::Supervisor;
use super::requests::Whose;
use crate::facts::EndedTask;
use crate::limits::{Held, Holder, machine_time};
use crate::place::{Answer, Next, Place, Task, code_of, understand};
use crate::queue::Queue;
use crate::told::TaskProgress;

/// How often it is checked, after the end of the input, whether answers still have a reader.
const LOOK_FOR_READER: Duration = Duration::from_millis(500);

impl Supervisor {
    /// Hands waiting requests to executors as far as rules, limits and locks let it.
    pub(super) fn start_tasks(&mut self, now: Instant) {
        self.look_at = None;
        let needs = self.places.iter().map(|place| &place.plan.needs);
        if !self.limits.concerns(needs) {
            self.start_unlimited(now);
        } else if !self.queue.is_empty() || self.limits.has_business() {
            self.start_limited(now);
        }
        if !self.input_open && self.announced && self.end.is_none() {
            let at = now + LOOK_FOR_READER;
            self.look_at = Some(self.look_at.map_or(at, |other| other.min(at)));
        }
    }

    /// Whether no task is started any more.
    fn starts_nothing(&self) -> bool {
        self.end.is_some() || (!self.input_open && self.drain != Drain::Task)
    }

    fn start_unlimited(&mut self, now: Instant) {
        while !self.queue.is_empty() {
            let ends = self.starts_nothing();
            let openings = openings(&self.places, &self.queue, ends, self.limits.counts());
            let Some(place) = openings.order.first() else { return };
            let place = &mut self.places[*place];
            hand_over(place, &mut self.queue, Held::default(), self.retry, now);
        }
    }

    fn start_limited(&mut self, now: Instant) {
        // The round borrows the limits, and hands over what they let start.
        let ends = self.starts_nothing();
        let Self { limits, places, queue, retry, stage, .. } = self;
        let counts = limits.counts().clone();
        let until = limits.round(|round| {
            loop {
                let openings = openings(places, queue, ends, &counts);
                round.want(openings.room.min(TICKETS_MOST), &openings.choices);
                let Some(grant) = round.next() else { return };
                let Some(choice) = grant.choices.first().copied() else { return };
                let needs = &openings.choices[choice];
                let fits = |at: &&usize| places[**at].plan.needs == *needs;
                let Some(at) = openings.order.iter().find(fits).copied() else { return };
                let place = &mut places[at];
                let (Some(running), Some(request)) = (place.running(), queue.first()) else {
                    return;
                };
                let holder = Holder {
                    stage: stage.name().to_owned(),
                    req: request.id,
                    sector: request.sector.as_ref().map(|sector| sector.to_string()),
                    supervisor: std::process::id(),
                    executor: running.process.pid(),
                    since: machine_time(),
                };
                if let Some(held) = round.take(&grant, choice, &running.slots, &holder) {
                    hand_over(place, queue, held, *retry, now);
                }
            }
        });
        self.look_at = until.map(|until| now + until);
        if let Some(reason) = self.limits.hopeless() {
            self.fail_queue(ErrorCode::Unavailable, &reason);
        }
    }

    /// A line from an executor that is ready.
    pub(super) fn line(&mut self, index: usize, line: Line, now: Instant) {
        let place = &mut self.places[index];
        let name = place.name();
        let Some(running) = place.running_mut() else { return };
        let pid = running.process.pid();
        match understand(line) {
            Answer::Whole { id, line, error } => {
                let code = error.as_deref().map(code_of);
                // What was ended because of another task is lost, not cancelled by anybody.
                let lost = running.why.is_some() && self.end.is_none();
                if lost && code.as_deref() == Some(ErrorCode::Cancelled.name()) {
                    tracing::info!(req = id, pid, "a task was stopped with its executor");
                    return;
                }
                let Some(task) = running.tasks.remove(&id) else {
                    tracing::warn!(req = id, pid, "an answer to no request of this executor");
                    return;
                };
                place.history.answered();
                self.outstanding.remove(&id);
                let ran = now.saturating_duration_since(task.started);
                let ran_ms = u64::try_from(ran.as_millis()).unwrap_or(u64::MAX);
                let sector = task.sector.as_deref();
                match &error {
                    None => {
                        self.totals.done += 1;
                        tracing::info!(req = id, sector, pid, ran_ms, "task ends");
                    }
                    Some(error) => {
                        // The parent gets it whole.
                        let error = &*shortened(error, MESSAGE_MOST);
                        *self.totals.failed.entry(code.unwrap_or_default()).or_default() += 1;
                        tracing::warn!(req = id, sector, pid, ran_ms, error, "task fails");
                    }
                }
                let error = error.map(|error| shortened(&error, MESSAGE_MOST).into_owned());
                self.remember(index, id, task, error, now);
                self.outlet.send(line);
                self.remind_when_idle(index, now);
            }
            Answer::Told(seal_wire::Event::Device(report)) => {
                place.device(report);
                self.fail_if_none_left();
            }
            Answer::Told(told) => running.told(told, now),
            Answer::Broken { id, reason } => {
                let Some(task) = running.tasks.remove(&id) else {
                    tracing::warn!(req = id, pid, reason, "a broken answer to no request");
                    return;
                };
                let reason = format!("{name} (pid {pid}) wrote a broken answer: {reason}");
                let sector = task.sector.clone();
                self.remember(index, id, task, Some(reason.clone()), now);
                let whose = Whose { sector: sector.as_deref(), pid: Some(pid) };
                self.fail(id, whose, ErrorCode::Internal, &reason);
                self.remind_when_idle(index, now);
            }
            Answer::Junk { reason } => {
                tracing::warn!(pid, reason, "an executor wrote a line that is no answer");
            }
        }
    }

    /// Notes how a task ended, and releases what it held.
    pub(super) fn remember(
        &mut self,
        index: usize,
        id: u64,
        task: Task,
        error: Option<String>,
        now: Instant,
    ) {
        self.board.ended(EndedTask {
            req: id,
            sector: task.sector.as_deref().map(str::to_owned),
            executor: Some(self.places[index].plan.key.clone()),
            ended: SystemTime::now(),
            waited: task.waited,
            ran: now.saturating_duration_since(task.started),
            held: task.holds,
            error,
        });
    }

    /// An executor whose input is closed and that has done everything should end by itself.
    fn remind_when_idle(&mut self, index: usize, now: Instant) {
        let at = now + self.timing.grace;
        let Some(end) = &self.end else { return };
        if let Some(running) = self.places[index].running_mut()
            && running.tasks.is_empty()
            && running.next.is_none()
        {
            running.end(&end.reason, at);
            running.next.get_or_insert((at, Next::Terminate));
        }
    }
}

/// Gives the first waiting request to an executor.
fn hand_over(place: &mut Place, queue: &mut Queue, held: Held, retry: u32, now: Instant) {
    let holds = held.resources();
    let Some(running) = place.running_mut() else { return };
    let Some(request) = queue.take() else { return };
    let (id, tries, pid) = (request.id, request.tries, running.process.pid());
    let waited = now.saturating_duration_since(request.since);
    let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(
        req = id,
        sector = request.sector.as_deref(),
        pid,
        tries,
        waited_ms,
        "task starts"
    );
    running.process.send(request.line.clone());
    let task = Task {
        held,
        holds,
        sector: request.sector.clone(),
        tries,
        again: (tries <= retry).then_some(request),
        started: now,
        started_at: SystemTime::now(),
        waited,
        heard: now,
        runs: false,
        progress: TaskProgress::default(),
    };
    running.tasks.insert(id, task);
}

fn openings(
    places: &[Place],
    queue: &Queue,
    ends: bool,
    counts: &BTreeMap<Resource, NonZeroU32>,
) -> Openings {
    let rules: Vec<_> = places.iter().map(|place| as_rule(place, ends)).collect();
    Openings::of(&rules, queue.len(), counts)
}

/// The executor as the rules see it.
fn as_rule(place: &Place, ends: bool) -> seal_limits::Place {
    let running = place.running().map_or(0, |running| running.tasks.len());
    seal_limits::Place {
        ready: !ends && place.takes_tasks(),
        running: u32::try_from(running).unwrap_or(u32::MAX),
        concurrent: place.plan.concurrent,
        needs: place.plan.needs.clone(),
    }
}
