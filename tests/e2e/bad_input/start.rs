//! What the executors say before their first task.

use std::process::{Output, Stdio};

use anyhow::{Result, ensure};
use seal_types::Stage;
use tempfile::TempDir;
use test_support::launch::Launch;

#[test]
fn help_and_version_come_whatever_the_environment_says() -> Result<()> {
    for stage in Stage::ALL {
        for argument in ["--help", "--version"] {
            let (output, log) = run(stage, &[argument])?;
            let told = output.status.success() && !output.stdout.is_empty();
            ensure!(told, "{stage} {argument}: {output:?}\n{log}");
        }
        let (output, log) = run(stage, &[])?;
        ensure!(output.status.code() == Some(3), "{stage}: {output:?}\n{log}");
        ensure!(log.contains("SEAL_FORCE_ISA") && log.contains("mmx"), "{stage}: {log}");
    }
    Ok(())
}

/// What the executor of `stage` prints and logs where the environment is wrong and nothing is to be
/// read.
fn run(stage: Stage, arguments: &[&str]) -> Result<(Output, String)> {
    let dir = TempDir::new()?;
    let launch = Launch::executor(stage, dir.path())?.env("SEAL_FORCE_ISA", "mmx").args(arguments);
    let output = launch.command()?.stdin(Stdio::null()).output()?;
    Ok((output, launch.log().text()?))
}
