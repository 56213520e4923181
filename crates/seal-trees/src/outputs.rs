//! What PC2 writes: temporaries until everything is complete and checked. Results of a former run
//! stay beside them until then, where the disk has room for both.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use seal_host::{
    DirectPart, FileError, PartFile, SpaceError, SpaceReserved, SpaceWanted, read_own,
    remove_if_there, reserve_space, sync_dir,
};
use seal_types::{Commitment, NODE_SIZE, P_AUX, Porep, T_AUX, tree_c_file, tree_r_last_file};

use crate::aux_files::{TemporaryAux, p_aux_bytes};
use crate::forest::Forest;
use crate::former::{Former, remove_temporaries};
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
    /// Kept until everything is written: not all file systems give space ahead.
    reserved: Vec<SpaceReserved>,
}

impl Outputs {
    /// Removes temporaries of a former PC2, checks the free space and starts the files, which take
    /// their space.
    ///
    /// Where the space suffices only without the results of a former PC2, `verify` is asked whether
    /// they can be made again; they are removed if it says so.
    pub(crate) fn start(
        porep: &Porep,
        cache_dir: &Path,
        sealed_path: &Path,
        verify: &dyn Fn() -> Result<Verified, TreesError>,
    ) -> Result<Self, TreesError> {
        let t_aux = TemporaryAux::new(porep, cache_dir)?;
        remove_temporaries(cache_dir, sealed_path)?;
        // Where files cannot be made, nothing goes to make room for them.
        drop(PartFile::create(&cache_dir.join(P_AUX))?);
        drop(PartFile::create(sealed_path)?);
        let reserved = make_room(porep, cache_dir, sealed_path, verify)?;

        let replica = DirectPart::create(sealed_path, porep.sector_size.bytes())?;
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
            reserved,
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

    /// Brings everything to disk and then gives it its names. `p_aux` comes last: where it is, PC2
    /// has finished.
    ///
    /// Once the first file has its name there is no way back, and none is needed: whatever is
    /// there when the work is interrupted, it can be done again.
    ///
    /// Returns how many steps this is, of which the last is not told: what was replaced takes its time
    /// to go when the last who has it open lets go of it.
    pub(crate) fn publish(
        mut self,
        comm_c: &Commitment,
        comm_r_last: &Commitment,
        watch: &Watch<'_>,
    ) -> Result<u64, TreesError> {
        let total = self.large_files().count() as u64 + 1;
        watch.at(Part::Publish, 0, total)?;
        // All space is taken, and all of it is on disk, before anything gets its name.
        let t_aux = small_file(&self.cache_dir.join(T_AUX), &self.t_aux.to_bytes())?;
        let p_aux_path = self.cache_dir.join(P_AUX);
        let p_aux_bytes = p_aux_bytes(comm_c, comm_r_last);
        let p_aux = small_file(&p_aux_path, &p_aux_bytes)?;
        for (done, file) in (1..).zip(self.large_files()) {
            let part = file.part();
            part.file().sync_all().map_err(FileError::of("sync", part.part_path()))?;
            (watch.progress)(Part::Publish, done, total);
        }
        // What goes now would be taken for space that is still to be written.
        self.reserved.clear();
        // A p_aux of other trees must not stand beside these, nor must trees of another shape.
        let former = Former::find(&self.cache_dir)?;
        // One that is no file, such as a link, is none of this run either.
        let held = read_own(&p_aux_path).map(|held| held.is_none_or(|held| held == p_aux_bytes));
        if !held.unwrap_or(false) {
            remove_if_there(&p_aux_path)?;
            sync_dir(&self.cache_dir)?;
        }
        let mut kept: Vec<_> = self.large_files().map(|file| file.part().target()).collect();
        kept.extend([p_aux.target(), t_aux.target()]);
        former.remove_all_but(&kept)?;

        for file in self.tree_c.into_iter().chain(self.tree_r_last).chain([self.replica]) {
            file.finish()?;
        }
        t_aux.finish()?;
        p_aux.finish()?;
        Ok(total)
    }
}

/// Whether the inputs of a sector are known to be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verified {
    /// They are what PC1 left.
    Good,
    /// Nobody recorded what they should be.
    Unknown,
}

/// Makes sure that there is room for the results.
fn make_room(
    porep: &Porep,
    cache_dir: &Path,
    sealed_path: &Path,
    verify: &dyn Fn() -> Result<Verified, TreesError>,
) -> Result<Vec<SpaceReserved>, TreesError> {
    let short = match reserve(porep, cache_dir, sealed_path) {
        Ok(reserved) => return Ok(reserved),
        Err(TreesError::Space(short @ SpaceError::TooLittle { .. })) => short,
        Err(error) => return Err(error),
    };
    let former = Former::find(cache_dir)?;
    let SpaceError::TooLittle { path, needed, reserved, .. } = &short else {
        return Err(short.into());
    };
    let shared = device_of(path)? == device_of(cache_dir)?;
    if !shared || !former.would_make_room(cache_dir, needed + reserved)? {
        return Err(short.into());
    }
    tracing::warn!(
        dir = %cache_dir.display(),
        "there is no room for new trees beside those of a former PC2; layers and data are verified \
         before the former ones are removed"
    );
    match verify()? {
        Verified::Good => former.remove_all_but(&[])?,
        Verified::Unknown => {
            tracing::error!(
                dir = %cache_dir.display(),
                "PC1 has recorded no digests of the layers, so the trees of a former PC2 are not \
                 removed to make room; remove them if they are not needed"
            );
            return Err(short.into());
        }
    }
    reserve(porep, cache_dir, sealed_path)
}

fn device_of(path: &Path) -> Result<u64, FileError> {
    fs::metadata(path).map(|meta| meta.dev()).map_err(FileError::of("query", path))
}

fn small_file(path: &Path, bytes: &[u8]) -> Result<PartFile, FileError> {
    let mut part = PartFile::create(path)?;
    part.write_all(bytes)?;
    Ok(part)
}

/// The replica needs one more sector size beside the sealed file, the trees need their own in the
/// cache directory.
fn reserve(
    porep: &Porep,
    cache_dir: &Path,
    sealed_path: &Path,
) -> Result<Vec<SpaceReserved>, TreesError> {
    let (replica, trees) = space_needed(porep)?;
    let who = format!("PC2 in {}, pid {}", cache_dir.display(), std::process::id());
    let take = |on: &Path, bytes: u64, grows: &[&Path]| {
        reserve_space(SpaceWanted { who: &who, on, bytes, freed: 0, grows })
    };
    if device_of(cache_dir)? == device_of(sealed_path)? {
        return Ok(vec![take(sealed_path, replica + trees, &[sealed_path, cache_dir])?]);
    }
    Ok(vec![take(sealed_path, replica, &[sealed_path])?, take(cache_dir, trees, &[cache_dir])?])
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
}
