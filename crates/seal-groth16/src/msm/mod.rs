//! Multi-scalar multiplication: the sum of many points, each times its scalar.
//!
//! Scalars zero, one and minus one, nearly all in a witness, are told apart first: such points
//! are only added up. The others go through the bucket method with signed digits: window by
//! window, terms are sorted by digit, and the points of each bucket are summed in affine
//! coordinates ([`PointSums`]). Buckets of a window form a grid; with the sums of its rows and of
//! its columns only twice the side of the grid is left for the running sums.
//!
//! Memory beyond points and scalars: 48 bytes for each of at most [`PASS`] terms, and the buckets
//! of one window (at most 50 MB in G1, 101 MB in G2).

mod buckets;
mod windows;

use std::sync::{Mutex, PoisonError};

use blstrs::{G1Affine, G1Projective, G2Affine, G2Projective};
use group::Group as _;
use rayon::prelude::*;
use seal_field::curve::{Curve, CurveKernel, G1, G2, PointRef, PointSums, Points};

use self::buckets::{Term, buckets};
use self::windows::halved;
pub(crate) use self::windows::{SignedWindows, Words};
use crate::groth::Stopped;

/// How many terms with scalars of full size are worked on at a time.
const PASS: usize = 1 << 24;
/// How many terms a task classifies.
const CHUNK: usize = 1 << 16;

/// A curve and how blstrs names its points.
pub(crate) trait Group: Curve {
    /// Sums of few points.
    type Sum: group::Group<Scalar = blstrs::Scalar> + Send + Sync;
    /// The point as a sum.
    fn sum(point: Self::Affine) -> Self::Sum;
    /// The sum as a point.
    fn affine(sum: Self::Sum) -> Self::Affine;
}

impl Group for G1 {
    type Sum = G1Projective;
    fn sum(point: Self::Affine) -> G1Projective {
        let mut affine = G1Affine::default();
        *affine.as_mut() = point;
        affine.into()
    }
    fn affine(sum: G1Projective) -> Self::Affine {
        *G1Affine::from(sum).as_ref()
    }
}

impl Group for G2 {
    type Sum = G2Projective;
    fn sum(point: Self::Affine) -> G2Projective {
        let mut affine = G2Affine::default();
        *affine.as_mut() = point;
        affine.into()
    }
    fn affine(sum: G2Projective) -> Self::Affine {
        *G2Affine::from(sum).as_ref()
    }
}

/// Workspaces of sums that wait for the next task.
struct Spares<C: Curve> {
    kernel: CurveKernel,
    spare: Mutex<Vec<PointSums<C>>>,
}

impl<C: Curve> Spares<C> {
    fn new(kernel: CurveKernel) -> Self {
        Self { kernel, spare: Mutex::default() }
    }

    fn with<T>(&self, work: impl FnOnce(&mut PointSums<C>) -> T) -> T {
        let lock = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let spare = lock().pop();
        let mut sums = spare.unwrap_or_else(|| PointSums::new(self.kernel));
        let result = work(&mut sums);
        lock().push(sums);
        result
    }
}

/// Terms by what there is to do with them.
#[derive(Default)]
struct Sorted {
    single: Vec<PointRef>,
    full: Vec<Term>,
}

/// Told how much of a sum is done, from 0 to 1, and asked whether to go on.
pub(crate) type GoOn<'a> = dyn FnMut(f64) -> Result<(), Stopped> + 'a;

/// The sum of `points[i]` times `scalar(i)` for `i` in `0..count`. Tells and asks before each pass
/// and each window.
///
/// # Panics
///
/// If there are fewer than `count` points, or more than 2^31.
pub(crate) fn multiply<'a, C: Group>(
    points: &Points<C>,
    count: usize,
    scalar: impl Fn(usize) -> &'a Words + Sync,
    go_on: &mut GoOn<'_>,
) -> Result<C::Sum, Stopped> {
    assert!(count <= points.len() && count <= PointRef::LIMIT, "a point for each scalar");
    let spares = Spares::new(points.kernel());
    let mut total = C::Sum::identity();
    let mut first = 0;
    while first < count {
        let at =
            |share: f64, pass: usize| (first as f64 + share * (pass - first) as f64) / count as f64;
        go_on(at(0.0, first))?;
        // Chunk by chunk until a pass is full; nearly always that is everything.
        let pass = count.min(first + PASS);
        let starts: Vec<usize> = (first..pass).step_by(CHUNK).collect();
        let sorted: Vec<Sorted> = starts
            .into_par_iter()
            .map(|start| sort(points, start..pass.min(start + CHUNK), &scalar))
            .collect();
        total += singles(points, &sorted, &spares);
        let mut full: Vec<Vec<Term>> =
            sorted.into_iter().map(|sorted| sorted.full).filter(|full| !full.is_empty()).collect();
        let mut window = |share| go_on(at(share, pass));
        total += buckets(points, &mut full, &spares, &mut window)?;
        first = pass;
    }
    Ok(total)
}

fn sort<'a, C: Group>(
    points: &Points<C>,
    range: std::ops::Range<usize>,
    scalar: &(impl Fn(usize) -> &'a Words + Sync),
) -> Sorted {
    let mut sorted = Sorted::default();
    for index in range {
        let scalar = scalar(index);
        // At most 2^31 points.
        let at = index as u32;
        if *scalar == [0; 4] || points.is_infinity(index) {
            continue;
        }
        let (scalar, is_minus) = halved(scalar);
        let point = if is_minus { PointRef::minus(at) } else { PointRef::plus(at) };
        if scalar == [1, 0, 0, 0] {
            sorted.single.push(point);
        } else {
            sorted.full.push(Term { point, scalar });
        }
    }
    sorted
}

/// The sum of the points whose scalar is one or minus one.
fn singles<C: Group>(points: &Points<C>, sorted: &[Sorted], spares: &Spares<C>) -> C::Sum {
    sorted
        .par_iter()
        .filter(|sorted| !sorted.single.is_empty())
        .map(|sorted| {
            spares.with(|sums| {
                let mut sum = Points::infinity(points.kernel(), 1);
                sums.sum_groups(points, &sorted.single, &[sorted.single.len()], &mut sum);
                C::sum(sum.get(0))
            })
        })
        .reduce(C::Sum::identity, |a, b| a + b)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use blstrs::Scalar;
    use ff::{Field, PrimeField};
    use proptest::prelude::*;

    pub(in crate::msm) fn words(scalar: Scalar) -> Words {
        let bytes = scalar.to_repr();
        std::array::from_fn(|i| u64::from_le_bytes(std::array::from_fn(|byte| bytes[8 * i + byte])))
    }

    fn bases(count: u32) -> Vec<G1Projective> {
        (0..count)
            .map(|i| G1Projective::hash_to_curve(&i.to_le_bytes(), b"seal-groth16", b""))
            .collect()
    }

    /// Against one multiplication after the other, in both groups and by every kernel.
    fn check(bases: &[G1Projective], scalars: &[Scalar]) {
        let expected: G1Projective = bases.iter().zip(scalars).map(|(p, s)| p * s).sum();
        let affine: Vec<_> = bases.iter().map(|p| *G1Affine::from(p).as_ref()).collect();
        let scalars: Vec<_> = scalars.iter().map(|scalar| words(*scalar)).collect();
        for kernel in CurveKernel::available() {
            let points = Points::<G1>::of_affine(kernel, &affine);
            let sum = multiply(&points, scalars.len(), |i| &scalars[i], &mut |_| Ok(()));
            assert_eq!(sum, Ok(expected), "{} points by {}", bases.len(), kernel.name());
        }
    }

    fn check_g2(scalars: &[Scalar]) {
        let bases: Vec<_> = (0..scalars.len() as u32)
            .map(|i| G2Projective::hash_to_curve(&i.to_le_bytes(), b"seal-groth16", b""))
            .collect();
        let expected: G2Projective = bases.iter().zip(scalars).map(|(p, s)| p * s).sum();
        let affine: Vec<_> = bases.iter().map(|p| *G2Affine::from(p).as_ref()).collect();
        let scalars: Vec<_> = scalars.iter().map(|scalar| words(*scalar)).collect();
        for kernel in CurveKernel::available() {
            let points = Points::<G2>::of_affine(kernel, &affine);
            let sum = multiply(&points, scalars.len(), |i| &scalars[i], &mut |_| Ok(()));
            assert_eq!(sum, Ok(expected), "{} points of G2 by {}", bases.len(), kernel.name());
        }
    }

    pub(in crate::msm) fn random(seed: u64) -> Scalar {
        let mut value = Scalar::from(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            value = value.square() + Scalar::from(seed);
        }
        value
    }

    #[test]
    fn edge_scalars_give_what_single_multiplications_give() {
        let bases = bases(40);
        let minus_one = -Scalar::ONE;
        let half = Scalar::from(2).invert().expect("not zero");
        let mut edges = vec![
            Scalar::ZERO,
            Scalar::ONE,
            minus_one,
            minus_one - Scalar::ONE,
            half,
            half - Scalar::ONE,
            -half,
            Scalar::from(2),
        ];
        // Where windows of any width begin and end.
        for bit in [1, 2, 3, 7, 8, 15, 16, 17, 63, 64, 127, 128, 191, 192, 253] {
            let power = Scalar::from(2).pow_vartime([bit]);
            edges.extend([power, power - Scalar::ONE, -power]);
        }
        for chunk in edges.chunks(40) {
            check(&bases[..chunk.len()], chunk);
        }
        for edge in edges {
            check(&bases[..1], &[edge]);
            check(&bases, &[edge; 40]);
        }
    }

    #[test]
    fn nothing_is_the_point_at_infinity() {
        check(&[], &[]);
        check(&bases(3), &[Scalar::ZERO; 3]);
        check(&[G1Projective::identity()], &[random(3)]);
    }

    #[test]
    fn points_may_be_infinite_equal_or_opposite() {
        let p = bases(1)[0];
        let list = [p, -p, G1Projective::identity(), p, p, -p];
        let scalars: Vec<_> = (0..6).map(random).collect();
        check(&list, &scalars);
        check(&list, &[random(1); 6]);
        check(&[p; 300], &[random(2); 300]);
    }

    #[test]
    fn all_scalars_one_over_several_chunks() {
        let few = bases(50);
        let many: Vec<_> = (0..CHUNK + 100).map(|i| few[i % 50]).collect();
        check(&many, &vec![Scalar::ONE; many.len()]);
    }

    #[test]
    fn many_random_scalars_in_g1_and_g2() {
        for count in [2_u32, 31, 500, 3000] {
            let scalars: Vec<_> = (0..u64::from(count)).map(random).collect();
            check(&bases(count), &scalars);
            check_g2(&scalars[..scalars.len().min(500)]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn mixed_scalars_give_what_single_multiplications_give(
            list in prop::collection::vec((0_u32..60, 0_u64..9), 1..200)) {
            let few = bases(60);
            let points: Vec<_> = list.iter().map(|(index, _)| few[*index as usize]).collect();
            let scalars: Vec<_> = list
                .iter()
                .map(|(index, kind)| match kind {
                    0..3 => Scalar::ZERO,
                    3..6 => Scalar::ONE,
                    6 => -Scalar::ONE,
                    _ => random(u64::from(*index) * kind),
                })
                .collect();
            check(&points, &scalars);
        }
    }
}
