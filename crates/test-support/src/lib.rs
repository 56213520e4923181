//! What tests and xtask share. Never linked into a binary that users run.
#![forbid(unsafe_code)]

pub mod client;
pub mod data;
pub mod skip;
pub mod vector;
