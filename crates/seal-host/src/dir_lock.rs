//! The right to work in a directory, which one process has at a time.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::filesystem::lock_failed;
use crate::{FileError, open_dir, open_lock};

/// Where directories cannot be locked but files can (NFS), this file is locked.
pub const LOCK_FILE: &str = ".seal-exec.lock";
/// What to do where there are no locks.
const REMEDY: &str = "without them nothing keeps two processes from writing the same files; use a \
                      directory on a local file system, or mount this one with locks";

/// Why a directory was not locked.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryLockError {
    /// Somebody else has it.
    #[error("{} is locked by another process", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be opened, or its file system has no locks.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The right to work in a directory, held as long as this lives and given up by the kernel if the
/// process dies.
#[derive(Debug)]
pub struct DirectoryLock {
    directory: File,
    /// Held in place of the directory itself.
    file: Option<File>,
}

impl DirectoryLock {
    /// Locks the directory `path`. A file system that has no locks is an error that names it.
    pub fn take(path: &Path) -> Result<Self, DirectoryLockError> {
        let directory = open_dir(path)?;
        match directory.try_lock() {
            Ok(()) => Ok(Self { directory, file: None }),
            Err(TryLockError::WouldBlock) => Err(busy(path)),
            // NFS locks only what is open for writing, which a directory never is. What fails in
            // passing is no reason for another lock than the one that others take.
            Err(TryLockError::Error(error)) if !is_refusal(&error) => {
                Err(lock_failed(path, REMEDY)(error).into())
            }
            Err(TryLockError::Error(error)) => {
                tracing::debug!(path = %path.display(), %error, "locking a file in its place");
                Ok(Self { directory, file: Some(lock_file_in(path)?) })
            }
        }
    }

    /// Whether the directory that is locked is the one at `path`: somebody may have removed that
    /// and made another.
    pub fn is_of(&self, path: &Path) -> bool {
        self.directory.metadata().is_ok_and(|held| is_at(&held, path.metadata()))
    }

    /// Removes the directory at `path`, which this is the lock of, if there is nothing in it but
    /// what belongs to the lock.
    pub fn remove_empty(self, path: &Path) -> Result<(), FileError> {
        if self.file.is_some() {
            crate::remove_if_there(&path.join(LOCK_FILE))?;
        }
        fs::remove_dir(path).map_err(FileError::of("remove", path))
    }
}

/// Whether a file system locks no directories, now or ever.
fn is_refusal(error: &io::Error) -> bool {
    const REFUSALS: [i32; 4] = [libc::EBADF, libc::EINVAL, libc::EOPNOTSUPP, libc::ENOSYS];
    error.raw_os_error().is_some_and(|code| REFUSALS.contains(&code))
}

fn lock_file_in(dir: &Path) -> Result<File, DirectoryLockError> {
    let path = dir.join(LOCK_FILE);
    loop {
        let file = open_lock(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(busy(dir)),
            Err(TryLockError::Error(error)) => return Err(lock_failed(dir, REMEDY)(error).into()),
        }
        let held = file.metadata().map_err(FileError::of("query", &path))?;
        // Whoever had it before may have removed it with the directory.
        if is_at(&held, path.symlink_metadata()) {
            return Ok(file);
        }
    }
}

fn is_at(held: &fs::Metadata, there: io::Result<fs::Metadata>) -> bool {
    there.is_ok_and(|there| (there.dev(), there.ino()) == (held.dev(), held.ino()))
}

fn busy(path: &Path) -> DirectoryLockError {
    DirectoryLockError::Busy { path: path.to_path_buf() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_worked_in_by_one_at_a_time() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let lock = DirectoryLock::take(dir.path()).expect("free");
        let error = DirectoryLock::take(dir.path()).unwrap_err();
        assert!(matches!(error, DirectoryLockError::Busy { .. }), "{error}");
        drop(lock);
        DirectoryLock::take(dir.path()).expect("free again");
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
    }

    #[test]
    fn another_lock_is_taken_only_where_directories_never_have_one() {
        for code in [libc::EBADF, libc::EOPNOTSUPP, libc::EINVAL, libc::ENOSYS] {
            assert!(is_refusal(&io::Error::from_raw_os_error(code)), "{code}");
        }
        for code in [libc::ENOLCK, libc::ENOMEM, libc::EIO, libc::EINTR, libc::EMFILE] {
            assert!(!is_refusal(&io::Error::from_raw_os_error(code)), "{code}");
        }
    }

    #[test]
    fn a_lock_is_of_one_directory_and_not_of_a_path() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("sealing");
        fs::create_dir(&path).expect("writable");
        let lock = DirectoryLock::take(&path).expect("free");
        assert!(lock.is_of(&path));
        fs::rename(&path, dir.path().join("elsewhere")).expect("writable");
        assert!(!lock.is_of(&path));
        fs::create_dir(&path).expect("writable");
        assert!(!lock.is_of(&path));
    }

    #[test]
    fn a_file_locked_in_the_place_of_a_directory_excludes_as_well_and_goes_with_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("sealing");
        fs::create_dir(&path).expect("writable");
        let held = lock_file_in(&path).expect("free");
        let error = lock_file_in(&path).unwrap_err();
        assert!(matches!(error, DirectoryLockError::Busy { .. }), "{error}");
        let directory = open_dir(&path).expect("there");
        DirectoryLock { directory, file: Some(held) }.remove_empty(&path).expect("empty");
        assert!(!path.exists());
    }

    #[test]
    fn only_a_directory_can_be_locked() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let error = DirectoryLock::take(file.path()).unwrap_err();
        let DirectoryLockError::File(error) = error else { panic!("{error}") };
        assert_eq!(error.source.to_string(), "it is a regular file and not a directory");
    }
}
