//! The directory whose files are the limits and locks that all supervisors of a machine share.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use seal_host::FileError;

/// An open runtime directory.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
    /// Keeps cleaners of temporary files away: they leave a directory alone that is locked.
    _guard: File,
}

/// A runtime directory that cannot be trusted or used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeDirError {
    /// It cannot be made or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is a symbolic link or no directory.
    #[error("the runtime directory {} is not a directory; remove it or set SEAL_RUNTIME_DIR", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// Somebody else could hold or break the locks in it.
    #[error(
        "the runtime directory {} belongs to user {owner} and has mode {mode:o}; it must belong to \
         user {user} and be writable by nobody else; correct it or set SEAL_RUNTIME_DIR",
        path.display()
    )]
    NotPrivate {
        /// The path.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its mode.
        mode: u32,
        /// This process's user.
        user: u32,
    },
}

impl RuntimeDir {
    /// Opens the directory, making it if it is not there.
    pub fn open(path: &Path) -> Result<Self, RuntimeDirError> {
        make(path)?;
        let found = fs::symlink_metadata(path).map_err(FileError::of("examine", path))?;
        let path = path.to_path_buf();
        if !found.is_dir() {
            return Err(RuntimeDirError::NotADirectory { path });
        }
        let (owner, mode) = (found.uid(), found.mode() & 0o7777);
        let user = nix::unistd::geteuid().as_raw();
        if owner != user || mode & 0o022 != 0 {
            return Err(RuntimeDirError::NotPrivate { path, owner, mode, user });
        }
        let guard = File::open(&path).map_err(FileError::of("open", &path))?;
        guard.lock_shared().map_err(FileError::of("lock", &path))?;
        Ok(Self { path, _guard: guard })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The directory where none is configured: root's own, so that all supervisors of the machine
/// agree whatever session they come from, or that of the user's session.
pub fn default_path(xdg_runtime_dir: Option<&Path>) -> PathBuf {
    let user = nix::unistd::geteuid();
    match xdg_runtime_dir {
        _ if user.is_root() => PathBuf::from("/run/seal-exec"),
        Some(dir) if dir.is_absolute() => dir.join("seal-exec"),
        _ => PathBuf::from(format!("/tmp/seal-exec-{user}")),
    }
}

fn make(path: &Path) -> Result<(), FileError> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(FileError::of("create", parent))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(FileError::of("create", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn the_directory_is_made_private() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a/b");
        let opened = RuntimeDir::open(&path).expect("can be made");
        let mode = fs::metadata(opened.path()).expect("there").mode();
        assert_eq!(mode & 0o7777, 0o700);
        RuntimeDir::open(&path).expect("several supervisors share it");
    }

    #[test]
    fn what_others_could_tamper_with_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("open");
        fs::create_dir(&path).expect("writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("ours");
        let error = RuntimeDir::open(&path).unwrap_err().to_string();
        assert!(error.contains("has mode 777; it must belong to user"), "{error}");
        let link = dir.path().join("link");
        symlink(dir.path(), &link).expect("writable");
        let error = RuntimeDir::open(&link).unwrap_err().to_string();
        assert!(error.contains("link is not a directory"), "{error}");
    }

    #[test]
    fn a_users_own_runtime_directory_comes_before_a_shared_one() {
        let user = nix::unistd::geteuid();
        let (xdg, own) = match user.is_root() {
            true => ("/run/seal-exec".to_owned(), "/run/seal-exec".to_owned()),
            false => ("/run/user/7/seal-exec".to_owned(), format!("/tmp/seal-exec-{user}")),
        };
        assert_eq!(default_path(Some(Path::new("/run/user/7"))), Path::new(&xdg));
        for path in [Some(Path::new("relative")), None] {
            assert_eq!(default_path(path), Path::new(&own));
        }
    }
}
