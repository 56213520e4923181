//! A task whose result is known, done under faults and done again.
//!
//! All of it happens in one directory, `work`: names are in results (`t_aux`), and so the
//! undisturbed run has the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use seal_types::Stage;
use seal_wire::{ErrorCode, ExitCode, ready_line};
use serde_json::{Value, json};
use test_support::sector::Sector;
use test_support::vector::Vector;

use super::phase::Phases;
use super::program::{Line, Program, await_nothing_in};
use super::trees;

/// No hang is told before this time, however short the undisturbed run was: the machine may be busy
/// with something else.
const LEAST_PATIENCE: Duration = Duration::from_secs(30);

/// A run without an end in so many times the undisturbed one hangs.
const HANGS: u32 = 10;

/// How often somebody may meddle with a run.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The number of the request in each run.
const ID: u64 = 1;

/// The names below the directory of a subject.
const WORK: &str = "work";
const SECTOR: &str = "work/sector";
const BEFORE: &str = "before";

/// The binaries under test; tests put others in their place.
#[derive(Clone, Debug)]
pub(super) struct Binaries {
    pub(super) dir: PathBuf,
}

impl Binaries {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// A task with what it needs, and what comes of it.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) stage: Stage,
    pub(super) dir: PathBuf,
    /// Where the states before and after it are kept.
    kept: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    task: Value,
    /// Of the undisturbed run.
    pub(super) phases: Phases,
    output: Value,
    pub(super) undisturbed: Duration,
}

/// How a program is started.
#[derive(Clone, Debug, Default)]
pub(super) struct Start {
    /// Run by a shell before the program takes its place: limits.
    pub(super) shell: Option<String>,
    /// A program that starts it, with its arguments: namespaces.
    pub(super) through: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
}

/// What a run has come to.
#[derive(Debug)]
pub(super) struct Run {
    /// Answers to the request; right is one.
    pub(super) answers: Vec<Value>,
    pub(super) ready: bool,
    /// Nothing where it hung.
    pub(super) status: Option<ExitStatus>,
    pub(super) log: String,
    /// What was being done when somebody last meddled.
    pub(super) phase: String,
}

/// Meddles with a run: is told of its phases so far.
pub(super) type Meddle<'a> = &'a mut dyn FnMut(&mut Program, &Phases);

impl Subject {
    /// PC1 of the vector `case`, in `dir`.
    pub(super) fn pc1(binaries: &Binaries, case: &str, dir: &Path) -> Result<Self> {
        let before = dir.join(BEFORE);
        fs::create_dir_all(before.join("parents"))?;
        let vector = Vector::named(case)?;
        // Staged where the work will be, because its paths are in the task.
        let sector = Sector::stage(&vector, &dir.join(SECTOR))?;
        trees::copy(&dir.join(SECTOR), &before.join("sector"))?;
        let task = sector.pc1_task()?;
        let program = binaries.path("pc1-exec");
        let mut subject = Self::new("pc1", Stage::Pc1, dir, program, task);
        // The first run makes the parents cache.
        subject.restore()?;
        subject.undisturbed_run()?;
        trees::copy(&dir.join(WORK).join("parents"), &before.join("parents"))?;
        subject.restore()?;
        subject.learn()?;
        Ok(subject)
    }

    /// PC2 after `pc1`.
    pub(super) fn pc2(binaries: &Binaries, pc1: &Self, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        trees::share(&pc1.after(), &dir.join(BEFORE).join("sector"))?;
        let sector = dir.join(SECTOR);
        let task = pc2_task(&moved(&pc1.output, &pc1.dir.join(SECTOR), &sector), &sector);
        let mut subject = Self::new("pc2", Stage::Pc2, dir, binaries.path("pc2-exec"), task);
        subject.restore()?;
        subject.learn()?;
        Ok(subject)
    }

    /// The same task by a supervisor.
    pub(super) fn supervised(binaries: &Binaries, executor: &Self, dir: &Path) -> Result<Self> {
        let stage = executor.stage;
        let task = moved(&executor.task, &executor.dir.join(SECTOR), &dir.join(SECTOR));
        trees::share(&executor.dir.join(BEFORE), &dir.join(BEFORE))?;
        let name = format!("supervised {stage}");
        let mut subject = Self::by_supervisor(binaries, &name, stage, dir, dir, task)?;
        subject.restore()?;
        subject.learn()?;
        Ok(subject)
    }

    /// PC1 and then PC2 of one sector in one directory, each by a supervisor with the same
    /// configuration and runtime directory. The second goes on with what the first has left.
    pub(super) fn chain(binaries: &Binaries, pc1: &Self, dir: &Path) -> Result<[Self; 2]> {
        let task = moved(&pc1.task, &pc1.dir.join(SECTOR), &dir.join(SECTOR));
        trees::share(&pc1.dir.join(BEFORE), &dir.join(BEFORE))?;
        let name = |stage: Stage| format!("supervised chain, {stage}");
        let name_of_first = name(Stage::Pc1);
        let mut first = Self::by_supervisor(binaries, &name_of_first, Stage::Pc1, dir, dir, task)?;
        first.restore()?;
        first.learn()?;
        let kept = dir.join("second");
        trees::share(&first.after(), &kept.join(BEFORE).join("sector"))?;
        let task = pc2_task(&first.output, &dir.join(SECTOR));
        let name_of_second = name(Stage::Pc2);
        let mut second =
            Self::by_supervisor(binaries, &name_of_second, Stage::Pc2, dir, &kept, task)?;
        second.restore()?;
        second.learn()?;
        Ok([first, second])
    }

    /// `task` by a supervisor of the executors in `binaries`.
    fn by_supervisor(
        binaries: &Binaries,
        name: &str,
        stage: Stage,
        dir: &Path,
        kept: &Path,
        task: Value,
    ) -> Result<Self> {
        // An executor that cannot be started is found out soon.
        let mut config = "[supervisor]\ncgroup = 'never'\nrestart_wait = '100ms'\n\
                          restart_wait_max = '500ms'\n"
            .to_owned();
        for stage in [Stage::Pc1, Stage::Pc2] {
            let bin = binaries.path(&format!("{stage}-exec"));
            let bin = bin.to_str().context("paths are UTF-8")?;
            config.push_str(&format!("[[processors.{stage}]]\nbin = '{bin}'\n"));
        }
        fs::write(kept.join(BEFORE).join("config.toml"), config)?;
        let mut subject = Self::new(name, stage, dir, binaries.path("seal-supervisor"), task);
        kept.clone_into(&mut subject.kept);
        let config = dir.join(WORK).join("config.toml");
        let config = config.to_str().context("paths are UTF-8")?;
        subject.arguments =
            ["processor", stage.name(), "--config", config].map(str::to_owned).to_vec();
        Ok(subject)
    }

    fn new(name: &str, stage: Stage, dir: &Path, program: PathBuf, task: Value) -> Self {
        let work = dir.join(WORK);
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        Self {
            name: name.to_owned(),
            stage,
            dir: dir.to_path_buf(),
            kept: dir.to_path_buf(),
            program,
            arguments: Vec::new(),
            environment: vec![
                ("FIL_PROOFS_PARENT_CACHE".to_owned(), text(work.join("parents"))),
                ("SEAL_RUNTIME_DIR".to_owned(), text(work.join("run"))),
                ("SEAL_EXEC_EVENTS".to_owned(), "1".to_owned()),
                ("RUST_LOG".to_owned(), "info".to_owned()),
            ],
            task,
            phases: Phases::default(),
            output: Value::Null,
            undisturbed: Duration::ZERO,
        }
    }

    /// Where it is done.
    pub(super) fn work(&self) -> PathBuf {
        self.dir.join(WORK)
    }

    pub(super) fn sector(&self) -> PathBuf {
        self.dir.join(SECTOR)
    }

    pub(super) fn task(&self) -> &Value {
        &self.task
    }

    /// Whether `file` in the work directory was there before the task.
    pub(super) fn is_input(&self, file: &Path) -> bool {
        let name = file.strip_prefix(self.work());
        name.is_ok_and(|name| self.kept.join(BEFORE).join(name).exists())
    }

    fn before(&self) -> PathBuf {
        self.kept.join(BEFORE).join("sector")
    }

    fn after(&self) -> PathBuf {
        self.kept.join("after")
    }

    /// Everything as it was before the task.
    pub(super) fn restore(&self) -> Result<()> {
        trees::remove(&self.work())?;
        trees::copy(&self.kept.join(BEFORE), &self.work())
    }

    /// Without the parents cache.
    pub(super) fn remove_parents(&self) -> Result<()> {
        trees::remove(&self.work().join("parents"))?;
        Ok(fs::create_dir(self.work().join("parents"))?)
    }

    fn undisturbed_run(&self) -> Result<(Value, Phases, Duration)> {
        let began = Instant::now();
        let mut seen = Phases::default();
        let run = self.attempt(&Start::default(), LEAST_PATIENCE * HANGS, &mut |_, phases| {
            seen = phases.clone();
        })?;
        match run.answers.as_slice() {
            [answer] if answer["err_msg"].is_null() => {
                Ok((answer["output"].clone(), seen, began.elapsed()))
            }
            _ => bail!("{} fails undisturbed: {:?}\n{}", self.name, run.answers, run.log),
        }
    }

    /// Learns from an undisturbed run what comes of it.
    fn learn(&mut self) -> Result<()> {
        (self.output, self.phases, self.undisturbed) = self.undisturbed_run()?;
        let left = await_nothing_in(&self.work(), LEAST_PATIENCE);
        anyhow::ensure!(left.is_empty(), "{} leaves processes behind", self.name);
        trees::remove(&self.after())?;
        trees::copy(&self.sector(), &self.after())
    }

    pub(super) fn patience(&self) -> Duration {
        (self.undisturbed * HANGS).max(LEAST_PATIENCE)
    }

    /// The command, which works in the directory, so that what it leaves behind is found.
    pub(super) fn command(&self, start: &Start) -> Command {
        let mut words: Vec<String> = start.through.clone();
        if let Some(script) = &start.shell {
            words.extend(["sh", "-c", &format!("{script}; exec \"$@\""), "sh"].map(str::to_owned));
        }
        words.push(self.program.to_string_lossy().into_owned());
        words.extend(self.arguments.iter().cloned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().current_dir(self.work());
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        // A supervisor that cannot start says so soon, not when a person would have mended it.
        command.env("SEAL_FAULT_WAIT", "2s");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.envs(start.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Does the task once, from what there is, and lets `meddle` do what it likes meanwhile.
    pub(super) fn attempt(
        &self,
        start: &Start,
        patience: Duration,
        meddle: Meddle<'_>,
    ) -> Result<Run> {
        let mut phases = Phases::default();
        let mut program = Program::start(&mut self.command(start))?;
        program.send(&seal_wire::to_line(&json!({ "id": ID, "task": self.task })));
        let mut run = Run {
            answers: Vec::new(),
            ready: false,
            status: None,
            log: String::new(),
            phase: String::new(),
        };
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            match program.line(LOOK_EVERY) {
                Some(Line::End) => break,
                Some(Line::Log(line)) => phases.note_log(&line),
                Some(Line::Out(line)) if line == ready_line(self.stage) => run.ready = true,
                Some(Line::Out(line)) => {
                    if let Some(answer) = phases.note_out(&line) {
                        run.answers.push(answer);
                        program.close_input();
                    }
                }
                None => {}
            }
            meddle(&mut program, &phases);
        }
        run.phase = phases.now().to_owned();
        run.status = program.ended(deadline.saturating_duration_since(Instant::now()))?;
        program.log().clone_into(&mut run.log);
        Ok(run)
    }

    /// The same without anybody who meddles, from what there is: must succeed, and everything be as
    /// after an undisturbed run.
    pub(super) fn does_it(&self) -> Result<Result<(), String>> {
        let run = self.attempt(&Start::default(), self.patience(), &mut |_, _| {})?;
        self.is_right(&run)
    }

    fn is_right(&self, run: &Run) -> Result<Result<(), String>> {
        let answer = match one_answer(run) {
            Ok(answer) => answer,
            Err(wrong) => return Ok(Err(wrong)),
        };
        if let Some(error) = answer["err_msg"].as_str() {
            return Ok(Err(format!("it fails undisturbed: {error}")));
        }
        Ok(self.is_finished(answer)?.and_then(|()| ended_well(run)))
    }

    /// A success has the known output, and all files the known bytes.
    fn is_finished(&self, answer: &Value) -> Result<Result<(), String>> {
        if answer["output"] != self.output {
            return Ok(Err(format!("success with another output: {}", answer["output"])));
        }
        let difference = trees::difference(&self.after(), &self.sector())?;
        Ok(difference.map_or(Ok(()), |what| Err(format!("success, and {what}"))))
    }

    /// What has a final name is as before or as after.
    pub(super) fn is_whole(&self) -> Result<Result<(), String>> {
        let found = trees::unfinished(&self.before(), &self.after(), &self.sector())?;
        Ok(found.map_or(Ok(()), Err))
    }

    /// Judges a run in surroundings that may have failed it: it succeeds and everything is right, or
    /// it fails with an error that blames no request and no sector, before the start or after it.
    /// Returns what it was.
    pub(super) fn judge_hindered(&self, run: &Run) -> Result<Result<String, String>> {
        let Some(status) = run.status else {
            return Ok(Err(hung(run)));
        };
        if !run.ready && run.answers.is_empty() {
            let expected = [ExitCode::Failed, ExitCode::Config, ExitCode::Start];
            let code = status.code();
            let documented = expected.iter().any(|known| code == Some(*known as i32));
            return Ok(match (documented, run.log.trim().is_empty()) {
                (true, false) => Ok("start refused".to_owned()),
                (true, true) => Err(format!("ended with {status} without a word")),
                (false, _) => Err(format!("died at the start: {status}: {}", end_of(&run.log))),
            });
        }
        let answer = match one_answer(run) {
            Ok(answer) => answer,
            Err(wrong) => return Ok(Err(wrong)),
        };
        let Some(error) = answer["err_msg"].as_str() else {
            return Ok(self.is_finished(answer)?.map(|()| "succeeded".to_owned()));
        };
        Ok(match ErrorCode::of_message(error) {
            Some(ErrorCode::BadInput | ErrorCode::BadRequest | ErrorCode::Internal) | None => {
                Err(format!("the surroundings failed, and it says {error}"))
            }
            Some(code) => self.is_whole()?.map(|()| code.name().to_owned()),
        })
    }
}

/// PC2 of the sector in `sector`, after the PC1 with this output.
fn pc2_task(pc1_output: &Value, sector: &Path) -> Value {
    json!({ "pc1out": pc1_output, "cache_dir": sector.join("cache"),
        "sealed_file": sector.join("sealed") })
}

/// `value` with paths below `from` as paths below `to`.
fn moved(value: &Value, from: &Path, to: &Path) -> Value {
    let (from, to) = (from.to_string_lossy(), to.to_string_lossy());
    let text = value.to_string().replace(&*from, &to);
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

fn hung(run: &Run) -> String {
    format!("hangs in {:?}; its log ends: {}", run.phase, end_of(&run.log))
}

/// The one answer of a run that must have one.
fn one_answer(run: &Run) -> Result<&Value, String> {
    match run.answers.as_slice() {
        [answer] if answer["id"] == ID => Ok(answer),
        [] if run.status.is_none() => Err(hung(run)),
        [] => {
            let status = run.status.map(|status| status.to_string()).unwrap_or_default();
            Err(format!("no answer; {status}; its log ends: {}", end_of(&run.log)))
        }
        [answer] => Err(format!("an answer to nothing: {answer}")),
        more => Err(format!("{} answers", more.len())),
    }
}

fn ended_well(run: &Run) -> Result<(), String> {
    match run.status {
        None => Err(hung(run)),
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("answered and ended with {status}: {}", end_of(&run.log))),
    }
}

/// The last lines of a log.
pub(super) fn end_of(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(3)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::super::script::{self, Script};
    use super::*;

    #[test]
    fn a_hang_is_found() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let subject = script::subject(&dir.path().canonicalize()?.join("pc1"), Script::Silent)?;
        let patience = Duration::from_millis(300);
        let run = subject.attempt(&Start::default(), patience, &mut |_, _| {})?;
        let wrong = subject.judge_hindered(&run)?.unwrap_err();
        assert!(wrong.contains("hangs"), "{wrong}");
        Ok(())
    }
}
