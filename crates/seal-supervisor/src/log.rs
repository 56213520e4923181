//! The log of this process: standard error, through a queue that all its threads share.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use seal_host::{LastWords, LogForm, LogLevels, LogQueue};
use seal_options::{Environment, LogChoice};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::log_ring;

/// The queue of this process, where there is one.
static LOG: OnceLock<LogQueue> = OnceLock::new();

/// In which form this process writes: found out once, since parents come and go.
static FORM: OnceLock<LogForm> = OnceLock::new();

/// What the environment asks for.
fn choice() -> LogChoice {
    LogChoice::of(&Environment::of_process())
}

/// Logs what a supervisor does, in the form that its parent shows.
///
/// Must be called once.
pub(crate) fn of_supervisor() -> io::Result<LastWords> {
    let tell = |lost| {
        tracing::warn!(lost, "log lines were lost: nobody took the log from standard error");
    };
    let log = LogQueue::start(io::stderr(), tell)?;
    let _ = LOG.set(log.clone());
    let last_words = log.last_words();
    let choice = choice();
    let levels = LogLevels::of(choice.levels.as_deref());
    let (form, unread) = LogForm::chosen(choice.form.as_deref());
    let form = *FORM.get_or_init(|| form);
    let registry = tracing_subscriber::registry().with(levels.filter());
    let layer = tracing_subscriber::fmt::layer().with_writer(Kept(log));
    match form {
        LogForm::Text => {
            registry.with(layer.with_target(false).with_ansi(io::stderr().is_terminal())).init();
        }
        LogForm::Json => {
            registry.with(layer.json().flatten_event(true).with_span_list(false)).init();
        }
    }
    levels.warn_if_unread();
    if let Some(unread) = unread {
        tracing::warn!("{}: {unread}", LogChoice::FORM);
    }
    Ok(last_words)
}

/// Logs of commands that people type: short text, whatever they pipe it into.
pub(crate) fn of_command() {
    let levels = LogLevels::of(choice().levels.as_deref());
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr).without_time();
    let layer = layer.with_target(false).with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry().with(levels.filter()).with(layer).init();
    levels.warn_if_unread();
}

/// The form of the log, which executors follow: their lines come between our own.
pub(crate) fn form() -> LogForm {
    *FORM.get_or_init(|| LogForm::chosen(choice().form.as_deref()).0)
}

/// Where the lines of this process go: to the queue, and to those that are kept.
struct Kept(LogQueue);

impl<'a> MakeWriter<'a> for Kept {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl io::Write for &Kept {
    /// A whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        log_ring::add(line);
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Passes a line of an executor on, with its end and in one piece, so that lines of several do not
/// mix.
pub(crate) fn pass_on(line: &[u8]) {
    if let Some(log) = LOG.get() {
        log_ring::add(line);
        log.push(line);
    }
}
