//! All layers of a sector at a unit of the engine, each stored while it is computed.
//!
//! Two layers are in memory: the one that is computed and the one before, from which its expander
//! parents come. A layer's memory is used again for the layer after the next.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use seal_host::{LabelMemory, LayerReader, Region};
use seal_sha256::LabelPrefix;

use crate::{
    Engine, Graph, Labelling, LayerHandle, LayerJob, LayerStore, SdrError, Seat, Watch,
    check_labels, load_layer,
};

/// How long threads that have no work left may take to let go of a layer.
const LET_GO: Duration = Duration::from_secs(30);

/// Labels the layers that `store` does not have yet, at the unit of `seat`, and stores them.
/// `core` is the cpu of the unit's consumer. `memory` is asked twice, each time for a region that
/// holds a layer; for the second one while the first layer is labelled already, if none is
/// finished yet.
pub fn label_sector(
    engine: &Engine,
    seat: &Seat,
    core: Option<u32>,
    memory: &mut dyn FnMut() -> Result<Region, SdrError>,
    job: &Labelling<'_>,
    store: &mut LayerStore,
    watch: Watch<'_>,
) -> Result<(), SdrError> {
    let Some(layer) = store.next_layer() else { return Ok(()) };
    let mut first = LabelMemory::new(memory()?);
    let (mut previous, mut spare) = (None, Vec::new());
    match store.finished().last() {
        Some(record) => {
            // Both at once: whoever gives the memory keeps others waiting until it is taken.
            spare.push(LabelMemory::new(memory()?));
            load_layer(store.directory(), record, job.porep.layers, first.labels_mut(), watch)?;
            previous = Some(first.into_complete());
        }
        None => spare.push(first),
    }
    let graph = Graph::new(job.porep);
    let prefix = LabelPrefix::new(job.kernel, job.replica_id.0);
    let start = |layer, memory, previous| {
        let parents = Arc::clone(job.parents) as _;
        engine.label_layer(seat, LayerJob { layer, prefix, parents, previous, memory })
    };

    let free = spare.pop().expect("one region is left");
    let mut running = Running::new(layer, start(layer, free, previous.clone())?);
    if previous.is_none() {
        spare.push(LabelMemory::new(memory()?));
    }
    while let Some(layer) = store.next_layer() {
        let labels = running.handle.labels().clone();
        let current = RefCell::new(Some(running));
        let next = RefCell::new(None);
        let alive = || {
            let (current, next) = (current.borrow(), next.borrow());
            let running: Option<&Running> = current.as_ref().or(next.as_ref());
            running.map_or(Ok(()), |running| running.handle.wait(Duration::ZERO).map(drop))
        };
        store.store(&labels, watch, &alive, || {
            let done = current.take().expect("a layer is complete once");
            done.finish()?;
            let before = previous.as_ref().map_or(&[][..], LayerReader::published);
            check_labels(&graph, job.replica_id, layer, labels.published(), before, core)?;
            if let Some(before) = previous.replace(labels.clone()) {
                spare.push(reclaim(before, layer)?);
            }
            if layer < job.porep.layers {
                let memory = spare.pop().expect("the layer before gave its memory back");
                let handle = start(layer + 1, memory, previous.clone())?;
                *next.borrow_mut() = Some(Running::new(layer + 1, handle));
            }
            Ok(())
        })?;
        match next.into_inner() {
            Some(next) => running = next,
            None => break,
        }
    }
    Ok(())
}

/// A layer that is computed, and since when.
struct Running {
    layer: u32,
    handle: LayerHandle,
    since: Instant,
}

impl Running {
    fn new(layer: u32, handle: LayerHandle) -> Self {
        Self { layer, handle, since: Instant::now() }
    }

    /// All labels are published; waits until the unit has let go of them and says how long it took.
    fn finish(self) -> Result<(), SdrError> {
        while !self.handle.wait(LET_GO)? {}
        let label_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let nodes = self.handle.labels().nodes() as f64;
        let ns_per_label = self.since.elapsed().as_secs_f64() * 1e9 / nodes;
        tracing::info!(layer = self.layer, label_ms, ns_per_label, "layer labelled");
        Ok(())
    }
}

/// The memory of a layer that nobody reads any more: producers drop theirs when they next look.
fn reclaim(mut reader: LayerReader, layer: u32) -> Result<LabelMemory, SdrError> {
    let since = Instant::now();
    loop {
        match reader.into_memory() {
            Ok(memory) => return Ok(memory),
            Err(_) if since.elapsed() > LET_GO => return Err(SdrError::Unit { layer }),
            Err(still_shared) => reader = still_shared,
        }
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::manifest::tests::sealing;
    use crate::{ParentsCache, UnitCores};
    use seal_host::read_dir_names;
    use seal_sha256::Kernel;
    use seal_types::MANIFEST;

    const QUIET: Watch<'static> = Watch { progress: &|_, _, _| {}, cancelled: &|| false };

    /// Labels a sector of 2 KiB over `parents` and stores it in `directory`.
    fn label(
        producers: usize,
        parents: &Arc<ParentsCache>,
        directory: &std::path::Path,
    ) -> Result<(), SdrError> {
        let cores = UnitCores { consumer: 5, producers: vec![0; producers], node: None };
        let engine = Engine::start(&[cores], 1, Arc::new(|_| Ok(()))).expect("threads");
        let seat = engine.take_seat(&|_| {}, &|| false).expect("a seat");
        let mut sealing = sealing();
        sealing.porep.layers = 2;
        let mut store = LayerStore::begin(directory, &sealing, Vec::new()).expect("writable");
        let mut memory = || Ok(Region::anonymous(2048).expect("memory"));
        let (porep, replica_id) = (&sealing.porep, sealing.replica_id);
        let job = Labelling { porep, parents, replica_id, kernel: Kernel::detect() };
        label_sector(&engine, &seat, Some(5), &mut memory, &job, &mut store, QUIET)
    }

    #[test]
    fn labels_over_a_wrong_parent_are_found_before_the_layer_has_its_name() {
        let graph = Graph::new(&sealing().porep);
        for producers in [0, 1] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let (parents, layers) = (dir.path().join("parents"), dir.path().join("layers"));
            std::fs::create_dir(&layers).expect("writable");
            let cache = Arc::new(ParentsCache::open(&graph, &parents, QUIET).expect("writable"));
            label(producers, &cache, &layers).expect("all is right");
            assert_eq!(read_dir_names(&layers).expect("readable").len(), 3);

            // What bad memory or a bad disk does: one bit of what is mapped is another one.
            let file = std::fs::File::options().read(true).write(true).open(cache.path());
            let file = file.expect("writable");
            let byte = 40 * 14 * 4;
            let mut good = [0];
            file.read_exact_at(&mut good, byte).expect("readable");
            file.write_all_at(&[good[0] ^ 1], byte).expect("writable");
            std::fs::remove_dir_all(&layers).expect("writable");
            std::fs::create_dir(&layers).expect("writable");
            let error = label(producers, &cache, &layers).expect_err("a parent is wrong");
            let SdrError::WrongLabel { layer: 1, node: 40, core: Some(5) } = error else {
                panic!("{error}");
            };
            assert_eq!(read_dir_names(&layers).expect("readable"), [MANIFEST]);
        }
    }
}
