//! Commit phase 2: from a C1 output to Groth16 proofs that verify.
#![forbid(unsafe_code)]

mod bench;
mod cli;
mod executor;
mod gpu;
mod params;
mod progress;

pub use cli::main;
pub use executor::C2;
