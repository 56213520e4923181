//! The files of all supervisors that share a runtime directory.
//!
//! The lock is one of `flock`, as it was in earlier versions, which remove the files on which they
//! find none. It can only be asked for by taking it for a moment, which disturbs nobody: a file is
//! locked before it has its name, and never again.
//!
//! Each supervisor holds the kernel's lock on its present file. So whoever reads the files knows
//! which of them have a supervisor that lives, also where it is in another pid namespace, such as
//! that of a container, about whose processes nothing can be asked.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::OFlag;
use seal_host::{FileError, parent_of};

use super::corruption::on_record;
use super::document::{FORM, Holder, Machine, Resource, Supervisor, Waiting};
use super::live::Looker;
use crate::limits;

/// No file of ours is as long as this.
const LONGEST: u64 = 64 << 20;

/// How often a file is opened again that was replaced while it was looked at. Supervisors replace
/// theirs twice a second at most.
const ATTEMPTS: usize = 5;

/// Where the files are.
pub(super) fn directory(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("status")
}

/// Makes the directory, and the runtime directory above it, if they are not there.
pub(super) fn make(dir: &Path) -> Result<(), FileError> {
    seal_host::remake(parent_of(dir))?;
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(FileError::of("create", dir)(error))
        }
        _ => Ok(()),
    }
}

/// Puts together what all supervisors of `runtime_dir` say, and what the kernel says of their
/// executors.
pub(crate) fn collect(runtime_dir: &Path, looker: &mut Looker) -> Result<Machine, FileError> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut supervisors: Vec<_> = files(&directory(runtime_dir))
        .filter_map(|path| read(&path))
        .filter_map(|(supervisor, is_alive)| is_alive.then_some(supervisor))
        .collect();
    let own_namespace = seal_host::pid_namespace(looker.proc_root());
    supervisors.sort_by(|one, other| {
        let key = |s: &Supervisor| (order_of(&s.stage), s.start_ticks, s.pid_namespace, s.pid);
        key(one).cmp(&key(other))
    });
    for supervisor in &mut supervisors {
        // They were written a while ago.
        let age = (now.as_secs_f64() - supervisor.written).max(0.0);
        supervisor.queue.iter_mut().for_each(|waiting| waiting.waited += age);
    }
    for supervisor in &mut supervisors {
        supervisor.foreign = own_namespace != Some(supervisor.pid_namespace);
        if supervisor.foreign {
            // Its process ids are those of other processes here.
            continue;
        }
        for executor in &mut supervisor.executors {
            executor.live = executor.pid.and_then(|pid| looker.look(pid, executor.numa_node));
        }
    }
    let view = limits::view(runtime_dir)?;
    let uptime = limits::machine_time();
    let resources = view.resources.into_iter().map(|resource| {
        let (kind, name) = match &resource.resource {
            seal_limits::Resource::Lock(name) => ("lock", name),
            seal_limits::Resource::Limit(name) => ("limit", name),
        };
        let holder = |holder: limits::Holder| Holder {
            stage: holder.stage,
            req: holder.req,
            sector: holder.sector,
            supervisor: holder.supervisor,
            executor: holder.executor,
            held: uptime.saturating_sub(holder.since).as_secs_f64(),
        };
        Resource {
            kind: kind.to_owned(),
            name: name.clone(),
            count: resource.count.get(),
            held: resource.held,
            holders: resource.holders.into_iter().map(holder).collect(),
        }
    });
    let queue = view.queue.into_iter().map(|waiter| Waiting {
        stage: waiter.stage,
        supervisor: waiter.supervisor,
        pid_namespace: waiter.pid_namespace,
        req: None,
        sector: None,
        waited: waiter.waited.as_secs_f64(),
        reason: waiter.reason,
    });
    let (resources, queue) = (resources.collect(), queue.collect());
    let corruption = on_record(runtime_dir);
    let runtime_dir = runtime_dir.display().to_string();
    Ok(Machine { at: now.as_secs_f64(), runtime_dir, supervisors, resources, queue, corruption })
}

/// Stages in the order of sealing.
fn order_of(stage: &str) -> Option<seal_config::StageName> {
    seal_config::StageName::from_name(stage)
}

/// Removes the files of supervisors that died.
pub(super) fn remove_dead(dir: &Path) {
    for path in files(dir) {
        if let Some((_, false)) = read(&path) {
            let _ = fs::remove_file(&path);
        }
    }
}

fn files(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
}

/// A file, if it is one of ours in a form that is known here, and whether its supervisor lives.
fn read(path: &Path) -> Option<(Supervisor, bool)> {
    for _ in 0..ATTEMPTS {
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
        let is_held = match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => true,
            Ok(()) => false,
            // It cannot be told, and so its supervisor may live.
            Err(TryLockError::Error(_)) => true,
        };
        // One that was replaced meanwhile is nobody's any more.
        if !is_held && !is_in_place(&file, path) {
            continue;
        }
        let mut text = Vec::new();
        (&file).take(LONGEST).read_to_end(&mut text).ok()?;
        let supervisor: Supervisor = serde_json::from_slice(&text).ok()?;
        return (supervisor.form == FORM).then_some((supervisor, is_held));
    }
    None
}

fn is_in_place(file: &File, path: &Path) -> bool {
    let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
    let own = file.metadata().map(identity);
    let there = path.symlink_metadata().map(identity);
    matches!((own, there), (Ok(own), Ok(there)) if own == there)
}

/// Replaces the file at `path`, so that a reader sees all of one state, and returns it with the
/// lock on it: until that is closed, or this process dies, its supervisor counts as alive. The one
/// before must be closed only after this.
///
/// It means nothing after the machine has stopped, so it is not synced to disk.
pub(super) fn write(path: &Path, document: &Supervisor) -> Result<File, FileError> {
    let text = serde_json::to_vec(document)
        .map_err(|error| FileError::of("write", path)(io::Error::other(error)))?;
    let part = path.with_extension("json.part");
    let open = || {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&part)
            .map_err(FileError::of("open", &part))
    };
    let mut file = match open() {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => {
            // Somebody has removed the directory.
            make(parent_of(path))?;
            open()?
        }
        opened => opened?,
    };
    // Nobody else opens a file of this name.
    file.try_lock().map_err(|error| FileError::of("lock", &part)(error.into()))?;
    file.write_all(&text).map_err(FileError::of("write", &part))?;
    fs::rename(&part, path).map_err(FileError::of("rename", &part))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervisor(stage: &str) -> Supervisor {
        Supervisor {
            form: FORM,
            pid: std::process::id(),
            pid_namespace: seal_host::pid_namespace(Path::new("/proc")).expect("this process"),
            stage: stage.to_owned(),
            ..Supervisor::default()
        }
    }

    fn scene() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let status = directory(dir.path());
        fs::create_dir(&status).expect("writable");
        (dir, status)
    }

    /// Lets a file's supervisor die. What another test starts just now has its lock for a moment
    /// too, between fork and exec.
    fn dies(held: File, path: &Path) {
        drop(held);
        let begin = std::time::Instant::now();
        while read(path).is_none_or(|(_, is_alive)| is_alive) {
            assert!(begin.elapsed().as_secs() < 60, "{} stays held", path.display());
            std::thread::yield_now();
        }
    }

    #[test]
    fn only_files_of_supervisors_that_live_are_read_in_the_order_of_sealing() {
        let (dir, status) = scene();
        let put = |name: &str, supervisor: &Supervisor| {
            write(&status.join(name), supervisor).expect("writable")
        };
        let _c2 = put("c2.json", &supervisor("c2"));
        let _pc1 = put("pc1.json", &supervisor("pc1"));
        dies(put("dead.json", &supervisor("pc2")), &status.join("dead.json"));
        let _later = put("later.json", &Supervisor { form: FORM + 1, ..supervisor("pc2") });
        fs::write(status.join("x.json.part"), "{}").expect("writable");
        fs::write(status.join("junk.json"), "{").expect("writable");
        let elsewhere = dir.path().join("elsewhere.json");
        let _elsewhere = write(&elsewhere, &supervisor("pc2")).expect("writable");
        std::os::unix::fs::symlink(&elsewhere, status.join("link.json")).expect("writable");
        let machine = collect(dir.path(), &mut Looker::default()).expect("readable");
        let stages: Vec<_> = machine.supervisors.iter().map(|s| s.stage.as_str()).collect();
        assert_eq!(stages, ["pc1", "c2"]);
        remove_dead(&status);
        for (name, stays) in [("dead", false), ("later", true), ("junk", true), ("c2", true)] {
            assert_eq!(status.join(format!("{name}.json")).exists(), stays, "{name}");
        }
    }

    #[test]
    fn a_file_is_its_supervisors_through_all_its_replacements() {
        let (dir, status) = scene();
        let path = status.join("c2.json");
        let mut held = write(&path, &supervisor("c2")).expect("writable");
        for done in 0..20 {
            let next = Supervisor { done, ..supervisor("c2") };
            held = write(&path, &next).expect("writable");
            let machine = collect(dir.path(), &mut Looker::default()).expect("readable");
            assert_eq!(machine.supervisors[0].done, done);
            remove_dead(&status);
        }
        dies(held, &path);
        remove_dead(&status);
        assert!(!path.exists());
    }

    #[test]
    fn supervisors_of_another_pid_namespace_live_by_their_lock_and_their_pids_mean_nothing() {
        let (dir, status) = scene();
        let executor =
            super::super::Executor { pid: Some(std::process::id()), ..Default::default() };
        let own = Supervisor { executors: vec![executor], ..supervisor("c2") };
        let foreign = Supervisor { pid_namespace: own.pid_namespace + 1, ..own.clone() };
        let _one = write(&status.join("one.json"), &own).expect("writable");
        let other = write(&status.join("other.json"), &foreign).expect("writable");
        remove_dead(&status);
        let machine = collect(dir.path(), &mut Looker::default()).expect("readable");
        let [one, two] = &machine.supervisors[..] else { panic!("{machine:?}") };
        assert!(!one.foreign && one.executors[0].live.is_some());
        assert!(two.foreign && two.executors[0].live.is_none());
        assert_ne!(one.name(), two.name());
        dies(other, &status.join("other.json"));
        remove_dead(&status);
        assert!(!status.join("other.json").exists() && status.join("one.json").exists());
    }

    #[test]
    fn a_directory_that_was_removed_is_made_again_by_the_next_status() {
        let (dir, status) = scene();
        let path = status.join("c2.json");
        for removed in [status.as_path(), dir.path()] {
            let _before = write(&path, &supervisor("c2")).expect("writable");
            fs::remove_dir_all(removed).expect("ours");
            let _held = write(&path, &supervisor("c2")).expect("made again");
            let machine = collect(dir.path(), &mut Looker::default()).expect("readable");
            assert_eq!(machine.supervisors.len(), 1);
        }
    }

    #[test]
    fn a_directory_without_supervisors_is_empty() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let machine = collect(dir.path(), &mut Looker::default()).expect("readable");
        assert!(machine.supervisors.is_empty() && machine.resources.is_empty());
    }
}
