//! The stage as the request loop sees it.

use std::sync::Arc;

use seal_groth16::{Groth16Error, Prover};
use seal_host::MapError;
use seal_runtime::{CorruptionLog, Executor, TaskContext};
use seal_types::{SectorName, Stage};
use seal_wire::{C2Output, C2Task, Corruption, CorruptionKind, DeviceReport, TaskError};

use crate::progress;

/// The executor of C2.
pub struct C2 {
    /// Parameters stay loaded in it from task to task.
    pub prover: Prover,
    /// Where wrong results are written down.
    pub corruption: Option<Arc<CorruptionLog>>,
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
        let proved = self.prover.prove(&task, &mut |step| told.at(step));
        let proof = proved.map_err(|error: Groth16Error| {
            if let Some(found) = corruption(&error) {
                context.corrupted(found);
            }
            TaskError::from_error(error.code(), &error)
        })?;
        told.end();
        Ok(C2Output { proof })
    }

    fn corruption_log(&self) -> Option<Arc<CorruptionLog>> {
        self.corruption.clone()
    }

    fn device(&self) -> Option<String> {
        Some(self.prover.device())
    }

    fn device_report(&self) -> Option<DeviceReport> {
        self.prover.device_report()
    }
}

/// What is to be remembered of a failure, if it says that something computed or stored is wrong. A
/// GPU that computed wrongly is remembered by its report, also where the processor took over.
fn corruption(error: &Groth16Error) -> Option<Corruption> {
    match error {
        Groth16Error::SelfCheck { device, .. } => Some(Corruption {
            device: Some(device.clone()),
            ..Corruption::new(CorruptionKind::Proof, error)
        }),
        Groth16Error::ParametersMap(MapError::Memory { path }) => Some(Corruption {
            path: Some(path.display().to_string()),
            ..Corruption::new(CorruptionKind::Memory, error)
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_remembered_with_its_device_or_file() {
        let (what, device) = ("the proof".to_owned(), "cpu".to_owned());
        let found = corruption(&Groth16Error::SelfCheck { what, device }).expect("a wrong proof");
        assert_eq!((found.kind, found.on()), (CorruptionKind::Proof, "cpu".to_owned()));
        let broken = MapError::Memory { path: "/params/x".into() };
        let found = corruption(&Groth16Error::ParametersMap(broken)).expect("broken memory");
        assert_eq!(found.kind, CorruptionKind::Memory);
        assert_eq!(found.path.as_deref(), Some("/params/x"));
        assert!(corruption(&Groth16Error::Cancelled).is_none());
    }
}
