//! The permutation behind the expander parents: a three-round Feistel network over the smallest
//! even number of bits that covers the domain, repeated until the result falls into it.
//!
//! Source: specification, "Expander graphs: Chung's construction";
//! `storage_proofs_core::crypto::feistel`.

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
    fn covers_the_bound_with_an_even_number_of_bits() {
        for (bound, half_bits) in [(2, 1), (4, 1), (5, 2), (16, 2), (17, 3), (1 << 33, 17)] {
            assert_eq!(Feistel::new(bound, [0; 3]).half_bits, half_bits, "{bound}");
        }
    }
}
