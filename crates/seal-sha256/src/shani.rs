//! The compression function with the SHA extensions of x86-64.
//!
//! `sha256rnds2` does two rounds on a state kept as (a, b, e, f) and (c, d, g, h);
//! `sha256msg1` and `sha256msg2` extend the schedule by four words. Register layout and
//! instruction semantics: Intel SDM, volume 2, "SHA256RNDS2".

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_loadu_si128, _mm_set_epi8,
    _mm_set1_epi32, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32,
    _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_storeu_si128,
};

use crate::chain::{CHAIN, Prepared};
use crate::kernel::{CUT, PADDING_OF_64};
use crate::label::ALL_PARENTS;
use crate::portable::{self, K};
use crate::{INITIAL_STATE, State, digest_of};

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

    #[inline]
    pub(crate) fn compress_halves(self, state: &mut State, left: &[u8; 32], right: &[u8; 32]) {
        // SAFETY: `compress_halves` needs sha, ssse3 and sse4.1; `self` exists only if `detect`
        // saw all three.
        unsafe { compress_halves(state, left, right) }
    }

    #[inline]
    pub(crate) fn chain_from<const PARENTS: usize, const LANES: usize>(
        self,
        first: usize,
        states: &mut [State; LANES],
        prepared: [&Prepared; LANES],
    ) {
        // SAFETY: `chain_from` needs sha, ssse3 and sse4.1; `self` exists only if `detect` saw all
        // three.
        unsafe { chain_from::<PARENTS, LANES>(first, states, prepared) }
    }

    #[inline]
    pub(crate) fn compress_pair(self, states: &mut [State; 2], blocks: [&[[u8; 64]]; 2]) {
        // SAFETY: `compress_pair` needs sha, ssse3 and sse4.1; `self` exists only if `detect` saw
        // all three.
        unsafe { compress_pair(states, blocks) }
    }

    #[inline]
    pub(crate) fn two_to_one_row(self, pairs: &[[[u8; 32]; 2]], parents: &mut [[u8; 32]]) {
        // SAFETY: `two_to_one_row` needs sha, ssse3 and sse4.1; `self` exists only if `detect` saw
        // all three.
        unsafe { two_to_one_row(pairs, parents) }
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

/// A state in the order of the round instruction.
#[derive(Clone, Copy)]
struct Packed {
    abef: __m128i,
    cdgh: __m128i,
}

#[inline]
#[target_feature(enable = "ssse3,sse4.1")]
fn pack(state: &State) -> Packed {
    let ([low, high], []) = state.as_chunks::<4>() else { unreachable!("eight words") };
    // (d, c, b, a) and (h, g, f, e) to (f, e, b, a) and (h, g, d, c), highest word first.
    let badc = _mm_shuffle_epi32::<0xb1>(load_words(low));
    let hgfe = _mm_shuffle_epi32::<0x1b>(load_words(high));
    Packed { abef: _mm_alignr_epi8::<8>(badc, hgfe), cdgh: _mm_blend_epi16::<0xf0>(hgfe, badc) }
}

#[inline]
#[target_feature(enable = "ssse3,sse4.1")]
fn unpack(packed: Packed, state: &mut State) {
    let ([low, high], []) = state.as_chunks_mut::<4>() else { unreachable!("eight words") };
    let feba = _mm_shuffle_epi32::<0x1b>(packed.abef);
    let dchg = _mm_shuffle_epi32::<0xb1>(packed.cdgh);
    store_words(low, _mm_blend_epi16::<0xf0>(feba, dchg));
    store_words(high, _mm_alignr_epi8::<8>(dchg, feba));
}

#[inline]
#[target_feature(enable = "ssse3")]
fn load_big_endian(bytes: &[u8; 16]) -> __m128i {
    let reversed = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    _mm_shuffle_epi8(load(bytes), reversed)
}

/// The schedule of a block with the round constants added: what the rounds take.
type Sums = [__m128i; 16];

/// One block of each lane: rounds of the lanes in turn, so that one lane's instructions fill the
/// other's waiting. The sums are kept for when the block comes again.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn rounds<const LANES: usize>(
    states: &mut [Packed; LANES],
    blocks: [[&[u8; 16]; 4]; LANES],
    sums: &mut [Sums; LANES],
) {
    let before = *states;
    let mut w = [[before[0].abef; 4]; LANES];
    for lane in 0..LANES {
        for i in 0..4 {
            w[lane][i] = load_big_endian(blocks[lane][i]);
        }
    }
    for group in 0..16 {
        for lane in 0..LANES {
            let words = &mut w[lane];
            let sum = _mm_add_epi32(words[group % 4], load_words(&K4[group]));
            sums[lane][group] = sum;
            four_rounds(&mut states[lane], sum);
            if group < 12 {
                // w[t] for the next four t: w[t-16] + s0(w[t-15]) + w[t-7] + s1(w[t-2]).
                let [next, after, last] = [1, 2, 3].map(|i| words[(group + i) % 4]);
                let partial = _mm_add_epi32(
                    _mm_sha256msg1_epu32(words[group % 4], next),
                    _mm_alignr_epi8::<4>(last, after),
                );
                words[group % 4] = _mm_sha256msg2_epu32(partial, last);
            }
        }
    }
    add(states, &before);
}

/// One block of each lane again: its sums are known, so only the rounds are left.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn rounds_again<const LANES: usize>(states: &mut [Packed; LANES], sums: &[Sums; LANES]) {
    let before = *states;
    for group in 0..16 {
        for (state, sums) in states.iter_mut().zip(sums) {
            four_rounds(state, sums[group]);
        }
    }
    add(states, &before);
}

#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn four_rounds(state: &mut Packed, sum: __m128i) {
    state.cdgh = _mm_sha256rnds2_epu32(state.cdgh, state.abef, sum);
    state.abef = _mm_sha256rnds2_epu32(state.abef, state.cdgh, _mm_shuffle_epi32::<0x0e>(sum));
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn add<const LANES: usize>(states: &mut [Packed; LANES], before: &[Packed; LANES]) {
    for lane in 0..LANES {
        states[lane].abef = _mm_add_epi32(states[lane].abef, before[lane].abef);
        states[lane].cdgh = _mm_add_epi32(states[lane].cdgh, before[lane].cdgh);
    }
}

#[inline]
fn quarters<'a>(left: &'a [u8; 32], right: &'a [u8; 32]) -> [&'a [u8; 16]; 4] {
    let ([a, b], []) = left.as_chunks::<16>() else { unreachable!("two halves") };
    let ([c, d], []) = right.as_chunks::<16>() else { unreachable!("two halves") };
    [a, b, c, d]
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn compress(state: &mut State, blocks: &[[u8; 64]]) {
    let mut packed = [pack(state)];
    for block in blocks {
        let ([left, right], []) = block.as_chunks::<32>() else { unreachable!("two halves") };
        rounds(&mut packed, [quarters(left, right)], &mut no_sums());
    }
    unpack(packed[0], state);
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn compress_pair(states: &mut [State; 2], blocks: [&[[u8; 64]]; 2]) {
    let mut packed = [pack(&states[0]), pack(&states[1])];
    for (one, other) in blocks[0].iter().zip(blocks[1]) {
        let quarters = [one, other].map(|block| {
            let ([left, right], []) = block.as_chunks::<32>() else { unreachable!("two halves") };
            quarters(left, right)
        });
        rounds(&mut packed, quarters, &mut no_sums());
    }
    for (packed, state) in packed.into_iter().zip(states) {
        unpack(packed, state);
    }
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn compress_halves(state: &mut State, left: &[u8; 32], right: &[u8; 32]) {
    let mut packed = [pack(state)];
    rounds(&mut packed, [quarters(left, right)], &mut no_sums());
    unpack(packed[0], state);
}

#[inline]
#[target_feature(enable = "sse2")]
fn no_sums<const LANES: usize>() -> [Sums; LANES] {
    [[_mm_set1_epi32(0); 16]; LANES]
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn chain_from<const PARENTS: usize, const LANES: usize>(
    first: usize,
    states: &mut [State; LANES],
    prepared: [&Prepared; LANES],
) {
    let mut packed = [Packed { abef: _mm_set1_epi32(0), cdgh: _mm_set1_epi32(0) }; LANES];
    for lane in 0..LANES {
        packed[lane] = pack(&states[lane]);
    }
    // Blocks come again after all parents have had their turn: only 8 (layer 1: 4) of the 19
    // schedules are different.
    let turn = PARENTS / 2;
    let mut sums = [no_sums::<LANES>(); ALL_PARENTS / 2 + 1];
    for block in first..CHAIN {
        let known = block != CHAIN - 1 && block >= first + turn;
        if known {
            rounds_again(&mut packed, &sums[block % turn]);
            continue;
        }
        let mut blocks = [[&[0_u8; 16]; 4]; LANES];
        for lane in 0..LANES {
            let (left, right) = prepared[lane].halves::<PARENTS>(block);
            blocks[lane] = quarters(left, right);
        }
        let place = if block == CHAIN - 1 { ALL_PARENTS / 2 } else { block % turn };
        rounds(&mut packed, blocks, &mut sums[place]);
    }
    for lane in 0..LANES {
        unpack(packed[lane], &mut states[lane]);
    }
}

/// What the rounds take of the padding of 64 bytes: always the same.
static PADDING_SUMS: [[u32; 4]; 16] = portable::sums(&PADDING_OF_64);

/// Nodes of tree D that are hashed side by side. One waits for the latency of the round
/// instruction; more than these want more registers than there are.
const ROW_LANES: usize = 2;

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn two_to_one_row(pairs: &[[[u8; 32]; 2]], parents: &mut [[u8; 32]]) {
    let (groups, last) = pairs.as_chunks::<ROW_LANES>();
    let (group_parents, last_parents) = parents.as_chunks_mut::<ROW_LANES>();
    for (group, parents) in groups.iter().zip(group_parents) {
        two_to_one(group, parents);
    }
    for (pair, parent) in last.iter().zip(last_parents) {
        two_to_one::<1>(std::array::from_ref(pair), std::array::from_mut(parent));
    }
}

#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn two_to_one<const LANES: usize>(pairs: &[[[u8; 32]; 2]; LANES], parents: &mut [[u8; 32]; LANES]) {
    let mut packed = [pack(&INITIAL_STATE); LANES];
    let blocks = std::array::from_fn(|lane| quarters(&pairs[lane][0], &pairs[lane][1]));
    rounds(&mut packed, blocks, &mut no_sums());
    let before = packed;
    for sums in &PADDING_SUMS {
        for state in &mut packed {
            four_rounds(state, load_words(sums));
        }
    }
    add(&mut packed, &before);
    for (packed, parent) in packed.into_iter().zip(parents) {
        let mut state = INITIAL_STATE;
        unpack(packed, &mut state);
        *parent = digest_of(&state);
        parent[31] &= CUT;
    }
}
