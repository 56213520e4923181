//! Merkle trees over a stream of leaves, in the store format of `rust-fil-proofs`: all rows from
//! the leaves (or from the first row that is kept) up to the root, one after the other.

use seal_host::{FileError, PartFile};

use crate::node_file::write_nodes;
use crate::row_hash::RowHash;
use crate::top::{TopError, TreeTop};
use crate::{Node, TreesError};

/// Which rows a tree has and where they lie in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    arity: u64,
    leaves: u64,
    /// The first row in the file; 0 is the leaves.
    first_row: u32,
}

impl Layout {
    /// A tree whose file starts with row `first_row`.
    pub(crate) fn new(arity: usize, leaves: u64, first_row: u32) -> Result<Self, TreesError> {
        let layout = Self { arity: arity as u64, leaves, first_row };
        let root_row = leaves.checked_ilog(layout.arity);
        if root_row.is_none_or(|row| row < first_row || layout.arity.pow(row) != leaves) {
            return Err(TreesError::Shape { leaves, arity: arity as u32 });
        }
        Ok(layout)
    }

    /// The row that is the root.
    pub(crate) fn root_row(&self) -> u32 {
        self.leaves.ilog(self.arity)
    }

    /// The first row in the file.
    pub(crate) fn first_row(&self) -> u32 {
        self.first_row
    }

    /// How many nodes `row` has.
    pub(crate) fn row_nodes(&self, row: u32) -> u64 {
        self.leaves / self.arity.pow(row)
    }

    /// Where `row` starts in the file, in nodes.
    ///
    /// # Panics
    /// When the file does not have that row.
    pub(crate) fn row_start(&self, row: u32) -> u64 {
        assert!(self.first_row <= row && row <= self.root_row(), "row {row} is not in the file");
        (self.first_row..row).map(|below| self.row_nodes(below)).sum()
    }

    /// How many nodes the file has.
    pub(crate) fn file_nodes(&self) -> u64 {
        self.row_start(self.root_row()) + 1
    }
}

/// Builds a tree file block by block, each block on all threads. A block is a whole subtree, so
/// all its rows are written at once and only its root is kept.
pub(crate) struct TreeBuilder<'a> {
    hash: RowHash,
    layout: Layout,
    file: &'a PartFile,
    block_nodes: usize,
    blocks: u64,
    top: TreeTop,
}

impl<'a> TreeBuilder<'a> {
    /// # Panics
    /// When `block_nodes` is not a power of the arity or exceeds the leaves.
    pub(crate) fn new(
        hash: RowHash,
        layout: Layout,
        file: &'a PartFile,
        block_nodes: usize,
    ) -> Self {
        let top = TreeTop::new(hash, layout, block_nodes);
        Self { hash, layout, file, block_nodes, blocks: 0, top }
    }

    /// Appends a block of leaves.
    ///
    /// # Panics
    /// When there are not exactly as many as a block has.
    pub(crate) fn push(&mut self, leaves: &[Node]) -> Result<(), TopError> {
        assert_eq!(leaves.len(), self.block_nodes, "leaves come in whole blocks");
        let rows = self.block_nodes.ilog(self.hash.arity());
        self.write(0, leaves)?;
        let mut below: Option<Vec<Node>> = None;
        for row in 1..=rows {
            let parents = self.hash.row(below.as_deref().unwrap_or(leaves))?;
            self.write(row, &parents)?;
            below = Some(parents);
        }
        self.blocks += 1;
        let root = below.as_deref().unwrap_or(leaves)[0];
        self.top.push(root, &|first, nodes| write_nodes(self.file, first, nodes))
    }

    /// The root.
    ///
    /// # Panics
    /// When leaves are missing.
    pub(crate) fn finish(mut self) -> Node {
        self.top.take_root()
    }

    fn write(&self, row: u32, nodes: &[Node]) -> Result<(), FileError> {
        if row < self.layout.first_row {
            return Ok(());
        }
        let first = self.layout.row_start(row) + self.blocks * nodes.len() as u64;
        write_nodes(self.file, first, nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use seal_poseidon::Poseidon;
    use seal_sha256::Kernel;

    fn leaves(count: u64) -> Vec<Node> {
        (0..count).map(|i| std::array::from_fn(|b| ((i * 31 + b as u64) % 61) as u8)).collect()
    }

    /// The file by the letter: row after row, kept ones concatenated.
    fn plain_file(hash: RowHash, leaves: &[Node], first_row: u32) -> Vec<u8> {
        let mut file = Vec::new();
        let mut nodes = leaves.to_vec();
        for row in 0.. {
            if row >= first_row {
                file.extend_from_slice(nodes.as_flattened());
            }
            if nodes.len() == 1 {
                return file;
            }
            nodes = nodes
                .chunks(hash.arity())
                .map(|children| hash.parent(children).expect("canonical"))
                .collect();
        }
        unreachable!("rows end in a root");
    }

    fn streamed_equals_plain(hash: RowHash, rows: u32, first_row: u32, block_rows: u32) {
        let leaves = leaves((hash.arity() as u64).pow(rows));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("tree");
        let part = PartFile::create(&target).expect("writable");
        let layout =
            Layout::new(hash.arity(), leaves.len() as u64, first_row).expect("a full tree");
        let block_nodes = hash.arity().pow(block_rows);
        let mut builder = TreeBuilder::new(hash, layout, &part, block_nodes);
        for block in leaves.chunks(block_nodes) {
            builder.push(block).expect("writable");
        }
        let root = builder.finish();
        part.finish().expect("writable");
        let file = std::fs::read(&target).expect("readable");
        assert_eq!(file, plain_file(hash, &leaves, first_row));
        assert_eq!(file.len() as u64, 32 * layout.file_nodes());
        assert_eq!(file[file.len() - 32..], root);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn blocks_of_any_size_give_the_same_binary_tree(
            rows in 0..9_u32, first_row in 0..9_u32, block_rows in 0..9_u32,
        ) {
            let hash = RowHash::Sha256(Kernel::detect());
            streamed_equals_plain(hash, rows, first_row.min(rows), block_rows.min(rows));
        }

        #[test]
        fn blocks_of_any_size_give_the_same_octree(
            rows in 0..4_u32, first_row in 0..4_u32, block_rows in 0..4_u32,
        ) {
            let hash = RowHash::Poseidon(Poseidon::arity8());
            streamed_equals_plain(hash, rows, first_row.min(rows), block_rows.min(rows));
        }
    }

    #[test]
    fn refuses_leaves_that_do_not_end_in_one_root() {
        for (arity, leaves, first_row) in [(8, 63, 0), (8, 0, 0), (2, 3, 0), (8, 64, 3)] {
            let layout = Layout::new(arity, leaves, first_row);
            assert!(matches!(layout, Err(TreesError::Shape { .. })), "{layout:?}");
        }
    }

    #[test]
    fn file_sizes_of_production_trees_are_the_known_ones() {
        // A 32 GiB sector has 8 base trees of 2^27 leaves.
        let tree_c = Layout::new(8, 1 << 27, 0).expect("a full tree");
        assert_eq!(32 * tree_c.file_nodes(), 4_908_534_048);
        let tree_r_last = Layout::new(8, 1 << 27, 3).expect("a full tree");
        assert_eq!(32 * tree_r_last.file_nodes(), 9_586_976);
    }
}
