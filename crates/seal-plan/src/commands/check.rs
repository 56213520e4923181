//! `seal-plan check`: findings on a configuration, as text or JSON.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use seal_config::ConfigError;
use seal_types::SectorSize;
use seal_wire::ExitCode;
use serde::Serialize;

use super::hardware::{MachineArgs, MachineUnread};
use super::{check_svg, print, read_times, write_svg};
use crate::Scheme;
use crate::check::{Against, Finding, Local, Severity, check, unreadable};
use crate::picture::draw_machine;

const AFTER_HELP: &str = "\
Each finding has a severity, a kind in brackets, its place, the reason and a remedy. An error fails
the start, or tasks, or the machine; a warning works and is hardly meant, or costs speed.

Exit codes: 0 no errors were found, 1 errors were (with --deny-warnings, warnings too), 2 wrong
command line, 3 a file that was named cannot be read, 4 the machine cannot be read.

With --hardware the configuration is held against another machine, and what is true of this one
only is left out: binaries, parameters, parents cache, limits of open files, huge pages.

  seal-plan check --config processors.toml --disk /mnt/nvme0 --sectors 40
  seal-plan check --config processors.toml --hardware machine.toml --json";

/// Say everything that can be known of a configuration before it is started.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct CheckArgs {
    /// The configuration: a venus-worker.toml, or a file with its [processors] section.
    #[arg(long, env = "SEAL_CONFIG", value_name = "FILE", hide_env = true)]
    config: PathBuf,
    #[command(flatten)]
    machine: MachineArgs,
    /// Size of the sectors.
    #[arg(long, value_name = "SIZE", default_value = "32GiB")]
    sector_size: SectorSize,
    /// Sectors on the disks at the same time. Default: as many as are worked on, and those that wait
    /// for the chain's randomness.
    #[arg(long, value_name = "N")]
    sectors: Option<u64>,
    /// Times of the stages, as for `calc`.
    #[arg(long, value_name = "FILE")]
    times: Vec<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// End with exit code 1 for warnings too.
    #[arg(long)]
    deny_warnings: bool,
    /// Draw the machine with what runs where into this file, if the configuration can be read.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// The whole answer.
#[derive(Debug, Serialize)]
struct Verdict<'a> {
    config: String,
    hardware: &'a str,
    errors: usize,
    warnings: usize,
    findings: &'a [Finding],
}

pub(crate) fn run(args: &CheckArgs) -> Result<ExitCode> {
    let inputs = [&args.config].into_iter().chain(&args.times).chain(&args.machine.hardware);
    check_svg(args.svg.as_deref(), inputs)?;
    let hardware = args.machine.read()?;
    let times = read_times(&args.times, args.sector_size)?;
    let local = match args.machine.hardware {
        Some(_) => None,
        None => Some(
            Local::read()
                .context("cannot read the limits of this process")
                .context(MachineUnread)?,
        ),
    };
    let file = args.config.display().to_string();
    let findings = match seal_config::load_all(&args.config) {
        // A file that is not there is no configuration with faults.
        Err(refused) if matches!(refused.first, ConfigError::Read { .. }) => {
            return Err(refused.first.into());
        }
        Err(refused) => {
            let all = std::iter::once(&refused.first).chain(&refused.others);
            all.map(|error| unreadable(&file, error)).collect()
        }
        Ok(config) => {
            let against = Against {
                hardware: &hardware,
                local: local.as_ref(),
                sector_size: args.sector_size,
                sectors: args.sectors,
                given: &times.given(),
                seed_wait: times.seed_wait,
            };
            if let Some(path) = &args.svg {
                let scheme = Scheme::of(&config, &hardware, args.sector_size);
                write_svg(path, &draw_machine(&hardware, &scheme, &file))?;
            }
            check(&config, against)
        }
    };
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let text = if args.json {
        let verdict = Verdict {
            config: file,
            hardware: &hardware.name,
            errors,
            warnings,
            findings: &findings,
        };
        serde_json::to_string_pretty(&verdict)? + "\n"
    } else {
        let mut text = String::new();
        for finding in &findings {
            let _ = writeln!(text, "{finding}");
        }
        let _ = match (errors, warnings) {
            (0, 0) => writeln!(text, "{file}: nothing to be said against it on {}", hardware.name),
            _ => writeln!(text, "{file}: {errors} error(s), {warnings} warning(s)"),
        };
        text
    };
    print(&text)?;
    Ok(if errors > 0 || (args.deny_warnings && warnings > 0) {
        ExitCode::Failed
    } else {
        ExitCode::Success
    })
}
