//! The status as it is written and shown. Times are seconds since 1970, durations seconds.
//! Fields may be added; readers ignore those they do not know.

use seal_wire::Corruption;
use serde::{Deserialize, Serialize};

use super::Measures;

/// The form of the files. Files of another form are not read.
pub(super) const FORM: u32 = 2;

/// All supervisors that share a runtime directory.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Machine {
    /// When this was put together.
    pub(crate) at: f64,
    /// The directory.
    pub(crate) runtime_dir: String,
    /// The supervisors, by stage and age.
    pub(crate) supervisors: Vec<Supervisor>,
    /// Limits and locks.
    pub(crate) resources: Vec<Resource>,
    /// Requests that wait for them, in the order in which they are to be served.
    pub(crate) queue: Vec<Waiting>,
    /// Wrong results that are on record, the oldest first.
    #[serde(default)]
    pub(crate) corruption: Vec<Corruption>,
}

/// A supervisor.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Supervisor {
    /// The form of this text.
    pub(crate) form: u32,
    /// Its name among those of its stage, which is the same after a restart.
    #[serde(default)]
    pub(crate) instance: String,
    /// Its process.
    pub(crate) pid: u32,
    /// The pid namespace in which it and its executors have their process ids.
    pub(crate) pid_namespace: u64,
    /// Whether that is another one than that of who asks, to whom the process ids mean nothing.
    #[serde(default)]
    pub(crate) foreign: bool,
    /// When it started, in the kernel's ticks after boot.
    pub(crate) start_ticks: u64,
    /// Its version.
    pub(crate) version: String,
    /// Its configuration.
    pub(crate) config: String,
    /// When it started.
    pub(crate) since: f64,
    /// When this was written.
    pub(crate) written: f64,
    /// Its stage.
    pub(crate) stage: String,
    /// `starting`, `cannot-start`, `serving` or `ending`.
    pub(crate) life: String,
    /// Why it ends or cannot start, if that is so.
    pub(crate) why: Option<String>,
    /// Its executors in the order of the configuration.
    pub(crate) executors: Vec<Executor>,
    /// How many requests wait for an executor, a limit or a lock.
    pub(crate) waiting: usize,
    /// The first of them.
    pub(crate) queue: Vec<Waiting>,
    /// Tasks done since its start.
    pub(crate) done: u64,
    /// Tasks that failed since its start, by the code of their error.
    pub(crate) failed: std::collections::BTreeMap<String, u64>,
    /// Tasks sent again since its start.
    pub(crate) again: u64,
    /// Deaths of executors that were not asked to end.
    pub(crate) deaths: u64,
    /// The last tasks, latest first.
    pub(crate) history: Vec<Ended>,
    /// What metrics are made from.
    pub(crate) measures: Measures,
}

/// An executor.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Executor {
    /// Its table in the configuration.
    pub(crate) key: String,
    /// Its binary.
    pub(crate) program: String,
    /// Its process, if it runs.
    pub(crate) pid: Option<u32>,
    /// `starting`, `ready`, `device-left-out`, `ending`, `waiting`, `crash-loop`, `given-up` or
    /// `stopped`.
    pub(crate) state: String,
    /// Why it is in this state, if there is a reason.
    pub(crate) why: Option<String>,
    /// Until when, if that is known.
    pub(crate) until: Option<f64>,
    /// Since when.
    pub(crate) since: f64,
    /// How often it was started after the first time.
    pub(crate) restarts: u64,
    /// How it ended the last time.
    pub(crate) last_end: Option<String>,
    /// The cpus that the configuration asks for.
    pub(crate) cpus: Option<String>,
    /// The NUMA node that the configuration asks for.
    pub(crate) numa_node: Option<u32>,
    /// The GPUs that it sees (`CUDA_VISIBLE_DEVICES`).
    pub(crate) gpu: Option<String>,
    /// The device that it computes on, if it tells of one.
    #[serde(default)]
    pub(crate) device: Option<Device>,
    /// The most tasks it takes at once.
    pub(crate) concurrent: Option<u32>,
    /// Its cgroup, without the number of the start.
    pub(crate) cgroup: Option<String>,
    /// What the kernel says of its process.
    #[serde(default)]
    pub(crate) live: Option<Live>,
    /// What it runs.
    pub(crate) tasks: Vec<Task>,
}

/// A device that an executor computes on, as the executor told last.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct Device {
    /// Its model and UUID.
    pub(crate) name: String,
    /// `good`, `suspect` or `left_out`.
    pub(crate) standing: String,
    /// Since when.
    pub(crate) since: f64,
    /// How often it has computed wrongly, in all processes of the executor.
    pub(crate) wrong: u64,
    /// What it computed wrongly the last time.
    pub(crate) reason: Option<String>,
    /// What computes in its place.
    pub(crate) replaced_by: Option<String>,
}

/// What the kernel says of a process.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct Live {
    /// The cpus it can run on.
    pub(crate) cpus: String,
    /// Its resident memory in bytes.
    pub(crate) resident: u64,
    /// How much of its memory lies on the NUMA node it was asked to use.
    pub(crate) percent_local: Option<f64>,
}

/// A task that runs.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Task {
    /// The number of its request.
    pub(crate) req: u64,
    /// Its sector, if that is known.
    pub(crate) sector: Option<String>,
    /// When it was handed to its executor.
    pub(crate) started: f64,
    /// How long it had waited until then.
    pub(crate) waited: f64,
    /// How many executors have had it.
    pub(crate) tries: u32,
    /// The limits and locks it holds.
    pub(crate) holds: Vec<String>,
    /// How far it is, if its executor tells.
    pub(crate) progress: Option<Progress>,
    /// Why it does not go on now, if so.
    #[serde(default)]
    pub(crate) waits: Option<String>,
    /// How much of all its work is done, from 0 to 1, if its executor tells.
    #[serde(default)]
    pub(crate) whole: Option<f64>,
    /// How long all the rest will take, if that can be told; from the moment on when it goes on, if
    /// it waits.
    #[serde(default)]
    pub(crate) left: Option<f64>,
}

/// How far a part of a task is.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Progress {
    /// The part.
    pub(crate) part: String,
    /// How much of it is done.
    pub(crate) done: u64,
    /// How much it is in all.
    pub(crate) total: u64,
    /// What is counted: `bytes`, `nodes` or `steps`.
    pub(crate) unit: String,
    /// How fast the part goes.
    pub(crate) per_second: f64,
    /// How long the part will still take, if that can be told.
    pub(crate) left: Option<f64>,
}

/// A request that waits.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Waiting {
    /// Its stage.
    pub(crate) stage: String,
    /// The process of its supervisor.
    pub(crate) supervisor: u32,
    /// The pid namespace of that.
    pub(crate) pid_namespace: u64,
    /// The number of its request, where its supervisor tells.
    pub(crate) req: Option<u64>,
    /// Its sector, if that is known.
    pub(crate) sector: Option<String>,
    /// How long it has waited.
    pub(crate) waited: f64,
    /// Why it waits.
    pub(crate) reason: String,
}

/// A task that was answered.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Ended {
    /// The number of its request.
    pub(crate) req: u64,
    /// Its sector, if that is known.
    pub(crate) sector: Option<String>,
    /// The executor that had it last.
    pub(crate) executor: Option<String>,
    /// When it was answered.
    pub(crate) ended: f64,
    /// How long it waited.
    pub(crate) waited: f64,
    /// How long it ran.
    pub(crate) ran: f64,
    /// The error it was answered with, if it was.
    pub(crate) error: Option<String>,
}

/// A limit or lock.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Resource {
    /// `lock` or `limit`.
    pub(crate) kind: String,
    /// Its name.
    pub(crate) name: String,
    /// How many tasks may hold it.
    pub(crate) count: u32,
    /// How many are held.
    pub(crate) held: u32,
    /// Who holds it.
    pub(crate) holders: Vec<Holder>,
}

/// Who holds a limit or lock.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Holder {
    /// The stage of the task.
    pub(crate) stage: String,
    /// The number of its request.
    pub(crate) req: u64,
    /// Its sector, if that is known.
    pub(crate) sector: Option<String>,
    /// The process of the supervisor.
    pub(crate) supervisor: u32,
    /// The process of the executor.
    pub(crate) executor: u32,
    /// How long it has held it.
    pub(crate) held: f64,
}

impl Supervisor {
    /// Its process id, which names it among all that share the runtime directory: with its
    /// namespace where that is another one.
    pub(crate) fn name(&self) -> String {
        let Self { pid, pid_namespace, .. } = self;
        if self.foreign { format!("{pid}@{pid_namespace}") } else { pid.to_string() }
    }

    /// What metrics call it. One of an older version tells no more than its process id.
    pub(crate) fn label(&self) -> String {
        if self.instance.is_empty() { self.name() } else { self.instance.clone() }
    }
}
