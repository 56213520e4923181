//! The numbers of the lean form, arranged for vectors.

use ff::Field;

use crate::lean::derive;
use crate::{Fr, Lean, LeanPartial, Reduction};

/// A number as a kernel keeps it.
pub(crate) trait Number: Copy {
    /// Divisions by powers of two that the kernel's reductions do.
    const REDUCTION: Reduction;

    /// The number that an element is.
    fn of(element: &Fr) -> Self;
}

/// The numbers of [`Lean`]. Keys are given times the radix, because they begin a sum of products,
/// whose reduction divides by it.
pub(crate) struct Constants<N> {
    /// Entry `(i, j)` of the small matrix is `small[i + j]`.
    pub(crate) small: Vec<u64>,
    /// The first element after the first S-boxes, which is the same for all preimages.
    pub(crate) first: N,
    /// Added to the other elements before them; not times the radix.
    pub(crate) first_key: Vec<N>,
    pub(crate) head: Vec<Vec<N>>,
    pub(crate) partial: Partial<N>,
    pub(crate) tail: Vec<Vec<N>>,
    pub(crate) last: N,
}

/// The partial rounds, see [`LeanPartial`].
pub(crate) enum Partial<N> {
    Dense(Dense<N>),
    Filter(Box<Filter<N>>),
}

pub(crate) struct Dense<N> {
    pub(crate) rescale: Vec<N>,
    pub(crate) keys: Vec<N>,
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
pub(crate) struct Filter<N> {
    /// `width` rows: first element, then the past, the oldest first.
    pub(crate) enter: Vec<Vec<N>>,
    /// The key of the first round, which comes alone.
    pub(crate) first_key: N,
    /// The keys of the others, two by two.
    pub(crate) pair_keys: Vec<[N; 2]>,
    /// The taps `h[1]` of feedback and output.
    pub(crate) newest: [N; 2],
    /// The tap of a round's own `w`: `output[0]`.
    pub(crate) own: N,
    /// The taps of feedback and output, the newest first, for the round that comes alone.
    pub(crate) taps: Vec<[N; 2]>,
    /// For two rounds, each for feedback and output, from the newest pair of elements to the
    /// oldest: the factors of `e + o`, of `o`, which may have one more, and of `e`.
    pub(crate) both: Vec<[N; 2]>,
    pub(crate) newer: Vec<[N; 2]>,
    pub(crate) older: Vec<[N; 2]>,
    /// `width - 1` rows for the past, the oldest first.
    pub(crate) leave: Vec<Vec<N>>,
}

fn all<'a, N: Number>(elements: impl IntoIterator<Item = &'a Fr>) -> Vec<N> {
    elements.into_iter().map(N::of).collect()
}

impl<N: Number> Constants<N> {
    /// For the permutation of `WIDTH` elements, with the partial rounds as a filter or with the
    /// small matrix.
    pub(crate) fn derive<const WIDTH: usize>(filter: bool) -> Self {
        let radix = Fr::from(2).pow_vartime([u64::from(N::REDUCTION.bits)]);
        let in_sum = |keys: &[Fr]| keys.iter().map(|key| N::of(&(*key * radix))).collect();
        let Lean { small, tag, first_key, head, partial, tail, last } =
            derive::<WIDTH>(N::REDUCTION, filter);
        let inverse = Option::<Fr>::from(radix.invert()).expect("a power of two is not zero");
        let first = (first_key[0] + Fr::from(tag)).pow_vartime([5]) * inverse.pow_vartime([4]);
        let partial = match &partial {
            LeanPartial::Dense { rescale, keys } => {
                Partial::Dense(Dense { rescale: all(rescale), keys: in_sum(keys) })
            }
            LeanPartial::Filter { enter, keys, feedback, output, leave } => {
                let mut rows: Vec<_> = enter.iter().map(all).collect();
                rows[1..].reverse();
                let keys: Vec<N> = in_sum(keys);
                let (pair_keys, rest) = keys[1..].as_chunks();
                assert!(rest.is_empty(), "the partial rounds are odd in number");
                Partial::Filter(Box::new(Filter {
                    enter: rows,
                    first_key: keys[0],
                    pair_keys: pair_keys.to_vec(),
                    leave: leave.iter().map(|row| all(row.iter().rev())).collect(),
                    ..Filter::of_taps(feedback, output)
                }))
            }
        };
        Self {
            small,
            first: N::of(&(first + head[0][0])),
            first_key: all(&first_key),
            head: head.iter().map(|keys| in_sum(keys)).collect(),
            partial,
            tail: tail.iter().map(|keys| in_sum(keys)).collect(),
            last: N::of(&last),
        }
    }
}

impl<N: Number> Filter<N> {
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
        let of = |taps: [Fr; 2]| taps.map(|tap| N::of(&tap));
        Self {
            enter: Vec::new(),
            first_key: N::of(&Fr::ZERO),
            pair_keys: Vec::new(),
            newest: of(tap(1)),
            own: N::of(&output[0]),
            taps: (1..=window).map(|i| of(tap(i))).collect(),
            both: (1..=window / 2).map(|j| of(tap(2 * j))).collect(),
            newer: (1..=window.div_ceil(2)).map(|j| of(difference(2 * j - 1, 2 * j))).collect(),
            older: (1..=window / 2).map(|j| of(difference(2 * j + 1, 2 * j))).collect(),
            leave: Vec::new(),
        }
    }
}
