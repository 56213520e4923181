//! What `cargo xtask bench-pc2 --gpu` does with a GPU, and `cargo xtask gpu-check`, which gathers
//! what a machine with a GPU and without Rust needs to be checked and measured.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use seal_types::{NODE_SIZE, SectorSize};
use serde_json::{Value, json};

use crate::bench::write_result;
use crate::cargo::{binary, cargo, root, target};
use crate::cuda_build;
use crate::out::{say, step};

/// The flags of `bench-pc2` that are about GPUs.
#[derive(Debug, clap::Args)]
pub(crate) struct GpuArgs {
    /// Compute on the first GPU. Builds with the feature cuda, so nvcc is needed.
    #[arg(long)]
    pub(crate) gpu: bool,
    /// Only the GPU's work of a sector of this size, on data that is made on the GPU: neither disk
    /// nor layers are needed.
    #[arg(long, value_name = "SIZE", requires = "gpu")]
    pub(crate) equivalent: Option<SectorSize>,
}

/// Options of `gpu-check`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct CheckArgs {
    /// Where to gather the files; default: gpu-check in the target directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Only what is for PC2: what C2 needs takes nvcc minutes.
    #[arg(long)]
    pub(crate) without_c2: bool,
}

/// The most that the files may take together, so that they travel easily.
const MOST_BYTES: u64 = 64 << 20;

/// Builds pc2-exec with kernels.
pub(crate) fn build_pc2_exec() -> Result<()> {
    cargo(&["build", "--release", "--package", "pc2-exec", "--features", "cuda"], &[])
}

/// Runs the GPU's work of a sector and keeps the figures.
pub(crate) fn equivalent(size: SectorSize) -> Result<()> {
    let bench = build("seal-cuda", &["build", "--example", "gpu_bench"], "gpu_bench")?;
    step(&format!("the GPU's work of a sector of {size}"));
    let json = target().join("gpu-bench.json");
    let nodes = size.bytes() / NODE_SIZE as u64;
    let status = Command::new(&bench)
        .args(["--nodes", &nodes.to_string(), "--json"])
        .arg(&json)
        .status()
        .with_context(|| format!("cannot start {}", bench.display()))?;
    ensure!(status.success(), "the measurement failed: {status}");
    let figures: Value = serde_json::from_slice(&fs::read(&json)?)?;
    write_result(&format!("pc2-gpu-{size}"), json!({ "result": figures }))
}

/// The vectors whose sectors the script has made on the GPU: both sizes that are sealed in tests,
/// and the shapes with eleven layers and with trees above trees.
const VECTORS: [&str; 4] =
    ["2KiB-v1_1-a", "8MiB-v1_1-a", "shape-16KiB-11layers-a", "shape-32KiB-11layers-a"];

/// Gathers the test binaries, the benchmark, pc2-exec, vectors, c2-exec with a task, and the script.
pub(crate) fn check_bundle(args: &CheckArgs) -> Result<()> {
    let dir = args.out.clone().unwrap_or_else(|| target().join("gpu-check"));
    fs::create_dir_all(dir.join("vectors"))
        .with_context(|| format!("cannot make {}", dir.display()))?;
    let mut bytes = 0;
    for (package, arguments, target, name) in [
        ("seal-cuda", &["test", "--no-run", "--test", "device"][..], "device", "device-tests"),
        ("seal-cuda", &["build", "--example", "gpu_bench"], "gpu_bench", "gpu-bench"),
        ("seal-trees", &["test", "--no-run", "--test", "trees"], "trees", "sector-tests"),
        ("pc2-exec", &["build", "--bin", "pc2-exec"], "pc2-exec", "pc2-exec"),
    ] {
        let to = dir.join(name);
        strip(&build(package, arguments, target)?, &to)?;
        bytes += executable(&to)?;
    }
    if !args.without_c2 {
        cuda_build::build(cuda_build::Executor::C2Exec)?;
        let to = dir.join("c2-exec");
        strip(&binary("c2-exec"), &to)?;
        bytes += executable(&to)?;
        let to = dir.join("c2-task.jsonl");
        copy(&root().join("tests/protocol/c2.request.jsonl"), &to)?;
        bytes += fs::metadata(&to)?.len();
    }
    let to = dir.join("gpu-check.sh");
    copy(&root().join("scripts/gpu-check.sh"), &to)?;
    bytes += executable(&to)?;
    for name in VECTORS {
        let file = format!("{name}.json");
        let to = dir.join("vectors").join(&file);
        copy(&root().join("tests/vectors").join(&file), &to)?;
        bytes += fs::metadata(&to)?.len();
    }
    ensure!(
        bytes <= MOST_BYTES,
        "the files in {} take {} MiB, more than {} MiB",
        dir.display(),
        bytes >> 20,
        MOST_BYTES >> 20
    );
    let library = match glibc_needed(&dir)? {
        Some((major, minor)) => format!(" and glibc {major}.{minor} or newer"),
        None => String::new(),
    };
    say(&format!(
        "{} MiB in {}; on a machine with an NVIDIA driver{library}, run ./gpu-check.sh there",
        bytes.div_ceil(1 << 20),
        dir.display()
    ));
    Ok(())
}

/// The newest version of glibc that a binary in `dir` asks for.
fn glibc_needed(dir: &Path) -> Result<Option<(u32, u32)>> {
    let mut newest = None;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_file() {
            newest = newest.max(glibc_version(&fs::read(&path)?));
        }
    }
    Ok(newest)
}

/// The newest `GLIBC_<major>.<minor>` in a binary, where versions of symbols stand as such texts.
fn glibc_version(binary: &[u8]) -> Option<(u32, u32)> {
    const PREFIX: &[u8] = b"GLIBC_";
    let version = |at: usize| {
        let text = binary[at + PREFIX.len()..].split(|byte| *byte == 0).next()?;
        let (major, rest) = std::str::from_utf8(text).ok()?.split_once('.')?;
        let minor = rest.split('.').next()?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let places = binary.windows(PREFIX.len()).enumerate().filter(|(_, bytes)| *bytes == PREFIX);
    places.filter_map(|(at, _)| version(at)).max()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// Makes a file one that can be run. Returns its length.
fn executable(path: &Path) -> Result<u64> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(fs::metadata(path)?.len())
}

/// Copies a binary without its symbols, where there is a `strip`.
fn strip(from: &Path, to: &Path) -> Result<()> {
    let stripped = Command::new("strip").arg("-o").arg(to).arg(from).status();
    if !stripped.is_ok_and(|status| status.success()) {
        copy(from, to)?;
    }
    Ok(())
}

/// Builds a target of a package with the kernels and returns the path of its binary.
fn build(package: &str, arguments: &[&str], name: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    step(&format!("cargo {} --package {package} --features cuda", arguments.join(" ")));
    let output = Command::new(cargo)
        .current_dir(root())
        .args(arguments)
        .args(["--release", "--package", package, "--features", "cuda"])
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "{name} of {package} cannot be built");
    let messages = String::from_utf8(output.stdout).context("cargo's messages are UTF-8")?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo names no binary for {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_glibc_that_is_asked_for_is_found() {
        let binary = b"\x7fELF\0GLIBC_2.17\0memcpy\0GLIBC_2.34\0GLIBC_2.2.5\0GLIBC_PRIVATE\0";
        assert_eq!(glibc_version(binary), Some((2, 34)));
        assert_eq!(glibc_version(b"a script"), None);
    }
}
