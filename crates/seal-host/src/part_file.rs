//! Files that get their name when they are complete and on disk.
//!
//! What is renamed is what was written. A part has a name that nobody can know before it is there,
//! is made exclusively and never through a link, and is locked as long as its writer lives. Before
//! it gets its name, the part's path is compared with the file that was written: if somebody has
//! put something else there, that is an error and not a file of unknown content under a good name.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::inputs::wrong_kind;
use crate::{FileError, parent_of, remove_if_there, sync_dir};

/// Every part ends so.
const END: &str = ".part";
/// Digits that make a part's name its own.
const DIGITS: usize = 16;
/// The longest name of a file (NAME_MAX).
const LONGEST_NAME: usize = 255;
/// Names that are tried. One is taken only by chance, or by somebody who removes parts just then.
const TRIES: u32 = 16;
/// On a file system without locks, a part that nobody has written to for so long is left behind.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// A file that is written under a hidden name (`.NAME.0123456789abcdef.part`) and gets its own
/// name when it is complete and on disk. Dropped before that, it is removed.
///
/// A file that is there keeps its mode.
#[derive(Debug)]
pub struct PartFile {
    file: File,
    part: PathBuf,
    target: PathBuf,
    /// The mode of the file that is there.
    mode: Option<u32>,
    finished: bool,
}

impl PartFile {
    /// Starts the file that will be called `target`, which stays as it is until
    /// [`PartFile::finish`]. A symbolic link there is replaced and not followed. Parts of the same
    /// file that nobody writes any more are removed.
    pub fn create(target: &Path) -> Result<Self, FileError> {
        let name = name_of(target)?;
        let mode = mode_of(target)?;
        let mut tried = 0;
        let (file, part) = loop {
            let part = target.with_file_name(new_part_name(name));
            tried += 1;
            match create_locked(&part, mode) {
                Ok(Some(file)) => break (file, part),
                Ok(None) if tried < TRIES => {}
                Ok(None) => {
                    let text = "somebody else removes or takes every name that is tried";
                    return Err(FileError::of("create", &part)(io::Error::other(text)));
                }
                Err(error) => return Err(FileError::of("create", &part)(error)),
            }
        };
        let created = Self { file, part, target: target.to_path_buf(), mode, finished: false };
        // What cannot be removed takes space and does nothing else.
        if let Err(error) = created.remove_others() {
            tracing::debug!(%error, "cannot look for parts that were left behind");
        }
        Ok(created)
    }

    /// Removes what a killed process has left of the file that would be called `target`. It counts
    /// as used space until then, so this comes before any look at how much is free. What somebody
    /// holds stays.
    pub fn remove_stale(target: &Path) -> Result<(), FileError> {
        let name = name_of(target)?;
        remove_stale_parts(parent_of(target), |of| of == name)
    }

    fn remove_others(&self) -> Result<(), FileError> {
        let name = name_of(&self.target)?;
        let own = self.part.file_name();
        remove_parts(parent_of(&self.target), |part, of| of == name && Some(part) != own)
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
        self.rename()?;
        sync_dir(parent_of(&self.target))
    }

    /// Gives the file its name and returns it, still locked: for what means nothing after the
    /// machine has stopped, which need not be brought to disk.
    pub fn finish_unsynced(mut self) -> Result<File, FileError> {
        self.rename()?;
        self.file.try_clone().map_err(FileError::of("duplicate the descriptor of", &self.target))
    }

    fn rename(&mut self) -> Result<(), FileError> {
        self.keep_mode();
        if !is_at(&self.file, &self.part).map_err(FileError::of("query", &self.part))? {
            // Not ours to remove either.
            self.finished = true;
            let text = format!(
                "another file lies there than the one that was written for {}: another process is \
                 at work in this directory; end it and do this again",
                self.target.display()
            );
            return Err(FileError::of("rename", &self.part)(io::Error::other(text)));
        }
        fs::rename(&self.part, &self.target).map_err(FileError::of("rename", &self.part))?;
        self.finished = true;
        Ok(())
    }

    /// Gives it the mode of the file that it replaces.
    fn keep_mode(&self) {
        let now = mode_of(&self.target).ok().flatten();
        let Some(mode) = now.or(self.mode) else { return };
        let same = self.file.metadata().is_ok_and(|meta| meta.mode() & 0o7777 == mode);
        if !same && let Err(error) = self.file.set_permissions(Permissions::from_mode(mode)) {
            tracing::warn!(
                path = %self.target.display(), mode = format!("{mode:o}"), %error,
                "the file cannot be given the mode that it had; others may not be able to read it"
            );
        }
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let removed = match is_at(&self.file, &self.part) {
            Ok(true) => remove_if_there(&self.part),
            // Somebody else has moved it away, and what lies there now is not ours.
            Ok(false) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(FileError::of("query", &self.part)(error)),
        };
        if let Err(error) = removed {
            tracing::warn!(%error, "a temporary file is left behind");
        }
    }
}

/// Makes the file `part` and locks it. `None` if the name was taken, or if somebody who removes
/// parts was quicker than the lock.
fn create_locked(part: &Path, mode: Option<u32>) -> io::Result<Option<File>> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        // Nobody may read the new content who may not read the old one.
        .mode(if mode.is_some() { 0o600 } else { 0o666 })
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(part);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => {
            // Who needs locks has asked for one before. The name is this part's own all the same.
            tracing::debug!(path = %part.display(), %error, "a part without a lock");
        }
    }
    match is_at(&file, part) {
        Ok(true) => Ok(Some(file)),
        Ok(false) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes parts in `dir` that nobody holds and whose files `is_one` accepts by their names. (Of a
/// very long name it gets the beginning.)
pub fn remove_stale_parts(dir: &Path, is_one: impl Fn(&OsStr) -> bool) -> Result<(), FileError> {
    remove_parts(dir, |_, of| is_one(of))
}

fn remove_parts(dir: &Path, is_one: impl Fn(&OsStr, &OsStr) -> bool) -> Result<(), FileError> {
    for entry in fs::read_dir(dir).map_err(FileError::of("list", dir))? {
        let name = entry.map_err(FileError::of("list", dir))?.file_name();
        if part_target(&name).is_some_and(|of| is_one(&name, of)) {
            remove_stale_part(&dir.join(&name))?;
        }
    }
    Ok(())
}

/// Removes the part at `path` unless somebody holds it. Returns whether it is gone.
pub fn remove_stale_part(path: &Path) -> Result<bool, FileError> {
    let found = match path.symlink_metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(FileError::of("query", path)(error)),
    };
    if found.is_dir() {
        return Ok(false);
    }
    if !found.is_file() {
        // A link or a FIFO: nobody writes a part in it.
        return remove_if_there(path).map(|()| true);
    }
    // Locks of some network file systems are for those who may write.
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    // Another user's, who alone can tell.
    let Ok(file) = opened else { return Ok(false) };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            tracing::debug!(path = %path.display(), "a part that another process holds");
            return Ok(false);
        }
        Err(TryLockError::Error(_)) if !is_abandoned(&found) => return Ok(false),
        Err(TryLockError::Error(_)) => {}
    }
    if !is_at(&file, path).unwrap_or(false) {
        return Ok(false);
    }
    tracing::debug!(path = %path.display(), "removing what a killed process has left");
    // Under the lock, so that whoever has just made it finds out.
    remove_if_there(path).map(|()| true)
}

/// Whether nobody has written to a file for a long time.
fn is_abandoned(found: &fs::Metadata) -> bool {
    let age = found.modified().ok().and_then(|at| at.elapsed().ok());
    age.is_some_and(|age| age > ABANDONED_AFTER)
}

/// Whether `file` is what lies at `path`, which may not be a link to it.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (held, there) = (file.metadata()?, path.symlink_metadata()?);
    Ok((held.dev(), held.ino()) == (there.dev(), there.ino()))
}

/// The mode of the file at `target`, if there is one. What cannot be replaced by a file, or should
/// not be, is an error: a directory, a FIFO, a device.
fn mode_of(target: &Path) -> Result<Option<u32>, FileError> {
    match target.symlink_metadata() {
        Ok(meta) if meta.is_symlink() => Ok(None),
        Ok(meta) if meta.is_file() => Ok(Some(meta.mode() & 0o7777)),
        Ok(meta) => Err(wrong_kind(target, &meta, "a regular file that could be replaced")),
        // What it may be is told when the part is made.
        Err(_) => Ok(None),
    }
}

/// The last part of `target`, as far as the name of its part has room for it.
fn name_of(target: &Path) -> Result<&OsStr, FileError> {
    let name = target.file_name().ok_or_else(|| FileError {
        verb: "create",
        path: target.to_path_buf(),
        source: io::Error::from(io::ErrorKind::InvalidInput),
    })?;
    let room = LONGEST_NAME - DIGITS - END.len() - 2;
    Ok(OsStr::from_bytes(&name.as_bytes()[..name.len().min(room)]))
}

/// A name for a part of the file `name` that nobody can guess.
fn new_part_name(name: &OsStr) -> OsString {
    // Keyed with random bytes of the operating system, and never twice the same in a process.
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    let digits = format!("{:0DIGITS$x}", hasher.finish());
    let bytes = [b".", name.as_bytes(), b".", digits.as_bytes(), END.as_bytes()].concat();
    OsString::from_vec(bytes)
}

/// The name of the file whose part is called `part`, or `None` if that is no name of a part. Parts
/// of earlier versions have no digits.
pub fn part_target(part: &OsStr) -> Option<&OsStr> {
    let middle = part.as_bytes().strip_prefix(b".")?.strip_suffix(END.as_bytes())?;
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let own = middle.len().checked_sub(DIGITS + 1).map(|at| middle.split_at(at)).filter(
        |(name, digits)| !name.is_empty() && digits[0] == b'.' && digits[1..].iter().all(is_digit),
    );
    let name = own.map_or(middle, |(name, _)| name);
    (!name.is_empty()).then(|| OsStr::from_bytes(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read_dir_names;
    use std::os::unix::fs::symlink;

    fn names(dir: &Path) -> Vec<String> {
        read_dir_names(dir).expect("readable")
    }

    fn parts(dir: &Path) -> usize {
        names(dir).iter().filter(|name| name.ends_with(END)).count()
    }

    #[test]
    fn a_part_file_has_its_name_only_when_it_is_complete() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("layer");
        let mut part = PartFile::create(&target).expect("writable");
        part.write_all(b"half").expect("writable");
        assert!(!target.exists());
        assert_eq!(parts(dir.path()), 1);
        part.finish().expect("writable");
        assert_eq!(names(dir.path()), ["layer"]);
        assert_eq!(fs::read(&target).expect("readable"), b"half");
    }

    #[test]
    fn a_dropped_part_file_leaves_nothing_and_the_old_file_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("layer");
        fs::write(&target, "old").expect("writable");
        drop(PartFile::create(&target).expect("writable"));
        assert_eq!(names(dir.path()), ["layer"]);
        assert_eq!(fs::read(&target).expect("readable"), b"old");
    }

    #[test]
    fn what_a_killed_process_left_goes_and_the_file_itself_stays() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("layer");
        let left = ["layer", ".layer.part", ".layer.0123456789abcdef.part", ".other.part"];
        for create in [false, true] {
            for name in left {
                fs::write(dir.path().join(name), "old").expect("writable");
            }
            if create {
                drop(PartFile::create(&target).expect("writable"));
            } else {
                PartFile::remove_stale(&target).expect("writable");
            }
            assert_eq!(names(dir.path()), [".other.part", "layer"]);
        }
    }

    #[test]
    fn a_part_that_somebody_holds_is_never_removed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("layer");
        let mut one = PartFile::create(&target).expect("writable");
        one.write_all(b"one").expect("writable");
        let mut other = PartFile::create(&target).expect("writable");
        assert_ne!(one.part_path(), other.part_path());
        other.write_all(b"other").expect("writable");
        PartFile::remove_stale(&target).expect("readable");
        assert_eq!(parts(dir.path()), 2);
        one.finish().expect("its own");
        assert_eq!(fs::read(&target).expect("readable"), b"one");
        other.finish().expect("its own");
        assert_eq!(fs::read(&target).expect("readable"), b"other");
        assert_eq!(names(dir.path()), ["layer"]);
    }

    #[test]
    fn what_another_process_put_in_the_place_of_a_part_gets_no_name() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("tree");
        type Swap = fn(&Path);
        let swaps: [Swap; 3] = [
            |part| {
                fs::remove_file(part).expect("there");
                fs::write(part, "of another").expect("writable");
            },
            |part| {
                let aside = part.with_file_name("aside");
                fs::rename(part, &aside).expect("there");
                symlink(aside, part).expect("writable");
            },
            |part| {
                fs::write(part.with_file_name("new"), "of another").expect("writable");
                fs::rename(part.with_file_name("new"), part).expect("writable");
            },
        ];
        for swap in swaps {
            fs::write(&target, "old").expect("writable");
            let mut part = PartFile::create(&target).expect("writable");
            part.write_all(b"mine").expect("writable");
            let path = part.part_path().to_path_buf();
            swap(&path);
            let error = part.finish().expect_err("another file");
            assert_eq!(error.to_string(), format!("cannot rename {}", path.display()));
            let reason = error.source.to_string();
            assert!(reason.contains("another process is at work"), "{reason}");
            assert!(reason.contains(&*target.to_string_lossy()), "{reason}");
            assert_eq!(fs::read(&target).expect("readable"), b"old");
            assert!(path.symlink_metadata().is_ok(), "what is another's is not removed");
            fs::remove_file(&path).expect("there");
        }
        let part = PartFile::create(&target).expect("writable");
        fs::remove_file(part.part_path()).expect("there");
        part.finish().expect_err("it is gone");
        assert_eq!(fs::read(&target).expect("readable"), b"old");
    }

    #[test]
    fn the_mode_of_a_file_that_is_there_is_kept() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("sealed");
        for mode in [0o600, 0o640, 0o400, 0o664, 0o2750] {
            fs::write(&target, "old").expect("writable");
            fs::set_permissions(&target, Permissions::from_mode(mode)).expect("ours");
            let part = PartFile::create(&target).expect("writable");
            let of_part = part.file().metadata().expect("open").mode();
            assert_eq!(of_part & 0o077, 0, "nobody else reads it before");
            part.finish().expect("writable");
            assert_eq!(fs::metadata(&target).expect("there").mode() & 0o7777, mode);
            fs::remove_file(&target).expect("ours");
        }
    }

    #[test]
    fn links_at_names_of_our_own_are_replaced_and_not_followed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (target, victim) = (dir.path().join("stamp"), dir.path().join("victim"));
        fs::write(&victim, "precious").expect("writable");
        symlink(&victim, &target).expect("writable");
        symlink(&victim, dir.path().join(".stamp.part")).expect("writable");
        let mut part = PartFile::create(&target).expect("writable");
        part.write_all(b"new").expect("writable");
        part.finish().expect("writable");
        assert_eq!(fs::read(&victim).expect("readable"), b"precious");
        assert_eq!(names(dir.path()), ["stamp", "victim"]);
        assert!(target.symlink_metadata().expect("there").is_file());
    }

    #[test]
    fn names_of_parts_are_told_and_are_never_the_same() {
        let name = |name: &str| part_target(OsStr::new(name)).map(|of| of.to_owned());
        let of = |name: &str| Some(OsString::from(name));
        assert_eq!(name(".layer.part"), of("layer"));
        assert_eq!(name(".layer.0123456789abcdef.part"), of("layer"));
        assert_eq!(name("..seal-exec.json.0123456789abcdef.part"), of(".seal-exec.json"));
        assert_eq!(name(".layer.0123456789abcdeF.part"), of("layer.0123456789abcdeF"));
        for no_part in [".part", "..part", "layer.part", ".layer.part.bak", ".layer", ""] {
            let found = name(no_part);
            assert!(found.is_none() || no_part == "..part", "{no_part}: {found:?}");
        }
        let long = "x".repeat(LONGEST_NAME);
        for target in ["layer", "a.b", &long] {
            let target = Path::new(target);
            let short = name_of(target).expect("a name");
            let (one, other) = (new_part_name(short), new_part_name(short));
            assert_ne!(one, other);
            assert!(one.len() <= LONGEST_NAME);
            assert_eq!(part_target(&one), Some(short));
        }
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (fifo, below) = (dir.path().join("fifo"), dir.path().join("directory"));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("writable");
        fs::create_dir(&below).expect("writable");
        for path in [fifo.as_path(), &below, Path::new("/dev/null")] {
            let error = PartFile::create(path).expect_err("no file");
            assert!(error.wrong_kind().is_some(), "{error}: {}", error.source);
            assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
        }
        assert_eq!(names(dir.path()), ["directory", "fifo"]);
    }

    #[test]
    fn files_with_the_longest_name_and_none_but_a_name_can_be_made() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let target = dir.path().join("x".repeat(LONGEST_NAME));
        PartFile::create(&target).expect("writable").finish().expect("writable");
        assert!(target.exists());
        assert_eq!(PartFile::create(Path::new("/")).unwrap_err().to_string(), "cannot create /");
    }
}
