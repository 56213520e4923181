//! From the command line to the exit code.

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use seal_config::{Config, ConfigError, Refused};
use seal_host::{CgroupTree, place_self};
use seal_wire::{ErrorCode, ExitCode, TaskError};

use crate::status::{About, Looker, Reporter, collect, tell};
use crate::{
    Cli, Command, ConfigArgs, Machine, PlaceArgs, Plan, ProcessorArgs, RuntimeDir,
    SYSTEM_RUNTIME_DIR, StatusArgs, Timing, config_command, default_runtime_dir, describe, groups,
    log, serve,
};
use crate::{metrics, top};

/// How long processes of executors may take to be gone after they were killed.
const CGROUP_PATIENCE: Duration = Duration::from_secs(2);

/// A failure with the exit code it leads to.
struct Failure {
    code: ExitCode,
    text: String,
}

/// Runs the supervisor. Must be called on the main thread.
pub fn run() -> ExitCode {
    let began = Instant::now();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to clap too; they go to standard output.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::Usage } else { ExitCode::Success };
        }
    };
    // Dropped last, so that the last lines are written.
    let _last_words = match &cli.command {
        Command::Processor(_) => match log::of_supervisor() {
            Ok(last_words) => Some(last_words),
            Err(error) => {
                log::of_command();
                tracing::error!(%error, "the log cannot be written");
                return ExitCode::Start;
            }
        },
        _ => {
            log::of_command();
            None
        }
    };
    let _span;
    let done = match &cli.command {
        Command::Processor(args) => {
            _span = tracing::info_span!("supervisor", stage = %args.stage).entered();
            processor(args, began)
        }
        Command::Config(args) => config(args),
        Command::Status(args) => status(args),
        Command::Top(args) => {
            let shown = looked_at(&args.place)
                .and_then(|at| top::run(&at.path).map_err(because(ExitCode::Failed)));
            shown.map(|()| ExitCode::Success)
        }
    };
    match done {
        Ok(code) => code,
        Err(failure) => {
            tracing::error!("{}", failure.text);
            failure.code
        }
    }
}

fn processor(args: &ProcessorArgs, began: Instant) -> Result<ExitCode, Failure> {
    let config = seal_config::load_all(&args.config).map_err(refused)?;
    for ignored in &config.ignored {
        tracing::warn!("{ignored}");
    }
    let own_binary = env::current_exe().map_err(because(ExitCode::Start))?;
    // Not VC_CG_NAME: groups are made for the executors, in which the supervisor is none.
    let place = |name: &str| env::var(name).ok().filter(|_| name != "VC_CG_NAME");
    let _placed = place_self(place).map_err(|error| {
        let code = if error.is_nonsense() { ExitCode::Config } else { ExitCode::Start };
        because(code)(error)
    })?;
    let cgroups = groups::open(config.supervisor.cgroup).map_err(because(ExitCode::Start))?;
    let done = with_cgroups(args, &config, &own_binary, cgroups.as_ref(), began);
    if let Some(tree) = cgroups
        && let Err(error) = tree.close(CGROUP_PATIENCE)
    {
        tracing::warn!("{}", because(ExitCode::Failed)(error).text);
    }
    done
}

fn with_cgroups(
    args: &ProcessorArgs,
    config: &Config,
    own_binary: &Path,
    cgroups: Option<&Arc<CgroupTree>>,
    began: Instant,
) -> Result<ExitCode, Failure> {
    let mut plan =
        Plan::new(config, args.stage, own_binary, cgroups).map_err(because(ExitCode::Config))?;
    args.overrule(&mut plan.settings);
    let (wait, wait_max) = (plan.settings.restart_wait, plan.settings.restart_wait_max);
    if wait > wait_max {
        let [wait, wait_max] = [wait, wait_max].map(humantime::format_duration);
        let text = format!("--restart-wait is {wait}, longer than --restart-wait-max, {wait_max}");
        return Err(Failure { code: ExitCode::Usage, text });
    }
    let machine = Machine::this(cgroups.map(Arc::as_ref)).map_err(because(ExitCode::Start))?;
    if args.dry_run {
        let text = describe(&plan, &machine);
        write_out(&text)?;
        return Ok(ExitCode::Success);
    }
    for (name, warning) in plan.env_warnings() {
        tracing::warn!("environment: {} {warning}", name.display());
    }
    for doubt in plan.doubts(&machine) {
        tracing::warn!("probably not meant: {doubt}");
    }
    let problems = plan.problems(&machine);
    if !problems.is_empty() {
        for problem in problems {
            tracing::error!("{}", because(ExitCode::Start)(problem).text);
        }
        let text =
            "the executors cannot be started on this machine; --dry-run shows the whole plan";
        return Err(Failure { code: ExitCode::Start, text: text.to_owned() });
    }
    if let Some(tree) = cgroups {
        groups::sweep(tree);
    }
    let dir = runtime_dir(args.runtime_dir.as_deref(), Some(config));
    let runtime_dir = RuntimeDir::open(&dir).map_err(because(ExitCode::Start))?;
    // Whatever else writes to standard output from here on writes to standard error.
    let output = seal_host::claim_stdout().map_err(because(ExitCode::Start))?;
    tracing::info!(
        config = %args.config.display(),
        runtime_dir = %runtime_dir.path().display(),
        cgroups = cgroups.map(|tree| tree.path().display().to_string()),
        version = env!("CARGO_PKG_VERSION"),
        "supervisor starts"
    );
    let timing = Timing::of(&plan.settings, began);
    let about = About::new(&args.config, &plan, config.supervisor.history);
    let metrics = args.metrics.or(config.supervisor.metrics);
    let shared = runtime_dir.path().to_path_buf();
    let mut reporter = None;
    let watch = |board| {
        let started = Reporter::start(board, about, &shared);
        reporter = Some(started.map_err(io::Error::other)?);
        match metrics {
            Some(address) => metrics::serve(address, shared.clone()),
            None => Ok(()),
        }
    };
    let code = serve(plan, timing, runtime_dir, output, watch).map_err(because(ExitCode::Start))?;
    drop(reporter);
    tracing::info!(code = code as u8, "supervisor ends");
    Ok(code)
}

fn config(args: &ConfigArgs) -> Result<ExitCode, Failure> {
    let (text, code) = match &args.config {
        Some(path) if !args.example => {
            let config = seal_config::load_all(path).map_err(refused)?;
            if args.check {
                let own_binary = env::current_exe().map_err(because(ExitCode::Start))?;
                let cgroups =
                    groups::open(config.supervisor.cgroup).map_err(because(ExitCode::Start))?;
                let machine = Machine::this(cgroups.as_deref());
                if let Some(tree) = cgroups {
                    tree.close(CGROUP_PATIENCE).map_err(because(ExitCode::Failed))?;
                }
                let machine = machine.map_err(because(ExitCode::Start))?;
                config_command::check(&config, &own_binary, &machine)
            } else {
                (seal_config::show(&config), ExitCode::Success)
            }
        }
        _ => (seal_config::example(), ExitCode::Success),
    };
    write_out(&text)?;
    Ok(code)
}

fn status(args: &StatusArgs) -> Result<ExitCode, Failure> {
    let looked_at = looked_at(&args.place)?;
    let dir = &looked_at.path;
    let machine = collect(dir, &mut Looker::default()).map_err(because(ExitCode::Failed))?;
    let text = if args.json {
        serde_json::to_string(&machine).map_err(because(ExitCode::Failed))? + "\n"
    } else {
        let mut text = tell(&machine);
        let other = Path::new(SYSTEM_RUNTIME_DIR);
        if machine.supervisors.is_empty() && !looked_at.is_named && dir != other && other.exists() {
            text.push_str(&format!(
                "{SYSTEM_RUNTIME_DIR} is there too; to look there, run as its owner or as root \
                 with --runtime-dir {SYSTEM_RUNTIME_DIR}\n"
            ));
        }
        text
    };
    write_out(&text)?;
    Ok(ExitCode::Success)
}

/// Writes to standard output what a command was asked for.
fn write_out(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| Failure {
        code: ExitCode::Failed,
        text: format!("cannot write to standard output: {error}"),
    })
}

/// A runtime directory that is looked at.
struct LookedAt {
    path: PathBuf,
    /// Whether somebody named it.
    is_named: bool,
    /// Holds it open if it is there.
    _guard: Option<RuntimeDir>,
}

fn looked_at(args: &PlaceArgs) -> Result<LookedAt, Failure> {
    let config = match (&args.runtime_dir, &args.config) {
        (None, Some(path)) => Some(seal_config::load(path).map_err(because(ExitCode::Config))?),
        _ => None,
    };
    let configured = config.as_ref().and_then(|config| config.supervisor.runtime_dir.as_ref());
    let is_named = args.runtime_dir.is_some() || configured.is_some();
    let dir = runtime_dir(args.runtime_dir.as_deref(), config.as_ref());
    let guard = RuntimeDir::find(&dir).map_err(because(ExitCode::Start))?;
    let path = guard.as_ref().map_or(dir, |guard| guard.path().to_path_buf());
    Ok(LookedAt { path, is_named, _guard: guard })
}

/// The runtime directory: that of the command line or environment, of the configuration, or the
/// user's.
fn runtime_dir(given: Option<&Path>, config: Option<&Config>) -> PathBuf {
    let xdg = env::var_os("XDG_RUNTIME_DIR");
    let configured = config.and_then(|config| config.supervisor.runtime_dir.as_deref());
    let named = given.or(configured).map(Path::to_path_buf);
    named.unwrap_or_else(|| default_runtime_dir(xdg.as_deref().map(Path::new)))
}

/// Tells all that is wrong with a configuration.
fn refused(refused: Refused) -> Failure {
    let told = |error: &ConfigError| TaskError::from_error(ErrorCode::Internal, error).message;
    let errors = std::iter::once(&refused.first).chain(&refused.others);
    let text = errors.map(told).collect::<Vec<_>>().join("\n");
    Failure { code: ExitCode::Config, text }
}

/// An adapter for `map_err`: tells an error with all its causes.
fn because<E: Error + 'static>(code: ExitCode) -> impl FnOnce(E) -> Failure {
    move |error| Failure { code, text: TaskError::from_error(ErrorCode::Internal, &error).message }
}
