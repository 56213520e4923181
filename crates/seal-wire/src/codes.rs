//! Error codes of answers and exit codes of processes.

use std::fmt;

use seal_types::{MESSAGE_MOST, shortened};

/// Why a task was not done. The code stands in brackets at the start of `err_msg`, so that
/// people and programs that only know the text can still tell the kinds apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The request is not a task of this stage: broken JSON, unknown or wrong-typed field.
    BadRequest,
    /// The request is well formed, but what it names does not fit together: a commitment that
    /// does not match, a file of the wrong size, a layer of another sector.
    BadInput,
    /// A file or directory could not be read or written.
    Io,
    /// Not enough space on a file system.
    NoSpace,
    /// Groth16 parameters are missing, damaged or not allowed.
    Parameters,
    /// A thing this executor does not do, named in the message.
    Unsupported,
    /// The result failed its own check, which points at memory, processor or disk.
    SelfCheck,
    /// The device that the task was computed on, a GPU or all cores that label, computes wrongly,
    /// and nothing else may take its place. Nothing is known against the sector.
    BadDevice,
    /// The task was cancelled, because the process was told to end.
    Cancelled,
    /// The executor process died while it had the task.
    ExecutorDied,
    /// No executor can take the task now.
    Unavailable,
    /// A defect in the executor.
    Internal,
}

impl ErrorCode {
    /// All codes.
    pub const ALL: [Self; 12] = [
        Self::BadRequest,
        Self::BadInput,
        Self::Io,
        Self::NoSpace,
        Self::Parameters,
        Self::Unsupported,
        Self::SelfCheck,
        Self::BadDevice,
        Self::Cancelled,
        Self::ExecutorDied,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The code as it stands in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::BadInput => "bad-input",
            Self::Io => "io",
            Self::NoSpace => "no-space",
            Self::Parameters => "parameters",
            Self::Unsupported => "unsupported",
            Self::SelfCheck => "self-check",
            Self::BadDevice => "bad-device",
            Self::Cancelled => "cancelled",
            Self::ExecutorDied => "executor-died",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// Whether the same request may succeed when it is sent again without anybody having changed
    /// anything in between.
    pub const fn retryable(self) -> bool {
        match self {
            Self::BadRequest | Self::BadInput | Self::Parameters | Self::Unsupported => false,
            Self::Io
            | Self::NoSpace
            | Self::SelfCheck
            | Self::BadDevice
            | Self::Cancelled
            | Self::ExecutorDied
            | Self::Unavailable
            | Self::Internal => true,
        }
    }

    /// The code of what the operating system says about a file, a thread or memory. It is never
    /// one that speaks against the sector: the machine may be better the next time.
    pub fn of_io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        // EMFILE and ENFILE, numbers that Linux has on every machine, have no kind of their own.
        const NO_DESCRIPTORS: [Option<i32>; 2] = [Some(23), Some(24)];
        match error.kind() {
            Kind::StorageFull | Kind::QuotaExceeded => Self::NoSpace,
            // ENOMEM and EAGAIN: too little memory, or too many threads or processes.
            Kind::OutOfMemory | Kind::WouldBlock => Self::Unavailable,
            _ if NO_DESCRIPTORS.contains(&error.raw_os_error()) => Self::Unavailable,
            _ => Self::Io,
        }
    }

    /// The code at the start of an `err_msg`, if it has one.
    pub fn of_message(message: &str) -> Option<Self> {
        let code = message.strip_prefix('[')?.split(']').next()?;
        Self::ALL.into_iter().find(|known| known.name() == code)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A task's failure: a code, and a text that names the thing, the value and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskError {
    /// What kind of failure.
    pub code: ErrorCode,
    /// What exactly, for people.
    pub message: String,
}

impl TaskError {
    /// A failure with a plain message, on one line and of bounded length whatever it quotes.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: shortened(&message.into(), MESSAGE_MOST).into_owned() }
    }

    /// A failure told by `error` and everything that caused it.
    pub fn from_error(code: ErrorCode, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::new(code, message)
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.code, self.message)
    }
}

impl std::error::Error for TaskError {}

/// What the processes of this project exit with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Everything asked for was done.
    Success = 0,
    /// A one-shot task or a check failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The configuration or the environment is wrong.
    Config = 3,
    /// What the start needs is not there: a device, a cpu, a parameter file, a binary.
    Start = 4,
    /// The parent went away while tasks were running.
    ParentGone = 5,
    /// What the tasks are computed on has failed for good in this process; the tasks at hand were
    /// answered and the others refused. A new process may succeed.
    DeviceLost = 6,
    /// A task panicked; the other tasks were ended in order.
    Panicked = 70,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_back_from_messages() {
        for code in ErrorCode::ALL {
            let error = TaskError::new(code, "what [went] wrong");
            assert_eq!(ErrorCode::of_message(&error.to_string()), Some(code));
        }
        for foreign in ["", "plain text", "[no-such-code] x", "[io"] {
            let known = ErrorCode::of_message(foreign);
            assert!(known.is_none() || foreign == "[io", "{foreign:?} gave {known:?}");
        }
    }

    #[test]
    fn what_a_message_quotes_cannot_make_it_long_or_more_than_one_line() {
        let value = format!("{}\n[io] made up", "x".repeat(100 << 20));
        for error in [
            TaskError::new(ErrorCode::BadInput, format!("no such file {value}")),
            TaskError::from_error(ErrorCode::BadInput, &std::io::Error::other(value.clone())),
        ] {
            let told = error.to_string();
            assert!(told.len() < 2 * MESSAGE_MOST && !told.contains('\n'), "{}", told.len());
            assert!(told.ends_with("made up"), "the end is told");
        }
    }

    #[test]
    fn no_error_of_the_operating_system_speaks_against_a_sector() {
        use std::io::{Error, ErrorKind};
        for (name, errno, code) in [
            ("ENOSPC", 28, ErrorCode::NoSpace),
            ("EDQUOT", 122, ErrorCode::NoSpace),
            ("ENOMEM", 12, ErrorCode::Unavailable),
            ("EAGAIN", 11, ErrorCode::Unavailable),
            ("ENFILE", 23, ErrorCode::Unavailable),
            ("EMFILE", 24, ErrorCode::Unavailable),
            ("EFBIG", 27, ErrorCode::Io),
            ("EIO", 5, ErrorCode::Io),
            ("ENOLCK", 37, ErrorCode::Io),
            ("ESTALE", 116, ErrorCode::Io),
            ("ETIMEDOUT", 110, ErrorCode::Io),
            ("EROFS", 30, ErrorCode::Io),
        ] {
            assert_eq!(ErrorCode::of_io(&Error::from_raw_os_error(errno)), code, "{name}");
        }
        for errno in 1..200 {
            assert!(ErrorCode::of_io(&Error::from_raw_os_error(errno)).retryable(), "{errno}");
        }
        assert_eq!(ErrorCode::of_io(&Error::from(ErrorKind::UnexpectedEof)), ErrorCode::Io);
    }

    #[test]
    fn causes_are_told_once_each() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read the layer")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("disk on fire"));
        let task_error = TaskError::from_error(ErrorCode::Io, &error);
        assert_eq!(task_error.to_string(), "[io] cannot read the layer: disk on fire");
    }
}
