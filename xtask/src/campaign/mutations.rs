//! Mutated requests, configurations, descriptions of machines and side files: no panic, no hang, one
//! answer for each id, and errors that name what is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use seal_types::Stage;
use seal_wire::{ErrorCode, ready_line};
use serde_json::Value;

use super::Part;
use super::mutate;
use super::outcome::{Outcome, Verdict};
use super::program::{Line, Program, await_nothing_in};
use super::subject::{Binaries, Run, Start, Subject, end_of};
use super::trees;
use crate::cargo::root;

/// Lines for one start of a program.
const LINES: u64 = 50;

/// Files of one case.
const FILES: usize = 10;

/// Nothing here takes that long, whatever the machine is busy with.
const PATIENCE: Duration = Duration::from_secs(60);

/// An error quotes no more of a request than this.
const LONGEST_ERROR: usize = 16 << 10;

/// How long a line whose answer is not sure is waited for.
const UNSURE: Duration = Duration::from_millis(30);

pub(super) struct Mutations {
    binaries: Binaries,
    dir: PathBuf,
    pc1: Subject,
    pc2: Subject,
    supervised: Subject,
    /// Files that programs read, by the commands that do.
    texts: Vec<Text>,
}

/// A file that is read by a program.
struct Text {
    name: &'static str,
    good: String,
    program: &'static str,
    /// `FILE` stands for the mutated one.
    arguments: Vec<String>,
    /// Exit codes that are documented.
    codes: &'static [i32],
}

impl Mutations {
    pub(super) fn new(binaries: &Binaries, dir: &Path, case: &str) -> Result<Self> {
        let pc1 = Subject::pc1(binaries, case, &dir.join("pc1"))?;
        let pc2 = Subject::pc2(binaries, &pc1, &dir.join("pc2"))?;
        let supervised = Subject::supervised(binaries, &pc1, &dir.join("supervised-pc1"))?;
        let texts = texts(binaries)?;
        fs::create_dir(dir.join("texts"))?;
        let dir = dir.join("texts");
        Ok(Self { binaries: binaries.clone(), dir, pc1, pc2, supervised, texts })
    }
}

fn texts(binaries: &Binaries) -> Result<Vec<Text>> {
    let read = |name: &str| {
        let path = root().join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let machine = root().join("crates/seal-plan/machines/laptop.toml");
    let scheme = root().join("tests/schemes/scheme-b.toml");
    let (machine, scheme) = (machine.display().to_string(), scheme.display().to_string());
    let example = Command::new(binaries.path("seal-supervisor"))
        .args(["config", "--example"])
        .output()
        .context("cannot start seal-supervisor")?;
    let example = String::from_utf8(example.stdout)?;
    // As documented by each.
    let supervisor: &[i32] = &[0, 1, 2, 3, 4];
    let plan: &[i32] = &[0, 1, 3];
    Ok(vec![
        Text {
            name: "configuration",
            good: example.clone(),
            program: "seal-supervisor",
            arguments: words("config --check --config FILE"),
            codes: supervisor,
        },
        Text {
            name: "configuration",
            good: read("tests/schemes/scheme-a.toml")?,
            program: "seal-supervisor",
            arguments: words("processor pc1 --dry-run --config FILE"),
            codes: supervisor,
        },
        Text {
            name: "configuration",
            good: example,
            program: "seal-plan",
            arguments: words(&format!("check --config FILE --hardware {machine}")),
            codes: plan,
        },
        Text {
            name: "machine",
            good: read("crates/seal-plan/machines/laptop.toml")?,
            program: "seal-plan",
            arguments: words(&format!("check --config {scheme} --hardware FILE")),
            codes: plan,
        },
        Text {
            name: "machine",
            good: read("crates/seal-plan/machines/epyc7763x2.toml")?,
            program: "seal-plan",
            arguments: words(&format!("calc --config {scheme} --hardware FILE")),
            codes: plan,
        },
        Text {
            name: "times",
            good: read("tests/schemes/published.times.toml")?,
            program: "seal-plan",
            arguments: words(&format!("check --config {scheme} --hardware {machine} --times FILE")),
            codes: plan,
        },
    ])
}

impl Part for Mutations {
    fn case(&mut self, number: u64, rng: &mut ChaCha8Rng) -> Result<Vec<Outcome>> {
        match number % 8 {
            0 | 4 => lines(&self.pc1, rng),
            1 => lines(&self.pc2, rng),
            2 => lines(&self.supervised, rng),
            5 => side_file(&self.pc2, rng),
            6 => side_file(&self.pc1, rng),
            _ => self.files(rng),
        }
    }
}

/// A program gets many mutated lines, one after the other.
fn lines(subject: &Subject, rng: &mut ChaCha8Rng) -> Result<Vec<Outcome>> {
    subject.restore()?;
    let work = subject.work();
    nix::unistd::mkfifo(&work.join("fifo"), nix::sys::stat::Mode::S_IRWXU)?;
    symlink("nowhere", work.join("link"))?;
    // Relative, so that what becomes of them stays in this directory.
    let prefix = format!("{}/", work.display());
    let task = subject.task().to_string().replace(&prefix, "");
    let task: Value = serde_json::from_str(&task)?;
    let long = "x".repeat(5000);
    let paths = [
        "",
        ".",
        "sector",
        "fifo",
        "link",
        "missing/x",
        "sector/staged",
        "sector/sealed",
        "sector/cache",
        "sector/cache/sc-02-data-layer-1.dat",
        "sector/cache/p_aux",
        "x\u{0}y",
        &long,
    ]
    .map(str::to_owned);
    let mut program = Program::start(&mut subject.command(&Start::default()))?;
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    let mut wrong = None;
    // Lines whose answer is not sure and has not come yet: it may come any time.
    let mut open = BTreeSet::new();
    for id in 1..=LINES {
        let request = mutate::request(id, &task, &paths, rng);
        *kinds.entry(request.name).or_default() += 1;
        let mut bytes = request.line.clone();
        bytes.push(b'\n');
        if !program.send(&bytes) {
            wrong = Some(format!("it does not read any more before line {id}"));
            break;
        }
        if !request.has_id {
            open.insert(id);
        }
        if let Err(reason) = answered(&mut program, subject.stage, id, &request, &mut open) {
            let line = String::from_utf8_lossy(&request.line);
            let line: String = line.chars().take(300).collect();
            wrong = Some(format!("{}: {reason}; line {id}: {line}", request.name));
            break;
        }
    }
    program.close_input();
    let status = program.ended(PATIENCE)?;
    let log = program.log().to_owned();
    let wrong = wrong.map(|wrong| format!("{wrong}; its log ends: {}", end_of(&log)));
    let ended = match status {
        None => Err("does not end with its input".to_owned()),
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("ended with {status}: {}", end_of(&log))),
    };
    drop(program);
    let left = await_nothing_in(&work, PATIENCE);
    let left = if left.is_empty() { Ok(()) } else { Err("processes are left".to_owned()) };
    let mut verdict = Some(Verdict::of(wrong.map_or(Ok(()), Err).and(ended).and(left)));
    // The verdict is that of all lines together.
    let outcome = |(hit, tries): (&str, u64)| Outcome {
        kind: format!("lines to {}", subject.name),
        hit: hit.to_owned(),
        tries,
        verdict: verdict.take().unwrap_or(Verdict::Held),
    };
    Ok(kinds.into_iter().map(outcome).collect())
}

/// Waits for the one answer of `id`. Others must not come, but for one each of those in `open`.
fn answered(
    program: &mut Program,
    stage: Stage,
    id: u64,
    request: &mutate::Request,
    open: &mut BTreeSet<u64>,
) -> Result<(), String> {
    let deadline = Instant::now() + if request.has_id { PATIENCE } else { UNSURE };
    while Instant::now() < deadline {
        let line = match program.line(Duration::from_millis(5)) {
            Some(Line::Out(line)) => line,
            Some(Line::End) => return Err("it closes its output".to_owned()),
            Some(Line::Log(line)) if line.contains("panicked at") => {
                return Err(format!("it panics: {line}"));
            }
            _ => continue,
        };
        if line == ready_line(stage) {
            continue;
        }
        let Ok(answer) = serde_json::from_str::<Value>(&line) else {
            return Err(format!("it writes {line}"));
        };
        if !answer["event"].is_null() {
            continue;
        }
        let of_open = answer["id"].as_u64().is_some_and(|answered| open.remove(&answered));
        if answer["id"] != id {
            // What was not sure may be answered under the id that was read.
            if request.has_id && !of_open {
                return Err(format!("an answer to {}", answer["id"]));
            }
            continue;
        }
        return judge(&answer, request);
    }
    if request.has_id { Err("no answer".to_owned()) } else { Ok(()) }
}

fn judge(answer: &Value, request: &mutate::Request) -> Result<(), String> {
    let Some(error) = answer["err_msg"].as_str() else {
        return if answer["output"].is_null() {
            Err("an answer without error and output".to_owned())
        } else {
            Ok(())
        };
    };
    if !answer["output"].is_null() {
        return Err("an answer with error and output".to_owned());
    }
    if error.len() > LONGEST_ERROR {
        return Err(format!("an error of {} bytes", error.len()));
    }
    match ErrorCode::of_message(error) {
        None | Some(ErrorCode::Internal | ErrorCode::ExecutorDied) => {
            return Err(format!("it says {error}"));
        }
        Some(_) => {}
    }
    match &request.field {
        Some(field) if !error.contains(field.as_str()) => {
            Err(format!("{field} is not named: {error}"))
        }
        _ => Ok(()),
    }
}

/// One file of a sector, or of what is kept beside it, is changed before the task.
fn side_file(subject: &Subject, rng: &mut ChaCha8Rng) -> Result<Vec<Outcome>> {
    subject.restore()?;
    if subject.stage == Stage::Pc1 && rng.gen_bool(0.7) {
        // There is something of an earlier run, which is gone on with.
        let _ = subject.does_it()?;
    }
    let work = subject.work();
    let mut files = Vec::new();
    for dir in ["sector", "sector/cache", "parents"] {
        // What a sector has, and not what is made for the campaign.
        let entries = fs::read_dir(work.join(dir)).into_iter().flatten().flatten();
        files.extend(entries.map(|entry| entry.path()).filter(|path| path.is_file()));
    }
    files.sort();
    let file = files[rng.gen_range(0..files.len())].clone();
    let name = file.file_name().context("a file has a name")?.to_string_lossy().into_owned();
    let kept = work.join("kept");
    fs::copy(&file, &kept)?;
    let what = change(&file, &kept, rng)?;
    let run = subject.attempt(&Start::default(), PATIENCE, &mut |_, _| {})?;
    let left = await_nothing_in(&work, PATIENCE);
    let judged = judge_side_file(subject, &run, &file, &kept, &name)?;
    let left = if left.is_empty() { Ok(()) } else { Err("processes are left".to_owned()) };
    let verdict = judged.and(left).map_err(|wrong| format!("{name}, {what}: {wrong}"));
    let verdict = Verdict::of(verdict);
    let kind = format!("side files of {}", subject.name);
    Ok(vec![Outcome { kind, hit: what.to_owned(), tries: 1, verdict }])
}

/// Puts something else in the place of `file`.
fn change(file: &Path, kept: &Path, rng: &mut ChaCha8Rng) -> Result<&'static str> {
    Ok(match rng.gen_range(0..12) {
        0 => {
            fs::remove_file(file)?;
            "gone"
        }
        1 => {
            fs::remove_file(file)?;
            fs::create_dir(file)?;
            "a directory"
        }
        2 => {
            fs::remove_file(file)?;
            nix::unistd::mkfifo(file, nix::sys::stat::Mode::S_IRWXU)?;
            "a FIFO"
        }
        3 => {
            fs::remove_file(file)?;
            symlink("nowhere", file)?;
            "a link to nothing"
        }
        4 => {
            fs::remove_file(file)?;
            symlink(kept, file)?;
            "a link to what it was"
        }
        5 => {
            fs::write(file, "")?;
            "empty"
        }
        _ => {
            let modified = fs::metadata(file)?.modified()?;
            let (what, bytes) = mutate::bytes(&fs::read(file)?, rng);
            fs::write(file, bytes)?;
            if rng.gen_bool(0.3) {
                let times = fs::FileTimes::new().set_modified(modified);
                fs::File::options().write(true).open(file)?.set_times(times)?;
            }
            what
        }
    })
}

fn judge_side_file(
    subject: &Subject,
    run: &Run,
    file: &Path,
    kept: &Path,
    name: &str,
) -> Result<Result<(), String>> {
    let [answer] = run.answers.as_slice() else {
        let ended = run.status.map_or("it hangs".to_owned(), |status| status.to_string());
        return Ok(Err(format!("{} answers, {ended}: {}", run.answers.len(), end_of(&run.log))));
    };
    let Some(error) = answer["err_msg"].as_str() else {
        // A finished layer that has changed is kept for a look at it, beside the right one.
        if name.starts_with("sc-02-data-layer-") {
            let kept = file.with_file_name(".seal-exec-changed-layer.dat");
            fs::remove_file(kept).or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
        }
        // A link of the user's stays one, and what was written lies where it leads.
        let led = file.with_file_name("nowhere");
        if fs::symlink_metadata(file).is_ok_and(|meta| meta.is_symlink()) && led.exists() {
            fs::rename(led, file)?;
        }
        // An input that nobody needs may stay as it is; all that is made must be right.
        let result = subject.judge_hindered(run)?;
        let of_input = result.as_ref().is_err_and(|wrong| wrong.contains(name));
        if of_input && subject.is_input(file) {
            match fs::symlink_metadata(file) {
                Ok(there) if there.is_dir() => fs::remove_dir(file)?,
                Ok(_) => fs::remove_file(file)?,
                Err(_) => {}
            }
            fs::copy(kept, file)?;
            return Ok(subject.judge_hindered(run)?.map(|_| ()));
        }
        return Ok(result.map(|_| ()));
    };
    let code = ErrorCode::of_message(error);
    Ok(match code {
        None | Some(ErrorCode::Internal) => Err(format!("it says {error}")),
        Some(_) if error.len() > LONGEST_ERROR => Err("a long error".to_owned()),
        Some(_) if !names(error, name) => Err(format!("it is not named: {error}")),
        Some(_) => Ok(()),
    })
}

/// Whether an error tells of the file: by name, or as people call it.
fn names(error: &str, name: &str) -> bool {
    let words = ["layer", "tree-d", "tree D", "manifest", "parents", "comm_d", "p_aux", "data"];
    error.contains(name) || words.iter().any(|word| error.contains(word))
}

impl Mutations {
    /// Files that programs read and judge.
    fn files(&self, rng: &mut ChaCha8Rng) -> Result<Vec<Outcome>> {
        let text = &self.texts[rng.gen_range(0..self.texts.len())];
        let mut outcomes = Vec::new();
        for _ in 0..FILES {
            let file = self.dir.join("mutated.toml");
            let what = if rng.gen_bool(0.7) {
                let (what, mutated) = mutate::text(&text.good, rng);
                fs::write(&file, mutated)?;
                what
            } else {
                let (what, mutated) = mutate::bytes(text.good.as_bytes(), rng);
                fs::write(&file, mutated)?;
                what
            };
            let verdict = read_by(&self.binaries, text, &self.dir, &file)?;
            if verdict.is_err() {
                let work = self.dir.join("work");
                trees::remove(&work)?;
                fs::create_dir(&work)?;
                fs::copy(&file, work.join("mutated.toml"))?;
            }
            outcomes.push(Outcome {
                kind: format!("{} for {} {}", text.name, text.program, text.arguments[0]),
                hit: what.to_owned(),
                tries: 1,
                verdict: Verdict::of(verdict),
            });
        }
        Ok(outcomes)
    }
}

/// Lets the program read the mutated file.
fn read_by(
    binaries: &Binaries,
    text: &Text,
    dir: &Path,
    file: &Path,
) -> Result<Result<(), String>> {
    let mut command = Command::new(binaries.path(text.program));
    let path = file.to_str().context("paths are UTF-8")?;
    command
        .args(text.arguments.iter().map(|word| if word == "FILE" { path } else { word.as_str() }));
    command.env_clear().current_dir(dir).env("SEAL_RUNTIME_DIR", dir.join("run"));
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    let mut program = Program::start(&mut command)?;
    program.close_input();
    let mut said = String::new();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match program.line(Duration::from_millis(5)) {
            Some(Line::End) => break,
            Some(Line::Out(line) | Line::Log(line)) => said.extend([&*line, "\n"]),
            None => {}
        }
    }
    let Some(status) = program.ended(PATIENCE)? else { return Ok(Err("hangs".to_owned())) };
    // Its words may come after its end is seen.
    while let Some(line) = program.line(Duration::from_millis(20)) {
        match line {
            Line::Out(line) | Line::Log(line) => said.extend([&*line, "\n"]),
            Line::End => break,
        }
    }
    let known = status.code().is_some_and(|code| text.codes.contains(&code));
    Ok(if said.contains("panicked at") || !known {
        Err(format!("ends with {status}: {}", end_of(&said)))
    } else if !status.success() && said.trim().is_empty() {
        Err(format!("ends with {status} without a word"))
    } else {
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::super::script::{self, Script};
    use super::*;
    use rand::SeedableRng;
    use serde_json::json;

    fn failures(script: Script) -> Result<Vec<String>> {
        let dir = tempfile::tempdir()?;
        let subject = script::subject(&dir.path().canonicalize()?.join("pc1"), script)?;
        let outcomes = lines(&subject, &mut ChaCha8Rng::seed_from_u64(3))?;
        Ok(outcomes
            .into_iter()
            .filter_map(|outcome| match outcome.verdict {
                Verdict::Failed(reason) => Some(reason),
                _ => None,
            })
            .collect())
    }

    #[test]
    fn answers_that_are_doubled_and_panics_are_found() -> Result<()> {
        let doubled = failures(Script::Twice)?;
        assert!(doubled.iter().any(|reason| reason.contains("an answer to")), "{doubled:?}");
        let panics = failures(Script::Panics)?;
        assert!(panics.iter().any(|reason| reason.contains("closes its output")), "{panics:?}");
        Ok(())
    }

    #[test]
    fn answers_are_judged() {
        let request = |field: Option<&str>| mutate::Request {
            name: "x",
            line: Vec::new(),
            field: field.map(str::to_owned),
            has_id: true,
        };
        let error = |text: &str| json!({ "id": 1, "err_msg": text, "output": null });
        let good = error("[bad-request] no field ticket");
        assert_eq!(judge(&good, &request(Some("ticket"))), Ok(()));
        judge(&good, &request(Some("cache_path"))).unwrap_err();
        judge(&error("[internal] panic"), &request(None)).unwrap_err();
        judge(&error(&format!("[io] {}", "x".repeat(20_000))), &request(None)).unwrap_err();
        judge(&json!({ "id": 1, "err_msg": null, "output": null }), &request(None)).unwrap_err();
        assert_eq!(
            judge(&json!({ "id": 1, "err_msg": null, "output": 1 }), &request(None)),
            Ok(())
        );
    }

    #[test]
    fn a_program_that_panics_over_a_file_is_found() -> Result<()> {
        let dir = tempfile::tempdir()?;
        Script::Panics.install(dir.path(), "reader")?;
        fs::create_dir(dir.path().join("sector"))?;
        fs::write(dir.path().join("file"), "x")?;
        let text = |codes| Text {
            name: "x",
            good: String::new(),
            program: "reader",
            arguments: vec!["FILE".to_owned()],
            codes,
        };
        let binaries = Binaries { dir: dir.path().to_path_buf() };
        let judged = |codes| read_by(&binaries, &text(codes), dir.path(), &dir.path().join("file"));
        // It gets no line and so ends well.
        assert_eq!(judged(&[0])?, Ok(()));
        judged(&[1])?.unwrap_err();
        Ok(())
    }
}
