//! The request loop of an executor.
//!
//! One thread reads requests, one runs this loop, and each task has a thread of its own. What
//! happens reaches the loop as an event; only the loop decides what starts and when the process
//! ends. Nothing waits for who reads the answers but the thread that writes them and, when much is
//! unread or many requests wait, the one that reads requests.
//!
//! The end: when the input ends, the parent is gone or wants no more. If somebody still reads the
//! answers, the tasks at hand are done first; if nobody does, they are stopped at their next
//! checkpoint. SIGTERM, SIGINT and SIGHUP stop them too, with an answer; those of them that were
//! ignored when the process began stay ignored. A task that has not come to a
//! checkpoint within the grace is answered by the loop, and the process ends under it.

use std::any::Any;
use std::collections::{HashSet, VecDeque};
use std::io::{self, BufReader, Write};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use seal_options::Common;
use seal_types::{SectorName, shown_reason};
use seal_wire::{
    ErrorCode, ExitCode, Line, LineReader, RawRequest, Response, Started, TaskError, ready_line,
};

use crate::answers::Answers;
use crate::device_reports::DeviceReports;
use crate::paces::Memory;
use crate::{CancelToken, Executor, TaskContext};

/// How an executor serves.
#[derive(Clone, Copy, Debug)]
pub struct ServeOptions {
    /// Tasks that run at the same time, any number without; the others wait in their order.
    pub concurrent: Option<NonZeroUsize>,
    /// Whether events are written between the answers.
    pub events: bool,
    /// How long cancelled tasks may take to reach a checkpoint before the process ends anyway.
    pub grace: Duration,
}

impl ServeOptions {
    /// So many tasks at a time, and time enough to reach a checkpoint of any stage.
    pub fn new(concurrent: Option<NonZeroUsize>, common: &Common) -> Self {
        Self { concurrent, events: common.events, grace: Duration::from_secs(10) }
    }

    /// Whether one more task may run beside so many.
    fn has_room(&self, running: usize) -> bool {
        self.concurrent.is_none_or(|most| running < most.get())
    }
}

/// How often the loop looks whether somebody still reads its answers.
const LOOK_EVERY: Duration = Duration::from_millis(500);

enum Event {
    Line(Line),
    EndOfInput,
    Done { ended: Option<Ended> },
    Signal(i32),
}

/// Why no task may start any more after one that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ended {
    /// It panicked, and what it left behind is not to be trusted.
    Panicked,
    /// What tasks are computed on is lost, and why.
    Lost(String),
}

/// Serves requests from standard input until it ends. The caller has made its checks: the ready
/// line goes out at once.
///
/// A parent that set [`EVENTS`] to 1 is also told when tasks start, how far they are, and what is
/// thought of the device.
pub fn serve<E: Executor>(executor: Arc<E>, options: ServeOptions) -> ExitCode {
    let mut output = match seal_host::claim_stdout() {
        Ok(output) => output,
        Err(error) => {
            tracing::error!(%error, "cannot take over standard output");
            return ExitCode::Start;
        }
    };
    let (events, inbox) = mpsc::channel();
    if let Err(error) = watch_signals(events.clone()) {
        tracing::error!(%error, "cannot watch for signals");
        return ExitCode::Start;
    }
    let ready = ready_line(E::STAGE);
    if let Err(error) = output.write_all(format!("{ready}\n").as_bytes()) {
        tracing::error!(%error, "nobody reads the ready line");
        return ExitCode::ParentGone;
    }
    let answers = Answers::start(output).map(Arc::new);
    let started = answers.and_then(|answers| {
        read_input(E::STAGE.line_cap(), events.clone(), Arc::clone(&answers)).map(|()| answers)
    });
    let answers = match started {
        Ok(answers) => answers,
        Err(error) => {
            tracing::error!(%error, "cannot start the threads that serve requests");
            return ExitCode::Start;
        }
    };
    // Without a limit nothing is said of one.
    let concurrent = options.concurrent;
    tracing::info!(stage = %E::STAGE, pid = std::process::id(), concurrent, "{ready}");
    Loop {
        executor,
        options,
        device_reports: Arc::new(DeviceReports::new(Arc::clone(&answers), options.events)),
        memory: Arc::default(),
        answers,
        events_wanted: options.events,
        events,
        cancel: CancelToken::default(),
        unanswered: Unanswered::default(),
        running: 0,
        queue: VecDeque::new(),
        input_ended: false,
        ended: None,
        deadline: None,
    }
    .run(&inbox)
}

fn watch_signals(events: Sender<Event>) -> io::Result<()> {
    let heeded = seal_host::ending_signals()?;
    seal_host::unblock(&heeded)?;
    let numbers = heeded.into_iter().map(|signal| signal as i32);
    let mut signals = signal_hook::iterator::Signals::new(numbers)?;
    seal_host::start_thread("signals", move || {
        for signal in &mut signals {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// So many bytes of requests, or one of any length, wait before no more are read.
const HELD_MOST: usize = 1 << 20;

/// Starts reading requests, none while much of what came before has not been read or begun.
fn read_input(cap: usize, events: Sender<Event>, answers: Arc<Answers>) -> io::Result<()> {
    let read = move || {
        let mut lines = LineReader::new(BufReader::with_capacity(1 << 16, io::stdin()), cap);
        loop {
            // One that waits may be as long as the longest line; none comes on top of it.
            answers.await_room(HELD_MOST, io::stdin());
            let event = match lines.next_line() {
                Ok(Some(line)) => {
                    answers.hold(weight(&line));
                    Event::Line(line)
                }
                Ok(None) => Event::EndOfInput,
                Err(error) => {
                    tracing::error!(%error, "cannot read requests");
                    Event::EndOfInput
                }
            };
            let end = matches!(event, Event::EndOfInput);
            if events.send(event).is_err() || end {
                return;
            }
        }
    };
    seal_host::start_thread("requests", read)?;
    Ok(())
}

/// How many bytes a line is held with. Even an empty one takes some.
fn weight(line: &Line) -> usize {
    let (Line::Whole(text) | Line::Unterminated(text) | Line::TooLong { head: text, .. }) = line;
    64 + text.len()
}

/// The running tasks that have no answer yet. Whoever takes an id out answers it, so that none is
/// answered twice. It is taken out before the answer is written: the sender may use it again as
/// soon as it has read that.
#[derive(Clone, Default)]
struct Unanswered(Arc<Mutex<HashSet<u64>>>);

impl Unanswered {
    fn add(&self, id: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    fn contains(&self, id: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    fn take_all(&self) -> HashSet<u64> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether `id` had no answer; it is the caller's to answer now.
    fn take(&self, id: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }
}

struct Waiting<T> {
    id: u64,
    sector: String,
    task: T,
    /// How many bytes it is held with.
    weight: usize,
}

struct Loop<E: Executor> {
    executor: Arc<E>,
    options: ServeOptions,
    answers: Arc<Answers>,
    device_reports: Arc<DeviceReports>,
    memory: Arc<Memory>,
    events_wanted: bool,
    events: Sender<Event>,
    cancel: CancelToken,
    unanswered: Unanswered,
    /// How many tasks have a thread, answered or not.
    running: usize,
    queue: VecDeque<Waiting<E::Task>>,
    input_ended: bool,
    /// Why no further task starts, if so.
    ended: Option<Ended>,
    /// When the process ends even if tasks have not stopped.
    deadline: Option<Instant>,
}

impl<E: Executor> Loop<E> {
    fn run(mut self, inbox: &Receiver<Event>) -> ExitCode {
        self.device_reports.tell(&*self.executor);
        loop {
            match inbox.recv_timeout(LOOK_EVERY) {
                Ok(event) => self.on(event),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            self.device_reports.tell(&*self.executor);
            if !self.cancel.is_cancelled() && !self.answers.have_reader() {
                tracing::warn!(
                    running = self.running,
                    waiting = self.queue.len(),
                    "nobody reads the answers any more: the parent is gone"
                );
                self.stop("the parent is gone");
                self.input_ended = true;
            }
            let idle = self.running == 0 && self.queue.is_empty();
            let over = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if idle && (self.ended.is_some() || self.input_ended) || over {
                self.answer_running();
                let code = self.exit_code();
                if self.answers.finish(self.options.grace) {
                    return code;
                }
                tracing::error!("nobody reads; the last answers are lost");
                return if code == ExitCode::Success { ExitCode::ParentGone } else { code };
            }
        }
    }

    /// Answers the tasks under which the process ends.
    fn answer_running(&self) {
        let grace = self.options.grace;
        for id in self.unanswered.take_all() {
            let message = format!(
                "the executor was told to end and the task did not stop within {grace:?}; the \
                 executor ends without it"
            );
            let error = TaskError::new(ErrorCode::Cancelled, message);
            self.tell_failure(id, &error);
            self.answer_failure(id, &error);
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self.ended {
            Some(Ended::Panicked) => ExitCode::Panicked,
            _ if self.cancel.is_cancelled() && !self.answers.have_reader() => ExitCode::ParentGone,
            Some(Ended::Lost(_)) => ExitCode::DeviceLost,
            None => ExitCode::Success,
        }
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Line(line) => self.on_line(line),
            Event::EndOfInput => {
                tracing::info!(running = self.running, waiting = self.queue.len(), "end of input");
                self.input_ended = true;
            }
            Event::Done { ended } => {
                self.running -= 1;
                if let Some(ended) = ended {
                    self.end(ended);
                }
            }
            Event::Signal(signal) => {
                tracing::info!(signal, "told to end");
                self.input_ended = true;
                self.stop("the executor was told to end");
            }
        }
        self.start_waiting();
    }

    fn on_line(&mut self, line: Line) {
        let weight = weight(&line);
        if !self.takes(line, weight) {
            self.answers.let_go(weight);
        }
    }

    /// Whether the line is a request that waits now.
    fn takes(&mut self, line: Line, weight: usize) -> bool {
        let bytes = match line {
            Line::Whole(bytes) | Line::Unterminated(bytes) => bytes,
            Line::TooLong { length, id, .. } => {
                let cap = E::STAGE.line_cap();
                let message = format!("a request line of {length} bytes is over the {cap} allowed");
                return self.refuse(id, ErrorCode::BadRequest, message);
            }
        };
        if bytes.trim_ascii().is_empty() {
            return false;
        }
        let request = match RawRequest::parse(&bytes) {
            Ok(request) => request,
            Err(bad) => return self.refuse(bad.id, ErrorCode::BadRequest, bad.to_string()),
        };
        let id = request.id;
        if self.has(id) {
            return self.refuse(Some(id), ErrorCode::BadRequest, String::new());
        }
        if self.cancel.is_cancelled() || self.ended.is_some() {
            let message = "the executor is ending and takes no tasks; send the request again";
            return self.refuse(Some(id), ErrorCode::Unavailable, message.to_owned());
        }
        match parse_task::<E>(&request) {
            Ok(task) => {
                let SectorName { name: sector, doubt } = E::sector(&task);
                if let Some(doubt) = doubt
                    && !self.events_wanted
                {
                    tracing::warn!(req = id, sector, "the request contradicts itself: {doubt}");
                }
                if !self.options.has_room(self.running) {
                    tracing::info!(req = id, sector, running = self.running, "task waits");
                }
                self.queue.push_back(Waiting { id, sector, task, weight });
                true
            }
            Err(error) => {
                let message = format!("not a task of {}: {error}", E::STAGE);
                self.refuse(Some(id), ErrorCode::BadRequest, message)
            }
        }
    }

    /// Whether `id` is that of a request without an answer.
    fn has(&self, id: u64) -> bool {
        self.unanswered.contains(id) || self.queue.iter().any(|waiting| waiting.id == id)
    }

    /// Answers a line that is not taken, if an answer can be of it. Returns that it is not taken.
    fn refuse(&self, id: Option<u64>, code: ErrorCode, message: String) -> bool {
        match id {
            // An answer would be taken for that of the first.
            Some(id) if self.has(id) => tracing::error!(
                req = id,
                "a line repeats the id of an unanswered request and is dropped; that request goes on"
            ),
            Some(id) => {
                let error = TaskError::new(code, message);
                if self.events_wanted {
                    tracing::debug!(req = id, %code, "refused: {}", error.message);
                } else {
                    tracing::warn!(req = id, %code, "refused: {}", error.message);
                }
                self.answer_failure(id, &error);
            }
            None => tracing::warn!(%code, "refused, with no id that could be answered: {message}"),
        }
        false
    }

    fn tell_failure(&self, id: u64, error: &TaskError) {
        tell_failure(self.events_wanted, Some(id), None, error);
    }

    fn answer_failure(&self, id: u64, error: &TaskError) {
        self.answers.send(&Response::<()>::failed(id, error));
    }

    fn start_waiting(&mut self) {
        if self.ended.is_some() || self.cancel.is_cancelled() {
            return;
        }
        while self.options.has_room(self.running) {
            let Some(waiting) = self.queue.pop_front() else { return };
            let Waiting { id, sector, task, weight } = waiting;
            self.answers.let_go(weight);
            self.running += 1;
            self.unanswered.add(id);
            let unanswered = self.unanswered.clone();
            let executor = Arc::clone(&self.executor);
            let answers = Arc::clone(&self.answers);
            let reports = Arc::clone(&self.device_reports);
            let events = self.events.clone();
            let mut context =
                TaskContext::new(format!("{} {sector}", E::STAGE), self.cancel.clone())
                    .recording(self.executor.corruption_log(), &sector)
                    .remembering(Arc::clone(&self.memory));
            let supervised = self.events_wanted;
            if supervised {
                let (sector, device) = (sector.clone(), self.executor.device());
                self.answers.send(&seal_wire::Event::Started(Started { id, sector, device }));
                context = context.telling(id, Arc::clone(&answers));
            }
            let work = move || {
                let whose = Whose { id, unanswered: &unanswered, sector: &sector, supervised };
                let panicked = run_task(&*executor, whose, task, (&answers, &reports), context);
                let ended = if panicked {
                    Some(Ended::Panicked)
                } else {
                    executor.is_lost().map(Ended::Lost)
                };
                // The loop outlives its tasks or the process is ending.
                let _ = events.send(Event::Done { ended });
            };
            if let Err(error) = seal_host::start_thread(&format!("task-{id}"), work) {
                self.running -= 1;
                self.unanswered.take(id);
                let message = format!("cannot start a thread for the task: {error}");
                let error = TaskError::new(ErrorCode::Unavailable, message);
                self.tell_failure(id, &error);
                self.answer_failure(id, &error);
            }
        }
    }

    /// Asks running tasks to stop and answers those that have not begun.
    fn stop(&mut self, why: &str) {
        self.cancel.cancel();
        self.deadline.get_or_insert(Instant::now() + self.options.grace);
        self.answer_waiting(&TaskError::new(ErrorCode::Cancelled, why));
    }

    /// Starts no further task; the process ends when the last one that runs has.
    fn end(&mut self, ended: Ended) {
        let why = match &ended {
            Ended::Panicked => "another task of this executor panicked".to_owned(),
            Ended::Lost(why) => {
                tracing::error!(running = self.running, "the executor ends: {why}");
                why.clone()
            }
        };
        // A panic is the graver news.
        if self.ended != Some(Ended::Panicked) {
            self.ended = Some(ended);
        }
        let message = format!("{why}, and the executor ends; send the request again");
        self.answer_waiting(&TaskError::new(ErrorCode::Unavailable, message));
    }

    fn answer_waiting(&mut self, error: &TaskError) {
        for waiting in std::mem::take(&mut self.queue) {
            self.answers.let_go(waiting.weight);
            self.answer_failure(waiting.id, error);
        }
    }
}

/// The task, or why it is none. Positions count from the start of the task, not of the line.
fn parse_task<E: Executor>(request: &RawRequest) -> Result<E::Task, String> {
    serde_json::from_str(request.task.get()).map_err(|error| shown_reason(&error))
}

/// Whose task it is.
struct Whose<'a> {
    id: u64,
    unanswered: &'a Unanswered,
    sector: &'a str,
    /// Whether the parent logs how tasks end.
    supervised: bool,
}

/// Runs one task to its answer. Returns whether it panicked.
fn run_task<E: Executor>(
    executor: &E,
    whose: Whose<'_>,
    task: E::Task,
    (answers, reports): (&Answers, &DeviceReports),
    context: TaskContext,
) -> bool {
    let Whose { id, unanswered, sector, supervised } = whose;
    let span = tracing::info_span!("task", stage = %E::STAGE, req = id, sector);
    let _in_span = span.enter();
    let context = context.within(span.clone());
    let started = Instant::now();
    tracing::info!("task starts");
    // The executor is shared, but after a panic it gets no further task: see `end`.
    let result = catch_unwind(AssertUnwindSafe(|| executor.run(task, &context)));
    drop(context);
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let panicked = result.is_err();
    let result = result.unwrap_or_else(|panic| {
        Err(TaskError::new(ErrorCode::Internal, format!("panic: {}", panic_text(&*panic))))
    });
    if !unanswered.take(id) {
        tracing::warn!(elapsed_ms, "the task ends too late: it was answered as cancelled");
        return panicked;
    }
    reports.tell(executor);
    match result {
        Ok(output) => {
            tracing::info!(elapsed_ms, "task done");
            answers.send(&Response::done(id, output));
        }
        Err(error) => {
            tell_failure(supervised, None, Some(elapsed_ms), &error);
            answers.send(&Response::<()>::failed(id, &error));
        }
    }
    panicked
}

/// Logs a failure, for people where the parent does not log it itself: it is told once.
fn tell_failure(supervised: bool, id: Option<u64>, elapsed_ms: Option<u64>, error: &TaskError) {
    let TaskError { code, message } = error;
    if supervised {
        tracing::debug!(req = id, elapsed_ms, %code, "task failed: {message}");
    } else {
        tracing::error!(req = id, elapsed_ms, %code, "task failed: {message}");
    }
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests;
