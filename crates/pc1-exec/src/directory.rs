//! Directories of one sealing: one process at a time, and no remains of another replica id.

use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use seal_host::{FileError, read_dir_names, remove_if_there};
use seal_types::{MANIFEST, is_remains_of_sealing, layer_file};

use crate::Pc1Error;

/// The right to seal in a directory, held as long as this lives and given up by the kernel if the
/// process dies.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    directory: File,
}

impl DirectoryLock {
    /// Locks `path`, which must be a directory and is known to people as `key`.
    pub(crate) fn take(key: &'static str, path: &Path) -> Result<Self, Pc1Error> {
        let directory = seal_host::open_read(path)?;
        let meta = directory.metadata().map_err(FileError::of("query", path))?;
        if !meta.is_dir() {
            let path = path.to_path_buf();
            return Err(Pc1Error::Path { key, path, wanted: "a directory" });
        }
        match directory.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Pc1Error::Busy { key, path: path.to_path_buf() });
            }
            // Some network file systems lock files only. Better to seal there without a lock
            // than not at all: the lock guards against an operator's mistake.
            Err(TryLockError::Error(error)) => {
                tracing::warn!(path = %path.display(), %error, "cannot lock the directory");
            }
        }
        Ok(Self { directory })
    }

    /// Whether the directory that is locked is the one at `path`: somebody may have removed that
    /// and made another.
    pub(crate) fn is_of(&self, path: &Path) -> bool {
        let inode = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        let locked = self.directory.metadata().map(inode);
        matches!((locked, path.metadata().map(inode)), (Ok(one), Ok(other)) if one == other)
    }
}

/// Removes what an earlier sealing may have left, which other software would trust, except for the
/// first `layers` layers. The manifest goes where no layer is kept.
pub(crate) fn remove_remains(path: &Path, layers: usize) -> Result<(), Pc1Error> {
    let kept: Vec<_> = (1..).take(layers).map(layer_file).collect();
    let goes = |name: &String| {
        let remains = is_remains_of_sealing(name) || name == MANIFEST && layers == 0;
        remains && !kept.contains(name)
    };
    for name in read_dir_names(path)?.into_iter().filter(goes) {
        tracing::info!(path = %path.display(), name, "removing remains of an earlier sealing");
        remove_if_there(&path.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_directory_is_sealed_in_by_one_at_a_time() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let lock = DirectoryLock::take("cache_path", dir.path()).expect("free");
        let error = DirectoryLock::take("cache_path", dir.path()).unwrap_err();
        assert!(matches!(error, Pc1Error::Busy { .. }), "{error}");
        drop(lock);
        DirectoryLock::take("cache_path", dir.path()).expect("free again");
    }

    #[test]
    fn a_file_is_not_a_cache_directory() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let error = DirectoryLock::take("cache_path", file.path()).unwrap_err();
        assert!(error.to_string().ends_with("is not a directory"), "{error}");
    }

    #[test]
    fn a_lock_is_of_one_directory_and_not_of_a_path() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("sealing");
        fs::create_dir(&path).expect("writable");
        let lock = DirectoryLock::take("cache_path", &path).expect("free");
        assert!(lock.is_of(&path));
        fs::rename(&path, dir.path().join("elsewhere")).expect("writable");
        assert!(!lock.is_of(&path));
        fs::create_dir(&path).expect("writable");
        assert!(!lock.is_of(&path));
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
            let others =
                [layer, tree_d, MANIFEST, "p_aux", "t_aux", ".sc-02-data-layer-3.dat.part"];
            for name in remains.iter().chain(&others) {
                fs::write(dir.path().join(name), "old").expect("writable");
            }
            remove_remains(dir.path(), kept).expect("writable");
            assert_eq!(read_dir_names(dir.path()).expect("readable"), expected);
        }
    }
}
