//! PC1 of one sector, step by step.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use seal_host::{SpaceError, SpaceReserved, SpaceWanted, reserve_space, start_scoped};
use seal_runtime::{TaskContext, Unit};
use seal_sdr::{
    FoundLayers, Graph, Labelling, LayerStore, SdrError, Sealing, find_layers, label_sector,
    replica_id,
};
use seal_sha256::{ChaCha8, Kernel};
use seal_trees::{
    Piece, TreesError, ZeroLeaves, build_tree_d, build_zero_tree_d, check_tree_d, comm_d_of_pieces,
    zero_commitment,
};
use seal_types::{Commitment, CpuSet, Porep, ProverId, ReplicaId, SectorId, TREE_D, Ticket};
use seal_wire::{Corruption, ErrorCode};

use crate::data::{Staged, remove_stale_copy};
use crate::directory::DirectoryLock;
use crate::error::corruption;
use crate::kept::Kept;
use crate::work_dir::LayerHome;
use crate::{Labeller, Pc1Error};

/// What the executor was told at its start.
#[derive(Clone, Debug)]
pub struct Pc1Settings {
    /// Directory of the parents caches.
    pub parents: PathBuf,
    /// SHA-256 kernel of the labels.
    pub kernel: Kernel,
    /// ChaCha8 kernel of the parents.
    pub draws: ChaCha8,
    /// Where labels are computed.
    pub labeller: Arc<Labeller>,
    /// Whether finished layers of the same request are used again.
    pub resume: Resume,
    /// Where layers are kept until the last one is finished; none is the cache directory.
    pub work_dir: Option<PathBuf>,
}

/// What becomes of layers that an earlier run of the same request has finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resume {
    /// They are checked and used.
    #[default]
    Yes,
    /// All layers are labelled anew.
    No,
}

/// One sector to label. As the task of the wire, but for any graph, so that tests can label
/// sectors of sizes that have no registered proof.
#[derive(Clone, Debug)]
pub struct Pc1Job {
    /// Graph, layers and size.
    pub porep: Porep,
    /// Directory for layers and tree D.
    pub cache_path: PathBuf,
    /// The staged file, or `/dev/zero`.
    pub in_path: PathBuf,
    /// Where the data is copied.
    pub out_path: PathBuf,
    /// Who seals.
    pub prover_id: ProverId,
    /// The sector.
    pub sector_id: SectorId,
    /// Sealing randomness.
    pub ticket: Ticket,
    /// The pieces.
    pub pieces: Vec<Piece>,
}

/// What PC1 found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pc1Result {
    /// Root of tree D.
    pub comm_d: Commitment,
    /// The replica id the layers are labelled with.
    pub replica_id: ReplicaId,
}

/// Labels a sector: tree D and all layers in the cache directory, the data at `out_path`.
///
/// Files appear under their names only when they are complete. Layers that are finished when
/// something goes wrong are used by the next run of the same request, and removed by one under
/// another replica id.
pub fn pre_commit1(
    job: &Pc1Job,
    settings: &Pc1Settings,
    context: &TaskContext,
) -> Result<Pc1Result, Pc1Error> {
    let size = job.porep.sector_size;
    let comm_d = comm_d_of_pieces(size, &job.pieces)?;
    let staged = Staged::open(&job.in_path, size)?;
    let found = zero_commitment(size.bytes());
    if staged.is_zero() && found != comm_d {
        let path = staged.path().to_path_buf();
        return Err(Pc1Error::NoData { path, wanted: comm_d, found });
    }

    let replica_id =
        replica_id(job.prover_id, job.sector_id, job.ticket, comm_d, job.porep.porep_id);
    let (data_failed, labels_failed) = (AtomicBool::new(false), AtomicBool::new(false));
    let watch = seal_sdr::Watch {
        progress: &|part, done, total| {
            context.progress(&part.to_string(), done, total, Unit::Nodes);
        },
        cancelled: &|| context.is_cancelled() || data_failed.load(Ordering::Relaxed),
    };

    // Whatever this thread and those that it starts do, such as hashing finished layers or making
    // a parents cache, keeps off the cores that label.
    settings.labeller.beside().confine()?;
    let _lock = DirectoryLock::take("cache_path", &job.cache_path)?;
    let sealing = Sealing {
        porep: job.porep,
        replica_id,
        prover_id: job.prover_id,
        sector_id: job.sector_id,
    };
    let home = LayerHome::open(settings.work_dir.as_deref(), &job.cache_path, &sealing)?;
    let FoundLayers { finished, changed } = match settings.resume {
        Resume::Yes => find_layers(home.path(), &sealing, watch)?,
        Resume::No => FoundLayers::default(),
    };
    let kept = changed.and_then(|changed| Kept::aside(&changed, &job.cache_path, context));
    home.remove_remains(finished.len())?;
    let tree_d = job.cache_path.join(TREE_D);
    let have_tree_d = usable_tree_d(&tree_d, &job.porep, comm_d)?;
    let reserve = || reserve(job, &staged, have_tree_d, finished.len(), home.path());
    let _reserved = match (reserve(), kept) {
        // A look at what is wrong is worth less than the sector.
        (Err(Pc1Error::Space(SpaceError::TooLittle { .. })), Some(kept)) => {
            kept.let_go()?;
            reserve()?
        }
        (reserved, _) => reserved?,
    };

    let mut store = LayerStore::begin(home.path(), &sealing, finished)?;
    let span = tracing::Span::current();
    let data = || -> Result<(), Pc1Error> {
        let _of_task = span.enter();
        let stop = || context.is_cancelled() || labels_failed.load(Ordering::Relaxed);
        if !have_tree_d {
            make_tree_d(&tree_d, job, &staged, comm_d, context, &stop)?;
        }
        staged.copy_to(
            &job.out_path,
            &|done| context.progress("copy", done, size.bytes(), Unit::Bytes),
            &stop,
        )
    };
    side_by_side(
        || settings.labeller.beside().run(data),
        &data_failed,
        || match store.next_layer() {
            Some(_) => label(job, settings, (replica_id, context), &mut store, watch),
            None => Ok(()),
        },
        &labels_failed,
    )?;
    home.complete(&sealing, store.finished())?;
    Ok(Pc1Result { comm_d, replica_id })
}

/// Does both parts at the same time: the labels need only `comm_d` of the data, which the pieces
/// give, and take much longer. When one fails its flag stops the other, and its error is told.
fn side_by_side(
    data: impl FnOnce() -> Result<(), Pc1Error> + Send,
    data_failed: &AtomicBool,
    labels: impl FnOnce() -> Result<(), Pc1Error>,
    labels_failed: &AtomicBool,
) -> Result<(), Pc1Error> {
    let flagged = |result: &Result<(), Pc1Error>, flag: &AtomicBool| {
        flag.fetch_or(result.is_err(), Ordering::Relaxed);
    };
    let done = std::thread::scope(|scope| {
        let data = start_scoped(scope, "data", || {
            let result = data();
            flagged(&result, data_failed);
            result
        })?;
        let labels = labels();
        flagged(&labels, labels_failed);
        Ok((data.join(), labels))
    });
    let (data, labels) = done.map_err(Pc1Error::NoThread)?;
    let data = data.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    match (data, labels) {
        // The one that was only stopped has nothing to say.
        (Err(data), Err(labels)) if data.code() == ErrorCode::Cancelled => Err(labels),
        (Err(data), _) => Err(data),
        (Ok(()), labels) => labels,
    }
}

/// Labels what is missing. A seat comes before memory: a sector that waits holds none.
fn label(
    job: &Pc1Job,
    settings: &Pc1Settings,
    (replica_id, context): (ReplicaId, &TaskContext),
    store: &mut LayerStore,
    watch: seal_sdr::Watch<'_>,
) -> Result<(), Pc1Error> {
    let labeller = &settings.labeller;
    let note = |error: SdrError, cpus: Option<&CpuSet>| {
        if let Some(found) = corruption(&error) {
            let found = Corruption { cpus: cpus.map(CpuSet::to_string), ..found };
            context.corrupted(found.clone());
            labeller.cores().noted(&found);
        }
        error
    };
    let graph = Graph::new(&job.porep).drawing_with(settings.draws);
    let parents = labeller.parents().open(&graph, &settings.parents, watch);
    let parents = parents.map_err(|error| note(error, None))?;
    let bytes = usize::try_from(job.porep.sector_size.bytes()).expect("64-bit addresses");
    let (seat, mut memory) = labeller.seat(bytes, watch.cancelled)?;
    let consumer = labeller.consumer(&seat);
    tracing::info!(%replica_id, kernel = settings.kernel.name(), consumer, "labelling");
    let labelling =
        Labelling { porep: &job.porep, parents: &parents, replica_id, kernel: settings.kernel };
    let engine = labeller.engine();
    let done = label_sector(
        engine,
        &seat,
        Some(consumer),
        &mut || memory.take(),
        &labelling,
        store,
        watch,
    );
    // Before the seat is given up: who waits for it must not get a core that has just erred again.
    Ok(done.map_err(|error| note(error, Some(labeller.cpus(&seat))))?)
}

/// Whether the tree D that may already be there is that of this sector. It is only ever read: it
/// may be a link to a file that all sectors without data share. One that is of something else is
/// replaced by a file of the sector's own, which leaves what a link points to alone.
fn usable_tree_d(path: &Path, porep: &Porep, comm_d: Commitment) -> Result<bool, Pc1Error> {
    if path.symlink_metadata().is_err() {
        return Ok(false);
    }
    match check_tree_d(path, porep.nodes(), comm_d) {
        Ok(()) => {
            tracing::info!(path = %path.display(), "using the tree D that is there");
            Ok(true)
        }
        Err(error) => {
            // The error's own remedy is for PC2, which cannot make one.
            let what = match &error {
                TreesError::TreeDSize { found, wanted, .. } => {
                    format!("has {found} bytes and {wanted} are wanted")
                }
                TreesError::TreeDRoot { found, wanted, .. } => {
                    format!("has the root {found} but comm_d is {wanted}")
                }
                other => format!("is not used ({other})"),
            };
            let path = path.display();
            tracing::warn!("tree D {path} {what}; building this sector's own in its place");
            Ok(false)
        }
    }
}

/// Finds out before hours of work whether everything will fit, beside what other tasks will still
/// write, and keeps that space for this task.
fn reserve(
    job: &Pc1Job,
    staged: &Staged,
    have_tree_d: bool,
    have_layers: usize,
    home: &Path,
) -> Result<Vec<SpaceReserved>, Pc1Error> {
    let sector = job.porep.sector_size.bytes();
    let layers = sector * u64::from(job.porep.layers).saturating_sub(have_layers as u64);
    let tree_d = if have_tree_d { 0 } else { 2 * sector };
    let copy = if staged.is_zero() { 0 } else { sector };
    // What a killed run has left there is replaced, so its space counts as free.
    remove_stale_copy(&job.out_path)?;
    let out_dir = job.out_path.parent().unwrap_or(Path::new("/"));
    let who = format!("PC1 in {}, pid {}", job.cache_path.display(), std::process::id());
    let take = |on: &Path, bytes: u64, grows: &[&Path]| {
        reserve_space(SpaceWanted { who: &who, on, bytes, grows })
    };
    let (cache, out) = (job.cache_path.as_path(), job.out_path.as_path());
    if on_one_file_system(cache, out_dir) {
        return Ok(vec![take(cache, layers + tree_d + copy, &[cache, home, out])?]);
    }
    Ok(vec![take(cache, layers + tree_d, &[cache, home])?, take(out_dir, copy, &[out])?])
}

fn on_one_file_system(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| path.metadata().map(|meta| meta.dev()).ok();
    device(a) == device(b)
}

fn make_tree_d(
    path: &Path,
    job: &Pc1Job,
    staged: &Staged,
    comm_d: Commitment,
    context: &TaskContext,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<(), Pc1Error> {
    let watch = seal_trees::Watch {
        progress: &|part, done, total| {
            context.progress(&part.to_string(), done, total, Unit::Nodes);
        },
        cancelled,
    };
    let nodes = job.porep.nodes();
    if staged.is_zero() {
        build_zero_tree_d(path, nodes, ZeroLeaves::Hole, &watch)?;
    } else {
        let mut data = staged.reader()?;
        build_tree_d(path, nodes, &mut data, staged.path(), comm_d, &watch)?;
    }
    Ok(())
}
