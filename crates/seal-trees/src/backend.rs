//! Who computes: the interface between the pipeline, which moves blocks of a sector between disk
//! and memory, and whatever hashes them.
//!
//! A [`Backend`] begins a [`Session`] for each attempt at a sector: the processor, or a device as it
//! is then. Who computes does not change within it, so that what was planned for one is not done by
//! another. A session says how many blocks it works on at a time. For each of them the pipeline
//! starts a thread, which makes its own [`Worker`] and gives it one block after the other. A worker
//! of the processor hashes on that thread; a worker of a device keeps a stream and waits for it. All
//! blocks of a sector lie in one region of memory, which the session provides.
//!
//! Knows nothing of files.

use std::error::Error;
use std::fmt;

use seal_cuda::Opinion;
use seal_host::{MemoryError, MemoryPolicy, PageChoice, Region};

use crate::Node;

/// Readers beyond these are faster than any disks.
const MOST_READERS: usize = 16;

/// Who computes the blocks of sectors, of several at a time if need be.
pub trait Backend: Sync + Send + fmt::Debug {
    /// Device and kernel variants in a few words, for logs and for the message of a failed check.
    fn describe(&self) -> String;

    /// Who computes one sector, from its first block to its last.
    fn begin(&self) -> Result<Box<dyn Session + '_>, DeviceError>;

    /// Why nothing more can be computed in this process, if so.
    fn is_lost(&self) -> Option<String> {
        None
    }

    /// What is thought of the device, by model and UUID, if there is one that may compute wrongly.
    fn opinion(&self) -> Option<(String, Opinion)> {
        None
    }

    /// Whether, after something was computed wrongly, there is a point in computing it again: on
    /// the device opened anew, or on what has taken its place.
    fn may_try_again(&self) -> bool {
        false
    }
}

/// Who computes one sector.
pub trait Session: Sync + Send + fmt::Debug {
    /// Device and kernel variants in a few words, as [`Backend::describe`] has them.
    fn device(&self) -> String;

    /// How many blocks are worked on at the same time, each by a worker of its own.
    fn workers(&self) -> usize;

    /// The largest block that makes sense, in nodes. The one that is used is a power of the arity
    /// not above this, as memory and sector allow.
    fn largest_block(&self) -> usize;

    /// How many threads should read, and check what they read with SHA-256. A device leaves the
    /// cpus to them.
    fn readers(&self) -> usize {
        device_readers()
    }

    /// Zero bytes for the blocks of the sector, at the start of a page.
    fn memory(&self, bytes: usize) -> Result<Box<dyn Memory>, DeviceError> {
        Ok(Box::new(plain_memory(bytes)?))
    }

    /// A worker. Called on the thread that will use it.
    fn worker(&self, work: &Work) -> Result<Box<dyn Worker + '_>, DeviceError>;

    /// Takes note that a result does not bear checking, for which the device may be to blame.
    fn doubt(&self, _what: &str) {}

    /// Whether what was computed may be given out: a device may have been found to compute wrongly
    /// since, in another sector.
    fn confirm(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

/// As many readers as there are cpus, which a device leaves idle.
pub(crate) fn device_readers() -> usize {
    std::thread::available_parallelism().map_or(2, |cpus| cpus.get().clamp(2, MOST_READERS))
}

/// Memory that stays where it is until it is dropped.
pub trait Memory: Send {
    /// All of its bytes.
    fn bytes_mut(&mut self) -> &mut [u8];
}

impl Memory for Region {
    fn bytes_mut(&mut self) -> &mut [u8] {
        Self::bytes_mut(self)
    }
}

/// Memory of the machine, its pages taken at once, in huge ones as far as the kernel makes them.
pub(crate) fn plain_memory(bytes: usize) -> Result<Region, MemoryError> {
    let pages = PageChoice::Transparent;
    Region::allocate(bytes, &MemoryPolicy { pages, ..MemoryPolicy::default() })
}

/// What a worker will be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Labels in a column: 2 or 11.
    pub layers: u32,
    /// Children of a node of tree C and of tree R last: 8, or 2.
    pub arity: u32,
    /// Nodes of every block: a power of the arity, also 1.
    pub block_nodes: usize,
}

/// Computes blocks one after the other, on one thread.
pub trait Worker {
    /// Fills all results of `block`, whatever they held before.
    fn compute(&mut self, block: BlockView<'_>) -> Result<(), ComputeError>;
}

/// What a block is made of, and room for what is made of it. Node `i` of all areas belongs to the
/// same node of the sector.
///
/// In blocks of at least 128 nodes every area begins at a multiple of 4096 bytes.
#[derive(Debug)]
pub struct BlockView<'b> {
    /// The labels of each layer, the first layer first.
    pub layers: Vec<&'b [Node]>,
    /// The data.
    pub data: &'b [Node],
    /// For tree C: its leaves, which are the hashes of the columns, then row upon row up to the
    /// root of the block.
    pub tree_c: &'b mut [Node],
    /// For the replica: data and labels of the last layer, added in the field.
    pub replica: &'b mut [Node],
    /// For tree R last: its rows above the replica, up to the root of the block.
    pub tree_r: &'b mut [Node],
}

/// Why a block could not be computed. Indices count from the block's first node.
#[derive(Debug)]
pub enum ComputeError {
    /// A label is not below the field's modulus.
    Label {
        /// Index into [`BlockView::layers`].
        layer: usize,
        /// Index into the layer.
        node: usize,
    },
    /// A node of the data is not below the field's modulus.
    Data {
        /// Index into [`BlockView::data`].
        node: usize,
    },
    /// The device failed.
    Device(DeviceError),
}

/// What a device says of its failure: a [`ComputedWrongly`] if it computed, and wrongly.
pub type DeviceError = Box<dyn Error + Send + Sync>;

/// A device has computed something else than the processor, or says what is not so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct ComputedWrongly {
    /// What it computed, and where.
    pub what: String,
}

impl From<DeviceError> for ComputeError {
    fn from(error: DeviceError) -> Self {
        Self::Device(error)
    }
}
