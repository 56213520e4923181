//! What keeps executors from being started on a machine.

use std::io;

use seal_host::{CpuSet, NodeId};
use seal_options::Fault;

use crate::Lack;

/// What keeps an executor from being started on this machine.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The binary is not there, or cannot be run.
    #[error("{key} (line {line}): {lack}")]
    NoProgram {
        /// The table.
        key: String,
        /// Its line.
        line: usize,
        /// What it lacks.
        lack: Lack,
    },
    /// Cpus are not there or not switched on.
    #[error(
        "{key} (line {line}): cgroup.cpuset = \"{wanted}\": cpus {missing} are missing; this machine has {online}"
    )]
    NoCpus {
        /// The table.
        key: String,
        /// Its line.
        line: usize,
        /// What is asked for.
        wanted: CpuSet,
        /// What is not there.
        missing: CpuSet,
        /// What is there.
        online: CpuSet,
    },
    /// Cpus are there, but not for this process.
    #[error(
        "{key} (line {line}): cgroup.cpuset = \"{wanted}\": the kernel does not let this process use \
         cpus {refused}; look at the cpuset of the cgroup or container it runs in"
    )]
    CpusRefused {
        /// The table.
        key: String,
        /// Its line.
        line: usize,
        /// What is asked for.
        wanted: CpuSet,
        /// What is not granted.
        refused: CpuSet,
    },
    /// The NUMA node is not there.
    #[error("{key} (line {line}): numa_preferred = {node}: this machine has {}", Nodes(nodes))]
    NoNode {
        /// The table.
        key: String,
        /// Its line.
        line: usize,
        /// What is asked for.
        node: NodeId,
        /// What is there.
        nodes: Vec<NodeId>,
    },
    /// The executor refuses one of its settings.
    #[error("{key} (line {line}): {fault}")]
    Setting {
        /// The table, with the part of it that has the setting.
        key: String,
        /// Its line.
        line: usize,
        /// What is wrong.
        fault: Fault,
    },
    /// The machine does not answer.
    #[error("{key} (line {line}): cannot ask the kernel for cpus {wanted}")]
    Unknown {
        /// The table.
        key: String,
        /// Its line.
        line: usize,
        /// What is asked for.
        wanted: CpuSet,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
}

struct Nodes<'a>(&'a [NodeId]);

impl std::fmt::Display for Nodes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no NUMA nodes");
        }
        let nodes: CpuSet = self.0.iter().map(|node| node.0).collect();
        write!(f, "NUMA nodes {nodes}")
    }
}
