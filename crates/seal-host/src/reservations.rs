//! Disk space that running tasks will still write, so that two that begin together do not both find
//! it free and both fail hours later.
//!
//! Each task of a process has a file in the runtime directory while it runs, and holds a lock on
//! it, which the kernel releases when the process dies: a file that is not locked reserves nothing
//! and is removed. What a task has written since is seen by whoever looks, in the space that its
//! files take now, so that nobody has to keep count. A reservation holds on when the runtime
//! directory is removed ([`crate::kept`]).

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::kept::{self, Kept};
use crate::paths::is_in_place;
use crate::{FileError, Mutex as FileMutex, RuntimeDir, SpaceError, free_bytes};

/// The same where it is tried again soon.
const AT_ONCE: Duration = Duration::from_millis(20);

/// How long another process may take to look through all reservations.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of a block in what the kernel says of a file (stat(2)).
const STAT_BLOCK: u64 = 512;

/// The reservations of this machine, once a process takes part in them.
static SHARED: OnceLock<Reservations> = OnceLock::new();

/// What a task will write.
#[derive(Clone, Copy, Debug)]
pub struct SpaceWanted<'a> {
    /// The task, as others are told of it: `PC1 in /cache/s-t01000-1`.
    pub who: &'a str,
    /// A directory or file on the file system.
    pub on: &'a Path,
    /// How many bytes it will take there.
    pub bytes: u64,
    /// How many bytes there it removes before that, whether they are in `grows` or not.
    pub freed: u64,
    /// Where that appears: directories, whose files count, and files, which count under temporary
    /// names too.
    pub grows: &'a [&'a Path],
}

/// The reservations of all processes that share a directory.
#[derive(Clone, Debug)]
pub struct Reservations {
    dir: PathBuf,
}

/// Space that is a task's until this is dropped.
#[derive(Debug)]
#[must_use = "the reservation ends when this is dropped"]
pub struct SpaceReserved {
    /// None where nothing is shared.
    held: Option<Arc<Record>>,
}

/// A recorded reservation.
#[derive(Debug)]
struct Record {
    among: Reservations,
    device: u64,
    text: Vec<u8>,
    /// The file and its lock, until it is given up.
    file: Mutex<Option<(PathBuf, File)>>,
}

/// What another task has reserved.
#[derive(Debug)]
struct Other {
    who: String,
    left: u64,
}

/// Takes part in the reservations of all processes that use this runtime directory. Before that,
/// [`reserve_space`] only looks at what is free.
pub fn share_disk_space(runtime_dir: &RuntimeDir) {
    // A second call names the same directory: there is one for a process.
    let _ = SHARED.set(Reservations::in_dir(runtime_dir));
}

/// Checks that there is space beside what other tasks will still write, and keeps it for this one.
pub fn reserve_space(wanted: SpaceWanted<'_>) -> Result<SpaceReserved, SpaceError> {
    match SHARED.get() {
        Some(reservations) => reservations.reserve(wanted),
        None => {
            crate::require_free(wanted.on, wanted.bytes.saturating_sub(wanted.freed))?;
            Ok(SpaceReserved { held: None })
        }
    }
}

impl Reservations {
    /// Those in this runtime directory.
    pub fn in_dir(runtime_dir: &RuntimeDir) -> Self {
        Self { dir: runtime_dir.path().join("disk-space") }
    }

    /// Checks that there is space beside what other tasks will still write, and keeps it.
    pub fn reserve(&self, wanted: SpaceWanted<'_>) -> Result<SpaceReserved, SpaceError> {
        let SpaceWanted { on, bytes, freed, .. } = wanted;
        let device = on.metadata().map_err(FileError::of("examine", on))?.dev();
        // Without a directory for it, what is free is still looked at.
        let alone = |error: FileError| {
            tracing::warn!(
                "what this task will write is not reserved: {error}: {}; others may take the space",
                error.source
            );
            crate::require_free(on, bytes.saturating_sub(freed))?;
            Ok(SpaceReserved { held: None })
        };
        let taken = self.exclusively(|| {
            let others = self.others(device).map_err(Failed::Record)?;
            let free = free_bytes(on).map_err(|error| Failed::Space(error.into()))?;
            let reserved: u64 = others.iter().map(|other| other.left).sum();
            // Who takes no more than it gives back takes nothing from the others.
            if bytes > freed && free.saturating_add(freed) < bytes.saturating_add(reserved) {
                let (path, by) = (on.to_path_buf(), told(&others));
                let little = SpaceError::TooLittle { path, free, needed: bytes, reserved, by };
                return Err(Failed::Space(little));
            }
            let text = text_of(&wanted);
            let held = self.record(device, &text).map_err(Failed::Record)?;
            Ok((text, held))
        });
        let (text, held) = match taken {
            Ok(Ok(taken)) => taken,
            Ok(Err(Failed::Space(error))) => return Err(error),
            Ok(Err(Failed::Record(error))) | Err(error) => return alone(error),
        };
        let file = Mutex::new(Some(held));
        let held = Arc::new(Record { among: self.clone(), device, text, file });
        let weak: Weak<Record> = Arc::downgrade(&held);
        kept::keep(weak);
        Ok(SpaceReserved { held: Some(held) })
    }

    /// Does something while no other process looks or records.
    fn exclusively<T>(&self, act: impl FnOnce() -> T) -> Result<T, FileError> {
        let begin = Instant::now();
        loop {
            let lock = self.lock()?;
            let _guard = lock.lock(PATIENCE)?;
            // The directory may be removed while the lock is waited for.
            if lock.is_in_place() || begin.elapsed() > PATIENCE {
                return Ok(act());
            }
        }
    }

    fn lock(&self) -> Result<FileMutex, FileError> {
        let lock = self.open()?;
        kept::wait_for_keepers(&self.dir.join("lock"));
        Ok(lock)
    }

    fn open(&self) -> Result<FileMutex, FileError> {
        // The runtime directory may have been removed since it was opened.
        crate::remake(crate::parent_of(&self.dir))?;
        match fs::DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(FileError::of("create", &self.dir)(error));
            }
            _ => {}
        }
        FileMutex::open(&self.dir.join("lock"))
    }

    /// What living tasks have reserved on a device. What the dead have left is removed.
    fn others(&self, device: u64) -> Result<Vec<Other>, FileError> {
        let mut others = Vec::new();
        let prefix = format!("{device:x}-");
        for name in crate::read_dir_names(&self.dir)? {
            if !name.starts_with(&prefix) {
                continue;
            }
            let path = self.dir.join(name);
            let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path);
            let mut file = match opened {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(FileError::of("open", &path)(error)),
            };
            match file.try_lock_shared() {
                Ok(()) => crate::remove_if_there(&path)?,
                Err(fs::TryLockError::WouldBlock) => {
                    let mut text = Vec::new();
                    file.read_to_end(&mut text).map_err(FileError::of("read", &path))?;
                    others.extend(understand(&text));
                }
                Err(fs::TryLockError::Error(error)) => {
                    return Err(FileError::of("lock", &path)(error));
                }
            }
        }
        Ok(others)
    }

    fn record(&self, device: u64, text: &[u8]) -> Result<(PathBuf, File), FileError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            // Processes of several pid namespaces may have the same number.
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = self.dir.join(format!("{device:x}-{}-{number}", std::process::id()));
            let created =
                OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
            let mut file = match created {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(FileError::of("create", &path)(error)),
            };
            // Nobody looks before the mutex is free.
            let written = file.lock().and_then(|()| file.write_all(text));
            return match written {
                Ok(()) => Ok((path, file)),
                Err(error) => {
                    let _ = fs::remove_file(&path);
                    Err(FileError::of("write", &path)(error))
                }
            };
        }
    }
}

impl Drop for SpaceReserved {
    fn drop(&mut self) {
        if let Some((path, _lock)) = self.held.take().and_then(|held| held.file().take()) {
            // If it stays, it is without a lock from now on and counts for nothing.
            let _ = fs::remove_file(path);
        }
    }
}

impl Record {
    fn file(&self) -> MutexGuard<'_, Option<(PathBuf, File)>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept for Record {
    fn renew(&self) -> Result<(), FileError> {
        let mut held = self.file();
        if held.as_ref().is_none_or(|(path, file)| is_in_place(path, file)) {
            return Ok(());
        }
        // Others are waiting to be held again, and this one may be given up meanwhile: it is tried again
        // soon.
        let lock = self.among.open()?;
        let _guard = lock.lock(AT_ONCE)?;
        *held = Some(self.among.record(self.device, &self.text)?);
        Ok(())
    }
}

/// Why a reservation was not recorded.
enum Failed {
    Space(SpaceError),
    Record(FileError),
}

/// What is recorded of a task, see [`understand`].
fn text_of(wanted: &SpaceWanted<'_>) -> Vec<u8> {
    let SpaceWanted { who, bytes, grows, .. } = *wanted;
    let before: Vec<_> = there(grows).iter().map(ToString::to_string).collect();
    let before = before.join(" ");
    let mut text = format!("{bytes}\n{before}\n{}\n", who.replace('\n', " ")).into_bytes();
    for path in grows {
        text.extend_from_slice(path.as_os_str().as_bytes());
        text.push(0);
    }
    text
}

/// What a recorded task will still write.
fn understand(text: &[u8]) -> Option<Other> {
    let mut lines = text.splitn(4, |byte| *byte == b'\n');
    let mut line = || lines.next().map(|line| String::from_utf8_lossy(line).into_owned());
    let (bytes, before, who) = (line()?, line()?, line()?);
    let bytes: u64 = bytes.parse().ok()?;
    let before: Option<Vec<_>> = before.split_ascii_whitespace().map(Taken::parse).collect();
    let before = before?;
    let grows = lines.next()?.split(|byte| *byte == 0).filter(|path| !path.is_empty());
    let grows: Vec<_> =
        grows.map(|path| PathBuf::from(OsString::from_vec(path.to_vec()))).collect();
    let grows: Vec<&Path> = grows.iter().map(PathBuf::as_path).collect();
    let written = written(&before, &there(&grows));
    Some(Other { who, left: bytes.saturating_sub(written) })
}

/// A file, and the space that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taken {
    /// Its number and the time at which it was made, where the file system tells: numbers are used
    /// again.
    file: (u64, u64),
    bytes: u64,
}

impl std::fmt::Display for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.file.0, self.file.1, self.bytes)
    }
}

impl Taken {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(':').map(|number| number.parse::<u64>().ok());
        let mut number = || numbers.next().flatten();
        Some(Self { file: (number()?, number()?), bytes: number()? })
    }
}

/// How much of what is there now was not there before. A file that has gone was not written, and one
/// in its place is new whatever that one took.
fn written(before: &[Taken], now: &[Taken]) -> u64 {
    let grown = now.iter().map(|now| {
        let was = before.iter().find(|before| before.file == now.file);
        now.bytes.saturating_sub(was.map_or(0, |was| was.bytes))
    });
    grown.sum()
}

/// The files at `grows`, and the space that they take now. What cannot be seen takes none, so that
/// more is reserved than will be written rather than less.
fn there(grows: &[&Path]) -> Vec<Taken> {
    let mut seen = Vec::new();
    let mut files = Vec::new();
    for path in grows {
        let (dir, name) = match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => (*path, None),
            _ => (crate::parent_of(path), path.file_name()),
        };
        let Ok(entries) = fs::read_dir(dir) else { continue };
        for entry in entries.flatten() {
            let of_file = name.is_none_or(|name| is_of_file(&entry.file_name(), name));
            if let (true, Ok(meta)) = (of_file, entry.metadata())
                && meta.is_file()
                && !seen.contains(&(meta.dev(), meta.ino()))
            {
                seen.push((meta.dev(), meta.ino()));
                let made = meta.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
                let made = made.map_or(0, |at| u64::try_from(at.as_nanos()).unwrap_or(0));
                files.push(Taken { file: (meta.ino(), made), bytes: meta.blocks() * STAT_BLOCK });
            }
        }
    }
    files
}

/// Whether `entry` is the file `name`, or a temporary of it (`.NAME.part`).
fn is_of_file(entry: &OsStr, name: &OsStr) -> bool {
    let temporary = entry.as_bytes().strip_prefix(b".");
    let rest = temporary.and_then(|entry| entry.strip_prefix(name.as_bytes()));
    entry == name || rest.is_some_and(|rest| rest.starts_with(b"."))
}

/// Who reserves how much, as part of an error.
fn told(others: &[Other]) -> String {
    let who = others.iter().filter(|other| other.left > 0);
    let who: Vec<_> = who.map(|other| format!("{} by {}", other.left, other.who)).collect();
    if who.is_empty() {
        return String::new();
    }
    format!(
        ", of which running tasks have reserved what they will still write ({})",
        who.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene {
        dir: tempfile::TempDir,
    }

    impl Scene {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().expect("a temporary directory") }
        }

        /// As another process has them.
        fn reservations(&self) -> Reservations {
            Reservations::in_dir(&RuntimeDir::open(&self.dir.path().join("run")).expect("ours"))
        }

        fn cache(&self, name: &str) -> PathBuf {
            let path = self.dir.path().join(name);
            fs::create_dir_all(&path).expect("writable");
            path
        }

        fn reserve(&self, who: &str, bytes: u64, grows: &[&Path]) -> Result<SpaceReserved, String> {
            let wanted = SpaceWanted { who, on: self.dir.path(), bytes, freed: 0, grows };
            self.reservations().reserve(wanted).map_err(|error| error.to_string())
        }

        fn recorded(&self) -> usize {
            let names = crate::read_dir_names(&self.dir.path().join("run/disk-space"));
            names.map_or(0, |names| names.iter().filter(|name| *name != "lock").count())
        }
    }

    #[test]
    fn two_tasks_that_begin_together_do_not_both_get_the_same_space() {
        let scene = Scene::new();
        let (one, other) = (scene.cache("one"), scene.cache("other"));
        let free = free_bytes(scene.dir.path()).expect("a file system");
        let most = free / 4 * 3;
        let first = scene.reserve("PC1 in one", most, &[&one]).expect("it is free");
        let error = scene.reserve("PC1 in other", most, &[&other]).expect_err("it is taken");
        assert!(error.contains(&format!("({most} by PC1 in one)")), "{error}");
        assert!(error.contains(&format!("{most} are needed")), "{error}");
        let small = scene.reserve("PC1 in other", free / 100, &[&other]).expect("beside it");
        assert_eq!(scene.recorded(), 2);
        drop(first);
        scene.reserve("PC1 in other", most, &[&other]).map(drop).expect("it is free again");
        drop(small);
        assert_eq!(scene.recorded(), 0);
    }

    #[test]
    fn a_task_that_gives_back_what_it_takes_is_refused_for_nobody() {
        let scene = Scene::new();
        let free = free_bytes(scene.dir.path()).expect("a file system");
        let _most = scene.reserve("PC1 in one", free - free / 100, &[]).expect("it is free");
        scene.reserve("PC1 in other", free / 10, &[]).expect_err("it is taken");
        scene.reserve("PC1 in other", 0, &[]).map(drop).expect("it takes nothing");
        let (who, on) = ("PC1 in other", scene.dir.path());
        let wanted = SpaceWanted { who, on, bytes: free / 10, freed: free / 10, grows: &[] };
        scene.reservations().reserve(wanted).map(drop).expect("it makes room first");
    }

    #[test]
    fn what_has_been_written_is_not_reserved_any_more() {
        let scene = Scene::new();
        let (cache, out) = (scene.cache("cache"), scene.dir.path().join("sealed"));
        fs::write(cache.join("before"), vec![1; 1 << 20]).expect("writable");
        let wanted = [cache.as_path(), out.as_path()];
        let _held = scene.reserve("PC1 in cache", 4 << 20, &wanted).expect("it is free");
        let left = || {
            let device = scene.dir.path().metadata().expect("there").dev();
            let others = scene.reservations().others(device).expect("readable");
            others.iter().map(|other| other.left).sum::<u64>()
        };
        let write = |path: &Path, bytes: usize| {
            fs::write(path, vec![1; bytes]).expect("writable");
            File::open(path).and_then(|file| file.sync_all()).expect("a file");
        };
        assert_eq!(left(), 4 << 20, "what was there before was not written by it");
        write(&cache.join("layer-1"), 1 << 20);
        assert_eq!(left(), 3 << 20);
        write(&scene.dir.path().join(".sealed.17.part"), 1 << 20);
        write(&scene.dir.path().join("sealed-10"), 1 << 20);
        assert_eq!(left(), 2 << 20);
        write(&cache.join("layer-2"), 9 << 20);
        assert_eq!(left(), 0);
        fs::remove_dir_all(&cache).expect("ours");
        assert_eq!(left(), 3 << 20, "what cannot be seen is taken for not written");
    }

    #[test]
    fn a_file_that_takes_the_place_of_another_is_written_and_what_goes_was_not() {
        let scene = Scene::new();
        let cache = scene.cache("cache");
        let out = scene.dir.path().join("sealed");
        let write = |path: &Path, bytes: usize| {
            fs::write(path, vec![1; bytes]).expect("writable");
            File::open(path).and_then(|file| file.sync_all()).expect("a file");
        };
        write(&out, 3 << 20);
        write(&cache.join("of-an-earlier-run"), 2 << 20);
        let elsewhere = scene.cache("elsewhere");
        write(&elsewhere.join("of-an-earlier-run"), 2 << 20);
        let (who, on) = ("PC1 in cache", scene.dir.path());
        // It removes what two directories have, of which it writes to one.
        let (bytes, freed) = (4 << 20, 4 << 20);
        let grows = [cache.as_path(), out.as_path()];
        let wanted = SpaceWanted { who, on, bytes, freed, grows: &grows };
        let _held = scene.reservations().reserve(wanted).expect("it is free");
        let left = || {
            let device = scene.dir.path().metadata().expect("there").dev();
            let others = scene.reservations().others(device).expect("readable");
            others.iter().map(|other| other.left).sum::<u64>()
        };
        assert_eq!(left(), 4 << 20, "nothing is written yet");
        fs::remove_file(elsewhere.join("of-an-earlier-run")).expect("ours");
        assert_eq!(left(), 4 << 20, "nothing is written yet");
        write(&cache.join("layer-1"), 1 << 20);
        assert_eq!(left(), 3 << 20, "what is still to go was not written");
        fs::remove_file(cache.join("of-an-earlier-run")).expect("ours");
        assert_eq!(left(), 3 << 20, "what goes does not come back as work");
        let part = scene.dir.path().join(".sealed.17.part");
        write(&part, 3 << 20);
        assert_eq!(left(), 0);
        fs::rename(&part, &out).expect("writable");
        assert_eq!(left(), 0, "what it took the place of was not its own");
    }

    #[test]
    fn a_reservation_holds_on_when_the_runtime_directory_is_removed() {
        let scene = Scene::new();
        let cache = scene.cache("cache");
        let free = free_bytes(scene.dir.path()).expect("a file system");
        let held = scene.reserve("PC1 in cache", free / 4 * 3, &[&cache]).expect("free");
        // It may be held again at once, in the midst of a removal.
        let away = scene.dir.path().join("away");
        fs::rename(scene.dir.path().join("run"), &away).expect("ours");
        fs::remove_dir_all(away).expect("ours");
        let begin = Instant::now();
        while scene.recorded() != 1 {
            assert!(begin.elapsed().as_secs() < 60, "nobody reserves it again");
            std::thread::yield_now();
        }
        let error = scene.reserve("PC1 in other", free / 4 * 3, &[]).expect_err("it is taken");
        assert!(error.contains("by PC1 in cache)"), "{error}");
        drop(held);
        assert_eq!(scene.recorded(), 0);
    }

    #[test]
    fn a_directory_that_is_removed_while_its_lock_is_waited_for_is_not_reserved_in() {
        let scene = Scene::new();
        let lock = scene.reservations().lock().expect("ours");
        let old = lock.lock(PATIENCE).expect("free");
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let reserved = scene.reserve("PC1 in one", 1, &[]);
                done.send(reserved.is_ok()).expect("it is waited for");
            });
            let waits = |begun: Duration| is_done.recv_timeout(begun).is_err();
            assert!(waits(Duration::from_millis(300)), "the lock is taken");
            fs::rename(scene.dir.path().join("run"), scene.dir.path().join("away")).expect("ours");
            let new_lock = scene.reservations().lock().expect("made again");
            let new = new_lock.lock(PATIENCE).expect("free");
            drop(old);
            assert!(waits(Duration::from_millis(500)), "the new lock is taken too");
            drop(new);
            assert!(is_done.recv().expect("it ends"));
        });
    }

    #[test]
    fn what_the_dead_have_reserved_is_free() {
        let scene = Scene::new();
        let cache = scene.cache("cache");
        let free = free_bytes(scene.dir.path()).expect("a file system");
        let mut held = scene.reserve("PC1 in cache", free / 2, &[&cache]).expect("free");
        // The kernel closes the file of a process that dies; the name stays.
        drop(held.held.take().and_then(|held| held.file().take()));
        assert_eq!(scene.recorded(), 1);
        scene.reserve("PC1 again", free / 4 * 3, &[&cache]).map(drop).expect("nobody lives");
        assert_eq!(scene.recorded(), 0);
    }

    #[test]
    fn files_are_private_and_without_a_directory_for_them_free_space_is_still_checked() {
        use std::os::unix::fs::PermissionsExt;
        let scene = Scene::new();
        let cache = scene.cache("cache");
        let held = scene.reserve("PC1", 1, &[&cache]).expect("free");
        let recorded = held.held.as_ref().expect("recorded").file();
        let (path, _) = recorded.as_ref().expect("held");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(path), mode(path.parent().expect("a directory"))), (0o600, 0o700));
        drop(recorded);
        // What was removed is made again.
        let gone = Reservations { dir: scene.dir.path().join("no/such") };
        let wanted =
            |bytes| SpaceWanted { who: "x", on: scene.dir.path(), bytes, freed: 0, grows: &[] };
        assert!(gone.reserve(wanted(1)).expect("free").held.is_some());
        fs::write(scene.dir.path().join("file"), "").expect("writable");
        let never = Reservations { dir: scene.dir.path().join("file/such") };
        assert!(never.reserve(wanted(1)).expect("free").held.is_none());
        assert!(never.reserve(wanted(u64::MAX)).is_err());
    }
}
