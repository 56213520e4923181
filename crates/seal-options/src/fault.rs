//! What is wrong with a setting.

use seal_types::shown;

/// Where a setting was made.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// By an option of the command line, with its dashes.
    Option(&'static str),
    /// By a name of the environment.
    Variable(&'static str),
    /// By an argument that is no option of the program.
    Argument(String),
}

/// A setting that the program does not start with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where it was made.
    pub source: Source,
    /// The value that was given.
    pub value: Option<String>,
    /// What is wrong with it.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

impl Fault {
    /// The value is not of the form that the setting has.
    pub(crate) fn not_of_form(source: Source, value: &str, form: &str) -> Self {
        Self {
            source,
            value: Some(value.to_owned()),
            reason: format!("it has to be {form}"),
            remedy: format!("write {form}, or leave it out"),
        }
    }

    /// Whether it is about the command line.
    pub fn is_of_command_line(&self) -> bool {
        !matches!(self.source, Source::Variable(_))
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Option(name) | Self::Variable(name) => f.write_str(name),
            Self::Argument(name) => f.write_str(&shown(name)),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { source, value, reason, remedy } = self;
        match value {
            Some(value) => write!(f, "{source}={:?}: {reason}; {remedy}", shown(value)),
            None => write!(f, "{source}: {reason}; {remedy}"),
        }
    }
}

impl std::error::Error for Fault {}
