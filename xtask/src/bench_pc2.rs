//! `cargo xtask bench-pc2`: PC2 of a whole sector by the stage's own binary, and by the published
//! crates beside it, in turn on the same cores and the same files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use seal_types::{ApiVersion, Feature, Porep, RegisteredProof, SectorSize, Stage};
use serde_json::{Value, json};
use test_support::client::Processor;
use test_support::data;
use test_support::revision::Revision;
use test_support::vector::file_digest;

use crate::bench::{
    build_peer, ensure_parents, median, parents, peak_memory, peak_of, stage_data, write_result,
};
use crate::bench_gpu::{self, GpuArgs};
use crate::cargo::{binary, build_binaries, target};
use crate::out::{say, step};
use crate::revision::{BaseArgs, Side, compare, turns};

/// Options of `bench-pc2`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Size of the sector.
    #[arg(long, value_name = "SIZE", default_value = "512MiB")]
    sector_size: SectorSize,
    #[command(flatten)]
    base: BaseArgs,
    /// Do the same work by filecoin-proofs 19.1 on the CPU, in turn, and compare all files byte
    /// for byte. Needs libhwloc.
    #[arg(long)]
    peer: bool,
    /// Memory for buffers in MiB; default: what pc2-exec takes.
    #[arg(long, value_name = "MIB")]
    memory_mib: Option<u64>,
    /// Force a kernel, as SEAL_FORCE_ISA does: portable, fma or ifma.
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    #[command(flatten)]
    gpu: GpuArgs,
}

/// Modular multiplications of a hash by arity, in the form with sparse matrices.
const MULTIPLICATIONS: [(u32, u64); 3] = [(2, 578), (8, 1932), (11, 2790)];

/// What asks pc2-exec for a GPU.
const COLUMN_FLAG: &str = "FIL_PROOFS_USE_GPU_COLUMN_BUILDER";
const TREE_FLAG: &str = "FIL_PROOFS_USE_GPU_TREE_BUILDER";

struct Bench {
    proof: RegisteredProof,
    /// Kept from run to run: `cache` with layers and tree D, the data as `staged`, the output of
    /// PC1 as `pc1.json`.
    dir: PathBuf,
    pc1out: Value,
    /// SHA-256 of every result by name, once somebody has made it.
    expected: Option<BTreeMap<String, String>>,
}

/// The runs of all sides.
struct Runs {
    ours: Vec<Run>,
    /// Of the revision to compare with.
    earlier: Vec<Run>,
    theirs: Vec<Run>,
}

struct Run {
    seconds: f64,
    memory: Option<u64>,
    /// What pc2-exec logged at the end.
    report: Option<Value>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(size) = args.gpu.equivalent {
        return bench_gpu::equivalent(size);
    }
    let proof = RegisteredProof::find(args.sector_size, ApiVersion::V1_1, Feature::Interactive)
        .with_context(|| format!("sectors of {} have no registered proof", args.sector_size))?;
    let runs = args.base.runs()?;
    build_binaries()?;
    let base = args.base.base(&["pc2-exec"])?;
    if args.gpu.gpu {
        bench_gpu::build_pc2_exec()?;
    }
    let peer = if args.peer { Some(build_peer()?) } else { None };
    let mut bench = Bench::prepare(proof)?;
    let mut rates = rates(&binary("pc2-exec"))?;
    if let Some(peer) = &peer {
        rates.extend(self::rates(peer)?);
    }
    let (mut ours, mut earlier, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for run in 1..=runs {
        step(&format!("run {run} of {runs}"));
        for side in turns(run, base.as_ref()) {
            match (side, &base) {
                (Side::Base, Some(base)) => {
                    earlier.push(bench.by("base", &base.binary("pc2-exec"), args)?);
                }
                _ => ours.push(bench.by("ours", &binary("pc2-exec"), args)?),
            }
        }
        if let Some(peer) = &peer {
            theirs.push(bench.peer(peer)?);
        }
    }
    bench.clear()?;
    let runs = Runs { ours, earlier, theirs };
    report(args, proof, &rates, &runs, base.as_ref().map(Revision::short))
}

impl Bench {
    /// Does PC1, unless an earlier run has left a whole one.
    fn prepare(proof: RegisteredProof) -> Result<Self> {
        let dir = target().join(format!("bench/pc2-{proof}"));
        let kept = dir.join("pc1.json");
        if !kept.exists() {
            step(&format!("PC1 of a sector of {proof}, kept in {}", dir.display()));
            if dir.exists() {
                fs::remove_dir_all(&dir)?;
            }
            fs::create_dir_all(dir.join("cache"))?;
            let output = pc1(proof, &dir)?;
            fs::write(&kept, output)?;
        }
        let pc1out = serde_json::from_slice(&fs::read(&kept)?)?;
        Ok(Self { proof, dir, pc1out, expected: None })
    }

    fn cache(&self) -> PathBuf {
        self.dir.join("cache")
    }

    fn sealed(&self) -> PathBuf {
        self.dir.join("sealed")
    }

    fn task(&self) -> Value {
        json!({ "pc1out": self.pc1out, "cache_dir": self.cache(), "sealed_file": self.sealed() })
    }

    /// What PC2 makes, as far as it is there.
    fn results(&self) -> Result<Vec<PathBuf>> {
        let mut results = Vec::new();
        for entry in fs::read_dir(self.cache())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if ["p_aux", "t_aux"].contains(&&*name)
                || name.contains("tree-c")
                || name.contains("tree-r-last")
            {
                results.push(path);
            }
        }
        results.extend(Some(self.sealed()).filter(|sealed| sealed.exists()));
        Ok(results)
    }

    fn clear(&self) -> Result<()> {
        for path in self.results()? {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    /// As PC1 leaves the sector, with nothing left to be brought to disk.
    fn restore(&self) -> Result<()> {
        self.clear()?;
        fs::copy(self.dir.join("staged"), self.sealed())?;
        File::open(self.sealed())?.sync_all()?;
        Ok(())
    }

    /// A result counts only if all sides made the same bytes.
    fn check(&mut self) -> Result<()> {
        let mut found = BTreeMap::new();
        for path in self.results()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.insert(name, file_digest(&path)?.sha256);
        }
        let expected = self.expected.get_or_insert_with(|| found.clone());
        for name in expected.keys().chain(found.keys()) {
            ensure!(expected.get(name) == found.get(name), "{name} differs between the runs");
        }
        let trees = self.proof.porep().shape.base_trees() as usize;
        ensure!(found.len() == 2 * trees + 3, "these files were made: {:?}", found.keys());
        Ok(())
    }

    /// By an executor of ours, which is that of `name`.
    fn by(&mut self, name: &str, program: &Path, args: &Args) -> Result<Run> {
        self.restore()?;
        let log = self.dir.join("log");
        let mut command = Command::new(program);
        command.env("RUST_LOG", "info").stderr(Stdio::from(File::create(&log)?));
        if let Some(memory_mib) = args.memory_mib {
            command.args(["--memory-mib", &memory_mib.to_string()]);
        }
        if let Some(kernel) = &args.kernel {
            command.env("SEAL_FORCE_ISA", kernel);
        }
        // What is measured is decided here, not by what the shell happens to have set; without a
        // GPU the measurement fails instead of being one of the CPU.
        for name in [COLUMN_FLAG, TREE_FLAG, "SEAL_GPU"] {
            command.env_remove(name);
        }
        if args.gpu.gpu {
            command.env(TREE_FLAG, "1");
        }
        let mut executor = Processor::start(Stage::Pc2, &mut command, Duration::from_secs(30))?;
        let started = Instant::now();
        executor.call(&self.task(), Duration::from_secs(48 * 3600))?;
        let seconds = started.elapsed().as_secs_f64();
        let memory = peak_memory(executor.pid());
        executor.finish()?;
        self.check()?;
        let report = last_report(&fs::read_to_string(&log)?);
        say(&format!("    {name}  {seconds:>8.2} s"));
        Ok(Run { seconds, memory, report })
    }

    fn peer(&mut self, peer: &Path) -> Result<Run> {
        self.restore()?;
        let task = self.dir.join("task.json");
        fs::write(&task, self.task().to_string())?;
        let started = Instant::now();
        let output = Command::new(peer).arg(&task).output().context("cannot start the peer")?;
        let seconds = started.elapsed().as_secs_f64();
        let log = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the peer failed: {log}");
        self.check()?;
        say(&format!("    peer  {seconds:>8.2} s"));
        Ok(Run { seconds, memory: peak_of(&log), report: None })
    }
}

/// PC1 of a sector in `dir`. Returns its output.
fn pc1(proof: RegisteredProof, dir: &Path) -> Result<Vec<u8>> {
    let pieces = stage_data(proof, dir)?;
    ensure_parents(proof)?;
    let task = json!({
        "registered_proof": proof.to_string(),
        "cache_path": dir.join("cache"), "in_path": dir.join("staged"),
        "out_path": dir.join("sealed"),
        "prover_id": data::derive("prover", "bench"), "sector_id": 1,
        "ticket": data::derive("ticket", "bench"), "piece_infos": pieces,
    });
    let file = dir.join("task.json");
    fs::write(&file, task.to_string())?;
    File::create(dir.join("sealed"))?;
    let output = Command::new(binary("pc1-exec"))
        .args(["run", "--task"])
        .arg(&file)
        .env("FIL_PROOFS_PARENT_CACHE", parents())
        .output()
        .context("cannot start pc1-exec")?;
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "PC1 failed: {log}");
    Ok(output.stdout)
}

/// The rates that pc2-exec or the peer measures, one thread each.
fn rates(program: &Path) -> Result<Vec<Value>> {
    step(&format!("{} rates", program.display()));
    let output = Command::new(program).arg("rates").output()?;
    ensure!(output.status.success(), "{} rates failed", program.display());
    let lines = String::from_utf8(output.stdout)?;
    lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// What pc2-exec says at the end of a sector.
fn last_report(log: &str) -> Option<Value> {
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .rfind(|line| line.get("trees_ms").is_some())
}

/// Hashes of a sector by arity. The few that join base trees are left out.
fn hashes(porep: &Porep) -> Vec<(u32, u64)> {
    let trees = u64::from(porep.shape.base_trees());
    let base = u64::from(porep.shape.base);
    let rows = 2 * trees * (porep.base_tree_leaves() - 1) / (base - 1);
    vec![(porep.layers, porep.nodes()), (porep.shape.base, rows)]
}

/// The multiplications that hashes stand for.
fn multiplications(hashes: &[(u32, u64)]) -> f64 {
    let of = |arity| MULTIPLICATIONS.iter().find(|(a, _)| *a == arity).map_or(0, |(_, m)| *m);
    hashes.iter().map(|(arity, count)| (of(*arity) * count) as f64).sum()
}

fn report(
    args: &Args,
    proof: RegisteredProof,
    rates: &[Value],
    runs: &Runs,
    base: Option<&str>,
) -> Result<()> {
    let hashes = hashes(&proof.porep());
    let multiplications = multiplications(&hashes);
    say("");
    rates_table(rates);
    let counts: Vec<_> =
        hashes.iter().map(|(arity, count)| format!("{count} of arity {arity}")).collect();
    say("");
    say(&format!(
        "{proof}: hashes {}, {:.3e} multiplications",
        counts.join(" and "),
        multiplications
    ));
    say("  side      seconds   hashes/s  multiplications/s  peak memory");
    let us = row("ours", &runs.ours, &hashes);
    let earlier = row("base", &runs.earlier, &hashes);
    let peer = row("peer", &runs.theirs, &hashes);
    let last = runs.ours.iter().rev().find_map(|run| run.report.as_ref());
    if let Some(last) = last {
        parts(last);
    }
    let at = |rate| last.and_then(|last| seconds_at(rate, last, &hashes, rates));
    let (hashing, limit) = (at("hashes"), at("limit"));
    if let Some(us) = us.as_ref().and_then(|us| us["seconds"].as_f64()) {
        let compare = |limit: Option<f64>, what: &str| {
            let Some(limit) = limit else { return };
            let more = (us / limit - 1.0) * 100.0;
            say(&format!("  {what} {limit:.2} s on all threads: ours takes {more:.1} % more"));
        };
        compare(hashing, "the hashes alone at the rates above take");
        compare(limit, "the multipliers alone, never idle, take");
    }
    let seconds = |side: &Option<Value>| side.as_ref().and_then(|side| side["seconds"].as_f64());
    let ratio = seconds(&us).zip(seconds(&peer)).map(|(us, peer)| peer / us);
    if let Some(ratio) = ratio {
        say(&format!("  ours is {ratio:.2} times as fast, and all files are the same bytes"));
    }
    let compared = base.map(|base| {
        let side = |runs: &[Run]| runs.iter().map(|run| run.seconds).collect::<Vec<_>>();
        json!({
            "revision": base, "figures": earlier,
            "seconds": compare("PC2", &side(&runs.ours), &side(&runs.earlier)),
        })
    });
    let result = json!({
        "proof": proof.to_string(), "ours": us, "base": compared, "peer": peer, "ratio": ratio,
        "hashes": hashes.iter().map(|(arity, count)| json!({ "arity": arity, "count": count }))
            .collect::<Vec<_>>(),
        "multiplications": multiplications, "hashing_seconds": hashing,
        "multipliers_seconds": limit, "rates_of_one_thread": rates,
    });
    write_result(&format!("pc2-{}", args.sector_size), json!({ "result": result }))
}

/// Rates of one thread, beside the limit of its multipliers and the published hash.
fn rates_table(rates: &[Value]) {
    say("  one thread:");
    say("  kernel      arity    hashes/s  cycles a hash  multiplications/s  \
         of the multipliers' limit  neptune's");
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for rate in rates {
        let hashes = rate["hashes"].as_f64();
        let limit = hashes.zip(rate["limit"].as_f64());
        let published = rates
            .iter()
            .find(|other| other["kernel"] == "neptune" && other["arity"] == rate["arity"])
            .and_then(|other| hashes.zip(other["hashes"].as_f64()));
        say(&format!(
            "  {:<10} {:>6} {:>11} {:>14} {:>16.1} M {:>26} {:>10}",
            rate["kernel"].as_str().unwrap_or("-"),
            or_dash(rate["arity"].as_u64().map(|arity| arity.to_string())),
            or_dash(hashes.map(|hashes| format!("{hashes:.0}"))),
            or_dash(rate["cycles"].as_f64().map(|cycles| format!("{cycles:.0}"))),
            rate["multiplications"].as_f64().unwrap_or(0.0) / 1e6,
            or_dash(limit.map(|(hashes, limit)| format!("{:.1} %", hashes / limit * 100.0))),
            or_dash(published.map(|(ours, other)| format!("{:.2} x", ours / other))),
        ));
    }
}

fn row(name: &str, runs: &[Run], hashes: &[(u32, u64)]) -> Option<Value> {
    let seconds = median(runs.iter().map(|run| run.seconds))?;
    let memory = runs.iter().filter_map(|run| run.memory).max();
    let count: u64 = hashes.iter().map(|(_, count)| count).sum();
    let rate = multiplications(hashes) / seconds;
    say(&format!(
        "  {name:<5} {seconds:>9.2} s {:>10.0} {:>16.1} M {:>10}",
        count as f64 / seconds,
        rate / 1e6,
        memory.map_or_else(|| "-".to_owned(), |bytes| format!("{} MiB", bytes >> 20)),
    ));
    Some(json!({
        "seconds": seconds, "runs": runs.iter().map(|run| run.seconds).collect::<Vec<_>>(),
        "hashes_per_second": count as f64 / seconds, "multiplications_per_second": rate,
        "peak_memory_bytes": memory,
        "reports": runs.iter().filter_map(|run| run.report.as_ref()).collect::<Vec<_>>(),
    }))
}

/// Time and bytes of the parts of a run of ours.
fn parts(report: &Value) {
    let number = |name: &str| report[name].as_f64().unwrap_or(0.0);
    let (trees, mib) = (number("trees_ms") / 1000.0, f64::from(1 << 20));
    say(&format!(
        "  {}, blocks of {} nodes, {:.0} MiB of them; direct reads {}, direct writes {}, layers \
         checked {}",
        report["device"].as_str().unwrap_or("-"),
        number("block_nodes"),
        number("memory_bytes") / mib,
        report["direct_reads"],
        report["direct_writes"],
        report["layers_checked"],
    ));
    say("  part                         time   threads busy     MiB   MiB/s while busy");
    for (part, threads, time, bytes) in [
        ("reading, digests, tree D", "readers", "reading_ms", Some("read_bytes")),
        ("hashing", "workers", "computing_ms", None),
        ("writing", "writers", "writing_ms", Some("written_bytes")),
    ] {
        let busy = number(time) / 1000.0;
        let share = busy / (trees * number(threads)).max(f64::MIN_POSITIVE) * 100.0;
        let rate = bytes.map_or_else(String::new, |bytes| {
            let amount = number(bytes) / mib;
            format!("{amount:>11.0} {:>10.0}", amount / busy)
        });
        say(&format!(
            "    {part:<24} {busy:>6.2} s {:>3.0} x {share:>4.0} %{rate}",
            number(threads)
        ));
    }
    say(&format!("  columns, replica, trees    {trees:>6.2} s"));
    say(&format!("  self-check                 {:>6.2} s", number("self_check_ms") / 1000.0));
    say(&format!("  files to disk              {:>6.2} s", number("publish_ms") / 1000.0));
}

/// Whether a device computes with a kernel: its whole name, as `fma` is a part of `ifma`.
fn is_by(device: &str, kernel: &str) -> bool {
    device.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == kernel)
}

/// How long the hashes of a sector take on all threads of the kernel in `report` at the rate of
/// this name in `rates`.
fn seconds_at(rate: &str, report: &Value, hashes: &[(u32, u64)], rates: &[Value]) -> Option<f64> {
    let device = report["device"].as_str()?;
    let threads = report["workers"].as_f64()?;
    let one = |(arity, count): &(u32, u64)| {
        let of_kernel = rates.iter().find(|rate| {
            rate["arity"].as_u64() == Some((*arity).into())
                && rate["kernel"].as_str().is_some_and(|kernel| is_by(device, kernel))
        })?;
        Some(*count as f64 / of_kernel[rate].as_f64()?)
    };
    let seconds: Option<f64> = hashes.iter().map(one).sum();
    Some(seconds? / threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_has_the_known_number_of_hashes() {
        let porep = "StackedDrg32GiBV1_1".parse::<RegisteredProof>().expect("a proof").porep();
        // The two hashes that join eight base trees are left out.
        assert_eq!(hashes(&porep), [(11, 1 << 30), (8, 306_783_378 - 2)]);
        let total = multiplications(&hashes(&porep));
        assert!((3.58e12..3.60e12).contains(&total), "{total}");
    }

    #[test]
    fn the_last_report_is_found_in_a_log() {
        let log = "{\"trees_ms\":1}\nnot json\n{\"trees_ms\":2}\n{\"message\":\"other\"}\n";
        assert_eq!(last_report(log).map(|report| report["trees_ms"].clone()), Some(json!(2)));
        assert_eq!(last_report("nothing"), None);
    }

    #[test]
    fn the_limit_is_that_of_the_kernel_in_use() {
        let rate = |kernel, arity, hashes: f64, limit: Option<f64>| json!({ "kernel": kernel, "arity": arity, "hashes": hashes, "limit": limit });
        let rates = [
            rate("portable", 2, 10.0, None),
            rate("fma", 2, 40.0, Some(80.0)),
            rate("ifma", 2, 100.0, Some(200.0)),
            rate("ifma", 8, 50.0, Some(50.0)),
        ];
        let report = json!({ "device": "cpu (Poseidon ifma, 2 threads)", "workers": 2 });
        let hashes = [(2, 400), (8, 100)];
        assert_eq!(seconds_at("hashes", &report, &hashes, &rates), Some(3.0));
        assert_eq!(seconds_at("limit", &report, &hashes, &rates), Some(2.0));
        assert_eq!(seconds_at("hashes", &report, &[(11, 400)], &rates), None);
        let fma = json!({ "device": "cpu (Poseidon fma, 2 threads)", "workers": 2 });
        assert_eq!(seconds_at("limit", &fma, &[(2, 400)], &rates), Some(2.5));
        let portable = json!({ "device": "cpu (Poseidon portable, 2 threads)", "workers": 2 });
        assert_eq!(seconds_at("limit", &portable, &[(2, 400)], &rates), None);
    }
}
