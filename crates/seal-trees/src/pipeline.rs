//! The way of a sector's blocks: read, computed, written, at the same time for different blocks.
//!
//! Readers fill a free block from the layers and the leaves of tree D, and check these while they
//! are there: against the digests of the layers and the root of tree D. Workers of the session
//! compute it. Writers write it and give its memory back. The calling thread joins the roots of the
//! blocks in their order, tells how far it is, and stops everybody at the first error. Memory is
//! what the blocks take, however large the sector is.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use seal_host::start_scoped;
use seal_types::{NODE_SIZE, Porep};

use crate::backend::{BlockView, ComputeError, ComputedWrongly, DeviceError, Session};
use crate::block::{Block, BlockPlan, row_lengths};
use crate::digests::LayerDigests;
use crate::forest::Forest;
use crate::inputs::Inputs;
use crate::node_file::{NodeFile, ReadNodes, buffer, write_block, write_nodes};
use crate::outputs::Outputs;
use crate::replica::encode_node;
use crate::row_hash::RowHash;
use crate::top::TreeTop;
use crate::tree::Layout;
use crate::tree_d::tree_d_layout;
use crate::{Node, Part, TreesError, Watch};

/// Threads that write. One would do but for the time that the disk takes to answer.
const WRITERS: usize = 2;

/// What makes and takes blocks.
pub(crate) struct Pipeline<'a> {
    pub(crate) porep: &'a Porep,
    pub(crate) inputs: &'a Inputs,
    pub(crate) outputs: &'a Outputs,
    pub(crate) tree_c: Forest,
    pub(crate) tree_r_last: Forest,
    pub(crate) session: &'a dyn Session,
    pub(crate) plan: BlockPlan,
    pub(crate) watch: &'a Watch<'a>,
}

/// What a whole sector comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Roots {
    pub(crate) comm_c: Node,
    pub(crate) comm_r_last: Node,
    pub(crate) comm_d: Node,
}

/// How long the threads of each stage worked, all together, and how many they are. What is left
/// to the time of the whole, they waited for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// Reading blocks, with digests and tree D.
    pub reading: Busy,
    /// Computing blocks.
    pub computing: Busy,
    /// Writing blocks.
    pub writing: Busy,
}

/// The threads of a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Busy {
    /// How many they are.
    pub threads: usize,
    /// How long they worked, added up.
    pub time: Duration,
}

/// Adds up working times of several threads.
#[derive(Debug, Default)]
struct Clock(AtomicU64);

impl Clock {
    fn time<T>(&self, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = work();
        let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(nanos, Ordering::Relaxed);
        result
    }

    fn of(self, threads: usize) -> Busy {
        Busy { threads, time: Duration::from_nanos(self.0.into_inner()) }
    }
}

#[derive(Debug, Default)]
struct Clocks {
    reading: Clock,
    computing: Clock,
    writing: Clock,
}

/// The roots of a block's trees.
#[derive(Clone, Copy, Debug)]
struct BlockRoots {
    tree_c: Node,
    tree_r: Node,
    tree_d: Node,
}

/// What stages tell the calling thread.
enum Event {
    /// A block is written.
    Done(u64, BlockRoots),
    /// A stage has failed.
    Failed(Failure),
}

enum Failure {
    Error(TreesError),
    Panic(Box<dyn Any + Send>),
}

impl From<TreesError> for Failure {
    fn from(error: TreesError) -> Self {
        Self::Error(error)
    }
}

/// A block on its way, and the root of tree D over its data.
struct Filled<'m> {
    block: Block<'m>,
    tree_d: Node,
}

/// The next block's number and the memory that is free, or `None` for a reader that should end.
struct Next<'m> {
    number: u64,
    free: Receiver<Option<&'m mut [Node]>>,
}

/// Starts up to `most` threads, one at least: fewer of them take longer.
fn at_least_one<T>(most: usize, start: impl Fn() -> io::Result<T>) -> Result<(), Failure> {
    for started in 0..most {
        match start() {
            Ok(_) => {}
            Err(error) if started == 0 => return Err(TreesError::NoThread(error).into()),
            Err(error) => {
                tracing::debug!(%error, started, "fewer threads than wanted");
                break;
            }
        }
    }
    Ok(())
}

impl Pipeline<'_> {
    /// Makes all results but for the auxiliary files. Adds the layers to `digests` if they are
    /// wanted.
    pub(crate) fn run(
        &self,
        digests: Option<&LayerDigests>,
    ) -> Result<(Roots, Stages), TreesError> {
        let mut memory =
            self.session.memory(self.plan.memory_bytes()).map_err(|error| self.device(error))?;
        let (given, wanted) = (memory.bytes_mut().len(), self.plan.memory_bytes());
        if given < wanted {
            return Err(self.device(format!("{given} bytes of memory instead of {wanted}").into()));
        }
        let (give_free, free) = unbounded();
        for block in self.plan.cut(memory.bytes_mut()) {
            // The receiver is at hand.
            let _ = give_free.send(Some(block));
        }
        let next = Mutex::new(Next { number: 0, free });
        let (give_filled, filled) = unbounded::<Filled<'_>>();
        let (give_computed, computed) = unbounded::<Filled<'_>>();
        let (tell, events) = unbounded();
        let readers = self.session.readers().max(1);
        let (workers, writers) = (self.session.workers().max(1), WRITERS);
        let clocks = Clocks::default();
        let stopped = AtomicBool::new(false);
        let is_stopped = || stopped.load(Ordering::Relaxed);

        let ended = std::thread::scope(|scope| {
            // Also when this thread panics, since the scope waits for all others.
            let stop = StopOnDrop(|| {
                stopped.store(true, Ordering::Relaxed);
                for _ in 0..readers {
                    let _ = give_free.send(None);
                }
            });
            let (next, clocks, is_stopped) = (&next, &clocks, &is_stopped);
            at_least_one(readers, || {
                let (tell, give) = (tell.clone(), give_filled.clone());
                start_scoped(scope, "read", move || {
                    stage(&tell, || {
                        self.read_blocks(next, digests, &give, &clocks.reading, is_stopped)
                    });
                })
            })?;
            at_least_one(workers, || {
                let (tell, take, give) = (tell.clone(), filled.clone(), give_computed.clone());
                start_scoped(scope, "compute", move || {
                    stage(&tell, || {
                        self.compute_blocks(&take, &give, &clocks.computing, is_stopped)
                    });
                })
            })?;
            at_least_one(writers, || {
                let (tell, take, give) = (tell.clone(), computed.clone(), give_free.clone());
                start_scoped(scope, "write", move || {
                    stage(&tell, || {
                        self.write_blocks(&take, &give, &tell, &clocks.writing, is_stopped)
                    });
                })
            })?;
            // A channel ends when the last thread that gives or takes there has ended.
            drop((tell, filled, give_filled, computed, give_computed));
            self.join(&events, &stop)
        });
        let roots = ended.map_err(|failure| match failure {
            Failure::Error(error) => error,
            Failure::Panic(panic) => resume_unwind(panic),
        })?;
        let stages = Stages {
            reading: clocks.reading.of(readers),
            computing: clocks.computing.of(workers),
            writing: clocks.writing.of(writers),
        };
        Ok((roots, stages))
    }

    fn read_blocks<'m>(
        &self,
        next: &Mutex<Next<'m>>,
        digests: Option<&LayerDigests>,
        give: &Sender<Filled<'m>>,
        clock: &Clock,
        stopped: &dyn Fn() -> bool,
    ) -> Result<(), TreesError> {
        let (data_hash, _) = tree_d_layout(self.porep.nodes())?;
        let mut rows = buffer(self.plan.work.block_nodes);
        while let Some(mut block) = self.begin(next, stopped) {
            let tree_d =
                clock.time(|| self.read(&mut block, data_hash, &mut rows, digests, stopped))?;
            if give.send(Filled { block, tree_d }).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Reads a block and adds its layers to the digests. Returns the root of tree D over its data.
    fn read(
        &self,
        block: &mut Block<'_>,
        data_hash: RowHash,
        rows: &mut [Node],
        digests: Option<&LayerDigests>,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Node, TreesError> {
        let (number, first) = (block.number, block.first_node(&self.plan));
        let tree_d = &self.inputs.tree_d;
        let mut labels = Vec::with_capacity(self.inputs.layers.len());
        let mut inputs = block.inputs(&self.plan);
        for (layer, nodes) in self.inputs.layers.iter().zip(&mut inputs) {
            layer.read_block(first, nodes)?;
            labels.push(&*nodes);
        }
        if let Some(digests) = digests {
            digests.add(number, &labels, stopped);
        }
        let data = inputs.next().expect("the data comes after the layers");
        tree_d.read_block(first, data)?;
        data_hash.root(data, rows).map_err(|bad| not_canonical(tree_d, first, bad.index))
    }

    /// The next block to read. Numbers and memory are given out together, so that the first block
    /// that is not done has its memory.
    fn begin<'m>(&self, next: &Mutex<Next<'m>>, stopped: &dyn Fn() -> bool) -> Option<Block<'m>> {
        let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.number == self.plan.count || stopped() {
            return None;
        }
        let memory = next.free.recv().ok()??;
        let number = next.number;
        next.number += 1;
        Some(Block { number, memory })
    }

    fn compute_blocks<'m>(
        &self,
        take: &Receiver<Filled<'m>>,
        give: &Sender<Filled<'m>>,
        clock: &Clock,
        stopped: &dyn Fn() -> bool,
    ) -> Result<(), TreesError> {
        let mut worker =
            self.session.worker(&self.plan.work).map_err(|error| self.device(error))?;
        for mut filled in take {
            if stopped() {
                break;
            }
            let first = filled.block.first_node(&self.plan);
            let view = filled.block.view(&self.plan);
            clock.time(|| worker.compute(view)).map_err(|error| match error {
                ComputeError::Label { layer, node } => {
                    not_canonical(&self.inputs.layers[layer], first, node)
                }
                ComputeError::Data { node } => not_canonical(&self.inputs.tree_d, first, node),
                ComputeError::Device(error) => self.device_in(error, first),
            })?;
            self.check_roots(&filled.block.view(&self.plan), first)?;
            if give.send(filled).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// What comes of a failure of the device.
    fn device(&self, source: DeviceError) -> TreesError {
        TreesError::of_device(self.session.device(), source)
    }

    /// What comes of a failure in the block that begins with the sector's node `first`.
    fn device_in(&self, source: DeviceError, first: u64) -> TreesError {
        let last = first + self.plan.work.block_nodes as u64 - 1;
        match self.device(source) {
            TreesError::BadDevice { device, what } => {
                let what = format!("{what}, in the block of nodes {first} to {last}");
                TreesError::BadDevice { device, what }
            }
            error => error,
        }
    }

    /// The roots of a block go into the rows above it, whoever made them.
    fn check_roots(&self, block: &BlockView<'_>, first: u64) -> Result<(), TreesError> {
        let root_r = block.tree_r.last().or(block.replica.last());
        for (tree, root) in [("tree C", block.tree_c.last()), ("tree R last", root_r)] {
            if root.is_none_or(|root| encode_node(root, &[0; NODE_SIZE]).is_err()) {
                let what = format!("the root of a block of {tree} is no element of the field");
                return Err(self.device_in(Box::new(ComputedWrongly { what }), first));
            }
        }
        Ok(())
    }

    fn write_blocks<'m>(
        &self,
        take: &Receiver<Filled<'m>>,
        give: &Sender<Option<&'m mut [Node]>>,
        tell: &Sender<Event>,
        clock: &Clock,
        stopped: &dyn Fn() -> bool,
    ) -> Result<(), TreesError> {
        for Filled { mut block, tree_d } in take {
            if stopped() {
                break;
            }
            let number = block.number;
            let view = block.view(&self.plan);
            let roots = clock.time(|| self.write(number, &view, tree_d))?;
            // Nobody waits for memory or events once the end has come.
            let _ = give.send(Some(block.memory));
            let _ = tell.send(Event::Done(number, roots));
        }
        Ok(())
    }

    /// Writes the results of a block. Returns the roots of its trees.
    fn write(
        &self,
        number: u64,
        block: &BlockView<'_>,
        tree_d: Node,
    ) -> Result<BlockRoots, TreesError> {
        let leaves = self.plan.work.block_nodes;
        let per_tree = self.porep.base_tree_leaves() / leaves as u64;
        let (tree, place) = ((number / per_tree) as usize, number % per_tree);
        write_block(&self.outputs.replica, number * leaves as u64, block.replica)?;
        let mut roots = BlockRoots { tree_c: block.tree_c[0], tree_r: block.replica[0], tree_d };
        for (forest, file, first_row, mut nodes, root) in [
            (&self.tree_c, &self.outputs.tree_c[tree], 0, &*block.tree_c, &mut roots.tree_c),
            (
                &self.tree_r_last,
                &self.outputs.tree_r_last[tree],
                1,
                block.tree_r,
                &mut roots.tree_r,
            ),
        ] {
            let layout = forest.layout;
            let lengths = row_lengths(leaves, forest.hash.arity()).skip(first_row as usize);
            for (row, length) in (first_row..).zip(lengths) {
                let (row_nodes, above) = nodes.split_at(length);
                if row >= layout.first_row() {
                    write_block(file, layout.row_start(row) + place * length as u64, row_nodes)?;
                }
                *root = row_nodes[0];
                nodes = above;
            }
        }
        Ok(roots)
    }

    /// Joins the roots of blocks as they come, until all stages have ended.
    fn join(
        &self,
        events: &Receiver<Event>,
        stop: &StopOnDrop<impl Fn()>,
    ) -> Result<Roots, Failure> {
        let mut tops = Tops::new(self)?;
        let mut early = BTreeMap::new();
        let mut failure = None;
        let bytes = |blocks: u64| {
            let files = u64::from(self.porep.layers) + 1;
            blocks * self.plan.work.block_nodes as u64 * files * NODE_SIZE as u64
        };
        let at = |blocks| self.watch.at(Part::Trees, bytes(blocks), bytes(self.plan.count));
        let mut next = 0;
        if let Err(error) = at(0) {
            failure = Some(error.into());
            stop.now();
        }
        for event in events {
            if failure.is_some() {
                continue;
            }
            let result = match event {
                Event::Failed(failure) => Err(failure),
                Event::Done(number, roots) => {
                    early.insert(number, roots);
                    let mut joined = Ok(());
                    while let (Ok(()), Some(roots)) = (&joined, early.remove(&next)) {
                        next += 1;
                        joined = tops.push(self, &roots).and_then(|()| at(next));
                    }
                    joined.map_err(Failure::from)
                }
            };
            if let Err(first) = result {
                failure = Some(first);
                stop.now();
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None => Ok(tops.finish(self)),
        }
    }
}

fn not_canonical(file: &NodeFile, first: u64, index: usize) -> TreesError {
    TreesError::NotCanonical { path: file.path().to_path_buf(), node: first + index as u64 }
}

/// Stops all stages, at the latest when it is dropped.
struct StopOnDrop<S: Fn()>(S);

impl<S: Fn()> StopOnDrop<S> {
    fn now(&self) {
        (self.0)();
    }
}

impl<S: Fn()> Drop for StopOnDrop<S> {
    fn drop(&mut self) {
        self.now();
    }
}

/// Runs a stage of the pipeline and tells how it failed, if it did.
fn stage(tell: &Sender<Event>, work: impl FnOnce() -> Result<(), TreesError>) {
    let failure = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => Failure::Error(error),
        Err(panic) => Failure::Panic(panic),
    };
    // The calling thread listens until the last stage has ended.
    let _ = tell.send(Event::Failed(failure));
}

/// The rows above the blocks, of one base tree after the other.
struct Tops {
    tree_c: TreeTop,
    tree_r_last: TreeTop,
    tree_d: TreeTop,
    blocks: u64,
    base_roots: (Vec<Node>, Vec<Node>),
}

impl Tops {
    fn new(pipeline: &Pipeline<'_>) -> Result<Self, TreesError> {
        let top = |hash: RowHash, layout: Layout| {
            TreeTop::new(hash, layout, pipeline.plan.work.block_nodes)
        };
        let (data_hash, data_layout) = tree_d_layout(pipeline.porep.nodes())?;
        Ok(Self {
            tree_c: top(pipeline.tree_c.hash, pipeline.tree_c.layout),
            tree_r_last: top(pipeline.tree_r_last.hash, pipeline.tree_r_last.layout),
            tree_d: top(data_hash, data_layout),
            blocks: 0,
            base_roots: (Vec::new(), Vec::new()),
        })
    }

    /// Adds the next block.
    fn push(&mut self, pipeline: &Pipeline<'_>, roots: &BlockRoots) -> Result<(), TreesError> {
        let per_tree = pipeline.plan.count / u64::from(pipeline.tree_c.trees);
        let tree = (self.blocks / per_tree) as usize;
        let outputs = pipeline.outputs;
        for (top, root, file) in [
            (&mut self.tree_c, roots.tree_c, &outputs.tree_c[tree]),
            (&mut self.tree_r_last, roots.tree_r, &outputs.tree_r_last[tree]),
        ] {
            let part = file.part();
            top.push(root, &|first, nodes| write_nodes(part, first, nodes))
                .map_err(|error| TreesError::of_top(error, part.target()))?;
        }
        let tree_d = pipeline.inputs.tree_d.path();
        self.tree_d
            .push(roots.tree_d, &|_, _| Ok(()))
            .map_err(|error| TreesError::of_top(error, tree_d))?;
        self.blocks += 1;
        if self.blocks.is_multiple_of(per_tree) {
            self.base_roots.0.push(self.tree_c.take_root());
            self.base_roots.1.push(self.tree_r_last.take_root());
        }
        Ok(())
    }

    /// # Panics
    /// When blocks are missing.
    fn finish(mut self, pipeline: &Pipeline<'_>) -> Roots {
        Roots {
            comm_c: pipeline.tree_c.root(&self.base_roots.0),
            comm_r_last: pipeline.tree_r_last.root(&self.base_roots.1),
            comm_d: self.tree_d.take_root(),
        }
    }
}
