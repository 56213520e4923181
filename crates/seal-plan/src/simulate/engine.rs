//! The engine: events in the order of their times, and what they change.
//!
//! All supervisors of the machine are here at once, with one book for limits and locks. What
//! happens at the same moment is taken in before anything is started, as a supervisor does.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use seal_limits::{AfterDeath, Book, Free, History, Needs, Openings, Place, Ticket};

use super::dispatch::next_look;
use super::model::{Dice, Model, Stage};
use super::tally::Tally;
use super::{Locks, Options, Supply, Until};

/// No simulation goes on for longer: what was waited for will not come.
const LONGEST: Duration = Duration::from_secs(20 * 366 * 24 * 3600);

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
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
    pub(super) tries: u32,
    /// Which part of it is done and kept.
    pub(super) done: f64,
}

/// A request that an executor has.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) arrived: u64,
    pub(super) request: Request,
    pub(super) needs: Needs,
    /// Since when it is worked on, and how long a whole one would take; `None` while it waits in
    /// the executor.
    pub(super) works: Option<(Duration, Duration)>,
}

/// An executor as it is now.
#[derive(Debug)]
pub(super) struct Executor {
    /// Which start of it this is; what happens to an earlier one is of no interest.
    pub(super) start: u32,
    pub(super) ready_since: Duration,
    pub(super) history: History,
    pub(super) tasks: BTreeMap<u64, Task>,
    /// Tasks that wait in it.
    pub(super) inside: VecDeque<u64>,
    pub(super) working: u32,
}

/// A stage as it is now.
#[derive(Debug)]
pub(super) struct Desk {
    /// Its executors as the rules see them.
    pub(super) places: Vec<Place>,
    /// Requests that no executor has, by their arrival.
    pub(super) queue: BTreeMap<u64, Request>,
    pub(super) tickets: Vec<Ticket>,
    pub(super) openings: Openings,
    /// Whether places or queue have changed since the openings were found.
    pub(super) stale: bool,
    /// Whether they have changed since its tickets were put in order.
    pub(super) unsettled: bool,
    /// Whether limits, locks or distances concern it at all.
    pub(super) limited: bool,
    /// The last start of one of its tasks.
    pub(super) started: Option<Duration>,
    /// When it looks by itself.
    pub(super) look_at: Option<Duration>,
}

/// A simulation on its way.
pub(super) struct Engine<'a> {
    pub(super) model: &'a Model,
    pub(super) options: &'a Options,
    pub(super) supply: Supply,
    pub(super) now: Duration,
    pub(super) events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    /// Numbers for events, requests and tasks.
    pub(super) next: u64,
    pub(super) book: Book<u8>,
    pub(super) free: Free,
    pub(super) executors: Vec<Executor>,
    pub(super) desks: Vec<Desk>,
    pub(super) dice: Vec<Dice>,
    /// For the times between sectors.
    pub(super) arrivals: Dice,
    pub(super) sectors: u64,
    pub(super) begun: BTreeMap<u64, Duration>,
    /// Something has changed that lets somebody start, perhaps.
    pub(super) changed: bool,
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
            arrivals: Dice::of_arrivals(options.seed),
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
                self.tally.pass(end, &self.options.warm_up);
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
                if let Supply::Every { mean, random } = self.supply {
                    let after = self.arrivals.until_next(mean, random);
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
            let time = self.dice[stage].time(self.model.stages[stage].mean);
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

    pub(super) fn queue_changed(&mut self, stage: usize) {
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

    pub(super) fn look_later(&mut self, stage: usize, at: Duration) {
        let desk = &mut self.desks[stage];
        if desk.look_at.is_none_or(|other| other > at) {
            desk.look_at = Some(at);
            self.at(at, Event::Look { stage });
        }
    }

    pub(super) fn load_changed(&mut self, machine: usize) {
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
