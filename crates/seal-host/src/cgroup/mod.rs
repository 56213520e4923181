//! Cgroups for child processes: made, filled, read back, and removed with all that is in them.
//!
//! Every process that starts children has a group of its own, `seal-exec/sPID-CHANCE`, on which it
//! holds a lock as long as it lives, and one group for each child within it. So whoever comes later,
//! from whatever namespace, can tell which groups are left over from processes that died, and end
//! what is still in them.
//!
//! Where groups can be made depends on the machine; [`CgroupTree::open`] tries, in this order: the
//! unit of systemd that this process is in, if it was delegated with a subgroup for its processes;
//! this process's own group, if it can have groups within; and, for root, the top.

mod files;
mod mounts;
mod tree;
mod v1;
mod v2;

#[cfg(test)]
mod fake;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use files::Files;
pub(crate) use mounts::find as find_mount;
pub use tree::{CgroupTree, Entered, Swept};

use crate::{CpuSet, NodeId};

/// The version of a hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy of cpusets alone.
    V1,
    /// The hierarchy of all controllers.
    V2,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

/// Whether `name` names a group within another one: names between slashes, none of which leads
/// out.
pub(crate) fn is_group_name(name: &str) -> bool {
    let part = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\n', '\0']);
    name.split('/').all(part)
}

/// What a group is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The cpus; `None` is those of the group above.
    pub cpus: Option<CpuSet>,
    /// The only node whose memory may be used; `None` is those of the group above.
    pub only_node: Option<NodeId>,
}

/// A group that cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// There is no hierarchy with cpusets.
    #[error("no cgroup hierarchy with cpusets is mounted")]
    NotMounted,
    /// The hierarchy is there, but cpusets are not available in it.
    #[error(
        "the cgroup {} has no cpusets; a unit of systemd gets them by Delegate=cpuset",
        group.display()
    )]
    NoCpusets {
        /// The group.
        group: PathBuf,
    },
    /// A file of the hierarchy cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The kernel does not take a value.
    #[error("cannot write {value:?} to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The value.
        value: String,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// A group cannot be made.
    #[error("cannot make the cgroup {}", path.display())]
    Make {
        /// The group.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// A group cannot be removed.
    #[error("cannot remove the cgroup {}", path.display())]
    Remove {
        /// The group.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The kernel grants something else.
    #[error(
        "the cgroup {} asked for {what} {wanted} but the kernel grants {effective}; look at the \
         groups above it",
        path.display()
    )]
    NotEffective {
        /// The group.
        path: PathBuf,
        /// Cpus or memory nodes.
        what: &'static str,
        /// What was asked for.
        wanted: String,
        /// What was read back.
        effective: CpuSet,
    },
}

/// A group for a child process. What is in it is ended and the group removed by
/// [`CgroupTree::retire`].
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    version: Version,
    effective: CpuSet,
    /// To which a child writes `0` to get in.
    procs: File,
    files: Arc<dyn Files>,
}

impl Cgroup {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The cpus that processes in it can run on, as read back when it was made.
    pub fn effective_cpus(&self) -> &CpuSet {
        &self.effective
    }

    /// How many processes in it the kernel killed for want of memory, where it counts them.
    pub fn oom_kills(&self) -> Option<u64> {
        match self.version {
            Version::V1 => None,
            Version::V2 => v2::oom_kills(&*self.files, &self.path),
        }
    }

    /// Whether the kernel says that there are processes in it.
    pub fn has_processes(&self) -> bool {
        let procs = self.files.read(&self.path.join("cgroup.procs"));
        procs.is_ok_and(|procs| !procs.trim().is_empty())
    }

    /// Kills all processes in it, also those that left their process group.
    pub fn kill(&self) {
        tree::kill_all(&*self.files, &self.path);
    }

    /// Puts the calling process in. Async-signal-safe.
    pub(crate) fn enter(procs: &File) -> io::Result<()> {
        io::Write::write(&mut &*procs, b"0").map(|_| ())
    }

    /// The file for [`enter`](Self::enter), for a child that is yet to be made.
    pub(crate) fn door(&self) -> io::Result<File> {
        self.procs.try_clone()
    }
}

fn read(files: &dyn Files, path: &Path) -> Result<String, CgroupError> {
    files.read(path).map_err(|source| CgroupError::Read { path: path.to_path_buf(), source })
}

fn read_set(files: &dyn Files, path: &Path) -> Result<CpuSet, CgroupError> {
    CpuSet::from_kernel(&read(files, path)?).map_err(|error| {
        let source = io::Error::new(io::ErrorKind::InvalidData, error);
        CgroupError::Read { path: path.to_path_buf(), source }
    })
}

fn write(files: &dyn Files, path: &Path, value: &str) -> Result<(), CgroupError> {
    files.write(path, value).map_err(|source| CgroupError::Write {
        path: path.to_path_buf(),
        value: value.to_owned(),
        source,
    })
}
