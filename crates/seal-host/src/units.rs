//! Which cores work together on a sector: one consumer with its producers, on one L3 cache.
//!
//! A pure function of the machine and of what is asked for, so that whoever plans a machine gets
//! what will run on it.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Cpu, CpuSet, L3Id, NodeId, Topology};

/// Which hardware threads of a core are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// One of each core.
    #[default]
    OnePerCore,
    /// All of them. A unit takes both threads of a core before the next core, so that two
    /// consumers share a core as late as possible.
    All,
}

/// What is asked of the planning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitRequest {
    /// Producers for each consumer.
    pub producers: usize,
    /// Which hardware threads are used.
    pub threads: Threads,
}

/// Cpus that work together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreUnit {
    /// The cpu of the thread that labels.
    pub consumer: u32,
    /// The cpus of the threads that gather parents.
    pub producers: Vec<u32>,
    /// The L3 cache they share.
    pub l3: L3Id,
    /// The NUMA node they are on.
    pub node: NodeId,
}

impl CoreUnit {
    /// All its cpus.
    pub fn cpus(&self) -> CpuSet {
        self.producers.iter().copied().chain([self.consumer]).collect()
    }
}

impl fmt::Display for CoreUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let producers: CpuSet = self.producers.iter().copied().collect();
        write!(f, "consumer on cpu {}, producers on {producers}, node {}", self.consumer, self.node)
    }
}

/// The units of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitPlan {
    /// The units, lowest cpus first.
    pub units: Vec<CoreUnit>,
    /// Allowed cpus that are in no unit.
    pub left_over: CpuSet,
    /// What could not be had.
    pub reduced: Option<Reduced>,
}

impl UnitPlan {
    /// Brings the units into the order in which sectors take them: the nodes by turns, so that the
    /// memory of each of them is used alike, or those of the `preferred` node before all others.
    pub fn order_for_sectors(&mut self, preferred: Option<NodeId>) {
        let mut on_node: BTreeMap<NodeId, usize> = BTreeMap::new();
        let mut keyed: Vec<_> = std::mem::take(&mut self.units)
            .into_iter()
            .map(|unit| {
                let before = on_node.entry(unit.node).or_default();
                let elsewhere = preferred.is_some_and(|node| unit.node != node);
                let key = (elsewhere, *before, unit.node);
                *before += 1;
                (key, unit)
            })
            .collect();
        keyed.sort_by_key(|(key, _)| *key);
        self.units = keyed.into_iter().map(|(_, unit)| unit).collect();
    }
}

/// Fewer producers than asked for, since no L3 cache has enough allowed cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reduced {
    /// Producers asked for.
    pub wanted: usize,
    /// Producers of each unit.
    pub granted: usize,
}

impl fmt::Display for Reduced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wanted, granted } = self;
        write!(
            f,
            "{wanted} producers for each sector need {} cores on one L3 cache, and at most {} of \
             the allowed ones share one; running with {granted} producers",
            wanted + 1,
            granted + 1,
        )
    }
}

/// No unit at all can be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("none of the allowed cpus {allowed} is switched on; this machine has {online}")]
pub struct NoUnits {
    /// The allowed cpus.
    pub allowed: CpuSet,
    /// The cpus there are.
    pub online: CpuSet,
}

/// Divides the allowed cpus into units. Each lies on one L3 cache and takes its lowest cores that
/// are free, so what does not make a whole unit is left at the upper end of each cache.
///
/// Where no cache has enough allowed cores, units get fewer producers, down to none.
pub fn plan_units(
    topology: &Topology,
    allowed: &CpuSet,
    request: UnitRequest,
) -> Result<UnitPlan, NoUnits> {
    let groups = groups(topology, allowed, request.threads);
    let largest = groups.values().map(Vec::len).max().unwrap_or(0);
    if largest == 0 {
        return Err(NoUnits { allowed: allowed.clone(), online: topology.cpu_set() });
    }
    let granted = request.producers.min(largest - 1);
    let mut units = Vec::new();
    for (l3, cpus) in &groups {
        for cpus in cpus.chunks_exact(granted + 1) {
            units.push(CoreUnit {
                consumer: cpus[0].number,
                producers: cpus[1..].iter().map(|cpu| cpu.number).collect(),
                l3: *l3,
                node: cpus[0].node,
            });
        }
    }
    let used: CpuSet =
        units.iter().flat_map(|unit| unit.cpus().iter().collect::<Vec<_>>()).collect();
    let left_over = allowed.and(&topology.cpu_set()).minus(&used);
    let reduced =
        (granted < request.producers).then_some(Reduced { wanted: request.producers, granted });
    Ok(UnitPlan { units, left_over, reduced })
}

/// The cpus that may be used, by cache, in the order in which units take them.
fn groups<'a>(
    topology: &'a Topology,
    allowed: &CpuSet,
    threads: Threads,
) -> BTreeMap<L3Id, Vec<&'a Cpu>> {
    let mut groups: BTreeMap<L3Id, Vec<&Cpu>> = BTreeMap::new();
    for cpu in topology.cpus().filter(|cpu| allowed.contains(cpu.number)) {
        groups.entry(cpu.l3).or_default().push(cpu);
    }
    for cpus in groups.values_mut() {
        cpus.sort_by_key(|cpu| (cpu.core, cpu.number));
        if threads == Threads::OnePerCore {
            cpus.dedup_by_key(|cpu| cpu.core);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::tests::machine;
    use proptest::prelude::*;

    fn plan(topology: &Topology, allowed: &str, producers: usize, threads: Threads) -> UnitPlan {
        let allowed = allowed.parse().expect("a list");
        plan_units(topology, &allowed, UnitRequest { producers, threads }).expect("units")
    }

    #[test]
    fn sectors_take_units_of_the_nodes_by_turns_unless_one_is_preferred() {
        let mut of_two = plan(&machine(2, 2, 3, 1), "0-11", 1, Threads::OnePerCore);
        let consumers =
            |plan: &UnitPlan| -> Vec<u32> { plan.units.iter().map(|unit| unit.consumer).collect() };
        assert_eq!(consumers(&of_two), [0, 3, 6, 9], "lowest cpus first");
        of_two.order_for_sectors(None);
        assert_eq!(consumers(&of_two), [0, 6, 3, 9]);
        of_two.order_for_sectors(Some(NodeId(1)));
        assert_eq!(consumers(&of_two), [6, 9, 0, 3]);
        // One node has one unit only.
        let mut uneven = plan(&machine(2, 2, 3, 1), "0-7", 1, Threads::OnePerCore);
        uneven.order_for_sectors(None);
        assert_eq!(consumers(&uneven), [0, 6, 3]);
    }

    fn units(plan: &UnitPlan) -> Vec<(u32, Vec<u32>)> {
        plan.units.iter().map(|unit| (unit.consumer, unit.producers.clone())).collect()
    }

    #[test]
    fn the_pc1_cpusets_of_both_schemes_give_14_units_and_leave_every_third_core() {
        let epyc_7642_x2 = machine(2, 16, 3, 1);
        for (cpuset, first, node) in [("0-41", 0, 0), ("48-89", 48, 1)] {
            let plan = plan(&epyc_7642_x2, cpuset, 1, Threads::OnePerCore);
            assert_eq!(plan.units.len(), 14);
            assert_eq!(plan.reduced, None);
            for (index, unit) in plan.units.iter().enumerate() {
                let core = first + 3 * u32::try_from(index).expect("few");
                assert_eq!((unit.consumer, unit.producers.as_slice()), (core, &[core + 1][..]));
                assert_eq!((unit.l3, unit.node), (L3Id(core), NodeId(node)));
            }
            let third: CpuSet = (0..14).map(|group| first + 3 * group + 2).collect();
            assert_eq!(plan.left_over, third);
        }
    }

    #[test]
    fn eight_cores_on_a_cache_make_four_units_of_two() {
        let milan_x2 = machine(2, 8, 8, 2);
        let plan = plan(&milan_x2, "0-255", 1, Threads::OnePerCore);
        assert_eq!(plan.units.len(), 64);
        assert_eq!(
            units(&plan)[..5].to_vec(),
            [(0, vec![1]), (2, vec![3]), (4, vec![5]), (6, vec![7]), (8, vec![9])]
        );
        assert_eq!(plan.units[32].node, NodeId(1));
        assert_eq!(plan.left_over.to_string(), "128-255", "the second threads");
    }

    #[test]
    fn three_producers_fill_an_eight_core_cache_with_two_units() {
        let plan = plan(&machine(1, 8, 8, 1), "0-15", 3, Threads::OnePerCore);
        assert_eq!(
            units(&plan),
            [(0, vec![1, 2, 3]), (4, vec![5, 6, 7]), (8, vec![9, 10, 11]), (12, vec![13, 14, 15])]
        );
    }

    #[test]
    fn with_all_threads_a_consumer_shares_its_core_with_its_producer() {
        let one_socket = machine(1, 1, 4, 2);
        let all = plan(&one_socket, "0-7", 1, Threads::All);
        assert_eq!(units(&all), [(0, vec![4]), (1, vec![5]), (2, vec![6]), (3, vec![7])]);
        let one = plan(&one_socket, "0-7", 1, Threads::OnePerCore);
        assert_eq!(units(&one), [(0, vec![1]), (2, vec![3])]);
        let second_threads = plan(&one_socket, "4-7", 1, Threads::OnePerCore);
        assert_eq!(units(&second_threads), [(4, vec![5]), (6, vec![7])]);
    }

    #[test]
    fn a_cpuset_that_cuts_a_cache_works() {
        let epyc_7642_x2 = machine(2, 16, 3, 1);
        // One core of the first group, two of the second, three of the third, one of the last.
        let cut = plan(&epyc_7642_x2, "2,4-5,6-8,95", 1, Threads::OnePerCore);
        assert_eq!(units(&cut), [(4, vec![5]), (6, vec![7])]);
        assert_eq!(cut.left_over.to_string(), "2,8,95");
        assert_eq!(cut.reduced, None);
    }

    #[test]
    fn too_few_cores_on_every_cache_mean_fewer_producers_and_it_is_said() {
        let pc2_of_scheme_a = plan(&machine(2, 16, 3, 1), "2,5,8,50", 1, Threads::OnePerCore);
        assert_eq!(units(&pc2_of_scheme_a), [(2, vec![]), (5, vec![]), (8, vec![]), (50, vec![])]);
        assert_eq!(pc2_of_scheme_a.reduced, Some(Reduced { wanted: 1, granted: 0 }));

        let four = plan(&machine(2, 16, 3, 1), "0-5", 4, Threads::OnePerCore);
        assert_eq!(units(&four), [(0, vec![1, 2]), (3, vec![4, 5])]);
        let said = four.reduced.expect("fewer").to_string();
        assert!(said.starts_with("4 producers for each sector need 5 cores on one L3"), "{said}");
        assert!(said.ends_with("running with 2 producers"), "{said}");
    }

    #[test]
    fn one_core_is_a_unit_without_producers() {
        let plan = plan(&machine(1, 1, 1, 1), "0", 1, Threads::OnePerCore);
        assert_eq!(units(&plan), [(0, vec![])]);
        assert_eq!(plan.reduced, Some(Reduced { wanted: 1, granted: 0 }));
    }

    #[test]
    fn two_cores_are_one_unit() {
        let plan = plan(&machine(1, 1, 2, 1), "0-1", 1, Threads::OnePerCore);
        assert_eq!(units(&plan), [(0, vec![1])]);
        assert_eq!(plan.units[0].to_string(), "consumer on cpu 0, producers on 1, node 0");
        assert!(plan.left_over.is_empty());
    }

    #[test]
    fn cpus_that_are_not_there_give_no_units() {
        let allowed: CpuSet = "8-9".parse().expect("a list");
        let request = UnitRequest { producers: 1, threads: Threads::OnePerCore };
        let error = plan_units(&machine(1, 1, 2, 1), &allowed, request).unwrap_err();
        assert_eq!(
            error.to_string(),
            "none of the allowed cpus 8-9 is switched on; this machine has 0-1"
        );
    }

    proptest! {
        #[test]
        fn units_never_share_a_cpu_and_lie_on_one_cache(
            cores in 1_u32..9,
            threads in 1_u32..3,
            producers in 0_usize..5,
            all in any::<bool>(),
            allowed in prop::collection::btree_set(0_u32..96, 1..60),
        ) {
            let topology = machine(2, 4, cores, threads);
            let allowed = CpuSet::from_iter(allowed);
            let request = UnitRequest {
                producers,
                threads: if all { Threads::All } else { Threads::OnePerCore },
            };
            let Ok(plan) = plan_units(&topology, &allowed, request) else {
                prop_assert!(allowed.and(&topology.cpu_set()).is_empty());
                return Ok(());
            };
            let mut seen = CpuSet::default();
            let mut cores = std::collections::BTreeSet::new();
            for unit in &plan.units {
                for cpu in unit.cpus().iter() {
                    prop_assert!(allowed.contains(cpu) && !seen.contains(cpu));
                    seen = seen.iter().chain([cpu]).collect();
                    let cpu = topology.cpu(cpu).expect("online");
                    prop_assert_eq!((cpu.l3, cpu.node), (unit.l3, unit.node));
                    prop_assert!(cores.insert(cpu.core) || all);
                }
            }
            prop_assert!(!plan.units.is_empty());
            prop_assert_eq!(seen.len() + plan.left_over.len(), allowed.and(&topology.cpu_set()).len());
        }
    }
}
