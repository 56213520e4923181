//! Designs a sealing set-up for a machine, checks any configuration strictly, and tells what it
//! will deliver.
//!
//! `hardware` is the machine, `scheme` a configuration on it: the model that everything else works
//! on. Nothing here links proof code or seals anything.
#![forbid(unsafe_code)]

mod bytes;
pub mod check;
mod cli;
mod commands;
pub mod disk;
pub mod estimate;
pub mod figures;
pub mod given;
pub mod hardware;
pub mod picture;
mod predicted;
pub mod propose;
mod run;
pub mod scheme;
pub mod simulate;
pub mod throughput;
pub mod times;

pub use bytes::{Bytes, NotBytes};
pub use hardware::Hardware;
pub use run::run;
pub use scheme::{Executor, Scheme};
