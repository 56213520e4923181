//! What is going on in a supervisor, as facts that others may read while it runs.
//!
//! The loop publishes; whoever writes status files or serves metrics reads. Nothing a reader does
//! can hold up the loop, and nothing here is a secret: neither environment nor tasks.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use seal_config::StageName;
use seal_limits::Resource;
use seal_wire::{DeviceReport, ProgressUnit, Whole};

/// How many waiting requests are told of one by one.
pub(crate) const QUEUE_SHOWN: usize = 100;

/// How many ended tasks are kept for readers that come late.
const ENDED_KEPT: usize = 1000;

/// A supervisor at one moment.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its stage.
    pub stage: StageName,
    /// What it is doing.
    pub life: Life,
    /// Its executors, in the order of the configuration.
    pub executors: Vec<ExecutorFacts>,
    /// How many requests wait.
    pub waiting: usize,
    /// The first of them, in their order.
    pub queue: Vec<WaitingFacts>,
    /// Since its start.
    pub totals: Totals,
}

/// What a supervisor is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// Its executors are being started.
    Starting,
    /// It cannot start, lets requests wait meanwhile, and why.
    CannotStart(String),
    /// It takes requests.
    Serving,
    /// It ends, and why.
    Ending(String),
}

/// An executor.
#[derive(Clone, Debug)]
pub struct ExecutorFacts {
    /// Its table in the configuration, such as `processors.pc1[0]`.
    pub key: String,
    /// Its binary.
    pub program: PathBuf,
    /// Its process, if it runs.
    pub pid: Option<u32>,
    /// What it is doing.
    pub state: ExecutorState,
    /// Since when.
    pub since: SystemTime,
    /// How often it was started after the first time.
    pub restarts: u64,
    /// How it ended the last time.
    pub last_end: Option<String>,
    /// The device that it computes on, if it tells of one.
    pub device: Option<DeviceFacts>,
    /// What it runs.
    pub tasks: Vec<TaskFacts>,
}

/// A device that an executor computes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// What the executor told last.
    pub report: DeviceReport,
    /// When it told that.
    pub since: SystemTime,
    /// How often the device has computed wrongly in all processes of the executor.
    pub wrong: u64,
}

/// What an executor is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecutorState {
    /// It runs and is not ready yet.
    Starting,
    /// It takes tasks.
    Ready,
    /// It runs and can do no task, because its device is left out; and why.
    DeviceLeftOut(String),
    /// It is being ended, and why.
    Ending(String),
    /// It died and is started again then.
    Waiting {
        /// When.
        until: SystemTime,
    },
    /// Its starts fail again and again; it is tried once in a while.
    CrashLoop {
        /// When the next time.
        until: SystemTime,
    },
    /// It is not started any more, and why.
    GivenUp(String),
    /// The supervisor ends and so did it.
    Stopped,
}

/// A task that runs.
#[derive(Clone, Debug)]
pub struct TaskFacts {
    /// The number of its request.
    pub req: u64,
    /// The sector as logs name it, if that is known.
    pub sector: Option<String>,
    /// When it was handed to its executor.
    pub started: SystemTime,
    /// How long it had waited until then.
    pub waited: Duration,
    /// How many executors have had it.
    pub tries: u32,
    /// What it holds.
    pub holds: Vec<Resource>,
    /// How far it is, if its executor tells.
    pub progress: Option<ProgressFacts>,
    /// Why it does not go on now, if so.
    pub waits: Option<String>,
    /// How far all of it is, if its executor tells.
    pub whole: Option<Whole>,
}

/// How far a part of a task is.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgressFacts {
    /// The part, for people.
    pub part: String,
    /// How much of it is done.
    pub done: u64,
    /// How much it is in all.
    pub total: u64,
    /// What is counted.
    pub unit: ProgressUnit,
    /// How fast the part goes.
    pub per_second: f64,
    /// How long the part will still take, if that can be told.
    pub left: Option<Duration>,
}

/// A request that waits.
#[derive(Clone, Debug)]
pub struct WaitingFacts {
    /// Its number.
    pub req: u64,
    /// The sector as logs name it, if that is known.
    pub sector: Option<String>,
    /// Since when.
    pub since: SystemTime,
    /// Why.
    pub reason: String,
}

/// Counts since the start of a supervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tasks that were done.
    pub done: u64,
    /// Tasks that failed, by the code of their error; those without one under the empty text.
    pub failed: BTreeMap<String, u64>,
    /// Tasks that were sent again.
    pub again: u64,
    /// Deaths of executors that were not asked to end.
    pub deaths: u64,
}

/// A task that has been answered.
#[derive(Clone, Debug)]
pub struct EndedTask {
    /// The number of its request.
    pub req: u64,
    /// The sector as logs name it, if that is known.
    pub sector: Option<String>,
    /// The executor that had it last, by its table in the configuration; `None` if none had it.
    pub executor: Option<String>,
    /// When it was answered.
    pub ended: SystemTime,
    /// How long it waited.
    pub waited: Duration,
    /// How long it ran, the last time.
    pub ran: Duration,
    /// What it held while it ran.
    pub held: Vec<Resource>,
    /// The error that it was answered with, if it was.
    pub error: Option<String>,
}

/// Where a supervisor's facts are published.
#[derive(Clone, Debug)]
pub struct Board(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<Published>,
    changed: Condvar,
}

#[derive(Debug)]
struct Published {
    facts: Arc<Facts>,
    generation: u64,
    ended: VecDeque<Arc<EndedTask>>,
    /// How many tasks have ended in all.
    ended_count: u64,
}

impl Board {
    /// A board with the first facts.
    pub(crate) fn new(facts: Facts) -> Self {
        let (facts, ended) = (Arc::new(facts), VecDeque::new());
        let state = Mutex::new(Published { facts, generation: 0, ended, ended_count: 0 });
        Self(Arc::new(Shared { state, changed: Condvar::new() }))
    }

    /// What is published now.
    pub fn facts(&self) -> Arc<Facts> {
        Arc::clone(&self.state().facts)
    }

    /// Waits until something newer than `generation` is published, at most so long, and returns
    /// what is published then with its generation. Begin with 0.
    pub fn newer_than(&self, generation: u64, patience: Duration) -> (u64, Arc<Facts>) {
        let state = self.state();
        let old = |state: &mut Published| state.generation <= generation;
        let (state, _) = self
            .0
            .changed
            .wait_timeout_while(state, patience, old)
            .unwrap_or_else(PoisonError::into_inner);
        (state.generation, Arc::clone(&state.facts))
    }

    /// The tasks that ended after the first `seen`, and how many have ended in all. Of very many
    /// only the last thousand are there.
    pub fn ended_since(&self, seen: u64) -> (u64, Vec<Arc<EndedTask>>) {
        let state = self.state();
        let new = usize::try_from(state.ended_count.saturating_sub(seen)).unwrap_or(usize::MAX);
        let skip = state.ended.len().saturating_sub(new);
        (state.ended_count, state.ended.iter().skip(skip).cloned().collect())
    }

    pub(crate) fn publish(&self, facts: Facts) {
        let mut state = self.state();
        state.facts = Arc::new(facts);
        state.generation += 1;
        self.0.changed.notify_all();
    }

    pub(crate) fn ended(&self, task: EndedTask) {
        let mut state = self.state();
        if state.ended.len() == ENDED_KEPT {
            state.ended.pop_front();
        }
        state.ended.push_back(Arc::new(task));
        state.ended_count += 1;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Published> {
        // A reader that panicked has changed nothing.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Board {
        Board::new(Facts {
            stage: StageName::Pc1,
            life: Life::Starting,
            executors: Vec::new(),
            waiting: 0,
            queue: Vec::new(),
            totals: Totals::default(),
        })
    }

    fn ended(req: u64) -> EndedTask {
        EndedTask {
            req,
            sector: None,
            executor: None,
            ended: SystemTime::UNIX_EPOCH,
            waited: Duration::ZERO,
            ran: Duration::ZERO,
            held: Vec::new(),
            error: None,
        }
    }

    #[test]
    fn a_reader_waits_for_what_is_newer_and_not_for_ever() {
        let board = board();
        let (generation, _) = board.newer_than(0, Duration::ZERO);
        assert_eq!(generation, 0);
        let reader = std::thread::spawn({
            let board = board.clone();
            move || board.newer_than(0, Duration::from_secs(60)).1.life.clone()
        });
        board.publish(Facts { life: Life::Serving, ..(*board.facts()).clone() });
        assert_eq!(reader.join().expect("no panic"), Life::Serving);
    }

    #[test]
    fn ended_tasks_are_told_once_each_to_who_keeps_up() {
        let board = board();
        let reqs = |tasks: Vec<Arc<EndedTask>>| tasks.iter().map(|t| t.req).collect::<Vec<_>>();
        for req in 0..3 {
            board.ended(ended(req));
        }
        let (seen, tasks) = board.ended_since(0);
        assert_eq!((seen, reqs(tasks)), (3, vec![0, 1, 2]));
        board.ended(ended(3));
        assert_eq!(reqs(board.ended_since(seen).1), [3]);
        for req in 4..2000 {
            board.ended(ended(req));
        }
        let (seen, tasks) = board.ended_since(seen);
        assert_eq!((seen, tasks.len(), tasks[0].req), (2000, 1000, 1000));
    }
}
