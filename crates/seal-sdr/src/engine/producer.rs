//! The producer threads of a unit.

use std::sync::Arc;
use std::time::Duration;

use seal_host::RingProducer;
use seal_sha256::Prepared;

use super::feed::Feed;
use super::unit::{BATCH, Inbox, Spin};

/// One producer's share of one layer.
pub(crate) struct Share {
    pub(crate) feed: Feed,
    pub(crate) ring: RingProducer<Prepared>,
    pub(crate) producers: usize,
    /// Whether a full ring lasts for much longer than [`REST`].
    pub(crate) may_rest: bool,
}

/// How long a producer sleeps when all rings are full, instead of looking at them all the time:
/// its core is free for others meanwhile, who would take it from a producer that is at work. A
/// ring of 8,192 nodes lasts for 5 ms at least.
const REST: Duration = Duration::from_micros(500);

impl Share {
    fn nodes(&self) -> usize {
        self.feed.shared.current.nodes()
    }

    fn first_node(&self) -> usize {
        usize::try_from(self.ring.next()).expect("batches of a layer in memory") * BATCH
    }

    /// Whether there is nothing left to do for this layer.
    fn is_over(&self) -> bool {
        self.first_node() >= self.nodes() || self.feed.shared.is_stopped()
    }

    /// Fills the next batch if its place is free.
    fn step(&mut self) -> bool {
        let (first, nodes) = (self.first_node(), self.nodes());
        let Some(mut slots) = self.ring.try_batch() else { return false };
        let labels = self.feed.shared.current.published();
        let after = first + self.producers * BATCH;
        for node in after..nodes.min(after + BATCH) {
            self.feed.prefetch(node, labels);
        }
        for (node, slot) in (first..nodes).zip(&mut *slots) {
            self.feed.prepare(node, labels, slot);
        }
        slots.commit();
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // The consumer must not wait for a producer that is gone.
        if !self.is_over() {
            self.feed.shared.stop();
        }
    }
}

/// Serves the unit's layers in turn until the unit ends.
pub(crate) fn run(inbox: &Arc<Inbox<Share>>) {
    let mut shares: Vec<Share> = Vec::new();
    let mut spin = Spin::default();
    while inbox.receive(&mut shares) {
        shares.retain(|share| !share.is_over());
        let mut moved = false;
        for share in &mut shares {
            moved |= !share.is_over() && share.step();
        }
        if moved {
            spin.reset();
        } else if !shares.is_empty() && shares.iter().all(|share| share.may_rest) {
            std::thread::sleep(REST);
        } else {
            spin.wait();
        }
    }
}
