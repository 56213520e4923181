//! The permutation behind the expander parents: a three-round Feistel network over the smallest
//! even number of bits that covers the domain, repeated until the result falls into it.
//!
//! Source: specification, "Expander graphs: Chung's construction";
//! `storage_proofs_core::crypto::feistel`.

use rayon::prelude::*;

/// Rounds of the network.
const ROUNDS: usize = 3;

/// A keyed permutation of the numbers below a bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Feistel {
    bound: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Feistel {
    /// A permutation of `0..bound`.
    pub(crate) fn new(bound: u64, keys: [u64; ROUNDS]) -> Self {
        let half_bits = bound.saturating_sub(1).max(1).ilog(4) + 1;
        Self { bound, half_bits, keys }
    }

    /// Where `index` goes.
    pub(crate) fn permute(&self, index: u64) -> u64 {
        debug_assert!(index < self.bound);
        let mut image = self.encrypt(index);
        while image >= self.bound {
            image = self.encrypt(image);
        }
        image
    }

    fn encrypt(&self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (round(right, key) & mask));
        }
        (left << self.half_bits) | right
    }
}

/// A half has at most so many values: bounds are below 2^35, eight times the number of nodes.
const HALVES: usize = 1 << 18;

/// The round functions of a network as tables.
///
/// A half of 17 bits, as in the graphs of 32 GiB and 64 GiB, has only 131,072 values, but a graph
/// of 32 GiB needs 48 rounds for each of its 2^30 nodes. So every value of every round function is
/// hashed once, 393,216 hashes instead of 5.2e10, and a round is a look-up in 512 KiB.
#[derive(Debug)]
pub(crate) struct RoundTables {
    bound: u64,
    half_bits: u32,
    rounds: [Box<[u32; HALVES]>; ROUNDS],
}

impl RoundTables {
    /// The tables of `feistel`.
    pub(crate) fn new(feistel: &Feistel) -> Self {
        let Feistel { bound, half_bits, keys } = *feistel;
        let mask = (1 << half_bits) - 1;
        let rounds = keys.map(|key| {
            let mut table = vec![0; HALVES];
            table[..1 << half_bits].par_iter_mut().zip(0_u32..1 << half_bits).for_each(
                |(value, half)| {
                    *value = u32::try_from(round(u64::from(half), key) & mask).expect("18 bits");
                },
            );
            table.into_boxed_slice().try_into().expect("as long as was asked for")
        });
        Self { bound, half_bits, rounds }
    }

    /// Where the indices from `first` on go: what [`Feistel::permute`] says, many at a time.
    ///
    /// About half of all images fall out of the bound and are encrypted again. To branch on each
    /// costs more than the look-ups, so all are encrypted first, then again those that need it,
    /// and so on; `again` is memory for their positions.
    pub(crate) fn permute_from(&self, first: u64, images: &mut [u64], again: &mut Vec<u32>) {
        again.resize(images.len(), 0);
        let mut left = 0;
        for (position, image) in (0..).zip(images.iter_mut()) {
            *image = self.encrypt(first + u64::from(position));
            again[left] = position;
            left += usize::from(*image >= self.bound);
        }
        while left > 0 {
            let mut still = 0;
            for i in 0..left {
                let position = again[i];
                let image = &mut images[position as usize];
                *image = self.encrypt(*image);
                again[still] = position;
                still += usize::from(*image >= self.bound);
            }
            left = still;
        }
    }

    #[inline]
    fn encrypt(&self, value: u64) -> u64 {
        // The halves of every value are below `HALVES`; the masks only tell the compiler.
        let (mut left, mut right) =
            ((value >> self.half_bits) as u32, (value & ((1 << self.half_bits) - 1)) as u32);
        for table in &self.rounds {
            (left, right) = (right, left ^ table[right as usize % HALVES]);
        }
        (u64::from(left) << self.half_bits) | u64::from(right)
    }
}

/// The first eight bytes of BLAKE2b over half and key, all big-endian.
fn round(half: u64, key: u64) -> u64 {
    let mut message = [0; 16];
    message[..8].copy_from_slice(&half.to_be_bytes());
    message[8..].copy_from_slice(&key.to_be_bytes());
    let hash = blake2b_simd::blake2b(&message);
    let first = hash.as_bytes().first_chunk().expect("a BLAKE2b hash has 64 bytes");
    u64::from_be_bytes(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_permutation() {
        for bound in [1, 2, 4, 5, 16, 17, 64, 1000, 1024, 1025] {
            let feistel = Feistel::new(bound, [1, 2, 3]);
            let mut seen = vec![false; usize::try_from(bound).expect("small")];
            for index in 0..bound {
                let image = usize::try_from(feistel.permute(index)).expect("small");
                assert!(!std::mem::replace(&mut seen[image], true), "{bound}: {image} twice");
            }
        }
    }

    #[test]
    fn tables_permute_as_the_hashes_do() {
        let mut again = Vec::new();
        for bound in [1, 2, 5, 64, 1000, 1 << 17, (1 << 17) + 1, 1 << 33, 1 << 34, (1 << 35) - 8] {
            let feistel = Feistel::new(bound, [7, 8, u64::MAX]);
            let tables = RoundTables::new(&feistel);
            for first in [0, bound / 3, bound.saturating_sub(300)] {
                let count = 300.min(bound - first);
                let mut images = vec![0; usize::try_from(count).expect("small")];
                tables.permute_from(first, &mut images, &mut again);
                let expected: Vec<_> = (first..first + count).map(|i| feistel.permute(i)).collect();
                assert_eq!(images, expected, "{bound} from {first}");
            }
        }
    }

    #[test]
    fn covers_the_bound_with_an_even_number_of_bits() {
        for (bound, half_bits) in [(2, 1), (4, 1), (5, 2), (16, 2), (17, 3), (1 << 33, 17)] {
            assert_eq!(Feistel::new(bound, [0; 3]).half_bits, half_bits, "{bound}");
        }
    }
}
