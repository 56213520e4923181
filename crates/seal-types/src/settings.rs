//! Names of the settings that sealing software takes from the environment.

/// Every `SEAL_*` name that a program of this project reads.
pub const SEAL_SETTINGS: [&str; 19] = [
    "SEAL_ALLOW_TEST_PARAMS",
    "SEAL_C2_DEVICE",
    "SEAL_CIRCUIT_CACHE",
    "SEAL_CONFIG",
    "SEAL_EXEC_EVENTS",
    "SEAL_FORCE_ISA",
    "SEAL_GPU",
    "SEAL_LOCK_WAIT",
    "SEAL_LOG_FORM",
    "SEAL_NUMA",
    "SEAL_PC1_CONCURRENT",
    "SEAL_PC1_LANES",
    "SEAL_PC1_REPLACE_FINISHED",
    "SEAL_PC1_RESUME",
    "SEAL_PC1_SMT",
    "SEAL_READY_WITHIN",
    "SEAL_RUNTIME_DIR",
    "SEAL_SUPERVISED",
    "SEAL_WORK_DIR",
];

/// Whether `name` looks like a setting of this project and is none: it is probably misspelt.
/// Names that only tests read are none of a user's.
pub fn is_unknown_seal_setting(name: &str) -> bool {
    let of_tests = ["SEAL_TEST", "SEAL_VECTORS_DIR", "SEAL_REQUIRE_ISA"];
    name.starts_with("SEAL_")
        && !SEAL_SETTINGS.contains(&name)
        && !of_tests.iter().any(|prefix| name.starts_with(prefix))
}

/// Every `FIL_PROOFS_*` name that today's software reads, and `FIL_PROOFS_MAXIMIZE_CACHING`, which
/// users carry from guide to guide although nothing reads it.
///
/// Source: `storage_proofs_core::settings` 19.1, and `FIL_PROOFS_DISABLE_NUMA` of the fork that
/// damocles-worker is built with.
pub const FIL_PROOFS_SETTINGS: [&str; 20] = [
    "FIL_PROOFS_CACHE_DIR",
    "FIL_PROOFS_COLUMN_WRITE_BATCH_SIZE",
    "FIL_PROOFS_DISABLE_NUMA",
    "FIL_PROOFS_GPU_FRAMEWORK",
    "FIL_PROOFS_MAXIMIZE_CACHING",
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
