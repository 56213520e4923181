//! A tree D that somebody else has left, compared with the data that it is to be of.
//!
//! Its root says which data it is of, and nothing of the rows below: one flipped bit there is a
//! replica of wrong data, or a proof that nobody accepts, and is found hours later.

use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use seal_host::{FileError, Region};
use seal_types::{Commitment, NODE_SIZE};

use crate::node_file::{NodeFile, ReadNodes, buffer};
use crate::tree::{Rows, TreeFile};
use crate::tree_d::{hash_blocks, open_tree_d, read_or_zero, tree_d_layout, zero_rows};
use crate::{Node, Part, TreesError, Watch, zero_commitment};

/// Rows of fewer nodes are read through the page cache: many of them share a page.
const LONG_ROW: usize = 4096 / NODE_SIZE;

/// What came of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeDCompared {
    /// Every node is that of the data.
    Same,
    /// This node of the file is not, and perhaps others.
    Differs {
        /// Which one, counted from the first leaf.
        node: u64,
    },
}

/// Compares all nodes of the tree D at `path` with those over the `nodes` nodes of `data`, which
/// `data_path` names in messages. Data that ends early counts as zeros. Length and root are checked
/// first; nothing is written. Costs what building the tree costs, but that it is read.
pub fn compare_tree_d(
    path: &Path,
    nodes: u64,
    data: &mut dyn Read,
    data_path: &Path,
    comm_d: Commitment,
    watch: &Watch<'_>,
) -> Result<TreeDCompared, TreesError> {
    let there = There::open(path, nodes, comm_d)?;
    let (hash, layout) = tree_d_layout(nodes)?;
    let read = |leaves: &mut [Node]| {
        read_or_zero(data, leaves.as_flattened_mut()).map_err(FileError::of("read", data_path))
    };
    // Nobody needs the rest once it is known that there is a difference.
    let cancelled = || (watch.cancelled)() || there.compared() != TreeDCompared::Same;
    let until_differs = Watch { progress: watch.progress, cancelled: &cancelled };
    let file = TreeFile { hash, layout, rows: &there };
    let fault = |error| TreesError::of_top(error, data_path);
    match hash_blocks(&file, nodes, read, fault, &until_differs) {
        Err(TreesError::Cancelled) if !(watch.cancelled)() => {}
        hashed => drop(hashed?),
    }
    Ok(there.compared())
}

/// As [`compare_tree_d`] with data that is all zero.
pub fn compare_zero_tree_d(
    path: &Path,
    nodes: u64,
    watch: &Watch<'_>,
) -> Result<TreeDCompared, TreesError> {
    let there = There::open(path, nodes, zero_commitment(nodes * NODE_SIZE as u64))?;
    let (_, layout) = tree_d_layout(nodes)?;
    let mut done = 0;
    let compared = zero_rows(layout, 0, |first, block| {
        there.block(first, block)?;
        done += block.len() as u64;
        if there.compared() != TreeDCompared::Same {
            return Err(TreesError::Cancelled);
        }
        watch.at(Part::TreeD, done.min(nodes), nodes)
    });
    match compared {
        Err(TreesError::Cancelled) if there.compared() != TreeDCompared::Same => {}
        compared => compared?,
    }
    Ok(there.compared())
}

/// The file, and what is known of it.
#[derive(Debug)]
struct There {
    file: NodeFile,
    /// The first node that was found to differ; `u64::MAX` if none was.
    differs: AtomicU64,
    /// Memory that blocks are read into, aligned so that they pass the page cache by.
    spare: Mutex<Vec<Region>>,
}

impl There {
    fn open(path: &Path, nodes: u64, comm_d: Commitment) -> Result<Self, TreesError> {
        let file = open_tree_d(path, nodes, comm_d)?;
        Ok(Self { file, differs: AtomicU64::new(u64::MAX), spare: Mutex::default() })
    }

    fn compared(&self) -> TreeDCompared {
        match self.differs.load(Ordering::Relaxed) {
            u64::MAX => TreeDCompared::Same,
            node => TreeDCompared::Differs { node },
        }
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Vec<Region>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, first: u64, found: &[Node], wanted: &[Node]) {
        if found != wanted
            && let Some(at) = (0..wanted.len()).find(|at| found[*at] != wanted[*at])
        {
            self.differs.fetch_min(first + at as u64, Ordering::Relaxed);
        }
    }
}

impl Rows for There {
    fn block(&self, first: u64, nodes: &[Node]) -> Result<(), FileError> {
        if nodes.len() < LONG_ROW {
            let mut found = buffer(nodes.len());
            self.file.read(first, &mut found)?;
            self.judge(first, &found, nodes);
            return Ok(());
        }
        let bytes = nodes.len() * NODE_SIZE;
        let spare = self.spare().pop();
        let mut memory = match spare.filter(|memory| memory.bytes().len() >= bytes) {
            Some(memory) => memory,
            None => Region::anonymous(bytes)
                .map_err(FileError::of("have memory to read", self.file.path()))?,
        };
        let found = &mut memory.bytes_mut().as_chunks_mut().0[..nodes.len()];
        self.file.read_block(first, found)?;
        self.judge(first, found, nodes);
        self.spare().push(memory);
        Ok(())
    }

    fn top(&self, first: u64, nodes: &[Node]) -> Result<(), FileError> {
        self.block(first, nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ZeroLeaves, build_tree_d, build_zero_tree_d};
    use std::fs;
    use std::io;

    const QUIET: Watch<'static> = Watch { progress: &|_, _, _| {}, cancelled: &|| false };

    /// A tree of several blocks, and its root.
    fn built(path: &Path, nodes: u64, data: &[u8]) -> Commitment {
        let name = Path::new("data");
        let build = |comm_d| build_tree_d(path, nodes, &mut &data[..], name, comm_d, &QUIET);
        let Err(TreesError::Data { found, .. }) = build(Commitment([1; 32])) else {
            panic!("no data has that root")
        };
        build(found).expect("its own root");
        found
    }

    #[test]
    fn a_wrong_byte_in_any_row_of_a_tree_d_with_the_right_root_is_found() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("tree");
        let nodes = 1_u64 << 17;
        let data: Vec<u8> = (0..nodes * 32).map(|at| (at % 251) as u8).collect();
        let comm_d = built(&path, nodes, &data);
        let compare = |data: &[u8]| {
            let name = Path::new("data");
            compare_tree_d(&path, nodes, &mut &data[..], name, comm_d, &QUIET).expect("readable")
        };
        assert_eq!(compare(&data), TreeDCompared::Same);
        let good = fs::read(&path).expect("readable");
        // Leaves of several blocks, rows within them, the row above, but never the root.
        for node in [0, 3, nodes - 1, nodes, nodes + 77, 2 * nodes - 17, 2 * nodes - 3] {
            let mut bad = good.clone();
            bad[node as usize * 32 + 5] ^= 4;
            fs::write(&path, bad).expect("writable");
            assert_eq!(compare(&data), TreeDCompared::Differs { node }, "node {node}");
        }
        fs::write(&path, good).expect("writable");
        // The other way round: the tree is good, and the data is not what it was made of.
        let mut other = data.clone();
        other[32 * 40_000] ^= 1;
        assert_eq!(compare(&other), TreeDCompared::Differs { node: 40_000 });
        assert!(matches!(compare(&data[..1 << 20]), TreeDCompared::Differs { .. }));
    }

    #[test]
    fn a_wrong_byte_in_a_tree_d_of_zeros_is_found_wherever_it_is() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("tree");
        let nodes = 1_u64 << 16;
        for leaves in [ZeroLeaves::Hole, ZeroLeaves::Written] {
            build_zero_tree_d(&path, nodes, leaves, &QUIET).expect("writable");
            let compare = || compare_zero_tree_d(&path, nodes, &QUIET).expect("readable");
            assert_eq!(compare(), TreeDCompared::Same);
            let good = fs::read(&path).expect("readable");
            for node in [0, 50_000, nodes, 2 * nodes - 3] {
                let mut bad = good.clone();
                bad[node as usize * 32] ^= 1;
                fs::write(&path, bad).expect("writable");
                assert_eq!(compare(), TreeDCompared::Differs { node }, "node {node}");
            }
        }
    }

    #[test]
    fn a_comparison_that_is_cancelled_is_no_difference() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("tree");
        let comm_d = build_zero_tree_d(&path, 64, ZeroLeaves::Written, &QUIET).expect("writable");
        let watch = Watch { cancelled: &|| true, ..QUIET };
        let name = Path::new("data");
        let compared = compare_tree_d(&path, 64, &mut io::empty(), name, comm_d, &watch);
        assert!(matches!(compared, Err(TreesError::Cancelled)), "{compared:?}");
        let compared = compare_zero_tree_d(&path, 64, &watch);
        assert!(matches!(compared, Err(TreesError::Cancelled)), "{compared:?}");
    }
}
