//! Supervisors of version 0.1 until commit e86127d, which show no lock.
//!
//! They are named by pid namespace, pid and start time, in names of cgroups and in marks of what
//! their executors start. A start time looks different in another time namespace, so by that alone
//! nobody is taken for dead here: only where no process has the number, where that one has ended
//! and waits for its parent, or where it is one of this process's own time namespace with another
//! start. Any doubt counts as life.
//!
//! What is told of this process has other forms ([`crate::unlike_others`]) that they do not know as
//! theirs, so they leave it alone.

use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::process::{pid_namespace, state};

/// A process as it is named by those versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlierOwner {
    /// The pid namespace.
    pub namespace: u64,
    /// The process id there.
    pub pid: u32,
    /// When it started, in ticks after the boot as its own time namespace sees it.
    pub start: u64,
}

impl EarlierOwner {
    /// From its three numbers, separated by `separator`.
    pub fn parse(name: &str, separator: char) -> Option<Self> {
        let mut parts = name.split(separator);
        let mut part = || parts.next();
        let owner = Self {
            namespace: part()?.parse().ok()?,
            pid: part()?.parse().ok()?,
            start: part()?.parse().ok()?,
        };
        if part().is_none() { Some(owner) } else { None }
    }

    /// Whether it certainly has ended.
    pub fn has_ended(&self, proc_root: &Path) -> bool {
        if pid_namespace(proc_root) != Some(self.namespace) {
            return false;
        }
        match state(proc_root, self.pid) {
            // Hidden from this user, perhaps: the kernel is asked in another way too.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pid = i32::try_from(self.pid).ok().filter(|pid| *pid > 1);
                let asked = pid.map(|pid| nix::sys::signal::kill(Pid::from_raw(pid), None));
                asked == Some(Err(Errno::ESRCH))
            }
            Err(_) => false,
            Ok(state) if state.has_ended => true,
            Ok(state) => state.start != self.start && is_of_this_time(proc_root, self.pid),
        }
    }
}

/// Whether a process is certainly in the time namespace of this one.
fn is_of_this_time(proc_root: &Path, pid: u32) -> bool {
    match std::fs::read_link(proc_root.join("self/ns/time")) {
        Ok(own) => std::fs::read_link(proc_root.join(format!("{pid}/ns/time")))
            .is_ok_and(|other| other == own),
        // Before Linux 5.6 there is one time for all.
        Err(error) => {
            error.kind() == io::ErrorKind::NotFound && proc_root.join("self/ns/pid").exists()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// No machine has this many processes.
    const NOBODY: u32 = 5_000_000;

    struct Proc(tempfile::TempDir);

    impl Proc {
        /// This process in pid namespace 77 and time namespace 1.
        fn new() -> Self {
            let proc_root = Self(tempfile::tempdir().expect("a temporary directory"));
            let own = std::process::id();
            proc_root.process(own, "S", 500, 1);
            symlink(own.to_string(), proc_root.0.path().join("self")).expect("writable");
            let link = proc_root.0.path().join(format!("{own}/ns/pid"));
            symlink("pid:[77]", link).expect("writable");
            proc_root
        }

        fn process(&self, pid: u32, state: &str, start: u64, time: u64) {
            let dir = self.0.path().join(pid.to_string());
            fs::create_dir_all(dir.join("ns")).expect("writable");
            let stat = format!("{pid} (a) b) {state} {}{start} 0", "0 ".repeat(18));
            fs::write(dir.join("stat"), stat).expect("writable");
            symlink(format!("time:[{time}]"), dir.join("ns/time")).expect("writable");
        }

        fn has_ended(&self, pid: u32, start: u64) -> bool {
            EarlierOwner { namespace: 77, pid, start }.has_ended(self.0.path())
        }
    }

    #[test]
    fn a_supervisor_of_an_earlier_version_is_dead_only_if_that_is_certain() {
        let proc_root = Proc::new();
        for (pid, state, start, time) in
            [(31, "S", 100, 1), (32, "Z", 100, 1), (33, "S", 3700, 1), (34, "S", 3700, 2)]
        {
            proc_root.process(pid, state, start, time);
        }
        assert!(!proc_root.has_ended(31, 100), "it is there");
        assert!(proc_root.has_ended(32, 100), "it waits for its parent only");
        assert!(proc_root.has_ended(33, 100), "its number is another's now");
        assert!(!proc_root.has_ended(34, 100), "another time namespace counts from elsewhere");
        assert!(proc_root.has_ended(NOBODY, 100), "there is none");
        let other = EarlierOwner { namespace: 78, pid: NOBODY, start: 100 };
        assert!(!other.has_ended(proc_root.0.path()), "nobody here knows its namespace");
    }

    #[test]
    fn what_cannot_be_read_of_an_earlier_version_is_alive() {
        let proc_root = Proc::new();
        // A directory in place of the file stands for EACCES and EMFILE, which root never gets.
        fs::create_dir_all(proc_root.0.path().join("40/stat")).expect("writable");
        assert!(!proc_root.has_ended(40, 100));
        proc_root.process(41, "S", 100, 1);
        fs::remove_file(proc_root.0.path().join("41/ns/time")).expect("ours");
        assert!(!proc_root.has_ended(41, 99), "its time namespace is not told");
        // Hidden, but there: this process itself.
        let own = std::process::id();
        fs::remove_dir_all(proc_root.0.path().join(own.to_string())).expect("ours");
        assert!(!proc_root.has_ended(own, 500));
    }

    #[test]
    fn names_of_earlier_versions_are_three_numbers() {
        let owner = EarlierOwner { namespace: 1, pid: 2, start: 3 };
        assert_eq!(EarlierOwner::parse("1-2-3", '-'), Some(owner.clone()));
        assert_eq!(EarlierOwner::parse("1:2:3", ':'), Some(owner));
        for name in ["", "1-2", "1-2-3-4", "a-b-c", "1-2-", &crate::unlike_others()] {
            assert_eq!(EarlierOwner::parse(name, '-'), None, "{name}");
        }
    }
}
