//! The `[processors]` section, and the `[supervisor]` section beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use seal_types::Stage;

use crate::error::{ConfigError, Invalid, nearest};
use crate::tree::{Node, Source, Table};
use crate::{StageName, parse_cpu_list};

/// How long an executor may take until its ready line, where the configuration says nothing.
pub const DEFAULT_STABLE_WAIT: Duration = Duration::from_secs(5);

/// How often a request of `stage` whose executor died is sent again, where the configuration says
/// nothing. PC1 goes on after its finished layers; the other stages would start anew.
pub const fn default_retry(stage: Stage) -> u32 {
    match stage {
        Stage::Pc1 => 1,
        Stage::Pc2 | Stage::C2 => 0,
    }
}

/// A validated configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// Tasks of a stage that may run at the same time.
    pub concurrent: BTreeMap<StageName, NonZeroU32>,
    /// The least time between the starts of two tasks of a stage.
    pub staggered: BTreeMap<StageName, Duration>,
    /// Declared locks and how many tasks may hold each at the same time.
    pub locks: BTreeMap<String, NonZeroU32>,
    /// The executors of each stage in the order of the file.
    pub executors: BTreeMap<StageName, Vec<ExecutorConfig>>,
    /// How often a request whose executor died is sent again, where the file says so
    /// (otherwise [`default_retry`]).
    pub retry: BTreeMap<Stage, u32>,
}

/// One `[[processors.<stage>]]` table: one executor process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorConfig {
    /// The line its table starts on.
    pub line: usize,
    /// The binary; `None` is the stage's own executor.
    pub bin: Option<PathBuf>,
    /// Its arguments.
    pub args: Vec<String>,
    /// How long it may take until its ready line.
    pub stable_wait: Duration,
    /// The NUMA node whose memory it should use.
    pub numa_preferred: Option<u32>,
    /// The name of the cgroup to put it in.
    pub group_name: Option<String>,
    /// The cpus it may use, sorted.
    pub cpus: Option<Vec<u32>>,
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

/// Reads the configuration in `path`.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
    parse(path, &text)
}

/// Reads the configuration `text`; `path` is for messages.
pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    let mut config = Config {
        path: path.to_path_buf(),
        concurrent: BTreeMap::new(),
        staggered: BTreeMap::new(),
        locks: BTreeMap::new(),
        executors: BTreeMap::new(),
        retry: BTreeMap::new(),
    };
    let mut file = Source::new(path, text).read()?;
    let Some(mut processors) = file.take_table("processors")? else {
        return Err(ConfigError::from(Box::new(Invalid {
            path: path.to_path_buf(),
            line: 1,
            key: "processors".to_owned(),
            value: None,
            reason: "the file has no [processors] section".to_owned(),
            hint: nearest("processors", file.take_all().iter().map(|(key, _)| key.as_str()))
                .map(str::to_owned),
        })));
    };
    read_limits(&mut processors, &mut config)?;
    if let Some(mut locks) = processors.take_table("ext_locks")? {
        for (name, count) in locks.take_all() {
            if name.is_empty() {
                return Err(count.invalid("a lock needs a name"));
            }
            config.locks.insert(name, count.count()?);
        }
    }
    // The worker's own setting: checked for its shape, no effect on executors.
    if let Some(mut files) = processors.take_table("static_tree_d")? {
        for (_, file) in files.take_all() {
            file.nonempty_text()?;
        }
    }
    for stage in StageName::ALL {
        let Some(tables) = processors.take(stage.name()) else { continue };
        let mut executors = Vec::new();
        for table in tables.into_items()? {
            executors.push(read_executor(table, &config.locks)?);
        }
        config.executors.insert(*stage, executors);
    }
    processors.finish("key or stage")?;
    if let Some(supervisor) = file.take_table("supervisor")? {
        read_supervisor(supervisor, &mut config)?;
    }
    Ok(config)
}

/// `[supervisor.<stage>]`: what only our supervisor knows.
fn read_supervisor(mut supervisor: Table<'_>, config: &mut Config) -> Result<(), ConfigError> {
    for stage in Stage::ALL {
        let Some(mut table) = supervisor.take_table(stage.name())? else { continue };
        if let Some(retry) = opt(table.take("retry"), |retry| retry.number())? {
            config.retry.insert(stage, retry);
        }
        table.finish("key")?;
    }
    supervisor.finish("stage")
}

/// `limitation.concurrent`, `limitation.staggered` and the older `limit`, which means the same as
/// `limitation.concurrent`.
fn read_limits(processors: &mut Table<'_>, config: &mut Config) -> Result<(), ConfigError> {
    if let Some(mut limitation) = processors.take_table("limitation")? {
        if let Some(mut concurrent) = limitation.take_table("concurrent")? {
            for (key, limit) in concurrent.take_all() {
                config.concurrent.insert(stage(&key, &limit)?, limit.count()?);
            }
        }
        if let Some(mut staggered) = limitation.take_table("staggered")? {
            for (key, interval) in staggered.take_all() {
                config.staggered.insert(stage(&key, &interval)?, interval.duration()?);
            }
        }
        limitation.finish("key")?;
    }
    if let Some(mut older) = processors.take_table("limit")? {
        for (key, limit) in older.take_all() {
            let (name, count) = (stage(&key, &limit)?, limit.count()?);
            match config.concurrent.insert(name, count) {
                Some(other) if other != count => {
                    return Err(limit.invalid(format!(
                        "processors.limitation.concurrent.{name} says {other}; keep one of the two"
                    )));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn stage(key: &str, value: &Node<'_>) -> Result<StageName, ConfigError> {
    StageName::from_name(key).ok_or_else(|| {
        let names: Vec<_> = StageName::ALL.iter().map(|stage| stage.name()).collect();
        value.invalid_with_hint(
            format!("unknown stage; known are {}", names.join(", ")),
            nearest(key, names.iter().copied()),
        )
    })
}

fn read_executor(
    node: Node<'_>,
    declared: &BTreeMap<String, NonZeroU32>,
) -> Result<ExecutorConfig, ConfigError> {
    let line = node.line();
    let mut table = node.into_table()?;
    let (group_name, cpus) = match table.take_table("cgroup")? {
        Some(cgroup) => read_cgroup(cgroup)?,
        None => (None, None),
    };
    let executor = ExecutorConfig {
        line,
        bin: opt(table.take("bin"), |bin| bin.nonempty_text().map(PathBuf::from))?,
        args: opt(table.take("args"), |args| {
            args.into_items()?.iter().map(|arg| Ok(arg.nonnul_text()?.to_owned())).collect()
        })?
        .unwrap_or_default(),
        stable_wait: opt(table.take("stable_wait"), |wait| match wait.duration()? {
            Duration::ZERO => Err(wait.invalid("must be longer than nothing")),
            duration => Ok(duration),
        })?
        .unwrap_or(DEFAULT_STABLE_WAIT),
        numa_preferred: opt(table.take("numa_preferred"), |node| node.number())?,
        group_name,
        cpus,
        envs: table.take_table("envs")?.map(read_envs).transpose()?.unwrap_or_default(),
        concurrent: opt(table.take("concurrent"), |count| count.count())?,
        locks: opt(table.take("locks"), |locks| read_locks(locks, declared))?.unwrap_or_default(),
        auto_restart: opt(table.take("auto_restart"), |value| value.boolean())?.unwrap_or(true),
        inherit_envs: opt(table.take("inherit_envs"), |value| value.boolean())?.unwrap_or(true),
    };
    table.finish("key")?;
    Ok(executor)
}

fn opt<'a, T>(
    node: Option<Node<'a>>,
    read: impl FnOnce(Node<'a>) -> Result<T, ConfigError>,
) -> Result<Option<T>, ConfigError> {
    node.map(read).transpose()
}

type Cgroup = (Option<String>, Option<Vec<u32>>);

fn read_cgroup(mut cgroup: Table<'_>) -> Result<Cgroup, ConfigError> {
    let name = opt(cgroup.take("group_name"), |name| Ok(name.nonempty_text()?.to_owned()))?;
    let cpus = opt(cgroup.take("cpuset"), |list| {
        parse_cpu_list(list.text()?).map_err(|error| list.invalid(error))
    })?;
    cgroup.finish("key")?;
    Ok((name, cpus))
}

fn read_envs(mut envs: Table<'_>) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut read = BTreeMap::new();
    for (name, value) in envs.take_all() {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(value.invalid("not a name that an environment can hold"));
        }
        let text = value.nonnul_text()?.to_owned();
        read.insert(name, text);
    }
    Ok(read)
}

fn read_locks(
    locks: Node<'_>,
    declared: &BTreeMap<String, NonZeroU32>,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, ConfigError> {
        parse(Path::new("w.toml"), text)
    }

    fn refused(text: &str) -> String {
        match read(text) {
            Ok(config) => panic!("accepted as {config:?}"),
            Err(error) => error.to_string(),
        }
    }

    fn scheme(name: &str) -> Config {
        let schemes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/schemes");
        load(&schemes.join(name)).expect("a scheme that must work")
    }

    fn count(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).expect("tests count from 1")
    }

    #[test]
    fn scheme_a_means_what_its_users_mean() {
        let config = scheme("scheme-a.toml");
        assert_eq!(config.concurrent[&StageName::Pc1], count(28));
        assert!(config.locks.is_empty());
        let pc1 = &config.executors[&StageName::Pc1];
        assert_eq!(pc1.len(), 2);
        assert_eq!(pc1[1].numa_preferred, Some(1));
        assert_eq!(pc1[1].cpus, Some((48..=89).collect()));
        assert_eq!(pc1[1].concurrent, Some(count(14)));
        assert_eq!(pc1[1].envs["FIL_PROOFS_USE_MULTICORE_SDR"], "1");
        assert_eq!(pc1[1].stable_wait, DEFAULT_STABLE_WAIT);
        assert!(pc1[1].auto_restart && pc1[1].inherit_envs);
        assert_eq!((&pc1[1].bin, pc1[1].args.len()), (&None, 0));
        let c2 = &config.executors[&StageName::C2][0];
        assert_eq!(c2.cpus.as_ref().map(Vec::len), Some(28));
        assert_eq!(c2.concurrent, None);
    }

    #[test]
    fn scheme_b_pairs_stages_by_locks() {
        let config = scheme("scheme-b.toml");
        assert_eq!(config.locks["gpu1"], count(1));
        for stage in [StageName::Pc2, StageName::C2] {
            let locks: Vec<_> = config.executors[&stage].iter().map(|e| &e.locks).collect();
            assert_eq!(locks, [&BTreeSet::from(["gpu1".into()]), &BTreeSet::from(["gpu2".into()])]);
        }
    }

    #[test]
    fn a_whole_worker_configuration_is_accepted() {
        let config = read(
            r#"
            [worker]
            name = "here"
            [[sealing_thread]]
            location = "/mnt/1"
            [metrics]
            pc1 = { anything = 1 }
            [processors.limitation.concurrent]
            window_post = 1
            [processors.limitation.staggered]
            pc1 = "5min"
            [processors.limit]
            pc2 = 3
            [processors.ext_locks]
            "gpu 0" = 2
            [processors.static_tree_d]
            32GiB = "/mnt/tree-d"
            [[processors.tree_d]]
            [[processors.pc1]]
            bin = "/opt/pc1"
            args = ["processor", "pc1", ""]
            stable_wait = "1m 30s"
            numa_preferred = 0
            cgroup = { group_name = "g", cpuset = "0-3" }
            envs = { EMPTY = "" }
            concurrent = 0x10
            locks = ["gpu 0"]
            auto_restart = false
            inherit_envs = false
            "#,
        )
        .expect("a good configuration");
        assert_eq!(config.concurrent[&StageName::Pc2], count(3));
        assert_eq!(config.staggered[&StageName::Pc1], Duration::from_secs(300));
        assert!(config.retry.is_empty());
        let expected = ExecutorConfig {
            line: 19,
            bin: Some("/opt/pc1".into()),
            args: ["processor", "pc1", ""].map(str::to_owned).into(),
            stable_wait: Duration::from_secs(90),
            numa_preferred: Some(0),
            group_name: Some("g".to_owned()),
            cpus: Some(vec![0, 1, 2, 3]),
            envs: BTreeMap::from([("EMPTY".to_owned(), String::new())]),
            concurrent: Some(count(16)),
            locks: BTreeSet::from(["gpu 0".to_owned()]),
            auto_restart: false,
            inherit_envs: false,
        };
        assert_eq!(config.executors[&StageName::Pc1], [expected]);
    }

    #[test]
    fn retries_are_set_for_each_stage() {
        let config = read("[[processors.pc1]]\n[supervisor]\npc1.retry = 3\n[supervisor.c2]\n");
        assert_eq!(config.expect("good").retry, BTreeMap::from([(Stage::Pc1, 3)]));
        for (text, message) in [
            ("[supervisor.pc1]\nretrys = 1", "w.toml:3: supervisor.pc1.retrys: unknown key"),
            ("[supervisor.pc1]\nretrys = 1", "did you mean \"retry\"?"),
            (
                "[supervisor.tree_d]\nretry = 1",
                "supervisor.tree_d: unknown stage; known are pc1, pc2",
            ),
            ("[supervisor.pc1]\nretry = -1", "supervisor.pc1.retry = -1: must be between 0"),
            ("[supervisor]\nretry = 1", "supervisor.retry: unknown stage"),
        ] {
            let error = refused(&format!("[processors]\n{text}"));
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn complaints_name_file_line_key_value_reason_and_the_likely_word() {
        for (text, message) in [
            (
                "[[processors.pc1]]\nconcurent = 3",
                "w.toml:2: processors.pc1[0].concurent: unknown key; known are ",
            ),
            ("[[processors.pc1]]\nconcurent = 3", "; did you mean \"concurrent\"?"),
            ("[processors]\n[[processors.pc3]]", "w.toml:2: processors.pc3: unknown key or stage"),
            ("[processors]\n[[processors.pc3]]", "did you mean \"pc1\"?"),
            (
                "[processors.limitation.concurrent]\n\npcl = 3",
                "w.toml:3: processors.limitation.concurrent.pcl = 3: unknown stage",
            ),
            ("[processors.limitation]\nconcurent.pc1 = 3", "did you mean \"concurrent\"?"),
            (
                "[processors.limitation.concurrent]\npc1 = 0",
                "w.toml:2: processors.limitation.concurrent.pc1 = 0: must be at least 1",
            ),
            ("[processors.ext_locks]\ngpu = 0", "w.toml:2: processors.ext_locks.gpu = 0: must be"),
            ("[processors.ext_locks]\n\"\" = 1", "a lock needs a name"),
            ("[[processors.pc1]]\nconcurrent = 0", "must be at least 1"),
            ("[[processors.pc1]]\nconcurrent = -1", "= -1: must be between 0 and 4294967295"),
            ("[[processors.pc1]]\nconcurrent = \"3\"", "expected a whole number, found string"),
            (
                "[processors.ext_locks]\ngpu1 = 1\n[[processors.c2]]\nlocks = [\n\"gpu2\"]",
                "w.toml:5: processors.c2[0].locks[0] = \"gpu2\": this lock is not declared",
            ),
            (
                "[processors.ext_locks]\ngpu1 = 1\n[[processors.c2]]\nlocks = [\"gpu2\"]",
                "did you mean \"gpu1\"?",
            ),
            (
                "[processors.ext_locks]\ng = 1\n[[processors.c2]]\nlocks = [\"g\", \"g\"]",
                "processors.c2[0].locks[1] = \"g\": this lock is named twice",
            ),
            (
                "[[processors.pc1]]\n[[processors.pc1]]\ncgroup.cpuset = \"41-0\"",
                "w.toml:3: processors.pc1[1].cgroup.cpuset = \"41-0\": the range \"41-0\" runs backwards",
            ),
            ("[[processors.pc1]]\ncgroup.cpus = \"0\"", "did you mean \"cpuset\"?"),
            (
                "[[processors.pc1]]\nstable_wait = \"5\"",
                "w.toml:2: processors.pc1[0].stable_wait = \"5\": not a duration",
            ),
            ("[[processors.pc1]]\nstable_wait = 5", "expected a string, found integer"),
            ("[[processors.pc1]]\nstable_wait = \"0s\"", "must be longer than nothing"),
            ("[processors.limitation.staggered]\npc1 = \"fast\"", "= \"fast\": not a duration"),
            (
                "[processors.limitation.concurrent]\npc1 = 2\n[processors.limit]\npc1 = 3",
                "w.toml:4: processors.limit.pc1 = 3: processors.limitation.concurrent.pc1 says 2",
            ),
            ("[processors.pc1]\nbin = \"x\"", "w.toml:1: processors.pc1: expected an array"),
            ("[[processors.pc1]]\nbin = \"\"", "w.toml:2: processors.pc1[0].bin = \"\": must not"),
            ("[[processors.pc1]]\nenvs = { \"A=B\" = \"\" }", "not a name that an environment"),
            ("[[processors.pc1]]\nenvs = { A = 1 }", "envs.A = 1: expected a string"),
            ("[[processors.pc1]]\nauto_restart = 1", "= 1: expected true or false"),
            ("[processor]\n", "w.toml:1: processors: the file has no [processors] section"),
            ("[processor]\n", "did you mean \"processor\"?"),
            ("[processors]\nx = \n", "w.toml:2: not valid TOML: "),
        ] {
            let got = refused(text);
            assert!(got.contains(message), "{text}\n   gave {got}\n   not  {message}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load(Path::new("/no/such.toml")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the configuration /no/such.toml");
    }

    proptest::proptest! {
        #[test]
        fn reading_never_panics(text in "(\\[{1,2}processors(\\.(pc1|limit|ext_locks))?\\]{1,2}\n|(pc1|bin|locks|cgroup\\.cpuset) ?= ?[\"0-9a-z\\[\\],\\-]{0,6}\n|.{0,4}){0,6}") {
            let _ = read(&text);
        }
    }
}
