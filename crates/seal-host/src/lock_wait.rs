//! Waiting for a lock whose holder is expected to end.
//!
//! Whoever restarts a worker, a supervisor or an executor has two processes for a while: the new
//! one, and the old one on its way to a checkpoint. What the old one has locked is free in a moment,
//! and to refuse a task for that would stop its sector until somebody looks after it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a process that was told to end may keep a lock: an
/// executor ends its tasks, or itself, within its grace of ten seconds, but the kernel may have much
/// to bring to disk for it first.
pub const ENDING_TAKES: Duration = Duration::from_secs(120);

/// The pause between two tries.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// How often the log tells that it is still waited.
const TELL_AGAIN: Duration = Duration::from_secs(30);

/// Who has a lock, as far as the kernel tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockHolder {
    /// Its process.
    pub pid: u32,
    /// The name of its program.
    pub program: String,
}

impl std::fmt::Display for LockHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, pid {}", self.program, self.pid)
    }
}

/// A wait for a lock.
#[derive(Clone, Debug)]
pub struct LockWait {
    /// Who has it; `None` where the kernel does not tell, as of other pid namespaces.
    pub holder: Option<LockHolder>,
    /// How long it has been waited for.
    pub waited: Duration,
    /// How long it is waited for at most.
    pub longest: Duration,
}

/// Who has the file or directory at `path` locked as a whole, as far as the kernel tells.
pub fn lock_holder(path: &Path) -> Option<LockHolder> {
    holder_of(Path::new("/proc"), path)
}

/// Takes the lock of the file or directory `path` by `take`, again and again for at most `longest`
/// while it fails because somebody has it (`is_busy`). `goes_on` is told of the wait and says
/// whether it is still wanted; if not, the last failure is returned.
///
/// What another task of this very process has is not waited for: that one is not ending.
pub fn take_patiently<T, E>(
    path: &Path,
    longest: Duration,
    take: impl FnMut() -> Result<T, E>,
    is_busy: impl Fn(&E) -> bool,
    goes_on: impl FnMut(&LockWait) -> bool,
) -> Result<T, E> {
    let is_own = |wait: &LockWait| wait.pid() == std::process::id();
    wait_for(path, longest, take, is_busy, || (), is_own, goes_on)
}

/// As [`take_patiently`], for a lock whose holder works and is not ending: `longest` is how long
/// `state`, which shows that work, may stay the same. Another task of this process is waited for too.
pub fn take_while_it_moves<T, E, S: PartialEq>(
    path: &Path,
    longest: Duration,
    take: impl FnMut() -> Result<T, E>,
    is_busy: impl Fn(&E) -> bool,
    state: impl FnMut() -> S,
    goes_on: impl FnMut(&LockWait) -> bool,
) -> Result<T, E> {
    wait_for(path, longest, take, is_busy, state, |_| false, goes_on)
}

fn wait_for<T, E, S: PartialEq>(
    path: &Path,
    longest: Duration,
    mut take: impl FnMut() -> Result<T, E>,
    is_busy: impl Fn(&E) -> bool,
    mut state: impl FnMut() -> S,
    is_refused: impl Fn(&LockWait) -> bool,
    mut goes_on: impl FnMut(&LockWait) -> bool,
) -> Result<T, E> {
    let began = Instant::now();
    let mut tell_at = Duration::ZERO;
    let (mut seen, mut moved) = (None, began);
    loop {
        let error = match take() {
            Err(error) if is_busy(&error) => error,
            taken => return taken,
        };
        let now = Some(state());
        if now != seen {
            (seen, moved) = (now, Instant::now());
        }
        let waited = began.elapsed();
        let wait = LockWait { holder: lock_holder(path), waited, longest };
        if is_refused(&wait) || moved.elapsed() >= longest {
            return Err(error);
        }
        if waited >= tell_at {
            tell_at = waited + TELL_AGAIN;
            tracing::info!(
                path = %path.display(),
                holder = wait.holder.as_ref().map(ToString::to_string),
                longest_s = longest.as_secs(),
                "waiting for another process, which works there"
            );
        }
        if !goes_on(&wait) {
            return Err(error);
        }
        std::thread::sleep(TRY_AGAIN);
    }
}

impl LockWait {
    /// The process that is waited for; 0 where the kernel does not tell.
    pub fn pid(&self) -> u32 {
        self.holder.as_ref().map_or(0, |holder| holder.pid)
    }
}

/// Who has a whole file or directory locked (flock). `proc_root` is `/proc`.
fn holder_of(proc_root: &Path, path: &Path) -> Option<LockHolder> {
    let meta = fs::metadata(path).ok()?;
    let locks = fs::read_to_string(proc_root.join("locks")).ok()?;
    let (major, minor) = (libc::major(meta.dev()), libc::minor(meta.dev()));
    let pid = holder_in(&locks, &format!("{major:02x}:{minor:02x}"), meta.ino())?;
    let program = fs::read_to_string(proc_root.join(format!("{pid}/comm"))).ok()?;
    Some(LockHolder { pid, program: program.trim_end().to_owned() })
}

/// The process in `/proc/locks`. Some file systems (btrfs, overlays) have another device there than
/// in stat(2): then the number of the file must do, if only one lock has it.
fn holder_in(locks: &str, device: &str, inode: u64) -> Option<u32> {
    let found = locks.lines().filter_map(|line| {
        // `1: FLOCK  ADVISORY  WRITE 4711 08:02:131 0 EOF`; who waits has `->` after the number.
        let mut fields = line.split_ascii_whitespace().skip(1);
        let kind = fields.next().filter(|kind| *kind == "FLOCK");
        let pid = kind.and_then(|_| fields.nth(2)?.parse::<u32>().ok())?;
        let (of, number) = fields.next()?.rsplit_once(':')?;
        (number.parse() == Ok(inode)).then_some((of, pid))
    });
    let found: Vec<_> = found.collect();
    let exact = found.iter().find(|(of, _)| *of == device);
    let only = found.first().filter(|_| found.len() == 1);
    exact.or(only).map(|(_, pid)| *pid).filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use std::fs::{File, TryLockError};
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;

    #[test]
    fn the_holder_is_found_by_device_and_number() {
        let locks = "1: POSIX  ADVISORY  WRITE 5 08:02:131 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 6 08:02:131 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 7 08:02:131 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 8 00:1f:131 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 9 00:1f:132 0 EOF\n\
                     5: FLOCK  ADVISORY  WRITE -1 00:1f:133 0 EOF\n";
        for (device, inode, pid) in [
            ("08:02", 131, Some(6)),
            ("00:1f", 131, Some(8)),
            ("00:20", 131, None),
            ("00:20", 132, Some(9)),
            ("00:1f", 133, None),
            ("08:02", 1, None),
        ] {
            assert_eq!(holder_in(locks, device, inode), pid, "{device}:{inode}");
        }
    }

    fn try_lock(dir: &Path) -> Result<File, TryLockError> {
        let file = File::open(dir).expect("there");
        file.try_lock().map(|()| file)
    }

    /// Another process that has the lock until its input ends.
    fn holder(dir: &Path) -> Child {
        let mut holder = Command::new("flock")
            .arg(dir)
            .args(["-c", "echo; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut line = String::new();
        let output = holder.stdout.as_mut().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("it has the lock");
        holder
    }

    fn is_busy(error: &TryLockError) -> bool {
        matches!(error, TryLockError::WouldBlock)
    }

    #[test]
    fn what_another_process_has_is_waited_for_until_it_ends() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut holder = holder(dir.path());
        // Told to stop waiting, it stops.
        let refused =
            take_patiently(dir.path(), ENDING_TAKES, || try_lock(dir.path()), is_busy, |_| false);
        assert!(refused.is_err_and(|error| is_busy(&error)));
        let mut waits = 0;
        let taken = take_patiently(
            dir.path(),
            ENDING_TAKES,
            || try_lock(dir.path()),
            is_busy,
            |wait| {
                if let Some(found) = &wait.holder {
                    assert_eq!((found.program.as_str(), found.pid), ("flock", holder.id()));
                }
                waits += 1;
                // The end of its input ends it.
                drop(holder.stdin.take());
                true
            },
        );
        taken.expect("it has ended");
        assert!(waits > 0);
        assert!(holder.wait().expect("ours").success());
    }

    #[test]
    fn a_holder_that_works_is_waited_for_and_one_that_does_nothing_is_not() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut holder = holder(dir.path());
        let (path, longest) = (dir.path(), Duration::from_millis(250));
        // It moves for a while that is longer than it may stand still.
        let mut moves = 0;
        let state = || {
            moves = 8.min(moves + 1);
            moves
        };
        let began = Instant::now();
        let take = || try_lock(path);
        let refused = take_while_it_moves(path, longest, take, is_busy, state, |_| true);
        assert!(refused.is_err_and(|error| is_busy(&error)));
        assert!(began.elapsed() >= longest + 7 * TRY_AGAIN, "{:?}", began.elapsed());
        drop(holder.stdin.take());
        assert!(holder.wait().expect("ours").success());
    }

    #[test]
    fn what_this_process_has_is_not_waited_for() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let _held = try_lock(dir.path()).expect("free");
        if lock_holder(dir.path()).is_none() {
            // The kernel hides its locks here, or the file system is another one to it.
            return;
        }
        let taken = take_patiently(
            dir.path(),
            ENDING_TAKES,
            || try_lock(dir.path()),
            is_busy,
            |wait| panic!("waited: {wait:?}"),
        );
        assert!(taken.is_err());
    }
}
