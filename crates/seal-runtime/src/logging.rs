//! Logs on standard error: text on a terminal, JSON lines elsewhere.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use indicatif::MultiProgress;
use seal_host::LogLevels;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The progress bars of the process; drawn on standard error, and only if that is a terminal.
pub(crate) fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(MultiProgress::new)
}

/// Sends logs to standard error. `RUST_LOG` chooses the level; `info` without it.
///
/// Called once, by the binary, before anything is logged.
pub fn init_logging() {
    let levels = LogLevels::of_process();
    let registry = tracing_subscriber::registry().with(levels.filter());
    let layer = tracing_subscriber::fmt::layer().with_writer(AroundBars);
    // A second subscriber is a test harness's own; its choice stands.
    let _ = if io::stderr().is_terminal() {
        registry.with(layer.with_target(false)).try_init()
    } else {
        registry
            .with(layer.json().flatten_event(true).with_current_span(true).with_span_list(false))
            .try_init()
    };
    levels.warn_if_unread();
}

/// Writes log lines between the bars instead of through them.
#[derive(Debug)]
struct AroundBars;

impl<'a> MakeWriter<'a> for AroundBars {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Vec::new())
    }
}

/// One log line; written whole when it is dropped, so that lines of threads never mix.
#[derive(Debug)]
struct Line(Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Nobody is left to tell when standard error itself fails.
        bars().suspend(|| {
            let _ = io::stderr().lock().write_all(&self.0);
        });
    }
}
