//! Compiles the kernels with nvcc when the feature `cuda` is on, and checks their inline assembly.
//!
//! nvcc is taken from `CUDA_HOME`, from `NVCC`, from `PATH`, or from where `cargo xtask
//! cuda-toolkit` puts it, in this order. `SEAL_CUDA_ARCHITECTURES` names other architectures than
//! the usual ones, such as `90` for a quick build.

#[path = "build/asm/mod.rs"]
mod asm;
#[path = "build/nvcc.rs"]
mod nvcc;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What CUDA 13 compiles for, from the oldest on:
/// - 7.5: T4, RTX 20, Quadro RTX of Turing,
/// - 8.0: A100, A30,
/// - 8.6: A10, A40, RTX A2000 to A6000, RTX 30,
/// - 8.9: L4, L40, L40S, RTX Ada, RTX 40,
/// - 9.0: H100, H200,
/// - 10.0: B200,
/// - 12.0: RTX PRO of Blackwell, RTX 50.
///
/// PTX is that of the oldest, for what comes later.
const ARCHITECTURES: &str = "75,80,86,89,90,100,120";

const KERNELS: &str = "kernels";

fn main() -> ExitCode {
    for name in ["CUDA_HOME", "NVCC", "SEAL_CUDA_ARCHITECTURES"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return ExitCode::SUCCESS;
    }
    println!("cargo::rerun-if-changed={KERNELS}");
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn compile() -> Result<(), String> {
    let architectures = architectures()?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let statements = check_sources(Path::new(KERNELS))?;
    nvcc::compile("kernels/kernels.cu", &architectures, &out)?;
    for number in &architectures {
        check_ptx(&out.join(format!("compute_{number}.ptx")), &statements)?;
    }
    let list: Vec<_> = architectures.iter().map(u32::to_string).collect();
    println!("cargo::rustc-env=SEAL_CUDA_BUILT_ARCHITECTURES={}", list.join(","));
    Ok(())
}

/// The architectures to compile for, the oldest first.
fn architectures() -> Result<Vec<u32>, String> {
    let list = std::env::var("SEAL_CUDA_ARCHITECTURES")
        .ok()
        .filter(|list| !list.is_empty())
        .unwrap_or_else(|| ARCHITECTURES.to_owned());
    let mut numbers = Vec::new();
    for number in list.split(',').map(str::trim) {
        let parsed = number.parse::<u32>().map_err(|_| {
            format!("SEAL_CUDA_ARCHITECTURES={list}: {number:?} is no number such as 90")
        })?;
        numbers.push(parsed);
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

/// Checks the constraints of all sources, and returns their inline assembly.
fn check_sources(dir: &Path) -> Result<Vec<asm::Statement>, String> {
    let cannot = |path: &Path, error| format!("cannot read {}: {error}", path.display());
    let (mut all, mut faults) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(dir).map_err(|error| cannot(dir, error))? {
        let path = entry.map_err(|error| cannot(dir, error))?.path();
        let text = std::fs::read_to_string(&path).map_err(|error| cannot(&path, error))?;
        let (statements, wrong) = asm::faults_of_sources(&path.to_string_lossy(), &text);
        all.extend(statements);
        faults.extend(wrong);
    }
    fail_with(&faults)?;
    Ok(all)
}

/// Checks the registers of all inline assembly in a file of PTX.
fn check_ptx(path: &Path, statements: &[asm::Statement]) -> Result<(), String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let (pieces, faults) = asm::faults_of_ptx(&path.to_string_lossy(), &text, statements);
    if pieces == 0 && !statements.is_empty() {
        return Err(format!(
            "{} has none of the inline assembly of the sources: its form is unknown to the check",
            path.display()
        ));
    }
    fail_with(&faults)
}

fn fail_with(faults: &[asm::Fault]) -> Result<(), String> {
    /// The first tell enough: one wrong statement can have hundreds of instances.
    const SHOWN: usize = 20;
    if faults.is_empty() {
        return Ok(());
    }
    let mut lines: Vec<_> = faults.iter().take(SHOWN).map(asm::Fault::to_string).collect();
    lines.push(format!("{} faults in inline assembly", faults.len()));
    Err(lines.join("\n"))
}
