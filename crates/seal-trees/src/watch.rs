//! How long work tells where it is and learns that it is no longer wanted.

use std::fmt;

use crate::TreesError;

/// Progress and cancellation.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Called with what is being done, how much is done and how much there is, in units of
    /// [`Part::unit`].
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
    /// The sector is in the hands of another process, which is expected to end; 0 where its number
    /// is not known.
    Waiting {
        /// The process.
        pid: u32,
    },
    /// Tree D is built over the data.
    TreeD,
    /// Layers and data are read to be verified, before results of a former run make room.
    Inputs,
    /// Columns are hashed, the replica encoded, and the trees built over both.
    Trees,
    /// Random nodes of the result are recomputed.
    SelfCheck,
    /// The results are brought to disk and get their names.
    Publish,
}

/// What a part's progress is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartUnit {
    /// Bytes read.
    Bytes,
    /// Nodes of the sector.
    Nodes,
    /// Files, samples, or seconds of a wait.
    Steps,
}

impl Part {
    /// What the part's progress is counted in.
    pub fn unit(self) -> PartUnit {
        match self {
            Self::TreeD => PartUnit::Nodes,
            Self::Inputs | Self::Trees => PartUnit::Bytes,
            Self::Waiting { .. } | Self::SelfCheck | Self::Publish => PartUnit::Steps,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting { pid: 0 } => "wait for another process",
            Self::Waiting { pid } => return write!(f, "wait for process {pid}"),
            Self::TreeD => "tree D",
            Self::Inputs => "verify layers and data",
            Self::Trees => "columns, replica, trees",
            Self::SelfCheck => "self-check",
            Self::Publish => "files to disk",
        })
    }
}
