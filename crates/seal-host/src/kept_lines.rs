//! A file of lines that several processes add to and that does not grow without end.
//!
//! Two files are kept, the present one and the one before it, each bounded. Nobody waits long for
//! another: a process that was stopped while it wrote must not hold up those that have found
//! something worth writing down.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;

use crate::FileError;

/// How long the present file gets.
const LONGEST: u64 = 256 << 10;

/// How often, and how far apart, the lock is tried before it is done without.
const TRIES: u32 = 20;
const APART: Duration = Duration::from_millis(50);

/// The lines kept at a path.
#[derive(Clone, Debug)]
pub struct KeptLines {
    path: PathBuf,
}

impl KeptLines {
    /// Those at `path`, which need not be there.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_path_buf() }
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line with its end; it is on disk when this returns.
    ///
    /// # Errors
    /// When the file cannot be written, or is something else than a file.
    pub fn add(&self, line: &[u8]) -> Result<(), FileError> {
        for _ in 0..TRIES {
            let mut file = self.open()?;
            lock(&file);
            // Another one has begun a new file meanwhile.
            if !is_at(&file, &self.path) {
                continue;
            }
            let length = file.metadata().map_err(FileError::of("examine", &self.path))?.len();
            if length > 0 && length + line.len() as u64 > LONGEST {
                let before = self.before();
                fs::rename(&self.path, &before).map_err(FileError::of("rename", &self.path))?;
                continue;
            }
            let mut whole = Vec::with_capacity(line.len() + 1);
            // A writer that was killed has left no end.
            if length > 0 && last_byte(&mut file).is_ok_and(|byte| byte != b'\n') {
                whole.push(b'\n');
            }
            whole.extend_from_slice(line);
            let written = file.write_all(&whole).and_then(|()| file.sync_data());
            return written.map_err(FileError::of("write", &self.path));
        }
        let error = io::Error::other("others replace it again and again");
        Err(FileError::of("write", &self.path)(error))
    }

    /// All lines, the oldest first; empty where nothing can be read.
    pub fn read(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        for path in [&self.before(), &self.path] {
            let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
            let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
            let Ok(file) = opened else { continue };
            if !file.metadata().is_ok_and(|found| found.is_file()) {
                continue;
            }
            // What cannot be read any more is as good as not there.
            let _ = file.take(2 * LONGEST).read_to_end(&mut lines);
            if lines.last().is_some_and(|byte| *byte != b'\n') {
                lines.push(b'\n');
            }
        }
        lines
    }

    /// The file before the present one.
    fn before(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".old");
        name.into()
    }

    fn open(&self) -> Result<File, FileError> {
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600).custom_flags(flags);
        let file = options.open(&self.path).map_err(FileError::of("open", &self.path))?;
        let found = file.metadata().map_err(FileError::of("examine", &self.path))?;
        if !found.is_file() {
            let error = io::Error::other("it is no regular file");
            return Err(FileError::of("write", &self.path)(error));
        }
        Ok(file)
    }
}

/// Locks the file, or does without: lines are added whole all the same, and at worst one of two
/// that begin a new file at once is lost with the one before it.
fn lock(file: &File) {
    for _ in 0..TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(APART),
            _ => return,
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
    let own = file.metadata().map(identity);
    matches!((own, path.symlink_metadata().map(identity)), (Ok(own), Ok(there)) if own == there)
}

fn last_byte(file: &mut File) -> io::Result<u8> {
    let mut byte = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut byte)?;
    Ok(byte[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_in_their_order_also_after_one_that_was_cut() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let lines = KeptLines::at(&dir.path().join("lines"));
        assert!(lines.read().is_empty());
        lines.add(b"one\n").expect("writable");
        let mut file = OpenOptions::new().append(true).open(lines.path()).expect("there");
        file.write_all(b"cu").expect("writable");
        lines.add(b"two\n").expect("writable");
        assert_eq!(lines.read(), b"one\ncu\ntwo\n");
        let mode = fs::metadata(lines.path()).expect("there").mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn two_bounded_files_are_kept_and_the_latest_lines_are_there() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let lines = KeptLines::at(&dir.path().join("lines"));
        let line = |number: u32| format!("{number} {}\n", "x".repeat(20_000));
        for number in 0..60 {
            lines.add(line(number).as_bytes()).expect("writable");
        }
        let text = String::from_utf8(lines.read()).expect("ASCII");
        assert!(text.len() as u64 <= 2 * LONGEST, "{}", text.len());
        assert!(text.len() as u64 > LONGEST, "{}", text.len());
        assert!(text.ends_with(&line(59)) && text.contains(&line(48)));
        assert!(!text.contains(&line(20)));
    }

    #[test]
    fn a_link_or_directory_in_its_place_is_an_error_and_never_followed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (link, other) = (dir.path().join("link"), dir.path().join("other"));
        std::os::unix::fs::symlink(&other, &link).expect("writable");
        assert!(KeptLines::at(&link).add(b"x\n").is_err());
        assert!(!other.exists());
        assert!(KeptLines::at(dir.path()).add(b"x\n").is_err());
        assert!(KeptLines::at(dir.path()).read().is_empty());
    }

    #[test]
    fn one_who_holds_the_lock_and_sleeps_holds_nobody_up() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let lines = KeptLines::at(&dir.path().join("lines"));
        lines.add(b"one\n").expect("writable");
        let held = File::open(lines.path()).expect("there");
        held.lock().expect("lockable");
        lines.add(b"two\n").expect("writable all the same");
        assert_eq!(lines.read(), b"one\ntwo\n");
    }

    #[test]
    fn several_who_add_at_once_lose_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let lines = KeptLines::at(&dir.path().join("lines"));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let lines = lines.clone();
                scope.spawn(move || {
                    for number in 0..25 {
                        let line = format!("{thread} {number} {}\n", "x".repeat(1000));
                        lines.add(line.as_bytes()).expect("writable");
                    }
                });
            }
        });
        let text = String::from_utf8(lines.read()).expect("ASCII");
        assert_eq!(text.lines().filter(|line| line.ends_with('x')).count(), 100);
    }
}
