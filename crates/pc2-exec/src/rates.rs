//! How many hashes a second this processor does, by arity and kernel, in how many cycles, and how
//! many its multipliers allow.

use std::hint::black_box;
use std::time::{Duration, Instant};

#[cfg(target_arch = "x86_64")]
use seal_field::{Fma, Ifma};
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
    /// Cycles of the core for a hash in the best batch, where its clock is known: other work on the
    /// core disturbs little.
    pub(crate) cycles: Option<f64>,
    /// Hashes a second if the multipliers did nothing else and were never idle, where the kernel's
    /// instructions are counted.
    pub(crate) limit: Option<f64>,
}

/// The rates of all kernels and arities, each on one thread.
pub(crate) fn rates() -> impl Iterator<Item = Rate> {
    let multipliers = Multipliers::measured();
    Kernel::available().flat_map(move |kernel| {
        MULTIPLICATIONS.into_iter().filter_map(move |(arity, multiplications)| {
            let hasher = Hasher::new(Poseidon::of_arity(arity)?, kernel);
            let (hashes, best) = hashes(hasher);
            let multiplications = hashes * multiplications as f64;
            // Measured beside the hashes: the clock is another when vectors are at work.
            let cycles = clock().map(|clock| clock / best);
            let limit = multipliers.limit(hasher);
            Some(Rate { kernel: kernel.name(), arity, hashes, multiplications, cycles, limit })
        })
    })
}

/// What the multipliers of a core do in a second, by the instructions that kernels consist of.
#[derive(Clone, Copy)]
struct Multipliers {
    /// 52-bit multiply-adds on vectors (`ifma`).
    multiply_adds: Option<f64>,
    /// Operations on vectors in the mix of products in double precision (`fma`).
    vector_operations: Option<f64>,
}

impl Multipliers {
    fn measured() -> Self {
        #[cfg(target_arch = "x86_64")]
        let multiply_adds =
            Ifma::detect().map(|proof| seal_field::rate::measure(proof, TIME).multiply_adds);
        #[cfg(target_arch = "x86_64")]
        let vector_operations =
            Fma::detect().map(|proof| seal_field::rate::vector_operations(proof, TIME));
        #[cfg(not(target_arch = "x86_64"))]
        let (multiply_adds, vector_operations) = (None, None);
        Self { multiply_adds, vector_operations }
    }

    /// Hashes a second that they allow; `None` for kernels whose instructions are not counted.
    fn limit(&self, hasher: Hasher) -> Option<f64> {
        let multiply_adds = self.multiply_adds.zip(hasher.multiply_adds());
        let (rate, each) =
            multiply_adds.or(self.vector_operations.zip(hasher.vector_operations()))?;
        Some(rate / each)
    }
}

/// The clock of the core that this runs on, in cycles a second. Counters of time stamps tell of
/// another one, so it is measured: by a chain of multiplications and exclusive ors, each of which
/// waits for the one before, 3 and 1 cycles on every x86 processor with vectors of 256 bits. The
/// best of short runs, so that other work on the core disturbs little.
fn clock() -> Option<f64> {
    const STEPS: u32 = 1 << 16;
    const CYCLES_A_STEP: f64 = 4.0;
    const RUNS: usize = 64;
    let chain = || {
        let (factor, mask) = black_box((0x9e37_79b9_7f4a_7c15_u64, 0x5555_u64));
        let mut word = factor;
        let start = Instant::now();
        for _ in 0..STEPS {
            word = word.wrapping_mul(factor) ^ mask;
        }
        black_box(word);
        start.elapsed().as_secs_f64()
    };
    let best = (0..RUNS).map(|_| chain()).fold(f64::INFINITY, f64::min);
    cfg!(target_arch = "x86_64").then(|| f64::from(STEPS) * CYCLES_A_STEP / best)
}

/// Hashes a second, of all batches and of the best.
fn hashes(hasher: Hasher) -> (f64, f64) {
    let nodes: Vec<[u8; 32]> = (0..BATCH * hasher.arity())
        .map(|i| std::array::from_fn(|byte| (i >> (byte % 4 * 8)).to_le_bytes()[0] & 0x3f))
        .collect();
    let layers: Vec<_> = nodes.chunks(BATCH).collect();
    let mut hashes = vec![[0; 32]; BATCH];
    let mut hash = || hasher.hash_columns(&layers, &mut hashes).expect("below the modulus");
    // Constants are derived and pages taken by the first batch.
    hash();
    let (began, mut batches, mut best) = (Instant::now(), 0_u32, f64::INFINITY);
    while began.elapsed() < TIME {
        let batch = Instant::now();
        hash();
        best = best.min(batch.elapsed().as_secs_f64());
        batches += 1;
    }
    let all = f64::from(batches) * BATCH as f64 / began.elapsed().as_secs_f64();
    (all, BATCH as f64 / best)
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

    /// Nothing is said of speed but what holds in every build.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_clock_is_that_of_a_processor() {
        let clock = clock().expect("x86");
        assert!((1e7..1e10).contains(&clock), "{clock}");
        for rate in rates() {
            let cycles = rate.cycles.expect("x86");
            assert!(cycles > 100.0, "{rate:?}");
        }
    }

    #[test]
    fn the_limit_is_told_for_kernels_of_vectors() {
        for rate in rates() {
            assert_eq!(rate.limit.is_some(), rate.kernel != "portable", "{rate:?}");
            assert!(rate.limit.is_none_or(|limit| limit > 0.0), "{rate:?}");
        }
    }
}
