//! The partial rounds as a filter, two rounds at a time.

use seal_field::Limbs;
use seal_field::fr8::{Fr8, Products};

use crate::terms::Filter;

/// Pairs of the past that are kept: a power of two that holds the longest window.
const KEPT: usize = 8;

/// Two consecutive elements of the past, the older first, and their sum.
#[derive(Clone, Copy)]
struct Pair {
    older: Fr8,
    newer: Fr8,
    both: Fr8,
}

/// The last pairs of elements.
#[derive(Clone, Copy)]
struct Past {
    pairs: [Pair; KEPT],
    /// How many there have been.
    count: usize,
}

/// From the states before the matrix of the last full round before the partial rounds to the
/// states after the matrix of the last partial round.
///
/// The vectors take turns step by step, because each step waits for the one before.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn filter<const WIDTH: usize, const VECTORS: usize>(
    filter: &Filter<Limbs>,
    states: &mut [[Fr8; WIDTH]; VECTORS],
) {
    let zero = states[0][0];
    let mut firsts = [zero; VECTORS];
    let nothing = Past { pairs: [Pair { older: zero, newer: zero, both: zero }; KEPT], count: 0 };
    let mut pasts = [nothing; VECTORS];
    for ((state, first), past) in states.iter().zip(&mut firsts).zip(&mut pasts) {
        let mut entered = *state;
        multiply(&filter.enter, state, &mut entered);
        *first = round_alone(filter, &entered, past);
    }
    let mut sums = [[[Products::zero(); 2]; 2]; VECTORS];
    for keys in &filter.pair_keys {
        for (sums, past) in sums.iter_mut().zip(&pasts) {
            past.sum(filter, keys, sums);
        }
        two_rounds(filter, &mut sums, &mut pasts, &mut firsts);
    }
    for ((state, first), past) in states.iter_mut().zip(&firsts).zip(&pasts) {
        let mut window = [*first; WIDTH];
        for (i, place) in window.iter_mut().rev().enumerate() {
            let pair = past.before_next(1 + i / 2);
            *place = if i % 2 == 0 { pair.newer } else { pair.older };
        }
        state[0] = *first;
        multiply(&filter.leave, &window[1..], &mut state[1..]);
    }
}

/// The round that comes alone, because the rounds are odd in number. It takes the first element
/// and the window, the oldest first, and completes the newest pair. Returns the first element.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn round_alone<const WIDTH: usize>(
    filter: &Filter<Limbs>,
    state: &[Fr8; WIDTH],
    past: &mut Past,
) -> Fr8 {
    let [first, window @ ..] = &state[..] else { unreachable!("a state is not empty") };
    let mut sums = [Products::from(&filter.first_key), Products::zero()];
    for (element, taps) in window.iter().rev().zip(&filter.taps) {
        Products::add_to_each(&mut sums, element, taps.each_ref());
    }
    let [mut newest, mut output] = sums;
    newest.add(&first.square().square(), first);
    let newest = newest.reduce();
    output.add(&newest, &Fr8::same(&filter.own));

    // The element that an even window begins with is not used again.
    let (complete, rest) = window[WIDTH % 2..].as_chunks();
    let [unpaired] = rest else { unreachable!("an odd number of elements") };
    for [older, newer] in complete {
        past.append(older, newer);
    }
    past.append(unpaired, &newest);
    output.reduce()
}

/// Two rounds of each vector, for which the past has been summed.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn two_rounds<const VECTORS: usize>(
    filter: &Filter<Limbs>,
    sums: &mut [[[Products; 2]; 2]; VECTORS],
    pasts: &mut [Past; VECTORS],
    firsts: &mut [Fr8; VECTORS],
) {
    let mut powers = *firsts;
    let mut elements = [*firsts; 2];
    for round in 0..2 {
        for (power, first) in powers.iter_mut().zip(&*firsts) {
            *power = first.square();
        }
        if round == 1 {
            for (sums, older) in sums.iter_mut().zip(&elements[0]) {
                Products::add_to_each(&mut sums[1], older, filter.newest.each_ref());
            }
        }
        for power in &mut powers {
            *power = power.square();
        }
        for v in 0..VECTORS {
            let sum = &mut sums[v][round][0];
            sum.add(&powers[v], &firsts[v]);
            elements[round][v] = sum.reduce();
        }
        for v in 0..VECTORS {
            let sum = &mut sums[v][round][1];
            sum.add(&elements[round][v], &Fr8::same(&filter.own));
            firsts[v] = sum.reduce();
        }
    }
    for (v, past) in pasts.iter_mut().enumerate() {
        past.append(&elements[0][v], &elements[1][v]);
    }
}

impl Past {
    /// The pair that is `back` before the one that comes next.
    #[inline]
    fn before_next(&self, back: usize) -> &Pair {
        &self.pairs[self.count.wrapping_sub(back) % KEPT]
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn append(&mut self, older: &Fr8, newer: &Fr8) {
        let pair = &mut self.pairs[self.count % KEPT];
        pair.older = *older;
        pair.newer = *newer;
        pair.both = older.plus(newer);
        self.count += 1;
    }

    /// For each of the next two rounds, what keys and the past add to feedback and output, see
    /// [`Filter`], into `sums`.
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn sum(&self, filter: &Filter<Limbs>, keys: &[Limbs; 2], sums: &mut [[Products; 2]; 2]) {
        let mut both = [Products::zero(); 2];
        for (i, taps) in filter.both.iter().enumerate() {
            Products::add_to_each(&mut both, &self.before_next(i + 1).both, taps.each_ref());
        }
        let [feedback, output] = both;
        let mut newer = [Products::from(&keys[0]), Products::zero()];
        for (i, taps) in filter.newer.iter().enumerate() {
            Products::add_to_each(&mut newer, &self.before_next(i + 1).newer, taps.each_ref());
        }
        let mut older = [Products::from(&keys[1]), Products::zero()];
        for (i, taps) in filter.older.iter().enumerate() {
            Products::add_to_each(&mut older, &self.before_next(i + 1).older, taps.each_ref());
        }
        let [[first_feedback, first_output], [second_feedback, second_output]] = sums;
        *first_feedback = newer[0].plus(&feedback);
        *first_output = newer[1].plus(&output);
        *second_feedback = older[0].plus(&feedback);
        *second_output = older[1].plus(&output);
    }
}

/// The product of a matrix, which is given by rows, and a vector.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply(matrix: &[Vec<Limbs>], vector: &[Fr8], product: &mut [Fr8]) {
    for (rows, products) in matrix.chunks(2).zip(product.chunks_mut(2)) {
        // An odd row is computed twice.
        let (one, other) = (&rows[0], &rows[rows.len() - 1]);
        let mut sums = [Products::zero(); 2];
        for (element, (one, other)) in vector.iter().zip(one.iter().zip(other)) {
            Products::add_to_each(&mut sums, element, [one, other]);
        }
        for (product, sum) in products.iter_mut().zip(sums) {
            *product = sum.reduce();
        }
    }
}
