//! Standard error through a queue, so that nobody waits for whoever reads the log.
//!
//! Work must go on when the log is not taken, as when it goes to a pipe whose reader hangs. A
//! thread of its own writes; what does not fit into the queue is dropped, counted, and told when
//! there is room again. The queue is bounded in bytes, because lines may be long; those of
//! libraries are bounded in lines and do not say what was lost.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow};
use tracing_subscriber::fmt::MakeWriter;

/// How much may wait to be written. As much again may be being written.
const QUEUE: usize = 512 << 10;

/// How long the last lines may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Lines on their way to where the log goes.
#[derive(Clone, Debug)]
pub struct LogQueue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// Whole lines.
    waiting: Vec<u8>,
    /// Lines that were dropped and have not been told of.
    lost: u64,
    /// Whether the writer has something that is not written yet.
    busy: bool,
}

impl LogQueue {
    /// Starts a thread that writes to `output`, and calls `tell` with their number when lines were
    /// lost and there is room again.
    pub fn start(
        mut output: impl Write + Send + 'static,
        tell: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let log = Self(Arc::default());
        let shared = log.0.clone();
        let write = move || {
            let mut lines = Vec::new();
            loop {
                let lost = shared.take(&mut lines);
                // Nobody can be told of what goes wrong here; the next lines may fare better.
                let _ = output.write_all(&lines).and_then(|()| output.flush());
                if lost > 0 {
                    tell(lost);
                }
            }
        };
        // Signals are for the threads that await them.
        let mut before = SigSet::empty();
        nix::sys::signal::pthread_sigmask(
            SigmaskHow::SIG_BLOCK,
            Some(&SigSet::all()),
            Some(&mut before),
        )?;
        let started = crate::start_thread("log", write);
        before.thread_set_mask()?;
        started?;
        Ok(log)
    }

    /// Adds a line with its end, or drops it where the queue is full.
    pub fn push(&self, line: &[u8]) {
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.waiting.len() + line.len() > QUEUE {
            queue.lost += 1;
        } else {
            queue.waiting.extend_from_slice(line);
            self.0.changed.notify_all();
        }
    }

    /// Waits until everything is written, at most so long.
    pub fn flush(&self, patience: Duration) {
        let by = Instant::now() + patience;
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        while queue.busy || !queue.waiting.is_empty() {
            let left = by.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.0.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What waits for the last lines to be written, when it is dropped.
    pub fn last_words(&self) -> LastWords {
        LastWords(Some(self.clone()))
    }
}

impl Shared {
    /// Waits for lines and takes them all. Returns how many were lost since the last time.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        lines.clear();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.busy {
            queue.busy = false;
            self.changed.notify_all();
        }
        while queue.waiting.is_empty() {
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.busy = true;
        std::mem::swap(lines, &mut queue.waiting);
        std::mem::take(&mut queue.lost)
    }
}

/// A writer of one line.
impl Write for &LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = &'a LogQueue;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// Waits a while for the last lines to be written, when this is dropped.
#[derive(Debug, Default)]
#[must_use = "the last lines are lost if this is dropped early"]
pub struct LastWords(Option<LogQueue>);

impl Drop for LastWords {
    fn drop(&mut self) {
        if let Some(log) = &self.0 {
            log.flush(LAST_WORDS);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn what_nobody_takes_is_bounded_dropped_counted_and_told_when_there_is_room() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let (told, losses) = channel();
        let log =
            LogQueue::start(writer, move |lost| told.send(lost).expect("awaited")).expect("starts");
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        let sent = 4 * QUEUE / line.len();
        for _ in 0..sent {
            log.push(&line);
        }
        let lost = log.0.queue.lock().expect("no panic").lost;
        assert!(lost > 0, "{sent} lines fit");
        // It ends although nothing can be written.
        log.flush(Duration::from_millis(10));
        let kept = (sent - usize::try_from(lost).expect("small")) * line.len();
        let mut read = vec![0; kept];
        reader.read_exact(&mut read).expect("whole lines");
        assert!(read.chunks(line.len()).all(|chunk| chunk == line), "lines are whole");
        log.push(&line);
        log.flush(Duration::from_secs(60));
        assert_eq!(losses.recv_timeout(Duration::from_secs(60)), Ok(lost));
    }

    #[test]
    fn the_end_waits_for_the_last_line() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let log = LogQueue::start(writer, |_| {}).expect("starts");
        log.push(b"first\n");
        log.push(b"last\n");
        drop(log.last_words());
        let mut read = [0; 11];
        reader.read_exact(&mut read).expect("written");
        assert_eq!(&read, b"first\nlast\n");
    }
}
