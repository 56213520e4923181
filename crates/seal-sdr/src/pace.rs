//! How fast this processor labels.

use std::hint::black_box;
use std::time::{Duration, Instant};

use seal_sha256::{Kernel, LabelPrefix, Prepared, Run};

use crate::PARENTS;

/// Labels of one attempt: some hundred microseconds.
const LABELS: u32 = 500;

/// The fastest of the attempts in this time, or of so many, is what the processor can do while
/// nothing comes between.
const TRIAL: Duration = Duration::from_millis(4);
const ATTEMPTS: u32 = 8;

/// What a label takes when it waits for the one before and for nothing else, as in a layer with
/// producers: a little less than labels take. Tries some, for a few milliseconds.
pub fn label_time(kernel: Kernel) -> Duration {
    let began = Instant::now();
    let mut least = attempt(kernel);
    for _ in 1..ATTEMPTS {
        if began.elapsed() >= TRIAL {
            break;
        }
        least = least.min(attempt(kernel));
    }
    least / LABELS
}

fn attempt(kernel: Kernel) -> Duration {
    // All is there but the label before.
    let mut slot = Prepared { late: 1, ..Prepared::default() };
    slot.hash_ahead(&LabelPrefix::new(kernel, [7; 32]), 2, 1);
    let mut chain = Chain { slot, left: LABELS };
    let began = Instant::now();
    kernel.chain::<PARENTS, 1>(&mut chain);
    let took = began.elapsed();
    black_box(chain.slot.parents[0]);
    took
}

/// Labels, each of which is a parent of the next.
struct Chain {
    slot: Prepared,
    left: u32,
}

impl Run<1> for Chain {
    fn advance(&mut self) -> bool {
        let more = self.left > 0;
        self.left = self.left.saturating_sub(1);
        more
    }

    fn prepared(&self) -> [&Prepared; 1] {
        [&self.slot]
    }

    fn done(&mut self, [label]: [[u8; 32]; 1]) {
        self.slot.parents[0] = label;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_time_of_hashing_and_not_of_nothing() {
        for kernel in Kernel::available() {
            // No processor hashes the 19 blocks of a chain within 100 ns.
            assert!(label_time(kernel) > Duration::from_nanos(100), "{kernel:?}");
        }
    }
}
