//! The compression function with the SHA extensions of x86-64.
//!
//! `sha256rnds2` does two rounds on a state kept as (a, b, e, f) and (c, d, g, h);
//! `sha256msg1` and `sha256msg2` extend the schedule by four words. Register layout and
//! instruction semantics: Intel SDM, volume 2, "SHA256RNDS2".

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_loadu_si128, _mm_set_epi8,
    _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8,
    _mm_shuffle_epi32, _mm_storeu_si128,
};

use crate::State;
use crate::portable::K;

/// Proof that this processor has the SHA extensions; only [`Proof::detect`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof(());

impl Proof {
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1");
        has.then_some(Self(()))
    }

    #[inline]
    pub(crate) fn compress(self, state: &mut State, blocks: &[[u8; 64]]) {
        // SAFETY: `compress` needs sha, ssse3 and sse4.1; `self` exists only if `detect` saw all
        // three.
        unsafe { compress(state, blocks) }
    }
}

#[inline]
#[target_feature(enable = "sse2")]
fn load(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: the reference is to 16 readable bytes, and the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn load_words(words: &[u32; 4]) -> __m128i {
    // SAFETY: the reference is to 16 readable bytes, and the load needs no alignment.
    unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn store_words(words: &mut [u32; 4], value: __m128i) {
    // SAFETY: the reference is to 16 writable bytes, and the store needs no alignment.
    unsafe { _mm_storeu_si128(words.as_mut_ptr().cast(), value) }
}

/// The round constants in groups of four, as the rounds take them.
static K4: [[u32; 4]; 16] = {
    let mut groups = [[0; 4]; 16];
    let mut i = 0;
    while i < 64 {
        groups[i / 4][i % 4] = K[i];
        i += 1;
    }
    groups
};

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn compress(state: &mut State, blocks: &[[u8; 64]]) {
    let big_endian = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    let (halves, []) = state.as_chunks_mut::<4>() else { return };
    let [low, high] = halves else { return };

    // (d, c, b, a) and (h, g, f, e) to (f, e, b, a) and (h, g, d, c), highest word first.
    let badc = _mm_shuffle_epi32::<0xb1>(load_words(low));
    let hgfe = _mm_shuffle_epi32::<0x1b>(load_words(high));
    let mut abef = _mm_alignr_epi8::<8>(badc, hgfe);
    let mut cdgh = _mm_blend_epi16::<0xf0>(hgfe, badc);

    for block in blocks {
        let (before_abef, before_cdgh) = (abef, cdgh);
        let (quarters, _) = block.as_chunks::<16>();
        let mut w = [abef; 4];
        for (words, bytes) in w.iter_mut().zip(quarters) {
            *words = _mm_shuffle_epi8(load(bytes), big_endian);
        }
        for group in 0..16 {
            let words = w[group % 4];
            let sum = _mm_add_epi32(words, load_words(&K4[group]));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32::<0x0e>(sum));
            if group < 12 {
                // w[t] for the next four t: w[t-16] + s0(w[t-15]) + w[t-7] + s1(w[t-2]).
                let (next, after, last) =
                    (w[(group + 1) % 4], w[(group + 2) % 4], w[(group + 3) % 4]);
                let partial = _mm_add_epi32(
                    _mm_sha256msg1_epu32(words, next),
                    _mm_alignr_epi8::<4>(last, after),
                );
                w[group % 4] = _mm_sha256msg2_epu32(partial, last);
            }
        }
        abef = _mm_add_epi32(abef, before_abef);
        cdgh = _mm_add_epi32(cdgh, before_cdgh);
    }

    let feba = _mm_shuffle_epi32::<0x1b>(abef);
    let dchg = _mm_shuffle_epi32::<0xb1>(cdgh);
    store_words(low, _mm_blend_epi16::<0xf0>(feba, dchg));
    store_words(high, _mm_alignr_epi8::<8>(dchg, feba));
}
