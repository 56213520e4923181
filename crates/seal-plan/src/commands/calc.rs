//! `seal-plan calc`: the quick answer: what a machine delivers, what limits it, what more of
//! something would bring.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use seal_config::Config;
use seal_wire::ExitCode;

use super::hardware::MachineArgs;
use super::propose::WishArgs;
use super::{lifts, note, print, rates};
use crate::check::{Severity, check};
use crate::given::for_search;
use crate::propose::{Wish, propose};
use crate::throughput::throughput;
use crate::{Bytes, Hardware, Scheme};

const AFTER_HELP: &str = "\
Without --config it is the best proposal for the machine that is judged. The figures are what the
set-up approaches when it never waits for work; `seal-plan simulate` shows queues and failures.

  seal-plan calc --hardware machine.toml
  seal-plan calc --config processors.toml --times measured.toml";

/// Tell what a set-up delivers, what limits it, and what more memory, cores or GPUs would bring.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct CalcArgs {
    /// The configuration to judge. Default: the proposal for the machine.
    #[arg(long, env = "SEAL_CONFIG", value_name = "FILE", hide_env = true)]
    #[arg(conflicts_with_all = ["pc1", "gpu_sharing", "huge_pages", "bin_dir"])]
    config: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    wish: WishArgs,
}

/// Says that a configuration would not work as it is, so that nobody takes its figures for granted.
fn warn_of_errors(path: &Path, config: &Config, hardware: &Hardware, wish: &Wish) -> Result<()> {
    let findings = check(config, wish.against(hardware));
    let errors: Vec<_> =
        findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    if let Some(first) = errors.first() {
        note(&format!(
            "these figures are of a set-up that fails: `seal-plan check --config {}` finds {} \
             error(s), the first: {}",
            path.display(),
            errors.len(),
            first.reason
        ))?;
    }
    Ok(())
}

pub(crate) fn run(args: &CalcArgs) -> Result<ExitCode> {
    let hardware = args.machine.read()?;
    let wish = args.wish.read()?;
    let (delivered, limit, more) = match &args.config {
        Some(path) => {
            let config = seal_config::load(path)?;
            let scheme = Scheme::of(&config, &hardware, wish.sector_size);
            let delivered = throughput(&scheme, &hardware, &wish.given);
            let limit = delivered.limit.to_string();
            warn_of_errors(path, &config, &hardware, &wish)?;
            // Proposals for more are not the configuration that was measured.
            let more = match for_search(&wish.given, Some(&scheme), &hardware) {
                Ok(given) => {
                    let wish = Wish { given, ..wish.clone() };
                    lifts(&hardware, &wish, delivered.sectors_per_day)
                }
                Err(unclear) => format!("What more would bring cannot be told. {unclear}.\n"),
            };
            (delivered, limit, more)
        }
        None => {
            let wish = Wish { given: for_search(&wish.given, None, &hardware)?, ..wish.clone() };
            let proposal = propose(&hardware, &wish).context("there is no proposal")?;
            let scheme = Scheme::of(&proposal.config, &hardware, wish.sector_size);
            let limit = proposal.scarce(&scheme, &wish).to_string();
            let more = lifts(&hardware, &wish, proposal.throughput.sectors_per_day);
            (proposal.throughput, limit, more)
        }
    };
    let each = Bytes(wish.sector_size.bytes());
    let per_day = delivered.sectors_per_day;
    let text = format!(
        "{}\n{:.1} sectors a day, {:.2} TiB a day; a sector takes {} if it never waits.\n\
         What limits: {}.\n\n{}\n{}",
        hardware.name,
        per_day,
        per_day * each.in_gib() / 1024.0,
        super::time(delivered.seconds_of_sector),
        limit,
        rates(&delivered),
        more
    );
    print(&text)?;
    Ok(ExitCode::Success)
}
