//! The one writer of answers, and the bounds of what is held for a parent.
//!
//! Answers are written by a thread of its own, so that a parent that does not read them never
//! keeps the loop from looking after tasks and signals. When much is unread, or many requests wait,
//! no more requests are taken: the pipe fills, and the parent waits.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// So many bytes of answers may wait for a parent that does not read them before no more requests
/// are taken from it. An answer has some thousand.
const UNREAD_MOST: usize = 1 << 20;

/// How often it is checked whether the parent is still there while nothing is read from it.
const LOOK_FOR_PARENT: Duration = Duration::from_millis(500);

/// The real standard output, one line at a time.
#[derive(Debug)]
pub(crate) struct Answers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    output: File,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// Bytes that are not written yet.
    unread: usize,
    /// Bytes of requests that have neither been started nor answered.
    held: usize,
    /// Nothing more comes.
    closed: bool,
    /// Nobody takes answers any more.
    gone: bool,
}

impl Answers {
    /// Starts a thread that writes to `output`.
    pub(crate) fn start(output: File) -> io::Result<Self> {
        let shared =
            Arc::new(Shared { output, state: Mutex::default(), changed: Condvar::default() });
        let writer = Arc::clone(&shared);
        seal_host::start_thread("answers", move || writer.write())?;
        Ok(Self(shared))
    }

    /// Writes `message` as one line.
    pub(crate) fn send<T: Serialize>(&self, message: &T) {
        self.push(seal_wire::to_line(message));
    }

    /// Writes `message` as one line if the parent keeps up. For what is soon told anew.
    pub(crate) fn tell<T: Serialize>(&self, message: &T) {
        if self.0.state().unread <= UNREAD_MOST {
            self.send(message);
        }
    }

    fn push(&self, line: Vec<u8>) {
        let mut state = self.0.state();
        if !state.gone {
            state.unread += line.len();
            state.lines.push_back(line);
            self.0.changed.notify_all();
        }
    }

    /// Whether anybody reads the answers.
    pub(crate) fn have_reader(&self) -> bool {
        seal_host::has_reader(&self.0.output)
    }

    /// Waits until everything is written, at most so long. Returns whether it is.
    pub(crate) fn finish(&self, patience: Duration) -> bool {
        let by = Instant::now() + patience;
        let mut state = self.0.state();
        while state.unread > 0 {
            let left = by.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        !state.gone
    }

    /// Waits until another request may be taken in: while too much is unread, or so many bytes of
    /// requests wait. Where nobody can write to `input` any more, what is left in it is read in any
    /// case: else a parent that dies just then is not seen to be gone.
    pub(crate) fn await_room(&self, held_most: usize, input: impl AsFd) {
        let mut state = self.0.state();
        if state.unread > UNREAD_MOST {
            tracing::warn!("the parent does not read answers; no requests are taken until it does");
        }
        while state.unread > UNREAD_MOST || state.held > held_most {
            if !seal_host::has_writer(&input) {
                return;
            }
            let waited = self.0.changed.wait_timeout(state, LOOK_FOR_PARENT);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// So many bytes of a request are held.
    pub(crate) fn hold(&self, bytes: usize) {
        self.0.state().held += bytes;
    }

    /// They are not held any more.
    pub(crate) fn let_go(&self, bytes: usize) {
        let mut state = self.0.state();
        state.held = state.held.saturating_sub(bytes);
        self.0.changed.notify_all();
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) {
        loop {
            let line = {
                let mut state = self.state();
                loop {
                    if let Some(line) = state.lines.pop_front() {
                        break line;
                    }
                    if state.closed {
                        return;
                    }
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            };
            let written = (&self.output).write_all(&line);
            let mut state = self.state();
            state.unread = state.unread.saturating_sub(line.len());
            if let Err(error) = written {
                tracing::error!(%error, "cannot write an answer; nobody takes answers any more");
                state.gone = true;
                state.unread = 0;
                state.lines.clear();
            }
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc::channel;

    use super::*;

    fn answers() -> (io::PipeReader, Answers) {
        let (reader, writer) = io::pipe().expect("a pipe");
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        (reader, Answers::start(file).expect("a thread"))
    }

    #[test]
    fn nobody_waits_for_a_parent_that_does_not_read_but_whoever_takes_requests() {
        let (mut reader, answers) = answers();
        let long = "x".repeat(1 << 16);
        let mut told = 0;
        while answers.0.state().unread <= UNREAD_MOST {
            answers.tell(&long);
            told += 1;
        }
        for _ in 0..100 {
            answers.tell(&long);
        }
        answers.send(&1);
        assert!(!answers.finish(Duration::from_millis(10)), "nothing is read");
        let answers = Arc::new(answers);
        let (room, there) = channel();
        let (input, _parent) = io::pipe().expect("a pipe");
        std::thread::spawn({
            let answers = Arc::clone(&answers);
            move || {
                answers.await_room(0, &input);
                room.send(()).expect("awaited");
            }
        });
        assert!(there.recv_timeout(Duration::from_millis(50)).is_err(), "there is no room");
        let mut read = vec![0; told * (long.len() + 3) + 2];
        reader.read_exact(&mut read).expect("what was told, and the answer");
        assert!(read.ends_with(b"\"\n1\n"));
        there.recv_timeout(Duration::from_secs(60)).expect("there is room");
        assert!(answers.finish(Duration::from_secs(60)));
    }

    #[test]
    fn requests_that_wait_take_room_until_they_are_let_go() {
        let (_reader, answers) = answers();
        let answers = Arc::new(answers);
        let (input, parent) = io::pipe().expect("a pipe");
        answers.hold(7);
        answers.await_room(7, &input);
        answers.hold(1);
        let waits = std::thread::spawn({
            let answers = Arc::clone(&answers);
            let input = input.try_clone().expect("another descriptor");
            move || answers.await_room(7, &input)
        });
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waits.is_finished());
        answers.let_go(1);
        waits.join().expect("no panic");
        // A parent that dies is not waited for.
        answers.hold(1);
        drop(parent);
        answers.await_room(7, &input);
    }

    #[test]
    fn a_parent_that_is_gone_takes_nothing_and_holds_up_nobody() {
        let (reader, answers) = answers();
        drop(reader);
        assert!(!answers.have_reader());
        for _ in 0..1000 {
            answers.send(&"x".repeat(1 << 16));
        }
        assert!(!answers.finish(Duration::from_secs(60)));
        let (input, _parent) = io::pipe().expect("a pipe");
        answers.await_room(0, &input);
    }
}
