//! Who lives: a file on which a living process holds the kernel's lock.
//!
//! The lock is one of an open file description (`F_OFD_SETLK`, see [`Slots`](crate::Slots)), on a
//! file that only its user can open for writing. The kernel releases it when the process ends,
//! however that happens, and never before; no number is compared that could be used again, look
//! different in another namespace, or fail to be read. The descriptor is closed on exec, so what
//! the process starts does not keep it alive. Whoever wants to know asks the kernel for the lock
//! (`F_OFD_GETLK`) without taking it, so a look disturbs nobody.
//!
//! What cannot be read says nothing, and counts as alive: to wait for the dead costs time, to end
//! the living costs a sector.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::{FileError, Slots};

/// This process's sign of life: others see it as long as this is held.
#[derive(Debug)]
#[must_use = "the sign of life ends when this is dropped"]
pub struct Alive {
    held: Slots,
}

/// What a file tells of who held it.
#[derive(Debug)]
pub enum Life {
    /// It is held.
    Lives,
    /// It is there and nobody holds it, so its process has ended.
    Ended,
    /// Nothing is known, which must be taken for life: it is not there, or cannot be asked.
    Unknown(FileError),
}

impl Alive {
    /// Makes the file at `path` with `text` in it. It is held from the first moment at which it can
    /// be seen under its name. The name must be nobody else's.
    pub fn begin(path: &Path, text: &str) -> Result<Self, FileError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let part = path.with_file_name(format!(".{name}.part"));
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&part);
        let mut file = opened.map_err(FileError::of("create", &part))?;
        file.write_all(text.as_bytes()).map_err(FileError::of("write", &part))?;
        let held = Slots::of(file, part.clone());
        if !held.try_take(0)? {
            let held = io::Error::from(io::ErrorKind::WouldBlock);
            return Err(FileError::of("lock", &part)(held));
        }
        fs::rename(&part, path).map_err(FileError::of("rename", &part))?;
        Ok(Self { held: held.renamed(path.to_path_buf()) })
    }

    /// Takes over a file that is there, for one who makes use of it or is to remove it. `None` if
    /// somebody holds it.
    pub fn claim(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        let held = Slots::of(file, path.to_path_buf());
        let taken = held.ask_for(0)?;
        Ok(taken.then_some(Self { held }))
    }

    /// Whether the file is still the one under its name: somebody may have removed the directory.
    pub fn is_in_place(&self) -> bool {
        self.held.is_in_place()
    }
}

/// What the file at `path` tells.
pub fn life_at(path: &Path) -> Life {
    let looked = Slots::open_to_look(path).and_then(|found| match found {
        Some(slots) => slots.held_by_others(1),
        None => Err(FileError::of("find", path)(io::ErrorKind::NotFound.into())),
    });
    match looked {
        Ok(held) if held.is_empty() => Life::Ended,
        Ok(_) => Life::Lives,
        Err(error) => Life::Unknown(error),
    }
}

/// A name that no other process has: its number, for people, and chance.
pub fn unlike_others() -> String {
    use std::hash::{BuildHasher, Hasher};
    // The standard library seeds these from the kernel's randomness.
    let chance = std::hash::RandomState::new().build_hasher().finish();
    format!("s{}-{chance:016x}", std::process::id())
}

/// Whether [`unlike_others`] makes such names.
pub fn is_unlike_others(name: &str) -> bool {
    let parts = name.strip_prefix('s').and_then(|rest| rest.split_once('-'));
    parts.is_some_and(|(pid, chance)| {
        pid.parse::<u32>().is_ok() && chance.len() == 16 && u64::from_str_radix(chance, 16).is_ok()
    })
}

/// The names in a directory of such files.
pub fn lives_in(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_unlike_others));
    named.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};

    use super::*;

    fn lives(path: &Path) -> bool {
        !matches!(life_at(path), Life::Ended)
    }

    #[test]
    fn who_holds_the_file_lives_and_a_look_takes_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join(unlike_others());
        let alive = Alive::begin(&path, "text").expect("writable");
        for _ in 0..3 {
            assert!(matches!(life_at(&path), Life::Lives));
        }
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "others could lock what they can open");
        assert_eq!(fs::read_to_string(&path).expect("readable"), "text");
        assert!(Alive::claim(&path).expect("readable").is_none());
        assert_eq!(lives_in(dir.path()), std::slice::from_ref(&path), "nothing else is left there");
        drop(alive);
        // What another test starts just now has the description until it is executed.
        let begin = std::time::Instant::now();
        while lives(&path) && begin.elapsed().as_secs() < 60 {
            std::thread::yield_now();
        }
        assert!(matches!(life_at(&path), Life::Ended));
        let claimed = Alive::claim(&path).expect("readable").expect("free");
        assert!(lives(&path) && claimed.is_in_place());
        fs::remove_file(&path).expect("ours");
        assert!(!claimed.is_in_place());
    }

    #[test]
    fn what_a_process_starts_does_not_keep_it_alive() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("one");
        let alive = Alive::begin(&path, "").expect("writable");
        let mut command = Command::new("sleep");
        command.arg("1000").stdin(Stdio::null());
        let mut child =
            crate::spawn_in(command, &crate::Placement::default(), None, Vec::new()).expect("runs");
        drop(alive);
        let begin = std::time::Instant::now();
        while lives(&path) && begin.elapsed().as_secs() < 60 {
            std::thread::yield_now();
        }
        assert!(!lives(&path), "the child would be taken for its parent");
        child.kill().expect("ours");
        child.wait().expect("ours");
    }

    #[test]
    fn what_cannot_be_asked_is_not_taken_for_dead() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let gone = life_at(&dir.path().join("gone"));
        assert!(matches!(gone, Life::Unknown(error) if error.path.ends_with("gone")));
        let link = dir.path().join("link");
        fs::write(dir.path().join("free"), "").expect("writable");
        std::os::unix::fs::symlink("free", &link).expect("writable");
        assert!(matches!(life_at(&link), Life::Unknown(_)), "a link says nothing of a process");
        // ENOTDIR stands for whatever else keeps a file from being opened.
        assert!(matches!(life_at(&dir.path().join("free/x")), Life::Unknown(_)));
    }

    #[test]
    fn names_are_nobody_elses_and_known_again() {
        let (one, other) = (unlike_others(), unlike_others());
        assert!(one != other && is_unlike_others(&one), "{one} {other}");
        for name in ["", "s", "s1-", "1-0123456789abcdef", "s1-0123456789abcde", "77-30-100"] {
            assert!(!is_unlike_others(name), "{name}");
        }
    }
}
