//! A configuration as it was understood, with all defaults.

use std::fmt::{Display, Write};
use std::time::Duration;

use seal_types::StageName;

use crate::{
    CgroupUse, Config, Drain, ExecutorConfig, LockOrder, MemoryBinding, MemoryLimit, StageSettings,
};
use seal_options::shown_value;

/// The configuration as TOML, with the line that each value comes from, or that it is the default.
/// It reads back as the same configuration, except for environment values that may be secrets:
/// those are not shown.
pub fn show(config: &Config) -> String {
    let mut out = Out { text: String::new(), config, table: String::new() };
    out.limits();
    for (stage, executors) in &config.executors {
        for (index, executor) in executors.iter().enumerate() {
            out.executor(*stage, index, executor);
        }
    }
    out.supervisor();
    out.text
}

struct Out<'a> {
    text: String,
    config: &'a Config,
    /// The full name of the table that is being written.
    table: String,
}

impl Out<'_> {
    fn table(&mut self, header: &str, name: &str) {
        let separator = if self.text.is_empty() { "" } else { "\n" };
        let _ = writeln!(self.text, "{separator}{header}");
        self.table = name.to_owned();
    }

    /// A line of the present table.
    fn value(&mut self, key: &str, value: impl Display) {
        let full = format!("{}.{key}", self.table);
        self.value_of(key, value, &[&full]);
    }

    /// A line whose value comes from the first of `names` that is written.
    fn value_of(&mut self, key: &str, value: impl Display, names: &[&str]) {
        let place = names.iter().find_map(|name| self.config.places.get(name));
        let from = place.map_or("default".to_owned(), |place| format!("line {}", place.line));
        let _ = writeln!(self.text, "{key} = {value}  # {from}");
    }

    /// A line for what has no value of its own where it is not written.
    fn absent(&mut self, key: &str, meaning: &str) {
        let _ = writeln!(self.text, "# {key}: {meaning}  # default");
    }

    fn limits(&mut self) {
        let config = self.config;
        self.table("[processors.limitation.concurrent]", "processors.limitation.concurrent");
        for (stage, count) in &config.concurrent {
            let (name, older) =
                (format!("{}.{stage}", self.table), format!("processors.limit.{stage}"));
            self.value_of(stage.name(), count, &[&name, &older]);
        }
        self.table("[processors.limitation.staggered]", "processors.limitation.staggered");
        for (stage, interval) in &config.staggered {
            self.value(stage.name(), time(*interval));
        }
        self.table("[processors.ext_locks]", "processors.ext_locks");
        for (name, lock) in &config.locks {
            self.value(&bare(name), lock.count);
        }
    }

    fn executor(&mut self, stage: StageName, index: usize, executor: &ExecutorConfig) {
        self.table(&format!("[[processors.{stage}]]"), &format!("processors.{stage}[{index}]"));
        match &executor.bin {
            Some(bin) => self.value("bin", quoted(&bin.display().to_string())),
            None => match stage.served() {
                Some(served) => self.absent("bin", &format!("{} beside it", served.executor())),
                None => self.absent("bin", "none, so the supervisor does not serve it"),
            },
        }
        self.value("args", list(&executor.args));
        self.value("stable_wait", time(executor.stable_wait));
        match executor.numa_preferred {
            Some(node) => self.value("numa_preferred", node),
            None => self.absent("numa_preferred", "none"),
        }
        match &executor.group_name {
            Some(name) => self.value("cgroup.group_name", quoted(name)),
            None => self.absent("cgroup.group_name", "named after the executor"),
        }
        match &executor.cpus {
            Some(cpus) => self.value("cgroup.cpuset", quoted(&cpus.to_string())),
            None => self.absent("cgroup.cpuset", "the cpus of the supervisor"),
        }
        for (name, value) in &executor.envs {
            self.value(&format!("envs.{}", bare(name)), quoted(shown_value(name, value)));
        }
        match executor.concurrent {
            Some(count) => self.value("concurrent", count),
            None => self.absent("concurrent", "any number"),
        }
        self.value("locks", list(&executor.locks));
        self.value("auto_restart", executor.auto_restart);
        self.value("inherit_envs", executor.inherit_envs);
    }

    fn supervisor(&mut self) {
        let config = self.config;
        self.table("[supervisor]", "supervisor");
        match &config.supervisor.runtime_dir {
            Some(dir) => self.value("runtime_dir", quoted(&dir.display().to_string())),
            None => self.absent("runtime_dir", "that of the user"),
        }
        match config.supervisor.metrics {
            Some(address) => self.value("metrics", quoted(&address.to_string())),
            None => self.absent("metrics", "not served"),
        }
        self.value("history", config.supervisor.history);
        let cgroup = match config.supervisor.cgroup {
            CgroupUse::Auto => "auto",
            CgroupUse::Always => "always",
            CgroupUse::Never => "never",
        };
        self.value("cgroup", quoted(cgroup));
        for stage in config.executors.keys() {
            self.table(&format!("[supervisor.{stage}]"), &format!("supervisor.{stage}"));
            self.stage(&config.supervisor.stage(*stage));
        }
        for (name, lock) in &config.locks {
            let name = format!("supervisor.locks.{}", bare(name));
            self.table(&format!("[{name}]"), &name);
            match &lock.order {
                LockOrder::Turns => self.value("order", quoted("turns")),
                LockOrder::Arrival => self.value("order", quoted("arrival")),
                LockOrder::Priority(stages) => {
                    self.value("order", quoted("priority"));
                    self.value("priority", list(stages));
                }
            }
        }
    }

    fn stage(&mut self, settings: &StageSettings) {
        let drain = match settings.drain {
            Drain::Checkpoint => "checkpoint",
            Drain::Task => "task",
            Drain::Now => "now",
        };
        self.stage_value("retry", settings.retry);
        self.stage_value("drain", quoted(drain));
        for (key, limit) in [("deadline", settings.deadline), ("no_progress", settings.no_progress)]
        {
            match limit {
                Some(limit) => self.stage_value(key, time(limit)),
                None => self.absent(key, "none"),
            }
        }
        self.stage_value("ready_within", time(settings.ready_within));
        self.stage_value("grace", time(settings.grace));
        self.stage_value("restart_wait", time(settings.restart_wait));
        self.stage_value("restart_wait_max", time(settings.restart_wait_max));
        self.stage_value("crash_loop_after", settings.crash_loop_after);
        self.stage_value("crash_loop_wait", time(settings.crash_loop_wait));
        let memory = match settings.memory {
            MemoryBinding::Preferred => "preferred",
            MemoryBinding::Strict => "strict",
        };
        self.stage_value("memory", quoted(memory));
        match settings.nofile {
            Some(count) => self.stage_value("nofile", count),
            None => self.absent("nofile", "the hard limit"),
        }
        match settings.memlock {
            Some(MemoryLimit::Bytes(bytes)) => self.stage_value("memlock", quoted(&size(bytes))),
            Some(MemoryLimit::Unlimited) => self.stage_value("memlock", quoted("unlimited")),
            None => self.absent("memlock", "the hard limit"),
        }
    }

    /// A line whose value may come from `[supervisor]`, for all stages.
    fn stage_value(&mut self, key: &str, value: impl Display) {
        let own = format!("{}.{key}", self.table);
        let all = format!("supervisor.{key}");
        self.value_of(key, value, &[&own, &all]);
    }
}

fn time(duration: Duration) -> String {
    quoted(&humantime::format_duration(duration).to_string())
}

fn size(bytes: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB")];
    let unit = units.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    let (unit, name) = unit.unwrap_or(&(1 << 10, "KiB"));
    format!("{}{name}", bytes / unit)
}

fn list(items: impl IntoIterator<Item = impl ToString>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

/// Text as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A key as TOML writes it.
fn bare(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !name.is_empty() && name.chars().all(plain) { name.to_owned() } else { format!("{name:?}") }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{example, parse};

    fn read(text: &str) -> Config {
        parse(Path::new("w.toml"), text).unwrap_or_else(|e| panic!("{e}\n{text}"))
    }

    /// Without what differs between two files that mean the same.
    fn without_lines(mut config: Config) -> Config {
        config.places = crate::Places::default();
        config.ignored = Vec::new();
        let executors = config.executors.values_mut().flatten();
        executors.for_each(|executor| executor.line = 0);
        config
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/schemes");
        let schemes = ["scheme-a.toml", "scheme-b.toml"]
            .map(|name| std::fs::read_to_string(path.join(name)).expect("readable"));
        let odd =
            "[processors.ext_locks]\n\"gpu 0\" = 2\n[[processors.c2]]\nargs = [\"'\", \"\\\"\"]\n\
                   locks = [\"gpu 0\"]\n[[processors.c2]]\nbin = \"x\"\n[supervisor]\nmemlock = \"96KiB\"\ngrace = \"1m 3s\""
                .to_owned();
        let older =
            "[processors.limitation.concurrent]\npc1 = 1\n[processors.limit]\npc1 = 2\nc2 = 3";
        for text in schemes.into_iter().chain([example(), odd, older.to_owned()]) {
            let config = parse(Path::new("w.toml"), &text).expect("good");
            let shown = show(&config);
            let mut again = read(&shown);
            // What is the same for all stages is shown for each.
            for stage in config.executors.keys() {
                assert_eq!(again.supervisor.stage(*stage), config.supervisor.stage(*stage));
            }
            again.supervisor = config.supervisor.clone();
            assert_eq!(without_lines(again), without_lines(config), "{shown}");
        }
    }

    #[test]
    fn values_tell_where_they_come_from_and_secrets_stay_hidden() {
        let text = "[processors]\n[supervisor]\ngrace = \"7s\"\n[supervisor.pc1]\nretry = 3\n\
                    [[processors.pc1]]\nenvs = { API_TOKEN = \"hunter2\", RUST_LOG = \"debug\" }";
        let shown = show(&parse(Path::new("w.toml"), text).expect("good"));
        for line in [
            "grace = \"7s\"  # line 3",
            "retry = 3  # line 5",
            "drain = \"checkpoint\"  # default",
            "envs.API_TOKEN = \"(set)\"  # line 7",
            "envs.RUST_LOG = \"debug\"  # line 7",
        ] {
            assert!(shown.contains(line), "{line}\n{shown}");
        }
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
