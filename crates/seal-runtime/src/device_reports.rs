//! What the parent is told of the device: at the start, and whenever that has changed. The loop
//! tells it, and so does each task before its answer: whoever reads a failure that the device is to
//! blame for has read that it is to blame, and hands it no further request.
//!
//! A GPU that has computed wrongly is written down for the machine here too, with or without a
//! parent, because tasks that the processor took over end well and tell nothing of it.

use std::sync::{Arc, Mutex, PoisonError};

use seal_types::Stage;
use seal_wire::{Corruption, CorruptionKind, DeviceReport, Event};

use crate::Executor;
use crate::answers::Answers;

/// What the parent was told of the device.
#[derive(Debug)]
pub(crate) struct DeviceReports {
    answers: Arc<Answers>,
    /// Whether the parent asks for events.
    wanted: bool,
    last: Mutex<Last>,
}

/// What was told and written down.
#[derive(Debug, Default)]
struct Last {
    told: Option<DeviceReport>,
    /// How often the device had computed wrongly.
    wrong: u64,
}

impl DeviceReports {
    /// Nothing has been told yet.
    pub(crate) fn new(answers: Arc<Answers>, wanted: bool) -> Self {
        Self { answers, wanted, last: Mutex::default() }
    }

    /// Tells what is thought of the device, if the parent asked for it and it has changed.
    pub(crate) fn tell(&self, executor: &impl Executor) {
        // Held while it is written, so that nobody writes an older report after it.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(report) = executor.device_report() else { return };
        if report.wrong > last.wrong {
            // Each counts, also where several came between two looks.
            for _ in std::mem::replace(&mut last.wrong, report.wrong)..report.wrong {
                write_down(executor, &report);
            }
        }
        if self.wanted && last.told.as_ref() != Some(&report) {
            self.answers.send(&Event::Device(report.clone()));
            last.told = Some(report);
        }
    }
}

/// Writes down that a GPU has computed wrongly.
fn write_down<E: Executor>(executor: &E, report: &DeviceReport) {
    // The cores of PC1 are written down with the label that was wrong.
    if E::STAGE == Stage::Pc1 {
        return;
    }
    let Some(log) = executor.corruption_log() else { return };
    let what = report.reason.as_deref().unwrap_or("a result");
    let device = Some(report.device.clone());
    log.note(None, Corruption { device, ..Corruption::new(CorruptionKind::Device, what) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CorruptionLog, TaskContext};
    use seal_types::SectorName;
    use seal_wire::{DeviceStanding, TaskError};
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Erring {
        wrong: AtomicU64,
        log: Arc<CorruptionLog>,
    }

    impl Executor for Erring {
        const STAGE: Stage = Stage::Pc2;
        type Task = u64;
        type Output = u64;

        fn sector(task: &u64) -> SectorName {
            SectorName { name: task.to_string(), doubt: None }
        }

        fn run(&self, task: u64, _: &TaskContext) -> Result<u64, TaskError> {
            Ok(task)
        }

        fn device_report(&self) -> Option<DeviceReport> {
            Some(DeviceReport {
                device: "A100 (GPU-7)".to_owned(),
                standing: DeviceStanding::Suspect,
                wrong: self.wrong.load(Ordering::Relaxed),
                reason: Some("row 3".to_owned()),
                replaced_by: None,
            })
        }

        fn corruption_log(&self) -> Option<Arc<CorruptionLog>> {
            Some(Arc::clone(&self.log))
        }
    }

    #[test]
    fn a_gpu_that_computed_wrongly_is_written_down_once_with_or_without_a_parent() {
        for wanted in [false, true] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let log = Arc::new(CorruptionLog::in_dir(Stage::Pc2, &dir.path().join("run")));
            let executor = Erring { wrong: AtomicU64::new(0), log: Arc::clone(&log) };
            let output = std::fs::File::create(dir.path().join("out")).expect("writable");
            let answers = Arc::new(Answers::start(output).expect("a thread"));
            let reports = DeviceReports::new(answers, wanted);
            reports.tell(&executor);
            assert!(log.all().is_empty());
            for wrong in [1, 2] {
                executor.wrong.store(wrong, Ordering::Relaxed);
                reports.tell(&executor);
                reports.tell(&executor);
                let all = log.all();
                assert_eq!(all.len() as u64, wrong);
                assert_eq!(all[0].kind, CorruptionKind::Device);
                assert_eq!((all[0].on(), &*all[0].what), ("A100 (GPU-7)".to_owned(), "row 3"));
            }
        }
    }
}
