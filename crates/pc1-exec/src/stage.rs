//! PC1 of one sector, step by step.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use seal_host::{
    PartFile, SpaceError, SpaceReserved, SpaceWanted, behind_links, find_same_file,
    find_taken_for_remains, parent_of, reserve_space, start_scoped, take_patiently,
};
use seal_runtime::{TaskContext, Unit};
use seal_sdr::{
    FoundLayers, Graph, Labelling, LayerStore, SdrError, Sealing, find_layers, label_sector,
    replica_id,
};
use seal_sha256::{ChaCha8, Kernel};
use seal_trees::{Piece, comm_d_of_pieces, zero_commitment};
use seal_types::{
    Commitment, CpuSet, MANIFEST, Porep, ProverId, ReplicaId, SectorId, TREE_D, Ticket,
    files_of_sector, is_remains_of_sealing, layer_file,
};
use seal_wire::{Corruption, ErrorCode};

use crate::data::{Staged, check_copy};
use crate::directory::{lock, refuse_finished};
use crate::error::corruption;
use crate::kept::Kept;
use crate::progress::{COPY, COPY_TO_DISK, already, plan, tell};
use crate::tree_d::TreeD;
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
    /// Whether a finished sector under another replica id may go.
    pub replace_finished: ReplaceFinished,
    /// Where layers are kept until the last one is finished; none is the cache directory.
    pub work_dir: Option<PathBuf>,
    /// How long a directory is waited for that another process still has.
    pub lock_wait: Duration,
}

/// Sectors of fewer nodes are labelled in less time than is worth a trial.
const WORTH_A_TRIAL: u64 = 1 << 18;

impl Pc1Settings {
    /// What the chain of a label takes, for a sector with so many nodes, where it is known. Units without producers prepare nodes beside their hashing, which is not tried.
    fn label_time(&self, nodes: u64) -> Option<Duration> {
        (nodes >= WORTH_A_TRIAL && self.labeller.has_producers())
            .then(|| seal_sdr::label_time(self.kernel))
    }
}

/// The variable that allows [`ReplaceFinished::Yes`].
pub const REPLACE_FINISHED: &str = "SEAL_PC1_REPLACE_FINISHED";

/// What becomes of a request for a cache directory that holds a finished sector under another
/// replica id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplaceFinished {
    /// It is refused.
    #[default]
    No,
    /// The finished sector is removed.
    Yes,
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
/// another replica id. Before anything is removed, all is checked that can be checked quickly.
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
    context.plan(plan(&job.porep, staged.is_zero(), settings.label_time(job.porep.nodes())));
    let (data_failed, labels_failed) = (AtomicBool::new(false), AtomicBool::new(false));
    let watch = seal_sdr::Watch {
        progress: &|part, done, total| tell(context, part, done, total),
        cancelled: &|| context.is_cancelled() || data_failed.load(Ordering::Relaxed),
    };

    // Whatever this thread and those that it starts do, such as hashing finished layers or making
    // a parents cache, keeps off the cores that label.
    settings.labeller.beside().confine()?;
    let lock = || lock("cache_path", &job.cache_path);
    let _lock = patiently(&job.cache_path, settings.lock_wait, lock, context)?;
    let sealing = Sealing {
        porep: job.porep,
        replica_id,
        prover_id: job.prover_id,
        sector_id: job.sector_id,
    };
    let work_dir = settings.work_dir.as_deref();
    check_paths(job, &staged, work_dir, &sealing)?;
    refuse_finished(&job.cache_path, &sealing, settings.replace_finished)?;
    // Whoever had the one had the other too, and lets go of both, but not at the same moment.
    let home_path = work_dir.map(|dir| dir.join(replica_id.to_string()));
    let open = || LayerHome::open(work_dir, &job.cache_path, &sealing);
    let home = patiently(
        home_path.as_ref().unwrap_or(&job.cache_path),
        settings.lock_wait,
        open,
        context,
    )?;
    let FoundLayers { finished, changed } = match settings.resume {
        Resume::Yes => find_layers(home.path(), &sealing, watch)?,
        Resume::No => FoundLayers::default(),
    };
    let tree_d = TreeD::find(job, &staged, comm_d);
    let kept = changed.and_then(|changed| Kept::aside(&changed, &job.cache_path, context));
    let reserve = || {
        let freed = home.bytes_of_remains(finished.len(), &sealing)?;
        reserve(job, &staged, tree_d.is_there(), finished.len(), (home.path(), freed))
    };
    let _reserved = match (reserve(), kept) {
        // A look at what is wrong is worth less than the sector.
        (Err(Pc1Error::Space(SpaceError::TooLittle { .. })), Some(kept)) => {
            kept.let_go()?;
            reserve()?
        }
        (reserved, _) => reserved?,
    };
    // From here on things go that an earlier run has left.
    home.remove_remains(finished.len(), &sealing)?;
    already(context, &job.porep, finished.len());

    let mut store = LayerStore::begin(home.path(), &sealing, finished)?;
    let span = tracing::Span::current();
    let data = || -> Result<(), Pc1Error> {
        let _of_task = span.enter();
        let stop = || context.is_cancelled() || labels_failed.load(Ordering::Relaxed);
        tree_d.complete(context, &stop)?;
        staged.copy_to(
            &job.out_path,
            &|done| {
                context.progress(COPY, done, size.bytes(), Unit::Bytes);
                if done == size.bytes() {
                    context.progress(COPY_TO_DISK, 0, 1, Unit::Steps);
                }
            },
            &stop,
        )?;
        context.progress(COPY_TO_DISK, 1, 1, Unit::Steps);
        Ok(())
    };
    side_by_side(
        || settings.labeller.beside().run(data),
        &data_failed,
        || match store.next_layer() {
            Some(_) => label(job, settings, replica_id, &mut store, (context, watch)),
            None => Ok(()),
        },
        &labels_failed,
    )?;
    home.complete(&sealing, store.finished())?;
    Ok(Pc1Result { comm_d, replica_id })
}

/// Takes what an earlier process may still have, as after a restart of the worker: it is ending, and
/// to refuse the sector would stop it until somebody looks after it.
fn patiently<T>(
    path: &Path,
    longest: Duration,
    take: impl FnMut() -> Result<T, Pc1Error>,
    context: &TaskContext,
) -> Result<T, Pc1Error> {
    let is_busy = |error: &Pc1Error| matches!(error, Pc1Error::Busy { .. });
    let taken = take_patiently(path, longest, take, is_busy, |wait| {
        let holder = wait.holder.as_ref().map(ToString::to_string);
        let holder = holder.unwrap_or_else(|| "another process".to_owned());
        context.waits(&format!(
            "for {holder}, which still works there, {} s at most",
            wait.longest.as_secs()
        ));
        !context.is_cancelled()
    });
    context.goes_on();
    match taken {
        Err(Pc1Error::Busy { .. }) if context.is_cancelled() => Err(Pc1Error::Cancelled),
        taken => taken,
    }
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
    replica_id: ReplicaId,
    store: &mut LayerStore,
    (context, watch): (&TaskContext, seal_sdr::Watch<'_>),
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
    let (seat, mut memory) = labeller.seat(bytes, context, watch.cancelled)?;
    context.goes_on();
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

/// Finds out whether no file of the request is to be written in the place of another one, and
/// whether files can be made where they are to be.
fn check_paths(
    job: &Pc1Job,
    staged: &Staged,
    work_dir: Option<&Path>,
    sealing: &Sealing,
) -> Result<(), Pc1Error> {
    let out_path = ("out_path", job.out_path.as_path());
    let in_path = ("in_path", staged.path());
    let named: &[_] = if staged.is_dev_zero() { &[out_path] } else { &[in_path, out_path] };
    let files_in = |key: &'static str, dir: &Path| -> Vec<_> {
        let names = files_of_sector(&job.porep).into_iter();
        names.map(|name| (format!("{key}'s"), dir.join(name))).collect()
    };
    let in_work = work_dir.map(|dir| dir.join(sealing.replica_id.to_string()));
    let of_work = in_work.as_deref().map(|dir| files_in("SEAL_WORK_DIR", dir)).unwrap_or_default();
    let files = files_in("cache_path", &job.cache_path).into_iter().chain(of_work);
    if let Some(same) = find_same_file(named, files) {
        return Err(same.into());
    }
    let dirs: Vec<_> = [job.cache_path.as_path()].into_iter().chain(in_work.as_deref()).collect();
    if let Some(taken) = find_taken_for_remains(named, &dirs, is_remains_of_sealing) {
        return Err(taken.into());
    }
    check_copy(&job.out_path)?;
    for name in [MANIFEST, TREE_D] {
        drop(PartFile::create(&job.cache_path.join(name))?);
    }
    Ok(())
}

/// Finds out before hours of work whether everything will fit, beside what other tasks will still
/// write and when `freed` bytes in the cache directory have been removed, and keeps that space for
/// this task. Layers grow in `home`.
fn reserve(
    job: &Pc1Job,
    staged: &Staged,
    have_tree_d: bool,
    have_layers: usize,
    (home, freed): (&Path, u64),
) -> Result<Vec<SpaceReserved>, Pc1Error> {
    let sector = job.porep.sector_size.bytes();
    let layers = sector * u64::from(job.porep.layers).saturating_sub(have_layers as u64);
    let tree_d = if have_tree_d { 0 } else { 2 * sector };
    let copy = if staged.is_zero() { 0 } else { sector };
    let out_path = behind_links(&job.out_path)?;
    let out_dir = parent_of(&out_path);
    let who = format!("PC1 in {}, pid {}", job.cache_path.display(), std::process::id());
    let take = |on: &Path, bytes: u64, freed: u64, grows: &[PathBuf]| {
        let grows: Vec<_> = grows.iter().map(PathBuf::as_path).collect();
        reserve_space(SpaceWanted { who: &who, on, bytes, freed, grows: &grows })
    };
    let cache = job.cache_path.as_path();
    // By name: a tree D that is replaced after all is reserved for itself.
    let names = (1..=job.porep.layers).skip(have_layers).map(layer_file);
    let mut grows: Vec<_> = names.flat_map(|name| [home.join(&name), cache.join(name)]).collect();
    grows.extend((!have_tree_d).then(|| cache.join(TREE_D)));
    let out = [out_path.clone()];
    if on_one_file_system(cache, out_dir) {
        grows.extend(out);
        return Ok(vec![take(cache, layers + tree_d + copy, freed, &grows)?]);
    }
    Ok(vec![take(cache, layers + tree_d, freed, &grows)?, take(out_dir, copy, 0, &out)?])
}

fn on_one_file_system(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| path.metadata().map(|meta| meta.dev()).ok();
    device(a) == device(b)
}
