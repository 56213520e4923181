//! Metrics of wrong results that are on record.

use std::collections::BTreeMap;

use seal_wire::cpus_left_out;

use super::render::Out;
use crate::status::MachineStatus;

impl Out {
    /// Those of the machine. The records outlive supervisors, so the counts go on.
    pub(super) fn corruption(&mut self, machine: &MachineStatus) {
        let name = "seal_corruption_total";
        self.family(name, "counter", "Wrong results on record, by what they were computed on.");
        let mut counts: BTreeMap<_, u64> = BTreeMap::new();
        for record in &machine.corruption {
            let key = (record.stage.as_str(), record.kind.name(), record.on());
            *counts.entry(key).or_default() += 1;
        }
        for ((stage, kind, on), count) in &counts {
            let labels = [("stage", *stage), ("kind", *kind), ("on", on.as_str())];
            self.sample(name, &labels, *count as f64);
        }
        let name = "seal_cpu_left_out";
        self.family(name, "gauge", "1 for a cpu on which nothing is labelled any more.");
        for cpu in cpus_left_out(&machine.corruption) {
            self.sample(name, &[("cpu", &cpu.to_string())], 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use test_support::exposition::Exposition;

    use super::super::render::render;
    use crate::status::{MachineStatus, corrupt};

    #[test]
    fn wrong_results_are_counted_by_kind_and_core_and_a_core_left_out_is_named() {
        let page = Exposition::parse(&render(&corrupt())).expect("strict");
        let count = |kind, on| {
            page.value("seal_corruption_total", &[("stage", "pc1"), ("kind", kind), ("on", on)])
        };
        assert_eq!(count("label", "cpu 4"), Some(2.0));
        assert_eq!(count("layer", ""), Some(1.0));
        assert_eq!(page.value("seal_cpu_left_out", &[("cpu", "4")]), Some(1.0));
        let page = Exposition::parse(&render(&MachineStatus::default())).expect("strict");
        assert_eq!(page.series().filter(|series| series.0 == "seal_cpu_left_out").count(), 0);
    }
}
