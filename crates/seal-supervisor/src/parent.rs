//! The parent's side: requests from standard input, answers to standard output, signals.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;
use seal_types::{SectorName, StageName};
use seal_wire::{Line, LineReader, RequestHead, ready_line};

use crate::event::Event;
use crate::queue::Queue;
use crate::said::Said;

/// Events that may wait for the loop. The threads around it wait when there are more, so that a
/// babbling executor does not fill the memory.
const BACKLOG: usize = 64;

/// So many bytes of answers may wait for a parent that does not read them before no more requests
/// are taken from it. An answer has some thousand.
const UNREAD_MOST: usize = 1 << 20;

/// So many bytes of requests, or of one of any length, may wait for an executor before no more are
/// taken from the parent. One of PC1 or PC2 has a few thousand.
const WAITING_MOST: usize = 8 << 20;

/// How often it is checked whether the parent is still there while nothing is read from it.
const LOOK_FOR_PARENT: Duration = Duration::from_millis(500);

/// The parent: what it asks for comes as events, answers go to it. It is there before anything else
/// is known, and outlives whatever serves it.
#[derive(Debug)]
pub struct Parent {
    pub(crate) stage: StageName,
    pub(crate) events: Receiver<Event>,
    pub(crate) sender: SyncSender<Event>,
    pub(crate) outlet: Rc<Outlet>,
    /// Requests that have come and that nobody serves yet.
    pub(crate) requests: Queue,
    /// Whether the ready line was written.
    pub(crate) announced: bool,
    /// When its input ended, if it has.
    pub(crate) input_ended: Option<Instant>,
    /// What was warned of while somebody tried to serve it.
    pub(crate) said: Said,
    /// How often somebody has begun to serve it, by which events of one are told from those of
    /// another.
    pub(crate) services: u64,
}

impl Parent {
    /// Begins to read its requests and to take its signals; answers go to `output`.
    ///
    /// Must be called on the main thread, before any other thread is started that takes signals.
    pub fn open(stage: StageName, output: File) -> io::Result<Self> {
        let signals = block_signals()?;
        let (sender, events) = sync_channel(BACKLOG);
        await_signals(signals, sender.clone())?;
        let watched = output.try_clone()?;
        let outlet = Outlet::start(output, sender.clone())?;
        read_requests(stage, sender.clone(), outlet.backlog(), watched)?;
        Ok(Self {
            stage,
            events,
            sender,
            outlet: Rc::new(outlet),
            requests: Queue::default(),
            announced: false,
            input_ended: None,
            said: Said::default(),
            services: 0,
        })
    }

    /// Tells it that requests may come.
    pub(crate) fn announce(&mut self) {
        self.outlet.send(format!("{}\n", ready_line(self.stage)).into_bytes());
        self.announced = true;
    }

    /// Waits until everything is written, at most so long.
    pub fn finish(self, patience: Duration) {
        // Threads that still have something to tell must not wait for a loop that is over.
        drop(self.events);
        // Who served it is gone.
        if let Some(outlet) = Rc::into_inner(self.outlet) {
            outlet.finish(patience);
        }
    }
}

/// Starts reading requests from standard input, none while too much of `backlog` waits.
fn read_requests(
    stage: StageName,
    events: SyncSender<Event>,
    backlog: Arc<Backlog>,
    output: File,
) -> io::Result<()> {
    let read = move || {
        let mut lines = LineReader::new(BufReader::new(io::stdin()), stage.line_cap());
        let waiting_most = WAITING_MOST.max(stage.line_cap());
        let mut has_reader = true;
        let ended = loop {
            // A parent that dies while no request of it is read is not seen by reading.
            if has_reader && !backlog.await_room(waiting_most, || seal_host::has_reader(&output)) {
                has_reader = false;
                if events.send(Event::OutputGone(io::ErrorKind::BrokenPipe.into())).is_err() {
                    return;
                }
            }
            if !has_reader {
                backlog.await_room(waiting_most, || true);
            }
            match lines.next_line() {
                Ok(Some(line)) => {
                    let Some(event) = understand(stage, line, &backlog) else { continue };
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
    seal_host::start_thread("requests", read)?;
    Ok(())
}

/// The name of a request's sector. What contradicts it in the request is logged.
pub(crate) fn sector_of(id: u64, sector: Option<SectorName>) -> Option<String> {
    let SectorName { name, doubt } = sector?;
    if let Some(doubt) = doubt {
        tracing::warn!(req = id, sector = name, "the request contradicts itself: {doubt}");
    }
    Some(name)
}

/// What a line of the parent is. Read here and not in the loop, because it may be long.
fn understand(stage: StageName, line: Line, backlog: &Arc<Backlog>) -> Option<Event> {
    let line = match line {
        // Input that ends without a line end may still be a whole request.
        Line::Whole(line) | Line::Unterminated(line) => line,
        Line::TooLong { length, id, .. } => {
            let cap = stage.line_cap();
            let reason =
                format!("the line has {length} bytes and requests of {stage} may have {cap}");
            return Some(Event::BadRequest { id, reason });
        }
    };
    if line.trim_ascii().is_empty() {
        return None;
    }
    Some(match RequestHead::parse(&line) {
        Ok(head) => Event::Request { head, line: RequestLine::held_by(backlog, line) },
        Err(bad) => Event::BadRequest { id: bad.id, reason: bad.reason },
    })
}

/// The signals that ask the supervisor to end, kept from every thread started later. Children get
/// an empty mask of their own. What was ignored at the start is left alone, so it stays ignored.
fn block_signals() -> io::Result<SigSet> {
    let signals: SigSet = seal_host::ending_signals()?.into_iter().collect();
    signals.thread_block()?;
    Ok(signals)
}

/// Starts waiting for signals.
fn await_signals(signals: SigSet, events: SyncSender<Event>) -> io::Result<()> {
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
    seal_host::start_thread("signals", wait)?;
    Ok(())
}

/// The line of a request, which takes room as long as it waits.
#[derive(Debug, Default)]
pub(crate) struct RequestLine {
    /// Without its end.
    pub(crate) text: Vec<u8>,
    /// What is given back when this is dropped.
    pub(crate) held: Option<Held>,
}

/// Room that a request takes until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    bytes: usize,
    backlog: Arc<Backlog>,
}

impl RequestLine {
    fn held_by(backlog: &Arc<Backlog>, text: Vec<u8>) -> Self {
        // Even a short one takes some.
        let bytes = 256 + text.len();
        backlog.change(|amounts| amounts.held += bytes);
        Self { text, held: Some(Held { bytes, backlog: backlog.clone() }) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.backlog.change(|amounts| amounts.held -= self.bytes);
    }
}

/// How much waits for the parent to read it, and of what it has sent for an executor.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    amounts: Mutex<Amounts>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Amounts {
    unread: usize,
    held: usize,
}

impl Backlog {
    fn change(&self, change: impl FnOnce(&mut Amounts)) {
        change(&mut self.amounts.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits while more than [`UNREAD_MOST`] of answers or `waiting_most` of requests waits. Where
    /// nobody can send any more, what is left in the pipe may be read in any case. Returns whether
    /// answers have a reader.
    fn await_room(&self, waiting_most: usize, has_reader: impl Fn() -> bool) -> bool {
        let mut amounts = self.amounts.lock().unwrap_or_else(PoisonError::into_inner);
        let is_unread = amounts.unread > UNREAD_MOST;
        if is_unread {
            tracing::warn!("the parent does not read answers; no requests are taken until it does");
        } else if amounts.held > waiting_most {
            tracing::debug!(
                bytes = amounts.held,
                "many requests wait; further ones are not read yet"
            );
        }
        while amounts.unread > UNREAD_MOST || amounts.held > waiting_most {
            if !seal_host::has_writer(io::stdin()) {
                return true;
            }
            if !has_reader() {
                return false;
            }
            let waited = self.changed.wait_timeout(amounts, LOOK_FOR_PARENT);
            amounts = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if is_unread {
            tracing::info!("requests are taken again");
        }
        true
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
    fn start(output: File, events: SyncSender<Event>) -> io::Result<Self> {
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
                written.change(|amounts| amounts.unread -= line.len());
            }
            let _ = finish.send(());
        };
        seal_host::start_thread("answers", write)?;
        Ok(Self { lines, backlog, finished, output })
    }

    /// How much waits to be written.
    fn backlog(&self) -> Arc<Backlog> {
        self.backlog.clone()
    }

    /// Writes a line, with its end.
    pub(crate) fn send(&self, line: Vec<u8>) {
        self.backlog.change(|amounts| amounts.unread += line.len());
        // The writer lives until the sender is gone.
        let _ = self.lines.send(line);
    }

    /// Whether the parent can still read answers.
    pub(crate) fn has_reader(&self) -> bool {
        seal_host::has_reader(&self.output)
    }

    /// Waits until everything is written, at most so long.
    fn finish(self, patience: Duration) {
        drop(self.lines);
        if self.finished.recv_timeout(patience).is_err() {
            tracing::error!("the parent does not read; the last answers are lost");
        }
    }
}
