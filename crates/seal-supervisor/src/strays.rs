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

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::{fs, io};

use seal_host::{EarlierOwner, Life, ProcessHandle, is_unlike_others, process_start};

use crate::event::{Event, FromExecutor, Tag};
use crate::life::{self, Ended, Searches, scope_of};

/// The environment variable that marks what executors start.
pub(crate) const MARK: &str = "SEAL_SUPERVISED";

/// How often processes are looked through at a start. One look finds what there was, a second one
/// what that had started meanwhile.
const LOOKS_MOST: usize = 8;

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
    /// Whether some could not be ended, or not even be looked at.
    pub(crate) is_partial: bool,
    /// What is to be told of supervisors of which it is not known whether they live.
    pub(crate) doubts: BTreeSet<String>,
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

    /// Kills what the executor left behind, also if it was started before the runtime directory was
    /// removed and made again: whose life it is, is enough.
    pub(crate) fn kill_left_by(&self, place: usize, start: u64) -> Killed {
        let of_executor = format!("{}:{place}.{start}", self.life);
        // What is older than this supervisor was not started under it. An environment is only read
        // where it has to be: that waits while its process changes its memory, as one does that
        // takes or gives back the memory of a sector. This process has read both times itself.
        kill_marked(self.started, |value| {
            let fields = value.strip_prefix("life:").and_then(|fields| fields.split_once(':'));
            fields.is_some_and(|(_, rest)| rest == of_executor)
        })
    }

    /// Kills what executors of supervisors that are gone left behind, of those that shared this
    /// runtime directory, and removes the files by which those were known.
    pub(crate) fn kill_left_by_the_dead(&self) -> Killed {
        let mut all = Killed::default();
        for _ in 0..LOOKS_MOST {
            let ended = self.ended();
            let Killed { pids, is_partial, mut doubts } = self.kill_left_by_those(&ended);
            all.is_partial = is_partial;
            all.doubts.append(&mut doubts);
            let before = all.pids.len();
            for pid in pids {
                if !all.pids.contains(&pid) {
                    all.pids.push(pid);
                }
            }
            if all.pids.len() == before {
                if !is_partial {
                    life::remove(&life::directory(&self.runtime_dir), &ended);
                }
                break;
            }
        }
        all
    }

    /// Who has ended until now.
    fn ended(&self) -> Ended {
        life::ended(&life::directory(&self.runtime_dir), &self.scope)
    }

    /// Kills what these supervisors left behind. One that ends while processes are looked through
    /// is not among them: processes of it may have been passed by already, so it is for a later
    /// look, and its file must stay for that.
    fn kill_left_by_those(&self, ended: &Ended) -> Killed {
        let dir = life::directory(&self.runtime_dir);
        // Each is asked once.
        let (mut asked, mut doubts) = (BTreeSet::new(), BTreeSet::new());
        let killed = kill_marked(0, |value| match Named::parse(value) {
            Some(Named::Life { scope, life }) => {
                let is_dead = ended.get(&life).is_some_and(|scopes| scopes.contains(&scope));
                if !is_dead
                    && scope == self.scope
                    && life != self.life
                    && asked.insert(life.clone())
                    && let Life::Unknown(error) = seal_host::life_at(&dir.join(&life))
                {
                    doubts.insert(format!(
                        "whether a supervisor lives cannot be told; it is taken to live: {error}: \
                         {}",
                        error.source
                    ));
                }
                is_dead
            }
            Some(Named::Earlier { scope, owner }) if scope == self.scope => {
                owner.has_ended(Path::new("/proc"))
            }
            _ => false,
        });
        Killed { doubts, ..killed }
    }
}

/// Kills what an executor that has ended left behind, and tells the loop when that is done. On a
/// thread of its own: to read of a process may take long, because the kernel waits for it. Returns
/// whether it was begun.
pub(crate) fn seek(
    mark: Mark,
    searches: &Searches,
    tag: Tag,
    pid: u32,
    events: SyncSender<Event>,
) -> bool {
    searches.begin();
    let searches = searches.clone();
    let seek = move || {
        let killed = mark.kill_left_by(tag.place, tag.start);
        if !killed.is_partial {
            searches.found_everything();
        }
        for stray in killed.pids.into_iter().filter(|stray| *stray != pid) {
            tracing::warn!(pid, stray, "killed what an executor had left behind");
        }
        let _ = events.send(Event::Executor { tag, what: FromExecutor::StraysEnded });
    };
    let started = seal_host::start_thread("strays", seek);
    if let Err(error) = &started {
        tracing::warn!(pid, %error, "what an executor left behind is not looked for: no thread");
    }
    started.is_ok()
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

/// Kills the processes whose mark is one of those meant, of those that were started at `since` or
/// later.
fn kill_marked(since: u64, mut is_meant: impl FnMut(&str) -> bool) -> Killed {
    let (proc_root, mut killed) = (Path::new("/proc"), Killed::default());
    let Ok(entries) = fs::read_dir(proc_root) else {
        killed.is_partial = true;
        return killed;
    };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if since > 0 && process_start(proc_root, pid).is_none_or(|start| start < since) {
            continue;
        }
        let process = ProcessHandle::in_proc(&entry.path());
        let value = process.and_then(|process| Ok((process.environment(MARK)?, process)));
        let process = match value {
            Ok((Some(value), process)) if std::str::from_utf8(&value).is_ok_and(&mut is_meant) => {
                process
            }
            Ok(_) => continue,
            Err(error) => {
                killed.is_partial |= !is_none_of_ours(&error);
                continue;
            }
        };
        match process.kill() {
            Ok(true) => killed.pids.push(pid),
            Ok(false) => {}
            Err(error) => {
                killed.is_partial = true;
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

/// Whether an error of a look at a process says that there is nothing to look at: it has ended, or
/// it is another user's. Any other, such as too many open files, says nothing of the process.
fn is_none_of_ours(error: &io::Error) -> bool {
    let ended = error.raw_os_error() == Some(nix::libc::ESRCH);
    ended || matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
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
        let text = life::told() + &scope_of(runtime_dir).expect("there") + "\n";
        let alive = Alive::begin(&dir.join(&name), &text).expect("writable");
        (name, alive)
    }

    /// The mark of a supervisor that has died.
    fn dead(mark: &Mark) -> Mark {
        let (life, alive) = supervisor(&mark.runtime_dir);
        die(mark, &life, alive);
        Mark { life, ..mark.clone() }
    }

    fn die(mark: &Mark, life: &str, alive: Alive) {
        drop(alive);
        await_end_of(&life::directory(&mark.runtime_dir).join(life));
    }

    /// What another test starts just now has a lock until it is executed.
    fn await_end_of(life: &Path) {
        let begin = std::time::Instant::now();
        while !matches!(seal_host::life_at(life), Life::Ended) {
            assert!(begin.elapsed().as_secs() < 60);
        }
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
    fn what_a_supervisor_has_not_found_at_its_end_is_ended_by_the_next_one() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let run = seal_host::RuntimeDir::open(&dir.path().join("run")).expect("ours");
        for is_found in [true, false] {
            let life = life::OwnLife::begin(&run).expect("writable");
            let path = life::directory(run.path()).join(life.name());
            let mark = Mark::own(run.path(), life.name()).expect("it is there");
            let mut left = marked(&mark.of_executor(0, 1));
            let (sender, events) = std::sync::mpsc::sync_channel(1);
            if is_found {
                let tag = Tag { service: 0, place: 0, start: 1 };
                assert!(seek(mark.clone(), life.searches(), tag, 0, sender));
                let ended = events.recv().expect("it looks");
                let FromExecutor::StraysEnded = (match ended {
                    Event::Executor { what, .. } => what,
                    _ => panic!("of an executor"),
                }) else {
                    panic!("a search has ended")
                };
            } else {
                // One that hangs in /proc until its supervisor has ended.
                life.searches().begin();
            }
            drop(life);
            assert_eq!(path.exists(), !is_found);
            if !is_found {
                await_end_of(&path);
            }
            let (next, _alive) = supervisor(run.path());
            let next = Mark::own(run.path(), &next).expect("it is there");
            let killed = next.kill_left_by_the_dead().pids;
            assert_eq!(killed, if is_found { vec![] } else { vec![left.id()] });
            left.wait().expect("our child");
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_supervisor_that_dies_during_a_look_is_left_to_the_next_one() {
        let (_dir, mark, _alive) = scene();
        let (life, alive) = supervisor(&mark.runtime_dir);
        let path = life::directory(&mark.runtime_dir).join(&life);
        let mut left = marked(&Mark { life: life.clone(), ..mark.clone() }.of_executor(0, 1));
        // A look begins while it lives, and passes its process by; then it dies.
        let ended = mark.ended();
        die(&mark, &life, alive);
        let killed = mark.kill_left_by_those(&ended);
        assert!(killed.pids.is_empty() && !killed.is_partial);
        life::remove(&life::directory(&mark.runtime_dir), &ended);
        assert!(path.exists(), "nobody would ever end what it left");
        assert!(left.try_wait().expect("our child").is_none());
        assert_eq!(mark.kill_left_by_the_dead().pids, [left.id()]);
        left.wait().expect("our child");
        assert!(!path.exists());
    }

    #[test]
    fn marks_of_before_the_directory_was_removed_are_known_of_the_living_and_of_the_dead() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let open = || seal_host::RuntimeDir::open(&dir.path().join("run")).expect("ours");
        let run = open();
        let mut life = life::OwnLife::begin(&run).expect("writable");
        let before = Mark::own(run.path(), life.name()).expect("it is there");
        let [mut one, mut other] = [1, 2].map(|place| marked(&before.of_executor(place, 1)));
        fs::rename(run.path(), dir.path().join("old")).expect("ours");
        assert!(life.renew().expect("made again"));
        let after = Mark::own(run.path(), life.name()).expect("it is there");
        assert_ne!(before.scope, after.scope);
        assert_eq!(after.kill_left_by(1, 1).pids, [one.id()], "the supervisor lives");
        one.wait().expect("our child");
        // Killed: its file stays, and nobody holds it.
        let text = fs::read(life::directory(run.path()).join(life.name())).expect("ours");
        let name = life.name().to_owned();
        drop(life);
        fs::write(life::directory(run.path()).join(&name), &text).expect("writable");
        let (next, _alive) = supervisor(run.path());
        let next = Mark::own(run.path(), &next).expect("it is there");
        // A copy of the runtime directory says nothing of who lives.
        let copy = seal_host::RuntimeDir::open(&dir.path().join("copy")).expect("ours");
        let (third, _lives) = supervisor(copy.path());
        fs::write(life::directory(copy.path()).join(&name), &text).expect("writable");
        let third = Mark::own(copy.path(), &third).expect("it is there");
        assert!(third.kill_left_by_the_dead().pids.is_empty());
        assert_eq!(next.kill_left_by_the_dead().pids, [other.id()]);
        other.wait().expect("our child");
        assert!(!life::directory(run.path()).join(&name).exists());
    }

    #[test]
    fn what_cannot_be_looked_at_keeps_the_files_of_the_dead() {
        for errno in [nix::libc::EMFILE, nix::libc::ENFILE, nix::libc::ENOMEM, nix::libc::EIO] {
            assert!(!is_none_of_ours(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
        for errno in [nix::libc::ESRCH, nix::libc::ENOENT, nix::libc::EACCES, nix::libc::EPERM] {
            assert!(is_none_of_ours(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
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
