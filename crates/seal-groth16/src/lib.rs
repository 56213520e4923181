//! Groth16 proofs of the proof-of-replication circuit.
//!
//! The only library that sees the published proof crates. It knows where the parameter files
//! are and whether they can be trusted ([`ParamDir`]), makes parameters for tests where the
//! published ones cannot be had ([`generate_test_params`]), and turns a C2 task into a proof that
//! has been verified ([`Prover`]). It knows nothing of processes, requests or environment
//! variables: whoever calls it says where the files are and what is allowed.
#![forbid(unsafe_code)]

#[cfg(test)]
mod captured;
mod circuit;
mod circuit_cache;
mod circuit_file;
mod device;
mod digest;
mod error;
mod fillers;
mod generate;
mod groth;
mod job;
mod kept;
mod layout;
mod load;
mod marker;
mod msm;
mod params;
mod pipeline;
mod prover;
mod r1cs;
mod setup;
mod shape;
#[cfg(test)]
mod small;
mod stamps;
#[cfg(test)]
mod stand_in;
mod standing;
mod step;
mod synthetic;
mod task;
#[cfg(test)]
mod tiny;
mod trial;
mod turns;
mod vanilla;
mod verify;
#[cfg(test)]
mod whole;
mod witness;

pub use circuit::CircuitFiles;
pub use device::Device;
pub use digest::digest_file;
pub use error::Groth16Error;
pub use fillers::start_workers;
pub use generate::{GenerateStep, Generated, Overwrite, generate_test_params};
pub use groth::ProofTimes;
pub use marker::{MARKER, MarkedFile, Marker};
pub use params::{DigestCheck, FoundParams, ParamDir, TestParams, Trust};
pub use prover::{Prover, Resources};
pub use seal_cuda::Before as WrongBefore;
pub use standing::Without;
pub use step::{At, Position, ProveStep, Work};
pub use synthetic::{Synthetic, prove_synthetic};
pub use verify::PROOF_BYTES;

// Only its features matter here: with "portable" it runs on every CPU of the architecture.
use blst as _;
