//! Finding the scripted executor.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The path of the `fake-exec` binary, built if it is not up to date: cargo builds binaries only
/// for tests of their own package.
///
/// # Panics
///
/// Panics if it cannot be built, which fails the test that wants it.
pub fn fake_exec() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(build)
}

fn build() -> PathBuf {
    // A test runs as TARGET/PROFILE/deps/NAME-HASH.
    let test = env::current_exe().expect("a test knows its binary");
    let profile_dir = test.ancestors().nth(2).expect("a test lies in TARGET/PROFILE/deps");
    let target_dir = profile_dir.parent().expect("a profile lies in the target directory");
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--package", "test-support", "--bin", "fake-exec"])
        .args(["--profile", profile, "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target_dir)
        .status()
        .expect("cargo runs");
    assert!(status.success(), "fake-exec cannot be built: {status}");
    profile_dir.join("fake-exec")
}
