//! Read-only memory maps of files, and what can become of them while they are read.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapOptions};

use crate::FileError;
use crate::watched::{MapFault, Watched, file_page};

/// What was read through a memory map since it was made may not be what the file holds.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// The file is shorter than it was.
    #[error("{} was cut from {mapped} to {now} bytes while it was used", path.display())]
    Cut {
        /// The file.
        path: PathBuf,
        /// Its length when it was mapped.
        mapped: u64,
        /// Its length now.
        now: u64,
    },
    /// The file was written to.
    #[error("{} was written to while it was used", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A page could not be read, and the file has its length.
    #[error(
        "a part of {} could not be read while it was used: its disk, or the network to it, has \
         failed, or it was cut and made longer again", path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
    },
    /// Memory of this machine has failed.
    #[error(
        "a page of memory that held a part of {} has failed and cannot be corrected; look for the \
         module in the kernel's log (`dmesg`, `ras-mc-ctl --errors`) and replace it", path.display()
    )]
    Memory {
        /// The file.
        path: PathBuf,
    },
    /// Nobody knows what became of the file.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A file mapped into memory for reading.
///
/// The mapping is private to this process, but the file is not. Another program that cuts it, or a
/// disk that fails, makes later reads return zeros instead of ending the process: what was read is
/// to be believed only after [`ReadMap::check`].
#[derive(Debug)]
pub struct ReadMap {
    map: Watched<Mmap>,
    file: File,
    path: PathBuf,
    /// When it was mapped.
    before: State,
}

/// What shows that a file was cut or written to: length and time of the last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    length: u64,
    modified: (i64, i64),
}

impl State {
    fn of(metadata: &Metadata) -> Self {
        Self { length: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

impl ReadMap {
    /// Maps the whole of `path`.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let file = crate::open_input(path)?;
        Self::of_file(&file, path)
    }

    /// Maps the whole of an open file; `path` is for messages.
    pub fn of_file(file: &File, path: &Path) -> Result<Self, FileError> {
        let cannot_map = || FileError::of("map", path);
        // To be asked later what became of it, whatever lies under its name then.
        let file = file.try_clone().map_err(cannot_map())?;
        let before = State::of(&file.metadata().map_err(FileError::of("examine", path))?);
        let length = usize::try_from(before.length).unwrap_or(usize::MAX);
        // SAFETY: the mapping is read-only, and memmap2 asks only that the bytes do not change
        // or vanish under the slice. The files mapped here are finished before they get their
        // names and never written to or cut short afterwards by this project; another program
        // that does so can make reads return other bytes or zeros (`crate::watched`), of which
        // nothing is believed before `ReadMap::check`.
        let map = unsafe { MmapOptions::new().len(length).map(&file) }.map_err(cannot_map())?;
        let map = Watched::new(map, file_page(), false).map_err(cannot_map())?;
        Ok(Self { map, file, path: path.to_path_buf(), before })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a page was not there when somebody read it. Costs one load; that nothing has failed
    /// is no proof, because the rest of a page behind the end of a file reads as zeros: see
    /// [`ReadMap::check`].
    pub fn is_failed(&self) -> bool {
        self.map.fault().is_some()
    }

    /// Whether all that was read so far was what the file held when it was mapped: to be asked
    /// after the reading and before a result of it is believed. Writing that leaves length and
    /// time of the last change as they were is not noticed.
    ///
    /// # Errors
    /// Tells what became of the file.
    pub fn check(&self) -> Result<(), MapError> {
        let path = || self.path.clone();
        let fault = self.map.fault();
        if fault == Some(MapFault::Memory) {
            return Err(MapError::Memory { path: path() });
        }
        let now = self.file.metadata().map_err(FileError::of("examine", &self.path))?;
        let now = State::of(&now);
        if now.length < self.before.length {
            let (mapped, now) = (self.before.length, now.length);
            return Err(MapError::Cut { path: path(), mapped, now });
        }
        if now != self.before {
            return Err(MapError::Changed { path: path() });
        }
        match fault {
            Some(_) => Err(MapError::Unreadable { path: path() }),
            None => Ok(()),
        }
    }
}

impl std::ops::Deref for ReadMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::hint::black_box;

    fn page() -> u64 {
        file_page() as u64
    }

    /// A file of eight pages of ones, mapped.
    fn mapped(dir: &Path) -> (File, ReadMap) {
        let path = dir.join("file");
        fs::write(&path, vec![1; 8 * file_page()]).expect("writable");
        let file = File::options().write(true).open(&path).expect("writable");
        (file, ReadMap::open(&path).expect("readable"))
    }

    fn sum(map: &ReadMap) -> u64 {
        black_box(&map[..]).iter().map(|byte| u64::from(*byte)).sum()
    }

    #[test]
    fn a_file_that_nobody_touches_is_right() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (_file, map) = mapped(dir.path());
        assert_eq!(sum(&map), 8 * page());
        assert!(!map.is_failed());
        map.check().expect("nothing has happened");
        // Another file under its name does not touch it.
        fs::rename(map.path(), dir.path().join("other")).expect("writable");
        fs::write(map.path(), b"short").expect("writable");
        assert_eq!(sum(&map), 8 * page());
        map.check().expect("nothing has happened to it");
    }

    #[test]
    fn a_file_that_is_cut_reads_as_zeros_and_is_named_with_both_lengths() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for left in [0, 3 * page(), 5 * page() + 1] {
            let (file, map) = mapped(dir.path());
            file.set_len(left).expect("writable");
            assert_eq!(sum(&map), left);
            assert!(map.is_failed());
            let error = map.check().unwrap_err().to_string();
            let (path, all) = (map.path().display(), 8 * page());
            assert_eq!(
                error,
                format!("{path} was cut from {all} to {left} bytes while it was used")
            );
            // A map made of what is left is a sound one.
            let again = ReadMap::open(map.path()).expect("readable");
            assert_eq!(sum(&again), left);
            again.check().expect("as long as it was");
        }
    }

    #[test]
    fn a_cut_within_the_last_page_is_found_though_no_page_is_missing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (file, map) = mapped(dir.path());
        file.set_len(8 * page() - 4).expect("writable");
        assert_eq!(sum(&map), 8 * page() - 4);
        assert!(!map.is_failed());
        assert!(matches!(map.check(), Err(MapError::Cut { .. })));
    }

    #[test]
    fn a_file_that_is_cut_and_made_longer_again_is_found() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (file, map) = mapped(dir.path());
        file.set_len(page()).expect("writable");
        file.set_len(8 * page()).expect("writable");
        assert_eq!(sum(&map), page());
        assert!(matches!(map.check(), Err(MapError::Changed { .. })));
        // Where its times were set back, a page that was missed still tells.
        let (file, map) = mapped(dir.path());
        let modified = file.metadata().and_then(|meta| meta.modified()).expect("readable");
        file.set_len(page()).expect("writable");
        assert_eq!(sum(&map), page());
        file.set_len(8 * page()).expect("writable");
        file.set_modified(modified).expect("writable");
        let error = map.check().unwrap_err();
        assert!(matches!(error, MapError::Unreadable { .. }), "{error}");
    }

    #[test]
    fn an_empty_file_is_an_empty_map() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("empty");
        fs::write(&path, b"").expect("writable");
        let map = ReadMap::open(&path).expect("readable");
        assert!(map.is_empty());
        map.check().expect("nothing has happened");
    }
}
