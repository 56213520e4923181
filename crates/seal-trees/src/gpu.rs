//! An NVIDIA device as the one who computes: each worker keeps a stream and memory of the device
//! for one block, and several workers have several blocks in flight. What is not the device's part
//! is done by the processor, on the worker's thread.
//!
//! A device that has failed is opened anew for the next sector, so that one bad moment does not
//! end the executor. After errors that leave a process unable to use CUDA, or where opening fails
//! too, the device is lost: whoever runs sectors is told to end, and a new process may succeed.
//!
//! What a device computes is not believed as it is. It is tried when it is opened and before the
//! first sector of each shape (`gpu/trial.rs`), and of each block a node of every kind and row is
//! recomputed before the block is written (`gpu/recompute.rs`). What it reports of bad inputs is
//! looked at. Once it has computed wrongly, everything that it is computing is thrown away, and it
//! is opened and tried anew; after the second time it is left out for as long as the process lives,
//! and the processor takes its place if that is allowed.

mod recompute;
mod trial;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use seal_cuda::{
    Batch, BatchError, CudaError, Device, OpenOptions, Opinion, Parts, PinnedMemory, Shape,
    Standing, Trust, Worker as DeviceWorker,
};
use seal_poseidon::{Hasher, Kernel, Poseidon};

use self::recompute::{Computed, Numbers, Which, is_element, recompute};
use self::trial::{TrialError, try_all, try_shape};
use crate::Node;
use crate::backend::{
    Backend, BlockView, ComputeError, ComputedWrongly, DeviceError, Memory, Work, Worker,
    device_readers,
};
use crate::cpu::{Cpu, encode_block, rows_above};

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
    /// Whether the processor takes the place of a device that computes wrongly.
    pub replaceable: bool,
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
            replaceable: false,
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
    /// Apart from the state, which is held while a device is opened and tried.
    trust: Trust,
    description: String,
    workers: usize,
    /// Who takes its place when it is left out.
    replacement: Option<Cpu>,
}

struct State {
    /// None only while it is opened anew, or when that has failed.
    device: Option<Device>,
    /// How often it was opened.
    opening: u64,
    /// Whether something has failed since it was opened.
    failed: bool,
    /// Whether it has computed wrongly since it was opened.
    wrong: bool,
    /// The work that it was tried for since it was opened.
    tried: Vec<Work>,
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
    /// Opens the device and tries all kernels. One that computes wrongly is refused, unless the
    /// processor may take its place.
    pub fn open(settings: GpuSettings) -> Result<Self, CudaError> {
        let device = settings.open()?;
        let trust = Trust::new(device.info().model());
        let tried = try_all(&device, settings.parts, settings.kernel);
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
        let replacement = settings.replaceable.then(|| Cpu::new(settings.kernel));
        let state = State {
            device: Some(device),
            opening: 1,
            failed: false,
            wrong: false,
            tried: Vec::new(),
            lost: None,
        };
        let gpu =
            Self { settings, state: Mutex::new(state), trust, description, workers, replacement };
        match tried {
            Ok(()) => {}
            Err(TrialError::Wrong(what)) if gpu.replacement.is_some() => {
                let mut state = gpu.state();
                gpu.trust.fails_its_trial(what);
                gpu.left_out(&mut state);
            }
            Err(TrialError::Wrong(what)) => {
                return Err(CudaError::Distrusted { device: gpu.trust.device().to_owned(), what });
            }
            Err(TrialError::Device(error)) => gpu.untried(error)?,
        }
        Ok(gpu)
    }

    /// A device without memory for a trial is tried before the first sector, which needs more.
    fn untried(&self, error: CudaError) -> Result<(), CudaError> {
        if !error.is_out_of_memory() {
            let device = self.trust.device().to_owned();
            return Err(CudaError::Trial { device, source: Box::new(error) });
        }
        tracing::warn!(
            device = self.description,
            %error,
            "the device has no memory for a trial now; it is tried before a sector"
        );
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The processor, if it has taken the place of the device.
    fn replaced(&self) -> Option<&Cpu> {
        self.replacement.as_ref().filter(|_| self.trust.is_left_out())
    }

    /// The device, opened anew if it has failed, and the number of that opening.
    fn device(&self, state: &mut State) -> Result<(Device, u64), DeviceError> {
        if let Some(why) = &state.lost {
            return Err(Box::new(Lost { why: why.clone() }));
        }
        if self.trust.is_left_out() {
            let what = self.trust.opinion().reason.unwrap_or_default();
            return Err(Box::new(ComputedWrongly { what }));
        }
        if let Some(device) = state.device.as_ref().filter(|_| !state.failed) {
            return Ok((device.clone(), state.opening));
        }
        tracing::warn!(device = self.description, "the device failed before; it is opened anew");
        // The driver makes a new context only when the old one has been given back.
        state.device = None;
        let device = self.settings.open().inspect_err(|error| {
            state.lost = Some(format!("it failed and cannot be opened anew: {error}"));
        })?;
        state.device = Some(device.clone());
        state.opening += 1;
        (state.failed, state.wrong) = (false, false);
        state.tried.clear();
        match try_all(&device, self.settings.parts, self.settings.kernel) {
            Ok(()) => {}
            Err(TrialError::Wrong(what)) => return Err(self.wrong_in(state, what)),
            Err(TrialError::Device(error)) => {
                self.untried(error).map_err(|error| failed_in(state, error))?;
            }
        }
        Ok((device, state.opening))
    }

    /// The device, tried for this work.
    fn device_for(&self, work: &Work, shape: Shape) -> Result<(Device, u64), DeviceError> {
        let mut state = self.state();
        let (device, opening) = self.device(&mut state)?;
        if state.tried.contains(work) {
            return Ok((device, opening));
        }
        match try_shape(&device, shape, self.settings.parts, self.settings.kernel) {
            Ok(()) => state.tried.push(*work),
            Err(TrialError::Wrong(what)) => return Err(self.wrong_in(&mut state, what)),
            // Memory that is short for now is no failure of the device.
            Err(TrialError::Device(error)) if error.is_out_of_memory() => {
                return Err(Box::new(error));
            }
            Err(TrialError::Device(error)) => return Err(failed_in(&mut state, error)),
        }
        Ok((device, opening))
    }

    /// Notes that the device has failed.
    fn failed(&self, error: CudaError) -> DeviceError {
        failed_in(&mut self.state(), error)
    }

    /// Notes that the device, as it was opened then, has computed something wrongly.
    fn wrong(&self, opening: u64, what: String) -> DeviceError {
        let mut state = self.state();
        if state.opening == opening && !state.wrong {
            return self.wrong_in(&mut state, what);
        }
        // Somebody else was there first; this is the same fault.
        Box::new(ComputedWrongly { what })
    }

    fn wrong_in(&self, state: &mut State, what: String) -> DeviceError {
        (state.failed, state.wrong) = (true, true);
        match self.trust.wrong(&*what) {
            Standing::LeftOut => self.left_out(state),
            Standing::Good | Standing::Suspect => tracing::error!(
                device = self.description,
                what,
                "the device computed wrongly; what it was computing is thrown away, and it is \
                 opened and tried anew"
            ),
        }
        Box::new(ComputedWrongly { what })
    }

    /// Gives the device up.
    fn left_out(&self, state: &mut State) {
        state.failed = true;
        state.device = None;
        let instead = self.replacement.map(|cpu| cpu.describe());
        if let Some(instead) = &instead {
            self.trust.replaced_by(instead);
        }
        let what = self.trust.opinion().reason;
        let device = self.trust.device();
        tracing::error!(
            device,
            what,
            instead,
            "the device computes wrongly and is left out until this process ends; have it tested \
             or replaced"
        );
    }

    /// Whether the device, as it was opened then, has computed anything wrongly since.
    fn is_in_doubt(&self, opening: u64) -> bool {
        let state = self.state();
        state.opening != opening || state.wrong
    }
}

/// Notes that the device has failed.
fn failed_in(state: &mut State, error: CudaError) -> DeviceError {
    state.failed = true;
    if error.is_loss() {
        state.lost.get_or_insert_with(|| error.to_string());
    }
    Box::new(error)
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
        match self.replaced() {
            Some(cpu) => format!("{} in place of gpu {}", cpu.describe(), self.trust.device()),
            None => self.description.clone(),
        }
    }

    fn workers(&self) -> usize {
        self.replaced().map_or(self.workers, Backend::workers)
    }

    fn readers(&self) -> usize {
        match self.replaced() {
            Some(cpu) => cpu.readers(),
            None => device_readers(),
        }
    }

    /// By what is free on the device now: who else works there may have come or gone since the
    /// last sector.
    fn largest_block(&self) -> usize {
        if let Some(cpu) = self.replaced() {
            return cpu.largest_block();
        }
        let device = self.device(&mut self.state());
        let free =
            device.and_then(|(device, _)| device.free_bytes().map_err(|error| self.failed(error)));
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
        if let Some(cpu) = self.replaced() {
            return cpu.memory(bytes);
        }
        let (device, _) = self.device(&mut self.state())?;
        PinnedMemory::take(&device, bytes)
            .map(|memory| Box::new(memory) as Box<dyn Memory>)
            .map_err(|error| self.failed(error))
    }

    fn is_lost(&self) -> Option<String> {
        let why = self.state().lost.clone()?;
        Some(format!("{} is lost to this process: {why}", self.description))
    }

    fn opinion(&self) -> Option<(String, Opinion)> {
        Some((self.trust.device().to_owned(), self.trust.opinion()))
    }

    fn may_try_again(&self) -> bool {
        self.replacement.is_some() || !self.trust.is_left_out()
    }

    fn doubt(&self, what: &str) {
        if self.replaced().is_none() {
            let opening = self.state().opening;
            // The caller has an error of its own.
            let _ = self.wrong(opening, what.to_owned());
        }
    }

    fn worker(&self, work: &Work) -> Result<Box<dyn Worker + '_>, DeviceError> {
        if let Some(cpu) = self.replaced() {
            return cpu.worker(work);
        }
        let shape = Shape {
            layers: work.layers as usize,
            arity: work.arity as usize,
            nodes: work.block_nodes,
        };
        let poseidon = |arity| {
            Poseidon::of_arity(arity)
                .ok_or_else(|| format!("there is no Poseidon of arity {arity}"))
        };
        let (columns, rows) = (poseidon(work.layers)?, poseidon(work.arity)?);
        let (device, opening) = self.device_for(work, shape)?;
        // Memory that is short for now is no failure of the device.
        let worker = DeviceWorker::new(&device, shape, self.settings.parts).map_err(|error| {
            if error.is_out_of_memory() { Box::new(error) } else { self.failed(error) }
        })?;
        let numbers = Numbers::from_seed(Numbers::new_seed());
        Ok(Box::new(Stream { gpu: self, opening, worker, columns, rows, numbers }))
    }
}

impl Memory for PinnedMemory {
    fn bytes_mut(&mut self) -> &mut [u8] {
        Self::bytes_mut(self)
    }
}

/// A worker: a stream of the device, and the processor's hashes.
struct Stream<'g> {
    gpu: &'g Gpu,
    /// Which opening of the device it is of.
    opening: u64,
    worker: DeviceWorker,
    columns: &'static Poseidon,
    rows: &'static Poseidon,
    /// By which the nodes are drawn that are recomputed.
    numbers: Numbers,
}

impl Stream<'_> {
    fn wrong(&self, what: String) -> ComputeError {
        ComputeError::Device(self.gpu.wrong(self.opening, what))
    }

    /// What comes of an error of the device in a block of these inputs. A node is bad if the
    /// processor finds it so, whatever the device says.
    fn judge(&self, error: BatchError, layers: &[&[Node]], data: &[Node]) -> ComputeError {
        let bad = |nodes: Option<&[Node]>, node: usize| {
            nodes.and_then(|nodes| nodes.get(node)).is_some_and(|node| !is_element(node))
        };
        match error {
            BatchError::Label { layer, node } if bad(layers.get(layer).copied(), node) => {
                ComputeError::Label { layer, node }
            }
            BatchError::Data { node } if bad(Some(data), node) => ComputeError::Data { node },
            BatchError::Device(error) => ComputeError::Device(self.gpu.failed(error)),
            // Children are hashes and sums that it has made itself.
            error => self.wrong(format!("it reports that {error}, which is not so")),
        }
    }
}

impl Worker for Stream<'_> {
    fn compute(&mut self, block: BlockView<'_>) -> Result<(), ComputeError> {
        let BlockView { layers, data, tree_c, replica, tree_r } = block;
        let parts = self.gpu.settings.parts;
        let hasher = |poseidon| Hasher::new(poseidon, self.gpu.settings.kernel);
        if !parts.columns {
            let leaves = &mut tree_c[..data.len()];
            hasher(self.columns)
                .hash_columns(&layers, leaves)
                .map_err(|bad| ComputeError::Label { layer: bad.layer, node: bad.node })?;
        }
        let mut batch = Batch { layers: &layers, data, tree_c, replica, tree_r };
        let computed = self.worker.compute(&mut batch);
        computed.map_err(|error| self.judge(error, &layers, data))?;
        let Batch { tree_c, replica, tree_r, .. } = batch;
        // Before anything is made of it, and before it is written.
        let made = Computed {
            layers: &layers,
            data,
            tree_c: &*tree_c,
            replica: &*replica,
            tree_r: &*tree_r,
        };
        self.numbers.word();
        recompute(&made, parts, (self.columns, self.rows), Which::Drawn(self.numbers))
            .map_err(|wrong| self.wrong(wrong.to_string()))?;
        if !parts.trees {
            let (leaves, above) = tree_c.split_at_mut(data.len());
            rows_above(hasher(self.rows), leaves, above).map_err(|bad| {
                let node = bad.index;
                self.wrong(format!("columns of {} (column {node})", self.columns.arity()))
            })?;
            encode_block(data, &layers, replica)?;
            rows_above(hasher(self.rows), replica, tree_r)
                .expect("sums that the processor made are elements of the field");
        }
        if self.gpu.is_in_doubt(self.opening) {
            let what = "another block that it computed at the same time".to_owned();
            return Err(ComputeError::Device(Box::new(ComputedWrongly { what })));
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
