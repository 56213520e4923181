//! The loop: requests to executors, answers back, and what happens when an executor dies.
//!
//! One thread owns all state and never blocks on anything but the next event. Executors are
//! started here, because the kernel ties their lives to the thread that starts them.

mod end;
mod executors;
mod publish;
mod requests;
mod tasks;

use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use seal_config::{Drain, LockOrder, StageSettings};
use seal_host::FileError;
use seal_limits::Order;
use seal_types::StageName;
use seal_wire::ExitCode;

use crate::event::Event;
use crate::facts::{Board, Totals};
use crate::life::OwnLife;
use crate::limits::{LimitsError, SharedLimits, Terms};
use crate::parent::{Outlet, Parent};
use crate::place::{Place, State, TaskTimes};
use crate::queue::Queue;
use crate::said::Said;
use crate::strays::Mark;
use crate::watched_file::WatchedFile;
use crate::{Plan, RestartPolicy, RuntimeDir};

/// Times the supervisor keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The supervisor is ready when its first executor is, or then if none has failed: tasks wait
    /// until one is ready.
    pub announce_by: Instant,
    /// How long an executor that is to end may take before it is killed.
    pub grace: Duration,
    /// How long a killed process may take to be gone.
    pub undead: Duration,
    /// When executors that died are started again.
    pub restart: RestartPolicy,
    /// How long requests wait where no executor can be had and none has ever been ready.
    pub fault_wait: Duration,
}

impl Timing {
    /// The times that the settings of a stage ask for, of a supervisor that was started at `began`.
    /// Its parent counts from there, so the time to be ready does too.
    pub fn of(settings: &StageSettings, began: Instant, fault_wait: Duration) -> Self {
        Self {
            announce_by: began + settings.ready_within,
            grace: settings.grace,
            undead: settings.grace,
            restart: RestartPolicy {
                first_wait: settings.restart_wait,
                longest_wait: settings.restart_wait_max,
                loop_after: settings.crash_loop_after,
                loop_wait: settings.crash_loop_wait,
            },
            fault_wait,
        }
    }
}

/// A supervisor that cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A thread or an address cannot be had.
    #[error("the supervisor cannot be set up")]
    SetUp(#[from] io::Error),
    /// Limits and locks cannot be used.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// Others cannot be shown that it lives.
    #[error(transparent)]
    Life(#[from] FileError),
}

/// How serving the parent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// For good.
    Ended(ExitCode),
    /// No executor has ever been ready, and the configuration is another one now. The requests that
    /// wait are the parent's again.
    ConfigurationChanged,
}

/// Runs the executors of `plan` and serves the parent until it ends its input or asks for the end.
/// `watch` is called once with the board on which the supervisor publishes what is going on, and
/// may start threads that read it.
///
/// An executor that fails before the parent was told to be ready ends the start, unless there is a
/// `file`, from which `plan` was made: then it is started again like one that fails later, and a
/// change of the file ends the service, as long as no executor has ever been ready.
///
/// Must be called on the main thread.
pub fn serve(
    plan: Plan,
    timing: Timing,
    runtime_dir: RuntimeDir,
    parent: &mut Parent,
    file: Option<WatchedFile>,
    watch: impl FnOnce(Board) -> io::Result<()>,
) -> Result<Served, ServeError> {
    let life = OwnLife::begin(&runtime_dir)?;
    let mark = Mark::own(runtime_dir.path(), life.name());
    let swept = mark.as_ref().map(Mark::kill_left_by_the_dead).unwrap_or_default();
    for pid in swept.pids {
        tracing::warn!(pid, "killed what an executor of a dead supervisor had left behind");
    }
    for doubt in swept.doubts {
        if parent.said.is_due(&doubt, Instant::now()) {
            tracing::warn!("{doubt}");
        }
    }
    let terms = terms(&plan);
    let limits = SharedLimits::join(runtime_dir.path(), terms, Some(parent.sender.clone()))?;
    let now = Instant::now();
    let places: Vec<_> = plan.executors.into_iter().map(|plan| Place::new(plan, now)).collect();
    let board = Board::new(publish::first_facts(plan.stage, &places));
    watch(board.clone())?;
    parent.services += 1;
    let queue = std::mem::take(&mut parent.requests);
    let mut supervisor = Supervisor {
        stage: plan.stage,
        timing,
        retry: plan.settings.retry,
        drain: plan.settings.drain,
        times: TaskTimes {
            deadline: plan.settings.deadline,
            no_progress: plan.settings.no_progress,
        },
        places,
        limits,
        outstanding: queue.iter().map(|request| request.id).collect(),
        queue,
        outlet: Rc::clone(&parent.outlet),
        sender: parent.sender.clone(),
        service: parent.services,
        life,
        mark,
        announced: parent.announced,
        input_open: parent.input_ended.is_none(),
        input_ended: parent.input_ended,
        file,
        was_ready: false,
        look_at_file_at: None,
        look_at_life_at: now,
        look_at: None,
        overdue_at: None,
        said: Said::default(),
        end: None,
        board,
        totals: Totals::default(),
        publish_at: Some(now),
        published: None,
        runtime_dir,
    };
    let served = supervisor.run(&parent.events);
    supervisor.publish(Instant::now());
    parent.announced = supervisor.announced;
    parent.input_ended = supervisor.input_ended;
    parent.requests = supervisor.queue;
    Ok(served)
}

/// What the plan wants of limits and locks.
pub(crate) fn terms(plan: &Plan) -> Terms {
    let order = |order: &LockOrder| match order {
        LockOrder::Turns => Order::Turns,
        LockOrder::Arrival => Order::Arrival,
        LockOrder::Priority(stages) => {
            Order::Priority(stages.iter().map(|stage| stage.name().to_owned()).collect())
        }
    };
    Terms {
        stage: plan.stage.name().to_owned(),
        counts: plan.counts.clone(),
        orders: plan.orders.iter().map(|(lock, it)| (lock.clone(), order(it))).collect(),
        spacing: plan.stagger,
    }
}

#[derive(Debug)]
struct Supervisor {
    stage: StageName,
    timing: Timing,
    /// How often a request whose executor died is sent again.
    retry: u32,
    /// What becomes of running tasks when the supervisor is told to end.
    drain: Drain,
    /// How long tasks may take.
    times: TaskTimes,
    places: Vec<Place>,
    limits: SharedLimits,
    /// Requests that no executor has.
    queue: Queue,
    /// Requests that have not been answered.
    outstanding: BTreeSet<u64>,
    outlet: Rc<Outlet>,
    sender: SyncSender<Event>,
    /// Which service of the parent this is.
    service: u64,
    /// By which others know that it lives.
    life: OwnLife,
    /// By which what executors start is known.
    mark: Option<Mark>,
    /// Whether the ready line was written.
    announced: bool,
    input_open: bool,
    input_ended: Option<Instant>,
    /// What the plan was made from, if a start that fails is waited with.
    file: Option<WatchedFile>,
    /// Whether any executor has ever been ready.
    was_ready: bool,
    /// When to look again at the file.
    look_at_file_at: Option<Instant>,
    /// When to look again at this supervisor's sign of life.
    look_at_life_at: Instant,
    /// When a request will have waited long enough.
    overdue_at: Option<Instant>,
    said: Said,
    /// When to look again at limits, locks or the parent, about which no event comes.
    look_at: Option<Instant>,
    /// Set when the supervisor ends.
    end: Option<End>,
    board: Board,
    totals: Totals,
    /// When what has changed is to be published.
    publish_at: Option<Instant>,
    published: Option<Instant>,
    /// Keeps the directory in use.
    runtime_dir: RuntimeDir,
}

#[derive(Clone, Debug)]
struct End {
    how: Served,
    reason: String,
}

impl Supervisor {
    fn run(&mut self, events: &Receiver<Event>) -> Served {
        loop {
            let now = Instant::now();
            self.keep_time(now);
            self.look_at_file(now);
            if self.look_at_life_at <= now {
                self.show_life(now);
            }
            self.fail_overdue(now);
            self.announce(now);
            self.start_tasks(now);
            self.end_when_drained(now);
            if let Some(end) = &self.end
                && self.places.iter().all(|place| matches!(place.state, State::Stopped))
            {
                return end.how;
            }
            if self.publish_at.is_some_and(|at| at <= now) {
                self.publish(now);
            }
            // More than one event may be there: look at all before deciding what to start.
            let mut next = self.await_event(events);
            if next.is_some() {
                self.publish_soon();
            }
            while let Some(event) = next {
                self.handle(event);
                next = events.try_recv().ok();
            }
        }
    }

    fn await_event(&self, events: &Receiver<Event>) -> Option<Event> {
        let announce = (!self.announced && self.end.is_none()).then_some(self.timing.announce_by);
        let places = self.places.iter().filter_map(|place| place.next(self.times));
        let looks = self.look_at.into_iter().chain(self.look_at_file_at);
        let looks = looks.chain([self.look_at_life_at]).chain(self.overdue_at);
        let deadlines = places.chain(looks).chain(self.publish_at).chain(announce);
        // What has become due since the round began is done by the next one.
        match deadlines.min() {
            Some(at) => events.recv_timeout(at.saturating_duration_since(Instant::now())).ok(),
            // `self.sender` keeps the channel open.
            None => events.recv().ok(),
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Request { head, line } => self.accept(head, line),
            Event::BadRequest { id, reason } => self.bad_request(id, &reason),
            Event::InputEnded(error) => {
                match error {
                    Some(error) => tracing::error!(%error, "standard input cannot be read"),
                    None => tracing::info!(unanswered = self.outstanding.len(), "input ended"),
                }
                self.input_open = false;
                self.input_ended = Some(Instant::now());
                self.fail_if_none_left();
            }
            Event::OutputGone(error) => {
                tracing::error!(%error, "the parent does not take answers any more");
                self.drain(ExitCode::ParentGone, "the parent is gone");
            }
            // The round of the loop looks.
            Event::LimitsChanged => {}
            Event::Signal(signal) => self.signalled(signal),
            Event::Executor { tag, what } => self.executor_event(tag, what),
        }
    }
}
