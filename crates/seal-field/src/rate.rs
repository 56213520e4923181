//! What the multipliers of a core do in a second: the limit that work on vectors is measured by.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::fma::fr::mix;
use crate::fr8::{Fr8, LANES, sum_of_multiply_adds};
use crate::{Fma, Ifma, LIMBS};

/// Rates of one core.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// 52-bit multiply-add instructions on vectors of 8 lanes, in a second.
    pub multiply_adds: f64,
    /// Products of two scalar field elements with reduction ([`Fr8::times`]), each lane counted,
    /// in a second.
    pub products: f64,
}

/// Instructions or products in a run.
const RUN: u32 = 1 << 14;

/// Measures the rates on the calling thread, each for `time`, and takes the best of short runs, so
/// that other work on the core disturbs little.
pub fn measure(proof: Ifma, time: Duration) -> Rates {
    let multiply_adds = best(time, || multiply_adds(proof, RUN));
    let products = best(time, || products(proof, RUN)) * LANES as f64;
    Rates { multiply_adds, products }
}

/// How many operations of its mix the `fma` kernels' vector units do in a second: multiply-adds,
/// additions of doubles and of integers as in a pair of products, which need nothing from memory
/// and do not wait for each other. Measured like [`measure`].
pub fn vector_operations(proof: Fma, time: Duration) -> f64 {
    best(time, || mix(proof, black_box(1 << 8)) as u32)
}

/// The best rate of a work that tells how much it did.
fn best(time: Duration, mut work: impl FnMut() -> u32) -> f64 {
    let start = Instant::now();
    let mut best: f64 = 0.0;
    while start.elapsed() < time {
        let run = Instant::now();
        let done = work();
        best = best.max(f64::from(done) / run.elapsed().as_secs_f64());
    }
    best
}

/// Does `count` multiply-adds, rounded down to a multiple of 32. Returns how many.
pub fn multiply_adds(_: Ifma, count: u32) -> u32 {
    // SAFETY: the function needs avx512f and avx512ifma; an `Ifma` exists only if it saw both.
    unsafe { sum_of_multiply_adds(black_box(count)) }
}

/// Multiplies eight elements `count` times, rounded down to a multiple of 8. Returns how often.
pub fn products(_: Ifma, count: u32) -> u32 {
    // SAFETY: the function needs avx512f and avx512ifma; an `Ifma` exists only if it saw both.
    unsafe { independent_products(black_box(count)) }
}

/// Products that do not wait for each other.
#[target_feature(enable = "avx512f,avx512ifma")]
fn independent_products(count: u32) -> u32 {
    let factor = black_box(Fr8::same(&[3; LIMBS]));
    let mut elements = [factor; 8];
    let turns = count / 8;
    for _ in 0..turns {
        for element in &mut elements {
            *element = element.times(&factor);
        }
    }
    black_box(&elements);
    turns * 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::skip::skipped;

    #[test]
    fn the_rate_of_vector_operations_is_measured() {
        let Some(proof) = Fma::detect() else {
            return skipped("seal-field: rate of FMA", "this processor has no FMA");
        };
        let rate = vector_operations(proof, Duration::from_millis(20));
        assert!(rate > 1e6 && rate < 1e11, "{rate}");
    }

    #[test]
    fn rates_are_measured() {
        let Some(proof) = Ifma::detect() else {
            return skipped("seal-field: rates", "this processor has no AVX-512 IFMA");
        };
        let rates = measure(proof, Duration::from_millis(20));
        // A product and its reduction are 100 multiply-adds for 8 lanes; nothing is said of speed,
        // only that neither loop was optimised away.
        assert!(rates.multiply_adds < 1e11, "{rates:?}");
        assert!(rates.products > 0.0 && rates.products < rates.multiply_adds, "{rates:?}");
    }
}
