//! Processes take the memory of a NUMA node in turn.
//!
//! Whether there is memory for a task is known only between a look at what is free and the moment
//! its pages are taken: two processes that look at the same time would both find the same memory
//! free, and the kernel would end one of them later. So whoever has looked keeps its turn until
//! its pages are taken. A turn is a lock that the kernel releases when its holder dies, and that
//! holds on when the runtime directory is removed ([`crate::kept`]).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::kept::KeptSlots;
use crate::{FileError, NodeId, RuntimeDir};

/// The turns among all processes that share a runtime directory. Within a process a turn is
/// shared: its tasks count what was promised to each other.
#[derive(Debug)]
pub struct MemoryTurns {
    runtime_dir: PathBuf,
    /// The nodes at which it is this process's turn.
    own: Mutex<BTreeMap<NodeId, Weak<KeptSlots>>>,
}

/// This process's turn, until the last of its tasks drops it.
#[derive(Debug)]
#[must_use = "the turn ends when this is dropped"]
pub struct MemoryTurn {
    /// One slot for each node; the kernel releases it when this is closed.
    _nodes: Vec<Arc<KeptSlots>>,
}

impl MemoryTurns {
    /// Among all processes that use this runtime directory.
    pub fn in_dir(runtime_dir: &RuntimeDir) -> Self {
        Self { runtime_dir: runtime_dir.path().to_path_buf(), own: Mutex::default() }
    }

    /// The turn at all of `nodes`, or `None` while another process has that of one of them.
    pub fn try_take(&self, nodes: &[NodeId]) -> Result<Option<MemoryTurn>, FileError> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = Vec::new();
        for node in nodes {
            if let Some(slots) = own.get(node).and_then(Weak::upgrade) {
                held.push(slots);
                continue;
            }
            let slots = KeptSlots::try_take(&self.runtime_dir, "memory.slots", vec![node.0])?;
            let Some(slots) = slots else { return Ok(None) };
            let slots = Arc::new(slots);
            own.insert(*node, Arc::downgrade(&slots));
            held.push(slots);
        }
        Ok(Some(MemoryTurn { _nodes: held }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_taken_from_by_one_process_at_a_time() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let process =
            || MemoryTurns::in_dir(&RuntimeDir::open(&dir.path().join("run")).expect("ours"));
        let (one, other) = (process(), process());
        let take = |process: &MemoryTurns, nodes: &[u32]| {
            let nodes: Vec<_> = nodes.iter().copied().map(NodeId).collect();
            process.try_take(&nodes).expect("lockable")
        };
        let first = take(&one, &[0]).expect("free");
        assert!(take(&other, &[0]).is_none());
        assert!(take(&other, &[0, 1]).is_none(), "it wants the whole machine");
        // Node 1 was not kept by the attempt that failed, and another node is not in the way.
        let second = take(&one, &[0, 1]).expect("its own turn, and a free one");
        drop(first);
        assert!(take(&other, &[0]).is_none(), "another task of it still has the turn");
        drop(second);
        let both = take(&other, &[1, 0]).expect("free");
        assert!(take(&one, &[1]).is_none());
        crate::kept::tests::remove_and_await(&dir.path().join("run"), "memory.slots", 2);
        assert!(take(&one, &[1]).is_none(), "it is still taken from");
        drop(both);
        assert!(take(&one, &[1]).is_some());
    }
}
