//! Wrong results that this machine has on record: what is planned on it is planned on sand.

use std::collections::BTreeMap;
use std::path::PathBuf;

use seal_host::{KeptLines, default_runtime_dir};
use seal_wire::{CORRUPTION_FILE, Corruption, cpus_left_out, devices_left_out};

use super::{Checking, Local, Severity};

impl Checking<'_> {
    pub(super) fn corruption(&mut self, local: &Local) {
        let path = self.runtime_dir(local).join(CORRUPTION_FILE);
        let records = Corruption::read_all(&KeptLines::at(&path).read());
        let Some(last) = records.last() else { return };
        let mut counts: BTreeMap<_, usize> = BTreeMap::new();
        for record in &records {
            let on = record.on();
            let on = if on.is_empty() { on } else { format!(" on {on}") };
            *counts.entry(format!("{}{on}", record.kind.name())).or_default() += 1;
        }
        let counts: Vec<_> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        let left_out: Vec<_> = cpus_left_out(&records).iter().map(u32::to_string).collect();
        let mut out = match left_out.is_empty() {
            true => String::new(),
            false => format!("; nothing is labelled on cpu {} any more", left_out.join(",")),
        };
        for device in devices_left_out(&records) {
            out.push_str(&format!("; {device} is not used by executors that start now"));
        }
        let executors = &self.scheme.executors;
        let own = executors.iter().find(|executor| executor.stage.name() == last.stage);
        let key =
            own.or(executors.first()).map_or("processors", |executor| &executor.key).to_owned();
        self.find(
            ("corruption", Severity::Warning),
            &key,
            format!(
                "{} has wrong results of this machine on record ({}){out}; the last one: {last}",
                path.display(),
                counts.join(", ")
            ),
            "test memory, core, disk or GPU as docs/corruption.md says for that kind, and remove the \
             file when they are good",
        );
    }

    /// As the supervisor finds it.
    fn runtime_dir(&self, local: &Local) -> PathBuf {
        let set = |name: &str| local.environment.get(name).filter(|dir| !dir.is_empty());
        let named = set("SEAL_RUNTIME_DIR").map(PathBuf::from);
        named
            .or_else(|| self.config.supervisor.runtime_dir.clone())
            .unwrap_or_else(default_runtime_dir)
    }
}
