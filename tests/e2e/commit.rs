//! C2 over random sectors: what the network's verifier accepts and what it does not, what is read
//! again, and what happens when memory does not suffice or the parameters cannot be looked at.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seal_types::Stage;
use seal_wire::{ErrorCode, ExitCode};
use serde_json::{Value, json};
use test_support::client::Processor;
use test_support::data::{derive, fr32_pad};
use test_support::launch::{Launch, Log, test_params};
use test_support::oracle::Oracle;
use test_support::plain::tree_d;
use test_support::preload::preloadable;
use test_support::sector::Sector;
use test_support::skip::{skipped, slow_tests};
use test_support::vector::Vector;

const PATIENCE: Duration = Duration::from_secs(120);
/// With two cores shared with other tests.
const PROOF_PATIENCE: Duration = Duration::from_secs(900);

/// A word that is another one in every run.
fn fresh() -> Result<String> {
    let mut bytes = [0; 16];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(hex::encode(bytes))
}

/// A sector whose provider, number, ticket, seed and data all follow from `word`.
fn random_sector(word: &str, dir: &Path) -> Result<Sector> {
    let mut vector = Vector::named("2KiB-v1_1-a")?;
    vector.case = word.to_owned();
    vector.data = "random".to_owned();
    for (field, tag) in [
        (&mut vector.prover_id, "prover"),
        (&mut vector.ticket, "ticket"),
        (&mut vector.seed, "seed"),
    ] {
        *field = hex::encode(derive(tag, word));
    }
    let number = u64::from_le_bytes(*derive("sector", word).first_chunk().expect("32 bytes"));
    vector.sector_id = serde_json::from_value(json!(number >> 16))?;
    let tree = tree_d(&fr32_pad(&vector.piece_bytes()));
    vector.comm_d = hex::encode(&tree[tree.len() - 32..]);
    Sector::stage(&vector, &dir.join(word))
}

/// A sector after C1: what PC2 answered, and the task of C2.
fn committed(
    sector: &Sector,
    (pc1, pc2): (&mut Processor, &mut Processor),
    oracle: &Oracle,
) -> Result<(Value, Value)> {
    let pc1out = pc1.call(&sector.pc1_task()?, PATIENCE)?;
    let pc2out = pc2.call(&sector.pc2_task(&pc1out), PATIENCE)?;
    let c1out = oracle.ask("c1", &sector.c1_task(&pc2out)?)?;
    let task = sector.c2_task(&c1out)?;
    Ok((pc2out, task))
}

fn c2_with(params: &Path, dir: &Path, arguments: &[&str]) -> Result<(Processor, Log)> {
    Launch::executor(Stage::C2, dir)?
        .args(arguments)
        .env("FIL_PROOFS_PARAMETER_CACHE", params)
        .env("SEAL_ALLOW_TEST_PARAMS", "1")
        .serve(Stage::C2)
}

fn params_for(test: &str) -> Option<PathBuf> {
    test_params().map_err(|reason| skipped(test, &reason)).ok()
}

/// The verifier says no, or finds that it is no proof.
fn is_refused(oracle: &Oracle, task: &Value, what: &str) -> Result<()> {
    match oracle.ask("verify", task) {
        Ok(verdict) => ensure!(verdict == json!({ "valid": false }), "{what}: {verdict}"),
        Err(error) => {
            let text = format!("{error:#}");
            // Bytes that are no points of the curve.
            ensure!(text.contains("oracle verify ended with"), "{what}: {text}");
            ensure!(!text.contains("panicked"), "{what}: {text}");
        }
    }
    Ok(())
}

#[test]
fn proofs_of_random_sectors_are_accepted_and_no_others() -> Result<()> {
    let Some(params) = params_for("proofs of random sectors are accepted and no others") else {
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    let oracle = Oracle::new(dir.path(), &params);
    let serve = |stage| Launch::executor(stage, dir.path())?.serve(stage);
    let (mut pc1, _) = serve(Stage::Pc1)?;
    let (mut pc2, _) = serve(Stage::Pc2)?;
    let (mut c2, _) = c2_with(&params, dir.path(), &[])?;
    let word = fresh()?;
    let mut before: Option<Value> = None;
    for number in 0..if slow_tests() { 100 } else { 3 } {
        let what = format!("sector {word}-{number}");
        let sector = random_sector(&format!("{word}-{number}"), dir.path())?;
        let (pc2out, task) =
            committed(&sector, (&mut pc1, &mut pc2), &oracle).with_context(|| what.clone())?;
        let c2out = c2.call(&task, PROOF_PATIENCE).with_context(|| what.clone())?;
        let proof = &c2out["proof"];
        let good = sector.verify_task(&pc2out, proof)?;
        let verdict = oracle.ask("verify", &good)?;
        ensure!(verdict == json!({ "valid": true }), "{what}: {verdict}");

        if let Some(other) = before.replace(proof.clone()) {
            let swapped = sector.verify_task(&pc2out, &other)?;
            is_refused(&oracle, &swapped, &format!("{what}: the proof of another sector"))?;
        }
        let mut changed = good.clone();
        changed["seed"] = json!(derive("another seed", &word));
        is_refused(&oracle, &changed, &format!("{what}: other challenges"))?;
        // One byte in each of the three points: a coordinate, and the flags of the encoding.
        for at in [0, 20, 48 + 17, 48 + 96 + 31] {
            let mut changed = good.clone();
            let byte = changed["proof"][at].as_u64().context("a byte")?;
            changed["proof"][at] = json!(byte ^ 0x20);
            is_refused(&oracle, &changed, &format!("{what}: byte {at} changed"))?;
        }
        fs::remove_dir_all(sector.cache())?;
    }
    Ok(())
}

fn captured_task() -> Result<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("protocol/c2.request.jsonl");
    let request: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    Ok(request["task"].clone())
}

/// A directory with links to all files in `params`, which a test can take away.
fn linked(params: &Path, dir: &Path) -> Result<PathBuf> {
    let links = dir.join("links");
    fs::create_dir(&links)?;
    for entry in fs::read_dir(params)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            symlink(entry.path(), links.join(entry.file_name()))?;
        }
    }
    Ok(links)
}

/// A process that has no parameter file open and none mapped.
fn holds_no_parameters(pid: u32) -> Result<()> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    ensure!(!maps.contains(".params"), "parameters are mapped:\n{maps}");
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        if let Ok(file) = fs::read_link(entry?.path()) {
            ensure!(!file.to_string_lossy().contains(".params"), "{} is open", file.display());
        }
    }
    Ok(())
}

/// The file of the one circuit that is kept in `dir`.
fn kept_circuit(dir: &Path) -> Result<PathBuf> {
    let mut circuits = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "circuit") {
            circuits.push(path);
        }
    }
    ensure!(circuits.len() == 1, "{circuits:?} in {}", dir.display());
    circuits.pop().context("there is one")
}

#[test]
fn a_second_proof_needs_no_parameter_file_and_a_second_start_no_recording() -> Result<()> {
    let test = "a second proof needs no parameter file and a second start no recording";
    let Some(params) = params_for(test) else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let links = linked(&params, dir.path())?;
    let task = captured_task()?;

    let (mut c2, log) = c2_with(&links, dir.path(), &["--preload", "2KiB"])?;
    let first = c2.call(&task, PROOF_PATIENCE)?;
    let told = log.lines_with(&["waiting: for parameters: those for 2KiB"])?;
    ensure!(told.len() == 1, "a task that comes early says once why it waits: {}", log.text()?);
    ensure!(log.lines_with(&["circuit for 2KiB is compiled"])?.len() == 1, "{}", log.text()?);
    // What is neither open nor mapped, nor to be found, is not read.
    holds_no_parameters(c2.pid())?;
    let away = dir.path().join("away");
    fs::rename(&links, &away)?;
    let second = c2.call(&task, PROOF_PATIENCE)?;
    ensure!(first["proof"] != second["proof"], "each proof has randomness of its own");
    drop(c2);
    fs::rename(&away, &links)?;

    // The circuit of the second start is the file of the first.
    fs::write(dir.path().join("task.json"), task.to_string())?;
    let run = |name: &str| -> Result<Log> {
        let own = dir.path().join(name);
        fs::create_dir(&own)?;
        let launch = Launch::executor(Stage::C2, &own)?
            .args(["run", "--task"])
            .args([dir.path().join("task.json")])
            .env("FIL_PROOFS_PARAMETER_CACHE", &links)
            .env("SEAL_ALLOW_TEST_PARAMS", "1");
        let output = launch.command()?.output()?;
        ensure!(output.status.success(), "{}", launch.log().text()?);
        Ok(launch.log())
    };
    let log = run("again")?;
    ensure!(log.lines_with(&["circuit for 2KiB is read"])?.len() == 1, "{}", log.text()?);

    // A damaged one is told and replaced, and the proof is good all the same.
    let circuit = kept_circuit(&links.join("seal-exec-circuits"))?;
    let good = fs::read(&circuit)?;
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::write(&circuit, bad)?;
    let log = run("damaged")?;
    let told = log.lines_with(&["WARN", "recorded anew", "digest"])?;
    ensure!(told.len() == 1, "{}", log.text()?);
    ensure!(log.lines_with(&["circuit for 2KiB is compiled"])?.len() == 1, "{}", log.text()?);
    ensure!(fs::read(&circuit)? == good, "it is replaced");
    Ok(())
}

#[test]
fn without_memory_for_a_partition_or_parameters_it_says_so_and_goes_on() -> Result<()> {
    let test = "without memory for a partition or parameters it says so and goes on";
    let Some(params) = params_for(test) else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let task = captured_task()?;
    for (option, what) in
        [("--params-memory", "the parameters for 2KiB"), ("--memory", "a partition of")]
    {
        let arguments = [option, "100MiB", "--preload", "2KiB"];
        let (mut c2, log) = c2_with(&params, dir.path(), &arguments)?;
        // Ahead of the first task, which it does not keep from coming.
        log.wait_for(&["ERROR", "--preload 2KiB", what, option], PROOF_PATIENCE)?;
        for _ in 0..2 {
            let error = c2.call_failing(&task, PROOF_PATIENCE)?;
            ensure!(error.starts_with(&format!("[{}] ", ErrorCode::Unavailable)), "{error}");
            for words in [what, option, "100 MiB", "allow more"] {
                ensure!(error.contains(words), "{words:?}: {error}");
            }
        }
        ensure!(c2.is_running()?, "it ended");
    }
    Ok(())
}

#[test]
fn ready_in_time_though_the_parameters_cannot_be_looked_at() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/hangs.c");
    let library = match preloadable(&source, dir.path())? {
        Ok(library) => library,
        Err(reason) => {
            skipped("parameters on a share that hangs", &reason);
            return Ok(());
        }
    };
    let params = dir.path().join("params");
    fs::create_dir(&params)?;
    let listed = Launch::executor(Stage::C2, dir.path())?
        .args(["params", "--sector-size", "2KiB"])
        .env("FIL_PROOFS_PARAMETER_CACHE", &params)
        .command()?
        .output()?;
    let listed = String::from_utf8(listed.stdout)?;
    let word = |word: &&str| word.ends_with(".params");
    let path = listed.split_whitespace().find(word).context("the file is named")?;
    fs::write(path, "")?;
    let launch = Launch::executor(Stage::C2, dir.path())?
        .args(["--preload", "2KiB"])
        .env("FIL_PROOFS_PARAMETER_CACHE", &params)
        .env("LD_PRELOAD", &library)
        .env("SEAL_TEST_HANG", ".params")
        .env("SEAL_READY_WITHIN", "200ms");
    let (mut c2, log) = launch.serve(Stage::C2)?;
    log.wait_for(&["SEAL_READY_WITHIN", "go on"], PATIENCE)?;
    ensure!(c2.is_running()?, "it ended");
    Ok(())
}

/// Runs in any build: where the feature cuda is off, or there is no driver, or no device, that is
/// what has to be told. Only where there is a device it has nothing to see.
#[test]
fn a_gpu_that_is_asked_for_and_not_usable_is_an_error_at_start() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let task = dir.path().join("task.json");
    fs::write(&task, serde_json::to_vec(&captured_task()?)?)?;
    let run = |name: &str, value: &str| -> Result<_> {
        Ok(Launch::executor(Stage::C2, dir.path())?
            .args(["run", "--task"])
            .args([&task])
            .env("FIL_PROOFS_PARAMETER_CACHE", dir.path().join("none"))
            .env("SEAL_C2_DEVICE", "cuda")
            .env(name, value)
            .command()?
            .stderr(std::process::Stdio::piped())
            .output()?)
    };
    let required = run("RUST_LOG", "info")?;
    let said = String::from_utf8(required.stderr)?;
    if said.contains("\"device\":\"cuda device") {
        skipped("tests a_gpu_that_is_asked_for_and_not_usable", "there is a GPU");
        return Ok(());
    }
    let start = Some(ExitCode::Start as i32);
    ensure!(required.status.code() == start, "{}: {said}", required.status);
    for part in ["SEAL_C2_DEVICE=cuda asks", "no GPU is usable", "SEAL_GPU=optional"] {
        ensure!(said.contains(part), "{part}: {said}");
    }
    ensure!(required.stdout.is_empty(), "an answer without a start");

    // Then the processor does it, as far as there are parameters.
    let optional = run("SEAL_GPU", "optional")?;
    let said = String::from_utf8(optional.stderr)?;
    ensure!(said.contains("lets the CPU prove") && said.contains("\"device\":\"cpu\""), "{said}");
    ensure!(optional.status.code() == Some(ExitCode::Failed as i32), "{}: {said}", optional.status);

    let neither = run("BELLMAN_NO_GPU", "1")?;
    let said = String::from_utf8(neither.stderr)?;
    ensure!(neither.status.code() == Some(ExitCode::Config as i32), "{}: {said}", neither.status);
    for part in ["BELLMAN_NO_GPU=", "SEAL_C2_DEVICE", "unset one of them"] {
        ensure!(said.contains(part), "{part}: {said}");
    }
    Ok(())
}
