//! One stream after the other, close to the text of RFC 8439.

use super::{BLOCK, CONSTANTS, DOUBLE_ROUNDS, SECOND, StreamWords};

pub(super) fn streams(seed: &[u32; 7], first: u32, words: &mut StreamWords) {
    for (lane, last) in (0..super::STREAMS).zip(0..) {
        let last = first.wrapping_add(last);
        let (one, two) = (block(seed, last, 0), block(seed, last, 1));
        for (words, word) in words.iter_mut().zip(one.iter().chain(&two[..SECOND])) {
            words[lane] = *word;
        }
    }
}

fn block(seed: &[u32; 7], last: u32, counter: u32) -> [u32; BLOCK] {
    let mut start = [0; BLOCK];
    start[..4].copy_from_slice(&CONSTANTS);
    start[4..11].copy_from_slice(seed);
    start[11] = last;
    start[12] = counter;

    let mut s = start;
    for _ in 0..DOUBLE_ROUNDS {
        for [a, b, c, d] in [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]] {
            quarter_round(&mut s, a, b, c, d);
        }
        for [a, b, c, d] in [[0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]] {
            quarter_round(&mut s, a, b, c, d);
        }
    }
    for (word, start) in s.iter_mut().zip(start) {
        *word = word.wrapping_add(start);
    }
    s
}

#[inline]
fn quarter_round(s: &mut [u32; BLOCK], a: usize, b: usize, c: usize, d: usize) {
    s[a] = s[a].wrapping_add(s[b]);
    s[d] = (s[d] ^ s[a]).rotate_left(16);
    s[c] = s[c].wrapping_add(s[d]);
    s[b] = (s[b] ^ s[c]).rotate_left(12);
    s[a] = s[a].wrapping_add(s[b]);
    s[d] = (s[d] ^ s[a]).rotate_left(8);
    s[c] = s[c].wrapping_add(s[d]);
    s[b] = (s[b] ^ s[c]).rotate_left(7);
}
