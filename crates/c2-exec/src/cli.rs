//! The command line of `c2-exec`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use seal_field::curve::{CurveKernel, CurveKernelError};
use seal_groth16::{
    DEFAULT_PARAM_DIR, DigestCheck, Overwrite, ParamDir, ProveStep, Prover, Resources, TestParams,
    Trust, start_workers,
};
use seal_host::{Limiter, MemoryBudget, Roots, allowed_cpus};
use seal_runtime::{
    CorruptionLog, Environment, Honoured, ServeOptions, check_runtime_dir, init_logging,
    long_version, parse_command_line, place, run_one, serve, serves_stage, spread_memory,
};
use seal_types::{SectorSize, Stage};
use seal_wire::{ErrorCode, ExitCode};

use crate::gpu::{self, DeviceKind, Wish};
use crate::params::Look;
use crate::{C2, bench, params};

const PARAMETER_CACHE: &str = "FIL_PROOFS_PARAMETER_CACHE";
const FORCE_ISA: &str = "SEAL_FORCE_ISA";
const READY_WITHIN: &str = "SEAL_READY_WITHIN";
const CIRCUIT_CACHE: &str = "SEAL_CIRCUIT_CACHE";

/// Where compiled circuits are kept, beside the parameters.
const CIRCUITS: &str = "seal-exec-circuits";
/// Instead of a directory: they are not kept.
const OFF: &str = "off";

/// Below the 5 s that venus-worker waits.
const DEFAULT_READY_WITHIN: Duration = Duration::from_secs(4);
/// How often loading ahead tells how far it is.
const LOG_EVERY: Duration = Duration::from_secs(10);

const VERIFY_PARAMS: &str = "FIL_PROOFS_VERIFY_PRODUCTION_PARAMS";

/// What this executor acts on.
const HONOURED: Honoured = Honoured(&[PARAMETER_CACHE, VERIFY_PARAMS, gpu::VISIBLE, gpu::GPU]);

/// What this build has beyond the usual.
const FEATURES: &[&str] = if gpu::BUILT { &["cuda"] } else { &[] };

const AFTER_HELP: &str = "\
Without a command, or as `c2-exec processor c2`, it serves requests: one JSON object a line on
standard input, one answer a line on standard output, as venus-worker (damocles-worker) speaks to
external processors. docs/protocol.md has the format. Logs go to standard error.

A proof is verified before it is answered. Non-interactive proofs of replication are refused.

Environment:
  FIL_PROOFS_PARAMETER_CACHE           directory of the Groth16 parameters;
                                       default /var/tmp/filecoin-proof-parameters
  FIL_PROOFS_VERIFY_PRODUCTION_PARAMS  1: compare parameter files with their published digests
                                       whenever they are loaded; default: the first time, and
                                       again when a file has changed
  SEAL_READY_WITHIN                    how long a GPU may be tried, and --preload look for
                                       parameters, before the ready line goes out all the same;
                                       default 4s
  SEAL_CIRCUIT_CACHE                   where compiled circuits are kept, as --circuit-cache
  SEAL_FORCE_ISA                       arithmetic: portable, or ifma (AVX-512); default: the best
                                       that this processor has
  SEAL_C2_DEVICE                       who proves: cpu (default), or cuda for an NVIDIA GPU; as
                                       --device. A GPU that is not usable is an error at start
  SEAL_GPU                             optional: then the CPU proves instead, also in place of a
                                       GPU that computes wrongly
  CUDA_VISIBLE_DEVICES                 which GPU, by index or UUID; the first of them is used
  BELLMAN_NO_GPU                       1: no GPU; an error where one is asked for
  SEAL_ALLOW_TEST_PARAMS               1: prove with test parameters, as --allow-test-params
  VC_CG_CPUSET                         cpus to run on, as venus-worker sets them for its processors
  VENUS_WORKER_NUMA_PREFERRED          NUMA node whose memory to prefer, likewise
  RUST_LOG                             level of logs: error, warn, info (default), debug, trace
  SEAL_LOG_FORM                        text or json; by default text on a terminal or beside
                                       a parent's own lines
Other FIL_PROOFS_* variables have no effect here; RUST_LOG=debug names those that are set.

Examples:
  c2-exec params --sector-size 32GiB                       are the parameters there?
  c2-exec params --sector-size 32GiB --check               and the published ones, byte for byte?
  c2-exec gen-params --sector-size 2KiB --dir ./params     parameters for tests
  c2-exec --preload 32GiB                                  serve, parameters loaded ahead
  c2-exec run --task task.json                             one proof from a file";

/// Executor of commit phase 2 (C2): Groth16 proofs of a Filecoin sector.
#[derive(Debug, Parser)]
#[command(name = "c2-exec", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    serve: ServeArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// How many proofs are made at the same time; further tasks wait in their order.
    #[arg(long, value_name = "N", default_value_t = 1)]
    concurrent: usize,
    /// Sector sizes whose parameters are looked for before the ready line, and then loaded ahead
    /// of the first task. Missing ones stop the start.
    #[arg(long, value_name = "SIZE,...", value_delimiter = ',')]
    preload: Vec<SectorSize>,
    /// Memory for the partitions that are being proved, like 96GiB; default: no limit. A partition
    /// of a 32 GiB sector takes about 21 GiB; with room for two the next one is prepared while one
    /// is proved.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    memory: Option<u64>,
    /// Memory for parameters, like 64GiB; default: no limit. Those for 32GiB take 45 GiB. When they
    /// do not fit together, those of one sector size make room for those of another.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    params_memory: Option<u64>,
    /// Where compiled circuits are kept (a third of a GiB for 32GiB), so that not every start has
    /// to compile them again; `off`: nowhere. Default: seal-exec-circuits beside the parameters.
    #[arg(long, value_name = "DIR", global = true)]
    circuit_cache: Option<PathBuf>,
    /// Who proves; default: what SEAL_C2_DEVICE says, or the processor.
    #[arg(long, value_name = "DEVICE", global = true)]
    device: Option<DeviceKind>,
    /// Prove with parameters that are not the published ones. Such proofs are worthless on the
    /// network.
    #[arg(long, global = true)]
    allow_test_params: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve requests, as venus-worker starts an external processor.
    Processor {
        /// The stage; only c2 is served here.
        stage: Stage,
    },
    /// Do one task and end.
    Run {
        /// File with a task, or a whole request line; `-` is standard input.
        #[arg(long, value_name = "FILE")]
        task: PathBuf,
    },
    /// List which parameters are there and usable.
    Params {
        /// Only those for these sectors; default: all sizes.
        #[arg(long, value_name = "SIZE,...", value_delimiter = ',')]
        sector_size: Vec<SectorSize>,
        /// Read the files now and compare their digests with the published ones; a minute for
        /// 32GiB. What is good is remembered.
        #[arg(long)]
        check: bool,
    },
    /// Measure the prover on made-up circuits; one JSON object a line.
    Bench {
        /// From 2^FROM to 2^TO constraints.
        #[arg(long, value_name = "FROM-TO", value_parser = parse_range)]
        log2_constraints: (u32, u32),
    },
    /// Make local parameters for tests, under the official names. Whoever makes parameters could
    /// forge proofs with them, so nothing on the network accepts them.
    GenParams {
        /// Size of the sectors: at most 512MiB.
        #[arg(long, value_name = "SIZE")]
        sector_size: SectorSize,
        /// Where to; default: FIL_PROOFS_PARAMETER_CACHE.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Write also into the default directory, where everything on this host would use them,
        /// and replace other test parameters.
        #[arg(long)]
        force: bool,
    },
}

/// The whole program, up to its exit code.
pub fn main() -> ExitCode {
    let environment = Environment::of_process();
    let kernel = kernel(&environment);
    // Help and version come whatever the environment says.
    let name = kernel.as_ref().map_or("not available", |kernel| kernel.name());
    let version = long_version(env!("CARGO_PKG_VERSION"), FEATURES, &[("curve", name)]);
    let cli: Cli = match parse_command_line(version) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let _last_words = init_logging();
    let kernel = match kernel {
        Ok(kernel) => kernel,
        Err(error) => {
            tracing::error!("{FORCE_ISA}: {error}");
            return ExitCode::Config;
        }
    };
    let wish = Wish::of(cli.serve.device, &environment);
    environment.report(HONOURED);
    // Wrong results are written down there.
    if let Err(code) = check_runtime_dir(&environment) {
        return code;
    }
    if let Some(finding) = gpu::idle(cli.serve.device, &environment) {
        tracing::warn!("{finding}");
    }
    // Those for which the device's prover has started threads, before all of this.
    let at_start = allowed_cpus();
    let _place = match place(&environment) {
        Ok(placed) => placed,
        Err(code) => return code,
    };
    // Parameters are loaded once, and read by the threads of all nodes for every proof.
    spread_memory();
    if let Err(error) = start_workers() {
        tracing::error!("{}", params::causes(&error));
        return ExitCode::Start;
    }

    let dir = environment.get(PARAMETER_CACHE).unwrap_or_else(|| DEFAULT_PARAM_DIR.to_owned());
    let trust = trust(&cli.serve, &environment);
    let circuits = circuits(&cli.serve, &environment, Path::new(&dir));
    let executor = || {
        let told = |code: ExitCode| {
            move |error: String| {
                tracing::error!("{error}");
                code
            }
        };
        let wish = wish.map_err(told(ExitCode::Config))?;
        let at_start =
            at_start.map_err(|error| format!("cannot tell which cpus there are: {error}"));
        let at_start = at_start.map_err(told(ExitCode::Start))?;
        let corruption = Arc::new(CorruptionLog::of(Stage::C2, &environment));
        let device =
            gpu::device(wish.as_ref(), &at_start, &corruption).map_err(told(ExitCode::Start))?;
        let proves = device.name().unwrap_or_else(|| "cpu".to_owned());
        tracing::info!(parameters = dir, ?trust, device = proves, curve = kernel.name(), "c2-exec");
        let resources = Resources {
            device,
            kernel,
            memory: cli.serve.memory.unwrap_or(u64::MAX),
            params_memory: cli.serve.params_memory.unwrap_or(u64::MAX),
            whole_memory: whole_memory(&cli.serve, most_memory),
        };
        let prover = Prover::new(ParamDir::new(&dir), trust, resources);
        let prover = match &circuits {
            Some(circuits) => prover.keep_circuits(circuits),
            None => prover,
        };
        Ok(C2 { prover, corruption: Some(corruption) })
    };
    match cli.command {
        Some(Command::Run { task }) => match executor() {
            Ok(executor) => run_one(&executor, &task),
            Err(code) => code,
        },
        Some(Command::Params { sector_size, check }) => {
            let sizes =
                if sector_size.is_empty() { SectorSize::REGISTERED.to_vec() } else { sector_size };
            let look = if check { Look::Whole } else { Look::Quick };
            // Nobody is left to tell if printing fails.
            params::list(&ParamDir::new(&dir), &sizes, trust, look).unwrap_or(ExitCode::Failed)
        }
        Some(Command::Bench { log2_constraints: (from, to) }) => {
            bench::run(kernel, from..=to).unwrap_or(ExitCode::Failed)
        }
        Some(Command::GenParams { sector_size, dir: to, force }) => {
            let overwrite = if force { Overwrite::Force } else { Overwrite::No };
            params::generate(sector_size, &to.unwrap_or_else(|| dir.into()), overwrite)
        }
        Some(Command::Processor { stage }) if !serves_stage(Stage::C2, stage) => ExitCode::Usage,
        Some(Command::Processor { .. }) | None => {
            let within = match ready_within(&environment) {
                Ok(within) => within,
                Err(error) => {
                    tracing::error!("{error}");
                    return ExitCode::Config;
                }
            };
            match executor() {
                Ok(executor) => start_serving(executor, &cli.serve, within),
                Err(code) => code,
            }
        }
    }
}

/// The arithmetic: the fastest, or what is asked for.
fn kernel(environment: &Environment) -> Result<CurveKernel, CurveKernelError> {
    environment
        .get(FORCE_ISA)
        .map_or_else(|| Ok(CurveKernel::detect()), |name| CurveKernel::by_name(&name))
}

/// Bytes as people write them: a number with KiB, MiB, GiB or TiB, or of bytes.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let (number, shift) = units
        .into_iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))
        .unwrap_or((text, 0));
    let wrong = || format!("{text:?} is no size; write it like 512MiB or 96GiB");
    let number: u64 = number.trim().parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// A range like `18-22`, within what fits a machine's memory.
fn parse_range(text: &str) -> Result<(u32, u32), String> {
    let wrong = || format!("{text:?} is no range from 6 to 27; write it like 18-22");
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse::<u32>().map_err(|_| wrong());
    let (from, to) = (number(from)?, number(to)?);
    if 6 <= from && from <= to && to <= 27 { Ok((from, to)) } else { Err(wrong()) }
}

/// What partitions, parameters and circuits may take together. Whoever has limited both has said it.
fn whole_memory(args: &ServeArgs, most: impl FnOnce() -> u64) -> u64 {
    match (args.memory, args.params_memory) {
        (Some(_), Some(_)) => u64::MAX,
        _ => most(),
    }
}

/// What memory is limited to where options do not say: what is above the limit of a cgroup would be
/// killed by the kernel.
fn most_memory() -> u64 {
    match MemoryBudget::of(&Roots::default(), None) {
        Ok(budget) if matches!(budget.by, Limiter::Group(_)) => {
            tracing::info!("{budget}");
            budget.bytes
        }
        Ok(_) => u64::MAX,
        Err(error) => {
            tracing::debug!(%error, "the memory of this machine is not known");
            u64::MAX
        }
    }
}

/// The directory for compiled circuits, if they are to be kept.
fn circuits(args: &ServeArgs, environment: &Environment, params: &Path) -> Option<PathBuf> {
    let asked = args.circuit_cache.clone();
    let asked = asked.or_else(|| environment.get(CIRCUIT_CACHE).map(PathBuf::from));
    let dir = asked.unwrap_or_else(|| params.join(CIRCUITS));
    (dir != Path::new(OFF)).then_some(dir)
}

fn trust(args: &ServeArgs, environment: &Environment) -> Trust {
    let allowed = args.allow_test_params || environment.is_set_to_yes("SEAL_ALLOW_TEST_PARAMS");
    Trust {
        test_params: if allowed { TestParams::Allow } else { TestParams::Refuse },
        digests: if environment.is_set_to_yes(VERIFY_PARAMS) {
            DigestCheck::Always
        } else {
            DigestCheck::Once
        },
    }
}

/// Serves once the device has been tried and the parameters to be loaded ahead have been looked
/// for, or [`READY_WITHIN`] is over. A device that computes wrongly is not an error here: the
/// process stays, so that it is seen, and refuses its tasks.
fn start_serving(executor: C2, args: &ServeArgs, ready_within: Duration) -> ExitCode {
    let executor = Arc::new(executor);
    let (looked, look) = mpsc::channel();
    let (loader, sizes) = (Arc::clone(&executor), args.preload.clone());
    // Behind the ready line: venus-worker waits a few seconds only, and loading takes longer.
    let load = move || {
        match loader.prover.try_device(&mut |_| ControlFlow::Continue(())) {
            Ok(()) => {}
            Err(error) if error.code() == ErrorCode::BadDevice => {
                tracing::error!("{}", params::causes(&error));
            }
            Err(error) => {
                tracing::error!("{}", params::causes(&error));
                let _ = looked.send(Err(()));
                return;
            }
        }
        for size in &sizes {
            if let Err(error) = loader.prover.find(*size) {
                tracing::error!("--preload {size}: {}", params::causes(&error));
                // Nobody waits any more if this took too long: then tasks get the error.
                let _ = looked.send(Err(()));
                return;
            }
        }
        let _ = looked.send(Ok(()));
        sizes.into_iter().for_each(|size| preload(&loader, size));
    };
    if let Err(error) = seal_host::start_thread("preload", load) {
        tracing::error!(%error, "cannot start a thread");
        return ExitCode::Start;
    }
    match look.recv_timeout(ready_within) {
        Ok(Err(())) => return ExitCode::Start,
        Ok(Ok(())) => {}
        Err(_) => tracing::warn!(
            "trying the device and looking for the parameters takes longer than {READY_WITHIN} \
             ({ready_within:?}); ready all the same, the checks go on"
        ),
    }
    serve(executor, ServeOptions::concurrent(args.concurrent))
}

/// Loads what the first task of a size needs.
fn preload(executor: &C2, size: SectorSize) {
    tracing::info!("loading the parameters for {size}");
    let mut told = Instant::now();
    let loaded = executor.prover.preload(size, &mut |step| {
        if let ProveStep::Loading { done, total } = step
            && told.elapsed() >= LOG_EVERY
        {
            told = Instant::now();
            tracing::info!(done, total, "loading the parameters for {size}");
        }
        ControlFlow::Continue(())
    });
    match loaded {
        Ok(()) => tracing::info!("the parameters for {size} are loaded"),
        // The first task that needs them gets the same error as its answer.
        Err(error) => tracing::error!("--preload {size}: {}", params::causes(&error)),
    }
}

/// A time like 4s or 500ms.
fn ready_within(environment: &Environment) -> Result<Duration, String> {
    environment.get(READY_WITHIN).map_or(Ok(DEFAULT_READY_WITHIN), |text| {
        humantime::parse_duration(&text)
            .map_err(|error| format!("{READY_WITHIN}={text:?}: {error}; write it like 4s"))
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

    #[test]
    fn options_of_serving_are_top_level() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).expect("a command line");
        let cli = parse("c2-exec --preload 2KiB,8MiB --allow-test-params processor c2");
        assert_eq!(cli.serve.preload, [SectorSize::KIB_2, SectorSize::MIB_8]);
        assert!(cli.serve.allow_test_params);
        let cli = parse("c2-exec --memory 96GiB --params-memory 1024");
        assert_eq!((cli.serve.memory, cli.serve.params_memory), (Some(96 << 30), Some(1024)));
        assert!(parse("c2-exec run --task t --allow-test-params").serve.allow_test_params);
    }

    #[test]
    fn the_limit_of_a_cgroup_is_for_all_memory_unless_options_divide_it() {
        let whole = |line: &str| {
            let cli = Cli::try_parse_from(line.split(' ')).expect("a command line");
            whole_memory(&cli.serve, || 64 << 30)
        };
        assert_eq!(whole("c2-exec"), 64 << 30);
        assert_eq!(whole("c2-exec --memory 96GiB"), 64 << 30);
        assert_eq!(whole("c2-exec --params-memory 45GiB"), 64 << 30);
        assert_eq!(whole("c2-exec --memory 21GiB --params-memory 45GiB"), u64::MAX);
    }

    #[test]
    fn the_time_until_ready_is_a_time() {
        let within = |text| ready_within(&Environment::of(&[(READY_WITHIN, text)]));
        assert_eq!(within("250ms"), Ok(Duration::from_millis(250)));
        assert!(within("soon").expect_err("no time").contains("soon"));
        assert_eq!(ready_within(&Environment::of(&[])), Ok(DEFAULT_READY_WITHIN));
    }

    #[test]
    fn circuits_are_kept_beside_the_parameters_or_where_one_says() {
        let place = |line: &str, set: &[(&str, &str)]| {
            let cli = Cli::try_parse_from(line.split(' ')).expect("a command line");
            circuits(&cli.serve, &Environment::of(set), Path::new("/params"))
        };
        let set = [(CIRCUIT_CACHE, "/set")];
        assert_eq!(place("c2-exec", &[]), Some("/params/seal-exec-circuits".into()));
        assert_eq!(place("c2-exec", &set), Some("/set".into()));
        assert_eq!(place("c2-exec run --task t --circuit-cache /told", &set), Some("/told".into()));
        assert_eq!(place("c2-exec --circuit-cache off", &set), None);
        assert_eq!(place("c2-exec", &[(CIRCUIT_CACHE, "off")]), None);
    }

    #[test]
    fn ranges_that_are_none_are_refused() {
        for text in ["", "x", "5-9", "9-8", "20-28", "18-"] {
            assert!(parse_range(text).is_err(), "{text}");
        }
        assert_eq!(parse_range("18-22"), Ok((18, 22)));
        assert_eq!(parse_range("20"), Ok((20, 20)));
    }

    #[test]
    fn sizes_that_are_none_are_refused() {
        for text in ["", "GiB", "1.5GiB", "-1", "12 gib", "99999999999TiB"] {
            let error = parse_bytes(text).expect_err(text);
            assert!(error.contains("96GiB"), "{error}");
        }
        assert_eq!(parse_bytes("2 MiB"), Ok(2 << 20));
    }
}
