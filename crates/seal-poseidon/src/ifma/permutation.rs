//! The permutation over some vectors of eight states.

use seal_field::fr8::{Fr8, LANES, Products, SmallProducts, load};
use seal_field::{LIMBS, Limbs};

use super::Constants;
use super::filter::filter;
use crate::terms::{Dense, Partial};

const NO_KEY: Limbs = [0; LIMBS];

/// The most elements whose S-boxes are computed together.
const MAX_TOGETHER: usize = 12;

/// Hashes preimages, which are given by element, vector and lane. Tells whether all nodes are
/// canonical; if not, `hashes` is of no use.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn hash_lanes<const WIDTH: usize, const VECTORS: usize>(
    constants: &Constants,
    preimages: &[[[&[u8; 32]; LANES]; VECTORS]],
    hashes: &mut [[[u8; 32]; LANES]; VECTORS],
) -> bool {
    let mut states = [[Fr8::same(&constants.first); WIDTH]; VECTORS];
    for (vector, state) in states.iter_mut().enumerate() {
        let elements = state[1..].iter_mut().zip(preimages);
        for ((element, nodes), key) in elements.zip(&constants.first_key[1..]) {
            let words = load(nodes[vector]);
            if !words.are_canonical() {
                return false;
            }
            *element = words.plus(key);
        }
        substitute(&mut state[1..], &constants.head[0][1..]);
    }
    for keys in &constants.head[1..] {
        for state in &mut states {
            multiply(state, &constants.small);
            substitute(state, keys);
        }
    }
    match &constants.partial {
        Partial::Dense(rounds) => dense(rounds, &constants.small, &mut states),
        Partial::Filter(rounds) => filter(rounds, &mut states),
    }
    for keys in &constants.tail {
        for state in &mut states {
            substitute(state, keys);
            multiply(state, &constants.small);
        }
    }
    for (state, hashes) in states.iter_mut().zip(hashes) {
        substitute(state, &[NO_KEY; WIDTH]);
        let mut sum = SmallProducts::zero();
        for (element, number) in state.iter().zip(&constants.small[1..]) {
            sum.add(element, *number);
        }
        sum.reduce().times(&Fr8::same(&constants.last)).store(hashes);
    }
    true
}

/// The partial rounds with the small matrix, and that of the full round before them. The vectors
/// take turns step by step, because each step waits for the one before.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn dense<const WIDTH: usize, const VECTORS: usize>(
    rounds: &Dense<Limbs>,
    small: &[u64],
    states: &mut [[Fr8; WIDTH]; VECTORS],
) {
    for state in &mut *states {
        multiply(state, small);
    }
    let mut powers = [states[0][0]; VECTORS];
    for (rescale, key) in rounds.rescale.iter().zip(&rounds.keys) {
        for (power, state) in powers.iter_mut().zip(&*states) {
            *power = state[0].square();
        }
        for power in &mut powers {
            *power = power.square();
        }
        for (power, state) in powers.iter_mut().zip(&*states) {
            *power = power.times(&state[0]);
        }
        for (power, state) in powers.iter().zip(&mut *states) {
            let mut product = Products::from(key);
            product.add(power, &Fr8::same(rescale));
            state[0] = product.reduce();
        }
        for state in &mut *states {
            multiply(state, small);
        }
    }
}

/// S-boxes, and keys that are given times the radix. Step by step, because a step waits for the
/// one before and not for its neighbour.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn substitute(elements: &mut [Fr8], keys: &[Limbs]) {
    let mut powers = [elements[0]; MAX_TOGETHER];
    let powers = &mut powers[..elements.len()];
    for (power, element) in powers.iter_mut().zip(&*elements) {
        *power = element.square();
    }
    for power in &mut *powers {
        *power = power.square();
    }
    for ((element, power), key) in elements.iter_mut().zip(powers).zip(keys) {
        let mut product = Products::from(key);
        product.add(power, element);
        *element = product.reduce();
    }
}

/// The small matrix, whose entry `(i, j)` is `small[i + j]`.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply<const WIDTH: usize>(state: &mut [Fr8; WIDTH], small: &[u64]) {
    let before = *state;
    for (three, elements) in state.chunks_mut(3).enumerate() {
        let mut sums = [SmallProducts::zero(); 3];
        for (element, numbers) in before.iter().zip(small[3 * three..].windows(3)) {
            SmallProducts::add_to_each(&mut sums, element, [numbers[0], numbers[1], numbers[2]]);
        }
        for (element, sum) in elements.iter_mut().zip(sums) {
            *element = sum.reduce();
        }
    }
}
