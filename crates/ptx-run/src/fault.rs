//! What is wrong with a PTX text, and what is wrong with what it did.

use std::fmt;

/// A text that cannot be taken: something in it is not known here, or does not hold together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct TextFault {
    /// Counted from 1.
    pub line: u32,
    /// What is wrong.
    pub what: String,
}

impl TextFault {
    pub(crate) fn new(line: u32, what: impl Into<String>) -> Self {
        Self { line, what: what.into() }
    }
}

/// What a running kernel did that it must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deed {
    /// An address that no memory has, or no memory of this kind.
    Outside {
        /// The address.
        address: u64,
        /// Bytes of the access.
        bytes: u32,
    },
    /// An address that is no multiple of the bytes that are accessed.
    Unaligned {
        /// The address.
        address: u64,
        /// Bytes of the access.
        bytes: u32,
    },
    /// Memory that nobody has written.
    Unwritten {
        /// The address.
        address: u64,
    },
    /// Shared memory that another thread accesses too, with no barrier between, and one of both
    /// writes.
    Race {
        /// The address.
        address: u64,
        /// The other thread, if there was only one.
        other: Option<u32>,
    },
    /// A barrier that other threads of the block do not come to: they have ended, or wait at
    /// another one.
    Barrier,
    /// A division by zero.
    Division,
    /// More instructions than a kernel may take: it does not come to an end.
    Endless,
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Outside { address, bytes } => {
                write!(f, "accesses {bytes} bytes at {address:#x}, where there is no such memory")
            }
            Self::Unaligned { address, bytes } => {
                write!(f, "accesses {bytes} bytes at {address:#x}, which is not aligned for them")
            }
            Self::Unwritten { address } => {
                write!(f, "reads memory at {address:#x} that nobody has written")
            }
            Self::Race { address, other } => {
                write!(f, "accesses shared memory at {address:#x} in a race with ")?;
                match other {
                    Some(other) => write!(f, "thread {other}"),
                    None => f.write_str("several threads"),
                }
            }
            Self::Barrier => f.write_str("waits at a barrier that not all threads come to"),
            Self::Division => f.write_str("divides by zero"),
            Self::Endless => f.write_str("does not come to an end"),
        }
    }
}

/// A deed with its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kernel}, line {line} ({instruction}): thread {thread} of block {block} {deed}")]
pub struct RunFault {
    /// The kernel.
    pub kernel: String,
    /// The line of the text.
    pub line: u32,
    /// The instruction there.
    pub instruction: String,
    /// The block, by its place in the grid.
    pub block: u32,
    /// The thread, by its place in the block.
    pub thread: u32,
    /// What it did.
    pub deed: Deed,
}
