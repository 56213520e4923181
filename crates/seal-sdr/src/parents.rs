//! The parents cache: the 14 parents of every node in order, as little-endian u32.
//!
//! Computing parents costs more than labelling, and all sectors of a registered proof share
//! them, so they are kept in a file under the name that other software uses too.
//!
//! A cache is never trusted by its length alone: one wrong parent spoils every sector made with
//! it. A published digest decides where there is one; where there is none, sampled nodes are
//! compared with the graph. Either is done once and remembered by a stamp.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rayon::prelude::*;
use seal_host::{FileError, PartFile, ReadMap, SpaceWanted, parent_of, reserve_space};
use seal_types::parents_cache_digest;
use sha2::{Digest, Sha256};

use crate::generate::{ENTRY, Generator};
use crate::in_order::in_order;
use crate::parents_wait::{STILL, wait_to_make, wait_until_made};
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
    /// Somebody has found something in it that its graph does not have.
    distrusted: AtomicBool,
}

/// Device, inode, length and times of the last changes of a file.
type Identity = (u64, u64, u64, [(i64, i64); 2]);

/// Whether a cache that has a stamp is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Once,
    Again,
}

impl ParentsCache {
    /// Opens the cache of `graph` in `directory`, or makes it if it is not there or not right.
    pub fn open(graph: &Graph, directory: &Path, watch: Watch<'_>) -> Result<Self, SdrError> {
        Self::open_or_make(graph, directory, Check::Once, STILL, watch)
    }

    /// As [`ParentsCache::open`], but a cache that was checked before is hashed again.
    pub fn check(graph: &Graph, directory: &Path, watch: Watch<'_>) -> Result<Self, SdrError> {
        Self::open_or_make(graph, directory, Check::Again, STILL, watch)
    }

    /// Whoever else has it locked is waited for until nothing has moved there for `still`.
    fn open_or_make(
        graph: &Graph,
        directory: &Path,
        check: Check,
        still: Duration,
        watch: Watch<'_>,
    ) -> Result<Self, SdrError> {
        let path = Self::path_in(directory, graph);
        let no_directory = |source| SdrError::ParentsDirectory { path: path.clone(), source };
        let created = fs::create_dir_all(directory).map_err(FileError::of("create", directory));
        created.map_err(no_directory)?;
        let seen = identity(&path);
        if let Some(cache) = Self::open_existing(graph, &path, check, still, watch)? {
            return Ok(cache);
        }
        let opened = seal_host::open_dir(directory).map_err(no_directory)?;
        let _sole_maker = wait_to_make(opened, &path, graph, still, watch)?;
        if identity(&path) != seen
            && let Some(cache) = Self::open_existing(graph, &path, check, still, watch)?
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

    /// Whether the file under its name is still the one that is mapped, unchanged, and nobody has
    /// found anything wrong with it.
    pub(crate) fn is_in_place(&self) -> bool {
        !self.is_failed() && self.identity.is_some() && identity(self.path()) == self.identity
    }

    fn is_failed(&self) -> bool {
        self.map.is_failed() || self.distrusted.load(Ordering::Acquire)
    }

    /// Whether the parents that were read so far are those of the file as it was checked: to be
    /// asked before a label computed from them is believed.
    ///
    /// # Errors
    /// Tells what became of the file.
    pub(crate) fn check_map(&self) -> Result<(), SdrError> {
        self.map.check().map_err(SdrError::ParentsMap)?;
        if self.distrusted.load(Ordering::Acquire) {
            return Err(SdrError::DistrustedParents { path: self.path().to_path_buf() });
        }
        Ok(())
    }

    /// It is not what its digest promised: nobody uses it any more, and the file under its name is
    /// hashed before it is used again.
    pub(crate) fn distrust(&self) {
        if !self.distrusted.swap(true, Ordering::AcqRel) {
            Stamp::remove_or_warn(self.path());
        }
    }

    /// What is wrong with the parents of `node`, if they are not those of the graph.
    pub(crate) fn compare(&self, graph: &Graph, node: u64) -> Result<(), SdrError> {
        let number = u32::try_from(node).expect("nodes are below 2^32");
        let (here, right) = (self.parents(number as usize), graph.parents(number));
        let Some(index) = (0..PARENTS).find(|index| here[*index] != right[*index]) else {
            return Ok(());
        };
        let wrong = format!("where the graph has {}", right[index]);
        let path = self.path().to_path_buf();
        Err(SdrError::BadParent { path, node, index, found: here[index], wrong })
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
        still: Duration,
        watch: Watch<'_>,
    ) -> Result<Option<Self>, SdrError> {
        let file = match seal_host::open_input(path) {
            Ok(file) => file,
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(SdrError::ParentsFile { path: path.to_path_buf(), source });
            }
        };
        let published = published_digest(graph);
        let known = || -> Result<Option<Stamp>, SdrError> {
            let stamp = Stamp::read(path).filter(|_| check == Check::Once);
            let Some(stamp) = stamp else { return Ok(None) };
            let current = Stamp::of(&file, path, stamp.sha256.clone())?;
            let good = current == stamp && published.is_none_or(|digest| digest == stamp.sha256);
            Ok(good.then_some(stamp))
        };
        // What was checked and has not changed is good, whoever has locked it for whatever reason.
        if known()?.is_none() {
            wait_until_made(&file, path, graph, still, watch)?;
        }

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
        if let Some(stamp) = known()? {
            return Ok(Some(Self::new(map, stamp.sha256, identity)));
        }

        tracing::info!(path = %path.display(), "checking the parents cache");
        let mut stamp = Stamp::of(&file, path, String::new())?;
        let found = digest(graph, Part::CheckParents, READERS, watch, |offset, block| {
            Ok(file.read_exact_at(block, offset).map_err(FileError::of("read", path))?)
        })?;
        let cache = Self::new(map, found.clone(), identity);
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
        let directory = parent_of(path);
        // Before the look at the free space: it takes the place of what a killed maker has left.
        let part = PartFile::create(path)
            .map_err(|source| SdrError::ParentsDirectory { path: path.to_path_buf(), source })?;
        let who = format!("the parents cache {}", path.display());
        let _reserved = reserve_space(SpaceWanted {
            who: &who,
            on: directory,
            bytes: cache_bytes(graph),
            freed: 0,
            grows: &[path],
        })?;
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
        (watch.progress)(Part::StoreParents, 0, 1);
        // Some nodes of what other processes will read, computed in the other way.
        let map = ReadMap::of_file(part.file(), part.part_path())?;
        let made = Self::new(map, found.clone(), None);
        if !made.samples_agree(graph) {
            // Somebody else's hand in it is no fault of this machine.
            made.check_map()?;
            return Err(wrong("that of the graph", &found));
        }
        part.finish()?;
        (watch.progress)(Part::StoreParents, 1, 1);

        let file = seal_host::open_input(path)?;
        Stamp::of(&file, path, found.clone())?.write_or_warn(path);
        let identity = file.metadata().ok().map(|meta| identity_of(&meta));
        Ok(Self::new(ReadMap::of_file(&file, path)?, found, identity))
    }

    fn new(map: ReadMap, sha256: String, identity: Option<Identity>) -> Self {
        Self { map, sha256, identity, distrusted: AtomicBool::new(false) }
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
    let times = [(meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec())];
    (meta.dev(), meta.ino(), meta.len(), times)
}

#[cfg(test)]
mod tests;
