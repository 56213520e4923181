//! Which log lines `RUST_LOG` lets through.

use tracing_subscriber::filter::{LevelFilter, Targets};

/// The levels that are logged, and whether they are what was asked for.
#[derive(Debug)]
pub struct LogLevels {
    filter: Targets,
    /// Why the variable cannot be read.
    unread: Option<String>,
}

impl LogLevels {
    /// The given levels, `info` where none are given or they cannot be read.
    // Levels of targets only: what `EnvFilter` has beyond that, conditions on fields of spans,
    // takes two crates for regular expressions, which were a ninth of the supervisor's build.
    pub fn of(given: Option<&str>) -> Self {
        let usual = Targets::new().with_default(LevelFilter::INFO);
        match given.map(str::trim) {
            None | Some("") => Self { filter: usual, unread: None },
            Some(text) => match text.parse() {
                Ok(filter) => Self { filter, unread: None },
                Err(error) => Self { filter: usual, unread: Some(error.to_string()) },
            },
        }
    }

    /// For the subscriber.
    pub fn filter(&self) -> Targets {
        self.filter.clone()
    }

    /// Says that the variable cannot be read, if so. For when the subscriber is there.
    pub fn warn_if_unread(&self) {
        if let Some(error) = &self.unread {
            tracing::warn!(
                "environment: RUST_LOG cannot be read ({error}); write LEVEL or TARGET=LEVEL, with commas between"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn rust_log_chooses_levels_by_target_and_nonsense_leaves_info() {
        let shows =
            |given, target, level| LogLevels::of(given).filter().would_enable(target, &level);
        for usual in [None, Some(""), Some(" "), Some("info"), Some("a=b=c")] {
            for target in ["seal_host", "seal_sdr"] {
                assert!(shows(usual, target, Level::INFO), "{usual:?}");
                assert!(!shows(usual, target, Level::DEBUG), "{usual:?}");
            }
        }
        for (chosen, below, other) in [
            ("warn,seal_host=debug", "seal_host::child", "seal_supervisor"),
            ("warn,seal_sdr=debug", "seal_sdr::store", "seal_trees"),
        ] {
            assert!(shows(Some(chosen), below, Level::DEBUG));
            assert!(!shows(Some(chosen), other, Level::INFO));
            assert!(LogLevels::of(Some(chosen)).unread.is_none());
        }
        assert!(LogLevels::of(Some("a=b=c")).unread.is_some(), "it is reported");
    }
}
