//! The loop: requests to executors, answers back, and what happens when an executor dies.
//!
//! One thread owns all state and never blocks on anything but the next event. Executors are
//! started here, because the kernel ties their lives to the thread that starts them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use seal_config::StageSettings;
use seal_limits::next_start;
use seal_types::StageName;
use seal_wire::{
    ErrorCode, ExitCode, Line, RawRequest, Response, TaskError, ready_line, salvage_id, to_line,
};

use crate::event::{Event, FromExecutor, Tag};
use crate::parent::{Outlet, await_signals, block_signals, read_requests};
use crate::place::{Answer, Next, Place, Running, State, Task, shown, understand};
use crate::process::{Process, StartError};
use crate::queue::Queue;
use crate::restart::Verdict;
use crate::semaphores::{LOOK_AGAIN, SharedSemaphores};
use crate::{Plan, RestartPolicy, RuntimeDir};

/// Events that may wait for the loop. The threads around it wait when there are more, so that a
/// babbling executor does not fill the memory.
const BACKLOG: usize = 64;

/// How often it is checked, after the end of the input, whether answers still have a reader.
const LOOK_FOR_READER: Duration = Duration::from_millis(500);

/// How long a process that closed its output may take to end by itself, and how long output is
/// still read after a process has ended.
const SETTLE: Duration = Duration::from_secs(1);

/// Times the supervisor keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The supervisor is ready when all its executors are, or when this time has passed, none
    /// has failed and one is ready.
    pub ready_within: Duration,
    /// How long an executor that is to end may take before it is killed.
    pub grace: Duration,
    /// How long a killed process may take to be gone.
    pub undead: Duration,
    /// When executors that died are started again.
    pub restart: RestartPolicy,
}

impl Timing {
    /// The times that the settings of a stage ask for.
    pub fn of(settings: &StageSettings) -> Self {
        Self {
            ready_within: settings.ready_within,
            grace: settings.grace,
            undead: settings.grace,
            restart: RestartPolicy {
                first_wait: settings.restart_wait,
                longest_wait: settings.restart_wait_max,
                give_up_after: settings.crash_loop_after,
            },
        }
    }
}

/// Runs the executors of `plan` and serves the parent until it ends its input or asks for the end.
/// Answers go to `output`.
///
/// Must be called on the main thread, before any other thread is started.
pub fn serve(
    plan: Plan,
    timing: Timing,
    runtime_dir: RuntimeDir,
    output: File,
) -> io::Result<ExitCode> {
    let signals = block_signals()?;
    let (sender, events) = sync_channel(BACKLOG);
    await_signals(signals, sender.clone())?;
    let outlet = Outlet::start(output, sender.clone())?;
    read_requests(plan.stage, sender.clone())?;
    let now = Instant::now();
    let mut supervisor = Supervisor {
        stage: plan.stage,
        timing,
        stagger: plan.stagger,
        retry: plan.settings.retry,
        places: plan.executors.into_iter().map(|plan| Place::new(plan, now)).collect(),
        semaphores: SharedSemaphores::new(runtime_dir, plan.counts),
        queue: Queue::default(),
        outstanding: BTreeSet::new(),
        outlet,
        sender,
        announced: false,
        announce_by: now + timing.ready_within,
        input_open: true,
        no_start_before: now,
        look_at: None,
        end: None,
    };
    let code = supervisor.run(&events);
    // Threads that still have something to tell must not wait for a loop that is over.
    drop(events);
    supervisor.outlet.finish(timing.grace);
    Ok(code)
}

#[derive(Debug)]
struct Supervisor {
    stage: StageName,
    timing: Timing,
    stagger: Duration,
    /// How often a request whose executor died is sent again.
    retry: u32,
    places: Vec<Place>,
    semaphores: SharedSemaphores,
    /// Requests that no executor has.
    queue: Queue,
    /// Requests that have not been answered.
    outstanding: BTreeSet<u64>,
    outlet: Outlet,
    sender: SyncSender<Event>,
    /// Whether the ready line was written.
    announced: bool,
    announce_by: Instant,
    input_open: bool,
    /// Starts of tasks keep a distance.
    no_start_before: Instant,
    /// When to look again at limits, locks or the parent, about which no event comes.
    look_at: Option<Instant>,
    /// Set when the supervisor ends.
    end: Option<End>,
}

#[derive(Clone, Debug)]
struct End {
    code: ExitCode,
    reason: String,
}

impl Supervisor {
    fn run(&mut self, events: &Receiver<Event>) -> ExitCode {
        loop {
            let now = Instant::now();
            self.keep_time(now);
            self.announce(now);
            self.start_tasks(now);
            self.end_when_drained(now);
            if let Some(end) = &self.end
                && self.places.iter().all(|place| matches!(place.state, State::Stopped))
            {
                return end.code;
            }
            // More than one event may be there: look at all before deciding what to start.
            let mut next = self.await_event(events);
            while let Some(event) = next {
                self.handle(event);
                next = events.try_recv().ok();
            }
        }
    }

    fn await_event(&self, events: &Receiver<Event>) -> Option<Event> {
        let announce = (!self.announced && self.end.is_none()).then_some(self.announce_by);
        let deadlines = self.places.iter().filter_map(Place::next).chain(self.look_at);
        // A deadline in the past means that nothing but an event helps, or is being waited out.
        let now = Instant::now();
        let deadline = deadlines.chain(announce.filter(|at| *at > now)).min();
        match deadline {
            Some(at) => events.recv_timeout(at.saturating_duration_since(now)).ok(),
            // `self.sender` keeps the channel open.
            None => events.recv().ok(),
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Input(line) => self.request(line),
            Event::InputEnded(error) => {
                match error {
                    Some(error) => tracing::error!(%error, "standard input cannot be read"),
                    None => tracing::info!(unanswered = self.outstanding.len(), "input ended"),
                }
                self.input_open = false;
            }
            Event::OutputGone(error) => {
                tracing::error!(%error, "the parent does not take answers any more");
                self.end(ExitCode::ParentGone, "the parent is gone");
            }
            Event::Signal(signal) => self.signalled(signal),
            Event::Executor { tag, what } => self.executor_event(tag, what),
        }
    }

    // ---- the parent ----

    fn request(&mut self, line: Line) {
        let text = match line {
            Line::Whole(text) if text.trim_ascii().is_empty() => return,
            // Input that ends without a line end may still be a whole request.
            Line::Whole(text) | Line::Unterminated(text) => text,
            Line::TooLong { head, length } => {
                let reason = format!(
                    "the line has {length} bytes and requests of {} may have {}",
                    self.stage,
                    self.stage.line_cap()
                );
                return self.bad_request(salvage_id(&head), &reason);
            }
        };
        match RawRequest::parse(&text) {
            Ok(request) => self.accept(request.id, text),
            Err(bad) => self.bad_request(bad.id, &bad.reason),
        }
    }

    fn accept(&mut self, id: u64, mut line: Vec<u8>) {
        if self.outstanding.contains(&id) {
            return self.bad_request(Some(id), "its id is that of a request not answered yet");
        }
        if let Some(end) = &self.end {
            let reason = format!("{}; the request was not started", end.reason);
            return self.refuse(id, ErrorCode::Cancelled, &reason);
        }
        if let Some(reason) = self.all_given_up() {
            return self.refuse(id, ErrorCode::Unavailable, &reason);
        }
        tracing::debug!(req = id, "request");
        line.push(b'\n');
        self.outstanding.insert(id);
        self.queue.add(id, line);
    }

    fn bad_request(&self, id: Option<u64>, reason: &str) {
        match id {
            // An answer would be taken for that of the first request with this id.
            Some(id) if self.outstanding.contains(&id) => {
                tracing::error!(req = id, reason, "a request repeats an id in use; it is ignored");
            }
            Some(id) => self.refuse(id, ErrorCode::BadRequest, reason),
            None => tracing::error!(reason, "a line is no request and has no id; it is ignored"),
        }
    }

    /// Answers a request with an error.
    fn refuse(&self, id: u64, code: ErrorCode, reason: &str) {
        let error = TaskError::new(code, reason);
        tracing::warn!(req = id, %error, "request failed");
        self.outlet.send(to_line(&Response::<()>::failed(id, &error)));
    }

    /// Answers outstanding requests with an error.
    fn fail(&mut self, ids: impl IntoIterator<Item = u64>, code: ErrorCode, reason: &str) {
        for id in ids {
            if self.outstanding.remove(&id) {
                self.refuse(id, code, reason);
            }
        }
    }

    fn fail_queue(&mut self, code: ErrorCode, reason: &str) {
        let ids = self.queue.clear();
        self.fail(ids, code, reason);
    }

    fn announce(&mut self, now: Instant) {
        if self.announced || self.end.is_some() {
            return;
        }
        let ready = self.places.iter().filter(|place| place.takes_tasks()).count();
        if ready == self.places.len() || (ready > 0 && now >= self.announce_by) {
            tracing::info!(ready, executors = self.places.len(), "ready");
            self.outlet.send(format!("{}\n", ready_line(self.stage)).into_bytes());
            self.announced = true;
        }
    }

    fn signalled(&mut self, signal: Signal) {
        if self.end.is_some() {
            tracing::warn!(%signal, "told again to end: executors are killed");
            let now = Instant::now();
            for running in self.places.iter_mut().filter_map(Place::running_mut) {
                if running.ended.is_none() {
                    running.next = Some((now, Next::Kill));
                }
            }
            return;
        }
        tracing::info!(%signal, "told to end");
        self.end(ExitCode::Success, &format!("the supervisor was told to end by {signal}"));
    }

    // ---- tasks ----

    /// Hands waiting requests to executors as far as rules, limits and locks let it.
    fn start_tasks(&mut self, now: Instant) {
        self.look_at = None;
        while !self.queue.is_empty() {
            if now < self.no_start_before {
                self.look_at = Some(self.no_start_before);
                break;
            }
            let places: Vec<_> = self.places.iter().map(|place| self.as_rule(place)).collect();
            if !places.iter().any(seal_limits::Place::has_room) {
                break;
            }
            // All requests here are of one kind, so the first one stands for all.
            let Some(start) = next_start([self.stage], &places, &mut self.semaphores) else {
                self.look_at = Some(now + LOOK_AGAIN);
                break;
            };
            let place = self.places.get_mut(start.place).and_then(Place::running_mut);
            if let (Some(running), Some(request)) = (place, self.queue.take()) {
                let (id, tries) = (request.id, request.tries);
                tracing::info!(req = id, pid = running.process.pid(), tries, "task starts");
                running.process.send(request.line.clone());
                let again = (tries <= self.retry).then_some(request);
                running.tasks.insert(id, Task { _held: start.held, tries, again });
                self.no_start_before = now + self.stagger;
            }
        }
        self.semaphores.end_round();
        if !self.input_open && self.announced && self.end.is_none() {
            let at = now + LOOK_FOR_READER;
            self.look_at = Some(self.look_at.map_or(at, |other| other.min(at)));
        }
    }

    fn as_rule(&self, place: &Place) -> seal_limits::Place<StageName> {
        let running = place.running().map_or(0, |running| running.tasks.len());
        seal_limits::Place {
            kind: self.stage,
            ready: self.end.is_none() && place.takes_tasks(),
            running: u32::try_from(running).unwrap_or(u32::MAX),
            concurrent: place.plan.concurrent,
            needs: place.plan.needs.clone(),
        }
    }

    /// After the end of the input: ends when everything is answered or nobody reads answers.
    fn end_when_drained(&mut self, now: Instant) {
        if self.input_open || !self.announced || self.end.is_some() {
            return;
        }
        if self.outstanding.is_empty() {
            // Executors end by themselves when their input does; a reminder comes with grace.
            self.end_from(ExitCode::Success, "the input ended", now + self.timing.grace);
        } else if !self.outlet.has_reader() {
            tracing::error!("nobody reads answers any more");
            self.end(ExitCode::ParentGone, "the parent is gone");
        }
    }

    // ---- executors ----

    /// Does what is due about the executors.
    fn keep_time(&mut self, now: Instant) {
        for index in 0..self.places.len() {
            let place = &mut self.places[index];
            if place.next().is_none_or(|at| at > now) {
                continue;
            }
            match &mut place.state {
                State::Waiting { .. } => self.start_executor(index, now),
                State::Running(running) => match running.next {
                    Some((_, Next::NotReady)) => {
                        let wait = humantime::format_duration(place.plan.stable_wait);
                        running.end(&format!("it was not ready within {wait}"), now);
                    }
                    Some((_, next)) => {
                        running.step(next, now, &self.timing);
                        let lost = next == Next::Undead && self.end.is_some();
                        if running.is_dead() || lost {
                            self.bury(index, now);
                        }
                    }
                    None => {}
                },
                State::GivenUp(_) | State::Stopped => {}
            }
        }
    }

    fn start_executor(&mut self, index: usize, now: Instant) {
        let place = &mut self.places[index];
        place.starts += 1;
        let tag = Tag { place: index, start: place.starts };
        match Process::start(&place.plan, self.stage, tag, &self.sender) {
            Ok(process) => {
                tracing::info!(
                    pid = process.pid(),
                    executor = place.plan.key,
                    program = %place.plan.program.display(),
                    start = place.starts,
                    "executor starts"
                );
                let ready_by = now + place.plan.stable_wait;
                place.state = State::Running(Running::new(process, ready_by));
            }
            Err(error) => self.failed_to_start(index, &error, now),
        }
    }

    fn failed_to_start(&mut self, index: usize, error: &StartError, now: Instant) {
        let error = TaskError::from_error(ErrorCode::Unavailable, error).message;
        self.after_death(index, None, &error, now);
    }

    fn executor_event(&mut self, tag: Tag, what: FromExecutor) {
        let now = Instant::now();
        let grace = self.timing.grace;
        let Some(running) = self.places.get_mut(tag.place).and_then(|place| place.tagged(tag))
        else {
            return;
        };
        let pid = running.process.pid();
        match what {
            FromExecutor::Line(line) if running.ready.is_none() => {
                self.before_ready(tag.place, &line, now);
            }
            FromExecutor::Line(line) => self.answer(tag.place, line),
            FromExecutor::OutputEnded => {
                running.output_open = false;
                if running.ended.is_none() {
                    running.end("it closed its standard output", now + SETTLE.min(grace));
                }
            }
            FromExecutor::InputClosed(error) => {
                tracing::debug!(pid, %error, "an executor does not read its input");
                running.end("it does not read its standard input", now + SETTLE.min(grace));
            }
            FromExecutor::Ended(ending) => {
                running.ended = Some(match ending {
                    Ok(ending) => ending.to_string(),
                    Err(error) => format!("is gone ({error})"),
                });
                // What it left behind in its group must not go on with the task or the GPU.
                running.process.signal(Signal::SIGKILL);
                running.next = Some((now + SETTLE, Next::StopReading));
            }
        }
        let place = self.places.get(tag.place).and_then(Place::running);
        if place.is_some_and(Running::is_dead) {
            self.bury(tag.place, now);
        }
    }

    fn before_ready(&mut self, index: usize, line: &Line, now: Instant) {
        let expected = ready_line(self.stage);
        let place = &mut self.places[index];
        let Some(running) = place.running_mut() else { return };
        let pid = running.process.pid();
        if !matches!(line, Line::Whole(text) if text.trim_ascii_end() == expected.as_bytes()) {
            let text = shown(line);
            tracing::warn!(pid, text, "an executor wrote something before its ready line");
        } else if !running.is_ending() {
            running.ready = Some(now);
            running.next = None;
            tracing::info!(pid, executor = place.plan.key, "executor is ready");
        }
    }

    fn answer(&mut self, index: usize, line: Line) {
        let place = &mut self.places[index];
        let name = place.name();
        let Some(running) = place.running_mut() else { return };
        let pid = running.process.pid();
        match understand(line) {
            Answer::Whole { id, line } => {
                if running.tasks.remove(&id).is_none() {
                    tracing::warn!(req = id, pid, "an answer to no request of this executor");
                    return;
                }
                place.history.answered();
                self.outstanding.remove(&id);
                tracing::info!(req = id, pid, "task ends");
                self.outlet.send(line);
            }
            Answer::Broken { id, reason } => {
                if running.tasks.remove(&id).is_none() {
                    tracing::warn!(req = id, pid, reason, "a broken answer to no request");
                    return;
                }
                let reason = format!("{name} (pid {pid}) wrote a broken answer: {reason}");
                self.fail([id], ErrorCode::Internal, &reason);
            }
            Answer::Junk { reason } => {
                tracing::warn!(pid, reason, "an executor wrote a line that is no answer");
            }
        }
    }

    /// Accounts for an executor whose process has ended: answers its requests, releases what they
    /// held, decides about a restart.
    fn bury(&mut self, index: usize, now: Instant) {
        let place = &mut self.places[index];
        let name = place.name();
        let State::Running(running) = std::mem::replace(&mut place.state, State::Stopped) else {
            return;
        };
        let pid = running.process.pid();
        let ending = running.ended.as_deref().unwrap_or("survives SIGKILL");
        let mut story = format!("{name} (pid {pid}, stage {}) {ending}", self.stage);
        if let Some(why) = running.why.as_ref().filter(|_| running.signalled) {
            story.push_str(&format!(", because {why}"));
        }
        if running.ended.is_some() {
            running.process.reap();
        }
        tracing::info!(pid, story, unanswered = running.tasks.len(), "executor ended");
        let lived = running.ready.map(|ready| now.saturating_duration_since(ready));
        // What tasks hold is released before the answers go out: the parent may send the next one
        // at once.
        let tasks: Vec<_> = running
            .tasks
            .into_iter()
            .map(|(id, Task { tries, again, .. })| (id, tries, again))
            .collect();
        if let Some(end) = self.end.clone() {
            let ids = tasks.into_iter().map(|(id, ..)| id);
            return self.fail(ids, ErrorCode::Cancelled, &end.reason);
        }
        for (id, tries, again) in tasks {
            match again {
                Some(request) => {
                    tracing::warn!(req = id, tries, story, "the task is sent again");
                    self.queue.put_back(request);
                }
                None => self.fail([id], ErrorCode::ExecutorDied, &told_of_death(&story, tries)),
            }
        }
        self.after_death(index, lived, &story, now);
    }

    /// Decides what becomes of an executor that died or could not be started.
    fn after_death(&mut self, index: usize, lived: Option<Duration>, story: &str, now: Instant) {
        if !self.announced {
            tracing::error!(executor = self.places[index].plan.key, story, "the start fails");
            self.places[index].state = State::Stopped;
            let reason = format!("the supervisor could not start: {story}");
            return self.end(ExitCode::Start, &reason);
        }
        let place = &mut self.places[index];
        let verdict = place.history.died(lived, &self.timing.restart);
        let given_up = match verdict {
            _ if !place.plan.auto_restart => "auto_restart is off".to_owned(),
            Verdict::GiveUp { failed_starts } => format!("{failed_starts} starts in a row failed"),
            Verdict::StartAfter(wait) => {
                let wait_ms = wait.as_millis();
                tracing::warn!(executor = place.plan.key, story, wait_ms, "restart");
                place.state = State::Waiting { until: now + wait };
                return;
            }
        };
        tracing::error!(executor = place.plan.key, story, given_up, "executor is given up");
        place.state = State::GivenUp(format!("{}: {story}; {given_up}", place.plan.key));
        if let Some(reason) = self.all_given_up() {
            self.fail_queue(ErrorCode::Unavailable, &reason);
        }
    }

    /// Why no executor will ever take a task again, if that is so.
    fn all_given_up(&self) -> Option<String> {
        let mut reasons = Vec::new();
        for place in &self.places {
            match &place.state {
                State::GivenUp(reason) => reasons.push(reason.as_str()),
                _ => return None,
            }
        }
        Some(format!(
            "all executors of {} are given up; correct the cause and restart the supervisor ({})",
            self.stage,
            reasons.join("; ")
        ))
    }

    // ---- the end ----

    fn end(&mut self, code: ExitCode, reason: &str) {
        self.end_from(code, reason, Instant::now());
    }

    /// Ends the supervisor: closes the executors' input, and ends from `from` on those that do not
    /// end by themselves. What has not been started is cancelled.
    fn end_from(&mut self, code: ExitCode, reason: &str, from: Instant) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(End { code, reason: reason.to_owned() });
        self.fail_queue(ErrorCode::Cancelled, reason);
        for place in &mut self.places {
            match &mut place.state {
                State::Running(running) => {
                    running.process.close_input();
                    running.end(reason, from);
                }
                State::Waiting { .. } | State::GivenUp(_) | State::Stopped => {
                    place.state = State::Stopped;
                }
            }
        }
    }
}

/// What the parent is told of a task whose executor died.
fn told_of_death(story: &str, tries: u32) -> String {
    let tried = if tries > 1 { format!(", which was tried {tries} times") } else { String::new() };
    format!("{story}, while it had this task{tried}; the task can be sent again")
}
