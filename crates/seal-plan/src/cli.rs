//! The command line.

use clap::{Parser, Subcommand};

use crate::commands::calc::CalcArgs;
use crate::commands::check::CheckArgs;
use crate::commands::hardware::HardwareArgs;
use crate::commands::propose::ProposeArgs;
use crate::commands::simulate::SimulateArgs;

/// Designs a sealing set-up for a machine, checks configurations, and tells what they will deliver.
#[derive(Debug, Parser)]
#[command(name = "seal-plan", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What the planner can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Hardware(HardwareArgs),
    Propose(ProposeArgs),
    Check(CheckArgs),
    Calc(CalcArgs),
    Simulate(SimulateArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
