//! Version 2: one hierarchy. A group has a controller when its parent hands it down, and a parent
//! can do that only while it has no processes of its own (its top can always).

use std::path::Path;

use super::files::Files;
use super::{CgroupError, Wanted, read, read_set, write};
use crate::CpuSet;

/// Lets groups within `group` have cpusets, and, where that is possible, count memory.
pub(super) fn open_up(files: &dyn Files, group: &Path) -> Result<(), CgroupError> {
    let control = group.join("cgroup.subtree_control");
    let handed_down = read(files, &control)?;
    let has = |controller: &str| handed_down.split_ascii_whitespace().any(|c| c == controller);
    if !has("cpuset") {
        let available = read(files, &group.join("cgroup.controllers"))?;
        if !available.split_ascii_whitespace().any(|controller| controller == "cpuset") {
            return Err(CgroupError::NoCpusets { group: group.to_path_buf() });
        }
        write(files, &control, "+cpuset")?;
    }
    if !has("memory") {
        // Tells who was killed for memory; not needed for anything else.
        let _ = files.write(&control, "+memory");
    }
    Ok(())
}

/// Fills a new group. What is not asked for is the parent's.
pub(super) fn fill(files: &dyn Files, group: &Path, wanted: &Wanted) -> Result<(), CgroupError> {
    if let Some(node) = wanted.only_node {
        write(files, &group.join("cpuset.mems"), &node.to_string())?;
    }
    if let Some(cpus) = &wanted.cpus {
        write(files, &group.join("cpuset.cpus"), &cpus.to_string())?;
    }
    Ok(())
}

/// The cpus that processes in the group can run on.
pub(super) fn effective_cpus(files: &dyn Files, group: &Path) -> Result<CpuSet, CgroupError> {
    read_set(files, &group.join("cpuset.cpus.effective"))
}

/// The memory nodes of the group, as a set of numbers.
pub(super) fn effective_mems(files: &dyn Files, group: &Path) -> Result<CpuSet, CgroupError> {
    read_set(files, &group.join("cpuset.mems.effective"))
}

/// How many processes of the group the kernel killed for want of memory, if it counts them.
pub(super) fn oom_kills(files: &dyn Files, group: &Path) -> Option<u64> {
    let events = files.read(&group.join("memory.events")).ok()?;
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}
