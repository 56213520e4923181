//! A stand-in for the kernel's cgroup files, which does what the kernel does: groups have files,
//! get controllers from their parents, are granted only what their parents have, and cannot be
//! removed while something is in them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::Version;
use super::files::Files;
use crate::{Alive, CpuSet};

/// A machine's hierarchy.
#[derive(Debug)]
pub(super) struct Fake {
    version: Version,
    groups: Mutex<BTreeMap<PathBuf, Group>>,
    /// Groups in which nothing can be written, as for a user who does not own them.
    read_only: Vec<PathBuf>,
    /// A file for each group, whose locks are the kernel's own.
    locks: tempfile::TempDir,
    /// What whoever asks for a lock is told, where there are none.
    no_locks: Option<i32>,
    /// What whoever sweeps does at the next requests for a lock.
    sweeps: Mutex<Vec<Sweep>>,
}

/// How one who sweeps is in the way of one who has just made a group.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sweep {
    /// It has the lock, and still removes other groups.
    Holds,
    /// It has removed the group after its file was opened.
    Removed,
}

#[derive(Clone, Debug, Default)]
struct Group {
    cpus: String,
    mems: String,
    handed_down: Vec<String>,
    procs: Vec<i32>,
    /// Processes that do not die of SIGKILL.
    undead: Vec<i32>,
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl Fake {
    /// A hierarchy with one group, the top, on a machine of so many cpus and two nodes.
    pub(super) fn new(version: Version, top: &Path, cpus: &str) -> Self {
        let top_group = Group { cpus: cpus.to_owned(), mems: "0-1".to_owned(), ..Group::default() };
        let groups = BTreeMap::from([(top.to_path_buf(), top_group)]);
        let locks = tempfile::tempdir().expect("a temporary directory");
        let groups = Mutex::new(groups);
        Self {
            version,
            groups,
            read_only: Vec::new(),
            locks,
            no_locks: None,
            sweeps: Mutex::default(),
        }
    }

    pub(super) fn swept(self, sweeps: &[Sweep]) -> Self {
        *self.sweeps.lock().expect("no panic") = sweeps.to_vec();
        self
    }

    pub(super) fn without_locks(mut self, code: i32) -> Self {
        self.no_locks = Some(code);
        self
    }

    /// The file on which a group's owner holds its lock.
    fn lock_file(&self, group: &Path) -> PathBuf {
        self.locks.path().join(group.to_string_lossy().replace('/', "%"))
    }

    pub(super) fn read_only(mut self, group: &Path) -> Self {
        self.read_only.push(group.to_path_buf());
        self
    }

    pub(super) fn add(&self, group: &Path, procs: &[i32]) {
        self.make_dir(group).expect("its parent is there");
        self.set_procs(group, procs);
    }

    pub(super) fn set_procs(&self, group: &Path, procs: &[i32]) {
        let mut groups = self.groups.lock().expect("no panic");
        groups.get_mut(group).expect("there").procs = procs.to_vec();
    }

    pub(super) fn set_undead(&self, group: &Path, pid: i32) {
        let mut groups = self.groups.lock().expect("no panic");
        groups.get_mut(group).expect("there").undead.push(pid);
    }

    /// Takes over the groups of another one.
    pub(super) fn adopt(&self, other: &Self) {
        let groups = other.groups.lock().expect("no panic").clone();
        *self.groups.lock().expect("no panic") = groups;
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.groups.lock().expect("no panic").keys().cloned().collect()
    }

    fn is_top(&self, groups: &BTreeMap<PathBuf, Group>, path: &Path) -> bool {
        path.parent().is_none_or(|parent| !groups.contains_key(parent))
    }

    fn has_cpusets(&self, groups: &BTreeMap<PathBuf, Group>, path: &Path) -> bool {
        self.version == Version::V1
            || self.is_top(groups, path)
            || path
                .parent()
                .and_then(|parent| groups.get(parent))
                .is_some_and(|parent| parent.handed_down.iter().any(|c| c == "cpuset"))
    }

    /// What a group is granted: in version 2 as much of what it asks for as its parent has, or all
    /// that the parent has.
    fn effective(
        &self,
        groups: &BTreeMap<PathBuf, Group>,
        path: &Path,
        field: fn(&Group) -> &String,
    ) -> CpuSet {
        let own = CpuSet::from_kernel(field(&groups[path])).expect("checked when written");
        match path.parent().filter(|parent| groups.contains_key(*parent)) {
            Some(parent) if self.version == Version::V2 => {
                let above = self.effective(groups, parent, field);
                let granted = own.and(&above);
                if granted.is_empty() { above } else { granted }
            }
            _ => own,
        }
    }
}

fn text(set: &CpuSet) -> String {
    if set.is_empty() { "\n".to_owned() } else { format!("{set}\n") }
}

impl Files for Fake {
    fn read(&self, path: &Path) -> io::Result<String> {
        let groups = self.groups.lock().expect("no panic");
        let (dir, name) = (path.parent().expect("a group"), path.file_name().expect("a file"));
        let group = groups.get(dir).ok_or_else(|| errno(libc::ENOENT))?;
        let (v1, v2) = (self.version == Version::V1, self.version == Version::V2);
        let cpusets = self.has_cpusets(&groups, dir);
        match name.to_str().expect("UTF-8") {
            "cgroup.procs" => Ok(group.procs.iter().map(|pid| format!("{pid}\n")).collect()),
            "cgroup.controllers" if v2 => {
                Ok(if cpusets { "cpuset cpu io memory\n" } else { "cpu io\n" }.to_owned())
            }
            "cgroup.subtree_control" if v2 => Ok(group.handed_down.join(" ") + "\n"),
            "memory.events" if v2 => Ok("low 0\noom 2\noom_kill 1\n".to_owned()),
            "cpuset.cpus" if cpusets => Ok(format!("{}\n", group.cpus)),
            "cpuset.mems" if cpusets => Ok(format!("{}\n", group.mems)),
            "cpuset.cpus.effective" if v2 && cpusets => {
                Ok(text(&self.effective(&groups, dir, |group| &group.cpus)))
            }
            "cpuset.mems.effective" if v2 && cpusets => {
                Ok(text(&self.effective(&groups, dir, |group| &group.mems)))
            }
            "cpuset.effective_cpus" if v1 => {
                Ok(text(&self.effective(&groups, dir, |group| &group.cpus)))
            }
            "cpuset.effective_mems" if v1 => {
                Ok(text(&self.effective(&groups, dir, |group| &group.mems)))
            }
            _ => Err(errno(libc::ENOENT)),
        }
    }

    fn write(&self, path: &Path, value: &str) -> io::Result<()> {
        let mut groups = self.groups.lock().expect("no panic");
        let (dir, name) = (path.parent().expect("a group"), path.file_name().expect("a file"));
        if !groups.contains_key(dir) {
            return Err(errno(libc::ENOENT));
        }
        if self.read_only.iter().any(|group| group == dir) {
            return Err(errno(libc::EACCES));
        }
        let (top, cpusets) = (self.is_top(&groups, dir), self.has_cpusets(&groups, dir));
        let above = dir.parent().and_then(|parent| groups.get(parent)).cloned();
        let group = groups.get_mut(dir).expect("looked up above");
        match name.to_str().expect("UTF-8") {
            "cgroup.subtree_control" if self.version == Version::V2 => {
                if !top && !group.procs.is_empty() {
                    return Err(errno(libc::EBUSY));
                }
                let controller = value.strip_prefix('+').ok_or_else(|| errno(libc::EINVAL))?;
                if !cpusets {
                    return Err(errno(libc::ENOENT));
                }
                group.handed_down.push(controller.to_owned());
            }
            name @ ("cpuset.cpus" | "cpuset.mems") if cpusets => {
                let wanted = CpuSet::from_kernel(value).map_err(|_| errno(libc::EINVAL))?;
                let field = |group: &Group| match name {
                    "cpuset.cpus" => CpuSet::from_kernel(&group.cpus),
                    _ => CpuSet::from_kernel(&group.mems),
                };
                let above = above.map(|above| field(&above).expect("checked when written"));
                let beyond = above.is_some_and(|above| !wanted.minus(&above).is_empty());
                if self.version == Version::V1 && beyond {
                    return Err(errno(libc::EACCES));
                }
                match name {
                    "cpuset.cpus" => group.cpus = value.to_owned(),
                    _ => group.mems = value.to_owned(),
                }
            }
            "cgroup.kill" if self.version == Version::V2 => {
                for (path, group) in groups.iter_mut() {
                    if path.starts_with(dir) {
                        let undead = group.undead.clone();
                        group.procs.retain(|pid| undead.contains(pid));
                    }
                }
            }
            _ => return Err(errno(libc::ENOENT)),
        }
        Ok(())
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        let mut groups = self.groups.lock().expect("no panic");
        let parent = path.parent().expect("a parent");
        if !groups.contains_key(parent) {
            return Err(errno(libc::ENOENT));
        }
        if self.read_only.iter().any(|group| group == parent) {
            return Err(errno(libc::EACCES));
        }
        if groups.contains_key(path) {
            return Err(errno(libc::EEXIST));
        }
        groups.insert(path.to_path_buf(), Group::default());
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut groups = self.groups.lock().expect("no panic");
        let group = groups.get(path).ok_or_else(|| errno(libc::ENOENT))?;
        let within = groups.keys().any(|other| other.parent() == Some(path));
        if within || !group.procs.is_empty() {
            return Err(errno(libc::EBUSY));
        }
        groups.remove(path);
        // Its inode goes, and with it what is held on it.
        let _ = std::fs::remove_file(self.lock_file(path));
        Ok(())
    }

    fn groups_in(&self, path: &Path) -> io::Result<Vec<String>> {
        let groups = self.groups.lock().expect("no panic");
        if !groups.contains_key(path) {
            return Err(errno(libc::ENOENT));
        }
        let within = groups.keys().filter(|other| other.parent() == Some(path));
        Ok(within.map(|g| g.file_name().expect("a name").to_str().expect("UTF-8").into()).collect())
    }

    fn open_procs(&self, path: &Path) -> io::Result<File> {
        self.read(path)?;
        File::options().write(true).open("/dev/null")
    }

    fn claim(&self, group: &Path) -> io::Result<Option<Alive>> {
        if !self.groups.lock().expect("no panic").contains_key(group) {
            return Err(errno(libc::ENOENT));
        }
        if let Some(code) = self.no_locks {
            return Err(errno(code));
        }
        let path = self.lock_file(group);
        File::options().create(true).append(true).open(&path)?;
        match self.sweeps.lock().expect("no panic").pop() {
            None => Alive::claim(&path),
            Some(Sweep::Holds) => Ok(None),
            Some(Sweep::Removed) => {
                let claimed = Alive::claim(&path);
                self.remove_dir(group)?;
                claimed
            }
        }
    }

    fn kill(&self, pids: &[i32], listed: &dyn Fn() -> Vec<i32>) {
        let there = listed();
        let mut groups = self.groups.lock().expect("no panic");
        for group in groups.values_mut() {
            let undead = group.undead.clone();
            let stays =
                |pid: &i32| !(pids.contains(pid) && there.contains(pid)) || undead.contains(pid);
            group.procs.retain(stays);
        }
    }
}
