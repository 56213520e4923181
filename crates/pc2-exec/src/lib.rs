//! Pre-commit phase 2: from layers and tree D to the replica and its commitment.
#![forbid(unsafe_code)]

mod cli;
mod error;
mod executor;
mod gpu;
mod progress;
mod rates;
mod recorded;

pub use cli::main;
pub use error::Pc2Error;
pub use executor::{LayerCheck, Pc2};
