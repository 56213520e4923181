//! The whole configuration, and reading it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::num::NonZeroU32;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use seal_types::StageName;

use seal_options::nearest;

use crate::error::{ConfigError, Faults, Invalid, Refused};
use crate::executor::read_executor;
use crate::supervisor::read_supervisor;
use crate::tree::{Node, Source, Table};
use crate::{ExecutorConfig, Places, SupervisorConfig};

/// No configuration is as long as this; what is, was given by mistake.
const LONGEST: u64 = 16 << 20;

/// A validated configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// Tasks of a stage that may run at the same time.
    pub concurrent: BTreeMap<StageName, NonZeroU32>,
    /// The least time between the starts of two tasks of a stage.
    pub staggered: BTreeMap<StageName, Duration>,
    /// Declared locks.
    pub locks: BTreeMap<String, LockConfig>,
    /// The executors of each stage in the order of the file.
    pub executors: BTreeMap<StageName, Vec<ExecutorConfig>>,
    /// The `[supervisor]` section.
    pub supervisor: SupervisorConfig,
    /// Where in the file each value stands.
    pub places: Places,
    /// What is written and has no effect, in the order of the file.
    pub ignored: Vec<Ignored>,
}

/// A value that is read and has no effect, though who wrote it may think so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The full name of the key, such as `processors.limit.pc1`.
    pub key: String,
    /// Why it has none.
    pub reason: String,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, key, reason } = self;
        write!(f, "{}:{line}: {key} has no effect: {reason}", path.display())
    }
}

/// A declared lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockConfig {
    /// How many tasks may hold it at the same time.
    pub count: NonZeroU32,
    /// Who gets it next.
    pub order: LockOrder,
}

/// Who gets a lock next, of those who wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockOrder {
    /// Stages take turns; within a stage first come, first served.
    Turns,
    /// First come, first served, whatever the stage.
    Arrival,
    /// The stage that is named first; within a stage first come, first served. Stages that are not
    /// named come last.
    Priority(Vec<StageName>),
}

/// Reads the configuration in `path`.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    load_all(path).map_err(|refused| refused.first)
}

/// Reads the configuration in `path` and tells all that is wrong with it.
pub fn load_all(path: &Path) -> Result<Config, Refused> {
    parse_all(path, &read_file(path)?)
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_path_buf(), source };
    let mut text = String::new();
    open(path).and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text)).map_err(read)?;
    if text.len() as u64 > LONGEST {
        let text = format!("it has more than {} MiB", LONGEST >> 20);
        return Err(read(io::Error::new(io::ErrorKind::FileTooLarge, text)));
    }
    Ok(text)
}

/// Opens a file, and nothing that would be waited for, such as a FIFO.
fn open(path: &Path) -> io::Result<File> {
    let checked = |meta: Metadata| {
        let text = "it is not a regular file, which a configuration has to be";
        let wrong = || io::Error::new(io::ErrorKind::InvalidInput, text);
        if meta.is_file() { Ok(()) } else { Err(wrong()) }
    };
    checked(path.metadata()?)?;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    checked(file.metadata()?)?;
    Ok(file)
}

/// Reads the configuration `text`; `path` is for messages.
pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    parse_all(path, text).map_err(|refused| refused.first)
}

/// Reads the configuration `text` and tells all that is wrong with it, as far as that does not
/// follow from something else; `path` is for messages.
pub fn parse_all(path: &Path, text: &str) -> Result<Config, Refused> {
    let mut faults = Faults::default();
    let places = RefCell::default();
    let mut config = Config {
        path: path.to_path_buf(),
        concurrent: BTreeMap::new(),
        staggered: BTreeMap::new(),
        locks: BTreeMap::new(),
        executors: BTreeMap::new(),
        supervisor: SupervisorConfig::default(),
        places: Places::default(),
        ignored: Vec::new(),
    };
    let mut file = Source::new(path, text, &places).read()?;
    let Some(mut processors) = file.take_table("processors")? else {
        return Err(ConfigError::from(Box::new(Invalid {
            path: path.to_path_buf(),
            line: 1,
            key: "processors".to_owned(),
            value: None,
            reason: "the file has no [processors] section".to_owned(),
            hint: nearest("processors", file.take_all().iter().map(|(key, _)| key.as_str()))
                .map(str::to_owned),
        }))
        .into());
    };
    faults.note(read_limits(&mut processors, &mut config));
    if let Some(locks) = processors.take("ext_locks") {
        read_locks(locks, &mut config.locks, &mut faults);
    }
    // The worker's own setting: checked for its shape, no effect on executors.
    if let Some(mut files) = faults.note(processors.take_table("static_tree_d")).flatten() {
        for (_, file) in files.take_all() {
            faults.note(file.nonempty_text());
        }
    }
    if let Some(mut supervisor) = faults.note(file.take_table("supervisor")).flatten() {
        faults.note(read_section(&mut supervisor, &mut config).and_then(|()| {
            // What is left to be read is known only when all else was.
            supervisor.finish("key or stage")
        }));
    }
    for stage in StageName::ALL {
        let Some(tables) = processors.take(stage.name()) else { continue };
        let tables = faults.note(tables.into_items()).unwrap_or_default();
        let executors = tables.into_iter().filter_map(|table| {
            let read = read_executor(*stage, table, &config.locks, &mut config.ignored);
            faults.note(read)
        });
        let executors = executors.collect();
        config.executors.insert(*stage, executors);
    }
    faults.note(processors.finish("key or stage"));
    config.places = places.take();
    config.ignored.sort_by_key(|ignored| ignored.line);
    faults.refuse()?;
    Ok(config)
}

/// `[supervisor]`, but for what in it is unknown.
fn read_section(supervisor: &mut Table<'_>, config: &mut Config) -> Result<(), ConfigError> {
    config.supervisor = read_supervisor(supervisor)?;
    if let Some(locks) = supervisor.take_table("locks")? {
        read_orders(locks, &mut config.locks)?;
    }
    Ok(())
}

/// `[processors.ext_locks]`. A lock with a bad count is declared all the same, so that nothing is
/// said against those who name it.
fn read_locks(table: Node<'_>, locks: &mut BTreeMap<String, LockConfig>, faults: &mut Faults) {
    let Some(mut table) = faults.note(table.into_table()) else { return };
    for (name, count) in table.take_all() {
        if name.is_empty() {
            faults.note::<()>(Err(count.invalid("a lock needs a name")));
        }
        let count = faults.note(count.count()).unwrap_or(NonZeroU32::MIN);
        locks.insert(name, LockConfig { count, order: LockOrder::Turns });
    }
}

/// `[supervisor.locks.<name>]`: in which order a lock is given.
fn read_orders(
    mut table: Table<'_>,
    locks: &mut BTreeMap<String, LockConfig>,
) -> Result<(), ConfigError> {
    for (name, node) in table.take_all() {
        let Some(lock) = locks.get_mut(&name) else {
            let hint = nearest(&name, locks.keys().map(String::as_str));
            return Err(node.invalid_with_hint(
                "this lock is not declared under [processors.ext_locks]",
                hint,
            ));
        };
        let mut table = node.into_table()?;
        let priority = table.take("priority");
        let words = [
            ("turns", LockOrder::Turns),
            ("arrival", LockOrder::Arrival),
            // Later stages first, because they free the disk and end what was begun.
            ("priority", LockOrder::Priority(StageName::ALL.iter().rev().copied().collect())),
        ];
        let named: Vec<_> = words.iter().enumerate().map(|(i, (word, _))| (*word, i)).collect();
        if let Some(word) = table.take("order") {
            lock.order = words[word.word(&named)?].1.clone();
        }
        if let Some(list) = priority {
            if !matches!(lock.order, LockOrder::Priority(_)) {
                return Err(list.invalid("has a meaning only beside order = \"priority\""));
            }
            lock.order = LockOrder::Priority(read_priority(list)?);
        }
        table.finish("key")?;
    }
    Ok(())
}

fn read_priority(list: Node<'_>) -> Result<Vec<StageName>, ConfigError> {
    let mut stages = Vec::new();
    for item in list.into_items()? {
        let name = stage(item.text()?, &item)?;
        if stages.contains(&name) {
            return Err(item.invalid("this stage is named twice"));
        }
        stages.push(name);
    }
    Ok(stages)
}

/// `limitation.concurrent`, `limitation.staggered` and the older `limit`, which means the same as
/// `limitation.concurrent` where that is not there. Where it is, workers ignore the older table
/// as a whole.
fn read_limits(processors: &mut Table<'_>, config: &mut Config) -> Result<(), ConfigError> {
    let mut has_newer = false;
    if let Some(mut limitation) = processors.take_table("limitation")? {
        if let Some(mut concurrent) = limitation.take_table("concurrent")? {
            has_newer = true;
            for (key, limit) in concurrent.take_all() {
                let (name, count) = (stage_or_c1(&key, &limit)?, limit.count()?);
                config.concurrent.extend(name.map(|name| (name, count)));
            }
        }
        if let Some(mut staggered) = limitation.take_table("staggered")? {
            for (key, interval) in staggered.take_all() {
                let (name, interval) = (stage_or_c1(&key, &interval)?, interval.duration()?);
                config.staggered.extend(name.map(|name| (name, interval)));
            }
        }
        limitation.finish("key")?;
    }
    if let Some(mut older) = processors.take_table("limit")? {
        for (key, limit) in older.take_all() {
            let (name, count) = (stage_or_c1(&key, &limit)?, limit.count()?);
            let Some(name) = name else { continue };
            if !has_newer {
                config.concurrent.insert(name, count);
                continue;
            }
            let holds = match config.concurrent.get(&name) {
                Some(holds) if *holds == count => continue,
                Some(holds) => format!("{holds} holds"),
                None => format!("{name} has no limit"),
            };
            config.ignored.push(limit.ignored(format!(
                "beside processors.limitation.concurrent the older processors.limit is ignored; \
                 {holds}"
            )));
        }
    }
    Ok(())
}

/// The stage of a limit; `None` is C1. A worker does that itself and waits for its limit itself,
/// so that there is none for executors.
fn stage_or_c1(name: &str, value: &Node<'_>) -> Result<Option<StageName>, ConfigError> {
    if name == "c1" { Ok(None) } else { stage(name, value).map(Some) }
}

fn stage(name: &str, value: &Node<'_>) -> Result<StageName, ConfigError> {
    name.parse().map_err(|_| {
        let names: Vec<_> = StageName::ALL.iter().map(|stage| stage.name()).collect();
        value.invalid_with_hint(
            format!("unknown stage; known are {}", names.join(", ")),
            nearest(name, names.iter().copied()),
        )
    })
}

#[cfg(test)]
mod tests;
