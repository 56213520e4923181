//! Names of the environment that mean something to sealing software, and what is to be said of
//! those that do not.
//!
//! Users carry these names from guide to guide. One that does nothing anywhere, or is misspelt, is
//! reported at the start instead of being believed in.

use std::path::Path;

use seal_types::{Stage, shown};

use crate::{Environment, LogChoice, nearest, rows_of};

/// Names by which venus-worker asks a processor to place itself. The supervisor places its
/// executors, so they must not see these.
pub const PLACEMENT_NAMES: [&str; 3] =
    ["VC_CG_NAME", "VC_CG_CPUSET", "VENUS_WORKER_NUMA_PREFERRED"];

/// What only the supervisor and the planner read, and the mark of what a supervisor starts.
const OF_SUPERVISOR: [&str; 2] = ["SEAL_CONFIG", "SEAL_SUPERVISED"];

/// Every `FIL_PROOFS_*` name that today's software reads.
///
/// Source: `storage_proofs_core::settings` 19.1, and `FIL_PROOFS_DISABLE_NUMA` of the fork that
/// damocles-worker is built with.
const FIL_PROOFS: [&str; 19] = [
    "FIL_PROOFS_CACHE_DIR",
    "FIL_PROOFS_COLUMN_WRITE_BATCH_SIZE",
    "FIL_PROOFS_DISABLE_NUMA",
    "FIL_PROOFS_GPU_FRAMEWORK",
    "FIL_PROOFS_MAX_GPU_COLUMN_BATCH_SIZE",
    "FIL_PROOFS_MAX_GPU_TREE_BATCH_SIZE",
    "FIL_PROOFS_MULTICORE_SDR_LOOKAHEAD",
    "FIL_PROOFS_MULTICORE_SDR_PRODUCERS",
    "FIL_PROOFS_MULTICORE_SDR_PRODUCER_STRIDE",
    "FIL_PROOFS_PARAMETER_CACHE",
    "FIL_PROOFS_PARENT_CACHE",
    "FIL_PROOFS_ROWS_TO_DISCARD",
    "FIL_PROOFS_SDR_PARENTS_CACHE_SIZE",
    "FIL_PROOFS_USE_GPU_COLUMN_BUILDER",
    "FIL_PROOFS_USE_GPU_TREE_BUILDER",
    "FIL_PROOFS_USE_MULTICORE_SDR",
    "FIL_PROOFS_VERIFY_CACHE",
    "FIL_PROOFS_VERIFY_PRODUCTION_PARAMS",
    "FIL_PROOFS_WINDOW_POST_SYNTHESIS_NUM_CPUS",
];

/// Users carry it from guide to guide, and nothing reads it.
const NO_EFFECT: &str = "FIL_PROOFS_MAXIMIZE_CACHING";

/// Names of other makers that sealing software goes by. There are many more that begin alike, so
/// only what differs from one of these by a slip is said to be misspelt.
const OTHERS: [&str; 5] = [
    "BELLMAN_NO_GPU",
    "CUDA_DEVICE_ORDER",
    "CUDA_VISIBLE_DEVICES",
    "HUGEPAGE_FILES_PATH",
    "HUGEPAGE_FILES_PATH_PATTERN",
];

/// Every `SEAL_*` name that a program of this project reads.
fn own() -> impl Iterator<Item = &'static str> {
    let of_executors = Stage::ALL.into_iter().flat_map(rows_of).filter_map(|about| about.variable);
    of_executors.chain(OF_SUPERVISOR).filter(|name| name.starts_with("SEAL_"))
}

/// Something to be said at start about a name of the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvWarning {
    /// Sealing software once read it; nothing does today.
    NoEffect,
    /// It looks like a setting of sealing software and is none.
    Unknown {
        /// The setting that was probably meant.
        nearest: Option<&'static str>,
    },
    /// The supervisor places its executors by `cgroup` and `numa_preferred`.
    Placement,
}

/// What is to be said about `name`, if anything.
pub fn env_warning(name: &str) -> Option<EnvWarning> {
    if PLACEMENT_NAMES.contains(&name) {
        return Some(EnvWarning::Placement);
    }
    if name == NO_EFFECT {
        return Some(EnvWarning::NoEffect);
    }
    if name.starts_with("SEAL_") {
        // Names that only tests read are none of a user's.
        let of_tests = ["SEAL_TEST", "SEAL_VECTORS_DIR", "SEAL_REQUIRE_ISA"];
        let is_known = own().any(|known| known == name)
            || of_tests.iter().any(|prefix| name.starts_with(prefix));
        return (!is_known).then(|| EnvWarning::Unknown { nearest: nearest(name, own()) });
    }
    if let Some(meant) = slip_of(name) {
        return Some(EnvWarning::Unknown { nearest: Some(meant) });
    }
    if !name.starts_with("FIL_PROOFS_") || FIL_PROOFS.contains(&name) {
        return None;
    }
    Some(EnvWarning::Unknown { nearest: nearest(name, FIL_PROOFS) })
}

/// The one of [`OTHERS`] that was meant by a name that is almost it.
fn slip_of(name: &str) -> Option<&'static str> {
    const SLIPS: usize = 2;
    let near = |known: &&&str| strsim::damerau_levenshtein(name, known) <= SLIPS;
    if OTHERS.contains(&name) { None } else { OTHERS.iter().find(near).copied() }
}

/// What may be shown of the value of a name of the environment: values of names that are settings
/// of sealing software; others may be secrets.
pub fn shown_value<'a>(name: &str, value: &'a str) -> &'a str {
    // Whole names: what begins like a setting may be anybody's.
    let known = OTHERS.contains(&name)
        || [LogChoice::LEVELS, "RUST_BACKTRACE", NO_EFFECT].contains(&name)
        || FIL_PROOFS.contains(&name)
        || own().any(|own| own == name)
        || PLACEMENT_NAMES.contains(&name);
    if known { value } else { "(set)" }
}

/// What is to be said of a settings file of other software in `directory`, the working directory.
pub fn settings_file(directory: &Path) -> Option<String> {
    const SETTINGS: &str = "rust-fil-proofs.config.toml";
    directory.join(SETTINGS).exists().then(|| {
        format!(
            "{SETTINGS} in the working directory changes what the published proof crates do; this \
             software takes its settings from the environment, so remove the file"
        )
    })
}

impl Environment {
    /// What is to be said of each name that is set, if anything. No text has a value, which may be
    /// somebody's secret.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        // An executor is placed by the placement names, if nobody else places it.
        let warning = |name: &&str| env_warning(name).filter(|it| *it != EnvWarning::Placement);
        self.names().filter_map(move |name| Some(format!("{} {}", shown(name), warning(&name)?)))
    }

    /// The names that are set and known, but not to the executor of `stage`: users export what one
    /// stage needs for all of them.
    pub fn of_others(&self, stage: Stage) -> impl Iterator<Item = &str> {
        let own: Vec<_> = rows_of(stage).into_iter().filter_map(|about| about.variable).collect();
        self.names().filter(move |name| {
            (FIL_PROOFS.contains(name) || OTHERS.contains(name) || *name == "SEAL_GPU")
                && !own.contains(name)
        })
    }
}

impl std::fmt::Display for EnvWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoEffect => f.write_str("has no effect in today's software; it can be removed"),
            Self::Unknown { nearest: None } => f.write_str("is not a known setting"),
            Self::Unknown { nearest: Some(name) } => {
                write!(f, "is not a known setting; did you mean {name}?")
            }
            Self::Placement => f.write_str(
                "is not passed on: executors are placed by numa_preferred and cgroup.cpuset",
            ),
        }
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_values_of_known_settings_are_shown() {
        for (name, shown) in [
            ("FIL_PROOFS_USE_MULTICORE_SDR", "1"),
            ("CUDA_VISIBLE_DEVICES", "1"),
            ("SEAL_GPU", "1"),
            ("SEAL_API_TOKEN", "(set)"),
            ("FIL_PROOFS_PARENTS_CACHE", "(set)"),
            ("CUDA_LICENSE", "(set)"),
            ("RUST_LOG_KEY", "(set)"),
            ("RUSTSEC_KEY", "(set)"),
            ("FULLNODE_API_INFO", "(set)"),
            ("AWS_SECRET_ACCESS_KEY", "(set)"),
        ] {
            assert_eq!(shown_value(name, "1"), shown, "{name}");
        }
    }

    #[test]
    fn dead_and_misspelt_settings_are_reported() {
        for (name, warning) in [
            ("FIL_PROOFS_MAXIMIZE_CACHING", Some(EnvWarning::NoEffect)),
            (
                "FIL_PROOFS_USE_MULTICORE_SDRR",
                Some(EnvWarning::Unknown { nearest: Some("FIL_PROOFS_USE_MULTICORE_SDR") }),
            ),
            ("SEAL_PC1_LANE", Some(EnvWarning::Unknown { nearest: Some("SEAL_PC1_LANES") })),
            ("SEAL_PC1_LANES", None),
            ("SEAL_WORKDIR", Some(EnvWarning::Unknown { nearest: Some("SEAL_WORK_DIR") })),
            (
                "HUGEPAGE_FILE_PATH",
                Some(EnvWarning::Unknown { nearest: Some("HUGEPAGE_FILES_PATH") }),
            ),
            (
                "CUDA_VISIBLE_DEVCES",
                Some(EnvWarning::Unknown { nearest: Some("CUDA_VISIBLE_DEVICES") }),
            ),
            ("HUGEPAGE_FILES_PATH_PATTERN", None),
            ("CUDA_HOME", None),
            ("CUDA_CACHE_PATH", None),
            ("FIL_PROOFS_DISABLE_NUMA", None),
            (
                "FIL_PROOFS_DISABLE_NUM",
                Some(EnvWarning::Unknown { nearest: Some("FIL_PROOFS_DISABLE_NUMA") }),
            ),
            ("FIL_PROOFS_X", Some(EnvWarning::Unknown { nearest: None })),
            ("VC_CG_CPUSET", Some(EnvWarning::Placement)),
            ("FIL_PROOFS_USE_MULTICORE_SDR", None),
            ("CUDA_VISIBLE_DEVICES", None),
            ("HOME", None),
        ] {
            assert_eq!(env_warning(name), warning, "{name}");
        }
    }

    #[test]
    fn what_nobody_knows_is_named_without_its_value_and_what_others_know_is_no_warning() {
        let set = [
            "FIL_PROOFS_MAXIMIZE_CACHING",
            "FIL_PROOFS_PARENT_CACHE",
            "FIL_PROOFS_USE_MULTICORE_SDR",
            "FIL_PROOFS_PARENTS_CACHE",
            "HOME",
            "SEAL_PC1_LANE",
            "SEAL_PC1_LANES",
            "FIL_PROOFS_DISABLE_NUMA",
            "SEAL_GPU",
            "VC_CG_CPUSET",
        ];
        let environment = Environment::of(&set.map(|name| (name, "hunter2")));
        let warnings: Vec<_> = environment.warnings().collect();
        assert_eq!(
            warnings,
            [
                "FIL_PROOFS_MAXIMIZE_CACHING has no effect in today's software; it can be removed",
                "FIL_PROOFS_PARENTS_CACHE is not a known setting; did you mean \
                 FIL_PROOFS_PARENT_CACHE?",
                "SEAL_PC1_LANE is not a known setting; did you mean SEAL_PC1_LANES?",
            ]
        );
        let others: Vec<_> = environment.of_others(Stage::Pc1).collect();
        assert_eq!(others, ["FIL_PROOFS_DISABLE_NUMA", "SEAL_GPU"]);
    }

    #[test]
    fn a_settings_file_of_other_software_is_reported() {
        let dir = std::env::temp_dir().join(format!("seal-options-{}", std::process::id()));
        std::fs::create_dir(&dir).expect("writable");
        let before = settings_file(&dir);
        std::fs::write(dir.join("rust-fil-proofs.config.toml"), "").expect("writable");
        let after = settings_file(&dir);
        std::fs::remove_dir_all(&dir).expect("ours");
        assert!(before.is_none() && after.is_some());
    }
}
