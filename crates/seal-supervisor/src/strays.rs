//! Processes that an executor started and that outlived it.
//!
//! The kernel kills an executor when its supervisor dies, and the supervisor kills an executor's
//! group. What has left the group, as daemons do, would go on with the task or the GPU. So that it
//! can be found, every executor has a mark in its environment, which its children inherit.
//!
//! `/proc` shows the processes of pid namespaces within one's own too, such as containers'. Whether
//! a supervisor there lives cannot be told from here, so what bears its mark is left alone.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use seal_host::{pid_namespace, process_start};

/// The environment variable that marks what executors start.
pub(crate) const MARK: &str = "SEAL_SUPERVISED";

/// The mark of one supervisor: the runtime directory that it shares, its pid namespace, its process
/// id there, and when it was started, so that a process id that is used again is not taken for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    scope: String,
    namespace: u64,
    pid: u32,
    started: u64,
}

impl Mark {
    /// The mark of this process.
    pub(crate) fn own(runtime_dir: &Path) -> Option<Self> {
        let meta = fs::metadata(runtime_dir).ok()?;
        let proc_root = Path::new("/proc");
        let (namespace, pid) = (pid_namespace(proc_root)?, std::process::id());
        let started = process_start(proc_root, pid)?;
        Some(Self { scope: format!("{}-{}", meta.dev(), meta.ino()), namespace, pid, started })
    }

    /// The value of [`MARK`] for an executor.
    pub(crate) fn of_executor(&self, place: usize, start: u64) -> String {
        let Self { scope, namespace, pid, started } = self;
        format!("{scope}:{namespace}:{pid}:{started}:{place}.{start}")
    }

    /// The supervisor whose executor has this mark.
    fn parse(value: &str) -> Option<Self> {
        let mut fields = value.split(':');
        let mut field = || fields.next();
        let scope = field()?.to_owned();
        let (namespace, pid, started) =
            (field()?.parse().ok()?, field()?.parse().ok()?, field()?.parse().ok()?);
        // The executor and its start.
        (fields.count() == 1).then_some(Self { scope, namespace, pid, started })
    }

    /// Kills what the executor left behind. Returns the process ids.
    pub(crate) fn kill_left_by(&self, place: usize, start: u64) -> Vec<u32> {
        let mark = self.of_executor(place, start);
        // What is older than this supervisor was not started under it. An environment is only read
        // where it has to be: that waits while its process changes its memory, as one does that
        // takes or gives back the memory of a sector.
        kill_marked(Path::new("/proc"), self.started, |value| value == mark)
    }

    /// Kills what executors of supervisors that are gone left behind, of those that shared this
    /// runtime directory and pid namespace. Returns the process ids.
    pub(crate) fn kill_left_by_the_dead(&self) -> Vec<u32> {
        let proc_root = Path::new("/proc");
        kill_marked(proc_root, 0, |value| {
            Self::parse(value).is_some_and(|mark| {
                mark.scope == self.scope
                    && mark.namespace == self.namespace
                    && process_start(proc_root, mark.pid) != Some(mark.started)
            })
        })
    }
}

/// Kills the processes whose mark is one of those meant, of those that were started at `since` or
/// later.
fn kill_marked(proc_root: &Path, since: u64, is_meant: impl Fn(&str) -> bool) -> Vec<u32> {
    let mut killed = Vec::new();
    let Ok(entries) = fs::read_dir(proc_root) else { return killed };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if since > 0 && process_start(proc_root, pid).is_none_or(|start| start < since) {
            continue;
        }
        // Other users' processes cannot be read, and are not ours.
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        let value = environment
            .split(|byte| *byte == 0)
            .find_map(|variable| variable.strip_prefix(MARK.as_bytes())?.strip_prefix(b"="));
        let meant = value.and_then(|value| std::str::from_utf8(value).ok()).is_some_and(&is_meant);
        let Some(target) = i32::try_from(pid).ok().filter(|pid| meant && *pid > 1) else {
            continue;
        };
        match kill(Pid::from_raw(target), Signal::SIGKILL) {
            Ok(()) => killed.push(pid),
            Err(Errno::ESRCH) => {}
            Err(error) => {
                tracing::warn!(pid, %error, "what an executor left behind cannot be killed")
            }
        }
    }
    killed
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn marked(mark: &str) -> Child {
        let mut command = Command::new("sleep");
        command.arg("1000").env(MARK, mark).stdin(Stdio::null());
        command.spawn().expect("it runs")
    }

    #[test]
    fn only_what_bears_the_mark_of_that_executor_is_killed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mark = Mark::own(dir.path()).expect("this process runs");
        let mut left = marked(&mark.of_executor(1, 2));
        let mut other = marked(&mark.of_executor(1, 3));
        let younger = Mark { started: u64::MAX, ..mark.clone() };
        let mut older = marked(&younger.of_executor(1, 2));
        assert!(younger.kill_left_by(1, 2).is_empty(), "it is older than its supervisor");
        older.kill().expect("our child");
        older.wait().expect("our child");
        assert_eq!(mark.kill_left_by(1, 2), [left.id()]);
        left.wait().expect("our child");
        assert!(mark.kill_left_by_the_dead().is_empty(), "this supervisor lives");
        assert!(other.try_wait().expect("our child").is_none());
        other.kill().expect("our child");
        other.wait().expect("our child");
    }

    #[test]
    fn what_belongs_to_a_dead_supervisor_of_the_same_directory_is_killed() {
        let [own, foreign] = [(); 2].map(|()| tempfile::tempdir().expect("a temporary directory"));
        let mark = Mark::own(own.path()).expect("this process runs");
        // The process id is used again, by one that was started at another time.
        let dead = Mark { started: 1, ..mark.clone() };
        let elsewhere = Mark { started: 1, ..Mark::own(foreign.path()).expect("it runs") };
        let mut left = marked(&dead.of_executor(0, 1));
        let mut other = marked(&elsewhere.of_executor(0, 1));
        assert_eq!(mark.kill_left_by_the_dead(), [left.id()]);
        left.wait().expect("our child");
        assert!(other.try_wait().expect("our child").is_none());
        other.kill().expect("our child");
        other.wait().expect("our child");
    }

    #[test]
    fn what_bears_a_mark_of_another_pid_namespace_is_left_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mark = Mark::own(dir.path()).expect("this process runs");
        // A process of this number and time is not there; in that namespace it may be.
        let foreign = Mark { namespace: mark.namespace + 1, started: 1, ..mark.clone() };
        let mut other = marked(&foreign.of_executor(0, 1));
        assert!(mark.kill_left_by_the_dead().is_empty());
        assert!(other.try_wait().expect("our child").is_none());
        other.kill().expect("our child");
        other.wait().expect("our child");
    }

    #[test]
    fn a_mark_is_read_back_and_nothing_else_is_one() {
        let mark = Mark { scope: "3-4".to_owned(), namespace: 5, pid: 6, started: 7 };
        assert_eq!(Mark::parse(&mark.of_executor(1, 2)), Some(mark));
        for value in ["", "3-4:5:6:7", "3-4:5:6:7:1.2:x", "3-4:6:7:1.2", "3-4:5:-6:7:1.2"] {
            assert_eq!(Mark::parse(value), None, "{value}");
        }
    }
}
