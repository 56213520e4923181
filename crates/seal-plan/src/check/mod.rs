//! Everything that can be known of a configuration before anything is started, as findings: what
//! is wrong, where it stands, why it matters and what to do.
//!
//! An error is what fails the start, or tasks, or the machine. A warning is what works, and is
//! hardly meant or costs speed. Nothing is said without a fact or a number behind it.

mod build;
mod cores;
mod corruption;
mod disks;
mod environment;
mod gpus;
mod limits;
mod local;
mod memory;

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use seal_config::{Config, ConfigError};
use seal_types::SectorSize;
use serde::Serialize;

use crate::given::Given;
use crate::{Hardware, Scheme};

pub use local::Local;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It works, and is hardly meant or costs speed.
    Warning,
    /// It fails the start, or tasks, or the machine.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// Something to be said of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of fault it is: a word that stays the same.
    pub kind: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The file.
    pub file: String,
    /// The line in it, from 1, where one can be named.
    pub line: Option<usize>,
    /// The key, such as `processors.pc1[0].cgroup.cpuset`.
    pub key: String,
    /// What is wrong and why it matters.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, severity, file, line, key, reason, remedy } = self;
        write!(f, "{severity}[{kind}]: {file}")?;
        if let Some(line) = line {
            write!(f, ":{line}")?;
        }
        if !key.is_empty() {
            write!(f, ": {key}")?;
        }
        write!(f, ": {reason}\n    {remedy}")
    }
}

/// What a configuration is held against.
#[derive(Clone, Copy, Debug)]
pub struct Against<'a> {
    /// The machine.
    pub hardware: &'a Hardware,
    /// What is true of this machine only; `None` where another one is meant.
    pub local: Option<&'a Local>,
    /// Size of the sectors.
    pub sector_size: SectorSize,
    /// Sectors on disk at the same time; `None` for as many as are worked on and wait.
    pub sectors: Option<u64>,
    /// Times that were measured.
    pub given: &'a Given,
    /// Between PC2 and C2: the wait for the chain's randomness.
    pub seed_wait: Duration,
}

/// Everything a check looks at, and where findings go.
struct Checking<'a> {
    config: &'a Config,
    scheme: Scheme,
    against: Against<'a>,
    findings: Vec<Finding>,
}

/// All findings of `config`, in the order of the file.
pub fn check(config: &Config, against: Against<'_>) -> Vec<Finding> {
    let scheme = Scheme::of(config, against.hardware, against.sector_size);
    let mut checking = Checking { config, scheme, against, findings: Vec::new() };
    checking.executors_there();
    checking.cores();
    checking.memory();
    checking.gpus();
    checking.limits();
    checking.settings();
    checking.disks();
    if let Some(local) = against.local {
        checking.local(local);
    }
    let mut findings = checking.findings;
    findings.sort_by_key(|finding| finding.line.unwrap_or(usize::MAX));
    findings
}

/// The finding of a file that cannot be read as a configuration at all.
pub fn unreadable(file: &str, error: &ConfigError) -> Finding {
    let mut finding = Finding {
        kind: "configuration",
        severity: Severity::Error,
        file: file.to_owned(),
        line: None,
        key: String::new(),
        reason: error.to_string(),
        remedy: "write it as docs/config.md says; seal-supervisor refuses to start with it"
            .to_owned(),
    };
    match error {
        // Nothing can be said of a file that nobody can read; whoever read it tells why.
        ConfigError::Read { .. } => {}
        ConfigError::Syntax { line, reason, .. } => {
            finding.line = Some(*line);
            finding.reason = format!("is not valid TOML: {reason}");
        }
        ConfigError::Invalid(invalid) => {
            finding.line = Some(invalid.line);
            finding.key.clone_from(&invalid.key);
            let value = invalid.value.as_ref().map(|value| format!("{value}: "));
            finding.reason = format!("{}{}", value.unwrap_or_default(), invalid.reason);
            if let Some(hint) = &invalid.hint {
                finding.remedy = format!("did you mean {hint:?}?");
            }
        }
    }
    finding
}

impl Checking<'_> {
    /// Adds a finding about `key`, which stands where the file has it, or else its table.
    fn find(
        &mut self,
        (kind, severity): (&'static str, Severity),
        key: &str,
        reason: String,
        remedy: impl Into<String>,
    ) {
        let parents =
            std::iter::successors(Some(key), |key| key.rsplit_once('.').map(|(parent, _)| parent));
        let line = parents.into_iter().find_map(|key| self.config.places.get(key));
        self.findings.push(Finding {
            kind,
            severity,
            file: self.config.path.display().to_string(),
            line: line.map(|place| place.line),
            key: key.to_owned(),
            reason,
            remedy: remedy.into(),
        });
    }

    fn executors_there(&mut self) {
        if self.scheme.executors.is_empty() {
            self.find(
                ("no-executors", Severity::Error),
                "processors",
                "there is no [[processors.<stage>]] table, so nothing would ever run".to_owned(),
                "add one for each executor, or let `seal-plan propose` write them",
            );
        }
    }
}

/// A key as it stands in full names of keys: in quotes where it is not a plain word.
fn quoted_key(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !key.is_empty() && key.chars().all(plain) { key.to_owned() } else { format!("{key:?}") }
}
