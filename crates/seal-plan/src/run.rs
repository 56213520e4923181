//! From the command line to the exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::commands;

/// The command could not be carried out: a file cannot be read, or an option does not fit.
const FAILED: u8 = 3;
/// The command line is wrong. Not clap's 2, which `check` uses for errors it found.
const USAGE: u8 = 64;

/// Runs the planner.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to clap too; they go to standard output.
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
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
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "seal-plan: {error:#}");
            FAILED.into()
        }
    }
}

/// Whether whoever reads our output has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
