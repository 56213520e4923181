//! The base field in the eight lanes of an AVX-512 vector, by the 52-bit multipliers of IFMA.
//!
//! An element is eight limbs of 52 bits: 416 bits for a modulus of 381. The 35 bits to spare make
//! conditional subtractions unnecessary: a Montgomery product (R = 2^416) of factors below 2^10 p
//! is below 1.001 p. Memory holds 6 words of 64 bits per element, in the same Montgomery form.
//!
//! A product takes 128 multiply-adds and its reduction 136: on a core that starts two of them per
//! cycle, 132 cycles for eight lanes at the least.

use std::arch::x86_64::{
    __m512i, __mmask8, _MM_HINT_T0, _mm_prefetch, _mm512_add_epi64, _mm512_and_si512,
    _mm512_andnot_si512, _mm512_cmpeq_epi64_mask, _mm512_loadu_si512, _mm512_madd52hi_epu64,
    _mm512_madd52lo_epu64, _mm512_mask_blend_epi64, _mm512_mask_storeu_epi64,
    _mm512_maskz_loadu_epi64, _mm512_or_si512, _mm512_permutex_epi64, _mm512_permutexvar_epi64,
    _mm512_set1_epi64, _mm512_setzero_si512, _mm512_shuffle_i64x2, _mm512_slli_epi64,
    _mm512_srai_epi64, _mm512_srli_epi64, _mm512_storeu_si512, _mm512_sub_epi64,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi64,
};

use crate::fp::{P, Words, below_p, power_of_two};

/// Bits of a limb.
const BITS: u32 = 52;
const MASK: u64 = (1 << BITS) - 1;

/// Splits words into limbs of 52 bits.
const fn limbs(words: &Words) -> [u64; 8] {
    let mut out = [0; 8];
    let mut i = 0;
    while i < 8 {
        let bit = 52 * i;
        let (word, shift) = (bit / 64, bit % 64);
        let mut limb = words[word] >> shift;
        if shift > 12 && word + 1 < 6 {
            limb |= words[word + 1] << (64 - shift);
        }
        out[i] = limb & MASK;
        i += 1;
    }
    out
}

/// `factor` times p in limbs, for factors below 32.
const fn times_p(factor: u64) -> [u64; 8] {
    let p = limbs(&P);
    let mut out = [0; 8];
    let mut carry = 0;
    let mut i = 0;
    while i < 8 {
        let sum = p[i] as u128 * factor as u128 + carry;
        out[i] = (sum as u64) & MASK;
        carry = sum >> BITS;
        i += 1;
    }
    out
}

const P_LIMBS: [u64; 8] = limbs(&P);
const TWO_P: [u64; 8] = times_p(2);
const FOUR_P: [u64; 8] = times_p(4);

/// `-1/p` modulo 2^52.
const P_INVERSE: u64 = {
    let mut inverse: u64 = 1;
    let mut i = 0;
    while i < 6 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(P[0].wrapping_mul(inverse)));
        i += 1;
    }
    inverse.wrapping_neg() & MASK
};

/// Limb `j` of 0 p, 1 p, …, 7 p: looked up by quotient.
const MULTIPLES: [[u64; 8]; 8] = {
    let mut out = [[0; 8]; 8];
    let mut factor = 0;
    while factor < 8 {
        let multiple = times_p(factor as u64);
        let mut limb = 0;
        while limb < 8 {
            out[limb][factor] = multiple[limb];
            limb += 1;
        }
        factor += 1;
    }
    out
};

/// 2^52 over the top limb of p, rounded down with one to spare: a quotient by it is never too
/// large.
const TOP_RECIPROCAL: u64 = (1 << BITS) / (P_LIMBS[7] + 1);

/// One in Montgomery form.
pub(crate) const ONE: Words = power_of_two(416);
/// Eight elements in memory, limb by limb.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Stored([[u64; 8]; 8]);

impl Stored {
    pub(crate) const ZERO: Self = Self([[0; 8]; 8]);
}

/// Eight elements, one per lane.
#[derive(Clone, Copy)]
pub(crate) struct Lanes([__m512i; 8]);

#[inline]
#[target_feature(enable = "avx512f")]
fn set1(value: u64) -> __m512i {
    _mm512_set1_epi64(value.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load8(words: &[u64; 8]) -> __m512i {
    // SAFETY: the reference is to 64 readable bytes, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store8(words: &mut [u64; 8], value: __m512i) {
    // SAFETY: the reference is to 64 writable bytes, and the store needs no alignment.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), value) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load6(words: &Words) -> __m512i {
    // SAFETY: the mask selects the six words that the reference is to; masked-out words are not
    // touched.
    unsafe { _mm512_maskz_loadu_epi64(0x3f, words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store6(words: &mut Words, value: __m512i) {
    // SAFETY: the mask selects the six words that the reference is to; masked-out words are not
    // touched.
    unsafe { _mm512_mask_storeu_epi64(words.as_mut_ptr().cast(), 0x3f, value) }
}

/// Asks for the cache lines of a value of at most 192 bytes that is needed soon.
#[inline]
pub(crate) fn prefetch<T>(value: &T) {
    // Points of G1, aligned to 32, have two lines, those of G2 three or four.
    let size = size_of::<T>();
    let offsets = if size <= 96 { [0, size - 1, size - 1] } else { [0, size / 2, size - 1] };
    for offset in offsets {
        let at = std::ptr::from_ref(value).cast::<i8>().wrapping_add(offset);
        // SAFETY: a prefetch of any address, mapped or not, has no effect but on the caches.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
    }
}

/// Rows to columns and back.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(r: [__m512i; 8]) -> [__m512i; 8] {
    let mut pairs = [_mm512_setzero_si512(); 8];
    for i in 0..4 {
        pairs[2 * i] = _mm512_unpacklo_epi64(r[2 * i], r[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi64(r[2 * i], r[2 * i + 1]);
    }
    // pairs[2i + c]: lanes (0, 2, 4, 6) + c of rows 2i and 2i + 1.
    let mut out = [_mm512_setzero_si512(); 8];
    for c in 0..2 {
        let (p0, p1, p2, p3) = (pairs[c], pairs[2 + c], pairs[4 + c], pairs[6 + c]);
        // The even and the odd 128-bit parts of two pairs.
        let e01 = _mm512_shuffle_i64x2::<0b10_00_10_00>(p0, p1);
        let o01 = _mm512_shuffle_i64x2::<0b11_01_11_01>(p0, p1);
        let e23 = _mm512_shuffle_i64x2::<0b10_00_10_00>(p2, p3);
        let o23 = _mm512_shuffle_i64x2::<0b11_01_11_01>(p2, p3);
        out[c] = _mm512_shuffle_i64x2::<0b10_00_10_00>(e01, e23);
        out[c + 2] = _mm512_shuffle_i64x2::<0b10_00_10_00>(o01, o23);
        out[c + 4] = _mm512_shuffle_i64x2::<0b11_01_11_01>(e01, e23);
        out[c + 6] = _mm512_shuffle_i64x2::<0b11_01_11_01>(o01, o23);
    }
    out
}

impl Lanes {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn zero() -> Self {
        Self([_mm512_setzero_si512(); 8])
    }

    /// The same element in all lanes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn splat(words: &Words) -> Self {
        Self(limbs(words).map(|limb| set1(limb)))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn load(stored: &Stored) -> Self {
        let mut out = Self::zero();
        for (limb, words) in out.0.iter_mut().zip(&stored.0) {
            *limb = load8(words);
        }
        out
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn store(&self, stored: &mut Stored) {
        for (limb, words) in self.0.iter().zip(&mut stored.0) {
            store8(words, *limb);
        }
    }

    /// One element from each of eight places.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn gather(rows: [&Words; 8]) -> Self {
        let mut r = [_mm512_setzero_si512(); 8];
        for (row, words) in r.iter_mut().zip(rows) {
            *row = load6(words);
        }
        Self::of_words(transpose(r))
    }

    /// From vectors of 64-bit words.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn of_words(w: [__m512i; 8]) -> Self {
        let mask = set1(MASK);
        let and = |value| _mm512_and_si512(value, mask);
        let across = |low, high| and(_mm512_or_si512(low, high));
        Self([
            and(w[0]),
            across(_mm512_srli_epi64::<52>(w[0]), _mm512_slli_epi64::<12>(w[1])),
            across(_mm512_srli_epi64::<40>(w[1]), _mm512_slli_epi64::<24>(w[2])),
            across(_mm512_srli_epi64::<28>(w[2]), _mm512_slli_epi64::<36>(w[3])),
            across(_mm512_srli_epi64::<16>(w[3]), _mm512_slli_epi64::<48>(w[4])),
            and(_mm512_srli_epi64::<4>(w[4])),
            across(_mm512_srli_epi64::<56>(w[4]), _mm512_slli_epi64::<8>(w[5])),
            _mm512_srli_epi64::<44>(w[5]),
        ])
    }

    /// Words of elements below 2^384, as rows: lane `i` is row `i`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn rows(&self) -> [__m512i; 8] {
        let t = &self.0;
        let zero = _mm512_setzero_si512();
        let mut w = [zero; 8];
        w[0] = _mm512_or_si512(t[0], _mm512_slli_epi64::<52>(t[1]));
        w[1] = _mm512_or_si512(_mm512_srli_epi64::<12>(t[1]), _mm512_slli_epi64::<40>(t[2]));
        w[2] = _mm512_or_si512(_mm512_srli_epi64::<24>(t[2]), _mm512_slli_epi64::<28>(t[3]));
        w[3] = _mm512_or_si512(_mm512_srli_epi64::<36>(t[3]), _mm512_slli_epi64::<16>(t[4]));
        let five = _mm512_slli_epi64::<4>(t[5]);
        w[4] = _mm512_or_si512(_mm512_srli_epi64::<48>(t[4]), five);
        w[4] = _mm512_or_si512(w[4], _mm512_slli_epi64::<56>(t[6]));
        w[5] = _mm512_or_si512(_mm512_srli_epi64::<8>(t[6]), _mm512_slli_epi64::<44>(t[7]));
        transpose(w)
    }

    /// Writes each lane, an element below 2^384, to its place.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn scatter(&self, places: [&mut Words; 8]) {
        for (place, row) in places.into_iter().zip(self.rows()) {
            store6(place, row);
        }
    }

    /// The lanes one by one, canonical if they are below 2p.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn to_words(self) -> [Words; 8] {
        let mut out = [[0; 6]; 8];
        self.scatter(out.each_mut());
        out.map(|words| below_p(&words))
    }

    /// The product: below 1.001 p for factors below 2^10 p.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(crate) fn mul(&self, other: &Self) -> Self {
        let (a, b) = (&self.0, &other.0);
        let zero = _mm512_setzero_si512();
        let inverse = set1(P_INVERSE);
        let mut t = [zero; 9];
        for b in b {
            for j in 0..8 {
                t[j] = _mm512_madd52lo_epu64(t[j], a[j], *b);
            }
            let q = _mm512_madd52lo_epu64(zero, t[0], inverse);
            for j in 0..8 {
                t[j] = _mm512_madd52lo_epu64(t[j], q, set1(P_LIMBS[j]));
            }
            let carry = _mm512_srli_epi64::<BITS>(t[0]);
            for j in 0..8 {
                t[j] = _mm512_madd52hi_epu64(t[j + 1], a[j], *b);
            }
            for j in 0..8 {
                t[j] = _mm512_madd52hi_epu64(t[j], q, set1(P_LIMBS[j]));
            }
            t[0] = _mm512_add_epi64(t[0], carry);
        }
        let mut out = [zero; 8];
        out.copy_from_slice(&t[..8]);
        Self::carried(out)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(crate) fn sqr(&self) -> Self {
        self.mul(self)
    }

    /// Brings limbs, which may be negative while the whole is not, below 2^52.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn carried(mut t: [__m512i; 8]) -> Self {
        let mask = set1(MASK);
        for i in 0..7 {
            let carry = _mm512_srai_epi64::<BITS>(t[i]);
            t[i] = _mm512_and_si512(t[i], mask);
            t[i + 1] = _mm512_add_epi64(t[i + 1], carry);
        }
        Self(t)
    }

    /// Takes multiples of p away until less than 1.001 p is left, from a value of at most 7 p
    /// whose limbs may be negative.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn reduced(mut t: [__m512i; 8]) -> Self {
        let zero = _mm512_setzero_si512();
        // Without the carries from below, the top limb is wrong by 4 at most.
        let top = _mm512_sub_epi64(t[7], set1(4));
        let is_negative = _mm512_srai_epi64::<63>(top);
        let top = _mm512_andnot_si512(is_negative, top);
        let quotient = _mm512_madd52hi_epu64(zero, top, set1(TOP_RECIPROCAL));
        for (limb, multiples) in t.iter_mut().zip(&MULTIPLES) {
            *limb = _mm512_sub_epi64(*limb, _mm512_permutexvar_epi64(quotient, load8(multiples)));
        }
        Self::carried(t)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn plus_raw(&self, other: &[__m512i; 8]) -> [__m512i; 8] {
        let mut out = self.0;
        for (limb, other) in out.iter_mut().zip(other) {
            *limb = _mm512_add_epi64(*limb, *other);
        }
        out
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn minus_raw(&self, other: &[__m512i; 8], plus: &[u64; 8]) -> [__m512i; 8] {
        let mut out = self.0;
        for ((limb, other), plus) in out.iter_mut().zip(other).zip(plus) {
            *limb = _mm512_add_epi64(_mm512_sub_epi64(*limb, *other), set1(*plus));
        }
        out
    }

    /// The sum, not reduced.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn add(&self, other: &Self) -> Self {
        Self::carried(self.plus_raw(&other.0))
    }

    /// The difference plus 2 p, for a subtrahend below 2 p.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn sub(&self, other: &Self) -> Self {
        Self::carried(self.minus_raw(&other.0, &TWO_P))
    }

    /// The difference, below 1.001 p, of elements below 1.001 p.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(crate) fn sub_reduced(&self, other: &Self) -> Self {
        Self::reduced(self.minus_raw(&other.0, &TWO_P))
    }

    /// `self - a - b`, below 1.001 p, of elements of which each is below 1.001 p.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(crate) fn sub_two_reduced(&self, a: &Self, b: &Self) -> Self {
        Self::reduced(self.minus_raw(&a.plus_raw(&b.0), &FOUR_P))
    }

    /// The sum, below 1.001 p, of elements whose sum is at most 7 p.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(crate) fn add_reduced(&self, other: &Self) -> Self {
        Self::reduced(self.plus_raw(&other.0))
    }

    /// The negative (below 2 p) in the lanes of `mask`, of elements below 1.001 p.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn negated_where(&self, mask: __mmask8) -> Self {
        let negative = Self::zero().sub(self);
        self.or_where(mask, &negative)
    }

    /// `other` in the lanes of `mask`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn or_where(&self, mask: __mmask8, other: &Self) -> Self {
        let mut out = self.0;
        for (limb, other) in out.iter_mut().zip(&other.0) {
            *limb = _mm512_mask_blend_epi64(mask, *limb, *other);
        }
        Self(out)
    }

    /// The lanes whose limbs are all zero.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn all_bits_zero(&self) -> __mmask8 {
        let mut any = self.0[0];
        for limb in &self.0[1..] {
            any = _mm512_or_si512(any, *limb);
        }
        _mm512_cmpeq_epi64_mask(any, _mm512_setzero_si512())
    }

    /// The lanes that are zero modulo p, of elements below 4 p.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn is_zero(&self) -> __mmask8 {
        let mut mask = self.all_bits_zero();
        for factor in 1..4 {
            let mut same = 0xff;
            for (limb, multiple) in self.0.iter().zip(times_p(factor)) {
                same &= _mm512_cmpeq_epi64_mask(*limb, set1(multiple));
            }
            mask |= same;
        }
        mask
    }

    /// Lane `i` from lane `i ^ DISTANCE`, for distances 1, 2 and 4.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn exchanged<const DISTANCE: usize>(&self) -> Self {
        Self(self.0.map(|limb| match DISTANCE {
            1 => _mm512_permutex_epi64::<0b10_11_00_01>(limb),
            2 => _mm512_permutex_epi64::<0b01_00_11_10>(limb),
            _ => _mm512_shuffle_i64x2::<0b01_00_11_10>(limb, limb),
        }))
    }
}
