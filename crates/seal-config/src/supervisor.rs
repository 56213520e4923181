//! `[supervisor]`: what only our supervisor knows. Keys of a stage may stand under `[supervisor]`,
//! for all stages, or under `[supervisor.<stage>]`, for one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use seal_types::StageName;

use crate::error::ConfigError;
use crate::tree::{Node, Table, opt};

/// The `[supervisor]` section, with its defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupervisorConfig {
    /// Where limits, locks and status are shared; `None` is the default of the user.
    pub runtime_dir: Option<PathBuf>,
    /// Where metrics are served, if they are.
    pub metrics: Option<SocketAddr>,
    /// How many finished tasks of a supervisor are remembered.
    pub history: u32,
    /// Whether executors are put into cgroups.
    pub cgroup: CgroupUse,
    pub(crate) all: StageKeys,
    pub(crate) stages: BTreeMap<StageName, StageKeys>,
}

impl Default for SupervisorConfig {
    fn default() -> Self {
        Self {
            runtime_dir: None,
            metrics: None,
            history: 50,
            cgroup: CgroupUse::Auto,
            all: StageKeys::default(),
            stages: BTreeMap::new(),
        }
    }
}

/// The wait before the first restart where the configuration says nothing, and the longest one.
const RESTART_WAIT: Duration = Duration::from_millis(500);
const RESTART_WAIT_MAX: Duration = Duration::from_secs(30);

/// Whether executors are put into cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupUse {
    /// Where the kernel lets us; else cpu affinity does the same.
    Auto,
    /// Always; that none can be made is an error.
    Always,
    /// Never: cpu affinity does the same.
    Never,
}

/// What becomes of running tasks when the supervisor is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// They go on to the next point from which they can be resumed.
    Checkpoint,
    /// They go on to their end.
    Task,
    /// They are ended at once.
    Now,
}

/// How strictly an executor's memory stays on `numa_preferred`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryBinding {
    /// Memory of that node as long as there is any, then of others.
    Preferred,
    /// Memory of that node or none.
    Strict,
}

/// How much memory an executor may lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// Bytes.
    Bytes(u64),
    /// Any amount.
    Unlimited,
}

/// The keys of a stage as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StageKeys {
    retry: Option<u32>,
    drain: Option<Drain>,
    deadline: Option<Duration>,
    no_progress: Option<Duration>,
    ready_within: Option<Duration>,
    grace: Option<Duration>,
    restart_wait: Option<Duration>,
    restart_wait_max: Option<Duration>,
    crash_loop_after: Option<u32>,
    crash_loop_wait: Option<Duration>,
    memory: Option<MemoryBinding>,
    nofile: Option<u32>,
    memlock: Option<MemoryLimit>,
}

/// What holds for one stage, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageSettings {
    /// How often a request whose executor died is sent again.
    pub retry: u32,
    /// What becomes of running tasks when the supervisor is told to end.
    pub drain: Drain,
    /// The longest that a task may run.
    pub deadline: Option<Duration>,
    /// The longest that a task may run without any progress.
    pub no_progress: Option<Duration>,
    /// The supervisor is ready when its first executor is, or after this time if none has failed.
    pub ready_within: Duration,
    /// How long executors may take to end before they are killed.
    pub grace: Duration,
    /// The wait before an executor that died is started again; doubles each time.
    pub restart_wait: Duration,
    /// The longest such wait.
    pub restart_wait_max: Duration,
    /// After so many starts in a row that failed an executor counts as crash-looping.
    pub crash_loop_after: u32,
    /// The wait between starts of an executor that is crash-looping.
    pub crash_loop_wait: Duration,
    /// How strictly memory stays on `numa_preferred`.
    pub memory: MemoryBinding,
    /// Open files of an executor; `None` is as many as the hard limit lets it have.
    pub nofile: Option<u32>,
    /// Memory that an executor may lock; `None` is as much as the hard limit lets it.
    pub memlock: Option<MemoryLimit>,
}

impl SupervisorConfig {
    /// What holds for `stage`.
    pub fn stage(&self, stage: StageName) -> StageSettings {
        let own = self.stages.get(&stage);
        macro_rules! key {
            ($name:ident) => {
                own.and_then(|keys| keys.$name).or(self.all.$name)
            };
        }
        // PC1 goes on after its finished layers; the other stages would start anew.
        let retry = u32::from(stage == StageName::Pc1);
        let seconds = Duration::from_secs;
        StageSettings {
            retry: key!(retry).unwrap_or(retry),
            drain: key!(drain).unwrap_or(Drain::Checkpoint),
            deadline: key!(deadline),
            no_progress: key!(no_progress),
            ready_within: key!(ready_within).unwrap_or(seconds(4)),
            grace: key!(grace).unwrap_or(seconds(10)),
            restart_wait: key!(restart_wait).unwrap_or(RESTART_WAIT),
            restart_wait_max: key!(restart_wait_max).unwrap_or(RESTART_WAIT_MAX),
            crash_loop_after: key!(crash_loop_after).unwrap_or(10),
            crash_loop_wait: key!(crash_loop_wait).unwrap_or(seconds(300)),
            memory: key!(memory).unwrap_or(MemoryBinding::Preferred),
            nofile: key!(nofile),
            memlock: key!(memlock),
        }
    }
}

/// Reads `[supervisor]`, without its locks.
pub(crate) fn read_supervisor(table: &mut Table<'_>) -> Result<SupervisorConfig, ConfigError> {
    let default = SupervisorConfig::default();
    let runtime_dir = opt(table.take("runtime_dir"), |dir| {
        let path = PathBuf::from(dir.nonempty_text()?);
        if path.is_absolute() { Ok(path) } else { Err(dir.invalid("must be an absolute path")) }
    })?;
    let all = read_stage_keys(table, &StageKeys::default())?;
    let words =
        [("auto", CgroupUse::Auto), ("always", CgroupUse::Always), ("never", CgroupUse::Never)];
    Ok(SupervisorConfig {
        runtime_dir,
        metrics: opt(table.take("metrics"), |address| address.address())?,
        history: opt(table.take("history"), |count| count.number_up_to(10_000))?
            .unwrap_or(default.history),
        cgroup: opt(table.take("cgroup"), |word| word.word(&words))?.unwrap_or(default.cgroup),
        stages: StageName::ALL
            .iter()
            .filter_map(|stage| {
                let table = table.take_table(stage.name()).transpose()?;
                let read = table.and_then(|mut table| {
                    let keys = read_stage_keys(&mut table, &all)?;
                    table.finish("key")?;
                    Ok((*stage, keys))
                });
                Some(read)
            })
            .collect::<Result<_, _>>()?,
        all,
    })
}

/// Reads the keys of a stage, beside which those of `all` stages hold.
fn read_stage_keys(table: &mut Table<'_>, all: &StageKeys) -> Result<StageKeys, ConfigError> {
    let drains = [("checkpoint", Drain::Checkpoint), ("task", Drain::Task), ("now", Drain::Now)];
    let bindings = [("preferred", MemoryBinding::Preferred), ("strict", MemoryBinding::Strict)];
    let mut time = |key| opt(table.take(key), |value| value.span_of_time());
    let (deadline, no_progress) = (time("deadline")?, time("no_progress")?);
    let (ready_within, grace) = (time("ready_within")?, time("grace")?);
    let crash_loop_wait = time("crash_loop_wait")?;
    let (restart_wait, restart_wait_max) = read_restart_waits(table, all)?;
    Ok(StageKeys {
        retry: opt(table.take("retry"), |count| count.number())?,
        drain: opt(table.take("drain"), |word| word.word(&drains))?,
        deadline,
        no_progress,
        ready_within,
        grace,
        restart_wait,
        restart_wait_max,
        crash_loop_after: opt(table.take("crash_loop_after"), |count| Ok(count.count()?.get()))?,
        crash_loop_wait,
        memory: opt(table.take("memory"), |word| word.word(&bindings))?,
        nofile: opt(table.take("nofile"), |count| Ok(count.count()?.get()))?,
        memlock: opt(table.take("memlock"), |size| match size.text()? {
            "unlimited" => Ok(MemoryLimit::Unlimited),
            _ => size.bytes().map(MemoryLimit::Bytes),
        })?,
    })
}

type Waits = (Option<Duration>, Option<Duration>);

/// `restart_wait` and `restart_wait_max`, the first of which must not be the longer one.
fn read_restart_waits(table: &mut Table<'_>, all: &StageKeys) -> Result<Waits, ConfigError> {
    let [first, longest] = ["restart_wait", "restart_wait_max"].map(|key| table.take(key));
    let time = |node: &Option<Node<'_>>| node.as_ref().map(Node::span_of_time).transpose();
    let (wait, wait_max) = (time(&first)?, time(&longest)?);
    let holds = wait.or(all.restart_wait).unwrap_or(RESTART_WAIT);
    let holds_max = wait_max.or(all.restart_wait_max).unwrap_or(RESTART_WAIT_MAX);
    if holds > holds_max {
        let told = |time| humantime::format_duration(time);
        if let Some(first) = first {
            let reason = format!("longer than restart_wait_max, which is {}", told(holds_max));
            return Err(first.invalid(reason));
        }
        if let Some(longest) = longest {
            let reason = format!("shorter than restart_wait, which is {}", told(holds));
            return Err(longest.invalid(reason));
        }
    }
    Ok((wait, wait_max))
}
