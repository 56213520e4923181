//! Environment names that mean something to sealing software, and what is to be said of those that
//! do not.

use seal_types::{FIL_PROOFS_SETTINGS, SEAL_SETTINGS, is_unknown_seal_setting};

use crate::error::nearest;

/// Names by which venus-worker asks a processor to place itself. The supervisor places its
/// executors, so they must not see these.
pub const PLACEMENT_NAMES: [&str; 3] =
    ["VC_CG_NAME", "VC_CG_CPUSET", "VENUS_WORKER_NUMA_PREFERRED"];

/// Names of other makers that sealing software goes by. There are many more that begin alike, so
/// only what differs from one of these by a slip is said to be misspelt.
const OTHERS: [&str; 5] = [
    "BELLMAN_NO_GPU",
    "CUDA_DEVICE_ORDER",
    "CUDA_VISIBLE_DEVICES",
    "HUGEPAGE_FILES_PATH",
    "HUGEPAGE_FILES_PATH_PATTERN",
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
    if is_unknown_seal_setting(name) {
        return Some(EnvWarning::Unknown { nearest: nearest(name, SEAL_SETTINGS) });
    }
    if let Some(meant) = slip_of(name) {
        return Some(EnvWarning::Unknown { nearest: Some(meant) });
    }
    if !name.starts_with("FIL_PROOFS_") || FIL_PROOFS_SETTINGS.contains(&name) {
        return None;
    }
    Some(EnvWarning::Unknown { nearest: nearest(name, FIL_PROOFS_SETTINGS) })
}

/// The one of [`OTHERS`] that was meant by a name that is almost it.
fn slip_of(name: &str) -> Option<&'static str> {
    const SLIPS: usize = 2;
    let near = |known: &&&str| strsim::damerau_levenshtein(name, known) <= SLIPS;
    if OTHERS.contains(&name) { None } else { OTHERS.iter().find(near).copied() }
}

/// What may be shown of the value of an environment name: values of names that are settings of
/// sealing software; others may be secrets.
pub fn shown_value<'a>(name: &str, value: &'a str) -> &'a str {
    // Whole names: what begins like a setting may be anybody's.
    let known = OTHERS.contains(&name)
        || ["RUST_LOG", "RUST_BACKTRACE", "CUDA_DEVICE_ORDER"].contains(&name)
        || FIL_PROOFS_SETTINGS.contains(&name)
        || SEAL_SETTINGS.contains(&name)
        || PLACEMENT_NAMES.contains(&name);
    if known { value } else { "(set)" }
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
}
