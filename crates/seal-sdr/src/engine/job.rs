//! A layer to label, and the one who waits for it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use seal_host::{LabelMemory, LayerReader, LayerWriter};
use seal_sha256::{BASE_PARENTS, LabelPrefix};

use crate::SdrError;
use crate::labels::Parents;

/// A layer of a sector.
pub struct LayerJob {
    /// The layer, counted from 1.
    pub layer: u32,
    /// Replica id and kernel.
    pub prefix: LabelPrefix,
    /// The graph's parents.
    pub parents: Arc<dyn Parents + Send + Sync>,
    /// The layer before, complete; none for layer 1.
    pub previous: Option<LayerReader>,
    /// Where the labels go.
    pub memory: LabelMemory,
}

impl std::fmt::Debug for LayerJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerJob").field("layer", &self.layer).finish_non_exhaustive()
    }
}

/// What the threads of a unit share of a layer.
pub(crate) struct Shared {
    pub(crate) layer: u32,
    pub(crate) prefix: LabelPrefix,
    pub(crate) parents: Arc<dyn Parents + Send + Sync>,
    pub(crate) previous: Option<LayerReader>,
    pub(crate) current: LayerReader,
    stop: AtomicBool,
    bad: OnceLock<BadParent>,
}

/// A parent that no node can have.
#[derive(Clone, Copy, Debug)]
struct BadParent {
    node: usize,
    index: usize,
    found: u32,
}

impl Shared {
    /// Asks everybody to leave the layer: nobody wants it, or somebody cannot go on.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Somebody met parent `index` of `node`, which is no node that it can have: labels over it are
    /// of no use.
    #[cold]
    #[inline(never)]
    pub(crate) fn met_bad_parent(&self, node: usize, index: usize, found: u32) {
        self.bad.get_or_init(|| BadParent { node, index, found });
        self.stop();
    }

    fn check_parents(&self) -> Result<(), SdrError> {
        let Some(&BadParent { node, index, found }) = self.bad.get() else { return Ok(()) };
        let nodes = self.current.nodes();
        let wrong = if index < BASE_PARENTS && (found as usize) < nodes {
            "which does not come before it".to_owned()
        } else {
            format!("where the graph has {nodes} nodes")
        };
        let path = self.parents.path().unwrap_or(Path::new("(none)")).to_path_buf();
        Err(SdrError::BadParent { path, node: node as u64, index, found, wrong })
    }
}

/// How the layer ended; set once.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    complete: Mutex<Option<bool>>,
    set: Condvar,
}

impl Outcome {
    fn lock(&self) -> MutexGuard<'_, Option<bool>> {
        self.complete.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, complete: bool) {
        self.lock().get_or_insert(complete);
        self.set.notify_all();
    }
}

/// One who waits for a layer. Dropped before the layer is complete, it stops it.
pub struct LayerHandle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) outcome: Arc<Outcome>,
}

impl std::fmt::Debug for LayerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerHandle").field("outcome", &self.outcome).finish_non_exhaustive()
    }
}

impl LayerHandle {
    /// The labels, while they come into being and afterwards.
    pub fn labels(&self) -> &LayerReader {
        &self.shared.current
    }

    /// Waits for the layer, at most `patience`. `true` when it is complete.
    ///
    /// # Errors
    /// When the unit failed, or met a parent that no node can have.
    pub fn wait(&self, patience: Duration) -> Result<bool, SdrError> {
        let waited =
            self.outcome
                .set
                .wait_timeout_while(self.outcome.lock(), patience, |complete| complete.is_none());
        let complete = *waited.unwrap_or_else(PoisonError::into_inner).0;
        self.shared.check_parents()?;
        match complete {
            None => Ok(false),
            Some(true) => Ok(true),
            Some(false) => Err(SdrError::Unit { layer: self.shared.layer }),
        }
    }
}

impl Drop for LayerHandle {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// The consumer's side of a layer. Dropped before the layer is complete (which a panic does), it
/// tells the one who waits.
pub(crate) struct Lane {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writer: LayerWriter,
    outcome: Arc<Outcome>,
    finished: bool,
}

impl Lane {
    pub(crate) fn nodes(&self) -> usize {
        self.writer.nodes()
    }

    /// The next node.
    pub(crate) fn next(&self) -> usize {
        self.writer.written().len()
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.next() == self.nodes()
    }

    /// The layer is complete: lets go of everything, then tells the one who waits, who may take
    /// the memory back.
    pub(crate) fn complete(mut self) {
        debug_assert!(self.is_complete());
        self.finished = true;
        let outcome = Arc::clone(&self.outcome);
        drop(self);
        outcome.set(true);
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if !self.finished {
            self.shared.stop();
            self.outcome.set(false);
        }
    }
}

/// Splits a layer into the consumer's side and the handle of the one who waits.
pub(crate) fn start(job: LayerJob) -> (Lane, LayerHandle) {
    let LayerJob { layer, prefix, parents, previous, memory } = job;
    let (writer, current) = memory.start_layer();
    let stop = AtomicBool::new(false);
    let bad = OnceLock::new();
    let shared = Arc::new(Shared { layer, prefix, parents, previous, current, stop, bad });
    let outcome = Arc::new(Outcome::default());
    let lane = Lane {
        shared: Arc::clone(&shared),
        writer,
        outcome: Arc::clone(&outcome),
        finished: false,
    };
    (lane, LayerHandle { shared, outcome })
}
