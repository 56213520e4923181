//! From the command line to the exit code.

use std::io::{self, Write};

use clap::Parser;
use seal_config::ConfigError;
use seal_wire::ExitCode;

use crate::cli::{Cli, Command};
use crate::commands;
use crate::commands::hardware::MachineUnread;
use crate::hardware::HardwareError;
use crate::times::TimesError;

/// Runs the planner.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to clap too; they go to standard output.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::Usage } else { ExitCode::Success };
        }
    };
    // A write beyond RLIMIT_FSIZE is then an error that names the file.
    let _ = seal_host::ignore_file_size_signal();
    let done = match &cli.command {
        Command::Hardware(args) => commands::hardware::run(args),
        Command::Propose(args) => commands::propose::run(args),
        Command::Check(args) => commands::check::run(args),
        Command::Calc(args) => commands::calc::run(args),
        Command::Simulate(args) => commands::simulate::run(args),
    };
    match done {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::Success,
        Err(error) => {
            let _ = writeln!(io::stderr(), "seal-plan: {error:#}");
            code_of(&error)
        }
    }
}

/// What kind of failure it is.
fn code_of(error: &anyhow::Error) -> ExitCode {
    if error.is::<MachineUnread>() {
        ExitCode::Start
    } else if error.is::<ConfigError>() || error.is::<HardwareError>() || error.is::<TimesError>() {
        ExitCode::Config
    } else {
        ExitCode::Failed
    }
}

/// Whether whoever reads our output has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
