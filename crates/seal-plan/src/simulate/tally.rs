//! What is counted while a simulation runs.

use std::collections::BTreeMap;
use std::time::Duration;

use seal_limits::Resource;

use super::WarmUp;
use super::engine::Request;
use super::level::Level;
use super::model::Model;

/// All counts.
#[derive(Debug)]
pub(super) struct Tally {
    /// When the statistics began; `None` while everything warms up.
    begun: Option<Duration>,
    finished: u64,
    finished_in_all: u64,
    pub(super) passage: Spans,
    pub(super) stages: Vec<StageTally>,
    pub(super) held: BTreeMap<Resource, Level>,
    pub(super) groups: Vec<Level>,
    pub(super) gpus: BTreeMap<u32, GpuTally>,
    pub(super) memory: Level,
    pub(super) in_flight: Level,
    pub(super) machines: Vec<MachineTally>,
}

/// Lengths of time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spans {
    pub(super) count: u64,
    pub(super) sum: Duration,
    pub(super) longest: Duration,
}

/// What is counted of a stage.
#[derive(Debug, Default)]
pub(super) struct StageTally {
    pub(super) running: Level,
    pub(super) queue: Level,
    pub(super) waits: Spans,
    pub(super) longest_sector: u64,
    /// Whether the longest wait goes on at the end.
    pub(super) longest_goes_on: bool,
    pub(super) runs: Spans,
    pub(super) failed: u64,
    pub(super) again: u64,
    /// Times in a row that others took a lock for which it waits.
    passed: u64,
    pub(super) passed_most: u64,
}

/// What is counted of a GPU.
#[derive(Debug, Default)]
pub(super) struct GpuTally {
    /// Whether anything uses it.
    pub(super) busy: Level,
    /// How many executors use it at the same time.
    pub(super) users: Level,
}

/// What is counted of an executor.
#[derive(Debug, Default)]
pub(super) struct MachineTally {
    working: u32,
    has_run: bool,
    pub(super) load: Level,
    pub(super) deaths: u64,
    pub(super) given_up: bool,
}

impl Spans {
    /// Whether `span` is the longest so far.
    fn add(&mut self, span: Duration) -> bool {
        self.count += 1;
        self.sum = self.sum.saturating_add(span);
        let is_longest = span > self.longest;
        self.longest = self.longest.max(span);
        is_longest
    }

    /// The mean; zero of nothing.
    pub(super) fn mean(&self) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "a mean")]
        let count = self.count.max(1) as f64;
        self.sum.div_f64(count)
    }
}

impl Tally {
    pub(super) fn new(model: &Model) -> Self {
        Self {
            begun: None,
            finished: 0,
            finished_in_all: 0,
            passage: Spans::default(),
            stages: (0..model.stages.len()).map(|_| StageTally::default()).collect(),
            held: model.counts.keys().map(|it| (it.clone(), Level::default())).collect(),
            groups: (0..model.groups.len()).map(|_| Level::default()).collect(),
            gpus: model.gpus.keys().map(|index| (*index, GpuTally::default())).collect(),
            memory: Level::default(),
            in_flight: Level::default(),
            machines: (0..model.machines.len()).map(|_| MachineTally::default()).collect(),
        }
    }

    /// When the statistics began, if they have.
    pub(super) fn begun(&self) -> Option<Duration> {
        self.begun
    }

    /// Sectors that were finished since.
    pub(super) fn finished(&self) -> u64 {
        self.finished
    }

    /// Time passes to `now`.
    pub(super) fn pass(&mut self, now: Duration, warm_up: &WarmUp) {
        if let WarmUp::Time(time) = warm_up
            && self.begun.is_none()
            && now >= *time
        {
            self.begin(*time);
        }
    }

    fn begin(&mut self, now: Duration) {
        self.begun = Some(now);
        let Self { held, groups, gpus, memory, in_flight, machines, stages, .. } = self;
        let of_gpus = gpus.values_mut().flat_map(|gpu| [&mut gpu.busy, &mut gpu.users]);
        let of_stages = stages.iter_mut().flat_map(|it| [&mut it.running, &mut it.queue]);
        let of_machines = machines.iter_mut().map(|machine| &mut machine.load);
        let rest = held.values_mut().chain(groups).chain([memory, in_flight]);
        rest.chain(of_gpus).chain(of_stages).chain(of_machines).for_each(|level| level.begin(now));
    }

    pub(super) fn sector_begins(&mut self, now: Duration) {
        self.in_flight.add(now, 1.0);
    }

    pub(super) fn sector_ends(&mut self, took: Duration, now: Duration, warm_up: &WarmUp) {
        self.in_flight.add(now, -1.0);
        self.finished_in_all += 1;
        if self.begun.is_some() {
            self.finished += 1;
            self.passage.add(took);
        } else if matches!(warm_up, WarmUp::Sectors(count) if self.finished_in_all >= *count) {
            self.begin(now);
        }
    }

    pub(super) fn queue_is(&mut self, stage: usize, count: usize, now: Duration) {
        let stage = &mut self.stages[stage];
        #[expect(clippy::cast_precision_loss, reason = "for means")]
        stage.queue.set(now, count as f64);
        if count == 0 {
            stage.passed = 0;
        }
    }

    /// A task is worked on from now on.
    pub(super) fn task_begins(&mut self, stage: usize, sector: u64, waited: Duration) {
        if self.begun.is_some() {
            let stage = &mut self.stages[stage];
            if stage.waits.add(waited) {
                stage.longest_sector = sector;
            }
        }
    }

    pub(super) fn task_ends(&mut self, stage: usize, ran: Duration) {
        if self.begun.is_some() {
            self.stages[stage].runs.add(ran);
        }
    }

    /// A request waits when the simulation ends.
    pub(super) fn still_waits(&mut self, stage: usize, request: &Request, now: Duration) {
        let stage = &mut self.stages[stage];
        let waited = now.saturating_sub(request.since);
        if waited > stage.waits.longest {
            stage.waits.longest = waited;
            stage.longest_sector = request.sector;
            stage.longest_goes_on = true;
        }
    }

    pub(super) fn fails(&mut self, stage: usize) {
        self.stages[stage].failed += u64::from(self.begun.is_some());
    }

    pub(super) fn sent_again(&mut self, stage: usize) {
        self.stages[stage].again += u64::from(self.begun.is_some());
    }

    pub(super) fn death(&mut self, machine: usize, for_ever: bool) {
        let machine = &mut self.machines[machine];
        machine.deaths += u64::from(self.begun.is_some());
        machine.given_up |= for_ever;
    }

    pub(super) fn held_is(&mut self, resource: &Resource, count: u32, now: Duration) {
        if let Some(level) = self.held.get_mut(resource) {
            level.set(now, f64::from(count));
        }
    }

    /// A stage gets what it waits for.
    pub(super) fn served(&mut self, stage: usize) {
        self.stages[stage].passed = 0;
    }

    /// Another stage takes a lock for which this one waits.
    pub(super) fn passed_by(&mut self, stage: usize) {
        let stage = &mut self.stages[stage];
        stage.passed += 1;
        if self.begun.is_some() {
            stage.passed_most = stage.passed_most.max(stage.passed);
        }
    }

    /// An executor works on so many tasks now.
    pub(super) fn load_is(&mut self, model: &Model, at: usize, working: u32, now: Duration) {
        let given = &model.machines[at];
        let machine = &mut self.machines[at];
        let before = std::mem::replace(&mut machine.working, working);
        let memory = |has_run: bool, working: u32| {
            let once = if has_run { given.memory.once.0 } else { 0 };
            once.saturating_add(given.memory.tasks(working.into()).0)
        };
        let [old, new] =
            [memory(machine.has_run, before), memory(machine.has_run || working > 0, working)];
        machine.has_run |= working > 0;
        machine.load.set(now, f64::from(working));
        #[expect(clippy::cast_precision_loss, reason = "for means")]
        self.memory.add(now, new as f64 - old as f64);
        let stage = &mut self.stages[given.stage];
        stage.running.add(now, f64::from(working) - f64::from(before));
        for (level, group) in self.groups.iter_mut().zip(&model.groups) {
            if group.users.contains(&at) {
                let parts = group
                    .users
                    .iter()
                    .map(|at| model.machines[*at].busy_part(self.machines[*at].working));
                level.set(now, parts.fold(0.0, f64::max));
            }
        }
        for index in &given.gpus {
            let Some(gpu) = self.gpus.get_mut(index) else { continue };
            let users = model.gpus[index].iter().filter(|at| self.machines[**at].working > 0);
            let users = u32::try_from(users.count()).unwrap_or(u32::MAX);
            gpu.users.set(now, f64::from(users));
            gpu.busy.set(now, f64::from(users.min(1)));
        }
    }
}
