//! What PC2 works from: the layers, tree D and the sealed file, opened and checked before
//! anything is written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use seal_host::{
    DirectoryLock, DirectoryLockError, FileError, find_same_file, find_taken_for_remains,
};
use seal_sha256::Kernel;
use seal_types::{Commitment, NODE_SIZE, Porep, TREE_D, files_of_sector, layer_file};

use crate::former::is_removed;
use crate::node_file::{NodeFile, ReadNodes};
use crate::replica::{SealedState, sealed_state};
use crate::tree_d::open_tree_d;
use crate::{Pc2Paths, TreesError};

/// Nodes at which the sealed file is compared with data and replica.
const SEALED_SAMPLES: u64 = 64;

/// The files PC2 reads.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) layers: Vec<NodeFile>,
    pub(crate) tree_d: NodeFile,
    /// Where the replica goes, symbolic links resolved.
    pub(crate) sealed_path: PathBuf,
    /// What lies there now.
    pub(crate) sealed_state: SealedState,
    /// Held until PC2 ends.
    _lock: DirectoryLock,
}

impl Inputs {
    pub(crate) fn open(
        porep: &Porep,
        paths: &Pc2Paths<'_>,
        comm_d: Commitment,
    ) -> Result<Self, TreesError> {
        let lock = lock(paths.cache_dir)?;
        check_paths(porep, paths)?;
        let nodes = porep.nodes();
        let layers = (1..=porep.layers)
            .map(|layer| open_layer(paths.cache_dir.join(layer_file(layer)), nodes))
            .collect::<Result<Vec<_>, _>>()?;
        let tree_d = open_tree_d(&paths.cache_dir.join(TREE_D), nodes, comm_d)?;
        // Nothing of its content is needed, of no kind of sector; but a file that is not there is a
        // wrong path or a file system that is not mounted, and a replica must not be put there.
        let sealed_path = fs::canonicalize(paths.sealed_file)
            .map_err(FileError::of("find", paths.sealed_file))?;
        let meta = fs::metadata(&sealed_path).map_err(FileError::of("query", &sealed_path))?;
        if !meta.is_file() {
            return Err(TreesError::SealedNoFile { path: sealed_path });
        }
        let sealed = NodeFile::open(sealed_path.clone())?;
        let last_layer = layers.last().ok_or(TreesError::Layers { layers: porep.layers })?;
        let samples = [0, nodes - 1].into_iter().chain(samples(comm_d, SEALED_SAMPLES, nodes));
        let sealed_state = sealed_state(&sealed, &tree_d, last_layer, nodes, samples)?;
        Ok(Self { layers, tree_d, sealed_path, sealed_state, _lock: lock })
    }

    /// Whether all layers are read past the page cache.
    pub(crate) fn are_direct(&self) -> bool {
        self.layers.iter().all(NodeFile::is_direct)
    }

    /// The last layer, which the replica is encoded with.
    pub(crate) fn last_layer(&self) -> &NodeFile {
        self.layers.last().expect("`open` refuses a sector without layers")
    }
}

/// `count` nodes out of `nodes`, spread by a hash of `seed`: the same ones for the same sector, so
/// that a failure can be repeated.
pub(crate) fn samples(seed: Commitment, count: u64, nodes: u64) -> impl Iterator<Item = u64> {
    let kernel = Kernel::detect();
    (0..count).map(move |sample| {
        let mut block = [0; 2 * NODE_SIZE];
        block[..NODE_SIZE].copy_from_slice(&seed.0);
        block[NODE_SIZE..NODE_SIZE + 8].copy_from_slice(&sample.to_le_bytes());
        let digest = kernel.two_to_one(&block);
        let (words, _) = digest.as_chunks();
        u64::from_le_bytes(words[0]) % nodes
    })
}

fn open_layer(path: PathBuf, nodes: u64) -> Result<NodeFile, TreesError> {
    let missing = |path| TreesError::LayerMissing { path };
    let file = NodeFile::open(path).map_err(|error| or_missing(error, missing))?;
    let (found, wanted) = (file.bytes()?, nodes * NODE_SIZE as u64);
    if found != wanted {
        return Err(TreesError::LayerSize { path: file.path().to_path_buf(), found, wanted });
    }
    Ok(file)
}

/// A file that is not there is bad input, which stays as it is until PC1 makes it; any other failure
/// may pass.
pub(crate) fn or_missing(error: FileError, missing: impl Fn(PathBuf) -> TreesError) -> TreesError {
    if error.source.kind() == io::ErrorKind::NotFound { missing(error.path) } else { error.into() }
}

/// Two PC2 of one sector would write the same temporaries. The lock is on the directory itself,
/// so that it leaves no file behind, and the kernel releases it whatever happens.
fn lock(cache_dir: &Path) -> Result<DirectoryLock, TreesError> {
    DirectoryLock::take(cache_dir).map_err(|error| match error {
        DirectoryLockError::Busy { path } => TreesError::Busy { cache_dir: path },
        DirectoryLockError::File(error) => error.into(),
    })
}

/// Refuses a sealed file that is another file of the sector: the replica would take its place.
fn check_paths(porep: &Porep, paths: &Pc2Paths<'_>) -> Result<(), TreesError> {
    let files = files_of_sector(porep).into_iter();
    let files = files.map(|name| ("cache_dir's".to_owned(), paths.cache_dir.join(name)));
    let named = [("sealed_file", paths.sealed_file)];
    if let Some(same) = find_same_file(&named, files) {
        return Err(same.into());
    }
    match find_taken_for_remains(&named, &[paths.cache_dir], is_removed) {
        Some(taken) => Err(taken.into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_repeatable_and_spread() {
        let draw = |seed: u8| samples(Commitment([seed; 32]), 64, 1 << 30).collect::<Vec<_>>();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        for quarter in 0..4_u64 {
            let hit = draw(1).into_iter().filter(|node| node >> 28 == quarter).count();
            assert!((4..29).contains(&hit), "{hit} of 64 samples in quarter {quarter}");
        }
    }
}
