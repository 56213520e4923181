//! From the command line to the exit code.

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use seal_config::{Config, ConfigError, Refused};
use seal_host::earlier_runtime_dir;
use seal_wire::{ErrorCode, ExitCode, TaskError};

use crate::processor::processor;
use crate::status::{Looker, collect, tell};
use crate::{
    Cli, Command, ConfigArgs, Machine, PlaceArgs, RuntimeDir, RuntimeDirError, SYSTEM_RUNTIME_DIR,
    StatusArgs, config_command, default_runtime_dir, groups, log, support, top,
};

/// How long processes of executors may take to be gone after they were killed.
pub(crate) const CGROUP_PATIENCE: Duration = Duration::from_secs(2);

/// A failure with the exit code it leads to.
pub(crate) struct Failure {
    pub(crate) code: ExitCode,
    pub(crate) text: String,
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
    if let Err(error) = seal_host::ignore_file_size_signal() {
        tracing::warn!(%error, "a write beyond RLIMIT_FSIZE would end this process");
    }
    let _span;
    let done = match &cli.command {
        Command::Processor(args) => {
            _span = tracing::info_span!("supervisor", stage = %args.stage).entered();
            processor(args, began)
        }
        Command::Config(args) => config(args),
        Command::Status(args) => status(args),
        Command::Support(args) => support::support(args),
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
                let checked = config_command::check(&config, &own_binary, &machine);
                let denied = args.deny_warnings && checked.warnings > 0;
                let code = match checked.code {
                    ExitCode::Success if denied => ExitCode::Failed,
                    code => code,
                };
                (checked.text, code)
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
    let look = |dir: &Path| collect(dir, &mut Looker::default()).map_err(because(ExitCode::Failed));
    let mut machine = look(dir)?;
    let mut earlier = None;
    if machine.supervisors.is_empty()
        && let Some(place) = earlier_place(dir).filter(|_| !looked_at.is_named)
        && let Ok(Some(guard)) = RuntimeDir::find(&place)
    {
        let there = look(guard.path())?;
        if !there.supervisors.is_empty() {
            (machine, earlier) = (there, Some(place));
        }
    }
    let text = if args.json {
        serde_json::to_string(&machine).map_err(because(ExitCode::Failed))? + "\n"
    } else {
        let mut text = tell(&machine);
        if let Some(earlier) = earlier {
            text.push_str(&format!(
                "these were started by an earlier version, whose default is {}; without a session \
                 it is {}\n",
                earlier.display(),
                dir.display()
            ));
        }
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
pub(crate) fn write_out(text: &str) -> Result<(), Failure> {
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
    let guard = RuntimeDir::find(&dir).map_err(unusable)?;
    let path = guard.as_ref().map_or(dir, |guard| guard.path().to_path_buf());
    Ok(LookedAt { path, is_named, _guard: guard })
}

/// The runtime directory: that of the command line or environment, of the configuration, or the
/// user's.
pub(crate) fn runtime_dir(given: Option<&Path>, config: Option<&Config>) -> PathBuf {
    let configured = config.and_then(|config| config.supervisor.runtime_dir.as_deref());
    let named = given.or(configured).map(Path::to_path_buf);
    named.unwrap_or_else(default_runtime_dir)
}

/// Where supervisors of earlier versions are, if `dir` is the default and theirs was another.
pub(crate) fn earlier_place(dir: &Path) -> Option<PathBuf> {
    let session = env::var_os("XDG_RUNTIME_DIR");
    let earlier = earlier_runtime_dir(session.as_deref().map(Path::new))?;
    (dir == default_runtime_dir() && dir != earlier).then_some(earlier)
}

/// An adapter for `map_err`: what is wrong with a runtime directory.
pub(crate) fn unusable(error: RuntimeDirError) -> Failure {
    let code = if error.is_nonsense() { ExitCode::Config } else { ExitCode::Start };
    because(code)(error)
}

/// Tells all that is wrong with a configuration.
pub(crate) fn refused(refused: Refused) -> Failure {
    let told = |error: &ConfigError| TaskError::from_error(ErrorCode::Internal, error).message;
    let errors = std::iter::once(&refused.first).chain(&refused.others);
    let text = errors.map(told).collect::<Vec<_>>().join("\n");
    Failure { code: ExitCode::Config, text }
}

/// An adapter for `map_err`: tells an error with all its causes.
pub(crate) fn because<E: Error + 'static>(code: ExitCode) -> impl FnOnce(E) -> Failure {
    move |error| Failure { code, text: TaskError::from_error(ErrorCode::Internal, &error).message }
}
