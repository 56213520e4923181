//! Whether the executors that are to use a GPU were built for it: the binaries are asked.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use seal_options::Options;

use super::local::is_executable;
use super::{Checking, Local, Severity};
use crate::Executor;

/// A binary that takes longer to tell its version is not one of ours.
const PATIENCE: Duration = Duration::from_secs(5);

impl Checking<'_> {
    /// An executor of ours that is asked for a GPU and was built without support of any.
    pub(super) fn built_for_gpus(&mut self, local: &Local, executor: &Executor) {
        if !executor.ours || !executor.asks_for_gpu {
            return;
        }
        let Some(program) = self.program_of(local, executor) else { return };
        if built_with_cuda(&program) != Some(false) {
            return;
        }
        let is_optional = match self.options_here(local, executor) {
            Some(Options::Pc2(pc2)) => pc2.gpu_optional,
            Some(Options::C2(c2)) => c2.gpu_optional,
            _ => false,
        };
        let (severity, then) = match is_optional {
            true => (Severity::Warning, "it would work on the CPU"),
            false => (Severity::Error, "the executor's start would fail"),
        };
        self.find(
            ("gpu-not-built", severity),
            &format!("{}.envs", executor.key),
            format!("asks for a GPU, and {} was built without cuda: {then}", program.display()),
            format!(
                "build {} with --features cuda (docs/gpu.md), or leave the GPU out",
                executor.stage.served().map_or("it", |stage| stage.executor())
            ),
        );
    }

    /// The binary of an executor: the one that is named, or the one beside this program, where the
    /// supervisor is too.
    fn program_of(&self, local: &Local, executor: &Executor) -> Option<PathBuf> {
        let tables = self.config.executors.get(&executor.stage);
        let bin = tables.and_then(|tables| tables.get(executor.index)?.bin.clone());
        let name = executor.stage.served()?.executor();
        let found = match bin {
            Some(bin) if bin.components().count() > 1 => bin,
            Some(bin) => {
                let dirs = local.environment.get("PATH")?;
                std::env::split_paths(dirs)
                    .map(|dir| dir.join(&bin))
                    .find(|it| is_executable(it))?
            }
            None => std::env::current_exe().ok()?.parent()?.join(name),
        };
        is_executable(&found).then_some(found)
    }
}

/// Whether a binary says that it was built with cuda; `None` if it tells nothing of its features.
fn built_with_cuda(program: &Path) -> Option<bool> {
    let text = version(program)?;
    let features = text.lines().find_map(|line| line.strip_prefix("features: "))?;
    Some(features.split_ascii_whitespace().any(|feature| feature == "cuda"))
}

/// What a binary answers to `--version`.
fn version(program: &Path) -> Option<String> {
    const LOOK_EVERY: Duration = Duration::from_millis(5);
    let began = Instant::now();
    let mut child = Command::new(program)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    // It is short, so that it fits the pipe and the child ends before it is read.
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.success(),
            Ok(None) if began.elapsed() < PATIENCE => thread::sleep(LOOK_EVERY),
            Ok(None) | Err(_) => {
                // Nothing is left to be done if it cannot be ended.
                let _ = child.kill();
                let _ = child.wait();
                break false;
            }
        }
    };
    const LONGEST: u64 = 1 << 16;
    let mut text = Vec::new();
    child.stdout.take()?.take(LONGEST).read_to_end(&mut text).ok()?;
    ended.then(|| String::from_utf8_lossy(&text).into_owned())
}
