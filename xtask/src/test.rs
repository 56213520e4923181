//! `cargo xtask test`: everything that must hold before a change lands.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use seal_types::SectorSize;

use crate::bench_gpu;
use crate::campaign;
use crate::cargo::{build_all_targets, cargo, ensure_test_params, target};
use crate::cuda_build;
use crate::cuda_report;
use crate::cuda_toolkit;
use crate::gpu_check;
use crate::out::{say, step};
use crate::ptx_test;
use crate::tidy;

/// Options of `test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also the slow tests: the 512 MiB vector, many proofs, and, where nvcc can be had, the
    /// executors that use a GPU.
    #[arg(long)]
    slow: bool,
}

/// How long faults are put into what was built.
const CAMPAIGN_MINUTES: f64 = 2.0;

/// Where tests note what they have skipped.
pub(crate) const SKIP_LOG: &str = "SEAL_TEST_SKIP_LOG";

pub(crate) fn skip_log() -> PathBuf {
    target().join("skipped-tests")
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    step(&format!("processor: {}", processor_features().join(" ")));
    tidy::run()?;
    cargo(&["fmt", "--all", "--check"], &[])?;
    let mut clippy = vec!["clippy", "--release", "--workspace", "--all-targets"];
    if ci {
        clippy.extend(["--", "--deny", "warnings"]);
    }
    cargo(&clippy, &[])?;
    build_all_targets()?;
    ensure_test_params(SectorSize::KIB_2)?;

    let skip_log = skip_log();
    std::fs::write(&skip_log, "")?;
    let mut environment: Vec<(&str, &OsStr)> = vec![(SKIP_LOG, skip_log.as_os_str())];
    let yes = OsString::from("1");
    if args.slow {
        environment.push(("SEAL_TEST_SLOW", &yes));
    }
    let tested = cargo(&["test", "--release", "--workspace", "--no-fail-fast"], &environment);
    let faults = campaign::run_built(&campaign::Args::minutes(CAMPAIGN_MINUTES), false);
    let mut not_built = String::new();
    let kernels = device_code(args, &mut not_built);
    let skipped = std::fs::read_to_string(&skip_log)? + &not_built;
    report_skipped(&skipped);
    tested?;
    faults?;
    kernels?;
    say(&format!("all checks passed in {:.0} s", started.elapsed().as_secs_f64()));
    Ok(())
}

/// What nvcc makes of the kernels: counted, executed, built into `pc2-exec` and gathered for a
/// machine with a GPU.
fn device_code(args: &Args, skipped: &mut String) -> Result<()> {
    const C2_WITH_CUDA: &str = "c2-exec with the feature cuda";
    if let Err(error) = cuda_toolkit::get() {
        for what in ["CUDA kernels as nvcc compiles them, pc2-exec with them", C2_WITH_CUDA] {
            skipped.push_str(&format!("{what}: no nvcc: {error:#}\n"));
        }
        return Ok(());
    }
    cuda_report::run(&cuda_report::Args::default())?;
    bench_gpu::build_pc2_exec()?;
    ptx_test::run_built(&ptx_test::Args { slow: args.slow, ..Default::default() })?;
    gpu_check::run(&gpu_check::Args { without_c2: !args.slow, ..Default::default() })?;
    for (_, ptx) in ptx_test::of_build(&ptx_test::ENDS[..1])? {
        gpu_check::check_on_stand_in(&ptx)?;
    }
    if args.slow {
        return cuda_build::check();
    }
    skipped.push_str(&format!("{C2_WITH_CUDA}: minutes of nvcc (--slow builds it)\n"));
    Ok(())
}

fn report_skipped(log: &str) {
    let lines: Vec<_> = log.lines().collect();
    step(&format!("{} skipped", lines.len()));
    for line in lines {
        say(&format!("    {line}"));
    }
}

/// What decides which kernels the tests can run.
fn processor_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    return [
        ("sha", is_x86_feature_detected!("sha")),
        ("adx", is_x86_feature_detected!("adx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512ifma", is_x86_feature_detected!("avx512ifma")),
    ]
    .into_iter()
    .filter_map(|(name, there)| there.then_some(name))
    .collect();
    #[cfg(not(target_arch = "x86_64"))]
    vec![std::env::consts::ARCH]
}
