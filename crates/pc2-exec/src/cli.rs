//! The command line of `pc2-exec`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use seal_runtime::{
    Environment, Honoured, ServeOptions, init_logging, long_version, parse_command_line, place,
    run_one, serve, serves_stage,
};
use seal_trees::Settings;
use seal_types::Stage;
use seal_wire::ExitCode;

use crate::{Pc2, start};

/// What this executor acts on.
const HONOURED: Honoured = Honoured(&[
    "FIL_PROOFS_ROWS_TO_DISCARD",
    "FIL_PROOFS_USE_GPU_COLUMN_BUILDER",
    "FIL_PROOFS_USE_GPU_TREE_BUILDER",
    "SEAL_GPU",
]);

const AFTER_HELP: &str = "\
Without a command, or as `pc2-exec processor pc2`, it serves requests: one JSON object a line on
standard input, one answer a line on standard output, as venus-worker (damocles-worker) speaks to
external processors. docs/protocol.md has the format. Logs go to standard error.

The replica is written beside the sealed file and takes its name when it is complete, so one more
sector size of disk space is needed for a time. PC2 can be run again at any moment: what the sealed
file holds is found out by content, and the data is taken from tree D.

Environment:
  FIL_PROOFS_USE_GPU_TREE_BUILDER    1: asks for a GPU. This build has none: an error at start,
  FIL_PROOFS_USE_GPU_COLUMN_BUILDER     unless SEAL_GPU=optional lets the CPU do the work
  FIL_PROOFS_ROWS_TO_DISCARD         must be 2, the default
  VC_CG_CPUSET                       cpus to run on, as venus-worker sets them for its processors
  VENUS_WORKER_NUMA_PREFERRED        NUMA node whose memory to prefer, likewise
  RUST_LOG                           level of logs: error, warn, info (default), debug, trace
Other FIL_PROOFS_* variables have no effect here; those that are set are named at start.

Examples:
  pc2-exec run --task task.json        one sector from a file; the output goes to standard output";

/// Executor of pre-commit phase 2 (PC2): columns, trees and replica of a Filecoin sector.
#[derive(Debug, Parser)]
#[command(name = "pc2-exec", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    serve: ServeArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// How many sectors are worked on at the same time; further tasks wait in their order.
    #[arg(long, value_name = "N", default_value_t = 1)]
    concurrent: usize,
    /// Memory for buffers in MiB, for each sector worked on.
    #[arg(long, value_name = "MIB", default_value_t = 1024, global = true)]
    memory_mib: u64,
    /// Nodes of the result that are recomputed from the written files before anything gets its
    /// name; 0 turns the check off.
    #[arg(long, value_name = "N", default_value_t = Settings::default().self_check_samples, global = true)]
    check_nodes: u64,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve requests, as venus-worker starts an external processor.
    Processor {
        /// The stage; only pc2 is served here.
        stage: Stage,
    },
    /// Do one task and end.
    Run {
        /// File with a task, or a whole request line; `-` is standard input.
        #[arg(long, value_name = "FILE")]
        task: PathBuf,
    },
}

/// The whole program, up to its exit code.
pub fn main() -> ExitCode {
    let version = long_version(env!("CARGO_PKG_VERSION"), &[], &[("poseidon", "portable")]);
    let cli: Cli = match parse_command_line(version) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    init_logging();
    let environment = Environment::of_process();
    environment.report(HONOURED);
    if let Err(code) = place(&environment) {
        return code;
    }
    if let Err(error) = start::check(&environment) {
        tracing::error!("{error}");
        return ExitCode::Config;
    }
    let settings = Settings {
        memory_bytes: cli.serve.memory_mib << 20,
        self_check_samples: cli.serve.check_nodes,
    };
    tracing::info!(?settings, "pc2-exec");
    let executor = Pc2 { settings };
    match cli.command {
        Some(Command::Run { task }) => run_one(&executor, &task),
        Some(Command::Processor { stage }) if !serves_stage(Stage::Pc2, stage) => ExitCode::Usage,
        Some(Command::Processor { .. }) | None => {
            serve(Arc::new(executor), ServeOptions::concurrent(cli.serve.concurrent))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
