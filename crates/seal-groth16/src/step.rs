//! How far a proof is, as its caller is told, and how the caller stops it.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// The circuit is read, or recorded and compiled; once for each sector size.
    Compiling,
    /// A partition is filled and proved; told again and again.
    Proving {
        /// Its number, from 0.
        partition: u32,
        /// How many there are.
        partitions: u32,
        /// Where the values of variables are computed, if that has begun: of this partition or of
        /// the next.
        filling: Option<Position>,
        /// Where the proof is, if it has begun.
        proving: Option<Position>,
    },
    /// The finished proof is verified.
    Verifying,
}

/// Where the work on a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Which partition, from 0.
    pub partition: u32,
    /// What is done.
    pub work: Work,
    /// How much of that is done.
    pub done: u32,
    /// How much it is in all.
    pub total: u32,
}

/// What is done to a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// It waits for memory.
    AwaitMemory,
    /// The values of its variables are computed, challenge by challenge.
    Witness,
    /// It waits for its turn: another task's partition is proved.
    AwaitTurn,
    /// The products are transformed.
    Transforms,
    /// The sums of points are computed.
    Sums,
    /// A device does both.
    Device,
}

impl Work {
    const ALL: [Self; 6] = [
        Self::AwaitMemory,
        Self::Witness,
        Self::AwaitTurn,
        Self::Transforms,
        Self::Sums,
        Self::Device,
    ];
}

/// Tells who looks where a partition is, without a lock.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

/// Where the partitions of a task are.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    /// The one that is filled.
    pub(crate) filling: Gauge,
    /// The one that is proved.
    pub(crate) proving: Gauge,
}

impl Gauge {
    /// Of `done` and `total` 20 bits are kept, of the partition 16.
    pub(crate) fn set(&self, partition: u32, work: Work, done: u32, total: u32) {
        const MOST: u32 = (1 << 20) - 1;
        let counts = u64::from(done.min(MOST)) << 20 | u64::from(total.min(MOST));
        // What was never set is 0.
        let head = u64::from(partition as u16) << 8 | (work as u64 + 1);
        self.0.store(head << 40 | counts, Ordering::Relaxed);
    }

    /// What was set last.
    pub(crate) fn read(&self) -> Option<Position> {
        let value = self.0.load(Ordering::Relaxed);
        let bits = |from: u32, count: u32| (value >> from & ((1 << count) - 1)) as u32;
        let work = *Work::ALL.get(bits(40, 8).checked_sub(1)? as usize)?;
        Some(Position { partition: bits(48, 16), work, done: bits(20, 20), total: bits(0, 20) })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_is_read_as_it_was_set() {
        let gauge = Gauge::default();
        assert_eq!(gauge.read(), None);
        for (number, work) in (0..).zip(Work::ALL) {
            for (partition, done, total) in [(0, 0, 1), (9, 17, 18), (125, 1000, 1000)] {
                gauge.set(partition + number, work, done, total);
                let position = Position { partition: partition + number, work, done, total };
                assert_eq!(gauge.read(), Some(position));
            }
        }
    }
}
