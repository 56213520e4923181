//! What tests and xtask share: a client that speaks as venus-worker does, the reference vectors,
//! a scripted executor that misbehaves on demand, and descriptions of machines that are not there.
//! Never linked into a binary that users run.
#![forbid(unsafe_code)]

mod build;
pub mod client;
pub mod cuda;
pub mod data;
pub mod exposition;
pub mod group;
pub mod launch;
mod machine;
pub mod oracle;
pub mod plain;
pub mod preload;
pub mod process;
pub mod revision;
pub mod sector;
pub mod skip;
pub mod trace;
pub mod vector;

pub use build::fake_exec;
pub use machine::write_sysfs;
