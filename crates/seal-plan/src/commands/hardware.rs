//! `seal-plan hardware`: the machine, as a tree, as a hardware file or as JSON.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use seal_host::Roots;
use seal_wire::ExitCode;

use super::{note, print};
use crate::hardware::{self, Hardware};

const AFTER_HELP: &str = "\
Examples:
  seal-plan hardware --disk /mnt/nvme0 --disk /mnt/nvme1
  seal-plan hardware --toml > machine.toml     for --hardware machine.toml, also on another machine
  seal-plan hardware --hardware machine.toml   show a file as a tree";

/// Show the machine: sockets, NUMA nodes, L3 groups, cores, memory, huge pages, GPUs, disks.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct HardwareArgs {
    #[command(flatten)]
    machine: MachineArgs,
    /// Print a hardware file, for --hardware.
    #[arg(long, conflicts_with = "json")]
    toml: bool,
    /// Print the same as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Which machine is meant.
#[derive(Debug, Args)]
pub(crate) struct MachineArgs {
    /// A hardware file (`seal-plan hardware --toml`) instead of this machine.
    #[arg(long, value_name = "FILE")]
    pub(crate) hardware: Option<PathBuf>,
    /// A directory on a disk for sealing; may be given several times.
    #[arg(long = "disk", value_name = "DIR", conflicts_with = "hardware")]
    pub(crate) disks: Vec<PathBuf>,
}

impl MachineArgs {
    /// The machine that is meant.
    pub(crate) fn read(&self) -> Result<Hardware> {
        match &self.hardware {
            Some(path) => Ok(hardware::load(path)?),
            None => {
                let roots = Roots::default();
                let hardware = hardware::read(&roots, &self.disks, hardware::find_gpus(&roots))
                    .context(MachineUnread)?;
                for limit in &hardware.limits {
                    note(&format!("this machine is counted for less than it has: {limit}"))?;
                }
                for (again, first) in hardware::file_systems(&self.disks)?.again {
                    note(&format!(
                        "--disk {} is on the file system of {}, whose space counts once",
                        again.display(),
                        first.display()
                    ))?;
                }
                Ok(hardware)
            }
        }
    }
}

/// What cannot be done without knowing the machine.
#[derive(Debug, thiserror::Error)]
#[error("cannot read this machine")]
pub(crate) struct MachineUnread;

pub(crate) fn run(args: &HardwareArgs) -> Result<ExitCode> {
    let hardware = args.machine.read()?;
    let text = if args.json {
        hardware::write_json(&hardware)?
    } else if args.toml {
        hardware::write(&hardware)
    } else {
        hardware::show(&hardware)
    };
    print(&text)?;
    Ok(ExitCode::Success)
}
