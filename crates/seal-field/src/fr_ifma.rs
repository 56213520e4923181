//! The scalar field in the eight lanes of an AVX-512 vector, for transforms.
//!
//! An element is five limbs of 52 bits: 260 bits for a modulus r of 255. Limbs are signed and are
//! carried only where a product needs it, so that a butterfly is a product, a sum and a
//! difference. Values may grow to 32 r before they are multiplied: a Montgomery product
//! (R = 2^260) with a factor below r is below 2 r then. (Poseidon's vectors in `fr8` bound values
//! and limbs in another way, by sums of products.)

use std::arch::x86_64::{
    __m256i, __m512i, _mm256_loadu_si256, _mm256_storeu_si256, _mm512_add_epi64, _mm512_and_si512,
    _mm512_castsi256_si512, _mm512_castsi512_si256, _mm512_cmplt_epi64_mask,
    _mm512_extracti64x4_epi64, _mm512_inserti64x4, _mm512_loadu_si512, _mm512_madd52hi_epu64,
    _mm512_madd52lo_epu64, _mm512_mask_blend_epi64, _mm512_or_si512, _mm512_set1_epi64,
    _mm512_setzero_si512, _mm512_shuffle_i64x2, _mm512_slli_epi64, _mm512_srai_epi64,
    _mm512_srli_epi64, _mm512_storeu_si512, _mm512_sub_epi64, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi64,
};

/// An element in memory: four little-endian words, below 2^256.
pub(crate) type Words = [u64; 4];

/// The modulus r.
pub(crate) const MODULUS: Words =
    [0xffff_ffff_0000_0001, 0x53bd_a402_fffe_5bfe, 0x3339_d808_09a1_d805, 0x73ed_a753_299d_7d48];

const BITS: u32 = 52;
const MASK: u64 = (1 << BITS) - 1;

/// An element in limbs, for constants that all lanes share.
pub(crate) type Limbs = [u64; 5];

/// Splits words into limbs.
pub(crate) const fn limbs(w: &Words) -> Limbs {
    [
        w[0] & MASK,
        (w[0] >> 52 | w[1] << 12) & MASK,
        (w[1] >> 40 | w[2] << 24) & MASK,
        (w[2] >> 28 | w[3] << 36) & MASK,
        w[3] >> 16,
    ]
}

const fn times_r(factor: u64) -> Limbs {
    let r = limbs(&MODULUS);
    let mut out = [0; 5];
    let mut carry = 0;
    let mut i = 0;
    while i < 5 {
        let sum = r[i] as u128 * factor as u128 + carry;
        out[i] = (sum as u64) & MASK;
        carry = sum >> BITS;
        i += 1;
    }
    out
}

const R: Limbs = limbs(&MODULUS);

/// `-1/r` modulo 2^52.
const R_INVERSE: u64 = {
    let mut inverse: u64 = 1;
    let mut i = 0;
    while i < 6 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(MODULUS[0].wrapping_mul(inverse)));
        i += 1;
    }
    inverse.wrapping_neg() & MASK
};

/// 2^52 over the top limb of r shortened by 8 bits, rounded down with one to spare.
const TOP_RECIPROCAL: u64 = (1 << BITS) / ((R[4] >> 8) + 1);

/// Eight elements in memory, limb by limb.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Stored([[u64; 8]; 5]);

impl Stored {
    pub(crate) const ZERO: Self = Self([[0; 8]; 5]);
}

/// Eight elements, one per lane.
#[derive(Clone, Copy)]
pub(crate) struct Lanes([__m512i; 5]);

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
fn load4(words: &Words) -> __m256i {
    // SAFETY: the reference is to 32 readable bytes, and the load needs no alignment.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store4(words: &mut Words, value: __m256i) {
    // SAFETY: the reference is to 32 writable bytes, and the store needs no alignment.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), value) }
}

/// From four vectors with two elements each to one vector for each word, and back: vector `v`
/// holds the words of elements `2v` and `2v + 1`.
#[inline]
#[target_feature(enable = "avx512f")]
fn words_of_rows(rows: [__m512i; 4]) -> [__m512i; 4] {
    // 128-bit parts: (element 0 words 01, element 0 words 23, element 1 words 01, …).
    let low = |a, b| _mm512_shuffle_i64x2::<0b10_00_10_00>(a, b);
    let high = |a, b| _mm512_shuffle_i64x2::<0b11_01_11_01>(a, b);
    // Words 01 and words 23 of elements 0 to 3, and of elements 4 to 7.
    let (a01, a23) = (low(rows[0], rows[1]), high(rows[0], rows[1]));
    let (b01, b23) = (low(rows[2], rows[3]), high(rows[2], rows[3]));
    // Lane order becomes 0 4 1 5 2 6 3 7, the same in every vector.
    [
        _mm512_unpacklo_epi64(a01, b01),
        _mm512_unpackhi_epi64(a01, b01),
        _mm512_unpacklo_epi64(a23, b23),
        _mm512_unpackhi_epi64(a23, b23),
    ]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn rows_of_words(w: [__m512i; 4]) -> [__m512i; 4] {
    let a01 = _mm512_unpacklo_epi64(w[0], w[1]);
    let b01 = _mm512_unpackhi_epi64(w[0], w[1]);
    let a23 = _mm512_unpacklo_epi64(w[2], w[3]);
    let b23 = _mm512_unpackhi_epi64(w[2], w[3]);
    // Part k of a01 is words 01 of element k, of b01 that of element k + 4.
    let join = |low: __m512i, high: __m512i| {
        let (p, q) = (
            _mm512_shuffle_i64x2::<0b01_00_01_00>(low, high),
            _mm512_shuffle_i64x2::<0b11_10_11_10>(low, high),
        );
        // (low 0, low 1, high 0, high 1) to (low 0, high 0, low 1, high 1).
        (_mm512_shuffle_i64x2::<0b11_01_10_00>(p, p), _mm512_shuffle_i64x2::<0b11_01_10_00>(q, q))
    };
    let ((r0, r1), (r2, r3)) = (join(a01, a23), join(b01, b23));
    [r0, r1, r2, r3]
}

impl Lanes {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn splat(limbs: &Limbs) -> Self {
        Self([set1(limbs[0]), set1(limbs[1]), set1(limbs[2]), set1(limbs[3]), set1(limbs[4])])
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn load(stored: &Stored) -> Self {
        let mut out = [_mm512_setzero_si512(); 5];
        for (limb, words) in out.iter_mut().zip(&stored.0) {
            *limb = load8(words);
        }
        Self(out)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn store(&self, stored: &mut Stored) {
        for (limb, words) in self.0.iter().zip(&mut stored.0) {
            store8(words, *limb);
        }
    }

    /// Eight elements whatever lane each is in.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn gather(elements: [&Words; 8]) -> Self {
        let mut rows = [_mm512_setzero_si512(); 4];
        for (row, [a, b]) in rows.iter_mut().zip(elements.as_chunks::<2>().0) {
            *row = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(load4(a)), load4(b));
        }
        let w = words_of_rows(rows);
        let mask = set1(MASK);
        let across = |low, high| _mm512_and_si512(_mm512_or_si512(low, high), mask);
        Self([
            _mm512_and_si512(w[0], mask),
            across(_mm512_srli_epi64::<52>(w[0]), _mm512_slli_epi64::<12>(w[1])),
            across(_mm512_srli_epi64::<40>(w[1]), _mm512_slli_epi64::<24>(w[2])),
            across(_mm512_srli_epi64::<28>(w[2]), _mm512_slli_epi64::<36>(w[3])),
            _mm512_srli_epi64::<16>(w[3]),
        ])
    }

    /// Writes eight elements below 2^256, with limbs carried, whatever lane each is in.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn scatter(&self, places: [&mut Words; 8]) {
        let t = &self.0;
        let rows = rows_of_words([
            _mm512_or_si512(t[0], _mm512_slli_epi64::<52>(t[1])),
            _mm512_or_si512(_mm512_srli_epi64::<12>(t[1]), _mm512_slli_epi64::<40>(t[2])),
            _mm512_or_si512(_mm512_srli_epi64::<24>(t[2]), _mm512_slli_epi64::<28>(t[3])),
            _mm512_or_si512(_mm512_srli_epi64::<36>(t[3]), _mm512_slli_epi64::<16>(t[4])),
        ]);
        let mut places = places.into_iter();
        for row in rows {
            if let (Some(a), Some(b)) = (places.next(), places.next()) {
                store4(a, _mm512_castsi512_si256(row));
                store4(b, _mm512_extracti64x4_epi64::<1>(row));
            }
        }
    }

    /// Brings limbs below 2^52; the value must not be negative.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn carried(&self) -> Self {
        let mut t = self.0;
        let mask = set1(MASK);
        for i in 0..4 {
            let carry = _mm512_srai_epi64::<BITS>(t[i]);
            t[i] = _mm512_and_si512(t[i], mask);
            t[i + 1] = _mm512_add_epi64(t[i + 1], carry);
        }
        Self(t)
    }

    /// The product of factors with carried limbs whose product is below 2^260 times `k` r: below
    /// `k + 1` r. Limbs of the product are not carried.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(crate) fn mul(&self, other: &Self) -> Self {
        let (a, b) = (&self.0, &other.0);
        let zero = _mm512_setzero_si512();
        let inverse = set1(R_INVERSE);
        let mut t = [zero; 6];
        for b in b {
            for j in 0..5 {
                t[j] = _mm512_madd52lo_epu64(t[j], a[j], *b);
            }
            let q = _mm512_madd52lo_epu64(zero, t[0], inverse);
            for j in 0..5 {
                t[j] = _mm512_madd52lo_epu64(t[j], q, set1(R[j]));
            }
            let carry = _mm512_srli_epi64::<BITS>(t[0]);
            for j in 0..5 {
                t[j] = _mm512_madd52hi_epu64(t[j + 1], a[j], *b);
            }
            for j in 0..5 {
                t[j] = _mm512_madd52hi_epu64(t[j], q, set1(R[j]));
            }
            t[0] = _mm512_add_epi64(t[0], carry);
        }
        Self([t[0], t[1], t[2], t[3], t[4]])
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn add(&self, other: &Self) -> Self {
        let mut out = self.0;
        for (limb, other) in out.iter_mut().zip(&other.0) {
            *limb = _mm512_add_epi64(*limb, *other);
        }
        Self(out)
    }

    /// The difference plus `K` r, for a subtrahend below that.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn sub<const K: u64>(&self, other: &Self) -> Self {
        let mut out = self.0;
        for ((limb, other), plus) in out.iter_mut().zip(&other.0).zip(times_r(K)) {
            *limb = _mm512_add_epi64(_mm512_sub_epi64(*limb, *other), set1(plus));
        }
        Self(out)
    }

    /// Takes multiples of r away until less than 1.001 r is left, from at most 32 r.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(crate) fn reduced(&self) -> Self {
        let zero = _mm512_setzero_si512();
        let mut t = self.carried().0;
        // Both are below 2^45, and the quotient is 32 at most.
        let quotient =
            _mm512_madd52hi_epu64(zero, _mm512_srli_epi64::<8>(t[4]), set1(TOP_RECIPROCAL));
        for j in 0..5 {
            let low = _mm512_madd52lo_epu64(zero, quotient, set1(R[j]));
            t[j] = _mm512_sub_epi64(t[j], low);
            if j < 4 {
                let high = _mm512_madd52hi_epu64(zero, quotient, set1(R[j]));
                t[j + 1] = _mm512_sub_epi64(t[j + 1], high);
            }
        }
        Self(t).carried()
    }

    /// The element below r that equals one below 2 r.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn canonical(&self) -> Self {
        let mut less = self.0;
        for (limb, r) in less.iter_mut().zip(R) {
            *limb = _mm512_sub_epi64(*limb, set1(r));
        }
        let less = Self(less).carried();
        // Negative where r was not there to be taken away.
        let negative = _mm512_cmplt_epi64_mask(less.0[4], _mm512_setzero_si512());
        let mut out = less.0;
        for (limb, before) in out.iter_mut().zip(&self.0) {
            *limb = _mm512_mask_blend_epi64(negative, *limb, *before);
        }
        Self(out)
    }
}
