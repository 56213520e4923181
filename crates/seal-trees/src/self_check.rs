//! A check of the written results: some nodes are read back and computed again up to the roots.
//!
//! It costs some hundred hashes and finds what a damaged input, a failing memory or disk, or a
//! fault in a fast path would otherwise show only when the proof is rejected. So it takes the
//! portable kernels, and what it reads comes from the files.

use seal_host::FileError;
use seal_poseidon::Poseidon;
use seal_sha256::Kernel;
use seal_types::Porep;

use crate::forest::Forest;
use crate::inputs::Inputs;
use crate::node_file::{ReadNodes, buffer};
use crate::outputs::Outputs;
use crate::replica::encode_node;
use crate::row_hash::RowHash;
use crate::tree::Layout;
use crate::tree_d::tree_d_layout;
use crate::{Node, TreesError};

/// The files of a sector and how to check them.
pub(crate) struct SelfCheck<'a> {
    pub(crate) inputs: &'a Inputs,
    pub(crate) outputs: &'a Outputs,
    pub(crate) column_hash: &'static Poseidon,
    /// Who has computed.
    pub(crate) device: &'a str,
    pub(crate) tree_c: Forest,
    pub(crate) tree_r_last: Forest,
    tree_d: (RowHash, Layout),
    base_leaves: u64,
}

impl<'a> SelfCheck<'a> {
    pub(crate) fn new(
        porep: &Porep,
        inputs: &'a Inputs,
        outputs: &'a Outputs,
        column_hash: &'static Poseidon,
        device: &'a str,
    ) -> Result<Self, TreesError> {
        Ok(Self {
            inputs,
            outputs,
            column_hash,
            device,
            tree_c: Forest::tree_c(porep)?,
            tree_r_last: Forest::tree_r_last(porep)?,
            tree_d: (RowHash::Sha256(Kernel::portable()), tree_d_layout(porep.nodes())?.1),
            base_leaves: porep.base_tree_leaves(),
        })
    }

    /// Checks all that depends on `node` of the sector.
    pub(crate) fn node(&self, node: u64) -> Result<(), TreesError> {
        self.path(self.tree_d, &self.inputs.tree_d, node)?;
        self.replica(node)?;
        let of = |forest: &Forest| (forest.hash, forest.layout);
        let (tree, leaf) = ((node / self.base_leaves) as usize, node % self.base_leaves);
        self.column(node, &self.outputs.tree_c[tree], leaf)?;
        self.path(of(&self.tree_c), &self.outputs.tree_c[tree], leaf)?;
        self.discarded_rows(node - leaf, &self.outputs.tree_r_last[tree], leaf)?;
        self.path(of(&self.tree_r_last), &self.outputs.tree_r_last[tree], leaf)
    }

    /// The roots in the files must be those the commitments were made of.
    pub(crate) fn roots(&self, comm_c: &Node, comm_r_last: &Node) -> Result<(), TreesError> {
        for (forest, files, wanted) in [
            (&self.tree_c, &self.outputs.tree_c, comm_c),
            (&self.tree_r_last, &self.outputs.tree_r_last, comm_r_last),
        ] {
            let last = forest.layout.file_nodes() - 1;
            let roots =
                files.iter().map(|file| file.node(last)).collect::<Result<Vec<_>, FileError>>()?;
            if forest.root(&roots) != *wanted {
                return Err(self.wrong(&files[0], last));
            }
        }
        Ok(())
    }

    fn replica(&self, node: u64) -> Result<(), TreesError> {
        let data = self.inputs.tree_d.node(node)?;
        let label = self.inputs.last_layer().node(node)?;
        let replica = &self.outputs.replica;
        match encode_node(&data, &label) {
            Ok(encoded) if encoded == replica.node(node)? => Ok(()),
            _ => Err(self.wrong(replica, node)),
        }
    }

    fn column(&self, node: u64, file: &dyn ReadNodes, leaf: u64) -> Result<(), TreesError> {
        let column = self
            .inputs
            .layers
            .iter()
            .map(|layer| layer.node(node))
            .collect::<Result<Vec<_>, FileError>>()?;
        match self.column_hash.hash_nodes(&column) {
            Ok(hash) if hash == file.node(leaf)? => Ok(()),
            _ => Err(self.wrong(file, leaf)),
        }
    }

    /// Computes the first kept row of tree R last above `leaf` from the replica, whose base tree
    /// starts at node `base`.
    fn discarded_rows(&self, base: u64, file: &dyn ReadNodes, leaf: u64) -> Result<(), TreesError> {
        let forest = &self.tree_r_last;
        let below = (forest.hash.arity() as u64).pow(forest.layout.first_row());
        let position = leaf / below;
        let mut nodes = buffer(below as usize);
        self.outputs.replica.read(base + position * below, &mut nodes)?;
        let mut rows = buffer(nodes.len());
        let root = forest.hash.root(&nodes, &mut rows).map_err(|_| self.wrong(file, position))?;
        if root == file.node(position)? { Ok(()) } else { Err(self.wrong(file, position)) }
    }

    /// Checks that every node above `leaf`, from the first row of the file up to the root, is the
    /// hash of its children.
    fn path(
        &self,
        (hash, layout): (RowHash, Layout),
        file: &dyn ReadNodes,
        leaf: u64,
    ) -> Result<(), TreesError> {
        let arity = hash.arity();
        let mut index = leaf / (arity as u64).pow(layout.first_row());
        let mut children = buffer(arity);
        for row in layout.first_row()..layout.root_row() {
            index /= arity as u64;
            file.read(layout.row_start(row) + index * arity as u64, &mut children)?;
            let position = layout.row_start(row + 1) + index;
            match hash.parent(&children) {
                Ok(parent) if parent == file.node(position)? => {}
                _ => return Err(self.wrong(file, position)),
            }
        }
        Ok(())
    }

    fn wrong(&self, file: &dyn ReadNodes, node: u64) -> TreesError {
        let device = self.device.to_owned();
        TreesError::SelfCheck { path: file.path().to_path_buf(), node, device }
    }
}
