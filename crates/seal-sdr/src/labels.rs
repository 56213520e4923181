//! Labels one after the other in a single thread: the form that everything else is measured
//! against.
//!
//! Label `node` of a layer hashes the labels of its base parents in the same layer and, from
//! layer 2 on, of its expander parents in the layer before.

use std::path::Path;
use std::sync::Arc;

use seal_sha256::{BASE_PARENTS, Kernel, LabelPrefix, prefetch};
use seal_types::{NODE_SIZE, Porep, ReplicaId};

use crate::{Graph, PARENTS, ParentsCache, SdrError, Watch};

/// How far ahead of the node that is labelled its parents are fetched into the cache.
const LOOK_AHEAD: usize = 8;
/// Nodes labelled between two looks at the watch.
const BLOCK_NODES: usize = 1 << 16;

/// What to label.
#[derive(Debug)]
pub struct Labelling<'a> {
    /// Graph, layers and size.
    pub porep: &'a Porep,
    /// Parents of the graph.
    pub parents: &'a Arc<ParentsCache>,
    /// The sector's replica id.
    pub replica_id: ReplicaId,
    /// The SHA-256 kernel.
    pub kernel: Kernel,
}

type Label = [u8; NODE_SIZE];

/// Who knows the parents of nodes.
pub trait Parents {
    /// The parents of `node`.
    fn parents(&self, node: usize) -> [u32; PARENTS];

    /// The file they come from, if they do.
    fn path(&self) -> Option<&Path> {
        None
    }
}

impl Parents for ParentsCache {
    #[inline]
    fn parents(&self, node: usize) -> [u32; PARENTS] {
        Self::parents(self, node)
    }

    fn path(&self) -> Option<&Path> {
        Some(Self::path(self))
    }
}

impl Parents for Graph {
    fn parents(&self, node: usize) -> [u32; PARENTS] {
        Self::parents(self, u32::try_from(node).expect("nodes are below 2^32"))
    }
}

/// Labels the first nodes of `layer`, as many as `current` holds, over the labels of the
/// `previous` layer. Layer 1 has no previous layer, so a part of it can be labelled alone. Of
/// `watch` it only asks whether to stop.
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
    }
    Ok(())
}
