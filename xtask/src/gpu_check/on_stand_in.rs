//! The whole of gpu-check on a machine without a GPU: what is gathered is run, by the script that
//! runs it elsewhere, on a stand-in for the driver that executes what nvcc has made of the kernels.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use test_support::cuda::stand_in_that_executes;

use super::gather::{SCRIPT, gather};
use crate::cargo::{binary, cargo, target};
use crate::out::{say, step};

/// Two minutes suffice on two cores that have nothing else to do.
const MOST_SECONDS: &str = "1200";

/// The steps that have to be right.
const STEPS: [&str; 7] = [
    "device",
    "pipes",
    "correctness",
    "sectors",
    "sector",
    "sector-8-in-flight",
    "sector-large-batches",
];
/// The step that is right where something was predicted, and left out where nothing was.
const COMPARED: &str = "predictions";
/// The steps that need a real driver: the published prover brings its own device code.
const LEFT_OUT: [&str; 4] = ["c2-params", "c2-cpu", "c2-gpu", "c2-gpu-warm"];

/// Gathers the files and runs the script on a stand-in that executes `ptx`. Every step must be right,
/// but those of C2, which are left out.
pub(crate) fn check_on_stand_in(ptx: &Path) -> Result<()> {
    let absolute = |path: &Path| -> Result<String> {
        let path =
            path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
        Ok(path.to_str().with_context(|| format!("{path:?} is no text"))?.to_owned())
    };
    let ptx = absolute(ptx)?;
    cargo(&["build", "--release", "--package", "ptx-run"], &[])?;
    let program = absolute(&binary("ptx-run"))?;
    // Tests compile a stand-in beside themselves, so this is not the directory that is copied.
    let dir = target().join("gpu-check-on-stand-in");
    gather(&dir, true)?;
    let driver = dir.join("driver");
    fs::create_dir_all(&driver).with_context(|| format!("cannot make {}", driver.display()))?;
    stand_in_that_executes(&ptx, &program, &driver)
        .context("no C++ compiler (c++, or the one in CXX) to build the stand-in for a driver")?;
    let results = dir.join("results");
    step(&format!("{SCRIPT} on a stand-in that executes {ptx}, without C2"));
    let status = Command::new(dir.join(SCRIPT))
        .args(["--limit", MOST_SECONDS])
        .arg(&results)
        .env("SEAL_TEST_CUDA", "ptx")
        .env("SEAL_TEST_PTX", &ptx)
        .env("SEAL_TEST_PTX_RUN", &program)
        .env("LD_LIBRARY_PATH", &driver)
        .env_remove("CUDA_VISIBLE_DEVICES")
        .env_remove("SEAL_TEST_SLOW")
        .status()
        .with_context(|| format!("cannot start {SCRIPT}"))?;
    ensure!(status.success(), "{SCRIPT} failed: {status}; its results are in {results:?}");
    let summary = results.join("summary.jsonl");
    let text = fs::read_to_string(&summary)
        .with_context(|| format!("cannot read {}", summary.display()))?;
    judge(&text)?;
    say("gpu-check was right on executed PTX; nothing of C2 was run");
    Ok(())
}

/// Whether a summary has every step as it has to be here.
fn judge(summary: &str) -> Result<()> {
    let mut lines = Vec::new();
    for line in summary.lines() {
        let line: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        lines.push((text("step"), text("result"), text("why")));
    }
    let expected = STEPS
        .iter()
        .map(|step| (*step, &["right"][..]))
        .chain([(COMPARED, &["right", "left out"][..])])
        .chain(LEFT_OUT.iter().map(|step| (*step, &["left out"][..])))
        .chain([("all", &["right"][..])]);
    for (step, results) in expected {
        let mut found = lines.iter().filter(|(name, ..)| name == step);
        let (_, result, why) =
            found.next().with_context(|| format!("{SCRIPT} says nothing of the step {step}"))?;
        ensure!(found.next().is_none(), "{SCRIPT} says two things of the step {step}");
        ensure!(results.contains(&&**result), "the step {step} is {result}: {why}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(results: &[(&str, &str)]) -> String {
        let steps = STEPS.map(|step| (step, "right"));
        let left_out = LEFT_OUT.map(|step| (step, "left out"));
        let all =
            steps.into_iter().chain(left_out).chain([(COMPARED, "left out"), ("all", "right")]);
        all.map(|(step, result)| {
            let other = results.iter().find(|(name, _)| *name == step);
            let result = other.map_or(result, |(_, result)| result);
            format!(
                "{{\"step\":\"{step}\",\"result\":\"{result}\",\"seconds\":1.5,\"why\":\"\"}}\n"
            )
        })
        .collect()
    }

    #[test]
    fn every_step_has_to_be_told_as_it_has_to_be() {
        judge(&summary(&[])).expect("right");
        judge(&summary(&[(COMPARED, "right")])).expect("right");
        for (step, result) in
            [("sectors", "left out"), ("sectors", "wrong"), ("c2-gpu", "right"), ("all", "wrong")]
        {
            let error = judge(&summary(&[(step, result)])).expect_err(step).to_string();
            assert!(error.contains(step), "{error}");
        }
        let without = summary(&[]).replace("\"pipes\"", "\"others\"");
        let error = judge(&without).expect_err("a step is missing").to_string();
        assert!(error.contains("pipes"), "{error}");
    }
}
