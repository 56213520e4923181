//! Which executor gets which cores, GPU and locks.

use std::collections::BTreeMap;

use seal_host::{CpuSet, NodeId};
use seal_types::Stage;

use super::Wish;
use super::pools::{Labelling, NodePool, divide};
use crate::Hardware;
use crate::hardware::Core;

/// Cores that PC2 gets beside a GPU, where there are enough: it needs them to move data.
const PC2_CORES: usize = 8;

/// How PC2 and C2 share what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// There is no GPU: PC2 and C2 take turns on all cores that are left, under one lock.
    Turns,
    /// Every GPU belongs to PC2 or to C2, which works on the CPU if it has none.
    Exclusive {
        /// GPUs of PC2.
        pc2: usize,
        /// GPUs of C2.
        c2: usize,
    },
    /// Each GPU has a PC2 and a C2, which take turns under its lock.
    Shared {
        /// GPUs that are used.
        gpus: usize,
    },
}

/// An executor of PC1.
#[derive(Clone, Debug)]
pub struct Pc1Part {
    /// Its node.
    pub node: NodeId,
    /// Its cpus.
    pub cpus: CpuSet,
    /// Sectors at the same time.
    pub tasks: u32,
    /// Units of cores.
    pub units: u32,
}

/// An executor of PC2 or C2.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its cpus.
    pub cpus: CpuSet,
    /// The index of its GPU.
    pub gpu: Option<u32>,
    /// The lock of its tasks.
    pub lock: Option<String>,
}

/// All executors.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// PC1, one for each node that labels.
    pub pc1: Vec<Pc1Part>,
    /// PC2.
    pub pc2: Vec<Part>,
    /// C2.
    pub c2: Vec<Part>,
    /// Cores kept free.
    pub kept_free: CpuSet,
    /// Sectors that share a unit of PC1.
    pub lanes: u32,
}

/// Places all executors, with so many PC1 tasks on each node; `None` if there are too few cores.
pub(super) fn lay_out(
    hardware: &Hardware,
    wish: &Wish,
    sharing: Sharing,
    tasks: &BTreeMap<NodeId, u32>,
    lanes: u32,
) -> Option<Layout> {
    let mut pools = Vec::new();
    for (node, reserve) in reserves(hardware, wish) {
        let tasks = tasks.get(&node).copied().unwrap_or(0);
        let labelling = Labelling { tasks, producers: wish.producers, lanes };
        pools.push(divide(hardware, node, labelling, reserve)?);
    }
    let mut layout = Layout { lanes, ..Layout::default() };
    layout.kept_free = pools.iter().flat_map(|pool| pool.kept_free.iter()).collect();
    for pool in &pools {
        let tasks = tasks.get(&pool.node).copied().unwrap_or(0);
        if tasks > 0 {
            let (node, cpus, units) = (pool.node, pool.pc1.clone(), pool.units);
            layout.pc1.push(Pc1Part { node, cpus, tasks, units });
        }
    }
    later_stages(hardware, wish, sharing, &pools, &mut layout)?;
    Some(layout)
}

/// PC2 and C2.
fn later_stages(
    hardware: &Hardware,
    wish: &Wish,
    sharing: Sharing,
    pools: &[NodePool],
    layout: &mut Layout,
) -> Option<()> {
    let [with_pc2, with_c2] = [Stage::Pc2, Stage::C2].map(|stage| wish.stages.contains(&stage));
    let cores: Cores = pools.iter().map(|pool| (pool.node, pool.others.clone())).collect();
    let gpus = spread_over_nodes(hardware);
    match sharing {
        Sharing::Turns => {
            let all = cpus(cores.values().flatten());
            let both = with_pc2 && with_c2;
            let part =
                || Part { cpus: all.clone(), gpu: None, lock: both.then(|| "cores".to_owned()) };
            layout.pc2.extend(with_pc2.then(part));
            layout.c2.extend(with_c2.then(part));
        }
        Sharing::Shared { gpus: used } => {
            let both = with_pc2 && with_c2;
            let mut gpus: Vec<u32> = gpus.iter().map(|(index, _)| *index).take(used).collect();
            gpus.sort_unstable();
            let named: Vec<Gpu> = gpus.iter().map(|gpu| (*gpu, node_of(hardware, *gpu))).collect();
            for ((gpu, _), pool) in named.iter().zip(share_out(&cores, &named)) {
                // Counted from 1, as people count.
                let lock = both.then(|| format!("gpu{}", gpu + 1));
                let part = |cpus| Part { cpus, gpu: Some(*gpu), lock: lock.clone() };
                if with_pc2 {
                    layout.pc2.push(part(cpus(first_of_each(&pool, PC2_CORES))));
                }
                if with_c2 {
                    layout.c2.push(part(cpus(pool.values().flatten())));
                }
            }
        }
        Sharing::Exclusive { pc2, c2 } => {
            let (of_pc2, others) = gpus.split_at(pc2.min(gpus.len()));
            let of_c2 = &others[..c2.min(others.len())];
            let mut left = cores.clone();
            if with_pc2 {
                for ((gpu, _), pool) in of_pc2.iter().zip(share_out(&cores, of_pc2)) {
                    // Half at least is for C2.
                    let half = pool.values().map(Vec::len).sum::<usize>() / 2;
                    let most = if with_c2 { PC2_CORES.min(half) } else { PC2_CORES };
                    let taken = cpus(first_of_each(&pool, most));
                    for cores in left.values_mut() {
                        cores.retain(|core| !taken.contains(core.number));
                    }
                    layout.pc2.push(Part { cpus: taken, gpu: Some(*gpu), lock: None });
                }
            }
            if with_c2 {
                let alone = [(0, None)];
                let users = if of_c2.is_empty() { &alone[..] } else { of_c2 };
                for ((gpu, _), pool) in users.iter().zip(share_out(&left, users)) {
                    let gpu = (!of_c2.is_empty()).then_some(*gpu);
                    let cpus = cpus(pool.values().flatten());
                    layout.c2.push(Part { cpus, gpu, lock: None });
                }
            }
        }
    }
    let starved = layout.pc2.iter().chain(&layout.c2).any(|part| part.cpus.is_empty());
    (!starved).then_some(())
}

/// Free cores by node.
type Cores = BTreeMap<NodeId, Vec<Core>>;
/// A GPU's index and node.
type Gpu = (u32, Option<NodeId>);

/// Cores kept free on each node: so many a socket, from its first nodes.
fn reserves(hardware: &Hardware, wish: &Wish) -> BTreeMap<NodeId, usize> {
    let mut reserves = BTreeMap::new();
    for nodes in hardware.sockets().values() {
        let cores: usize = nodes
            .iter()
            .map(|node| hardware.l3_groups_of(node.id).iter().map(|g| g.cores.len()).sum::<usize>())
            .sum();
        // On small processors fewer: one of eight cores.
        let reserve = wish.reserve.map_or((cores / 8).min(2), |cores| cores as usize);
        for (at, node) in nodes.iter().enumerate() {
            let own = reserve / nodes.len() + usize::from(at < reserve % nodes.len());
            reserves.insert(node.id, own);
        }
    }
    reserves
}

fn node_of(hardware: &Hardware, gpu: u32) -> Option<NodeId> {
    let node = hardware.gpu(gpu)?.node?;
    hardware.node(node).map(|node| node.id)
}

/// The GPUs, the first of each node before the second ones, so that the first half of them is
/// spread over the nodes.
fn spread_over_nodes(hardware: &Hardware) -> Vec<Gpu> {
    let mut seen: BTreeMap<Option<NodeId>, usize> = BTreeMap::new();
    let mut ranked: Vec<_> = hardware
        .gpus
        .iter()
        .map(|gpu| {
            let node = node_of(hardware, gpu.index);
            let rank = seen.entry(node).or_default();
            *rank += 1;
            (*rank, gpu.index, node)
        })
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, gpu, node)| (gpu, node)).collect()
}

/// Shares the cores out among the users of GPUs: those of a node among the GPUs of that node, if
/// every node with cores has equally many, else some of every node for each.
fn share_out(cores: &Cores, users: &[Gpu]) -> Vec<Cores> {
    let nodes: Vec<_> =
        cores.iter().filter(|(_, cores)| !cores.is_empty()).map(|(id, _)| *id).collect();
    let of_node = |node: NodeId| users.iter().filter(|(_, at)| *at == Some(node)).count();
    let each = users.len() / nodes.len().max(1);
    let by_node = each > 0 && nodes.iter().all(|node| of_node(*node) == each);
    let mut taken: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut shares = Vec::new();
    for (place, (_, at)) in users.iter().enumerate() {
        let mut share = Cores::new();
        for (node, cores) in cores {
            let (parts, part) = if by_node {
                if *at != Some(*node) {
                    continue;
                }
                let part = taken.entry(*node).or_default();
                *part += 1;
                (each, *part - 1)
            } else {
                (users.len(), place)
            };
            let (from, to) = (cores.len() * part / parts, cores.len() * (part + 1) / parts);
            share.insert(*node, cores[from..to].to_vec());
        }
        shares.push(share);
    }
    shares
}

/// The first `most` cores, equally many of each node as far as that goes.
fn first_of_each(pool: &Cores, most: usize) -> Vec<&Core> {
    let mut taken = Vec::new();
    let longest = pool.values().map(Vec::len).max().unwrap_or(0);
    for place in 0..longest {
        for cores in pool.values() {
            if let Some(core) = cores.get(place).filter(|_| taken.len() < most.max(1)) {
                taken.push(core);
            }
        }
    }
    taken
}

/// All hardware threads of cores.
fn cpus<'a>(cores: impl IntoIterator<Item = &'a Core>) -> CpuSet {
    cores.into_iter().flat_map(|core| core.cpus.iter().collect::<Vec<_>>()).collect()
}
