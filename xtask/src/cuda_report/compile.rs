//! What is looked at: the kernels as a build with the feature cuda makes them, and loops of single
//! operations, which are compiled for the report only.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};

use crate::cargo::{cargo_messages, root, target};
use crate::cuda_toolkit;

/// What there is of an architecture.
pub(super) struct Compiled {
    pub(super) architecture: u32,
    /// Machine code of the kernels, disassembled.
    pub(super) kernels: String,
    /// PTX of the kernels.
    pub(super) ptx: String,
    /// Machine code of the operations, disassembled.
    pub(super) operations: String,
}

/// All that there is to look at.
pub(super) struct Everything {
    /// What ptxas said of the kernels.
    pub(super) ptxas: String,
    /// Oldest first.
    pub(super) architectures: Vec<Compiled>,
}

/// Builds seal-cuda with its kernels, compiles the operations, and disassembles both.
pub(super) fn everything(architectures: Option<&str>) -> Result<Everything> {
    let nvdisasm = cuda_toolkit::find_nvdisasm().context(
        "no nvdisasm beside nvcc or on PATH, without which machine code cannot be read; `cargo \
         xtask cuda-toolkit` installs both into target/",
    )?;
    let nvcc = cuda_toolkit::find_nvcc().context("no nvcc")?;
    let out = build(architectures)?;
    let read = |name: &str| {
        let file = out.join(name);
        std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    };
    let ptxas = read("ptxas.txt")?;
    let mut numbers: Vec<u32> =
        super::ptxas::parse(&ptxas)?.iter().map(|kernel| kernel.architecture).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let dir = target().join("cuda-report");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let architectures = in_parallel(&numbers, |architecture| {
        let operations = dir.join(format!("operations_{architecture}.cubin"));
        let source = root().join("crates/seal-cuda/kernels/operations.cu");
        compile(&nvcc, architecture, &source, &operations)?;
        Ok(Compiled {
            architecture,
            kernels: disassemble(&nvdisasm, &out.join(format!("sm_{architecture}.cubin")))?,
            ptx: read(&format!("compute_{architecture}.ptx"))?,
            operations: disassemble(&nvdisasm, &operations)?,
        })
    })?;
    Ok(Everything { ptxas, architectures })
}

/// Does something for each architecture, as many at a time as there are processors.
pub(super) fn in_parallel<T: Send>(
    architectures: &[u32],
    work: impl Fn(u32) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut done: Vec<(usize, Result<T>)> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads.min(architectures.len()))
            .map(|_| {
                scope.spawn(|| {
                    let mut done = Vec::new();
                    loop {
                        let place = next.fetch_add(1, Ordering::Relaxed);
                        let Some(architecture) = architectures.get(place) else { return done };
                        done.push((place, work(*architecture)));
                    }
                })
            })
            .collect();
        let joined = handles.into_iter().map(|handle| match handle.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.flatten().collect()
    });
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Builds seal-cuda with its kernels. Returns where its build script has left everything.
pub(crate) fn build(architectures: Option<&str>) -> Result<PathBuf> {
    let arguments = ["build", "--release", "--package", "seal-cuda", "--features", "cuda"];
    let environment = architectures.map(|list| ("SEAL_CUDA_ARCHITECTURES", OsStr::new(list)));
    cargo_messages(&arguments, environment.as_slice())?
        .iter()
        .filter(|message| message["reason"] == "build-script-executed")
        .filter(|message| message["package_id"].as_str().is_some_and(|id| id.contains("seal-cuda")))
        .find_map(|message| message["out_dir"].as_str().map(PathBuf::from))
        .context("cargo names no output directory of seal-cuda")
}

fn compile(nvcc: &Path, architecture: u32, source: &Path, to: &Path) -> Result<()> {
    let output = Command::new(nvcc)
        .args(["-std=c++17", "-O3", "--cubin"])
        .arg(format!("-arch=sm_{architecture}"))
        .arg("-o")
        .arg(to)
        .arg(source)
        .output()
        .with_context(|| format!("cannot start {}", nvcc.display()))?;
    ensure!(
        output.status.success(),
        "nvcc could not compile {}: {}",
        source.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn disassemble(nvdisasm: &Path, file: &Path) -> Result<String> {
    // With all sections: tables of jumps stand among the constants.
    let output = Command::new(nvdisasm)
        .arg(file)
        .output()
        .with_context(|| format!("cannot start {}", nvdisasm.display()))?;
    ensure!(
        output.status.success(),
        "nvdisasm could not read {}: {}",
        file.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).context("a disassembly is UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_architectures() {
        let numbers = [75, 80, 90, 120];
        let done = in_parallel(&numbers, |number| Ok(number * 2)).expect("done");
        assert_eq!(done, [150, 160, 180, 240]);
        assert!(
            in_parallel(&numbers, |n| {
                ensure!(n != 90, "no");
                Ok(n)
            })
            .is_err()
        );
    }
}
