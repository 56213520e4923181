//! Environment names that mean something to sealing software, and what is to be said of those that
//! do not.

use crate::error::nearest;

/// Names by which venus-worker asks a processor to place itself. The supervisor places its
/// executors, so they must not see these.
pub const PLACEMENT_NAMES: [&str; 3] =
    ["VC_CG_NAME", "VC_CG_CPUSET", "VENUS_WORKER_NUMA_PREFERRED"];

/// `FIL_PROOFS_` names that sealing software reads.
const KNOWN: [&str; 18] = [
    "FIL_PROOFS_CACHE_DIR",
    "FIL_PROOFS_COLUMN_WRITE_BATCH_SIZE",
    "FIL_PROOFS_GPU_FRAMEWORK",
    "FIL_PROOFS_MAX_GPU_COLUMN_BATCH_SIZE",
    "FIL_PROOFS_MAX_GPU_TREE_BATCH_SIZE",
    "FIL_PROOFS_MAXIMIZE_CACHING",
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
];

/// Something to be said at start about an environment name.
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
    if name == "FIL_PROOFS_MAXIMIZE_CACHING" {
        return Some(EnvWarning::NoEffect);
    }
    if !name.starts_with("FIL_PROOFS_") || KNOWN.contains(&name) {
        return None;
    }
    Some(EnvWarning::Unknown { nearest: nearest(name, KNOWN) })
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
    fn dead_and_misspelt_settings_are_reported() {
        for (name, warning) in [
            ("FIL_PROOFS_MAXIMIZE_CACHING", Some(EnvWarning::NoEffect)),
            (
                "FIL_PROOFS_USE_MULTICORE_SDRR",
                Some(EnvWarning::Unknown { nearest: Some("FIL_PROOFS_USE_MULTICORE_SDR") }),
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
}
