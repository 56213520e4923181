//! Labelling: the layers of a sector, one after the other.
//!
//! Label `node` of a layer hashes the labels of its base parents in the same layer and, from
//! layer 2 on, of its expander parents in the layer before. Two layers are held in memory; each
//! is written as soon as it is complete.

use std::path::{Path, PathBuf};

use seal_host::{PartFile, require_free};
use seal_sha256::{BASE_PARENTS, Kernel, LabelPrefix, prefetch};
use seal_types::{NODE_SIZE, Porep, ReplicaId, layer_file};

use crate::{ParentsCache, Part, SdrError, Watch};

/// How far ahead of the node that is labelled its parents are fetched into the cache.
const LOOK_AHEAD: usize = 8;
/// Nodes labelled, or labels written, between two looks at the watch.
const BLOCK_NODES: usize = 1 << 16;

/// What to label and where to.
#[derive(Debug)]
pub struct Labelling<'a> {
    /// Graph, layers and size.
    pub porep: &'a Porep,
    /// Parents of the graph.
    pub parents: &'a ParentsCache,
    /// The sector's replica id.
    pub replica_id: ReplicaId,
    /// The SHA-256 kernel.
    pub kernel: Kernel,
    /// The cache directory, where the layer files go.
    pub directory: &'a Path,
}

type Label = [u8; NODE_SIZE];

/// Labels all layers and writes them. Returns the layer files, first layer first.
pub fn label_layers(job: &Labelling<'_>, watch: Watch<'_>) -> Result<Vec<PathBuf>, SdrError> {
    let layer_bytes = job.porep.sector_size.bytes();
    require_free(job.directory, layer_bytes * u64::from(job.porep.layers))?;

    let mut current = layer_memory(job.porep)?;
    let mut previous = layer_memory(job.porep)?;
    let mut files = Vec::new();
    for layer in 1..=job.porep.layers {
        label_layer(job, layer, &mut current, &previous, watch)?;
        files.push(store_layer(job, layer, &current, watch)?);
        std::mem::swap(&mut current, &mut previous);
    }
    Ok(files)
}

fn layer_memory(porep: &Porep) -> Result<Vec<Label>, SdrError> {
    let nodes = usize::try_from(porep.nodes()).expect("64-bit addresses");
    let mut labels = Vec::new();
    labels
        .try_reserve_exact(nodes)
        .map_err(|_| SdrError::Memory { bytes: 2 * porep.sector_size.bytes() })?;
    labels.resize(nodes, [0; NODE_SIZE]);
    Ok(labels)
}

fn label_layer(
    job: &Labelling<'_>,
    layer: u32,
    current: &mut [Label],
    previous: &[Label],
    watch: Watch<'_>,
) -> Result<(), SdrError> {
    let nodes = current.len();
    let prefix = LabelPrefix::new(job.kernel, job.replica_id.0);
    current[0] = prefix.label_without_parents(layer);
    for first in (0..nodes).step_by(BLOCK_NODES) {
        if (watch.cancelled)() {
            return Err(SdrError::Cancelled);
        }
        let end = nodes.min(first + BLOCK_NODES);
        for node in first.max(1)..end {
            let ahead = job.parents.parents((node + LOOK_AHEAD).min(nodes - 1));
            for (i, parent) in ahead.into_iter().enumerate() {
                let layer = if i < BASE_PARENTS { &*current } else { previous };
                prefetch(&layer[parent as usize]);
            }
            let parents = job.parents.parents(node);
            current[node] = if layer == 1 {
                let labels = std::array::from_fn(|i| current[parents[i] as usize]);
                prefix.label::<BASE_PARENTS>(layer, node as u64, &labels)
            } else {
                let labels = std::array::from_fn(|i| {
                    let layer = if i < BASE_PARENTS { &*current } else { previous };
                    layer[parents[i] as usize]
                });
                prefix.label::<{ crate::PARENTS }>(layer, node as u64, &labels)
            };
        }
        (watch.progress)(Part::Layer(layer), end as u64, nodes as u64);
    }
    Ok(())
}

fn store_layer(
    job: &Labelling<'_>,
    layer: u32,
    labels: &[Label],
    watch: Watch<'_>,
) -> Result<PathBuf, SdrError> {
    let path = job.directory.join(layer_file(layer));
    let mut part = PartFile::create(&path)?;
    let mut done = 0;
    for block in labels.chunks(BLOCK_NODES) {
        if (watch.cancelled)() {
            return Err(SdrError::Cancelled);
        }
        part.write_all(block.as_flattened())?;
        done += block.len() as u64;
        (watch.progress)(Part::StoreLayer(layer), done, labels.len() as u64);
    }
    part.finish()?;
    Ok(path)
}
