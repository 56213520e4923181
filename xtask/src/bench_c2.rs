//! `cargo xtask bench-c2`: C2 of a captured task by the stage's own binary, kept warm, and by the
//! published crates beside it on the same cores; and how the prover's cost grows with the circuit.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use seal_types::{SectorSize, Stage};
use serde_json::{Value, json};
use test_support::client::Processor;

use crate::bench::{build_peer, peak_memory, peak_of, write_result};
use crate::cargo::{binary, build_binaries, ensure_test_params, root, target, test_params_dir};
use crate::out::{say, step};

/// A proof takes less on any machine that is worth measuring.
const PATIENCE: Duration = Duration::from_secs(1200);

/// Options of `bench-c2`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Size of the sectors: 2KiB, of which there is a captured task.
    #[arg(long, value_name = "SIZE", default_value = "2KiB")]
    sector_size: SectorSize,
    /// Warm proofs; the fastest and the slowest are told.
    #[arg(long, value_name = "N", default_value_t = 3)]
    proofs: usize,
    /// Do the same task by filecoin-proofs 19.1 with bellperson's prover for processors.
    #[arg(long)]
    peer: bool,
    /// Measure only the prover, on made-up circuits of 2^FROM to 2^TO constraints, of whose values
    /// as many are zero or one as in a sector's circuit. 2^24 takes 20 GB of memory.
    #[arg(long, value_name = "FROM-TO", conflicts_with = "peer")]
    synthetic: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    build_binaries()?;
    if let Some(range) = &args.synthetic {
        return synthetic(range);
    }
    ensure!(
        args.sector_size == SectorSize::KIB_2,
        "there is a captured task only for sectors of 2KiB"
    );
    ensure!(args.proofs > 0, "at least one proof");
    ensure_test_params(args.sector_size)?;
    let params = test_params_dir();
    let line = std::fs::read(root().join("tests/protocol/c2.request.jsonl"))?;
    let request: Value = serde_json::from_slice(line.trim_ascii_end())?;
    let task = &request["task"];
    let parent = target().join("bench");
    std::fs::create_dir_all(&parent)?;
    let scratch = tempfile::Builder::new().prefix("c2-").tempdir_in(&parent)?;

    let ours = ours(args, task, &params, scratch.path())?;
    let theirs = args.peer.then(|| theirs(task, &params, scratch.path())).transpose()?;
    let proof = task["c1out"]["registered_proof"].clone();
    let mut result = json!({ "proof": proof, "ours": ours });
    if let Some(theirs) = theirs {
        let ratio = |ours: &Value, theirs: &Value| {
            theirs.as_f64().zip(ours.as_f64()).map(|(theirs, ours)| theirs / ours)
        };
        let total = ratio(&ours["warm_s"], &theirs["total_s"]);
        let witness = ratio(&ours["witness_s"], &theirs["synthesis_s"]);
        for (what, times) in [("a warm proof", total), ("witness and products", witness)] {
            say(&format!("  {what}: {:.1} times as fast", times.context("both were measured")?));
        }
        result["peer"] = theirs;
        result["times_as_fast"] = json!({ "warm_proof": total, "witness": witness });
    }
    write_result("c2-2KiB", json!({ "result": result }))
}

/// What a process has read from disk, in bytes.
fn read_bytes(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).context("/proc/PID/io has read_bytes")
}

fn ours(args: &Args, task: &Value, params: &Path, dir: &Path) -> Result<Value> {
    step("c2-exec");
    let log = dir.join("log");
    let mut command = Command::new(binary("c2-exec"));
    command
        .arg("--allow-test-params")
        .env("FIL_PROOFS_PARAMETER_CACHE", params)
        .env("RUST_LOG", "info")
        .stderr(Stdio::from(File::create(&log)?));
    let mut executor = Processor::start(Stage::C2, &mut command, Duration::from_secs(30))?;
    let started = Instant::now();
    executor.call(task, PATIENCE)?;
    let cold_s = started.elapsed().as_secs_f64();
    say(&format!("  first proof, parameters and circuit included: {cold_s:.2} s"));
    let read = read_bytes(executor.pid())?;
    let mut warm = Vec::new();
    for _ in 0..args.proofs {
        let started = Instant::now();
        executor.call(task, PATIENCE)?;
        warm.push(started.elapsed().as_secs_f64());
    }
    let read_again = read_bytes(executor.pid())? - read;
    let peak = peak_memory(executor.pid()).context("the executor is still there")?;
    executor.finish()?;
    warm.sort_by(f64::total_cmp);
    let (fastest, slowest) = (warm[0], warm[warm.len() - 1]);
    let parts = parts(&std::fs::read_to_string(&log)?, args.proofs)?;
    say(&format!("  {} warm proofs: {fastest:.2} to {slowest:.2} s", warm.len()));
    say(&format!("  parts of the last: {parts}"));
    say(&format!("  peak memory {} MiB, read from disk again {read_again} bytes", peak >> 20));
    ensure!(read_again == 0, "warm proofs must not read parameters again");
    Ok(json!({
        // Of warm proofs, as a supervisor keeps its executors.
        "runs": warm, "cold_s": cold_s, "warm_s": fastest, "warm_slowest_s": slowest,
        "witness_s": parts["witness_ms"].as_f64().map(|ms| ms / 1000.0),
        "parts": parts, "peak_bytes": peak, "read_again_bytes": read_again,
    }))
}

/// The times of the last proof, from the executor's log.
fn parts(log: &str, proofs: usize) -> Result<Value> {
    let lines: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|line| line.get("fields").cloned().unwrap_or(line))
        .filter(|line| line["message"] == "partition proved")
        .collect();
    ensure!(lines.len() == proofs + 1, "the log tells of {} proofs", lines.len());
    let last = lines.last().and_then(Value::as_object).context("at least one proof")?;
    let times = last.iter().filter(|(name, _)| name.ends_with("_ms"));
    Ok(Value::Object(times.map(|(name, value)| (name.clone(), value.clone())).collect()))
}

fn theirs(task: &Value, params: &Path, dir: &Path) -> Result<Value> {
    let peer = build_peer()?;
    step("filecoin-proofs 19.1, bellperson");
    let file = dir.join("task.json");
    std::fs::write(&file, serde_json::to_vec(task)?)?;
    let started = Instant::now();
    let output = Command::new(peer)
        .arg(&file)
        .env("FIL_PROOFS_PARAMETER_CACHE", params)
        .output()
        .context("cannot start the peer")?;
    let whole_s = started.elapsed().as_secs_f64();
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the peer failed: {log}");
    let synthesis_s = logged(&log, "synthesis time: ")?;
    let prover_s = logged(&log, "prover time: ")?;
    // What a warm proof of ours includes too: checks before and after.
    let total_s = synthesis_s + prover_s;
    say(&format!(
        "  synthesis {synthesis_s:.2} s, prover {prover_s:.2} s; whole process {whole_s:.2} s"
    ));
    Ok(json!({
        "synthesis_s": synthesis_s, "prover_s": prover_s, "total_s": total_s,
        "process_s": whole_s, "peak_bytes": peak_of(&log),
    }))
}

/// Seconds of a duration that the peer's log has behind `name`.
fn logged(log: &str, name: &str) -> Result<f64> {
    let text = log
        .lines()
        .filter_map(|line| line.split_once(name))
        .map(|(_, text)| text.trim())
        .next()
        .with_context(|| format!("the peer logs no {name:?}"))?;
    seconds(text).with_context(|| format!("the peer logs {text:?} for {name:?}"))
}

/// `1.5s`, `20ms`, `7µs` as Rust prints durations.
fn seconds(text: &str) -> Option<f64> {
    let units = [("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9), ("s", 1.0)];
    units.into_iter().find_map(|(unit, scale)| {
        text.strip_suffix(unit)?.parse::<f64>().ok().map(|number| number * scale)
    })
}

fn synthetic(range: &str) -> Result<()> {
    step("made-up circuits");
    let output = Command::new(binary("c2-exec"))
        .args(["bench", "--log2-constraints", range])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start c2-exec")?;
    ensure!(output.status.success(), "c2-exec bench failed");
    let text = String::from_utf8(output.stdout)?;
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    for line in &lines {
        say(&format!("  {line}"));
    }
    write_result("c2-synthetic", json!({ "result": { "circuits": lines } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_rust_prints_them() {
        assert_eq!(seconds("1.5s"), Some(1.5));
        assert_eq!(seconds("250ms"), Some(0.25));
        assert_eq!(seconds("soon"), None);
        assert_eq!(logged("3 synthesis time: 1.25s\n", "synthesis time: ").ok(), Some(1.25));
        assert!(logged("", "synthesis time: ").is_err());
    }

    #[test]
    fn parts_come_from_the_last_proof() {
        let log = "text\n{\"message\":\"partition proved\",\"witness_ms\":1}\n\
                   {\"fields\":{\"message\":\"partition proved\",\"witness_ms\":2,\"partition\":0}}\n";
        assert_eq!(parts(log, 1).expect("two"), json!({ "witness_ms": 2 }));
        assert!(parts(log, 2).is_err());
    }
}
