//! Which process is meant: a pid means something only within its pid namespace, and only until
//! it is used again. Whether a process lives is told by a lock ([`crate::life_at`]), never by its
//! numbers; and who is to be ended is held open first, so that no other one can be meant.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// So much of an environment is read. The kernel takes 6 MiB of arguments and environment together;
/// a process can show any other memory as its environment later (`PR_SET_MM`).
const ENVIRONMENT_MOST: u64 = 8 << 20;

/// A process that is meant and no other, whatever becomes of its number.
#[derive(Debug)]
pub struct ProcessHandle {
    /// Its directory in `/proc`, or what `pidfd_open` gives.
    handle: OwnedFd,
}

impl ProcessHandle {
    /// The one that a directory of `/proc` shows.
    pub fn in_proc(directory: &Path) -> io::Result<Self> {
        Ok(Self { handle: File::open(directory)?.into() })
    }

    /// The one that has this number in the pid namespace of this process.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        // SAFETY: pidfd_open takes two numbers and no memory.
        let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let opened = i32::try_from(opened).map_err(|_| io::ErrorKind::InvalidData)?;
        if opened < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor, with close-on-exec, and nothing else
        // knows of it.
        Ok(Self { handle: unsafe { OwnedFd::from_raw_fd(opened) } })
    }

    /// The value of a name in its environment, of one from [`in_proc`](Self::in_proc). What stands
    /// behind the first 8 MiB is not seen.
    pub fn environment(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let opened = openat(&self.handle, "environ", flags, Mode::empty())?;
        let mut environment = Vec::new();
        File::from(opened).take(ENVIRONMENT_MOST).read_to_end(&mut environment)?;
        let mut variables = environment.split(|byte| *byte == 0);
        let value = variables
            .find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        Ok(value.map(<[u8]>::to_vec))
    }

    /// Ends it by SIGKILL. `false` if it had ended.
    ///
    /// # Errors
    ///
    /// `ENOSYS` before Linux 5.1, where nobody can be meant for certain; `EINVAL` if its pid
    /// namespace is neither this one nor within it.
    pub fn kill(&self) -> io::Result<bool> {
        let (handle, signal) = (self.handle.as_raw_fd(), libc::SIGKILL);
        let no_details = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: pidfd_send_signal reads details only where the pointer is not null. The
        // descriptor is open as long as `self` is; one that is no process is an error.
        let sent =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, handle, signal, no_details, 0) };
        match (sent, io::Error::last_os_error()) {
            (0, _) => Ok(true),
            (_, error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            (_, error) => Err(error),
        }
    }
}

/// What `/proc` says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// Whether only its parent still has to take its status.
    pub(crate) has_ended: bool,
    /// When it started, in ticks after the boot as this process's time namespace sees it.
    pub(crate) start: u64,
}

/// What `/proc` says of a process. That none is there is `NotFound`.
pub(crate) fn state(proc_root: &Path, pid: u32) -> io::Result<State> {
    let stat = std::fs::read(proc_root.join(format!("{pid}/stat"))).map_err(|error| {
        // One that ends while it is read.
        if error.raw_os_error() == Some(libc::ESRCH) {
            io::ErrorKind::NotFound.into()
        } else {
            error
        }
    })?;
    let told = || {
        // Fields are counted after the name, which may contain anything but the last bracket.
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let mut fields = std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace();
        let has_ended = matches!(fields.next()?, "Z" | "X");
        // The state is field 3, the start is field 22.
        Some(State { has_ended, start: fields.nth(18)?.parse().ok()? })
    };
    told().ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// When a process started, in the kernel's ticks after boot, if it is there and has not ended. Good
/// only to compare what one process has read, because another time namespace counts from elsewhere.
/// `proc_root` is `/proc`.
pub fn process_start(proc_root: &Path, pid: u32) -> Option<u64> {
    state(proc_root, pid).ok().filter(|state| !state.has_ended).map(|state| state.start)
}

/// The pid namespace of this process, as the kernel numbers namespaces. `None` where `proc_root`
/// does not tell, or tells the pids of another namespace than this process's own, as where a
/// namespace was made without a `/proc` of its own.
pub fn pid_namespace(proc_root: &Path) -> Option<u64> {
    if let Ok(this) = std::fs::read_link(proc_root.join("self"))
        && this.to_str() != Some(&std::process::id().to_string())
    {
        return None;
    }
    let link = std::fs::read_link(proc_root.join("self/ns/pid")).ok()?;
    link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_one_start_until_it_is_a_zombie() {
        let own = process_start(Path::new("/proc"), std::process::id());
        assert!(own.is_some_and(|ticks| ticks > 0));
        assert_eq!(process_start(Path::new("/proc"), std::process::id()), own);
        let proc_root = tempfile::tempdir().expect("a temporary directory");
        let dir = proc_root.path().join("7");
        std::fs::create_dir(&dir).expect("writable");
        for (state, start) in [("S", Some(42)), ("Z", None), ("X", None)] {
            let stat = format!("7 (a) \u{fc}) b) {state} {}42 0", "0 ".repeat(18));
            std::fs::write(dir.join("stat"), stat).expect("writable");
            assert_eq!(process_start(proc_root.path(), 7), start, "{state}");
        }
        assert_eq!(process_start(proc_root.path(), 8), None);
    }

    #[test]
    fn a_process_is_ended_through_what_is_open_of_it_and_never_by_its_number() {
        use std::process::{Command, Stdio};
        let mut command = Command::new("sleep");
        command.arg("1000").env("SEAL_TEST_MARK", "a=b").stdin(Stdio::null());
        for by_directory in [true, false] {
            let mut child = command.spawn().expect("it runs");
            let pid = child.id();
            let directory = Path::new("/proc").join(pid.to_string());
            let of = || ProcessHandle::of(i32::try_from(pid).expect("pids are small"));
            let handle = match by_directory {
                true => ProcessHandle::in_proc(&directory),
                false => of(),
            };
            let handle = match handle {
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                    child.kill().expect("ours");
                    child.wait().expect("ours");
                    return crate::child::tests::note_skipped("this kernel has no pidfd");
                }
                handle => handle.expect("it is there"),
            };
            if by_directory {
                // The mark is there once the child is executed.
                let begin = std::time::Instant::now();
                while handle.environment("SEAL_TEST_MARK").expect("ours") != Some(b"a=b".to_vec()) {
                    assert!(begin.elapsed().as_secs() < 60);
                }
                assert_eq!(handle.environment("SEAL_TEST").expect("ours"), None);
            }
            assert!(handle.kill().expect("ours"));
            child.wait().expect("ours");
            assert!(!handle.kill().expect("nobody is meant any more"), "{by_directory}");
        }
    }

    #[test]
    fn an_environment_without_end_is_read_to_a_bound() {
        let proc_root = tempfile::tempdir().expect("a temporary directory");
        let path = proc_root.path().join("environ");
        std::fs::write(&path, "A=1\0MARK=x\0").expect("writable");
        // More than any machine has; there are only holes.
        let file = std::fs::OpenOptions::new().write(true).open(&path).expect("ours");
        file.set_len(1 << 42).expect("holes");
        let process = ProcessHandle::in_proc(proc_root.path()).expect("a directory");
        assert_eq!(process.environment("MARK").expect("readable"), Some(b"x".to_vec()));
        assert_eq!(process.environment("OTHER").expect("readable"), None);
    }

    #[test]
    fn a_proc_of_another_namespace_tells_nothing() {
        assert!(pid_namespace(Path::new("/proc")).is_some());
        let proc_root = tempfile::tempdir().expect("a temporary directory");
        let there = proc_root.path().join("1");
        std::fs::create_dir_all(there.join("ns")).expect("writable");
        std::os::unix::fs::symlink("pid:[5]", there.join("ns/pid")).expect("writable");
        std::os::unix::fs::symlink("1", proc_root.path().join("self")).expect("writable");
        assert_eq!(pid_namespace(proc_root.path()), None, "this is process 1 of no namespace");
    }
}
