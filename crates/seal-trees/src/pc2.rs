//! Pre-commit phase 2: from layers and tree D to replica, tree C, tree R last and `comm_r`.
//!
//! The replica is always computed from the leaf row of tree D, never from the sealed file: that
//! one may hold the data, the replica of an earlier run, or a mixture that other software left
//! when it was interrupted. What it holds is found out by content and only reported.

use std::path::Path;

use seal_poseidon::Poseidon;
use seal_types::{Commitment, NODE_SIZE, Porep};

use crate::column::{BadLabel, hash_columns};
use crate::forest::Forest;
use crate::inputs::{Inputs, samples};
use crate::node_file::{NodeFile, ReadNodes, buffer, write_nodes};
use crate::outputs::Outputs;
use crate::replica::{BadNode, SealedState, encode};
use crate::self_check::SelfCheck;
use crate::tree::TreeBuilder;
use crate::tree_d::tree_d_layout;
use crate::{Node, Part, TreesError, Watch};

/// Where a sector lies.
#[derive(Clone, Copy, Debug)]
pub struct Pc2Paths<'a> {
    /// Directory with layers and tree D; trees C and R last and the auxiliary files go there.
    pub cache_dir: &'a Path,
    /// The sealed file: unsealed data before, replica afterwards.
    pub sealed_file: &'a Path,
}

/// How PC2 works; no setting changes a byte of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Memory for buffers, whatever the sector's size. At least some KiB are always used.
    pub memory_bytes: u64,
    /// Nodes that the self-check recomputes; 0 turns it off.
    pub self_check_samples: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { memory_bytes: 1 << 30, self_check_samples: 40 }
    }
}

impl Settings {
    /// Rows of the largest block: 8 MiB a file. Larger ones gain nothing.
    const MAX_BLOCK_ROWS: u32 = 6;

    /// Nodes that are read and hashed at a time: a whole subtree of every base tree, small enough
    /// for a buffer per layer and for leaves, row above and what is read.
    fn block_nodes(&self, porep: &Porep) -> usize {
        let arity = u64::from(porep.shape.base);
        let buffers = u64::from(porep.layers) + 4;
        let fitting = self.memory_bytes / (buffers * NODE_SIZE as u64);
        let rows = fitting.max(1).ilog(arity).min(Self::MAX_BLOCK_ROWS);
        arity.pow(rows.min(porep.base_tree_leaves().ilog(arity))) as usize
    }
}

/// What PC2 found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pc2Result {
    /// Root of tree C.
    pub comm_c: Commitment,
    /// Root of tree R last.
    pub comm_r_last: Commitment,
    /// The hash of both: the sector's commitment.
    pub comm_r: Commitment,
    /// What the sealed file held before.
    pub sealed_state: SealedState,
}

/// Runs PC2. On an error, no result has been replaced by something incomplete: the sealed file is
/// as it was, and PC2 can be run again.
pub fn pre_commit2(
    porep: &Porep,
    paths: &Pc2Paths<'_>,
    comm_d: Commitment,
    settings: &Settings,
    watch: &Watch<'_>,
) -> Result<Pc2Result, TreesError> {
    let layers = porep.layers;
    let column_hash = match layers {
        2 | 11 => Poseidon::of_arity(layers),
        _ => None,
    }
    .ok_or(TreesError::Layers { layers })?;
    let tree_r_last = Forest::tree_r_last(porep)?;
    let tree_c = Forest::tree_c(porep)?;

    let inputs = Inputs::open(porep, paths, comm_d)?;
    report(inputs.sealed_state, paths.sealed_file);
    let outputs = Outputs::start(porep, paths.cache_dir, &inputs.sealed_path)?;

    let work = Work { porep, inputs: &inputs, block_nodes: settings.block_nodes(porep), watch };
    let comm_r_last = work.replica(&tree_r_last, &outputs, comm_d)?;
    let comm_c = work.tree_c(&tree_c, &outputs, column_hash)?;
    let comm_r = Poseidon::arity2()
        .hash_nodes(&[comm_c, comm_r_last])
        .map(Commitment)
        .expect("roots are hashes");

    let check = SelfCheck::new(porep, &inputs, &outputs, column_hash)?;
    let count = settings.self_check_samples;
    if count > 0 {
        watch.at(Part::SelfCheck, 0, count)?;
        check.roots(&comm_c, &comm_r_last)?;
    }
    for (done, node) in (1..).zip(samples(comm_r, count, porep.nodes())) {
        check.node(node)?;
        watch.at(Part::SelfCheck, done, count)?;
    }

    let (comm_c, comm_r_last) = (Commitment(comm_c), Commitment(comm_r_last));
    outputs.publish(&comm_c, &comm_r_last)?;
    Ok(Pc2Result { comm_c, comm_r_last, comm_r, sealed_state: inputs.sealed_state })
}

fn report(state: SealedState, sealed_file: &Path) {
    let file = sealed_file.display();
    match state {
        SealedState::Unsealed => tracing::info!(%file, "the sealed file holds the data"),
        SealedState::Replica => {
            tracing::info!(%file, "the sealed file is the replica already: PC2 runs again");
        }
        SealedState::Mixed => tracing::warn!(
            %file,
            "the sealed file is partly encoded: a PC2 that works in place was interrupted; it is \
             restored from tree D"
        ),
        SealedState::Other => tracing::warn!(
            %file,
            "the sealed file holds neither the data nor the replica; it is restored from tree D"
        ),
    }
}

struct Work<'a> {
    porep: &'a Porep,
    inputs: &'a Inputs,
    block_nodes: usize,
    watch: &'a Watch<'a>,
}

impl Work<'_> {
    /// Encodes the replica, builds tree R last over it and tree D anew over the data, whose root
    /// must be `comm_d`. Returns `comm_r_last`.
    fn replica(
        &self,
        forest: &Forest,
        outputs: &Outputs,
        comm_d: Commitment,
    ) -> Result<Node, TreesError> {
        let (tree_d, labels) = (&self.inputs.tree_d, self.inputs.last_layer());
        let (data_hash, data_layout) = tree_d_layout(self.porep.nodes())?;
        let mut data_tree = TreeBuilder::new(data_hash, data_layout, None, self.block_nodes);
        let mut data_block = buffer(self.block_nodes);
        let mut label_block = buffer(self.block_nodes);
        let roots = self.base_trees(forest, Part::Replica, &outputs.tree_r_last, |first| {
            tree_d.read(first, &mut data_block)?;
            labels.read(first, &mut label_block)?;
            data_tree.push(&data_block)?;
            let replica = encode(&data_block, &label_block).map_err(|bad| match bad {
                BadNode::Data(index) => not_canonical(tree_d, first, index),
                BadNode::Label(index) => not_canonical(labels, first, index),
            })?;
            write_nodes(&outputs.replica, first, &replica)?;
            Ok(replica)
        })?;
        let found = Commitment(data_tree.finish()?);
        if found != comm_d {
            let path = tree_d.path().to_path_buf();
            return Err(TreesError::Data { path, found, wanted: comm_d });
        }
        Ok(forest.root(&roots))
    }

    /// Hashes the columns and builds tree C over them. Returns `comm_c`.
    fn tree_c(
        &self,
        forest: &Forest,
        outputs: &Outputs,
        column_hash: &'static Poseidon,
    ) -> Result<Node, TreesError> {
        let layers = &self.inputs.layers;
        let mut blocks: Vec<Vec<Node>> = layers.iter().map(|_| buffer(self.block_nodes)).collect();
        let roots = self.base_trees(forest, Part::TreeC, &outputs.tree_c, |first| {
            for (layer, block) in layers.iter().zip(&mut blocks) {
                layer.read(first, block)?;
            }
            hash_columns(column_hash, &blocks)
                .map_err(|BadLabel { layer, node }| not_canonical(&layers[layer], first, node))
        })?;
        Ok(forest.root(&roots))
    }

    /// Builds the base trees over the blocks of leaves that `leaves` returns, given the first node
    /// of each. Returns their roots.
    fn base_trees(
        &self,
        forest: &Forest,
        part: Part,
        files: &[seal_host::PartFile],
        mut leaves: impl FnMut(u64) -> Result<Vec<Node>, TreesError>,
    ) -> Result<Vec<Node>, TreesError> {
        let (nodes, tree_leaves) = (self.porep.nodes(), self.porep.base_tree_leaves());
        let mut roots = Vec::with_capacity(files.len());
        self.watch.at(part, 0, nodes)?;
        for (tree, file) in (0..).zip(files) {
            let mut builder =
                TreeBuilder::new(forest.hash, forest.layout, Some(file), self.block_nodes);
            let first = tree * tree_leaves;
            for block in (first..first + tree_leaves).step_by(self.block_nodes) {
                builder.push(&leaves(block)?)?;
                self.watch.at(part, block + self.block_nodes as u64, nodes)?;
            }
            roots.push(builder.finish()?);
        }
        Ok(roots)
    }
}

fn not_canonical(file: &NodeFile, first: u64, index: usize) -> TreesError {
    TreesError::NotCanonical { path: file.path().to_path_buf(), node: first + index as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seal_types::RegisteredProof;

    #[test]
    fn blocks_are_subtrees_that_fit_into_memory() {
        let block = |proof: &str, memory_bytes| {
            let porep = proof.parse::<RegisteredProof>().expect("a proof").porep();
            Settings { memory_bytes, ..Settings::default() }.block_nodes(&porep)
        };
        assert_eq!(block("StackedDrg32GiBV1_1", 1 << 30), 1 << 18);
        assert_eq!(block("StackedDrg64GiBV1_1", 100 << 20), 1 << 15);
        assert_eq!(block("StackedDrg2KiBV1_1", 1 << 30), 64);
        assert_eq!(block("StackedDrg2KiBV1_1", 0), 1);
    }
}
