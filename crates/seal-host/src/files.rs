//! Files that appear whole or not at all, and I/O errors that name the path and the verb.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

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
}

/// A file that is written under a hidden name (`.NAME.part`) and gets its own name when it is
/// complete and on disk. Dropped before that, it is removed.
#[derive(Debug)]
pub struct PartFile {
    file: File,
    part: PathBuf,
    target: PathBuf,
    finished: bool,
}

impl PartFile {
    /// Starts the file that will be called `target`. An older temporary of the same name is
    /// replaced; the target itself stays as it is until [`PartFile::finish`].
    pub fn create(target: &Path) -> Result<Self, FileError> {
        let part = part_of(target)?;
        remove_if_there(&part)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&part)
            .map_err(FileError::of("create", &part))?;
        Ok(Self { file, part, target: target.to_path_buf(), finished: false })
    }

    /// Removes what a killed process has left of the file that would be called `target`. It counts
    /// as used space until then, so this comes before any look at how much is free. Only for one
    /// who knows that nobody else writes that file.
    pub fn remove_stale(target: &Path) -> Result<(), FileError> {
        remove_if_there(&part_of(target)?)
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The name it has for now.
    pub fn part_path(&self) -> &Path {
        &self.part
    }

    /// The name it will have.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Appends `bytes`.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.file.write_all(bytes).map_err(FileError::of("write", &self.part))
    }

    /// Brings everything to disk and gives the file its name.
    pub fn finish(mut self) -> Result<(), FileError> {
        self.file.sync_all().map_err(FileError::of("sync", &self.part))?;
        fs::rename(&self.part, &self.target).map_err(FileError::of("rename", &self.part))?;
        self.finished = true;
        match self.target.parent() {
            Some(dir) => sync_dir(dir),
            None => Ok(()),
        }
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = remove_if_there(&self.part)
        {
            tracing::warn!(%error, "a temporary file is left behind");
        }
    }
}

/// The hidden name under which `target` is written.
fn part_of(target: &Path) -> Result<PathBuf, FileError> {
    let name = target.file_name().ok_or_else(|| FileError {
        verb: "create",
        path: target.to_path_buf(),
        source: io::Error::from(io::ErrorKind::InvalidInput),
    })?;
    let mut part_name = std::ffi::OsString::from(".");
    part_name.push(name);
    part_name.push(".part");
    Ok(target.with_file_name(part_name))
}

/// Brings a directory's entries to disk.
pub fn sync_dir(dir: &Path) -> Result<(), FileError> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir).and_then(|file| file.sync_all()).map_err(FileError::of("sync", dir))
}

/// Opens a file for reading.
pub fn open_read(path: &Path) -> Result<File, FileError> {
    File::open(path).map_err(FileError::of("open", path))
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
    fn a_part_file_has_its_name_only_when_it_is_complete() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("layer");
        let mut part = PartFile::create(&target).expect("writable");
        part.write_all(b"half").expect("writable");
        assert!(!target.exists());
        assert_eq!(read_dir_names(dir.path()).expect("readable"), [".layer.part"]);
        part.finish().expect("writable");
        assert_eq!(read_dir_names(dir.path()).expect("readable"), ["layer"]);
        assert_eq!(fs::read(&target).expect("readable"), b"half");
    }

    #[test]
    fn a_dropped_part_file_leaves_nothing_and_the_old_file_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("layer");
        fs::write(&target, "old").expect("writable");
        drop(PartFile::create(&target).expect("writable"));
        assert_eq!(read_dir_names(dir.path()).expect("readable"), ["layer"]);
        assert_eq!(fs::read(&target).expect("readable"), b"old");
    }

    #[test]
    fn what_a_killed_process_left_goes_and_the_file_itself_stays() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("layer");
        for name in ["layer", ".layer.part", ".other.part"] {
            fs::write(dir.path().join(name), "old").expect("writable");
        }
        for _ in 0..2 {
            PartFile::remove_stale(&target).expect("writable");
            assert_eq!(read_dir_names(dir.path()).expect("readable"), [".other.part", "layer"]);
        }
    }

    #[test]
    fn errors_name_verb_and_path() {
        let error = open_read(Path::new("/no/such/file")).unwrap_err();
        assert_eq!(error.to_string(), "cannot open /no/such/file");
        let error = PartFile::create(Path::new("/no/such/dir/file")).unwrap_err();
        assert_eq!(error.to_string(), "cannot create /no/such/dir/.file.part");
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
