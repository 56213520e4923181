//! Eight elements of the scalar field in the lanes of AVX-512 vectors.
//!
//! An element is five limbs of 52 bits, and limb `i` of all eight is one vector. `vpmadd52luq` and
//! `vpmadd52huq` add the lower and the upper half of a 104-bit product of limbs to 64 bits, so
//! sums of many products fit without carries: they are summed column by column and reduced once.
//!
//! Two freedoms make the arithmetic cheap.
//!
//! *Numbers are not kept below the modulus r but below 2^258*; only storing makes them canonical.
//!
//! *Bits above the 52nd of a limb are garbage*: the multiplier ignores them, so carrying into the
//! next limb need not clear them. An [`Fr8`] is therefore only multiplied, never added; what has
//! to be added is added to the columns of a sum.
//!
//! Reduction is Montgomery's, a limb at a time from the lowest: it divides by 2^52 for each limb,
//! 2^260 in all for products of elements ([`Products`]), and 2^52 for products of elements and
//! small numbers ([`SmallProducts`]). What a result is divided by has to be made up for in
//! constants; there is no "Montgomery form" here but the factors that a caller keeps track of.
//!
//! Limits, with the two multiplier ports of a processor that has two: a product of elements is 50
//! instructions, a square 38, its reduction 69, a product with a small number 10.

#![expect(
    clippy::missing_safety_doc,
    reason = "it takes safe functions with target features for unsafe ones"
)]

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64,
    _mm512_set1_epi64, _mm512_setzero_si512, _mm512_srli_epi64,
};
use std::hint::black_box;

use crate::limbs::{CLEARING, FOLDS, LIMB_BITS, LIMBS, Limbs, MASK, MODULUS};

mod nodes;
#[cfg(test)]
mod tests;

pub use nodes::{LANES, Words, load};

/// Columns of a sum of products.
const COLUMNS: usize = 2 * LIMBS;

/// Eight numbers below 2^258, or the sum of two such, in limbs whose bits above the 52nd are
/// garbage.
#[derive(Clone, Copy, Debug)]
pub struct Fr8(pub(crate) [__m512i; LIMBS]);

/// Sums of products of elements, in columns of 52 bits that overlap.
///
/// Each addition adds less than 10 * 2^52 to a column, so 200 are far from 2^64. A reduced sum has
/// to stay below 2^258, which is 8.8 r, and a reduction adds 2 r: that allows 27 products with
/// constants below r, of which a product with the sum of two elements takes the place of 2, and a
/// product of two numbers that are only below 2^258 that of 9.
#[derive(Clone, Copy, Debug)]
pub struct Products([__m512i; COLUMNS]);

/// Sums of products of elements with numbers below 2^52.
///
/// Up to 64 products of elements with numbers below 2^44 make a sum whose reduction is less than
/// 2^256.
#[derive(Clone, Copy, Debug)]
pub struct SmallProducts([__m512i; LIMBS + 1]);

/// `number` in all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn lanes(number: u64) -> __m512i {
    _mm512_set1_epi64(number.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f")]
fn carry(column: __m512i) -> __m512i {
    _mm512_srli_epi64::<LIMB_BITS>(column)
}

/// A limb without its garbage.
#[inline]
#[target_feature(enable = "avx512f")]
fn limb(limb: __m512i) -> __m512i {
    _mm512_and_si512(limb, lanes(MASK))
}

impl Fr8 {
    /// Multiply-adds of [`Fr8::square`].
    pub const SQUARE: u64 = (LIMBS * (LIMBS + 1)) as u64 + Products::REDUCTION;

    /// Multiply-adds of [`Fr8::times`].
    pub const TIMES: u64 = Products::PRODUCT + Products::REDUCTION;

    /// The same number, which has to be below 2^258, in all lanes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn same(limbs: &Limbs) -> Self {
        let mut vectors = [_mm512_setzero_si512(); LIMBS];
        for (vector, limb) in vectors.iter_mut().zip(limbs) {
            *vector = lanes(*limb);
        }
        Self(vectors)
    }

    /// `self * other / 2^260`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn times(&self, other: &Self) -> Self {
        let mut products = Products::zero();
        products.add(self, other);
        products.reduce()
    }

    /// `self² / 2^260`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn square(&self) -> Self {
        let Self(a) = self;
        let mut columns = [_mm512_setzero_si512(); COLUMNS];
        for i in 0..LIMBS {
            for j in i + 1..LIMBS {
                columns[i + j] = _mm512_madd52lo_epu64(columns[i + j], a[i], a[j]);
                columns[i + j + 1] = _mm512_madd52hi_epu64(columns[i + j + 1], a[i], a[j]);
            }
        }
        for column in &mut columns[1..COLUMNS - 1] {
            *column = _mm512_add_epi64(*column, *column);
        }
        for i in 0..LIMBS {
            columns[2 * i] = _mm512_madd52lo_epu64(columns[2 * i], a[i], a[i]);
            columns[2 * i + 1] = _mm512_madd52hi_epu64(columns[2 * i + 1], a[i], a[i]);
        }
        Products(columns).reduce()
    }

    /// The sum, which has to be below 2^260.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn plus(&self, other: &Self) -> Self {
        let mut limbs = self.0;
        for i in 0..LIMBS {
            limbs[i] = _mm512_add_epi64(limb(self.0[i]), limb(other.0[i]));
            if i > 0 {
                limbs[i] = _mm512_add_epi64(limbs[i], carry(limbs[i - 1]));
            }
        }
        Self(limbs)
    }
}

impl Products {
    /// Multiply-adds of a product that is added.
    pub const PRODUCT: u64 = (2 * LIMBS * LIMBS) as u64;

    /// Multiply-adds of [`Products::reduce`]: all limbs but the last are folded.
    pub const REDUCTION: u64 = (2 * LIMBS * (LIMBS - 1)) as u64 + SmallProducts::REDUCTION;

    /// The empty sum.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn zero() -> Self {
        Self([_mm512_setzero_si512(); COLUMNS])
    }

    /// A sum that begins with `limbs`, which is not multiplied by anything: to have a constant in
    /// the result, give it times 2^260.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn from(limbs: &Limbs) -> Self {
        let mut sum = Self::zero();
        for (column, limb) in sum.0.iter_mut().zip(limbs) {
            *column = lanes(*limb);
        }
        sum
    }

    /// Adds `left * right`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn add(&mut self, Fr8(left): &Fr8, Fr8(right): &Fr8) {
        let columns = &mut self.0;
        for i in 0..LIMBS {
            for j in 0..LIMBS {
                columns[i + j] = _mm512_madd52lo_epu64(columns[i + j], left[i], right[j]);
                columns[i + j + 1] = _mm512_madd52hi_epu64(columns[i + j + 1], left[i], right[j]);
            }
        }
    }

    /// The sum of both.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn plus(&self, other: &Self) -> Self {
        let mut columns = self.0;
        for (column, other) in columns.iter_mut().zip(other.0) {
            *column = _mm512_add_epi64(*column, other);
        }
        Self(columns)
    }

    /// Adds to each sum the product of `element` and its constant.
    ///
    /// A sum alone has to wait for its middle columns, to which a product adds nine times; two
    /// keep the multipliers busy.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn add_to_each<const SUMS: usize>(
        sums: &mut [Self; SUMS],
        Fr8(element): &Fr8,
        constants: [&Limbs; SUMS],
    ) {
        for j in 0..LIMBS {
            for i in 0..LIMBS {
                for (Self(columns), constant) in sums.iter_mut().zip(constants) {
                    let limb = lanes(constant[j]);
                    columns[i + j] = _mm512_madd52lo_epu64(columns[i + j], element[i], limb);
                    columns[i + j + 1] =
                        _mm512_madd52hi_epu64(columns[i + j + 1], element[i], limb);
                }
            }
        }
    }

    /// The sum divided by 2^260: less than `sum / 2^260 + 2r`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn reduce(self) -> Fr8 {
        let mut columns = self.0;
        // Three limbs go to the same place, so that they do not wait for each other. The result
        // is less than 2^52 * r more for it at this place, which is nothing two limbs up.
        for i in 0..LIMBS - 1 {
            let limb = columns[i];
            columns[i + 1] = _mm512_add_epi64(columns[i + 1], carry(limb));
            let up = if i < 3 { 3 - i } else { 1 };
            for (j, fold) in FOLDS[up].iter().enumerate() {
                let (fold, column) = (lanes(*fold), i + up + j);
                columns[column] = _mm512_madd52lo_epu64(columns[column], limb, fold);
                columns[column + 1] = _mm512_madd52hi_epu64(columns[column + 1], limb, fold);
            }
        }
        let [.., a, b, c, d, e, f] = columns;
        reduce_last([a, b, c, d, e, f])
    }
}

impl SmallProducts {
    /// Multiply-adds of a product that is added.
    pub const PRODUCT: u64 = (2 * LIMBS) as u64;

    /// Multiply-adds of [`SmallProducts::reduce`].
    pub const REDUCTION: u64 = (2 * LIMBS) as u64;

    /// The empty sum.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn zero() -> Self {
        Self([_mm512_setzero_si512(); LIMBS + 1])
    }

    /// Adds `element * number`, of which the lower 52 bits count.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn add(&mut self, Fr8(element): &Fr8, number: u64) {
        let number = lanes(number);
        for (i, limb) in element.iter().enumerate() {
            self.0[i] = _mm512_madd52lo_epu64(self.0[i], *limb, number);
            self.0[i + 1] = _mm512_madd52hi_epu64(self.0[i + 1], *limb, number);
        }
    }

    /// Adds to each sum the product of `element` and its number, of which the lower 52 bits count.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn add_to_each<const SUMS: usize>(
        sums: &mut [Self; SUMS],
        Fr8(element): &Fr8,
        numbers: [u64; SUMS],
    ) {
        for (i, limb) in element.iter().enumerate() {
            for (Self(columns), number) in sums.iter_mut().zip(numbers) {
                let number = lanes(number);
                columns[i] = _mm512_madd52lo_epu64(columns[i], *limb, number);
                columns[i + 1] = _mm512_madd52hi_epu64(columns[i + 1], *limb, number);
            }
        }
    }

    /// The sum divided by 2^52: less than `sum / 2^52 + r`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn reduce(self) -> Fr8 {
        reduce_last(self.0)
    }
}

/// Sums of multiply-adds and nothing else, for measuring how many a core does. Returns how many
/// there were.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(crate) fn sum_of_multiply_adds(count: u32) -> u32 {
    let factor = lanes(black_box(3));
    // More than latency times multipliers, so that none waits for another.
    let mut sums = [factor; 16];
    let turns = count / 32;
    for _ in 0..turns {
        for sum in &mut sums {
            *sum = _mm512_madd52lo_epu64(*sum, factor, factor);
        }
        for sum in &mut sums {
            *sum = _mm512_madd52hi_epu64(*sum, factor, factor);
        }
    }
    black_box(&sums);
    turns * 32
}

/// Clears the lowest limb by adding a multiple of the modulus itself, so that the result is small,
/// and carries.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn reduce_last(columns: [__m512i; LIMBS + 1]) -> Fr8 {
    let [lowest, mut limbs @ ..] = columns;
    let times = _mm512_madd52lo_epu64(_mm512_setzero_si512(), lowest, lanes(CLEARING));
    // The lowest limb becomes zero; what it carries is known without computing it.
    limbs[0] = _mm512_add_epi64(limbs[0], carry(_mm512_add_epi64(lowest, lanes(MASK))));
    for j in 0..LIMBS {
        let modulus = lanes(MODULUS[j]);
        if j > 0 {
            limbs[j - 1] = _mm512_madd52lo_epu64(limbs[j - 1], times, modulus);
        }
        limbs[j] = _mm512_madd52hi_epu64(limbs[j], times, modulus);
    }
    for i in 1..LIMBS {
        limbs[i] = _mm512_add_epi64(limbs[i], carry(limbs[i - 1]));
    }
    Fr8(limbs)
}
