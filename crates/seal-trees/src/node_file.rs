//! Files of nodes, read and written by position.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use seal_host::{DirectPart, DirectReader, FileError, PartFile};
use seal_types::NODE_SIZE;

use crate::Node;

/// A file of nodes open for reading.
#[derive(Debug)]
pub(crate) struct NodeFile(DirectReader);

impl NodeFile {
    pub(crate) fn open(path: PathBuf) -> Result<Self, FileError> {
        DirectReader::open(&path).map(Self)
    }

    /// The file's length.
    pub(crate) fn bytes(&self) -> Result<u64, FileError> {
        self.0.bytes()
    }

    /// Fills `nodes` from node `first` on, past the page cache where that can be.
    pub(crate) fn read_block(&self, first: u64, nodes: &mut [Node]) -> Result<(), FileError> {
        self.0.read_exact_at(nodes.as_flattened_mut(), first * NODE_SIZE as u64)
    }

    /// Whether blocks are read past the page cache.
    pub(crate) fn is_direct(&self) -> bool {
        self.0.is_direct()
    }
}

/// Nodes that can be read by position.
pub(crate) trait ReadNodes: Sync {
    /// The open file.
    fn file(&self) -> &File;

    /// Where it lies, or will lie when it is complete.
    fn path(&self) -> &Path;

    /// Fills `nodes` from node `first` on.
    fn read(&self, first: u64, nodes: &mut [Node]) -> Result<(), FileError> {
        self.file()
            .read_exact_at(nodes.as_flattened_mut(), first * NODE_SIZE as u64)
            .map_err(FileError::of("read", self.path()))
    }

    /// The node at `index`.
    fn node(&self, index: u64) -> Result<Node, FileError> {
        let mut node = [[0; NODE_SIZE]];
        self.read(index, &mut node)?;
        Ok(node[0])
    }
}

impl ReadNodes for NodeFile {
    fn file(&self) -> &File {
        self.0.file()
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl ReadNodes for DirectPart {
    fn file(&self) -> &File {
        self.part().file()
    }

    fn path(&self) -> &Path {
        self.part().target()
    }
}

/// Writes `nodes` of a block from node `first` on, past the page cache where that can be.
pub(crate) fn write_block(part: &DirectPart, first: u64, nodes: &[Node]) -> Result<(), FileError> {
    part.write_all_at(nodes.as_flattened(), first * NODE_SIZE as u64)
}

/// Writes `nodes` from node `first` on.
pub(crate) fn write_nodes(part: &PartFile, first: u64, nodes: &[Node]) -> Result<(), FileError> {
    part.file()
        .write_all_at(nodes.as_flattened(), first * NODE_SIZE as u64)
        .map_err(FileError::of("write", part.part_path()))
}

/// Buffer space for `nodes` nodes.
pub(crate) fn buffer(nodes: usize) -> Vec<Node> {
    vec![[0; NODE_SIZE]; nodes]
}
