//! The command line of `pc1-exec`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use seal_host::{CpuClaims, MemoryTurns, RuntimeDir, share_disk_space};
use seal_runtime::{
    CorruptionLog, Environment, Honoured, RUNTIME_DIR, ServeOptions, init_logging, lock_wait,
    long_version, parse_command_line, place, run_one, serve, serves_stage, share_space,
};
use seal_sha256::{ChaCha8, Kernel};
use seal_types::Stage;
use seal_wire::{ErrorCode, ExitCode, TaskError};

use crate::hugepages::{self, FilesArgs, HugePagesArgs, prepare as prepare_huge_pages};
use crate::labeller;
use crate::parents::{ParentsArgs, parents as make_parents};
use crate::work_dir::check_work_dir;
use crate::{
    Labeller, LabellerSettings, Pc1, Pc1Settings, REPLACE_FINISHED, ReplaceFinished, Resume,
};

const RESUME: &str = "SEAL_PC1_RESUME";
const WORK_DIR: &str = "SEAL_WORK_DIR";

/// What this executor acts on.
const HONOURED: Honoured = Honoured(&[
    "FIL_PROOFS_PARENT_CACHE",
    "FIL_PROOFS_CACHE_DIR",
    // Every parents cache is checked, asked for or not.
    "FIL_PROOFS_VERIFY_CACHE",
    // Labelling is always multicore.
    "FIL_PROOFS_USE_MULTICORE_SDR",
    labeller::PRODUCERS,
    hugepages::PATH,
    hugepages::PATTERN,
]);

/// After the help of `processor`.
const PROCESSOR_HELP: &str = "\
Environment:
  HUGEPAGE_FILES_PATH      the same as --hugepage-files-path
  HUGEPAGE_FILES_PATH_PATTERN
                           the same as --hugepage-files-path-pattern
`pc1-exec --help` has all others.";

/// After the help of `parents`.
const PARENTS_HELP: &str = "\
Environment:
  FIL_PROOFS_PARENT_CACHE  directory of the parents caches
  FIL_PROOFS_CACHE_DIR     without the above, they are in this text with `filecoin-parents`
                           appended; default /var/tmp/
  SEAL_FORCE_ISA           instructions that the parents are drawn with: portable, avx2 or avx512;
                           default: the fastest there are

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

const AFTER_HELP: &str = "\
Without a command, or as `pc1-exec processor pc1`, it serves requests: one JSON object a line on
standard input, one answer a line on standard output, as venus-worker (damocles-worker) speaks to
external processors. docs/protocol.md has the format. Logs go to standard error.

Environment:
  FIL_PROOFS_PARENT_CACHE  directory of the parents caches
  FIL_PROOFS_CACHE_DIR     without the above, they are in this text with `filecoin-parents`
                           appended; default /var/tmp/
  SEAL_FORCE_ISA           instructions of the kernels that can use them: portable; shani (SHA-256);
                           avx2 or avx512 (parents cache); default: the fastest there are
  FIL_PROOFS_MULTICORE_SDR_PRODUCERS
                           threads that gather parents for each thread that labels; default 1; 0
                           gives every core a sector of its own, which is best where sectors are
                           more than pairs of cores
  SEAL_PC1_LANES           sectors that may share a labelling thread: 1 to 4, default 4; they do
                           so only when all threads have one
  SEAL_PC1_SMT             1: use both threads of a core; default 0: one of each
  SEAL_PC1_REPLACE_FINISHED
                           1: the same as --replace-finished
  SEAL_PC1_RESUME          0: label all layers anew instead of going on after the finished ones
  SEAL_WORK_DIR            directory for layers until all are finished, on the file system of
                           cache_path; default: cache_path itself
  SEAL_RUNTIME_DIR         directory in which processes without cpusets of their own claim the cpus
                           they label on, so that no two use the same, and take turns at memory, so
                           that no two are promised the same, and reserve disk space, so that no two
                           count on the same; default: /run/seal-exec for
                           root, else /tmp/seal-exec-UID
  SEAL_LOCK_WAIT           how long a task waits for a sector that another process still has,
                           such as 1h; a supervisor sets it by grace and drain of its stage;
                           default 2m
  SEAL_NUMA                preferred: take memory of other nodes where the own one has too little
  HUGEPAGE_FILES_PATH      directory of memory files made by `pc1-exec hugepages`, in numa_N for
                           NUMA node N
  HUGEPAGE_FILES_PATH_PATTERN
                           directory of memory files with $NUMA_NODE_INDEX for the node's number
  VC_CG_CPUSET             cpus to run on, as venus-worker sets them for its processors
  VENUS_WORKER_NUMA_PREFERRED
                           NUMA node whose memory to prefer, likewise
  RUST_LOG                 level of logs: error, warn, info (default), debug, trace
  SEAL_LOG_FORM            text or json; by default text on a terminal or beside
                           a parent's own lines
Other FIL_PROOFS_* variables have no effect here; RUST_LOG=debug names those that are set.

Files: layers and tree D are written to cache_path, each under a hidden name until it is complete.
What an earlier sealing under another replica id left in cache_path is removed first, once all is
checked that can be checked quickly; a finished sector (its p_aux is complete) is refused instead.

Examples:
  pc1-exec run --task task.json        one sector from a file; the output goes to standard output
  pc1-exec < requests.jsonl            all requests of a file
  pc1-exec parents --proof StackedDrg32GiBV1_1    the parents cache, ahead of the first sector";

/// Executor of pre-commit phase 1 (PC1): labels the layers of a Filecoin sector.
#[derive(Debug, Parser)]
#[command(name = "pc1-exec", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    serve: ServeArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// How many tasks run at the same time; further ones wait in their order. Each that labels holds
    /// twice the sector's size in memory.
    #[arg(long, value_name = "N", env = "SEAL_PC1_CONCURRENT", default_value_t = usize::MAX, hide_default_value = true)]
    concurrent: usize,
    /// Seal also where cache_path holds a finished sector under another replica id, which is then
    /// removed. Without it such a request is refused.
    #[arg(long)]
    replace_finished: bool,
    /// Directory of the parents caches (default: see FIL_PROOFS_PARENT_CACHE below).
    #[arg(long, value_name = "DIR")]
    parents: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve requests, as venus-worker starts an external processor.
    #[command(after_help = PROCESSOR_HELP)]
    Processor {
        /// The stage; only pc1 is served here.
        stage: Stage,
        #[command(flatten)]
        files: FilesArgs,
    },
    /// Do one task and end.
    Run {
        /// File with a task, or a whole request line; `-` is standard input.
        #[arg(long, value_name = "FILE")]
        task: PathBuf,
    },
    /// Make the parents cache of a proof ahead of the first sector, or check the one that is
    /// there. Tells its digest and whether it is the published one.
    #[command(after_help = PARENTS_HELP)]
    Parents(ParentsArgs),
    /// Set memory aside for the layers of sectors: files of huge pages on a NUMA node, which are
    /// used by task after task. Does nothing if they are there.
    #[command(after_help = HUGEPAGES_HELP)]
    Hugepages(HugePagesArgs),
}

/// The whole program, up to its exit code.
pub fn main() -> ExitCode {
    let environment = Environment::of_process();
    let kernels = kernels(&environment);
    // Help and version come whatever the environment says.
    let names = kernels.as_ref().map_or(["not available"; 2], |(k, d)| [k.name(), d.name()]);
    let names = [("sha256", names[0]), ("chacha8", names[1])];
    let version = long_version(env!("CARGO_PKG_VERSION"), &[], &names);
    let cli: Cli = match parse_command_line(version) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let _last_words = init_logging();
    let (kernel, draws) = match kernels {
        Ok(kernels) => kernels,
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

    if let Some(Command::Hugepages(args)) = &cli.command {
        return prepare_huge_pages(args, &environment);
    }
    let parents = cli
        .serve
        .parents
        .unwrap_or_else(|| seal_sdr::cache_directory(|name| environment.get(name)));
    tracing::info!(sha256 = kernel.name(), chacha8 = draws.name(), parents = %parents.display(), "pc1-exec");
    if let Some(Command::Parents(args)) = &cli.command {
        let _shared = match share_space(&environment) {
            Ok(shared) => shared,
            Err(code) => return code,
        };
        return make_parents(args, &parents, draws);
    }
    if let Some(Command::Processor { stage, .. }) = &cli.command
        && !serves_stage(Stage::Pc1, *stage)
    {
        return ExitCode::Usage;
    }
    let shared = match runtime_dir(&environment) {
        Ok(opened) => opened,
        Err(code) => return code,
    };
    let no_options = FilesArgs::default();
    let files = match &cli.command {
        Some(Command::Processor { files, .. }) => files,
        _ => &no_options,
    };
    let replace_finished = match replace_finished(&environment, cli.serve.replace_finished) {
        Ok(replace) => replace,
        Err(code) => return code,
    };
    let (labeller, resume) = match labeller(&environment, files, &shared) {
        Ok(started) => started,
        Err(code) => return code,
    };
    let work_dir = match work_dir(&environment) {
        Ok(work_dir) => work_dir,
        Err(code) => return code,
    };
    let lock_wait = match lock_wait(&environment) {
        Ok(lock_wait) => lock_wait,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::Config;
        }
    };
    let settings = Pc1Settings {
        parents,
        kernel,
        draws,
        labeller,
        resume,
        replace_finished,
        work_dir,
        lock_wait,
    };
    let executor = Pc1 { settings };
    match cli.command {
        Some(Command::Run { task }) => run_one(&executor, &task),
        Some(Command::Processor { .. } | Command::Parents(_) | Command::Hugepages(_)) | None => {
            serve(Arc::new(executor), ServeOptions::concurrent(cli.serve.concurrent))
        }
    }
}

/// The directory that all processes of the machine share, in which units are claimed and disk space
/// is reserved.
fn runtime_dir(environment: &Environment) -> Result<RuntimeDir, ExitCode> {
    let opened = seal_runtime::runtime_dir(environment);
    opened.inspect(share_disk_space).map_err(|error| {
        let is_nonsense = error.is_nonsense();
        let error = TaskError::from_error(ErrorCode::Unavailable, &error).message;
        tracing::error!("units cannot be claimed: {error}; {RUNTIME_DIR} names another directory");
        if is_nonsense { ExitCode::Config } else { ExitCode::Start }
    })
}

/// Whether finished sectors may go, by the option or by the environment.
fn replace_finished(environment: &Environment, asked: bool) -> Result<ReplaceFinished, ExitCode> {
    match environment.get(REPLACE_FINISHED).as_deref() {
        Some("1") => Ok(ReplaceFinished::Yes),
        None | Some("0") if asked => Ok(ReplaceFinished::Yes),
        None | Some("0") => Ok(ReplaceFinished::No),
        Some(other) => {
            tracing::error!("{REPLACE_FINISHED}={other:?}: it is 0 or 1");
            Err(ExitCode::Config)
        }
    }
}

/// The directory in which layers are kept, if one is named; it has to be usable.
fn work_dir(environment: &Environment) -> Result<Option<PathBuf>, ExitCode> {
    let named = environment.get(WORK_DIR).filter(|path| !path.is_empty());
    let Some(path) = named.map(PathBuf::from) else { return Ok(None) };
    check_work_dir(&path).map_err(|error| {
        let error = TaskError::from_error(ErrorCode::Unavailable, &error).message;
        tracing::error!(
            "{WORK_DIR}={}: {error}; name a directory that is there and can be written, on the \
             file system of the cache directories, or leave {WORK_DIR} out",
            path.display()
        );
        ExitCode::Config
    })?;
    Ok(Some(path))
}

/// Starts the threads that label, each on its core, as the environment and the options for memory
/// files ask.
fn labeller(
    environment: &Environment,
    files: &FilesArgs,
    shared: &RuntimeDir,
) -> Result<(Arc<Labeller>, Resume), ExitCode> {
    let settings = LabellerSettings::of(environment, files).and_then(|settings| {
        let resume = match environment.get(RESUME).as_deref() {
            None | Some("1") => Resume::Yes,
            Some("0") => Resume::No,
            Some(other) => return Err(format!("{RESUME}={other:?}: it is 0 or 1")),
        };
        Ok((settings, resume))
    });
    let (mut settings, resume) = settings.map_err(|error| {
        tracing::error!("{error}");
        ExitCode::Config
    })?;
    settings.claims = Some(CpuClaims::in_dir(shared));
    settings.corruption = Some(Arc::new(CorruptionLog::in_dir(Stage::Pc1, shared.path())));
    settings.turns = Some(Arc::new(MemoryTurns::in_dir(shared)));
    let labeller = Labeller::start(&settings).map_err(|error| {
        tracing::error!("{}", seal_wire::TaskError::from(error).message);
        ExitCode::Start
    })?;
    Ok((Arc::new(labeller), resume))
}

/// The kernels: the fastest, or for each that can use it the instructions that are asked for.
fn kernels(environment: &Environment) -> Result<(Kernel, ChaCha8), seal_sha256::KernelError> {
    let Some(name) = environment.get("SEAL_FORCE_ISA") else {
        return Ok((Kernel::detect(), ChaCha8::detect()));
    };
    match (Kernel::by_name(&name), ChaCha8::by_name(&name)) {
        (Err(error), None) => Err(error),
        (kernel, draws) => {
            Ok((kernel.unwrap_or_else(|_| Kernel::detect()), draws.unwrap_or_else(ChaCha8::detect)))
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

    #[test]
    fn what_a_help_text_calls_below_is_below() {
        for name in ["", "processor", "parents", "hugepages"] {
            let mut command = Cli::command();
            let command = match name {
                "" => &mut command,
                name => command.find_subcommand_mut(name).expect("a command"),
            };
            let help = command.render_long_help().to_string();
            let (above, below) = help.split_once("Environment:").expect("it has the variables");
            let mut words = above.split_whitespace().skip_while(|word| *word != "see");
            let variable = words.nth(1).expect("it refers to one");
            assert!(below.contains(variable), "{name}: {variable} is not in {below}");
        }
    }

    #[test]
    fn serves_without_a_command_and_as_venus_worker_starts_it() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).expect("a command line");
        assert!(parse("pc1-exec").command.is_none());
        assert!(parse("pc1-exec --concurrent 3").command.is_none());
        assert!(matches!(
            parse("pc1-exec processor pc1").command,
            Some(Command::Processor { stage: Stage::Pc1, .. })
        ));
    }

    #[test]
    fn memory_files_are_named_by_options_of_the_worker_before_the_environment() {
        let environment = Environment::of(&[
            (hugepages::PATH, "/env"),
            (hugepages::PATTERN, "/env/n$NUMA_NODE_INDEX"),
        ]);
        for (options, directory) in [
            ("", "/env/n1"),
            (" --hugepage-files-path /mnt/h", "/mnt/h/numa_1"),
            (" --hugepage_files_path=/mnt/h", "/mnt/h/numa_1"),
            (" --hugepage-files-path-pattern /mnt/$NUMA_NODE_INDEX", "/mnt/1"),
            (" --hugepage_files_path_pattern /mnt/$NUMA_NODE_INDEX", "/mnt/1"),
            (" --hugepage-files-path /x --hugepage-files-path-pattern /y$NUMA_NODE_INDEX", "/y1"),
        ] {
            let line = format!("pc1-exec processor pc1{options}");
            let cli = Cli::try_parse_from(line.split(' ')).expect("a command line");
            let Some(Command::Processor { files, .. }) = cli.command else { panic!("{line}") };
            let settings = LabellerSettings::of(&environment, &files).expect("good");
            let found = settings.files.expect("named").directory(seal_host::NodeId(1));
            assert_eq!(found.to_str(), Some(directory), "{options}");
        }
        let bad = ["pc1-exec", "processor", "pc1", "--hugepage-files-path-pattern", "/mnt"];
        let cli = Cli::try_parse_from(bad).expect("a command line");
        let Some(Command::Processor { files, .. }) = cli.command else { panic!("{bad:?}") };
        let error = LabellerSettings::of(&environment, &files).unwrap_err();
        assert!(error.contains("does not contain $NUMA_NODE_INDEX"), "{error}");
    }
}
