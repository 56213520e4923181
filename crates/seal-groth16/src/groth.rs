//! The Groth16 prover: from an assignment to a proof.
//!
//! The elements of a proof are those that bellperson's prover computes for the same randomness,
//! by other ways: see [`crate::msm`] and [`seal_field::ntt`].

use std::time::{Duration, Instant};

use bellperson::groth16::{Proof, VerifyingKey};
use blstrs::{Bls12, G1Projective, G2Projective, Scalar};
use group::Curve as _;
use seal_field::curve::{G1, G2, Points};
use seal_field::ntt::Ntt;

use crate::layout::Lengths;
use crate::msm::multiply;
use crate::r1cs::{Compiled, Inputs};
use crate::step::Work;
use crate::witness::Assignment;

/// The points of a circuit's parameters, ready for sums.
pub(crate) struct Key {
    pub(crate) vk: VerifyingKey<Bls12>,
    /// At the bit reversal of their index, as the transforms leave the scalars.
    pub(crate) h: Points<G1>,
    pub(crate) l: Points<G1>,
    pub(crate) a: Points<G1>,
    pub(crate) b_g1: Points<G1>,
    pub(crate) b_g2: Points<G2>,
}

/// Which variables the points of A and B belong to.
pub(crate) struct Queries {
    a: Vec<u32>,
    b: Vec<u32>,
    inputs: usize,
    aux: usize,
    domain_bits: u32,
}

/// A list of points whose length is not that of the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OtherCircuit {
    pub(crate) list: &'static str,
    pub(crate) found: usize,
    pub(crate) expected: usize,
}

impl Queries {
    pub(crate) fn of(compiled: &Compiled) -> Self {
        let counts = compiled.counts();
        Self {
            a: compiled.occurring(0, Inputs::All),
            b: compiled.occurring(1, Inputs::Occurring),
            inputs: counts.inputs,
            aux: counts.aux,
            domain_bits: compiled.domain_bits(),
        }
    }

    /// For a made-up circuit without inputs: A has every variable, B one of `b_every`.
    pub(crate) fn every(variables: usize, b_every: usize, domain_bits: u32) -> Self {
        // Made-up circuits are small.
        let all = || 0..variables as u32;
        Self {
            a: all().collect(),
            b: all().step_by(b_every).collect(),
            inputs: 0,
            aux: variables,
            domain_bits,
        }
    }

    /// Of lists that come from elsewhere.
    pub(crate) fn with(
        a: Vec<u32>,
        b: Vec<u32>,
        inputs: usize,
        aux: usize,
        domain_bits: u32,
    ) -> Self {
        Self { a, b, inputs, aux, domain_bits }
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        4 * (self.a.len() + self.b.len())
    }

    /// How many inputs the circuit has.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    /// How many other variables it has.
    pub(crate) fn aux(&self) -> usize {
        self.aux
    }

    /// The variables that have a point in A, inputs first.
    pub(crate) fn a(&self) -> &[u32] {
        &self.a
    }

    /// Those that have one in B.
    pub(crate) fn b(&self) -> &[u32] {
        &self.b
    }

    /// Whether the parameters are of this circuit.
    pub(crate) fn check(&self, lengths: Lengths) -> Result<(), OtherCircuit> {
        let Lengths { inputs, h, l, a, b_g1, b_g2 } = lengths;
        let lists = [
            ("of inputs", inputs, self.inputs),
            ("H", h, (1 << self.domain_bits) - 1),
            ("L", l, self.aux),
            ("A", a, self.a.len()),
            ("B in G1", b_g1, self.b.len()),
            ("B in G2", b_g2, self.b.len()),
        ];
        match lists.into_iter().find(|(_, found, expected)| found != expected) {
            None => Ok(()),
            Some((list, found, expected)) => Err(OtherCircuit { list, found, expected }),
        }
    }
}

/// What the parts of a proof took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProofTimes {
    /// The values of the variables, and the products of the matrices with them.
    pub witness: Duration,
    /// The transforms.
    pub transforms: Duration,
    /// The multiplication of H.
    pub h: Duration,
    /// That of L.
    pub l: Duration,
    /// That of A.
    pub a: Duration,
    /// Those of B in G1 and in G2.
    pub b: Duration,
    /// All but the witness, where a device does it.
    pub device: Duration,
}

/// Told what is done, how much of it is done and how much it is, and asked whether to go on:
/// between transforms and between windows of a multiplication.
pub(crate) type GoOn<'a> = dyn FnMut((Work, u32, u32)) -> Result<(), Stopped> + 'a;

/// How many transforms there are, as they are told.
const TRANSFORMS: u32 = 6;

/// The thousandths of the sums at which those for L, A and B begin and B in G2: of the sums of a
/// 2 KiB sector (`benches/runs`), where H takes as large a share as it does in others, because its
/// scalars alone are of full size.
const SUMS: [u32; 6] = [0, 885, 916, 945, 962, 1000];

/// The share of each of them that its first window takes beyond the others: scalars are cut into
/// digits, which is most of the work where few of them are of full size.
const CUTS: [f64; 5] = [0.025, 0.6, 0.6, 0.35, 0.33];

/// Tells of the sum that has this number, of which a share is done.
fn of_sum<'g, 'a>(
    go_on: &'g mut GoOn<'a>,
    number: usize,
) -> impl FnMut(f64) -> Result<(), Stopped> + use<'g, 'a> {
    let [from, to] = [SUMS[number], SUMS[number + 1]];
    move |share| {
        // Nothing before the first window is done.
        let share = if share > 0.0 { CUTS[number] + (1.0 - CUTS[number]) * share } else { 0.0 };
        let done = from + (f64::from(to - from) * share).round() as u32;
        go_on((Work::Sums, done, 1000))
    }
}

/// The caller does not want the proof any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped;

/// Proves with the randomness `r` and `s`. The products become coefficients in place: a second
/// attempt needs a new assignment, and most never do.
pub(crate) fn prove(
    key: &Key,
    queries: &Queries,
    ntt: &Ntt,
    assignment: Assignment,
    [r, s]: [Scalar; 2],
    times: &mut ProofTimes,
    go_on: &mut GoOn<'_>,
) -> Result<Proof<Bls12>, Stopped> {
    let Assignment { values, products: [mut a, mut b, mut c] } = assignment;
    let mut start = Instant::now();
    let mut lap = || std::mem::replace(&mut start, Instant::now()).elapsed();
    let mut transformed = 0;
    let mut next = |go_on: &mut GoOn<'_>| {
        transformed += 1;
        go_on((Work::Transforms, transformed, TRANSFORMS))
    };
    for product in [&mut a, &mut b] {
        ntt.interpolate(product);
        next(go_on)?;
        ntt.evaluate_on_coset(product);
        next(go_on)?;
    }
    ntt.multiply(&mut a, &b);
    drop(b);
    ntt.interpolate_on_coset(&mut a);
    next(go_on)?;
    ntt.interpolate(&mut c);
    next(go_on)?;
    ntt.quotient(&mut a, &c);
    drop(c);
    times.transforms = lap();
    let h: G1Projective = multiply(&key.h, key.h.len(), |i| &a[i], &mut of_sum(go_on, 0))?;
    drop(a);
    times.h = lap();
    let of_l = |i: usize| &values[queries.inputs + i];
    let l: G1Projective = multiply(&key.l, queries.aux, of_l, &mut of_sum(go_on, 1))?;
    times.l = lap();
    let of_a = |i: usize| &values[queries.a[i] as usize];
    let a: G1Projective = multiply(&key.a, queries.a.len(), of_a, &mut of_sum(go_on, 2))?;
    times.a = lap();
    let of_b = |i: usize| &values[queries.b[i] as usize];
    let b_g1: G1Projective = multiply(&key.b_g1, queries.b.len(), of_b, &mut of_sum(go_on, 3))?;
    let b_g2: G2Projective = multiply(&key.b_g2, queries.b.len(), of_b, &mut of_sum(go_on, 4))?;
    times.b = lap();

    let vk = &key.vk;
    let a = a + vk.alpha_g1 + vk.delta_g1 * r;
    let b_g1 = b_g1 + vk.beta_g1 + vk.delta_g1 * s;
    let b_g2 = b_g2 + vk.beta_g2 + vk.delta_g2 * s;
    let c = h + l + a * s + b_g1 * r - vk.delta_g1 * (r * s);
    Ok(Proof { a: a.to_affine(), b: b_g2.to_affine(), c: c.to_affine() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::small::{Small, randomness};
    use crate::witness::{Form, assign};
    use bellperson::groth16::{
        Parameters, create_proof_batch, prepare_verifying_key, verify_proof,
    };
    use ff::Field;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use seal_field::curve::CurveKernel;
    use seal_field::ntt::bit_reversed;

    fn key(parameters: &Parameters<Bls12>, kernel: CurveKernel) -> Key {
        let g1 = |list: &[blstrs::G1Affine]| {
            let list: Vec<_> = list.iter().map(|point| *point.as_ref()).collect();
            Points::of_affine(kernel, &list)
        };
        let g2: Vec<_> = parameters.b_g2.iter().map(|point| *point.as_ref()).collect();
        let bits = (parameters.h.len() + 1).trailing_zeros();
        let h: Vec<_> =
            (0..parameters.h.len()).map(|i| parameters.h[bit_reversed(i, bits)]).collect();
        Key {
            vk: parameters.vk.clone(),
            h: g1(&h),
            l: g1(&parameters.l),
            a: g1(&parameters.a),
            b_g1: g1(&parameters.b_g1),
            b_g2: Points::of_affine(kernel, &g2),
        }
    }

    fn lengths(key: &Key) -> Lengths {
        Lengths {
            inputs: key.vk.ic.len(),
            h: key.h.len(),
            l: key.l.len(),
            a: key.a.len(),
            b_g1: key.b_g1.len(),
            b_g2: key.b_g2.len(),
        }
    }

    #[test]
    fn proofs_are_those_of_bellperson_for_the_same_randomness() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for challenges in [1, 2, 7] {
            let parameters = Small::parameters(challenges, &mut rng);
            let compiled = Small::compiled(challenges);
            let queries = Queries::of(&compiled);
            for kernel in CurveKernel::available() {
                let key = key(&parameters, kernel);
                queries.check(lengths(&key)).expect("its own parameters");
                let ntt = Ntt::new(kernel, compiled.domain_bits()).expect("short");
                for seed in 0..3 {
                    let circuit = Small::filled(seed, challenges);
                    let [r, s] = randomness(seed, &mut rng);
                    let assignment =
                        assign(&compiled, Form::Canonical, |i| Ok(circuit.alone(i)), &|| {})
                            .expect("filled");
                    let inputs: Vec<Scalar> = assignment.values[1..compiled.counts().inputs]
                        .iter()
                        .map(|words| Scalar::from_u64s_le(words).expect("canonical"))
                        .collect();
                    let mut times = ProofTimes::default();
                    let random = [r, s];
                    let ours = prove(
                        &key,
                        &queries,
                        &ntt,
                        assignment,
                        random,
                        &mut times,
                        &mut |_| Ok(()),
                    )
                    .expect("nobody stops it");
                    let theirs =
                        create_proof_batch(vec![circuit.clone()], &parameters, vec![r], vec![s])
                            .expect("small");
                    assert_eq!(ours, theirs[0], "{challenges} challenges, {}", kernel.name());
                    let prepared = prepare_verifying_key(&parameters.vk);
                    assert!(verify_proof(&prepared, &ours, &inputs).expect("well formed"));
                }
            }
        }
    }

    #[test]
    fn a_proof_can_be_stopped_in_all_its_parts() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let parameters = Small::parameters(2, &mut rng);
        let compiled = Small::compiled(2);
        let (queries, key) = (Queries::of(&compiled), key(&parameters, CurveKernel::portable()));
        let ntt = Ntt::new(CurveKernel::portable(), compiled.domain_bits()).expect("short");
        let circuit = Small::filled(1, 2);
        let stopped_at = |looks: usize| {
            let (mut left, mut told) = (looks, Vec::new());
            let at = |(work, done, total): (Work, u32, u32)| {
                assert!(done <= total, "{done} of {total}");
                (work == Work::Sums, done)
            };
            let mut go_on = |position: (Work, u32, u32)| {
                assert!(told.last().is_none_or(|last| *last <= at(position)), "{position:?}");
                told.push(at(position));
                left = left.checked_sub(1).ok_or(Stopped)?;
                Ok(())
            };
            let assignment = assign(&compiled, Form::Canonical, |i| Ok(circuit.alone(i)), &|| {})
                .expect("filled");
            let mut times = ProofTimes::default();
            let random = [Scalar::ONE; 2];
            let ended = prove(&key, &queries, &ntt, assignment, random, &mut times, &mut go_on);
            ended.is_err().then_some(times)
        };
        let whole = (0..).find(|looks| stopped_at(*looks).is_none()).expect("it ends");
        // Six times in the transforms, and in each of five multiplications.
        assert!(whole > 10, "{whole} looks");
        let late = stopped_at(whole - 1).expect("stopped");
        assert!(late.a > Duration::ZERO && late.b == Duration::ZERO, "{late:?}");
    }

    #[test]
    fn parameters_of_another_circuit_are_told() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let parameters = Small::parameters(3, &mut rng);
        let mut key = key(&parameters, CurveKernel::portable());
        let compiled = Small::compiled(2);
        let other = Queries::of(&compiled).check(lengths(&key)).expect_err("another");
        assert_eq!((other.found, other.expected), (5, 4), "{other:?}");
        let compiled = Small::compiled(3);
        key.b_g2 = Points::infinity(CurveKernel::portable(), 1);
        let other = Queries::of(&compiled).check(lengths(&key)).expect_err("a short list");
        assert_eq!(other.list, "B in G2");
    }
}
