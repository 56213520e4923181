//! The command line of `c2-exec`.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use clap::Subcommand;
use seal_field::curve::CurveKernel;
use seal_groth16::{
    DigestCheck, Overwrite, ParamDir, ProveStep, Prover, Resources, TestParams, Trust,
    start_workers,
};
use seal_host::{Limiter, MemoryBudget, Roots, allowed_cpus};
use seal_options::{C2 as Settings, Environment};
use seal_runtime::{
    Asked, CorruptionLog, Program, ServeOptions, Started, check_runtime_dir, long_version, run_one,
    serve, spread_memory, start,
};
use seal_types::{SectorSize, Stage};
use seal_wire::{ErrorCode, ExitCode};

use crate::params::Look;
use crate::{C2, bench, gpu, params};

/// How often loading ahead tells how far it is.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What this build has beyond the usual.
const FEATURES: &[&str] = if gpu::BUILT { &["cuda"] } else { &[] };

const WORKS: &str = "\
A proof is verified before it is answered. Non-interactive proofs of replication are refused.";

const EXAMPLES: &str = "  \
  c2-exec params --sector-size 32GiB                       are the parameters there?
  c2-exec params --sector-size 32GiB --check               and the published ones, byte for byte?
  c2-exec gen-params --sector-size 2KiB --dir ./params     parameters for tests
  c2-exec --preload 32GiB                                  serve, parameters loaded ahead
  c2-exec run --task task.json                             one proof from a file";

#[derive(Debug, Subcommand)]
enum Command {
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
    run().unwrap_or_else(|code| code)
}

fn run() -> Result<ExitCode, ExitCode> {
    let environment = Environment::of_process();
    let isa = environment.isa(Stage::C2);
    // Help and version come whatever the environment says.
    let name = isa.map_or_else(|| Ok(CurveKernel::detect()), CurveKernel::by_name);
    let name = name.map_or("not available", |kernel| kernel.name());
    let program = Program {
        about: "Executor of commit phase 2 (C2): Groth16 proofs of a Filecoin sector",
        version: long_version(env!("CARGO_PKG_VERSION"), FEATURES, &[("curve", name)]),
        works: WORKS,
        examples: EXAMPLES,
    };
    // Those for which the device's prover has started threads, before the process is placed.
    let at_start = allowed_cpus();
    let Started { settings, asked, kept: _kept } =
        start::<Settings, Command>(program, &environment)?;
    let kernel = settings.isa.map_or_else(|| Ok(CurveKernel::detect()), CurveKernel::by_name);
    let kernel = kernel.map_err(|error| {
        tracing::error!("SEAL_FORCE_ISA: {error}");
        ExitCode::Config
    })?;
    // Wrong results are written down there.
    check_runtime_dir(&settings.common)?;
    if let Some(finding) = gpu::idle(&settings) {
        tracing::warn!("{finding}");
    }
    // Parameters are loaded once, and read by the threads of all nodes for every proof.
    spread_memory();
    start_workers().map_err(|error| {
        tracing::error!("{}", params::causes(&error));
        ExitCode::Start
    })?;

    let dir = ParamDir::new(&settings.params);
    let trust = trust(&settings);
    let executor = || {
        let fails = |error: String| {
            tracing::error!("{error}");
            ExitCode::Start
        };
        let at_start =
            at_start.map_err(|error| format!("cannot tell which cpus there are: {error}"));
        let at_start = at_start.map_err(fails)?;
        let corruption = Arc::new(CorruptionLog::of(Stage::C2, &settings.common));
        let device = gpu::device(&settings, &at_start, &corruption).map_err(fails)?;
        let proves = device.name().unwrap_or_else(|| "cpu".to_owned());
        let parameters = settings.params.display();
        tracing::info!(%parameters, ?trust, device = proves, curve = kernel.name(), "c2-exec");
        let resources = Resources {
            device,
            kernel,
            memory: settings.memory.unwrap_or(u64::MAX),
            params_memory: settings.params_memory.unwrap_or(u64::MAX),
            whole_memory: whole_memory(&settings, most_memory),
        };
        let prover = Prover::new(ParamDir::new(&settings.params), trust, resources);
        let prover = match &settings.circuits {
            Some(circuits) => prover.keep_circuits(circuits),
            None => prover,
        };
        Ok(C2 { prover, corruption: Some(corruption) })
    };
    match asked {
        Asked::Run(task) => Ok(run_one(&executor()?, &task)),
        Asked::Serve => Ok(start_serving(executor()?, &settings)),
        Asked::Other(Command::Params { sector_size, check }) => {
            let sizes =
                if sector_size.is_empty() { SectorSize::REGISTERED.to_vec() } else { sector_size };
            let look = if check { Look::Whole } else { Look::Quick };
            // Nobody is left to tell if printing fails.
            Ok(params::list(&dir, &sizes, trust, look).unwrap_or(ExitCode::Failed))
        }
        Asked::Other(Command::Bench { log2_constraints: (from, to) }) => {
            Ok(bench::run(kernel, from..=to).unwrap_or(ExitCode::Failed))
        }
        Asked::Other(Command::GenParams { sector_size, dir, force }) => {
            let overwrite = if force { Overwrite::Force } else { Overwrite::No };
            let dir = dir.unwrap_or_else(|| settings.params.clone());
            Ok(params::generate(sector_size, &dir, overwrite))
        }
    }
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
fn whole_memory(settings: &Settings, most: impl FnOnce() -> u64) -> u64 {
    match (settings.memory, settings.params_memory) {
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

fn trust(settings: &Settings) -> Trust {
    Trust {
        test_params: match settings.allow_test_params {
            true => TestParams::Allow,
            false => TestParams::Refuse,
        },
        digests: match settings.verify_params {
            true => DigestCheck::Always,
            false => DigestCheck::Once,
        },
    }
}

/// Serves once the device has been tried and the parameters to be loaded ahead have been looked
/// for, or the time for that is over. A device that computes wrongly is not an error here: the
/// process stays, so that it is seen, and refuses its tasks.
fn start_serving(executor: C2, settings: &Settings) -> ExitCode {
    let executor = Arc::new(executor);
    let (looked, look) = mpsc::channel();
    let (loader, sizes) = (Arc::clone(&executor), settings.preload.clone());
    let ready_within = settings.ready_within;
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
            "trying the device and looking for the parameters takes longer than SEAL_READY_WITHIN \
             ({ready_within:?}); ready all the same, the checks go on"
        ),
    }
    serve(executor, ServeOptions::new(settings.concurrent, &settings.common))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_a_cgroup_is_for_all_memory_unless_options_divide_it() {
        let whole = |line: &str| {
            let arguments: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            let settings = seal_options::judge(&arguments, &Environment::default());
            whole_memory(&settings.expect("good"), || 64 << 30)
        };
        assert_eq!(whole(""), 64 << 30);
        assert_eq!(whole("--memory 96GiB"), 64 << 30);
        assert_eq!(whole("--params-memory 45GiB"), 64 << 30);
        assert_eq!(whole("--memory 21GiB --params-memory 45GiB"), u64::MAX);
    }

    #[test]
    fn the_names_of_instructions_are_those_of_the_kernels() {
        for kernel in CurveKernel::available() {
            let environment = Environment::of(&[("SEAL_FORCE_ISA", kernel.name())]);
            let settings: Settings = seal_options::judge(&[], &environment).expect("a name");
            assert_eq!(settings.isa, Some(kernel.name()));
        }
    }

    #[test]
    fn ranges_that_are_none_are_refused() {
        for text in ["", "x", "5-9", "9-8", "20-28", "18-"] {
            assert!(parse_range(text).is_err(), "{text}");
        }
        assert_eq!(parse_range("18-22"), Ok((18, 22)));
        assert_eq!(parse_range("20"), Ok((20, 20)));
    }
}
