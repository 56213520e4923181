//! What is going on on the machine, for people and programs.
//!
//! Each supervisor writes what it is doing to a file in the runtime directory
//! (`status/STAGE-PID-NAMESPACE.json`), replaced as a whole whenever something changes. Who asks reads the
//! files of all supervisors that live, adds what the kernel says of their executors, and the limits
//! and locks they share. Nobody has to be asked, so a supervisor that hangs is seen too.

mod corruption;
mod document;
mod instance;
mod live;
mod measures;
mod reporter;
mod store;
mod text;

pub(crate) use corruption::corruption_told;
pub(crate) use document::{
    Ended, Executor, Live, Machine as MachineStatus, Progress, Supervisor as SupervisorStatus, Task,
};
pub(crate) use live::Looker;
pub(crate) use measures::{BOUNDS, Histogram, Measures};
pub(crate) use reporter::{About, Reporter};
pub(crate) use store::collect;
pub(crate) use text::{cpus, device_told, duration, progress, share, size, tell, waiting, whole};

#[cfg(test)]
pub(crate) use corruption::tests::corrupt;
#[cfg(test)]
pub(crate) use text::tests::busy;
