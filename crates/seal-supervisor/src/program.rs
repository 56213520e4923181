//! The binary that a configuration means, and whether it can be run.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why a binary cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// There is nothing at its path.
    #[error("there is no executable {}", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// No directory of `PATH` has an executable of its name.
    #[error("there is no executable {} in PATH; write the whole path", name.display())]
    NotInPath {
        /// The name.
        name: PathBuf,
    },
    /// It is something else than a file.
    #[error("{} is no file that could be run", path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// Its mode does not let it be run.
    #[error("{} is not executable: it has mode {mode:o}", path.display())]
    NotExecutable {
        /// The path.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It cannot be looked at.
    #[error("{} cannot be looked at: {error}", path.display())]
    Unseen {
        /// The path.
        path: PathBuf,
        /// What the operating system says.
        error: io::ErrorKind,
    },
}

/// The binary that is meant by `bin`: a path, or a name to be looked up in `search`. What is not
/// found stays as it is.
pub(crate) fn find_program(bin: &Path, search: Option<&OsStr>) -> PathBuf {
    if !is_name(bin) {
        return bin.to_path_buf();
    }
    let dirs = search.into_iter().flat_map(env::split_paths);
    let found = dirs.map(|dir| dir.join(bin)).find(|candidate| runnable(candidate).is_ok());
    found.unwrap_or_else(|| bin.to_path_buf())
}

/// Whether it is a name to be looked up and no path. What was looked up in vain still is one.
fn is_name(bin: &Path) -> bool {
    !bin.is_absolute() && bin.components().count() == 1
}

/// Whether the binary at `path` can be run, as far as its file tells.
pub(crate) fn runnable(path: &Path) -> Result<(), Lack> {
    let owned = || path.to_path_buf();
    match fs::metadata(path) {
        _ if is_name(path) => Err(Lack::NotInPath { name: owned() }),
        Ok(found) if !found.is_file() => Err(Lack::NoFile { path: owned() }),
        Ok(found) if found.mode() & 0o111 == 0 => {
            Err(Lack::NotExecutable { path: owned(), mode: found.mode() & 0o7777 })
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Lack::Missing { path: owned() })
        }
        Err(error) => Err(Lack::Unseen { path: owned(), error: error.kind() }),
    }
}

pub(crate) fn is_same_file(one: &Path, other: &Path) -> bool {
    let inode = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    matches!((inode(one), inode(other)), (Ok(one), Ok(other)) if one == other)
}
