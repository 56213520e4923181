//! Copies between the machine and a device while a stream works: a scope that borrows the machine's
//! memory until the stream has been waited for.
//!
//! The driver reads and writes that memory by itself, at any time until then. So the memory is
//! borrowed for longer than the scope lasts, and the scope cannot be left without waiting: it is a
//! function's, and what it hands out can be neither kept nor forgotten.

use std::marker::PhantomData;

use crate::CudaError;
use crate::device::Opened;
use crate::driver::{Address, Handle};

/// Copies that are under way on a stream. `'m` is how long the machine's memory is borrowed; it
/// is not shortened by passing this on (the function type sees to that), or memory could be
/// borrowed that goes before the stream is waited for.
#[derive(Debug)]
pub(crate) struct Flight<'o, 'm> {
    opened: &'o Opened,
    stream: Handle,
    borrowed: PhantomData<fn(&'m ()) -> &'m ()>,
}

impl Opened {
    /// Gives `stream` copies and whatever else `give` starts, and waits until all of it is done,
    /// also when `give` fails or panics. The error is that of `give`, or else that of the work.
    pub(crate) fn in_flight<'m, T>(
        &self,
        stream: Handle,
        give: impl FnOnce(&Flight<'_, 'm>) -> Result<T, CudaError>,
    ) -> Result<T, CudaError> {
        let flight = Flight { opened: self, stream, borrowed: PhantomData };
        let landing = Landing(&flight);
        let given = give(&flight);
        let landed = landing.wait();
        let given = given?;
        landed.map(|()| given)
    }

    /// Waits until `stream` has done all it was given.
    pub(crate) fn wait(&self, stream: Handle) -> Result<(), CudaError> {
        // SAFETY: the stream is the default one, 0, or one that its owner has not destroyed yet.
        let code = unsafe { (self.driver.functions.cuStreamSynchronize)(stream) };
        self.driver.check("cuStreamSynchronize", code)
    }
}

/// Waits for a flight when it is dropped. Only `in_flight` has one, and drops it.
struct Landing<'f, 'o, 'm>(&'f Flight<'o, 'm>);

impl Landing<'_, '_, '_> {
    fn wait(self) -> Result<(), CudaError> {
        let Self(flight) = self;
        std::mem::forget(self);
        flight.opened.wait(flight.stream)
    }
}

impl Drop for Landing<'_, '_, '_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.opened.wait(self.0.stream) {
            tracing::debug!(%error, "a stream that was given up has failed");
        }
    }
}

impl<'m> Flight<'_, 'm> {
    /// Starts copying `bytes` to the device, after what the stream does before.
    pub(crate) fn upload(&self, to: Address, bytes: &'m [u8]) -> Result<(), CudaError> {
        let (from, driver) = (bytes.as_ptr().cast(), &self.opened.driver);
        // SAFETY: reads `bytes.len()` bytes from a slice of that size, until the stream has been
        // waited for. The slice is borrowed for `'m`, which lasts longer than the call of
        // `in_flight`, and that does not return or unwind before it has waited. (Waiting fails
        // only for a context that is dead, whose copies have ended.) The driver checks addresses
        // of its own.
        let code =
            unsafe { (driver.functions.cuMemcpyHtoDAsync_v2)(to, from, bytes.len(), self.stream) };
        driver.check("cuMemcpyHtoDAsync", code)
    }

    /// Starts copying from the device into `bytes`, after what the stream does before.
    pub(crate) fn download(&self, bytes: &'m mut [u8], from: Address) -> Result<(), CudaError> {
        let (to, driver) = (bytes.as_mut_ptr().cast(), &self.opened.driver);
        // SAFETY: writes `bytes.len()` bytes to a slice of that size, which is borrowed until the
        // stream has been waited for, as for `upload`, and for this copy alone. Any bytes are
        // bytes. The driver checks addresses of its own.
        let code =
            unsafe { (driver.functions.cuMemcpyDtoHAsync_v2)(to, from, bytes.len(), self.stream) };
        driver.check("cuMemcpyDtoHAsync", code)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::Path;

    use test_support::cuda::{cuda_stand_in, set_script};

    use crate::stream::{Span, Stream};
    use crate::{CudaError, Device, OpenOptions};

    const PLACE: Span = Span { first: 0, nodes: 1 };

    fn open(library: &Path) -> Device {
        let image = Some(&b"the stand-in has its kernels within"[..]);
        Device::open(OpenOptions { driver: Some(library), image, visible: None }).expect("it works")
    }

    /// The stand-in copies when a stream is waited for and not before.
    #[test]
    fn what_was_started_is_waited_for_however_a_flight_ends() {
        let dir = tempfile::tempdir().expect("a directory");
        let Some(library) = cuda_stand_in("flights", dir.path(), "") else { return };
        let mut stream = Stream::new(&open(&library), 1).expect("it works");
        let sent = [[0x11; 32]];
        stream.in_flight(|work| work.upload(PLACE, &sent)).expect("it works");

        let mut node = [[0; 32]];
        stream.in_flight(|work| work.download(&mut node, PLACE)).expect("it works");
        assert_eq!(node, sent);

        let mut node = [[0; 32]];
        let unsupported = || CudaError::Unsupported { what: "this".to_owned() };
        let failed = stream.in_flight(|work| {
            work.download(&mut node, PLACE)?;
            Err(unsupported())
        });
        assert_eq!(failed.expect_err("it failed").to_string(), unsupported().to_string());
        assert_eq!(node, sent, "not copied before the memory was given back");

        let mut node = [[0; 32]];
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            stream.in_flight(|work| {
                work.download(&mut node, PLACE)?;
                panic!("between start and wait");
            })
        }));
        unwound.expect_err("it panicked");
        assert_eq!(node, sent, "not copied before the memory was given back");
    }

    #[test]
    fn reports_are_copied_from_and_to_pinned_memory() {
        let dir = tempfile::tempdir().expect("a directory");
        let Some(library) = cuda_stand_in("pinned reports", dir.path(), "") else { return };
        let device = open(&library);
        let mut stream = Stream::new(&device, 1).expect("it works");
        set_script(&library, "pinned 1");
        device.free_bytes().expect("the stand-in reads its script");
        let reports = stream.in_flight(|work| work.clear_reports()).expect("they are pinned");
        assert_eq!(reports, [None; 4]);
        let mut node = [[0; 32]];
        stream.in_flight(|work| work.download(&mut node, PLACE)).expect_err("this is not");
    }
}
