//! `cargo xtask bench-parents`: a parents cache from nothing to a file with its digest, by
//! `pc1-exec parents` and by the published crates beside it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use seal_types::{ApiVersion, Feature, RegisteredProof, SectorSize};
use serde_json::{Value, json};
use test_support::vector::file_digest;

use crate::bench::{build_peer, median, write_result};
use crate::cargo::{binary, build_binaries, target};
use crate::out::{say, step};
use crate::revision::{BaseArgs, Side, compare, turns};

/// Options of `bench-parents`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Size of the sectors whose graph it is, of API version 1.1. The cache takes 1.75 times as
    /// much disk.
    #[arg(long, value_name = "SIZE", default_value = "512MiB")]
    sector_size: SectorSize,
    #[command(flatten)]
    base: BaseArgs,
    /// Do the same work by storage-proofs-porep 19.1, in turn. Needs libhwloc.
    #[arg(long)]
    peer: bool,
}

/// What one side took for one cache.
struct Run {
    seconds: f64,
    /// Of all cores.
    cpu_seconds: f64,
    sha256: String,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let runs = args.base.runs()?;
    let proof = RegisteredProof::find(args.sector_size, ApiVersion::V1_1, Feature::Interactive)
        .with_context(|| format!("sectors of {} have no registered proof", args.sector_size))?;
    build_binaries()?;
    let base = args.base.base(&["pc1-exec"])?;
    let peer = if args.peer { Some(build_peer()?) } else { None };
    let parent = target().join("bench");
    std::fs::create_dir_all(&parent)?;
    let (mut ours, mut earlier, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for run in 1..=runs {
        step(&format!("run {run} of {runs}"));
        for side in turns(run, base.as_ref()) {
            let (name, program, into) = match (side, &base) {
                (Side::Base, Some(base)) => ("base", base.binary("pc1-exec"), &mut earlier),
                _ => ("ours", binary("pc1-exec"), &mut ours),
            };
            let mut command = Command::new(program);
            command.args(["parents", "--proof", &proof.to_string()]);
            into.push(timed(name, command, &parent)?);
        }
        if let Some(peer) = &peer {
            let task = tempfile::Builder::new().prefix("parents-").tempfile_in(&parent)?;
            let porep = proof.porep();
            let request =
                json!({ "nodes": proof.sector_size().nodes(), "porep_id": porep.porep_id.0 });
            std::fs::write(task.path(), request.to_string())?;
            let mut command = Command::new(peer);
            command.arg(task.path());
            theirs.push(timed("peer", command, &parent)?);
        }
    }
    let first = ours.first().context("at least one run")?;
    for run in ours.iter().chain(&earlier).chain(&theirs) {
        ensure!(run.sha256 == first.sha256, "{} is not {}", run.sha256, first.sha256);
    }
    say(&format!("  all made the cache with the SHA-256 {}", first.sha256));
    let ratio = |figure: fn(&Run) -> f64| {
        let of = |runs: &[Run]| median(runs.iter().map(figure));
        of(&theirs).zip(of(&ours)).map(|(theirs, ours)| theirs / ours)
    };
    let (wall, cpu) = (ratio(|run| run.seconds), ratio(|run| run.cpu_seconds));
    if let Some((wall, cpu)) = wall.zip(cpu) {
        say(&format!("  ours is {wall:.1} times as fast, and takes 1/{cpu:.1} of the processor"));
    }
    let compared = base.map(|base| {
        let side = |runs: &[Run]| runs.iter().map(|run| run.seconds).collect::<Vec<_>>();
        json!({
            "revision": base.short(), "figures": figures(&earlier),
            "seconds": compare("a parents cache", &side(&ours), &side(&earlier)),
        })
    });
    let result = json!({
        "base": compared,
        "proof": proof.to_string(), "sha256": first.sha256, "ours": figures(&ours),
        "peer": (!theirs.is_empty()).then(|| figures(&theirs)), "ratio": wall, "cpu_ratio": cpu,
    });
    write_result(&format!("parents-{}", args.sector_size), json!({ "result": result }))
}

/// Runs `command`, which makes one cache in a directory of its own.
fn timed(name: &str, mut command: Command, parent: &Path) -> Result<Run> {
    let dir = tempfile::Builder::new().prefix("parents-").tempdir_in(parent)?;
    command.env("FIL_PROOFS_PARENT_CACHE", dir.path());
    let (began, before) = (Instant::now(), children_seconds()?);
    let output = command.stdout(Stdio::null()).output();
    let output =
        output.with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let (seconds, cpu_seconds) = (began.elapsed().as_secs_f64(), children_seconds()? - before);
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed: {log}");
    let cache = std::fs::read_dir(dir.path())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "cache"))
        .with_context(|| format!("{name} has left no cache: {log}"))?;
    say(&format!("    {name}  {seconds:>8.2} s, {cpu_seconds:>8.2} s of processor"));
    Ok(Run { seconds, cpu_seconds, sha256: file_digest(&cache)?.sha256 })
}

/// Processor time of the children that have ended.
fn children_seconds() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(time as f64 / 1e6)
}

fn figures(runs: &[Run]) -> Value {
    json!({
        "seconds": runs.iter().map(|run| run.seconds).collect::<Vec<_>>(),
        "cpu_seconds": runs.iter().map(|run| run.cpu_seconds).collect::<Vec<_>>(),
    })
}
