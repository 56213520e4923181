//! The same machine with more of something, to see what it would bring.

use seal_host::{Cpu, L3Id, Topology};

use crate::hardware::{Disk, Gpu};
use crate::{Bytes, Hardware};

/// Something to add to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// Memory, shared out among the nodes.
    Memory(Bytes),
    /// Cores, in L3 groups as the machine has them.
    Cores(u32),
    /// A GPU like the last one, where there are fewest.
    Gpu,
    /// Disk space, on the disk with the most of it.
    Disk(Bytes),
}

impl std::fmt::Display for Upgrade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory(bytes) => write!(f, "{bytes} of memory"),
            Self::Cores(cores) => write!(f, "{cores} cores"),
            Self::Gpu => f.write_str("one GPU"),
            Self::Disk(bytes) => write!(f, "{bytes} of disk"),
        }
    }
}

/// `hardware` with more of something.
pub fn upgraded(hardware: &Hardware, upgrade: Upgrade) -> Hardware {
    let mut hardware = hardware.clone();
    match upgrade {
        Upgrade::Memory(bytes) => {
            let share = bytes.part(1, hardware.nodes.len() as u64);
            for node in &mut hardware.nodes {
                node.memory += share;
                node.usable += share;
            }
        }
        Upgrade::Cores(cores) => add_cores(&mut hardware, cores),
        Upgrade::Gpu => {
            let on = |node| hardware.gpus.iter().filter(|gpu| gpu.node == Some(node)).count();
            let node = hardware.nodes.iter().map(|node| node.id).min_by_key(|node| on(*node));
            let index = hardware.gpus.iter().map(|gpu| gpu.index + 1).max().unwrap_or(0);
            let last = hardware.gpus.last();
            hardware.gpus.push(Gpu {
                index,
                model: last.map_or("a GPU".to_owned(), |gpu| gpu.model.clone()),
                uuid: None,
                memory: last.and_then(|gpu| gpu.memory),
                node,
            });
        }
        Upgrade::Disk(bytes) => match hardware.disks.iter_mut().max_by_key(|disk| disk.free) {
            Some(disk) => {
                disk.size += bytes;
                disk.free += bytes;
            }
            None => hardware.disks.push(Disk { path: "/".into(), size: bytes, free: bytes }),
        },
    }
    hardware
}

/// New cores of one thread, with the highest numbers, group by group on the nodes in turn.
fn add_cores(hardware: &mut Hardware, cores: u32) {
    let groups = hardware.l3_groups();
    let size = groups.iter().map(|group| group.cores.len()).max().unwrap_or(1).max(1);
    let mut cpus: Vec<Cpu> = hardware.topology.cpus().copied().collect();
    let first = cpus.iter().map(|cpu| cpu.number + 1).max().unwrap_or(0);
    let nodes: Vec<_> = hardware.nodes.iter().map(|node| node.id).collect();
    // On a machine with one L3 cache a node, the new cores join it.
    let one_each = groups.len() == nodes.len();
    for (at, number) in (first..first + cores).enumerate() {
        let group = if one_each { at } else { at / size };
        let node = nodes[group % nodes.len()];
        let l3 = match groups.iter().find(|group| one_each && group.node == node) {
            Some(group) => group.id,
            None => L3Id(first + u32::try_from(group * size).unwrap_or(0)),
        };
        cpus.push(Cpu { number, core: number, l3, node });
    }
    hardware.topology = Topology::of(cpus);
}
