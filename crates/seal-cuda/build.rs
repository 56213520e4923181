//! Compiles the kernels with nvcc when the feature `cuda` is on.
//!
//! nvcc is taken from `CUDA_HOME`, from `NVCC`, from `PATH`, or from where `cargo xtask
//! cuda-toolkit` puts it, in this order. `SEAL_CUDA_ARCHITECTURES` names other architectures than
//! the usual ones, such as `90` for a quick build.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// A100; A40, A5000, RTX 30; L40, RTX 40; H100, H200; B200; RTX 50 and RTX PRO of Blackwell.
const ARCHITECTURES: &str = "80,86,89,90,100,120";

fn main() -> ExitCode {
    for name in ["CUDA_HOME", "NVCC", "SEAL_CUDA_ARCHITECTURES"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return ExitCode::SUCCESS;
    }
    println!("cargo::rerun-if-changed=kernels");
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn compile() -> Result<(), String> {
    let architectures = std::env::var("SEAL_CUDA_ARCHITECTURES")
        .ok()
        .filter(|list| !list.is_empty())
        .unwrap_or_else(|| ARCHITECTURES.to_owned());
    let mut numbers = Vec::new();
    for number in architectures.split(',').map(str::trim) {
        let parsed = number.parse::<u32>().map_err(|_| {
            format!("SEAL_CUDA_ARCHITECTURES={architectures}: {number:?} is no number such as 90")
        })?;
        numbers.push(parsed);
    }
    numbers.sort_unstable();
    let oldest = numbers[0];
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let image = out.join("kernels.fatbin");
    let nvcc = find_nvcc()?;
    let mut command = Command::new(&nvcc);
    command.args(["-std=c++17", "-O3", "--fatbin", "-Xptxas", "-v", "--threads", "2"]);
    for number in &numbers {
        command.arg(format!("-gencode=arch=compute_{number},code=sm_{number}"));
    }
    command.arg(format!("-gencode=arch=compute_{oldest},code=compute_{oldest}"));
    command.arg("-o").arg(&image).arg("kernels/kernels.cu");
    let output =
        command.output().map_err(|error| format!("cannot start {}: {error}", nvcc.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        for line in said.lines() {
            println!("cargo::warning={line}");
        }
        return Err(format!("{} failed: {}", nvcc.display(), output.status));
    }
    std::fs::write(out.join("ptxas.txt"), said.as_bytes())
        .map_err(|error| format!("cannot write nvcc's report: {error}"))?;
    let list: Vec<_> = numbers.iter().map(u32::to_string).collect();
    println!("cargo::rustc-env=SEAL_CUDA_BUILT_ARCHITECTURES={}", list.join(","));
    Ok(())
}

fn find_nvcc() -> Result<PathBuf, String> {
    if let Some(home) = std::env::var_os("CUDA_HOME").filter(|home| !home.is_empty()) {
        let nvcc = Path::new(&home).join("bin/nvcc");
        return nvcc
            .is_file()
            .then_some(nvcc)
            .ok_or_else(|| format!("CUDA_HOME={} has no bin/nvcc", Path::new(&home).display()));
    }
    if let Some(nvcc) = std::env::var_os("NVCC").filter(|nvcc| !nvcc.is_empty()) {
        let nvcc = PathBuf::from(nvcc);
        return nvcc
            .is_file()
            .then_some(nvcc.clone())
            .ok_or_else(|| format!("NVCC={} is no file", nvcc.display()));
    }
    let on_path = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|dir| dir.join("nvcc")).find(|nvcc| nvcc.is_file())
    });
    on_path.or_else(installed_by_xtask).ok_or_else(|| {
        "the feature cuda needs nvcc and none was found by CUDA_HOME, NVCC or PATH; `cargo xtask \
         cuda-toolkit` installs it into target/"
            .to_owned()
    })
}

/// `OUT_DIR` is `target/release/build/seal-cuda-…/out`, for some target directory.
fn installed_by_xtask() -> Option<PathBuf> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR")?);
    out.ancestors()
        .map(|dir| dir.join("cuda-toolkit/nvidia/cu13/bin/nvcc"))
        .find(|nvcc| nvcc.is_file())
}
