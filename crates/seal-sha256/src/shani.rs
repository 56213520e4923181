//! The compression function with the SHA extensions of x86-64.
//!
//! `sha256rnds2` does two rounds on a state kept as (a, b, e, f) and (c, d, g, h);
//! `sha256msg1` and `sha256msg2` extend the schedule by four words. Register layout and
//! instruction semantics: Intel SDM, volume 2, "SHA256RNDS2".

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_and_si128, _mm_blend_epi16, _mm_loadu_si128,
    _mm_set_epi8, _mm_set_epi32, _mm_set1_epi32, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32,
    _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_storeu_si128,
};

use crate::chain::{CHAIN, Prepared, Run};
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
    pub(crate) fn run_chain<const PARENTS: usize, const LANES: usize>(
        self,
        run: &mut impl Run<LANES>,
    ) {
        // SAFETY: `run_chain` needs sha, ssse3 and sse4.1; `self` exists only if `detect` saw all
        // three.
        unsafe { run_chain::<PARENTS, LANES>(run) }
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
fn store(bytes: &mut [u8; 16], value: __m128i) {
    // SAFETY: the reference is to 16 writable bytes, and the store needs no alignment.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), value) }
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

/// The words in their order, the first one lowest.
#[inline]
#[target_feature(enable = "ssse3,sse4.1")]
fn words(packed: Packed) -> [__m128i; 2] {
    let feba = _mm_shuffle_epi32::<0x1b>(packed.abef);
    let dchg = _mm_shuffle_epi32::<0xb1>(packed.cdgh);
    [_mm_blend_epi16::<0xf0>(feba, dchg), _mm_alignr_epi8::<8>(dchg, feba)]
}

#[inline]
#[target_feature(enable = "ssse3,sse4.1")]
fn unpack(packed: Packed, state: &mut State) {
    let ([low, high], []) = state.as_chunks_mut::<4>() else { unreachable!("eight words") };
    let [abcd, efgh] = words(packed);
    store_words(low, abcd);
    store_words(high, efgh);
}

/// The digest, cut to 254 bits: it goes from the state to the label in registers, since the next
/// label waits for it.
#[inline]
#[target_feature(enable = "ssse3,sse4.1")]
fn label(packed: Packed) -> [u8; 32] {
    let mut label = [0; 32];
    let ([low, high], []) = label.as_chunks_mut::<16>() else { unreachable!("two halves") };
    let [abcd, efgh] = words(packed);
    store(low, _mm_shuffle_epi8(abcd, big_endian()));
    // The last byte is the lowest of the last word.
    let kept = _mm_set_epi32(!0xc0, -1, -1, -1);
    store(high, _mm_shuffle_epi8(_mm_and_si128(efgh, kept), big_endian()));
    label
}

#[inline]
#[target_feature(enable = "ssse3")]
fn load_big_endian(bytes: &[u8; 16]) -> __m128i {
    _mm_shuffle_epi8(load(bytes), big_endian())
}

/// The shuffle that turns each word around.
#[inline]
#[target_feature(enable = "sse2")]
fn big_endian() -> __m128i {
    _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3)
}

/// The schedule of a block with the round constants added, as the rounds take it: of every four
/// words all, and then the upper two in the lower half.
type Sums = [[[u32; 4]; 2]; 16];

/// Does the same for each group of four rounds, with the group a constant: the schedule stays in
/// registers only without a loop, and compilers leave loops of this size alone.
macro_rules! for_each_group {
    ($group:ident $body:block) => {
        for_each_group!($group $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    ($group:ident $body:block $($number:literal)*) => {
        $({
            let $group: usize = $number;
            $body
        })*
    };
}

/// One block of each lane: rounds of the lanes in turn, so that one lane's instructions fill the
/// other's waiting. `keep` takes lane, group and sums, for when the block comes again.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn rounds<const LANES: usize>(
    states: &mut [Packed; LANES],
    blocks: [[&[u8; 16]; 4]; LANES],
    mut keep: impl FnMut(usize, usize, [__m128i; 2]),
) {
    let before = *states;
    let mut w = [[before[0].abef; 4]; LANES];
    for lane in 0..LANES {
        for i in 0..4 {
            w[lane][i] = load_big_endian(blocks[lane][i]);
        }
    }
    for_each_group!(group {
        for lane in 0..LANES {
            let words = &mut w[lane];
            let sum = _mm_add_epi32(words[group % 4], load_words(&K4[group]));
            let upper = _mm_shuffle_epi32::<0x0e>(sum);
            keep(lane, group, [sum, upper]);
            four_rounds(&mut states[lane], sum, upper);
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
    });
    add(states, &before);
}

/// One block of each lane again: its sums are known, so only the rounds are left. Nothing but
/// loads goes with them, because shuffles share the round instruction's execution port.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn rounds_again<const LANES: usize>(states: &mut [Packed; LANES], sums: &[Sums; LANES]) {
    let before = *states;
    for_each_group!(group {
        for (state, sums) in states.iter_mut().zip(sums) {
            let [sum, upper] = &sums[group];
            four_rounds(state, load_words(sum), load_words(upper));
        }
    });
    add(states, &before);
}

/// Four rounds: two by the lower half of `low`, two by that of `high`.
#[inline]
#[target_feature(enable = "sha")]
fn four_rounds(state: &mut Packed, low: __m128i, high: __m128i) {
    state.cdgh = _mm_sha256rnds2_epu32(state.cdgh, state.abef, low);
    state.abef = _mm_sha256rnds2_epu32(state.abef, state.cdgh, high);
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

/// A block by itself.
#[inline(never)]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn one_block(packed: Packed, block: [&[u8; 16]; 4]) -> Packed {
    let mut packed = [packed];
    rounds(&mut packed, [block], |_, _, _| ());
    packed[0]
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn compress(state: &mut State, blocks: &[[u8; 64]]) {
    let mut packed = pack(state);
    for block in blocks {
        let ([left, right], []) = block.as_chunks::<32>() else { unreachable!("two halves") };
        packed = one_block(packed, quarters(left, right));
    }
    unpack(packed, state);
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn compress_pair(states: &mut [State; 2], blocks: [&[[u8; 64]]; 2]) {
    let mut packed = [pack(&states[0]), pack(&states[1])];
    for (one, other) in blocks[0].iter().zip(blocks[1]) {
        let quarters = [one, other].map(|block| {
            let ([left, right], []) = block.as_chunks::<32>() else { unreachable!("two halves") };
            quarters(left, right)
        });
        rounds(&mut packed, quarters, |_, _, _| ());
    }
    for (packed, state) in packed.into_iter().zip(states) {
        unpack(packed, state);
    }
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn compress_halves(state: &mut State, left: &[u8; 32], right: &[u8; 32]) {
    unpack(one_block(pack(state), quarters(left, right)), state);
}

/// Where the sums of the last block are, which comes once.
const LAST_SUMS: usize = ALL_PARENTS / 2;

/// Blocks come again after all parents have had their turn: of 14 parents only 8 of the 19
/// schedules are different, of 6 parents 4.
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn run_chain<const PARENTS: usize, const LANES: usize>(run: &mut impl Run<LANES>) {
    let turn = PARENTS / 2;
    let mut sums: [[Sums; LANES]; LAST_SUMS + 1] = [[[[[0; 4]; 2]; 16]; LANES]; LAST_SUMS + 1];
    while run.advance() {
        let prepared = run.prepared();
        let mut packed = [Packed { abef: _mm_set1_epi32(0), cdgh: _mm_set1_epi32(0) }; LANES];
        for lane in 0..LANES {
            packed[lane] = pack(&prepared[lane].state);
        }
        let first = catch_up::<PARENTS, LANES>(&mut packed, prepared);
        for block in first..CHAIN {
            if block >= first + turn && block != CHAIN - 1 {
                rounds_again(&mut packed, &sums[block % turn]);
            } else {
                // The only call, so that it becomes part of the loop and the state stays in
                // registers.
                let place = if block == CHAIN - 1 { LAST_SUMS } else { block % turn };
                let blocks = quarters_of::<PARENTS, LANES>(run.prepared(), block);
                let sums = &mut sums[place];
                rounds(&mut packed, blocks, |lane, group, words| {
                    let [sum, upper] = &mut sums[lane][group];
                    store_words(sum, words[0]);
                    store_words(upper, words[1]);
                });
            }
            run.beside();
        }
        let mut labels = [[0; 32]; LANES];
        for lane in 0..LANES {
            labels[lane] = label(packed[lane]);
        }
        run.done(labels);
    }
}

/// Lanes that are behind catch up alone, so that all go on block by block together. Returns the
/// first block that is left.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn catch_up<const PARENTS: usize, const LANES: usize>(
    packed: &mut [Packed; LANES],
    prepared: [&Prepared; LANES],
) -> usize {
    let ahead = prepared.map(|prepared| usize::from(prepared.ahead));
    let first = ahead.into_iter().max().unwrap_or(0);
    if LANES > 1 {
        for lane in 0..LANES {
            for block in ahead[lane]..first {
                let (left, right) = prepared[lane].halves::<PARENTS>(block);
                packed[lane] = one_block(packed[lane], quarters(left, right));
            }
        }
    }
    first
}

#[inline]
fn quarters_of<const PARENTS: usize, const LANES: usize>(
    prepared: [&Prepared; LANES],
    block: usize,
) -> [[&[u8; 16]; 4]; LANES] {
    prepared.map(|prepared| {
        let (left, right) = prepared.halves::<PARENTS>(block);
        quarters(left, right)
    })
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
    rounds(&mut packed, blocks, |_, _, _| ());
    let before = packed;
    for sums in &PADDING_SUMS {
        for state in &mut packed {
            let sum = load_words(sums);
            four_rounds(state, sum, _mm_shuffle_epi32::<0x0e>(sum));
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
