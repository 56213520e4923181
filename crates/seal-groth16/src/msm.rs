//! Multi-scalar multiplication: the sum of many points, each times its scalar.
//!
//! Scalars zero, one and minus one, nearly all in a witness, are told apart first: such points
//! are only added up. The others go through the bucket method with signed digits: window by
//! window, terms are sorted by digit, and the points of each bucket are summed in affine
//! coordinates ([`PointSums`]). Buckets of a window form a grid; with the sums of its rows and of
//! its columns only twice the side of the grid is left for the running sums.
//!
//! Memory beyond points and scalars: 48 bytes for each of at most [`PASS`] terms, and the buckets
//! of one window (at most 25 MB in G1, 50 MB in G2).

use std::sync::{Mutex, PoisonError};

use blstrs::{G1Affine, G1Projective, G2Affine, G2Projective};
use group::Group as _;
use rayon::prelude::*;
use seal_field::curve::{Curve, CurveKernel, G1, G2, PointRef, PointSums, Points};

use crate::groth::{GoOn, Stopped};

/// A scalar as four little-endian words, below the modulus, not in Montgomery form.
pub(crate) type Words = [u64; 4];

/// How many terms with scalars of full size are worked on at a time.
const PASS: usize = 1 << 24;
/// How many terms a task classifies.
const CHUNK: usize = 1 << 16;
/// Bits of a scalar that has been made smaller than half the modulus, and one for the carry.
const SCALAR_BITS: u32 = 255;
/// Buckets of a window that are sorted and summed together.
const GRID_ROW_BITS: u32 = 8;

/// The modulus of the scalar field.
const MODULUS: Words =
    [0xffff_ffff_0000_0001, 0x53bd_a402_fffe_5bfe, 0x3339_d808_09a1_d805, 0x73ed_a753_299d_7d48];

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

/// A term of full size: below half the modulus, the sign is with the point.
#[derive(Clone, Copy)]
struct Term {
    point: PointRef,
    scalar: Words,
}

/// Terms by what there is to do with them.
#[derive(Default)]
struct Sorted {
    single: Vec<PointRef>,
    full: Vec<Term>,
}

/// The sum of `points[i]` times `scalar(i)` for `i` in `0..count`. Asks before each pass and each
/// window whether to go on.
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
        go_on()?;
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
        total += buckets(points, &mut full, &spares, go_on)?;
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

/// The scalar or its negative, whichever is below half the modulus, and whether it is the negative.
fn halved(scalar: &Words) -> (Words, bool) {
    let negative = minus(&MODULUS, scalar);
    if is_less(&negative, scalar) { (negative, true) } else { (*scalar, false) }
}

fn minus(a: &Words, b: &Words) -> Words {
    let mut out = [0; 4];
    let mut borrow = false;
    for (out, (a, b)) in out.iter_mut().zip(a.iter().zip(b)) {
        let (difference, one) = a.overflowing_sub(*b);
        let (difference, two) = difference.overflowing_sub(u64::from(borrow));
        *out = difference;
        borrow = one | two;
    }
    out
}

fn is_less(a: &Words, b: &Words) -> bool {
    a.iter().rev().lt(b.iter().rev())
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

/// How scalars are cut into windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SignedWindows {
    /// Bits of a window: digits are from -2^(bits-1) to 2^(bits-1).
    bits: u32,
    count: u32,
}

impl SignedWindows {
    /// The width with the fewest additions for `terms` terms: one for each term and window, and
    /// two for each bucket.
    fn for_terms(terms: usize) -> Self {
        (3..=20)
            .map(|bits| Self { bits, count: SCALAR_BITS.div_ceil(bits) })
            .min_by_key(|windows| windows.count as usize * (terms + 2 * windows.buckets()))
            .unwrap_or(Self { bits: 3, count: 85 })
    }

    /// The width with the fewest additions for a table from which `count` multiples are made.
    pub(crate) fn for_table(count: usize) -> Self {
        (3..=16)
            .map(|bits| Self { bits, count: SCALAR_BITS.div_ceil(bits) })
            .min_by_key(|windows| windows.count as usize * (count + windows.buckets()))
            .unwrap_or(Self { bits: 3, count: 85 })
    }

    /// Bits of a window.
    pub(crate) fn bits(self) -> u32 {
        self.bits
    }

    /// How many windows there are.
    pub(crate) fn count(self) -> u32 {
        self.count
    }

    /// The digits of `scalar` that are not zero: window, size and whether it is negative.
    pub(crate) fn digits(self, scalar: &Words, mut each: impl FnMut(u32, usize, bool)) {
        let (value, is_minus) = halved(scalar);
        let shifted = plus(&value, &self.half_of_each());
        for window in 0..self.count {
            let digit = self.digit(&shifted, window);
            if digit != 0 {
                each(window, digit.unsigned_abs() as usize, (digit < 0) != is_minus);
            }
        }
    }

    /// The largest size of a digit.
    pub(crate) fn buckets(self) -> usize {
        1 << (self.bits - 1)
    }

    /// By adding this, half of the digits' range in every window but the top one, digits need no
    /// carry.
    fn half_of_each(self) -> Words {
        let mut out = [0; 4];
        for window in 0..self.count - 1 {
            let bit = window * self.bits + self.bits - 1;
            out[bit as usize / 64] |= 1 << (bit % 64);
        }
        out
    }

    /// The digit of a scalar to which half of each window has been added.
    #[inline]
    fn digit(self, shifted: &Words, window: u32) -> i32 {
        let bit = window * self.bits;
        let (word, shift) = (bit as usize / 64, bit % 64);
        let mut value = shifted[word] >> shift;
        if shift + self.bits > 64 && word < 3 {
            value |= shifted[word + 1] << (64 - shift);
        }
        let unsigned = (value & ((1 << self.bits) - 1)) as i32;
        if window + 1 == self.count { unsigned } else { unsigned - (1 << (self.bits - 1)) }
    }
}

/// `a + b`; the sum of a scalar and half of each window stays below 2^256.
fn plus(a: &Words, b: &Words) -> Words {
    let mut out = [0; 4];
    let mut carry = false;
    for (out, (a, b)) in out.iter_mut().zip(a.iter().zip(b)) {
        let (sum, one) = a.overflowing_add(*b);
        let (sum, two) = sum.overflowing_add(u64::from(carry));
        *out = sum;
        carry = one | two;
    }
    out
}

/// The terms of a chunk, grouped by row of the grid of buckets.
struct Rows {
    items: Vec<(PointRef, u32)>,
    ends: Vec<usize>,
}

impl Rows {
    fn row(&self, row: usize) -> &[(PointRef, u32)] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.items[start..self.ends[row]]
    }
}

/// The sum of terms of full size by the bucket method.
fn buckets<C: Group>(
    points: &Points<C>,
    terms: &mut [Vec<Term>],
    spares: &Spares<C>,
    go_on: &mut GoOn<'_>,
) -> Result<C::Sum, Stopped> {
    let count: usize = terms.iter().map(Vec::len).sum();
    if count == 0 {
        return Ok(C::Sum::identity());
    }
    let windows = SignedWindows::for_terms(count);
    let half = windows.half_of_each();
    terms.par_iter_mut().flatten().for_each(|term| term.scalar = plus(&term.scalar, &half));
    let mut total = C::Sum::identity();
    for window in (0..windows.count).rev() {
        go_on()?;
        for _ in 0..windows.bits {
            total = total.double();
        }
        total += window_sum(points, terms, windows, window, spares);
    }
    Ok(total)
}

fn window_sum<C: Group>(
    points: &Points<C>,
    terms: &[Vec<Term>],
    windows: SignedWindows,
    window: u32,
    spares: &Spares<C>,
) -> C::Sum {
    let row_bits = GRID_ROW_BITS.min((windows.bits - 1) / 2 + 1);
    let (columns, rows) = (1 << row_bits, windows.buckets() >> row_bits);
    let chunks: Vec<Rows> =
        terms.par_iter().map(|terms| by_row(terms, windows, window, row_bits, rows)).collect();
    // Row by row: each bucket's sum.
    let grid: Vec<Points<C>> = (0..rows)
        .into_par_iter()
        .map(|row| {
            let mut ends = vec![0_usize; columns];
            let items = || chunks.iter().flat_map(|chunk| chunk.row(row));
            for (_, column) in items() {
                ends[*column as usize] += 1;
            }
            let mut sum = 0;
            for end in &mut ends {
                // The starts for now; placing moves each to its end.
                (*end, sum) = (sum, sum + *end);
            }
            let mut refs = vec![PointRef::plus(0); sum];
            for (point, column) in items() {
                let place = &mut ends[*column as usize];
                refs[*place] = *point;
                *place += 1;
            }
            let mut sums = Points::infinity(points.kernel(), columns);
            spares.with(|adder| adder.sum_groups(points, &refs, &ends, &mut sums));
            sums
        })
        .collect();
    let mut all = Points::infinity(points.kernel(), 0);
    for row in grid {
        all.append(row);
    }
    let line = |start: usize, step: usize, count: usize| {
        let all = &all;
        (0..count).map(move |i| start + i * step).filter(|i| !all.is_infinity(*i))
    };
    let sum_lines = |lines: usize, start: usize, step: usize, count: usize| -> Vec<C::Sum> {
        let tasks: Vec<usize> = (0..lines).step_by(32).collect();
        tasks
            .into_par_iter()
            .flat_map_iter(|first| {
                let lines = first..lines.min(first + 32);
                let (mut refs, mut ends) = (Vec::new(), Vec::new());
                for index in lines.clone() {
                    // At most 2^20 buckets.
                    let line = line(index * start, step, count);
                    refs.extend(line.map(|i| PointRef::plus(i as u32)));
                    ends.push(refs.len());
                }
                let mut sums = Points::infinity(points.kernel(), ends.len());
                spares.with(|adder| adder.sum_groups(&all, &refs, &ends, &mut sums));
                lines.zip(0..).map(move |(_, i)| C::sum(sums.get(i)))
            })
            .collect()
    };
    let row_sums = sum_lines(rows, columns, 1, columns);
    let column_sums = sum_lines(columns, 1, columns, rows);
    // Bucket (row, column) is worth row * columns + column + 1.
    let mut total = weighted(&row_sums[1..]);
    for _ in 0..row_bits {
        total = total.double();
    }
    total + weighted(&column_sums)
}

/// `1 s[0] + 2 s[1] + …`
fn weighted<S: group::Group>(sums: &[S]) -> S {
    let (mut running, mut total) = (S::identity(), S::identity());
    for sum in sums.iter().rev() {
        running += sum;
        total += running;
    }
    total
}

/// Sorts terms by the row of their bucket.
fn by_row(terms: &[Term], windows: SignedWindows, window: u32, row_bits: u32, rows: usize) -> Rows {
    let digit = |term: &Term| windows.digit(&term.scalar, window);
    let mut ends = vec![0_usize; rows];
    for term in terms {
        let digit = digit(term);
        if digit != 0 {
            ends[((digit.unsigned_abs() - 1) >> row_bits) as usize] += 1;
        }
    }
    let mut sum = 0;
    for end in &mut ends {
        (*end, sum) = (sum, sum + *end);
    }
    let mut items = vec![(PointRef::plus(0), 0); sum];
    for term in terms {
        let digit = digit(term);
        if digit != 0 {
            let bucket = digit.unsigned_abs() - 1;
            let place = &mut ends[(bucket >> row_bits) as usize];
            let point = if digit < 0 { term.point.negated() } else { term.point };
            items[*place] = (point, bucket & ((1 << row_bits) - 1));
            *place += 1;
        }
    }
    Rows { items, ends }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blstrs::Scalar;
    use ff::{Field, PrimeField};
    use proptest::prelude::*;

    fn words(scalar: Scalar) -> Words {
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
            let sum = multiply(&points, scalars.len(), |i| &scalars[i], &mut || Ok(()));
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
            let sum = multiply(&points, scalars.len(), |i| &scalars[i], &mut || Ok(()));
            assert_eq!(sum, Ok(expected), "{} points of G2 by {}", bases.len(), kernel.name());
        }
    }

    fn random(seed: u64) -> Scalar {
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

    #[test]
    fn digits_of_every_width_make_up_the_scalar() {
        let two = Scalar::from(2);
        for bits in 3..=20 {
            let windows = SignedWindows { bits, count: SCALAR_BITS.div_ceil(bits) };
            for scalar in [random(1), random(2), two.invert().expect("not zero") - Scalar::ONE] {
                let (value, sign) = if is_less(&minus(&MODULUS, &words(scalar)), &words(scalar)) {
                    (minus(&MODULUS, &words(scalar)), -Scalar::ONE)
                } else {
                    (words(scalar), Scalar::ONE)
                };
                let shifted = plus(&value, &windows.half_of_each());
                let sum: Scalar = (0..windows.count)
                    .map(|window| {
                        let digit = windows.digit(&shifted, window);
                        assert!(digit.unsigned_abs() as usize <= windows.buckets());
                        let weight = two.pow_vartime([u64::from(window * bits)]);
                        let size = Scalar::from(u64::from(digit.unsigned_abs()));
                        weight * if digit < 0 { -size } else { size }
                    })
                    .sum();
                assert_eq!(sum * sign, scalar, "{bits} bits");
            }
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
