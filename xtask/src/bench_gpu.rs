//! What `cargo xtask bench-pc2 --gpu` does with a GPU.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use seal_types::{NODE_SIZE, SectorSize};
use serde_json::{Value, json};

use crate::bench::write_result;
use crate::cargo::{cargo, target};
use crate::gpu_check::build;
use crate::out::step;

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
