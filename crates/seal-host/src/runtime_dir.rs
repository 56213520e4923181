//! The directory whose files all processes of this project on a machine share: locks, status.
//!
//! Whoever can write in it, or put another one in its place, can hold or break every lock. So it
//! belongs to one user and nobody else may write in it.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::FileError;

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
    /// Somebody else could put another one in its place.
    #[error(
        "the runtime directory lies in {}, which belongs to user {owner} and has mode {mode:o}: \
         others could replace it; choose another place by SEAL_RUNTIME_DIR",
        path.display()
    )]
    ParentNotSafe {
        /// The directory above.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its mode.
        mode: u32,
    },
}

impl RuntimeDir {
    /// Opens the directory, making it if it is not there.
    pub fn open(path: &Path) -> Result<Self, RuntimeDirError> {
        if let Some(parent) = parent_of(path) {
            fs::create_dir_all(parent).map_err(FileError::of("create", parent))?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(FileError::of("create", path)(error).into());
            }
            _ => {}
        }
        Self::open_existing(path)
    }

    /// Opens the directory, which must be there.
    pub fn open_existing(path: &Path) -> Result<Self, RuntimeDirError> {
        let user = nix::unistd::geteuid().as_raw();
        // What is opened is what is judged, whatever stands at the path a moment later.
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(path);
        let guard = opened.map_err(|error| match error.raw_os_error() {
            Some(libc::ENOTDIR | libc::ELOOP) => {
                RuntimeDirError::NotADirectory { path: path.to_path_buf() }
            }
            _ => FileError::of("open", path)(error).into(),
        })?;
        let found = guard.metadata().map_err(FileError::of("examine", path))?;
        let (owner, mode) = owner_and_mode(&found);
        let path = path.to_path_buf();
        if owner != user || mode & 0o022 != 0 {
            return Err(RuntimeDirError::NotPrivate { path, owner, mode, user });
        }
        if let Some(parent) = parent_of(&path) {
            let found = fs::metadata(parent).map_err(FileError::of("examine", parent))?;
            let (owner, mode) = owner_and_mode(&found);
            // In a sticky directory, such as /tmp, only the owner of an entry can replace it.
            let replaceable = mode & 0o022 != 0 && mode & 0o1000 == 0;
            if replaceable || (owner != user && owner != 0) {
                let path = parent.to_path_buf();
                return Err(RuntimeDirError::ParentNotSafe { path, owner, mode });
            }
        }
        guard.lock_shared().map_err(FileError::of("lock", &path))?;
        Ok(Self { path, _guard: guard })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The directory where none is configured: root's own, so that all processes of the machine agree
/// whatever session they come from, or that of the user's session (`XDG_RUNTIME_DIR`).
pub fn default_runtime_dir(xdg_runtime_dir: Option<&Path>) -> PathBuf {
    let user = nix::unistd::geteuid();
    match xdg_runtime_dir {
        _ if user.is_root() => PathBuf::from("/run/seal-exec"),
        Some(dir) if dir.is_absolute() => dir.join("seal-exec"),
        _ => PathBuf::from(format!("/tmp/seal-exec-{user}")),
    }
}

fn owner_and_mode(found: &Metadata) -> (u32, u32) {
    (found.uid(), found.mode() & 0o7777)
}

fn parent_of(path: &Path) -> Option<&Path> {
    path.parent().filter(|parent| !parent.as_os_str().is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn the_directory_is_made_private() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a/b");
        assert!(RuntimeDir::open_existing(&path).is_err());
        let opened = RuntimeDir::open(&path).expect("can be made");
        let mode = fs::metadata(opened.path()).expect("there").mode();
        assert_eq!(mode & 0o7777, 0o700);
        RuntimeDir::open(&path).expect("several processes share it");
        RuntimeDir::open_existing(&path).expect("it is there now");
    }

    #[test]
    fn what_others_could_tamper_with_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("open");
        fs::create_dir(&path).expect("writable");
        for mode in [0o777, 0o720, 0o1777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
            let error = RuntimeDir::open(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("has mode {mode:o}; it must belong to")), "{error}");
        }
        let link = dir.path().join("link");
        symlink(dir.path(), &link).expect("writable");
        let error = RuntimeDir::open(&link).unwrap_err().to_string();
        assert!(error.contains("link is not a directory"), "{error}");
        let file = dir.path().join("file");
        fs::write(&file, "").expect("writable");
        let error = RuntimeDir::open(&file).unwrap_err().to_string();
        assert!(error.contains("file is not a directory"), "{error}");
    }

    #[test]
    fn a_place_where_others_could_replace_it_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let parent = dir.path().join("shared");
        fs::create_dir(&parent).expect("writable");
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o777)).expect("ours");
        let error = RuntimeDir::open(&parent.join("run")).unwrap_err().to_string();
        assert!(error.contains("others could replace it"), "{error}");
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o1777)).expect("ours");
        RuntimeDir::open(&parent.join("run")).expect("as in /tmp");
    }

    #[test]
    fn a_users_own_runtime_directory_comes_before_a_shared_one() {
        let user = nix::unistd::geteuid();
        let (xdg, own) = match user.is_root() {
            true => ("/run/seal-exec".to_owned(), "/run/seal-exec".to_owned()),
            false => ("/run/user/7/seal-exec".to_owned(), format!("/tmp/seal-exec-{user}")),
        };
        assert_eq!(default_runtime_dir(Some(Path::new("/run/user/7"))), Path::new(&xdg));
        for path in [Some(Path::new("relative")), None] {
            assert_eq!(default_runtime_dir(path), Path::new(&own));
        }
    }
}
