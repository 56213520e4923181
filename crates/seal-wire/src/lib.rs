//! The line-delimited JSON messages between venus-worker, supervisor and executors.
//!
//! `docs/protocol.md` is normative; this crate is its only implementation. It knows text and
//! types, no files, no processes and nothing of how a task is done.
#![forbid(unsafe_code)]

mod codes;
mod corruption;
mod event;
mod head;
mod line;
mod message;
mod objects;
mod salvage;
mod sector;
mod tasks;

pub use codes::{ErrorCode, ExitCode, TaskError};
pub use corruption::{
    CORRUPTION_FILE, Corruption, CorruptionKind, LEAVES_OUT_AFTER, cpus_left_out, devices_left_out,
    wrong_devices, wrong_labels,
};
pub use event::{
    DeviceReport, DeviceStanding, EVENTS, Event, Progress, ProgressUnit, Started, Whole,
};
pub use head::RequestHead;
pub use line::{Line, LineReader};
pub use message::{BadLine, READY_SUFFIX, RawRequest, RawResponse, Response, ready_line, to_line};
pub use salvage::salvage_id;
pub use tasks::{
    C1Output, C2Output, C2Task, LabelStores, Labels, Pc1Output, Pc1Task, Pc2Output, Pc2Task,
    PieceInfo, StoreConfig,
};
