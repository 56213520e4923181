//! Pre-commit phase 2: from layers and tree D to replica, tree C, tree R last and `comm_r`.
//!
//! The replica is always computed from the leaf row of tree D, never from the sealed file: that
//! one may hold the data, the replica of an earlier run, or a mixture that other software left
//! when it was interrupted. What it holds is found out by content and only reported.

use std::path::Path;
use std::time::{Duration, Instant};

use seal_host::{ENDING_TAKES, FileError, take_patiently};
use seal_poseidon::Poseidon;
use seal_sha256::Kernel;
use seal_types::{Commitment, NODE_SIZE, Porep};

use crate::backend::Backend;
use crate::block::BlockPlan;
use crate::digests::LayerDigests;
use crate::forest::Forest;
use crate::inputs::{Inputs, samples};
use crate::node_file::{NodeFile, ReadNodes};
use crate::outputs::{Outputs, Verified};
use crate::pipeline::{Pipeline, Roots, Stages};
use crate::replica::SealedState;
use crate::self_check::SelfCheck;
use crate::verify::verify;
use crate::{Part, TreesError, Watch};

/// Where a sector lies.
#[derive(Clone, Copy, Debug)]
pub struct Pc2Paths<'a> {
    /// Directory with layers and tree D; trees C and R last and the auxiliary files go there.
    pub cache_dir: &'a Path,
    /// The sealed file: unsealed data before, replica afterwards.
    pub sealed_file: &'a Path,
}

/// A sector and what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Pc2Job<'a> {
    /// Size, layers and shapes of trees.
    pub porep: &'a Porep,
    /// Where it lies.
    pub paths: Pc2Paths<'a>,
    /// The commitment to its data.
    pub comm_d: Commitment,
    /// What PC1 has recorded of the layers.
    pub layer_digests: &'a dyn RecordedLayers,
}

/// SHA-256 of each layer in hex, for layers to be compared with.
pub trait RecordedLayers: std::fmt::Debug + Sync {
    /// The digests; none if nobody has recorded them. Asked once the directory is this PC2's alone:
    /// a PC1 that it waited for may have recorded others.
    fn digests(&self) -> Result<Vec<String>, FileError>;
}

/// Nobody has recorded anything.
#[derive(Clone, Copy, Debug)]
pub struct NoRecord;

impl RecordedLayers for NoRecord {
    fn digests(&self) -> Result<Vec<String>, FileError> {
        Ok(Vec::new())
    }
}

impl RecordedLayers for Vec<String> {
    fn digests(&self) -> Result<Vec<String>, FileError> {
        Ok(self.clone())
    }
}

/// How PC2 works; no setting changes a byte of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The most memory for blocks, whatever the sector's size. A few of the smallest blocks are
    /// always used.
    pub memory_bytes: u64,
    /// Nodes that the self-check recomputes; 0 turns it off.
    pub self_check_samples: u64,
    /// How long a sector is waited for that another process still has.
    pub lock_wait: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { memory_bytes: 2 << 30, self_check_samples: 40, lock_wait: ENDING_TAKES }
    }
}

/// What PC2 found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pc2Result {
    /// Root of tree C.
    pub comm_c: Commitment,
    /// Root of tree R last.
    pub comm_r_last: Commitment,
    /// The hash of both: the sector's commitment.
    pub comm_r: Commitment,
    /// What the sealed file held before.
    pub sealed_state: SealedState,
}

/// What it took, for logs and measurements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pc2Report {
    /// Who computed, and with which kernels.
    pub device: String,
    /// Nodes of a block, and blocks in memory.
    pub block_nodes: usize,
    /// Bytes of all blocks in memory.
    pub memory_bytes: usize,
    /// Bytes read from layers and tree D.
    pub read_bytes: u64,
    /// Bytes written to trees and replica.
    pub written_bytes: u64,
    /// Whether files were read past the page cache, and whether they were written so.
    pub direct: (bool, bool),
    /// Whether layers were compared with their digests.
    pub layers_checked: bool,
    /// How long columns, replica and trees took.
    pub trees: Duration,
    /// What of that time the threads worked.
    pub stages: Stages,
    /// How long the self-check took.
    pub self_check: Duration,
    /// How long it took to bring the results to disk and give them their names.
    pub publish: Duration,
}

/// Runs PC2. On an error, nothing has been put in place: the sealed file and the results of a
/// former run are as they were, and PC2 can be run again. (Results of a former run are removed
/// first where the disk has no room for both, if everything they are made of is there and good.)
///
/// Where a device has computed wrongly and there is a point in it, the sector is computed again
/// from its beginning: of what the device made before, only a part was looked at.
pub fn pre_commit2(
    job: &Pc2Job<'_>,
    backend: &dyn Backend,
    settings: &Settings,
    watch: &Watch<'_>,
) -> Result<(Pc2Result, Pc2Report), TreesError> {
    let done = attempts(job, backend, settings, watch)?;
    // The inputs, and what was in the place of the results, are gone now too.
    (watch.progress)(Part::Publish, done.steps, done.steps);
    Ok((done.result, done.report))
}

/// A sector that was computed.
struct Done {
    result: Pc2Result,
    report: Pc2Report,
    /// The steps of bringing it to disk.
    steps: u64,
}

fn attempts(
    job: &Pc2Job<'_>,
    backend: &dyn Backend,
    settings: &Settings,
    watch: &Watch<'_>,
) -> Result<Done, TreesError> {
    for _ in 1..ATTEMPTS {
        match attempt(job, backend, settings, watch) {
            Err(error @ TreesError::BadDevice { .. }) if backend.may_try_again() => {
                tracing::warn!(
                    device = backend.describe(),
                    "the sector is computed again from its beginning: {error}"
                );
            }
            ended => return ended,
        }
    }
    attempt(job, backend, settings, watch)
}

/// On the device, on the device opened anew, and on what takes its place; and once more, where two
/// sectors are computed at a time and one falls with the other.
const ATTEMPTS: u32 = 4;

fn attempt(
    job: &Pc2Job<'_>,
    backend: &dyn Backend,
    settings: &Settings,
    watch: &Watch<'_>,
) -> Result<Done, TreesError> {
    let &Pc2Job { porep, ref paths, comm_d, layer_digests } = job;
    let layers = porep.layers;
    let column_hash = match layers {
        2 | 11 => Poseidon::of_arity(layers),
        _ => None,
    }
    .ok_or(TreesError::Layers { layers })?;
    let tree_r_last = Forest::tree_r_last(porep)?;
    let tree_c = Forest::tree_c(porep)?;

    let inputs = open_patiently(job, settings.lock_wait, watch)?;
    let layer_digests = &*layer_digests.digests()?;
    report(inputs.sealed_state, paths.sealed_file);
    let outputs = Outputs::start(porep, paths.cache_dir, &inputs.sealed_path, &|| {
        if layer_digests.is_empty() {
            return Ok(Verified::Unknown);
        }
        let of = (porep.nodes(), comm_d);
        verify(&inputs.layers, layer_digests, &inputs.tree_d, of, watch)?;
        Ok(Verified::Good)
    })?;

    let session =
        backend.begin().map_err(|source| TreesError::of_device(backend.describe(), source))?;
    let plan = BlockPlan::new(porep, &*session, settings.memory_bytes);
    let device = session.device();
    let layers_checked = !layer_digests.is_empty();
    tracing::info!(
        device,
        block_nodes = plan.work.block_nodes,
        blocks_in_memory = plan.in_memory,
        memory_mib = plan.memory_bytes() >> 20,
        layers_checked,
        "columns, replica and trees"
    );
    let started = Instant::now();
    let pipeline = Pipeline {
        porep,
        inputs: &inputs,
        outputs: &outputs,
        tree_c,
        tree_r_last,
        session: &*session,
        plan,
        watch,
    };
    let digests = layers_checked.then(|| LayerDigests::new(Kernel::detect(), inputs.layers.len()));
    let (Roots { comm_c, comm_r_last, comm_d: found }, stages) = pipeline.run(digests.as_ref())?;
    if found != comm_d.0 {
        let path = inputs.tree_d.path().to_path_buf();
        return Err(TreesError::Data { path, found: Commitment(found), wanted: comm_d });
    }
    if let Some(digests) = digests {
        check_layers(&inputs.layers, digests, layer_digests)?;
    }
    let trees = started.elapsed();

    let comm_r = Poseidon::arity2()
        .hash_nodes(&[comm_c, comm_r_last])
        .map(Commitment)
        .expect("roots are hashes");
    let started = Instant::now();
    let check = SelfCheck::new(porep, &inputs, &outputs, column_hash, &device)?;
    let count = settings.self_check_samples;
    let doubted = |error: TreesError| {
        // Tree D is not the device's.
        if let TreesError::SelfCheck { path, node, .. } = &error
            && path != inputs.tree_d.path()
        {
            session.doubt(&format!("node {node} of {}, or it was written wrongly", path.display()));
        }
        error
    };
    if count > 0 {
        watch.at(Part::SelfCheck, 0, count)?;
        check.roots(&comm_c, &comm_r_last).map_err(doubted)?;
    }
    for (done, node) in (1..).zip(samples(comm_r, count, porep.nodes())) {
        check.node(node).map_err(doubted)?;
        watch.at(Part::SelfCheck, done, count)?;
    }
    let self_check = started.elapsed();

    let started = Instant::now();
    let (comm_c, comm_r_last) = (Commitment(comm_c), Commitment(comm_r_last));
    let mut report = Pc2Report {
        device,
        block_nodes: plan.work.block_nodes,
        memory_bytes: plan.memory_bytes(),
        read_bytes: (u64::from(layers) + 1) * porep.nodes() * NODE_SIZE as u64,
        written_bytes: outputs.bytes(),
        direct: (inputs.are_direct(), outputs.are_direct()),
        layers_checked,
        trees,
        stages,
        self_check,
        publish: Duration::ZERO,
    };
    // As late as can be: the device may have been found out in another sector, also when all blocks
    // of this one were computed.
    session.confirm().map_err(|source| TreesError::of_device(report.device.clone(), source))?;
    let steps = outputs.publish(&comm_c, &comm_r_last, watch)?;
    report.publish = started.elapsed();
    let result = Pc2Result { comm_c, comm_r_last, comm_r, sealed_state: inputs.sealed_state };
    Ok(Done { result, report, steps })
}

/// Opens the inputs. What an earlier process still has, as after a restart of the worker, is waited
/// for: it is ending, and to refuse the sector would stop it until somebody looks after it.
fn open_patiently(
    job: &Pc2Job<'_>,
    longest: Duration,
    watch: &Watch<'_>,
) -> Result<Inputs, TreesError> {
    let opened = take_patiently(
        job.paths.cache_dir,
        longest,
        || Inputs::open(job.porep, &job.paths, job.comm_d),
        |error| matches!(error, TreesError::Busy { .. }),
        |wait| {
            let part = Part::Waiting { pid: wait.pid() };
            watch.at(part, wait.waited.as_secs(), wait.longest.as_secs()).is_ok()
        },
    );
    match opened {
        Err(TreesError::Busy { .. }) if (watch.cancelled)() => Err(TreesError::Cancelled),
        opened => opened,
    }
}

fn report(state: SealedState, sealed_file: &Path) {
    let file = sealed_file.display();
    match state {
        SealedState::Unsealed => tracing::info!(%file, "the sealed file holds the data"),
        SealedState::Replica => {
            tracing::info!(%file, "the sealed file is the replica already: PC2 runs again");
        }
        SealedState::Mixed => tracing::warn!(
            %file,
            "the sealed file is partly encoded: a PC2 that works in place was interrupted; it is \
             restored from tree D"
        ),
        SealedState::Other => tracing::warn!(
            %file,
            "the sealed file holds neither the data nor the replica; it is restored from tree D"
        ),
    }
}

/// Compares the digests of layers that were read with those that PC1 recorded.
pub(crate) fn check_layers(
    layers: &[NodeFile],
    digests: LayerDigests,
    recorded: &[String],
) -> Result<(), TreesError> {
    for ((layer, found), wanted) in layers.iter().zip(digests.finish()).zip(recorded) {
        if !found.eq_ignore_ascii_case(wanted) {
            let (path, wanted) = (layer.path().to_path_buf(), wanted.clone());
            return Err(TreesError::LayerDigest { path, found, wanted });
        }
    }
    Ok(())
}
