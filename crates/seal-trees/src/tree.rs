//! Merkle trees over a stream of leaves, in the store format of `rust-fil-proofs`: all rows from
//! the leaves (or from the first row that is kept) up to the root, one after the other.

use seal_host::{DirectPart, FileError};

use crate::node_file::{write_block, write_nodes};
use crate::row_hash::RowHash;
use crate::top::TopError;
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

/// What becomes of the rows of a tree: they are written, or compared with a file.
pub(crate) trait Rows: Sync + std::fmt::Debug {
    /// Takes nodes of a row of a block, which begin at node `first` of the file.
    fn block(&self, first: u64, nodes: &[Node]) -> Result<(), FileError>;

    /// Takes nodes of the rows above the blocks.
    fn top(&self, first: u64, nodes: &[Node]) -> Result<(), FileError>;
}

impl Rows for DirectPart {
    fn block(&self, first: u64, nodes: &[Node]) -> Result<(), FileError> {
        write_block(self, first, nodes)
    }

    fn top(&self, first: u64, nodes: &[Node]) -> Result<(), FileError> {
        write_nodes(self.part(), first, nodes)
    }
}

/// The file of a tree that is hashed block by block, in any order and by several threads. A block
/// is a whole subtree, so all its rows are there at once and only its root is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TreeFile<'a> {
    pub(crate) hash: RowHash,
    pub(crate) layout: Layout,
    pub(crate) rows: &'a dyn Rows,
}

impl TreeFile<'_> {
    /// Hashes block `number` of the tree and hands its rows on, all blocks having as many leaves. `rows` is
    /// room for as many nodes. Returns the root of the block.
    ///
    /// # Panics
    /// When the leaves are no whole subtree.
    pub(crate) fn block(
        &self,
        number: u64,
        leaves: &[Node],
        rows: &mut [Node],
    ) -> Result<Node, TopError> {
        let (mut children, mut rest, mut row) = (leaves, rows, 0);
        loop {
            if row >= self.layout.first_row {
                let first = self.layout.row_start(row) + number * children.len() as u64;
                self.rows.block(first, children)?;
            }
            if children.len() == 1 {
                return Ok(children[0]);
            }
            let (parents, others) = rest.split_at_mut(children.len() / self.hash.arity());
            self.hash.row_into(children, parents)?;
            (children, rest, row) = (parents, others, row + 1);
        }
    }

    /// Hands nodes of the rows above the blocks on.
    pub(crate) fn top(&self, first: u64, nodes: &[Node]) -> Result<(), FileError> {
        self.rows.top(first, nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node_file::buffer;
    use crate::top::TreeTop;
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
        let layout =
            Layout::new(hash.arity(), leaves.len() as u64, first_row).expect("a full tree");
        let part = DirectPart::create(&target, 32 * layout.file_nodes()).expect("writable");
        let block_nodes = hash.arity().pow(block_rows);
        let file = TreeFile { hash, layout, rows: &part };
        let mut top = TreeTop::new(hash, layout, block_nodes);
        let mut rows = buffer(block_nodes);
        for (number, block) in (0..).zip(leaves.chunks(block_nodes)) {
            let root = file.block(number, block, &mut rows).expect("writable");
            top.push(root, &|first, nodes| file.top(first, nodes)).expect("writable");
        }
        let root = top.take_root();
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
