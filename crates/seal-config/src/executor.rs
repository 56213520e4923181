//! `[[processors.<stage>]]`: one executor process a table.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use seal_options::nearest;
use seal_types::{CpuSet, StageName};

use crate::error::ConfigError;
use crate::tree::{Node, Table, opt};
use crate::{Ignored, LockConfig};

/// How long an executor may take until its ready line, where the configuration says nothing.
pub const DEFAULT_STABLE_WAIT: Duration = Duration::from_secs(5);

/// One `[[processors.<stage>]]` table: one executor process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorConfig {
    /// The line its table starts on.
    pub line: usize,
    /// The binary; `None` is the stage's own executor.
    pub bin: Option<PathBuf>,
    /// Its arguments. Where a binary is named and they are not, those by which a worker starts the
    /// processor of the stage.
    pub args: Vec<String>,
    /// How long it may take until its ready line.
    pub stable_wait: Duration,
    /// The NUMA node whose memory it should use.
    pub numa_preferred: Option<u32>,
    /// The name of the cgroup to put it in.
    pub group_name: Option<String>,
    /// The cpus it may use.
    pub cpus: Option<CpuSet>,
    /// Environment names set for it.
    pub envs: BTreeMap<String, String>,
    /// How many tasks it takes at the same time; `None` is any number.
    pub concurrent: Option<NonZeroU32>,
    /// Locks that each of its tasks holds.
    pub locks: BTreeSet<String>,
    /// Whether it is started again when it has died.
    pub auto_restart: bool,
    /// Whether it gets the supervisor's environment beside `envs`.
    pub inherit_envs: bool,
}

pub(crate) fn read_executor(
    stage: StageName,
    node: Node<'_>,
    declared: &BTreeMap<String, LockConfig>,
    ignored: &mut Vec<Ignored>,
) -> Result<ExecutorConfig, ConfigError> {
    let line = node.line();
    let mut table = node.into_table()?;
    let (group_name, cpus) = match table.take_table("cgroup")? {
        Some(cgroup) => read_cgroup(cgroup)?,
        None => (None, None),
    };
    let bin = opt(table.take("bin"), |bin| bin.nonempty_text().map(PathBuf::from))?;
    let args = opt(table.take("args"), |args| {
        args.into_items()?.iter().map(|arg| Ok(arg.nonnul_text()?.to_owned())).collect()
    })?;
    let executor = ExecutorConfig {
        line,
        args: match (args, &bin) {
            (Some(args), _) => args,
            (None, Some(_)) => vec!["processor".to_owned(), stage.wire_name().to_owned()],
            (None, None) => Vec::new(),
        },
        bin,
        stable_wait: opt(table.take("stable_wait"), |wait| wait.span_of_time())?
            .unwrap_or(DEFAULT_STABLE_WAIT),
        numa_preferred: opt(table.take("numa_preferred"), |node| node.number())?,
        group_name,
        cpus,
        envs: opt(table.take("envs"), |envs| read_envs(envs.secret().into_table()?))?
            .unwrap_or_default(),
        concurrent: opt(table.take("concurrent"), |count| count.count())?,
        locks: opt(table.take("locks"), |locks| read_locks(locks, declared))?.unwrap_or_default(),
        auto_restart: opt(table.take("auto_restart"), |value| value.boolean())?.unwrap_or(true),
        inherit_envs: opt(table.take("inherit_envs"), |value| value.boolean())?.unwrap_or(true),
    };
    if let Some(weight) = table.take("weight") {
        weight.number()?;
        ignored.push(weight.ignored("only older workers (v0.3 to v0.8) know this key"));
    }
    table.finish("key")?;
    Ok(executor)
}

type Cgroup = (Option<String>, Option<CpuSet>);

fn read_cgroup(mut cgroup: Table<'_>) -> Result<Cgroup, ConfigError> {
    let name = opt(cgroup.take("group_name"), |name| {
        let text = name.nonempty_text()?;
        let part = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\n');
        if !text.split('/').all(part) {
            return Err(name.invalid(
                "not a name of a cgroup; write one or more names between slashes, none of them \
                 \"..\", such as \"seal/pc1-0\"",
            ));
        }
        Ok(text.to_owned())
    })?;
    let cpus = opt(cgroup.take("cpuset"), |list| {
        list.text()?.parse().map_err(|error| list.invalid(error))
    })?;
    cgroup.finish("key")?;
    Ok((name, cpus))
}

fn read_envs(mut envs: Table<'_>) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut read = BTreeMap::new();
    for (name, value) in envs.take_all() {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(value.invalid_name(
                &name,
                "not a name that an environment can hold: it must not be empty and must hold \
                 neither \"=\" nor NUL",
            ));
        }
        let text = value.nonnul_text()?.to_owned();
        read.insert(name, text);
    }
    Ok(read)
}

fn read_locks(
    locks: Node<'_>,
    declared: &BTreeMap<String, LockConfig>,
) -> Result<BTreeSet<String>, ConfigError> {
    let mut read = BTreeSet::new();
    for lock in locks.into_items()? {
        let name = lock.text()?.to_owned();
        if !declared.contains_key(&name) {
            let hint = nearest(&name, declared.keys().map(String::as_str));
            let reason = "this lock is not declared; declare it under [processors.ext_locks] \
                          with the number of tasks that may hold it";
            return Err(lock.invalid_with_hint(reason, hint));
        }
        if !read.insert(name) {
            return Err(lock.invalid("this lock is named twice"));
        }
    }
    Ok(read)
}
