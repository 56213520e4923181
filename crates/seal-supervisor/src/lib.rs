//! The supervisor that venus-worker starts in the place of a stage's executor.
//!
//! It reads a venus-worker configuration, starts the executors of its stage where they belong,
//! hands each request to the least loaded one that has room, under limits and locks that hold
//! across all supervisors of the machine, and answers each request exactly once, whatever dies.
//!
//! It links no proof code: a defect in a prover cannot end it. It passes tasks and answers on as
//! text and knows nothing of what is in them.
#![forbid(unsafe_code)]

mod cli;
mod config_command;
mod dry_run;
mod earlier_place;
mod event;
mod facts;
mod groups;
mod last_lines;
mod life;
mod limits;
mod log;
mod log_ring;
mod machine;
mod metrics;
mod parent;
mod place;
mod plan;
mod problem;
mod process;
mod processor;
mod program;
mod queue;
mod run;
mod said;
mod status;
mod strays;
mod supervisor;
mod support;
mod told;
mod top;
mod waiting;
mod watched_file;

pub use cli::{
    Cli, Command, ConfigArgs, PlaceArgs, ProcessorArgs, StatusArgs, SupportArgs, TopArgs,
};
pub use dry_run::describe;
pub use facts::{
    Board, EndedTask, ExecutorFacts, ExecutorState, Facts, Life, ProgressFacts, TaskFacts, Totals,
    WaitingFacts,
};
pub use groups::{GroupPlan, NoCgroups};
pub use limits::{Holder, LimitsError, LimitsView, ResourceView, WaiterView, view};
pub use machine::Machine;
pub use parent::Parent;
pub use plan::{ExecutorPlan, Plan, PlanError};
pub use problem::Problem;
pub use program::Lack;
pub use run::run;
pub use seal_host::{RuntimeDir, RuntimeDirError, SYSTEM_RUNTIME_DIR, default_runtime_dir};
pub use seal_limits::RestartPolicy;
pub use supervisor::{ServeError, Served, Timing, serve};
pub use watched_file::WatchedFile;
