//! The last lines of the log, kept where a support bundle finds them.
//!
//! Where the log goes is the parent's matter, and nobody can be asked for it afterwards. So the
//! last lines stay in memory, and a thread writes them to a file in the runtime directory while
//! they change: what a supervisor said before it was killed is there too, but for two seconds.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use seal_types::StageName;

/// How much is kept.
const LINES: usize = 400;
const BYTES: usize = 96 << 10;
/// Of a longer line only the begin is kept.
const LINE: usize = 2 << 10;

/// How often the file is written, at most.
const EVERY: Duration = Duration::from_secs(2);

/// How many files are kept of each stage: supervisors are started again and again.
const FILES: usize = 6;

static RING: Mutex<Ring> = Mutex::new(Ring::new());

#[derive(Debug)]
struct Ring {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    added: u64,
}

impl Ring {
    const fn new() -> Self {
        Self { lines: VecDeque::new(), bytes: 0, added: 0 }
    }

    fn add(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = &line[..line.len().min(LINE)];
        self.bytes += line.len() + 1;
        self.added += 1;
        self.lines.push_back(line.to_vec());
        while self.lines.len() > LINES || self.bytes > BYTES {
            let Some(gone) = self.lines.pop_front() else { return };
            self.bytes -= gone.len() + 1;
        }
    }

    fn text(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.bytes);
        for line in &self.lines {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        text
    }
}

/// A line of the log, of this process or of an executor.
pub(crate) fn add(line: &[u8]) {
    RING.lock().unwrap_or_else(PoisonError::into_inner).add(line);
}

/// Where the files are.
pub(crate) fn directory(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("logs")
}

/// Writes the last lines to the runtime directory as long as it lives, and once more at its end.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// Ends the thread when it is dropped.
    end: Option<Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Keeper {
    /// Begins in the file of this process. A log that cannot be kept is no reason not to seal.
    pub(crate) fn start(runtime_dir: &Path, stage: StageName) -> Option<Self> {
        let dir = directory(runtime_dir);
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                tracing::debug!(%error, "the last lines of the log are not kept");
                return None;
            }
            _ => {}
        }
        remove_old(&dir, stage);
        let namespace = seal_host::pid_namespace(Path::new("/proc")).unwrap_or(0);
        let path = dir.join(format!("{stage}-{}-{namespace}.log", std::process::id()));
        let (end, ended) = channel();
        let keep = move || {
            let mut written = 0;
            loop {
                let last = ended.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout);
                write_changed(&path, &RING, &mut written);
                if last {
                    return;
                }
            }
        };
        let thread = seal_host::start_thread("last-lines", keep).ok()?;
        Some(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It writes one small file; a panic of it has lost lines and nothing else.
            let _ = thread.join();
        }
    }
}

fn write_changed(path: &Path, ring: &Mutex<Ring>, written: &mut u64) {
    let (added, text) = {
        let ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.added == *written && path.exists() {
            return;
        }
        (ring.added, ring.text())
    };
    // Tried again in a moment, with what came in between.
    if replace(path, &text).is_ok() {
        *written = added;
    }
}

/// Readers see the file before or the file after. It is not brought to disk: it matters while the
/// machine runs.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    file.write_all(text)?;
    fs::rename(&part, path)
}

/// The files in `dir`, the latest first.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut files: Vec<(SystemTime, PathBuf)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let (path, meta) = (entry.path(), entry.metadata().ok()?);
            let is_log = path.extension().is_some_and(|it| it == "log") && meta.is_file();
            Some((meta.modified().ok()?, path)).filter(|_| is_log)
        })
        .collect();
    files.sort();
    files.into_iter().rev().map(|(_, path)| path).collect()
}

fn remove_old(dir: &Path, stage: StageName) {
    let of_stage = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&format!("{stage}-"))
    };
    // One that still runs writes its own again.
    for path in files(dir).into_iter().filter(of_stage).skip(FILES - 1) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_within_bounds() {
        let mut ring = Ring::new();
        for number in 0..2000 {
            ring.add(format!("line {number} {}\n", "x".repeat(number % 500)).as_bytes());
        }
        ring.add(&vec![b'y'; 1 << 20]);
        let text = ring.text();
        assert!(text.len() <= BYTES && text.len() == ring.bytes, "{}", text.len());
        let text = String::from_utf8(text).expect("ASCII");
        assert!(text.lines().count() <= LINES && text.contains("line 1999 "));
        assert!(text.ends_with("y\n") && !text.contains("line 1 "));
        for number in 0..2 * LINES {
            ring.add(format!("{number}").as_bytes());
        }
        let text = String::from_utf8(ring.text()).expect("ASCII");
        assert_eq!(text.lines().count(), LINES);
        assert_eq!(text.lines().next(), Some(LINES.to_string().as_str()));
    }

    #[test]
    fn the_file_is_private_follows_the_log_and_comes_back_when_it_was_removed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("pc1-1-2.log");
        let (ring, mut written) = (Mutex::new(Ring::new()), 0);
        let add = |line: &str| ring.lock().expect("no panic").add(line.as_bytes());
        add("one\n");
        write_changed(&path, &ring, &mut written);
        assert_eq!(fs::read(&path).expect("there"), b"one\n");
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).expect("there"));
        assert_eq!(mode & 0o777, 0o600);
        add("two\n");
        write_changed(&path, &ring, &mut written);
        assert_eq!(fs::read(&path).expect("there"), b"one\ntwo\n");
        fs::remove_file(&path).expect("there");
        write_changed(&path, &ring, &mut written);
        assert!(path.exists());
    }

    #[test]
    fn few_files_are_kept_of_each_stage() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for number in 0..20 {
            fs::write(dir.path().join(format!("pc1-{number}-1.log")), "x").expect("writable");
        }
        fs::write(dir.path().join("pc2-1-1.log"), "x").expect("writable");
        fs::write(dir.path().join("pc1-1-1.part"), "x").expect("writable");
        remove_old(dir.path(), StageName::Pc1);
        let left = files(dir.path());
        assert_eq!(left.len(), FILES, "{left:?}");
        assert!(left.contains(&dir.path().join("pc2-1-1.log")));
    }
}
