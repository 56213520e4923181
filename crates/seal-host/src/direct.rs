//! Large files past the page cache.
//!
//! A layer of labels is as large as the sector. Written through the page cache it would push out
//! the parents cache and leave gigabytes for the sync at the end, so it goes straight to the disk
//! in large aligned blocks. What a file system does not do that way is written as usual, and
//! brought to disk and dropped from the cache bit by bit.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, PosixFadviseAdvice, fcntl, posix_fadvise};

use crate::{FileError, PartFile, Region, open_input};

/// What direct writes must be aligned to, in memory, in the file and in length. No block device
/// in use has larger logical blocks.
pub(crate) const ALIGNMENT: usize = 4096;
/// Bytes that are copied at a time when they are not aligned in memory.
const BOUNCE: usize = 1 << 20;
/// Bytes in the page cache after which they are brought to disk and dropped.
pub(crate) const CACHED: u64 = 32 << 20;
/// Bytes read at a time.
const READ_BLOCK: usize = 4 << 20;

/// A [`PartFile`] that is written from its beginning to its end, past the page cache.
#[derive(Debug)]
pub struct DirectFile {
    part: PartFile,
    direct: bool,
    bounce: Option<Region>,
    written: u64,
    /// How much of it was brought to disk in buffered mode.
    synced: u64,
}

impl DirectFile {
    /// Starts the file that will be called `target`.
    pub fn create(target: &Path) -> Result<Self, FileError> {
        let part = PartFile::create(target)?;
        let direct = match set_direct(part.file(), true) {
            Ok(()) => true,
            Err(errno) => {
                tracing::debug!(path = %target.display(), %errno, "no direct I/O here");
                false
            }
        };
        Ok(Self { part, direct, bounce: None, written: 0, synced: 0 })
    }

    /// Whether the page cache is passed by.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// The name it has for now.
    pub fn part_path(&self) -> &Path {
        self.part.part_path()
    }

    /// Appends `bytes`. All blocks but the last should be multiples of 4096 bytes, and lie in
    /// memory at such a multiple; others are written too, but not as fast.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.write_some(rest) {
                Ok(0) => return Err(self.failed(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.written += count as u64;
                    rest = &rest[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if self.direct && is_refusal(&error) => {
                    tracing::debug!(path = %self.part_path().display(), %error, "direct I/O ends");
                    self.leave_direct()?;
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
        if !self.direct && self.written - self.synced >= CACHED {
            self.drop_cached()?;
        }
        Ok(())
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.direct {
            return self.part.file().write_at(bytes, self.written);
        }
        let whole = bytes.len() / ALIGNMENT * ALIGNMENT;
        if whole == 0 || !self.written.is_multiple_of(ALIGNMENT as u64) {
            return Err(Errno::EINVAL.into());
        }
        if bytes.as_ptr().addr().is_multiple_of(ALIGNMENT) {
            return self.part.file().write_at(&bytes[..whole], self.written);
        }
        let mut bounce = match self.bounce.take() {
            Some(bounce) => bounce,
            None => Region::anonymous(BOUNCE)?,
        };
        let count = whole.min(BOUNCE);
        bounce.bytes_mut()[..count].copy_from_slice(&bytes[..count]);
        let written = self.part.file().write_at(&bounce.bytes()[..count], self.written);
        self.bounce = Some(bounce);
        written
    }

    fn leave_direct(&mut self) -> Result<(), FileError> {
        self.direct = false;
        self.synced = self.written;
        set_direct(self.part.file(), false).map_err(|errno| self.failed(errno.into()))
    }

    fn drop_cached(&mut self) -> Result<(), FileError> {
        self.part.file().sync_data().map_err(FileError::of("sync", self.part_path()))?;
        forget(self.part.file(), self.synced, self.written);
        self.synced = self.written;
        Ok(())
    }

    fn failed(&self, error: io::Error) -> FileError {
        FileError::of("write", self.part_path())(error)
    }

    /// Brings everything to disk and gives the file its name.
    pub fn finish(self) -> Result<(), FileError> {
        self.part.finish()
    }
}

/// Reads the whole of `path`, block by block, without filling the page cache with it. `each` may
/// end the reading with an error of its own.
pub fn read_through<E: From<FileError>>(
    path: &Path,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let file = open_input(path)?;
    let length = file.metadata().map_err(FileError::of("query", path))?.len();
    // Advice: what the kernel makes of it changes no result.
    let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL);
    let mut block = vec![0; READ_BLOCK.min(usize::try_from(length).unwrap_or(READ_BLOCK)).max(1)];
    let mut done = 0;
    loop {
        let count = match file.read_at(&mut block, done) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(FileError::of("read", path)(error).into()),
        };
        forget(&file, done, done + count as u64);
        done += count as u64;
        each(&block[..count])?;
    }
}

fn set_direct(file: &File, on: bool) -> Result<(), Errno> {
    let mut flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_DIRECT, on);
    fcntl(file, FcntlArg::F_SETFL(flags)).map(drop)
}

/// Whether a direct write was refused as such: by alignment, or because the file system takes none.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    error
        .raw_os_error()
        .is_some_and(|code| [Errno::EINVAL, Errno::EOPNOTSUPP].contains(&Errno::from_raw(code)))
}

/// Lets the kernel drop a range from the page cache; it may decline.
pub(crate) fn forget(file: &File, from: u64, to: u64) {
    if let (Ok(from), Ok(length)) = (i64::try_from(from), i64::try_from(to - from)) {
        let _ = posix_fadvise(file, from, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Bytes of which no two blocks are alike.
    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect()
    }

    fn writes(data: &[u8], block: usize, buffered: bool) -> Vec<u8> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("layer");
        let mut file = DirectFile::create(&target).expect("writable");
        if buffered {
            file.leave_direct().expect("possible");
        }
        for bytes in data.chunks(block) {
            file.write_all(bytes).expect("writable");
        }
        assert!(!target.exists());
        file.finish().expect("writable");
        fs::read(&target).expect("readable")
    }

    #[test]
    fn the_file_is_what_was_written_whatever_the_alignment() {
        let mut region = Region::anonymous(3 * BOUNCE).expect("memory");
        let data = bytes(3 * BOUNCE);
        region.bytes_mut().copy_from_slice(&data);
        for (from, to, block) in [
            (0, data.len(), 1 << 20),
            (0, 2048, 4096),
            (0, 4096, 4096),
            (0, 4096 * 3 + 5, 4096),
            (0, 70_000, 1000),
            (32, 32 + 2 * BOUNCE, BOUNCE),
            (0, 0, 4096),
        ] {
            for buffered in [false, true] {
                let expected = &data[from..to];
                let found = writes(&region.bytes()[from..to], block, buffered);
                assert!(found == expected, "{from}..{to} by {block}, buffered: {buffered}");
            }
        }
    }

    #[test]
    fn the_page_cache_is_passed_by_where_that_can_be() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut file = DirectFile::create(&dir.path().join("layer")).expect("writable");
        let could = file.is_direct();
        let region = Region::anonymous(1 << 20).expect("memory");
        file.write_all(region.bytes()).expect("writable");
        assert_eq!(file.is_direct(), could, "aligned blocks do not end direct I/O");
        file.write_all(&[1; 100]).expect("writable");
        assert!(!file.is_direct(), "a tail does");
    }

    #[test]
    fn large_files_are_read_whole() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        for length in [0, 1, READ_BLOCK, READ_BLOCK + 7] {
            let data = bytes(length);
            fs::write(file.path(), &data).expect("writable");
            let mut found = Vec::new();
            let result = read_through(file.path(), |block| {
                found.extend_from_slice(block);
                Ok::<_, FileError>(())
            });
            result.expect("readable");
            assert!(found == data, "{length}");
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let result = read_through(Path::new("/no/such/file"), |_| Ok::<_, FileError>(()));
        assert_eq!(result.unwrap_err().to_string(), "cannot open /no/such/file");
    }

    #[test]
    fn a_full_device_is_told_as_such() {
        // Every write to it fails with ENOSPC.
        let file = File::options().write(true).open("/dev/full").expect("every Linux has it");
        let error = file.write_at(&[0], 0).unwrap_err();
        assert!(!is_refusal(&error), "{error}");
        assert!(FileError::of("write", Path::new("/dev/full"))(error).is_no_space());
    }
}
