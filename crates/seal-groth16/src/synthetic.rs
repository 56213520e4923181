//! The prover on made-up circuits, to see how its cost grows.

use std::time::{Duration, Instant};

use bellperson::groth16::VerifyingKey;
use blstrs::{G1Affine, G1Projective, G2Projective, Scalar};
use ff::Field;
use group::{Curve as _, Group as _};
use rand::SeedableRng;
use rand::rngs::StdRng;
use seal_field::curve::{CurveKernel, G1, G2};
use seal_field::ntt::{NoTransform, Ntt, words_of_scalar};

use crate::groth::{self, Key, ProofTimes, Queries};
use crate::setup::{Table, words};
use crate::witness::Assignment;

/// Of so many values one is of full size; the others are zero or one, half of them each.
const FULL_EVERY: usize = 64;
/// B has a point for every fourth variable.
const B_EVERY: usize = 4;

/// What a proof of a made-up circuit took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synthetic {
    /// Constraints, and nearly as many variables.
    pub constraints: usize,
    /// The parts.
    pub times: ProofTimes,
    /// From products to proof.
    pub total: Duration,
}

/// Proves a made-up circuit of `2^bits` constraints with the densities of a sector's circuit. The
/// proof proves nothing.
pub fn prove_synthetic(kernel: CurveKernel, bits: u32) -> Result<Synthetic, NoTransform> {
    let ntt = Ntt::new(kernel, bits)?;
    let n = ntt.len();
    let mut rng = StdRng::seed_from_u64(u64::from(bits));
    // Scalars of one full size list serve for everything: only their sizes matter.
    let mut value = Scalar::random(&mut rng);
    let full: Vec<Scalar> = (0..n)
        .map(|_| {
            value = value.square() + Scalar::ONE;
            value
        })
        .collect();
    let scalars: Vec<_> = full.iter().map(|value| words(*value)).collect();
    let g1 = G1Projective::random(&mut rng).to_affine();
    let g2 = G2Projective::random(&mut rng).to_affine();
    let points = Table::<G1>::new(kernel, *g1.as_ref(), n).multiples(&scalars);
    let b = n / B_EVERY;
    let b_g2 = Table::<G2>::new(kernel, *g2.as_ref(), b).multiples(&scalars[..b]);
    let b_g1 = Table::<G1>::new(kernel, *g1.as_ref(), b).multiples(&scalars[..b]);
    let mut h = points.clone();
    h.truncate(n - 1);
    let key = Key {
        vk: VerifyingKey {
            alpha_g1: g1,
            beta_g1: g1,
            beta_g2: g2,
            gamma_g2: g2,
            delta_g1: g1,
            delta_g2: g2,
            ic: Vec::<G1Affine>::new(),
        },
        h,
        l: points.clone(),
        a: points,
        b_g1,
        b_g2,
    };
    let values = scalars
        .into_iter()
        .enumerate()
        .map(|(i, scalar)| match i % FULL_EVERY {
            0 => scalar,
            _ => [(scalar[0] >> 7) & 1, 0, 0, 0],
        })
        .collect();
    let product: Vec<_> = full.into_iter().map(words_of_scalar).collect();
    let assignment = Assignment { values, products: [product.clone(), product.clone(), product] };
    let queries = Queries::every(n, B_EVERY, bits);
    let mut times = ProofTimes::default();
    let start = Instant::now();
    let random = [Scalar::ONE; 2];
    // Nobody stops it.
    let _ = groth::prove(&key, &queries, &ntt, assignment, random, &mut times, &mut |_| Ok(()));
    Ok(Synthetic { constraints: n, times, total: start.elapsed() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_of_a_made_up_proof_are_timed() {
        let measured = prove_synthetic(CurveKernel::detect(), 10).expect("short");
        assert_eq!(measured.constraints, 1024);
        let ProofTimes { witness, transforms, h, l, a, b, device } = measured.times;
        assert_eq!([witness, device], [Duration::ZERO; 2], "there is no circuit and no device");
        assert!([transforms, h, l, a, b].iter().all(|part| *part > Duration::ZERO));
        assert!(measured.total >= transforms + h + l + a + b);
    }
}
