//! The parents caches that a process has open, each once.
//!
//! All sectors of a registered proof read one cache. A map of it per sector would cost page tables
//! for each: more than 100 MiB for the cache of a 32 GiB graph.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::{Graph, ParentsCache, SdrError, Watch};

/// The caches that are in use. One that nobody uses any more is closed.
#[derive(Debug, Default)]
pub struct SharedParents {
    open: Mutex<HashMap<PathBuf, Weak<ParentsCache>>>,
}

impl SharedParents {
    /// As [`ParentsCache::open`], but the cache that somebody in this process has open already if
    /// it is still the file under its name.
    pub fn open(
        &self,
        graph: &Graph,
        directory: &Path,
        watch: Watch<'_>,
    ) -> Result<Arc<ParentsCache>, SdrError> {
        let path = ParentsCache::path_in(directory, graph);
        if let Some(cache) = self.current(&path) {
            return Ok(cache);
        }
        // Not under the lock: making a cache takes minutes, in which others may want another one.
        let opened = Arc::new(ParentsCache::open(graph, directory, watch)?);
        let mut open = self.lock();
        open.retain(|_, cache| cache.strong_count() > 0);
        if let Some(other) = Self::current_of(&open, &path) {
            // Opened at the same time by another one.
            return Ok(other);
        }
        open.insert(path, Arc::downgrade(&opened));
        Ok(opened)
    }

    fn current(&self, path: &Path) -> Option<Arc<ParentsCache>> {
        Self::current_of(&self.lock(), path)
    }

    fn current_of(
        open: &HashMap<PathBuf, Weak<ParentsCache>>,
        path: &Path,
    ) -> Option<Arc<ParentsCache>> {
        open.get(path)?.upgrade().filter(|cache| cache.is_in_place())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Weak<ParentsCache>>> {
        // Entries are put in and taken out whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seal_types::RegisteredProof;

    const QUIET: Watch<'static> = Watch { progress: &|_, _, _| {}, cancelled: &|| false };

    fn graph(name: &str) -> Graph {
        Graph::new(&name.parse::<RegisteredProof>().expect("a registered proof").porep())
    }

    #[test]
    fn those_who_want_the_same_cache_at_any_time_have_one_map() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (shared, gate) = (SharedParents::default(), std::sync::Barrier::new(4));
        let proof = graph("StackedDrg2KiBV1_1");
        let open = || shared.open(&proof, dir.path(), QUIET).expect("writable");
        let caches: Vec<_> = std::thread::scope(|scope| {
            let open_together = || {
                gate.wait();
                open()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open_together)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert!(caches.iter().all(|cache| Arc::ptr_eq(cache, &caches[0])));
        let other = shared.open(&graph("StackedDrg2KiBV1"), dir.path(), QUIET).expect("writable");
        assert!(!Arc::ptr_eq(&other, &open()));
        assert!(Arc::ptr_eq(&caches[0], &open()));
    }

    #[test]
    fn a_cache_is_closed_with_its_last_user() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let shared = SharedParents::default();
        let open = |name| shared.open(&graph(name), dir.path(), QUIET).expect("writable");
        drop(open("StackedDrg2KiBV1_1"));
        let _other = open("StackedDrg2KiBV1");
        assert_eq!(shared.lock().len(), 1, "the entry of the first is gone");
    }

    #[test]
    fn a_file_that_was_replaced_or_changed_is_opened_and_checked_anew() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (shared, graph) = (SharedParents::default(), graph("StackedDrg2KiBV1_1"));
        let open = || shared.open(&graph, dir.path(), QUIET).expect("writable");
        let first = open();
        std::fs::remove_file(first.path()).expect("ours");
        let second = open();
        assert!(!Arc::ptr_eq(&first, &second));
        let good = std::fs::read(second.path()).expect("readable");
        let shorter = &good[..good.len() - 4];
        std::fs::write(second.path(), shorter).expect("writable");
        let third = open();
        assert!(!Arc::ptr_eq(&second, &third));
        assert_eq!(std::fs::read(third.path()).expect("readable"), good);
    }
}
