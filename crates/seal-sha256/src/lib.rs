//! SHA-256 kernels for labelling and tree D.
//!
//! Sealing hashes messages of fixed, block-aligned shapes by the billion: 64 bytes for a row of
//! tree D, 1,248 bytes for a label. The kernels therefore work on whole blocks, and the padding
//! of each shape is a constant.
//!
//! Beside them are the ChaCha8 streams that the graph draws parents from ([`ChaCha8`]): the same
//! kind of kernel, chosen in the same way, for a vector of nodes at once.
//!
//! Source: FIPS 180-4. All kernels are bit-identical to the portable one, and that to the
//! published vectors.

mod chacha8;
mod chain;
mod kernel;
mod label;
mod portable;
mod prefetch;
#[cfg(target_arch = "x86_64")]
mod shani;

pub use chacha8::{ChaCha8, STREAM_WORDS, STREAMS, StreamWords};
pub use chain::{CALLS_BESIDE, Prepared, Run};
pub use kernel::{INITIAL_STATE, Kernel, KernelError, State, digest_of};
pub use label::{ALL_PARENTS, BASE_PARENTS, LabelPrefix, REPEATED_PARENTS};
pub use prefetch::prefetch;
