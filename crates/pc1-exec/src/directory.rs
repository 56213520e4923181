//! Directories of one sealing: one process at a time, and no remains of another replica id, but
//! never a finished sector in place of which nobody has asked for another one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use seal_host::{
    DirectoryLock, DirectoryLockError, FileError, part_target, read_dir_names, remove_if_there,
    remove_stale_part,
};
use seal_sdr::{Manifest, Sealing};
use seal_types::{MANIFEST, P_AUX, is_remains_of_sealing, layer_file};

use crate::{Pc1Error, ReplaceFinished};

/// Bytes of a block in what the kernel says of a file (stat(2)).
const STAT_BLOCK: u64 = 512;
/// Bytes of a complete `p_aux`: two commitments.
const P_AUX_BYTES: u64 = 64;

/// Takes the right to seal in `path`, which must be a directory and is known to people as `key`.
pub(crate) fn lock(key: &'static str, path: &Path) -> Result<DirectoryLock, Pc1Error> {
    DirectoryLock::take(path).map_err(|error| match error {
        DirectoryLockError::Busy { path } => Pc1Error::Busy { key, path },
        DirectoryLockError::File(error) => Pc1Error::of_path(key, "a directory", error),
    })
}

/// Refuses to seal where a sector is finished, unless it is the same one and still has layers, or
/// somebody wants it gone.
pub(crate) fn refuse_finished(
    cache_path: &Path,
    sealing: &Sealing,
    replace: ReplaceFinished,
) -> Result<(), Pc1Error> {
    // Even behind a link: it is as complete there.
    let p_aux = cache_path.join(P_AUX).metadata();
    if !p_aux.is_ok_and(|meta| meta.is_file() && meta.len() == P_AUX_BYTES) {
        return Ok(());
    }
    let manifest = Manifest::read(cache_path)?;
    let found = manifest.as_ref().map(Manifest::replica_id);
    // With layers it is a sector whose PC1 is wanted again, as after a layer was damaged; without
    // them one that is finished and cleared, and what is left cannot be made again from them.
    let layers = (1..=sealing.porep.layers).map(|layer| cache_path.join(layer_file(layer)));
    let has_layers = layers.into_iter().any(|layer| layer.is_file());
    if found == Some(&sealing.replica_id.to_string()) && has_layers {
        return Ok(());
    }
    let finished = match found {
        Some(id) => format!("the replica id {id}"),
        None => format!("a replica id that no {MANIFEST} there tells"),
    };
    let (path, wanted) = (cache_path.to_path_buf(), sealing.replica_id);
    let refused = Pc1Error::Finished { path, finished, wanted };
    if replace == ReplaceFinished::No {
        return Err(refused);
    }
    tracing::warn!(
        "{} is set: the finished sector that {} holds goes now",
        crate::REPLACE_FINISHED,
        cache_path.display()
    );
    Ok(())
}

/// What an earlier sealing may have left in `path`, which other software would trust, except for
/// the first `layers` layers. The manifest goes where no layer is kept. `p_aux` comes first: without
/// it nothing says that the sector is finished, whatever else is still there.
fn remains(path: &Path, layers: usize) -> Result<Vec<String>, FileError> {
    let kept: Vec<_> = (1..).take(layers).map(layer_file).collect();
    let goes = |name: &String| {
        let remains = is_remains_of_sealing(name) || name == MANIFEST && layers == 0;
        remains && !kept.contains(name)
    };
    let mut names: Vec<_> = read_dir_names(path)?.into_iter().filter(goes).collect();
    names.sort_by_key(|name| name != P_AUX);
    Ok(names)
}

/// Bytes that [`remove_remains`] would free.
pub(crate) fn bytes_of_remains(path: &Path, layers: usize) -> Result<u64, Pc1Error> {
    let bytes = |name: String| {
        let meta = fs::symlink_metadata(path.join(name)).ok();
        // A second name, or what a link names, keeps its space.
        let own = meta.filter(|meta| meta.is_file() && meta.nlink() == 1);
        own.map_or(0, |meta| meta.blocks() * STAT_BLOCK)
    };
    Ok(remains(path, layers)?.into_iter().map(bytes).sum())
}

/// Removes what an earlier sealing has left in `path`, except for the first `layers` layers.
pub(crate) fn remove_remains(path: &Path, layers: usize) -> Result<(), Pc1Error> {
    for name in remains(path, layers)? {
        tracing::info!(path = %path.display(), name, "removing remains of an earlier sealing");
        let file = path.join(&name);
        if part_target(name.as_ref()).is_none() {
            remove_if_there(&file)?;
        } else if !remove_stale_part(&file)? {
            tracing::warn!(path = %file.display(), "another process writes there; it is left alone");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use seal_types::{ProverId, RegisteredProof, ReplicaId, SectorId};

    #[test]
    fn a_file_is_not_a_cache_directory() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let error = lock("cache_path", file.path()).unwrap_err().to_string();
        assert!(error.ends_with("is not a directory: it is a regular file"), "{error}");
        assert!(error.starts_with("cache_path /"), "{error}");
    }

    #[test]
    fn a_directory_is_sealed_in_by_one_at_a_time() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let held = lock("cache_path", dir.path()).expect("free");
        let error = lock("cache_path", dir.path()).unwrap_err();
        assert!(matches!(error, Pc1Error::Busy { key: "cache_path", .. }), "{error}");
        drop(held);
        lock("cache_path", dir.path()).expect("free again");
    }

    #[test]
    fn remains_go_and_tree_d_and_kept_layers_stay() {
        let (layer, tree_d) = ("sc-02-data-layer-1.dat", "sc-02-data-tree-d.dat");
        for (kept, expected) in [
            (0, &[tree_d][..]),
            (1, &[MANIFEST, layer, tree_d]),
            (2, &[MANIFEST, layer, "sc-02-data-layer-2.dat", tree_d]),
        ] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let remains =
                ["sc-02-data-layer-2.dat", "sc-02-data-layer-11.dat", "sc-02-data-tree-c-0.dat"];
            let others = [
                layer,
                tree_d,
                MANIFEST,
                "p_aux",
                "t_aux",
                ".sc-02-data-layer-3.dat.part",
                ".sc-02-data-layer-3.dat.0123456789abcdef.part",
            ];
            for name in remains.iter().chain(&others) {
                fs::write(dir.path().join(name), vec![1; 8192]).expect("writable");
                fs::File::open(dir.path().join(name)).and_then(|f| f.sync_all()).expect("a file");
            }
            let freed = bytes_of_remains(dir.path(), kept).expect("readable");
            let gone = remains.len() + others.len() - expected.len();
            assert_eq!(freed, 8192 * gone as u64);
            remove_remains(dir.path(), kept).expect("writable");
            assert_eq!(read_dir_names(dir.path()).expect("readable"), expected);
        }
    }

    #[test]
    fn what_says_that_a_sector_is_finished_goes_before_what_says_whose_it_is() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in [MANIFEST, P_AUX, "sc-02-data-layer-1.dat"] {
            fs::write(dir.path().join(name), "x").expect("writable");
        }
        assert_eq!(remains(dir.path(), 0).expect("readable")[0], P_AUX);
    }

    #[test]
    fn a_finished_sector_of_another_replica_is_refused_by_both_ids_unless_that_is_asked_for() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let sealing = |id: u8| Sealing {
            porep: "StackedDrg2KiBV1_1".parse::<RegisteredProof>().expect("known").porep(),
            replica_id: ReplicaId([id; 32]),
            prover_id: ProverId([8; 32]),
            sector_id: SectorId(9),
        };
        let refused = |id: u8, replace| refuse_finished(dir.path(), &sealing(id), replace);
        let p_aux = dir.path().join(P_AUX);
        // Without a p_aux, or with the beginning of one, there is nothing finished.
        for bytes in [None, Some(0), Some(32), Some(65)] {
            if let Some(bytes) = bytes {
                fs::write(&p_aux, vec![1; bytes]).expect("writable");
            }
            refused(7, ReplaceFinished::No).expect("not finished");
        }
        fs::write(&p_aux, [1; 64]).expect("writable");
        let error = refused(7, ReplaceFinished::No).unwrap_err().to_string();
        assert!(error.contains("a replica id that no .seal-exec.json there tells"), "{error}");
        Manifest::new(&sealing(5), Vec::new()).write(dir.path()).expect("writable");
        // Cleared, it cannot be made again from what is there; with a layer its PC1 is wanted again.
        let error = refused(5, ReplaceFinished::No).unwrap_err().to_string();
        assert!(error.contains(&"05".repeat(32)), "{error}");
        fs::write(dir.path().join(layer_file(2)), "a layer").expect("writable");
        refused(5, ReplaceFinished::No).expect("the same replica");
        let error = refused(7, ReplaceFinished::No).unwrap_err();
        assert_eq!(error.code(), seal_wire::ErrorCode::BadInput);
        let error = error.to_string();
        for told in [&"05".repeat(32), &"07".repeat(32), "SEAL_PC1_REPLACE_FINISHED", "cache_path"]
        {
            assert!(error.contains(told), "{told}: {error}");
        }
        refused(7, ReplaceFinished::Yes).expect("asked for");
        assert!(p_aux.exists(), "that is only a check");
    }
}
