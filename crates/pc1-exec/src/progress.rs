//! The parts of PC1, what they take, and how they are told.

use std::time::Duration;

use seal_runtime::{Plan, Step, TaskContext, Unit};
use seal_sdr::{LayerOf, Part};
use seal_types::Porep;

/// The part that copies the data.
pub(crate) const COPY: &str = "copy";

/// The part that brings it to disk.
pub(crate) const COPY_TO_DISK: &str = "copy to disk";

/// Kinds of labels.
const FIRST_LABELS: &str = "labels of the first layer";
const LABELS: &str = "labels";

/// What parts take, as it was measured (`benches/runs`). Only their ratios count, and only until a
/// task has shown its own.
mod takes {
    /// A label, in nanoseconds, as all that follows. The first layer has fewer parents, and as long
    /// a chain.
    pub(super) const LABEL: f64 = 720.0;
    /// By how much a label takes longer than its chain alone.
    pub(super) const OVER_CHAIN: f64 = 1.04;
    /// The parents of a node, with their digest.
    pub(super) const PARENTS: f64 = 140.0;
    /// The digest of the parents of a node alone.
    pub(super) const CHECK_PARENTS: f64 = 35.0;
    /// To bring the parents of a node to disk.
    pub(super) const STORE_PARENTS: f64 = 22.0;
    /// To read a node of a layer and hash it.
    pub(super) const READ_LAYER: f64 = 25.0;
    /// A leaf of tree D and what is above it, beside labels.
    pub(super) const TREE_D: f64 = 175.0;
    /// To copy a node of data.
    pub(super) const COPY: f64 = 60.0;
    /// To compute a sample of labels again, whatever the size of the layer.
    pub(super) const CHECK_LABELS: f64 = 12e6;
    /// To store the end of the last layer, and what follows.
    pub(super) const STORE: f64 = 20e6;
}

/// All parts of PC1 of a sector, with or without data. The chain of a label takes so long, where that
/// is known.
pub(crate) fn plan(porep: &Porep, is_zero: bool, chain: Option<Duration>) -> Plan {
    let (nodes, layers) = (porep.nodes(), porep.layers);
    let all = |ns: f64| ns * nodes as f64;
    let of = |layer| LayerOf { layer, layers };
    let checks = (1..=layers).map(|layer| {
        Step::new(Part::CheckLayer(of(layer)), "check of layers", all(takes::READ_LAYER)).perhaps()
    });
    let parents = [
        Step::new(Part::CheckParents, "check of parents", all(takes::CHECK_PARENTS)),
        Step::new(Part::MakeParents, "parents", all(takes::PARENTS)),
        Step::new(Part::StoreParents, "parents to disk", all(takes::STORE_PARENTS)),
    ];
    let loads = (1..layers)
        .map(|layer| Step::new(Part::LoadLayer(of(layer)), "load", all(takes::READ_LAYER)));
    let labels = (1..=layers).flat_map(|layer| {
        // It reads less, and may so go at another pace.
        let kind = if layer == 1 { FIRST_LABELS } else { LABELS };
        let check = Part::CheckLabels(of(layer));
        [
            Step::new(Part::Layer(of(layer)), kind, all(takes::LABEL)),
            Step::new(check, "self-check", takes::CHECK_LABELS),
        ]
    });
    let last = Step::new(Part::StoreLayer(of(layers)), "store", takes::STORE);
    // A sector without data has holes in place of both.
    let data = |takes: f64| if is_zero { 0.0 } else { all(takes) };
    let tree_d = Step::new(seal_trees::Part::TreeD, "tree D", data(takes::TREE_D));
    let to_disk = Step::new(COPY_TO_DISK, "copy to disk", data(takes::COPY)).perhaps();
    let main = parents.map(Step::perhaps).into_iter().chain(loads.map(Step::perhaps));
    // On few cores tree D and the copy take theirs from the labels at first, and what these take
    // without them is seen late.
    let expected = match chain {
        Some(chain) => {
            let pace = chain.as_secs_f64() * takes::OVER_CHAIN / takes::LABEL;
            Plan::default().expecting(LABELS, pace).expecting(FIRST_LABELS, pace)
        }
        None => Plan::default(),
    };
    expected
        .then(checks)
        .then(main.chain(labels).chain([last]))
        .beside([tree_d, Step::new(COPY, "copy", data(takes::COPY)), to_disk])
        // Nothing of this task's: it is told of, and the task waits.
        .beside([Step::new(Part::AwaitParents { pid: 0 }, "wait", 0.0)])
}

/// What of the plan an earlier run has done.
pub(crate) fn already(context: &TaskContext, porep: &Porep, layers: usize) {
    for layer in (1..=porep.layers).take(layers) {
        let of = LayerOf { layer, layers: porep.layers };
        context.already(&Part::Layer(of).to_string());
        context.already(&Part::CheckLabels(of).to_string());
    }
}

/// Tells how far a part is.
pub(crate) fn tell(context: &TaskContext, part: Part, done: u64, total: u64) {
    if let Part::AwaitParents { pid } = part {
        if done == total {
            context.goes_on();
        } else {
            let who = match pid {
                0 => "another task or process".to_owned(),
                own if own == std::process::id() => "another task".to_owned(),
                pid => format!("process {pid}"),
            };
            context.waits(&format!("for the parents cache: {who} makes one there"));
        }
    }
    let unit = match part {
        Part::StoreParents | Part::CheckLabels(_) => Unit::Steps,
        Part::MakeParents
        | Part::AwaitParents { .. }
        | Part::CheckParents
        | Part::Layer(_)
        | Part::StoreLayer(_)
        | Part::CheckLayer(_)
        | Part::LoadLayer(_) => Unit::Nodes,
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

    /// What the chain of a label took when the traces were recorded.
    const LABEL: Duration = Duration::from_nanos(670);

    #[test]
    fn the_time_left_of_a_recorded_sector_of_512_mib_is_right_within_a_tenth() {
        let proof: RegisteredProof = "StackedDrg512MiBV1_1".parse().expect("a proof");
        let plan = plan(&proof.porep(), false, Some(LABEL));
        judge(include_str!("../traces/pc1-512MiB.tsv"), plan);
    }

    #[test]
    fn the_time_left_is_right_also_where_the_parents_cache_is_made_first() {
        let proof: RegisteredProof = "StackedDrg512MiBV1_1".parse().expect("a proof");
        let plan = plan(&proof.porep(), false, Some(LABEL));
        judge(include_str!("../traces/pc1-512MiB-parents.tsv"), plan);
    }
}
