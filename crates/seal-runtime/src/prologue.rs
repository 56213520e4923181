//! The beginning of every executor: command line, environment, log, and the place of the process.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, Subcommand, value_parser};
use seal_host::{LastWords, Placed};
use seal_options::{Environment, Fault, LogChoice, Settings, environment_help, settings_file};
use seal_types::Stage;
use seal_wire::ExitCode;

use crate::logging::init_logging;
use crate::placement::place;

/// What is particular to the command line of an executor.
#[derive(Debug)]
pub struct Program {
    /// What it is for, in a line.
    pub about: &'static str,
    /// What `--version` shows, see [`long_version`](crate::long_version).
    pub version: String,
    /// What is to be known of the way it works.
    pub works: &'static str,
    /// Lines of examples.
    pub examples: &'static str,
}

/// What an executor is asked to do. `C` are the commands that only it has.
#[derive(Debug)]
pub enum Asked<C> {
    /// Serve requests.
    Serve,
    /// Do the task in this file and end.
    Run(PathBuf),
    /// Something else.
    Other(C),
}

/// An executor that is about to do what it is asked for.
#[derive(Debug)]
pub struct Started<S, C> {
    /// What was set.
    pub settings: S,
    /// What it is asked to do.
    pub asked: Asked<C>,
    /// Keep this until the process ends: the log is written behind it, and the process's cgroup
    /// ends with it.
    pub kept: Kept,
}

/// What lasts as long as the process.
#[derive(Debug)]
#[must_use = "the log and the cgroup end when this is dropped"]
pub struct Kept {
    _placed: Placed,
    _last_words: LastWords,
}

const SERVES: &str = "\
Without a command, or as `EXECUTOR processor STAGE`, it serves requests: one JSON object a line on
standard input, one answer a line on standard output, as venus-worker (damocles-worker) speaks to
external processors. docs/protocol.md has the format. Logs go to standard error.";

/// Reads the command line and the environment, begins the log, and puts the process in its place.
/// The error is what the process exits with: help and version are printed, and every fault is
/// logged.
pub fn start<S: Settings, C: Subcommand>(
    program: Program,
    environment: &Environment,
) -> Result<Started<S, C>, ExitCode> {
    let matches = command::<S, C>(program).try_get_matches().map_err(|error| {
        // Help and version are errors to clap, and go to standard output.
        let code = if error.use_stderr() { ExitCode::Usage } else { ExitCode::Success };
        // Nobody is left to tell if printing fails.
        let _ = error.print();
        code
    })?;
    let last_words = init_logging(&LogChoice::of(environment));
    let asked = asked::<C>(&matches, S::STAGE)?;
    let (mut settings, faults) = S::read(&matches, environment);
    for fault in &faults {
        tracing::error!("{fault}");
    }
    if faults.iter().any(Fault::is_of_command_line) {
        return Err(ExitCode::Usage);
    }
    if !faults.is_empty() {
        return Err(ExitCode::Config);
    }
    report(environment, S::STAGE);
    let placed = place(&settings.common().place)?;
    let kept = Kept { _placed: placed, _last_words: last_words };
    Ok(Started { settings, asked, kept })
}

fn command<S: Settings, C: Subcommand>(program: Program) -> Command {
    let Program { about, version, works, examples } = program;
    let stage = S::STAGE;
    let serves = SERVES.replace("EXECUTOR", stage.executor()).replace("STAGE", stage.name());
    let environment = environment_help::<S>();
    let task = Arg::new("task")
        .long("task")
        .value_name("FILE")
        .required(true)
        .value_parser(value_parser!(PathBuf))
        .help("File with a task, or a whole request line; `-` is standard input");
    let run = Command::new("run").about("Do one task and end").arg(task);
    let command = S::command(about)
        .version(env!("CARGO_PKG_VERSION"))
        .long_version(version)
        .after_help(format!("{serves}\n\n{works}\n\n{environment}\n\nExamples:\n{examples}"))
        .subcommand(run);
    C::augment_subcommands(command)
}

fn asked<C: Subcommand>(matches: &ArgMatches, own: Stage) -> Result<Asked<C>, ExitCode> {
    match matches.subcommand() {
        None => Ok(Asked::Serve),
        Some(("processor", processor)) => {
            let stage = processor.get_one::<String>("stage").map(String::as_str);
            match seal_options::refused_stage(stage.unwrap_or_default(), own) {
                None => Ok(Asked::Serve),
                Some(fault) => {
                    tracing::error!("{fault}");
                    Err(ExitCode::Usage)
                }
            }
        }
        Some(("run", run)) => {
            Ok(Asked::Run(run.get_one::<PathBuf>("task").cloned().unwrap_or_default()))
        }
        Some(_) => C::from_arg_matches(matches).map(Asked::Other).map_err(|error| {
            let _ = error.print();
            ExitCode::Usage
        }),
    }
}

/// Logs names of the environment that do nothing as warnings, and instructions that this executor
/// has no kernel of; names of other executors for who looks for why a setting does nothing.
fn report(environment: &Environment, stage: Stage) {
    let directory = std::env::current_dir().unwrap_or_default();
    for warning in environment.warnings().chain(settings_file(&directory)) {
        tracing::warn!("{warning}");
    }
    if let Some(idle) = environment.idle_isa(stage) {
        tracing::warn!("{idle}");
    }
    let others: Vec<_> = environment.of_others(stage).collect();
    if !others.is_empty() {
        tracing::debug!(names = others.join(" "), "settings without effect on this executor");
    }
}
