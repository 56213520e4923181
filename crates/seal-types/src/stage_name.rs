//! All stages of sealing that a configuration may name.

use std::fmt;
use std::str::FromStr;

use crate::Stage;

macro_rules! stage_names {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A stage of venus-worker or damocles-worker. [`StageName::served`] tells which have
        /// executors here; processors of the others are other software.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum StageName {
            $($(#[$doc])* $variant,)*
        }

        impl StageName {
            /// All stages in the order of sealing.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name in configurations.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

stage_names! {
    /// Putting pieces into the staged file.
    AddPieces = "add_pieces",
    /// Building the data tree.
    TreeD = "tree_d",
    /// Pre-commit phase 1.
    Pc1 = "pc1",
    /// Pre-commit phase 2.
    Pc2 = "pc2",
    /// Commit phase 2.
    C2 = "c2",
    /// Synthetic challenges and their vanilla proofs.
    SynthProof = "synth_proof",
    /// Encoding data into a committed-capacity sector.
    SnapEncode = "snap_encode",
    /// Proving that encoding.
    SnapProve = "snap_prove",
    /// Moving files to permanent storage.
    Transfer = "transfer",
    /// Decoding a sector.
    Unseal = "unseal",
    /// Window proofs of spacetime.
    WindowPost = "window_post",
    /// Sealing daemons of another kind of worker.
    SealingDaemons = "sealing_daemons",
}

impl StageName {
    /// The stage by the name used in configurations.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|stage| stage.name() == name)
    }

    /// The name by which workers speak of the stage to its processor: as an argument, and in the
    /// ready line.
    pub const fn wire_name(self) -> &'static str {
        match self {
            // Its task has no type of its own, and workers name a stage after the type of its task.
            Self::SealingDaemons => "EMPTY",
            _ => self.name(),
        }
    }

    /// The stage by the name used in configurations, or by its [`wire_name`](Self::wire_name).
    pub fn from_either_name(name: &str) -> Result<Self, UnknownStageName> {
        let on_the_wire = Self::ALL.iter().copied().find(|stage| stage.wire_name() == name);
        on_the_wire.map_or_else(|| name.parse(), Ok)
    }

    /// The stage that one of our executors serves, if one does.
    pub fn served(self) -> Option<Stage> {
        Stage::ALL.into_iter().find(|stage| stage.name() == self.name())
    }

    /// The longest request or answer line that is read. What other software's processors take is
    /// not known here: they get as much as the stage with the longest lines.
    pub fn line_cap(self) -> usize {
        self.served().unwrap_or(Stage::C2).line_cap()
    }
}

/// A stage that no configuration knows.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown stage {name:?}; the stages are {}", list())]
pub struct UnknownStageName {
    /// What was given.
    pub name: String,
}

fn list() -> String {
    let names: Vec<_> = StageName::ALL.iter().map(|stage| stage.name()).collect();
    names.join(", ")
}

impl FromStr for StageName {
    type Err = UnknownStageName;

    fn from_str(name: &str) -> Result<Self, UnknownStageName> {
        Self::from_name(name)
            .ok_or_else(|| UnknownStageName { name: crate::shown(name).into_owned() })
    }
}

impl From<Stage> for StageName {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Pc1 => Self::Pc1,
            Stage::Pc2 => Self::Pc2,
            Stage::C2 => Self::C2,
        }
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_executor_stage_has_the_same_name_here() {
        for stage in Stage::ALL {
            assert_eq!(StageName::from(stage).name(), stage.name());
            assert_eq!(StageName::from(stage).served(), Some(stage));
        }
        assert_eq!(StageName::WindowPost.served(), None);
    }

    #[test]
    fn workers_call_one_stage_by_another_name_than_configurations() {
        for stage in StageName::ALL {
            for name in [stage.name(), stage.wire_name()] {
                assert_eq!(StageName::from_either_name(name), Ok(*stage), "{name}");
            }
            let differs = *stage == StageName::SealingDaemons;
            assert_eq!(stage.wire_name() != stage.name(), differs, "{stage}");
        }
        assert_eq!(StageName::SealingDaemons.wire_name(), "EMPTY");
        assert!(StageName::from_either_name("pc3").is_err());
    }

    #[test]
    fn names_are_read_back() {
        for stage in StageName::ALL {
            assert_eq!(StageName::from_name(stage.name()), Some(*stage));
        }
        assert_eq!(StageName::from_name("EMPTY"), None, "no configuration has that name");
        assert_eq!(StageName::from_name("pc3"), None);
        let error = "pc3".parse::<StageName>().unwrap_err().to_string();
        assert!(error.contains("\"pc3\"; the stages are add_pieces, tree_d, pc1,"), "{error}");
    }
}
