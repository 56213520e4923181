//! Read-only memory maps.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::FileError;

/// A file mapped into memory for reading.
///
/// The mapping is private to this process, but the file is not: see the safety argument in
/// [`ReadMap::open`] for what that means.
#[derive(Debug)]
pub struct ReadMap {
    map: memmap2::Mmap,
    path: PathBuf,
}

impl ReadMap {
    /// Maps the whole of `path`.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let file = crate::open_read(path)?;
        Self::of_file(&file, path)
    }

    /// Maps the whole of an open file; `path` is for messages.
    pub fn of_file(file: &File, path: &Path) -> Result<Self, FileError> {
        // SAFETY: the mapping is read-only, and memmap2 asks only that the bytes do not change
        // or vanish under the slice. The files mapped here are finished before they get their
        // names and never written to or cut short afterwards by this project; another program
        // that does so can make reads return other bytes, which every user of this type checks
        // by digest or tolerates, or end the process by SIGBUS, which the supervisor reports.
        let map = unsafe { memmap2::Mmap::map(file) }.map_err(FileError::of("map", path))?;
        Ok(Self { map, path: path.to_path_buf() })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl std::ops::Deref for ReadMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}
