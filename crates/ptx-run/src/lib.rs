//! Runs the PTX that nvcc makes of device code on the processor, and checks what it does: what is
//! compiled for a device is executed by tests on machines that have none.
//!
//! A [`Module`] is a text. Loading it stops at anything that is not known here, and at registers
//! that could be read before they are written. Running a kernel checks every access to memory: its
//! place, its alignment, memory that nobody has written, shared memory that several threads touch
//! with no barrier between, and barriers that not all threads come to. Threads and blocks run in
//! orders drawn from a seed.
//!
//! What it cannot show: what ptxas makes of the text, time, and failures of a real driver.
#![forbid(unsafe_code)]

mod accesses;
mod alive;
mod decode;
mod fault;
mod flow;
mod grid;
mod lanes;
mod memory;
mod module;
mod moves;
mod names;
mod op;
mod parse;
mod places;
pub mod serve;
mod shared;
mod text;
mod warp;

pub use fault::{Deed, RunFault, TextFault};
pub use memory::Memory;
pub use module::{Counts, Grid, LaunchError, Module};
