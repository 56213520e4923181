//! What can go wrong.

use std::path::PathBuf;

use seal_host::{AdmissionError, FileError, MapError, SpaceError};

/// Why labels or a parents cache could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SdrError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file system is too full.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// The parents cache that was just made is not the published one.
    #[error(
        "the parents cache made for {} has the SHA-256 digest {found} instead of {wanted}; \
         memory or processor of this machine are not reliable",
        path.display()
    )]
    WrongParents {
        /// Where the cache was to be.
        path: PathBuf,
        /// Published digest.
        wanted: String,
        /// Digest of what was made.
        found: String,
    },
    /// The parents cache is not what it was when it was checked.
    #[error(
        "parents cache: {0}; who makes it anew has to write another file and rename it. Labels over \
         what is gone are thrown away; send the request again: the cache is checked, made again if \
         it is not right, and layers that were finished before are used"
    )]
    ParentsMap(#[source] MapError),
    /// The parents cache holds something else than its graph has.
    #[error(
        "parents cache {}: parent {index} of node {node} is {found}, {wrong}; somebody writes to \
         the file, or disk or memory of this machine are not reliable. The cache is checked, and \
         made again if it is not right, before the next sector uses it",
        path.display()
    )]
    BadParent {
        /// The parents cache.
        path: PathBuf,
        /// The node.
        node: u64,
        /// Which of its parents.
        index: usize,
        /// What stands there.
        found: u32,
        /// What is wrong with it.
        wrong: String,
    },
    /// Another sector found something in the parents cache that its graph does not have.
    #[error(
        "parents cache {}: another sector found that it does not hold what the graph has; send the \
         request again: the cache is checked, and made again if it is not right, and layers that \
         were finished before are used", path.display()
    )]
    DistrustedParents {
        /// The parents cache.
        path: PathBuf,
    },
    /// The memory of a layer lost what was in it.
    #[error(
        "memory for labels: {0}; make the file again with `pc1-exec hugepages`, keep other software \
         off it, and send the request again: layers that were finished before are used"
    )]
    LabelMemory(#[source] MapError),
    /// A parents cache has to be made where nothing can be written.
    #[error(
        "the parents cache {} is missing or wrong, and it cannot be made there; make that directory \
         writable, or name another one by FIL_PROOFS_PARENT_CACHE",
        path.display()
    )]
    ParentsDirectory {
        /// Where the cache should be.
        path: PathBuf,
        /// What cannot be done.
        #[source]
        source: FileError,
    },
    /// What lies under the name of a parents cache cannot be read.
    #[error(
        "the parents cache {} cannot be used; if nothing needs what lies there, remove it, and it is \
         made again, or name another directory by FIL_PROOFS_PARENT_CACHE",
        path.display()
    )]
    ParentsFile {
        /// The cache.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: FileError,
    },
    /// Memory for a layer is not there.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// The memory for the labels cannot be had.
    #[error("cannot get {bytes} bytes of memory for two layers of labels")]
    Memory {
        /// How much was asked for.
        bytes: u64,
    },
    /// A label is not what its parents make it.
    #[error(
        "self-check: the label of node {node} in layer {layer} is wrong{}; memory or processor of \
         this machine are not reliable, test them before sealing on",
        core.map(|core| format!(", computed on cpu {core}")).unwrap_or_default()
    )]
    WrongLabel {
        /// The layer.
        layer: u32,
        /// The node.
        node: u64,
        /// The cpu that labelled the layer, if it was one.
        core: Option<u32>,
    },
    /// A finished layer has other content than a moment ago.
    #[error(
        "layer file {} has the SHA-256 digest {found} and not {wanted}, which it had when it was \
         checked; somebody writes to it, or disk or memory of this machine are not reliable",
        path.display()
    )]
    ChangedLayer {
        /// The layer's file.
        path: PathBuf,
        /// Digest of the manifest.
        wanted: String,
        /// Digest of what was read.
        found: String,
    },
    /// A thread cannot run on its core.
    #[error("cannot run a labelling thread on cpu {cpu}: {reason}")]
    Core {
        /// The cpu.
        cpu: usize,
        /// Why not.
        reason: String,
    },
    /// A labelling thread ended before its time.
    #[error("a labelling thread failed in layer {layer}; the log has its panic")]
    Unit {
        /// The layer.
        layer: u32,
    },
    /// The work was no longer wanted.
    #[error("stopped before its end")]
    Cancelled,
}

impl SdrError {
    /// Whether it says that the parents cache cannot be relied on.
    pub(crate) fn is_of_parents(&self) -> bool {
        matches!(
            self,
            Self::ParentsMap(_) | Self::BadParent { .. } | Self::DistrustedParents { .. }
        )
    }
}
