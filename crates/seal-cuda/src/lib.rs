//! Poseidon and replica encoding on NVIDIA devices.
//!
//! The kernels are CUDA C++ (`kernels/`), compiled by nvcc when the feature `cuda` is on and
//! carried in the binary. The driver is loaded when a device is opened, so that the same binary
//! starts on machines without one.
//!
//! A [`Device`] is opened once; each [`Worker`] made from it computes batches on a stream of its
//! own. Everything that is offered is safe to call: copies and kernels are waited for before
//! borrowed memory is given back.
//!
//! Knows nothing of sectors or files.

mod batch;
pub mod check;
mod constants;
mod device;
mod driver;
mod error;
mod images;
pub mod measure;
mod memory;
mod resident;
mod stream;

pub use batch::{Batch, Node, Parts, Shape, Worker};
pub use device::{Device, DeviceInfo, OpenOptions};
pub use error::{BatchError, CudaError};
pub use images::{Image, embedded, report};
pub use memory::PinnedMemory;
