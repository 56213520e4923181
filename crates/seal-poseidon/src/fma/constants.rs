//! The numbers of the lean form as the routines want them.

use seal_field::fma::fr::{
    Balanced, Fr16, LIMB_BITS, REDUCTION_BITS, Start, Words, balanced, canonical_words,
};

use crate::terms::{self, Number};
use crate::{Fr, Reduction};

impl Number for Balanced {
    const REDUCTION: Reduction = Reduction { bits: REDUCTION_BITS, shift: LIMB_BITS };

    fn of(element: &Fr) -> Self {
        balanced(element)
    }
}

/// The numbers of [`terms::Constants`]. Keys are what sums begin with.
pub(super) struct Constants {
    /// The numbers of the small matrix.
    pub(super) small: Vec<f64>,
    pub(super) first: Balanced,
    /// Below the modulus.
    pub(super) first_key: Vec<Words>,
    pub(super) head: Vec<Vec<Start>>,
    pub(super) partial: Partial,
    pub(super) tail: Vec<Vec<Start>>,
    pub(super) last: Box<Fr16>,
}

pub(super) enum Partial {
    Dense(Dense),
    Filter(Box<Filter>),
}

pub(super) struct Dense {
    pub(super) rescale: Vec<Balanced>,
    pub(super) keys: Vec<Start>,
}

/// The numbers of [`terms::Filter`]. Taps are for feedback and output, in the order of the elements
/// that they multiply in memory, the oldest first.
pub(super) struct Filter {
    pub(super) enter: Vec<Vec<Balanced>>,
    /// Of feedback and output in the round that comes alone.
    pub(super) first_starts: [Start; 2],
    /// Of both feedbacks, for every two rounds.
    pub(super) pair_starts: Vec<[Start; 2]>,
    /// Of what both rounds have from the sums of elements.
    pub(super) both_start: Start,
    /// Of both outputs.
    pub(super) output_starts: [Start; 2],
    pub(super) newest: [Balanced; 2],
    pub(super) own: Balanced,
    pub(super) alone: [Vec<Balanced>; 2],
    pub(super) both: [Vec<Balanced>; 2],
    pub(super) newer: [Vec<Balanced>; 2],
    pub(super) older: [Vec<Balanced>; 2],
    pub(super) leave: Vec<Vec<Balanced>>,
}

impl Constants {
    pub(super) fn derive<const WIDTH: usize>(filter: bool) -> Self {
        let terms = terms::Constants::<Balanced>::derive::<WIDTH>(filter);
        let s_box_keys = |keys: &Vec<Vec<Balanced>>| {
            let of_round = |keys: &Vec<_>| keys.iter().map(|key| Start::with(key, 0, 1)).collect();
            keys.iter().map(of_round).collect()
        };
        Self {
            // Below 2^44, so exact.
            small: terms.small.iter().map(|number| *number as f64).collect(),
            first: terms.first,
            first_key: terms.first_key.iter().map(canonical_words).collect(),
            head: s_box_keys(&terms.head),
            tail: s_box_keys(&terms.tail),
            last: Box::new(Fr16::same(&terms.last)),
            partial: match terms.partial {
                terms::Partial::Dense(terms::Dense { rescale, keys }) => Partial::Dense(Dense {
                    rescale,
                    keys: keys.iter().map(|key| Start::with(key, 1, 0)).collect(),
                }),
                terms::Partial::Filter(filter) => {
                    Partial::Filter(Box::new(Filter::of(*filter, WIDTH as u32 - 1)))
                }
            },
        }
    }
}

impl Filter {
    fn of(filter: terms::Filter<Balanced>, window: u32) -> Self {
        let (newer, older) = (filter.newer.len() as u32, filter.older.len() as u32);
        let pair_starts = filter.pair_keys.iter().map(|[first, second]| {
            [Start::with(first, newer, 1), Start::with(second, older + 1, 1)]
        });
        Self {
            first_starts: [Start::with(&filter.first_key, window, 1), Start::new(window + 1, 0)],
            pair_starts: pair_starts.collect(),
            both_start: Start::of_addend(filter.both.len() as u32),
            output_starts: [Start::new(newer + 1, 0), Start::new(older + 2, 0)],
            newest: filter.newest,
            own: filter.own,
            alone: oldest_first(&filter.taps),
            both: oldest_first(&filter.both),
            newer: oldest_first(&filter.newer),
            older: oldest_first(&filter.older),
            enter: filter.enter,
            leave: filter.leave,
        }
    }
}

fn oldest_first(taps: &[[Balanced; 2]]) -> [Vec<Balanced>; 2] {
    [0, 1].map(|of| taps.iter().rev().map(|taps| taps[of]).collect())
}
