//! A stream with memory of its own: kernels and copies in the order in which they are given.

use std::ffi::c_void;
use std::sync::Arc;

use crate::driver::{Address, Handle};
use crate::memory::DeviceMemory;
use crate::{CudaError, Device, device::Opened};

/// Bytes of a node.
pub(crate) const NODE: usize = 32;

/// Threads of a block, as in `kernels/work.cuh`.
const BLOCK: usize = 64;

/// The stream does not wait for the default one.
const NON_BLOCKING: u32 = 1;

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
    /// Where the place of a bad node is told: one of [`Stream::REPORTS`].
    Report(usize),
    /// A number.
    Number(u64),
}

/// A stream and its memory. Whatever borrows memory of the machine for it waits for it before
/// returning.
#[derive(Debug)]
pub(crate) struct Stream {
    opened: Arc<Opened>,
    handle: Handle,
    memory: DeviceMemory,
}

impl Stream {
    /// Places for bad nodes, behind the nodes.
    pub(crate) const REPORTS: usize = 4;

    /// Bytes that a stream for so many nodes takes.
    pub(crate) fn bytes(nodes: usize) -> usize {
        nodes * NODE + Self::REPORTS * size_of::<u64>()
    }

    /// A stream with memory for `nodes` nodes.
    pub(crate) fn new(device: &Device, nodes: usize) -> Result<Self, CudaError> {
        let memory = DeviceMemory::take(device, Self::bytes(nodes))?;
        let opened = Arc::clone(&device.0);
        let mut handle = 0;
        // SAFETY: writes a handle to the place that is given; the flag is a documented one.
        let code = unsafe { (opened.driver.functions.cuStreamCreate)(&mut handle, NON_BLOCKING) };
        opened.driver.check("cuStreamCreate", code)?;
        Ok(Self { opened, handle, memory })
    }

    /// Makes the device current on this thread.
    pub(crate) fn enter(&self) -> Result<(), CudaError> {
        self.opened.enter()
    }

    /// The address of a span, all of which lies in the stream's memory.
    fn address(&self, span: Span) -> Address {
        let end = (span.first + span.nodes) * NODE;
        assert!(end + Self::REPORTS * size_of::<u64>() <= self.memory.bytes, "{span:?} fits");
        self.memory.start + (span.first * NODE) as Address
    }

    fn report(&self, number: usize) -> Address {
        assert!(number < Self::REPORTS, "there is a report {number}");
        let end = self.memory.start + self.memory.bytes as Address;
        end - ((Self::REPORTS - number) * size_of::<u64>()) as Address
    }

    /// Copies nodes to the device. They must stay as they are until [`Stream::wait`].
    pub(crate) fn upload(&self, to: Span, nodes: &[[u8; NODE]]) -> Result<(), CudaError> {
        assert_eq!(to.nodes, nodes.len(), "as many as there is room for");
        self.opened.upload(self.address(to), nodes.as_flattened(), self.handle)
    }

    /// Copies nodes from the device. They must not be looked at until [`Stream::wait`].
    pub(crate) fn download(&self, nodes: &mut [[u8; NODE]], from: Span) -> Result<(), CudaError> {
        assert_eq!(from.nodes, nodes.len(), "as many as there is room for");
        self.opened.download(nodes.as_flattened_mut(), self.address(from), self.handle)
    }

    /// Sets all reports to "none bad".
    pub(crate) fn clear_reports(&self) -> Result<(), CudaError> {
        static NONE: [u8; Stream::REPORTS * size_of::<u64>()] = [0xff; _];
        self.opened.upload(self.report(0), &NONE, self.handle)
    }

    /// The reports, once the stream has done all it was given.
    pub(crate) fn wait_for_reports(&self) -> Result<[Option<u64>; Self::REPORTS], CudaError> {
        let mut bytes = [0; Self::REPORTS * size_of::<u64>()];
        let asked = self.opened.download(&mut bytes, self.report(0), self.handle);
        self.wait()?;
        asked?;
        let (words, _) = bytes.as_chunks();
        Ok(std::array::from_fn(|i| Some(u64::from_le_bytes(words[i])).filter(|&w| w != u64::MAX)))
    }

    /// Waits until all is done.
    pub(crate) fn wait(&self) -> Result<(), CudaError> {
        self.opened.wait(self.handle)
    }

    /// Starts `kernel` for `count` nodes, which its arguments have room for.
    pub(crate) fn launch(
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
    pub(crate) fn launch_grid(
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

impl Drop for Stream {
    fn drop(&mut self) {
        let entered = self.enter();
        // What is still under way uses memory that is about to be given back.
        let waited = self.wait();
        // SAFETY: the handle comes from cuStreamCreate and is destroyed here alone.
        let code = unsafe { (self.opened.driver.functions.cuStreamDestroy_v2)(self.handle) };
        let destroyed = self.opened.driver.check("cuStreamDestroy", code);
        if let Err(error) = entered.and(waited).and(destroyed) {
            tracing::debug!(%error, "a stream was not ended in order");
        }
    }
}
