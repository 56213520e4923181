//! What the parent is told of the device: at the start, and whenever that has changed. The loop
//! tells it, and so does each task before its answer: whoever reads a failure that the device is to
//! blame for has read that it is to blame, and hands it no further request.

use std::sync::{Arc, Mutex, PoisonError};

use seal_wire::{DeviceReport, Event};

use crate::Executor;
use crate::answers::Answers;

/// What the parent was told of the device.
#[derive(Debug)]
pub(crate) struct DeviceReports {
    answers: Arc<Answers>,
    /// Whether the parent asks for events.
    wanted: bool,
    last: Mutex<Option<DeviceReport>>,
}

impl DeviceReports {
    /// Nothing has been told yet.
    pub(crate) fn new(answers: Arc<Answers>, wanted: bool) -> Self {
        Self { answers, wanted, last: Mutex::default() }
    }

    /// Tells what is thought of the device, if the parent asked for it and it has changed.
    pub(crate) fn tell(&self, executor: &impl Executor) {
        if !self.wanted {
            return;
        }
        // Held while it is written, so that nobody writes an older report after it.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let report = executor.device_report();
        if let Some(report) = report.filter(|report| last.as_ref() != Some(report)) {
            self.answers.send(&Event::Device(report.clone()));
            *last = Some(report);
        }
    }
}
