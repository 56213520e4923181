//! Tree D: the binary SHA-256 tree over a sector's data. Its leaf row is the data itself.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

use crossbeam_channel::unbounded;
use seal_host::{DirectPart, FileError, PartFile, start_scoped};
use seal_sha256::Kernel;
use seal_types::{Commitment, NODE_SIZE};

use crate::backend::plain_memory;
use crate::inputs::or_missing;
use crate::node_file::{NodeFile, ReadNodes, write_nodes};
use crate::row_hash::RowHash;
use crate::top::{TopError, TreeTop};
use crate::tree::{Layout, TreeFile};
use crate::{Node, Part, TreesError, Watch, zero_commitment};

/// Leaves that are read and hashed at a time: 1 MiB.
const BLOCK_NODES: u64 = 1 << 15;

/// More threads than these hash faster than disks write.
const MOST_WORKERS: usize = 8;

/// How the leaf row of an all-zero tree D is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroLeaves {
    /// As bytes.
    Written,
    /// As a hole: reads as zeros and takes no space.
    Hole,
}

/// Hash and layout of a tree D over `nodes` nodes.
pub(crate) fn tree_d_layout(nodes: u64) -> Result<(RowHash, Layout), TreesError> {
    let hash = RowHash::Sha256(Kernel::detect());
    Ok((hash, Layout::new(hash.arity(), nodes, 0)?))
}

/// Builds tree D over the `nodes` nodes of `data`, which `data_path` names in messages. Data that
/// ends early counts as zeros.
///
/// The calling thread reads, one thread for each cpu hashes and writes. The file appears only if
/// its root is `comm_d`.
pub fn build_tree_d(
    target: &Path,
    nodes: u64,
    data: &mut dyn Read,
    data_path: &Path,
    comm_d: Commitment,
    watch: &Watch<'_>,
) -> Result<(), TreesError> {
    let (hash, layout) = tree_d_layout(nodes)?;
    let part = DirectPart::create(target, layout.file_nodes() * NODE_SIZE as u64)?;
    let read = |leaves: &mut [Node]| {
        read_or_zero(data, leaves.as_flattened_mut()).map_err(FileError::of("read", data_path))
    };
    let fault = |error| TreesError::of_top(error, data_path);
    let file = TreeFile { hash, layout, rows: &part };
    let found = Commitment(hash_blocks(&file, nodes, read, fault, watch)?);
    if found != comm_d {
        return Err(TreesError::Data { path: data_path.to_path_buf(), found, wanted: comm_d });
    }
    Ok(part.finish()?)
}

/// Hashes the tree over the blocks that `read` reads one after the other, and hands its rows to
/// `file`. Returns its root.
pub(crate) fn hash_blocks(
    file: &TreeFile<'_>,
    nodes: u64,
    mut read: impl FnMut(&mut [Node]) -> Result<(), FileError>,
    fault: impl Fn(TopError) -> TreesError,
    watch: &Watch<'_>,
) -> Result<Node, TreesError> {
    let block_nodes = nodes.min(BLOCK_NODES) as usize;
    let blocks = nodes / block_nodes as u64;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = usize::try_from(blocks).unwrap_or(usize::MAX).min(cpus.min(MOST_WORKERS));
    // A block is its leaves and room for the rows above.
    let mut memory = plain_memory((workers + 2) * 2 * block_nodes * NODE_SIZE)?;
    let mut free: Vec<_> =
        memory.bytes_mut().as_chunks_mut().0.chunks_exact_mut(2 * block_nodes).collect();
    let (give, take) = unbounded::<(u64, &mut [Node])>();
    let (tell, done) = unbounded();
    let mut join = Join {
        file,
        top: TreeTop::new(file.hash, file.layout, block_nodes),
        early: BTreeMap::new(),
        next: 0,
    };
    std::thread::scope(|scope| {
        for started in 0..workers {
            let (take, tell) = (take.clone(), tell.clone());
            let worker = start_scoped(scope, "tree D", move || {
                for (number, block) in take {
                    let (leaves, rows) = block.split_at_mut(block_nodes);
                    let root = file.block(number, leaves, rows);
                    // Nobody listens after an error.
                    let _ = tell.send((number, root, block));
                }
            });
            match worker {
                Ok(_) => {}
                Err(error) if started == 0 => return Err(TreesError::NoThread(error)),
                Err(error) => {
                    tracing::debug!(%error, started, "fewer threads than wanted make tree D");
                    break;
                }
            }
        }
        // The channels end with the workers, and `give` with this closure.
        drop((take, tell));
        let mut joined = |number, root: Result<Node, TopError>| {
            join.push(number, root?)?;
            Ok(join.next)
        };
        let at = |blocks: u64| watch.at(Part::TreeD, blocks * block_nodes as u64, nodes);
        let give = give;
        for number in 0..blocks {
            let block = match free.pop() {
                Some(block) => block,
                None => {
                    // A worker that panicked is told of by the end of the scope.
                    let Ok((number, root, block)) = done.recv() else { break };
                    at(joined(number, root).map_err(&fault)?)?;
                    block
                }
            };
            read(&mut block[..block_nodes])?;
            // Only workers that have panicked take nothing.
            let _ = give.send((number, block));
        }
        drop(give);
        for (number, root, _) in done {
            at(joined(number, root).map_err(&fault)?)?;
        }
        Ok::<_, TreesError>(())
    })?;
    Ok(join.top.take_root())
}

/// The roots of blocks on their way into the rows above.
struct Join<'a> {
    file: &'a TreeFile<'a>,
    top: TreeTop,
    /// Those that came before their turn.
    early: BTreeMap<u64, Node>,
    /// Blocks that are in.
    next: u64,
}

impl Join<'_> {
    fn push(&mut self, number: u64, root: Node) -> Result<(), TopError> {
        self.early.insert(number, root);
        while let Some(root) = self.early.remove(&self.next) {
            self.top.push(root, &|first, nodes| self.file.top(first, nodes))?;
            self.next += 1;
        }
        Ok(())
    }
}

/// Writes the tree D of `nodes` zero nodes, whose rows each repeat one value. Returns `comm_d`.
pub fn build_zero_tree_d(
    target: &Path,
    nodes: u64,
    zero_leaves: ZeroLeaves,
    watch: &Watch<'_>,
) -> Result<Commitment, TreesError> {
    let (_, layout) = tree_d_layout(nodes)?;
    let part = PartFile::create(target)?;
    let mut done = 0;
    let first_written = match zero_leaves {
        ZeroLeaves::Written => 0,
        ZeroLeaves::Hole => 1,
    };
    zero_rows(layout, first_written, |first, block| {
        write_nodes(&part, first, block)?;
        done += block.len() as u64;
        watch.at(Part::TreeD, done.min(nodes), nodes)
    })?;
    part.finish()?;
    Ok(zero_commitment(nodes * NODE_SIZE as u64))
}

/// Calls `each` with the nodes of a tree D over zeros from `first_row` on, block by block, and with
/// the place of the first of them in the file.
pub(crate) fn zero_rows(
    layout: Layout,
    first_row: u32,
    mut each: impl FnMut(u64, &[Node]) -> Result<(), TreesError>,
) -> Result<(), TreesError> {
    for row in first_row..=layout.root_row() {
        let (start, row_nodes) = (layout.row_start(row), layout.row_nodes(row));
        let value = zero_commitment((NODE_SIZE as u64) << row).0;
        let block = vec![value; row_nodes.min(BLOCK_NODES) as usize];
        for first in (0..row_nodes).step_by(block.len()) {
            each(start + first, &block)?;
        }
    }
    Ok(())
}

/// Checks that `path`, also behind a symbolic link, is a tree D of `nodes` leaves whose last
/// element is `comm_d`. Only reads.
pub fn check_tree_d(path: &Path, nodes: u64, comm_d: Commitment) -> Result<(), TreesError> {
    open_tree_d(path, nodes, comm_d).map(drop)
}

/// Opens a tree D and checks length and root.
pub(crate) fn open_tree_d(
    path: &Path,
    nodes: u64,
    comm_d: Commitment,
) -> Result<NodeFile, TreesError> {
    let (_, layout) = tree_d_layout(nodes)?;
    let missing = |path| TreesError::TreeDMissing { path };
    let file = NodeFile::open(path.to_path_buf()).map_err(|error| or_missing(error, missing))?;
    let (found, wanted) = (file.bytes()?, layout.file_nodes() * NODE_SIZE as u64);
    if found != wanted {
        return Err(TreesError::TreeDSize { path: path.to_path_buf(), found, wanted });
    }
    let found = Commitment(file.node(layout.file_nodes() - 1)?);
    if found != comm_d {
        return Err(TreesError::TreeDRoot { path: path.to_path_buf(), found, wanted: comm_d });
    }
    Ok(file)
}

/// Fills `bytes` from `data`, and with zeros where it has ended.
pub(crate) fn read_or_zero(data: &mut dyn Read, bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        match data.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes[filled..].fill(0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const QUIET: Watch<'static> = Watch { progress: &|_, _, _| {}, cancelled: &|| false };
    const NODES: u64 = 64;

    fn build(target: &Path, data: &[u8], comm_d: Commitment) -> Result<(), TreesError> {
        build_tree_d(target, NODES, &mut &data[..], Path::new("data"), comm_d, &QUIET)
    }

    #[test]
    fn the_shortcut_for_zeros_equals_the_tree_over_zeros() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| dir.path().join(name);
        let comm_d = zero_commitment(NODES * 32);
        // Data that ends at once counts as zeros.
        build(&path("built"), &[], comm_d).expect("zeros");
        let built = fs::read(path("built")).expect("readable");
        assert_eq!(built.len() as u64, 32 * (2 * NODES - 1));
        for zero_leaves in [ZeroLeaves::Written, ZeroLeaves::Hole] {
            let root = build_zero_tree_d(&path("zero"), NODES, zero_leaves, &QUIET);
            assert_eq!(root.expect("writable"), comm_d);
            assert_eq!(fs::read(path("zero")).expect("readable"), built);
        }
        check_tree_d(&path("zero"), NODES, comm_d).expect("a good tree");
    }

    #[test]
    fn data_of_another_sector_leaves_no_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let wanted = zero_commitment(NODES * 32);
        let error = build(&dir.path().join("tree"), &[1; 2048], wanted).unwrap_err();
        assert!(matches!(error, TreesError::Data { wanted: w, .. } if w == wanted), "{error}");
        assert!(error.to_string().starts_with("the data in data hashes to "), "{error}");
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
    }

    #[test]
    fn a_tree_of_another_sector_or_size_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let tree = dir.path().join("tree");
        let comm_d = zero_commitment(NODES * 32);
        build(&tree, &[], comm_d).expect("zeros");
        let other = Commitment([7; 32]);
        let error = check_tree_d(&tree, NODES, other).unwrap_err();
        assert!(matches!(error, TreesError::TreeDRoot { found, .. } if found == comm_d), "{error}");
        let error = check_tree_d(&tree, 2 * NODES, comm_d).unwrap_err();
        assert!(
            matches!(error, TreesError::TreeDSize { found: 4064, wanted: 8160, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("tree has 4064 bytes and 8160 are wanted"), "{error}");
    }

    #[test]
    fn a_cancelled_build_leaves_no_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let watch = Watch { cancelled: &|| true, ..QUIET };
        let comm_d = zero_commitment(NODES * 32);
        let target = dir.path().join("tree");
        let built =
            build_tree_d(&target, NODES, &mut io::empty(), Path::new("data"), comm_d, &watch);
        assert!(matches!(built, Err(TreesError::Cancelled)), "{built:?}");
        let zero = build_zero_tree_d(&target, NODES, ZeroLeaves::Written, &watch);
        assert!(matches!(zero, Err(TreesError::Cancelled)), "{zero:?}");
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
    }
}
