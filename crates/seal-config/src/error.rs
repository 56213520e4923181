//! What is wrong with a configuration.

use std::fmt;
use std::io;
use std::path::PathBuf;

use seal_types::{MESSAGE_MOST, shortened, shown, shown_reason};

/// A configuration that is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}:{line}: not valid TOML: {}", path.display(), shown_reason(reason))]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the reader expected.
        reason: String,
    },
    /// A key or value has no meaning here.
    #[error(transparent)]
    Invalid(#[from] Box<Invalid>),
}

/// A key or value that has no meaning here.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}:{line}: {}{}: {}{}",
    path.display(), shown(key), Value(value), shortened(reason, MESSAGE_MOST / 4), Hint(hint)
)]
pub struct Invalid {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The full name of the key, such as `processors.pc1[0].cgroup.cpuset`.
    pub key: String,
    /// The value as it is written, where the value is the trouble and cannot be a secret.
    pub value: Option<String>,
    /// Why it is refused and what would be accepted.
    pub reason: String,
    /// The word that was probably meant.
    pub hint: Option<String>,
}

/// All that is wrong with a configuration, in lines of text.
#[derive(Debug, thiserror::Error)]
#[error("{first}{}", Others(others))]
pub struct Refused {
    /// What comes first in the file, or what keeps it from being read.
    pub first: ConfigError,
    /// What else there is, in the order of the file.
    pub others: Vec<ConfigError>,
}

impl From<ConfigError> for Refused {
    fn from(first: ConfigError) -> Self {
        Self { first, others: Vec::new() }
    }
}

impl ConfigError {
    /// Where in the file it is.
    fn line(&self) -> usize {
        match self {
            Self::Read { .. } => 0,
            Self::Syntax { line, .. } => *line,
            Self::Invalid(invalid) => invalid.line,
        }
    }
}

struct Others<'a>(&'a [ConfigError]);

impl fmt::Display for Others<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|error| write!(f, "\n{error}"))
    }
}

/// What is found while reading goes on.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<ConfigError>);

impl Faults {
    /// The value, or `None` with its fault noted.
    pub(crate) fn note<T>(&mut self, read: Result<T, ConfigError>) -> Option<T> {
        read.map_err(|error| self.0.push(error)).ok()
    }

    /// Nothing, or all that was noted.
    pub(crate) fn refuse(mut self) -> Result<(), Refused> {
        self.0.sort_by_key(ConfigError::line);
        let mut faults = self.0.into_iter();
        match faults.next() {
            Some(first) => Err(Refused { first, others: faults.collect() }),
            None => Ok(()),
        }
    }
}

struct Value<'a>(&'a Option<String>);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |value| write!(f, " = {}", shown(value)))
    }
}

struct Hint<'a>(&'a Option<String>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |hint| write!(f, "; did you mean {hint:?}?"))
    }
}
