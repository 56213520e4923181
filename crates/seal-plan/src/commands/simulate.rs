//! `seal-plan simulate`: what configurations will deliver.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use seal_config::{LockOrder, StageName};
use seal_types::SectorSize;
use seal_wire::ExitCode;

use super::hardware::MachineArgs;
use super::{check_svg, print, write_svg};
use crate::Scheme;
use crate::picture::draw_courses;
use crate::simulate::{Locks, Options, Report, Supply, Until, WarmUp, show, simulate};
use crate::times::Times;

const DAY: Duration = Duration::from_secs(86_400);

/// No simulation is longer.
const MOST_DAYS: f64 = 7000.0;

const AFTER_HELP: &str = "\
Examples:
  seal-plan simulate --config scheme-b.toml --hardware machine.toml
  seal-plan simulate --config a.toml --config b.toml --hardware machine.toml
                                         two schemes, with a comparison at the end
  seal-plan simulate --config b.toml --locks configured --locks greedy \
                     --times tests/schemes/published.times.toml
                                         the same scheme with and without fair locks, with the times
                                         of published software, whose GPUs are always busy
  seal-plan simulate --config b.toml --times times.toml --days 90 --svg occupancy.svg

A sector passes the stages that the configuration has executors for: PC1, PC2, the wait for the
chain's randomness (75 minutes), C2. Who may start, and where, is decided by the very rules that
seal-supervisor follows: limits, locks and their order, staggered starts, least loaded executor
first, restarts.

Times (--times, may be given several times; what a file does not tell stays as it was):
  - written by hand, as TOML; all keys of a stage can be left out:
      seed_wait = \"75min\"     # between PC2 and C2
      retry_wait = \"1min\"     # before a worker sends a task again that failed
      [pc1]
      time = \"2h 52min\"       # of a task, on average
      lanes = 1               # sectors that shared a unit then; for pc2 and c2: cores = N, gpu = true
      spread = 0.03           # standard deviation as a part of the mean
      fails = 0.001           # share of tasks that end with an error
      dies = \"60days\"         # running of tasks for each death of an executor
      ready = \"20s\"           # from the start of an executor until it is ready
      parts = 11              # parts after which a task can go on when its executor died
    A stage without executors, such as [add_pieces], takes its time in the worker.
  - a result of `cargo xtask bench-pc1` and its like
  - a status with a history: `seal-supervisor status --json`
What no file tells is estimated for the machine, as in `seal-plan calc`. Estimates show which way a
scheme leans; for numbers to rely on, measure.

Exit codes: 0 done, 3 it cannot be simulated, 64 wrong command line.";

/// Simulate what configurations will deliver: sectors a day, how busy cores, GPUs, locks and memory
/// are, who waits how long, who starves.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct SimulateArgs {
    /// The configuration: a venus-worker.toml, or a file with its [processors] section alone. May be
    /// given several times, to compare.
    #[arg(long = "config", value_name = "FILE", required = true)]
    configs: Vec<PathBuf>,
    #[command(flatten)]
    machine: MachineArgs,
    /// Size of the sectors.
    #[arg(long, value_name = "SIZE", default_value = "32GiB")]
    sector_size: SectorSize,
    /// How long the stages take; see below.
    #[arg(long, value_name = "FILE")]
    times: Vec<PathBuf>,
    /// Simulate so many days, the warm-up included.
    #[arg(long, value_name = "NUMBER", default_value = "30", value_parser = days)]
    #[arg(conflicts_with = "sectors")]
    days: Duration,
    /// Simulate until so many sectors are finished after the warm-up.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    sectors: Option<u64>,
    /// How long the machine fills up before anything is counted. Default: a tenth of the days, or
    /// of the sectors.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    warm_up: Option<Duration>,
    /// So many sectors are on their way at all times, as with so many sealing threads. Default: as
    /// many as keep everything busy, and the disks have room for.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    in_flight: Option<u32>,
    /// Sectors come by themselves, one in this time on average, at random.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[arg(conflicts_with = "in_flight")]
    every: Option<Duration>,
    /// With --every: evenly, not at random.
    #[arg(long, requires = "every")]
    evenly: bool,
    /// Who gets locks. May be given several times, to compare.
    #[arg(long, value_name = "ORDER", default_value = "configured")]
    locks: Vec<LockArg>,
    /// Where random numbers begin. The same seed gives the same result.
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    seed: u64,
    /// Print one JSON array with a report for each configuration and order, times in seconds.
    #[arg(long)]
    json: bool,
    /// Draw occupancy over time into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Who gets locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LockArg {
    /// As the configuration says.
    Configured,
    /// All locks: the stages take turns.
    Turns,
    /// All locks: who came first.
    Arrival,
    /// All locks: later stages first.
    Priority,
    /// Whoever looks first, as without a supervisor over all stages: the stage that had a lock has
    /// it again as long as it has more to do.
    Greedy,
}

impl LockArg {
    fn locks(self) -> Locks {
        match self {
            Self::Configured => Locks::AsConfigured,
            Self::Turns => Locks::Ordered(LockOrder::Turns),
            Self::Arrival => Locks::Ordered(LockOrder::Arrival),
            Self::Priority => {
                let stages = StageName::ALL.iter().rev().copied().collect();
                Locks::Ordered(LockOrder::Priority(stages))
            }
            Self::Greedy => Locks::Greedy,
        }
    }
}

fn days(text: &str) -> Result<Duration, String> {
    let days: f64 = text.parse().map_err(|_| "write a number of days, such as 30".to_owned())?;
    if !(days > 0.0 && days <= MOST_DAYS) {
        return Err(format!("write a number of days from 0 to {MOST_DAYS:.0}"));
    }
    Ok(DAY.mul_f64(days))
}

impl SimulateArgs {
    fn options(&self, locks: Locks) -> Options {
        let every = self.every.map(|mean| Supply::Every { mean, random: !self.evenly });
        let until = self.sectors.map_or(Until::Time(self.days), Until::Sectors);
        let warm_up = match (self.warm_up, self.sectors) {
            (Some(time), _) => WarmUp::Time(time),
            (None, Some(sectors)) => WarmUp::Sectors(sectors.div_ceil(10)),
            (None, None) => WarmUp::Time(self.days / 10),
        };
        Options {
            supply: every.or(self.in_flight.map(Supply::InFlight)),
            until,
            warm_up,
            seed: self.seed,
            locks,
        }
    }
}

pub(crate) fn run(args: &SimulateArgs) -> Result<ExitCode> {
    let inputs = args.configs.iter().chain(&args.times).chain(&args.machine.hardware);
    check_svg(args.svg.as_deref(), inputs)?;
    if let (Some(warm_up), None) = (args.warm_up, args.sectors) {
        let (warm_up_shown, days) =
            (humantime::format_duration(warm_up), humantime::format_duration(args.days));
        ensure!(
            warm_up < args.days,
            "--warm-up {warm_up_shown} leaves nothing of {days}; simulate longer with --days"
        );
    }
    ensure!(
        args.every.is_none_or(|every| !every.is_zero()),
        "--every 0s: sectors must have a time between them"
    );
    let hardware = args.machine.read()?;
    let mut times = Times::new(args.sector_size);
    for path in &args.times {
        times.read(path)?;
    }
    let mut reports: Vec<Report> = Vec::new();
    for path in &args.configs {
        let config = seal_config::load(path)?;
        let scheme = Scheme::of(&config, &hardware, args.sector_size);
        for locks in &args.locks {
            let options = args.options(locks.locks());
            let report = simulate(&config, &scheme, &hardware, &times, &options)
                .with_context(|| format!("cannot simulate {}", path.display()))?;
            reports.push(report);
        }
    }
    if let Some(path) = &args.svg {
        write_svg(path, &draw_courses(&reports))?;
    }
    let text =
        if args.json { serde_json::to_string_pretty(&reports)? + "\n" } else { show(&reports) };
    print(&text)?;
    Ok(ExitCode::Success)
}
