//! The parent's side: requests from standard input, answers to standard output, signals.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use seal_types::StageName;
use seal_wire::{Line, LineReader, RequestHead, salvage_id};

use crate::event::Event;

/// So many bytes of answers may wait for a parent that does not read them before no more requests
/// are taken from it. An answer has some thousand.
const UNREAD_MOST: usize = 1 << 20;

/// Starts reading requests from standard input, none while too much of `backlog` waits.
pub(crate) fn read_requests(
    stage: StageName,
    events: SyncSender<Event>,
    backlog: Arc<Backlog>,
) -> io::Result<()> {
    let read = move || {
        let mut lines = LineReader::new(BufReader::new(io::stdin()), stage.line_cap());
        let ended = loop {
            backlog.await_room();
            match lines.next_line() {
                Ok(Some(line)) => {
                    let Some(event) = understand(stage, line) else { continue };
                    if events.send(event).is_err() {
                        return;
                    }
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        let _ = events.send(Event::InputEnded(ended));
    };
    thread::Builder::new().name("requests".to_owned()).spawn(read)?;
    Ok(())
}

/// What a line of the parent is. Read here and not in the loop, because it may be long.
fn understand(stage: StageName, line: Line) -> Option<Event> {
    let line = match line {
        // Input that ends without a line end may still be a whole request.
        Line::Whole(line) | Line::Unterminated(line) => line,
        Line::TooLong { head, length } => {
            let cap = stage.line_cap();
            let reason =
                format!("the line has {length} bytes and requests of {stage} may have {cap}");
            return Some(Event::BadRequest { id: salvage_id(&head), reason });
        }
    };
    if line.trim_ascii().is_empty() {
        return None;
    }
    Some(match RequestHead::parse(&line) {
        Ok(head) => Event::Request { head, line },
        Err(bad) => Event::BadRequest { id: bad.id, reason: bad.reason },
    })
}

/// The signals that ask the supervisor to end, kept from every thread started later. Children get
/// an empty mask of their own.
pub(crate) fn block_signals() -> io::Result<SigSet> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    Ok(signals)
}

/// Starts waiting for signals.
pub(crate) fn await_signals(signals: SigSet, events: SyncSender<Event>) -> io::Result<()> {
    let wait = move || {
        loop {
            match signals.wait() {
                Ok(signal) => {
                    if events.send(Event::Signal(signal)).is_err() {
                        return;
                    }
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => {
                    tracing::error!(%error, "signals cannot be waited for");
                    return;
                }
            }
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait)?;
    Ok(())
}

/// How much waits for the parent to read it.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    bytes: Mutex<usize>,
    less: Condvar,
}

impl Backlog {
    fn add(&self, bytes: usize) {
        *self.bytes.lock().unwrap_or_else(PoisonError::into_inner) += bytes;
    }

    fn remove(&self, bytes: usize) {
        *self.bytes.lock().unwrap_or_else(PoisonError::into_inner) -= bytes;
        self.less.notify_all();
    }

    /// Waits while more than [`UNREAD_MOST`] waits.
    fn await_room(&self) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if *bytes <= UNREAD_MOST {
            return;
        }
        tracing::warn!("the parent does not read answers; no requests are taken until it does");
        while *bytes > UNREAD_MOST {
            bytes = self.less.wait(bytes).unwrap_or_else(PoisonError::into_inner);
        }
        tracing::info!("requests are taken again");
    }
}

/// Standard output. Lines are written by a thread of its own, so that a parent that does not read
/// never keeps the supervisor from looking after its executors.
#[derive(Debug)]
pub(crate) struct Outlet {
    lines: Sender<Vec<u8>>,
    backlog: Arc<Backlog>,
    finished: Receiver<()>,
    output: File,
}

impl Outlet {
    /// Starts writing to `output`.
    pub(crate) fn start(output: File, events: SyncSender<Event>) -> io::Result<Self> {
        let (lines, to_write) = channel::<Vec<u8>>();
        let (finish, finished) = channel();
        let mut writer = output.try_clone()?;
        let backlog = Arc::new(Backlog::default());
        let written = backlog.clone();
        let write = move || {
            let mut gone = false;
            for line in to_write {
                if !gone && let Err(error) = writer.write_all(&line) {
                    gone = true;
                    let _ = events.send(Event::OutputGone(error));
                }
                written.remove(line.len());
            }
            let _ = finish.send(());
        };
        thread::Builder::new().name("answers".to_owned()).spawn(write)?;
        Ok(Self { lines, backlog, finished, output })
    }

    /// How much waits to be written.
    pub(crate) fn backlog(&self) -> Arc<Backlog> {
        self.backlog.clone()
    }

    /// Writes a line, with its end.
    pub(crate) fn send(&self, line: Vec<u8>) {
        self.backlog.add(line.len());
        // The writer lives until the sender is gone.
        let _ = self.lines.send(line);
    }

    /// Whether the parent can still read answers.
    pub(crate) fn has_reader(&self) -> bool {
        seal_host::has_reader(&self.output)
    }

    /// Waits until everything is written, at most so long.
    pub(crate) fn finish(self, patience: Duration) {
        drop(self.lines);
        if self.finished.recv_timeout(patience).is_err() {
            tracing::error!("the parent does not read; the last answers are lost");
        }
    }
}
