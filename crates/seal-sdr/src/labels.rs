//! Labelling: the layers of a sector, one after the other.
//!
//! Label `node` of a layer hashes the labels of its base parents in the same layer and, from
//! layer 2 on, of its expander parents in the layer before. Two layers are held in memory; each
//! is written as soon as it is complete.

use std::path::{Path, PathBuf};

use seal_host::{PartFile, require_free};
use seal_sha256::{BASE_PARENTS, Kernel, LabelPrefix, prefetch};
use seal_types::{NODE_SIZE, Porep, ReplicaId, layer_file};

use crate::{Graph, PARENTS, ParentsCache, Part, SdrError, Watch};

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

/// Who knows the parents of nodes.
pub trait Parents {
    /// The parents of `node`.
    fn parents(&self, node: usize) -> [u32; PARENTS];
}

impl Parents for ParentsCache {
    #[inline]
    fn parents(&self, node: usize) -> [u32; PARENTS] {
        Self::parents(self, node)
    }
}

impl Parents for Graph {
    fn parents(&self, node: usize) -> [u32; PARENTS] {
        Self::parents(self, u32::try_from(node).expect("nodes are below 2^32"))
    }
}

/// Labels all layers and writes them. Returns the layer files, first layer first.
pub fn label_layers(job: &Labelling<'_>, watch: Watch<'_>) -> Result<Vec<PathBuf>, SdrError> {
    let layer_bytes = job.porep.sector_size.bytes();
    require_free(job.directory, layer_bytes * u64::from(job.porep.layers))?;

    let mut current = layer_memory(job.porep)?;
    let mut previous = layer_memory(job.porep)?;
    let mut files = Vec::new();
    for layer in 1..=job.porep.layers {
        let prefix = LabelPrefix::new(job.kernel, job.replica_id.0);
        label_layer(job.parents, &prefix, layer, &mut current, &previous, watch)?;
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

/// Labels the first nodes of `layer`, as many as `current` holds, over the labels of the
/// `previous` layer. Layer 1 has no previous layer, so a part of it can be labelled alone.
pub fn label_layer(
    parents: &impl Parents,
    prefix: &LabelPrefix,
    layer: u32,
    current: &mut [[u8; NODE_SIZE]],
    previous: &[[u8; NODE_SIZE]],
    watch: Watch<'_>,
) -> Result<(), SdrError> {
    if layer == 1 {
        return label_nodes(
            parents,
            prefix,
            layer,
            current,
            previous,
            watch,
            |current, _, nodes| {
                std::array::from_fn::<_, BASE_PARENTS, _>(|i| &current[nodes[i] as usize])
            },
        );
    }
    label_nodes(parents, prefix, layer, current, previous, watch, |current, previous, nodes| {
        std::array::from_fn::<_, PARENTS, _>(|i| {
            let labels = if i < BASE_PARENTS { current } else { previous };
            &labels[nodes[i] as usize]
        })
    })
}

/// Labels node after node; `pick` finds the labels of a node's parents.
fn label_nodes<const COUNT: usize>(
    parents: &impl Parents,
    prefix: &LabelPrefix,
    layer: u32,
    current: &mut [Label],
    previous: &[Label],
    watch: Watch<'_>,
    pick: impl for<'a> Fn(&'a [Label], &'a [Label], &[u32; PARENTS]) -> [&'a Label; COUNT],
) -> Result<(), SdrError> {
    let nodes = current.len();
    for first in (0..nodes).step_by(BLOCK_NODES) {
        if (watch.cancelled)() {
            return Err(SdrError::Cancelled);
        }
        let end = nodes.min(first + BLOCK_NODES);
        for node in first..end {
            if node == 0 {
                current[0] = prefix.label_without_parents(layer);
                continue;
            }
            let ahead = parents.parents((node + LOOK_AHEAD).min(nodes - 1));
            pick(current, previous, &ahead).into_iter().for_each(prefetch);
            let labels = pick(current, previous, &parents.parents(node)).map(|label| *label);
            current[node] = prefix.label::<COUNT>(layer, node as u64, &labels);
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
