//! From the command line to the exit code.

use std::env;
use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use seal_config::Config;
use seal_host::{CgroupTree, place_self};
use seal_wire::{ErrorCode, ExitCode, TaskError};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::status::{About, Looker, Reporter, collect, tell};
use crate::{
    Cli, Command, ConfigArgs, Machine, PlaceArgs, Plan, ProcessorArgs, RuntimeDir,
    SYSTEM_RUNTIME_DIR, StatusArgs, Timing, config_command, default_runtime_dir, describe, groups,
    serve,
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
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to clap too; they go to standard output.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::Usage } else { ExitCode::Success };
        }
    };
    log_to_stderr(matches!(cli.command, Command::Processor(_)));
    let _span;
    let done = match &cli.command {
        Command::Processor(args) => {
            _span = tracing::info_span!("supervisor", stage = %args.stage).entered();
            processor(args)
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

fn processor(args: &ProcessorArgs) -> Result<ExitCode, Failure> {
    let config = seal_config::load(&args.config).map_err(because(ExitCode::Config))?;
    let own_binary = env::current_exe().map_err(because(ExitCode::Start))?;
    // Not VC_CG_NAME: groups are made for the executors, in which the supervisor is none.
    let place = |name: &str| env::var(name).ok().filter(|_| name != "VC_CG_NAME");
    let _placed = place_self(place).map_err(|error| {
        let code = if error.is_nonsense() { ExitCode::Config } else { ExitCode::Start };
        because(code)(error)
    })?;
    let cgroups = groups::open(config.supervisor.cgroup).map_err(because(ExitCode::Start))?;
    let done = with_cgroups(args, &config, &own_binary, cgroups.as_ref());
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
) -> Result<ExitCode, Failure> {
    let mut plan =
        Plan::new(config, args.stage, own_binary, cgroups).map_err(because(ExitCode::Config))?;
    args.overrule(&mut plan.settings);
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
    let timing = Timing::of(&plan.settings);
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
            let config = seal_config::load(path).map_err(because(ExitCode::Config))?;
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

/// An adapter for `map_err`: tells an error with all its causes.
fn because<E: Error + 'static>(code: ExitCode) -> impl FnOnce(E) -> Failure {
    move |error| Failure { code, text: TaskError::from_error(ErrorCode::Internal, &error).message }
}

/// Logs go to standard error: text on a terminal, JSON elsewhere where a supervisor runs, and short
/// text for commands that people type, whatever they pipe it into.
fn log_to_stderr(serves: bool) {
    let (filter, unread) = log_filter(env::var("RUST_LOG").ok().as_deref());
    let registry = tracing_subscriber::registry().with(filter);
    let terminal = io::stderr().is_terminal();
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(!terminal);
    if !serves {
        registry.with(layer.with_target(false).without_time().with_ansi(terminal)).init();
    } else if terminal {
        registry.with(layer).init();
    } else {
        registry.with(layer.json().flatten_event(true).with_span_list(false)).init();
    }
    if let Some(error) = unread {
        tracing::warn!(
            "environment: RUST_LOG cannot be read ({error}); write LEVEL or TARGET=LEVEL, with commas between"
        );
    }
}

/// What `RUST_LOG` lets through, `info` where it says nothing, and why it cannot be read.
///
/// Levels of targets only: what `EnvFilter` has beyond that, conditions on fields of spans, takes
/// two crates for regular expressions, which were a ninth of this program's build.
fn log_filter(given: Option<&str>) -> (Targets, Option<String>) {
    let usual = Targets::new().with_default(LevelFilter::INFO);
    match given.map(str::trim) {
        None | Some("") => (usual, None),
        Some(text) => match text.parse() {
            Ok(filter) => (filter, None),
            Err(error) => (usual, Some(error.to_string())),
        },
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn rust_log_chooses_levels_by_target_and_nonsense_leaves_info() {
        let shows = |given, target, level| log_filter(given).0.would_enable(target, &level);
        for usual in [None, Some(""), Some(" "), Some("info"), Some("a=b=c")] {
            assert!(shows(usual, "seal_host", Level::INFO), "{usual:?}");
            assert!(!shows(usual, "seal_host", Level::DEBUG), "{usual:?}");
        }
        let chosen = Some("warn,seal_host=debug");
        assert!(shows(chosen, "seal_host::child", Level::DEBUG));
        assert!(!shows(chosen, "seal_supervisor", Level::INFO));
        assert!(log_filter(chosen).1.is_none());
        assert!(log_filter(Some("a=b=c")).1.is_some(), "it is reported");
    }
}
