//! `cargo xtask cuda-build`: the executors with what they need to use a GPU.
//!
//! The kernels of PC2 are compiled by a build script of ours, which finds nvcc by itself and takes
//! its architectures from a setting. Those of C2 are compiled by the build scripts of published
//! crates: they take nvcc from `NVCC` or `PATH` and compile machine code for compute capability
//! 7.5, 8.0 and 12.0, and PTX. What is missing is added through `NVCC_APPEND_FLAGS`, which nvcc
//! reads itself, so that no driver spends minutes on compiling PTX at the first start.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cargo::{binary, cargo};
use crate::cuda_toolkit::find_nvcc;
use crate::out::say;

/// Options of `cuda-build`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this executor.
    #[arg(long, value_name = "NAME")]
    package: Option<Executor>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Executor {
    Pc2Exec,
    C2Exec,
}

impl Executor {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pc2Exec => "pc2-exec",
            Self::C2Exec => "c2-exec",
        }
    }
}

/// H100 and H200; B200. Packed: so many architectures make a binary of 34 MB, and of 48 otherwise;
/// every nvcc that knows compute capability 10.0 knows how.
const MORE_FLAGS: &str = "-gencode arch=compute_90,code=sm_90 \
                          -gencode arch=compute_100,code=sm_100 --compress-mode=size";

pub(crate) fn run(args: &Args) -> Result<()> {
    let executors = args.package.map_or(vec![Executor::Pc2Exec, Executor::C2Exec], |one| vec![one]);
    for executor in executors {
        build(executor)?;
        // Where there is no driver it must start all the same.
        let names = needed_libraries(executor.name())?;
        for library in ["libcuda.", "libcudart.", "libnvidia"] {
            ensure!(
                !names.contains(library),
                "{} needs {library} to start:\n{names}",
                executor.name()
            );
        }
        say(&format!("{} is built", binary(executor.name()).display()));
    }
    Ok(())
}

/// Builds both executors, and runs the tests of what they call.
pub(crate) fn check() -> Result<()> {
    run(&Args { package: None })?;
    let tests = ["test", "--release", "--package", "seal-cuda", "--features", "groth16", "--lib"];
    with_nvcc(&tests, Kernels::Published)
}

/// Builds one executor with the feature cuda.
pub(crate) fn build(executor: Executor) -> Result<()> {
    let kernels = match executor {
        Executor::Pc2Exec => Kernels::Own,
        Executor::C2Exec => Kernels::Published,
    };
    with_nvcc(&["build", "--release", "--package", executor.name(), "--features", "cuda"], kernels)
}

/// Whose build script calls nvcc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernels {
    Own,
    Published,
}

/// Runs cargo where build scripts find nvcc.
fn with_nvcc(arguments: &[&str], kernels: Kernels) -> Result<()> {
    let nvcc = find_nvcc().context(
        "no nvcc by CUDA_HOME, NVCC, PATH or in the target directory; `cargo xtask cuda-toolkit` \
         installs it",
    )?;
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let flags = set("NVCC_APPEND_FLAGS").unwrap_or_else(|| OsString::from(MORE_FLAGS));
    let mut environment = vec![("NVCC", nvcc.as_os_str())];
    if kernels == Kernels::Published {
        environment.push(("NVCC_APPEND_FLAGS", flags.as_os_str()));
    }
    cargo(arguments, &environment)
}

/// What the dynamic linker needs to start a binary, as `ldd` prints it.
fn needed_libraries(name: &str) -> Result<String> {
    let output = Command::new("ldd").arg(binary(name)).output().context("cannot start ldd")?;
    ensure!(output.status.success(), "ldd {} failed", binary(name).display());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
