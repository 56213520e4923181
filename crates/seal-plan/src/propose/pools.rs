//! The cores of a node: which PC1 takes, which are kept free, and which are left for the others.

use std::collections::BTreeSet;

use seal_host::{CpuSet, NodeId, Threads, UnitRequest, plan_units};

use crate::Hardware;
use crate::hardware::{Core, L3Group};

/// How PC1 is to use a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Labelling {
    /// Sectors at the same time.
    pub(super) tasks: u32,
    /// Producers of each unit.
    pub(super) producers: u32,
    /// Sectors that share a unit.
    pub(super) lanes: u32,
}

/// The cores of a node, divided.
#[derive(Clone, Debug)]
pub(super) struct NodePool {
    pub(super) node: NodeId,
    /// The cpus of PC1: whole L3 groups, where the node has several.
    pub(super) pc1: CpuSet,
    /// Units of cores in them.
    pub(super) units: u32,
    /// Cores for the other stages: those that units leave over first, then those of other groups.
    pub(super) others: Vec<Core>,
    /// Cores kept free.
    pub(super) kept_free: CpuSet,
}

/// Divides a node's cores; `None` if it has too few.
pub(super) fn divide(
    hardware: &Hardware,
    node: NodeId,
    labelling: Labelling,
    reserve: usize,
) -> Option<NodePool> {
    let groups = hardware.l3_groups_of(node);
    let pc1 = cpus_of_pc1(&groups, labelling)?;
    let mut units = 0;
    let mut left_over: BTreeSet<u32> = BTreeSet::new();
    if !pc1.is_empty() {
        let request =
            UnitRequest { producers: labelling.producers as usize, threads: Threads::OnePerCore };
        let plan = plan_units(&hardware.topology, &pc1, request).ok()?;
        units = u32::try_from(plan.units.len()).ok()?;
        if plan.reduced.is_some() || units.saturating_mul(labelling.lanes) < labelling.tasks {
            return None;
        }
        left_over = plan.left_over.iter().collect();
    }
    let cores = groups.iter().flat_map(|group| &group.cores);
    let (inside, outside): (Vec<_>, Vec<_>) = cores.partition(|core| pc1.contains(core.number));
    let light: Vec<_> =
        inside.into_iter().filter(|core| left_over.contains(&core.number)).collect();
    // Those beside labelling are kept free first: what runs there shares its cache.
    let (light, from_light) = light.split_at(light.len().saturating_sub(reserve));
    let rest = reserve - from_light.len();
    let (outside, from_outside) = outside.split_at(outside.len().checked_sub(rest)?);
    Some(NodePool {
        node,
        pc1,
        units,
        others: light.iter().chain(outside).map(|core| (*core).clone()).collect(),
        kept_free: from_light
            .iter()
            .chain(from_outside)
            .flat_map(|core| core.cpus.iter())
            .collect(),
    })
}

/// The lowest cpus that make enough units: whole groups, or as many cores as needed where there is
/// one group only.
fn cpus_of_pc1(groups: &[L3Group], labelling: Labelling) -> Option<CpuSet> {
    let size = labelling.producers as usize + 1;
    let mut missing = labelling.tasks.div_ceil(labelling.lanes) as usize;
    let mut cpus = Vec::new();
    for group in groups {
        if missing == 0 {
            break;
        }
        let units = group.cores.len() / size;
        let taken = if groups.len() == 1 { missing.min(units) * size } else { group.cores.len() };
        if units == 0 {
            continue;
        }
        cpus.extend(group.cores[..taken].iter().map(|core| core.number));
        missing = missing.saturating_sub(units);
    }
    (missing == 0).then(|| cpus.into_iter().collect())
}

/// The most units that a node could have.
pub(super) fn most_units(hardware: &Hardware, node: NodeId, producers: u32) -> u32 {
    let size = producers as usize + 1;
    let units =
        hardware.l3_groups_of(node).iter().map(|group| group.cores.len() / size).sum::<usize>();
    u32::try_from(units).unwrap_or(u32::MAX)
}
