//! Starting the built executors for a test: an environment with nothing of the user's in it, a
//! log that can be read, and, where wanted, a mount namespace of their own.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use seal_types::Stage;

use crate::client::{Processor, binary, binary_dir};

/// Within this time every executor is ready.
const READY: Duration = Duration::from_secs(30);

/// How often [`until`] looks.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// An executor, or another of our processes, about to be started.
#[derive(Debug)]
pub struct Launch {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    through: Vec<OsString>,
    log: PathBuf,
}

impl Launch {
    /// The executor of `stage`, which keeps parents caches, its log and what executors share in
    /// `dir`.
    pub fn executor(stage: Stage, dir: &Path) -> Result<Self> {
        let launch = Self::binary(stage.executor(), dir)?;
        let launch = launch.env("FIL_PROOFS_PARENT_CACHE", dir.join("parents"));
        Ok(launch.env("SEAL_RUNTIME_DIR", dir.join("run")))
    }

    /// The supervisor of `stage`, with `config` as its configuration and with `dir` for this
    /// file, its log and the directory that supervisors share.
    pub fn supervisor(stage: Stage, config: &str, dir: &Path) -> Result<Self> {
        let file = dir.join(format!("{stage}.toml"));
        fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
        let mut launch = Self::binary("seal-supervisor", dir)?
            .args(["processor", stage.name(), "--config"])
            .args([file])
            .args(["--runtime-dir"])
            .args([dir.join("run")])
            .env("FIL_PROOFS_PARENT_CACHE", dir.join("parents"));
        launch.log = dir.join(format!("seal-supervisor-{stage}.log"));
        Ok(launch)
    }

    /// The binary `name` of this build, which keeps its log in `dir`.
    pub fn binary(name: &str, dir: &Path) -> Result<Self> {
        Ok(Self {
            program: binary(name)?.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            through: Vec::new(),
            log: dir.join(format!("{name}.log")),
        })
    }

    /// Sets an environment variable; only these and `PATH` are there.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().into()));
        self
    }

    /// Runs another build of it, such as one of an earlier version.
    pub fn program(mut self, program: PathBuf) -> Self {
        self.program = program.into_os_string();
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().into()));
        self
    }

    /// Runs it in a mount namespace of its own, where the shell command `mounts` was run before.
    /// Ask [`can_mount`] first.
    pub fn mounts(self, mounts: &str) -> Self {
        let words = in_namespace(&format!("{mounts} && exec \"$@\""));
        self.through(words.chain(["sh".to_owned()]))
    }

    /// Runs it by another command, such as `unshare --pid --fork`, which takes the program and its
    /// arguments after its own.
    pub fn through<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.through.extend(words.into_iter().map(|word| word.as_ref().into()));
        self
    }

    /// The command. Standard error is appended to the log.
    pub fn command(&self) -> Result<Command> {
        let mut words = self.through.iter().chain([&self.program]);
        let mut command = Command::new(words.next().context("a program")?);
        command.args(words);
        command.args(&self.arguments).env_clear();
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot open {}", self.log.display()))?;
        command.envs(self.environment.iter().cloned()).stderr(Stdio::from(log));
        Ok(command)
    }

    /// Starts it and waits until it serves `stage`.
    pub fn serve(&self, stage: Stage) -> Result<(Processor, Log)> {
        let log = self.log();
        let processor = Processor::start(stage, &mut self.command()?, READY)
            .with_context(|| format!("its log: {}", log.text().unwrap_or_default()))?;
        Ok((processor, log))
    }

    /// What it writes to standard error.
    pub fn log(&self) -> Log {
        Log(self.log.clone())
    }
}

/// What a process wrote to standard error. A line of a task is there before its answer is.
#[derive(Debug, Clone)]
pub struct Log(PathBuf);

impl Log {
    /// All of it.
    pub fn text(&self) -> Result<String> {
        let bytes =
            fs::read(&self.0).with_context(|| format!("cannot read {}", self.0.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The lines with all of `words` in them.
    pub fn lines_with(&self, words: &[&str]) -> Result<Vec<String>> {
        let text = self.text()?;
        let lines = text.lines().filter(|line| words.iter().all(|word| line.contains(word)));
        Ok(lines.map(str::to_owned).collect())
    }

    /// Waits for a line with all of `words` in it.
    pub fn wait_for(&self, words: &[&str], patience: Duration) -> Result<()> {
        until(patience, || Ok(!self.lines_with(words)?.is_empty()))
            .with_context(|| format!("no line with {words:?} in the log:\n{}", self.0.display()))
    }
}

/// The directory of the Groth16 parameters for tests with 2 KiB sectors, which `cargo xtask test`
/// makes; if they are not there, why not.
pub fn test_params() -> std::result::Result<PathBuf, String> {
    let dir = binary_dir().map_err(|error| format!("{error:#}"))?.join("../test-params");
    if dir.join("seal-exec-test-params.json").exists()
        && let Ok(dir) = dir.canonicalize()
    {
        return Ok(dir);
    }
    Err(format!("no test parameters in {}; `cargo xtask test` makes them", dir.display()))
}

/// Waits until `holds` does.
pub fn until(patience: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !holds()? {
        if Instant::now() >= deadline {
            bail!("still waiting after {patience:?}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// Whether this host lets a test run the shell command `mounts` in a mount namespace of its own;
/// if not, why not.
pub fn can_mount(mounts: &str) -> std::result::Result<(), String> {
    can_run(in_namespace(mounts).chain(["sh".to_owned(), "true".to_owned()]))
        .map_err(|why| format!("no mount namespace can be set up here: {why}"))
}

/// Whether a command that [`Launch::through`] could take, with a program after it, succeeds here;
/// if not, why not.
pub fn can_run<S: AsRef<OsStr>>(
    words: impl IntoIterator<Item = S>,
) -> std::result::Result<(), String> {
    let words: Vec<OsString> = words.into_iter().map(|word| word.as_ref().into()).collect();
    let Some((program, arguments)) = words.split_first() else { return Ok(()) };
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")),
        Err(error) => Err(format!("{}: {error}", program.display())),
    }
}

fn in_namespace(script: &str) -> impl Iterator<Item = String> + use<> {
    let words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script];
    words.map(str::to_owned).into_iter()
}
