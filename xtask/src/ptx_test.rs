//! `cargo xtask ptx-test`: the tests of devices, on what nvcc makes of the kernels, executed.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cargo::{binary, cargo, root, target};
use crate::cuda_report;
use crate::cuda_toolkit::find_nvcc;
use crate::out::{say, step};
use crate::test::{SKIP_LOG, skip_log};

/// The oldest and the newest architecture that there are kernels for.
pub(crate) const ENDS: [u32; 2] = [75, 120];

/// Options of `ptx-test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The architectures whose PTX is executed.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values_t = ENDS)]
    pub(crate) architectures: Vec<u32>,
    /// What the orders of threads and blocks are drawn from.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Also a sector of 512 MiB, which takes an hour.
    #[arg(long)]
    pub(crate) slow: bool,
    /// Where to tell what was executed, a file for every process.
    #[arg(long, value_name = "DIR")]
    pub(crate) counts: Option<PathBuf>,
}

impl Default for Args {
    fn default() -> Self {
        Self { architectures: ENDS.to_vec(), seed: 1, slow: false, counts: None }
    }
}

/// Builds the kernels and runs the tests on their PTX.
pub(crate) fn run(args: &Args) -> Result<()> {
    cargo(&["build", "--release", "--workspace", "--all-targets"], &[])?;
    cargo(&["build", "--release", "--package", "pc2-exec", "--features", "cuda"], &[])?;
    std::fs::write(skip_log(), "").with_context(|| format!("{}", skip_log().display()))?;
    run_built(args)?;
    let skipped = std::fs::read_to_string(skip_log())?;
    skipped.lines().for_each(|line| say(&format!("skipped: {line}")));
    Ok(())
}

/// The same, where everything is built: `pc2-exec` with the feature cuda.
pub(crate) fn run_built(args: &Args) -> Result<()> {
    // Building the tests of pc2-exec puts one without kernels in its place.
    let executor = target().join("ptx/pc2-exec");
    std::fs::create_dir_all(target().join("ptx")).context("cannot make a directory for PTX")?;
    std::fs::copy(binary("pc2-exec"), &executor)
        .with_context(|| format!("cannot copy pc2-exec to {}", executor.display()))?;
    for (architecture, ptx) in of_build(&args.architectures)? {
        step(&format!("devices whose kernels are the PTX of compute_{architecture}, executed"));
        let number = |value: u64| OsString::from(value.to_string());
        let (seed, yes) = (number(args.seed), OsString::from("1"));
        let mut environment: Vec<(&str, &OsStr)> = vec![
            ("SEAL_TEST_CUDA", OsStr::new("ptx")),
            ("SEAL_TEST_PTX", ptx.as_os_str()),
            ("SEAL_TEST_PTX_SEED", &seed),
            ("SEAL_TEST_PC2_EXEC", executor.as_os_str()),
        ];
        let counts = args.counts.as_ref().map(std::path::absolute).transpose()?;
        let log = std::env::var_os(SKIP_LOG).unwrap_or_else(|| skip_log().into());
        environment.push((SKIP_LOG, &log));
        environment.extend(counts.iter().map(|dir| ("SEAL_TEST_PTX_COUNTS", dir.as_os_str())));
        if args.slow {
            environment.push(("SEAL_TEST_SLOW", &yes));
        }
        // The whole workspace, as it was built: fewer packages would be other features.
        let nvcc = find_nvcc().context("it was there a moment ago")?;
        environment.push(("SEAL_TEST_NVCC", nvcc.as_os_str()));
        let test = |name: &'static str| ["test", "--release", "--workspace", "--test", name];
        cargo(&test("device"), &environment)?;
        cargo(&test("controls"), &environment)?;
        cargo(&test("executed"), &environment)?;
        let whole = ["gpu::", "wrong_device::"];
        for part in whole {
            ensure!(tests_of("trees", part)? > 0, "there are no tests of sectors in {part}");
        }
        cargo(&[&test("trees")[..], &["--"], &whole].concat(), &environment)?;
    }
    Ok(())
}

/// Tests of this name in a target that is built.
fn tests_of(target: &str, name: &str) -> Result<usize> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root())
        .args(["test", "--release", "--workspace", "--test", target, "--", "--list", name])
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "the tests of {target} cannot be listed");
    let listed = String::from_utf8_lossy(&output.stdout);
    Ok(listed.lines().filter(|line| line.ends_with(": test")).count())
}

/// The PTX that the build of the kernels has left for each architecture, all of which can be
/// executed.
pub(crate) fn of_build(architectures: &[u32]) -> Result<Vec<(u32, PathBuf)>> {
    let out = cuda_report::build(None)?;
    let ptx = |architecture: &u32| {
        let file = out.join(format!("compute_{architecture}.ptx"));
        ensure!(
            file.is_file(),
            "the build has no PTX of compute_{architecture}; SEAL_CUDA_ARCHITECTURES names what \
             is built"
        );
        can_be_executed(&file)?;
        Ok((*architecture, file))
    };
    architectures.iter().map(ptx).collect()
}

/// Compiles `kernels` to `ptx`.
pub(crate) fn compile(architecture: u32, kernels: &Path, ptx: &Path) -> Result<PathBuf> {
    let nvcc = find_nvcc().context(
        "PTX is made by nvcc, and none was found; `cargo xtask cuda-toolkit` installs it",
    )?;
    let dir = ptx.parent().context("a file lies in a directory")?;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let output = Command::new(&nvcc)
        .args(["-std=c++17", "-O3", "--ptx"])
        .arg(format!("-arch=compute_{architecture}"))
        .arg("-o")
        .args([ptx, kernels])
        .output()
        .with_context(|| format!("cannot start {}", nvcc.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "nvcc cannot compile for {architecture}:\n{said}");
    can_be_executed(ptx)?;
    Ok(ptx.to_path_buf())
}

fn can_be_executed(ptx: &Path) -> Result<()> {
    let checked = Command::new(binary("ptx-run"))
        .arg("check")
        .arg(ptx)
        .output()
        .context("cannot start ptx-run")?;
    let said = String::from_utf8_lossy(&checked.stderr);
    ensure!(checked.status.success(), "what nvcc has made cannot be executed: {said}");
    Ok(())
}
