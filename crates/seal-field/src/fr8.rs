//! Eight elements of the scalar field in the lanes of AVX-512 vectors.
//!
//! An element is five limbs of 52 bits, and limb `i` of all eight is one vector. `vpmadd52luq` and
//! `vpmadd52huq` add the lower and the upper half of a 104-bit product of limbs to 64 bits, so
//! sums of many products fit without carries: they are summed column by column and reduced once.
//!
//! Two freedoms make the arithmetic cheap.
//!
//! *Numbers are not kept below the modulus r but below 2^257*; only storing makes them canonical.
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
    __m512i, _mm512_add_epi64, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64, _mm512_set1_epi64,
    _mm512_setzero_si512, _mm512_srli_epi64,
};

use crate::limbs::{CLEARING, FOLD, LIMB_BITS, LIMBS, Limbs, MASK, MODULUS};

mod nodes;

pub use nodes::{LANES, Words, load};

/// Columns of a sum of products.
const COLUMNS: usize = 2 * LIMBS;

/// Eight numbers below 2^257, in limbs whose bits above the 52nd are garbage.
#[derive(Clone, Copy, Debug)]
pub struct Fr8(pub(crate) [__m512i; LIMBS]);

/// Sums of products of elements, in columns of 52 bits that overlap.
///
/// Each addition adds less than 10 * 2^52 to a column, so 200 are far from 2^64. A reduced sum has
/// to stay below 2^257: that allows 19 products with constants below r, of which each product of
/// two numbers that are only below 2^257 takes the place of 5.
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

impl Fr8 {
    /// The same number, which has to be below 2^257, in all lanes.
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

    /// The fifth power, divided by 2^780.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn quintic(&self) -> Self {
        self.square().square().times(self)
    }
}

impl Products {
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

    /// The sum divided by 2^260: less than `sum / 2^260 + 2r`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn reduce(self) -> Fr8 {
        let mut columns = self.0;
        for i in 0..LIMBS - 1 {
            let limb = columns[i];
            columns[i + 1] = _mm512_add_epi64(columns[i + 1], carry(limb));
            for j in 0..LIMBS {
                let fold = lanes(FOLD[j]);
                columns[i + j + 1] = _mm512_madd52lo_epu64(columns[i + j + 1], limb, fold);
                columns[i + j + 2] = _mm512_madd52hi_epu64(columns[i + j + 2], limb, fold);
            }
        }
        let [.., a, b, c, d, e, f] = columns;
        reduce_last([a, b, c, d, e, f])
    }
}

impl SmallProducts {
    /// A sum that begins with `limbs`, which is not multiplied by anything: to have a constant in
    /// the result, give it times 2^52.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn from(limbs: &Limbs) -> Self {
        let mut columns = [_mm512_setzero_si512(); LIMBS + 1];
        for (column, limb) in columns.iter_mut().zip(limbs) {
            *column = lanes(*limb);
        }
        Self(columns)
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

    /// The sum divided by 2^52: less than `sum / 2^52 + r`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn reduce(self) -> Fr8 {
        reduce_last(self.0)
    }
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
