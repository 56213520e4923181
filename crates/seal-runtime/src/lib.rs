//! What every executor shares: standard output, the request loop, progress, the panic boundary
//! and the end of the process.
//!
//! An executor implements [`Executor`] and calls [`serve`] or [`run_one`]; it never touches
//! standard input or output itself.
#![forbid(unsafe_code)]

mod answers;
mod cancel;
mod context;
mod corruption;
mod device_reports;
mod logging;
mod one_shot;
mod paces;
mod placement;
mod prologue;
mod runtime_dir;
mod serve;
mod version;
mod whole;

pub use cancel::CancelToken;
pub use context::{TaskContext, Unit};
pub use corruption::CorruptionLog;
pub use logging::init_logging;
pub use one_shot::{run_one, stop_on_signal};
pub use placement::spread_memory;
pub use prologue::{Asked, Program, Started, start};
pub use runtime_dir::{check_runtime_dir, runtime_dir, share_space};
pub use serve::{ServeOptions, serve};
pub use version::long_version;
pub use whole::{Plan, Standing, Step, Whole};

use std::sync::Arc;

use seal_types::{SectorName, Stage};
use seal_wire::{DeviceReport, TaskError};

/// A stage: from task to output.
pub trait Executor: Send + Sync + 'static {
    /// Which stage.
    const STAGE: Stage;
    /// What is asked for.
    type Task: serde::de::DeserializeOwned + Send + 'static;
    /// What is answered.
    type Output: serde::Serialize;

    /// Which sector the task is for, as everybody names it.
    fn sector(task: &Self::Task) -> SectorName;

    /// Does the task. Called from a thread of the task's own; a panic is answered as `internal`
    /// and ends the process after the other tasks.
    fn run(&self, task: Self::Task, context: &TaskContext) -> Result<Self::Output, TaskError>;

    /// What tasks are computed on and by which kernels, where there is a choice: told to a parent
    /// that asked for events.
    fn device(&self) -> Option<String> {
        None
    }

    /// What is thought of the device that tasks are computed on, if there is one that can be
    /// wrong: told to a parent that asked for events, at the start and whenever it changes, and
    /// logged by the executor. Asked twice a second on the thread that serves requests, and before
    /// each answer on the task's own, so it must not wait for the device.
    fn device_report(&self) -> Option<DeviceReport> {
        None
    }

    /// Where wrong results are written down. What a task finds it tells its context
    /// ([`TaskContext::corrupted`]); a device that has computed wrongly is written down by what
    /// [`Executor::device_report`] says. Without one both are only logged.
    fn corruption_log(&self) -> Option<Arc<CorruptionLog>> {
        None
    }

    /// Why this process can do no further task, if so: what it computes on is lost to it. Asked
    /// after each task. The executor then takes no more tasks, ends when those that run have been
    /// answered, and whoever started it starts a new one.
    fn is_lost(&self) -> Option<String> {
        None
    }
}
