//! Reads a sector's inputs once to find out whether they are what PC1 left, without making
//! anything of them.
//!
//! A usual run does this on the way. It is done ahead only where results of a former run have to
//! go before new ones can be made.

use std::sync::atomic::{AtomicU64, Ordering};

use seal_host::{FileError, start_scoped};
use seal_sha256::Kernel;
use seal_types::{Commitment, NODE_SIZE};

use crate::digests::LayerDigests;
use crate::node_file::{NodeFile, ReadNodes, buffer};
use crate::pc2::check_layers;
use crate::top::TreeTop;
use crate::tree_d::tree_d_layout;
use crate::{Node, Part, TreesError, Watch};

/// Nodes read at a time: 1 MiB.
const BLOCK_NODES: u64 = 1 << 15;

/// Compares the layers with the digests that PC1 recorded, and the leaves of tree D with the
/// sector's commitment. Two layers are read by each thread.
pub(crate) fn verify(
    layers: &[NodeFile],
    recorded: &[String],
    tree_d: &NodeFile,
    (nodes, comm_d): (u64, Commitment),
    watch: &Watch<'_>,
) -> Result<(), TreesError> {
    let total = (layers.len() as u64 + 1) * nodes * NODE_SIZE as u64;
    let done = AtomicU64::new(0);
    let at = |files: usize, block: u64| {
        let bytes = files as u64 * block * NODE_SIZE as u64;
        watch.at(Part::Inputs, done.fetch_add(bytes, Ordering::Relaxed) + bytes, total)
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let of_data = || verify_tree_d(tree_d, nodes, comm_d, &at);
        // Those for which no thread can be had are for this one.
        let data = start_scoped(scope, "verify", of_data).map_err(|_| of_data);
        let at = &at;
        let of_layers: Vec<_> = layers
            .chunks(2)
            .zip(recorded.chunks(2))
            .map(|(layers, recorded)| {
                let work = move || verify_layers(layers, recorded, nodes, at);
                start_scoped(scope, "verify", work).map_err(|_| work)
            })
            .collect();
        let mut results: Vec<_> = of_layers
            .into_iter()
            .map(|started| started.map_or_else(|work| Ok(work()), |thread| thread.join()))
            .collect();
        results.push(data.map_or_else(|work| Ok(work()), |thread| thread.join()));
        results
    });
    for result in results {
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    }
    Ok(())
}

/// Called after a block, with the number of files and nodes of them.
type At<'a> = &'a (dyn Fn(usize, u64) -> Result<(), TreesError> + Sync);

fn verify_layers(
    layers: &[NodeFile],
    recorded: &[String],
    nodes: u64,
    at: At<'_>,
) -> Result<(), TreesError> {
    let digests = LayerDigests::new(Kernel::detect(), layers.len());
    let block = nodes.min(BLOCK_NODES);
    let mut labels = vec![buffer(block as usize); layers.len()];
    for number in 0..nodes / block {
        for (layer, labels) in layers.iter().zip(&mut labels) {
            layer.read_block(number * block, labels)?;
        }
        let labels: Vec<&[Node]> = labels.iter().map(Vec::as_slice).collect();
        digests.add(number, &labels, &|| false);
        at(layers.len(), block)?;
    }
    check_layers(layers, digests, recorded)
}

fn verify_tree_d(
    tree_d: &NodeFile,
    nodes: u64,
    comm_d: Commitment,
    at: At<'_>,
) -> Result<(), TreesError> {
    let (hash, layout) = tree_d_layout(nodes)?;
    let block = nodes.min(BLOCK_NODES);
    let (mut leaves, mut rows) = (buffer(block as usize), buffer(block as usize));
    let mut top = TreeTop::new(hash, layout, block as usize);
    for number in 0..nodes / block {
        tree_d.read_block(number * block, &mut leaves)?;
        let bad = |index: usize| TreesError::NotCanonical {
            path: tree_d.path().to_path_buf(),
            node: number * block + index as u64,
        };
        let root = hash.root(&leaves, &mut rows).map_err(|error| bad(error.index))?;
        let write = &|_, _: &[Node]| Ok::<(), FileError>(());
        top.push(root, write).map_err(|error| TreesError::of_top(error, tree_d.path()))?;
        at(1, block)?;
    }
    let found = Commitment(top.take_root());
    if found != comm_d {
        let path = tree_d.path().to_path_buf();
        return Err(TreesError::Data { path, found, wanted: comm_d });
    }
    Ok(())
}
