//! Stamps: what remembers that a parents cache was checked, so that 60 GB are hashed once and not
//! at every start.
//!
//! A stamp lies beside the cache as `.<name>.seal-exec.json` and is worth something only as long
//! as the file's inode, length and times are those it names. The time of the last change of the
//! inode is among them, because the time of the last change of the content can be set by anybody:
//! what changes it and no content (a new owner, another link) costs one more check.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use seal_host::{FileError, PartFile, read_own, remove_if_there};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    inode: u64,
    length: u64,
    modified_s: i64,
    modified_ns: i64,
    /// Stamps of older versions have none and are worth nothing.
    changed_s: i64,
    changed_ns: i64,
    /// SHA-256 over the file, in hex.
    pub(crate) sha256: String,
}

impl Stamp {
    /// A stamp for `cache`, whose content has the digest `sha256`.
    pub(crate) fn of(cache: &File, path: &Path, sha256: String) -> Result<Self, FileError> {
        let meta = cache.metadata().map_err(FileError::of("query", path))?;
        Ok(Self {
            inode: meta.ino(),
            length: meta.len(),
            modified_s: meta.mtime(),
            modified_ns: meta.mtime_nsec(),
            changed_s: meta.ctime(),
            changed_ns: meta.ctime_nsec(),
            sha256,
        })
    }

    /// The stamp of the cache at `path`, if there is one that can be read.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        match read_own(&stamp_path(path)) {
            Ok(text) => serde_json::from_slice(&text?).ok(),
            Err(error) => {
                tracing::warn!("{error}: {}; the cache is checked again", error.source);
                None
            }
        }
    }

    /// Removes the stamp of the cache at `path`, so that it is checked before it is used again.
    pub(crate) fn remove_or_warn(path: &Path) {
        if let Err(error) = remove_if_there(&stamp_path(path)) {
            tracing::warn!(
                %error,
                "the parents cache is not to be trusted, and that it was checked before cannot be \
                 forgotten: run `pc1-exec parents --check`"
            );
        }
    }

    /// Writes the stamp of the cache at `path`. A read-only directory cannot take it; the check
    /// holds without it too, for this process.
    pub(crate) fn write_or_warn(&self, path: &Path) {
        if let Err(error) = self.write(path) {
            tracing::warn!(%error, "cannot note that the parents cache was checked");
        }
    }

    fn write(&self, path: &Path) -> Result<(), FileError> {
        let mut part = PartFile::create(&stamp_path(path))?;
        let text = serde_json::to_vec_pretty(self).expect("numbers and text");
        part.write_all(&text)?;
        part.finish()
    }
}

fn stamp_path(cache: &Path) -> PathBuf {
    let name = cache.file_name().unwrap_or_default().to_string_lossy();
    cache.with_file_name(format!(".{name}.seal-exec.json"))
}
