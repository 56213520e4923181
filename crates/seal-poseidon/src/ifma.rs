//! Eight hashes at a time in the lanes of AVX-512 vectors, by the lean form of the permutation.

use std::sync::LazyLock;

use ff::Field;
use seal_field::fr8::{Fr8, LANES, Products, SmallProducts, load};
use seal_field::{Ifma, LIMB_BITS, LIMBS, Limbs, limbs_of_bytes};

use crate::lean::derive;
use crate::{Fr, Lean, LeanPartial, Poseidon, Reduction, element_to_bytes};

/// Divisions by powers of two that the vectors' reductions do.
const REDUCTION: Reduction = Reduction { bits: LIMB_BITS * LIMBS as u32, shift: LIMB_BITS };

/// Partial rounds of every permutation here, at most.
const MAX_PARTIAL: usize = 57;
/// Elements of the longest window of the filter, and what is appended to it.
const MAX_HISTORY: usize = 11 + MAX_PARTIAL;

/// The references to eight preimages: of each element, the eight nodes.
pub(crate) type Preimages<'a> = [[&'a [u8; 32]; LANES]];

/// Hashes eight preimages. Tells whether all nodes are canonical; if not, `hashes` is of no use.
pub(crate) fn hash(
    proof: Ifma,
    poseidon: &Poseidon,
    preimages: &Preimages<'_>,
    hashes: &mut [[u8; 32]; LANES],
) -> bool {
    static THREE: LazyLock<Constants> = LazyLock::new(|| Constants::derive::<3>(false));
    static NINE: LazyLock<Constants> = LazyLock::new(|| Constants::derive::<9>(true));
    static TWELVE: LazyLock<Constants> = LazyLock::new(|| Constants::derive::<12>(true));
    match poseidon.arity() {
        2 => enter::<3>(proof, &THREE, preimages, hashes),
        8 => enter::<9>(proof, &NINE, preimages, hashes),
        _ => enter::<12>(proof, &TWELVE, preimages, hashes),
    }
}

fn enter<const WIDTH: usize>(
    _: Ifma,
    constants: &Constants,
    preimages: &Preimages<'_>,
    hashes: &mut [[u8; 32]; LANES],
) -> bool {
    // SAFETY: `hash_lanes` needs avx512f and avx512ifma; an `Ifma` exists only if it saw both.
    unsafe { hash_lanes::<WIDTH>(constants, preimages, hashes) }
}

/// The numbers of [`Lean`] in limbs.
struct Constants {
    small: Vec<u64>,
    /// The first element after the first S-boxes, which is the same for all preimages.
    first: Limbs,
    /// Added to the other elements before.
    first_key: Vec<Limbs>,
    head: Vec<Vec<Limbs>>,
    partial: Partial,
    tail: Vec<Vec<Limbs>>,
    last: Limbs,
}

enum Partial {
    Dense {
        rescale: Vec<Limbs>,
        keys: Vec<Limbs>,
    },
    /// Coefficients stand in the order of the history, the oldest first.
    Filter {
        enter: Vec<Vec<Limbs>>,
        keys: Vec<Limbs>,
        feedback: Vec<Limbs>,
        output: Vec<Limbs>,
        leave: Vec<Vec<Limbs>>,
    },
}

fn limbs(number: &Fr) -> Limbs {
    limbs_of_bytes(&element_to_bytes(number))
}

fn all_limbs(numbers: &[Fr]) -> Vec<Limbs> {
    numbers.iter().map(limbs).collect()
}

impl Constants {
    fn derive<const WIDTH: usize>(filter: bool) -> Self {
        let radix = Fr::from(2).pow_vartime([u64::from(REDUCTION.bits)]);
        // Keys begin a sum of products, whose reduction divides by the radix.
        let in_sum = |keys: &[Fr]| keys.iter().map(|key| limbs(&(*key * radix))).collect();
        let reversed = |numbers: &[Fr]| numbers.iter().rev().map(limbs).collect();
        let Lean { small, tag, first_key, head, partial, tail, last } =
            derive::<WIDTH>(REDUCTION, filter);
        let inverse = Option::<Fr>::from(radix.invert()).expect("a power of two is not zero");
        let first = (first_key[0] + Fr::from(tag)).pow_vartime([5]) * inverse.pow_vartime([4]);
        Self {
            small,
            first: limbs(&(first + head[0][0])),
            first_key: all_limbs(&first_key),
            head: head.iter().map(|keys| in_sum(keys)).collect(),
            partial: match &partial {
                LeanPartial::Dense { rescale, keys } => {
                    Partial::Dense { rescale: all_limbs(rescale), keys: in_sum(keys) }
                }
                LeanPartial::Filter { enter, keys, feedback, output, leave } => {
                    // The window is newest first, the history oldest first; the first element
                    // stays where it is.
                    let mut rows: Vec<_> = enter.iter().map(|row| all_limbs(row)).collect();
                    rows[1..].reverse();
                    Partial::Filter {
                        enter: rows,
                        keys: in_sum(keys),
                        feedback: reversed(feedback),
                        output: reversed(output),
                        leave: leave.iter().map(|row| reversed(row)).collect(),
                    }
                }
            },
            tail: tail.iter().map(|keys| in_sum(keys)).collect(),
            last: limbs(&last),
        }
    }
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn hash_lanes<const WIDTH: usize>(
    constants: &Constants,
    preimages: &Preimages<'_>,
    hashes: &mut [[u8; 32]; LANES],
) -> bool {
    let small = &constants.small;
    let mut state = [Fr8::same(&constants.first); WIDTH];
    let mut canonical = true;
    let elements = state[1..].iter_mut().zip(preimages);
    for ((element, nodes), key) in elements.zip(&constants.first_key[1..]) {
        let words = load(*nodes);
        canonical &= words.are_canonical();
        *element = words.plus(key);
    }
    if !canonical {
        return false;
    }

    for (element, key) in state.iter_mut().zip(&constants.head[0]).skip(1) {
        *element = quintic_plus(element, key);
    }
    match &constants.partial {
        Partial::Dense { rescale, keys } => {
            for keys in &constants.head[1..] {
                multiply_small(&mut state, small);
                substitute(&mut state, keys);
            }
            multiply_small(&mut state, small);
            for (rescale, key) in rescale.iter().zip(keys) {
                let mut product = Products::from(key);
                product.add(&state[0].quintic(), &Fr8::same(rescale));
                state[0] = product.reduce();
                multiply_small(&mut state, small);
            }
        }
        Partial::Filter { enter, keys, feedback, output, leave } => {
            for keys in &constants.head[1..] {
                multiply_small(&mut state, small);
                substitute(&mut state, keys);
            }
            filter(&mut state, enter, keys, feedback, output, leave);
        }
    }
    for keys in &constants.tail {
        substitute(&mut state, keys);
        multiply_small(&mut state, small);
    }
    let mut sum = SmallProducts::from(&[0; LIMBS]);
    for (element, number) in state.iter().zip(&small[1..]) {
        sum.add(&element.quintic(), *number);
    }
    sum.reduce().times(&Fr8::same(&constants.last)).store(hashes);
    true
}

/// The partial rounds, see [`LeanPartial::Filter`], with the matrices before and after them.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn filter<const WIDTH: usize>(
    state: &mut [Fr8; WIDTH],
    enter: &[Vec<Limbs>],
    keys: &[Limbs],
    feedback: &[Limbs],
    output: &[Limbs],
    leave: &[Vec<Limbs>],
) {
    let window = WIDTH - 1;
    let mut history = [state[0]; MAX_HISTORY];
    let mut first = dot(Products::zero(), &enter[0], state).reduce();
    for (element, row) in history.iter_mut().zip(&enter[1..]) {
        *element = dot(Products::zero(), row, state).reduce();
    }
    for (round, key) in keys.iter().enumerate() {
        let past = &history[round..round + window];
        let mut newest = dot(Products::from(key), feedback, past);
        let sum = dot(Products::zero(), output, past);
        newest.add(&first.square().square(), &first);
        let newest = newest.reduce();
        history[round + window] = newest;
        let mut sum = sum;
        sum.add(&newest, &Fr8::same(&output[window]));
        first = sum.reduce();
    }
    state[0] = first;
    for (element, row) in state[1..].iter_mut().zip(leave) {
        *element = dot(Products::zero(), row, &history[keys.len()..]).reduce();
    }
}

/// Adds the products of coefficients and elements, as many as there are elements or coefficients.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn dot(mut sum: Products, coefficients: &[Limbs], elements: &[Fr8]) -> Products {
    for (element, coefficient) in elements.iter().zip(coefficients) {
        sum.add(element, &Fr8::same(coefficient));
    }
    sum
}

/// The S-box, and a key that is given times the radix.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn quintic_plus(element: &Fr8, key: &Limbs) -> Fr8 {
    let mut product = Products::from(key);
    product.add(&element.square().square(), element);
    product.reduce()
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn substitute<const WIDTH: usize>(state: &mut [Fr8; WIDTH], keys: &[Limbs]) {
    for (element, key) in state.iter_mut().zip(keys) {
        *element = quintic_plus(element, key);
    }
}

/// The small matrix, whose entry `(i, j)` is `small[i + j]`.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply_small<const WIDTH: usize>(state: &mut [Fr8; WIDTH], small: &[u64]) {
    let before = *state;
    for (i, element) in state.iter_mut().enumerate() {
        let mut sum = SmallProducts::from(&[0; LIMBS]);
        for (element, number) in before.iter().zip(&small[i..]) {
            sum.add(element, *number);
        }
        *element = sum.reduce();
    }
}
