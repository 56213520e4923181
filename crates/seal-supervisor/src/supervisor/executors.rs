//! Executors: their starts, what happens to them, their deaths, and the next start.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use seal_config::Drain;
use seal_host::{ENDING_TAKES, Ending};
use seal_limits::AfterDeath;
use seal_wire::{ErrorCode, ExitCode, Line, TaskError, ready_line};

use super::Supervisor;
use super::requests::Whose;
use crate::event::{FromExecutor, Tag};
use crate::limits::ExecutorSlots;
use crate::place::{Next, Place, Running, State, shown};
use crate::process::{Equipment, Process};
use crate::strays::{self, Mark};
use crate::watched_file::LOOK_AT_FILE;

/// How long a process that closed its output may take to end by itself, and how long output is
/// still read after a process has ended.
const SETTLE: Duration = Duration::from_secs(1);

/// How long the kernel may take to be done with an executor that was killed.
const FLUSH: Duration = Duration::from_secs(60);

/// How long a task may take that is finished at the end, where there is no `deadline`: no stage of a
/// sector takes a day.
const TASK_TAKES: Duration = Duration::from_secs(24 * 3600);

/// How often it is checked whether this supervisor's sign of life is still there.
const LOOK_AT_LIFE: Duration = Duration::from_secs(5);

impl Supervisor {
    /// Does what is due about the executors.
    pub(super) fn keep_time(&mut self, now: Instant) {
        for index in 0..self.places.len() {
            let times = self.times;
            let place = &mut self.places[index];
            if place.next(times).is_none_or(|at| at > now) {
                continue;
            }
            match &mut place.state {
                State::Waiting { .. } => self.start_executor(index, now),
                State::Running(running) => {
                    if let Some(overdue) = running.overdue(times, now) {
                        let pid = running.process.pid();
                        tracing::error!(
                            req = overdue.id,
                            pid,
                            why = overdue.why,
                            "a task takes too long; its executor is ended"
                        );
                        if let Some(task) = running.tasks.get_mut(&overdue.id) {
                            task.again = task.again.take().filter(|_| overdue.again);
                        }
                        running.end(&overdue.why, now);
                    }
                    match running.next.filter(|(at, _)| *at <= now) {
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
                    }
                }
                State::GivenUp(_) | State::Stopped => {}
            }
            self.publish_soon();
        }
    }

    fn start_executor(&mut self, index: usize, now: Instant) {
        self.show_life(now);
        let place = &mut self.places[index];
        place.starts += 1;
        let tag = Tag { service: self.service, place: index, start: place.starts };
        let prepared = self
            .limits
            .open_for(&place.plan.needs)
            .and_then(|slots| slots.share().map(|inherit| (slots, inherit)));
        let (slots, inherit) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                let error = TaskError::from_error(ErrorCode::Unavailable, &error).message;
                return self.after_death(index, None, &error, now);
            }
        };
        let mark = self.mark.as_ref().map(|mark| mark.of_executor(index, tag.start));
        let runtime_dir = self.runtime_dir.path().to_path_buf();
        let lock_wait = lock_wait(self.timing.grace, self.drain, self.times.deadline);
        let equipment = Equipment { inherit, mark, runtime_dir, lock_wait };
        match Process::start(&place.plan, self.stage, tag, &self.sender, equipment) {
            Ok(process) => self.started(index, process, slots, now),
            Err(error) => {
                let error = TaskError::from_error(ErrorCode::Unavailable, &error).message;
                self.after_death(index, None, &error, now);
            }
        }
    }

    /// Shows again that this supervisor lives where its file was removed: without it nobody would
    /// ever end what its executors leave, should it die.
    pub(super) fn show_life(&mut self, now: Instant) {
        self.look_at_life_at = now + LOOK_AT_LIFE;
        match self.life.renew() {
            Ok(false) => {}
            Ok(true) => self.mark = Mark::own(self.runtime_dir.path(), self.life.name()),
            // Nobody can see then that this supervisor lives, and nobody takes it for dead.
            Err(error) => {
                let text = format!("the sign of life is not shown: {error}: {}", error.source);
                if self.said.is_due(&text, now) {
                    tracing::warn!("{text}");
                }
            }
        }
    }

    fn started(&mut self, index: usize, process: Process, slots: ExecutorSlots, now: Instant) {
        let place = &mut self.places[index];
        tracing::info!(
            pid = process.pid(),
            executor = place.plan.key,
            program = %place.plan.program.display(),
            start = place.starts,
            "executor starts"
        );
        let ready_by = now + place.plan.stable_wait;
        place.enter(State::Running(Box::new(Running::new(process, slots, ready_by))));
    }

    pub(super) fn executor_event(&mut self, tag: Tag, what: FromExecutor) {
        let now = Instant::now();
        let grace = self.timing.grace;
        // Of an executor of a former plan.
        if tag.service != self.service {
            return;
        }
        let Some(running) = self.places.get_mut(tag.place).and_then(|place| place.tagged(tag))
        else {
            return;
        };
        let pid = running.process.pid();
        match what {
            FromExecutor::Line(line) if running.ready.is_none() => {
                self.before_ready(tag.place, &line, now);
            }
            FromExecutor::Line(line) => self.line(tag.place, line, now),
            FromExecutor::OutputEnded => {
                running.output_open = false;
                if running.ended.is_none() {
                    running.has_closed("it closed its standard output", now + SETTLE.min(grace));
                }
            }
            FromExecutor::LogEnded => running.log_open = false,
            FromExecutor::InputClosed(error) => {
                tracing::debug!(pid, %error, "an executor does not read its input");
                running.has_closed("it does not read its standard input", now + SETTLE.min(grace));
            }
            FromExecutor::Ended(ending) => {
                let mut ended = match &ending {
                    Ok(ending) => ending.to_string(),
                    Err(error) => format!("is gone ({error})"),
                };
                let killed =
                    matches!(ending, Ok(Ending::Signalled { signal: Signal::SIGKILL, .. }));
                if killed
                    && !running.killed
                    && let Some(why) = running.process.out_of_memory()
                {
                    ended.push_str(&format!(" ({why})"));
                }
                let by_signal = matches!(ending, Ok(Ending::Signalled { .. }));
                running.crashed = by_signal && !running.signalled;
                running.ended = Some(ended);
                // What it left behind in its group must not go on with the task or the GPU.
                running.process.signal(Signal::SIGKILL);
                running.next = Some((now + SETTLE, Next::StopReading));
                let (searches, events) = (self.life.searches(), self.sender.clone());
                running.seeks_strays = self
                    .mark
                    .clone()
                    .is_some_and(|mark| strays::seek(mark, searches, tag, pid, events));
            }
            FromExecutor::StraysEnded => running.seeks_strays = false,
        }
        let place = self.places.get(tag.place).and_then(Place::running);
        if place.is_some_and(Running::is_dead) {
            self.bury(tag.place, now);
        }
    }

    fn before_ready(&mut self, index: usize, line: &Line, now: Instant) {
        let expected = ready_line(self.stage);
        let place = &mut self.places[index];
        let key = place.plan.key.clone();
        let Some(running) = place.running_mut() else { return };
        let pid = running.process.pid();
        if !matches!(line, Line::Whole(text) if text.trim_ascii_end() == expected.as_bytes()) {
            let text = shown(line);
            tracing::warn!(pid, text, "an executor wrote something before its ready line");
        } else if !running.is_ending() {
            running.ready = Some(now);
            self.was_ready = true;
            running.next = None;
            place.since = std::time::SystemTime::now();
            tracing::info!(pid, executor = key, "executor is ready");
        }
    }

    /// Accounts for an executor whose process has ended: answers its requests, releases what they
    /// held, decides about a restart.
    fn bury(&mut self, index: usize, now: Instant) {
        let place = &mut self.places[index];
        let name = place.name();
        let State::Running(running) = place.enter(State::Stopped) else { return };
        let pid = running.process.pid();
        let ending = running.ended.as_deref().unwrap_or("survives SIGKILL");
        let mut story = format!("{name} (pid {pid}, stage {}) {ending}", self.stage);
        if let Some(why) = running.why.as_ref().filter(|_| running.signalled) {
            story.push_str(&format!(", because {why}"));
        }
        let last_words = running.process.last_words();
        place.last_end = Some(story.clone());
        if running.has_died() {
            self.totals.deaths += 1;
        }
        tracing::info!(pid, story, unanswered = running.tasks.len(), "executor ended");
        let lived = running.ready.map(|ready| now.saturating_duration_since(ready));
        let Running { process, slots, tasks, ended, .. } = *running;
        // What tasks hold is released before the answers go out: the parent may send the next one
        // at once. The kernel keeps it for what the executor left behind, if anything still lives.
        let mut lost = Vec::new();
        for (id, mut task) in tasks {
            std::mem::take(&mut task.held).leave_to_kernel();
            lost.push((id, task));
        }
        drop(slots);
        if ended.is_some() {
            process.reap();
        }
        for (id, mut task) in lost {
            let (again, tries) = (task.again.take(), task.tries);
            let sector = task.sector.clone();
            let whose = Whose { sector: sector.as_deref(), pid: Some(pid) };
            if let Some(end) = self.end.clone() {
                self.remember(index, id, task, Some(end.reason.clone()), now);
                self.fail(id, whose, ErrorCode::Cancelled, &end.reason);
            } else if let Some(request) = again {
                tracing::warn!(
                    req = id,
                    sector = whose.sector,
                    pid,
                    tries,
                    story,
                    "the task is sent again"
                );
                self.totals.again += 1;
                self.queue.put_back(request, now);
            } else {
                let reason = told_of_death(&story, tries, &last_words);
                let error = TaskError::new(ErrorCode::ExecutorDied, reason.clone()).to_string();
                self.remember(index, id, task, Some(error), now);
                self.fail(id, whose, ErrorCode::ExecutorDied, &reason);
            }
        }
        if self.end.is_none() {
            self.after_death(index, lived, &story, now);
        }
    }

    /// Decides what becomes of an executor that died or could not be started.
    fn after_death(&mut self, index: usize, lived: Option<Duration>, story: &str, now: Instant) {
        if !self.announced && !self.waits_with_faults() {
            tracing::error!(executor = self.places[index].plan.key, story, "the start fails");
            self.places[index].enter(State::Stopped);
            let reason = format!("the supervisor could not start: {story}");
            return self.end_from(ExitCode::Start, &reason, now);
        }
        let place = &mut self.places[index];
        let key = place.plan.key.clone();
        place.last_end = Some(story.to_owned());
        let (until, looping) = match place.history.died(lived, &self.timing.restart) {
            _ if !place.plan.auto_restart => {
                let given_up = "auto_restart is off";
                tracing::error!(executor = key, story, given_up, "executor is given up");
                place.enter(State::GivenUp(format!("{key}: {story}; {given_up}")));
                return self.fail_if_none_left();
            }
            AfterDeath::Start { wait } => {
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(executor = key, story, wait_ms, "restart");
                (now + wait, None)
            }
            AfterDeath::CrashLoop { wait, failed_starts } => {
                let every = humantime::format_duration(wait);
                let looping = format!("{failed_starts} starts in a row failed");
                tracing::error!(
                    executor = key,
                    story,
                    looping,
                    "executor is in a crash loop; it is tried again every {every}"
                );
                (now + wait, Some(format!("{key}: {story}; {looping}, next try within {every}")))
            }
        };
        place.enter(State::Waiting { until, looping });
        self.fail_if_none_left();
    }

    /// Whether an executor that fails at the start is started again: the parent starts a processor
    /// that ends once more and never again, and must be told of faults in answers.
    fn waits_with_faults(&self) -> bool {
        self.file.is_some() && self.input_open
    }

    /// As long as no executor has ever been ready and some have failed, the fault may be in the
    /// configuration: looks whether somebody has mended it.
    pub(super) fn look_at_file(&mut self, now: Instant) {
        self.look_at_file_at = None;
        if self.was_ready || self.end.is_some() {
            return;
        }
        let Some(file) = &self.file else { return };
        if self.places.iter().all(|place| place.last_end.is_none()) {
            return;
        }
        if file.has_changed() {
            self.begin_anew();
        } else {
            self.look_at_file_at = Some(now + LOOK_AT_FILE);
        }
    }

    pub(super) fn fail_if_none_left(&mut self) {
        if !self.waits_for_the_first()
            && let Some(reason) = self.none_left()
        {
            self.fail_queue(ErrorCode::Unavailable, &reason);
        }
    }

    /// Whether requests wait although no executor can be had: as long as none has ever been ready,
    /// that is a start that fails, whatever is wrong.
    pub(super) fn waits_for_the_first(&self) -> bool {
        !self.was_ready && self.waits_with_faults()
    }

    /// Answers requests that have waited long enough for a first executor where none can be had.
    pub(super) fn fail_overdue(&mut self, now: Instant) {
        self.overdue_at = None;
        if self.queue.is_empty() || !self.waits_for_the_first() {
            return;
        }
        let Some(reason) = self.none_left() else { return };
        let longest = self.timing.fault_wait;
        let waited = humantime::format_duration(longest);
        let reason = format!("{reason}; the request has waited for {waited}");
        while let Some(request) = self.queue.first() {
            let until = request.since + longest;
            if until > now {
                self.overdue_at = Some(until);
                return;
            }
            if let Some(request) = self.queue.take() {
                self.fail_waiting(request, ErrorCode::Unavailable, &reason, now);
            }
        }
    }

    /// Why there is no use in waiting for an executor, if that is so.
    pub(super) fn none_left(&self) -> Option<String> {
        let mut reasons = Vec::new();
        for place in &self.places {
            match &place.state {
                State::GivenUp(reason) | State::Waiting { looping: Some(reason), .. } => {
                    reasons.push(reason.as_str());
                }
                State::Running(running) if running.left_out.is_some() => {
                    reasons.extend(running.left_out.as_deref());
                }
                // A start of an executor that is in a crash loop is another try.
                State::Running(running)
                    if running.ready.is_none()
                        && place.history.is_looping(&self.timing.restart) =>
                {
                    reasons.push(place.last_end.as_deref().unwrap_or_default());
                }
                _ => return None,
            }
        }
        Some(format!(
            "no executor of {} can be had; correct the cause ({})",
            self.stage,
            reasons.join("; ")
        ))
    }
}

/// How long an executor of an earlier supervisor of the same settings may take to end.
fn lock_wait(grace: Duration, drain: Drain, deadline: Option<Duration>) -> Duration {
    // What the kernel brings to disk for one that was killed comes on top.
    let ending = ENDING_TAKES.max(grace + FLUSH);
    match drain {
        Drain::Checkpoint | Drain::Now => ending,
        Drain::Task => ending + deadline.unwrap_or(TASK_TAKES),
    }
}

/// What the parent is told of a task whose executor died.
fn told_of_death(story: &str, tries: u32, last_words: &str) -> String {
    let tried = if tries > 1 { format!(", which was tried {tries} times") } else { String::new() };
    let mut told = format!("{story}, while it had this task{tried}; the task can be sent again");
    if !last_words.is_empty() {
        told.push_str(&format!("; its log ends: {last_words}"));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executor_waits_for_as_long_as_the_one_before_it_may_take() {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        for (grace, drain, deadline, wait) in [
            (Duration::from_secs(10), Drain::Checkpoint, None, minutes(2)),
            (Duration::ZERO, Drain::Now, Some(minutes(600)), minutes(2)),
            (minutes(10), Drain::Checkpoint, None, minutes(11)),
            (minutes(10), Drain::Now, Some(minutes(1)), minutes(11)),
            (Duration::from_secs(10), Drain::Task, Some(minutes(300)), minutes(302)),
            (minutes(10), Drain::Task, None, minutes(24 * 60 + 11)),
        ] {
            assert_eq!(lock_wait(grace, drain, deadline), wait, "{grace:?} {drain:?} {deadline:?}");
        }
    }
}
