//! Writes the status of this supervisor while it runs.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use seal_host::FileError;
use seal_wire::ProgressUnit;

use super::document::{Device, Ended, Executor, FORM, Progress, Supervisor, Task, Waiting};
use super::instance::Instance;
use super::{Measures, store};
use crate::facts::{
    Board, DeviceFacts, EndedTask, ExecutorFacts, ExecutorState, Facts, Life, TaskFacts,
};
use crate::{ExecutorPlan, Plan};

/// The least time between two writes.
const PAUSE: Duration = Duration::from_millis(500);

/// How often it is written when nothing changes, so that progress and age are seen.
const AT_LEAST: Duration = Duration::from_secs(5);

/// What the status tells that does not change.
#[derive(Clone, Debug)]
pub(crate) struct About {
    config: String,
    history: usize,
    executors: Vec<Fixed>,
}

/// What does not change of an executor.
#[derive(Clone, Debug)]
struct Fixed {
    cpus: Option<String>,
    numa_node: Option<u32>,
    gpu: Option<String>,
    concurrent: Option<u32>,
    cgroup: Option<String>,
}

impl About {
    /// Of a supervisor that has no plan yet.
    pub(crate) fn without_plan(config: &Path) -> Self {
        Self { config: config.display().to_string(), history: 0, executors: Vec::new() }
    }

    pub(crate) fn new(config: &Path, plan: &Plan, history: u32) -> Self {
        let history = usize::try_from(history).unwrap_or(usize::MAX);
        let executors = plan.executors.iter().map(fixed).collect();
        Self { config: config.display().to_string(), history, executors }
    }
}

fn fixed(plan: &ExecutorPlan) -> Fixed {
    const GPUS: &str = "CUDA_VISIBLE_DEVICES";
    let inherited = || std::env::var(GPUS).ok().filter(|_| plan.inherit_envs);
    Fixed {
        cpus: plan.placement.cpus.as_ref().map(ToString::to_string),
        numa_node: plan.placement.preferred_node.map(|node| node.0),
        gpu: plan.envs.get(GPUS).cloned().or_else(inherited),
        concurrent: plan.concurrent.map(|count| count.get()),
        cgroup: plan
            .group
            .as_ref()
            .map(|group| group.tree.path().join(&group.name).display().to_string()),
    }
}

/// The file of this supervisor. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Reporter {
    own: Arc<Mutex<Option<Own>>>,
}

/// What this supervisor has in the runtime directory.
#[derive(Debug)]
struct Own {
    file: PathBuf,
    instance: Instance,
}

impl Reporter {
    /// Starts writing what `board` says to the runtime directory.
    pub(crate) fn start(board: Board, about: About, runtime_dir: &Path) -> Result<Self, FileError> {
        let dir = store::directory(runtime_dir);
        store::make(&dir)?;
        store::remove_dead(&dir);
        let stage = board.facts().stage;
        let instance = Instance::take(runtime_dir, stage, Path::new(&about.config));
        // Processes of different namespaces may have the same id.
        let (pid, namespace) = (std::process::id(), own_namespace());
        let file = dir.join(format!("{stage}-{pid}-{namespace}.json"));
        let own = Arc::new(Mutex::new(Some(Own { file, instance })));
        let report = {
            let own = own.clone();
            move || report(&board, &about, &own)
        };
        let started = seal_host::start_thread("status", report);
        started.map_err(FileError::of("start writing", &dir))?;
        Ok(Self { own })
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Own { file, .. }) = own {
            let _ = fs::remove_file(file);
        }
    }
}

fn report(board: &Board, about: &About, own: &Mutex<Option<Own>>) {
    let mut sums = Sums::default();
    let (mut generation, mut trouble) = (0, false);
    let since = seconds(SystemTime::now());
    // The file as it is now, by whose lock others know that this supervisor lives.
    let mut held: Option<File> = None;
    loop {
        let (newest, facts) = board.newer_than(generation, AT_LEAST);
        generation = newest;
        sums.add(board, about.history);
        let document = Supervisor { since, ..document(&facts, about, &sums) };
        {
            let mut own = own.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(Own { file, instance }) = &mut *own else { return };
            instance.renew();
            let document = Supervisor { instance: instance.name().to_owned(), ..document };
            match store::write(file, &document) {
                Ok(file) => {
                    held.replace(file);
                    trouble = false;
                }
                // Once: a full disk must not fill the log too.
                Err(error) if !trouble => {
                    trouble = true;
                    tracing::warn!(%error, cause = %error.source, "the status is not written");
                }
                Err(_) => {}
            }
        }
        thread::sleep(PAUSE);
    }
}

/// What is kept of tasks that have ended.
#[derive(Debug, Default)]
struct Sums {
    seen: u64,
    history: VecDeque<Arc<EndedTask>>,
    measures: Measures,
}

impl Sums {
    fn add(&mut self, board: &Board, kept: usize) {
        let (seen, tasks) = board.ended_since(self.seen);
        self.seen = seen;
        for task in tasks {
            let ran = task.ran.as_secs_f64();
            if let Some(executor) = &task.executor {
                let by_result = match &task.error {
                    None => &mut self.measures.done,
                    Some(_) => &mut self.measures.failed,
                };
                by_result.entry(executor.clone()).or_default().add(ran);
            }
            self.measures.waited.add(task.waited.as_secs_f64());
            for resource in &task.held {
                self.measures.held.entry(resource.to_string()).or_default().add(ran);
            }
            self.history.push_front(task);
        }
        self.history.truncate(kept);
    }
}

fn document(facts: &Facts, about: &About, sums: &Sums) -> Supervisor {
    let (pid, pid_namespace) = (std::process::id(), own_namespace());
    let now = SystemTime::now();
    let (life, why) = match &facts.life {
        Life::Starting => ("starting", None),
        Life::CannotStart(why) => ("cannot-start", Some(why.clone())),
        Life::Serving => ("serving", None),
        Life::Ending(why) => ("ending", Some(why.clone())),
    };
    let executors = facts.executors.iter().zip(&about.executors);
    let waiting = |request: &crate::facts::WaitingFacts| Waiting {
        stage: facts.stage.to_string(),
        supervisor: pid,
        pid_namespace,
        req: Some(request.req),
        sector: request.sector.clone(),
        waited: now.duration_since(request.since).unwrap_or_default().as_secs_f64(),
        reason: request.reason.clone(),
    };
    Supervisor {
        form: FORM,
        instance: String::new(),
        pid,
        pid_namespace,
        foreign: false,
        start_ticks: seal_host::process_start(Path::new("/proc"), pid).unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config: about.config.clone(),
        since: 0.0,
        written: seconds(now),
        stage: facts.stage.to_string(),
        life: life.to_owned(),
        why,
        executors: executors.map(|(facts, fixed)| executor(facts, fixed)).collect(),
        waiting: facts.waiting,
        queue: facts.queue.iter().map(waiting).collect(),
        done: facts.totals.done,
        failed: facts.totals.failed.clone(),
        again: facts.totals.again,
        deaths: facts.totals.deaths,
        history: sums.history.iter().map(|task| ended(task)).collect(),
        measures: sums.measures.clone(),
    }
}

fn executor(facts: &ExecutorFacts, fixed: &Fixed) -> Executor {
    let (state, why, until) = match &facts.state {
        ExecutorState::Starting => ("starting", None, None),
        ExecutorState::Ready => ("ready", None, None),
        ExecutorState::DeviceLeftOut(why) => ("device-left-out", Some(why.clone()), None),
        ExecutorState::Ending(why) => ("ending", Some(why.clone()), None),
        ExecutorState::Waiting { until } => ("waiting", None, Some(*until)),
        ExecutorState::CrashLoop { until } => ("crash-loop", None, Some(*until)),
        ExecutorState::GivenUp(why) => ("given-up", Some(why.clone()), None),
        ExecutorState::Stopped => ("stopped", None, None),
    };
    let fixed = fixed.clone();
    Executor {
        key: facts.key.clone(),
        program: facts.program.display().to_string(),
        pid: facts.pid,
        state: state.to_owned(),
        why,
        until: until.map(seconds),
        since: seconds(facts.since),
        restarts: facts.restarts,
        last_end: facts.last_end.clone(),
        cpus: fixed.cpus,
        numa_node: fixed.numa_node,
        gpu: fixed.gpu,
        concurrent: fixed.concurrent,
        cgroup: fixed.cgroup,
        device: facts.device.as_ref().map(device),
        live: None,
        tasks: facts.tasks.iter().map(task).collect(),
    }
}

fn device(facts: &DeviceFacts) -> Device {
    let report = &facts.report;
    Device {
        name: report.device.clone(),
        standing: report.standing.name().to_owned(),
        since: seconds(facts.since),
        wrong: facts.wrong,
        reason: report.reason.clone(),
        replaced_by: report.replaced_by.clone(),
    }
}

fn task(facts: &TaskFacts) -> Task {
    Task {
        req: facts.req,
        sector: facts.sector.clone(),
        started: seconds(facts.started),
        waited: facts.waited.as_secs_f64(),
        tries: facts.tries,
        holds: facts.holds.iter().map(ToString::to_string).collect(),
        progress: facts.progress.as_ref().map(|progress| Progress {
            part: progress.part.clone(),
            done: progress.done,
            total: progress.total,
            unit: match progress.unit {
                ProgressUnit::Bytes => "bytes",
                ProgressUnit::Nodes => "nodes",
                ProgressUnit::Steps => "steps",
            }
            .to_owned(),
            per_second: progress.per_second,
            left: progress.left.map(|left| left.as_secs_f64()),
        }),
        waits: facts.waits.clone(),
        whole: facts.whole.map(|whole| f64::from(whole.permille.min(1000)) / 1000.0),
        left: facts.whole.and_then(|whole| Some(whole.left_ms? as f64 / 1000.0)),
    }
}

fn ended(task: &EndedTask) -> Ended {
    Ended {
        req: task.req,
        sector: task.sector.clone(),
        executor: task.executor.clone(),
        ended: seconds(task.ended),
        waited: task.waited.as_secs_f64(),
        ran: task.ran.as_secs_f64(),
        error: task.error.clone(),
    }
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// 0, which is nobody's, where it cannot be told.
fn own_namespace() -> u64 {
    seal_host::pid_namespace(Path::new("/proc")).unwrap_or_default()
}
