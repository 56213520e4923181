//! The parts of C2, what they take, and how they are told.

use std::ops::ControlFlow;

use seal_groth16::{Position, ProveStep, Work};
use seal_runtime::{Plan, Step, TaskContext, Unit};

const CHECK: &str = "check of the C1 output";
const TRIAL: &str = "try the GPU";
const LOAD: &str = "load parameters";
const CIRCUIT: &str = "circuit";
const VERIFY: &str = "verify";

/// What parts take, in seconds, as it was measured of a 2 KiB sector (`benches/runs`). Only their
/// ratios count, and only until a task has shown its own.
mod takes {
    pub(super) const CHECK: f64 = 0.02;
    pub(super) const TRIAL: f64 = 1.0;
    pub(super) const LOAD: f64 = 17.0;
    pub(super) const CIRCUIT: f64 = 0.3;
    /// The parts of a partition's proof.
    pub(super) const WITNESS: f64 = 0.4;
    pub(super) const TRANSFORMS: f64 = 1.05;
    pub(super) const SUMS: f64 = 5.33;
    /// A device's, which is not told apart: about as long as a processor takes to fill the next
    /// partition.
    pub(super) const DEVICE: f64 = 0.4;
    pub(super) const VERIFY: f64 = 0.01;
}

/// Who computes proofs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prover {
    Cpu,
    Device,
}

/// All parts of C2 with so many partitions.
pub(crate) fn plan(partitions: u32, prover: Prover) -> Plan {
    let step =
        |work, partition, kind, weight| Step::new(part(work, partition, partitions), kind, weight);
    let fill = |number, kind| {
        let fill = step(Work::Witness, number, kind, takes::WITNESS);
        // The next partition, filled while one is proved.
        if number == 0 { fill } else { fill.aside() }
    };
    let perhaps = |part, kind, weight| Step::new(part, kind, weight).perhaps();
    let plan = Plan::default()
        .then([Step::new(CHECK, "check", takes::CHECK)])
        .then([perhaps(TRIAL, "trial", takes::TRIAL)])
        .then([perhaps(CIRCUIT, "circuit", takes::CIRCUIT)])
        .then([perhaps(LOAD, "load", takes::LOAD)]);
    let plan = match prover {
        // The same cores do everything, so what goes on beside takes its time from the rest.
        Prover::Cpu => plan.then((0..partitions).flat_map(|number| {
            [
                fill(number, "witness"),
                step(Work::Transforms, number, "transforms", takes::TRANSFORMS),
                step(Work::Sums, number, "sums", takes::SUMS),
            ]
        })),
        Prover::Device => {
            let prove = |number| step(Work::Device, number, "device", takes::DEVICE);
            let last = partitions.saturating_sub(1);
            plan.then([fill(0, "witness")])
                .then((0..last).map(prove))
                .beside((1..partitions).map(|number| fill(number, "witness")))
                .then([prove(last)])
        }
    };
    plan.then([Step::new(VERIFY, "verify", takes::VERIFY)])
}

/// A part of the proof of a partition, for people.
fn part(work: Work, partition: u32, partitions: u32) -> String {
    let what = match work {
        Work::AwaitMemory => "memory",
        Work::Witness => "witness",
        Work::AwaitTurn => "its turn",
        Work::Transforms => "transforms",
        Work::Sums => "sums",
        Work::Device => "on the GPU",
    };
    format!("partition {} of {partitions}, {what}", partition + 1)
}

/// Tells where a proof is, step by step.
pub(crate) struct Told<'a> {
    context: &'a TaskContext,
    /// A step whose end is told by the next.
    open: Option<&'static str>,
    partitions: u32,
    /// What was last told of the partition that is filled, and of the one that is proved.
    filling: Option<Position>,
    proving: Option<Position>,
}

impl<'a> Told<'a> {
    pub(crate) fn new(context: &'a TaskContext) -> Self {
        Self { context, open: None, partitions: 0, filling: None, proving: None }
    }

    /// Tells it, and whether to go on.
    pub(crate) fn at(&mut self, step: ProveStep) -> ControlFlow<()> {
        let begun = match step {
            ProveStep::Checking => Some(CHECK),
            ProveStep::Trying => Some(TRIAL),
            ProveStep::Compiling => Some(CIRCUIT),
            ProveStep::Verifying => Some(VERIFY),
            ProveStep::Waiting { .. } | ProveStep::Loading { .. } | ProveStep::Proving { .. } => {
                None
            }
        };
        if self.open != begun {
            self.end();
        }
        if let Some(part) = begun
            && self.open.replace(part) != Some(part)
        {
            self.begin(part, step);
        }
        match step {
            ProveStep::Waiting { sector_size } => self.context.waits(&format!(
                "for parameters: those for {sector_size} are being loaded, or their circuit compiled, for \
                 a task or ahead of all (--preload)"
            )),
            ProveStep::Loading { done, total } => {
                self.context.progress(LOAD, done, total, Unit::Bytes);
            }
            ProveStep::Proving { partitions, filling, proving, .. } => {
                self.partitions = partitions;
                self.fills(filling);
                self.proves(proving);
            }
            ProveStep::Checking
            | ProveStep::Trying
            | ProveStep::Compiling
            | ProveStep::Verifying => {}
        }
        if self.context.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn begin(&mut self, part: &str, step: ProveStep) {
        match step {
            ProveStep::Checking => tracing::info!("checking the C1 output"),
            ProveStep::Verifying => {
                tracing::info!("verifying the proof");
                self.complete(self.filling);
                self.complete(self.proving);
            }
            _ => {}
        }
        self.context.progress(part, 0, 1, Unit::Steps);
    }

    /// All is done.
    pub(crate) fn end(&mut self) {
        if let Some(part) = self.open.take() {
            self.context.progress(part, 1, 1, Unit::Steps);
        }
    }

    fn fills(&mut self, now: Option<Position>) {
        let before = std::mem::replace(&mut self.filling, now);
        if now == before {
            return;
        }
        self.moved(before, now);
        match now.map(|position| position.work) {
            // Else one is proved, and the task does go on.
            Some(Work::AwaitMemory) if self.proving.is_none() => self.context.waits(
                "for memory: partitions of other tasks have what there is for partitions (--memory)",
            ),
            Some(Work::AwaitMemory) | None => {}
            Some(_) => self.tell(now),
        }
    }

    fn proves(&mut self, now: Option<Position>) {
        let before = std::mem::replace(&mut self.proving, now);
        if now == before {
            return;
        }
        self.moved(before, now);
        match now.map(|position| position.work) {
            Some(Work::AwaitTurn) => {
                self.context.waits("for its turn: a partition of another task is proved");
            }
            _ => self.tell(now),
        }
    }

    /// What was done before is complete when something else is done.
    fn moved(&self, before: Option<Position>, now: Option<Position>) {
        let of = |position: Option<Position>| position.map(|p| (p.partition, p.work));
        if of(before) != of(now) {
            self.complete(before);
        }
    }

    fn complete(&self, position: Option<Position>) {
        let whole = position
            .filter(|p| p.done < p.total && !matches!(p.work, Work::AwaitMemory | Work::AwaitTurn));
        self.tell(whole.map(|position| Position { done: position.total, ..position }));
    }

    fn tell(&self, position: Option<Position>) {
        let Some(Position { partition, work, done, total }) = position else { return };
        let part = part(work, partition, self.partitions);
        self.context.progress(&part, done.into(), total.into(), Unit::Steps);
    }
}

#[cfg(test)]
mod tests {
    use seal_runtime::Whole;
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
    fn the_time_left_of_a_recorded_proof_of_2_kib_is_right_within_a_tenth() {
        judge(include_str!("../traces/c2-2KiB.tsv"), plan(1, Prover::Cpu));
        // With its parameters to be loaded first.
        judge(include_str!("../traces/c2-2KiB-cold.tsv"), plan(1, Prover::Cpu));
    }
}
