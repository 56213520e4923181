//! The groups of one process.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::files::{Files, Kernel};
use super::mounts::{self, Mount};
use super::{Cgroup, CgroupError, Version, Wanted, v1, v2};
use crate::{Alive, CpuSet, EarlierOwner, is_unlike_others, is_without_locks, unlike_others};

/// The group within which all others are made.
const FAMILY: &str = "seal-exec";

/// How often a group is looked through for processes that fork while they are being killed.
const ROUNDS: usize = 50;

/// How often a group is made anew that somebody else has removed meanwhile.
const ATTEMPTS: usize = 20;

/// How long processes in groups of the dead may take to be gone, all together: who sweeps is about
/// to start, and is waited for.
const SWEEP_PATIENCE: Duration = Duration::from_secs(1);

/// The groups of this process's children.
#[derive(Debug)]
pub struct CgroupTree {
    version: Version,
    /// The group in which that of the family is.
    base: PathBuf,
    /// The group of the family, in which other processes have theirs.
    family: PathBuf,
    /// This process's own.
    dir: PathBuf,
    /// By which others see that this process lives and its group is in use; nothing where the
    /// kernel has no locks for that.
    alive: Mutex<Option<Alive>>,
    /// The group that this process was in.
    home: PathBuf,
    proc_root: PathBuf,
    files: Arc<dyn Files>,
    /// Groups whose processes were killed, and that may still be in use for a moment.
    retired: Mutex<Vec<PathBuf>>,
}

/// What was found of processes that died without removing their groups.
#[derive(Debug, Default)]
pub struct Swept {
    /// Groups of dead processes that were removed.
    pub removed: Vec<PathBuf>,
    /// Processes in them that were still running and were killed.
    pub killed: Vec<i32>,
    /// What could not be removed.
    pub errors: Vec<CgroupError>,
    /// Groups whose owner may live, because nobody can tell, and why.
    pub unknown: Vec<(PathBuf, io::Error)>,
}

impl CgroupTree {
    /// Makes the group of this process, wherever that can be done.
    ///
    /// # Errors
    ///
    /// Why each place that was tried is none, in the order in which they were tried.
    pub fn open() -> Result<Self, Vec<CgroupError>> {
        Self::open_on(Path::new("/proc"), Arc::new(Kernel), nix::unistd::geteuid().is_root())
    }

    pub(super) fn open_on(
        proc_root: &Path,
        files: Arc<dyn Files>,
        is_root: bool,
    ) -> Result<Self, Vec<CgroupError>> {
        let read = |name: &str| {
            let path = proc_root.join(name);
            std::fs::read_to_string(&path)
                .map_err(|source| vec![CgroupError::Read { path, source }])
        };
        let mount = mounts::find(&read("self/mountinfo")?, &read("self/cgroup")?, "cpuset")
            .ok_or_else(|| vec![CgroupError::NotMounted])?;
        let mut errors = Vec::new();
        for base in bases(&mount, is_root) {
            let family = base.join(FAMILY);
            let dir = family.join(unlike_others());
            match make_own(&*files, mount.version, &base, &dir) {
                Ok(alive) => {
                    return Ok(Self {
                        version: mount.version,
                        base,
                        family,
                        dir,
                        alive: Mutex::new(alive),
                        home: mount.own.clone(),
                        proc_root: proc_root.to_path_buf(),
                        files,
                        retired: Mutex::default(),
                    });
                }
                Err(error) => {
                    for group in [&dir, &family] {
                        let _ = files.remove_dir(group);
                    }
                    errors.push(error);
                }
            }
        }
        Err(errors)
    }

    /// The version of the hierarchy.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The group in which those of the children are made.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The cpus that groups made here can have.
    pub fn available_cpus(&self) -> Result<CpuSet, CgroupError> {
        effective_cpus(&*self.files, self.version, &self.dir)
    }

    /// Makes a group. `name` may have several parts between slashes. What is asked for is read
    /// back, and if the kernel grants something else there is no group. Groups above it that
    /// somebody has removed are made again.
    pub fn create(&self, name: &str, wanted: &Wanted) -> Result<Cgroup, CgroupError> {
        let mut made = self.try_create(name, wanted);
        for _ in 0..ATTEMPTS {
            if !made.as_ref().is_err_and(is_not_found) {
                break;
            }
            // Another thread may be at it.
            let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
            let listed = self.files.groups_in(&self.dir);
            // What cannot be read is still there, and so is its lock.
            if listed.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
                *alive = make_own(&*self.files, self.version, &self.base, &self.dir)?;
                let group = self.dir.display();
                tracing::warn!(%group, "the cgroup of this process was removed; it is made again");
            }
            drop(alive);
            made = self.try_create(name, wanted);
        }
        made
    }

    fn try_create(&self, name: &str, wanted: &Wanted) -> Result<Cgroup, CgroupError> {
        let files = &*self.files;
        let mut path = self.dir.clone();
        let mut parts = name.split('/').peekable();
        while let Some(part) = parts.next() {
            path.push(part);
            if parts.peek().is_some() {
                make_open(files, self.version, &path)?;
            }
        }
        let make = |source| CgroupError::Make { path: path.clone(), source };
        files.make_dir(&path).map_err(make)?;
        self.fill(path.clone(), wanted).inspect_err(|_| {
            let _ = files.remove_dir(&path);
        })
    }

    fn fill(&self, path: PathBuf, wanted: &Wanted) -> Result<Cgroup, CgroupError> {
        let files = &*self.files;
        match self.version {
            Version::V1 => v1::fill(files, &path, wanted)?,
            Version::V2 => v2::fill(files, &path, wanted)?,
        }
        let effective = effective_cpus(files, self.version, &path)?;
        let not_effective = |what, wanted: String, effective: &CpuSet| CgroupError::NotEffective {
            path: path.clone(),
            what,
            wanted,
            effective: effective.clone(),
        };
        match &wanted.cpus {
            Some(cpus) if *cpus != effective => {
                return Err(not_effective("cpus", cpus.to_string(), &effective));
            }
            _ => {}
        }
        if let Some(node) = wanted.only_node {
            let mems = match self.version {
                Version::V1 => v1::effective_mems(files, &path)?,
                Version::V2 => v2::effective_mems(files, &path)?,
            };
            if mems != [node.0].into_iter().collect() {
                return Err(not_effective("the memory of node", node.to_string(), &mems));
            }
        }
        let procs = path.join("cgroup.procs");
        let procs = files.open_procs(&procs).map_err(|source| CgroupError::Write {
            path: procs,
            value: "0".to_owned(),
            source,
        })?;
        let files = self.files.clone();
        Ok(Cgroup { path, version: self.version, effective, procs, files })
    }

    /// Puts this process into a group, until what is returned is dropped.
    pub fn enter(self, group: Cgroup) -> Result<Entered, CgroupError> {
        let path = group.path.join("cgroup.procs");
        Cgroup::enter(&group.procs).map_err(|source| CgroupError::Write {
            path,
            value: "0".to_owned(),
            source,
        })?;
        Ok(Entered { tree: self, path: group.path })
    }

    /// Kills what is in the group and removes it, now or, while its processes are still ending,
    /// later.
    pub fn retire(&self, group: Cgroup) {
        group.kill();
        let path = group.path.clone();
        drop(group);
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(path);
        self.collect();
    }

    /// Removes retired groups that have become empty, and tells how many are left.
    pub fn collect(&self) -> usize {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|path| {
            if remove(&*self.files, path).is_ok() {
                self.remove_parents(path);
                return false;
            }
            true
        });
        retired.len()
    }

    /// Removes the groups between a removed one and this process's own, if they are empty.
    fn remove_parents(&self, path: &Path) {
        let parents = path.ancestors().skip(1).take_while(|parent| **parent != *self.dir);
        for parent in parents {
            if self.files.remove_dir(parent).is_err() {
                return;
            }
        }
    }

    /// Removes the groups of processes that are no more, with all that is still running in them.
    /// Who lives is told by the lock on its group; groups of earlier versions have none and are
    /// left alone unless their process has certainly ended. What is not gone in a second, however
    /// many groups there are, is left to the next one that sweeps.
    pub fn sweep(&self) -> Swept {
        let mut swept = Swept::default();
        // Held until the groups are gone: an owner that has just made its group and not locked it
        // yet finds it taken, and makes another.
        let mut dead = Vec::new();
        for name in self.files.groups_in(&self.family).unwrap_or_default() {
            let group = self.family.join(&name);
            if group == self.dir {
                continue;
            }
            if is_unlike_others(&name) {
                match self.files.claim(&group) {
                    Ok(Some(claim)) => dead.push((group, Some(claim))),
                    Ok(None) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => swept.unknown.push((group, error)),
                }
            } else if EarlierOwner::parse(&name, '-')
                .is_some_and(|owner| owner.has_ended(&self.proc_root))
            {
                dead.push((group, None));
            }
        }
        // All are killed first, so that they end while others are waited for.
        swept.killed = dead.iter().flat_map(|(group, _)| kill_all(&*self.files, group)).collect();
        let deadline = Instant::now() + SWEEP_PATIENCE;
        for (group, _claim) in dead {
            let left = deadline.saturating_duration_since(Instant::now());
            match patiently(left, || remove_tree(&*self.files, &group)) {
                Ok(()) => swept.removed.push(group),
                // Another one may have swept at the same time.
                Err(error) if is_gone(&error) => {}
                Err(error) => swept.errors.push(error),
            }
        }
        swept
    }

    /// Ends all that is in groups of this process, and removes them, waiting at most so long for
    /// processes to end.
    pub fn close(&self, patience: Duration) -> Result<(), CgroupError> {
        kill_all(&*self.files, &self.dir);
        let result = patiently(patience, || remove_tree(&*self.files, &self.dir));
        // Others may still be in it.
        let _ = self.files.remove_dir(&self.family);
        match result {
            Err(error) if !is_gone(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

/// This process in a group of its own. When this is dropped it goes back to where it was, and the
/// group is removed.
#[derive(Debug)]
pub struct Entered {
    tree: CgroupTree,
    path: PathBuf,
}

impl Entered {
    /// The group.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let back = self.tree.files.open_procs(&self.tree.home.join("cgroup.procs"));
        // Who cannot go back leaves the group to the next one that sweeps.
        if back.and_then(|procs| Cgroup::enter(&procs)).is_ok() {
            let _ = self.tree.close(Duration::ZERO);
        }
    }
}

/// Where groups may be made, best first.
fn bases(mount: &Mount, is_root: bool) -> Vec<PathBuf> {
    let mut bases = Vec::new();
    if mount.version == Version::V2 {
        // A delegated unit whose processes are in a subgroup (DelegateSubgroup=).
        let is_unit = |group: &&Path| {
            let name = group.extension().unwrap_or_default();
            group.starts_with(&mount.top) && (name == "service" || name == "scope")
        };
        let unit = mount.own.ancestors().skip(1).find(is_unit);
        bases.extend(unit.map(Path::to_path_buf));
    }
    bases.push(mount.own.clone());
    if is_root && mount.top != mount.own {
        bases.push(mount.top.clone());
    }
    bases
}

/// Makes the group of this process with all above it up to `base`, and takes its lock.
fn make_own(
    files: &dyn Files,
    version: Version,
    base: &Path,
    dir: &Path,
) -> Result<Option<Alive>, CgroupError> {
    let family = base.join(FAMILY);
    // One that sweeps has found it before it was locked. It is about to remove it, and has the lock
    // until all groups of the dead are gone.
    let swept_by = Instant::now() + 3 * SWEEP_PATIENCE;
    let claim = || loop {
        match files.claim(dir) {
            Ok(None) if Instant::now() < swept_by => std::thread::sleep(Duration::from_millis(1)),
            claimed => return claimed,
        }
    };
    let attempt = || {
        open_up(files, version, base)?;
        for group in [family.as_path(), dir] {
            make_open(files, version, group)?;
        }
        let make = |source| CgroupError::Make { path: dir.to_path_buf(), source };
        match claim() {
            // One that sweeps may have removed it between its opening and its lock.
            Ok(Some(alive)) if !alive.is_in_place() => {
                let removed = "another process has removed it";
                Err(make(io::Error::new(io::ErrorKind::NotFound, removed)))
            }
            Ok(Some(alive)) => Ok(Some(alive)),
            Ok(None) => {
                let removed = "another process is removing it";
                Err(make(io::Error::new(io::ErrorKind::NotFound, removed)))
            }
            Err(error) if is_without_locks(&error) => {
                // Nobody can tell then that it is left over, so nobody sweeps it.
                tracing::warn!(%error, group = %dir.display(), "a cgroup cannot be locked");
                Ok(None)
            }
            Err(error) => Err(make(error)),
        }
    };
    // Somebody else's end may remove the family between the two.
    (0..ATTEMPTS)
        .map(|_| attempt())
        .find(|made| !made.as_ref().is_err_and(is_not_found))
        .unwrap_or_else(attempt)
}

/// Lets groups be made within a group.
fn open_up(files: &dyn Files, version: Version, group: &Path) -> Result<(), CgroupError> {
    match version {
        // The top has all there is, and any other group was filled by who made it.
        Version::V1 => Ok(()),
        Version::V2 => v2::open_up(files, group),
    }
}

/// Makes a group, unless it is there, for groups within it.
fn make_open(files: &dyn Files, version: Version, group: &Path) -> Result<(), CgroupError> {
    match files.make_dir(group) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(CgroupError::Make { path: group.to_path_buf(), source }),
    }
    match version {
        Version::V1 => v1::open_up(files, group),
        Version::V2 => v2::open_up(files, group),
    }
}

fn effective_cpus(
    files: &dyn Files,
    version: Version,
    group: &Path,
) -> Result<CpuSet, CgroupError> {
    match version {
        Version::V1 => v1::effective_cpus(files, group),
        Version::V2 => v2::effective_cpus(files, group),
    }
}

fn remove(files: &dyn Files, path: &Path) -> Result<(), CgroupError> {
    match files.remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(CgroupError::Remove { path: path.to_path_buf(), source }),
        Ok(()) => Ok(()),
    }
}

/// Removes a group and those within it, from the innermost.
fn remove_tree(files: &dyn Files, group: &Path) -> Result<(), CgroupError> {
    for name in files.groups_in(group).unwrap_or_default() {
        remove_tree(files, &group.join(name))?;
    }
    remove(files, group)
}

/// Kills all processes in a group and in those within it, and tells which it found.
pub(super) fn kill_all(files: &dyn Files, group: &Path) -> Vec<i32> {
    let mut killed = processes(files, group);
    if killed.is_empty() {
        return killed;
    }
    // Version 2 since Linux 5.14: all at once, also those that fork meanwhile.
    if files.write(&group.join("cgroup.kill"), "1").is_ok() {
        return killed;
    }
    for _ in 0..ROUNDS {
        let there = processes(files, group);
        if there.is_empty() {
            break;
        }
        files.kill(&there, &|| processes(files, group));
        for pid in there {
            if !killed.contains(&pid) {
                killed.push(pid);
            }
        }
    }
    killed
}

fn processes(files: &dyn Files, group: &Path) -> Vec<i32> {
    let procs = files.read(&group.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = procs.lines().filter_map(|pid| pid.trim().parse().ok()).collect();
    for name in files.groups_in(group).unwrap_or_default() {
        pids.extend(processes(files, &group.join(name)));
    }
    // 0 is a process of another pid namespace.
    pids.retain(|pid| *pid > 1);
    pids
}

fn is_not_found(error: &CgroupError) -> bool {
    match error {
        CgroupError::Make { source, .. }
        | CgroupError::Write { source, .. }
        | CgroupError::Read { source, .. } => source.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

fn is_gone(error: &CgroupError) -> bool {
    match error {
        CgroupError::Remove { source, .. } => source.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

/// Tries until it works, at most so long: killed processes take a moment to be gone.
fn patiently(
    patience: Duration,
    mut attempt: impl FnMut() -> Result<(), CgroupError>,
) -> Result<(), CgroupError> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            result => return result,
        }
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
