//! An NVIDIA device as the one who computes: each worker keeps a stream and memory of the device
//! for one block, and several workers have several blocks in flight. What is not the device's part
//! is done by the processor, on the worker's thread.
//!
//! A device that has failed is opened anew for the next sector, so that one bad moment does not
//! end the executor. Each sector keeps to the opening that it began with. After errors that leave a process unable to use CUDA, or where opening fails
//! too, the device is lost: whoever runs sectors is told to end, and a new process may succeed.
//!
//! What a device computes is not believed as it is. It is tried when it is opened and before the
//! first sector of each shape (`gpu/trial.rs`), and of each block a node of every kind and row is
//! recomputed before the block is written (`gpu/recompute.rs`). What it reports of bad inputs is
//! looked at. Once it has computed wrongly, whatever comes from that opening and has not been put in
//! place is thrown away, in all sectors, and it is opened and tried anew; after the second time it is left out for as long as the process lives,
//! and in the next one if that is told of it, and the processor takes its place if that is allowed.

mod recompute;
mod trial;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use seal_cuda::{
    Batch, BatchError, Before, CudaError, Device, OpenOptions, Opinion, Parts, PinnedMemory, Shape,
    Standing, Trust, Worker as DeviceWorker,
};
use seal_poseidon::{Hasher, Kernel, Poseidon};

use self::recompute::{Computed, Numbers, Which, is_element, recompute};
use self::trial::{TrialError, try_all, try_shape};
use crate::Node;
use crate::backend::{
    Backend, BlockView, ComputeError, ComputedWrongly, DeviceError, Memory, Session, Work, Worker,
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
    /// What earlier processes have found wrong of devices, by model and UUID.
    pub before: BTreeMap<String, Before>,
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
            before: BTreeMap::new(),
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
    /// The openings that are over, and why. The latest one may be among them.
    over: BTreeMap<u64, Over>,
    /// The work that it was tried for since it was opened.
    tried: Vec<Work>,
    /// Why it is lost to this process.
    lost: Option<String>,
}

/// Why an opening of the device is not used any more.
enum Over {
    /// Something has failed. What was computed is as good as it was.
    Failed(String),
    /// It has computed this wrongly, and nothing that it has computed is good.
    Wrong(String),
}

/// What a device says to a sector whose opening is over because something else failed.
#[derive(Debug, thiserror::Error)]
#[error("the device failed at something else, and this sector cannot go on with it: {why}")]
struct Gone {
    why: String,
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
        if let Some(before) = settings.before.get(trust.device()) {
            trust.remember(before);
        }
        let tried = match trust.is_left_out() {
            // What it computes well now says nothing of the next time.
            true => Err(TrialError::Wrong(trust.opinion().reason.unwrap_or_default())),
            false => try_all(&device, settings.parts, settings.kernel),
        };
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
            over: BTreeMap::new(),
            tried: Vec::new(),
            lost: None,
        };
        let gpu =
            Self { settings, state: Mutex::new(state), trust, description, workers, replacement };
        match tried {
            Ok(()) => {}
            Err(TrialError::Wrong(what)) if gpu.replacement.is_some() => {
                let mut state = gpu.state();
                if !gpu.trust.is_left_out() {
                    gpu.trust.fails_its_trial(what);
                }
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
        let usable = !state.over.contains_key(&state.opening);
        if let Some(device) = state.device.as_ref().filter(|_| usable) {
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
        let opening = state.opening;
        state.tried.clear();
        match try_all(&device, self.settings.parts, self.settings.kernel) {
            Ok(()) => {}
            Err(TrialError::Wrong(what)) => return Err(self.wrong_in(state, opening, what)),
            Err(TrialError::Device(error)) => {
                self.untried(error).map_err(|error| failed_in(state, opening, error))?;
            }
        }
        Ok((device, opening))
    }

    /// The device of that opening.
    fn device_of(&self, state: &State, opening: u64) -> Result<Device, DeviceError> {
        if let Some(why) = &state.lost {
            return Err(Box::new(Lost { why: why.clone() }));
        }
        self.not_wrong(state, opening)?;
        if let Some(Over::Failed(why)) = state.over.get(&opening) {
            return Err(Box::new(Gone { why: why.clone() }));
        }
        let device = state.device.as_ref().filter(|_| state.opening == opening);
        let gone = || Gone { why: "it was opened anew".to_owned() };
        Ok(device.ok_or_else(gone)?.clone())
    }

    /// Whether nothing is known against what was computed with that opening. That something else
    /// has failed is nothing against it.
    fn not_wrong(&self, state: &State, opening: u64) -> Result<(), DeviceError> {
        let wrong = match state.over.get(&opening) {
            Some(Over::Wrong(what)) => Some(what.clone()),
            // Whatever the opening, there is no trust in the device.
            _ if self.trust.is_left_out() => self.trust.opinion().reason,
            _ => None,
        };
        match wrong {
            None => Ok(()),
            Some(what) => {
                let what = format!("something else that it computed at the same time: {what}");
                Err(Box::new(ComputedWrongly { what }))
            }
        }
    }

    /// The device of that opening, tried for this work.
    fn device_for(&self, opening: u64, work: &Work, shape: Shape) -> Result<Device, DeviceError> {
        let mut state = self.state();
        let device = self.device_of(&state, opening)?;
        if state.tried.contains(work) {
            return Ok(device);
        }
        match try_shape(&device, shape, self.settings.parts, self.settings.kernel) {
            Ok(()) => state.tried.push(*work),
            Err(TrialError::Wrong(what)) => return Err(self.wrong_in(&mut state, opening, what)),
            Err(TrialError::Device(error)) => return Err(failed_in(&mut state, opening, error)),
        }
        Ok(device)
    }

    /// Notes that the device, as it was opened then, has failed.
    fn failed(&self, opening: u64, error: CudaError) -> DeviceError {
        failed_in(&mut self.state(), opening, error)
    }

    /// Notes that the device, as it was opened then, has computed something wrongly.
    fn wrong(&self, opening: u64, what: String) -> DeviceError {
        self.wrong_in(&mut self.state(), opening, what)
    }

    fn wrong_in(&self, state: &mut State, opening: u64, what: String) -> DeviceError {
        if let Some(Over::Wrong(_)) = state.over.get(&opening) {
            // Somebody else was there first; this is the same fault.
            return Box::new(ComputedWrongly { what });
        }
        state.over.insert(opening, Over::Wrong(what.clone()));
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
}

/// Notes that the device, as it was opened then, has failed. It may have been opened anew since,
/// which this is nothing against.
fn failed_in(state: &mut State, opening: u64, error: CudaError) -> DeviceError {
    // Memory that is short for now is no failure of the device.
    if !error.is_out_of_memory() {
        state.over.entry(opening).or_insert_with(|| Over::Failed(error.to_string()));
    }
    // The process has one context of the device, whatever the opening.
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

    /// Its blocks are by what is free on the device now: who else works there may have come or gone
    /// since the last sector.
    fn begin(&self) -> Result<Box<dyn Session + '_>, DeviceError> {
        if let Some(cpu) = self.replaced() {
            return cpu.begin();
        }
        let (device, opening) = self.device(&mut self.state())?;
        let free = device.free_bytes().map_err(|error| self.failed(opening, error))?;
        let largest_block = largest_block(&self.settings, self.workers, free);
        Ok(Box::new(Opened { gpu: self, opening, largest_block }))
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
}

/// One opening of the device, for one sector. It does not hold the device, which is opened anew
/// when all have given it back.
#[derive(Debug)]
struct Opened<'g> {
    gpu: &'g Gpu,
    opening: u64,
    largest_block: usize,
}

impl Session for Opened<'_> {
    fn device(&self) -> String {
        self.gpu.description.clone()
    }

    fn workers(&self) -> usize {
        self.gpu.workers
    }

    fn largest_block(&self) -> usize {
        self.largest_block
    }

    fn memory(&self, bytes: usize) -> Result<Box<dyn Memory>, DeviceError> {
        let device = self.gpu.device_of(&self.gpu.state(), self.opening)?;
        PinnedMemory::take(&device, bytes)
            .map(|memory| Box::new(memory) as Box<dyn Memory>)
            .map_err(|error| self.gpu.failed(self.opening, error))
    }

    fn doubt(&self, what: &str) {
        // The caller has an error of its own.
        let _ = self.gpu.wrong(self.opening, what.to_owned());
    }

    fn confirm(&self) -> Result<(), DeviceError> {
        self.gpu.not_wrong(&self.gpu.state(), self.opening)
    }

    fn worker(&self, work: &Work) -> Result<Box<dyn Worker + '_>, DeviceError> {
        let &Self { gpu, opening, .. } = self;
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
        let device = gpu.device_for(opening, work, shape)?;
        let worker = DeviceWorker::new(&device, shape, gpu.settings.parts)
            .map_err(|error| gpu.failed(opening, error))?;
        let numbers = Numbers::from_seed(Numbers::new_seed());
        Ok(Box::new(Stream { gpu, opening, worker, columns, rows, numbers }))
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
            BatchError::Device(error) => ComputeError::Device(self.gpu.failed(self.opening, error)),
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
        Ok(self.gpu.not_wrong(&self.gpu.state(), self.opening)?)
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
