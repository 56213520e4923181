//! The partial rounds as a filter, two rounds at a time (see `terms::Filter`).

use seal_field::fma::fr::{Balanced, Fr16, Start, Sum};

use super::constants::Filter;
use super::permutation::Work;

/// Pairs of consecutive elements of the past, the oldest first, with their sums: room for the
/// window that the rounds begin with and for all that they append, so that what a sum takes
/// always stands together.
pub(super) struct Past {
    older: Vec<Fr16>,
    newer: Vec<Fr16>,
    both: Vec<Fr16>,
    /// The pair that two rounds are about to append.
    newest: [Fr16; 2],
    /// Sums of two rounds: the one at hand, and what both rounds have of feedback and output.
    sums: [Sum; 3],
}

impl Past {
    pub(super) fn new(width: usize) -> Self {
        let pairs = width + 30;
        Self {
            older: Vec::with_capacity(pairs),
            newer: Vec::with_capacity(pairs),
            both: Vec::with_capacity(pairs),
            newest: [Fr16::ZERO; 2],
            sums: [Sum::EMPTY; 3],
        }
    }

    fn append(&mut self, older: &Fr16, newer: &Fr16) {
        self.older.push(*older);
        self.newer.push(*newer);
        self.both.push(older.plus(newer));
    }

    /// From the states before the matrix of the last full round before the partial rounds to the
    /// states after the matrix of the last partial round.
    pub(super) fn run<const WIDTH: usize>(
        &mut self,
        work: &mut Work,
        filter: &Filter,
        state: &mut [Fr16; WIDTH],
    ) {
        self.older.clear();
        self.newer.clear();
        self.both.clear();
        let before = *state;
        work.multiply(&filter.enter, &before, state);
        self.round_alone(work, filter, state);
        for starts in &filter.pair_starts {
            self.two_rounds(work, filter, starts, &mut state[0]);
        }
        let mut window = before;
        let window = &mut window[1..];
        for (i, place) in window.iter_mut().rev().enumerate() {
            let pair = self.older.len() - 1 - i / 2;
            *place = if i % 2 == 0 { self.newer[pair] } else { self.older[pair] };
        }
        work.multiply(&filter.leave, window, &mut state[1..]);
    }

    /// The round that comes alone, because the rounds are odd in number. It takes the first
    /// element and the window, the oldest first, completes the newest pair, and makes the next
    /// first element.
    fn round_alone<const WIDTH: usize>(
        &mut self,
        work: &mut Work,
        filter: &Filter,
        state: &mut [Fr16; WIDTH],
    ) {
        let [first, window @ ..] = &mut state[..] else { unreachable!("a state is not empty") };
        let [feedback_start, output_start] = &filter.first_starts;
        let proof = work.proof;
        let Self { newest, sums: [sum, ..], .. } = self;
        sum.set_products(proof, feedback_start, window, &filter.alone[0]);
        work.s_box_plus(first, sum, &mut newest[0]);
        sum.set_products(proof, output_start, window, &filter.alone[1]);
        sum.add_products(proof, &newest[..1], &[filter.own]);
        sum.reduce(proof, first);

        // The element that an even window begins with is not used again.
        let (complete, rest) = window[WIDTH % 2..].as_chunks();
        let [unpaired] = rest else { unreachable!("an odd number of elements") };
        for [older, newer] in complete {
            self.append(older, newer);
        }
        let newest = self.newest[0];
        self.append(unpaired, &newest);
    }

    /// Two rounds.
    fn two_rounds(
        &mut self,
        work: &mut Work,
        filter: &Filter,
        feedback_starts: &[Start; 2],
        first: &mut Fr16,
    ) {
        let proof = work.proof;
        let Self { older, newer, both, newest, sums: [sum, both_feedback, both_output] } = self;
        let of_past = |sum: &mut Sum, elements: &[Fr16], taps: &[Balanced], start: &Start| {
            sum.set_products(proof, start, &elements[elements.len() - taps.len()..], taps);
        };
        of_past(both_feedback, both, &filter.both[0], &filter.both_start);
        of_past(both_output, both, &filter.both[1], &filter.both_start);

        of_past(sum, newer, &filter.newer[0], &feedback_starts[0]);
        sum.add(both_feedback);
        work.s_box_plus(first, sum, &mut newest[0]);
        of_past(sum, newer, &filter.newer[1], &filter.output_starts[0]);
        sum.add(both_output);
        sum.add_products(proof, &newest[..1], &[filter.own]);
        sum.reduce(proof, first);

        of_past(sum, older, &filter.older[0], &feedback_starts[1]);
        sum.add(both_feedback);
        sum.add_products(proof, &newest[..1], &filter.newest[..1]);
        work.s_box_plus(first, sum, &mut newest[1]);
        of_past(sum, older, &filter.older[1], &filter.output_starts[1]);
        sum.add(both_output);
        sum.add_products(proof, newest, &[filter.newest[1], filter.own]);
        sum.reduce(proof, first);
        let [older, newer] = self.newest;
        self.append(&older, &newer);
    }
}
