//! Logs on standard error, through a queue: a task must not wait for whoever reads the log.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;

use indicatif::MultiProgress;
use seal_host::{LastWords, LogForm, LogLevels, LogQueue};
use seal_options::LogChoice;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The progress bars of the process; drawn on standard error, and only if that is a terminal.
pub(crate) fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(MultiProgress::new)
}

/// Sends logs to standard error, at the levels and in the form that are chosen; without a choice
/// `info`, in the form that the parent shows. Keep what is returned until the process ends: it waits for the last lines. A
/// write beyond the limit on the size of files fails from now on instead of ending the process.
///
/// Called once, before anything is logged.
pub fn init_logging(choice: &LogChoice) -> LastWords {
    let levels = LogLevels::of(choice.levels.as_deref());
    let (form, unread) = LogForm::chosen(choice.form.as_deref());
    let tell = |lost| {
        tracing::warn!(lost, "log lines were lost: nobody took the log from standard error");
    };
    let last_words = match LogQueue::start(AroundBars, tell) {
        Ok(log) => {
            let last_words = log.last_words();
            install(log, &levels, form);
            // What the standard library writes by itself would wait for a reader.
            std::panic::set_hook(Box::new(log_panic));
            last_words
        }
        Err(error) => {
            install(|| AroundBars, &levels, form);
            tracing::warn!(%error, "no thread can be had for the log, which may hold up work");
            LastWords::default()
        }
    };
    levels.warn_if_unread();
    if let Err(error) = seal_host::ignore_file_size_signal() {
        tracing::warn!(%error, "a write beyond RLIMIT_FSIZE would end this process");
    }
    if let Some(unread) = unread {
        tracing::warn!("{}: {unread}", LogChoice::FORM);
    }
    last_words
}

fn install(
    writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static,
    levels: &LogLevels,
    form: LogForm,
) {
    let registry = tracing_subscriber::registry().with(levels.filter());
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    // A second subscriber is a test harness's own; its choice stands.
    let _ = match form {
        LogForm::Text => {
            let layer = layer.with_target(false).with_ansi(io::stderr().is_terminal());
            registry.with(layer).try_init()
        }
        LogForm::Json => registry
            .with(layer.json().flatten_event(true).with_current_span(true).with_span_list(false))
            .try_init(),
    };
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let text = crate::serve::panic_text(panic.payload());
    let place = panic.location().map(ToString::to_string);
    let trace = Backtrace::capture();
    let trace = match trace.status() {
        BacktraceStatus::Captured => format!("; {trace}"),
        _ => String::new(),
    };
    let thread = std::thread::current();
    let name = thread.name();
    tracing::error!(thread = name, place, "a thread panicked: {text}{trace}");
}

/// Writes log lines between the bars instead of through them.
#[derive(Debug)]
struct AroundBars;

impl Write for AroundBars {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.write_all(lines).map(|()| lines.len())
    }

    fn write_all(&mut self, lines: &[u8]) -> io::Result<()> {
        let write = || io::stderr().lock().write_all(lines);
        // Whoever waits for a reader of the log must not have the bars locked meanwhile: every task
        // that tells its progress would wait with it. A terminal that has gone is none.
        if io::stderr().is_terminal() { bars().suspend(write) } else { write() }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
