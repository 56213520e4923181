//! Poseidon, replica encoding and Groth16 proofs on NVIDIA devices.
//!
//! The kernels of the first two are CUDA C++ (`kernels/`), compiled by nvcc when the feature `cuda` is on and
//! carried in the binary. The driver is loaded when a device is opened, so that the same binary
//! starts on machines without one.
//!
//! A [`Device`] is opened once; each [`Worker`] made from it computes batches on a stream of its
//! own. Everything that is offered is safe to call: copies and kernels are waited for before
//! borrowed memory is given back.
//!
//! Proofs ([`groth16`]) are computed by the published `supraseal-c2`, with the feature `groth16`.
//!
//! Knows nothing of sectors.

mod batch;
pub mod check;
mod codes;
mod constants;
mod device;
mod driver;
mod error;
mod flight;
pub mod groth16;
mod images;
pub mod measure;
mod memory;
mod resident;
mod stream;
mod trust;

pub use batch::{Batch, Node, Parts, Shape, Worker};
pub use device::{Device, DeviceInfo, OpenOptions};
pub use error::{BatchError, CudaError};
pub use images::{Image, embedded, report};
pub use memory::PinnedMemory;
pub use trust::{Before, Opinion, Standing, Trust};
