//! Locks between processes that the kernel releases when their holder dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::FileError;

/// An exclusive lock on a file, held until it is dropped or the process ends.
///
/// The file stays behind when the lock ends: removing it would let two processes hold locks on two
/// files of one name. It is closed on exec, so children do not keep the lock alive.
#[derive(Debug)]
#[must_use = "the lock ends when this is dropped"]
pub struct FileLock {
    file: File,
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child that is just between fork and exec. An
        // error is harmless: the file is closed next.
        let _ = self.file.unlock();
    }
}

impl FileLock {
    /// Takes the lock, or returns `None` if another process or another part of this one has it.
    /// The file is made if it is not there; a symbolic link in its place is an error.
    pub fn try_take(path: &Path) -> Result<Option<Self>, FileError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(FileError::of("open", path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(FileError::of("lock", path)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_at_a_time() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("gpu");
        let lock = FileLock::try_take(&path).expect("lockable").expect("free");
        assert!(FileLock::try_take(&path).expect("lockable").is_none());
        drop(lock);
        assert!(FileLock::try_take(&path).expect("lockable").is_some());
    }

    #[test]
    fn a_symbolic_link_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("gpu");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).expect("writable");
        let error = FileLock::try_take(&path).unwrap_err();
        assert_eq!(error.source.raw_os_error(), Some(libc::ELOOP));
        assert!(!dir.path().join("elsewhere").exists());
    }
}
