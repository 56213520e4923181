//! A client that follows venus-worker's protocol to the letter and shares no code with ours: the
//! request lines that the published client wrote (`tests/protocol`), with other paths, against
//! every stage, started directly and under the supervisor.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use seal_types::Stage;
use serde_json::{Value, json};
use test_support::launch::{Launch, test_params};
use test_support::oracle::Oracle;
use test_support::sector::Sector;
use test_support::skip::skipped;
use test_support::vector::Vector;

/// `stable_wait` of a worker that sets none.
const STABLE_WAIT: Duration = Duration::from_secs(5);
/// A proof takes about a minute on two cores.
const PATIENCE: Duration = Duration::from_secs(900);

/// The directory in the captured lines, and the vector whose sector they are about.
const CAPTURED_DIR: &str = "/sectors/s-t01000-1";
const VECTOR: &str = "2KiB-v1_1-a";

/// The shortest configuration of executors there is.
const CONFIG: &str = "[[processors.pc1]]\n[[processors.pc2]]\n[[processors.c2]]\n";

/// How a worker starts a stage.
#[derive(Clone, Copy, Debug)]
enum Start {
    Direct,
    Supervised,
}

/// The worker's end of the pipes.
struct Worker {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Worker {
    fn start(command: &mut Command, stage: &str) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("piped")?);
        let (sender, lines) = channel();
        thread::spawn(move || {
            stdout
                .lines()
                .map_while(Result::ok)
                .take_while(|l| sender.send(l.clone()).is_ok())
                .count()
        });
        let worker = Self { child, stdin, lines };
        let first = worker.lines.recv_timeout(STABLE_WAIT).context("it is not ready in time")?;
        ensure!(first == format!("{stage} processor ready"), "the first line is {first:?}");
        Ok(worker)
    }

    fn write(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("open")?;
        Ok(writeln!(stdin, "{line}").and_then(|()| stdin.flush())?)
    }

    /// The next answers, by id: outputs, or errors.
    fn answers(&self, count: usize) -> Result<BTreeMap<u64, Result<Value, String>>> {
        let mut answers = BTreeMap::new();
        for _ in 0..count {
            let line = self.lines.recv_timeout(PATIENCE).context("no answer came")?;
            let answer: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
            let fields = answer.as_object().context("an answer is an object")?;
            let names: Vec<_> = fields.keys().map(String::as_str).collect();
            ensure!(names == ["err_msg", "id", "output"], "{line}");
            let id = answer["id"].as_u64().context("an answer has an id")?;
            let result = match (&answer["err_msg"], &answer["output"]) {
                (Value::Null, output @ Value::Object(_)) => Ok(output.clone()),
                (Value::String(error), Value::Null) => Err(error.clone()),
                _ => bail!("neither an error nor an output: {line}"),
            };
            ensure!(answers.insert(id, result).is_none(), "{id} was answered twice");
        }
        Ok(answers)
    }

    /// Goes away, as a worker that ends: nothing more may come, and the process ends.
    fn leave(mut self) -> Result<()> {
        self.stdin = None;
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "it outlives its parent");
            thread::sleep(Duration::from_millis(5));
        }
        let more: Vec<_> = self.lines.iter().collect();
        ensure!(more.is_empty(), "more than the answers came: {more:?}");
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A captured file, about the sector in `dir`.
fn captured(name: &str, dir: &Path) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("protocol").join(name);
    let text = fs::read_to_string(path)?;
    Ok(text.trim_end().replace(CAPTURED_DIR, dir.to_str().context("a path in UTF-8")?))
}

/// The captured request under another id, and for another sector directory if that is given.
fn request(line: &str, id: u64) -> Result<String> {
    let rest = line.strip_prefix("{\"id\":1,").context("as captured")?;
    Ok(format!("{{\"id\":{id},{rest}"))
}

fn launch(start: Start, stage: Stage, dir: &Path) -> Result<Launch> {
    match start {
        Start::Direct => Ok(Launch::executor(stage, dir)?.args(["processor", stage.name()])),
        Start::Supervised => Launch::supervisor(stage, CONFIG, dir),
    }
}

fn worker(start: Start, stage: Stage, dir: &Path) -> Result<Worker> {
    let launch = launch(start, stage, dir)?;
    Worker::start(&mut launch.command()?, stage.name())
        .with_context(|| format!("{start:?} {stage}: {}", launch.log().text().unwrap_or_default()))
}

/// Sends a good request between two about a sector that is not there; the ids are as large and as
/// small as they can be. Returns the output of the good one.
fn good_among_bad(worker: &mut Worker, stage: &str, dir: &Path) -> Result<Value> {
    let file = format!("{stage}.request.jsonl");
    let (good, bad) = (captured(&file, dir)?, captured(&file, Path::new("/nonexistent"))?);
    worker.write(&request(&bad, 0)?)?;
    worker.write(&request(&good, u64::MAX)?)?;
    worker.write(&request(&bad, 5)?)?;
    let mut answers = worker.answers(3)?;
    for id in [0, 5] {
        let error = answers.remove(&id).context("answered")?.expect_err("there is no such sector");
        ensure!(error.contains("/nonexistent/"), "{error}");
    }
    let output = answers.remove(&u64::MAX).context("answered")?;
    output.map_err(|error| anyhow::anyhow!("{stage}: {error}"))
}

fn seals(start: Start) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let sector = dir.path().join("s-t01000-1");
    Sector::stage(&Vector::named(VECTOR)?, &sector)?;
    for stage in [Stage::Pc1, Stage::Pc2] {
        let mut worker = worker(start, stage, dir.path())?;
        let output = good_among_bad(&mut worker, stage.name(), &sector)?;
        let expected: Value =
            serde_json::from_str(&captured(&format!("{stage}.output.json"), &sector)?)?;
        ensure!(output == expected, "{output} is not {expected}");
        worker.leave()?;
    }
    Ok(())
}

#[test]
fn captured_requests_of_pc1_and_pc2_are_answered_as_captured_when_started_directly() -> Result<()> {
    seals(Start::Direct)
}

#[test]
fn captured_requests_of_pc1_and_pc2_are_answered_as_captured_under_the_supervisor() -> Result<()> {
    seals(Start::Supervised)
}

#[test]
fn a_captured_request_of_c2_without_parameters_is_answered_with_what_is_missing() -> Result<()> {
    for start in [Start::Direct, Start::Supervised] {
        let dir = tempfile::tempdir()?;
        let launch = launch(start, Stage::C2, dir.path())?
            .env("FIL_PROOFS_PARAMETER_CACHE", dir.path().join("none"));
        let mut worker = Worker::start(&mut launch.command()?, "c2")?;
        worker.write(&request(&captured("c2.request.jsonl", dir.path())?, 9)?)?;
        let error = worker.answers(1)?.remove(&9).context("answered")?.expect_err("no parameters");
        ensure!(error.starts_with("[parameters]") && error.contains("missing"), "{error}");
        worker.leave()?;
    }
    Ok(())
}

#[test]
fn a_captured_request_of_c2_is_answered_with_a_proof_that_the_network_accepts() -> Result<()> {
    let params = match test_params() {
        Ok(params) => params,
        Err(reason) => {
            skipped("a captured request of c2 is answered with a proof", &reason);
            return Ok(());
        }
    };
    for start in [Start::Direct, Start::Supervised] {
        let dir = tempfile::tempdir()?;
        let line = captured("c2.request.jsonl", dir.path())?;
        let launch = launch(start, Stage::C2, dir.path())?
            .env("FIL_PROOFS_PARAMETER_CACHE", &params)
            .env("SEAL_ALLOW_TEST_PARAMS", "1");
        let mut worker = Worker::start(&mut launch.command()?, "c2")?;
        worker.write(&request(&line, 3)?)?;
        let output = worker.answers(1)?.remove(&3).context("answered")?;
        let output = output.map_err(|error| anyhow::anyhow!("{start:?}: {error}"))?;
        let captured: Value = serde_json::from_str(&line)?;
        let c1out = &captured["task"]["c1out"];
        let sector = Sector::stage(&Vector::named(VECTOR)?, &dir.path().join("sector"))?;
        ensure!(c1out["seed"] == json!(sector.vector.seed()?.0), "the vector has another seed");
        let verdict = Oracle::new(dir.path(), &params)
            .ask("verify", &sector.verify_task(c1out, &output["proof"])?)?;
        ensure!(verdict == json!({ "valid": true }), "{start:?}: {verdict}");
        worker.leave()?;
    }
    Ok(())
}
