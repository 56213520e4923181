//! The engine: events in the order of their times, and what they change.
//!
//! All supervisors of the machine are here at once, with one book for limits and locks. What
//! happens at the same moment is taken in before anything is started, as a supervisor does.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use seal_limits::{
    AfterDeath, Book, Decision, Free, History, Joining, Needs, Openings, Place, Reason, Resource,
    TICKETS_MOST, Ticket,
};

use super::model::{Dice, Model, Stage};
use super::tally::Tally;
use super::{Locks, Options, Supply, Until};

/// A stage that waits for a greedy lock looks so often whether it is free.
const GREEDY_LOOKS: Duration = Duration::from_secs(1);

/// No simulation goes on for longer: what was waited for will not come.
const LONGEST: Duration = Duration::from_secs(20 * 366 * 24 * 3600);

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A sector begins its way.
    Sector,
    /// A sector comes to a stage. What is done of it by an earlier request is not kept.
    Request { sector: u64, stage: usize },
    /// A sector has passed a stage that the worker does by itself.
    Passed { sector: u64, stage: usize },
    /// A task is done.
    Done { machine: usize, start: u32, task: u64 },
    /// An executor dies of a task.
    Death { machine: usize, start: u32, task: u64 },
    /// An executor is ready again.
    Ready { machine: usize },
    /// A stage looks what it can start.
    Look { stage: usize },
}

/// A request at a supervisor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) sector: u64,
    /// When it came, for the first time.
    pub(super) since: Duration,
    /// How many executors have had it.
    tries: u32,
    /// Which part of it is done and kept.
    done: f64,
}

/// A request that an executor has.
#[derive(Clone, Debug)]
struct Task {
    arrived: u64,
    request: Request,
    needs: Needs,
    /// Since when it is worked on, and how long a whole one would take; `None` while it waits in
    /// the executor.
    works: Option<(Duration, Duration)>,
}

/// An executor as it is now.
#[derive(Debug)]
struct Executor {
    /// Which start of it this is; what happens to an earlier one is of no interest.
    start: u32,
    ready_since: Duration,
    history: History,
    tasks: BTreeMap<u64, Task>,
    /// Tasks that wait in it.
    inside: VecDeque<u64>,
    working: u32,
}

/// A stage as it is now.
#[derive(Debug)]
struct Desk {
    /// Its executors as the rules see them.
    places: Vec<Place>,
    /// Requests that no executor has, by their arrival.
    queue: BTreeMap<u64, Request>,
    tickets: Vec<Ticket>,
    openings: Openings,
    /// Whether places or queue have changed since the openings were found.
    stale: bool,
    /// Whether they have changed since its tickets were put in order.
    unsettled: bool,
    /// Whether limits, locks or distances concern it at all.
    limited: bool,
    /// The last start of one of its tasks.
    started: Option<Duration>,
    /// When it looks by itself.
    look_at: Option<Duration>,
}

/// A simulation on its way.
pub(super) struct Engine<'a> {
    model: &'a Model,
    options: &'a Options,
    supply: Supply,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    /// Numbers for events, requests and tasks.
    next: u64,
    book: Book<u8>,
    free: Free,
    executors: Vec<Executor>,
    desks: Vec<Desk>,
    dice: Vec<Dice>,
    /// For the times between sectors.
    arrivals: Dice,
    sectors: u64,
    begun: BTreeMap<u64, Duration>,
    /// Something has changed that lets somebody start, perhaps.
    changed: bool,
    pub(super) tally: Tally,
}

impl<'a> Engine<'a> {
    pub(super) fn new(model: &'a Model, options: &'a Options, supply: Supply) -> Self {
        let mut book = Book::default();
        for (lock, order) in &model.orders {
            let order = match &options.locks {
                Locks::Ordered(order) => model.order(order),
                Locks::AsConfigured | Locks::Greedy => order.clone(),
            };
            book.set_order(lock.clone(), order);
        }
        let executors = model.machines.iter().map(|_| Executor {
            start: 0,
            ready_since: Duration::ZERO,
            history: History::default(),
            tasks: BTreeMap::new(),
            inside: VecDeque::new(),
            working: 0,
        });
        let desks = model.stages.iter().map(|stage| {
            let mut needs = stage.executors.iter().flat_map(|at| model.machines[*at].needs.iter());
            let limited = needs.any(|need| model.counts.contains_key(need));
            let place = |at: &usize| Place {
                ready: true,
                running: 0,
                concurrent: model.machines[*at].concurrent,
                needs: model.machines[*at].needs.clone(),
            };
            Desk {
                places: stage.executors.iter().map(place).collect(),
                queue: BTreeMap::new(),
                tickets: Vec::new(),
                openings: Openings::default(),
                stale: true,
                unsettled: true,
                limited: limited || !stage.spacing.is_zero(),
                started: None,
                look_at: None,
            }
        });
        let streams = (1_u64..).zip(&model.stages);
        let dice = streams.map(|(stream, stage)| Dice::new(options.seed, stream, &stage.times));
        let every = match supply {
            Supply::Every { mean, .. } => mean,
            Supply::InFlight(_) => Duration::ZERO,
        };
        let free = model.counts.iter().map(|(it, count)| (it.clone(), count.get())).collect();
        Self {
            model,
            options,
            supply,
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            next: 0,
            book,
            free,
            executors: executors.collect(),
            desks: desks.collect(),
            dice: dice.collect(),
            arrivals: Dice::arrivals(options.seed, every),
            sectors: 0,
            begun: BTreeMap::new(),
            changed: true,
            tally: Tally::new(model),
        }
    }

    /// Runs to the end; returns the time.
    pub(super) fn run(&mut self) -> Duration {
        match self.supply {
            Supply::InFlight(count) => {
                for _ in 0..count {
                    self.at(Duration::ZERO, Event::Sector);
                }
            }
            Supply::Every { .. } => self.at(Duration::ZERO, Event::Sector),
        }
        while let Some(Reverse((at, _, _))) = self.events.peek() {
            let at = *at;
            if let Until::Time(end) = self.options.until
                && at >= end
            {
                self.now = end;
                break;
            }
            self.tally.pass(at, &self.options.warm_up);
            self.now = at;
            while let Some(Reverse((also, _, _))) = self.events.peek()
                && *also == at
            {
                if let Some(Reverse((_, _, event))) = self.events.pop() {
                    self.handle(event);
                }
            }
            if self.changed {
                self.changed = false;
                self.start_tasks();
            }
            if self.options.until.is_reached(self.tally.finished()) || at > LONGEST {
                break;
            }
        }
        // Where nothing happens any more, time goes on all the same.
        if let Until::Time(end) = self.options.until
            && self.events.is_empty()
        {
            self.tally.pass(end, &self.options.warm_up);
            self.now = end;
        }
        let waiting = self.desks.iter().enumerate();
        for (stage, request) in waiting.flat_map(|(at, d)| d.queue.values().map(move |r| (at, r))) {
            self.tally.still_waits(stage, request, self.now);
        }
        self.now
    }

    fn at(&mut self, time: Duration, event: Event) {
        self.next += 1;
        self.events.push(Reverse((time, self.next, event)));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Sector => {
                self.sectors += 1;
                let sector = self.sectors;
                self.begun.insert(sector, self.now);
                self.tally.sector_begins(self.now);
                self.request(sector, 0);
                if let Supply::Every { random, .. } = self.supply {
                    let after = self.arrivals.until_next(random);
                    self.at(self.now.saturating_add(after), Event::Sector);
                }
            }
            Event::Request { sector, stage } => self.request(sector, stage),
            Event::Passed { sector, stage } => self.passed(sector, stage),
            Event::Done { machine, start, task } => self.done(machine, start, task),
            Event::Death { machine, start, task } => self.death(machine, start, task),
            Event::Ready { machine } => {
                self.executors[machine].ready_since = self.now;
                self.place(machine).ready = true;
                self.looks(self.model.machines[machine].stage);
            }
            Event::Look { stage } => {
                self.desks[stage].look_at = None;
                self.looks(stage);
            }
        }
    }

    /// A stage has reason to look what it can start.
    fn looks(&mut self, stage: usize) {
        self.changed = true;
        // Others are woken by the table; a greedy one looks for itself alone, and at once.
        if matches!(self.options.locks, Locks::Greedy) {
            self.grab(stage);
        }
    }

    /// A sector comes to a stage.
    fn request(&mut self, sector: u64, stage: usize) {
        if self.model.stages[stage].executors.is_empty() {
            let time = self.dice[stage].time();
            let after = self.now.saturating_add(time);
            return self.at(after, Event::Passed { sector, stage });
        }
        self.next += 1;
        let request = Request { sector, since: self.now, tries: 0, done: 0.0 };
        self.desks[stage].queue.insert(self.next, request);
        self.queue_changed(stage);
        self.looks(stage);
    }

    /// A sector has passed a stage.
    fn passed(&mut self, sector: u64, stage: usize) {
        if stage + 1 < self.model.stages.len() {
            let at = self.now.saturating_add(self.model.stages[stage].pause);
            return self.at(at, Event::Request { sector, stage: stage + 1 });
        }
        if let Some(begun) = self.begun.remove(&sector) {
            let took = self.now.saturating_sub(begun);
            self.tally.sector_ends(took, self.now, &self.options.warm_up);
        }
        if let Supply::InFlight(_) = self.supply {
            self.at(self.now, Event::Sector);
        }
    }

    /// The executor as the rules see it, to be changed.
    fn place(&mut self, machine: usize) -> &mut Place {
        let given = &self.model.machines[machine];
        let desk = &mut self.desks[given.stage];
        (desk.stale, desk.unsettled) = (true, true);
        &mut desk.places[given.local]
    }

    fn queue_changed(&mut self, stage: usize) {
        let desk = &mut self.desks[stage];
        (desk.stale, desk.unsettled) = (true, true);
        let count = self.desks[stage].queue.len();
        self.tally.queue_is(stage, count, self.now);
    }

    fn done(&mut self, machine: usize, start: u32, task: u64) {
        let executor = &mut self.executors[machine];
        if executor.start != start {
            return;
        }
        let Some(task) = executor.tasks.remove(&task) else { return };
        executor.history.answered();
        executor.working -= 1;
        self.place(machine).running -= 1;
        let stage = self.model.machines[machine].stage;
        self.release(&task.needs, stage);
        if let Some((since, _)) = task.works {
            self.tally.task_ends(stage, self.now.saturating_sub(since));
        }
        self.begin_inside(machine);
        self.load_changed(machine);
        let sector = task.request.sector;
        if self.dice[stage].fails() {
            self.tally.fails(stage);
            let at = self.now.saturating_add(self.model.retry_wait);
            self.at(at, Event::Request { sector, stage });
        } else {
            self.passed(sector, stage);
        }
        self.looks(stage);
    }

    fn death(&mut self, machine: usize, start: u32, task: u64) {
        let executor = &mut self.executors[machine];
        if executor.start != start || !executor.tasks.contains_key(&task) {
            return;
        }
        executor.start += 1;
        executor.working = 0;
        executor.inside.clear();
        let lost = std::mem::take(&mut executor.tasks);
        let given = &self.model.machines[machine];
        let stage = given.stage;
        let lived = self.now.saturating_sub(executor.ready_since);
        let (AfterDeath::Start { wait } | AfterDeath::CrashLoop { wait, .. }) =
            executor.history.died(Some(lived), &self.model.stages[stage].restart);
        let place = self.place(machine);
        (place.ready, place.running) = (false, 0);
        if given.auto_restart {
            let wait = wait.saturating_add(self.model.stages[stage].times.ready);
            let at = self.now.saturating_add(wait);
            self.at(at, Event::Ready { machine });
        }
        self.tally.death(machine, !given.auto_restart);
        for task in lost.into_values() {
            self.release(&task.needs, stage);
            let Stage { retry, times, .. } = &self.model.stages[stage];
            let Request { sector, tries, .. } = task.request;
            if tries <= *retry {
                self.tally.sent_again(stage);
                let done = task.kept(self.now, times.parts);
                let again = Request { done, since: self.now, ..task.request };
                self.desks[stage].queue.insert(task.arrived, again);
            } else {
                self.tally.fails(stage);
                let at = self.now.saturating_add(self.model.retry_wait);
                self.at(at, Event::Request { sector, stage });
            }
        }
        self.queue_changed(stage);
        self.load_changed(machine);
        self.looks(stage);
    }

    fn release(&mut self, needs: &Needs, stage: usize) {
        for need in needs.iter() {
            if let Some(free) = self.free.get_mut(need) {
                *free += 1;
                let held = self.model.counts[need].get() - *free;
                self.tally.held_is(need, held, self.now);
            }
        }
        if !matches!(self.options.locks, Locks::Greedy) {
            return;
        }
        // Who did not release it finds out when it looks the next time.
        for other in (0..self.desks.len()).filter(|other| *other != stage) {
            if !self.desks[other].queue.is_empty() {
                self.look_later(other, next_look(other, self.now));
            }
        }
    }

    fn look_later(&mut self, stage: usize, at: Duration) {
        let desk = &mut self.desks[stage];
        if desk.look_at.is_none_or(|other| other > at) {
            desk.look_at = Some(at);
            self.at(at, Event::Look { stage });
        }
    }

    /// Starts all that may start, as supervisors do that keep one book together.
    fn start_tasks(&mut self) {
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
    fn grab(&mut self, stage: usize) {
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
    fn begin_inside(&mut self, machine: usize) {
        let given = &self.model.machines[machine];
        let executor = &mut self.executors[machine];
        while executor.working < given.seats
            && let Some(id) = executor.inside.pop_front()
            && let Some(task) = executor.tasks.get_mut(&id)
        {
            executor.working += 1;
            let dice = &mut self.dice[given.stage];
            let whole = dice.time().mul_f64(given.slowed(executor.working));
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

    fn load_changed(&mut self, machine: usize) {
        self.tally.load_is(self.model, machine, self.executors[machine].working, self.now);
    }
}

impl Task {
    /// Which part of the work is kept when its executor dies now.
    fn kept(&self, now: Duration, parts: u32) -> f64 {
        let Some((since, whole)) = self.works else { return self.request.done };
        let worked = now.saturating_sub(since).as_secs_f64() / whole.as_secs_f64();
        let parts = f64::from(parts);
        // A part that is done to the last digit is done.
        (((self.request.done + worked) * parts + 1e-9).floor() / parts).min(1.0)
    }
}

/// When a stage that cares for nobody else looks again. Each has its own moment.
fn next_look(stage: usize, now: Duration) -> Duration {
    let phase = GREEDY_LOOKS / 7 * u32::try_from(stage + 1).unwrap_or(1);
    let since = now.saturating_sub(phase).as_nanos() / GREEDY_LOOKS.as_nanos();
    let looks = u32::try_from(since + 1).unwrap_or(u32::MAX);
    phase + GREEDY_LOOKS * looks
}
