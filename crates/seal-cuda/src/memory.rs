//! Memory of the device, and memory of the machine that the device reaches.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::codes::MEMHOSTALLOC_PORTABLE;
use crate::driver::Address;
use crate::{CudaError, Device, device::Opened};

/// Memory of the device, given back when dropped.
#[derive(Debug)]
pub(crate) struct DeviceMemory {
    opened: Arc<Opened>,
    pub(crate) start: Address,
    pub(crate) bytes: usize,
}

impl DeviceMemory {
    /// Takes `bytes`, whose contents are whatever they are.
    pub(crate) fn take(device: &Device, bytes: usize) -> Result<Self, CudaError> {
        let opened = Arc::clone(&device.0);
        opened.enter()?;
        let mut start = 0;
        // SAFETY: writes an address to the place that is given.
        let code = unsafe { (opened.driver.functions.cuMemAlloc_v2)(&mut start, bytes) };
        opened.driver.check("cuMemAlloc", code)?;
        Ok(Self { opened, start, bytes })
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // Given back whatever has become of the device.
        let entered = self.opened.enter();
        // SAFETY: `start` comes from cuMemAlloc of this context and is freed here alone; the
        // streams that use it have been waited for, since they are dropped before.
        let code = unsafe { (self.opened.driver.functions.cuMemFree_v2)(self.start) };
        if let Err(error) = entered.and(self.opened.driver.check("cuMemFree", code)) {
            tracing::debug!(%error, "memory of the device was not given back");
        }
    }
}

/// Memory of the machine that the device reads and writes by itself, zero at first. Its pages stay
/// where they are.
#[derive(Debug)]
pub struct PinnedMemory {
    opened: Arc<Opened>,
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: it owns its bytes, which no thread is bound to: the driver gives them back on any thread
// on which the context is current, and `drop` makes it so.
unsafe impl Send for PinnedMemory {}

impl PinnedMemory {
    /// Takes `bytes`, at least one.
    pub fn take(device: &Device, bytes: usize) -> Result<Self, CudaError> {
        let opened = Arc::clone(&device.0);
        opened.enter()?;
        let mut start: *mut c_void = std::ptr::null_mut();
        let bytes = bytes.max(1);
        // SAFETY: writes an address to the place that is given; the flag is a documented one.
        let code = unsafe {
            (opened.driver.functions.cuMemHostAlloc)(&mut start, bytes, MEMHOSTALLOC_PORTABLE)
        };
        opened.driver.check("cuMemHostAlloc", code)?;
        let start: NonNull<u8> = NonNull::new(start.cast()).ok_or(CudaError::Unsupported {
            what: "memory at address 0, as cuMemHostAlloc returned it".to_owned(),
        })?;
        // SAFETY: `bytes` bytes from `start` on were just allocated and nobody else knows them.
        unsafe { start.as_ptr().write_bytes(0, bytes) };
        Ok(Self { opened, start, bytes })
    }

    /// All of it.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `take` has allocated and zeroed so many bytes, which stay until `drop`, and
        // `self` is borrowed for as long as the slice lives.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for PinnedMemory {
    fn drop(&mut self) {
        let entered = self.opened.enter();
        // SAFETY: `start` comes from cuMemHostAlloc and is freed here alone; nothing borrows it any
        // more, and what was copied to or from it has been waited for while it was borrowed.
        let code =
            unsafe { (self.opened.driver.functions.cuMemFreeHost)(self.start.as_ptr().cast()) };
        if let Err(error) = entered.and(self.opened.driver.check("cuMemFreeHost", code)) {
            tracing::debug!(%error, "pinned memory was not given back");
        }
    }
}
