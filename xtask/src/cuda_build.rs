//! `cargo xtask cuda-build`: the executors with what they need to use a GPU.
//!
//! The kernels of PC2 are compiled by a build script of ours, which finds nvcc by itself and takes
//! its architectures from a setting. Those of C2 are compiled by the build scripts of published
//! crates: they take nvcc from `NVCC` or `PATH` and compile machine code for compute capability
//! 7.5, 8.0 and 12.0, and PTX. What is missing is added through `NVCC_APPEND_FLAGS`, which nvcc
//! reads itself, so that no driver spends minutes on compiling PTX at the first start.
//!
//! What was built is looked at: device code that is not optimised would work, many times slower and
//! with gigabytes of the device's memory for its stacks, and nothing else would tell.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::{binary, cargo};
use crate::cuda_toolkit::find_nvcc;
use crate::fatbin::{self, Image, Kind};
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
        check_device_code(executor)?;
        say(&format!("{} is built", binary(executor.name()).display()));
    }
    Ok(())
}

/// What the device code of `supraseal-c2` must be there for: those that sppark's build script names
/// for nvcc 13. Every device of compute capability 7.5 or newer takes one of them, as
/// `seal_cuda::groth16` tells users.
const PUBLISHED: [(Kind, u32); 5] = [
    (Kind::Machine, 75),
    (Kind::Machine, 80),
    (Kind::Ptx, 80),
    (Kind::Ptx, 100),
    (Kind::Machine, 120),
];

/// The most bytes that an image of the machine code of `supraseal-c2` has when it is optimised: the
/// largest has 1.13 million, and that of 8.0 4.0 million instead of 0.96 where ptxas was told not
/// to optimise.
const MOST_BYTES: u64 = 2_500_000;

/// Fails if the device code in a built executor is not optimised, or not all there.
fn check_device_code(executor: Executor) -> Result<()> {
    let path = binary(executor.name());
    let file = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let found = fatbin::images(&file).with_context(|| path.display().to_string())?;
    judge(executor, &found).with_context(|| format!("the device code in {}", path.display()))
}

fn judge(executor: Executor, found: &[Image]) -> Result<()> {
    ensure!(!found.is_empty(), "there is none");
    let list = |images: &mut dyn Iterator<Item = &Image>| {
        images.map(ToString::to_string).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    let debug = list(&mut found.iter().filter(|image| image.debug));
    ensure!(
        debug.is_empty(),
        "is not optimised (nvcc -G) in {}: the profile of the package that compiles it asks for \
         debug information, which the crate cc hands to nvcc as -G, or NVCC_APPEND_FLAGS or \
         NVCC_PREPEND_FLAGS does; set debug = false for sppark and supraseal-c2 in Cargo.toml, and \
         build again",
        debug.join(", ")
    );
    if executor == Executor::C2Exec {
        let machine = |image: &&Image| image.kind == Kind::Machine;
        let large =
            list(&mut found.iter().filter(machine).filter(|image| image.bytes > MOST_BYTES));
        ensure!(
            large.is_empty(),
            "is not optimised, by its length, in {}; look for optimisation options of ptxas or \
             nvcc in NVCC_APPEND_FLAGS and NVCC_PREPEND_FLAGS",
            large.join(", ")
        );
        let there = |wanted: &(Kind, u32)| {
            found.iter().any(|image| (image.kind, image.architecture) == *wanted)
        };
        if let Some((kind, architecture)) = PUBLISHED.iter().find(|wanted| !there(wanted)) {
            bail!(
                "has no {kind:?} of compute capability {architecture} (in tenths); nvcc of CUDA 13 \
                 makes it, others need not"
            );
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn published() -> Vec<Image> {
        let image =
            |(kind, architecture)| Image { kind, architecture, debug: false, bytes: 956_544 };
        PUBLISHED.into_iter().map(image).collect()
    }

    #[test]
    fn optimised_device_code_of_all_architectures_passes() {
        judge(Executor::C2Exec, &published()).expect("all there");
        judge(Executor::Pc2Exec, &published()[1..2]).expect("its architectures are chosen");
    }

    #[test]
    fn device_code_that_is_not_optimised_not_there_or_not_all_there_fails() {
        let told = |executor, change: fn(&mut Vec<Image>)| {
            let mut images = published();
            change(&mut images);
            judge(executor, &images).expect_err("something is wrong").to_string()
        };
        for executor in [Executor::C2Exec, Executor::Pc2Exec] {
            let text = told(executor, |images| images[1].debug = true);
            assert!(text.contains("-G") && text.contains("sm_80"), "{text}");
            assert!(told(executor, Vec::clear).contains("there is none"));
        }
        let text = told(Executor::C2Exec, |images| images[4].bytes = 4_004_160);
        assert!(text.contains("by its length") && text.contains("sm_120"), "{text}");
        // PTX is text, and longer.
        let mut images = published();
        images[2].bytes = 40_000_000;
        judge(Executor::C2Exec, &images).expect("the driver optimises it");
        let text = told(Executor::C2Exec, |images| images.truncate(4));
        assert!(text.contains("Machine") && text.contains("120"), "{text}");
    }
}
