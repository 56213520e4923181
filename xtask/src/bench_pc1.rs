//! `cargo xtask bench-pc1`: PC1 of whole sectors by the stage's own binary, and by the published
//! crates beside it, in turn on the same cores.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use seal_types::{ApiVersion, Feature, RegisteredProof, SectorSize, Stage};
use serde_json::{Value, json};
use test_support::client::Processor;
use test_support::data;
use test_support::vector::file_digest;

use crate::bench::{
    build_peer, chain_ns, ensure_parents, median, parents, peak_memory, peak_of,
    peer_layer_seconds, stage_data, write_result,
};
use crate::cargo::{binary, build_binaries, cargo, target};
use crate::out::{say, step};

/// Options of `bench-pc1`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Size of the sectors.
    #[arg(long, value_name = "SIZE", default_value = "512MiB")]
    sector_size: SectorSize,
    /// API version of the graph: 1.0 or 1.1.
    #[arg(long, value_name = "VERSION", default_value = "1.1")]
    api: String,
    /// Sectors at once.
    #[arg(long, value_name = "N", default_value_t = 1)]
    sectors: usize,
    /// Producers of each unit; default: what pc1-exec chooses.
    #[arg(long, value_name = "P")]
    producers: Option<usize>,
    /// Lanes of each unit; default: what pc1-exec chooses.
    #[arg(long, value_name = "L")]
    lanes: Option<usize>,
    /// Runs of each side; the median counts.
    #[arg(long, value_name = "N", default_value_t = 1)]
    runs: usize,
    /// Do the same work by filecoin-proofs 19.1 with multicore SDR and one producer, in turn, one
    /// sector after the other. Needs libhwloc.
    #[arg(long)]
    peer: bool,
}

struct Bench {
    proof: RegisteredProof,
    dir: PathBuf,
    pieces: Value,
    /// SHA-256 of the last layer by sector, once somebody has made it.
    expected: Vec<Option<String>>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let api = match args.api.as_str() {
        "1.0" => ApiVersion::V1_0,
        "1.1" => ApiVersion::V1_1,
        other => bail!("there is no API version {other}; 1.0 and 1.1 can be measured"),
    };
    let proof = RegisteredProof::find(args.sector_size, api, Feature::Interactive)
        .with_context(|| format!("sectors of {} have no registered proof", args.sector_size))?;
    ensure!(args.sectors > 0 && args.runs > 0, "at least one sector and one run");
    build_binaries()?;
    let peer = if args.peer { Some(build_peer()?) } else { None };

    let parent = target().join("bench");
    std::fs::create_dir_all(&parent)?;
    let scratch = tempfile::Builder::new().prefix("pc1-").tempdir_in(&parent)?;
    cargo(&["build", "--release", "-p", "benches", "--bin", "labelling"], &[])?;
    let mut bench = Bench::prepare(proof, scratch.path().to_path_buf(), args.sectors)?;
    let (mut ours, mut theirs, mut chain) = (Vec::new(), Vec::new(), Vec::new());
    for run in 1..=args.runs {
        step(&format!("run {run} of {}", args.runs));
        chain.push(chain_ns()?);
        ours.push(bench.ours(args)?);
        if let Some(peer) = &peer {
            theirs.push(bench.peer(peer)?);
        }
    }
    let chain = median(chain.into_iter()).context("at least one run")?;
    report(args, &bench, &ours, &theirs, chain)
}

impl Bench {
    fn prepare(proof: RegisteredProof, dir: PathBuf, sectors: usize) -> Result<Self> {
        step(&format!("preparing {sectors} sectors of {proof}"));
        let pieces = stage_data(proof, &dir)?;
        ensure_parents(proof)?;
        Ok(Self { proof, dir, pieces, expected: vec![None; sectors] })
    }

    fn task(&self, sector: usize) -> Value {
        let dir = self.sector_dir(sector);
        json!({
            "registered_proof": self.proof.to_string(),
            "cache_path": dir.join("cache"), "in_path": self.dir.join("staged"),
            "out_path": dir.join("sealed"),
            "prover_id": data::derive("prover", "bench"), "sector_id": sector + 1,
            "ticket": data::derive("ticket", "bench"), "piece_infos": self.pieces,
        })
    }

    fn sector_dir(&self, sector: usize) -> PathBuf {
        self.dir.join(format!("sector-{sector}"))
    }

    /// As a worker leaves the directories before PC1.
    fn clear(&self) -> Result<()> {
        for sector in 0..self.expected.len() {
            let dir = self.sector_dir(sector);
            if dir.exists() {
                std::fs::remove_dir_all(&dir)?;
            }
            std::fs::create_dir_all(dir.join("cache"))?;
            File::create(dir.join("sealed"))?;
        }
        Ok(())
    }

    /// A result counts only if all sides made the same bytes.
    fn check(&mut self) -> Result<()> {
        let last = seal_types::layer_file(self.proof.porep().layers);
        for sector in 0..self.expected.len() {
            let found = file_digest(&self.sector_dir(sector).join("cache").join(&last))?.sha256;
            let expected = self.expected[sector].get_or_insert_with(|| found.clone());
            ensure!(*expected == found, "the last layer of sector {sector} differs");
        }
        Ok(())
    }

    /// All sectors at once, by one executor.
    fn ours(&mut self, args: &Args) -> Result<Run> {
        self.clear()?;
        let log = self.dir.join("log");
        let mut command = Command::new(binary("pc1-exec"));
        command.env("FIL_PROOFS_PARENT_CACHE", parents()).env("RUST_LOG", "info");
        command.stderr(Stdio::from(File::create(&log)?));
        if let Some(producers) = args.producers {
            command.env("FIL_PROOFS_MULTICORE_SDR_PRODUCERS", producers.to_string());
        }
        if let Some(lanes) = args.lanes {
            command.env("SEAL_PC1_LANES", lanes.to_string());
        }
        let mut executor = Processor::start(Stage::Pc1, &mut command, Duration::from_secs(30))?;
        let started = Instant::now();
        for sector in 0..self.expected.len() {
            executor.send(&self.task(sector))?;
        }
        for _ in 0..self.expected.len() {
            let answer = executor.answer(Duration::from_secs(48 * 3600))?;
            ensure!(answer.err_msg.is_none(), "{:?}", answer.err_msg);
        }
        let seconds = started.elapsed().as_secs_f64();
        let memory = peak_memory(executor.pid());
        executor.finish()?;
        self.check()?;
        let layers = layer_seconds(&std::fs::read_to_string(&log)?);
        say(&format!("    ours  {seconds:>8.2} s"));
        Ok(Run { seconds, layers, memory })
    }

    /// One sector after the other, each with both cores.
    fn peer(&mut self, peer: &Path) -> Result<Run> {
        self.clear()?;
        let started = Instant::now();
        let (mut layers, mut memory) = (Vec::new(), None);
        for sector in 0..self.expected.len() {
            let task = self.dir.join("task.json");
            std::fs::write(&task, self.task(sector).to_string())?;
            let output = Command::new(peer)
                .arg(&task)
                .env("FIL_PROOFS_PARENT_CACHE", parents())
                .env("FIL_PROOFS_USE_MULTICORE_SDR", "1")
                .env("FIL_PROOFS_MULTICORE_SDR_PRODUCERS", "1")
                .output()
                .context("cannot start the peer")?;
            let log = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "the peer failed: {log}");
            layers.extend(peer_layer_seconds(&log));
            memory = memory.max(peak_of(&log));
        }
        let seconds = started.elapsed().as_secs_f64();
        self.check()?;
        say(&format!("    peer  {seconds:>8.2} s"));
        Ok(Run { seconds, layers, memory })
    }
}

struct Run {
    seconds: f64,
    /// Labelling alone, layer by layer of all sectors.
    layers: Vec<f64>,
    memory: Option<u64>,
}

/// `label_ms` of the executor's log lines.
fn layer_seconds(log: &str) -> Vec<f64> {
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|line| Some(line.get("label_ms")?.as_f64()? / 1000.0))
        .collect()
}

fn report(args: &Args, bench: &Bench, ours: &[Run], theirs: &[Run], chain: f64) -> Result<()> {
    let nodes = bench.proof.sector_size().nodes() as f64;
    let sectors = args.sectors as f64;
    say("");
    say(&format!("{}, {} at once", bench.proof, args.sectors));
    say("  side   all sectors  per sector  layer (median)  ns/label  over the chain  sectors/h");
    let row = |name: &str, runs: &[Run]| -> Option<Value> {
        let seconds = median(runs.iter().map(|run| run.seconds))?;
        let layer = median(runs.iter().flat_map(|run| run.layers.iter().copied()));
        let ns = layer.map(|layer| layer * 1e9 / nodes);
        let text = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        say(&format!(
            "  {name:<5} {seconds:>9.2} s {:>9.2} s {:>13} s {:>9} {:>13} % {:>10.2}",
            seconds / sectors,
            text(layer, 2),
            text(ns, 1),
            text(ns.map(|ns| (ns / chain - 1.0) * 100.0), 1),
            sectors * 3600.0 / seconds,
        ));
        Some(json!({
            "seconds": seconds, "seconds_per_sector": seconds / sectors,
            "layer_seconds": layer, "ns_per_label": ns,
            "runs": runs.iter().map(|run| run.seconds).collect::<Vec<_>>(),
            "peak_memory_bytes": runs.iter().filter_map(|run| run.memory).max(),
        }))
    };
    let (us, peer) = (row("ours", ours), row("peer", theirs));
    say(&format!("  the chain of one lane alone, measured here: {chain:.1} ns a label"));
    let seconds = |side: &Option<Value>| side.as_ref().and_then(|side| side["seconds"].as_f64());
    let ratio = seconds(&us).zip(seconds(&peer)).map(|(us, peer)| peer / us);
    if let Some(ratio) = ratio {
        say(&format!("  ours is {ratio:.2} times as fast"));
    }
    let result = json!({ "ours": us, "peer": peer, "ratio": ratio, "chain_ns": chain,
        "proof": bench.proof.to_string() });
    write_result(
        &format!("pc1-{}", args.sector_size),
        json!({ "sectors": args.sectors, "result": result }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_timed_from_the_log() {
        let log = "{\"label_ms\":1500,\"message\":\"x\"}\nnot json\n{\"message\":\"y\"}";
        assert_eq!(layer_seconds(log), [1.5]);
    }
}
