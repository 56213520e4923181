//! nvcc: where it is, and what it makes of the kernels.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles the kernels for these architectures, the oldest first, and leaves in `out`:
/// `kernels.fatbin`, machine code for each and PTX of the oldest; `compute_N.ptx` and `sm_N.cubin`,
/// the parts of it; `ptxas.txt`, what ptxas said of each kernel.
///
/// # Errors
/// No nvcc, or what it said.
pub(crate) fn compile(source: &str, architectures: &[u32], out: &Path) -> Result<(), String> {
    let nvcc = find()?;
    // Files between the steps, of this run only.
    let kept = out.join("kept");
    let cannot = |path: &Path, error| format!("cannot make {}: {error}", path.display());
    if kept.exists() {
        std::fs::remove_dir_all(&kept).map_err(|error| cannot(&kept, error))?;
    }
    std::fs::create_dir_all(&kept).map_err(|error| cannot(&kept, error))?;
    let mut command = Command::new(&nvcc);
    command.args(["-std=c++17", "-O3", "--fatbin", "-Xptxas", "-v"]);
    command.args(["--threads", &jobs(), "--keep", "--keep-dir"]).arg(&kept);
    for number in architectures {
        command.arg(format!("-gencode=arch=compute_{number},code=sm_{number}"));
    }
    let oldest = architectures.first().ok_or("no architecture")?;
    command.arg(format!("-gencode=arch=compute_{oldest},code=compute_{oldest}"));
    command.arg("-o").arg(out.join("kernels.fatbin")).arg(source);
    let output =
        command.output().map_err(|error| format!("cannot start {}: {error}", nvcc.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        for line in said.lines() {
            println!("cargo::warning={line}");
        }
        return Err(format!("{} failed: {}", nvcc.display(), output.status));
    }
    let report = out.join("ptxas.txt");
    std::fs::write(&report, said.as_bytes()).map_err(|error| cannot(&report, error))?;
    for number in architectures {
        for (made, name) in [
            (Made::Ptx, format!("compute_{number}.ptx")),
            (Made::MachineCode, format!("sm_{number}.cubin")),
        ] {
            let to = out.join(name);
            std::fs::rename(made.find(&kept, *number)?, &to).map_err(|error| cannot(&to, error))?;
        }
    }
    std::fs::remove_dir_all(&kept)
        .map_err(|error| format!("cannot remove {}: {error}", kept.display()))
}

/// How many compilers at a time: cargo says how many jobs it would run.
fn jobs() -> String {
    std::env::var("NUM_JOBS").ok().filter(|jobs| jobs.parse::<u32>().is_ok()).unwrap_or("2".into())
}

/// What is kept of the steps of nvcc, which names files by architecture only where there are
/// several.
#[derive(Clone, Copy)]
enum Made {
    Ptx,
    MachineCode,
}

impl Made {
    fn find(self, kept: &Path, architecture: u32) -> Result<PathBuf, String> {
        let cannot = |error| format!("cannot read {}: {error}", kept.display());
        for entry in std::fs::read_dir(kept).map_err(cannot)? {
            let path = entry.map_err(cannot)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let found = match self {
                Self::Ptx => {
                    name.ends_with(".ptx")
                        && std::fs::read_to_string(&path)
                            .map_err(cannot)?
                            .lines()
                            .filter_map(|line| line.strip_prefix(".target "))
                            .any(|target| target.trim() == format!("sm_{architecture}"))
                }
                Self::MachineCode => name.ends_with(&format!("_{architecture}.cubin")),
            };
            if found {
                return Ok(path);
            }
        }
        let what = match self {
            Self::Ptx => "PTX",
            Self::MachineCode => "machine code",
        };
        Err(format!("nvcc left no {what} for {architecture} in {}", kept.display()))
    }
}

fn set(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn find() -> Result<PathBuf, String> {
    if let Some(home) = set("CUDA_HOME") {
        let nvcc = Path::new(&home).join("bin/nvcc");
        return nvcc
            .is_file()
            .then_some(nvcc)
            .ok_or_else(|| format!("CUDA_HOME={} has no bin/nvcc", Path::new(&home).display()));
    }
    if let Some(nvcc) = set("NVCC") {
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
