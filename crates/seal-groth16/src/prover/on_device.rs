//! The prover's device: tried before it proves, marked when it computes wrongly, left out, and
//! replaced by the processor.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use seal_cuda::{CudaError, Standing};
use seal_wire::{DeviceReport, ErrorCode, TaskError};

use crate::kept::{lock, wait_for};
use crate::load::{Loaded, LoadedPoints};
use crate::pipeline::GoOn;
use crate::step::{At, LOOK_EVERY, ProveStep, step};
use crate::trial::{Verdict, try_device};
use crate::{Groth16Error, Prover};

/// Whether memory is short for now only.
fn may_pass(error: &CudaError) -> bool {
    error.is_out_of_memory() && !matches!(error, CudaError::TooSmall { .. })
}

impl Prover {
    /// Tries the device, unless it is believed already: it proves something whose proof is known.
    /// One that computes wrongly is tried once more and then left out, which is an error unless
    /// the processor may take its place.
    pub fn try_device(&self, at: &mut At<'_>) -> Result<(), Groth16Error> {
        self.try_device_anew(&mut || step(at, ProveStep::Trying))?;
        if self.device_is_replaced() { self.let_go_of_device(at) } else { Ok(()) }
    }

    /// The same for a task that holds parameters.
    pub(crate) fn try_device_anew(&self, go_on: &mut GoOn<'_>) -> Result<(), Groth16Error> {
        let Some(held) = self.device.held() else { return Ok(()) };
        let (accelerator, standing) = (&held.accelerator, &held.standing);
        let _trying = wait_for(&held.trying, go_on)?;
        while !standing.is_believed() && !standing.is_left_out() {
            let _turn = self.proving.take(1, go_on)?;
            let start = Instant::now();
            let device = accelerator.name();
            let reading = standing.faults();
            match try_device(accelerator, self.kernel, held.trial_bits, go_on)? {
                Ok(Verdict::Right) => {
                    standing.passed();
                    let elapsed = start.elapsed().as_millis();
                    let elapsed_ms = u64::try_from(elapsed).unwrap_or(u64::MAX);
                    tracing::info!(device, elapsed_ms, "the device has passed its trial");
                }
                Ok(Verdict::Wrong) => {
                    self.device_was_wrong(reading, "the proof that it is tried with");
                }
                Err(error) if standing.may_be_replaced() && !may_pass(&error) => {
                    let causes = TaskError::from_error(ErrorCode::Unavailable, &error).message;
                    tracing::warn!(device, "it cannot be tried, the processor proves: {causes}");
                    standing.leave_out(format!("it cannot be tried: {causes}"));
                }
                Err(source) => {
                    let what = "prove what it is tried with".to_owned();
                    return Err(Groth16Error::of_device(what, device, source));
                }
            }
        }
        if standing.is_left_out() && !standing.is_replaced() {
            Err(self.bad_device())
        } else {
            Ok(())
        }
    }

    /// How many faults of the device are known.
    pub(crate) fn device_faults(&self) -> u64 {
        self.device.held().map_or(0, |held| held.standing.faults())
    }

    /// Writes down that the device computed `what` wrongly, from parameters of the reading with this
    /// number.
    pub(crate) fn device_was_wrong(&self, reading: u64, what: &str) {
        let Some(held) = self.device.held() else { return };
        let device = held.accelerator.name();
        match held.standing.wrong(reading, what) {
            None => tracing::warn!(
                device,
                "{what} is wrong; it is from before the parameters were read anew, and part of the \
                 fault that is known"
            ),
            Some(Standing::LeftOut) => tracing::error!(
                device,
                "{what} is wrong, and it is not the first time: the device is left out until this \
                 process ends"
            ),
            Some(Standing::Suspect | Standing::Good) => {
                tracing::error!(device, "{what} is wrong; the device is tried again");
            }
        }
    }

    /// Whether the device is not to be used any more.
    pub(crate) fn device_is_left_out(&self) -> bool {
        self.device.held().is_some_and(|held| held.standing.is_left_out())
    }

    pub(super) fn device_is_replaced(&self) -> bool {
        self.device.held().is_some_and(|held| held.standing.is_replaced())
    }

    /// Why there is no device any more.
    pub(crate) fn bad_device(&self) -> Groth16Error {
        let held = self.device.held();
        let reason = held.and_then(|held| held.standing.reason()).unwrap_or_default();
        let device = self.device.name().unwrap_or_else(|| "processor".to_owned());
        Groth16Error::BadDevice { device, reason }
    }

    /// Parameters in the device's hands are as large as those that take their place: they go first,
    /// once no task uses them.
    fn let_go_of_device(&self, at: &mut At<'_>) -> Result<(), Groth16Error> {
        let slots: Vec<_> =
            lock(&self.loaded).iter().map(|(size, slot)| (*size, slot.clone())).collect();
        for (sector_size, slot) in slots {
            let mut go_on = || step(at, ProveStep::Waiting { sector_size });
            let of_device =
                |loaded: &mut Arc<Loaded>| matches!(loaded.points, LoadedPoints::Device(_));
            let of_device = wait_for(&slot, &mut go_on)?.take_if(of_device);
            let of_device = of_device.map(|loaded| Arc::downgrade(&loaded));
            while of_device.as_ref().is_some_and(|loaded| loaded.strong_count() > 0) {
                go_on()?;
                thread::sleep(LOOK_EVERY);
            }
        }
        Ok(())
    }

    /// What is thought of the device, unless only the processor was asked for.
    pub fn device_report(&self) -> Option<DeviceReport> {
        let held = self.device.held()?;
        Some(held.standing.report(&self.processor()))
    }
}
