//! What PC2 writes: temporaries until everything is complete and checked.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use seal_host::{DirectPart, FileError, PartFile, read_dir_names, remove_if_there, require_free};
use seal_types::{
    Commitment, NODE_SIZE, P_AUX, Porep, T_AUX, part_name, tree_c_file, tree_r_last_file,
};

use crate::aux_files::{TemporaryAux, p_aux_bytes};
use crate::forest::Forest;
use crate::{Part, TreesError, Watch};

/// Space for `p_aux`, `t_aux` and directory entries.
const SMALL_FILES_BYTES: u64 = 1 << 16;

/// The large results, all still under temporary names.
#[derive(Debug)]
pub(crate) struct Outputs {
    pub(crate) replica: DirectPart,
    pub(crate) tree_r_last: Vec<DirectPart>,
    pub(crate) tree_c: Vec<DirectPart>,
    cache_dir: PathBuf,
    t_aux: TemporaryAux,
}

impl Outputs {
    /// Removes what a former PC2 left, finished or not, checks the free space and starts the
    /// files, which take their space.
    pub(crate) fn start(
        porep: &Porep,
        cache_dir: &Path,
        sealed_path: &Path,
    ) -> Result<Self, TreesError> {
        let t_aux = TemporaryAux::new(porep, cache_dir)?;
        remove_former_results(cache_dir)?;
        // Its creation replaces the temporary replica, but the space must be free before.
        remove_if_there(&part_path(sealed_path))?;
        require_space(porep, cache_dir, sealed_path)?;

        let replica = DirectPart::create(sealed_path, porep.sector_size.bytes())?;
        let permissions =
            fs::metadata(sealed_path).map_err(FileError::of("query", sealed_path))?.permissions();
        replica
            .part()
            .file()
            .set_permissions(permissions)
            .map_err(FileError::of("set the permissions of", replica.part().part_path()))?;
        let trees = |forest: &Forest, name: fn(seal_types::TreeShape, u32) -> String| {
            let bytes = forest.layout.file_nodes() * NODE_SIZE as u64;
            (0..forest.trees)
                .map(|tree| DirectPart::create(&cache_dir.join(name(porep.shape, tree)), bytes))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            replica,
            tree_r_last: trees(&Forest::tree_r_last(porep)?, tree_r_last_file)?,
            tree_c: trees(&Forest::tree_c(porep)?, tree_c_file)?,
            cache_dir: cache_dir.to_path_buf(),
            t_aux,
        })
    }

    /// Whether all large files are written past the page cache.
    pub(crate) fn are_direct(&self) -> bool {
        self.large_files().all(DirectPart::is_direct)
    }

    /// Bytes of the large files.
    pub(crate) fn bytes(&self) -> u64 {
        let length = |file: &DirectPart| file.part().file().metadata().map_or(0, |meta| meta.len());
        self.large_files().map(length).sum()
    }

    fn large_files(&self) -> impl Iterator<Item = &DirectPart> {
        self.tree_c.iter().chain(&self.tree_r_last).chain([&self.replica])
    }

    /// Brings everything to disk under its final name. `p_aux` comes last: where it is, PC2 has
    /// finished.
    ///
    /// Once the first file has its name there is no way back, and none is needed: whatever is
    /// there when the work is interrupted, it can be done again.
    pub(crate) fn publish(
        self,
        comm_c: &Commitment,
        comm_r_last: &Commitment,
        watch: &Watch<'_>,
    ) -> Result<(), TreesError> {
        let total = self.large_files().count() as u64;
        watch.at(Part::Publish, 0, total)?;
        // All space is taken before anything gets its name.
        let t_aux = small_file(&self.cache_dir.join(T_AUX), &self.t_aux.to_bytes())?;
        let p_aux = small_file(&self.cache_dir.join(P_AUX), &p_aux_bytes(comm_c, comm_r_last))?;
        let trees = self.tree_c.into_iter().chain(self.tree_r_last);
        for (done, file) in (1..).zip(trees.chain([self.replica])) {
            file.finish()?;
            (watch.progress)(Part::Publish, done, total);
        }
        t_aux.finish()?;
        p_aux.finish()?;
        Ok(())
    }
}

fn small_file(path: &Path, bytes: &[u8]) -> Result<PartFile, FileError> {
    let mut part = PartFile::create(path)?;
    part.write_all(bytes)?;
    Ok(part)
}

/// The name of a file's temporary.
fn part_path(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(part_name(&name))
}

/// Removes results and temporaries of a former PC2: they may belong to another replica id, and
/// none may outlive a failure of this one.
fn remove_former_results(cache_dir: &Path) -> Result<(), FileError> {
    for name in read_dir_names(cache_dir)? {
        let hidden = name.strip_prefix('.').and_then(|rest| rest.strip_suffix(".part"));
        let file = hidden.unwrap_or(&name);
        let tree = file.strip_prefix("sc-02-data-").is_some_and(|rest| {
            (rest.starts_with("tree-c") || rest.starts_with("tree-r-last"))
                && rest.ends_with(".dat")
        });
        if tree || file == P_AUX || file == T_AUX {
            tracing::debug!(file = name, "removing a result of a former PC2");
            remove_if_there(&cache_dir.join(&name))?;
        }
    }
    Ok(())
}

/// The replica needs one more sector size beside the sealed file, the trees need their own in the
/// cache directory.
fn require_space(porep: &Porep, cache_dir: &Path, sealed_path: &Path) -> Result<(), TreesError> {
    let (replica, trees) = space_needed(porep)?;
    let device = |path: &Path| {
        fs::metadata(path).map(|meta| meta.dev()).map_err(FileError::of("query", path))
    };
    if device(cache_dir)? == device(sealed_path)? {
        require_free(sealed_path, replica + trees)?;
    } else {
        require_free(sealed_path, replica)?;
        require_free(cache_dir, trees)?;
    }
    Ok(())
}

/// Bytes of the replica and of everything in the cache directory.
fn space_needed(porep: &Porep) -> Result<(u64, u64), TreesError> {
    let tree_nodes = Forest::tree_c(porep)?.file_nodes() + Forest::tree_r_last(porep)?.file_nodes();
    Ok((porep.sector_size.bytes(), tree_nodes * NODE_SIZE as u64 + SMALL_FILES_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use seal_types::RegisteredProof;

    #[test]
    fn a_32_gib_sector_needs_its_size_and_its_trees() {
        let porep = "StackedDrg32GiBV1_1".parse::<RegisteredProof>().expect("a proof").porep();
        let (replica, trees) = space_needed(&porep).expect("a shape of the network");
        assert_eq!(replica, 32 << 30);
        assert_eq!(trees, 8 * (4_908_534_048 + 9_586_976) + (1 << 16));
    }

    #[test]
    fn former_results_go_and_everything_else_stays() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let keep = [
            ".sc-02-data-layer-1.dat.part",
            ".seal-exec.json",
            "sc-02-data-layer-1.dat",
            "sc-02-data-tree-d.dat",
        ];
        let remove = [
            ".p_aux.part",
            ".sc-02-data-tree-c-3.dat.part",
            "p_aux",
            "sc-02-data-tree-c.dat",
            "sc-02-data-tree-r-last-15.dat",
            "t_aux",
        ];
        for name in keep.iter().chain(&remove) {
            fs::write(dir.path().join(name), "x").expect("writable");
        }
        remove_former_results(dir.path()).expect("removable");
        assert_eq!(read_dir_names(dir.path()).expect("readable"), keep);
    }
}
