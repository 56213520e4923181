//! Copies between the machine and a device while a stream works: a scope that borrows the machine's
//! memory until the stream has been waited for.
//!
//! The driver reads and writes that memory by itself, at any time until then. So the memory is
//! borrowed for longer than the scope lasts, and the scope cannot be left without waiting: it is a
//! function's, and what it hands out can be neither kept nor forgotten. Where it cannot be known
//! whether the stream has ended, the process ends, since the memory could be written to when it is
//! another's.

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

    /// Waits until `stream` has done all it was given, whatever is current on this thread.
    pub(crate) fn wait(&self, stream: Handle) -> Result<(), CudaError> {
        self.enter()?;
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
        flight.land()
    }
}

impl Drop for Landing<'_, '_, '_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.land() {
            tracing::debug!(%error, "a stream that was given up has failed");
        }
    }
}

impl Flight<'_, '_> {
    /// Waits until nothing is under way. Also where that fails, nothing is when this returns.
    fn land(&self) -> Result<(), CudaError> {
        let Err(error) = self.opened.wait(self.stream) else { return Ok(()) };
        // A context that is lost does nothing any more.
        if error.is_loss() {
            return Err(error);
        }
        // It may have been told of something that was started before. If so, waiting works now.
        match self.opened.wait(self.stream) {
            Ok(()) => Err(error),
            Err(again) if again.is_loss() => Err(error),
            Err(again) => {
                tracing::error!(
                    %error,
                    %again,
                    device = self.opened.info.model(),
                    "the device cannot be waited for and may still write to the memory of this \
                     process, which ends; check the driver (`nvidia-smi`, `dmesg`)"
                );
                std::process::abort();
            }
        }
    }
}

impl<'m> Flight<'_, 'm> {
    /// Starts copying `bytes` to the device, after what the stream does before.
    pub(crate) fn upload(&self, to: Address, bytes: &'m [u8]) -> Result<(), CudaError> {
        let (from, driver) = (bytes.as_ptr().cast(), &self.opened.driver);
        // SAFETY: reads `bytes.len()` bytes from a slice of that size, until the stream has been
        // waited for. The slice is borrowed for `'m`, which lasts longer than the call of
        // `in_flight`, and that does not return or unwind before `land` has: either the stream has
        // been waited for, or the context is lost, after which cuda.h wants the process ended, and
        // does nothing. Where it is neither, `land` ends the process. The driver checks addresses
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
    use std::os::unix::process::ExitStatusExt;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::Path;
    use std::process::Command;

    use test_support::cuda::{cuda_stand_in, set_script};

    use crate::stream::{Span, Stream};
    use crate::{CudaError, Device, OpenOptions};

    const SIGABRT: i32 = 6;
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

    /// Names the stand-in for the process that is to end.
    const LIBRARY: &str = "SEAL_CUDA_TEST_FLIGHT";

    /// Starts a copy that cannot be waited for. Returns the error, if the process is still there.
    fn cannot_be_waited_for(library: &Path) -> CudaError {
        let device = open(library);
        let mut stream = Stream::new(&device, 1).expect("it works");
        // The script names the code.
        let script = std::env::var("SEAL_CUDA_TEST_SCRIPT").expect("given with the library");
        set_script(library, &script);
        device.free_bytes().expect("the stand-in reads its script");
        let mut node = [[0; 32]];
        stream.in_flight(|work| work.download(&mut node, PLACE)).expect_err("not waited for")
    }

    #[test]
    fn memory_is_not_given_back_while_the_device_may_write_to_it() {
        if let Some(library) = std::env::var_os(LIBRARY) {
            let error = cannot_be_waited_for(Path::new(&library));
            return assert!(error.is_loss(), "{error}");
        }
        let dir = tempfile::tempdir().expect("a directory");
        let Some(library) = cuda_stand_in("no wait", dir.path(), "") else { return };
        let name = "flight::tests::memory_is_not_given_back_while_the_device_may_write_to_it";
        for (function, code, ended) in [
            ("cuStreamSynchronize", 400, true),
            ("cuCtxSetCurrent", 201, true),
            // The context is dead.
            ("cuStreamSynchronize", 719, false),
        ] {
            set_script(&library, "");
            let status = Command::new(std::env::current_exe().expect("this test"))
                .args(["--exact", name])
                .env(LIBRARY, &library)
                .env("SEAL_CUDA_TEST_SCRIPT", format!("fail {function} 1 {code}"))
                .status()
                .expect("it starts");
            let signal = status.signal();
            assert_eq!((signal, status.success()), (ended.then_some(SIGABRT), !ended), "{status}");
        }
    }

    #[test]
    fn a_stream_is_waited_for_on_threads_that_have_not_entered() {
        let dir = tempfile::tempdir().expect("a directory");
        let Some(library) = cuda_stand_in("another thread", dir.path(), "") else { return };
        let mut stream = Stream::new(&open(&library), 1).expect("it works");
        let mut node = [[0; 32]];
        let waited = std::thread::scope(|scope| {
            let other = scope.spawn(|| stream.in_flight(|work| work.download(&mut node, PLACE)));
            other.join().expect("no panic")
        });
        waited.expect("the stream's context was current when it was waited for");
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
