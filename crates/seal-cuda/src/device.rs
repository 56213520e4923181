//! A device: found, opened, its kernels and their constants in place.

use std::ffi::{CString, c_int};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use seal_poseidon::Poseidon;

use crate::CudaError;
use crate::codes::{CTX_SCHED_BLOCKING_SYNC, attribute, result};
use crate::constants;
use crate::driver::{Address, Driver, Handle};
use crate::error::version_text;
use crate::images::{self, Image};

/// Which device to open.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions<'o> {
    /// The driver's library, if it is not the system's.
    pub driver: Option<&'o Path>,
    /// The kernels, if they are not those in this binary. They are taken for kernels of every
    /// architecture; the driver says if they are not.
    pub image: Option<&'o [u8]>,
    /// What `CUDA_VISIBLE_DEVICES` says. The driver reads it by itself; here it makes messages
    /// better.
    pub visible: Option<&'o str>,
}

/// What is known of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Such as `NVIDIA H200`.
    pub name: String,
    /// As `nvidia-smi -L` prints it: `GPU-…`.
    pub uuid: String,
    /// How many devices the driver shows to this process; the first is used.
    pub visible_devices: i32,
    /// Major and minor number of its architecture.
    pub compute: (i32, i32),
    /// Multiprocessors.
    pub multiprocessors: i32,
    /// Memory.
    pub memory_bytes: usize,
    /// The version of CUDA that the driver was made for, such as 13000.
    pub driver: i32,
    /// Which of the kernels' images runs on it.
    pub image: Image,
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, uuid, image, .. } = self;
        let driver = version_text(self.driver);
        write!(f, "{name} ({uuid}, kernels {image}, driver for CUDA {driver})")
    }
}

/// An opened device. Cheap to clone; closed when the last clone and everything made from it are
/// gone.
#[derive(Debug, Clone)]
pub struct Device(pub(crate) Arc<Opened>);

/// A context of the driver, and what is loaded into it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) driver: Driver,
    device: c_int,
    context: Handle,
    module: Handle,
    pub(crate) info: DeviceInfo,
}

impl Drop for Opened {
    fn drop(&mut self) {
        if self.enter().is_ok() && self.module != 0 {
            // SAFETY: the module was loaded by `open` into the context that `enter` has made
            // current, and nothing that uses it is left, since all that does holds this value.
            let code = unsafe { (self.driver.functions.cuModuleUnload)(self.module) };
            if let Err(error) = self.driver.check("cuModuleUnload", code) {
                tracing::debug!(%error, "the kernels were not unloaded");
            }
        }
        // SAFETY: `open` has retained the context once, and gives it back here once.
        let code = unsafe { (self.driver.functions.cuDevicePrimaryCtxRelease_v2)(self.device) };
        if let Err(error) = self.driver.check("cuDevicePrimaryCtxRelease", code) {
            tracing::debug!(%error, "the device's context was not given back");
        }
    }
}

impl Device {
    /// Opens the first device that the driver shows.
    pub fn open(options: OpenOptions<'_>) -> Result<Self, CudaError> {
        let image = match options.image {
            Some(image) => image,
            None => images::embedded().ok_or(CudaError::NoKernels)?,
        };
        let (driver, device, info) = first(options)?;
        if options.image.is_none() && info.image == Image::Unknown {
            return Err(info.no_image());
        }
        let context = retain(&driver, device).map_err(|error| CudaError::Open {
            device: info.model(),
            compute_mode: mode(&driver, device).unwrap_or_default(),
            source: Box::new(error),
        })?;
        let mut opened = Opened { driver, device, context, module: 0, info };
        opened.enter()?;
        opened.module = opened.load(image)?;
        opened.put_constants()?;
        Ok(Self(Arc::new(opened)))
    }

    /// What is known of it.
    pub fn info(&self) -> &DeviceInfo {
        &self.0.info
    }

    /// Memory of the device that is free.
    pub fn free_bytes(&self) -> Result<usize, CudaError> {
        self.0.enter()?;
        self.0.free_bytes()
    }
}

/// Has the driver make the context of the device, or takes the one that this process has.
fn retain(driver: &Driver, device: c_int) -> Result<Handle, CudaError> {
    // SAFETY: `device` comes from cuDeviceGet; the flag is one of the documented ones.
    let code = unsafe {
        (driver.functions.cuDevicePrimaryCtxSetFlags_v2)(device, CTX_SCHED_BLOCKING_SYNC)
    };
    driver.check("cuDevicePrimaryCtxSetFlags", code)?;
    let mut context = 0;
    // SAFETY: writes a handle to the place that is given; `device` comes from cuDeviceGet.
    let code = unsafe { (driver.functions.cuDevicePrimaryCtxRetain)(&mut context, device) };
    driver.check("cuDevicePrimaryCtxRetain", code)?;
    Ok(context)
}

/// Who may open the device.
pub(crate) fn mode(driver: &Driver, device: c_int) -> Result<c_int, CudaError> {
    attribute_of(driver, device, attribute::COMPUTE_MODE)
}

impl DeviceInfo {
    /// The device by model and UUID, which name it among all others: `NVIDIA H200 (GPU-…)`.
    pub fn model(&self) -> String {
        format!("{} ({})", self.name, self.uuid)
    }

    fn no_image(&self) -> CudaError {
        let oldest = images::oldest();
        CudaError::NoImage { device: self.model(), compute: self.compute, oldest }
    }

    /// Asks the driver for the first device that it shows, without opening it. `options.image` is
    /// of no use here.
    pub fn of_first(options: OpenOptions<'_>) -> Result<Self, CudaError> {
        first(options).map(|(_, _, info)| info)
    }
}

/// The driver and the first device that it shows.
pub(crate) fn first(options: OpenOptions<'_>) -> Result<(Driver, c_int, DeviceInfo), CudaError> {
    let visible = || options.visible.map(str::to_owned);
    let no_device = |error: CudaError| match error {
        CudaError::Call { code: result::NO_DEVICE, .. } => {
            CudaError::NoDevice { visible: visible() }
        }
        error => error,
    };
    let driver = Driver::load(options.driver).map_err(no_device)?;
    let visible_devices = count(&driver)?;
    if visible_devices == 0 {
        return Err(CudaError::NoDevice { visible: visible() });
    }
    let mut device = 0;
    // SAFETY: writes a number to the place that is given; 0 is below the number of devices.
    let code = unsafe { (driver.functions.cuDeviceGet)(&mut device, 0) };
    driver.check("cuDeviceGet", code)?;
    let info = describe(&driver, device, visible_devices)?;
    Ok((driver, device, info))
}

fn count(driver: &Driver) -> Result<c_int, CudaError> {
    let mut count = 0;
    // SAFETY: writes a number to the place that is given.
    let code = unsafe { (driver.functions.cuDeviceGetCount)(&mut count) };
    driver.check("cuDeviceGetCount", code)?;
    Ok(count)
}

pub(crate) fn describe(
    driver: &Driver,
    device: c_int,
    visible: i32,
) -> Result<DeviceInfo, CudaError> {
    let mut name = [0; 256];
    // SAFETY: writes at most as many bytes as it is told, 0 among them, to a place of that size.
    let code = unsafe { (driver.functions.cuDeviceGetName)(name.as_mut_ptr(), 256, device) };
    driver.check("cuDeviceGetName", code)?;
    let name: Vec<u8> =
        name.iter().take_while(|&&byte| byte != 0).map(|byte| byte.cast_unsigned()).collect();
    let mut uuid = [0; 16];
    // SAFETY: writes 16 bytes to a place of that size.
    let code = unsafe { (driver.functions.cuDeviceGetUuid_v2)(&mut uuid, device) };
    driver.check("cuDeviceGetUuid", code)?;
    let mut memory_bytes = 0;
    // SAFETY: writes a number to the place that is given.
    let code = unsafe { (driver.functions.cuDeviceTotalMem_v2)(&mut memory_bytes, device) };
    driver.check("cuDeviceTotalMem", code)?;
    let attribute = |number| attribute_of(driver, device, number);
    let compute = (
        attribute(attribute::COMPUTE_CAPABILITY_MAJOR)?,
        attribute(attribute::COMPUTE_CAPABILITY_MINOR)?,
    );
    Ok(DeviceInfo {
        name: String::from_utf8_lossy(&name).into_owned(),
        uuid: uuid_text(&uuid),
        visible_devices: visible,
        compute,
        multiprocessors: attribute(attribute::MULTIPROCESSOR_COUNT)?,
        memory_bytes,
        driver: driver.version,
        image: Image::for_device(compute),
    })
}

pub(crate) fn attribute_of(
    driver: &Driver,
    device: c_int,
    number: i32,
) -> Result<c_int, CudaError> {
    let mut value = 0;
    // SAFETY: writes a number to the place that is given; an unknown attribute is an error.
    let code = unsafe { (driver.functions.cuDeviceGetAttribute)(&mut value, number, device) };
    driver.check("cuDeviceGetAttribute", code)?;
    Ok(value)
}

/// `GPU-` and the bytes in groups of 4, 2, 2, 2 and 6.
fn uuid_text(uuid: &[u8; 16]) -> String {
    let mut text = String::from("GPU");
    for (i, byte) in uuid.iter().enumerate() {
        if [0, 4, 6, 8, 10].contains(&i) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

impl Opened {
    /// Makes the context current on this thread.
    pub(crate) fn enter(&self) -> Result<(), CudaError> {
        // SAFETY: the context was retained by `open` and is given back only by `drop`.
        let code = unsafe { (self.driver.functions.cuCtxSetCurrent)(self.context) };
        self.driver.check("cuCtxSetCurrent", code)
    }

    pub(crate) fn free_bytes(&self) -> Result<usize, CudaError> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two numbers to the places that are given.
        let code = unsafe { (self.driver.functions.cuMemGetInfo_v2)(&mut free, &mut total) };
        self.driver.check("cuMemGetInfo", code)?;
        Ok(free)
    }

    fn load(&self, image: &[u8]) -> Result<Handle, CudaError> {
        let mut module = 0;
        // SAFETY: writes a handle to the place that is given and reads an image that nvcc has
        // made, or, with a stand-in for the driver, anything at all. Images tell their own length.
        let code =
            unsafe { (self.driver.functions.cuModuleLoadData)(&mut module, image.as_ptr().cast()) };
        match self.driver.check("cuModuleLoadData", code) {
            Ok(()) => Ok(module),
            Err(error) if error.code() == Some(result::NO_BINARY_FOR_GPU) => {
                Err(self.info.no_image())
            }
            Err(error) => Err(CudaError::Load {
                device: self.info.model(),
                driver: self.info.driver,
                image: self.info.image,
                source: Box::new(error),
            }),
        }
    }

    /// The kernel `name`.
    pub(crate) fn kernel(&self, name: &str) -> Result<Handle, CudaError> {
        let text =
            CString::new(name).map_err(|_| CudaError::Unsupported { what: format!("{name:?}") })?;
        let mut kernel = 0;
        // SAFETY: writes a handle to the place that is given; the module is loaded and the name
        // ends with 0.
        let code = unsafe {
            (self.driver.functions.cuModuleGetFunction)(&mut kernel, self.module, text.as_ptr())
        };
        self.driver.check("cuModuleGetFunction", code)?;
        Ok(kernel)
    }

    /// Fills the kernels' tables of constants.
    fn put_constants(&self) -> Result<(), CudaError> {
        for (name, poseidon) in [
            ("seal_constants_3", Poseidon::arity2()),
            ("seal_constants_9", Poseidon::arity8()),
            ("seal_constants_12", Poseidon::arity11()),
        ] {
            let table = constants::table(poseidon);
            let (place, bytes) = self.global(name)?;
            if bytes != table.len() {
                return Err(CudaError::Constants { name, found: bytes, wanted: table.len() });
            }
            self.in_flight(0, |flight| flight.upload(place, &table))?;
        }
        Ok(())
    }

    /// Where a variable of the kernels lies, and its size.
    fn global(&self, name: &'static str) -> Result<(Address, usize), CudaError> {
        let text =
            CString::new(name).map_err(|_| CudaError::Unsupported { what: format!("{name:?}") })?;
        let (mut place, mut bytes) = (0, 0);
        // SAFETY: writes an address and a size to the places that are given; the module is loaded
        // and the name ends with 0.
        let code = unsafe {
            (self.driver.functions.cuModuleGetGlobal_v2)(
                &mut place,
                &mut bytes,
                self.module,
                text.as_ptr(),
            )
        };
        self.driver.check("cuModuleGetGlobal", code)?;
        Ok((place, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_read_as_nvidia_smi_prints_them() {
        let uuid = std::array::from_fn(|i| i as u8 * 17);
        assert_eq!(uuid_text(&uuid), "GPU-00112233-4455-6677-8899-aabbccddeeff");
    }
}
