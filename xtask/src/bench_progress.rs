//! `cargo xtask bench-progress`: how right the time left is that tasks tell a supervisor, from a tenth
//! of their work on. Each task is done twice by one executor, because the second is told what the first
//! has shown.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use seal_types::{SectorSize, Stage};
use serde_json::{Value, json};
use test_support::client::Processor;
use test_support::sector::Sector;
use test_support::trace::error_of;
use test_support::vector::Vector;

use crate::bench::{ensure_parents, parents, write_result};
use crate::cargo::{binary, build_binaries, ensure_test_params, root, target, test_params_dir};
use crate::out::{say, step};

/// No task of these sizes takes longer on a machine that is worth measuring.
const PATIENCE: Duration = Duration::from_secs(1800);

/// From this share of the work on a time is judged.
const FROM: f64 = 0.1;

/// How wrong the time left may be.
const ALLOWED: f64 = 0.1;

/// Options of `bench-progress`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The vector that PC1 and PC2 do.
    #[arg(long, value_name = "NAME", default_value = "512MiB-v1_1-a")]
    vector: String,
    /// Let PC1 make its parents cache first.
    #[arg(long)]
    new_parents: bool,
    /// Without C2, which is that of a captured task of 2 KiB.
    #[arg(long)]
    without_c2: bool,
    /// Also write what was told, step by step, into this directory: the unit tests of executors replay
    /// such traces.
    #[arg(long, value_name = "DIR")]
    traces: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    build_binaries()?;
    let vector = Vector::named(&args.vector)?;
    let proof = vector.registered_proof.context("a vector of a registered proof")?;
    let parent = target().join("bench");
    fs::create_dir_all(&parent)?;
    let scratch = tempfile::Builder::new().prefix("progress-").tempdir_in(&parent)?;
    let scratch = scratch.path().canonicalize()?;
    let cache = if args.new_parents {
        let own = scratch.join("parents");
        fs::create_dir(&own)?;
        own
    } else {
        ensure_parents(proof)?;
        parents()
    };
    let sector = Sector::stage(&vector, &scratch.join("sector"))?;
    let mut runs = Vec::new();

    let environment = [("FIL_PROOFS_PARENT_CACHE", cache.as_path())];
    let mut pc1 = Subject::start(Stage::Pc1, &[], &environment, &scratch)?;
    let mut pc1_output = Value::Null;
    for number in 1..=2 {
        sector.clear()?;
        pc1_output = pc1.run(number, &sector.pc1_task()?, &mut runs)?;
        check(&sector, &["sc-02-data-layer-1.dat", "sc-02-data-layer-2.dat"])?;
    }
    pc1.finish(args.traces.as_deref())?;

    let mut pc2 = Subject::start(Stage::Pc2, &[], &[], &scratch)?;
    for number in 1..=2 {
        pc2.run(number, &sector.pc2_task(&pc1_output), &mut runs)?;
        check(&sector, &["sealed", "p_aux", "sc-02-data-tree-r-last.dat"])?;
    }
    pc2.finish(args.traces.as_deref())?;

    if !args.without_c2 {
        ensure_test_params(SectorSize::KIB_2)?;
        let line = fs::read(root().join("tests/protocol/c2.request.jsonl"))?;
        let request: Value = serde_json::from_slice(line.trim_ascii_end())?;
        let params = test_params_dir();
        let environment = [("FIL_PROOFS_PARAMETER_CACHE", params.as_path())];
        let mut c2 = Subject::start(Stage::C2, &["--allow-test-params"], &environment, &scratch)?;
        for number in 1..=2 {
            // An executor answers no proof that it has not verified.
            c2.run(number, &request["task"], &mut runs)?;
        }
        c2.finish(args.traces.as_deref())?;
    }
    let worst = runs.iter().filter_map(|run| run["worst"]["error"].as_f64()).fold(0.0, f64::max);
    write_result("progress", json!({ "vector": args.vector, "runs": runs }))?;
    ensure!(worst <= ALLOWED, "the time left was wrong by {:.0} %", worst * 100.0);
    Ok(())
}

/// A time counts only if the right files were made.
fn check(sector: &Sector, names: &[&str]) -> Result<()> {
    let files = sector.files()?;
    for name in names {
        let wanted = match *name {
            "sealed" => &sector.vector.sealed_sha256,
            _ => {
                let file = sector.vector.cache_files.get(*name);
                &file.with_context(|| format!("the vector has {name}"))?.sha256
            }
        };
        let found = files.get(*name).with_context(|| format!("{name} is missing"))?;
        ensure!(found.sha256 == *wanted, "{name} differs from the vector");
    }
    Ok(())
}

/// An executor, and where it logs each step.
struct Subject {
    stage: Stage,
    executor: Processor,
    log: PathBuf,
}

impl Subject {
    fn start(
        stage: Stage,
        arguments: &[&str],
        environment: &[(&str, &Path)],
        dir: &Path,
    ) -> Result<Self> {
        step(&format!("{stage}-exec"));
        let log = dir.join(format!("{stage}.log"));
        let mut command = Command::new(binary(&format!("{stage}-exec")));
        command.args(arguments).envs(environment.iter().copied());
        command.env("SEAL_EXEC_EVENTS", "1").env("RUST_LOG", "info,seal_runtime=trace");
        command.stderr(Stdio::from(File::create(&log)?));
        let executor = Processor::start(stage, &mut command, Duration::from_secs(30))?;
        Ok(Self { stage, executor, log })
    }

    /// Does `task` and judges what it has told. Returns its output.
    fn run(&mut self, number: usize, task: &Value, runs: &mut Vec<Value>) -> Result<Value> {
        let id = self.executor.send(task)?;
        let mut told = Vec::new();
        let mut started = Instant::now();
        let answer = loop {
            let line: Value = serde_json::from_str(&self.executor.line(PATIENCE)?)?;
            match line["event"].as_str() {
                Some("started") => started = Instant::now(),
                Some("progress") => told.push(Told::of(&line, started.elapsed())),
                Some(_) => {}
                None => break line,
            }
        };
        let took = started.elapsed();
        ensure!(answer["id"] == id && answer["err_msg"].is_null(), "it fails: {answer}");
        let told: Vec<_> = told.into_iter().flatten().collect();
        let judged: Vec<_> = told.iter().filter(|told| told.share >= FROM).collect();
        let error = |told: &Told| told.error(took);
        let worst = judged.iter().max_by(|one, other| error(one).total_cmp(&error(other)));
        let worst = worst.context("nothing was told from a tenth on")?;
        let at = [0.1, 0.25, 0.5, 0.75].map(|share| {
            let first = judged.iter().find(|told| told.share >= share);
            first.map(|told| error(told))
        });
        let percent =
            at.map(|error| error.map_or("-".to_owned(), |error| format!("{:.0}", error * 100.0)));
        say(&format!(
            "    task {number}: {:.1} s; the time left is wrong by {} % at 10, 25, 50 and 75 %, at most \
             by {:.0} %: {} s told at {:.0} %, {:.1} s were left",
            took.as_secs_f64(),
            percent.join(", "),
            error(worst) * 100.0,
            worst.left.as_secs_f64(),
            worst.share * 100.0,
            took.saturating_sub(worst.at).as_secs_f64()
        ));
        runs.push(json!({
            "stage": self.stage.name(), "task": number, "seconds": took.as_secs_f64(),
            "error_at": { "10": at[0], "25": at[1], "50": at[2], "75": at[3] },
            "worst": { "share": worst.share, "told_s": worst.left.as_secs_f64(),
                "at_s": worst.at.as_secs_f64(), "error": error(worst) },
        }));
        Ok(answer["output"].clone())
    }

    fn finish(self, traces: Option<&Path>) -> Result<()> {
        self.executor.finish()?;
        let Some(dir) = traces else { return Ok(()) };
        fs::create_dir_all(dir)?;
        let log = fs::read_to_string(&self.log)?;
        for (number, trace) in split(&log).into_iter().enumerate() {
            fs::write(dir.join(format!("{}-{}.tsv", self.stage, number + 1)), trace)?;
        }
        Ok(())
    }
}

/// What was told at a time.
#[derive(Clone, Copy, Debug)]
struct Told {
    at: Duration,
    share: f64,
    left: Duration,
}

impl Told {
    fn of(event: &Value, at: Duration) -> Option<Self> {
        let whole = &event["whole"];
        let left = Duration::from_millis(whole["left_ms"].as_u64()?);
        Some(Self { at, share: whole["permille"].as_f64()? / 1000.0, left })
    }

    fn error(&self, took: Duration) -> f64 {
        error_of(self.left, took.saturating_sub(self.at), took)
    }
}

/// The traces of the tasks in a log.
fn split(log: &str) -> Vec<String> {
    let mut traces = vec![String::new()];
    for line in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let Some(at) = line["at_us"].as_u64() else { continue };
        let (part, last) = (line["part"].as_str(), traces.len() - 1);
        let text = match part {
            Some(part) => format!("{at}\t{part}\t{}\t{}\n", line["done"], line["total"]),
            None => format!("{at}\n"),
        };
        traces[last].push_str(&text);
        if part.is_none() {
            traces.push(String::new());
        }
    }
    traces.retain(|trace| !trace.is_empty());
    traces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_by_the_time_left_or_by_a_tenth_of_the_run() {
        let seconds = Duration::from_secs;
        let error = |at, left| Told { at: seconds(at), share: 0.5, left: seconds(left) };
        assert_eq!(error(50, 55).error(seconds(100)), 0.1);
        assert_eq!(error(99, 2).error(seconds(100)), 0.1);
    }

    #[test]
    fn a_log_has_a_trace_for_each_task() {
        let log = "text\n{\"at_us\":5,\"part\":\"copy\",\"done\":1,\"total\":2}\n{\"x\":1}\n\
                   {\"at_us\":9,\"message\":\"end\"}\n{\"at_us\":4,\"message\":\"end\"}\n";
        assert_eq!(split(log), ["5\tcopy\t1\t2\n9\n", "4\n"]);
    }
}
