//! A device's primary context, which the published prover uses too: whether the prover can take
//! what the driver shows, and how much memory of the first device is free.
//!
//! The prover is not touched before this has looked. It takes what the driver shows as it is: a
//! device that its kernels have no code for, or one that it silently leaves out, would show much
//! later and without a name.

use std::ffi::c_int;

use crate::codes::attribute::COOPERATIVE_LAUNCH;
use crate::device::{attribute_of, describe, first, mode};
use crate::driver::{Driver, Handle};
use crate::{CudaError, DeviceInfo, OpenOptions};

/// The oldest architecture that the prover's kernels are compiled for by nvcc 13. Everything newer
/// takes machine code or PTX of 8.0; `cargo xtask cuda-build` looks whether both are there.
const LEAST_COMPUTE: (i32, i32) = (7, 5);
/// The prover leaves out devices whose major number is lower, and takes all others.
const LEAST_MAJOR_TAKEN: i32 = 7;

/// The first device's primary context, held until this is dropped.
#[derive(Debug)]
pub(super) struct Context {
    driver: Driver,
    device: c_int,
    handle: Handle,
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: `open` has retained the context once, and gives it back here once.
        let code = unsafe { (self.driver.functions.cuDevicePrimaryCtxRelease_v2)(self.device) };
        if let Err(error) = self.driver.check("cuDevicePrimaryCtxRelease", code) {
            tracing::debug!(%error, "the device's context was not given back");
        }
    }
}

impl Context {
    /// Looks at what the driver shows and opens the first device, if the prover can take it.
    pub(super) fn open(options: OpenOptions<'_>) -> Result<(Self, DeviceInfo), CudaError> {
        let (driver, device, info) = first(options)?;
        let refused =
            |info: &DeviceInfo, why: String| CudaError::NotTaken { device: info.model(), why };
        let (major, minor) = info.compute;
        if info.compute < LEAST_COMPUTE {
            let why = format!(
                "it has compute capability {major}.{minor}, and there is code of supraseal-c2 for \
                 {}.{} and newer",
                LEAST_COMPUTE.0, LEAST_COMPUTE.1
            );
            return Err(refused(&info, why));
        }
        // It leaves out those without.
        if attribute_of(&driver, device, COOPERATIVE_LAUNCH)? == 0 {
            let why = "the driver offers no cooperative launches on it, which the kernels need";
            return Err(refused(&info, why.to_owned()));
        }
        // It fills tables on every device that it takes, also on those that it does not use.
        for index in 1..info.visible_devices {
            let other = describe(&driver, handle(&driver, index)?, info.visible_devices)?;
            if other.compute.0 >= LEAST_MAJOR_TAKEN && other.compute < LEAST_COMPUTE {
                let why = format!(
                    "it is visible beside {}, supraseal-c2 opens every device that it sees, \
                     and there is no code for this one; let CUDA_VISIBLE_DEVICES name only the \
                     one that is to prove",
                    info.model()
                );
                return Err(refused(&other, why));
            }
        }
        let mut context = 0;
        // SAFETY: writes a handle to the place that is given; `device` comes from cuDeviceGet.
        let code = unsafe { (driver.functions.cuDevicePrimaryCtxRetain)(&mut context, device) };
        driver.check("cuDevicePrimaryCtxRetain", code).map_err(|error| CudaError::Open {
            device: info.model(),
            compute_mode: mode(&driver, device).unwrap_or_default(),
            source: Box::new(error),
        })?;
        Ok((Self { driver, device, handle: context }, info))
    }

    /// How many bytes of the device's memory are free.
    pub(super) fn free_bytes(&self) -> Result<u64, CudaError> {
        // SAFETY: the context was retained by `open` and is given back only by `drop`.
        let code = unsafe { (self.driver.functions.cuCtxSetCurrent)(self.handle) };
        self.driver.check("cuCtxSetCurrent", code)?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two numbers to the places that are given.
        let code = unsafe { (self.driver.functions.cuMemGetInfo_v2)(&mut free, &mut total) };
        self.driver.check("cuMemGetInfo", code)?;
        Ok(free as u64)
    }
}

/// The device with this index, of those that the driver shows.
fn handle(driver: &Driver, index: c_int) -> Result<c_int, CudaError> {
    let mut device = 0;
    // SAFETY: writes a number to the place that is given; an index too high is an error.
    let code = unsafe { (driver.functions.cuDeviceGet)(&mut device, index) };
    driver.check("cuDeviceGet", code)?;
    Ok(device)
}

#[cfg(test)]
mod tests {
    use test_support::cuda::cuda_stand_in;

    use super::*;

    /// What becomes of opening the stand-in for a driver with this script.
    fn opened(test: &str, script: &str) -> Option<Result<(Context, DeviceInfo), CudaError>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let test = format!("seal-cuda {test}");
        let library = cuda_stand_in(&test, dir.path(), script)?;
        let options = OpenOptions { driver: Some(&library), ..OpenOptions::default() };
        Some(Context::open(options))
    }

    #[test]
    fn a_device_that_the_prover_has_no_code_for_is_refused_by_name() {
        let test = "a_device_that_the_prover_has_no_code_for_is_refused_by_name";
        for (compute, taken) in
            [("6 1", false), ("7 0", false), ("7 5", true), ("8 6", true), ("12 0", true)]
        {
            let Some(opened) = opened(test, &format!("compute {compute}\n")) else { return };
            match opened {
                Ok((_, info)) => assert!(taken, "{info}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(!taken && text.contains(&compute.replace(' ', ".")), "{text}");
                    assert!(text.contains("7.5") && text.contains("GPU-"), "{text}");
                }
            }
        }
    }

    #[test]
    fn what_is_free_is_asked_of_the_driver() {
        let test = "what_is_free_is_asked_of_the_driver";
        let Some(opened) = opened(test, "memory 9000000000\ncompute 8 6\n") else { return };
        let (context, info) = opened.expect("a device");
        assert_eq!(info.memory_bytes, 9_000_000_000);
        assert_eq!(context.free_bytes().expect("open"), 9_000_000_000);
    }

    #[test]
    fn a_device_that_is_held_by_another_process_is_told_so() {
        let test = "a_device_that_is_held_by_another_process_is_told_so";
        let Some(opened) = opened(test, "card 0 mode 3\ncard 0 held 1\n") else { return };
        let text = opened.expect_err("exclusive").to_string();
        assert!(text.contains("GPU-") && text.contains("another process holds it"), "{text}");
    }

    #[test]
    fn a_device_without_code_beside_the_one_that_is_used_is_refused_too() {
        let test = "a_device_without_code_beside_the_one_that_is_used_is_refused_too";
        let name = "card 1 name TITAN V\ncard 1 compute ";
        for (other, taken) in [("7 0", false), ("7 5", true), ("9 0", true), ("6 1", true)] {
            let Some(opened) = opened(test, &format!("devices 2\n{name}{other}\n")) else { return };
            match opened {
                Ok((_, info)) => assert!(taken && info.name == "stand-in", "{other}: {info}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(!taken && text.contains("TITAN V"), "{text}");
                    assert!(text.contains("CUDA_VISIBLE_DEVICES"), "{text}");
                }
            }
        }
    }
}
