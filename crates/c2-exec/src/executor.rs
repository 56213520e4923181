//! The stage as the request loop sees it.

use std::ops::ControlFlow;

use seal_groth16::{Groth16Error, ProveStep, Prover};
use seal_runtime::{Executor, TaskContext, Unit};
use seal_types::{SectorName, Stage};
use seal_wire::{C2Output, C2Task, DeviceReport, TaskError};

/// The executor of C2.
pub struct C2 {
    /// Parameters stay loaded in it from task to task.
    pub prover: Prover,
}

impl Executor for C2 {
    const STAGE: Stage = Stage::C2;
    type Task = C2Task;
    type Output = C2Output;

    fn sector(task: &C2Task) -> SectorName {
        task.sector()
    }

    fn run(&self, task: C2Task, context: &TaskContext) -> Result<C2Output, TaskError> {
        let mut waits = false;
        let mut at = |step| {
            if let ProveStep::Waiting { sector_size } = step
                && !std::mem::replace(&mut waits, true)
            {
                tracing::info!(
                    "waiting: the parameters for {sector_size} are being loaded, or their circuit \
                     compiled, for a task or ahead of all (--preload)"
                );
            }
            report(context, step)
        };
        let proof = self
            .prover
            .prove(&task, &mut at)
            .map_err(|error: Groth16Error| TaskError::from_error(error.code(), &error))?;
        Ok(C2Output { proof })
    }

    fn device(&self) -> Option<String> {
        Some(self.prover.device())
    }

    fn device_report(&self) -> Option<DeviceReport> {
        self.prover.device_report()
    }
}

fn report(context: &TaskContext, step: ProveStep) -> ControlFlow<()> {
    match step {
        ProveStep::Checking => tracing::info!("checking the C1 output"),
        ProveStep::Trying => context.progress("try the GPU", 0, 1, Unit::Steps),
        ProveStep::Waiting { .. } => context.progress("wait for parameters", 0, 1, Unit::Steps),
        ProveStep::Loading { done, total } => {
            context.progress("load parameters", done, total, Unit::Bytes);
        }
        ProveStep::Proving { partition, partitions } => {
            context.progress("partitions", partition.into(), partitions.into(), Unit::Steps);
        }
        ProveStep::Verifying => tracing::info!("verifying the proof"),
    }
    if context.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
