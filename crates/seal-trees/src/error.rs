//! What can go wrong with trees and replica.

use std::path::{Path, PathBuf};

use seal_host::{FileError, MemoryError, SameFile, SpaceError, TakenForRemains};
use seal_types::Commitment;
use seal_wire::ErrorCode;

use crate::backend::{ComputedWrongly, DeviceError};
use crate::top::TopError;

/// Why trees or replica could not be made. Nothing has been put in place then.
#[derive(Debug, thiserror::Error)]
pub enum TreesError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Too little disk space for the results.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// Memory for blocks cannot be had.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The device that computes failed.
    #[error("{device} failed; nothing has been put in place, run PC2 again")]
    Device {
        /// What computes.
        device: String,
        /// What it says.
        #[source]
        source: DeviceError,
    },
    /// The device that computes has computed wrongly.
    #[error(
        "{device} computes wrongly: {what}; nothing has been put in place, and nothing is known \
         against the sector: run PC2 again elsewhere, or here once the device has been tested or \
         replaced (SEAL_GPU=optional lets the processor take its place)"
    )]
    BadDevice {
        /// What computes.
        device: String,
        /// What it computed wrongly.
        what: String,
    },
    /// A layer that is not the one that PC1 wrote.
    #[error(
        "layer file {} has the SHA-256 digest {found}, but PC1 recorded {wanted}: the file has been \
         damaged since; check the disk, and run PC1 again",
        path.display()
    )]
    LayerDigest {
        /// The file.
        path: PathBuf,
        /// Its digest.
        found: String,
        /// The digest that PC1 recorded.
        wanted: String,
    },
    /// A thread could not be started.
    #[error(
        "cannot start a thread; raise the limit of processes (ulimit -u, TasksMax=, pids.max) or of \
         memory (ulimit -v)"
    )]
    NoThread(#[source] std::io::Error),
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// A number of layers that has no column hash.
    #[error("columns of {layers} layers are not defined; sectors have 2 or 11 layers")]
    Layers {
        /// What was asked for.
        layers: u32,
    },
    /// A tree whose rows do not end in one root.
    #[error("a base tree of {leaves} leaves and arity {arity} does not end in one root")]
    Shape {
        /// Leaves of a base tree.
        leaves: u64,
        /// Children of a node.
        arity: u32,
    },
    /// Paths of the request lead to one file.
    #[error(transparent)]
    SameFile(#[from] SameFile),
    /// A path of the request would be removed as a file of an earlier sealing.
    #[error(transparent)]
    TakenForRemains(#[from] TakenForRemains),
    /// Another PC2 works in the same directory.
    #[error("another process is still at work in {}; wait for it or stop it", cache_dir.display())]
    Busy {
        /// The sector's cache directory.
        cache_dir: PathBuf,
    },
    /// A layer that is not there.
    #[error("layer file {} is not there: run PC1 again", path.display())]
    LayerMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A tree D that is not there, or is a link to nothing.
    #[error("tree D {} is not there, or what it links to: run PC1 again", path.display())]
    TreeDMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A sealed file that is something else than a file.
    #[error(
        "the sealed file {} is no regular file, so the replica cannot take its place; name the file \
         that PC1 wrote",
        path.display()
    )]
    SealedNoFile {
        /// What the request names, links resolved.
        path: PathBuf,
    },
    /// A layer file that is not of the sector's size.
    #[error(
        "layer file {} has {found} bytes and {wanted} are wanted: it is incomplete or of another \
         sector; run PC1 again",
        path.display()
    )]
    LayerSize {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The length of a layer.
        wanted: u64,
    },
    /// A tree D that is not of the sector's size.
    #[error(
        "tree D {} has {found} bytes and {wanted} are wanted: it is incomplete or of another \
         sector; remove it and run PC1 again",
        path.display()
    )]
    TreeDSize {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The length of the tree.
        wanted: u64,
    },
    /// A tree D of other data.
    #[error(
        "tree D {} has the root {found} but comm_d is {wanted}: it is of another sector; remove \
         it and run PC1 again",
        path.display()
    )]
    TreeDRoot {
        /// The file.
        path: PathBuf,
        /// Its last element.
        found: Commitment,
        /// The sector's commitment.
        wanted: Commitment,
    },
    /// Data, or leaves of a tree D, that hash to something else than `comm_d`.
    #[error(
        "the data in {} hashes to {found} but comm_d is {wanted}: the data or its piece \
         commitments are of another sector, or the file is damaged",
        path.display()
    )]
    Data {
        /// The file.
        path: PathBuf,
        /// What its data hashes to.
        found: Commitment,
        /// The sector's commitment.
        wanted: Commitment,
    },
    /// A node that is no element of the field.
    #[error(
        "node {node} of {} is not below the field's modulus: the file is damaged; run PC1 again",
        path.display()
    )]
    NotCanonical {
        /// The file.
        path: PathBuf,
        /// The node, counted from the start of the file.
        node: u64,
    },
    /// The result does not bear checking.
    #[error(
        "self-check: node {node} of {} is not what it is computed from; it was computed by \
         {device}; nothing has been put in place; check memory, disk and device of this machine and \
         run PC2 again (if it is tree D, remove it and run PC1 again)",
        path.display()
    )]
    SelfCheck {
        /// The file.
        path: PathBuf,
        /// The node, counted from the start of the file.
        node: u64,
        /// Who computed.
        device: String,
    },
    /// A path that `t_aux` cannot hold.
    #[error(
        "the name of cache directory {} is not UTF-8, so that t_aux cannot hold it; rename it",
        path.display()
    )]
    PathNotUtf8 {
        /// The directory.
        path: PathBuf,
    },
}

impl TreesError {
    /// As which code the error is answered, in whichever stage it comes.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::File(error) | Self::Space(SpaceError::Unknown(error)) => code_of_file(error),
            Self::Space(SpaceError::TooLittle { .. }) => ErrorCode::NoSpace,
            Self::Cancelled => ErrorCode::Cancelled,
            Self::SelfCheck { .. } => ErrorCode::SelfCheck,
            Self::BadDevice { .. } => ErrorCode::BadDevice,
            Self::Busy { .. } | Self::Device { .. } | Self::Memory(_) | Self::NoThread(_) => {
                ErrorCode::Unavailable
            }
            Self::Layers { .. } | Self::Shape { .. } => ErrorCode::Unsupported,
            // What was found in the sector's files, or is not there.
            Self::LayerDigest { .. }
            | Self::LayerMissing { .. }
            | Self::TreeDMissing { .. }
            | Self::SealedNoFile { .. }
            | Self::SameFile(_)
            | Self::TakenForRemains(_)
            | Self::LayerSize { .. }
            | Self::TreeDSize { .. }
            | Self::TreeDRoot { .. }
            | Self::Data { .. }
            | Self::NotCanonical { .. }
            | Self::PathNotUtf8 { .. } => ErrorCode::BadInput,
        }
    }
}

/// As which code an error with a file of a sector is answered.
pub fn code_of_file(error: &FileError) -> ErrorCode {
    match error {
        // A FIFO stays one, however often it is tried.
        error if error.wrong_kind().is_some() => ErrorCode::BadInput,
        error => ErrorCode::of_io(&error.source),
    }
}

impl TreesError {
    /// What comes of a failure of `device`.
    pub(crate) fn of_device(device: String, source: DeviceError) -> Self {
        match source.downcast::<ComputedWrongly>() {
            Ok(wrong) => Self::BadDevice { device, what: wrong.what },
            Err(source) => Self::Device { device, source },
        }
    }

    /// A fault in the rows above blocks of the tree in `path`.
    pub(crate) fn of_top(error: TopError, path: &Path) -> Self {
        match error {
            TopError::File(error) => error.into(),
            TopError::NotCanonical(error) => {
                Self::NotCanonical { path: path.to_path_buf(), node: error.index as u64 }
            }
        }
    }
}
