//! Transforms in vectors of eight.
//!
//! The array is taken for a matrix, and a transform for one of its columns, a multiplication by
//! powers of the root, and one of its rows (a row too long for the cache is a matrix again). Eight
//! columns or rows at a time are transformed in the lanes of vectors, so that all lanes share a
//! factor, and the array passes through the cache twice instead of once for every doubling. The
//! powers of a coset's shift are part of the factors in between and cost nothing.

use blstrs::Scalar;
use ff::Field;
use rayon::prelude::*;

use super::{Constants, FrWords, bit_reversed, words_of_scalar};
use crate::Ifma;
use crate::fr_ifma::{Lanes, Limbs, Stored, limbs};

/// Logarithm of the shortest transform: eight columns of eight.
pub(super) const LEAST: u32 = 6;
/// Logarithm of the longest column: 2048 vectors of 320 bytes stay in the second cache.
const LONGEST: u32 = 11;
/// Butterflies without a factor are let be sums for so many levels; then values would grow too
/// large.
const UNIT_LEVELS: usize = 3;

/// A constant factor in the Montgomery form of the vectors, 2^260: blst's times 2^4.
fn constant(value: Scalar) -> Limbs {
    limbs(&words_of_scalar(value * Scalar::from(16)))
}

fn powers(base: Scalar, count: usize) -> Vec<Scalar> {
    std::iter::successors(Some(Scalar::ONE), |power| Some(power * base)).take(count).collect()
}

/// A pass over the columns of blocks of `2^bits` elements each.
struct Pass {
    /// Logarithm of the length of a block, and of a column.
    block_bits: u32,
    column_bits: u32,
    /// Of the block, for values to coefficients and back.
    root: Scalar,
    root_inverse: Scalar,
    /// The coset's shift for this block.
    shift: Scalar,
    shift_inverse: Scalar,
    /// Roots for [`down`], in bit-reversed order.
    down: Vec<Limbs>,
    /// Roots for [`up`], level by level.
    up: Vec<Limbs>,
}

/// The last pass, over rows.
struct Last {
    bits: u32,
    down: Vec<Limbs>,
    /// Roots times powers of the shift, level by level.
    up_on_coset: Vec<Limbs>,
    /// Powers of the inverse shift.
    unshift: Vec<Limbs>,
}

pub(super) struct Engine {
    proof: Ifma,
    passes: Vec<Pass>,
    last: Last,
}

fn down_roots(root: Scalar, bits: u32) -> Vec<Limbs> {
    let powers = powers(root, 1 << (bits - 1));
    (0..powers.len()).map(|i| constant(powers[bit_reversed(i, bits - 1)])).collect()
}

/// At `half + j`: the factor of butterfly `j` between halves of that length.
fn up_roots(root: Scalar, shift: Scalar, bits: u32) -> Vec<Limbs> {
    let mut out = vec![[0; 5]; 1 << bits];
    for level in 0..bits {
        let half = 1_usize << level;
        let spread = 1_u64 << (bits - level - 1);
        let powers = powers(root.pow_vartime([spread]), half);
        let first = shift.pow_vartime([spread]);
        for (place, power) in out[half..2 * half].iter_mut().zip(powers) {
            *place = constant(power * first);
        }
    }
    out
}

impl Engine {
    pub(super) fn new(proof: Ifma, bits: u32, constants: &Constants) -> Self {
        let parts = bits.div_ceil(LONGEST).max(2);
        let mut left = bits;
        let Constants { mut root, mut root_inverse, mut shift, mut shift_inverse } = *constants;
        let mut passes = Vec::new();
        for part in 0..parts - 1 {
            let column_bits = left.div_ceil(parts - part).min(left - 3);
            let own = 1_u64 << (left - column_bits);
            passes.push(Pass {
                block_bits: left,
                column_bits,
                root,
                root_inverse,
                shift,
                shift_inverse,
                down: down_roots(root_inverse.pow_vartime([own]), column_bits),
                up: up_roots(root.pow_vartime([own]), Scalar::ONE, column_bits),
            });
            let columns = 1_u64 << column_bits;
            for value in [&mut root, &mut root_inverse, &mut shift, &mut shift_inverse] {
                *value = value.pow_vartime([columns]);
            }
            left -= column_bits;
        }
        let last = Last {
            bits: left,
            down: down_roots(root_inverse, left),
            up_on_coset: up_roots(root, shift, left),
            unshift: powers(shift_inverse, 1 << left).into_iter().map(constant).collect(),
        };
        Self { proof, passes, last }
    }

    pub(super) fn interpolate(&self, data: &mut [FrWords]) {
        for pass in &self.passes {
            self.columns(data, pass, |columns, first, buffer| {
                let base = Base { shift: Scalar::ONE, root: pass.root_inverse };
                // SAFETY: needs avx512f and avx512ifma, which the proof was made for.
                unsafe { down_columns(columns, first, pass, base, buffer) }
            });
        }
        self.rows(data, |rows, buffer| {
            // SAFETY: as above.
            unsafe { down_rows(rows, &self.last, None, buffer) }
        });
    }

    pub(super) fn interpolate_on_coset(&self, data: &mut [FrWords]) {
        for pass in &self.passes {
            self.columns(data, pass, |columns, first, buffer| {
                let base = Base { shift: pass.shift_inverse, root: pass.root_inverse };
                // SAFETY: needs avx512f and avx512ifma, which the proof was made for.
                unsafe { down_columns(columns, first, pass, base, buffer) }
            });
        }
        self.rows(data, |rows, buffer| {
            // SAFETY: as above.
            unsafe { down_rows(rows, &self.last, Some(&self.last.unshift), buffer) }
        });
    }

    pub(super) fn evaluate_on_coset(&self, data: &mut [FrWords]) {
        self.rows(data, |rows, buffer| {
            // SAFETY: needs avx512f and avx512ifma, which the proof was made for.
            unsafe { up_rows(rows, &self.last, buffer) }
        });
        for pass in self.passes.iter().rev() {
            self.columns(data, pass, |columns, first, buffer| {
                let base = Base { shift: pass.shift, root: pass.root };
                // SAFETY: as above.
                unsafe { up_columns(columns, first, pass, base, buffer) }
            });
        }
    }

    pub(super) fn multiply(&self, a: &mut [FrWords], b: &[FrWords]) {
        let _ = self.proof;
        a.par_chunks_mut(1 << 12).zip(b.par_chunks(1 << 12)).for_each(|(a, b)| {
            // SAFETY: needs avx512f and avx512ifma, which the proof was made for.
            unsafe { multiply(a, b) }
        });
    }

    pub(super) fn quotient(
        &self,
        product: &mut [FrWords],
        c: &[FrWords],
        of_product: Scalar,
        of_c: Scalar,
    ) {
        // Values carry 2^256 from blst's form, and every product by vectors takes 2^260 away: the
        // product of a and b has 2^252 left. These leave none.
        let of_product = limbs(&words_of_scalar(of_product * of_exponent(8 - 256)));
        let of_c = limbs(&words_of_scalar(of_c * of_exponent(4 - 256)));
        product.par_chunks_mut(1 << 12).zip(c.par_chunks(1 << 12)).for_each(|(product, c)| {
            // SAFETY: needs avx512f and avx512ifma, which the proof was made for.
            unsafe { quotient(product, c, &of_product, &of_c) }
        });
    }

    /// Gives the columns of each block to the threads, some at a time.
    fn columns(
        &self,
        data: &mut [FrWords],
        pass: &Pass,
        work: impl Fn(&mut [&mut [FrWords]], usize, &mut [Stored]) + Sync,
    ) {
        let buffer = || vec![Stored::ZERO; 1 << pass.column_bits];
        let width = 1_usize << (pass.block_bits - pass.column_bits);
        let threads = rayon::current_num_threads();
        let blocks = data.len() >> pass.block_bits;
        // Cut columns only where blocks alone do not keep all threads busy.
        let parts = (8 * threads).div_ceil(blocks).next_power_of_two().min(width / 8);
        data.par_chunks_mut(1 << pass.block_bits).for_each(|block| {
            let mut cut: Vec<Vec<&mut [FrWords]>> =
                (0..parts).map(|_| Vec::with_capacity(1 << pass.column_bits)).collect();
            for row in block.chunks_mut(width) {
                for (part, piece) in cut.iter_mut().zip(row.chunks_mut(width / parts)) {
                    part.push(piece);
                }
            }
            cut.par_iter_mut().enumerate().for_each_init(buffer, |buffer, (part, columns)| {
                work(columns, part * (width / parts), buffer);
            });
        });
    }

    /// Gives the rows to the threads, eight at a time.
    fn rows(&self, data: &mut [FrWords], work: impl Fn(&mut [FrWords], &mut [Stored]) + Sync) {
        let buffer = || vec![Stored::ZERO; 1 << self.last.bits];
        data.par_chunks_mut(8 << self.last.bits)
            .for_each_init(buffer, |buffer, rows| work(rows, buffer));
    }
}

/// `2^exponent`, for the forms of constants: `words_of_scalar` adds 2^256 by itself.
fn of_exponent(exponent: i64) -> Scalar {
    let two = Scalar::from(2);
    let power = two.pow_vartime([exponent.unsigned_abs()]);
    if exponent < 0 { Option::<Scalar>::from(power.invert()).unwrap_or(power) } else { power }
}

/// What the factors between columns and rows are powers of: `shift * root^column`.
#[derive(Clone, Copy)]
struct Base {
    shift: Scalar,
    root: Scalar,
}

impl Base {
    /// The bases for the eight columns from `first` on.
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn of_columns(self, first: usize) -> Lanes {
        let mut value = self.shift * self.root.pow_vartime([first as u64]) * Scalar::from(16);
        let mut words = [[0; 4]; 8];
        for place in &mut words {
            *place = words_of_scalar(value);
            value *= self.root;
        }
        Lanes::gather(words.each_ref())
    }
}

/// Multiplies the element that belongs to power `k`, at the bit reversal of `k`, by `base^k`.
#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply_by_powers(buffer: &mut [Stored], base: &Lanes) {
    let bits = buffer.len().trailing_zeros();
    // Four chains, because each product waits for the one before.
    let one = Lanes::splat(&constant(Scalar::ONE));
    let square = base.mul(base).carried();
    let mut power = [one, *base, square, square.mul(base).carried()];
    let step = square.mul(&square).carried();
    for first in (0..buffer.len()).step_by(4) {
        for (k, power) in (first..).zip(&mut power) {
            let place = &mut buffer[bit_reversed(k, bits)];
            Lanes::load(place).carried().mul(power).store(place);
            *power = power.mul(&step).carried();
        }
    }
}

/// From natural to bit-reversed order: block `block` of the level with so many doublings behind it.
#[target_feature(enable = "avx512f,avx512ifma")]
fn down(buffer: &mut [Stored], roots: &[Limbs], block: usize, level: usize) {
    let half = buffer.len() / 2;
    if half == 0 {
        return;
    }
    let (low, high) = buffer.split_at_mut(half);
    if block == 0 && level < UNIT_LEVELS {
        for (a, b) in low.iter_mut().zip(high.iter_mut()) {
            match level {
                0 => unit::<2>(a, b),
                1 => unit::<4>(a, b),
                _ => unit::<8>(a, b),
            }
        }
    } else {
        let root = Lanes::splat(&roots[block]);
        for (a, b) in low.iter_mut().zip(high.iter_mut()) {
            butterfly(a, b, &root);
        }
    }
    down(low, roots, 2 * block, level + 1);
    down(high, roots, 2 * block + 1, level + 1);
}

/// From bit-reversed to natural order. `UNITS` tells that the first factor of a level is one.
#[target_feature(enable = "avx512f,avx512ifma")]
fn up<const UNITS: bool>(buffer: &mut [Stored], roots: &[Limbs]) {
    let half = buffer.len() / 2;
    if half == 0 {
        return;
    }
    let (low, high) = buffer.split_at_mut(half);
    up::<UNITS>(low, roots);
    up::<UNITS>(high, roots);
    let mut first = 0;
    if UNITS && half < 1 << UNIT_LEVELS {
        let (a, b) = (&mut low[0], &mut high[0]);
        match half {
            1 => unit::<2>(a, b),
            2 => unit::<4>(a, b),
            _ => unit::<8>(a, b),
        }
        first = 1;
    }
    let pairs = low.iter_mut().zip(high.iter_mut()).zip(&roots[half..2 * half]);
    for ((a, b), root) in pairs.skip(first) {
        butterfly(a, b, &Lanes::splat(root));
    }
}

/// `(a + w b, a - w b)`: values grow by 2 r.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn butterfly(a: &mut Stored, b: &mut Stored, root: &Lanes) {
    let x = Lanes::load(a);
    let y = Lanes::load(b).carried().mul(root);
    x.add(&y).store(a);
    x.sub::<2>(&y).store(b);
}

/// `(a + b, a - b + K r)`, for `b` below `K` r.
#[inline]
#[target_feature(enable = "avx512f")]
fn unit<const K: u64>(a: &mut Stored, b: &mut Stored) {
    let (x, y) = (Lanes::load(a), Lanes::load(b));
    x.add(&y).store(a);
    x.sub::<K>(&y).store(b);
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn down_columns(
    columns: &mut [&mut [FrWords]],
    first: usize,
    pass: &Pass,
    base: Base,
    buffer: &mut [Stored],
) {
    for group in 0..columns[0].len() / 8 {
        load_columns(columns, group, buffer);
        down(buffer, &pass.down, 0, 0);
        multiply_by_powers(buffer, &base.of_columns(first + 8 * group));
        for (row, stored) in columns.iter_mut().zip(&*buffer) {
            // Below 2 r after the product.
            Lanes::load(stored).carried().scatter(row.as_chunks_mut::<8>().0[group].each_mut());
        }
    }
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn up_columns(
    columns: &mut [&mut [FrWords]],
    first: usize,
    pass: &Pass,
    base: Base,
    buffer: &mut [Stored],
) {
    for group in 0..columns[0].len() / 8 {
        load_columns(columns, group, buffer);
        multiply_by_powers(buffer, &base.of_columns(first + 8 * group));
        up::<true>(buffer, &pass.up);
        for (row, stored) in columns.iter_mut().zip(&*buffer) {
            Lanes::load(stored).reduced().scatter(row.as_chunks_mut::<8>().0[group].each_mut());
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_columns(columns: &[&mut [FrWords]], group: usize, buffer: &mut [Stored]) {
    for (row, stored) in columns.iter().zip(buffer) {
        Lanes::gather(row.as_chunks::<8>().0[group].each_ref()).store(stored);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_rows(rows: &[FrWords], buffer: &mut [Stored]) {
    let length = buffer.len();
    for (index, stored) in buffer.iter_mut().enumerate() {
        let rows: [&FrWords; 8] = std::array::from_fn(|row| &rows[row * length + index]);
        Lanes::gather(rows).store(stored);
    }
}

/// One element of each of eight rows.
#[inline]
fn places(rows: &mut [FrWords], length: usize, index: usize) -> [&mut FrWords; 8] {
    let mut rows = rows.chunks_mut(length);
    std::array::from_fn(|_| match rows.next() {
        Some(row) => &mut row[index],
        None => unreachable!("eight rows"),
    })
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn down_rows(rows: &mut [FrWords], last: &Last, factors: Option<&[Limbs]>, buffer: &mut [Stored]) {
    load_rows(rows, buffer);
    down(buffer, &last.down, 0, 0);
    for (index, stored) in buffer.iter().enumerate() {
        let value = Lanes::load(stored);
        let value = match factors {
            Some(factors) => {
                let factor = Lanes::splat(&factors[bit_reversed(index, last.bits)]);
                // Below 2 r.
                value.carried().mul(&factor).carried()
            }
            None => value.reduced(),
        };
        value.scatter(places(rows, buffer.len(), index));
    }
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn up_rows(rows: &mut [FrWords], last: &Last, buffer: &mut [Stored]) {
    load_rows(rows, buffer);
    up::<false>(buffer, &last.up_on_coset);
    for (index, stored) in buffer.iter().enumerate() {
        Lanes::load(stored).reduced().scatter(places(rows, buffer.len(), index));
    }
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply(a: &mut [FrWords], b: &[FrWords]) {
    for (a, b) in a.as_chunks_mut::<8>().0.iter_mut().zip(b.as_chunks::<8>().0) {
        let product = Lanes::gather(a.each_ref()).mul(&Lanes::gather(b.each_ref()));
        product.carried().scatter(a.each_mut());
    }
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn quotient(product: &mut [FrWords], c: &[FrWords], of_product: &Limbs, of_c: &Limbs) {
    let (of_product, of_c) = (Lanes::splat(of_product), Lanes::splat(of_c));
    for (product, c) in product.as_chunks_mut::<8>().0.iter_mut().zip(c.as_chunks::<8>().0) {
        let first = Lanes::gather(product.each_ref()).mul(&of_product);
        let second = Lanes::gather(c.each_ref()).mul(&of_c);
        let value = first.sub::<2>(&second).reduced().canonical();
        value.scatter(product.each_mut());
    }
}
