//! What a configuration means for one stage on one machine: which executors are to be started,
//! how, and what stands against it.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::{OsStr, OsString};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use seal_config::{
    CgroupUse, Config, ExecutorConfig, LockOrder, MemoryBinding, MemoryLimit, StageName,
    StageSettings,
};
use seal_host::{
    Binding, CgroupTree, CpuBudget, CpuSet, Limiter, NodeId, Placement, ResourceLimit, Wanted,
};
use seal_limits::{Needs, Resource};
use seal_options::{EnvWarning, Environment, Fault, Options, PLACEMENT_NAMES, Source, env_warning};
use seal_types::Stage;

use crate::machine::Budget;
use crate::program::{find_program, is_same_file, runnable};
use crate::{GroupPlan, Machine, Problem};

/// The executors of a stage and the rules they run under.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The stage.
    pub stage: StageName,
    /// The executors in the order of the configuration.
    pub executors: Vec<ExecutorPlan>,
    /// How many tasks may hold each resource at the same time, on the whole machine.
    pub counts: BTreeMap<Resource, NonZeroU32>,
    /// The least time between the starts of two tasks.
    pub stagger: Duration,
    /// In which order each lock is given.
    pub orders: BTreeMap<Resource, LockOrder>,
    /// What else holds for the stage.
    pub settings: StageSettings,
}

/// One executor as it is to be started.
#[derive(Clone, Debug)]
pub struct ExecutorPlan {
    /// Its table in the configuration, such as `processors.pc1[0]`.
    pub key: String,
    /// The line of that table.
    pub line: usize,
    /// The binary.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment names set for it.
    pub envs: BTreeMap<String, String>,
    /// Whether it gets the supervisor's environment too.
    pub inherit_envs: bool,
    /// Where it runs.
    pub placement: Placement,
    /// How long it may take until its ready line.
    pub stable_wait: Duration,
    /// How many tasks it takes at the same time; `None` is any number.
    pub concurrent: Option<NonZeroU32>,
    /// What each of its tasks holds.
    pub needs: Needs,
    /// Whether it is started again when it has died.
    pub auto_restart: bool,
    /// The cgroup it is put into, if it is.
    pub group: Option<GroupPlan>,
}

/// A configuration that cannot be meant.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The configuration has no executor for the stage.
    #[error("{} has no [[processors.{stage}]] table; add one to run executors of {stage}", path.display())]
    NoExecutor {
        /// The configuration.
        path: PathBuf,
        /// The stage.
        stage: StageName,
    },
    /// A stage of other software names no binary.
    #[error(
        "{}:{line}: {key} has no bin, and this project has no executor of {stage}; name the \
         processor's binary, or leave the stage to the worker",
        path.display()
    )]
    NoBin {
        /// The configuration.
        path: PathBuf,
        /// The line of the table.
        line: usize,
        /// The table.
        key: String,
        /// The stage.
        stage: StageName,
    },
    /// The supervisor would start itself, and that one itself, and so on.
    #[error(
        "{}:{line}: {key}.bin = {:?} is the supervisor itself; {}",
        path.display(), bin.display(), instead(*stage, *is_workers)
    )]
    Itself {
        /// The configuration.
        path: PathBuf,
        /// The line of the table.
        line: usize,
        /// The table.
        key: String,
        /// The binary.
        bin: PathBuf,
        /// The stage.
        stage: StageName,
        /// Whether it is the table by which a worker starts a supervisor.
        is_workers: bool,
    },
}

/// What is to be done about an executor that is the supervisor itself.
fn instead(stage: StageName, is_workers: bool) -> String {
    if is_workers {
        return "this is the worker's file: give the supervisor, and check, the one that its args \
                name after --config, or its envs as SEAL_CONFIG"
            .to_owned();
    }
    let served = stage.served();
    let leave_out = served.map(|s| format!("leave bin out for {}, or ", s.executor()));
    leave_out.unwrap_or_default() + "name an executor"
}

impl Plan {
    /// The part of `config` that is about `stage`. `own_binary` is the supervisor's: executors lie
    /// beside it, and it must not be one of them. Executors get cgroups in `cgroups`, if there are.
    pub fn new(
        config: &Config,
        stage: StageName,
        own_binary: &Path,
        cgroups: Option<&Arc<CgroupTree>>,
    ) -> Result<Self, PlanError> {
        let executors = config.executors.get(&stage).map_or(&[][..], |list| list);
        if executors.is_empty() {
            return Err(PlanError::NoExecutor { path: config.path.clone(), stage });
        }
        let limit = config.concurrent.get(&stage);
        let settings = config.supervisor.stage(stage);
        let plan = |(index, executor): (usize, &ExecutorConfig)| {
            let key = format!("processors.{stage}[{index}]");
            let bin = match (&executor.bin, stage.served()) {
                (Some(bin), _) => bin.clone(),
                (None, Some(served)) => own_binary.with_file_name(served.executor()),
                (None, None) => {
                    let (path, line) = (config.path.clone(), executor.line);
                    return Err(PlanError::NoBin { path, line, key, stage });
                }
            };
            let program = find_program(&bin, env::var_os("PATH").as_deref());
            if is_same_file(&program, own_binary) {
                let (path, line) = (config.path.clone(), executor.line);
                // Arguments that nobody wrote tell nothing: they are the same for both.
                let is_written = config.places.get(&format!("{key}.args")).is_some();
                let first = executor.args.first();
                let is_workers = executor.envs.contains_key("SEAL_CONFIG")
                    || is_written && first.is_some_and(|arg| arg == "processor");
                return Err(PlanError::Itself { path, line, key, bin, stage, is_workers });
            }
            Ok(ExecutorPlan {
                key,
                line: executor.line,
                program,
                args: executor.args.clone(),
                envs: executor.envs.clone(),
                inherit_envs: executor.inherit_envs,
                placement: placement(executor, &settings),
                stable_wait: executor.stable_wait,
                concurrent: executor.concurrent,
                needs: executor
                    .locks
                    .iter()
                    .map(|name| Resource::Lock(name.clone()))
                    .chain(limit.map(|_| Resource::Limit(stage.to_string())))
                    .collect(),
                auto_restart: executor.auto_restart,
                group: cgroups.map(|tree| GroupPlan {
                    tree: tree.clone(),
                    is_demand: config.supervisor.cgroup == CgroupUse::Always,
                    name: match &executor.group_name {
                        Some(name) => format!("{name}/{stage}-{index}"),
                        None => format!("{stage}-{index}"),
                    },
                    wanted: Wanted {
                        cpus: executor.cpus.clone(),
                        only_node: executor
                            .numa_preferred
                            .filter(|_| settings.memory == MemoryBinding::Strict)
                            .map(NodeId),
                    },
                }),
            })
        };
        let locks =
            config.locks.iter().map(|(name, lock)| (Resource::Lock(name.clone()), lock.count));
        let limit = limit.map(|count| (Resource::Limit(stage.to_string()), *count));
        Ok(Self {
            stage,
            executors: executors.iter().enumerate().map(plan).collect::<Result<_, _>>()?,
            counts: locks.chain(limit).collect(),
            stagger: config.staggered.get(&stage).copied().unwrap_or_default(),
            orders: config
                .locks
                .iter()
                .map(|(name, lock)| (Resource::Lock(name.clone()), lock.order.clone()))
                .collect(),
            settings: settings.clone(),
        })
    }

    /// Executors that are to have all cpus (`all`, `0-N`) get those that they can have on
    /// `machine`.
    pub fn settle_on(&mut self, machine: &Machine) {
        for executor in &mut self.executors {
            let wanted = executor.group.as_mut().map(|group| &mut group.wanted.cpus);
            for cpus in wanted.into_iter().chain([&mut executor.placement.cpus]).flatten() {
                // What is refused by number is a problem of its own, told later.
                let there = machine.granted(&machine.online).unwrap_or(machine.online.clone());
                *cpus = cpus.on(&there);
            }
        }
    }

    /// Everything that keeps the executors from being started on `machine`.
    pub fn problems(&self, machine: &Machine) -> Vec<Problem> {
        self.executors.iter().flat_map(|executor| executor.problems(machine)).collect()
    }

    /// Settings that executors of this project refuse, so that their start would fail. The start
    /// itself leaves that to them: one of another version may know more.
    pub fn refused_settings(&self, machine: &Machine) -> Vec<Problem> {
        self.executors.iter().flat_map(|executor| executor.refused_settings(machine)).collect()
    }

    /// What can be done, but is hardly meant.
    pub fn doubts(&self, machine: &Machine) -> Vec<String> {
        let doubt = |executor: &ExecutorPlan| {
            if let Some(node) = executor.placement.preferred_node
                && machine.nodes.is_empty()
            {
                return Some(format!(
                    "{} (line {}): numa_preferred = {node}, but this kernel tells of no NUMA nodes: \
                     memory comes from wherever there is some",
                    executor.key, executor.line
                ));
            }
            let (node, cpus) =
                (executor.placement.preferred_node?, executor.placement.cpus.as_ref()?);
            // Those that are missing are told as such.
            let elsewhere = cpus.and(&machine.online).minus(machine.node_cpus.get(&node)?);
            (!elsewhere.is_empty()).then(|| {
                format!(
                    "{} (line {}): numa_preferred = {node}, but cpus {elsewhere} of its cpuset \
                     are on another NUMA node",
                    executor.key, executor.line
                )
            })
        };
        let placed = self.executors.iter().filter_map(doubt);
        let idle = self.executors.iter().filter_map(ExecutorPlan::idle_isa);
        placed.chain(idle).chain(self.beyond(&machine.budget)).collect()
    }

    /// What the executors could use and limits above this process do not let them.
    fn beyond(&self, budget: &Budget) -> Vec<String> {
        let named = self.executors.iter().filter_map(|executor| executor.placement.cpus.as_ref());
        let cpus: BTreeSet<u32> = named.flat_map(|cpus| cpus.iter().collect::<Vec<_>>()).collect();
        let quota = budget.quota.clone().and_then(|quota| {
            let budget = CpuBudget { cpus: CpuSet::default(), quota: Some(quota) };
            budget.warning(cpus.len())
        });
        // Each executor has a thread for each of its cpus, and some for requests and files.
        const BESIDE: u64 = 24;
        let threads =
            (cpus.len() + self.executors.len()) as u64 + BESIDE * self.executors.len() as u64;
        let tasks = budget.tasks.as_ref().and_then(|tasks| tasks.warning(threads));
        let memory = budget.memory.as_ref().filter(|memory| matches!(memory.by, Limiter::Group(_)));
        let memory = memory.map(|memory| format!("{memory}; tasks beyond that are refused"));
        memory.into_iter().chain(quota).chain(tasks).collect()
    }

    /// What is to be said of environment names, each name once.
    pub fn env_warnings(&self) -> BTreeMap<OsString, EnvWarning> {
        let names: BTreeSet<OsString> =
            self.executors.iter().flat_map(ExecutorPlan::warned_names).collect();
        let warning = |name: OsString| {
            let warning = env_warning(name.to_str()?)?;
            Some((name, warning))
        };
        names.into_iter().filter_map(warning).collect()
    }
}

impl ExecutorPlan {
    fn problems(&self, machine: &Machine) -> Vec<Problem> {
        let (key, line) = (|| self.key.clone(), self.line);
        let mut problems = Vec::new();
        if let Err(lack) = runnable(&self.program) {
            problems.push(Problem::NoProgram { key: key(), line, lack });
        }
        if let Some(wanted) = &self.placement.cpus {
            let missing = wanted.minus(&machine.online);
            let (wanted, online) = (wanted.clone(), machine.online.clone());
            if !missing.is_empty() {
                problems.push(Problem::NoCpus { key: key(), line, wanted, missing, online });
            } else {
                match machine.granted(&wanted).map(|granted| wanted.minus(&granted)) {
                    Ok(refused) if refused.is_empty() => {}
                    Ok(refused) => {
                        problems.push(Problem::CpusRefused { key: key(), line, wanted, refused });
                    }
                    Err(source) => {
                        problems.push(Problem::Unknown { key: key(), line, wanted, source });
                    }
                }
            }
        }
        // Where the kernel knows no nodes, a preference is about nothing (see `doubts`).
        let is_demand = self.placement.binding == Binding::Strict;
        if let Some(node) = self.placement.preferred_node
            && !machine.nodes.contains(&node)
            && (is_demand || !machine.nodes.is_empty())
        {
            let nodes = machine.nodes.clone();
            problems.push(Problem::NoNode { key: key(), line, node, nodes });
        }
        problems
    }

    /// The stage of an executor of this project.
    fn own_stage(&self) -> Option<Stage> {
        let name = self.program.file_name();
        Stage::ALL.into_iter().find(|stage| name == Some(OsStr::new(stage.executor())))
    }

    /// The environment that it starts in.
    fn environment(&self) -> Environment {
        let inherited =
            if self.inherit_envs { Environment::of_process() } else { Environment::default() };
        let mut environment = inherited;
        environment.extend(self.envs.clone());
        // It is placed by its supervisor.
        environment.without(&PLACEMENT_NAMES)
    }

    /// Instructions that it is told of and has no kernel of.
    fn idle_isa(&self) -> Option<String> {
        let idle = self.environment().idle_isa(self.own_stage()?)?;
        Some(format!("{} (line {}): {idle}", self.key, self.line))
    }

    fn refused_settings(&self, machine: &Machine) -> Vec<Problem> {
        let Some(stage) = self.own_stage() else { return Vec::new() };
        let environment = self.environment();
        let (_, mut faults) = Options::look(stage, &self.args, &environment);
        faults.extend(environment.lacking_isa(stage, |name| machine.has(name)));
        let problem = |fault: Fault| {
            let part = match &fault.source {
                Source::Variable(name) if self.envs.contains_key(*name) => format!(".envs.{name}"),
                Source::Variable(_) => String::new(),
                Source::Option(_) | Source::Argument(_) => ".args".to_owned(),
            };
            Problem::Setting { key: format!("{}{part}", self.key), line: self.line, fault }
        };
        faults.into_iter().map(problem).collect()
    }

    /// Names in its environment that are worth a look. venus-worker itself sets those of its own
    /// placement, so they are only looked at where the configuration sets them.
    fn warned_names(&self) -> BTreeSet<OsString> {
        let inherited = env::vars_os()
            .map(|(name, _)| name)
            .filter(|name| self.inherit_envs && !is_placement_name(name));
        self.envs.keys().map(OsString::from).chain(inherited).collect()
    }
}

fn placement(executor: &ExecutorConfig, settings: &StageSettings) -> Placement {
    Placement {
        cpus: executor.cpus.clone(),
        preferred_node: executor.numa_preferred.map(NodeId),
        binding: match settings.memory {
            MemoryBinding::Preferred => Binding::Preferred,
            MemoryBinding::Strict => Binding::Strict,
        },
        open_files: settings
            .nofile
            .map_or(ResourceLimit::Hard, |count| ResourceLimit::Exactly(count.into())),
        locked_memory: match settings.memlock {
            None => ResourceLimit::Hard,
            Some(MemoryLimit::Bytes(bytes)) => ResourceLimit::Exactly(bytes),
            Some(MemoryLimit::Unlimited) => ResourceLimit::Unlimited,
        },
    }
}

fn is_placement_name(name: &OsStr) -> bool {
    PLACEMENT_NAMES.iter().any(|placement| name == *placement)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use seal_host::{CpuQuota, MemoryBudget, TaskBudget};

    use super::*;

    const STAGES: [StageName; 3] = [StageName::Pc1, StageName::Pc2, StageName::C2];

    fn scheme(name: &str) -> Config {
        let schemes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/schemes");
        seal_config::load(&schemes.join(name)).expect("a scheme that must work")
    }

    /// A directory with a supervisor and the executors, none of which does anything.
    fn installed() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in ["seal-supervisor", "pc1-exec", "pc2-exec", "c2-exec"] {
            let path = dir.path().join(name);
            fs::write(&path, "").expect("writable");
            let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(&path, executable).expect("ours");
        }
        let supervisor = dir.path().join("seal-supervisor");
        (dir, supervisor)
    }

    fn machine(online: &str, nodes: &[&str]) -> Machine {
        let root = tempfile::tempdir().expect("a temporary directory");
        test_support::write_sysfs(root.path(), online, nodes).expect("writable");
        Machine::described(root.path()).expect("readable")
    }

    fn problems(plan: &Plan, machine: &Machine) -> Vec<String> {
        plan.problems(machine).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn both_schemes_start_on_the_machine_they_are_made_for() {
        let machine = machine("0-95", &["0-47", "48-95"]);
        let (_dir, supervisor) = installed();
        for (name, executors) in [("scheme-a.toml", [2, 1, 1]), ("scheme-b.toml", [2, 2, 2])] {
            for (stage, count) in STAGES.into_iter().zip(executors) {
                let plan =
                    Plan::new(&scheme(name), stage, &supervisor, None).expect("a good scheme");
                assert_eq!(problems(&plan, &machine), [""; 0], "{name} {stage}");
                assert_eq!(plan.executors.len(), count);
            }
        }
    }

    #[test]
    fn the_needs_of_a_task_are_its_locks_and_its_stage() {
        let (_dir, supervisor) = installed();
        let plan =
            Plan::new(&scheme("scheme-b.toml"), StageName::C2, &supervisor, None).expect("good");
        let needs = plan.executors[1].needs.iter().map(Resource::to_string).collect::<Vec<_>>();
        assert_eq!(needs, ["lock gpu2", "limit c2"]);
        assert_eq!(plan.counts.len(), 3);
        assert!(plan.executors[1].needs.iter().all(|need| plan.counts.contains_key(need)));
    }

    #[test]
    fn a_smaller_machine_is_told_what_it_lacks() {
        let machine = machine("0-1", &["0-1"]);
        let (dir, supervisor) = installed();
        fs::remove_file(dir.path().join("pc1-exec")).expect("there");
        let plan =
            Plan::new(&scheme("scheme-a.toml"), StageName::Pc1, &supervisor, None).expect("good");
        let pc1 = dir.path().join("pc1-exec");
        let missing = |index, line| {
            format!(
                "processors.pc1[{index}] (line {line}): there is no executable {}",
                pc1.display()
            )
        };
        assert_eq!(
            problems(&plan, &machine),
            [
                missing(0, 7),
                "processors.pc1[0] (line 7): cgroup.cpuset = \"0-41\": cpus 2-41 are missing; \
                 this machine has 0-1"
                    .to_owned(),
                missing(1, 13),
                "processors.pc1[1] (line 13): cgroup.cpuset = \"48-89\": cpus 48-89 are missing; \
                 this machine has 0-1"
                    .to_owned(),
                "processors.pc1[1] (line 13): numa_preferred = 1: this machine has NUMA nodes 0"
                    .to_owned(),
            ]
        );
    }

    #[test]
    fn what_a_binary_lacks_is_told() {
        let (dir, supervisor) = installed();
        let [plain, executable] = ["plain", "pc1-exec"].map(|name| dir.path().join(name));
        fs::write(&plain, "").expect("writable");
        let plain_mode: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        fs::set_permissions(&plain, plain_mode).expect("ours");
        for (bin, told) in [
            (dir.path().join("none").as_path(), "there is no executable /"),
            (&*plain, "plain is not executable: it has mode 644"),
            (dir.path(), " is no file that could be run"),
            (Path::new("no-such-exec"), "there is no executable no-such-exec in PATH; write"),
            (&*executable, ""),
        ] {
            let text = format!("[[processors.pc1]]\nbin = {bin:?}");
            let config = seal_config::parse(Path::new("w.toml"), &text).expect("well formed");
            let plan = Plan::new(&config, StageName::Pc1, &supervisor, None).expect("meant");
            let problems = problems(&plan, &machine("0-1", &["0-1"]));
            assert_eq!(problems.is_empty(), told.is_empty(), "{problems:?}");
            assert!(problems.iter().all(|problem| problem.contains(told)), "{problems:?}");
        }
    }

    #[test]
    fn a_workers_file_is_told_from_one_that_starts_the_supervisor_by_mistake() {
        let (_dir, supervisor) = installed();
        let refused = |more: &str| {
            let text = format!("[[processors.pc1]]\nbin = {supervisor:?}\n{more}");
            let config = seal_config::parse(Path::new("w.toml"), &text).expect("well formed");
            Plan::new(&config, StageName::Pc1, &supervisor, None).expect_err("itself").to_string()
        };
        for more in [
            "args = ['processor', 'pc1', '--config', '/etc/p.toml']",
            "args = ['processor', 'pc1']",
            "envs = { SEAL_CONFIG = '/etc/p.toml' }",
        ] {
            let workers = refused(more);
            let told = "the one that its args name after --config, or its envs as SEAL_CONFIG";
            assert!(workers.ends_with(told), "{more}: {workers}");
        }
        for more in ["", "args = []", "args = ['pc1']"] {
            let mistaken = refused(more);
            let told = "leave bin out for pc1-exec, or name an executor";
            assert!(mistaken.ends_with(told), "{more}: {mistaken}");
        }
    }

    #[test]
    fn cpus_of_another_node_than_the_preferred_one_are_doubted() {
        let machine = machine("0-7", &["0-3", "4-7"]);
        let text = "[[processors.pc1]]\nnuma_preferred = 0\ncgroup.cpuset = '2-5'\n\
                    [[processors.pc1]]\nnuma_preferred = 1\ncgroup.cpuset = '4-9'";
        let config = seal_config::parse(Path::new("w.toml"), text).expect("well formed");
        let plan = Plan::new(&config, StageName::Pc1, Path::new("/bin/x"), None).expect("good");
        assert_eq!(
            plan.doubts(&machine),
            ["processors.pc1[0] (line 1): numa_preferred = 0, but cpus 4-5 of its cpuset are on \
              another NUMA node"]
        );
    }

    #[test]
    fn a_preferred_node_is_a_doubt_and_a_demanded_one_a_problem_where_the_kernel_knows_none() {
        let known = machine("0-7", &["0-7"]);
        let machine = Machine { nodes: Vec::new(), node_cpus: BTreeMap::new(), ..known };
        for (memory, problems, doubts) in [("preferred", 0, 1), ("strict", 1, 1)] {
            let text = format!(
                "[[processors.pc1]]\nbin = '/bin/sh'\nnuma_preferred = 0\n[supervisor]\n\
                 memory = '{memory}'"
            );
            let config = seal_config::parse(Path::new("w.toml"), &text).expect("well formed");
            let plan = Plan::new(&config, StageName::Pc1, Path::new("/bin/x"), None).expect("good");
            let found = (plan.problems(&machine).len(), plan.doubts(&machine).len());
            assert_eq!(found, (problems, doubts), "{memory}");
        }
    }

    #[test]
    fn instructions_are_judged_by_the_machine_and_by_who_has_kernels_of_them() {
        let (_dir, supervisor) = installed();
        let known = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        let judged = |stage, isa: &str, instructions| {
            let text = format!(
                "[[processors.{stage}]]\nenvs = {{ SEAL_FORCE_ISA = '{isa}' }}\n\
                 inherit_envs = false"
            );
            let config = seal_config::parse(Path::new("w.toml"), &text).expect("well formed");
            let plan = Plan::new(&config, stage, &supervisor, None).expect("good");
            let machine = Machine { instructions, ..machine("0-7", &["0-7"]) };
            let refused = plan.refused_settings(&machine);
            let refused: Vec<_> = refused.iter().map(Problem::to_string).collect();
            (refused.concat(), plan.doubts(&machine).concat())
        };
        let zen3 = || known(&["sha_ni", "avx2", "fma"]);
        let lacks = "processors.c2[0].envs.SEAL_FORCE_ISA (line 1): SEAL_FORCE_ISA=\"ifma\": the \
                     processor lacks avx512f and avx512ifma; write portable, or leave it out";
        let idle = "processors.pc1[0] (line 1): SEAL_FORCE_ISA=\"fma\" does nothing here: it names \
                    instructions of pc2-exec; pc1-exec takes the fastest that it has";
        for (stage, isa, instructions, refused, doubted) in [
            (StageName::C2, "ifma", zen3(), lacks, ""),
            (StageName::C2, "ifma", None, "", ""),
            (StageName::Pc2, "fma", zen3(), "", ""),
            (StageName::Pc1, "fma", known(&[]), "", idle),
        ] {
            let expected = (refused.to_owned(), doubted.to_owned());
            assert_eq!(judged(stage, isa, instructions), expected, "{stage} {isa}");
        }
        let (old, _) = judged(StageName::Pc2, "fma", known(&["sse2"]));
        assert!(old.contains("lacks avx2 and fma; write portable, or leave it out"), "{old}");
    }

    #[test]
    fn limits_above_this_process_are_told_before_the_start() {
        let group = || "/a/b".to_owned();
        let memory =
            MemoryBudget { bytes: 400 << 20, by: Limiter::Group(group()), there: 23 << 30 };
        let budget = Budget {
            memory: Some(memory),
            quota: Some(CpuQuota { thousandths: 1500, group: group() }),
            tasks: Some(TaskBudget { most: 20, by: Limiter::Group(group()), now: Some(7) }),
        };
        let machine = Machine { budget, ..machine("0-7", &["0-7"]) };
        let text = "[[processors.pc1]]\ncgroup.cpuset = '0-3'";
        let config = seal_config::parse(Path::new("w.toml"), text).expect("well formed");
        let plan = Plan::new(&config, StageName::Pc1, Path::new("/bin/x"), None).expect("good");
        let doubts = plan.doubts(&machine);
        let [memory, quota, tasks] = &doubts[..] else { panic!("three: {doubts:?}") };
        let told = "memory 400 MiB: limit of cgroup /a/b, the machine has 23552 MiB; ";
        assert!(memory.starts_with(told), "{memory}");
        assert!(quota.contains("is 1.500 cpus, less than the 4 in use"), "{quota}");
        assert!(tasks.starts_with("cgroup /a/b allows 20 processes and threads"), "{tasks}");
    }

    #[test]
    fn all_cpus_are_those_that_executors_can_have() {
        let machine = Machine {
            grant: crate::machine::Grant::Within("2-5".parse().expect("a list")),
            ..machine("0-7", &["0-7"])
        };
        for (list, wanted) in [("all", "2-5"), ("4-N", "4-5"), ("N", "5"), ("0 1,", "0-1")] {
            let text = format!("[[processors.pc1]]\nbin = '/bin/sh'\ncgroup.cpuset = '{list}'");
            let config = seal_config::parse(Path::new("w.toml"), &text).expect("well formed");
            let mut plan =
                Plan::new(&config, StageName::Pc1, Path::new("/bin/x"), None).expect("good");
            plan.settle_on(&machine);
            let cpus = plan.executors[0].placement.cpus.as_ref().expect("named");
            assert_eq!(cpus.to_string(), wanted, "{list}");
            let problems = plan.problems(&machine);
            assert_eq!(problems.is_empty(), wanted != "0-1", "{list}: {problems:?}");
        }
    }

    #[test]
    fn settings_become_limits_and_bindings_of_every_executor() {
        let text = "[[processors.pc1]]\nnuma_preferred = 1\n[supervisor]\nmemory = 'strict'\n\
                    nofile = 4096\n[supervisor.pc1]\nmemlock = '1GiB'\n[[processors.c2]]";
        let config = seal_config::parse(Path::new("w.toml"), text).expect("well formed");
        let placement = |stage| {
            let plan = Plan::new(&config, stage, Path::new("/bin/x"), None).expect("good");
            plan.executors[0].placement.clone()
        };
        let pc1 = placement(StageName::Pc1);
        assert_eq!((pc1.preferred_node, pc1.binding), (Some(NodeId(1)), Binding::Strict));
        assert_eq!(pc1.open_files, ResourceLimit::Exactly(4096));
        assert_eq!(pc1.locked_memory, ResourceLimit::Exactly(1 << 30));
        assert_eq!(placement(StageName::C2).locked_memory, ResourceLimit::Hard);
    }

    #[test]
    fn cpus_that_a_container_withholds_are_named() {
        let mut machine = machine("0-95", &["0-47", "48-95"]);
        machine.grant = crate::machine::Grant::Within((0..40).collect());
        let (_dir, supervisor) = installed();
        let plan =
            Plan::new(&scheme("scheme-a.toml"), StageName::Pc1, &supervisor, None).expect("good");
        let problems = problems(&plan, &machine);
        assert!(problems[0].contains("does not let this process use cpus 40-41;"), "{problems:?}");
    }

    #[test]
    fn the_supervisor_is_not_its_own_executor() {
        let (dir, supervisor) = installed();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&supervisor, &link).expect("writable");
        for bin in [&supervisor, &link] {
            let text = format!("\n[[processors.pc1]]\nbin = {:?}", bin.display().to_string());
            let config = seal_config::parse(Path::new("w.toml"), &text).expect("well formed");
            let error =
                Plan::new(&config, StageName::Pc1, &supervisor, None).unwrap_err().to_string();
            assert!(error.starts_with("w.toml:2: processors.pc1[0].bin = "), "{error}");
            assert!(error.contains("is the supervisor itself; leave bin out"), "{error}");
        }
    }

    #[test]
    fn a_stage_of_other_software_needs_a_binary() {
        let path = Path::new("w.toml");
        let with = "[[processors.snap_prove]]\nbin = '/opt/damocles-worker'";
        let plan = |text| {
            let config = seal_config::parse(path, text).expect("well formed");
            Plan::new(&config, StageName::SnapProve, Path::new("/bin/x"), None)
        };
        let plan_of_it = plan(with).expect("a binary is named");
        assert_eq!(plan_of_it.executors[0].program, Path::new("/opt/damocles-worker"));
        assert_eq!(plan_of_it.executors[0].args, ["processor", "snap_prove"]);
        assert_eq!(
            plan("[[processors.snap_prove]]").unwrap_err().to_string(),
            "w.toml:1: processors.snap_prove[0] has no bin, and this project has no executor of \
             snap_prove; name the processor's binary, or leave the stage to the worker"
        );
    }

    #[test]
    fn a_stage_without_executors_is_an_error() {
        let config = seal_config::parse(Path::new("w.toml"), "[[processors.pc1]]").expect("good");
        let error = Plan::new(&config, StageName::C2, Path::new("/bin/x"), None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "w.toml has no [[processors.c2]] table; add one to run executors of c2"
        );
    }

    #[test]
    fn a_bare_name_is_searched_for() {
        let (dir, _) = installed();
        let search = env::join_paths(["/no/such".as_ref(), dir.path()]).expect("paths");
        let found = find_program(Path::new("c2-exec"), Some(&search));
        assert_eq!(found, dir.path().join("c2-exec"));
        let lost = find_program(Path::new("no-such-exec"), Some(&search));
        assert_eq!(lost, Path::new("no-such-exec"));
        assert_eq!(find_program(Path::new("./c2-exec"), Some(&search)), Path::new("./c2-exec"));
    }

    #[test]
    fn dead_names_of_the_schemes_are_reported_once() {
        let (_dir, supervisor) = installed();
        let plan =
            Plan::new(&scheme("scheme-a.toml"), StageName::Pc1, &supervisor, None).expect("good");
        let warnings = plan.env_warnings();
        assert_eq!(
            warnings.get(OsStr::new("FIL_PROOFS_MAXIMIZE_CACHING")),
            Some(&EnvWarning::NoEffect)
        );
        assert!(!warnings.contains_key(OsStr::new("FIL_PROOFS_USE_MULTICORE_SDR")));
    }
}
