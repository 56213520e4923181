//! `cargo xtask seal`: a sector's data goes in, a proof that the network's verifier accepts comes
//! out.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use seal_types::{ApiVersion, Feature, RegisteredProof, SectorSize, Stage};

use crate::cargo::{build_binaries, ensure_test_params, target, test_params_dir};
use crate::out::{say, step};
use crate::sector::{Places, Sealing};

/// Options of `seal`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Size of the sector: 2KiB, 8MiB, 512MiB, 32GiB or 64GiB. Default: an 8MiB sector until pc2
    /// and a 2KiB sector until c2.
    #[arg(long, value_name = "SIZE")]
    sector_size: Option<SectorSize>,
    /// Registered proof, for example StackedDrg2KiBV1_1_Feat_SyntheticPoRep; default: V1_1 of the
    /// size.
    #[arg(long, value_name = "NAME", conflicts_with = "sector_size")]
    proof: Option<RegisteredProof>,
    /// File with the client's data; cut, or filled with zeros, to what a sector holds. Default:
    /// pseudo-random bytes.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The last stage to run. C2 of sectors up to 512MiB uses local test parameters, which are
    /// made first: minutes for 2KiB, longer for others.
    #[arg(long, value_enum, value_name = "STAGE")]
    until: Option<Until>,
    /// Keep all files in this directory, which must be empty or not there.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Until {
    Pc1,
    Pc2,
    C2,
}

impl Until {
    fn stage(self) -> Stage {
        match self {
            Self::Pc1 => Stage::Pc1,
            Self::Pc2 => Stage::Pc2,
            Self::C2 => Stage::C2,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    build_binaries()?;
    let until = args.until.map(Until::stage);
    let runs = match (args.proof, args.sector_size) {
        (Some(proof), _) => vec![(proof, until.unwrap_or(Stage::C2))],
        (None, Some(size)) => vec![(proof_of(size)?, until.unwrap_or(Stage::C2))],
        (None, None) => vec![
            (proof_of(SectorSize::MIB_8)?, until.unwrap_or(Stage::Pc2).min(Stage::Pc2)),
            (proof_of(SectorSize::KIB_2)?, until.unwrap_or(Stage::C2)),
        ],
    };
    for (proof, until) in runs {
        seal_one(args, proof, until)?;
    }
    Ok(())
}

fn proof_of(size: SectorSize) -> Result<RegisteredProof> {
    RegisteredProof::find(size, ApiVersion::V1_1, Feature::Interactive)
        .with_context(|| format!("sectors of {size} have no registered proof"))
}

fn seal_one(args: &Args, proof: RegisteredProof, until: Stage) -> Result<()> {
    let size = proof.sector_size();
    let for_tests = size <= SectorSize::MIB_512;
    let own_params = std::env::var_os("FIL_PROOFS_PARAMETER_CACHE");
    let params = match own_params {
        _ if until != Stage::C2 => None,
        Some(dir) => Some(PathBuf::from(dir)),
        None if for_tests => {
            ensure_test_params(size)?;
            Some(test_params_dir())
        }
        None => None,
    };
    let scratch;
    let dir = match &args.keep {
        Some(dir) => {
            let dir = dir.join(proof.to_string());
            make_empty(&dir)?;
            dir.canonicalize()?
        }
        None => {
            let parent = target().join("seal");
            std::fs::create_dir_all(&parent)?;
            scratch = tempfile::Builder::new().prefix("sector-").tempdir_in(&parent)?;
            scratch.path().canonicalize()?
        }
    };
    step(&format!("sealing a sector of {proof} in {}", dir.display()));
    let places = Places {
        dir: dir.clone(),
        params,
        // Small parents caches stay with the build, the large ones where other software has them.
        parents: for_tests.then(|| target().join("parents")),
    };
    let sealing = Sealing::new(proof, places, args.input.as_deref())?;
    let report = sealing.run(until).with_context(|| {
        let log = dir.join("log");
        let kept = if args.keep.is_some() { String::new() } else { log_tail(&log) };
        format!("{proof} was not sealed; the log is {}{kept}", log.display())
    })?;
    say(&report.table());
    ensure!(report.valid != Some(false), "the proof is not valid");
    Ok(())
}

fn make_empty(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let empty = std::fs::read_dir(dir)?.next().is_none();
    ensure!(empty, "{} is not empty; name another directory", dir.display());
    Ok(())
}

/// The end of a log that is about to be removed.
fn log_tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let tail = &lines[lines.len().saturating_sub(20)..];
    format!(" (removed; --keep DIR keeps it) and ended with:\n{}", tail.join("\n"))
}
