//! The command line of `pc2-exec`.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use seal_poseidon::Kernel;
use seal_runtime::{
    CorruptionLog, Environment, Honoured, ServeOptions, init_logging, lock_wait, long_version,
    parse_command_line, place, run_one, serve, serves_stage, share_space,
};
use seal_trees::Settings;
use seal_types::Stage;
use seal_wire::ExitCode;

use crate::rates::rates;
use crate::{LayerCheck, Pc2, gpu, start};

/// What this executor acts on.
const HONOURED: Honoured = Honoured(&[
    "FIL_PROOFS_ROWS_TO_DISCARD",
    gpu::COLUMN_FLAG,
    gpu::TREE_FLAG,
    gpu::COLUMN_CAP,
    gpu::TREE_CAP,
    gpu::VISIBLE,
    gpu::GPU,
]);

/// What this build has beyond the usual.
const FEATURES: &[&str] = if cfg!(feature = "cuda") { &["cuda"] } else { &[] };

const AFTER_HELP: &str = "\
Without a command, or as `pc2-exec processor pc2`, it serves requests: one JSON object a line on
standard input, one answer a line on standard output, as venus-worker (damocles-worker) speaks to
external processors. docs/protocol.md has the format. Logs go to standard error.

Layers and data are read once, past the page cache where the file system allows, and everything is
computed on the way: columns, tree C, replica, tree R last, and tree D anew to judge the data.
Layers are compared with the digests that pc1-exec left beside them.

The replica is written beside the sealed file and takes its name when it is complete, so one more
sector size of disk space is needed for a time. PC2 can be run again at any moment: what the sealed
file holds is found out by content, and the data is taken from tree D.

Environment:
  FIL_PROOFS_USE_GPU_TREE_BUILDER    1: trees and replica on a GPU, and columns too unless the
                                     next one says 0
  FIL_PROOFS_USE_GPU_COLUMN_BUILDER  1: columns on a GPU
  FIL_PROOFS_MAX_GPU_COLUMN_BATCH_SIZE, FIL_PROOFS_MAX_GPU_TREE_BATCH_SIZE
                                     the most columns, and leaves of a tree, at a time on a GPU
  CUDA_VISIBLE_DEVICES               which GPU, by index or UUID; the first of them is used
  SEAL_GPU                           optional: where a GPU is asked for and none is usable, or it
                                     computes wrongly, the CPU does the work; otherwise that is an
                                     error at start, and of tasks
  FIL_PROOFS_ROWS_TO_DISCARD         must be 2, the default
  SEAL_RUNTIME_DIR                   directory in which tasks of all processes reserve the disk space
                                     that they will still take; default: as for pc1-exec
  SEAL_LOCK_WAIT                     how long a task waits for a sector that another process still
                                     has; default: as for pc1-exec
  SEAL_FORCE_ISA                     the Poseidon kernel: portable, or one of this processor's
  VC_CG_CPUSET                       cpus to run on, as venus-worker sets them for its processors
  VENUS_WORKER_NUMA_PREFERRED        NUMA node whose memory to prefer, likewise
  RUST_LOG                           level of logs: error, warn, info (default), debug, trace
  SEAL_LOG_FORM                      text or json; by default text on a terminal or beside
                                     a parent's own lines
Other FIL_PROOFS_* variables have no effect here; RUST_LOG=debug names those that are set.

Examples:
  pc2-exec run --task task.json        one sector from a file; the output goes to standard output
  pc2-exec rates                       what this processor hashes per second";

/// More memory for buffers than any machine has: 16 TiB.
const MOST_MEMORY_MIB: u64 = 1 << 24;

/// More nodes than these take longer to check one by one than the whole sector takes to make.
const MOST_CHECK_NODES: u64 = 1 << 20;

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
    /// The most memory for buffers in MiB, for each sector worked on. Far less is used with few
    /// cpus.
    #[arg(long, value_name = "MIB", default_value_t = 2048, global = true,
          value_parser = clap::value_parser!(u64).range(..=MOST_MEMORY_MIB))]
    memory_mib: u64,
    /// Nodes of the result that are recomputed from the written files before anything gets its
    /// name; 0 turns the check off. What a GPU computes is compared with the CPU in any case.
    #[arg(long, value_name = "N", default_value_t = Settings::default().self_check_samples, global = true,
          value_parser = clap::value_parser!(u64).range(..=MOST_CHECK_NODES))]
    check_nodes: u64,
    /// Does not compare the layers with the digests that PC1 recorded. This costs a few percent of
    /// a cpu for each layer, and finds files that were damaged between PC1 and PC2.
    #[arg(long, global = true)]
    skip_layer_digests: bool,
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
    /// Measure the hashes per second of one thread by kernel and arity, and print them as a line
    /// of JSON each.
    Rates,
}

/// The whole program, up to its exit code.
pub fn main() -> ExitCode {
    let environment = Environment::of_process();
    let kernel = kernel(&environment);
    // Help and version come whatever the environment says.
    let name = kernel.as_ref().map_or("not available", |kernel| kernel.name());
    let version = long_version(env!("CARGO_PKG_VERSION"), FEATURES, &[("poseidon", name)]);
    let cli: Cli = match parse_command_line(version) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let _last_words = init_logging();
    let kernel = match kernel {
        Ok(kernel) => kernel,
        Err(error) => {
            tracing::error!("SEAL_FORCE_ISA: {error}");
            return ExitCode::Config;
        }
    };
    environment.report(HONOURED);
    let _place = match place(&environment) {
        Ok(placed) => placed,
        Err(code) => return code,
    };
    if let Some(Command::Rates) = cli.command {
        return print_rates();
    }
    let wish = start::check_rows(&environment).and_then(|()| gpu::Wish::of(&environment));
    let wish = match wish {
        Ok(wish) => wish,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::Config;
        }
    };
    let corruption = Arc::new(CorruptionLog::of(Stage::Pc2, &environment));
    let backend = match gpu::backend(wish.as_ref(), kernel, &corruption) {
        Ok(backend) => backend,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::Start;
        }
    };
    let lock_wait = match lock_wait(&environment) {
        Ok(lock_wait) => lock_wait,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::Config;
        }
    };
    let settings = Settings {
        memory_bytes: cli.serve.memory_mib << 20,
        self_check_samples: cli.serve.check_nodes,
        lock_wait,
    };
    tracing::info!(
        device = backend.describe(),
        memory_mib = cli.serve.memory_mib,
        check_nodes = settings.self_check_samples,
        "pc2-exec"
    );
    let _shared = match share_space(&environment) {
        Ok(shared) => shared,
        Err(code) => return code,
    };
    let layer_check =
        if cli.serve.skip_layer_digests { LayerCheck::Off } else { LayerCheck::Recorded };
    let executor = Pc2 { backend, settings, layer_check, corruption: Some(corruption) };
    match cli.command {
        Some(Command::Run { task }) => run_one(&executor, &task),
        Some(Command::Processor { stage }) if !serves_stage(Stage::Pc2, stage) => ExitCode::Usage,
        Some(Command::Processor { .. } | Command::Rates) | None => {
            serve(Arc::new(executor), ServeOptions::concurrent(cli.serve.concurrent))
        }
    }
}

fn print_rates() -> ExitCode {
    let print = || -> std::io::Result<()> {
        let mut output = std::io::stdout().lock();
        for rate in rates() {
            output.write_all(&seal_wire::to_line(&rate))?;
        }
        output.flush()
    };
    match print() {
        Ok(()) => ExitCode::Success,
        Err(error) => {
            tracing::error!(%error, "cannot write to standard output");
            ExitCode::Failed
        }
    }
}

/// The kernel: the fastest, or the one that is asked for. A name that only other kernels of the
/// stages have says nothing about Poseidon.
fn kernel(environment: &Environment) -> Result<Kernel, seal_poseidon::KernelError> {
    let Some(name) = environment.get("SEAL_FORCE_ISA") else { return Ok(Kernel::detect()) };
    Kernel::by_name(&name).or_else(|error| match seal_sha256::Kernel::by_name(&name) {
        Ok(_) => Ok(Kernel::detect()),
        Err(_) => Err(error),
    })
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
