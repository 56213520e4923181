//! The command line of `pc2-exec`.

use std::io::Write;
use std::sync::Arc;

use clap::Subcommand;
use seal_options::{Environment, Pc2 as Settings};
use seal_poseidon::Kernel;
use seal_runtime::{
    Asked, CorruptionLog, Program, ServeOptions, Started, long_version, run_one, serve,
    share_space, start,
};
use seal_types::Stage;
use seal_wire::ExitCode;

use crate::rates::rates;
use crate::{LayerCheck, Pc2, gpu};

/// What this build has beyond the usual.
const FEATURES: &[&str] = if cfg!(feature = "cuda") { &["cuda"] } else { &[] };

const WORKS: &str = "\
Layers and data are read once, past the page cache where the file system allows, and everything is
computed on the way: columns, tree C, replica, tree R last, and tree D anew to judge the data.
Layers are compared with the digests that pc1-exec left beside them.

The replica is written beside the sealed file and takes its name when it is complete, so one more
sector size of disk space is needed for a time. PC2 can be run again at any moment: what the sealed
file holds is found out by content, and the data is taken from tree D.";

const EXAMPLES: &str = "  \
  pc2-exec run --task task.json        one sector from a file; the output goes to standard output
  pc2-exec rates                       what this processor hashes per second";

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure the hashes per second of one thread and the cycles of a hash by kernel and arity,
    /// for every kernel that this processor can run, and print them as a line of JSON each.
    Rates,
}

/// The whole program, up to its exit code.
pub fn main() -> ExitCode {
    run().unwrap_or_else(|code| code)
}

fn run() -> Result<ExitCode, ExitCode> {
    let environment = Environment::of_process();
    let isa = environment.isa(Stage::Pc2);
    // Help and version come whatever the environment says.
    let name = isa.map_or_else(|| Ok(Kernel::detect()), Kernel::by_name);
    let name = name.map_or("not available", |kernel| kernel.name());
    let program = Program {
        about: "Executor of pre-commit phase 2 (PC2): columns, trees and replica of a Filecoin \
                sector",
        version: long_version(env!("CARGO_PKG_VERSION"), FEATURES, &[("poseidon", name)]),
        works: WORKS,
        examples: EXAMPLES,
    };
    let Started { settings, asked, kept: _kept } =
        start::<Settings, Command>(program, &environment)?;
    let kernel = settings.isa.map_or_else(|| Ok(Kernel::detect()), Kernel::by_name);
    let kernel = kernel.map_err(|error| {
        tracing::error!("SEAL_FORCE_ISA: {error}");
        ExitCode::Config
    })?;
    let task = match asked {
        Asked::Other(Command::Rates) => return Ok(print_rates()),
        Asked::Run(task) => Some(task),
        Asked::Serve => None,
    };
    let corruption = Arc::new(CorruptionLog::of(Stage::Pc2, &settings.common));
    let backend = gpu::backend(&settings, kernel, &corruption).map_err(|error| {
        tracing::error!("{error}");
        ExitCode::Start
    })?;
    tracing::info!(
        device = backend.describe(),
        memory_mib = settings.memory_mib,
        check_nodes = settings.check_nodes,
        "pc2-exec"
    );
    let _shared = share_space(&settings.common)?;
    let executor = Pc2 {
        backend,
        settings: seal_trees::Settings {
            memory_bytes: settings.memory_mib << 20,
            self_check_samples: settings.check_nodes,
            lock_wait: settings.common.lock_wait,
        },
        layer_check: match settings.skip_layer_digests {
            true => LayerCheck::Off,
            false => LayerCheck::Recorded,
        },
        corruption: Some(corruption),
    };
    Ok(match task {
        Some(task) => run_one(&executor, &task),
        None => {
            let options = ServeOptions::new(settings.concurrent, &settings.common);
            serve(Arc::new(executor), options)
        }
    })
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
