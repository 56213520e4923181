//! Eight streams in the lanes of a 256-bit vector, twice.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_or_si256, _mm256_set1_epi32, _mm256_setr_epi32,
    _mm256_setzero_si256, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_si256,
    _mm256_xor_si256,
};

use super::{BLOCK, CONSTANTS, DOUBLE_ROUNDS, SECOND, StreamWords};

/// Lanes of a vector.
const LANES: usize = 8;

/// Proof that this processor has AVX2; only [`Proof::detect`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proof(());

impl Proof {
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    #[inline]
    pub(super) fn streams(self, seed: &[u32; 7], first: u32, words: &mut StreamWords) {
        // SAFETY: `streams` needs avx2; `self` exists only if `detect` saw it.
        unsafe { streams(seed, first, words) }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(words: &mut [u32; LANES], value: __m256i) {
    // SAFETY: the reference is to 32 writable bytes, and the store needs no alignment.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), value) }
}

#[target_feature(enable = "avx2")]
fn streams(seed: &[u32; 7], first: u32, words: &mut StreamWords) {
    let mut last = _mm256_add_epi32(
        _mm256_set1_epi32(first.cast_signed()),
        _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
    );
    for half in 0..super::STREAMS / LANES {
        let (one, two) = words.split_at_mut(BLOCK);
        for (words, value) in one.iter_mut().zip(block(seed, last, 0)) {
            store(&mut words.as_chunks_mut().0[half], value);
        }
        for (words, value) in two.iter_mut().zip(block(seed, last, 1).into_iter().take(SECOND)) {
            store(&mut words.as_chunks_mut().0[half], value);
        }
        last = _mm256_add_epi32(last, _mm256_set1_epi32(8));
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn block(seed: &[u32; 7], last: __m256i, counter: u32) -> [__m256i; BLOCK] {
    let mut start = [_mm256_setzero_si256(); BLOCK];
    for (word, value) in start.iter_mut().zip(CONSTANTS.iter().chain(seed)) {
        *word = _mm256_set1_epi32(value.cast_signed());
    }
    start[11] = last;
    start[12] = _mm256_set1_epi32(counter.cast_signed());

    let mut s = start;
    for _ in 0..DOUBLE_ROUNDS {
        quarter_round(&mut s, 0, 4, 8, 12);
        quarter_round(&mut s, 1, 5, 9, 13);
        quarter_round(&mut s, 2, 6, 10, 14);
        quarter_round(&mut s, 3, 7, 11, 15);
        quarter_round(&mut s, 0, 5, 10, 15);
        quarter_round(&mut s, 1, 6, 11, 12);
        quarter_round(&mut s, 2, 7, 8, 13);
        quarter_round(&mut s, 3, 4, 9, 14);
    }
    for (word, start) in s.iter_mut().zip(start) {
        *word = _mm256_add_epi32(*word, start);
    }
    s
}

#[inline]
#[target_feature(enable = "avx2")]
fn quarter_round(s: &mut [__m256i; BLOCK], a: usize, b: usize, c: usize, d: usize) {
    s[a] = _mm256_add_epi32(s[a], s[b]);
    s[d] = rotate_left::<16, 16>(_mm256_xor_si256(s[d], s[a]));
    s[c] = _mm256_add_epi32(s[c], s[d]);
    s[b] = rotate_left::<12, 20>(_mm256_xor_si256(s[b], s[c]));
    s[a] = _mm256_add_epi32(s[a], s[b]);
    s[d] = rotate_left::<8, 24>(_mm256_xor_si256(s[d], s[a]));
    s[c] = _mm256_add_epi32(s[c], s[d]);
    s[b] = rotate_left::<7, 25>(_mm256_xor_si256(s[b], s[c]));
}

/// Rotates by `LEFT`; `RIGHT` is the rest of the 32 bits. The compiler makes a byte shuffle of
/// the rotations by whole bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn rotate_left<const LEFT: i32, const RIGHT: i32>(value: __m256i) -> __m256i {
    const { assert!(LEFT + RIGHT == 32) };
    _mm256_or_si256(_mm256_slli_epi32::<LEFT>(value), _mm256_srli_epi32::<RIGHT>(value))
}
