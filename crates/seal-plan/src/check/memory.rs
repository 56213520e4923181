//! Memory: what all executors hold when each runs as many tasks as it may.
//!
//! Memory that is set aside as huge pages is for labels only. Counted are labels, buffers,
//! parameters and partitions; what lies on no node in particular is counted on all in equal parts.
//! The parents cache is not: it lies in pages that the kernel takes back when it needs them, and is
//! read from disk again.

use std::collections::BTreeMap;

use seal_config::StageName;
use seal_host::{CoreUnit, NodeId};
use seal_options::{NodeMemory, Options};

use super::{Checking, Severity};
use crate::hardware::Node;
use crate::{Bytes, Executor};

impl Checking<'_> {
    pub(super) fn memory(&mut self) {
        let others = self.scheme.memory().less(self.scheme.memory_of(StageName::Pc1));
        let nodes = self.against.hardware.nodes.len().max(1) as u64;
        let others = others.part(1, nodes);
        let labels = self.labels_by_node(others);
        let short =
            self.on_nodes(&labels, Bytes(0)) || self.all_memory() || self.on_nodes(&labels, others);
        if !short {
            self.beside_huge_pages(&labels);
        }
    }

    /// Whether there is a finding about labels on a node, beside `others` of the other stages.
    fn on_nodes(&mut self, labels: &BTreeMap<NodeId, Bytes>, others: Bytes) -> bool {
        let mut short = false;
        for (id, need) in labels {
            let Some(node) = self.against.hardware.node(*id) else { continue };
            let usable = node.usable;
            if *need <= usable.less(others) || self.against.hardware.nodes.len() == 1 {
                continue;
            }
            short = true;
            let fit = usable.less(others).holds(self.label_memory());
            let beside = match others {
                Bytes(0) => String::new(),
                others => format!(", of which the other stages take about {others}"),
            };
            let key = self.pc1_of_node(*id);
            self.find(
                ("node-memory-short", Severity::Error),
                &key,
                format!(
                    "the sectors labelled on NUMA node {id} take {need}, and it has \
                     {usable}{beside}: tasks beyond that are refused"
                ),
                format!("label at most {fit} sectors there at a time"),
            );
        }
        short
    }

    /// Memory that is set aside as huge pages is of no use to those that ask for none: pc2, c2, and
    /// labels that do not fit in them.
    fn beside_huge_pages(&mut self, labels: &BTreeMap<NodeId, Bytes>) {
        let hardware = self.against.hardware;
        let set_aside: Bytes = hardware.nodes.iter().map(Node::set_aside).sum();
        if set_aside == Bytes(0) {
            return;
        }
        let layer = Bytes(self.against.sector_size.bytes());
        let in_pages = |node: &Node| {
            let layers = labels.get(&node.id).map_or(0, |bytes| bytes.0.div_ceil(layer.0));
            layer.times(node.pieces_in_huge_pages(layer).min(layers))
        };
        let covered: Bytes = hardware.nodes.iter().map(in_pages).sum();
        let (need, left) = (self.scheme.memory().less(covered), hardware.ordinary());
        if need <= left {
            return;
        }
        let useful: Vec<_> = hardware
            .nodes
            .iter()
            .filter(|node| node.set_aside() > Bytes(0))
            .map(|node| format!("{} on node {}", in_pages(node), node.id))
            .collect();
        self.find(
            ("huge-pages-many", Severity::Error),
            "processors",
            format!(
                "{set_aside} are set aside as huge pages, which leaves {left} of {} for all else; \
                 what does not lie in huge pages takes {need}: tasks would be refused, or killed by \
                 the kernel",
                hardware.usable()
            ),
            format!(
                "set no more aside than labels take ({}), or run fewer tasks at a time",
                useful.join(", ")
            ),
        );
    }

    /// Whether there is a finding.
    fn all_memory(&mut self) -> bool {
        let usable = self.against.hardware.usable();
        let need = self.scheme.memory();
        if need <= usable {
            return false;
        }
        let parts: Vec<_> = [StageName::Pc1, StageName::Pc2, StageName::C2]
            .into_iter()
            .map(|stage| (stage, self.scheme.memory_of(stage)))
            .filter(|(_, bytes)| *bytes > Bytes(0))
            .map(|(stage, bytes)| format!("{stage} {bytes}"))
            .collect();
        let others = need.less(self.scheme.memory_of(StageName::Pc1));
        let fit = usable.less(others).holds(self.label_memory());
        let key = if self.config.concurrent.contains_key(&StageName::Pc1) {
            "processors.limitation.concurrent.pc1"
        } else if self.config.executors.contains_key(&StageName::Pc1) {
            "processors.pc1"
        } else {
            "processors"
        };
        self.find(
            ("memory-short", Severity::Error),
            key,
            format!(
                "all that may run at once takes {need} ({}), and the machine has {usable}: tasks \
                 would be refused, or killed by the kernel",
                parts.join(", ")
            ),
            if fit > 0 && self.scheme.memory_of(StageName::Pc1) > Bytes(0) {
                format!("run at most {fit} pc1 at a time, or fewer of the other stages")
            } else {
                "run fewer tasks at a time, or add memory".to_owned()
            },
        );
        true
    }

    /// Two layers of a sector.
    fn label_memory(&self) -> Bytes {
        let memory = crate::figures::stage_memory(seal_types::Stage::Pc1, self.against.sector_size);
        memory.task
    }

    /// What labels take on each node: they lie where the unit is that makes them. Sectors go to
    /// the emptiest unit, the first of equals, on a node that has memory for them beside `others`
    /// of the other stages.
    fn labels_by_node(&self, others: Bytes) -> BTreeMap<NodeId, Bytes> {
        let mut by_node: BTreeMap<NodeId, Bytes> = BTreeMap::new();
        let anywhere = |executor: &Executor| match &executor.options {
            Some(Options::Pc1(pc1)) => pc1.numa == NodeMemory::Preferred,
            _ => false,
        };
        let stage_most = self.scheme.tasks(StageName::Pc1).unwrap_or(u32::MAX);
        for executor in self.scheme.stage(StageName::Pc1) {
            let Some(plan) = &executor.units else { continue };
            if plan.units.is_empty() || anywhere(executor) {
                continue;
            }
            let mut sectors = vec![0_u32; plan.units.len()];
            for _ in 0..executor.tasks.unwrap_or(0).min(stage_most) {
                let has_room = |node: NodeId| {
                    let taken = by_node.get(&node).copied().unwrap_or_default();
                    let usable = self.against.hardware.node(node).map(|node| node.usable);
                    usable.is_some_and(|usable| taken + self.label_memory() <= usable.less(others))
                };
                let units = || (0..sectors.len()).zip(&plan.units);
                let emptiest = |unit: &(usize, &CoreUnit)| sectors[unit.0];
                let roomy = units().filter(|(_, unit)| has_room(unit.node)).min_by_key(emptiest);
                // Where there is none, the first is where the sector is refused.
                let Some((index, unit)) = roomy.or_else(|| units().min_by_key(emptiest)) else {
                    break;
                };
                sectors[index] += 1;
                *by_node.entry(unit.node).or_default() += self.label_memory();
            }
        }
        by_node
    }

    /// The key of the tasks that are labelled on a node.
    fn pc1_of_node(&self, node: NodeId) -> String {
        let on_node = |executor: &&Executor| {
            let plan = executor.units.as_ref();
            plan.is_some_and(|plan| plan.units.iter().any(|unit| unit.node == node))
        };
        let executor = self.scheme.stage(StageName::Pc1).find(on_node);
        executor.map_or("processors.pc1".to_owned(), |e| format!("{}.concurrent", e.key))
    }
}
