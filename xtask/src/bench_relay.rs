//! `cargo xtask bench-relay`: what the supervisor adds to a task, and what it takes itself.
//!
//! Tasks that do nothing go to a scripted executor, one at a time: directly, and through the
//! supervisor under a lock and a limit, so that every task takes both and gives them back.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use seal_types::Stage;
use serde_json::{Value, json};
use test_support::client::Processor;

use crate::bench::write_result;
use crate::cargo::{binary, cargo};
use crate::out::{say, step};
use crate::revision::{BaseArgs, Side, compare, turns};

const STAGE: Stage = Stage::Pc2;

/// Tasks before anything is measured.
const WARM_UP: usize = 500;

/// Nothing here takes that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Options of `bench-relay`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Tasks that are measured.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    tasks: usize,
    #[command(flatten)]
    base: BaseArgs,
    /// Measure too how long a clean release build of the supervisor takes.
    #[arg(long)]
    build: bool,
}

/// What a process takes.
#[derive(Clone, Copy, Debug)]
struct Footprint {
    resident_kib: u64,
    descriptors: usize,
}

/// One way to the executor.
struct Run {
    /// Microseconds of each task, sorted.
    micros: Vec<f64>,
    before: Footprint,
    after: Footprint,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    cargo(&["build", "--release", "--package", "seal-supervisor"], &[])?;
    cargo(&["build", "--release", "--package", "test-support", "--bin", "fake-exec"], &[])?;
    let build_seconds = args.build.then(clean_build).transpose()?;
    let runs = args.base.runs()?;
    let base = args.base.base(&["seal-supervisor"])?;
    let dir = tempfile::tempdir()?;
    let mut direct = Vec::new();
    let (mut relayed, mut earlier) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        step(&format!("run {run} of {runs}: {} tasks, one at a time", args.tasks));
        let mut command = Command::new(binary("fake-exec"));
        direct.push(measure("direct", command.arg(STAGE.name()), args.tasks)?);
        for side in turns(run, base.as_ref()) {
            // Both with the same executor.
            match (side, &base) {
                (Side::Base, Some(base)) => {
                    let mut command = supervisor(&base.binary("seal-supervisor"), dir.path())?;
                    earlier.push(measure("base", &mut command, args.tasks)?);
                }
                _ => {
                    let mut command = supervisor(&binary("seal-supervisor"), dir.path())?;
                    relayed.push(measure("relayed", &mut command, args.tasks)?);
                }
            }
        }
    }
    let medians = |runs: &[Run]| runs.iter().map(|run| run.at(50)).collect::<Vec<_>>();
    let compared = base.as_ref().map(|base| {
        json!({
            "revision": base.short(), "relayed_us": middle(&earlier).map(Run::figures),
            "median_us": compare("a relayed task", &medians(&relayed), &medians(&earlier)),
        })
    });
    let direct = middle(&direct).context("at least one run")?;
    let relayed = middle(&relayed).context("at least one run")?;
    let added = relayed.at(50) - direct.at(50);
    let Footprint { resident_kib: before, descriptors } = relayed.before;
    let Footprint { resident_kib: after, descriptors: descriptors_after } = relayed.after;
    let all = args.tasks + WARM_UP;
    say(&format!("  the supervisor adds {added:.0} µs (median)"));
    say(&format!("  resident {before} KiB after {WARM_UP} tasks, {after} KiB after {all}"));
    say(&format!("  descriptors {descriptors} and {descriptors_after}"));
    if let Some(seconds) = build_seconds {
        say(&format!("  clean release build {seconds:.1} s"));
    }
    write_result(
        "relay",
        json!({
            "tasks": args.tasks, "warm_up": WARM_UP, "runs": runs, "base": compared,
            "direct_us": direct.figures(), "relayed_us": relayed.figures(),
            "added_median_us": added,
            "resident_kib": { "after_warm_up": before, "at_the_end": after },
            "descriptors": { "after_warm_up": descriptors, "at_the_end": descriptors_after },
            "clean_build_seconds": build_seconds,
        }),
    )
}

/// The run whose median is the middle one, the slower of two.
fn middle(runs: &[Run]) -> Option<&Run> {
    let mut sorted: Vec<_> = runs.iter().collect();
    sorted.sort_by(|one, other| one.at(50).total_cmp(&other.at(50)));
    sorted.get(sorted.len() / 2).copied()
}

/// Seconds of a release build of the supervisor where nothing was built before.
fn clean_build() -> Result<f64> {
    let target = tempfile::tempdir()?;
    let variable = ("CARGO_TARGET_DIR", target.path().as_os_str());
    let begin = Instant::now();
    cargo(&["build", "--release", "--package", "seal-supervisor"], &[variable])?;
    Ok(begin.elapsed().as_secs_f64())
}

/// The supervisor with the scripted executor, whose tasks take a lock and have a limit.
fn supervisor(program: &Path, dir: &Path) -> Result<Command> {
    let fake = binary("fake-exec");
    let stage = STAGE.name();
    let config = format!(
        "[supervisor]\ncgroup = 'never'\n\
         [processors.limitation.concurrent]\n{stage} = 1\n\
         [processors.ext_locks]\ngpu1 = 1\n\
         [[processors.{stage}]]\nbin = {:?}\nargs = ['{stage}']\nlocks = ['gpu1']\n",
        fake.to_str().context("the build directory's path is UTF-8")?
    );
    let file = dir.join("relay.toml");
    std::fs::write(&file, config)?;
    let mut command = Command::new(program);
    command.args(["processor", stage, "--config"]).arg(file);
    command.arg("--runtime-dir").arg(dir.join("run")).env("RUST_LOG", "info");
    Ok(command)
}

fn measure(name: &str, command: &mut Command, tasks: usize) -> Result<Run> {
    let mut processor = Processor::start(STAGE, command.stderr(Stdio::null()), PATIENCE)?;
    for _ in 0..WARM_UP {
        ask(&mut processor)?;
    }
    let before = Footprint::of(processor.pid())?;
    let mut micros = Vec::with_capacity(tasks);
    for _ in 0..tasks {
        micros.push(ask(&mut processor)?.as_secs_f64() * 1e6);
    }
    let after = Footprint::of(processor.pid())?;
    micros.sort_by(f64::total_cmp);
    let run = Run { micros, before, after };
    say(&format!("  {name:<8} median {:.0} µs, 99 % within {:.0} µs", run.at(50), run.at(99)));
    Ok(run)
}

/// How long a task takes that does nothing.
fn ask(processor: &mut Processor) -> Result<Duration> {
    let begin = Instant::now();
    let id = processor.send(&json!([{ "answer": 0 }]))?;
    let line = processor.line(PATIENCE)?;
    let took = begin.elapsed();
    let answer: Value = serde_json::from_str(&line)?;
    ensure!(answer["id"] == id && answer["output"] == 0, "an unexpected answer: {line}");
    Ok(took)
}

impl Footprint {
    fn of(pid: u32) -> Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident =
            resident.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse().ok());
        Ok(Self {
            resident_kib: resident.context("/proc tells no resident memory")?,
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
        })
    }
}

impl Run {
    /// Microseconds within which so many percent of the tasks were answered.
    fn at(&self, percent: usize) -> f64 {
        let last = self.micros.len().saturating_sub(1);
        self.micros.get(last * percent / 100).copied().unwrap_or_default()
    }

    fn figures(&self) -> Value {
        json!({ "median": self.at(50), "p90": self.at(90), "p99": self.at(99) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_times() {
        let none = Footprint { resident_kib: 0, descriptors: 0 };
        let micros = (0..=100).map(f64::from).collect();
        let run = Run { micros, before: none, after: none };
        assert_eq!([0, 50, 99, 100].map(|percent| run.at(percent)), [0.0, 50.0, 99.0, 100.0]);
        assert_eq!(Run { micros: Vec::new(), ..run }.at(50), 0.0);
    }

    #[test]
    fn the_middle_run_stands_for_all() {
        let none = Footprint { resident_kib: 0, descriptors: 0 };
        let run = |micros| Run { micros: vec![micros], before: none, after: none };
        let runs = [run(3.0), run(1.0), run(2.0)];
        assert_eq!(middle(&runs).map(|run| run.at(50)), Some(2.0));
        assert_eq!(middle(&runs[..2]).map(|run| run.at(50)), Some(3.0));
        assert!(middle(&[]).is_none());
    }

    #[test]
    fn a_process_has_memory_and_descriptors() {
        let own = Footprint::of(std::process::id()).expect("this process");
        assert!(own.resident_kib > 0 && own.descriptors >= 3);
    }
}
