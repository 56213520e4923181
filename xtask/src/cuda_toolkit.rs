//! `cargo xtask cuda-toolkit`: the compiler of device code and the disassembler.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cargo::target;
use crate::out::{say, step};

/// What is installed: compiler with its parts, runtime headers and the C++ library, as
/// `cuda-toolkit` 13.0.3 has them, and the disassembler, of which there is no older version and which
/// reads older machine code. Each exactly, since other versions emit other code.
const PACKAGES: [&str; 6] = [
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-cccl==13.0.85",
    "nvidia-cuda-nvdisasm==13.2.51",
];

/// Where in the toolkit's directory stands what was installed.
const INSTALLED: &str = "packages.txt";

/// Options of `cuda-toolkit`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct ToolkitArgs {
    /// Install again, even if everything is there.
    #[arg(long)]
    again: bool,
}

/// Where the toolkit lies.
pub(crate) fn toolkit_dir() -> PathBuf {
    target().join("cuda-toolkit")
}

fn nvcc() -> PathBuf {
    toolkit_dir().join("nvidia/cu13/bin/nvcc")
}

/// The nvcc that a build with the feature cuda takes, in the order in which seal-cuda looks.
pub(crate) fn find_nvcc() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let found = if let Some(home) = set("CUDA_HOME") {
        Some(PathBuf::from(home).join("bin/nvcc"))
    } else if let Some(nvcc) = set("NVCC") {
        Some(PathBuf::from(nvcc))
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&path).map(|dir| dir.join("nvcc"));
        on_path.chain([nvcc()]).find(|nvcc| nvcc.is_file())
    };
    found.filter(|nvcc| nvcc.is_file())
}

/// The nvdisasm that goes with it: of the same toolkit, on `PATH`, or where `cuda-toolkit` puts it.
pub(crate) fn find_nvdisasm() -> Option<PathBuf> {
    let beside = find_nvcc().map(|nvcc| nvcc.with_file_name(NVDISASM));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join(NVDISASM));
    let installed = nvcc().with_file_name(NVDISASM);
    beside.into_iter().chain(on_path).chain([installed]).find(|nvdisasm| nvdisasm.is_file())
}

const NVDISASM: &str = "nvdisasm";

/// Gives the toolkit the names that NVIDIA's installer gives it: by these nvcc finds its libraries
/// when it links, and the build scripts of other crates find them for a linker.
fn lay_out(dir: &Path) -> Result<()> {
    let toolkit = dir.join("nvidia/cu13");
    let targets = toolkit.join("targets").join(format!("{}-linux", std::env::consts::ARCH));
    std::fs::create_dir_all(&targets)
        .with_context(|| format!("cannot make {}", targets.display()))?;
    for (link, to) in [
        (toolkit.join("lib64"), "lib"),
        (targets.join("lib"), "../../lib"),
        (targets.join("include"), "../../include"),
    ] {
        if !link.exists() {
            std::os::unix::fs::symlink(to, &link)
                .with_context(|| format!("cannot make the link {}", link.display()))?;
        }
    }
    Ok(())
}

/// Sees to it that there are a disassembler and an nvcc that compiles: installs both where one is
/// missing.
pub(crate) fn get() -> Result<()> {
    if find_nvcc().is_none() || find_nvdisasm().is_none() {
        install(&ToolkitArgs::default())?;
    }
    let nvcc = find_nvcc().context("CUDA_HOME or NVCC names no nvcc; unset it, or correct it")?;
    let dir = target().join("ptx");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let source = dir.join("probe.cu");
    // What the kernels need most: the language, and an architecture of each end.
    std::fs::write(&source, "extern \"C\" __global__ void probe(const __grid_constant__ int) {}\n")
        .with_context(|| format!("cannot write {}", source.display()))?;
    for architecture in ["75", "120"] {
        let output = Command::new(&nvcc)
            .args(["-std=c++17", "--ptx", &format!("-arch=compute_{architecture}"), "-o"])
            .args([&dir.join("probe.ptx"), &source])
            .output()
            .with_context(|| format!("cannot start {}", nvcc.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{} cannot compile for {architecture} ({}); nvcc of CUDA 13 and a C++ compiler are \
             needed",
            nvcc.display(),
            said.lines().next().unwrap_or("it does not say why")
        );
    }
    Ok(())
}

/// Installs the toolkit from Python packages.
pub(crate) fn install(args: &ToolkitArgs) -> Result<()> {
    let packages = PACKAGES.join("\n") + "\n";
    let there = std::fs::read_to_string(toolkit_dir().join(INSTALLED)).ok();
    if nvcc().is_file() && there.as_deref() == Some(&packages) && !args.again {
        lay_out(&toolkit_dir())?;
        say(&format!("{} is there", nvcc().display()));
        return Ok(());
    }
    let dir = toolkit_dir();
    // A half-installed toolkit must not look like a whole one.
    let part = dir.with_extension("part");
    remove(&part)?;
    step(&format!("installing {} into {} (270 MB)", PACKAGES.join(" "), dir.display()));
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let status = Command::new(&python)
        .args(["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--quiet"])
        .args(["--root-user-action", "ignore", "--no-deps", "--target"])
        .arg(&part)
        .args(PACKAGES)
        .status()
        .with_context(|| {
            format!(
                "cannot start {}; install Python 3, or name it in PYTHON, or install the CUDA \
                 toolkit in another way and name it in CUDA_HOME",
                python.display()
            )
        })?;
    ensure!(
        status.success(),
        "pip could not install {} ({status}); it needs the pip of Python 3 and a way to a package \
         index. With a CUDA toolkit from elsewhere, name it in CUDA_HOME instead",
        PACKAGES.join(" ")
    );
    lay_out(&part)?;
    let installed = part.join(INSTALLED);
    std::fs::write(&installed, &packages)
        .with_context(|| format!("cannot write {}", installed.display()))?;
    // What was there stays until there is something in its place.
    remove(&dir)?;
    std::fs::rename(&part, &dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let output = Command::new(nvcc())
        .arg("--version")
        .output()
        .with_context(|| format!("cannot start {}", nvcc().display()))?;
    ensure!(output.status.success(), "{} --version failed", nvcc().display());
    let version = String::from_utf8_lossy(&output.stdout);
    say(version.lines().rev().find(|line| !line.is_empty()).unwrap_or_default());
    say("`cargo xtask cuda-build` builds the executors with it");
    Ok(())
}

fn remove(dir: &Path) -> Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    Ok(())
}
