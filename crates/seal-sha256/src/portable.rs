//! The compression function in plain Rust, close to the text of FIPS 180-4.

use crate::chain::{CALLS_BESIDE, CHAIN, Run};
use crate::kernel::{CUT, PADDING_OF_64};
use crate::label::cut;
use crate::{INITIAL_STATE, State, digest_of};

/// The round constants: fractional parts of the cube roots of the first 64 primes.
pub(crate) const K: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];

pub(crate) fn compress(state: &mut State, blocks: &[[u8; 64]]) {
    for block in blocks {
        compress_one(state, block);
    }
}

pub(crate) fn compress_halves(state: &mut State, left: &[u8; 32], right: &[u8; 32]) {
    let mut block = [0; 64];
    block[..32].copy_from_slice(left);
    block[32..].copy_from_slice(right);
    compress_one(state, &block);
}

pub(crate) fn run_chain<const PARENTS: usize, const LANES: usize>(run: &mut impl Run<LANES>) {
    while run.advance() {
        let labels = run.prepared().map(|prepared| {
            let mut state = prepared.state;
            for block in usize::from(prepared.ahead)..CHAIN {
                let (left, right) = prepared.halves::<PARENTS>(block);
                compress_halves(&mut state, left, right);
            }
            cut(&state)
        });
        (0..CALLS_BESIDE).for_each(|_| run.beside());
        run.done(labels);
    }
}

pub(crate) fn two_to_one_row(pairs: &[[[u8; 32]; 2]], parents: &mut [[u8; 32]]) {
    for (pair, parent) in pairs.iter().zip(parents) {
        let mut state = INITIAL_STATE;
        compress_halves(&mut state, &pair[0], &pair[1]);
        compress_one(&mut state, &PADDING_OF_64);
        *parent = digest_of(&state);
        parent[31] &= CUT;
    }
}

/// The words that the rounds take of a block: its schedule with the round constants added.
#[cfg(target_arch = "x86_64")]
pub(crate) const fn sums(block: &[u8; 64]) -> [[u32; 4]; 16] {
    let mut w = [0_u32; 64];
    let mut t = 0;
    while t < 64 {
        w[t] = if t < 16 {
            u32::from_be_bytes([block[4 * t], block[4 * t + 1], block[4 * t + 2], block[4 * t + 3]])
        } else {
            next_word(&w, t)
        };
        t += 1;
    }
    let mut sums = [[0; 4]; 16];
    let mut t = 0;
    while t < 64 {
        sums[t / 4][t % 4] = w[t].wrapping_add(K[t]);
        t += 1;
    }
    sums
}

/// Word `t` of the schedule from those before it.
const fn next_word(w: &[u32; 64], t: usize) -> u32 {
    let s0 = w[t - 15].rotate_right(7) ^ w[t - 15].rotate_right(18) ^ (w[t - 15] >> 3);
    let s1 = w[t - 2].rotate_right(17) ^ w[t - 2].rotate_right(19) ^ (w[t - 2] >> 10);
    w[t - 16].wrapping_add(s0).wrapping_add(w[t - 7]).wrapping_add(s1)
}

fn compress_one(state: &mut State, block: &[u8; 64]) {
    let mut w = [0_u32; 64];
    for (word, bytes) in w.iter_mut().zip(block.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    for t in 16..64 {
        w[t] = next_word(&w, t);
    }

    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for t in 0..64 {
        let sum1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let choice = (e & f) ^ (!e & g);
        let t1 = h.wrapping_add(sum1).wrapping_add(choice).wrapping_add(K[t]).wrapping_add(w[t]);
        let sum0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let majority = (a & b) ^ (a & c) ^ (b & c);
        let t2 = sum0.wrapping_add(majority);
        h = g;
        g = f;
        f = e;
        e = d.wrapping_add(t1);
        d = c;
        c = b;
        b = a;
        a = t1.wrapping_add(t2);
    }
    for (word, add) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = word.wrapping_add(add);
    }
}
