//! A machine as the planner sees it: sockets, NUMA nodes, L3 groups, cores, memory, GPUs, disks.
//!
//! It comes from the kernel (`read`) or from a file (`file`), so that a scheme can be made for a
//! machine that is elsewhere. Knows nothing of sealing.

mod file;
mod gpus;
mod read;
mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use seal_host::{CpuSet, L3Id, NodeId, Topology};

use crate::Bytes;

pub use file::{HardwareError, load, parse, write, write_json};
pub use gpus::find_gpus;
pub use read::{FileSystems, file_systems, read};
pub use show::show;

/// A machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Hardware {
    /// What people call it.
    pub name: String,
    /// Instruction sets that matter to sealing, by their names in `/proc/cpuinfo`; `None` where
    /// nobody said.
    pub instructions: Option<BTreeSet<String>>,
    /// Which cpus belong together. Every node of it is among `nodes`.
    pub topology: Topology,
    /// NUMA nodes in ascending order, at least one.
    pub nodes: Vec<Node>,
    /// GPUs by their indices.
    pub gpus: Vec<Gpu>,
    /// File systems for sealing; empty where nobody said.
    pub disks: Vec<Disk>,
    /// What leaves less than the machine has, in words: limits of cgroups, affinity, quotas.
    pub limits: Vec<String>,
}

/// A NUMA node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// The socket it is in.
    pub socket: u32,
    /// Its memory.
    pub memory: Bytes,
    /// What of it processes can have.
    pub usable: Bytes,
    /// Huge pages that are set aside, by their size.
    pub huge_pages: BTreeMap<Bytes, HugePages>,
}

impl Node {
    /// Memory that is set aside as huge pages, which only those can have who ask for such pages.
    pub fn set_aside(&self) -> Bytes {
        self.huge_pages.iter().map(|(size, pages)| size.times(pages.total)).sum()
    }

    /// What processes can have that ask for no huge pages.
    pub fn ordinary(&self) -> Bytes {
        self.usable.less(self.set_aside())
    }

    /// How many pieces of so many bytes lie in huge pages, each in pages of one size.
    pub fn pieces_in_huge_pages(&self, piece: Bytes) -> u64 {
        let of_size = |(size, pages): (&Bytes, &HugePages)| {
            let whole = size.0 > 0 && piece.0 > 0 && piece.0.is_multiple_of(size.0);
            if whole { size.times(pages.total).holds(piece) } else { 0 }
        };
        self.huge_pages.iter().map(of_size).sum()
    }
}

/// Huge pages of one size on one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HugePages {
    /// Set aside.
    pub total: u64,
    /// Of those, not in use.
    pub free: u64,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// The number by which `CUDA_VISIBLE_DEVICES` knows it.
    pub index: u32,
    /// Its name.
    pub model: String,
    /// Its own name among all GPUs, such as `GPU-…`.
    pub uuid: Option<String>,
    /// Its memory, if known.
    pub memory: Option<Bytes>,
    /// The NUMA node its bus is at, if known.
    pub node: Option<NodeId>,
}

/// A file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// A directory on it.
    pub path: PathBuf,
    /// All of it.
    pub size: Bytes,
    /// What can be written.
    pub free: Bytes,
}

/// Cores that share an L3 cache, lowest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L3Group {
    /// Its name: its lowest cpu.
    pub id: L3Id,
    /// Its node.
    pub node: NodeId,
    /// Its cores.
    pub cores: Vec<Core>,
}

/// A core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Core {
    /// Its lowest cpu, by which it is named.
    pub number: u32,
    /// Its hardware threads.
    pub cpus: CpuSet,
}

impl Hardware {
    /// What processes can have that ask for no huge pages.
    pub fn ordinary(&self) -> Bytes {
        self.nodes.iter().map(Node::ordinary).sum()
    }

    /// All memory.
    pub fn memory(&self) -> Bytes {
        self.nodes.iter().map(|node| node.memory).sum()
    }

    /// All memory that processes can have.
    pub fn usable(&self) -> Bytes {
        self.nodes.iter().map(|node| node.usable).sum()
    }

    /// A node by its number.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The sockets with their nodes, in ascending order.
    pub fn sockets(&self) -> BTreeMap<u32, Vec<&Node>> {
        let mut sockets: BTreeMap<u32, Vec<&Node>> = BTreeMap::new();
        for node in &self.nodes {
            sockets.entry(node.socket).or_default().push(node);
        }
        sockets
    }

    /// The L3 groups in ascending order of their lowest cpu.
    pub fn l3_groups(&self) -> Vec<L3Group> {
        let mut groups: BTreeMap<L3Id, (NodeId, BTreeMap<u32, Vec<u32>>)> = BTreeMap::new();
        for cpu in self.topology.cpus() {
            let (_, cores) = groups.entry(cpu.l3).or_insert_with(|| (cpu.node, BTreeMap::new()));
            cores.entry(cpu.core).or_default().push(cpu.number);
        }
        let core =
            |(number, cpus): (u32, Vec<u32>)| Core { number, cpus: cpus.into_iter().collect() };
        groups
            .into_iter()
            .map(|(id, (node, cores))| L3Group {
                id,
                node,
                cores: cores.into_iter().map(core).collect(),
            })
            .collect()
    }

    /// The L3 groups of a node, in ascending order.
    pub fn l3_groups_of(&self, node: NodeId) -> Vec<L3Group> {
        self.l3_groups().into_iter().filter(|group| group.node == node).collect()
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        let cores: BTreeSet<_> = self.topology.cpus().map(|cpu| cpu.core).collect();
        cores.len()
    }

    /// How many hardware threads the core with the most of them has.
    pub fn threads_per_core(&self) -> usize {
        let mut threads: BTreeMap<u32, usize> = BTreeMap::new();
        for cpu in self.topology.cpus() {
            *threads.entry(cpu.core).or_default() += 1;
        }
        threads.into_values().max().unwrap_or(0)
    }

    /// Whether the processor has an instruction set; `None` where nobody said.
    pub fn has(&self, instruction: &str) -> Option<bool> {
        self.instructions.as_ref().map(|names| names.contains(instruction))
    }

    /// A GPU by its index.
    pub fn gpu(&self, index: u32) -> Option<&Gpu> {
        self.gpus.iter().find(|gpu| gpu.index == index)
    }

    /// A GPU as `CUDA_VISIBLE_DEVICES` names it: by index, or by the beginning of its UUID.
    pub fn gpu_named(&self, name: &str) -> Option<&Gpu> {
        match name.parse() {
            Ok(index) => self.gpu(index),
            Err(_) => self.gpus.iter().find(|gpu| {
                let uuid = gpu.uuid.as_deref();
                name.starts_with("GPU-") && uuid.is_some_and(|uuid| uuid.starts_with(name))
            }),
        }
    }
}
