//! The files of all supervisors that share a runtime directory.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::OFlag;
use seal_host::FileError;

use super::document::{FORM, Holder, Machine, Resource, Supervisor, Waiting};
use super::live::Looker;
use crate::limits;

/// No file of ours is as long as this.
const LONGEST: u64 = 64 << 20;

/// Where the files are.
pub(super) fn directory(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("status")
}

/// Puts together what all supervisors of `runtime_dir` say, and what the kernel says of their
/// executors.
pub(crate) fn collect(runtime_dir: &Path, looker: &mut Looker) -> Result<Machine, FileError> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut supervisors: Vec<_> = files(&directory(runtime_dir))
        .filter_map(|path| read(&path))
        .filter(|supervisor| is_alive(supervisor, looker.proc_root()))
        .collect();
    supervisors.sort_by(|one, other| {
        let key = |s: &Supervisor| (order_of(&s.stage), s.start_ticks, s.pid);
        key(one).cmp(&key(other))
    });
    for supervisor in &mut supervisors {
        // They were written a while ago.
        let age = (now.as_secs_f64() - supervisor.written).max(0.0);
        supervisor.queue.iter_mut().for_each(|waiting| waiting.waited += age);
    }
    for executor in supervisors.iter_mut().flat_map(|supervisor| &mut supervisor.executors) {
        executor.live = executor.pid.and_then(|pid| looker.look(pid, executor.numa_node));
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
        req: None,
        sector: None,
        waited: waiter.waited.as_secs_f64(),
        reason: waiter.reason,
    });
    let (resources, queue) = (resources.collect(), queue.collect());
    Ok(Machine { at: now.as_secs_f64(), supervisors, resources, queue })
}

/// Stages in the order of sealing.
fn order_of(stage: &str) -> Option<seal_config::StageName> {
    seal_config::StageName::from_name(stage)
}

/// Removes the files of supervisors that died.
pub(super) fn remove_dead(dir: &Path, proc_root: &Path) {
    for path in files(dir) {
        if read(&path).is_some_and(|supervisor| !is_alive(&supervisor, proc_root)) {
            let _ = fs::remove_file(&path);
        }
    }
}

fn is_alive(supervisor: &Supervisor, proc_root: &Path) -> bool {
    seal_host::process_start(proc_root, supervisor.pid) == Some(supervisor.start_ticks)
}

fn files(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
}

/// A file, if it is one of ours in a form that is known here.
fn read(path: &Path) -> Option<Supervisor> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).ok()?;
    let supervisor: Supervisor = serde_json::from_slice(&text).ok()?;
    (supervisor.form == FORM).then_some(supervisor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervisor(pid: u32, start_ticks: u64, stage: &str) -> Supervisor {
        Supervisor {
            form: FORM,
            pid,
            start_ticks,
            stage: stage.to_owned(),
            ..Supervisor::default()
        }
    }

    #[test]
    fn only_files_of_supervisors_that_live_are_read_in_the_order_of_sealing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let status = directory(dir.path());
        fs::create_dir(&status).expect("writable");
        let pid = std::process::id();
        let start = seal_host::process_start(Path::new("/proc"), pid).expect("this process");
        let write = |name: &str, supervisor: &Supervisor| {
            let text = serde_json::to_vec(supervisor).expect("plain");
            fs::write(status.join(name), text).expect("writable");
        };
        write("c2.json", &supervisor(pid, start, "c2"));
        write("pc1.json", &supervisor(pid, start, "pc1"));
        write("dead.json", &supervisor(pid, start + 1, "pc2"));
        write("later.json", &Supervisor { form: FORM + 1, ..supervisor(pid, start, "pc2") });
        write("x.json.part", &supervisor(pid, start, "pc2"));
        fs::write(status.join("junk.json"), "{").expect("writable");
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, serde_json::to_vec(&supervisor(pid, start, "pc2")).expect("plain"))
            .expect("writable");
        std::os::unix::fs::symlink(&elsewhere, status.join("link.json")).expect("writable");
        let machine = collect(dir.path(), &mut Looker::default()).expect("readable");
        let stages: Vec<_> = machine.supervisors.iter().map(|s| s.stage.as_str()).collect();
        assert_eq!(stages, ["pc1", "c2"]);
        remove_dead(&status, Path::new("/proc"));
        assert!(!status.join("dead.json").exists() && status.join("later.json").exists());
    }

    #[test]
    fn a_directory_without_supervisors_is_empty() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let machine = collect(dir.path(), &mut Looker::default()).expect("readable");
        assert!(machine.supervisors.is_empty() && machine.resources.is_empty());
    }
}
