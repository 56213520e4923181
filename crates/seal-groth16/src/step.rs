//! How far a proof is, as its caller is told, and how the caller stops it.

use std::ops::ControlFlow;
use std::time::Duration;

use seal_types::SectorSize;

use crate::Groth16Error;

/// How far a proof is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProveStep {
    /// The C1 output is checked.
    Checking,
    /// The device proves something whose proof is known; told again and again.
    Trying,
    /// The parameters, or the circuit, are being loaded for another task or ahead of all; told
    /// again and again.
    Waiting {
        /// Whose.
        sector_size: SectorSize,
    },
    /// The parameters are read; this happens once per sector size.
    Loading {
        /// Bytes read.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A partition is filled and proved; told again and again.
    Proving {
        /// Its number, from 0.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// The finished proof is verified.
    Verifying,
}

/// Told before each step, and several times a second to several times a minute, by the sector's
/// size, while a partition is proved; `Break` stops the work there.
pub type At<'a> = dyn FnMut(ProveStep) -> ControlFlow<()> + 'a;

/// How often a task that waits is asked whether to go on.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Tells; an error if the caller does not want the rest.
pub(crate) fn step(at: &mut At<'_>, step: ProveStep) -> Result<(), Groth16Error> {
    if at(step).is_break() { Err(Groth16Error::Cancelled) } else { Ok(()) }
}
