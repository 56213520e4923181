//! The request loop of an executor.
//!
//! One thread reads requests, one runs this loop, and each task has a thread of its own. What
//! happens reaches the loop as an event; only the loop decides what starts and when the process
//! ends.
//!
//! The end: when the input ends, the parent is gone or wants no more. If somebody still reads the
//! answers, the tasks at hand are done first; if nobody does, they are stopped at their next
//! checkpoint. SIGTERM, SIGINT and SIGHUP stop them too, with an answer; those of them that were
//! ignored when the process began stay ignored. A task that has not come to a
//! checkpoint within the grace is answered by the loop, and the process ends under it.

use std::any::Any;
use std::collections::{HashSet, VecDeque};
use std::io::{self, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use seal_wire::{
    EVENTS, ErrorCode, ExitCode, Line, LineReader, RawRequest, Response, Started, TaskError,
    ready_line, salvage_id,
};
use serde::de::Error as _;

use crate::answers::Answers;
use crate::device_reports::DeviceReports;
use crate::{CancelToken, Environment, Executor, TaskContext};

/// How an executor serves.
#[derive(Clone, Copy, Debug)]
pub struct ServeOptions {
    /// Tasks that run at the same time; the others wait in their order.
    pub concurrent: usize,
    /// How long cancelled tasks may take to reach a checkpoint before the process ends anyway.
    pub grace: Duration,
}

impl ServeOptions {
    /// So many tasks at a time, and time enough to reach a checkpoint of any stage.
    pub fn concurrent(concurrent: usize) -> Self {
        Self { concurrent, grace: Duration::from_secs(10) }
    }
}

/// How often the loop looks whether somebody still reads its answers.
const LOOK_EVERY: Duration = Duration::from_millis(500);

enum Event {
    Line(Line),
    EndOfInput,
    Done { id: u64, ended: Option<Ended> },
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
    let events_wanted = match wants_events(&Environment::of_process()) {
        Ok(wanted) => wanted,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::Config;
        }
    };
    let answers = match seal_host::claim_stdout() {
        Ok(output) => Arc::new(Answers::new(output)),
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
    if let Err(error) = answers.send_line(format!("{ready}\n").as_bytes()) {
        tracing::error!(%error, "nobody reads the ready line");
        return ExitCode::ParentGone;
    }
    // Without a limit nothing is said of one.
    let concurrent = (options.concurrent < usize::MAX).then_some(options.concurrent);
    tracing::info!(stage = %E::STAGE, pid = std::process::id(), concurrent, "{ready}");
    read_input(E::STAGE.line_cap(), events.clone());
    Loop {
        executor,
        options,
        device_reports: Arc::new(DeviceReports::new(Arc::clone(&answers), events_wanted)),
        answers,
        events_wanted,
        events,
        cancel: CancelToken::default(),
        unanswered: Unanswered::default(),
        running: HashSet::new(),
        queue: VecDeque::new(),
        input_ended: false,
        ended: None,
        deadline: None,
    }
    .run(&inbox)
}

/// Whether the parent asks for events.
fn wants_events(environment: &Environment) -> Result<bool, String> {
    match environment.get(EVENTS).as_deref() {
        None | Some("" | "0") => Ok(false),
        Some("1") => Ok(true),
        Some(other) => Err(format!("{EVENTS}={other:?}: it is 0 or 1")),
    }
}

fn watch_signals(events: Sender<Event>) -> io::Result<()> {
    let heeded = seal_host::ending_signals()?;
    seal_host::unblock(&heeded)?;
    let numbers = heeded.into_iter().map(|signal| signal as i32);
    let mut signals = signal_hook::iterator::Signals::new(numbers)?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in &mut signals {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

fn read_input(cap: usize, events: Sender<Event>) {
    std::thread::spawn(move || {
        let mut lines = LineReader::new(BufReader::with_capacity(1 << 16, io::stdin()), cap);
        loop {
            let event = match lines.next_line() {
                Ok(Some(line)) => Event::Line(line),
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
    });
}

/// The running tasks that have no answer yet. Whoever takes an id out answers it, so that none is
/// answered twice.
#[derive(Clone, Default)]
struct Unanswered(Arc<Mutex<HashSet<u64>>>);

impl Unanswered {
    fn add(&self, id: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
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
}

struct Loop<E: Executor> {
    executor: Arc<E>,
    options: ServeOptions,
    answers: Arc<Answers>,
    device_reports: Arc<DeviceReports>,
    events_wanted: bool,
    events: Sender<Event>,
    cancel: CancelToken,
    unanswered: Unanswered,
    running: HashSet<u64>,
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
                    running = self.running.len(),
                    waiting = self.queue.len(),
                    "nobody reads the answers any more: the parent is gone"
                );
                self.stop("the parent is gone");
                self.input_ended = true;
            }
            let idle = self.running.is_empty() && self.queue.is_empty();
            let over = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if idle && (self.ended.is_some() || self.input_ended) || over {
                self.answer_running();
                return self.exit_code();
            }
        }
    }

    /// Answers the tasks under which the process ends.
    fn answer_running(&self) {
        let grace = self.options.grace;
        for id in self.running.iter().copied().filter(|id| self.unanswered.take(*id)) {
            let message = format!(
                "the executor was told to end and the task did not stop within {grace:?}; the \
                 executor ends without it"
            );
            let error = TaskError::new(ErrorCode::Cancelled, message);
            tracing::error!(req = id, code = %error.code, "task failed: {}", error.message);
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
                tracing::info!(
                    running = self.running.len(),
                    waiting = self.queue.len(),
                    "end of input"
                );
                self.input_ended = true;
            }
            Event::Done { id, ended } => {
                self.running.remove(&id);
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
        let bytes = match line {
            Line::Whole(bytes) | Line::Unterminated(bytes) => bytes,
            Line::TooLong { head, length } => {
                let cap = E::STAGE.line_cap();
                let message = format!("a request line of {length} bytes is over the {cap} allowed");
                return self.refuse(salvage_id(&head), ErrorCode::BadRequest, message);
            }
        };
        if bytes.trim_ascii().is_empty() {
            return;
        }
        let request = match RawRequest::parse(&bytes) {
            Ok(request) => request,
            Err(bad) => return self.refuse(bad.id, ErrorCode::BadRequest, bad.to_string()),
        };
        let id = request.id;
        if self.running.contains(&id) || self.queue.iter().any(|waiting| waiting.id == id) {
            // An answer would be taken for that of the first.
            tracing::error!(
                req = id,
                "a request repeats the id of an unanswered one and is dropped"
            );
            return;
        }
        if self.cancel.is_cancelled() || self.ended.is_some() {
            let message = "the executor is ending and takes no tasks; send the request again";
            return self.refuse(Some(id), ErrorCode::Unavailable, message.to_owned());
        }
        match parse_task::<E>(&request) {
            Ok(task) => {
                let sector = E::sector(&task);
                if self.running.len() >= self.options.concurrent {
                    tracing::info!(req = id, sector, running = self.running.len(), "task waits");
                }
                self.queue.push_back(Waiting { id, sector, task });
            }
            Err(error) => {
                let message = format!("not a task of {}: {error}", E::STAGE);
                self.refuse(Some(id), ErrorCode::BadRequest, message);
            }
        }
    }

    fn refuse(&self, id: Option<u64>, code: ErrorCode, message: String) {
        tracing::warn!(req = id, code = %code, "refused: {message}");
        if let Some(id) = id {
            self.answer_failure(id, &TaskError::new(code, message));
        }
    }

    fn answer_failure(&self, id: u64, error: &TaskError) {
        send(&self.answers, &Response::<()>::failed(id, error));
    }

    fn start_waiting(&mut self) {
        if self.ended.is_some() || self.cancel.is_cancelled() {
            return;
        }
        while self.running.len() < self.options.concurrent.max(1) {
            let Some(Waiting { id, sector, task }) = self.queue.pop_front() else { return };
            self.running.insert(id);
            self.unanswered.add(id);
            let unanswered = self.unanswered.clone();
            let executor = Arc::clone(&self.executor);
            let answers = Arc::clone(&self.answers);
            let reports = Arc::clone(&self.device_reports);
            let events = self.events.clone();
            let mut context =
                TaskContext::new(format!("{} {sector}", E::STAGE), self.cancel.clone());
            if self.events_wanted {
                let (sector, device) = (sector.clone(), self.executor.device());
                send(&answers, &seal_wire::Event::Started(Started { id, sector, device }));
                context = context.telling(id, Arc::clone(&answers));
            }
            let work = move || {
                let outputs = (&*answers, &*reports);
                let panicked =
                    run_task(&*executor, (id, &unanswered), &sector, task, outputs, context);
                let ended = if panicked {
                    Some(Ended::Panicked)
                } else {
                    executor.is_lost().map(Ended::Lost)
                };
                // The loop outlives its tasks or the process is ending.
                let _ = events.send(Event::Done { id, ended });
            };
            if let Err(error) = std::thread::Builder::new().name(format!("task-{id}")).spawn(work) {
                self.running.remove(&id);
                self.unanswered.take(id);
                let message = format!("cannot start a thread for the task: {error}");
                self.answer_failure(id, &TaskError::new(ErrorCode::Unavailable, message));
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
                tracing::error!(running = self.running.len(), "the executor ends: {why}");
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
            self.answer_failure(waiting.id, error);
        }
    }
}

fn parse_task<E: Executor>(request: &RawRequest) -> serde_json::Result<E::Task> {
    let text = request.task.get();
    serde_json::from_str(text).map_err(|error| {
        // Positions count from the start of the task, not of the line.
        serde_json::Error::custom(error)
    })
}

/// Runs one task to its answer. Returns whether it panicked.
fn run_task<E: Executor>(
    executor: &E,
    (id, unanswered): (u64, &Unanswered),
    sector: &str,
    task: E::Task,
    (answers, reports): (&Answers, &DeviceReports),
    context: TaskContext,
) -> bool {
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
            send(answers, &Response::done(id, output));
        }
        Err(error) => {
            tracing::error!(elapsed_ms, code = %error.code, "task failed: {}", error.message);
            send(answers, &Response::<()>::failed(id, &error));
        }
    }
    panicked
}

fn send<T: serde::Serialize>(answers: &Answers, message: &T) {
    if let Err(error) = answers.send(message) {
        tracing::error!(%error, "cannot write an answer");
    }
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, PipeReader};
    use std::sync::mpsc::SyncSender;

    use seal_types::Stage;
    use seal_wire::{DeviceReport, DeviceStanding};

    use super::*;

    /// Never looks whether to stop; ends when the test lets go of the other end.
    struct Deaf {
        begun: SyncSender<()>,
        released: Mutex<Receiver<()>>,
    }

    impl Executor for Deaf {
        const STAGE: Stage = Stage::C2;
        type Task = u64;
        type Output = u64;

        fn sector(task: &u64) -> String {
            task.to_string()
        }

        fn run(&self, task: u64, _: &TaskContext) -> Result<u64, TaskError> {
            self.begun.send(()).expect("the test waits for it");
            let _ = self.released.lock().expect("one task").recv();
            Ok(task)
        }
    }

    fn answers() -> (PipeReader, Arc<Answers>) {
        let (reader, writer) = io::pipe().expect("a pipe");
        let file = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
        (reader, Arc::new(Answers::new(file)))
    }

    /// A loop of `executor` with its inbox at hand.
    fn serving<E: Executor>(executor: E, answers: Arc<Answers>, events: Sender<Event>) -> Loop<E> {
        Loop {
            executor: Arc::new(executor),
            options: ServeOptions { concurrent: 1, grace: Duration::from_millis(50) },
            device_reports: Arc::new(DeviceReports::new(Arc::clone(&answers), false)),
            answers,
            events_wanted: false,
            events,
            cancel: CancelToken::default(),
            unanswered: Unanswered::default(),
            running: HashSet::new(),
            queue: VecDeque::new(),
            input_ended: false,
            ended: None,
            deadline: None,
        }
    }

    fn request(id: u64) -> Event {
        Event::Line(Line::Whole(format!("{{\"id\":{id},\"task\":1}}").into_bytes()))
    }

    /// Its device is lost by the second task.
    struct Losing {
        tasks: std::sync::atomic::AtomicU64,
    }

    impl Executor for Losing {
        const STAGE: Stage = Stage::Pc2;
        type Task = u64;
        type Output = u64;

        fn sector(task: &u64) -> String {
            task.to_string()
        }

        fn run(&self, task: u64, _: &TaskContext) -> Result<u64, TaskError> {
            let before = self.tasks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if before == 1 {
                return Err(TaskError::new(ErrorCode::Unavailable, "the device failed"));
            }
            Ok(task)
        }

        fn is_lost(&self) -> Option<String> {
            let tasks = self.tasks.load(std::sync::atomic::Ordering::Relaxed);
            (tasks > 1).then(|| "device 7 is lost".to_owned())
        }
    }

    #[test]
    fn a_lost_device_ends_the_process_after_the_answers() {
        let (reader, answers) = answers();
        let (events, inbox) = mpsc::channel();
        let serve = serving(Losing { tasks: 0.into() }, answers, events.clone());
        for id in [7, 8, 9] {
            events.send(request(id)).expect("it listens");
        }
        // The input stays open.
        assert_eq!(serve.run(&inbox), ExitCode::DeviceLost);
        let lines: Vec<String> =
            BufReader::new(reader).lines().map(|line| line.expect("text")).collect();
        let [done, failed, refused] = &lines[..] else { panic!("three answers: {lines:?}") };
        assert!(done.contains("\"id\":7") && done.contains("\"output\":1"), "{done}");
        assert!(failed.contains("\"id\":8") && failed.contains("the device failed"), "{failed}");
        assert!(refused.contains("\"id\":9") && refused.contains("[unavailable]"), "{refused}");
        assert!(refused.contains("device 7 is lost") && refused.contains("again"), "{refused}");
    }

    /// Its device computes every second task wrongly.
    struct Doubtful {
        tasks: std::sync::atomic::AtomicU64,
    }

    impl Executor for Doubtful {
        const STAGE: Stage = Stage::Pc2;
        type Task = u64;
        type Output = u64;

        fn sector(task: &u64) -> String {
            task.to_string()
        }

        fn run(&self, task: u64, _: &TaskContext) -> Result<u64, TaskError> {
            self.tasks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(task)
        }

        fn device_report(&self) -> Option<DeviceReport> {
            let wrong = self.tasks.load(std::sync::atomic::Ordering::Relaxed) / 2;
            let standing = if wrong == 0 { DeviceStanding::Good } else { DeviceStanding::Suspect };
            let device = "device 7".to_owned();
            Some(DeviceReport { device, standing, wrong, reason: None, replaced_by: None })
        }
    }

    fn telling<E: Executor>(events_wanted: bool, serve: Loop<E>) -> Loop<E> {
        let reports = DeviceReports::new(Arc::clone(&serve.answers), events_wanted);
        Loop { events_wanted, device_reports: Arc::new(reports), ..serve }
    }

    /// By the answer a supervisor gives the executor the next request, if it knows nothing against
    /// it.
    #[test]
    fn a_device_is_reported_before_the_answer_that_it_is_to_blame_for() {
        let (reader, answers) = answers();
        let (events, inbox) = mpsc::channel();
        let doubtful = Doubtful { tasks: 0.into() };
        let serve = telling(true, serving(doubtful, answers, events.clone()));
        for id in 1..=4 {
            events.send(request(id)).expect("it listens");
        }
        events.send(Event::EndOfInput).expect("it listens");
        assert!(matches!(serve.run(&inbox), ExitCode::Success));
        let lines: Vec<String> =
            BufReader::new(reader).lines().map(|line| line.expect("text")).collect();
        let place = |parts: [&str; 2]| {
            lines.iter().position(|line| parts.iter().all(|part| line.contains(part)))
        };
        for (wrong, id) in [(1, 2), (2, 4)] {
            let report = place(["\"standing\":\"suspect\"", &format!("\"wrong\":{wrong}")]);
            let answer = place(["\"output\":1", &format!("\"id\":{id}")]);
            assert!(report.expect("told") < answer.expect("an answer"), "{lines:?}");
        }
    }

    #[test]
    fn what_is_thought_of_a_device_is_told_at_the_start_and_when_it_changes() {
        for events_wanted in [true, false] {
            let executor = Doubtful { tasks: 0.into() };
            let (reader, answers) = answers();
            let (events, inbox) = mpsc::channel();
            let serve = telling(events_wanted, serving(executor, answers, events.clone()));
            for id in 1..=4 {
                events.send(request(id)).expect("it listens");
            }
            events.send(Event::EndOfInput).expect("it listens");
            assert!(matches!(serve.run(&inbox), ExitCode::Success));
            let reports: Vec<_> = BufReader::new(reader)
                .lines()
                .filter_map(|line| match seal_wire::Event::parse(line.expect("text").as_bytes()) {
                    Ok(seal_wire::Event::Device(report)) => Some((report.standing, report.wrong)),
                    _ => None,
                })
                .collect();
            let expected = [
                (DeviceStanding::Good, 0),
                (DeviceStanding::Suspect, 1),
                (DeviceStanding::Suspect, 2),
            ];
            assert_eq!(reports, if events_wanted { &expected[..] } else { &[] });
        }
    }

    #[test]
    fn a_task_that_does_not_stop_within_the_grace_is_answered_once_and_left() {
        let (begun, has_begun) = mpsc::sync_channel(1);
        let (release, released) = mpsc::channel();
        let executor = Deaf { begun, released: Mutex::new(released) };
        let (reader, answers) = answers();
        let (events, inbox) = mpsc::channel();
        let serve = serving(executor, answers, events.clone());
        let unanswered = serve.unanswered.clone();
        let code = std::thread::scope(|scope| {
            let looped = scope.spawn(move || serve.run(&inbox));
            for id in [7, 8] {
                events.send(request(id)).expect("it listens");
            }
            has_begun.recv().expect("the first task begins");
            events.send(Event::Signal(15)).expect("it listens");
            looped.join().expect("no panic")
        });
        assert!(matches!(code, ExitCode::Success), "{code:?}");
        // The task ends after the loop and finds that it has been answered.
        drop(release);
        assert!(!unanswered.take(7));
        let lines: Vec<String> =
            BufReader::new(reader).lines().map(|line| line.expect("text")).collect();
        let [waiting, running] = &lines[..] else { panic!("two answers: {lines:?}") };
        assert!(waiting.contains("\"id\":8") && waiting.contains("told to end"), "{waiting}");
        assert!(running.contains("\"id\":7"), "{running}");
        assert!(running.contains("[cancelled]") && running.contains("within 50ms"), "{running}");
    }
}
