//! Parameters of a circuit from the secret values behind them.
//!
//! As bellperson computes them, and equal to its for the same values, but by other ways: values of
//! the Lagrange polynomials come from one shared inversion instead of a transform, and every point
//! is a sum of 16 or so from a table of the generator's multiples, added in affine coordinates.

use std::io::{self, Write};

use bellperson::groth16::VerifyingKey;
use blstrs::{Bls12, G1Affine, G2Affine, Scalar};
use ff::{Field, PrimeField};
use group::{Curve as _, Group as _};
use rand::RngCore;
use rayon::prelude::*;
use seal_field::curve::{CurveKernel, G1, G2, PointRef, PointSums, Points};

use crate::msm::{Group, SignedWindows, Words};
use crate::r1cs::{Compiled, Counts};

/// Points that a thread computes at a time.
const CHUNK: usize = 1 << 12;

/// The values that nobody may know of real parameters.
pub(crate) struct Secrets {
    pub(crate) g1: G1Affine,
    pub(crate) g2: G2Affine,
    pub(crate) alpha: Scalar,
    pub(crate) beta: Scalar,
    pub(crate) gamma: Scalar,
    pub(crate) delta: Scalar,
    pub(crate) tau: Scalar,
}

impl Secrets {
    pub(crate) fn random(rng: &mut impl RngCore) -> Self {
        Self {
            g1: blstrs::G1Projective::random(&mut *rng).to_affine(),
            g2: blstrs::G2Projective::random(&mut *rng).to_affine(),
            alpha: Scalar::random(&mut *rng),
            beta: Scalar::random(&mut *rng),
            gamma: Scalar::random(&mut *rng),
            delta: Scalar::random(&mut *rng),
            tau: Scalar::random(&mut *rng),
        }
    }
}

/// Values, or a circuit, of which there are no parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SetupError {
    /// A secret value that must have an inverse has none.
    #[error("the secret value {name} has no inverse")]
    NoInverse {
        /// Which one.
        name: &'static str,
    },
    /// A variable without any constraint, which a forger could choose.
    #[error("variable {index} of the circuit is not constrained")]
    Unconstrained {
        /// Its number among those that are no inputs.
        index: usize,
    },
    /// The circuit is too large for the field.
    #[error("the circuit has 2^{bits} constraints, more than the field has roots of unity")]
    TooLarge {
        /// Logarithm of their number, rounded up.
        bits: u32,
    },
}

/// The points of a circuit's parameters in the order of the file.
pub(crate) struct Setup {
    pub(crate) vk: VerifyingKey<Bls12>,
    h: Points<G1>,
    l: Points<G1>,
    a: Points<G1>,
    b_g1: Points<G1>,
    b_g2: Points<G2>,
}

fn inverse(value: Scalar, name: &'static str) -> Result<Scalar, SetupError> {
    Option::from(value.invert()).ok_or(SetupError::NoInverse { name })
}

/// Computes the parameters of a circuit.
pub(crate) fn setup(
    compiled: &Compiled,
    secrets: &Secrets,
    kernel: CurveKernel,
) -> Result<Setup, SetupError> {
    let bits = compiled.domain_bits();
    if bits > Scalar::S {
        return Err(SetupError::TooLarge { bits });
    }
    let Secrets { alpha, beta, gamma, delta, tau, .. } = *secrets;
    let n = 1_usize << bits;
    let vanishing = tau.pow_vartime([n as u64]) - Scalar::ONE;
    let by_delta = inverse(delta, "delta")?;
    let by_gamma = inverse(gamma, "gamma")?;

    let [at, bt, ct] = at_tau(compiled, &lagrange(bits, tau, vanishing)?);
    let inputs = compiled.counts().inputs;
    let sums: Vec<Scalar> = (0..at.len())
        .into_par_iter()
        .map(|i| {
            let divided = if i < inputs { by_gamma } else { by_delta };
            (beta * at[i] + alpha * bt[i] + ct[i]) * divided
        })
        .collect();
    if let Some(index) = sums[inputs..].iter().position(|sum| *sum == Scalar::ZERO) {
        return Err(SetupError::Unconstrained { index });
    }
    drop(ct);
    let of_h: Vec<Words> = powers(tau, n - 1)
        .into_par_iter()
        .map(|power| words(power * vanishing * by_delta))
        .collect();
    let some = |list: &[Scalar]| -> Vec<Words> {
        list.iter().filter(|value| **value != Scalar::ZERO).map(|value| words(*value)).collect()
    };
    let all = |list: &[Scalar]| -> Vec<Words> { list.iter().map(|value| words(*value)).collect() };
    let of_a = some(&at);
    let of_b = some(&bt);

    let count = of_h.len() + sums.len() + of_a.len() + of_b.len();
    let g1 = Table::<G1>::new(kernel, *secrets.g1.as_ref(), count);
    let g2 = Table::<G2>::new(kernel, *secrets.g2.as_ref(), of_b.len());
    let ic = g1.multiples(&all(&sums[..inputs]));
    let ic = (0..ic.len())
        .map(|i| {
            let mut point = G1Affine::default();
            *point.as_mut() = ic.get(i);
            point
        })
        .collect();
    let vk = VerifyingKey {
        alpha_g1: (secrets.g1 * alpha).to_affine(),
        beta_g1: (secrets.g1 * beta).to_affine(),
        beta_g2: (secrets.g2 * beta).to_affine(),
        gamma_g2: (secrets.g2 * gamma).to_affine(),
        delta_g1: (secrets.g1 * delta).to_affine(),
        delta_g2: (secrets.g2 * delta).to_affine(),
        ic,
    };
    Ok(Setup {
        vk,
        h: g1.multiples(&of_h),
        l: g1.multiples(&all(&sums[inputs..])),
        a: g1.multiples(&of_a),
        b_g1: g1.multiples(&of_b),
        b_g2: g2.multiples(&of_b),
    })
}

impl Setup {
    /// How many bytes [`Self::write`] writes behind the verifying key.
    pub(crate) fn points_bytes(&self) -> u64 {
        let g1 = self.h.len() + self.l.len() + self.a.len() + self.b_g1.len();
        5 * 4 + 96 * g1 as u64 + 192 * self.b_g2.len() as u64
    }

    /// Writes the file as the published software reads it.
    pub(crate) fn write(&self, sink: &mut dyn Write) -> io::Result<()> {
        self.vk.write(&mut *sink)?;
        for list in [&self.h, &self.l, &self.a, &self.b_g1] {
            write_list(list, sink, |point| {
                let mut affine = G1Affine::default();
                *affine.as_mut() = point;
                affine.to_uncompressed()
            })?;
        }
        write_list(&self.b_g2, sink, |point| {
            let mut affine = G2Affine::default();
            *affine.as_mut() = point;
            affine.to_uncompressed()
        })
    }
}

fn write_list<C: Group, const BYTES: usize>(
    list: &Points<C>,
    sink: &mut dyn Write,
    bytes: impl Fn(C::Affine) -> [u8; BYTES] + Sync,
) -> io::Result<()> {
    let count = u32::try_from(list.len()).map_err(io::Error::other)?;
    sink.write_all(&count.to_be_bytes())?;
    let chunks: Vec<usize> = (0..list.len()).step_by(CHUNK).collect();
    // Some at a time, so that memory does not grow with the list.
    for chunks in chunks.chunks(64) {
        let blocks: Vec<Vec<u8>> = chunks
            .par_iter()
            .map(|start| {
                let range = *start..list.len().min(start + CHUNK);
                range.flat_map(|i| bytes(list.get(i))).collect()
            })
            .collect();
        for block in blocks {
            sink.write_all(&block)?;
        }
    }
    Ok(())
}

/// A scalar below the modulus, not in Montgomery form.
pub(crate) fn words(scalar: Scalar) -> Words {
    let bytes = scalar.to_bytes_le();
    std::array::from_fn(|word| {
        u64::from_le_bytes(std::array::from_fn(|byte| bytes[8 * word + byte]))
    })
}

/// `1, base, base^2, …`
fn powers(base: Scalar, count: usize) -> Vec<Scalar> {
    let mut out = vec![Scalar::ONE; count];
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, out)| {
        let mut power = base.pow_vartime([(chunk * CHUNK) as u64]);
        for place in out {
            *place = power;
            power *= base;
        }
    });
    out
}

/// The values at `tau` of the polynomials that are one at one root of unity and zero at the
/// others: `root^i (tau^n - 1) / (n (tau - root^i))`.
fn lagrange(bits: u32, tau: Scalar, vanishing: Scalar) -> Result<Vec<Scalar>, SetupError> {
    let root = Scalar::ROOT_OF_UNITY.pow_vartime([1_u64 << (Scalar::S - bits)]);
    let by_n = inverse(Scalar::from(1_u64 << bits), "n")?;
    // Were tau a root of unity, the parameters would be of no use.
    inverse(vanishing, "tau^n - 1")?;
    let factor = vanishing * by_n;
    let mut out = powers(root, 1 << bits);
    out.par_chunks_mut(CHUNK).for_each(|roots| {
        // One inversion for all: no difference is zero.
        let mut product = Scalar::ONE;
        let before: Vec<Scalar> = roots
            .iter()
            .map(|root| {
                let next = product * (tau - root);
                std::mem::replace(&mut product, next)
            })
            .collect();
        let mut inverse = Option::<Scalar>::from(product.invert()).unwrap_or_default();
        for (root, before) in roots.iter_mut().zip(before).rev() {
            let own = inverse * before;
            inverse *= tau - *root;
            *root *= factor * own;
        }
    });
    Ok(out)
}

/// The polynomials of A, B and C at tau, for each variable, inputs first.
fn at_tau(compiled: &Compiled, lagrange: &[Scalar]) -> [Vec<Scalar>; 3] {
    let (whole, local, prologue, each) =
        (compiled.counts(), compiled.local(), compiled.prologue, compiled.each);
    [0, 1, 2].map(|index| {
        let matrix = &compiled.matrices[index];
        // Challenge by challenge, over local variables.
        let parts: Vec<Vec<Scalar>> = (0..compiled.challenges)
            .into_par_iter()
            .map(|challenge| {
                let mut sums = vec![Scalar::ZERO; local.inputs + local.aux];
                let first = if challenge == 0 { 0 } else { prologue.rows };
                for row in first..local.rows {
                    let at = lagrange[row + challenge * each.rows];
                    for (column, coefficient) in matrix.row(row) {
                        sums[column as usize] += compiled.dictionary[coefficient as usize] * at;
                    }
                }
                sums
            })
            .collect();
        let mut out = vec![Scalar::ZERO; whole.inputs + whole.aux];
        for (challenge, sums) in parts.iter().enumerate() {
            let (inputs, aux) = sums.split_at(local.inputs);
            let starts = [(inputs, 0, prologue.inputs, each.inputs)];
            let others = [(aux, whole.inputs, prologue.aux, each.aux)];
            for (sums, start, shared, own) in starts.into_iter().chain(others) {
                for (index, sum) in sums.iter().enumerate() {
                    let moved = if index < shared { index } else { index + challenge * own };
                    out[start + moved] += sum;
                }
            }
        }
        if index == 0 {
            let Counts { inputs, rows, .. } = whole;
            for (place, at) in out[..inputs].iter_mut().zip(&lagrange[rows..]) {
                *place += at;
            }
        }
        out
    })
}

/// Multiples of a generator, so that any other is a sum of few.
pub(crate) struct Table<C: Group> {
    windows: SignedWindows,
    /// For each window, once to `2^(bits - 1)` times its base.
    points: Points<C>,
}

impl<C: Group> Table<C> {
    /// A table for `count` multiples.
    pub(crate) fn new(kernel: CurveKernel, generator: C::Affine, count: usize) -> Self {
        let windows = SignedWindows::for_table(count);
        let mut bases = Vec::new();
        let mut base = C::sum(generator);
        for _ in 0..windows.count() {
            bases.push(C::affine(base));
            for _ in 0..windows.bits() {
                base = base.double();
            }
        }
        let windows_of_points: Vec<Points<C>> = bases
            .into_par_iter()
            .map(|base| {
                let mut sums = PointSums::new(kernel);
                let mut points = Points::of_affine(kernel, &[base]);
                while points.len() < windows.buckets() {
                    // From 1 … m to m + 1 … 2 m.
                    let count = points.len() as u32;
                    let refs: Vec<PointRef> = (0..count)
                        .flat_map(|i| [PointRef::plus(i), PointRef::plus(count - 1)])
                        .collect();
                    let ends: Vec<usize> = (1..=points.len()).map(|i| 2 * i).collect();
                    let mut more = Points::infinity(kernel, points.len());
                    sums.sum_groups(&points, &refs, &ends, &mut more);
                    points.append(more);
                }
                points
            })
            .collect();
        let mut points =
            Points::with_capacity(kernel, windows.count() as usize * windows.buckets());
        windows_of_points.into_iter().for_each(|window| points.append(window));
        Self { windows, points }
    }

    /// The generator times each scalar.
    pub(crate) fn multiples(&self, scalars: &[Words]) -> Points<C> {
        let kernel = self.points.kernel();
        let chunks: Vec<Points<C>> = scalars
            .par_chunks(CHUNK)
            .map_init(
                || PointSums::new(kernel),
                |sums, scalars| {
                    let mut refs = Vec::with_capacity(scalars.len() * 20);
                    let mut ends = Vec::with_capacity(scalars.len());
                    for scalar in scalars {
                        self.windows.digits(scalar, |window, magnitude, is_minus| {
                            let place = window as usize * self.windows.buckets() + magnitude - 1;
                            // A table has far fewer than 2^31 points.
                            let point = PointRef::plus(place as u32);
                            refs.push(if is_minus { point.negated() } else { point });
                        });
                        ends.push(refs.len());
                    }
                    let mut out = Points::infinity(kernel, scalars.len());
                    sums.sum_groups(&self.points, &refs, &ends, &mut out);
                    out
                },
            )
            .collect();
        let mut out = Points::with_capacity(kernel, scalars.len());
        chunks.into_iter().for_each(|chunk| out.append(chunk));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::small::Small;
    use bellperson::groth16::generate_parameters;
    use group::prime::PrimeCurveAffine;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn compiled(challenges: usize) -> Compiled {
        Small::compiled(challenges)
    }

    #[test]
    fn files_are_those_of_bellperson_for_the_same_secrets() {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        for challenges in [1, 2, 6] {
            let secrets = Secrets::random(&mut rng);
            let theirs = generate_parameters::<Bls12, _>(
                Small::blank(challenges),
                secrets.g1.into(),
                secrets.g2.into(),
                secrets.alpha,
                secrets.beta,
                secrets.gamma,
                secrets.delta,
                secrets.tau,
            )
            .expect("small");
            let mut expected = Vec::new();
            theirs.write(&mut expected).expect("memory");
            for kernel in CurveKernel::available() {
                let ours = setup(&compiled(challenges), &secrets, kernel).expect("good secrets");
                let mut bytes = Vec::new();
                ours.write(&mut bytes).expect("memory");
                assert!(bytes == expected, "{challenges} challenges by {}", kernel.name());
                let mut key = Vec::new();
                ours.vk.write(&mut key).expect("memory");
                assert_eq!(ours.points_bytes(), (bytes.len() - key.len()) as u64);
            }
        }
    }

    #[test]
    fn secrets_without_inverse_are_refused() {
        let mut rng = ChaCha8Rng::seed_from_u64(10);
        let refused = |secrets: &Secrets| {
            setup(&compiled(1), secrets, CurveKernel::portable()).err().expect("no inverse")
        };
        let zero = Secrets { delta: Scalar::ZERO, ..Secrets::random(&mut rng) };
        assert_eq!(refused(&zero), SetupError::NoInverse { name: "delta" });
        let root = Secrets { tau: Scalar::ONE, ..Secrets::random(&mut rng) };
        assert_eq!(refused(&root), SetupError::NoInverse { name: "tau^n - 1" });
    }

    #[test]
    fn long_tables_give_the_multiples_that_blstrs_gives() {
        let generator = G1Affine::generator();
        let table = Table::<G1>::new(CurveKernel::detect(), *generator.as_ref(), 1 << 20);
        let scalars: Vec<Scalar> = [Scalar::ZERO, Scalar::ONE, -Scalar::ONE]
            .into_iter()
            .chain((1..200).map(|i| Scalar::from(i).pow_vartime([90 + i])))
            .collect();
        let multiples = table.multiples(&scalars.iter().map(|s| words(*s)).collect::<Vec<_>>());
        for (index, scalar) in scalars.iter().enumerate() {
            let expected = (generator * scalar).to_affine();
            assert_eq!(&multiples.get(index), expected.as_ref(), "{index}");
        }
    }
}
