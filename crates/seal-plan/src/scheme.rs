//! A configuration on a machine: which executor runs on which cores, GPUs, locks and memory.
//!
//! The model that checks, simulation and pictures share. It never fails: what does not exist is
//! left out of it, and complaining of that is the business of checks.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use seal_config::{Config, ExecutorConfig, LockConfig, StageName};
use seal_host::{CpuSet, NodeId, Threads, UnitPlan, UnitRequest, plan_units};
use seal_options::{C2Device, Options};
use seal_types::{SectorSize, Stage};

use crate::figures::{StageMemory, partition, stage_memory};
use crate::{Bytes, Hardware};

/// The most sectors that may share a unit of PC1.
pub(crate) const MAX_LANES: u32 = seal_options::MAX_LANES as u32;

/// A configuration on a machine.
#[derive(Clone, Debug)]
pub struct Scheme {
    /// Size of the sectors it is for.
    pub sector_size: SectorSize,
    /// All executors, stage by stage in the order of sealing, within a stage in that of the file.
    pub executors: Vec<Executor>,
    /// Tasks of a stage that may run at the same time.
    pub limits: BTreeMap<StageName, NonZeroU32>,
    /// The least time between the starts of two tasks of a stage.
    pub staggered: BTreeMap<StageName, Duration>,
    /// Declared locks.
    pub locks: BTreeMap<String, LockConfig>,
}

/// An executor on the machine.
#[derive(Clone, Debug)]
pub struct Executor {
    /// Its stage.
    pub stage: StageName,
    /// Its place among the executors of its stage, from 0.
    pub index: usize,
    /// Its table in the configuration, such as `processors.pc1[0]`.
    pub key: String,
    /// The line of that table.
    pub line: usize,
    /// The cpus it may use and that there are.
    pub allowed: CpuSet,
    /// Of those, the ones it keeps busy: of PC1 those of its units, of others all.
    pub busy: CpuSet,
    /// How PC1 divides its cpus.
    pub units: Option<UnitPlan>,
    /// Sectors that may share a unit of PC1.
    pub lanes: u32,
    /// The node whose memory it should use.
    pub node: Option<NodeId>,
    /// Whether its environment or arguments ask for a GPU, or it uses any that it sees.
    pub asks_for_gpu: bool,
    /// Indices of the GPUs it uses.
    pub gpus: Vec<u32>,
    /// What it names as GPU and the machine does not have.
    pub missing_gpus: Vec<String>,
    /// Locks that each of its tasks holds.
    pub locks: BTreeSet<String>,
    /// Tasks it takes at the same time, by its own count, its cores, its locks and the limit of
    /// its stage; `None` if nothing limits them.
    pub tasks: Option<u32>,
    /// Tasks it works on at the same time whatever it is handed, if it is one of ours; `None` for
    /// any number.
    pub own: Option<u32>,
    /// Whether it is one of this project's executors.
    pub ours: bool,
    /// What is set for it, as far as it is good, by the file alone: as one of ours would read it.
    pub options: Option<Options>,
    /// What it takes of memory; nothing is known of other software's stages.
    pub memory: Option<StageMemory>,
}

impl Scheme {
    /// What `config` means on `hardware` for sectors of `sector_size`.
    pub fn of(config: &Config, hardware: &Hardware, sector_size: SectorSize) -> Self {
        let executors = config
            .executors
            .iter()
            .flat_map(|(stage, executors)| {
                executors.iter().enumerate().map(|(index, executor)| (*stage, index, executor))
            })
            .map(|(stage, index, executor)| {
                Executor::of(config, hardware, sector_size, (stage, index), executor)
            })
            .collect();
        Self {
            sector_size,
            executors,
            limits: config.concurrent.clone(),
            staggered: config.staggered.clone(),
            locks: config.locks.clone(),
        }
    }

    /// The executors of a stage.
    pub fn stage(&self, stage: StageName) -> impl Iterator<Item = &Executor> {
        self.executors.iter().filter(move |executor| executor.stage == stage)
    }

    /// How many tasks of a stage run at the same time at most; `None` if nothing limits them.
    pub fn tasks(&self, stage: StageName) -> Option<u32> {
        let of_executors = self
            .stage(stage)
            .map(|executor| executor.tasks)
            .try_fold(0_u32, |sum, tasks| Some(sum.saturating_add(tasks?)));
        let limit = self.limits.get(&stage).map(|limit| limit.get());
        match (of_executors, limit) {
            (Some(tasks), Some(limit)) => Some(tasks.min(limit)),
            (tasks, limit) => tasks.or(limit),
        }
    }

    /// What a stage holds when it runs as many tasks as it may, each executor its parameters and
    /// all of them together their tasks. A stage without a limit counts one task.
    pub fn memory_of(&self, stage: StageName) -> Bytes {
        let most = self.tasks(stage).unwrap_or(1);
        let mut left = most;
        let mut sum = Bytes(0);
        for executor in self.stage(stage) {
            let Some(memory) = executor.memory else { continue };
            let tasks = executor.tasks.unwrap_or(most).min(left);
            left -= tasks;
            // Parameters stay, also where the tasks that are counted run elsewhere.
            sum += memory.once + memory.tasks(u64::from(tasks));
        }
        sum
    }

    /// What all stages hold when all run as many tasks as they may. Stages that exclude each other
    /// by locks are counted both: their processes keep what they loaded.
    pub fn memory(&self) -> Bytes {
        let stages: BTreeSet<_> = self.executors.iter().map(|executor| executor.stage).collect();
        stages.into_iter().map(|stage| self.memory_of(stage)).sum()
    }

    /// Whether a task of `a` and one of `b` can never run at the same time, because they share a
    /// lock that one task holds at a time.
    pub fn exclude_each_other(&self, a: &Executor, b: &Executor) -> bool {
        let alone = |name: &String| self.locks.get(name).is_some_and(|lock| lock.count.get() == 1);
        a.locks.intersection(&b.locks).any(alone)
    }
}

impl Executor {
    fn of(
        config: &Config,
        hardware: &Hardware,
        sector_size: SectorSize,
        (stage, index): (StageName, usize),
        executor: &ExecutorConfig,
    ) -> Self {
        let all = hardware.topology.cpu_set();
        let allowed = executor.cpus.as_ref().map_or(all.clone(), |cpus| cpus.on(&all).and(&all));
        let ours = is_ours(stage, executor);
        let options = stage.served().map(|stage| {
            // Of other software the arguments are its own.
            let arguments: &[String] = if ours { &executor.args } else { &[] };
            let environment = executor.envs.clone().into_iter().collect();
            Options::look(stage, arguments, &environment).0
        });
        let pc1 = match &options {
            Some(Options::Pc1(pc1)) => Some(pc1),
            _ => None,
        };
        let lanes = pc1.map_or(MAX_LANES, |pc1| u32::try_from(pc1.lanes).unwrap_or(u32::MAX));
        let units = pc1.map(|pc1| {
            let threads = if pc1.smt { Threads::All } else { Threads::OnePerCore };
            let request = UnitRequest { producers: pc1.producers, threads };
            let mut plan = plan_units(&hardware.topology, &allowed, request).ok()?;
            plan.order_for_sectors(executor.numa_preferred.map(NodeId));
            Some(plan)
        });
        let units = units.flatten();
        let busy = match &units {
            Some(plan) => allowed.minus(&plan.left_over),
            None => allowed.clone(),
        };
        let asks_for_gpu = asks_for_gpu(stage, options.as_ref().filter(|_| ours), executor);
        let (gpus, missing_gpus) = if asks_for_gpu {
            gpus(hardware, stage, ours, &executor.envs)
        } else {
            (Vec::new(), Vec::new())
        };
        let of_locks = executor.locks.iter().filter_map(|name| config.locks.get(name));
        let of_units = units
            .as_ref()
            .map(|plan| u32::try_from(plan.units.len()).unwrap_or(u32::MAX).saturating_mul(lanes));
        let own = options.as_ref().filter(|_| ours).and_then(Options::concurrent);
        let own = own.map(|own| u32::try_from(own.get()).unwrap_or(u32::MAX));
        let tasks = of_locks
            .map(|lock| lock.count)
            .chain(executor.concurrent)
            .chain(config.concurrent.get(&stage).copied())
            .map(NonZeroU32::get)
            .chain(of_units)
            .chain(own)
            .min();
        Self {
            stage,
            index,
            key: format!("processors.{stage}[{index}]"),
            line: executor.line,
            allowed,
            busy,
            units,
            lanes,
            node: executor.numa_preferred.map(NodeId),
            asks_for_gpu,
            gpus,
            missing_gpus,
            locks: executor.locks.clone(),
            tasks,
            own,
            ours,
            memory: stage
                .served()
                .map(|stage| memory(stage, sector_size, options.as_ref().filter(|_| ours))),
            options,
        }
    }

    /// How many units of PC1 it has.
    pub fn unit_count(&self) -> u32 {
        let count = self.units.as_ref().map_or(0, |plan| plan.units.len());
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

/// Whether an executor is one of this project's, by the name of its binary.
fn is_ours(stage: StageName, executor: &ExecutorConfig) -> bool {
    stage.served().is_some_and(|stage| {
        executor.bin.as_ref().is_none_or(|bin| bin.ends_with(stage.executor()))
    })
}

/// What an executor takes of memory, as its options limit it if it is one of ours.
fn memory(stage: Stage, size: SectorSize, options: Option<&Options>) -> StageMemory {
    let memory = stage_memory(stage, size);
    match options {
        Some(Options::Pc2(pc2)) => StageMemory { task: Bytes::mib(pc2.memory_mib), ..memory },
        Some(Options::C2(c2)) => match c2.memory {
            // One partition is proved whatever the limit is.
            Some(most) => {
                StageMemory { tasks_most: Some(Bytes(most).max(partition(size))), ..memory }
            }
            None => memory,
        },
        _ => memory,
    }
}

/// Whether an executor uses a GPU if it sees one. `options` are those of one of ours.
///
/// PC2 of all software uses one when it is told to, and our C2 (`--device`, `SEAL_C2_DEVICE`).
/// Proofs of other software use whatever they see, unless `BELLMAN_NO_GPU` forbids it.
fn asks_for_gpu(stage: StageName, options: Option<&Options>, executor: &ExecutorConfig) -> bool {
    let envs = &executor.envs;
    let yes = |name: &str| {
        let value = envs.get(name).map(|value| value.to_ascii_lowercase());
        matches!(value.as_deref(), Some("1" | "true" | "on" | "yes"))
    };
    let forbidden = envs.get("BELLMAN_NO_GPU").is_some_and(|value| value != "0");
    match (stage, options) {
        (_, Some(Options::Pc2(pc2))) => pc2.gpu_columns || pc2.gpu_trees,
        (_, Some(Options::C2(c2))) => c2.device == Some(C2Device::Cuda),
        (StageName::Pc2, _) => {
            yes("FIL_PROOFS_USE_GPU_COLUMN_BUILDER") || yes("FIL_PROOFS_USE_GPU_TREE_BUILDER")
        }
        (StageName::C2 | StageName::WindowPost | StageName::SnapProve, _) => !forbidden,
        _ => false,
    }
}

/// The GPUs that an executor's environment gives it, and those it names that are not there.
///
/// PC2, and our C2, take the first they see; others may take all.
fn gpus(
    hardware: &Hardware,
    stage: StageName,
    ours: bool,
    envs: &BTreeMap<String, String>,
) -> (Vec<u32>, Vec<String>) {
    let mut there = Vec::new();
    let mut missing = Vec::new();
    match envs.get("CUDA_VISIBLE_DEVICES") {
        None => there.extend(hardware.gpus.iter().map(|gpu| gpu.index)),
        Some(list) => {
            for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                match hardware.gpu_named(name) {
                    Some(gpu) => there.push(gpu.index),
                    None => missing.push(name.to_owned()),
                }
            }
        }
    }
    if stage == StageName::Pc2 || ours {
        there.truncate(1);
    }
    (there, missing)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::hardware;

    fn root() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    fn epyc() -> Hardware {
        let path = root().join("crates/seal-plan/machines/epyc7642x2.toml");
        hardware::load(&path).expect("a machine of ours")
    }

    fn scheme(name: &str) -> Scheme {
        let path = root().join("tests/schemes").join(name);
        let config = seal_config::load(&path).expect("a scheme that must work");
        Scheme::of(&config, &epyc(), SectorSize::GIB_32)
    }

    #[test]
    fn pc1_keeps_two_cores_of_each_group_busy_and_leaves_the_third() {
        let scheme = scheme("scheme-a.toml");
        let pc1: Vec<_> = scheme.stage(StageName::Pc1).collect();
        assert_eq!(pc1.len(), 2);
        for executor in &pc1 {
            assert_eq!((executor.unit_count(), executor.tasks), (14, Some(14)));
        }
        let pc2 = scheme.stage(StageName::Pc2).next().expect("one");
        assert_eq!(pc2.gpus, [0]);
        assert!(pc2.busy.and(&pc1[0].busy).is_empty() && pc2.busy.and(&pc1[1].busy).is_empty());
        assert_eq!(scheme.tasks(StageName::Pc1), Some(28));
        assert_eq!(scheme.tasks(StageName::C2), Some(1));
    }

    #[test]
    fn a_lock_of_one_keeps_a_pair_of_stages_apart() {
        let scheme = scheme("scheme-b.toml");
        let [pc2, c2] =
            [StageName::Pc2, StageName::C2].map(|s| scheme.stage(s).collect::<Vec<_>>());
        assert!(!pc2[0].busy.and(&c2[0].busy).is_empty());
        assert!(scheme.exclude_each_other(pc2[0], c2[0]));
        assert!(!scheme.exclude_each_other(pc2[0], c2[1]));
        // Our C2 must be asked to use a GPU.
        assert_eq!((&pc2[1].gpus, &c2[1].gpus), (&vec![1], &vec![]));
    }

    #[test]
    fn gpus_are_those_that_are_asked_for_and_visible() {
        let tree = "FIL_PROOFS_USE_GPU_TREE_BUILDER = '1'";
        let foreign = "bin = '/opt/damocles-worker'\n";
        let cuda = "SEAL_C2_DEVICE = 'cuda'";
        for (stage, table, envs, there, missing) in [
            ("pc2", "", String::new(), vec![], vec![]),
            ("pc2", "", tree.to_owned(), vec![0], vec![]),
            ("pc2", "", format!("{tree}, CUDA_VISIBLE_DEVICES = '1'"), vec![1], vec![]),
            ("pc2", "", format!("{tree}, CUDA_VISIBLE_DEVICES = '2'"), vec![], vec!["2"]),
            // Ours is asked by name, others take what they see.
            ("c2", "", "CUDA_VISIBLE_DEVICES = '0'".to_owned(), vec![], vec![]),
            ("c2", "", cuda.to_owned(), vec![0], vec![]),
            ("c2", "args = ['--device=cuda']\n", String::new(), vec![0], vec![]),
            ("c2", "args = ['--device', 'cpu']\n", cuda.to_owned(), vec![], vec![]),
            ("c2", foreign, "CUDA_VISIBLE_DEVICES = '0, 1'".to_owned(), vec![0, 1], vec![]),
            ("c2", foreign, "CUDA_VISIBLE_DEVICES = ''".to_owned(), vec![], vec![]),
            ("c2", foreign, String::new(), vec![0, 1], vec![]),
            ("c2", foreign, "BELLMAN_NO_GPU = '0'".to_owned(), vec![0, 1], vec![]),
            ("c2", foreign, "BELLMAN_NO_GPU = '1'".to_owned(), vec![], vec![]),
            ("window_post", foreign, String::new(), vec![0, 1], vec![]),
            ("pc1", "", "CUDA_VISIBLE_DEVICES = '7'".to_owned(), vec![], vec![]),
        ] {
            let text = format!("[[processors.{stage}]]\n{table}envs = {{ {envs} }}\n");
            let config = seal_config::parse(Path::new("w.toml"), &text).expect(&text);
            let scheme = Scheme::of(&config, &epyc(), SectorSize::GIB_32);
            let executor = &scheme.executors[0];
            let gone: Vec<_> = executor.missing_gpus.iter().map(String::as_str).collect();
            assert_eq!((&executor.gpus, gone), (&there, missing), "{text}");
        }
    }

    #[test]
    fn arguments_limit_the_memory_of_our_executors() {
        for (stage, table, gib) in [
            ("c2", "", 87),
            ("c2", "args = ['--memory', '21GiB']\n", 66),
            ("c2", "args = ['--memory=1GiB']\n", 66),
            ("c2", "args = ['--memory=96GiB']\n", 87),
            ("c2", "args = ['--concurrent', '3', '--memory', '96GiB']\n", 45 + 96),
            ("c2", "bin = '/opt/other'\nargs = ['--memory', '21GiB']\n", 87),
            ("pc2", "", 2),
            ("pc2", "args = ['--memory-mib', '1024']\n", 1),
        ] {
            let text = format!("[[processors.{stage}]]\n{table}");
            let config = seal_config::parse(Path::new("w.toml"), &text).expect(&text);
            let scheme = Scheme::of(&config, &epyc(), SectorSize::GIB_32);
            assert_eq!(scheme.memory(), Bytes::gib(gib), "{text}");
        }
    }
}
