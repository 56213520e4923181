//! Slots of a file that processes hold, through an open file description: what a counting
//! semaphore between processes is made of.
//!
//! A slot is one byte of the file, held by the kernel's lock on it (fcntl's `F_OFD_SETLK`). The
//! lock belongs to the open file description, which a child inherits: it ends when it is released
//! or when the last process that has the description is gone, however that one ends. Nothing is
//! ever left locked and nobody has to clean up.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use crate::{FileError, lock_failed};

/// What helps where a runtime directory's file system cannot lock.
const ELSEWHERE: &str = "choose a runtime directory on a local file system, by SEAL_RUNTIME_DIR";

/// An open file description of a file of slots.
#[derive(Debug)]
pub struct Slots {
    file: File,
    path: PathBuf,
}

impl Slots {
    /// Opens the file, making it if it is not there. A symbolic link in its place is an error.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(FileError::of("open", path))?;
        Ok(Self { file, path: path.to_path_buf() })
    }

    /// The slots of an open file.
    pub(crate) fn of(file: File, path: PathBuf) -> Self {
        Self { file, path }
    }

    /// The same after its file was given another name.
    pub(crate) fn renamed(self, path: PathBuf) -> Self {
        Self { path, ..self }
    }

    /// Opens the file only to see which slots are held; `None` if it is not there.
    pub fn open_to_look(path: &Path) -> Result<Option<Self>, FileError> {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path);
        match opened {
            Ok(file) => Ok(Some(Self { file, path: path.to_path_buf() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FileError::of("open", path)(error)),
        }
    }

    /// Takes a slot that this description does not have. Returns whether it was free.
    pub fn try_take(&self, slot: u32) -> Result<bool, FileError> {
        self.ask_for(slot).map_err(lock_failed(&self.path, ELSEWHERE))
    }

    /// [`try_take`](Self::try_take) with the error as the kernel tells it.
    pub(crate) fn ask_for(&self, slot: u32) -> io::Result<bool> {
        let wanted = region(slot, 1, libc::F_WRLCK);
        match self.call(FcntlArg::F_OFD_SETLK(&wanted)) {
            Ok(()) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Releases a slot for everybody who has this description.
    pub fn release(&self, slot: u32) -> Result<(), FileError> {
        let region = region(slot, 1, libc::F_UNLCK);
        self.call(FcntlArg::F_OFD_SETLK(&region))
            .map_err(|errno| FileError::of("unlock", &self.path)(errno.into()))
    }

    /// Which of the first `count` slots are held through other descriptions.
    pub fn held_by_others(&self, count: u32) -> Result<BTreeSet<u32>, FileError> {
        let mut held = BTreeSet::new();
        // The kernel tells any one lock in a range, not the first: what is left and right of it
        // is asked for in turn.
        let mut ranges = vec![(0, count)];
        while let Some((first, end)) = ranges.pop() {
            if first >= end {
                continue;
            }
            let mut found = region(first, end - first, libc::F_WRLCK);
            self.call(FcntlArg::F_OFD_GETLK(&mut found))
                .map_err(|errno| lock_failed(&self.path, ELSEWHERE)(errno.into()))?;
            if i32::from(found.l_type) == libc::F_UNLCK {
                continue;
            }
            // Neighbouring slots of one holder are told as one lock; length 0 is to the end.
            let start = u32::try_from(found.l_start).unwrap_or(0).clamp(first, end - 1);
            let after = match u32::try_from(found.l_len) {
                Ok(length @ 1..) => start.saturating_add(length).min(end),
                _ => end,
            };
            held.extend(start..after);
            ranges.push((first, start));
            ranges.push((after, end));
        }
        Ok(held)
    }

    /// Another descriptor of this description, to be given to a child.
    pub fn share(&self) -> Result<OwnedFd, FileError> {
        self.file
            .as_fd()
            .try_clone_to_owned()
            .map_err(FileError::of("duplicate the descriptor of", &self.path))
    }

    /// Whether the file is still the one under its name.
    pub fn is_in_place(&self) -> bool {
        crate::paths::is_in_place(&self.path, &self.file)
    }

    fn call(&self, argument: FcntlArg<'_>) -> nix::Result<()> {
        // Nothing here blocks, so a signal cannot interrupt it.
        fcntl(&self.file, argument).map(|_| ())
    }
}

/// The description of a lock on `length` slots from `start`.
fn region(start: u32, length: u32, kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or(i16::MAX),
        l_whence: 0,
        l_start: i64::from(start),
        l_len: i64::from(length),
        // Required to be 0 for locks of descriptions.
        l_pid: 0,
    }
}

/// An exclusive lock on a file for the time of a few system calls, waited for.
#[derive(Debug)]
pub struct Mutex {
    file: File,
    path: PathBuf,
}

/// Holds a [`Mutex`] until it is dropped.
#[derive(Debug)]
#[must_use = "the mutex is free when this is dropped"]
pub struct MutexGuard<'a>(&'a Mutex);

impl Mutex {
    /// Opens the file, making it if it is not there. A symbolic link in its place is an error.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let Slots { file, path } = Slots::open(path)?;
        Ok(Self { file, path })
    }

    /// Waits for the lock, but not longer than `patience`: whoever has it may be stopped.
    pub fn lock(&self, patience: std::time::Duration) -> Result<MutexGuard<'_>, FileError> {
        use std::fs::TryLockError;
        use std::time::{Duration, Instant};
        let begin = Instant::now();
        let mut pause = Duration::from_micros(50);
        loop {
            match self.file.try_lock() {
                Ok(()) => return Ok(MutexGuard(self)),
                Err(TryLockError::Error(error)) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(lock_failed(&self.path, ELSEWHERE)(error));
                }
                Err(_) => {}
            }
            if begin.elapsed() > patience {
                let held = io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("another process has held it for {patience:?}; is it stopped?"),
                );
                return Err(FileError::of("lock", &self.path)(held));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    /// Whether the file is still the one under its name: a lock on any other keeps nobody out.
    pub fn is_in_place(&self) -> bool {
        crate::paths::is_in_place(&self.path, &self.file)
    }
}

impl Drop for MutexGuard<'_> {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child that is just between fork and exec. An
        // error is harmless: the kernel unlocks at the latest when the process ends.
        let _ = self.0.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    fn scene() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("gpu.slots");
        (dir, path)
    }

    #[test]
    fn who_only_looks_sees_what_is_held_and_makes_nothing() {
        let (_dir, path) = scene();
        assert!(Slots::open_to_look(&path).expect("no trouble").is_none() && !path.exists());
        let holder = Slots::open(&path).expect("can be opened");
        assert!(holder.try_take(3).expect("lockable"));
        let looker = Slots::open_to_look(&path).expect("readable").expect("there");
        assert_eq!(looker.held_by_others(8).expect("readable"), BTreeSet::from([3]));
        assert!(looker.try_take(4).is_err(), "it was opened to look");
    }

    #[test]
    fn descriptions_exclude_each_other_slot_by_slot() {
        let (_dir, path) = scene();
        let [one, other, probe] = [(); 3].map(|()| Slots::open(&path).expect("can be opened"));
        for slot in [0, 1, 3] {
            assert!(one.try_take(slot).expect("lockable"));
        }
        assert!(!other.try_take(1).expect("lockable"));
        // In between, so that the locks lie in the file in another order than they were taken.
        for slot in [6, 2] {
            assert!(other.try_take(slot).expect("lockable"));
        }
        let held = |slots: &Slots, count| slots.held_by_others(count).expect("readable");
        assert_eq!(held(&probe, 8), [0, 1, 2, 3, 6].into());
        assert_eq!(held(&probe, 2), [0, 1].into());
        assert_eq!(held(&one, 8), [2, 6].into());
        one.release(1).expect("ours");
        assert_eq!(held(&probe, 8), [0, 2, 3, 6].into());
        drop(one);
        assert_eq!(held(&probe, 8), [2, 6].into());
    }

    #[test]
    fn a_slot_is_held_until_the_last_one_with_the_description_is_gone() {
        let (_dir, path) = scene();
        let (slots, probe) = (Slots::open(&path).expect("ok"), Slots::open(&path).expect("ok"));
        assert!(slots.try_take(2).expect("lockable"));
        let mut command = Command::new("sleep");
        command.arg("1000").stdin(Stdio::null());
        let inherited = vec![slots.share().expect("a descriptor")];
        let mut child = crate::spawn_in(command, &crate::Placement::default(), None, inherited)
            .expect("starts");
        drop(slots);
        assert_eq!(probe.held_by_others(9).expect("readable"), [2].into());
        child.kill().expect("ours");
        child.wait().expect("ours");
        assert!(probe.held_by_others(9).expect("readable").is_empty());
    }

    #[test]
    fn what_is_released_is_free_although_a_child_has_the_description_too() {
        let (_dir, path) = scene();
        let (slots, probe) = (Slots::open(&path).expect("ok"), Slots::open(&path).expect("ok"));
        let mut command = Command::new("sleep");
        command.arg("1000").stdin(Stdio::null());
        let inherited = vec![slots.share().expect("a descriptor")];
        let mut child = crate::spawn_in(command, &crate::Placement::default(), None, inherited)
            .expect("starts");
        // Taken and released while the child runs: it takes part without doing anything.
        assert!(slots.try_take(0).expect("lockable"));
        assert_eq!(probe.held_by_others(1).expect("readable"), [0].into());
        slots.release(0).expect("ours");
        assert!(probe.held_by_others(1).expect("readable").is_empty());
        child.kill().expect("ours");
        child.wait().expect("ours");
    }

    #[test]
    fn a_symbolic_link_is_refused() {
        let (dir, path) = scene();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).expect("writable");
        let error = Slots::open(&path).unwrap_err();
        assert_eq!(error.source.raw_os_error(), Some(libc::ELOOP));
        assert!(!dir.path().join("elsewhere").exists());
    }

    #[test]
    fn a_file_that_was_removed_or_replaced_is_noticed() {
        let (_dir, path) = scene();
        let slots = Slots::open(&path).expect("can be opened");
        assert!(slots.is_in_place());
        std::fs::remove_file(&path).expect("ours");
        assert!(!slots.is_in_place());
        let _other = Slots::open(&path).expect("can be opened");
        assert!(!slots.is_in_place());
    }

    #[test]
    fn a_mutex_is_not_waited_for_without_end() {
        let (_dir, path) = scene();
        let (one, other) = (Mutex::open(&path).expect("ok"), Mutex::open(&path).expect("ok"));
        let guard = one.lock(Duration::ZERO).expect("free");
        let error = other.lock(Duration::from_millis(5)).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::TimedOut);
        drop(guard);
        drop(other.lock(Duration::from_secs(5)).expect("free"));
    }
}
