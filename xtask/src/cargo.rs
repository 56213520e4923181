//! Cargo, the repository and the built binaries.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::out::step;

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository")
}

/// The build directory.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The built binary `name`.
pub(crate) fn binary(name: &str) -> PathBuf {
    target().join("release").join(name)
}

/// Cargo in the root, with `arguments`, and the line that it is told by.
fn command<S: AsRef<OsStr>>(arguments: &[S]) -> (Command, String) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root()).args(arguments);
    let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy()).collect();
    (command, format!("cargo {}", words.join(" ")))
}

/// Runs cargo with `arguments` in the root, and fails if it does.
pub(crate) fn cargo<S: AsRef<OsStr>>(
    arguments: &[S],
    environment: &[(&str, &OsStr)],
) -> Result<()> {
    let (mut command, line) = command(arguments);
    step(&line);
    let status = command
        .envs(environment.iter().copied())
        .status()
        .with_context(|| format!("cannot start {line}"))?;
    ensure!(status.success(), "{line} failed: {status}");
    Ok(())
}

/// The same for a build, with what cargo tells of it.
pub(crate) fn cargo_messages<S: AsRef<OsStr>>(
    arguments: &[S],
    environment: &[(&str, &OsStr)],
) -> Result<Vec<Value>> {
    let (mut command, line) = command(arguments);
    step(&line);
    let output = command
        .args(["--message-format", "json-render-diagnostics"])
        .envs(environment.iter().copied())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {line}"))?;
    ensure!(output.status.success(), "{line} failed: {}", output.status);
    let messages = String::from_utf8(output.stdout).context("cargo's messages are UTF-8")?;
    Ok(messages.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// Builds one target and returns its binary.
pub(crate) fn build_executable<S: AsRef<OsStr>>(arguments: &[S], name: &str) -> Result<PathBuf> {
    cargo_messages(arguments, &[])?
        .iter()
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo names no binary for {name}"))
}

/// Builds all binaries.
pub(crate) fn build_binaries() -> Result<()> {
    cargo(&["build", "--release", "--workspace", "--bins"], &[])
}

/// Builds everything that tests and benches need, binaries among them. Other than
/// [`build_binaries`] this is what `cargo test --workspace` builds too: with another choice of
/// packages the proof crates get other features and are compiled again.
pub(crate) fn build_all_targets() -> Result<()> {
    cargo(&["build", "--release", "--workspace", "--all-targets"], &[])
}

/// Where the test parameters are kept; made once.
pub(crate) fn test_params_dir() -> PathBuf {
    target().join("test-params")
}

/// Makes the test parameters for sectors of `size` unless they are there.
pub(crate) fn ensure_test_params(size: seal_types::SectorSize) -> Result<()> {
    let dir = test_params_dir();
    step(&format!("test parameters for {size} in {} (made once)", dir.display()));
    let status = Command::new(binary("c2-exec"))
        .args(["gen-params", "--sector-size", &size.to_string(), "--dir"])
        .arg(&dir)
        .status()
        .context("cannot start c2-exec")?;
    ensure!(status.success(), "c2-exec gen-params failed: {status}");
    Ok(())
}
