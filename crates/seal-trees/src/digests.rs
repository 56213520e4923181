//! SHA-256 over the layers while they are read, to be compared with what PC1 recorded.
//!
//! A layer that has changed since gives a replica and trees that fit together and yet a proof that
//! is rejected, so nothing else would find it. Blocks are read by several threads, and a digest
//! goes from front to back: whoever has read a block waits for its turn in each layer. The turn
//! always comes, because blocks are given out in order to threads that wait for nothing else.

use std::fmt::Write;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use seal_sha256::{INITIAL_STATE, Kernel, State, digest_of};

use crate::Node;

/// How often somebody who waits for a turn looks whether all has been stopped.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The digests of all layers of a sector. Two layers are hashed side by side, which takes little
/// more time than one.
#[derive(Debug)]
pub(crate) struct LayerDigests {
    kernel: Kernel,
    pairs: Vec<Pair>,
    layers: usize,
}

/// Two layers, or the last one alone.
#[derive(Debug)]
struct Pair {
    progress: Mutex<Progress>,
    turn: Condvar,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    /// The block whose turn it is.
    next: u64,
    /// The states after all blocks before it.
    states: [State; 2],
    /// How many bytes that were, of each layer.
    bytes: u64,
}

impl LayerDigests {
    pub(crate) fn new(kernel: Kernel, layers: usize) -> Self {
        let progress = Progress { next: 0, states: [INITIAL_STATE; 2], bytes: 0 };
        let pair = || Pair { progress: Mutex::new(progress), turn: Condvar::new() };
        Self { kernel, pairs: (0..layers.div_ceil(2)).map(|_| pair()).collect(), layers }
    }

    /// Adds block `number` of all layers, of each pair of them when its turn has come. Does nothing
    /// any more once `stopped`.
    ///
    /// # Panics
    /// When the number of nodes in a block is odd.
    pub(crate) fn add(&self, number: u64, layers: &[&[Node]], stopped: &dyn Fn() -> bool) {
        assert_eq!(layers.len(), self.layers, "a block of each layer");
        for (pair, layers) in self.pairs.iter().zip(layers.chunks(2)) {
            if !pair.add(self.kernel, number, layers, stopped) {
                return;
            }
        }
    }

    /// The digest of each layer in hex.
    pub(crate) fn finish(self) -> impl Iterator<Item = String> {
        let (kernel, layers) = (self.kernel, self.layers);
        let ends = self.pairs.into_iter().flat_map(move |pair| {
            let progress = pair.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
            progress.states.map(|mut state| {
                kernel.compress(&mut state, &[padding(progress.bytes)]);
                hex(&digest_of(&state))
            })
        });
        ends.take(layers)
    }
}

impl Pair {
    /// Returns `false` once `stopped`.
    fn add(
        &self,
        kernel: Kernel,
        number: u64,
        layers: &[&[Node]],
        stopped: &dyn Fn() -> bool,
    ) -> bool {
        // A digest that a panic left behind is never compared: the panic ends the sector.
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        while progress.next != number {
            if stopped() {
                return false;
            }
            let waited = self.turn.wait_timeout(progress, LOOK_EVERY);
            progress = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        match layers {
            [one, other] => {
                kernel.compress_pair(&mut progress.states, [blocks(one), blocks(other)]);
            }
            _ => {
                layers.iter().for_each(|one| kernel.compress(&mut progress.states[0], blocks(one)))
            }
        }
        progress.bytes += layers[0].as_flattened().len() as u64;
        progress.next += 1;
        drop(progress);
        self.turn.notify_all();
        true
    }
}

fn blocks(labels: &[Node]) -> &[[u8; 64]] {
    let (blocks, rest) = labels.as_flattened().as_chunks();
    assert!(rest.is_empty(), "nodes in pairs");
    blocks
}

/// The last block of a message of `bytes` bytes, a multiple of 64 (FIPS 180-4, section 5.1.1).
fn padding(bytes: u64) -> [u8; 64] {
    let mut block = [0; 64];
    block[0] = 0x80;
    block[56..].copy_from_slice(&(bytes * 8).to_be_bytes());
    block
}

fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |mut text, byte| {
        // Text always takes more text.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn blocks_that_come_in_any_order_are_hashed_in_theirs() {
        for kernel in Kernel::available() {
            for count in [1, 2, 3, 11] {
                let layers: Vec<Vec<Node>> = (0..count).map(|l| vec![[l; 32]; 40]).collect();
                let digests = LayerDigests::new(kernel, layers.len());
                std::thread::scope(|scope| {
                    for number in (0..10_usize).rev() {
                        let (digests, layers) = (&digests, &layers);
                        scope.spawn(move || {
                            let blocks: Vec<_> =
                                layers.iter().map(|labels| &labels[number * 4..][..4]).collect();
                            digests.add(number as u64, &blocks, &|| false);
                        });
                    }
                });
                let expected =
                    layers.iter().map(|labels| hex(&Sha256::digest(labels.as_flattened())));
                assert!(digests.finish().eq(expected), "{count} layers, {}", kernel.name());
            }
        }
    }

    #[test]
    fn whoever_waits_goes_when_all_is_stopped() {
        let digests = LayerDigests::new(Kernel::detect(), 1);
        digests.add(7, &[&[[0; 32]; 2]], &|| true);
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digests.finish().next().as_deref(), Some(nothing));
    }
}
