//! `cargo xtask bench-pc1`: PC1 of whole sectors by the stage's own binary, and by the published
//! crates beside it, in turn on the same cores.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use seal_types::{ApiVersion, Feature, RegisteredProof, SectorSize, Stage};
use serde_json::{Value, json};
use test_support::client::Processor;
use test_support::data;
use test_support::process::{Memory, thread_cpu_ns};
use test_support::revision::Revision;
use test_support::vector::file_digest;

use crate::bench::{
    Chain, build_peer, ensure_parents, median, parents, peer_layer_seconds, stage_data,
    write_result,
};
use crate::cargo::{binary, build_binaries, cargo, target};
use crate::out::{say, step};
use crate::revision::{BaseArgs, Side, compare, turns};

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
    #[command(flatten)]
    base: BaseArgs,
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
    ensure!(args.sectors > 0, "at least one sector");
    let runs = args.base.runs()?;
    build_binaries()?;
    let base = args.base.base(&["pc1-exec"])?;
    let peer = if args.peer { Some(build_peer()?) } else { None };

    let parent = target().join("bench");
    std::fs::create_dir_all(&parent)?;
    let scratch = tempfile::Builder::new().prefix("pc1-").tempdir_in(&parent)?;
    cargo(&["build", "--release", "-p", "benches", "--bin", "labelling"], &[])?;
    let mut bench = Bench::prepare(proof, scratch.path().to_path_buf(), args.sectors)?;
    let (mut ours, mut earlier) = (Vec::new(), Vec::new());
    let (mut theirs, mut chain) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        step(&format!("run {run} of {runs}"));
        chain.push(Chain::measure()?);
        for side in turns(run, base.as_ref()) {
            match (side, &base) {
                (Side::Base, Some(base)) => {
                    earlier.push(bench.by("base", &base.binary("pc1-exec"), args)?);
                }
                _ => ours.push(bench.by("ours", &binary("pc1-exec"), args)?),
            }
        }
        if let Some(peer) = &peer {
            theirs.push(bench.peer(peer)?);
        }
    }
    let runs = Runs { ours, earlier, theirs, chain };
    report(args, &bench, &runs, base.as_ref().map(Revision::short))
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

    /// All sectors at once, by one executor of ours, which is that of `name`.
    fn by(&mut self, name: &str, program: &Path, args: &Args) -> Result<Run> {
        self.clear()?;
        let log = self.dir.join("log");
        let mut command = Command::new(program);
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
        let pid = executor.pid();
        let (answered, memory) = watching(pid, || -> Result<()> {
            for _ in 0..self.expected.len() {
                let answer = executor.answer(Duration::from_secs(48 * 3600))?;
                ensure!(answer.err_msg.is_none(), "{:?}", answer.err_msg);
            }
            Ok(())
        });
        answered?;
        let seconds = started.elapsed().as_secs_f64();
        let producers = thread_cpu_ns(pid, "sdr-p-").filter(|ns| *ns > 0);
        executor.finish()?;
        self.check()?;
        let labels = self.expected.len() as f64
            * self.proof.sector_size().nodes() as f64
            * f64::from(self.proof.porep().layers);
        let log = std::fs::read_to_string(&log)?;
        say(&format!("    {name}  {seconds:>8.2} s"));
        Ok(Run {
            seconds,
            layers: figures(&log, "label_ms").map(|ms| ms / 1000.0).collect(),
            memory,
            producer_ns: producers.map(|ns| ns as f64 / labels),
            percent_local: figures(&log, "percent_local").reduce(f64::min),
        })
    }

    /// One sector after the other, each with both cores.
    fn peer(&mut self, peer: &Path) -> Result<Run> {
        self.clear()?;
        let started = Instant::now();
        let (mut layers, mut memory) = (Vec::new(), Memory::default());
        for sector in 0..self.expected.len() {
            let task = self.dir.join("task.json");
            std::fs::write(&task, self.task(sector).to_string())?;
            let child = Command::new(peer)
                .arg(&task)
                .env("FIL_PROOFS_PARENT_CACHE", parents())
                .env("FIL_PROOFS_USE_MULTICORE_SDR", "1")
                .env("FIL_PROOFS_MULTICORE_SDR_PRODUCERS", "1")
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .context("cannot start the peer")?;
            let (output, peak) = watching(child.id(), || child.wait_with_output());
            let output = output?;
            memory = memory.max(peak);
            let log = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "the peer failed: {log}");
            layers.extend(peer_layer_seconds(&log));
        }
        let seconds = started.elapsed().as_secs_f64();
        self.check()?;
        say(&format!("    peer  {seconds:>8.2} s"));
        Ok(Run { seconds, layers, memory, producer_ns: None, percent_local: None })
    }
}

/// The runs of all sides.
struct Runs {
    ours: Vec<Run>,
    /// Of the revision to compare with.
    earlier: Vec<Run>,
    theirs: Vec<Run>,
    chain: Vec<Chain>,
}

struct Run {
    seconds: f64,
    /// Labelling alone, layer by layer of all sectors.
    layers: Vec<f64>,
    /// The most it had.
    memory: Memory,
    /// Processor time of producers for a label.
    producer_ns: Option<f64>,
    /// Of the layers' pages, those on the node of the cores; none where there is one node only.
    percent_local: Option<f64>,
}

impl Run {
    /// The middle one of its layers.
    fn layer_seconds(&self) -> f64 {
        median(self.layers.iter().copied()).unwrap_or(f64::NAN)
    }
}

/// Does `work` and looks meanwhile how much memory the process `pid` has at most.
fn watching<T>(pid: u32, work: impl FnOnce() -> T) -> (T, Memory) {
    const LOOK_EVERY: Duration = Duration::from_millis(100);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = Memory::default();
            while !done.load(Ordering::Relaxed) {
                peak = Memory::of(pid).unwrap_or_default().max(peak);
                std::thread::sleep(LOOK_EVERY);
            }
            peak
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        (result, watcher.join().unwrap_or_default())
    })
}

/// What the executor's log lines have as `name`.
fn figures(log: &str, name: &str) -> impl Iterator<Item = f64> {
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(move |line| line.get(name)?.as_f64())
}

/// What no label can be faster than: its chain of 19 blocks, each of 32 instructions that wait four
/// cycles for the one before.
const LIMIT_CYCLES: f64 = 19.0 * 32.0 * 4.0;

fn report(args: &Args, bench: &Bench, runs: &Runs, base: Option<&str>) -> Result<()> {
    let of_chains = |figure: fn(&Chain) -> f64| {
        median(runs.chain.iter().map(figure)).context("the chain was measured")
    };
    let chain = of_chains(|chain| chain.as_labelling_runs().0)?;
    let ghz = of_chains(|chain| chain.as_labelling_runs().1)?;
    let alone = of_chains(|chain| chain.chain_ns)?;
    let block = of_chains(|chain| chain.chain_cycles_per_block)?;
    let x2_block = of_chains(|chain| chain.chain_x2_cycles_per_block)?;
    let nodes = bench.proof.sector_size().nodes() as f64;
    let sectors = args.sectors as f64;
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    say("");
    say(&format!("{}, {} at once, {cores} cores", bench.proof, args.sectors));
    say("  side   all sectors  per sector      layer  ns/label   cycles  over chain  sectors/h \
         (per core)  own MiB  files MiB  local");
    let row = |name: &str, runs: &[Run]| -> Option<Value> {
        let seconds = median(runs.iter().map(|run| run.seconds))?;
        let layer = median(runs.iter().flat_map(|run| run.layers.iter().copied()));
        let ns = layer.map(|layer| layer * 1e9 / nodes);
        let memory = runs.iter().fold(Memory::default(), |most, run| most.max(run.memory));
        let local = runs.iter().filter_map(|run| run.percent_local).reduce(f64::min);
        let hourly = sectors * 3600.0 / seconds;
        let text = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        say(&format!(
            "  {name:<5} {seconds:>9.2} s {:>9.2} s {:>8} s {:>9} {:>8} {:>9} % {hourly:>10.2} \
             {:>11.2} {:>8} {:>10} {:>6}",
            seconds / sectors,
            text(layer, 2),
            text(ns, 1),
            text(ns.map(|ns| ns * ghz), 0),
            text(ns.map(|ns| (ns / chain - 1.0) * 100.0), 1),
            hourly / cores,
            memory.own >> 20,
            memory.files >> 20,
            text(local, 0),
        ));
        Some(json!({
            "seconds": seconds, "seconds_per_sector": seconds / sectors,
            "layer_seconds": layer, "ns_per_label": ns,
            "cycles_per_label": ns.map(|ns| ns * ghz),
            "sectors_per_hour": hourly, "sectors_per_hour_and_core": hourly / cores,
            "runs": runs.iter().map(|run| run.seconds).collect::<Vec<_>>(),
            "own_memory_bytes": memory.own, "mapped_file_bytes": memory.files,
            "percent_local": local,
            "producer_ns_per_label": median(runs.iter().filter_map(|run| run.producer_ns)),
        }))
    };
    let us = row("ours", &runs.ours);
    let (earlier, peer) = (row("base", &runs.earlier), row("peer", &runs.theirs));
    say(&format!(
        "  the chain of one lane: {alone:.1} ns a label alone, {chain:.1} ns beside a busy core at \
         {ghz:.2} GHz; no label takes fewer than {LIMIT_CYCLES} cycles"
    ));
    say(&format!(
        "  cycles a block: {block:.1} in one lane, {x2_block:.1} for each of two (aim 74)"
    ));
    if let Some(ns) = us.as_ref().and_then(|us| us["producer_ns_per_label"].as_f64()) {
        say(&format!("  producers take {ns:.1} ns a label (aim 250)"));
    }
    let seconds = |side: &Option<Value>| side.as_ref().and_then(|side| side["seconds"].as_f64());
    let ratio = seconds(&us).zip(seconds(&peer)).map(|(us, peer)| peer / us);
    if let Some(ratio) = ratio {
        say(&format!("  ours is {ratio:.2} times as fast"));
    }
    let compared = base.map(|base| {
        let of = |figure: fn(&Run) -> f64| {
            let side = |runs: &[Run]| runs.iter().map(figure).collect::<Vec<_>>();
            (side(&runs.ours), side(&runs.earlier))
        };
        let (seconds, layers) = (of(|run| run.seconds), of(Run::layer_seconds));
        json!({
            "revision": base, "figures": earlier,
            "seconds": compare("whole PC1", &seconds.0, &seconds.1),
            "layer_seconds": compare("labelling", &layers.0, &layers.1),
        })
    });
    let result = json!({ "ours": us, "base": compared, "peer": peer, "ratio": ratio, "chain_ns": alone,
        "chain_beside_busy_ns": chain, "clock_ghz": ghz, "chain_cycles_per_block": block,
        "chain_x2_cycles_per_block": x2_block, "limit_cycles_per_label": LIMIT_CYCLES,
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
    fn figures_are_taken_from_the_log() {
        let log = "{\"label_ms\":1500,\"message\":\"x\"}\nnot json\n{\"percent_local\":99}\n\
                   {\"percent_local\":null}";
        assert_eq!(figures(log, "label_ms").collect::<Vec<_>>(), [1500.0]);
        assert_eq!(figures(log, "percent_local").collect::<Vec<_>>(), [99.0]);
    }

    #[test]
    fn memory_is_watched_while_work_is_done() {
        let (result, memory) = watching(std::process::id(), || {
            std::thread::sleep(Duration::from_millis(5));
            7
        });
        assert_eq!(result, 7);
        assert!(memory.own > 0, "{memory:?}");
    }
}
