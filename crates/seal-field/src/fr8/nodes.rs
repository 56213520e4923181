//! Elements as the 32 bytes they have in files, in and out of vectors.

use std::arch::x86_64::{
    __m256i, __m512i, _mm256_loadu_si256, _mm512_add_epi64, _mm512_and_si512,
    _mm512_castsi256_si512, _mm512_cmpeq_epu64_mask, _mm512_cmplt_epi64_mask,
    _mm512_cmplt_epu64_mask, _mm512_inserti64x4, _mm512_mask_blend_epi64, _mm512_or_si512,
    _mm512_permutex2var_epi64, _mm512_setr_epi64, _mm512_setzero_si512, _mm512_shuffle_i64x2,
    _mm512_slli_epi64, _mm512_srai_epi64, _mm512_srli_epi64, _mm512_storeu_si512, _mm512_sub_epi64,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi64,
};

use super::{Fr8, carry, lanes};
use crate::limbs::{LIMB_BITS, LIMBS, Limbs, MASK, MODULUS, MODULUS_WORDS};

/// Elements in a vector.
pub const LANES: usize = 8;

/// Eight numbers of 256 bits: word `i` of all is vector `i`.
///
/// The lanes are in the order that takes the fewest instructions, which only [`load`] and
/// [`Fr8::store`] need to know: nodes 0, 2, 1, 3, 4, 6, 5, 7.
#[derive(Clone, Copy, Debug)]
pub struct Words([__m512i; 4]);

/// Reads eight little-endian numbers.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn load(nodes: [&[u8; 32]; LANES]) -> Words {
    let [a, b, c, d, e, f, g, h] = nodes;
    let (ab, cd, ef, gh) = (load_two(a, b), load_two(c, d), load_two(e, f), load_two(g, h));
    let even_abcd = _mm512_unpacklo_epi64(ab, cd);
    let even_efgh = _mm512_unpacklo_epi64(ef, gh);
    let odd_abcd = _mm512_unpackhi_epi64(ab, cd);
    let odd_efgh = _mm512_unpackhi_epi64(ef, gh);
    Words([
        _mm512_shuffle_i64x2::<0b10_00_10_00>(even_abcd, even_efgh),
        _mm512_shuffle_i64x2::<0b10_00_10_00>(odd_abcd, odd_efgh),
        _mm512_shuffle_i64x2::<0b11_01_11_01>(even_abcd, even_efgh),
        _mm512_shuffle_i64x2::<0b11_01_11_01>(odd_abcd, odd_efgh),
    ])
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_two(low: &[u8; 32], high: &[u8; 32]) -> __m512i {
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(load_one(low)), load_one(high))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_one(node: &[u8; 32]) -> __m256i {
    // SAFETY: the reference is to 32 readable bytes, and the load needs no alignment.
    unsafe { _mm256_loadu_si256(node.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_two(nodes: &mut [u8; 64], value: __m512i) {
    // SAFETY: the reference is to 64 writable bytes, and the store needs no alignment.
    unsafe { _mm512_storeu_si512(nodes.as_mut_ptr().cast(), value) }
}

impl Words {
    /// Whether all numbers are below the modulus.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn are_canonical(&self) -> bool {
        let Self(words) = self;
        let [.., highest] = MODULUS_WORDS;
        // Labels have 254 bits, and of random elements one in 2^63 has the highest word of the
        // modulus: the other words are nearly never asked.
        _mm512_cmplt_epu64_mask(words[3], lanes(highest)) == u8::MAX
            || self.are_below_by_all_words()
    }

    #[cold]
    #[target_feature(enable = "avx512f")]
    fn are_below_by_all_words(&self) -> bool {
        let mut below = 0;
        for (word, modulus) in self.0.into_iter().zip(MODULUS_WORDS) {
            let equal = _mm512_cmpeq_epu64_mask(word, lanes(modulus));
            below = _mm512_cmplt_epu64_mask(word, lanes(modulus)) | equal & below;
        }
        below == u8::MAX
    }

    /// The numbers, which have to be canonical, plus `addend`, which has to be below the modulus.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn plus(&self, addend: &Limbs) -> Fr8 {
        let [a, b, c, d] = self.0;
        let mut limbs = [
            a,
            _mm512_or_si512(_mm512_srli_epi64::<52>(a), _mm512_slli_epi64::<12>(b)),
            _mm512_or_si512(_mm512_srli_epi64::<40>(b), _mm512_slli_epi64::<24>(c)),
            _mm512_or_si512(_mm512_srli_epi64::<28>(c), _mm512_slli_epi64::<36>(d)),
            _mm512_srli_epi64::<16>(d),
        ];
        for i in 0..LIMBS {
            let limb = _mm512_and_si512(limbs[i], lanes(MASK));
            limbs[i] = _mm512_add_epi64(limb, lanes(addend[i]));
            if i > 0 {
                limbs[i] = _mm512_add_epi64(limbs[i], carry(limbs[i - 1]));
            }
        }
        Fr8(limbs)
    }
}

impl Fr8 {
    /// Writes the eight elements as canonical little-endian numbers, in the order in which
    /// [`load`] took them.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn store(&self, nodes: &mut [[u8; 32]; LANES]) {
        let mut limbs = self.0;
        for limb in &mut limbs {
            *limb = _mm512_and_si512(*limb, lanes(MASK));
        }
        // Numbers are below 2^258 and sums of two below 2^259: less than 18 times the modulus.
        for times in [16, 8, 4, 2, 1] {
            limbs = without(limbs, times);
        }
        let [a, b, c, d, e] = limbs;
        let words = [
            _mm512_or_si512(a, _mm512_slli_epi64::<52>(b)),
            _mm512_or_si512(_mm512_srli_epi64::<12>(b), _mm512_slli_epi64::<40>(c)),
            _mm512_or_si512(_mm512_srli_epi64::<24>(c), _mm512_slli_epi64::<28>(d)),
            _mm512_or_si512(_mm512_srli_epi64::<36>(d), _mm512_slli_epi64::<16>(e)),
        ];
        let low =
            [_mm512_unpacklo_epi64(words[0], words[1]), _mm512_unpackhi_epi64(words[0], words[1])];
        let high =
            [_mm512_unpacklo_epi64(words[2], words[3]), _mm512_unpackhi_epi64(words[2], words[3])];
        let first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
        let second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
        let (pairs, []) = nodes.as_flattened_mut().as_chunks_mut::<64>() else {
            unreachable!("four pairs of nodes")
        };
        for (half, index) in [first, second].into_iter().enumerate() {
            for parity in 0..2 {
                let value = _mm512_permutex2var_epi64(low[parity], index, high[parity]);
                store_two(&mut pairs[2 * half + parity], value);
            }
        }
    }
}

/// `limbs` less `times` times the modulus where they are not below it.
#[inline]
#[target_feature(enable = "avx512f")]
fn without(limbs: [__m512i; LIMBS], times: u64) -> [__m512i; LIMBS] {
    let mut less = limbs;
    for i in 0..LIMBS {
        less[i] = _mm512_sub_epi64(limbs[i], lanes(times * MODULUS[i]));
        if i > 0 {
            let borrow = _mm512_srai_epi64::<LIMB_BITS>(less[i - 1]);
            less[i] = _mm512_add_epi64(less[i], borrow);
        }
    }
    let negative = _mm512_cmplt_epi64_mask(less[LIMBS - 1], _mm512_setzero_si512());
    for i in 0..LIMBS {
        let kept = _mm512_and_si512(less[i], lanes(MASK));
        less[i] = _mm512_mask_blend_epi64(negative, kept, limbs[i]);
    }
    less
}
