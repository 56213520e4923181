//! The stage as the request loop sees it.

use seal_groth16::{Groth16Error, Prover};
use seal_runtime::{Executor, TaskContext};
use seal_types::{SectorName, Stage};
use seal_wire::{C2Output, C2Task, DeviceReport, TaskError};

use crate::progress;

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
        let report = self.prover.device_report();
        let on_device = report.is_some_and(|report| report.replaced_by.is_none());
        let prover = if on_device { progress::Prover::Device } else { progress::Prover::Cpu };
        context.plan(progress::plan(task.c1out.registered_proof.partitions(), prover));
        let mut told = progress::Told::new(context);
        let proof = self
            .prover
            .prove(&task, &mut |step| told.at(step))
            .map_err(|error: Groth16Error| TaskError::from_error(error.code(), &error))?;
        told.end();
        Ok(C2Output { proof })
    }

    fn device(&self) -> Option<String> {
        Some(self.prover.device())
    }

    fn device_report(&self) -> Option<DeviceReport> {
        self.prover.device_report()
    }
}
