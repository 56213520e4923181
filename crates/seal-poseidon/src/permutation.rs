//! The Poseidon permutation in its cheap form.

use ff::Field;

use crate::Fr;
use crate::constants::{Cheap, Plain};
use crate::matrix::{apply, dot};

/// The permutation of `WIDTH` elements.
pub(crate) struct Permutation<const WIDTH: usize>(Cheap<WIDTH>);

impl<const WIDTH: usize> Permutation<WIDTH> {
    pub(crate) fn derive() -> Self {
        Self(Cheap::derive(&Plain::derive()))
    }

    /// Permutes the state and returns its second element, which is what Poseidon outputs.
    pub(crate) fn output(&self, mut state: [Fr; WIDTH]) -> Fr {
        let constants = &self.0;
        add(&mut state, &constants.first_key);
        for key in &constants.head {
            state = apply(&constants.mds, &substitute(&state, key));
        }
        state = apply(&constants.pre_sparse, &substitute(&state, &constants.pre_sparse_key));
        for round in &constants.partial {
            let first = quintic(&state[0]) + round.key;
            state[0] = first;
            let sum = dot(&round.row, &state);
            for (element, factor) in state.iter_mut().zip(&round.column).skip(1) {
                *element += first * factor;
            }
            state[0] = sum;
        }
        for key in &constants.tail {
            state = apply(&constants.mds, &substitute(&state, key));
        }
        // Of the last product only the output is wanted.
        dot(&constants.mds[1], &state.map(|element| quintic(&element)))
    }
}

/// S-boxes of a full round, and the key that has been moved behind them.
#[inline]
fn substitute<const WIDTH: usize>(state: &[Fr; WIDTH], key: &[Fr; WIDTH]) -> [Fr; WIDTH] {
    let mut substituted = state.map(|element| quintic(&element));
    add(&mut substituted, key);
    substituted
}

#[inline]
fn add<const WIDTH: usize>(state: &mut [Fr; WIDTH], key: &[Fr; WIDTH]) {
    for (element, key) in state.iter_mut().zip(key) {
        *element += key;
    }
}

/// The S-box: the fifth power.
#[inline]
fn quintic(element: &Fr) -> Fr {
    element.square().square() * element
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The permutation by the letter of the specification.
    fn plain_output<const WIDTH: usize>(plain: &Plain<WIDTH>, mut state: [Fr; WIDTH]) -> Fr {
        let half = plain.rounds.full / 2;
        for (round, key) in plain.keys.iter().enumerate() {
            add(&mut state, key);
            if (half..half + plain.rounds.partial).contains(&round) {
                state[0] = quintic(&state[0]);
            } else {
                state = state.map(|element| quintic(&element));
            }
            state = apply(&plain.mds, &state);
        }
        state[1]
    }

    fn element() -> impl Strategy<Value = Fr> {
        // Four words below the modulus: the top one is cut to 62 bits.
        any::<[u64; 4]>().prop_map(|mut words| {
            words[3] >>= 2;
            Option::from(Fr::from_u64s_le(&words)).expect("below 2^254")
        })
    }

    fn cheap_equals_plain<const WIDTH: usize>() {
        let plain = Plain::<WIDTH>::derive();
        let cheap = Permutation::<WIDTH>::derive();
        let states = prop::collection::vec(element(), WIDTH);
        let mut runner = proptest::test_runner::TestRunner::default();
        runner
            .run(&states, |state| {
                let state: [Fr; WIDTH] = state.try_into().expect("WIDTH elements");
                prop_assert_eq!(cheap.output(state), plain_output(&plain, state));
                Ok(())
            })
            .expect("cheap and plain form agree");
        for corner in [[Fr::ZERO; WIDTH], [-Fr::ONE; WIDTH]] {
            assert_eq!(cheap.output(corner), plain_output(&plain, corner));
        }
    }

    #[test]
    fn the_cheap_form_of_width_3_equals_the_plain_one() {
        cheap_equals_plain::<3>();
    }

    #[test]
    fn the_cheap_form_of_width_9_equals_the_plain_one() {
        cheap_equals_plain::<9>();
    }

    #[test]
    fn the_cheap_form_of_width_12_equals_the_plain_one() {
        cheap_equals_plain::<12>();
    }
}
