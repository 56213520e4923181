//! Large files past the page cache, read and written by position and from many threads.
//!
//! Each file is open twice: once for direct I/O, which takes whole aligned blocks, and once as
//! usual for everything else. The kernel keeps both views of a file the same. Where a file system
//! does no direct I/O, the usual way is taken for all, and what it leaves in the page cache is
//! brought to disk and dropped bit by bit.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::direct::{ALIGNMENT, CACHED, forget, is_refusal};
use crate::{FileError, PartFile, open_input};

/// A file that is read by position.
#[derive(Debug)]
pub struct DirectReader {
    file: File,
    direct: Direct,
    path: PathBuf,
}

impl DirectReader {
    /// Opens `path`, also behind a symbolic link.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let file = open_input(path)?;
        let direct = Direct::open(path, OpenOptions::new().read(true), &file);
        Ok(Self { file, direct, path: path.to_path_buf() })
    }

    /// The file as it is read through the page cache.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> Result<u64, FileError> {
        let metadata = self.file.metadata().map_err(FileError::of("query", &self.path))?;
        Ok(metadata.len())
    }

    /// Whether the page cache is passed by, as far as is known yet.
    pub fn is_direct(&self) -> bool {
        self.direct.get().is_some()
    }

    /// Fills `bytes` from `offset` on. Past the page cache if all of offset, length and place in
    /// memory are multiples of 4096.
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), FileError> {
        let length = bytes.len() as u64;
        let mut done = 0;
        while done < bytes.len() {
            let (rest, at) = (&mut bytes[done..], offset + done as u64);
            let direct = self.direct.get().filter(|_| is_aligned(rest, at));
            let read = direct.unwrap_or(&self.file).read_at(rest, at);
            match read {
                Ok(0) => return Err(self.failed(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if direct.is_some() && is_refusal(&error) => {
                    self.direct.give_up(&error, &self.path);
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
        if !self.is_direct() && length >= ALIGNMENT as u64 {
            forget(&self.file, offset, offset + length);
        }
        Ok(())
    }

    fn failed(&self, error: io::Error) -> FileError {
        FileError::of("read", &self.path)(error)
    }
}

/// A [`PartFile`] of known length whose space is taken at once, written by position.
#[derive(Debug)]
pub struct DirectPart {
    part: PartFile,
    direct: Direct,
    /// Bytes written through the page cache since the last sync.
    cached: AtomicU64,
}

impl DirectPart {
    /// Starts the file that will be called `target`, of `bytes` bytes. Where the file system can,
    /// the space is taken now, so that it cannot run out on the way.
    pub fn create(target: &Path, bytes: u64) -> Result<Self, FileError> {
        let part = PartFile::create(target)?;
        reserve(part.file(), bytes)
            .map_err(|errno| FileError::of("take the space of", part.part_path())(errno.into()))?;
        let direct = Direct::open(part.part_path(), OpenOptions::new().write(true), part.file());
        Ok(Self { part, direct, cached: AtomicU64::new(0) })
    }

    /// The file under its temporary name.
    pub fn part(&self) -> &PartFile {
        &self.part
    }

    /// Whether the page cache is passed by, as far as is known yet.
    pub fn is_direct(&self) -> bool {
        self.direct.get().is_some()
    }

    /// Writes all of `bytes` from `offset` on. Past the page cache if all of offset, length and
    /// place in memory are multiples of 4096.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), FileError> {
        let mut done = 0;
        while done < bytes.len() {
            let (rest, at) = (&bytes[done..], offset + done as u64);
            let direct = self.direct.get().filter(|_| is_aligned(rest, at));
            match direct.unwrap_or(self.part.file()).write_at(rest, at) {
                Ok(0) => return Err(self.failed(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    done += count;
                    if direct.is_none() {
                        self.drop_cached(count as u64)?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if direct.is_some() && is_refusal(&error) => {
                    self.direct.give_up(&error, self.part.part_path());
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(())
    }

    /// Counts `written` bytes more in the page cache, and empties it when there are many.
    fn drop_cached(&self, written: u64) -> Result<(), FileError> {
        if self.cached.fetch_add(written, Ordering::Relaxed) + written < CACHED {
            return Ok(());
        }
        self.cached.store(0, Ordering::Relaxed);
        self.part.file().sync_data().map_err(FileError::of("sync", self.part.part_path()))?;
        // Length 0 stands for all of the file.
        forget(self.part.file(), 0, 0);
        Ok(())
    }

    fn failed(&self, error: io::Error) -> FileError {
        FileError::of("write", self.part.part_path())(error)
    }

    /// Brings everything to disk and gives the file its name.
    pub fn finish(self) -> Result<(), FileError> {
        self.part.finish()
    }
}

/// The way past the page cache, as long as it is open.
#[derive(Debug)]
struct Direct {
    file: Option<File>,
    refused: AtomicBool,
}

impl Direct {
    /// Opens `path` once more, if it still is the file `opened`: what somebody has put in its place
    /// meanwhile must not be taken for the other half of it.
    fn open(path: &Path, options: &mut OpenOptions, opened: &File) -> Self {
        let inode = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        let same = |file: File| {
            let found = (file.metadata().map(inode)?, opened.metadata().map(inode)?);
            if found.0 == found.1 {
                return Ok(file);
            }
            Err(io::Error::other("another file has taken its place"))
        };
        let file = options.custom_flags(libc::O_DIRECT | libc::O_NONBLOCK).open(path);
        let file = file.and_then(same);
        if let Err(error) = &file {
            tracing::debug!(path = %path.display(), %error, "no direct I/O here");
        }
        Self { file: file.ok(), refused: AtomicBool::new(false) }
    }

    fn get(&self) -> Option<&File> {
        self.file.as_ref().filter(|_| !self.refused.load(Ordering::Relaxed))
    }

    /// Direct I/O was refused: it is not tried again.
    fn give_up(&self, error: &io::Error, path: &Path) {
        if !self.refused.swap(true, Ordering::Relaxed) {
            tracing::debug!(path = %path.display(), %error, "direct I/O ends");
        }
    }
}

fn is_aligned(bytes: &[u8], offset: u64) -> bool {
    bytes.as_ptr().addr().is_multiple_of(ALIGNMENT)
        && bytes.len().is_multiple_of(ALIGNMENT)
        && offset.is_multiple_of(ALIGNMENT as u64)
}

/// Takes the space of a file, or at least sets its length where the file system cannot.
fn reserve(file: &File, bytes: u64) -> Result<(), Errno> {
    let Ok(length) = i64::try_from(bytes) else { return Err(Errno::EFBIG) };
    if length == 0 {
        return Ok(());
    }
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, length) {
            Err(Errno::EINTR) => {}
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => {
                return nix::unistd::ftruncate(file, length);
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Region;
    use std::fs;

    /// Bytes of which no two blocks are alike.
    fn fill(bytes: &mut [u8]) {
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0];
        }
    }

    #[test]
    fn what_is_written_anywhere_in_any_order_is_read_back() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut region = Region::anonymous(64 << 10).expect("memory");
        fill(region.bytes_mut());
        let data = region.bytes().to_vec();
        let mut back = Region::anonymous(64 << 10).expect("memory");
        for direct in [true, false] {
            // Aligned blocks, pieces across them, and single bytes.
            for step in [4096, 16384, 10_000, 65536] {
                let target = dir.path().join(format!("{direct}-{step}"));
                let file = DirectPart::create(&target, data.len() as u64).expect("writable");
                file.direct.refused.store(!direct, Ordering::Relaxed);
                for start in (0..data.len()).step_by(step).rev() {
                    let end = (start + step).min(data.len());
                    let block = &region.bytes()[start..end];
                    file.write_all_at(block, start as u64).expect("writable");
                }
                assert!(!target.exists());
                file.finish().expect("writable");
                assert!(fs::read(&target).expect("readable") == data, "{direct}, {step}");

                let reader = DirectReader::open(&target).expect("readable");
                reader.direct.refused.store(!direct, Ordering::Relaxed);
                back.bytes_mut().fill(0);
                for start in (0..data.len()).step_by(step) {
                    let end = (start + step).min(data.len());
                    let block = &mut back.bytes_mut()[start..end];
                    reader.read_exact_at(block, start as u64).expect("readable");
                }
                assert!(back.bytes() == data, "{direct}, {step}");
            }
        }
    }

    #[test]
    fn what_took_the_place_of_a_file_is_not_taken_for_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (path, other) = (dir.path().join("layer"), dir.path().join("other"));
        fs::write(&path, vec![1; 4096]).expect("writable");
        fs::write(&other, vec![2; 4096]).expect("writable");
        let opened = File::open(&path).expect("there");
        let direct = |opened| Direct::open(&path, OpenOptions::new().read(true), opened);
        let could = direct(&opened).get().is_some();
        fs::rename(&other, &path).expect("ours");
        assert!(direct(&opened).get().is_none());
        let now = File::open(&path).expect("there");
        assert_eq!(direct(&now).get().is_some(), could);
    }

    #[test]
    fn a_refusal_on_the_way_is_not_the_end() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut file = DirectPart::create(&dir.path().join("tree"), 8192).expect("writable");
        let mut region = Region::anonymous(8192).expect("memory");
        fill(region.bytes_mut());
        // Takes nothing but a number, and refuses the rest as direct I/O is refused.
        let refusing = OpenOptions::new().write(true).open("/proc/self/oom_score_adj");
        file.direct = Direct {
            file: Some(refusing.expect("every Linux has it")),
            refused: AtomicBool::new(false),
        };
        file.write_all_at(region.bytes(), 0).expect("the usual way is open");
        assert!(!file.is_direct());
        let mut back = vec![0; 8192];
        file.part().file().read_exact_at(&mut back, 0).expect("readable");
        assert!(back == region.bytes());
    }

    #[test]
    fn a_file_that_ends_early_is_an_error() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("layer");
        fs::write(&path, vec![1; 4096 + 100]).expect("writable");
        let reader = DirectReader::open(&path).expect("readable");
        let mut region = Region::anonymous(8192).expect("memory");
        let error = reader.read_exact_at(region.bytes_mut(), 0).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(error.to_string(), format!("cannot read {}", path.display()));
        reader.read_exact_at(&mut region.bytes_mut()[..100], 4096).expect("the end of the file");
    }

    #[test]
    fn the_space_is_taken_at_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = DirectPart::create(&dir.path().join("tree"), 1 << 20).expect("writable");
        let metadata = file.part().file().metadata().expect("a file");
        assert_eq!(metadata.len(), 1 << 20);
        let probe = File::create(dir.path().join("probe")).expect("writable");
        match fallocate(&probe, FallocateFlags::empty(), 0, 4096) {
            Ok(()) => assert!(metadata.blocks() * 512 >= 1 << 20, "{}", metadata.blocks()),
            // What cannot be done here is not asked for.
            Err(errno) => assert_eq!(errno, Errno::EOPNOTSUPP),
        }
    }

    #[test]
    fn a_file_that_is_not_finished_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        drop(DirectPart::create(&dir.path().join("tree"), 4096).expect("writable"));
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
    }
}
