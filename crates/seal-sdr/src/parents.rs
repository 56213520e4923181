//! The parents cache: the 14 parents of every node in order, as little-endian u32.
//!
//! Computing parents costs more than labelling, and all sectors of a registered proof share
//! them, so they are kept in a file under the name that other software uses too.
//!
//! A cache is never trusted by its length alone: one wrong parent spoils every sector made with
//! it. A published digest decides where there is one; where there is none, sampled nodes are
//! compared with the graph. Either is done once and remembered by a stamp.

use std::fs::{self, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use seal_host::{FileError, PartFile, ReadMap, require_free};
use seal_types::parents_cache_digest;
use sha2::{Digest, Sha256};

use crate::generate::{ENTRY, Generator};
use crate::in_order::in_order;
use crate::stamp::Stamp;
use crate::{Graph, PARENTS, Part, SdrError, Watch};

/// Nodes whose parents are computed, written and hashed together, just under 1 MiB.
const BLOCK_NODES: u64 = 1 << 14;
/// Threads that compute parents, at most: SHA-256 over the whole cannot be shared between threads,
/// and so many keep it busy.
const MAX_MAKERS: usize = 8;
/// Threads that read a cache ahead of its digest.
const READERS: usize = 2;
/// Nodes compared with the graph one by one.
const SAMPLES: u64 = 4096;

/// A checked parents cache, mapped into memory.
#[derive(Debug)]
pub struct ParentsCache {
    map: ReadMap,
    sha256: String,
    /// The file that is mapped, as it was then.
    identity: Option<Identity>,
}

/// Device, inode, length and time of the last change of a file.
type Identity = (u64, u64, u64, i64, i64);

/// Whether a cache that has a stamp is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Once,
    Again,
}

/// The directory of parents caches under `environment`, as `filecoin-proofs` finds it:
/// `FIL_PROOFS_PARENT_CACHE`, or `filecoin-parents` appended to `FIL_PROOFS_CACHE_DIR` (as text,
/// so that the variable should end in a slash) or to `/var/tmp/`.
pub fn cache_directory(environment: impl Fn(&str) -> Option<String>) -> PathBuf {
    environment("FIL_PROOFS_PARENT_CACHE").map_or_else(
        || {
            let root = environment("FIL_PROOFS_CACHE_DIR").unwrap_or_else(|| "/var/tmp/".into());
            PathBuf::from(root + "filecoin-parents")
        },
        PathBuf::from,
    )
}

impl ParentsCache {
    /// Opens the cache of `graph` in `directory`, or makes it if it is not there or not right.
    pub fn open(graph: &Graph, directory: &Path, watch: Watch<'_>) -> Result<Self, SdrError> {
        Self::open_or_make(graph, directory, Check::Once, watch)
    }

    /// As [`ParentsCache::open`], but a cache that was checked before is hashed again.
    pub fn check(graph: &Graph, directory: &Path, watch: Watch<'_>) -> Result<Self, SdrError> {
        Self::open_or_make(graph, directory, Check::Again, watch)
    }

    fn open_or_make(
        graph: &Graph,
        directory: &Path,
        check: Check,
        watch: Watch<'_>,
    ) -> Result<Self, SdrError> {
        fs::create_dir_all(directory).map_err(FileError::of("create", directory))?;
        let path = Self::path_in(directory, graph);
        let seen = identity(&path);
        if let Some(cache) = Self::open_existing(graph, &path, check, watch)? {
            return Ok(cache);
        }
        let _sole_maker = wait_to_make(directory, watch)?;
        if identity(&path) != seen
            && let Some(cache) = Self::open_existing(graph, &path, check, watch)?
        {
            // Made by somebody else in the meantime.
            return Ok(cache);
        }
        Self::make(graph, &path, watch)
    }

    /// Where the cache of `graph` is in `directory`.
    pub(crate) fn path_in(directory: &Path, graph: &Graph) -> PathBuf {
        directory.join(graph.cache_name() + ".cache")
    }

    /// Whether the file under its name is still the one that is mapped, unchanged.
    pub(crate) fn is_in_place(&self) -> bool {
        self.identity.is_some() && identity(self.path()) == self.identity
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.map.path()
    }

    /// SHA-256 over the file, in hex, as it was when it was made or last hashed.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The parents of `node`.
    #[inline]
    pub fn parents(&self, node: usize) -> [u32; PARENTS] {
        let entry = &self.map[node * ENTRY..(node + 1) * ENTRY];
        let mut parents = [0; PARENTS];
        for (parent, bytes) in parents.iter_mut().zip(entry.as_chunks::<4>().0) {
            *parent = u32::from_le_bytes(*bytes);
        }
        parents
    }

    /// The cache at `path` if it is there and right; what is wrong with it is logged.
    fn open_existing(
        graph: &Graph,
        path: &Path,
        check: Check,
        watch: Watch<'_>,
    ) -> Result<Option<Self>, SdrError> {
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FileError::of("open", path)(error).into()),
        };
        wait_until_made(&file, path, watch)?;

        let wanted = cache_bytes(graph);
        let identity = file.metadata().ok().map(|meta| identity_of(&meta));
        let map = ReadMap::of_file(&file, path)?;
        if map.len() as u64 != wanted {
            tracing::warn!(
                path = %path.display(), length = map.len(), wanted,
                "the parents cache has the wrong length and is made again"
            );
            return Ok(None);
        }
        let published = published_digest(graph);
        if check == Check::Once
            && let Some(stamp) = Stamp::read(path)
        {
            let current = Stamp::of(&file, path, stamp.sha256.clone())?;
            if current == stamp && published.is_none_or(|digest| digest == stamp.sha256) {
                return Ok(Some(Self { map, sha256: stamp.sha256, identity }));
            }
        }

        tracing::info!(path = %path.display(), "checking the parents cache");
        let mut stamp = Stamp::of(&file, path, String::new())?;
        let found = digest(graph, Part::CheckParents, READERS, watch, |offset, block| {
            Ok(file.read_exact_at(block, offset).map_err(FileError::of("read", path))?)
        })?;
        let cache = Self { map, sha256: found.clone(), identity };
        let right = match published {
            Some(digest) => digest == found,
            None => cache.samples_agree(graph),
        };
        if !right {
            tracing::warn!(
                path = %path.display(), sha256 = found, published,
                "the parents cache is not that of its graph and is made again"
            );
            return Ok(None);
        }
        // Of the file as it was before it was hashed, so that a later change is noticed.
        stamp.sha256 = found;
        stamp.write_or_warn(path);
        Ok(Some(cache))
    }

    /// Compares nodes spread over the whole graph, first and last among them, with the graph.
    /// Small graphs are compared whole.
    fn samples_agree(&self, graph: &Graph) -> bool {
        let last = graph.nodes() - 1;
        let samples = SAMPLES.min(last);
        // An odd offset within each stretch, so that no power-of-two pattern is met again.
        (0..=samples).into_par_iter().all(|i| {
            let stretch = last / samples;
            let offset = if i == samples { 0 } else { i.wrapping_mul(2_654_435_761) % stretch };
            let node = if i == samples { last } else { i * stretch + offset };
            let node = u32::try_from(node).expect("below 2^32");
            self.parents(node as usize) == graph.parents(node)
        })
    }

    /// Makes the cache: computed and written by several threads, hashed in order by this one.
    fn make(graph: &Graph, path: &Path, watch: Watch<'_>) -> Result<Self, SdrError> {
        let directory = path.parent().unwrap_or(Path::new("."));
        // Before the look at the free space: it takes the place of what a killed maker has left.
        let part = PartFile::create(path)
            .map_err(|source| SdrError::ParentsDirectory { path: path.to_path_buf(), source })?;
        require_free(directory, cache_bytes(graph))?;
        tracing::info!(
            path = %path.display(), kernel = graph.draws().name(), "making the parents cache"
        );
        let found = make_digest(graph, watch, |offset, block| {
            let written = part.file().write_all_at(block, offset);
            Ok(written.map_err(FileError::of("write", part.part_path()))?)
        })?;
        let wrong = |wanted: &str, found: &str| SdrError::WrongParents {
            path: path.to_path_buf(),
            wanted: wanted.to_owned(),
            found: found.to_owned(),
        };
        if let Some(published) = published_digest(graph)
            && published != found
        {
            return Err(wrong(published, &found));
        }
        // Some nodes of what other processes will read, computed in the other way.
        let map = ReadMap::of_file(part.file(), part.part_path())?;
        if !(Self { map, sha256: found.clone(), identity: None }).samples_agree(graph) {
            return Err(wrong("that of the graph", &found));
        }
        part.finish()?;

        let file = seal_host::open_read(path)?;
        Stamp::of(&file, path, found.clone())?.write_or_warn(path);
        let identity = file.metadata().ok().map(|meta| identity_of(&meta));
        Ok(Self { map: ReadMap::of_file(&file, path)?, sha256: found, identity })
    }
}

/// SHA-256, in hex, over the parents cache that `graph` has: all parents are computed and none is
/// stored. Fails if another digest is published.
pub fn parents_digest(graph: &Graph, watch: Watch<'_>) -> Result<String, SdrError> {
    let found = make_digest(graph, watch, |_, _| Ok(()))?;
    match published_digest(graph) {
        Some(published) if published != found => Err(SdrError::WrongParents {
            path: (graph.cache_name() + ".cache").into(),
            wanted: published.to_owned(),
            found,
        }),
        _ => Ok(found),
    }
}

fn published_digest(graph: &Graph) -> Option<&'static str> {
    parents_cache_digest(&graph.cache_name()).map(|digest| digest.sha256)
}

fn cache_bytes(graph: &Graph) -> u64 {
    graph.nodes() * ENTRY as u64
}

/// The digest of all parents of `graph`; `store` gets every block and its offset, in any order.
fn make_digest(
    graph: &Graph,
    watch: Watch<'_>,
    store: impl Fn(u64, &[u8]) -> Result<(), SdrError> + Sync,
) -> Result<String, SdrError> {
    let makers = std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(MAX_MAKERS));
    let generator = Generator::new(graph);
    digest(graph, Part::MakeParents, makers, watch, |offset, block| {
        let first = u32::try_from(offset / ENTRY as u64).expect("nodes are below 2^32");
        generator.write(first, block);
        store(offset, block)
    })
}

/// The digest of what `fill` puts into the block at each offset of the cache.
fn digest(
    graph: &Graph,
    part: Part,
    workers: usize,
    watch: Watch<'_>,
    fill: impl Fn(u64, &mut [u8]) -> Result<(), SdrError> + Sync,
) -> Result<String, SdrError> {
    let nodes = graph.nodes();
    let first_of = |number: u64| number * BLOCK_NODES;
    let stop = || if (watch.cancelled)() { Err(SdrError::Cancelled) } else { Ok(()) };
    let mut digest = Sha256::new();
    in_order(
        nodes.div_ceil(BLOCK_NODES),
        workers,
        |number, block| {
            stop()?;
            let first = first_of(number);
            let count = BLOCK_NODES.min(nodes - first);
            block.resize(count as usize * ENTRY, 0);
            fill(first * ENTRY as u64, block)
        },
        |number, block| {
            stop()?;
            digest.update(block);
            (watch.progress)(part, nodes.min(first_of(number + 1)), nodes);
            Ok(())
        },
    )?;
    Ok(hex::encode(digest.finalize()))
}

/// Which file lies at `path`, and its state: changes when a cache is made.
fn identity(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(|meta| identity_of(&meta))
}

fn identity_of(meta: &fs::Metadata) -> Identity {
    (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec())
}

/// Waits while another process makes the cache: `filecoin-proofs` gives the file its name first
/// and holds an exclusive lock until it is complete. Only a shared lock is ever taken here, and
/// only for a moment.
fn wait_until_made(file: &fs::File, path: &Path, watch: Watch<'_>) -> Result<(), SdrError> {
    if wait_for_lock(path, watch, || file.try_lock_shared())? {
        file.unlock().map_err(FileError::of("unlock", path))?;
    }
    Ok(())
}

/// Waits until nobody else makes a cache in `directory`: two makers of one cache would write the
/// same temporary, and one could give its name to what the other has only begun. The lock is on
/// the directory itself, so that it leaves no file behind; it is released with the result.
fn wait_to_make(directory: &Path, watch: Watch<'_>) -> Result<fs::File, SdrError> {
    let file = seal_host::open_read(directory)?;
    wait_for_lock(directory, watch, || file.try_lock())?;
    Ok(file)
}

/// Tries until the lock is had. `false` on a file system without locks, where there is nothing to
/// wait for.
fn wait_for_lock(
    path: &Path,
    watch: Watch<'_>,
    try_lock: impl Fn() -> Result<(), TryLockError>,
) -> Result<bool, SdrError> {
    let mut told = None;
    loop {
        match try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                tracing::debug!(path = %path.display(), %error, "no lock for the parents cache");
                return Ok(false);
            }
        }
        if (watch.cancelled)() {
            return Err(SdrError::Cancelled);
        }
        if told.is_none_or(|at: Instant| at.elapsed() > Duration::from_secs(60)) {
            tracing::info!(path = %path.display(), "waiting: another process makes the parents cache");
            told = Some(Instant::now());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seal_types::RegisteredProof;

    const QUIET: Watch<'static> = Watch { progress: &|_, _, _| {}, cancelled: &|| false };

    fn graph(name: &str) -> Graph {
        Graph::new(&name.parse::<RegisteredProof>().expect("a registered proof").porep())
    }

    fn cache_path(graph: &Graph, dir: &Path) -> PathBuf {
        dir.join(graph.cache_name() + ".cache")
    }

    #[test]
    fn published_digests_are_reproduced() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in
            ["StackedDrg2KiBV1", "StackedDrg2KiBV1_1", "StackedDrg8MiBV1", "StackedDrg8MiBV1_1"]
        {
            // `open` fails when the digest is not the published one.
            let graph = graph(name);
            ParentsCache::open(&graph, dir.path(), QUIET).expect(name);
            let stamp = Stamp::read(&cache_path(&graph, dir.path())).expect("stamped");
            let published = parents_cache_digest(&graph.cache_name()).expect("published");
            assert_eq!(stamp.sha256, published.sha256);
        }
    }

    #[test]
    fn published_names_are_those_of_the_graphs_they_are_said_to_be_of() {
        for published in seal_types::published_parents_caches() {
            let (size, api) = (published.sector_size, published.api_version);
            let proof =
                seal_types::RegisteredProof::find(size, api, seal_types::Feature::Interactive);
            let graph = Graph::new(&proof.expect("registered").porep());
            assert_eq!(graph.cache_name(), published.name, "{size} {api:?}");
        }
    }

    #[test]
    fn a_damaged_cache_is_made_again_whatever_its_length() {
        for name in ["StackedDrg2KiBV1_1", "StackedDrg2KiBV1_1_Feat_SyntheticPoRep"] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let graph = graph(name);
            let path = cache_path(&graph, dir.path());
            ParentsCache::open(&graph, dir.path(), QUIET).expect("writable");
            let good = fs::read(&path).expect("readable");

            let mut flipped = good.clone();
            flipped[37 * ENTRY + 5] ^= 1;
            for bad in [&good[..good.len() - 4], &flipped, &[]] {
                fs::write(&path, bad).expect("writable");
                ParentsCache::open(&graph, dir.path(), QUIET).expect("made again");
                assert_eq!(fs::read(&path).expect("readable"), good, "{name}");
            }
        }
    }

    #[test]
    fn damage_that_leaves_the_stamp_valid_is_found_when_asked_for() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let graph = graph("StackedDrg2KiBV1_1");
        let path = cache_path(&graph, dir.path());
        ParentsCache::open(&graph, dir.path(), QUIET).expect("writable");
        let good = fs::read(&path).expect("readable");
        let file = fs::File::options().write(true).open(&path).expect("writable");
        let modified = file.metadata().and_then(|meta| meta.modified()).expect("readable");
        file.write_all_at(&[good[700] ^ 4], 700).expect("writable");
        file.set_modified(modified).expect("writable");

        let trusted = ParentsCache::open(&graph, dir.path(), QUIET).expect("stamped");
        assert_ne!(fs::read(&path).expect("readable"), good);
        let checked = ParentsCache::check(&graph, dir.path(), QUIET).expect("made again");
        assert_eq!(fs::read(&path).expect("readable"), good);
        assert_eq!(trusted.sha256(), checked.sha256());
        assert_eq!(checked.path(), path);
    }

    #[test]
    fn parents_that_are_not_the_published_ones_get_no_name() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let spoilt = graph("StackedDrg8MiBV1_1").spoilt();
        for error in [
            ParentsCache::open(&spoilt, dir.path(), QUIET).unwrap_err(),
            parents_digest(&spoilt, QUIET).unwrap_err(),
        ] {
            assert!(matches!(error, SdrError::WrongParents { .. }), "{error}");
            assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
        }
    }

    #[test]
    fn the_digest_alone_is_that_of_the_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in ["StackedDrg2KiBV1_1", "StackedDrg8MiBV1_2_Feat_NonInteractivePoRep"] {
            let graph = graph(name);
            let cache = ParentsCache::open(&graph, dir.path(), QUIET).expect("writable");
            let file = fs::read(cache.path()).expect("readable");
            assert_eq!(hex::encode(Sha256::digest(file)), cache.sha256(), "{name}");
            for kernel in seal_sha256::ChaCha8::available() {
                let graph = graph.clone().drawing_with(kernel);
                assert_eq!(parents_digest(&graph, QUIET).expect(name), cache.sha256(), "{name}");
            }
        }
    }

    #[test]
    fn a_stamp_is_worth_nothing_for_another_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let graph = graph("StackedDrg2KiBV1");
        let path = cache_path(&graph, dir.path());
        ParentsCache::open(&graph, dir.path(), QUIET).expect("writable");
        let first = Stamp::read(&path).expect("stamped");
        let copy = fs::read(&path).expect("readable");
        fs::remove_file(&path).expect("writable");
        fs::write(&path, copy).expect("writable");
        ParentsCache::open(&graph, dir.path(), QUIET).expect("checked again");
        let second = Stamp::read(&path).expect("stamped");
        assert_ne!(first, second);
        assert_eq!(first.sha256, second.sha256);
    }

    #[test]
    fn waits_while_another_process_makes_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let graph = graph("StackedDrg2KiBV1");
        let path = cache_path(&graph, dir.path());
        ParentsCache::open(&graph, dir.path(), QUIET).expect("writable");
        let maker = fs::File::open(&path).expect("readable");
        maker.lock().expect("lockable");
        // The lock stays, so only the cancellation can end the wait.
        let asked = std::sync::atomic::AtomicU32::new(0);
        let give_up = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 1;
        let watch = Watch { cancelled: &give_up, ..QUIET };
        let error = ParentsCache::open(&graph, dir.path(), watch).unwrap_err();
        assert!(matches!(error, SdrError::Cancelled), "{error}");
        maker.unlock().expect("unlockable");
        ParentsCache::open(&graph, dir.path(), QUIET).expect("made");
    }

    #[test]
    fn many_who_want_the_same_cache_at_once_all_get_it() {
        let graph = graph("StackedDrg2KiBV1_1");
        for _ in 0..20 {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let gate = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        gate.wait();
                        ParentsCache::open(&graph, dir.path(), QUIET).expect("made once");
                    });
                }
            });
            // The cache and its stamp.
            assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 2);
        }
    }

    #[test]
    fn a_cancelled_making_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let watch = Watch { cancelled: &|| true, ..QUIET };
        let error = ParentsCache::open(&graph("StackedDrg8MiBV1"), dir.path(), watch).unwrap_err();
        assert!(matches!(error, SdrError::Cancelled), "{error}");
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
    }

    #[test]
    fn the_directory_is_found_as_other_software_finds_it() {
        let with = |set: &[(&str, &str)]| {
            cache_directory(|name| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(with(&[]), Path::new("/var/tmp/filecoin-parents"));
        assert_eq!(with(&[("FIL_PROOFS_CACHE_DIR", "/d/")]), Path::new("/d/filecoin-parents"));
        let both = [("FIL_PROOFS_PARENT_CACHE", "/p"), ("FIL_PROOFS_CACHE_DIR", "/d/")];
        assert_eq!(with(&both), Path::new("/p"));
    }
}
