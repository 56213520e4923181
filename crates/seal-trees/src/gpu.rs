//! An NVIDIA device as the one who computes: each worker keeps a stream and memory of the device
//! for one block, and several workers have several blocks in flight. What is not the device's part
//! is done by the processor, on the worker's thread.
//!
//! A device that has failed is opened anew for the next sector, so that one bad moment does not
//! end the executor. After errors that leave a process unable to use CUDA, or where opening fails
//! too, the device is lost: whoever runs sectors is told to end, and a new process may succeed.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use seal_cuda::{
    Batch, BatchError, CudaError, Device, OpenOptions, Parts, PinnedMemory, Shape,
    Worker as DeviceWorker,
};
use seal_poseidon::{Hasher, Kernel, Poseidon};

use crate::backend::{Backend, BlockView, ComputeError, DeviceError, Memory, Work, Worker};
use crate::cpu::{encode_block, rows_above};

/// How a device is used.
#[derive(Clone, Debug)]
pub struct GpuSettings {
    /// What is computed there. The processor does the rest.
    pub parts: Parts,
    /// The most columns and the most leaves of a tree at a time.
    pub most_columns: Option<usize>,
    /// The same for trees.
    pub most_leaves: Option<usize>,
    /// The kernel for what the processor does.
    pub kernel: Kernel,
    /// What `CUDA_VISIBLE_DEVICES` says, for messages.
    pub visible: Option<String>,
    /// The driver's library, if it is not the system's.
    pub driver: Option<PathBuf>,
    /// The kernels' image, if it is not the one in this binary.
    pub image: Option<&'static [u8]>,
}

impl GpuSettings {
    /// The first device that the driver shows, for these parts.
    pub fn new(parts: Parts, kernel: Kernel) -> Self {
        Self {
            parts,
            most_columns: None,
            most_leaves: None,
            kernel,
            visible: None,
            driver: None,
            image: None,
        }
    }

    fn open(&self) -> Result<Device, CudaError> {
        Device::open(OpenOptions {
            driver: self.driver.as_deref(),
            image: self.image,
            visible: self.visible.as_deref(),
        })
    }
}

/// Blocks in flight when all is done on the device: one that computes and others whose data is on
/// its way, and enough for the last rows of one block, which are short, to be hidden behind the
/// columns of another.
const STREAMS: usize = 4;

/// A block of 8 MiB a file: some five times the threads that the largest device runs at a time.
const LARGEST_BLOCK: usize = 1 << 18;

/// The same where the processor has a part in it.
const LARGEST_SHARED_BLOCK: usize = 1 << 15;

/// A device.
pub struct Gpu {
    settings: GpuSettings,
    state: Mutex<State>,
    description: String,
    workers: usize,
}

struct State {
    /// None only while it is opened anew, or when that has failed.
    device: Option<Device>,
    /// Whether a block has failed since it was opened.
    failed: bool,
    /// Why it is lost to this process.
    lost: Option<String>,
}

/// What a device that is lost says to all that comes later.
#[derive(Debug, thiserror::Error)]
#[error("the device is lost to this process, which must be started anew: {why}")]
struct Lost {
    why: String,
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu").field("device", &self.description).finish_non_exhaustive()
    }
}

impl Gpu {
    /// Opens the device.
    pub fn open(settings: GpuSettings) -> Result<Self, CudaError> {
        let device = settings.open()?;
        let Parts { columns, trees } = settings.parts;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = if columns && trees { STREAMS } else { threads.max(STREAMS) };
        let what = match (columns, trees) {
            (true, true) => "columns and trees",
            (true, false) => "columns; trees on the cpu",
            (false, true) => "trees; columns on the cpu",
            (false, false) => "nothing",
        };
        let description = if columns && trees {
            format!("gpu {} for {what}", device.info())
        } else {
            format!("gpu {} for {what} with Poseidon {}", device.info(), settings.kernel.name())
        };
        if device.info().visible_devices > 1 {
            tracing::info!(
                devices = device.info().visible_devices,
                "several devices are visible; the first is used (CUDA_VISIBLE_DEVICES chooses)"
            );
        }
        let state = Mutex::new(State { device: Some(device), failed: false, lost: None });
        Ok(Self { settings, state, description, workers })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device, opened anew if it has failed.
    fn device(&self) -> Result<Device, DeviceError> {
        let mut state = self.state();
        if let Some(why) = &state.lost {
            return Err(Box::new(Lost { why: why.clone() }));
        }
        if let Some(device) = state.device.as_ref().filter(|_| !state.failed) {
            return Ok(device.clone());
        }
        tracing::warn!(device = self.description, "the device failed before; it is opened anew");
        // The driver makes a new context only when the old one has been given back.
        state.device = None;
        let device = self.settings.open().inspect_err(|error| {
            state.lost = Some(format!("it failed and cannot be opened anew: {error}"));
        })?;
        state.device = Some(device.clone());
        state.failed = false;
        Ok(device)
    }

    /// Notes that the device has failed.
    fn failed(&self, error: CudaError) -> DeviceError {
        let mut state = self.state();
        state.failed = true;
        if error.is_loss() {
            state.lost.get_or_insert_with(|| error.to_string());
        }
        Box::new(error)
    }
}

/// The largest block of which the device has room for one for each worker, within what the user
/// allows.
fn largest_block(settings: &GpuSettings, workers: usize, free_bytes: usize) -> usize {
    let Parts { columns, trees } = settings.parts;
    let most = if columns && trees { LARGEST_BLOCK } else { LARGEST_SHARED_BLOCK };
    let columns_at_most = settings.most_columns.filter(|_| columns).unwrap_or(most);
    let leaves_at_most = settings.most_leaves.filter(|_| trees).unwrap_or(most);
    let allowed = most.min(columns_at_most).min(leaves_at_most).max(1);
    // A tenth is left for the driver and for whatever else runs there.
    let room = free_bytes / 10 * 9;
    let fits = |nodes: &usize| {
        // As for 32 GiB sectors, which take most.
        let shape = Shape { layers: 11, arity: 8, nodes: *nodes };
        shape.device_bytes().saturating_mul(workers) <= room
    };
    (0..=allowed.ilog(8)).rev().map(|rows| 8_usize.pow(rows)).find(fits).unwrap_or(1)
}

impl Backend for Gpu {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn workers(&self) -> usize {
        self.workers
    }

    /// By what is free on the device now: who else works there may have come or gone since the
    /// last sector.
    fn largest_block(&self) -> usize {
        let free = self
            .device()
            .and_then(|device| device.free_bytes().map_err(|error| self.failed(error)));
        match free {
            Ok(free) => largest_block(&self.settings, self.workers, free),
            Err(error) => {
                // The sector fails with it as soon as it takes memory.
                tracing::warn!(device = self.description, error, "free memory is not known");
                1
            }
        }
    }

    fn memory(&self, bytes: usize) -> Result<Box<dyn Memory>, DeviceError> {
        let device = self.device()?;
        PinnedMemory::take(&device, bytes)
            .map(|memory| Box::new(memory) as Box<dyn Memory>)
            .map_err(|error| self.failed(error))
    }

    fn is_lost(&self) -> Option<String> {
        let why = self.state().lost.clone()?;
        Some(format!("{} is lost to this process: {why}", self.description))
    }

    fn worker(&self, work: &Work) -> Result<Box<dyn Worker + '_>, DeviceError> {
        let shape = Shape {
            layers: work.layers as usize,
            arity: work.arity as usize,
            nodes: work.block_nodes,
        };
        let hasher = |arity| {
            Poseidon::of_arity(arity)
                .map(|poseidon| Hasher::new(poseidon, self.settings.kernel))
                .ok_or_else(|| format!("there is no Poseidon of arity {arity}"))
        };
        let (columns, rows) = (hasher(work.layers)?, hasher(work.arity)?);
        let device = self.device()?;
        // Memory that is short for now is no failure of the device.
        let worker = DeviceWorker::new(&device, shape, self.settings.parts).map_err(|error| {
            if error.is_out_of_memory() { Box::new(error) } else { self.failed(error) }
        })?;
        Ok(Box::new(Stream { gpu: self, worker, columns, rows }))
    }
}

impl Memory for PinnedMemory {
    fn bytes_mut(&mut self) -> &mut [u8] {
        Self::bytes_mut(self)
    }
}

/// A worker: a stream of the device, and the processor's kernels.
struct Stream<'g> {
    gpu: &'g Gpu,
    worker: DeviceWorker,
    columns: Hasher,
    rows: Hasher,
}

impl Worker for Stream<'_> {
    fn compute(&mut self, block: BlockView<'_>) -> Result<(), ComputeError> {
        let BlockView { layers, data, tree_c, replica, tree_r } = block;
        let Parts { columns, trees } = self.gpu.settings.parts;
        if !columns {
            let leaves = &mut tree_c[..data.len()];
            self.columns
                .hash_columns(&layers, leaves)
                .map_err(|bad| ComputeError::Label { layer: bad.layer, node: bad.node })?;
        }
        let mut batch = Batch { layers: &layers, data, tree_c, replica, tree_r };
        self.worker.compute(&mut batch).map_err(|error| match error {
            BatchError::Label { layer, node } => ComputeError::Label { layer, node },
            BatchError::Data { node } => ComputeError::Data { node },
            BatchError::Device(error) => ComputeError::Device(self.gpu.failed(error)),
            // Hashes and sums are elements of the field, unless the device computes nonsense.
            error => ComputeError::Device(Box::new(error)),
        })?;
        if !trees {
            let (leaves, above) = batch.tree_c.split_at_mut(data.len());
            rows_above(self.rows, leaves, above);
            encode_block(data, &layers, batch.replica)?;
            rows_above(self.rows, batch.replica, batch.tree_r);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_fit_the_device_and_what_is_allowed() {
        let block = |columns, trees, caps: (Option<usize>, Option<usize>), workers, free| {
            let parts = Parts { columns, trees };
            let settings = GpuSettings {
                most_columns: caps.0,
                most_leaves: caps.1,
                ..GpuSettings::new(parts, Kernel::portable())
            };
            largest_block(&settings, workers, free)
        };
        let (none, plenty) = ((None, None), 140 << 30);
        assert_eq!(block(true, true, none, 4, plenty), 1 << 18);
        // Today's defaults of the published crates.
        assert_eq!(block(true, true, (Some(400_000), Some(700_000)), 4, plenty), 1 << 18);
        assert_eq!(block(true, true, (Some(100_000), None), 4, plenty), 1 << 15);
        assert_eq!(block(true, true, (None, Some(4096)), 4, plenty), 1 << 12);
        assert_eq!(block(true, false, (None, Some(1)), 4, plenty), 1 << 15);
        assert_eq!(block(false, true, (Some(1), None), 4, plenty), 1 << 15);
        assert_eq!(block(true, true, (Some(0), None), 4, plenty), 1);
        // Less than 500 MiB for four blocks of 2^18 columns.
        assert_eq!(block(true, true, none, 4, 500 << 20), 1 << 15);
        assert_eq!(block(true, true, none, 4, 0), 1);
    }
}
