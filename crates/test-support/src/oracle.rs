//! Asking the oracle: the published crates, in a process of their own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::launch::Launch;

/// The oracle with the directories it works in.
#[derive(Debug)]
pub struct Oracle {
    dir: PathBuf,
    params: PathBuf,
}

impl Oracle {
    /// An oracle that keeps parents caches and its log in `dir` and has its Groth16 parameters in
    /// `params`.
    pub fn new(dir: &Path, params: &Path) -> Self {
        Self { dir: dir.to_path_buf(), params: params.to_path_buf() }
    }

    /// The result of a step (`pc1`, `c1`, `verify` …) for `task`.
    pub fn ask(&self, step: &str, task: &Value) -> Result<Value> {
        let text = self.ask_text(step, task)?;
        serde_json::from_str(&text).with_context(|| format!("result of {step}: {text}"))
    }

    /// The result of a step as it was written, without its line end.
    pub fn ask_text(&self, step: &str, task: &Value) -> Result<String> {
        let output = self.output(step, task)?;
        if !output.status.success() {
            let log = self.launch(step)?.log().text()?;
            bail!("oracle {step} ended with {}; its log:\n{log}", output.status);
        }
        // What the crates print goes before the result.
        let text = String::from_utf8(output.stdout).context("the oracle writes JSON")?;
        let line = text.lines().last().with_context(|| format!("no result of {step}"))?;
        Ok(line.to_owned())
    }

    /// Why a step fails for `task`.
    pub fn ask_failing(&self, step: &str, task: &Value) -> Result<String> {
        let output = self.output(step, task)?;
        if output.status.success() {
            bail!("oracle {step} succeeded: {}", String::from_utf8_lossy(&output.stdout));
        }
        let log = self.launch(step)?.log().text()?;
        Ok(log.lines().last().unwrap_or_default().to_owned())
    }

    fn launch(&self, step: &str) -> Result<Launch> {
        Ok(Launch::binary("oracle", &self.dir)?
            .args([step])
            .env("FIL_PROOFS_PARENT_CACHE", self.dir.join("oracle-parents"))
            .env("FIL_PROOFS_PARAMETER_CACHE", &self.params))
    }

    fn output(&self, step: &str, task: &Value) -> Result<Output> {
        let mut command = self.launch(step)?.command()?;
        // The crates look for a settings file where they run.
        command.current_dir(&self.dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the oracle")?;
        let mut stdin = child.stdin.take().context("a child has a standard input")?;
        // One that ends without reading says why in its log.
        let _ = stdin.write_all(task.to_string().as_bytes());
        drop(stdin);
        Ok(child.wait_with_output()?)
    }
}
