//! The cache directory: one sealing process at a time, and no remains of another replica id.

use std::fs::{File, TryLockError};
use std::path::Path;

use seal_host::{FileError, read_dir_names, remove_if_there};
use seal_types::is_remains_of_sealing;

use crate::Pc1Error;

/// The right to seal in a directory, held as long as this lives and given up by the kernel if the
/// process dies.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _directory: File,
}

impl DirectoryLock {
    /// Locks `path`, which must be a directory.
    pub(crate) fn take(path: &Path) -> Result<Self, Pc1Error> {
        let directory = seal_host::open_read(path)?;
        let meta = directory.metadata().map_err(FileError::of("query", path))?;
        if !meta.is_dir() {
            let path = path.to_path_buf();
            return Err(Pc1Error::Path { key: "cache_path", path, wanted: "a directory" });
        }
        match directory.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Pc1Error::Busy { path: path.to_path_buf() });
            }
            // Some network file systems lock files only. Better to seal there without a lock
            // than not at all: the lock guards against an operator's mistake.
            Err(TryLockError::Error(error)) => {
                tracing::warn!(path = %path.display(), %error, "cannot lock the cache directory");
            }
        }
        Ok(Self { _directory: directory })
    }
}

/// Removes what an earlier sealing may have left, but for the files to keep: other software would
/// trust it, whatever replica id it is of.
pub(crate) fn remove_remains(path: &Path, keep: &[String]) -> Result<(), Pc1Error> {
    let is_remains = |name: &String| is_remains_of_sealing(name) && !keep.contains(name);
    for name in read_dir_names(path)?.into_iter().filter(is_remains) {
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
        let lock = DirectoryLock::take(dir.path()).expect("free");
        let error = DirectoryLock::take(dir.path()).unwrap_err();
        assert!(matches!(error, Pc1Error::Busy { .. }), "{error}");
        drop(lock);
        DirectoryLock::take(dir.path()).expect("free again");
    }

    #[test]
    fn a_file_is_not_a_cache_directory() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let error = DirectoryLock::take(file.path()).unwrap_err();
        assert!(error.to_string().ends_with("is not a directory"), "{error}");
    }

    #[test]
    fn remains_go_and_tree_d_stays() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in ["sc-02-data-layer-1.dat", "sc-02-data-tree-c-0.dat", "p_aux", "t_aux"] {
            fs::write(dir.path().join(name), "old").expect("writable");
        }
        let kept = ["sc-02-data-layer-1.dat", "sc-02-data-tree-d.dat"];
        fs::write(dir.path().join(kept[1]), "data").expect("writable");
        remove_remains(dir.path(), &[kept[0].to_owned()]).expect("writable");
        assert_eq!(read_dir_names(dir.path()).expect("readable"), kept);
    }
}
