//! SHA-256 over the layers while they are read, to be compared with what PC1 recorded.
//!
//! A layer that has changed since gives a replica and trees that fit together and yet a proof that
//! is rejected, so nothing else would find it. Blocks are read by several threads, and a digest
//! goes from front to back: whoever has read a block waits for its turn in each layer. The turn
//! always comes, because blocks are given out in order to threads that wait for nothing else.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::Node;

/// How often somebody who waits for a turn looks whether all has been stopped.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The digests of all layers of a sector.
#[derive(Debug)]
pub(crate) struct LayerDigests(Vec<Chain>);

#[derive(Debug, Default)]
struct Chain {
    /// The block whose turn it is, and the digest of all before it.
    state: Mutex<(u64, Sha256)>,
    turn: Condvar,
}

impl LayerDigests {
    pub(crate) fn new(layers: usize) -> Self {
        Self((0..layers).map(|_| Chain::default()).collect())
    }

    /// Adds block `number` of the layer with index `layer`, when its turn has come. Does nothing
    /// any more once `stopped`.
    pub(crate) fn add(
        &self,
        layer: usize,
        number: u64,
        labels: &[Node],
        stopped: &dyn Fn() -> bool,
    ) {
        let chain = &self.0[layer];
        let mut state = chain.lock();
        while state.0 != number {
            if stopped() {
                return;
            }
            let waited = chain.turn.wait_timeout(state, LOOK_EVERY);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.1.update(labels.as_flattened());
        state.0 += 1;
        drop(state);
        chain.turn.notify_all();
    }

    /// The digest of each layer in hex.
    pub(crate) fn finish(self) -> impl Iterator<Item = String> {
        self.0.into_iter().map(|chain| {
            let (_, digest) = chain.state.into_inner().unwrap_or_else(PoisonError::into_inner);
            digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
        })
    }
}

impl Chain {
    fn lock(&self) -> MutexGuard<'_, (u64, Sha256)> {
        // A digest that a panic left behind is never compared: the panic ends the sector.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_come_in_any_order_are_hashed_in_theirs() {
        let layers: Vec<Vec<Node>> = vec![vec![[1; 32]; 40], vec![[2; 32]; 40]];
        let digests = LayerDigests::new(2);
        std::thread::scope(|scope| {
            for number in (0..10_usize).rev() {
                let (digests, layers) = (&digests, &layers);
                scope.spawn(move || {
                    for (layer, labels) in layers.iter().enumerate() {
                        let block = &labels[number * 4..][..4];
                        digests.add(layer, number as u64, block, &|| false);
                    }
                });
            }
        });
        let expected = layers.iter().map(|labels| {
            let digest = Sha256::digest(labels.as_flattened());
            digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        });
        assert!(digests.finish().eq(expected));
    }

    #[test]
    fn whoever_waits_goes_when_all_is_stopped() {
        let digests = LayerDigests::new(1);
        digests.add(0, 7, &[[0; 32]], &|| true);
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digests.finish().next().as_deref(), Some(nothing));
    }
}
