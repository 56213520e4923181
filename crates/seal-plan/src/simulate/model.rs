//! What is simulated: stages, executors and resources, taken from a scheme and its times.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, Exp, Exp1, LogNormal, Standard};
use seal_config::{Config, LockOrder, StageName};
use seal_host::CpuSet;
use seal_limits::{Needs, Order, Resource, RestartPolicy};

use super::SimulateError;
use crate::estimate::{stage_time, unit_factor};
use crate::figures::StageMemory;
use crate::times::{StageTimes, Times};
use crate::{Hardware, Scheme};

/// A stage on the way of a sector.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) name: StageName,
    /// Its executors; without any the worker does it by itself.
    pub(super) executors: Vec<usize>,
    pub(super) spacing: Duration,
    /// How often the supervisor sends a request again whose executor died.
    pub(super) retry: u32,
    pub(super) restart: RestartPolicy,
    pub(super) times: StageTimes,
    /// The mean time of its tasks.
    pub(super) mean: Duration,
    /// Where its times come from.
    pub(super) source: String,
    /// Between its end and the next stage's request.
    pub(super) pause: Duration,
    /// Its place among those of the stage that may run, if they are limited.
    pub(super) limit: Option<Resource>,
}

/// An executor.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) key: String,
    pub(super) stage: usize,
    /// Its place among the executors of the stage.
    pub(super) local: usize,
    pub(super) concurrent: Option<NonZeroU32>,
    pub(super) needs: Needs,
    /// Tasks it works on at the same time; more wait in it.
    pub(super) seats: u32,
    /// How long its tasks run on average when it is full.
    time: Duration,
    /// Units of PC1; 0 of others.
    pub(super) units: u32,
    pub(super) auto_restart: bool,
    pub(super) gpus: Vec<u32>,
    pub(super) memory: StageMemory,
}

/// Cores that the same executors use.
#[derive(Debug)]
pub(super) struct CoreGroup {
    pub(super) cpus: CpuSet,
    /// Indices of those executors.
    pub(super) users: Vec<usize>,
}

/// Everything that is simulated.
#[derive(Debug)]
pub(super) struct Model {
    /// The configuration's file.
    pub(super) config: PathBuf,
    /// The stages in the order in which a sector passes them.
    pub(super) stages: Vec<Stage>,
    pub(super) machines: Vec<Machine>,
    pub(super) counts: BTreeMap<Resource, NonZeroU32>,
    pub(super) orders: Vec<(Resource, Order<u8>)>,
    pub(super) groups: Vec<CoreGroup>,
    /// GPUs that are used, by index, with the machines that use them.
    pub(super) gpus: BTreeMap<u32, Vec<usize>>,
    pub(super) retry_wait: Duration,
}

impl Model {
    pub(super) fn new(
        config: &Config,
        scheme: &Scheme,
        hardware: &Hardware,
        times: &Times,
    ) -> Result<Self, SimulateError> {
        let mut stages = Vec::new();
        for name in StageName::ALL {
            let is_run = scheme.stage(*name).next().is_some();
            let stage_times = times.of(*name);
            // A stage that no supervisor runs takes its time all the same, if somebody told it.
            let by_worker = stage_times.time.is_some() && name.served().is_none();
            if is_beside(*name) || !(is_run || by_worker) {
                continue;
            }
            let settings = config.supervisor.stage(*name);
            let is_last_before_seed = *name == StageName::Pc2;
            stages.push(Stage {
                name: *name,
                executors: Vec::new(),
                spacing: scheme.staggered.get(name).copied().unwrap_or_default(),
                retry: settings.retry,
                restart: RestartPolicy {
                    first_wait: settings.restart_wait,
                    longest_wait: settings.restart_wait_max,
                    loop_after: settings.crash_loop_after,
                    loop_wait: settings.crash_loop_wait,
                },
                // Executors bring their own.
                mean: stage_times.time.unwrap_or_default(),
                source: if is_run { String::new() } else { stage_times.source.clone() },
                times: stage_times,
                pause: if is_last_before_seed { times.seed_wait } else { Duration::ZERO },
                limit: scheme.limits.get(name).map(|_| Resource::Limit(name.to_string())),
            });
        }
        // Nobody waits for randomness after the last stage.
        if let Some(last) = stages.last_mut() {
            last.pause = Duration::ZERO;
        }
        let mut machines = Vec::new();
        let mut own = Vec::new();
        let given_times = times.given();
        for (at, executor) in scheme.executors.iter().enumerate() {
            let Some(stage) = stages.iter().position(|stage| stage.name == executor.stage) else {
                continue;
            };
            let given = config.executors.get(&executor.stage);
            let Some(given) = given.and_then(|list| list.get(executor.index)) else { continue };
            let locks = executor.locks.iter().map(|name| Resource::Lock(name.clone()));
            let estimate = stage_time(executor, hardware, times.sector_size, &given_times);
            let estimate = estimate.filter(|it| !it.time.is_zero()).ok_or_else(|| {
                let (stage, size) = (executor.stage, times.sector_size);
                SimulateError::NoTime { key: executor.key.clone(), stage, size }
            })?;
            stages[stage].add_time(estimate.time, &estimate.source);
            let limit = stages[stage].limit.clone();
            let local = stages[stage].executors.len();
            stages[stage].executors.push(machines.len());
            own.push(at);
            machines.push(Machine {
                key: executor.key.clone(),
                stage,
                local,
                concurrent: given.concurrent,
                needs: locks.chain(limit).collect(),
                seats: executor.tasks.unwrap_or(u32::MAX),
                time: estimate.time,
                units: executor.unit_count(),
                auto_restart: given.auto_restart,
                gpus: executor.gpus.clone(),
                memory: executor.memory.unwrap_or_default(),
            });
        }
        if machines.is_empty() {
            return Err(SimulateError::Nothing { path: config.path.clone() });
        }
        let locks = scheme.locks.iter().map(|(name, lock)| (Resource::Lock(name.clone()), lock));
        let orders = locks.clone().map(|(lock, it)| (lock, order_of(&stages, &it.order))).collect();
        let limits = stages.iter().filter_map(|stage| {
            let count = scheme.limits.get(&stage.name)?;
            Some((Resource::Limit(stage.name.to_string()), *count))
        });
        let counts = locks.map(|(lock, it)| (lock, it.count)).chain(limits).collect();
        let mut gpus: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, machine) in machines.iter().enumerate() {
            for gpu in &machine.gpus {
                gpus.entry(*gpu).or_default().push(at);
            }
        }
        let groups = core_groups(scheme, hardware, &own);
        let retry_wait = times.retry_wait;
        let config = config.path.clone();
        Ok(Self { config, stages, machines, counts, orders, groups, gpus, retry_wait })
    }

    /// The order in terms of this model.
    pub(super) fn order(&self, order: &LockOrder) -> Order<u8> {
        order_of(&self.stages, order)
    }

    /// How many tasks of a stage can be worked on at the same time; `None` if nothing limits them.
    pub(super) fn seats(&self, stage: &Stage) -> Option<f64> {
        let of_machines = stage.executors.iter().map(|at| self.machines[*at].seats);
        let of_machines = of_machines.fold(0_u32, u32::saturating_add);
        let limit = stage.limit.as_ref().and_then(|limit| self.counts.get(limit));
        let seats = limit.map_or(of_machines, |limit| limit.get().min(of_machines));
        (seats < u32::MAX).then_some(f64::from(seats))
    }

    /// Whether any task needs `resource`.
    pub(super) fn is_used(&self, resource: &Resource) -> bool {
        self.machines.iter().any(|machine| machine.needs.contains(resource))
    }

    /// How many sectors must be on their way to keep everything busy: twice as many as run at the
    /// same time, and those that wait for randomness.
    pub(super) fn enough_in_flight(&self) -> u32 {
        let mut running = 0.0;
        let mut rate = f64::INFINITY;
        let mut pauses = 0.0;
        for stage in &self.stages {
            let seconds = stage.mean.as_secs_f64();
            if stage.executors.is_empty() {
                pauses += seconds;
                continue;
            }
            let seats = self.seats(stage).unwrap_or(1.0);
            running += seats;
            rate = rate.min(seats / seconds);
            pauses += stage.pause.as_secs_f64();
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is clamped"
        )]
        let many = (2.0 * running + rate * pauses).ceil().clamp(1.0, 1e6) as u32;
        many
    }
}

fn order_of(stages: &[Stage], order: &LockOrder) -> Order<u8> {
    let kind = |name: &StageName| stages.iter().position(|stage| stage.name == *name);
    match order {
        LockOrder::Turns => Order::Turns,
        LockOrder::Arrival => Order::Arrival,
        LockOrder::Priority(names) => {
            let kinds = names.iter().filter_map(kind);
            Order::Priority(kinds.filter_map(|at| u8::try_from(at).ok()).collect())
        }
    }
}

/// Stages that are no part of a sector's sealing.
fn is_beside(stage: StageName) -> bool {
    use StageName as S;
    matches!(stage, S::SnapEncode | S::SnapProve | S::Unseal | S::WindowPost | S::SealingDaemons)
}

fn core_groups(scheme: &Scheme, hardware: &Hardware, own: &[usize]) -> Vec<CoreGroup> {
    let mut groups: BTreeMap<Vec<usize>, Vec<u32>> = BTreeMap::new();
    for cpu in hardware.topology.cpus() {
        let uses = |at: &usize| scheme.executors[*at].busy.contains(cpu.number);
        let users = own.iter().enumerate().filter(|(_, at)| uses(at)).map(|(machine, _)| machine);
        groups.entry(users.collect()).or_default().push(cpu.number);
    }
    let mut groups: Vec<_> = groups
        .into_iter()
        .map(|(users, cpus)| CoreGroup { cpus: cpus.into_iter().collect(), users })
        .collect();
    // Cores of nobody come last.
    groups.sort_by_key(|group| (group.users.is_empty(), group.users.clone()));
    groups
}

impl Stage {
    /// One more executor takes so long.
    fn add_time(&mut self, time: Duration, source: &str) {
        let before = u32::try_from(self.executors.len()).unwrap_or(u32::MAX);
        self.mean = (self.mean * before + time) / before.saturating_add(1);
        if self.source.is_empty() {
            source.clone_into(&mut self.source);
        } else if !self.source.contains(source) {
            self.source = format!("{}; {source}", self.source);
        }
    }
}

impl Machine {
    /// Its key without the name of the section.
    pub(super) fn name(&self) -> String {
        self.key.strip_prefix("processors.").unwrap_or(&self.key).to_owned()
    }

    /// Which part of the cores it uses is busy with so many tasks.
    pub(super) fn busy_part(&self, working: u32) -> f64 {
        if self.units > 0 {
            f64::from(working.min(self.units)) / f64::from(self.units)
        } else {
            f64::from(working.min(1))
        }
    }

    /// How long a task runs on average that starts as the last of so many.
    pub(super) fn time(&self, working: u32) -> Duration {
        if self.units == 0 {
            return self.time;
        }
        // Producers are the same for all.
        let factor = |tasks: u32| unit_factor(tasks.div_ceil(self.units), 1);
        self.time.mul_f64(factor(working) / factor(self.seats))
    }
}

/// The random times of one stage.
#[derive(Debug)]
pub(super) struct Dice {
    generator: ChaCha8Rng,
    spread: Option<LogNormal<f64>>,
    fails: f64,
    death: Option<Exp<f64>>,
}

impl Dice {
    /// Each stage has a stream of its own, so that what one stage draws does not depend on what
    /// happens in others.
    pub(super) fn new(seed: u64, stream: u64, times: &StageTimes) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream);
        let spread = (times.spread > 0.0).then(|| LogNormal::from_mean_cv(1.0, times.spread).ok());
        let death = times.dies.and_then(|mean| Exp::new(1.0 / mean.as_secs_f64()).ok());
        Self { generator, spread: spread.flatten(), fails: times.fails, death }
    }

    /// For the times between sectors.
    pub(super) fn of_arrivals(seed: u64) -> Self {
        Self::new(seed, 0, &StageTimes::unknown(StageName::AddPieces))
    }

    /// The time to the next sector: always the mean, or random as of independent users.
    pub(super) fn until_next(&mut self, mean: Duration, random: bool) -> Duration {
        if !random {
            return mean;
        }
        let part: f64 = Exp1.sample(&mut self.generator);
        Duration::try_from_secs_f64(part * mean.as_secs_f64()).unwrap_or(Duration::MAX)
    }

    /// How long a whole task runs.
    pub(super) fn time(&mut self, mean: Duration) -> Duration {
        match &self.spread {
            Some(spread) => mean.mul_f64(spread.sample(&mut self.generator)),
            None => mean,
        }
    }

    /// After how much running of a task its executor dies.
    pub(super) fn death(&mut self) -> Option<Duration> {
        let seconds = self.death.as_ref()?.sample(&mut self.generator);
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// Whether a task ends with an error.
    pub(super) fn fails(&mut self) -> bool {
        if self.fails <= 0.0 {
            return false;
        }
        let number: f64 = Standard.sample(&mut self.generator);
        number < self.fails
    }
}
