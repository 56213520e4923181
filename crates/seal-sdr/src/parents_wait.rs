//! Waiting for a parents cache that somebody else makes.
//!
//! Whoever may read a file can lock it and keep it locked, stopped or on purpose. So a lock is waited
//! for as long as something moves where its holder works, and no longer: a cache is judged by its
//! digest and made under a name of its own, so that without the lock nothing is lost but work that is
//! done twice.

use std::fs::{self, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use seal_host::{FileError, lock_holder, parent_of};

use crate::generate::ENTRY;
use crate::{Graph, Part, SdrError, Watch};

/// How long nothing may move. A maker that has written everything may have 50 GiB to bring to disk,
/// and a digest to compute over them.
pub(crate) const STILL: Duration = Duration::from_secs(15 * 60);

/// The pause between two tries.
const TRY_AGAIN: Duration = Duration::from_millis(200);
/// How often it is looked who is waited for.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How often the log tells of it.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    /// The lock is had.
    Locked,
    /// The file system has no locks, and there is nothing to wait for.
    NoLocks,
    /// Whoever has it does nothing.
    Still,
}

/// Waits while another process makes the cache: `filecoin-proofs` gives the file its name first
/// and holds an exclusive lock until it is complete. Only a shared lock is ever taken here, and
/// only for a moment.
pub(crate) fn wait_until_made(
    file: &fs::File,
    path: &Path,
    graph: &Graph,
    still: Duration,
    watch: Watch<'_>,
) -> Result<(), SdrError> {
    let waited = wait_for_lock(path, path, graph, still, watch, || file.try_lock_shared())?;
    if waited == Waited::Locked {
        file.unlock().map_err(FileError::of("unlock", path))?;
    }
    Ok(())
}

/// Waits until nobody else makes a cache in `directory`, that of `path`: two makers of one cache would
/// do the same work twice. The lock is on the directory itself, so that it leaves no file behind; it
/// is released with the result.
pub(crate) fn wait_to_make(
    directory: fs::File,
    path: &Path,
    graph: &Graph,
    still: Duration,
    watch: Watch<'_>,
) -> Result<fs::File, SdrError> {
    wait_for_lock(parent_of(path), path, graph, still, watch, || directory.try_lock())?;
    Ok(directory)
}

/// Tries until the lock on `path` is had, for the cache `wanted` of `graph`.
fn wait_for_lock(
    path: &Path,
    wanted: &Path,
    graph: &Graph,
    still: Duration,
    watch: Watch<'_>,
    try_lock: impl Fn() -> Result<(), TryLockError>,
) -> Result<Waited, SdrError> {
    let began = Instant::now();
    let mut told: Option<Instant> = None;
    let mut looked: Option<Instant> = None;
    let mut holder = None;
    let mut seen = (None, there(wanted));
    let mut moved = began;
    loop {
        match try_lock() {
            Ok(()) => {
                if told.is_some() {
                    let nodes = graph.nodes();
                    (watch.progress)(Part::AwaitParents { pid: 0 }, nodes, nodes);
                }
                return Ok(Waited::Locked);
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                tracing::debug!(path = %path.display(), %error, "no lock for the parents cache");
                return Ok(Waited::NoLocks);
            }
        }
        if (watch.cancelled)() {
            return Err(SdrError::Cancelled);
        }
        if looked.is_none_or(|at| at.elapsed() > LOOK_AGAIN) {
            holder = lock_holder(path);
            looked = Some(Instant::now());
        }
        let pid = holder.as_ref().map(|holder| holder.pid);
        // Whom nobody can tell just now is no news.
        let now = (pid.or(seen.0), there(wanted));
        if now != seen {
            (seen, moved) = (now, Instant::now());
        }
        let who = holder.as_ref().map_or("another process".to_owned(), ToString::to_string);
        if moved.elapsed() >= still {
            tracing::warn!(
                "{who} has locked {} for {} s without making the parents cache; going on without \
                 that lock. End that process if it should not be there",
                path.display(),
                began.elapsed().as_secs()
            );
            (watch.progress)(Part::AwaitParents { pid: 0 }, graph.nodes(), graph.nodes());
            return Ok(Waited::Still);
        }
        if told.is_none_or(|at| at.elapsed() > TELL_AGAIN) {
            tracing::info!(
                path = %path.display(), holder = who, longest_still_s = still.as_secs(),
                "waiting: another one makes the parents cache"
            );
            told = Some(Instant::now());
        }
        let pid = pid.unwrap_or(0);
        (watch.progress)(Part::AwaitParents { pid }, seen.1.nodes(graph), graph.nodes());
        std::thread::sleep(TRY_AGAIN);
    }
}

/// What another one has made of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
struct There {
    /// Number, length, blocks and times of the last change of each file.
    files: Vec<(u64, u64, u64, i64, i64)>,
    /// The length of the longest temporary.
    longest: u64,
}

impl There {
    /// Of how many nodes the parents are written: never all, for the maker has more to do then.
    fn nodes(&self, graph: &Graph) -> u64 {
        (self.longest / ENTRY as u64).min(graph.nodes() - 1)
    }
}

/// What there is of the cache `wanted`: under its name, where `filecoin-proofs` makes it, or under
/// temporary ones.
fn there(wanted: &Path) -> There {
    let mut there = There { files: Vec::new(), longest: 0 };
    let Some(wanted_name) = wanted.file_name().and_then(|name| name.to_str()) else { return there };
    let begin = format!(".{wanted_name}.");
    for entry in fs::read_dir(parent_of(wanted)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_part = name.starts_with(&begin) && name.ends_with("part");
        let Ok(meta) = entry.metadata() else { continue };
        if is_part || name == wanted_name {
            let times = (meta.mtime(), meta.mtime_nsec());
            there.files.push((meta.ino(), meta.len(), meta.blocks(), times.0, times.1));
        }
        if is_part {
            there.longest = there.longest.max(meta.len());
        }
    }
    there.files.sort_unstable();
    there
}
