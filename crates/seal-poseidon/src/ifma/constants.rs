//! The numbers of the lean form in limbs, arranged for vectors.

use ff::Field;
use seal_field::{LIMB_BITS, LIMBS, Limbs, limbs_of_bytes};

use crate::lean::derive;
use crate::{Fr, Lean, LeanPartial, Reduction, element_to_bytes};

/// Divisions by powers of two that the vectors' reductions do.
const REDUCTION: Reduction = Reduction { bits: LIMB_BITS * LIMBS as u32, shift: LIMB_BITS };

/// The numbers of [`Lean`]. Keys are given times the radix, because they begin a sum of products,
/// whose reduction divides by it.
pub(super) struct Constants {
    /// Entry `(i, j)` of the small matrix is `small[i + j]`.
    pub(super) small: Vec<u64>,
    /// The first element after the first S-boxes, which is the same for all preimages.
    pub(super) first: Limbs,
    /// Added to the other elements before them; not times the radix.
    pub(super) first_key: Vec<Limbs>,
    pub(super) head: Vec<Vec<Limbs>>,
    pub(super) partial: Partial,
    pub(super) tail: Vec<Vec<Limbs>>,
    pub(super) last: Limbs,
}

/// The partial rounds, see [`LeanPartial`].
pub(super) enum Partial {
    Dense(Dense),
    Filter(Box<Filter>),
}

pub(super) struct Dense {
    pub(super) rescale: Vec<Limbs>,
    pub(super) keys: Vec<Limbs>,
}

/// The filter, computed two rounds at a time.
///
/// With taps `h[1]`, `h[2]` and so on for the past `w`, the newest first, two rounds take from an
/// older and a newer element of the past, `e` and `o`,
///
/// ```text
/// h[2j] e + h[2j-1] o    and    h[2j+1] e + h[2j] o,
/// ```
///
/// which are `c + (h[2j-1] - h[2j]) o` and `c + (h[2j+1] - h[2j]) e` with `c = h[2j] (e + o)`:
/// three products instead of four, as in the algorithm of Karatsuba, and the sum of the two
/// elements serves all rounds.
pub(super) struct Filter {
    /// `width` rows: first element, then the past, the oldest first.
    pub(super) enter: Vec<Vec<Limbs>>,
    /// The key of the first round, which comes alone.
    pub(super) first_key: Limbs,
    /// The keys of the others, two by two.
    pub(super) pair_keys: Vec<[Limbs; 2]>,
    /// The taps `h[1]` of feedback and output.
    pub(super) newest: [Limbs; 2],
    /// The tap of a round's own `w`: `output[0]`.
    pub(super) own: Limbs,
    /// The taps of feedback and output, the newest first, for the round that comes alone.
    pub(super) taps: Vec<[Limbs; 2]>,
    /// For two rounds, each for feedback and output, from the newest pair of elements to the
    /// oldest: the factors of `e + o`, of `o`, which may have one more, and of `e`.
    pub(super) both: Vec<[Limbs; 2]>,
    pub(super) newer: Vec<[Limbs; 2]>,
    pub(super) older: Vec<[Limbs; 2]>,
    /// `width - 1` rows for the past, the oldest first.
    pub(super) leave: Vec<Vec<Limbs>>,
}

fn limbs(number: &Fr) -> Limbs {
    limbs_of_bytes(&element_to_bytes(number))
}

fn all_limbs<'a>(numbers: impl IntoIterator<Item = &'a Fr>) -> Vec<Limbs> {
    numbers.into_iter().map(limbs).collect()
}

impl Constants {
    /// For the permutation of `WIDTH` elements, with the partial rounds as a filter or with the
    /// small matrix.
    pub(super) fn derive<const WIDTH: usize>(filter: bool) -> Self {
        let radix = Fr::from(2).pow_vartime([u64::from(REDUCTION.bits)]);
        let in_sum = |keys: &[Fr]| keys.iter().map(|key| limbs(&(*key * radix))).collect();
        let Lean { small, tag, first_key, head, partial, tail, last } =
            derive::<WIDTH>(REDUCTION, filter);
        let inverse = Option::<Fr>::from(radix.invert()).expect("a power of two is not zero");
        let first = (first_key[0] + Fr::from(tag)).pow_vartime([5]) * inverse.pow_vartime([4]);
        let partial = match &partial {
            LeanPartial::Dense { rescale, keys } => {
                Partial::Dense(Dense { rescale: all_limbs(rescale), keys: in_sum(keys) })
            }
            LeanPartial::Filter { enter, keys, feedback, output, leave } => {
                let mut rows: Vec<_> = enter.iter().map(all_limbs).collect();
                rows[1..].reverse();
                let keys: Vec<Limbs> = in_sum(keys);
                let (pair_keys, rest) = keys[1..].as_chunks();
                assert!(rest.is_empty(), "the partial rounds are odd in number");
                Partial::Filter(Box::new(Filter {
                    enter: rows,
                    first_key: keys[0],
                    pair_keys: pair_keys.to_vec(),
                    leave: leave.iter().map(|row| all_limbs(row.iter().rev())).collect(),
                    ..Filter::of_taps(feedback, output)
                }))
            }
        };
        Self {
            small,
            first: limbs(&(first + head[0][0])),
            first_key: all_limbs(&first_key),
            head: head.iter().map(|keys| in_sum(keys)).collect(),
            partial,
            tail: tail.iter().map(|keys| in_sum(keys)).collect(),
            last: limbs(&last),
        }
    }
}

impl Filter {
    /// What depends on the taps; the other fields are empty.
    fn of_taps(feedback: &[Fr], output: &[Fr]) -> Self {
        // Tap i, from 1, of the feedback and of the output; there are none beyond the window.
        let tap = |i: usize| {
            [feedback.get(i - 1), output.get(i)].map(|tap| tap.copied().unwrap_or(Fr::ZERO))
        };
        let difference = |i: usize, j: usize| {
            let ([a, b], [c, d]) = (tap(i), tap(j));
            [a - c, b - d]
        };
        let window = feedback.len();
        let limbs_of = |taps: [Fr; 2]| taps.map(|tap| limbs(&tap));
        Self {
            enter: Vec::new(),
            first_key: [0; LIMBS],
            pair_keys: Vec::new(),
            newest: limbs_of(tap(1)),
            own: limbs(&output[0]),
            taps: (1..=window).map(|i| limbs_of(tap(i))).collect(),
            both: (1..=window / 2).map(|j| limbs_of(tap(2 * j))).collect(),
            newer: (1..=window.div_ceil(2))
                .map(|j| limbs_of(difference(2 * j - 1, 2 * j)))
                .collect(),
            older: (1..=window / 2).map(|j| limbs_of(difference(2 * j + 1, 2 * j))).collect(),
            leave: Vec::new(),
        }
    }
}
