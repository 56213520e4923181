//! What is done to a cgroup hierarchy's files, so that tests can stand in for the kernel.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::{Alive, ProcessHandle};

/// The files of a hierarchy.
pub(super) trait Files: Debug + Send + Sync {
    fn read(&self, path: &Path) -> io::Result<String>;
    /// Writes a value that is there already: the kernel makes the files of a group.
    fn write(&self, path: &Path, value: &str) -> io::Result<()>;
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// The names of the groups in a group.
    fn groups_in(&self, path: &Path) -> io::Result<Vec<String>>;
    /// The file to which a process writes `0` to get into the group.
    fn open_procs(&self, path: &Path) -> io::Result<File>;
    /// Takes the lock of a group, by which its owner is known to live. `None` if somebody has it.
    fn claim(&self, group: &Path) -> io::Result<Option<Alive>>;
    /// Ends those of the processes that are in `listed` once they are held: a number of one that
    /// has ended meanwhile may be another's.
    fn kill(&self, pids: &[i32], listed: &dyn Fn() -> Vec<i32>);
}

/// The kernel's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernel;

impl Files for Kernel {
    fn read(&self, path: &Path) -> io::Result<String> {
        fs::read_to_string(path)
    }

    fn write(&self, path: &Path, value: &str) -> io::Result<()> {
        // In one call: the kernel takes each write as a value of its own.
        let written = self.open_procs(path)?.write(value.as_bytes())?;
        if written == value.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn groups_in(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                names.extend(entry.file_name().into_string());
            }
        }
        Ok(names)
    }

    fn open_procs(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(path)
    }

    fn claim(&self, group: &Path) -> io::Result<Option<Alive>> {
        // A file that every group has; who may not write to it cannot lock it for writing.
        Alive::claim(&group.join("cgroup.procs"))
    }

    fn kill(&self, pids: &[i32], listed: &dyn Fn() -> Vec<i32>) {
        let held = pids.iter().map(|pid| (*pid, ProcessHandle::of(*pid)));
        let held: Vec<_> = held.collect();
        let there = listed();
        for (pid, handle) in held.into_iter().filter(|(pid, _)| *pid > 1 && there.contains(pid)) {
            let killed = handle.and_then(|handle| handle.kill());
            // It may have ended by itself.
            if killed.is_err_and(|error| error.raw_os_error() != Some(libc::ESRCH)) {
                // Before Linux 5.3, or where a filter of system calls knows of nothing newer, there
                // is only the number, which the group has just listed.
                let pid = nix::unistd::Pid::from_raw(pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}
