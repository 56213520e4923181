//! A stream with memory of its own: kernels and copies in the order in which they are given.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::codes::STREAM_NON_BLOCKING;
use crate::driver::{Address, Handle};
use crate::flight::Flight;
use crate::memory::{DeviceMemory, PinnedMemory};
use crate::{CudaError, Device, device::Opened};

/// Bytes of a node.
pub(crate) const NODE: usize = 32;

/// Threads of a block, as in `kernels/work.cuh`.
const BLOCK: usize = 64;

/// A place in a stream's memory: `nodes` nodes from node `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: usize,
    pub(crate) nodes: usize,
}

impl Span {
    /// So many nodes of it, from its node `from` on.
    pub(crate) fn part(self, from: usize, nodes: usize) -> Self {
        assert!(from + nodes <= self.nodes, "a part lies within its span");
        Self { first: self.first + from, nodes }
    }
}

/// What is passed to a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Argument {
    /// Nodes of the stream's memory.
    Nodes(Span),
    /// Nodes of all layers: eleven or two addresses, by value.
    Layers([Span; 11]),
    /// How many nodes are made.
    Count(usize),
    /// Where the place of a bad node is told: one of [`REPORTS`].
    Report(usize),
    /// A number.
    Number(u64),
}

/// Places for bad nodes, behind the nodes.
pub(crate) const REPORTS: usize = 4;

/// Bytes of all reports.
const REPORT_BYTES: usize = REPORTS * size_of::<u64>();

/// What each kernel has reported: the place of the first bad node that it was given.
pub(crate) type Reports = [Option<u64>; REPORTS];

/// A stream and its memory.
#[derive(Debug)]
pub(crate) struct Stream {
    lane: Lane,
    /// Where reports come back, and behind them what they are cleared with. In pinned memory, so
    /// that neither is a copy that the calling thread has to wait for.
    reports: PinnedMemory,
}

/// A stream of the driver with its memory of the device.
#[derive(Debug)]
pub(crate) struct Lane {
    opened: Arc<Opened>,
    handle: Handle,
    memory: DeviceMemory,
}

/// Work of a stream that borrows memory of the machine for `'m`, which lasts longer than the flight;
/// see [`Flight`], also for why that is not shortened.
#[derive(Debug)]
pub(crate) struct Work<'s, 'f, 'm: 'f> {
    lane: &'s Lane,
    flight: &'s Flight<'s, 'f>,
    none: &'f [u8],
    borrowed: PhantomData<fn(&'m ()) -> &'m ()>,
}

impl<'m> Work<'_, '_, 'm> {
    /// Copies nodes to the device.
    pub(crate) fn upload(&self, to: Span, nodes: &'m [[u8; NODE]]) -> Result<(), CudaError> {
        assert_eq!(to.nodes, nodes.len(), "as many as there is room for");
        self.flight.upload(self.lane.address(to), nodes.as_flattened())
    }

    /// Copies nodes from the device.
    pub(crate) fn download(
        &self,
        nodes: &'m mut [[u8; NODE]],
        from: Span,
    ) -> Result<(), CudaError> {
        assert_eq!(from.nodes, nodes.len(), "as many as there is room for");
        self.flight.download(nodes.as_flattened_mut(), self.lane.address(from))
    }

    /// Sets all reports to "none bad".
    pub(crate) fn clear_reports(&self) -> Result<(), CudaError> {
        self.flight.upload(self.lane.report(0), self.none)
    }

    /// Starts a kernel; see [`Stream::launch`].
    pub(crate) fn launch(
        &self,
        kernel: Handle,
        count: usize,
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        self.lane.launch(kernel, count, arguments)
    }

    /// Starts a kernel; see [`Stream::launch_grid`].
    pub(crate) fn launch_grid(
        &self,
        kernel: Handle,
        grid: (u32, u32),
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        self.lane.launch_grid(kernel, grid, arguments)
    }
}

impl Stream {
    /// Bytes of the device that a stream for so many nodes takes.
    pub(crate) fn bytes(nodes: usize) -> usize {
        nodes * NODE + REPORT_BYTES
    }

    /// A stream with memory for `nodes` nodes.
    pub(crate) fn new(device: &Device, nodes: usize) -> Result<Self, CudaError> {
        let memory = DeviceMemory::take(device, Self::bytes(nodes))?;
        let opened = Arc::clone(&device.0);
        let mut handle = 0;
        // SAFETY: writes a handle to the place that is given; the flag is a documented one.
        let code =
            unsafe { (opened.driver.functions.cuStreamCreate)(&mut handle, STREAM_NON_BLOCKING) };
        opened.driver.check("cuStreamCreate", code)?;
        let lane = Lane { opened, handle, memory };
        let mut reports = PinnedMemory::take(device, 2 * REPORT_BYTES)?;
        reports.bytes_mut()[REPORT_BYTES..].fill(0xff);
        Ok(Self { lane, reports })
    }

    /// Starts what `give` gives the stream, waits until all of it is done, and returns what the
    /// kernels have reported since reports were cleared. The device must be current on this thread.
    pub(crate) fn in_flight<'m>(
        &mut self,
        give: impl FnOnce(&Work<'_, '_, 'm>) -> Result<(), CudaError>,
    ) -> Result<Reports, CudaError> {
        let Self { lane, reports } = self;
        let (found, none) = reports.bytes_mut().split_at_mut(REPORT_BYTES);
        lane.opened.in_flight(lane.handle, |flight| {
            give(&Work { lane, flight, none, borrowed: PhantomData })?;
            flight.download(found, lane.report(0))
        })?;
        let (words, _) = reports.bytes_mut().as_chunks();
        Ok(std::array::from_fn(|i| Some(u64::from_le_bytes(words[i])).filter(|&w| w != u64::MAX)))
    }

    /// Makes the device current on this thread.
    pub(crate) fn enter(&self) -> Result<(), CudaError> {
        self.lane.opened.enter()
    }

    /// Waits until all is done.
    pub(crate) fn wait(&self) -> Result<(), CudaError> {
        self.lane.opened.wait(self.lane.handle)
    }

    /// Starts `kernel` for `count` nodes, which its arguments have room for. Nothing is borrowed
    /// for it: a kernel works in the stream's own memory.
    pub(crate) fn launch(
        &self,
        kernel: Handle,
        count: usize,
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        self.lane.launch(kernel, count, arguments)
    }

    /// Sets all reports to "none bad".
    pub(crate) fn clear_reports(&mut self) -> Result<(), CudaError> {
        self.in_flight(|work| work.clear_reports()).map(|_| ())
    }
}

impl Lane {
    /// The address of a span, all of which lies in the stream's memory.
    fn address(&self, span: Span) -> Address {
        let end = (span.first + span.nodes) * NODE;
        assert!(end + REPORT_BYTES <= self.memory.bytes, "{span:?} fits");
        self.memory.start + (span.first * NODE) as Address
    }

    fn report(&self, number: usize) -> Address {
        assert!(number < REPORTS, "there is a report {number}");
        let end = self.memory.start + self.memory.bytes as Address;
        end - ((REPORTS - number) * size_of::<u64>()) as Address
    }

    fn launch(
        &self,
        kernel: Handle,
        count: usize,
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        let blocks = u32::try_from(count.div_ceil(BLOCK))
            .map_err(|_| CudaError::Unsupported { what: format!("{count} nodes at a time") })?;
        self.launch_grid(kernel, (blocks, BLOCK as u32), arguments)
    }

    /// Starts so many blocks of so many threads.
    fn launch_grid(
        &self,
        kernel: Handle,
        (blocks, threads): (u32, u32),
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        // Each argument in memory of its own, as wide as the kernel takes it.
        let mut values: Vec<[u64; 11]> = arguments
            .iter()
            .map(|argument| {
                let mut value = [0; 11];
                match *argument {
                    Argument::Nodes(span) => value[0] = self.address(span),
                    Argument::Layers(spans) => value = spans.map(|span| self.address(span)),
                    // Little-endian machines only are those with such devices; the kernel takes
                    // the lower half.
                    Argument::Count(count) => value[0] = count as u64,
                    Argument::Report(number) => value[0] = self.report(number),
                    Argument::Number(number) => value[0] = number,
                }
                value
            })
            .collect();
        let mut pointers: Vec<*mut c_void> =
            values.iter_mut().map(|value| value.as_mut_ptr().cast()).collect();
        // SAFETY: the kernel is one of this module's, whose parameters are what the callers in
        // this crate pass, each at most as wide as its value; the addresses are within this
        // stream's memory, as `address` and `report` assert, and the kernels touch what `count`
        // and the spans' lengths, which the callers assert to agree, allow. Values and pointers
        // live until the call is over, when the driver has copied them.
        let code = unsafe {
            (self.opened.driver.functions.cuLaunchKernel)(
                kernel,
                blocks,
                1,
                1,
                threads,
                1,
                1,
                0,
                self.handle,
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        self.opened.driver.check("cuLaunchKernel", code)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let entered = self.opened.enter();
        // What is still under way uses memory that is about to be given back.
        let waited = self.opened.wait(self.handle);
        // SAFETY: the handle comes from cuStreamCreate and is destroyed here alone.
        let code = unsafe { (self.opened.driver.functions.cuStreamDestroy_v2)(self.handle) };
        let destroyed = self.opened.driver.check("cuStreamDestroy", code);
        if let Err(error) = entered.and(waited).and(destroyed) {
            tracing::debug!(%error, "a stream was not ended in order");
        }
    }
}
