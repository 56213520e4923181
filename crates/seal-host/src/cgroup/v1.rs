//! Version 1: a hierarchy of cpusets alone. A group must name cpus and memory nodes before a
//! process can be in it, and its parent must have them.

use std::path::Path;

use super::files::Files;
use super::{CgroupError, Wanted, read, read_set, write};
use crate::CpuSet;

/// Prepares a group that is there for groups within it: it may use what its parent may.
pub(super) fn open_up(files: &dyn Files, group: &Path) -> Result<(), CgroupError> {
    let Some(parent) = group.parent() else { return Ok(()) };
    for name in ["cpuset.mems", "cpuset.cpus"] {
        let there = read(files, &group.join(name))?;
        if there.trim().is_empty() {
            let value = read(files, &parent.join(name))?;
            write(files, &group.join(name), value.trim())?;
        }
    }
    Ok(())
}

/// Fills a new group.
pub(super) fn fill(files: &dyn Files, group: &Path, wanted: &Wanted) -> Result<(), CgroupError> {
    if let Some(node) = wanted.only_node {
        write(files, &group.join("cpuset.mems"), &node.to_string())?;
    }
    if let Some(cpus) = &wanted.cpus {
        write(files, &group.join("cpuset.cpus"), &cpus.to_string())?;
    }
    // What is not asked for is the parent's.
    open_up(files, group)
}

/// The cpus that processes in the group can run on.
pub(super) fn effective_cpus(files: &dyn Files, group: &Path) -> Result<CpuSet, CgroupError> {
    read_set(files, &group.join("cpuset.effective_cpus"))
}

/// The memory nodes of the group, as a set of numbers.
pub(super) fn effective_mems(files: &dyn Files, group: &Path) -> Result<CpuSet, CgroupError> {
    read_set(files, &group.join("cpuset.effective_mems"))
}
