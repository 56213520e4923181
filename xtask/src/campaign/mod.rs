//! `cargo xtask campaign`: faults put into everything that runs, by a seed, so that each case can be
//! repeated. Nothing may come of them but the same bytes or a clear error.

mod files;
mod kills;
mod limits;
mod mutate;
mod mutations;
mod namespaces;
mod outcome;
mod phase;
mod program;
mod restarts;
#[cfg(test)]
mod script;
mod subject;
mod trees;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::bench::write_result;
use crate::cargo::{build_binaries, target};
use crate::out::{say, step};
use outcome::{Outcome, Tally, Verdict};
use subject::Binaries;

/// Small sectors, where there are many cases.
const SMALL: &str = "2KiB-v1_1-a";
/// Sectors with phases that can be hit.
const MIDDLE: &str = "8MiB-v1_1-a";
const LARGE: &str = "512MiB-v1_1-a";

/// Of each part no more failing cases than this are kept.
const KEPT: usize = 5;

/// Options of `campaign`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// How long it goes on. Without it, and without counts, ten minutes.
    #[arg(long, value_name = "N")]
    minutes: Option<f64>,
    /// What decides everything that is done.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Only these parts.
    #[arg(long, value_name = "PART", value_delimiter = ',', value_enum)]
    only: Vec<Name>,
    /// Only the case with this number of the one part named by --only.
    #[arg(long, value_name = "N")]
    case: Option<u64>,
    /// End kills after so many of each of PC1, PC2 and supervisors; stops and pauses come beside.
    #[arg(long, value_name = "N")]
    kills: Option<u64>,
    /// Do so many kills and stops with 512 MiB first, before those with 8 MiB.
    #[arg(long, value_name = "N", default_value_t = 0)]
    large: u64,
    /// End errors at file calls after so many.
    #[arg(long, value_name = "N")]
    errors: Option<u64>,
    /// End mutations after so many lines and files.
    #[arg(long, value_name = "N")]
    mutations: Option<u64>,
    /// End restarts after so many tasks.
    #[arg(long, value_name = "N")]
    tasks: Option<u64>,
    /// All that a release is judged by, however long it takes: 300 kills of each, 1,000 in all and
    /// 20 in each phase, 30 of them with 512 MiB, 2,000 errors, 20,000 mutations, 10,000 tasks.
    #[arg(long, conflicts_with_all = ["minutes", "only", "case"])]
    whole: bool,
}

impl Args {
    /// For so many minutes.
    pub(crate) fn minutes(minutes: f64) -> Self {
        Self {
            minutes: Some(minutes),
            seed: 1,
            only: Vec::new(),
            case: None,
            kills: None,
            large: 0,
            errors: None,
            mutations: None,
            tasks: None,
            whole: false,
        }
    }

    /// After so many cases, or tries, a part has done what is asked of it.
    fn goal(&self, name: Name) -> Option<u64> {
        let whole = |count: u64| self.whole.then_some(count);
        match name {
            Name::Kills => self.kills.or(whole(300)),
            Name::Files => self.errors.or(whole(2000)),
            Name::Limits => whole(300),
            Name::Mutations => self.mutations.or(whole(20_000)),
            Name::Restarts => self.tasks.or(whole(10_000)),
            Name::Namespaces => whole(60),
        }
    }
}

/// The parts of a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Name {
    Kills,
    Files,
    Limits,
    Mutations,
    Restarts,
    Namespaces,
}

impl Name {
    const ALL: [Self; 6] =
        [Self::Kills, Self::Files, Self::Limits, Self::Mutations, Self::Restarts, Self::Namespaces];

    fn text(self) -> &'static str {
        match self {
            Self::Kills => "kills",
            Self::Files => "files",
            Self::Limits => "limits",
            Self::Mutations => "mutations",
            Self::Restarts => "restarts",
            Self::Namespaces => "namespaces",
        }
    }

    /// What share of the time it gets.
    fn weight(self) -> f64 {
        match self {
            Self::Kills => 5.0,
            Self::Files => 3.0,
            Self::Mutations => 2.0,
            Self::Limits | Self::Restarts | Self::Namespaces => 1.0,
        }
    }
}

/// A part of the campaign.
trait Part {
    /// Does the case with this number. Everything in it is drawn from `rng`.
    fn case(&mut self, number: u64, rng: &mut ChaCha8Rng) -> Result<Vec<Outcome>>;

    /// How much of the goal is reached, where that is not the number of tries.
    fn reached(&self) -> Option<u64> {
        None
    }

    /// What can be told at the end only.
    fn finish(&mut self) -> Result<Vec<Outcome>> {
        Ok(Vec::new())
    }
}

/// A part at work.
struct Running {
    name: Name,
    part: Box<dyn Part>,
    dir: PathBuf,
    used: Duration,
    next: u64,
    failing: usize,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    build_binaries()?;
    run_built(args, true)
}

/// The same with the binaries that are there. The result is kept if `keep` says so.
pub(crate) fn run_built(args: &Args, keep: bool) -> Result<()> {
    ensure!(
        args.case.is_none() || args.only.len() == 1,
        "--case is that of one part; name it by --only"
    );
    let parent = target().join("campaign");
    fs::create_dir_all(&parent)?;
    let scratch = tempfile::Builder::new().prefix("run-").tempdir_in(&parent)?;
    let scratch = scratch.path().canonicalize()?;
    let binaries = Binaries { dir: target().join("release").canonicalize()? };
    let counts = [args.kills, args.errors, args.mutations, args.tasks];
    let counted = args.whole || counts.iter().any(Option::is_some);
    let minutes = args.minutes.or((!counted).then_some(10.0));
    let limit = minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    let began = Instant::now();
    let mut tally = Tally::default();
    let names: Vec<_> = Name::ALL
        .into_iter()
        .filter(|name| args.only.is_empty() || args.only.contains(name))
        // With counts only, parts without one are left out.
        .filter(|name| limit.is_some() || args.case.is_some() || args.goal(*name).is_some())
        .collect();
    step(&format!("campaign with seed {}", args.seed));
    let mut parts = Vec::new();
    for name in names {
        let dir = scratch.join(name.text());
        fs::create_dir(&dir)?;
        let began = Instant::now();
        match prepare(name, args, &binaries, &dir)? {
            Ok(part) => {
                let (used, next) = (began.elapsed(), args.case.unwrap_or(0));
                parts.push(Running { name, part, dir, used, next, failing: 0 });
            }
            Err(reason) => {
                let verdict = Verdict::Impossible(reason);
                let kind = "all".to_owned();
                tally.add(name.text(), 0, Outcome { kind, hit: String::new(), tries: 0, verdict });
            }
        }
    }
    loop {
        let over = limit.is_some_and(|limit| began.elapsed() >= limit);
        let wants = |part: &Running| {
            let goal = args.goal(part.name);
            let reached =
                || part.part.reached().unwrap_or_else(|| tally.tries(part.name.text(), ""));
            goal.is_none_or(|goal| reached() < goal)
        };
        let share = |part: &Running| part.used.as_secs_f64() / part.name.weight();
        // Who has had least for its weight; each has one case, however little time there is.
        let open = parts.iter_mut().filter(|part| wants(part) && (!over || part.next == 0));
        let Some(part) = open.min_by(|one, other| share(one).total_cmp(&share(other))) else {
            break;
        };
        part.step(args, &parent, &mut tally);
        if args.case.is_some() {
            break;
        }
    }
    for part in &mut parts {
        let outcomes = part.part.finish();
        part.take(outcomes, args, &parent, &mut tally);
    }
    drop(parts);
    fs::remove_dir_all(&scratch)?;
    finish(args, &tally, began.elapsed(), keep)
}

fn prepare(
    name: Name,
    args: &Args,
    binaries: &Binaries,
    dir: &Path,
) -> Result<Result<Box<dyn Part>, String>> {
    step(&format!("undisturbed runs for {}", name.text()));
    let part: Box<dyn Part> = match name {
        Name::Kills => {
            let kills = kills::Kills::new(binaries, &dir.join("middle"), MIDDLE)?;
            let kills = kills.with_least(args.whole.then_some(20));
            let large = if args.whole { 30 } else { args.large };
            Box::new(kills.with_large(binaries, &dir.join("large"), LARGE, large)?)
        }
        Name::Files => match files::Files::new(binaries, dir, SMALL)? {
            Ok(files) => Box::new(files),
            Err(reason) => return Ok(Err(reason)),
        },
        Name::Limits => Box::new(limits::Limits::new(binaries, dir, SMALL)?),
        Name::Mutations => Box::new(mutations::Mutations::new(binaries, dir, SMALL)?),
        Name::Restarts => Box::new(restarts::Restarts::new(binaries, dir)?),
        Name::Namespaces => Box::new(namespaces::Namespaces::new(binaries, dir, SMALL)?),
    };
    Ok(Ok(part))
}

impl Running {
    fn step(&mut self, args: &Args, keep: &Path, tally: &mut Tally) {
        let began = Instant::now();
        let outcomes = self.part.case(self.next, &mut rng(args.seed, self.name, self.next));
        self.take(outcomes, args, keep, tally);
        self.next += 1;
        self.used += began.elapsed();
    }

    fn take(
        &mut self,
        outcomes: Result<Vec<Outcome>>,
        args: &Args,
        keep: &Path,
        tally: &mut Tally,
    ) {
        let outcomes = outcomes.unwrap_or_else(|error| {
            let verdict = Verdict::Failed(format!("the case cannot be done: {error:#}"));
            let (kind, hit) = ("campaign".to_owned(), String::new());
            vec![Outcome { kind, hit, tries: 1, verdict }]
        });
        for outcome in outcomes {
            let told = format!("{}, {}: {:?}", outcome.kind, outcome.hit, outcome.verdict);
            if !tally.add(self.name.text(), self.next, outcome) {
                continue;
            }
            say(&format!("    FAILED {} {}: {told}", self.name.text(), self.next));
            let (seed, name, case) = (args.seed, self.name.text(), self.next);
            say(&format!("      cargo xtask campaign --seed {seed} --only {name} --case {case}"));
            self.failing += 1;
            if self.failing <= KEPT {
                let kept = keep.join(format!("failed-{seed}-{name}-{case}"));
                let copied = trees::remove(&kept).and_then(|()| keep_work(&self.dir, &kept));
                match copied {
                    Ok(()) => say(&format!("      its files: {}", kept.display())),
                    Err(error) => say(&format!("      its files cannot be kept: {error:#}")),
                }
            }
        }
    }
}

/// Copies what was worked in.
fn keep_work(dir: &Path, kept: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        if entry.file_name() == "work" {
            let name = dir.file_name().context("a subject has a name")?;
            trees::copy(&entry.path(), &kept.join(name))?;
        } else if entry.file_name() != "before" && entry.file_name() != "after" {
            keep_work(&entry.path(), kept)?;
        }
    }
    Ok(())
}

/// What decides a case.
fn rng(seed: u64, name: Name, case: u64) -> ChaCha8Rng {
    let digest = Sha256::digest(format!("{seed}:{}:{case}", name.text()));
    ChaCha8Rng::from_seed(digest.into())
}

fn finish(args: &Args, tally: &Tally, took: Duration, keep: bool) -> Result<()> {
    tally.print();
    say(&format!("  {:.0} s, seed {}", took.as_secs_f64(), args.seed));
    let mut record = json!({ "seed": args.seed, "seconds": took.as_secs() });
    if let (Value::Object(record), Value::Object(result)) = (&mut record, tally.record()) {
        record.extend(result);
    }
    if keep && args.case.is_none() {
        write_result("campaign", record)?;
    }
    match tally.failures() {
        0 => Ok(()),
        failures => bail!("{failures} failures; each has a line with the command that repeats it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngCore;

    #[test]
    fn a_case_is_decided_by_seed_part_and_number() {
        let first = |seed, name, case| rng(seed, name, case).next_u64();
        let one = first(1, Name::Kills, 0);
        assert_eq!(one, first(1, Name::Kills, 0));
        let others = [(2, Name::Kills, 0), (1, Name::Files, 0), (1, Name::Kills, 1)];
        assert!(others.iter().all(|(seed, name, case)| first(*seed, *name, *case) != one));
    }

    #[test]
    fn a_case_that_cannot_be_done_is_a_failure() -> Result<()> {
        struct Broken;
        impl Part for Broken {
            fn case(&mut self, _: u64, _: &mut ChaCha8Rng) -> Result<Vec<Outcome>> {
                bail!("broken")
            }
        }
        let dir = tempfile::tempdir()?;
        let mut tally = Tally::default();
        let mut part = Running {
            name: Name::Kills,
            part: Box::new(Broken),
            dir: dir.path().to_path_buf(),
            used: Duration::ZERO,
            next: 0,
            failing: 0,
        };
        part.step(&Args::minutes(1.0), dir.path(), &mut tally);
        assert_eq!((tally.failures(), part.next), (1, 1));
        Ok(())
    }
}
