//! Tests that cannot run here say so, and somebody counts them.
//!
//! The test harness of Rust knows no third result. A test that needs something absent calls
//! [`skipped`] and returns; `cargo xtask test` prints what was skipped and why at its end.

use std::fs::OpenOptions;
use std::io::Write;

/// Names the file that collects skipped tests.
pub const SKIP_LOG: &str = "SEAL_TEST_SKIP_LOG";

/// Notes that `test` was skipped for `reason`.
pub fn skipped(test: &str, reason: &str) {
    let line = format!("{test}: {reason}\n");
    // Seen with --nocapture; the log below is for everybody else.
    let _ = std::io::stderr().write_all(format!("skipped {line}").as_bytes());
    let Some(path) = std::env::var_os(SKIP_LOG) else { return };
    let appended = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut log| log.write_all(line.as_bytes()));
    if let Err(error) = appended {
        panic!("cannot note a skipped test in {}: {error}", path.display());
    }
}

/// Whether the slow tests were asked for (`cargo xtask test --slow`).
pub fn slow_tests() -> bool {
    std::env::var_os("SEAL_TEST_SLOW").is_some_and(|value| value == "1")
}
