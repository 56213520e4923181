//! Who starts what: the rules of supervisors, and of those who have none.

use std::cmp::Reverse;
use std::time::Duration;

use seal_limits::{Decision, Joining, Needs, Openings, Reason, Resource, TICKETS_MOST};

use super::Locks;
use super::engine::{Engine, Event, Task};

/// A stage that waits for a greedy lock looks so often whether it is free.
const GREEDY_LOOKS: Duration = Duration::from_secs(1);

impl Engine<'_> {
    /// Starts all that may start, as supervisors do that keep one book together.
    pub(super) fn start_tasks(&mut self) {
        if matches!(self.options.locks, Locks::Greedy) {
            return;
        }
        loop {
            for stage in 0..self.desks.len() {
                if !std::mem::take(&mut self.desks[stage].unsettled) {
                    continue;
                }
                if self.desks[stage].limited {
                    self.want(stage);
                } else {
                    self.start_unlimited(stage);
                }
            }
            if self.desks.iter().all(|desk| desk.tickets.is_empty()) || !self.start_next() {
                return;
            }
        }
    }

    fn start_unlimited(&mut self, stage: usize) {
        loop {
            self.find_openings(stage);
            let desk = &self.desks[stage];
            let Some(local) = desk.openings.order.first().copied() else { return };
            if desk.queue.is_empty() {
                return;
            }
            self.hand_over(stage, local);
        }
    }

    fn find_openings(&mut self, stage: usize) {
        let desk = &mut self.desks[stage];
        if std::mem::take(&mut desk.stale) {
            desk.openings = Openings::of(&desk.places, desk.queue.len(), &self.model.counts);
        }
    }

    /// Keeps as many tickets in the book as there is room for requests.
    fn want(&mut self, stage: usize) {
        self.find_openings(stage);
        let desk = &mut self.desks[stage];
        let choices = &desk.openings.choices;
        let count = if choices.is_empty() { 0 } else { desk.openings.room.min(TICKETS_MOST) };
        while desk.tickets.len() > count {
            if let Some(ticket) = desk.tickets.pop() {
                self.book.leave(ticket);
            }
        }
        for ticket in &desk.tickets {
            self.book.renew(*ticket, choices);
        }
        while desk.tickets.len() < count {
            let joining = Joining {
                kind: u8::try_from(stage).unwrap_or(u8::MAX),
                choices: choices.clone(),
                spacing: self.model.stages[stage].spacing,
            };
            desk.tickets.push(self.book.join(joining));
        }
    }

    /// Starts the next request that the book lets start; whether there was one.
    fn start_next(&mut self) -> bool {
        for verdict in self.book.decide(&self.free, self.now) {
            let kind = self.book.waiter(verdict.ticket).map(|waiter| usize::from(waiter.kind));
            let Some(stage) = kind else { continue };
            match &verdict.decision {
                Decision::Start { choices } => {
                    let Some(choice) = choices.first().copied() else { continue };
                    let desk = &mut self.desks[stage];
                    let needs = &desk.openings.choices[choice];
                    let fits = |at: &&usize| desk.places[**at].needs == *needs;
                    let Some(local) = desk.openings.order.iter().find(fits).copied() else {
                        continue;
                    };
                    self.book.start(&verdict, choice, self.now);
                    desk.tickets.retain(|ticket| *ticket != verdict.ticket);
                    self.hand_over(stage, local);
                    return true;
                }
                Decision::Wait(Reason::Spacing { until }) => self.look_later(stage, *until),
                Decision::Wait(_) => {}
            }
        }
        false
    }

    /// Starts all that a stage can start which cares for nobody else.
    pub(super) fn grab(&mut self, stage: usize) {
        while !self.desks[stage].queue.is_empty() {
            if let Some(until) = self.kept_apart_until(stage) {
                return self.look_later(stage, until);
            }
            self.find_openings(stage);
            let desk = &self.desks[stage];
            let is_free = |need: &Resource| self.free.get(need) != Some(&0);
            let can = |local: &&usize| desk.places[**local].needs.iter().all(is_free);
            let Some(local) = desk.openings.order.iter().find(can).copied() else { return };
            self.hand_over(stage, local);
        }
    }

    /// Until when no task of the stage may start, because the last start is too short a time ago.
    fn kept_apart_until(&self, stage: usize) -> Option<Duration> {
        let until = self.desks[stage].started?.saturating_add(self.model.stages[stage].spacing);
        (until > self.now).then_some(until)
    }

    /// Gives the first waiting request to an executor.
    fn hand_over(&mut self, stage: usize, local: usize) {
        let machine = self.model.stages[stage].executors[local];
        let desk = &mut self.desks[stage];
        let Some((arrived, mut request)) = desk.queue.pop_first() else { return };
        request.tries += 1;
        desk.started = Some(self.now);
        desk.places[local].running += 1;
        let needs = &self.model.machines[machine].needs;
        for need in needs.iter() {
            if let Some(free) = self.free.get_mut(need) {
                *free = free.checked_sub(1).expect("only what is free is taken");
                let held = self.model.counts[need].get() - *free;
                self.tally.held_is(need, held, self.now);
            }
        }
        self.queue_changed(stage);
        self.pass_by(stage, needs);
        self.next += 1;
        let executor = &mut self.executors[machine];
        let task = Task { arrived, request, needs: needs.clone(), works: None };
        executor.tasks.insert(self.next, task);
        executor.inside.push_back(self.next);
        self.begin_inside(machine);
        self.load_changed(machine);
    }

    /// Notes whom this start has passed by: stages that wait for a lock that it took.
    fn pass_by(&mut self, stage: usize, taken: &Needs) {
        self.tally.served(stage);
        for other in (0..self.desks.len()).filter(|other| *other != stage) {
            let limit = self.model.stages[other].limit.as_ref();
            if self.desks[other].queue.is_empty()
                || limit.is_some_and(|limit| self.free.get(limit) == Some(&0))
                || self.kept_apart_until(other).is_some()
            {
                continue;
            }
            self.find_openings(other);
            let mut wants = self.desks[other].openings.choices.iter().flat_map(Needs::iter);
            if wants.any(|want| matches!(want, Resource::Lock(_)) && taken.contains(want)) {
                self.tally.passed_by(other);
            }
        }
    }

    /// Lets tasks that wait in an executor begin, as far as it has seats.
    pub(super) fn begin_inside(&mut self, machine: usize) {
        let given = &self.model.machines[machine];
        let executor = &mut self.executors[machine];
        while executor.working < given.seats
            && let Some(id) = executor.inside.pop_front()
            && let Some(task) = executor.tasks.get_mut(&id)
        {
            executor.working += 1;
            let dice = &mut self.dice[given.stage];
            let whole = dice.time(given.time(executor.working));
            let left = whole.mul_f64(1.0 - task.request.done);
            task.works = Some((self.now, whole));
            let waited = self.now.saturating_sub(task.request.since);
            self.tally.task_begins(given.stage, task.request.sector, waited);
            let start = executor.start;
            let (after, event) = match dice.death().filter(|death| *death < left) {
                Some(death) => (death, Event::Death { machine, start, task: id }),
                None => (left, Event::Done { machine, start, task: id }),
            };
            self.next += 1;
            self.events.push(Reverse((self.now.saturating_add(after), self.next, event)));
        }
    }
}

/// When a stage that cares for nobody else looks again. Each has its own moment.
pub(super) fn next_look(stage: usize, now: Duration) -> Duration {
    let phase = GREEDY_LOOKS / 7 * u32::try_from(stage + 1).unwrap_or(1);
    let since = now.saturating_sub(phase).as_nanos() / GREEDY_LOOKS.as_nanos();
    let looks = u32::try_from(since + 1).unwrap_or(u32::MAX);
    phase + GREEDY_LOOKS * looks
}
