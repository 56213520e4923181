//! How many hashes a second this processor does, by arity and kernel, and how many its multipliers
//! allow.

use std::time::{Duration, Instant};

#[cfg(target_arch = "x86_64")]
use seal_field::Ifma;
use seal_poseidon::{Hasher, Kernel, Poseidon};
use serde::Serialize;

/// Modular multiplications of a hash in the form with sparse matrices.
const MULTIPLICATIONS: [(u32, u64); 3] = [(2, 578), (8, 1932), (11, 2790)];

/// Hashes of a batch.
const BATCH: usize = 1024;

/// How long each rate is measured.
const TIME: Duration = Duration::from_millis(500);

/// A rate on one thread.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Rate {
    pub(crate) kernel: &'static str,
    pub(crate) arity: u32,
    /// Hashes a second.
    pub(crate) hashes: f64,
    /// The multiplications that stand for them, a second.
    pub(crate) multiplications: f64,
    /// Hashes a second if the multipliers did nothing else and were never idle, where the kernel's
    /// instructions are counted.
    pub(crate) limit: Option<f64>,
}

/// The rates of all kernels and arities, each on one thread.
pub(crate) fn rates() -> impl Iterator<Item = Rate> {
    let multiply_adds = multiply_adds();
    Kernel::available().flat_map(move |kernel| {
        MULTIPLICATIONS.into_iter().filter_map(move |(arity, multiplications)| {
            let hasher = Hasher::new(Poseidon::of_arity(arity)?, kernel);
            let hashes = hashes(hasher);
            let multiplications = hashes * multiplications as f64;
            let limit = multiply_adds.zip(hasher.multiply_adds()).map(|(rate, each)| rate / each);
            Some(Rate { kernel: kernel.name(), arity, hashes, multiplications, limit })
        })
    })
}

/// Multiply-adds on vectors that a core does in a second.
fn multiply_adds() -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    return Ifma::detect().map(|proof| seal_field::rate::measure(proof, TIME).multiply_adds);
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// Hashes a second.
fn hashes(hasher: Hasher) -> f64 {
    let nodes: Vec<[u8; 32]> = (0..BATCH * hasher.arity())
        .map(|i| std::array::from_fn(|byte| (i >> (byte % 4 * 8)).to_le_bytes()[0] & 0x3f))
        .collect();
    let layers: Vec<_> = nodes.chunks(BATCH).collect();
    let mut hashes = vec![[0; 32]; BATCH];
    let mut hash = || hasher.hash_columns(&layers, &mut hashes).expect("below the modulus");
    // Constants are derived and pages taken by the first batch.
    hash();
    let (began, mut batches) = (Instant::now(), 0_u32);
    while began.elapsed() < TIME {
        hash();
        batches += 1;
    }
    f64::from(batches) * BATCH as f64 / began.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_rate_for_each_kernel_and_arity() {
        let found: Vec<_> = rates().map(|rate| (rate.kernel, rate.arity)).collect();
        let kernels = Kernel::available().map(Kernel::name);
        let expected: Vec<_> = kernels.flat_map(|k| [2, 8, 11].map(|arity| (k, arity))).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_multipliers_limit_is_told_for_the_kernel_that_consists_of_them() {
        for rate in rates() {
            assert_eq!(rate.limit.is_some(), rate.kernel == "ifma", "{rate:?}");
            assert!(rate.limit.is_none_or(|limit| limit > 0.0), "{rate:?}");
        }
    }
}
