//! Options and names of the environment of executors: those that the executor refuses, and those
//! that have no effect, or not the one that is meant.

use seal_config::ExecutorConfig;
use seal_options::{
    EnvWarning, Environment, Fault, IdleIsa, Options, PLACEMENT_NAMES, Source, env_warning,
};

use super::{Checking, Local, Severity};
use crate::Executor;

impl Checking<'_> {
    pub(super) fn settings(&mut self) {
        let tables: Vec<_> = self
            .config
            .executors
            .iter()
            .flat_map(|(stage, tables)| tables.iter().enumerate().map(|(at, t)| (*stage, at, t)))
            .map(|(stage, at, table)| (format!("processors.{stage}[{at}]"), table))
            .collect();
        for (key, table) in tables {
            for name in table.envs.keys() {
                if let Some(warning) = env_warning(name) {
                    let key = format!("{key}.envs.{}", super::quoted_key(name));
                    self.name(&key, name, &warning);
                }
            }
        }
        for executor in self.scheme.executors.clone().iter().filter(|executor| executor.ours) {
            let Some(stage) = executor.stage.served() else { continue };
            let Some(table) = self.table(executor).cloned() else { continue };
            let environment = environment_of(&table, self.against.local);
            for fault in Options::look(stage, &table.args, &environment).1 {
                self.fault(executor, &table, fault);
            }
            let has = |name: &str| self.against.hardware.has(name);
            if let Some(fault) = environment.lacking_isa(stage, has) {
                self.fault(executor, &table, fault);
            }
            if let Some(idle) = environment.idle_isa(stage) {
                self.idle_isa(executor, &table, idle);
            }
        }
    }

    /// The table of an executor.
    pub(super) fn table(&self, executor: &Executor) -> Option<&'_ ExecutorConfig> {
        self.config.executors.get(&executor.stage)?.get(executor.index)
    }

    fn name(&mut self, key: &str, name: &str, warning: &EnvWarning) {
        let (kind, remedy) = match warning {
            EnvWarning::NoEffect => {
                ("env-no-effect", "remove it: it is carried from guide to guide".to_owned())
            }
            EnvWarning::Unknown { nearest: Some(nearest) } => {
                ("env-unknown", format!("write {nearest}, or remove it"))
            }
            EnvWarning::Unknown { nearest: None } => ("env-unknown", "remove it".to_owned()),
            EnvWarning::Placement => {
                ("env-placement", "use cgroup.cpuset and numa_preferred of the table".to_owned())
            }
        };
        let reason = match warning {
            EnvWarning::NoEffect => "has no effect in today's software".to_owned(),
            EnvWarning::Unknown { .. } => format!("{name} is not a setting of sealing software"),
            EnvWarning::Placement => warning.to_string(),
        };
        self.find((kind, Severity::Warning), key, reason, remedy);
    }

    fn idle_isa(&mut self, executor: &Executor, table: &ExecutorConfig, idle: IdleIsa) {
        let name = "SEAL_FORCE_ISA";
        // Otherwise it is inherited.
        let own = table.envs.contains_key(name);
        let key = if own { format!("{}.envs.{name}", executor.key) } else { executor.key.clone() };
        let kind = ("env-no-effect", Severity::Warning);
        self.find(kind, &key, idle.to_string(), idle.remedy());
    }

    fn fault(&mut self, executor: &Executor, table: &ExecutorConfig, fault: Fault) {
        let (kind, key) = match &fault.source {
            Source::Variable(name) if table.envs.contains_key(*name) => {
                ("env-value", format!("{}.envs.{name}", executor.key))
            }
            // It is inherited.
            Source::Variable(_) => ("env-value", executor.key.clone()),
            Source::Option(_) if fault.value.is_some() => {
                ("args-value", format!("{}.args", executor.key))
            }
            Source::Option(_) | Source::Argument(_) => {
                ("args-unknown", format!("{}.args", executor.key))
            }
        };
        let Fault { source, value, reason, remedy } = fault;
        let value = value.map(|value| format!(" = {:?}", seal_types::shown(&value)));
        self.find(
            (kind, Severity::Error),
            &key,
            format!(
                "{source}{}: {reason}: the executor refuses to start",
                value.unwrap_or_default()
            ),
            remedy,
        );
    }
}

/// The environment in which an executor is started here, or that of its table where another
/// machine is meant.
pub(super) fn environment_of(table: &ExecutorConfig, local: Option<&Local>) -> Environment {
    let inherited = local.filter(|_| table.inherit_envs);
    let inherited = inherited.into_iter().flat_map(|local| local.environment.clone());
    let all: Environment = inherited.chain(table.envs.clone()).collect();
    // Executors are placed by their supervisor.
    all.without(&PLACEMENT_NAMES)
}
