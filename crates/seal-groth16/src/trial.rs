//! A device is tried: it proves something whose proof is known.
//!
//! There is no circuit behind it. Points are multiples of the generators by known scalars and
//! values are drawn, so that what every transform and sum must yield is a product of field
//! elements, and the proof one point each times a scalar. It goes through every kernel that a
//! sector's proof goes through: from 2^19 constraints on a transform has three steps, and the sum
//! of H falls apart into batches, as those of a 32 GiB sector.

use std::io::{BufWriter, Write};
use std::sync::Arc;

use bellperson::groth16::{Parameters, Proof, VerifyingKey};
use blstrs::{Bls12, G1Projective, G2Projective, Scalar};
use ff::Field;
use group::Group as _;
use group::prime::PrimeCurve;
use rand::rngs::{OsRng, StdRng};
use rand::{RngCore, SeedableRng};
use rayon::prelude::*;
use seal_cuda::CudaError;
use seal_field::curve::CurveKernel;
use seal_field::ntt::{FrWords, Ntt, bit_reversed, words_of_scalar};
use seal_host::FileInMemory;

use crate::Groth16Error;
use crate::device::{Accelerator, DeviceKey, lists};
use crate::groth::Queries;
use crate::layout::Lengths;
use crate::pipeline::GoOn;
use crate::witness::Assignment;

/// Constraints of a trial, as a power of two: see above.
pub(crate) const BITS: u32 = 19;
/// Fewer constraints than the domain has room for: the rest is padded by the device.
const PADDED: usize = 5;
/// Public inputs, with the constant one.
const INPUTS: usize = 3;
/// The domain is so many times as long as the other variables: H is what takes long.
const H_TIMES: usize = 4;
/// Of so many values one is of full size; the others are zero or one, half of them each.
const FULL_EVERY: usize = 16;
/// A lacks one variable of so many.
const A_LACKS_EVERY: u32 = 50;
/// B has a point for every fourth variable, and for the constant.
const B_EVERY: usize = 4;
/// Points are sums of one of so many points, and one of others.
const SIDE: usize = 1 << 10;

/// What a device made of its trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The proof is the one that it must be.
    Right,
    /// It is another.
    Wrong,
}

/// How often a trial may be spoiled by memory that is there before it and short after it.
const MOST_SPOILED: u32 = 2;

/// Tries a device with `2^bits` constraints; the inner error is the device's.
pub(crate) fn try_device(
    accelerator: &Arc<dyn Accelerator>,
    kernel: CurveKernel,
    bits: u32,
    go_on: &mut GoOn<'_>,
) -> Result<Result<Verdict, CudaError>, Groth16Error> {
    let seed = OsRng.next_u64();
    let trial = Trial::new(kernel, bits, seed)?;
    go_on()?;
    let memory = FileInMemory::new("seal-exec trial").map_err(Groth16Error::trial_file)?;
    let mut writer = BufWriter::new(memory.file());
    trial.parameters.write(&mut writer).map_err(Groth16Error::trial_file)?;
    writer.flush().map_err(Groth16Error::trial_file)?;
    drop(writer);

    let lengths = trial.lengths();
    // Read once, for this trial alone.
    let key = match DeviceKey::load(accelerator.clone(), &memory.path(), lists(lengths), 0) {
        Ok(key) => key,
        Err(error) => return Ok(Err(error)),
    };
    let mut spoiled = 0;
    loop {
        // Waits until there is memory.
        let proved =
            key.prove(&trial.queries, trial.rows(), &trial.assignment, trial.random, go_on)?;
        match proved {
            Ok(Some(proof)) if proof == trial.proof => return Ok(Ok(Verdict::Right)),
            Ok(_) => {}
            Err(error) => return Ok(Err(error)),
        }
        // The device's prover drops it when a sum of points finds no memory.
        match key.check_memory() {
            Err(error @ CudaError::TooLittle { .. }) => {
                spoiled += 1;
                let device = accelerator.name();
                tracing::warn!(device, spoiled, "a trial is spoiled as it seems: {error}");
                if spoiled == MOST_SPOILED {
                    return Ok(Err(error));
                }
            }
            _ => {
                tracing::error!(seed, "{} proves a trial wrongly", accelerator.name());
                return Ok(Ok(Verdict::Wrong));
            }
        }
    }
}

/// What a device is tried with, and what it must answer.
struct Trial {
    parameters: Parameters<Bls12>,
    queries: Queries,
    assignment: Assignment,
    random: [Scalar; 2],
    proof: Proof<Bls12>,
}

impl Trial {
    fn new(kernel: CurveKernel, bits: u32, seed: u64) -> Result<Self, Groth16Error> {
        let mut rng = StdRng::seed_from_u64(seed);
        let ntt = Ntt::new(kernel, bits).map_err(Groth16Error::upstream("try the device"))?;
        let domain = ntt.len();
        let (rows, variables) = (domain - PADDED, domain / H_TIMES);
        let aux = variables - INPUTS;

        let values = values(variables, &mut rng);
        let products = products(domain, rows, &mut rng);
        // The domains of trials are short.
        let variables = variables as u32;
        let lacks_a = |variable: u32| variable >= INPUTS as u32 && variable % A_LACKS_EVERY == 7;
        let of_a: Vec<u32> = (0..variables).filter(|variable| !lacks_a(*variable)).collect();
        let others = (INPUTS as u32..variables).step_by(B_EVERY);
        let of_b: Vec<u32> = [0].into_iter().chain(others).collect();

        let [alpha, beta, gamma, delta] = [0; 4].map(|_| Scalar::random(&mut rng));
        let random = [0; 2].map(|_| Scalar::random(&mut rng));
        let mut lists = Lists(&mut rng);
        let (h_logs, h) = lists.points::<G1Projective>(domain - 1);
        let (l_logs, l) = lists.points::<G1Projective>(aux);
        let (a_logs, a) = lists.points::<G1Projective>(of_a.len());
        let (b1_logs, b_g1) = lists.points::<G1Projective>(of_b.len());
        let (b2_logs, b_g2) = lists.points::<G2Projective>(of_b.len());

        // The logarithms of everything that the device adds up.
        let quotient = quotient(&ntt, products.clone());
        let place = |i: usize| bit_reversed(i, bits);
        let h_sum = dot(&h_logs, |i| quotient[place(i)]);
        let l_sum = dot(&l_logs, |i| values[INPUTS + i]);
        let a_sum = dot(&a_logs, |i| values[of_a[i] as usize]);
        let b1_sum = dot(&b1_logs, |i| values[of_b[i] as usize]);
        let b2_sum = dot(&b2_logs, |i| values[of_b[i] as usize]);
        let [r, s] = random;
        let a_log = alpha + r * delta + a_sum;
        let b1_log = beta + s * delta + b1_sum;
        let c_log = h_sum + l_sum + a_log * s + b1_log * r - r * s * delta;
        let g1 = |log: Scalar| (G1Projective::generator() * log).into();
        let g2 = |log: Scalar| (G2Projective::generator() * log).into();
        let proof = Proof { a: g1(a_log), b: g2(beta + s * delta + b2_sum), c: g1(c_log) };

        let parameters = Parameters {
            vk: VerifyingKey {
                alpha_g1: g1(alpha),
                beta_g1: g1(beta),
                beta_g2: g2(beta),
                gamma_g2: g2(gamma),
                delta_g1: g1(delta),
                delta_g2: g2(delta),
                ic: lists.points::<G1Projective>(INPUTS).1,
            },
            h: Arc::new(h),
            l: Arc::new(l),
            a: Arc::new(a),
            b_g1: Arc::new(b_g1),
            b_g2: Arc::new(b_g2),
        };
        let values = values.iter().map(|value| words_of_scalar(*value)).collect();
        let queries = Queries::with(of_a, of_b, INPUTS, aux, bits);
        let assignment = Assignment { values, products };
        Ok(Self { parameters, queries, assignment, random, proof })
    }

    fn rows(&self) -> usize {
        self.parameters.h.len() + 1 - PADDED
    }

    fn lengths(&self) -> Lengths {
        let Parameters { vk, h, l, a, b_g1, b_g2 } = &self.parameters;
        Lengths {
            inputs: vk.ic.len(),
            h: h.len(),
            l: l.len(),
            a: a.len(),
            b_g1: b_g1.len(),
            b_g2: b_g2.len(),
        }
    }
}

/// One, then values of which most are zero or one.
fn values(count: usize, rng: &mut StdRng) -> Vec<Scalar> {
    let value = |i: usize| match i % FULL_EVERY {
        0 if i == 0 => Scalar::ONE,
        0 => Scalar::random(&mut *rng),
        _ => Scalar::from(u64::from(rng.next_u32() & 1)),
    };
    (0..count).map(value).collect()
}

/// Rows of three products, the third of which is that of the others, padded with zeros.
fn products(domain: usize, rows: usize, rng: &mut StdRng) -> [Vec<FrWords>; 3] {
    let mut products = [0; 3].map(|_| vec![[0; 4]; domain]);
    let [mut a, mut b] = [0; 2].map(|_| Scalar::random(&mut *rng));
    for row in 0..rows {
        a = a.square() + Scalar::ONE;
        b = b.square() + a;
        for (product, value) in products.iter_mut().zip([a, b, a * b]) {
            product[row] = words_of_scalar(value);
        }
    }
    products
}

/// The coefficients of the quotient, at the bit reversal of their index.
fn quotient(ntt: &Ntt, [mut a, mut b, mut c]: [Vec<FrWords>; 3]) -> Vec<Scalar> {
    for product in [&mut a, &mut b] {
        ntt.interpolate(product);
        ntt.evaluate_on_coset(product);
    }
    ntt.multiply(&mut a, &b);
    ntt.interpolate_on_coset(&mut a);
    ntt.interpolate(&mut c);
    ntt.quotient(&mut a, &c);
    // Below the modulus, as it promises.
    a.par_iter()
        .map(|words| Option::from(Scalar::from_u64s_le(words)).unwrap_or_default())
        .collect()
}

fn dot(logs: &[Scalar], value: impl Fn(usize) -> Scalar + Sync) -> Scalar {
    logs.par_iter().enumerate().map(|(i, log)| value(i) * log).sum()
}

/// Makes lists of points with known logarithms.
struct Lists<'r>(&'r mut StdRng);

impl Lists<'_> {
    /// Points, each a sum of one of few and one of others, and their logarithms.
    fn points<C: PrimeCurve<Scalar = Scalar>>(
        &mut self,
        count: usize,
    ) -> (Vec<Scalar>, Vec<C::Affine>) {
        let drawn = |rng: &mut StdRng, count: usize| -> (Vec<Scalar>, Vec<C>) {
            let logs: Vec<_> = (0..count).map(|_| Scalar::random(&mut *rng)).collect();
            let points = logs.par_iter().map(|log| C::generator() * log).collect();
            (logs, points)
        };
        let (row_logs, rows) = drawn(self.0, count.div_ceil(SIDE));
        let (column_logs, columns) = drawn(self.0, SIDE.min(count));
        let columns: Vec<C::Affine> = columns.iter().map(|point| point.to_affine()).collect();
        let points = rows.par_iter().enumerate().flat_map_iter(|(row, base)| {
            let length = SIDE.min(count - row * SIDE);
            let sums: Vec<C> = columns[..length].iter().map(|column| *base + column).collect();
            let mut points = vec![C::identity().to_affine(); length];
            C::batch_normalize(&sums, &mut points);
            points
        });
        let points = points.collect();
        let log = |i: usize| row_logs[i / SIDE] + column_logs[i % SIDE];
        ((0..count).map(log).collect(), points)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stand_in::{Act, Contract, Scripted};

    #[test]
    fn a_trials_proof_is_what_the_plainest_prover_makes_of_it() {
        for kernel in CurveKernel::available() {
            for (bits, seed) in [(5, 1), (7, 2), (11, 3)] {
                let trial = Trial::new(kernel, bits, seed).expect("short");
                let parameters = Parameters::<Bls12>::read(&*bytes(&trial), true);
                let key = Box::new(Contract(parameters.expect("points of the curve")));
                let key = DeviceKey::of(key);
                trial.queries.check(trial.lengths()).expect("its own lists");
                let proved = key.prove(
                    &trial.queries,
                    trial.rows(),
                    &trial.assignment,
                    trial.random,
                    &mut || Ok::<(), ()>(()),
                );
                let proof = proved.expect("nobody stops it").expect("it proves");
                assert_eq!(proof, Some(trial.proof), "2^{bits}, {}", kernel.name());
            }
        }
    }

    fn bytes(trial: &Trial) -> Vec<u8> {
        let mut bytes = Vec::new();
        trial.parameters.write(&mut bytes).expect("memory cannot fail");
        bytes
    }

    /// So that no kernel is left out: three steps of a transform, and more than one batch.
    #[test]
    fn a_trial_is_long_enough_for_every_step() {
        let (steps_of_three, batch_bits) = (19, 7);
        assert!(BITS >= steps_of_three);
        let h = (1_u64 << BITS) - 1;
        let log = (h + h / 2).ilog2();
        let window = (log - 8).clamp(10, 18);
        assert!(log >= window + batch_bits, "one batch of H");
        let full = (1 << BITS) / H_TIMES / FULL_EVERY;
        assert!(full > 2048 && 2 * full < (1 << BITS) / H_TIMES, "ones are added up apart");
    }

    #[test]
    fn a_device_passes_only_with_the_right_proof() {
        let verdict = |act: Option<Act>| {
            let scripted = Scripted::default().with_trials(act);
            let accelerator: Arc<dyn Accelerator> = Arc::new(scripted);
            try_device(&accelerator, CurveKernel::detect(), 6, &mut || Ok(()))
                .expect("nobody stops it")
        };
        assert_eq!(verdict(None).expect("it proves"), Verdict::Right);
        assert_eq!(verdict(Some(Act::Nothing)).expect("it answers"), Verdict::Wrong);
        assert_eq!(verdict(Some(Act::Other)).expect("it answers"), Verdict::Wrong);
        assert!(verdict(Some(Act::Fail)).is_err());
    }
}
