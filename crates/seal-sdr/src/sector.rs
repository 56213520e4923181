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
    Engine, Graph, Labelling, LayerHandle, LayerJob, LayerOf, LayerStore, ParentsCache, Part,
    SdrError, Seat, Watch, check_labels, load_layer,
};

/// How long threads that have no work left may take to let go of a layer.
const LET_GO: Duration = Duration::from_secs(30);

/// Labels the layers that `store` does not have yet, at the unit of `seat`, and stores them.
/// `core` is the cpu of the unit's consumer. `memory` is asked twice, each time for a region that
/// holds a layer; for the second one while the first layer is labelled already, if none is
/// finished yet.
///
/// A parents cache, or a file of memory, that others cut or write to meanwhile fails the layer that
/// is computed; one that is found to be wrong is checked before its next use.
pub fn label_sector(
    engine: &Engine,
    seat: &Seat,
    core: Option<u32>,
    memory: &mut dyn FnMut() -> Result<Region, SdrError>,
    job: &Labelling<'_>,
    store: &mut LayerStore,
    watch: Watch<'_>,
) -> Result<(), SdrError> {
    let done = label_layers(engine, seat, core, memory, job, store, watch);
    if let Err(error) = &done
        && error.is_of_parents()
    {
        job.parents.distrust();
    }
    done
}

fn label_layers(
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
            let layers = job.porep.layers;
            load_layer(store.directory(), record, layers, first.labels_mut(), watch).map_err(
                |error| first.check().map_err(SdrError::LabelMemory).err().unwrap_or(error),
            )?;
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
    // Told now: to get the other layer's memory takes a while, in which labels are computed.
    let part = Part::Layer(LayerOf { layer, layers: job.porep.layers });
    (watch.progress)(part, 0, job.porep.nodes());
    if previous.is_none() {
        spare.push(LabelMemory::new(memory()?));
    }
    while let Some(layer) = store.next_layer() {
        let labels = running.handle.labels().clone();
        let current = RefCell::new(Some(running));
        let next = RefCell::new(None);
        // The layer before, until all labels that are computed from it are there.
        let before = RefCell::new(previous.clone());
        let sound = || -> Result<(), SdrError> {
            job.parents.check_map()?;
            let checked = before.borrow().iter().try_for_each(LayerReader::check_memory);
            checked.and_then(|()| labels.check_memory()).map_err(SdrError::LabelMemory)
        };
        let alive = || {
            let (current, next) = (current.borrow(), next.borrow());
            let running: Option<&Running> = current.as_ref().or(next.as_ref());
            let alive =
                running.map_or(Ok(()), |running| running.handle.wait(Duration::ZERO).map(drop));
            // After that: a thread that ended has published its last label.
            sound().and(alive)
        };
        let stored = store.store(&labels, watch, &alive, || {
            let done = current.take().expect("a layer is complete once");
            done.finish()?;
            sound()?;
            let checks = Part::CheckLabels(LayerOf { layer, layers: job.porep.layers });
            (watch.progress)(checks, 0, 1);
            let former = previous.as_ref().map_or(&[][..], LayerReader::published);
            check_labels(&graph, job.replica_id, layer, labels.published(), former, core)
                .map_err(|error| whose_fault(error, &graph, job.parents))?;
            (watch.progress)(checks, 1, 1);
            drop(before.take());
            if let Some(before) = previous.replace(labels.clone()) {
                spare.push(reclaim(before, layer)?);
            }
            if layer < job.porep.layers {
                let memory = spare.pop().expect("the layer before gave its memory back");
                let handle = start(layer + 1, memory, previous.clone())?;
                *next.borrow_mut() = Some(Running::new(layer + 1, handle));
            }
            Ok(())
        });
        // Where memory or parents are gone, whatever came of that has its reason there.
        stored.map_err(|error| match error {
            SdrError::Cancelled => error,
            error => sound().err().unwrap_or(error),
        })?;
        match next.into_inner() {
            Some(next) => running = next,
            None => break,
        }
    }
    Ok(())
}

/// Why a label is wrong: because the parents cache has other parents of its node than the graph, or
/// because it was computed wrongly.
fn whose_fault(error: SdrError, graph: &Graph, parents: &ParentsCache) -> SdrError {
    match error {
        SdrError::WrongLabel { node, .. } => parents.compare(graph, node).err().unwrap_or(error),
        error => error,
    }
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
mod tests;
