//! The command line of `pc1-exec`.

use std::sync::Arc;

use clap::Subcommand;
use seal_host::{CpuClaims, MemoryTurns, RuntimeDir, share_disk_space};
use seal_options::{Common, Environment, Pc1 as Settings};
use seal_runtime::{
    Asked, CorruptionLog, Program, ServeOptions, Started, long_version, run_one, serve,
    share_space, start,
};
use seal_sha256::{ChaCha8, Kernel};
use seal_types::Stage;
use seal_wire::{ErrorCode, ExitCode, TaskError};

use crate::hugepages::{HugePagesArgs, prepare as prepare_huge_pages};
use crate::parents::{ParentsArgs, parents as make_parents};
use crate::work_dir::check_work_dir;
use crate::{Labeller, LabellerSettings, Pc1, Pc1Settings, ReplaceFinished, Resume};

/// After the help of `parents`.
const PARENTS_HELP: &str = "\
Environment:
  FIL_PROOFS_PARENT_CACHE  directory of the parents caches
  FIL_PROOFS_CACHE_DIR     without the above, they are in this text with `filecoin-parents`
                           appended; default /var/tmp/
  SEAL_FORCE_ISA           instructions that the parents are drawn with: portable, avx2 or avx512;
                           names of other kernels leave the default: the fastest there are

Example:
  pc1-exec parents --proof StackedDrg32GiBV1_1

The answer is one line: SHA-256, file, and whether the digest is `published`, `own` (no digest is
published for this graph; nodes were compared with it) or `wrong`.";

/// After the help of `hugepages`.
const HUGEPAGES_HELP: &str = "\
Environment:
  HUGEPAGE_FILES_PATH      directory of the files, in numa_N for NUMA node N
  HUGEPAGE_FILES_PATH_PATTERN
                           directory with $NUMA_NODE_INDEX for the node's number; goes before the
                           above
Executors find the files by the same variables.

Example:
  mount -t hugetlbfs -o pagesize=1G none /mnt/huge
  HUGEPAGE_FILES_PATH=/mnt/huge pc1-exec hugepages --node 0 --count 28 --size 32GiB";

const WORKS: &str = "\
Files: layers and tree D are written to cache_path, each under a hidden name until it is complete.
What an earlier sealing under another replica id left in cache_path is removed first, once all is
checked that can be checked quickly; a finished sector (its p_aux is complete) is refused instead.";

const EXAMPLES: &str = "  \
  pc1-exec run --task task.json        one sector from a file; the output goes to standard output
  pc1-exec < requests.jsonl            all requests of a file
  pc1-exec parents --proof StackedDrg32GiBV1_1    the parents cache, ahead of the first sector";

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the parents cache of a proof ahead of the first sector, or check the one that is
    /// there. Shows its digest and whether it is the published one.
    #[command(after_help = PARENTS_HELP)]
    Parents(ParentsArgs),
    /// Set memory aside for the layers of sectors: files of huge pages on a NUMA node, which are
    /// used by task after task. Does nothing if they are there.
    #[command(after_help = HUGEPAGES_HELP)]
    Hugepages(HugePagesArgs),
}

/// The whole program, up to its exit code.
pub fn main() -> ExitCode {
    run().unwrap_or_else(|code| code)
}

fn run() -> Result<ExitCode, ExitCode> {
    let environment = Environment::of_process();
    let isa = environment.isa(Stage::Pc1);
    // Help and version come whatever the environment says.
    let names = kernels(isa).map_or(["not available"; 2], |(k, d)| [k.name(), d.name()]);
    let names = [("sha256", names[0]), ("chacha8", names[1])];
    let program = Program {
        about: "Executor of pre-commit phase 1 (PC1): labels the layers of a Filecoin sector",
        version: long_version(env!("CARGO_PKG_VERSION"), &[], &names),
        works: WORKS,
        examples: EXAMPLES,
    };
    let Started { settings, asked, kept: _kept } =
        start::<Settings, Command>(program, &environment)?;
    let (kernel, draws) = kernels(settings.isa).map_err(|error| {
        tracing::error!("SEAL_FORCE_ISA: {error}");
        ExitCode::Config
    })?;
    let parents = settings.parents.clone();
    let files = settings.memory_files.as_ref();
    let task = match asked {
        Asked::Other(Command::Hugepages(args)) => return Ok(prepare_huge_pages(&args, files)),
        Asked::Other(Command::Parents(args)) => {
            tracing::info!(chacha8 = draws.name(), parents = %parents.display(), "pc1-exec");
            let _shared = share_space(&settings.common)?;
            return Ok(make_parents(&args, &parents, draws));
        }
        Asked::Run(task) => Some(task),
        Asked::Serve => None,
    };
    tracing::info!(
        sha256 = kernel.name(),
        chacha8 = draws.name(),
        parents = %parents.display(),
        "pc1-exec"
    );
    let shared = runtime_dir(&settings.common)?;
    let labeller = labeller(&settings, &shared)?;
    if let Some(path) = &settings.work_dir {
        check_work_dir(path).map_err(|error| {
            let error = TaskError::from_error(ErrorCode::Unavailable, &error).message;
            tracing::error!(
                "SEAL_WORK_DIR={}: {error}; name a directory that is there and can be written, on \
                 the file system of the cache directories, or leave SEAL_WORK_DIR out",
                path.display()
            );
            ExitCode::Config
        })?;
    }
    let options = ServeOptions::new(settings.concurrent, &settings.common);
    let executor = Pc1 {
        settings: Pc1Settings {
            parents,
            kernel,
            draws,
            labeller,
            resume: if settings.resume { Resume::Yes } else { Resume::No },
            replace_finished: match settings.replace_finished {
                true => ReplaceFinished::Yes,
                false => ReplaceFinished::No,
            },
            work_dir: settings.work_dir,
            lock_wait: settings.common.lock_wait,
        },
    };
    Ok(match task {
        Some(task) => run_one(&executor, &task),
        None => serve(Arc::new(executor), options),
    })
}

/// The directory that all processes of the machine share, in which units are claimed and disk space
/// is reserved.
fn runtime_dir(common: &Common) -> Result<RuntimeDir, ExitCode> {
    let opened = seal_runtime::runtime_dir(common);
    opened.inspect(share_disk_space).map_err(|error| {
        let is_nonsense = error.is_nonsense();
        let error = TaskError::from_error(ErrorCode::Unavailable, &error).message;
        tracing::error!(
            "units cannot be claimed: {error}; SEAL_RUNTIME_DIR names another directory"
        );
        if is_nonsense { ExitCode::Config } else { ExitCode::Start }
    })
}

/// Starts the threads that label, each on its core.
fn labeller(settings: &Settings, shared: &RuntimeDir) -> Result<Arc<Labeller>, ExitCode> {
    let settings = LabellerSettings {
        claims: Some(CpuClaims::in_dir(shared)),
        corruption: Some(Arc::new(CorruptionLog::in_dir(Stage::Pc1, shared.path()))),
        turns: Some(Arc::new(MemoryTurns::in_dir(shared))),
        ..LabellerSettings::of(settings)
    };
    let labeller = Labeller::start(&settings).map_err(|error| {
        tracing::error!("{}", TaskError::from(error).message);
        ExitCode::Start
    })?;
    Ok(Arc::new(labeller))
}

/// The kernels: the fastest, or for each that can use it the instructions that are asked for.
fn kernels(isa: Option<&str>) -> Result<(Kernel, ChaCha8), seal_sha256::KernelError> {
    let Some(name) = isa else { return Ok((Kernel::detect(), ChaCha8::detect())) };
    match (Kernel::by_name(name), ChaCha8::by_name(name)) {
        (Err(error), None) => Err(error),
        (kernel, draws) => {
            Ok((kernel.unwrap_or_else(|_| Kernel::detect()), draws.unwrap_or_else(ChaCha8::detect)))
        }
    }
}
