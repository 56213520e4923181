//! I/O errors that name the path and the verb, and what is done with files and directories.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::open_dir;

/// An I/O error with what was being done to which path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {}", path.display())]
pub struct FileError {
    /// What was being done: `read`, `create`, `rename` …
    pub verb: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the operating system says.
    #[source]
    pub source: io::Error,
}

impl FileError {
    /// An adapter for `map_err`.
    pub fn of(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self { verb, path, source: crate::file_size::told(source) }
    }

    /// Whether the file system was full, or the user's quota used up.
    pub fn is_no_space(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Whether the disk or its file system cannot give the content back, now or later. Whatever else
    /// fails, such as for want of memory or descriptors, says nothing of the content.
    pub fn is_of_disk(&self) -> bool {
        const OF_DISK: [i32; 3] = [libc::EIO, libc::EBADMSG, libc::EUCLEAN];
        self.source.raw_os_error().is_some_and(|code| OF_DISK.contains(&code))
    }
}

/// Brings a directory's entries to disk.
pub fn sync_dir(dir: &Path) -> Result<(), FileError> {
    open_dir(dir)?.sync_all().map_err(FileError::of("sync", dir))
}

/// Removes a file; that there is none is no error.
pub fn remove_if_there(path: &Path) -> Result<(), FileError> {
    let is_there = || {
        // A read-only file system refuses to remove even what is not there.
        !path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound && is_there() => {
            Err(FileError::of("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// The names in a directory that are valid UTF-8, sorted. Others cannot be ours.
pub fn read_dir_names(dir: &Path) -> Result<Vec<String>, FileError> {
    let entries = fs::read_dir(dir).map_err(FileError::of("list", dir))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(FileError::of("list", dir))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Copies exactly `length` bytes from `source` to `sink`, filling with zeros what the source does
/// not have. Calls `at` with the number of bytes done after each block; it may stop the copy.
///
/// Returns how many bytes came from the source, or `None` if `at` stopped it.
pub fn copy_exact(
    source: (&mut dyn Read, &Path),
    sink: (&mut dyn Write, &Path),
    length: u64,
    at: &mut dyn FnMut(u64) -> std::ops::ControlFlow<()>,
) -> Result<Option<u64>, FileError> {
    const BLOCK: usize = 4 << 20;
    let mut block = vec![0; BLOCK.min(usize::try_from(length).unwrap_or(BLOCK))];
    let (mut done, mut real) = (0, 0);
    while done < length {
        let want = block.len().min(usize::try_from(length - done).unwrap_or(BLOCK));
        let got =
            read_full(source.0, &mut block[..want]).map_err(FileError::of("read", source.1))?;
        block[got..want].fill(0);
        sink.0.write_all(&block[..want]).map_err(FileError::of("write", sink.1))?;
        done += want as u64;
        real += got as u64;
        if at(done).is_break() {
            return Ok(None);
        }
    }
    Ok(Some(real))
}

/// Reads until `buffer` is full or the input ends.
fn read_full(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::ControlFlow;

    #[test]
    fn errors_name_verb_and_path() {
        let error = crate::open_input(Path::new("/no/such/file")).unwrap_err();
        assert_eq!(error.to_string(), "cannot open /no/such/file");
        let error = crate::PartFile::create(Path::new("/no/such/dir/file")).unwrap_err();
        assert!(error.to_string().starts_with("cannot create /no/such/dir/.file."), "{error}");
    }

    #[test]
    fn a_short_source_is_filled_with_zeros_and_a_long_one_cut() {
        let copy = |source: &[u8], length| {
            let mut sink = Vec::new();
            let real = copy_exact(
                (&mut &source[..], Path::new("in")),
                (&mut sink, Path::new("out")),
                length,
                &mut |_| ControlFlow::Continue(()),
            );
            (real.expect("memory cannot fail"), sink)
        };
        assert_eq!(copy(b"abc", 5), (Some(3), b"abc\0\0".to_vec()));
        assert_eq!(copy(b"abcdef", 4), (Some(4), b"abcd".to_vec()));
    }

    #[test]
    fn a_copy_can_be_stopped() {
        let (mut source, mut sink) = (io::repeat(1), io::sink());
        let got = copy_exact(
            (&mut source, Path::new("in")),
            (&mut sink, Path::new("out")),
            u64::MAX,
            &mut |_| ControlFlow::Break(()),
        );
        assert_eq!(got.expect("memory cannot fail"), None);
    }
}
