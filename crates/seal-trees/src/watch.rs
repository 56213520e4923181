//! How long work tells where it is and learns that it is no longer wanted.

use std::fmt;

use crate::TreesError;

/// Progress and cancellation.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Called with what is being done, how much is done and how much there is, in nodes (samples
    /// for the self-check).
    pub progress: &'a (dyn Fn(Part, u64, u64) + Sync),
    /// Whether to stop; asked after every block.
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

impl Watch<'_> {
    /// Reports progress, and fails when the work is no longer wanted.
    pub(crate) fn at(&self, part: Part, done: u64, total: u64) -> Result<(), TreesError> {
        (self.progress)(part, done, total);
        if (self.cancelled)() { Err(TreesError::Cancelled) } else { Ok(()) }
    }
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Tree D is built over the data.
    TreeD,
    /// The replica is encoded and tree R last built over it.
    Replica,
    /// Columns are hashed and tree C built over them.
    TreeC,
    /// Random nodes of the result are recomputed.
    SelfCheck,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TreeD => "tree D",
            Self::Replica => "replica and tree R last",
            Self::TreeC => "tree C",
            Self::SelfCheck => "self-check",
        })
    }
}
