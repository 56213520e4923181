//! Sixteen streams in the lanes of a 512-bit vector; rotations are one instruction.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_rol_epi32, _mm512_set1_epi32, _mm512_setr_epi32,
    _mm512_setzero_si512, _mm512_storeu_si512, _mm512_xor_si512,
};

use super::{BLOCK, CONSTANTS, DOUBLE_ROUNDS, SECOND, STREAMS, StreamWords};

/// Proof that this processor has AVX-512; only [`Proof::detect`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proof(());

impl Proof {
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }

    #[inline]
    pub(super) fn streams(self, seed: &[u32; 7], first: u32, words: &mut StreamWords) {
        // SAFETY: `streams` needs avx512f; `self` exists only if `detect` saw it.
        unsafe { streams(seed, first, words) }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(words: &mut [u32; STREAMS], value: __m512i) {
    // SAFETY: the reference is to 64 writable bytes, and the store needs no alignment.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), value) }
}

#[target_feature(enable = "avx512f")]
fn streams(seed: &[u32; 7], first: u32, words: &mut StreamWords) {
    let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let last = _mm512_add_epi32(_mm512_set1_epi32(first.cast_signed()), lanes);
    let (one, two) = words.split_at_mut(BLOCK);
    for (words, value) in one.iter_mut().zip(block(seed, last, 0)) {
        store(words, value);
    }
    for (words, value) in two.iter_mut().zip(block(seed, last, 1).into_iter().take(SECOND)) {
        store(words, value);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn block(seed: &[u32; 7], last: __m512i, counter: u32) -> [__m512i; BLOCK] {
    let mut start = [_mm512_setzero_si512(); BLOCK];
    for (word, value) in start.iter_mut().zip(CONSTANTS.iter().chain(seed)) {
        *word = _mm512_set1_epi32(value.cast_signed());
    }
    start[11] = last;
    start[12] = _mm512_set1_epi32(counter.cast_signed());

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
        *word = _mm512_add_epi32(*word, start);
    }
    s
}

#[inline]
#[target_feature(enable = "avx512f")]
fn quarter_round(s: &mut [__m512i; BLOCK], a: usize, b: usize, c: usize, d: usize) {
    s[a] = _mm512_add_epi32(s[a], s[b]);
    s[d] = _mm512_rol_epi32::<16>(_mm512_xor_si512(s[d], s[a]));
    s[c] = _mm512_add_epi32(s[c], s[d]);
    s[b] = _mm512_rol_epi32::<12>(_mm512_xor_si512(s[b], s[c]));
    s[a] = _mm512_add_epi32(s[a], s[b]);
    s[d] = _mm512_rol_epi32::<8>(_mm512_xor_si512(s[d], s[a]));
    s[c] = _mm512_add_epi32(s[c], s[d]);
    s[b] = _mm512_rol_epi32::<7>(_mm512_xor_si512(s[b], s[c]));
}
