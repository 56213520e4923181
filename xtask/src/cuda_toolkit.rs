//! `cargo xtask cuda-toolkit` and `cargo xtask cuda-report`: the compiler of device code, and what
//! it says of the kernels.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::bench::write_result;
use crate::cargo::{root, target};
use crate::out::{say, step};

/// What is installed: compiler, runtime headers and the C++ library, of one version.
const PACKAGES: &str = "cuda-toolkit[nvcc,cudart,cccl]==13.0.*";

/// Options of `cuda-toolkit`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct ToolkitArgs {
    /// Install again, even if nvcc is there.
    #[arg(long)]
    again: bool,
}

/// Options of `cuda-report`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct ReportArgs {
    /// The architectures to compile for, such as 90 or 80,86; all usual ones if not given.
    #[arg(long, value_name = "LIST")]
    architectures: Option<String>,
    /// Keep the report as JSON in benches/runs.
    #[arg(long)]
    keep: bool,
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

/// Sees to it that there is an nvcc that compiles: installs one where there is none.
pub(crate) fn get() -> Result<()> {
    if find_nvcc().is_none() {
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
    if nvcc().is_file() && !args.again {
        lay_out(&toolkit_dir())?;
        say(&format!("{} is there", nvcc().display()));
        return Ok(());
    }
    let dir = toolkit_dir();
    // A half-installed toolkit must not look like a whole one.
    let part = dir.with_extension("part");
    remove(&part)?;
    step(&format!("installing {PACKAGES} into {} (270 MB)", dir.display()));
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let status = Command::new(&python)
        .args(["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--quiet"])
        .args(["--root-user-action", "ignore", "--target"])
        .arg(&part)
        .arg(PACKAGES)
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
        "pip could not install {PACKAGES} ({status}); it needs the pip of Python 3 and a way to a \
         package index. With a CUDA toolkit from elsewhere, name it in CUDA_HOME instead"
    );
    lay_out(&part)?;
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

/// What ptxas says of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kernel {
    name: String,
    architecture: String,
    registers: u32,
    shared: u32,
    stack: u32,
    spilled: u32,
}

impl Kernel {
    fn to_json(&self) -> Value {
        let Self { name, architecture, registers, shared, stack, spilled } = self;
        json!({
            "kernel": name, "architecture": architecture, "registers": registers,
            "shared_bytes": shared, "stack_bytes": stack, "spilled_bytes": spilled,
        })
    }
}

/// Compiles the kernels, prints registers, stack and spills of each, and fails where something is
/// spilled or lies on a stack.
pub(crate) fn report(args: &ReportArgs) -> Result<()> {
    let kernels = parse(&compile(args)?)?;
    ensure!(!kernels.is_empty(), "nvcc reported no kernel");
    say(&format!(
        "{:<26} {:>8} {:>9} {:>8} {:>7} {:>8}",
        "kernel", "for", "registers", "shared", "stack", "spilled"
    ));
    for kernel in &kernels {
        let Kernel { name, architecture, registers, shared, stack, spilled } = kernel;
        say(&format!(
            "{name:<26} {architecture:>8} {registers:>9} {shared:>8} {stack:>7} {spilled:>8}"
        ));
    }
    if args.keep {
        let kernels: Vec<_> = kernels.iter().map(Kernel::to_json).collect();
        write_result("cuda-report", json!({ "kernels": kernels }))?;
    }
    let bad: Vec<_> = kernels
        .iter()
        .filter(|kernel| kernel.stack + kernel.spilled > 0)
        .map(|kernel| format!("{} for {}", kernel.name, kernel.architecture))
        .collect();
    ensure!(bad.is_empty(), "registers do not suffice for {}", bad.join(", "));
    say(&format!("{} kernels, nothing spilled, nothing on a stack", kernels.len()));
    Ok(())
}

/// Builds seal-cuda with its kernels and reads what nvcc said.
fn compile(args: &ReportArgs) -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root()).args([
        "build",
        "--release",
        "--package",
        "seal-cuda",
        "--features",
        "cuda",
        "--message-format",
        "json-render-diagnostics",
    ]);
    if let Some(list) = &args.architectures {
        command.env("SEAL_CUDA_ARCHITECTURES", list);
    }
    let output = command.stderr(std::process::Stdio::inherit()).output().context("cargo")?;
    ensure!(output.status.success(), "seal-cuda cannot be built with its kernels");
    let messages = String::from_utf8(output.stdout).context("cargo's messages are UTF-8")?;
    let out_dir = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "build-script-executed")
        .filter(|message| message["package_id"].as_str().is_some_and(|id| id.contains("seal-cuda")))
        .find_map(|message| message["out_dir"].as_str().map(PathBuf::from))
        .context("cargo names no output directory of seal-cuda")?;
    let file = out_dir.join("ptxas.txt");
    std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
}

/// Reads the lines that ptxas prints with `-v`.
fn parse(text: &str) -> Result<Vec<Kernel>> {
    let mut kernels: Vec<Kernel> = Vec::new();
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let mut words = rest.split('\'');
            let (Some(name), Some(architecture)) = (words.next(), words.nth(1)) else {
                bail!("nvcc's report has an unknown form: {line}");
            };
            kernels.push(Kernel {
                name: name.to_owned(),
                architecture: architecture.to_owned(),
                registers: 0,
                shared: 0,
                stack: 0,
                spilled: 0,
            });
            continue;
        }
        let Some(kernel) = kernels.last_mut() else { continue };
        let before = |what: &str| -> Option<u32> {
            let (text, _) = line.split_once(what)?;
            text.split([' ', ',']).rfind(|word| !word.is_empty())?.parse().ok()
        };
        if let Some(stack) = before(" bytes stack frame") {
            let spilled = before(" bytes spill stores").zip(before(" bytes spill loads"));
            let (stores, loads) =
                spilled.with_context(|| format!("nvcc's report has an unknown form: {line}"))?;
            (kernel.stack, kernel.spilled) = (stack, stores + loads);
        } else if let Some(registers) = before(" registers") {
            kernel.registers = registers;
            kernel.shared = before(" bytes smem").unwrap_or(0);
        }
    }
    if let Some(kernel) = kernels.iter().find(|kernel| kernel.registers == 0) {
        bail!("nvcc's report says nothing of the registers of {}", kernel.name);
    }
    Ok(kernels)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
ptxas info    : 0 bytes gmem, 22412 bytes cmem[3]
ptxas info    : Compiling entry function 'seal_rows_8' for 'sm_90'
ptxas info    : Function properties for seal_rows_8
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 128 registers, used 0 barriers, 36864 bytes smem
ptxas info    : Compile time = 615.860 ms
ptxas info    : Compiling entry function 'seal_columns_11' for 'sm_90'
ptxas info    : Function properties for seal_columns_11
    104 bytes stack frame, 32 bytes spill stores, 36 bytes spill loads
ptxas info    : Used 167 registers, used 0 barriers, 104 bytes cumulative stack size, 49152 bytes smem
";

    #[test]
    fn registers_stack_and_spills_are_read() {
        let kernels = parse(REPORT).expect("a report");
        let numbers: Vec<_> = kernels
            .iter()
            .map(|k| (&*k.name, &*k.architecture, k.registers, k.shared, k.stack, k.spilled))
            .collect();
        assert_eq!(
            numbers,
            [
                ("seal_rows_8", "sm_90", 128, 36864, 0, 0),
                ("seal_columns_11", "sm_90", 167, 49152, 104, 68)
            ]
        );
    }

    #[test]
    fn a_report_is_kept_with_every_figure() {
        let kept: Vec<_> = parse(REPORT).expect("a report").iter().map(Kernel::to_json).collect();
        assert_eq!(
            kept[1],
            json!({
                "kernel": "seal_columns_11", "architecture": "sm_90", "registers": 167,
                "shared_bytes": 49152, "stack_bytes": 104, "spilled_bytes": 68,
            })
        );
    }

    #[test]
    fn a_report_of_another_form_is_an_error() {
        let cut = REPORT.replace("Used 128 registers", "Used some registers");
        assert!(parse(&cut).is_err());
        let cut = REPORT.replace("36 bytes spill loads", "");
        assert!(parse(&cut).is_err());
    }
}
