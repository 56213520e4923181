//! The rows of a tree above its blocks, built as the blocks complete.
//!
//! Of every row only the children of the next parent are held, so memory grows with the height of
//! the tree and not with its leaves.

use seal_host::FileError;
use seal_poseidon::NotCanonical;

use crate::Node;
use crate::row_hash::RowHash;
use crate::tree::Layout;

/// Takes nodes of a row away.
pub(crate) type Write<'a> = &'a dyn Fn(u64, &[Node]) -> Result<(), FileError>;

/// A tree whose blocks come one after the other, each as its root.
#[derive(Debug)]
pub(crate) struct TreeTop {
    hash: RowHash,
    layout: Layout,
    /// The row that the roots of blocks are in; the first of `rows`.
    block_row: u32,
    rows: Vec<Row>,
}

#[derive(Clone, Debug, Default)]
struct Row {
    /// Nodes that have their parent already.
    done: u64,
    /// The others.
    nodes: Vec<Node>,
}

/// Why a node could not be added.
#[derive(Debug)]
pub(crate) enum TopError {
    File(FileError),
    /// A root of a block is no element of the field.
    NotCanonical(NotCanonical),
}

impl From<FileError> for TopError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<NotCanonical> for TopError {
    fn from(error: NotCanonical) -> Self {
        Self::NotCanonical(error)
    }
}

impl TreeTop {
    /// A tree of blocks of `block_nodes` leaves.
    ///
    /// # Panics
    /// When `block_nodes` is not a power of the arity or exceeds the leaves.
    pub(crate) fn new(hash: RowHash, layout: Layout, block_nodes: usize) -> Self {
        let block_row = block_nodes.ilog(hash.arity());
        assert!(
            hash.arity().pow(block_row) == block_nodes && block_row <= layout.root_row(),
            "{block_nodes} nodes are no subtree"
        );
        let rows = vec![Row::default(); (layout.root_row() - block_row + 1) as usize];
        Self { hash, layout, block_row, rows }
    }

    /// Appends the root of a block. Nodes of rows above the blocks that are kept in files go to
    /// `write`, with their place in the file.
    ///
    /// # Panics
    /// When the tree has no place for it.
    pub(crate) fn push(&mut self, root: Node, write: Write<'_>) -> Result<(), TopError> {
        let mut node = root;
        for (number, row) in (self.block_row..).zip(&mut self.rows) {
            let place = row.done + row.nodes.len() as u64;
            assert!(place < self.layout.row_nodes(number), "row {number} is complete");
            row.nodes.push(node);
            if number > self.block_row && number >= self.layout.first_row() {
                write(self.layout.row_start(number) + place, &[node])?;
            }
            if row.nodes.len() < self.hash.arity() {
                return Ok(());
            }
            node = self.hash.parent(&row.nodes)?;
            row.done += row.nodes.len() as u64;
            row.nodes.clear();
        }
        unreachable!("the root has no neighbours")
    }

    /// The root of the tree, and all empty again for the next tree.
    ///
    /// # Panics
    /// When blocks are missing.
    pub(crate) fn take_root(&mut self) -> Node {
        let root = self.rows.last_mut().and_then(|row| row.nodes.pop());
        self.rows.iter_mut().for_each(|row| row.done = 0);
        root.expect("every block has been pushed")
    }
}
