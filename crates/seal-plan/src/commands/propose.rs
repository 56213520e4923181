//! `seal-plan propose`: a configuration for the machine on standard output, and on standard error
//! what it uses, what it delivers and what would bring more.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use seal_types::{SectorSize, Stage};
use seal_wire::ExitCode;

use super::hardware::MachineArgs;
use super::table::table;
use super::{check_svg, lifts, print, rates, read_times, write_svg};
use crate::figures::disk_of_sector;
use crate::given::for_search;
use crate::picture::draw_machine;
use crate::propose::{Goal, GpuSharing, Proposal, Wish, propose};
use crate::row;
use crate::{Bytes, Hardware, Scheme};

const AFTER_HELP: &str = "\
Standard output has the configuration and nothing else, so that it can be kept:

  seal-plan propose --disk /mnt/nvme0 > /etc/seal-exec/processors.toml
  seal-plan check --config /etc/seal-exec/processors.toml

The tool counts memory first, then cores, GPUs and disks, and takes the division that delivers
most by the times of the stages; docs/planning.md tells how. Times that were measured on the
machine (--times) make a better proposal than the published ones.";

/// Propose a configuration for the machine, with the reason for each choice.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ProposeArgs {
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    #[command(flatten)]
    pub(crate) wish: WishArgs,
    /// Draw the machine with what is to run where into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// What is wished for.
#[derive(Debug, Args)]
pub(crate) struct WishArgs {
    /// Size of the sectors.
    #[arg(long, value_name = "SIZE", default_value = "32GiB")]
    pub(crate) sector_size: SectorSize,
    /// What it is to be good at.
    #[arg(long, value_enum, default_value_t)]
    goal: Goal,
    /// Whether each GPU belongs to one stage, or has a pc2 and a c2 that take turns. Default: what
    /// delivers more.
    #[arg(long, value_enum)]
    gpu_sharing: Option<GpuSharing>,
    /// Cores kept free on each socket. Default: 2, or one of eight on small processors.
    #[arg(long, value_name = "N")]
    reserve_cores: Option<u32>,
    /// Sectors in pc1 at the same time. Default: as many as are of use.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pc1: Option<u32>,
    /// Threads that gather parents for each thread that labels; 0 gives every core a sector.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=16))]
    producers: u32,
    /// Stages that are done on this machine.
    #[arg(long, value_name = "STAGE,...", value_delimiter = ',', default_value = "pc1,pc2,c2")]
    stages: Vec<Stage>,
    /// Use memory files of huge pages in this directory (`pc1-exec hugepages` makes them).
    #[arg(long, value_name = "DIR")]
    huge_pages: Option<PathBuf>,
    /// Directory of the executors, if they are not beside the supervisor.
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Times of the stages: by hand (TOML), of a bench, or of supervisors' history (JSON). May be
    /// given several times. Stages that it does not tell of are estimated.
    #[arg(long, value_name = "FILE")]
    times: Vec<PathBuf>,
}

impl WishArgs {
    pub(crate) fn read(&self) -> Result<Wish> {
        let times = read_times(&self.times, self.sector_size)?;
        Ok(Wish {
            sector_size: self.sector_size,
            goal: self.goal,
            sharing: self.gpu_sharing,
            reserve: self.reserve_cores,
            pc1: self.pc1,
            producers: self.producers,
            stages: self.stages.iter().copied().collect(),
            huge_pages: self.huge_pages.clone(),
            bin_dir: self.bin_dir.clone(),
            given: times.given(),
            seed_wait: times.seed_wait,
        })
    }
}

pub(crate) fn run(args: &ProposeArgs) -> Result<ExitCode> {
    check_svg(args.svg.as_deref(), args.wish.times.iter().chain(&args.machine.hardware))?;
    let hardware = args.machine.read()?;
    let wish = args.wish.read()?;
    let wish = Wish { given: for_search(&wish.given, None, &hardware)?, ..wish };
    let proposal = propose(&hardware, &wish)?;
    print(&proposal.text)?;
    let scheme = Scheme::of(&proposal.config, &hardware, wish.sector_size);
    if let Some(path) = &args.svg {
        let title = format!("Proposal for {} sectors", wish.sector_size);
        write_svg(path, &draw_machine(&hardware, &scheme, &title))?;
    }
    let told = format!(
        "\n{}\n{}\n{}\n{}",
        resources(&hardware, &wish, &proposal, &scheme),
        format_args!("What limits this machine: {}.\n", proposal.scarce(&scheme, &wish)),
        rates(&proposal.throughput),
        lifts(&hardware, &wish, proposal.throughput.sectors_per_day)
    );
    io::stderr().write_all(told.as_bytes())?;
    Ok(ExitCode::Success)
}

/// What there is and what of it the proposal uses.
fn resources(hardware: &Hardware, wish: &Wish, proposal: &Proposal, scheme: &Scheme) -> String {
    let mut rows = vec![row!["resource", "there is", "used", "sectors in pc1 it would carry"]];
    let bounds = &proposal.bounds;
    let with_pc1 = wish.stages.contains(&Stage::Pc1);
    let carries = |count: u64| if with_pc1 { count.to_string() } else { String::new() };
    rows.push(row!["memory", hardware.usable(), scheme.memory(), carries(bounds.memory)]);
    let busy: usize = {
        let cores: std::collections::BTreeSet<u32> = scheme
            .executors
            .iter()
            .flat_map(|executor| executor.busy.iter().collect::<Vec<_>>())
            .filter_map(|cpu| hardware.topology.cpu(cpu).map(|cpu| cpu.core))
            .collect();
        cores.len()
    };
    rows.push(row!["cores", hardware.cores(), busy, carries(bounds.cores)]);
    let gpus: std::collections::BTreeSet<u32> =
        scheme.executors.iter().flat_map(|executor| executor.gpus.clone()).collect();
    rows.push(row!["GPUs", hardware.gpus.len(), gpus.len(), ""]);
    if let Some(disk) = bounds.disk {
        let free: Bytes = hardware.disks.iter().map(|disk| disk.free).sum();
        let used = disk_of_sector(wish.sector_size).times(proposal.on_disk.total());
        rows.push(row!["disk", free, used, carries(disk)]);
    }
    table(&rows)
}
