//! Environment names and values of executors that have no effect, or not the one that is meant.

use seal_config::{EnvWarning, StageName, env_warning};

use super::{Checking, Severity};

impl Checking<'_> {
    pub(super) fn environment(&mut self) {
        let executors: Vec<_> = self
            .config
            .executors
            .iter()
            .flat_map(|(stage, tables)| tables.iter().enumerate().map(|(at, t)| (*stage, at, t)))
            .map(|(stage, at, table)| (stage, at, table.envs.clone()))
            .collect();
        for (stage, at, envs) in executors {
            for (name, value) in envs {
                let key =
                    format!("processors.{stage}[{at}].envs.{}", crate::check::quoted_key(&name));
                match env_warning(&name) {
                    Some(warning) => self.name(&key, &name, &warning),
                    None => self.value(&key, stage, &name, &value),
                }
            }
        }
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

    fn value(&mut self, key: &str, stage: StageName, name: &str, value: &str) {
        let number = || value.trim().parse::<u32>();
        let trouble = match (stage, name) {
            (StageName::Pc1, "FIL_PROOFS_MULTICORE_SDR_PRODUCERS") if number().is_err() => {
                Some("a number of threads, such as \"1\"")
            }
            (StageName::Pc1, "SEAL_PC1_LANES")
                if !number()
                    .is_ok_and(|lanes| (1..=crate::scheme::DEFAULT_LANES).contains(&lanes)) =>
            {
                Some("a number from 1 to 4")
            }
            (StageName::Pc1, "SEAL_NUMA") if !matches!(value, "strict" | "preferred") => {
                Some("strict or preferred")
            }
            (StageName::Pc1, "SEAL_PC1_SMT")
                if seal_host::Threads::of_setting(Some(value)).is_err() =>
            {
                Some("0 or 1")
            }
            (StageName::Pc1, "SEAL_PC1_RESUME" | "SEAL_PC1_REPLACE_FINISHED")
                if !matches!(value, "0" | "1") =>
            {
                Some("0 or 1")
            }
            (StageName::Pc1 | StageName::Pc2, "SEAL_LOCK_WAIT")
                if humantime::parse_duration(value).is_err() =>
            {
                Some("a time, such as \"2m\"")
            }
            (StageName::Pc2 | StageName::C2, "SEAL_GPU") if value != "optional" => Some("optional"),
            (StageName::C2, "SEAL_C2_DEVICE") if !matches!(value, "cpu" | "cuda") => {
                Some("cpu or cuda")
            }
            (StageName::Pc1, "SEAL_FORCE_ISA")
                if !matches!(value, "portable" | "shani" | "avx2" | "avx512") =>
            {
                Some("portable, shani, avx2 or avx512")
            }
            (StageName::Pc2 | StageName::C2, "SEAL_FORCE_ISA")
                if !matches!(value, "portable" | "ifma") =>
            {
                Some("portable or ifma")
            }
            (StageName::C2, "SEAL_READY_WITHIN") if humantime::parse_duration(value).is_err() => {
                Some("a time, such as \"4s\"")
            }
            (
                StageName::Pc2,
                "FIL_PROOFS_USE_GPU_COLUMN_BUILDER" | "FIL_PROOFS_USE_GPU_TREE_BUILDER",
            ) if !is_flag(value) => Some("1 or 0"),
            (StageName::Pc2, "FIL_PROOFS_ROWS_TO_DISCARD") if value.trim() != "2" => {
                Some("2: with any other number of rows no software can prove the sector")
            }
            (
                StageName::Pc2,
                "FIL_PROOFS_MAX_GPU_COLUMN_BATCH_SIZE" | "FIL_PROOFS_MAX_GPU_TREE_BATCH_SIZE",
            ) if !number().is_ok_and(|size| size > 0) => Some("a number of nodes, from 1"),
            _ => None,
        };
        if let Some(wanted) = trouble {
            self.find(
                ("env-value", Severity::Error),
                key,
                format!("{name} = {value:?} is not {wanted}: the executor refuses to start"),
                format!("write {wanted}, or leave it out"),
            );
        }
    }
}

/// Whether a value says yes or no, as executors read it.
fn is_flag(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    matches!(value.as_str(), "1" | "true" | "on" | "yes" | "0" | "false" | "off" | "no" | "")
}
