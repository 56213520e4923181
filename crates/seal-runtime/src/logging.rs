//! Logs on standard error: text on a terminal, JSON lines elsewhere.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use indicatif::MultiProgress;
use tracing_subscriber::filter::{LevelFilter, Targets};
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
    let (filter, unread) = log_filter(std::env::var("RUST_LOG").ok().as_deref());
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(AroundBars);
    // A second subscriber is a test harness's own; its choice stands.
    let _ = if io::stderr().is_terminal() {
        registry.with(layer.with_target(false)).try_init()
    } else {
        registry
            .with(layer.json().flatten_event(true).with_current_span(true).with_span_list(false))
            .try_init()
    };
    if let Some(error) = unread {
        tracing::warn!(
            "environment: RUST_LOG cannot be read ({error}); write LEVEL or TARGET=LEVEL, with commas between"
        );
    }
}

/// What `RUST_LOG` lets through, `info` where it says nothing, and why it cannot be read.
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

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn rust_log_chooses_levels_by_target_and_nonsense_leaves_info() {
        let shows = |given, target, level| log_filter(given).0.would_enable(target, &level);
        for usual in [None, Some(""), Some(" "), Some("info"), Some("a=b=c")] {
            assert!(shows(usual, "seal_sdr", Level::INFO), "{usual:?}");
            assert!(!shows(usual, "seal_sdr", Level::DEBUG), "{usual:?}");
        }
        let chosen = Some("warn,seal_sdr=debug");
        assert!(shows(chosen, "seal_sdr::store", Level::DEBUG));
        assert!(!shows(chosen, "seal_trees", Level::INFO));
        assert!(log_filter(chosen).1.is_none());
        assert!(log_filter(Some("a=b=c")).1.is_some(), "it is reported");
    }
}
