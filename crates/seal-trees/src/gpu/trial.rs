//! A device is tried before it is believed: a batch of random and extreme numbers, others each time,
//! computed by every kernel that will be used and compared with the processor, node by node.
//!
//! When a device is opened nobody knows yet what sectors will come, so all kernels are tried, on
//! few nodes, because whoever started the process waits. Before the first sector of a shape the
//! kernels of that shape are tried again on as many nodes as keep every multiprocessor busy.

use std::thread;

use seal_cuda::{Batch, BatchError, CudaError, Device, Parts, Shape, Worker};
use seal_poseidon::{Hasher, Kernel, Poseidon};

use crate::Node;
use crate::gpu::recompute::{Computed, Numbers, Which, recompute};

/// Nodes for each multiprocessor: a block of threads.
const NODES_EACH: usize = 64;

/// The most nodes when a device is opened.
const FEW: usize = 512;

/// The most nodes before a sector: more than a block of threads for each multiprocessor of the
/// largest devices. All four kernels take 14 MiB of the device for it.
const MANY: usize = 1 << 15;

/// Why a trial was not passed.
#[derive(Debug)]
pub(super) enum TrialError {
    /// The device failed.
    Device(CudaError),
    /// It computed wrongly.
    Wrong(String),
}

/// Tries all kernels on few nodes.
pub(super) fn try_all(device: &Device, parts: Parts, kernel: Kernel) -> Result<(), TrialError> {
    for (layers, arity) in [(11, 8), (2, 2)] {
        let nodes = trial_nodes(device, arity, FEW);
        run(device, Shape { layers, arity, nodes }, parts, kernel)?;
    }
    Ok(())
}

/// Tries the kernels for batches of this shape on many nodes.
pub(super) fn try_shape(
    device: &Device,
    shape: Shape,
    parts: Parts,
    kernel: Kernel,
) -> Result<(), TrialError> {
    let nodes = trial_nodes(device, shape.arity, MANY).min(shape.nodes);
    run(device, Shape { nodes, ..shape }, parts, kernel)
}

/// A power of the arity that gives each multiprocessor a block of threads, if `most` allows it.
fn trial_nodes(device: &Device, arity: usize, most: usize) -> usize {
    let busy = usize::try_from(device.info().multiprocessors).unwrap_or(1).max(1) * NODES_EACH;
    let mut nodes = 1;
    while nodes < busy && nodes * arity <= most {
        nodes *= arity;
    }
    nodes
}

fn run(device: &Device, shape: Shape, parts: Parts, kernel: Kernel) -> Result<(), TrialError> {
    let (Some(columns), Some(rows)) =
        (Poseidon::of_arity(shape.layers as u32), Poseidon::of_arity(shape.arity as u32))
    else {
        let what = format!("columns of {} and rows of {}", shape.layers, shape.arity);
        return Err(TrialError::Device(CudaError::Unsupported { what }));
    };
    let mut worker = Worker::new(device, shape, parts).map_err(TrialError::Device)?;
    let seed = Numbers::new_seed();
    let mut numbers = Numbers::from_seed(seed);
    let mut elements = || (0..shape.nodes).map(|_| numbers.element()).collect::<Vec<Node>>();
    let labels: Vec<_> = (0..shape.layers).map(|_| elements()).collect();
    let layers: Vec<_> = labels.iter().map(Vec::as_slice).collect();
    let data = elements();
    // Not zero, which a result could be by chance.
    let unwritten = |nodes: usize| vec![[0xee; 32]; nodes];
    let tree = shape.tree_nodes();
    let (mut tree_c, mut replica) = (unwritten(tree), unwritten(shape.nodes));
    let mut tree_r = unwritten(tree - shape.nodes);
    let wrong = |what: String| TrialError::Wrong(format!("{what}, tried with seed {seed:#018x}"));
    if !parts.columns {
        Hasher::new(columns, kernel)
            .hash_columns(&layers, &mut tree_c[..shape.nodes])
            .map_err(|_| wrong("numbers that are no elements".to_owned()))?;
    }
    let mut batch = Batch {
        layers: &layers,
        data: &data,
        tree_c: &mut tree_c,
        replica: &mut replica,
        tree_r: &mut tree_r,
    };
    worker.compute(&mut batch).map_err(|error| match error {
        BatchError::Device(error) => TrialError::Device(error),
        // All of them are elements.
        error => wrong(format!("it reports that {error}, which is not so")),
    })?;
    let computed = Computed {
        layers: &layers,
        data: &data,
        tree_c: &tree_c,
        replica: &replica,
        tree_r: &tree_r,
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(shape.nodes);
    thread::scope(|scope| {
        let compare = |remainder| {
            let which = Which::Every { of: threads, remainder };
            move || recompute(&computed, parts, (columns, rows), which)
        };
        // A thread that cannot be had is not waited for: this one does its part.
        let others: Vec<_> = (1..threads)
            .map(|part| (part, seal_host::start_scoped(scope, "compare", compare(part))))
            .collect();
        let mut result = compare(0)();
        for (part, other) in others {
            let compared = match other {
                Ok(thread) => {
                    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                }
                Err(_) => compare(part)(),
            };
            result = result.and(compared);
        }
        result
    })
    .map_err(|found| wrong(found.to_string()))
}
