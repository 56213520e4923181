//! The stages that have an executor.

use std::fmt;
use std::str::FromStr;

/// A stage of sealing that one of our executors serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Pre-commit phase 1: labelling.
    Pc1,
    /// Pre-commit phase 2: columns, trees, replica.
    Pc2,
    /// Commit phase 2: Groth16 proofs.
    C2,
}

/// A stage that has no executor.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown stage {name:?}; the stages are pc1, pc2 and c2")]
pub struct UnknownStage {
    /// What was given.
    pub name: String,
}

impl Stage {
    /// All stages in their order.
    pub const ALL: [Self; 3] = [Self::Pc1, Self::Pc2, Self::C2];

    /// The stage's name on the wire and in configurations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pc1 => "pc1",
            Self::Pc2 => "pc2",
            Self::C2 => "c2",
        }
    }

    /// The name of the stage's executor binary.
    pub const fn executor(self) -> &'static str {
        match self {
            Self::Pc1 => "pc1-exec",
            Self::Pc2 => "pc2-exec",
            Self::C2 => "c2-exec",
        }
    }

    /// The longest request line that is read: a C1 output of a 32 GiB sector is about 50 MB, the
    /// other stages' requests stay far below 1 MB.
    pub const fn line_cap(self) -> usize {
        match self {
            Self::Pc1 | Self::Pc2 => 1 << 20,
            Self::C2 => 256 << 20,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Stage {
    type Err = UnknownStage;

    fn from_str(name: &str) -> Result<Self, UnknownStage> {
        Self::ALL
            .into_iter()
            .find(|stage| stage.name() == name)
            .ok_or_else(|| UnknownStage { name: crate::shown(name).into_owned() })
    }
}
