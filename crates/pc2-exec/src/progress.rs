//! The parts of PC2, what they take, and how they are told.

use seal_runtime::{Plan, Step, TaskContext, Unit};
use seal_trees::{Part, PartUnit};
use seal_types::Porep;

/// What parts take, in seconds, as it was measured (`benches/runs`). Only their ratios count, and
/// only until a task has shown its own.
mod takes {
    /// To read and hash a node of a layer, or of tree D.
    pub(super) const INPUT: f64 = 10e-9;
    /// The trees over a node of each of two layers and the replica, and what one more layer costs.
    pub(super) const TREES: f64 = 1270e-9;
    pub(super) const MORE_LAYER: f64 = 85e-9;
    /// A node that is computed again.
    pub(super) const SAMPLE: f64 = 3.5e-3;
    /// To bring results to disk, in all and for each node.
    pub(super) const PUBLISH: [f64; 2] = [0.05, 10e-9];
}

/// All parts of PC2 of a sector, of which `samples` nodes are computed again.
pub(crate) fn plan(porep: &Porep, samples: u64) -> Plan {
    let (nodes, layers) = (porep.nodes() as f64, f64::from(porep.layers));
    let trees = takes::TREES + takes::MORE_LAYER * (layers - 2.0).max(0.0);
    let inputs = Step::new(Part::Inputs, "inputs", takes::INPUT * nodes * (layers + 1.0));
    let check = (samples > 0)
        .then(|| Step::new(Part::SelfCheck, "self-check", takes::SAMPLE * samples as f64));
    let [publish, each] = takes::PUBLISH;
    let publish = publish + each * nodes;
    Plan::default()
        .then([inputs.perhaps()])
        .then([Step::new(Part::Trees, "trees", trees * nodes)])
        .then(check)
        .then([Step::new(Part::Publish, "publish", publish)])
}

/// Tells how far a part is.
pub(crate) fn tell_part(context: &TaskContext, part: Part, done: u64, total: u64) {
    if let Part::Waiting { pid } = part {
        let who = if pid == 0 { "another process".to_owned() } else { format!("process {pid}") };
        return context.waits(&format!("for {who}, which still works there, {total} s at most"));
    }
    let unit = match part.unit() {
        PartUnit::Bytes => Unit::Bytes,
        PartUnit::Nodes => Unit::Nodes,
        PartUnit::Steps => Unit::Steps,
    };
    context.progress(&part.to_string(), done, total, unit);
}

#[cfg(test)]
mod tests {
    use seal_runtime::Whole;
    use seal_types::RegisteredProof;
    use test_support::trace::{Trace, worst_from};

    use super::*;

    /// Replays a recorded run: from a tenth of the work on, the time left is right within a tenth.
    fn judge(trace: &str, plan: Plan) {
        let (trace, mut whole) = (Trace::read(trace), Whole::new(plan));
        let judged = trace.judge(|step| {
            whole.at(step.at, &step.part, step.done, step.total);
            let standing = whole.standing(step.at);
            (standing.share, standing.left)
        });
        let worst = worst_from(&judged, 0.1);
        assert!(worst.error <= 0.1, "{worst:?} of {:?}", trace.took);
    }

    #[test]
    fn the_time_left_of_a_recorded_sector_of_512_mib_is_right_within_a_tenth() {
        let proof: RegisteredProof = "StackedDrg512MiBV1_1".parse().expect("a proof");
        judge(include_str!("../traces/pc2-512MiB.tsv"), plan(&proof.porep(), 40));
    }
}
