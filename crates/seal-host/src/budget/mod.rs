//! What this process may have of the machine: the least of what the machine has and of what every
//! limit above the process leaves it.
//!
//! In a container the machine is larger than what may be used of it, and who counts the machine is
//! killed by the kernel. Whoever plans, admits or warns asks here, so that all get the same answer,
//! with the name of what limits. A limit that cannot be read is none, because nothing can be known
//! of those above what is mounted anyway; it is told at debug.

mod cpus;
mod groups;
mod memory;
mod tasks;

use crate::NodeId;

pub use cpus::{CpuBudget, CpuQuota};
pub(crate) use memory::free_of_hugetlb;
pub use memory::{GroupMemory, MemoryBudget};
pub use tasks::TaskBudget;

/// What sets a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limiter {
    /// What the machine has.
    Machine,
    /// What a NUMA node has.
    Node(NodeId),
    /// A cgroup, by its path below what is mounted here.
    Group(String),
    /// A limit of the process or the kernel, by its name.
    Named(&'static str),
}

impl std::fmt::Display for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Machine => f.write_str("this machine"),
            Self::Node(node) => write!(f, "NUMA node {node}"),
            Self::Group(name) => write!(f, "cgroup {name}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::path::PathBuf;

    use crate::Roots;

    /// A machine of files: what procfs says of mounts and groups, and the groups' files.
    pub(crate) struct Fake(tempfile::TempDir);

    impl Fake {
        /// Without any hierarchy.
        pub(crate) fn new() -> Self {
            Self(tempfile::tempdir().expect("a temporary directory"))
        }

        /// `mounts` are kind, options and mount point below the root; `cgroup` is what
        /// `/proc/self/cgroup` says; `files` are below the root.
        pub(crate) fn with(
            mounts: &[(&str, &str, &str)],
            cgroup: &str,
            files: &[(&str, &str)],
        ) -> Self {
            let fake = Self::new();
            let lines = mounts.iter().map(|(kind, options, point)| {
                let point = fake.0.path().join(point);
                format!("30 24 0:26 / {} rw - {kind} {kind} {options}\n", point.display())
            });
            fake.write("proc/self/mountinfo", &lines.collect::<String>());
            fake.write("proc/self/cgroup", cgroup);
            files.iter().for_each(|(name, text)| fake.write(name, text));
            fake
        }

        pub(crate) fn write(&self, name: &str, text: &str) {
            let path: PathBuf = self.0.path().join(name);
            fs::create_dir_all(path.parent().expect("below the root")).expect("writable");
            fs::write(path, text).expect("writable");
        }

        pub(crate) fn roots(&self) -> Roots {
            Roots { sys: self.0.path().join("sys"), proc: self.0.path().join("proc") }
        }
    }
}
