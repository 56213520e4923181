//! What is going on, for whoever looks.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::{Duration, Instant, SystemTime};

use seal_limits::RestartPolicy;
use seal_types::StageName;

use super::Supervisor;
use crate::facts::{
    ExecutorFacts, ExecutorState, Facts, Life, ProgressFacts, QUEUE_SHOWN, TaskFacts, Totals,
    WaitingFacts,
};
use crate::place::{Place, State, Task};
use crate::told::Part;

/// How often at most something is published.
const PUBLISH_EVERY: Duration = Duration::from_millis(200);

impl Supervisor {
    /// Something has changed.
    pub(super) fn publish_soon(&mut self) {
        if self.publish_at.is_none() {
            let now = Instant::now();
            self.publish_at =
                Some(self.published.map_or(now, |last| (last + PUBLISH_EVERY).max(now)));
        }
    }

    pub(super) fn publish(&mut self, now: Instant) {
        self.publish_at = None;
        self.published = Some(now);
        let life = match &self.end {
            Some(end) => Life::Ending(end.reason.clone()),
            None if self.announced => Life::Serving,
            None => Life::Starting,
        };
        let policy = &self.timing.restart;
        self.board.publish(Facts {
            stage: self.stage,
            life,
            executors: self.places.iter().map(|place| executor(place, policy, now)).collect(),
            waiting: self.queue.len(),
            queue: self.queue_facts(now),
            totals: self.totals.clone(),
        });
    }

    fn queue_facts(&self, now: Instant) -> Vec<WaitingFacts> {
        let idle = self.idle_reason();
        // The first ones have places in the queue that all supervisors share.
        let reasons = self.limits.reasons().iter().map(String::as_str);
        let reasons = reasons.chain(std::iter::repeat(idle.as_str()));
        let facts = |(request, reason): (&crate::queue::Request, &str)| WaitingFacts {
            req: request.id,
            sector: request.sector.as_deref().map(str::to_owned),
            since: wall(request.since, now),
            reason: reason.to_owned(),
        };
        self.queue.iter().take(QUEUE_SHOWN).zip(reasons).map(facts).collect()
    }

    /// Why a request has no place yet in the queue that all supervisors share.
    fn idle_reason(&self) -> String {
        let ready: Vec<_> = self.places.iter().filter(|place| place.takes_tasks()).collect();
        if ready.is_empty() {
            return "no executor is ready".to_owned();
        }
        let counts = self.limits.counts();
        let mut own = BTreeSet::new();
        for place in ready {
            let tasks = place.running().map_or(0, |running| running.tasks.len());
            let reaches = |count: NonZeroU32| tasks >= count.get() as usize;
            if !place.plan.concurrent.is_some_and(reaches) {
                let needs = place.plan.needs.iter();
                own.extend(needs.filter(|need| counts.get(need).copied().is_some_and(reaches)));
            }
        }
        if own.is_empty() {
            return "all executors have as many tasks as they take".to_owned();
        }
        let own: Vec<_> = own.into_iter().map(ToString::to_string).collect();
        format!("{} is held by tasks of this supervisor's own executors", own.join(" and "))
    }
}

/// What is known before the first executor is started.
pub(super) fn first_facts(stage: StageName, places: &[Place]) -> Facts {
    let now = Instant::now();
    let policy = RestartPolicy {
        first_wait: Duration::ZERO,
        longest_wait: Duration::ZERO,
        loop_after: u32::MAX,
        loop_wait: Duration::ZERO,
    };
    Facts {
        stage,
        life: Life::Starting,
        executors: places.iter().map(|place| executor(place, &policy, now)).collect(),
        waiting: 0,
        queue: Vec::new(),
        totals: Totals::default(),
    }
}

/// The time of day of a moment near `now`.
fn wall(at: Instant, now: Instant) -> SystemTime {
    let wall = SystemTime::now();
    match at.checked_duration_since(now) {
        Some(ahead) => wall + ahead,
        None => wall - now.saturating_duration_since(at),
    }
}

fn executor(place: &Place, policy: &RestartPolicy, now: Instant) -> ExecutorFacts {
    let state = match &place.state {
        State::Waiting { until, looping: None } => {
            ExecutorState::Waiting { until: wall(*until, now) }
        }
        State::Waiting { until, looping: Some(_) } => {
            ExecutorState::CrashLoop { until: wall(*until, now) }
        }
        State::Running(running) => match (&running.why, running.ready) {
            (Some(why), _) => ExecutorState::Ending(why.clone()),
            (None, Some(_)) => match &running.left_out {
                Some(why) => ExecutorState::DeviceLeftOut(why.clone()),
                None => ExecutorState::Ready,
            },
            (None, None) if place.history.is_looping(policy) => {
                ExecutorState::CrashLoop { until: SystemTime::now() }
            }
            (None, None) => ExecutorState::Starting,
        },
        State::GivenUp(why) => ExecutorState::GivenUp(why.clone()),
        State::Stopped => ExecutorState::Stopped,
    };
    let tasks = place.running().into_iter().flat_map(|running| &running.tasks);
    let run = tasks.clone().filter(|(_, task)| task.runs).count();
    ExecutorFacts {
        key: place.plan.key.clone(),
        program: place.plan.program.clone(),
        pid: place.running().map(|running| running.process.pid()),
        state,
        since: place.since,
        restarts: place.starts.saturating_sub(1),
        last_end: place.last_end.clone(),
        device: place.device.clone(),
        tasks: tasks.map(|(id, task)| task_facts(*id, task, run)).collect(),
    }
}

/// Facts of a task, of which as many as `beside` run at its executor.
fn task_facts(id: u64, task: &Task, beside: usize) -> TaskFacts {
    let in_line = || {
        (!task.runs && beside > 0)
            .then(|| format!("for its executor, which runs {beside} other tasks"))
    };
    let waits = task.progress.waits.clone().or_else(in_line);
    TaskFacts {
        req: id,
        sector: task.sector.as_deref().map(str::to_owned),
        started: task.started_at,
        waited: task.waited,
        tries: task.tries,
        holds: task.holds.clone(),
        progress: task.progress.shown().map(progress),
        waits,
        whole: task.progress.whole,
    }
}

fn progress(part: &Part) -> ProgressFacts {
    let (begun, at_first) = part.first;
    let seconds = part.last.saturating_duration_since(begun).as_secs_f64();
    let done = part.told.done.saturating_sub(at_first);
    let per_second = if seconds > 0.0 { done as f64 / seconds } else { 0.0 };
    let left = part.told.total.saturating_sub(part.told.done) as f64 / per_second;
    ProgressFacts {
        part: part.told.part.clone(),
        done: part.told.done,
        total: part.told.total,
        unit: part.told.unit,
        per_second,
        // A part that is complete is not what is worked on.
        left: Duration::try_from_secs_f64(left)
            .ok()
            .filter(|_| per_second > 0.0 && part.told.done < part.told.total),
    }
}
