//! Cpus that are not there, cores that two executors want, cut L3 groups, nodes, units.

use std::collections::{BTreeMap, BTreeSet};

use seal_config::StageName;
use seal_host::{CpuSet, L3Id, NodeId};

use super::{Checking, Severity};
use crate::Executor;

impl Checking<'_> {
    pub(super) fn cores(&mut self) {
        for executor in self.scheme.executors.clone() {
            self.cpus_there(&executor);
            self.node(&executor);
            if executor.stage == StageName::Pc1 {
                self.l3_cut(&executor);
                self.units(&executor);
            }
        }
        self.cores_shared();
        self.instructions();
    }

    fn written_cpus(&self, executor: &Executor) -> Option<CpuSet> {
        let written = &self.config.executors.get(&executor.stage)?.get(executor.index)?.cpus;
        Some(written.as_ref()?.on(&self.against.hardware.topology.cpu_set()))
    }

    fn cpus_there(&mut self, executor: &Executor) {
        let Some(wanted) = self.written_cpus(executor) else { return };
        let online = self.against.hardware.topology.cpu_set();
        let missing = wanted.minus(&online);
        if !missing.is_empty() {
            self.find(
                ("cpu-missing", Severity::Error),
                &format!("{}.cgroup.cpuset", executor.key),
                format!("cpus {missing} do not exist: the machine has {online}"),
                "name cpus that are there; the executor's start would fail",
            );
        }
    }

    fn node(&mut self, executor: &Executor) {
        let Some(node) = executor.node else { return };
        let hardware = self.against.hardware;
        let key = format!("{}.numa_preferred", executor.key);
        if hardware.node(node).is_none() {
            let nodes: CpuSet = hardware.nodes.iter().map(|node| node.id.0).collect();
            self.find(
                ("node-missing", Severity::Error),
                &key,
                format!("there is no NUMA node {node}: the machine has {nodes}"),
                "name a node that is there, or leave numa_preferred out",
            );
            return;
        }
        let elsewhere: CpuSet = executor
            .allowed
            .iter()
            .filter(|cpu| hardware.topology.cpu(*cpu).is_some_and(|cpu| cpu.node != node))
            .collect();
        if self.written_cpus(executor).is_some() && !elsewhere.is_empty() {
            let nodes: BTreeSet<NodeId> =
                hardware.topology.nodes_of(&elsewhere).into_iter().collect();
            let nodes: CpuSet = nodes.into_iter().map(|node| node.0).collect();
            self.find(
                ("node-of-other-cpus", Severity::Warning),
                &key,
                format!(
                    "cpus {elsewhere} of its cpuset are on NUMA node {nodes}, not {node}: their \
                     memory would be on the far side of the bus"
                ),
                "give the executor cpus of one node, and an executor of its own to each node",
            );
        }
    }

    /// A cpuset should have whole L3 groups: what is cut off is used by others, who then share the
    /// cache, or by nobody. Where a node has one group there is nothing but a part of it to have.
    fn l3_cut(&mut self, executor: &Executor) {
        let Some(wanted) = self.written_cpus(executor) else { return };
        let hardware = self.against.hardware;
        let mut groups_of_node: BTreeMap<NodeId, usize> = BTreeMap::new();
        let groups = hardware.l3_groups();
        for group in &groups {
            *groups_of_node.entry(group.node).or_default() += 1;
        }
        let mut cut: Vec<(L3Id, CpuSet)> = Vec::new();
        for group in &groups {
            let (inside, outside): (Vec<_>, Vec<_>) =
                group.cores.iter().partition(|core| !core.cpus.and(&wanted).is_empty());
            if !inside.is_empty() && !outside.is_empty() && groups_of_node[&group.node] > 1 {
                cut.push((group.id, outside.iter().map(|core| core.number).collect()));
            }
        }
        if cut.is_empty() {
            return;
        }
        let left: CpuSet =
            cut.iter().flat_map(|(_, cores)| cores.iter().collect::<Vec<_>>()).collect();
        let ids: CpuSet = cut.iter().map(|(id, _)| id.0).collect();
        self.find(
            ("l3-cut", Severity::Warning),
            &format!("{}.cgroup.cpuset", executor.key),
            format!(
                "cuts the L3 groups that begin at cpu {ids}: cores {left} of them are left out. \
                 Whoever runs there shares the cache with labelling; other sealing software even \
                 panics"
            ),
            format!("add cores {left}, or leave these groups out"),
        );
    }

    /// "n units, m wanted".
    fn units(&mut self, executor: &Executor) {
        let Some(plan) = &executor.units else { return };
        if let Some(reduced) = &plan.reduced {
            self.find(
                ("producers-reduced", Severity::Warning),
                &format!("{}.cgroup.cpuset", executor.key),
                reduced.to_string(),
                "give it more cores of the same L3 group, or set \
                 FIL_PROOFS_MULTICORE_SDR_PRODUCERS to what there is",
            );
            return;
        }
        let units = executor.unit_count();
        let table = self.config.executors.get(&executor.stage);
        let table = table.and_then(|tables| tables.get(executor.index));
        let Some(table) = table else { return };
        let asked_for_lanes = table.envs.contains_key("SEAL_PC1_LANES");
        let alone = self.config.executors.get(&executor.stage).is_some_and(|all| all.len() == 1);
        let limit = self.config.concurrent.get(&executor.stage).filter(|_| alone).copied();
        let (wanted, key) = match (table.concurrent, limit) {
            (Some(own), Some(limit)) if limit < own => {
                (limit, format!("processors.limitation.concurrent.{}", executor.stage))
            }
            (Some(own), _) => (own, format!("{}.concurrent", executor.key)),
            (None, Some(limit)) => {
                (limit, format!("processors.limitation.concurrent.{}", executor.stage))
            }
            (None, None) => return,
        };
        let wanted = wanted.get();
        let most = units.saturating_mul(executor.lanes);
        if wanted > most {
            self.find(
                ("units-short", Severity::Error),
                &key,
                format!(
                    "{wanted} tasks wanted, but its cpus make {units} units of cores, which take \
                     {most} sectors ({} to a unit): the others would be taken in and wait",
                    executor.lanes
                ),
                format!("lower it to {units}, or give the executor more cores"),
            );
        } else if wanted > units && !asked_for_lanes {
            self.find(
                ("units-shared", Severity::Warning),
                &key,
                format!(
                    "{wanted} tasks wanted, but its cpus make {units} units of cores: sectors \
                     would share units, which makes each of them slower"
                ),
                format!(
                    "lower it to {units}, give the executor more cores, or say that it is meant \
                     with SEAL_PC1_LANES = \"{}\"",
                    wanted.div_ceil(units.max(1))
                ),
            );
        }
    }

    /// Cores that two executors would really use at once.
    fn cores_shared(&mut self) {
        let hardware = self.against.hardware;
        let cores = |executor: &Executor| -> BTreeSet<u32> {
            let core = |cpu| hardware.topology.cpu(cpu).map(|cpu| cpu.core);
            executor.busy.iter().filter_map(core).collect()
        };
        let all: Vec<_> = self.scheme.executors.iter().map(|e| (e.clone(), cores(e))).collect();
        for (at, (later, later_cores)) in all.iter().enumerate() {
            let mut shared: BTreeSet<u32> = BTreeSet::new();
            let mut with: Vec<&str> = Vec::new();
            for (earlier, earlier_cores) in &all[..at] {
                if self.scheme.exclude_each_other(earlier, later) {
                    continue;
                }
                let both: Vec<_> = earlier_cores.intersection(later_cores).copied().collect();
                if !both.is_empty() {
                    shared.extend(both);
                    with.push(&earlier.key);
                }
            }
            if shared.is_empty() {
                continue;
            }
            let shared: CpuSet = shared.into_iter().collect();
            let written = self.written_cpus(later).is_some();
            let because = if written { "" } else { " (it has no cpuset, so it runs everywhere)" };
            let with = with.join(" and ");
            self.find(
                ("cores-shared", Severity::Warning),
                &format!("{}.cgroup.cpuset", later.key),
                format!(
                    "cores {shared} are also kept busy by {with}{because}: both would run there at \
                     once, and slow each other down"
                ),
                "give them different cores, or a common lock of 1, so that they take turns",
            );
        }
    }

    fn instructions(&mut self) {
        let labels = self.scheme.stage(StageName::Pc1).next().is_some();
        if labels && self.against.hardware.has("sha_ni") == Some(false) {
            self.find(
                ("no-sha-ni", Severity::Warning),
                "processors.pc1",
                "the processor has no SHA instructions: labelling takes about five times as long"
                    .to_owned(),
                "run PC1 on a machine with SHA-NI (AMD Zen, Intel Ice Lake and later)",
            );
        }
    }
}
