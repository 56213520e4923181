//! Processes that an executor started and that outlived it.
//!
//! The kernel kills an executor when its supervisor dies, and the supervisor kills an executor's
//! group. What has left the group, as daemons do, would go on with the task or the GPU. So that it
//! can be found, every executor has a mark in its environment, which its children inherit. The mark
//! names the file by whose lock its supervisor is known to live ([`crate::life`]), so it means the
//! same in every pid and time namespace that shares the runtime directory.
//!
//! A process is held open before its mark is read and ended through what is open: its number, which
//! may be another's a moment later or in another namespace, is only told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use seal_host::{EarlierOwner, Life, ProcessHandle, is_unlike_others, process_start};

use crate::life;

/// The environment variable that marks what executors start.
pub(crate) const MARK: &str = "SEAL_SUPERVISED";

/// The mark of one supervisor.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    runtime_dir: PathBuf,
    /// Which directory that is, by whatever path somebody reaches it.
    scope: String,
    /// The name of its life there.
    life: String,
    /// When this process started, as it sees that itself.
    started: u64,
}

/// Whom a mark names.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    /// A supervisor that shows a lock.
    Life { scope: String, life: String },
    /// One of an earlier version.
    Earlier { scope: String, owner: EarlierOwner },
}

/// What was found and ended.
#[derive(Debug, Default)]
pub(crate) struct Killed {
    /// The process ids of what was ended.
    pub(crate) pids: Vec<u32>,
    /// Those that could not be ended.
    pub(crate) left: Vec<u32>,
}

impl Mark {
    /// The mark of this process, whose life in `runtime_dir` has this name.
    pub(crate) fn own(runtime_dir: &Path, life: &str) -> Option<Self> {
        let started = process_start(Path::new("/proc"), std::process::id()).unwrap_or_default();
        let (scope, life) = (scope_of(runtime_dir)?, life.to_owned());
        Some(Self { runtime_dir: runtime_dir.to_path_buf(), scope, life, started })
    }

    /// The value of [`MARK`] for an executor. Earlier versions read five fields with numbers in
    /// them and kill by those; this is none of theirs.
    pub(crate) fn of_executor(&self, place: usize, start: u64) -> String {
        format!("life:{}:{}:{place}.{start}", self.scope, self.life)
    }

    /// Kills what the executor left behind.
    pub(crate) fn kill_left_by(&self, place: usize, start: u64) -> Killed {
        let mark = self.of_executor(place, start);
        // What is older than this supervisor was not started under it. An environment is only read
        // where it has to be: that waits while its process changes its memory, as one does that
        // takes or gives back the memory of a sector. This process has read both times itself.
        kill_marked(self.started, |value| value == mark)
    }

    /// Kills what executors of supervisors that are gone left behind, of those that shared this
    /// runtime directory, and removes the files by which those were known.
    pub(crate) fn kill_left_by_the_dead(&self) -> Killed {
        let dir = life::directory(&self.runtime_dir);
        // Each is asked once.
        let (mut ended, mut unknown) = (BTreeMap::new(), BTreeSet::new());
        let killed = kill_marked(0, |value| match Named::parse(value) {
            Some(Named::Life { scope, life }) if scope == self.scope && life != self.life => {
                let asked = ended.entry(life).or_insert_with_key(|life| {
                    match seal_host::life_at(&dir.join(life)) {
                        Life::Ended => true,
                        Life::Lives => false,
                        Life::Unknown(error) => {
                            unknown.insert(format!("{error}: {}", error.source));
                            false
                        }
                    }
                });
                *asked
            }
            Some(Named::Earlier { scope, owner }) if scope == self.scope => {
                owner.has_ended(Path::new("/proc"))
            }
            _ => false,
        });
        for error in unknown {
            tracing::warn!(error, "whether a supervisor lives cannot be told; it is taken to live");
        }
        if killed.left.is_empty() {
            life::remove_ended(&dir);
        }
        killed
    }
}

impl Named {
    fn parse(value: &str) -> Option<Self> {
        if let Some(rest) = value.strip_prefix("life:") {
            let mut fields = rest.split(':').map(str::to_owned);
            let (scope, life) = (fields.next()?, fields.next()?);
            // The executor and its start follow.
            return (is_unlike_others(&life) && fields.count() == 1)
                .then_some(Self::Life { scope, life });
        }
        let (scope, rest) = value.split_once(':')?;
        let (owner, _executor) = rest.rsplit_once(':')?;
        let owner = EarlierOwner::parse(owner, ':')?;
        Some(Self::Earlier { scope: scope.to_owned(), owner })
    }
}

fn scope_of(runtime_dir: &Path) -> Option<String> {
    let meta = fs::metadata(runtime_dir).ok()?;
    Some(format!("{}-{}", meta.dev(), meta.ino()))
}

/// Kills the processes whose mark is one of those meant, of those that were started at `since` or
/// later.
fn kill_marked(since: u64, mut is_meant: impl FnMut(&str) -> bool) -> Killed {
    let (proc_root, mut killed) = (Path::new("/proc"), Killed::default());
    let Ok(entries) = fs::read_dir(proc_root) else { return killed };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if since > 0 && process_start(proc_root, pid).is_none_or(|start| start < since) {
            continue;
        }
        // Other users' processes cannot be read, and are not ours.
        let Ok(process) = ProcessHandle::in_proc(&entry.path()) else { continue };
        let Ok(Some(value)) = process.environment(MARK) else { continue };
        if !std::str::from_utf8(&value).is_ok_and(&mut is_meant) {
            continue;
        }
        match process.kill() {
            Ok(true) => killed.pids.push(pid),
            Ok(false) => {}
            Err(error) => {
                killed.left.push(pid);
                tracing::warn!(
                    pid,
                    %error,
                    "what an executor left behind cannot be killed; look at it and end it by hand"
                );
            }
        }
    }
    killed
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use seal_host::{Alive, unlike_others};

    use super::*;

    fn marked(mark: &str) -> Child {
        let mut command = Command::new("sleep");
        command.arg("1000").env(MARK, mark).stdin(Stdio::null());
        command.spawn().expect("it runs")
    }

    fn end(mut child: Child) {
        assert!(child.try_wait().expect("our child").is_none(), "it was left alone");
        child.kill().expect("our child");
        child.wait().expect("our child");
    }

    /// A runtime directory with a supervisor that lives, this process.
    fn scene() -> (tempfile::TempDir, Mark, Alive) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (name, alive) = supervisor(dir.path());
        let mark = Mark::own(dir.path(), &name).expect("it is there");
        (dir, mark, alive)
    }

    fn supervisor(runtime_dir: &Path) -> (String, Alive) {
        let (dir, name) = (life::directory(runtime_dir), unlike_others());
        fs::create_dir_all(&dir).expect("writable");
        let alive = Alive::begin(&dir.join(&name), &life::told()).expect("writable");
        (name, alive)
    }

    /// The mark of a supervisor that has died.
    fn dead(mark: &Mark) -> Mark {
        let (life, alive) = supervisor(&mark.runtime_dir);
        drop(alive);
        let begin = std::time::Instant::now();
        let path = life::directory(&mark.runtime_dir).join(&life);
        // What another test starts just now has its lock until it is executed.
        while !matches!(seal_host::life_at(&path), Life::Ended) {
            assert!(begin.elapsed().as_secs() < 60);
        }
        Mark { life, ..mark.clone() }
    }

    #[test]
    fn only_what_bears_the_mark_of_that_executor_is_killed() {
        let (_dir, mark, _alive) = scene();
        let mut left = marked(&mark.of_executor(1, 2));
        let other = marked(&mark.of_executor(1, 3));
        let younger = Mark { started: u64::MAX, ..mark.clone() };
        let older = marked(&younger.of_executor(1, 4));
        assert!(younger.kill_left_by(1, 4).pids.is_empty(), "it is older than its supervisor");
        end(older);
        assert_eq!(mark.kill_left_by(1, 2).pids, [left.id()]);
        left.wait().expect("our child");
        assert!(mark.kill_left_by_the_dead().pids.is_empty(), "this supervisor lives");
        end(other);
    }

    #[test]
    fn what_belongs_to_a_dead_supervisor_of_the_same_directory_is_killed() {
        let (_dir, mark, _alive) = scene();
        let (_elsewhere, foreign, _lives) = scene();
        let dead = dead(&mark);
        let mut left = marked(&dead.of_executor(0, 1));
        let other =
            marked(&Mark { scope: foreign.scope.clone(), ..dead.clone() }.of_executor(0, 1));
        let path = life::directory(&mark.runtime_dir).join(&dead.life);
        assert!(path.exists());
        assert_eq!(mark.kill_left_by_the_dead().pids, [left.id()]);
        left.wait().expect("our child");
        assert!(!path.exists(), "nothing is left of it");
        end(other);
    }

    #[test]
    fn executors_of_a_supervisor_that_holds_its_lock_or_cannot_be_asked_are_left_alone() {
        let (_dir, mark, _alive) = scene();
        let (life, _held) = supervisor(&mark.runtime_dir);
        let lives = marked(&Mark { life, ..mark.clone() }.of_executor(0, 1));
        // Its file was removed, with the directory: nobody knows.
        let gone = marked(&Mark { life: unlike_others(), ..mark.clone() }.of_executor(0, 1));
        let strange = unlike_others();
        let dir = life::directory(&mark.runtime_dir);
        std::os::unix::fs::symlink(&mark.runtime_dir, dir.join(&strange)).expect("writable");
        let strange = marked(&Mark { life: strange, ..mark.clone() }.of_executor(0, 1));
        assert!(mark.kill_left_by_the_dead().pids.is_empty());
        for child in [lives, gone, strange] {
            end(child);
        }
    }

    #[test]
    fn marks_of_an_earlier_version_are_obeyed_only_where_its_supervisor_has_certainly_ended() {
        let (_dir, mark, _alive) = scene();
        let namespace = seal_host::pid_namespace(Path::new("/proc")).expect("this process");
        let of = |namespace: u64, pid: u32, start: u64| {
            marked(&format!("{}:{namespace}:{pid}:{start}:0.1", mark.scope))
        };
        let own = std::process::id();
        let started = process_start(Path::new("/proc"), own).expect("this process");
        // No machine has processes of such numbers.
        let mut left = of(namespace, 5_000_000, 1);
        let foreign = of(namespace + 1, 5_000_000, 1);
        let lives = of(namespace, own, started);
        assert_eq!(mark.kill_left_by_the_dead().pids, [left.id()]);
        left.wait().expect("our child");
        end(foreign);
        end(lives);
    }

    #[test]
    fn marks_are_read_back_and_an_earlier_version_takes_none_of_them_for_its_own() {
        let (_dir, mark, _alive) = scene();
        let own = mark.of_executor(1, 2);
        let named = Named::Life { scope: mark.scope.clone(), life: mark.life.clone() };
        assert_eq!(Named::parse(&own), Some(named));
        let owner = EarlierOwner { namespace: 5, pid: 6, start: 7 };
        let earlier = Named::Earlier { scope: "3-4".to_owned(), owner };
        assert_eq!(Named::parse("3-4:5:6:7:1.2"), Some(earlier));
        let life = &mark.life;
        for value in ["", "3-4:5:6:7", "3-4:5:6:7:1.2:x", "3-4:6:7:1.2", "3-4:5:-6:7:1.2"]
            .map(str::to_owned)
            .into_iter()
            .chain(["life:3-4:x:1.2".to_owned(), format!("life:3-4:{life}")])
        {
            assert_eq!(Named::parse(&value), None, "{value}");
        }
        // Version e86127d reads SCOPE:NUMBER:NUMBER:NUMBER:REST and kills by the numbers.
        let second = own.split(':').nth(1).expect("fields");
        assert!(second.parse::<u64>().is_err(), "{own}");
    }
}
