//! The permutation in words of 64 bits, for processors without vectors that multiply: the lean
//! form, with one reduction for each sum of products.
//!
//! Between the steps a number is *loose*: any number below 2^256, standing for what it is modulo
//! `p`. That saves comparisons with `p`; the last step makes the hash canonical.
//!
//! Words are summed column by column, so that three registers take a sum of any length, and the
//! modulus helps: with `p = 1 - 2^32 + 2^64 (…)`, what makes a word zero needs no multiplication
//! to be found.

mod words;

use std::sync::LazyLock;

use ff::Field;

use crate::batch::MAX_ARITY;
use crate::lean::derive;
use crate::{Fr, Lean, LeanPartial, NotCanonical, Poseidon, Reduction, element_to_bytes};
use words::{
    Words, add_mod, canonical, is_canonical, product, small_products, square, sum_of_products,
    words_of_bytes,
};

/// Divisions by powers of two that the reductions do.
const REDUCTION: Reduction = Reduction { bits: 256, shift: 64 };

/// Partial rounds of the widest permutation, and the window before the first.
const MOST_PAST: usize = 57 + MAX_ARITY;

const NO_KEY: Words = [0; 4];

/// The numbers of [`Lean`] in words.
struct Constants<const WIDTH: usize> {
    /// Entry `(i, j)` of the small matrix is `small[i + j]`.
    small: Vec<u64>,
    /// The first element after the first S-boxes, which is the same for all preimages.
    first: Words,
    /// Added to the other elements before them.
    first_key: [Words; WIDTH],
    head: Vec<[Words; WIDTH]>,
    partial: Partial<WIDTH>,
    tail: Vec<[Words; WIDTH]>,
    last: Words,
}

/// The partial rounds, see [`LeanPartial`].
enum Partial<const WIDTH: usize> {
    Dense {
        rescale: Vec<Words>,
        keys: Vec<Words>,
    },
    /// Windows run from the oldest element to the newest.
    Filter {
        enter: [[Words; WIDTH]; WIDTH],
        keys: Vec<Words>,
        /// The last one is for the S-box, to be filled in.
        feedback: [Words; WIDTH],
        output: [Words; WIDTH],
        /// Its columns, with none for the newest element of a window that has one more.
        leave: Vec<[Words; WIDTH]>,
    },
}

fn words(number: &Fr) -> Words {
    words_of_bytes(&element_to_bytes(number))
}

fn all_words<'a, const N: usize>(numbers: impl IntoIterator<Item = &'a Fr>) -> [Words; N] {
    let mut all = [NO_KEY; N];
    for (place, number) in all.iter_mut().zip(numbers) {
        *place = words(number);
    }
    all
}

impl<const WIDTH: usize> Constants<WIDTH> {
    /// With the partial rounds as a filter or with the small matrix.
    fn derive(filter: bool) -> Self {
        let Lean { small, tag, first_key, head, partial, tail, last } =
            derive::<WIDTH>(REDUCTION, filter);
        let radix = Fr::from(2).pow_vartime([u64::from(REDUCTION.bits)]);
        let inverse = Option::<Fr>::from(radix.invert()).expect("a power of two is not zero");
        let first = (first_key[0] + Fr::from(tag)).pow_vartime([5]) * inverse.pow_vartime([4]);
        let rows = |keys: &[Vec<Fr>]| keys.iter().map(all_words).collect();
        let partial = match &partial {
            LeanPartial::Dense { rescale, keys } => Partial::Dense {
                rescale: rescale.iter().map(words).collect(),
                keys: keys.iter().map(words).collect(),
            },
            LeanPartial::Filter { enter, keys, feedback, output, leave } => {
                let mut rows = [[NO_KEY; WIDTH]; WIDTH];
                // The first element, then the window, turned round.
                let order = enter[..1].iter().chain(enter[1..].iter().rev());
                for (place, row) in rows.iter_mut().zip(order) {
                    *place = all_words(row);
                }
                Partial::Filter {
                    enter: rows,
                    keys: keys.iter().map(words).collect(),
                    feedback: all_words(feedback.iter().rev()),
                    output: all_words(output.iter().rev()),
                    leave: leave.iter().map(|row| all_words(row.iter().rev())).collect(),
                }
            }
        };
        Self {
            small,
            first: words(&(first + head[0][0])),
            first_key: all_words(&first_key),
            head: rows(&head),
            partial,
            tail: rows(&tail),
            last: words(&last),
        }
    }

    /// The hash of a preimage whose elements are given as they are in files.
    fn hash<'n>(&self, node: impl Fn(usize) -> &'n [u8; 32]) -> Result<[u8; 32], NotCanonical> {
        let mut state = [self.first; WIDTH];
        let keys = self.first_key[1..].iter().zip(&self.head[0][1..]);
        for (index, (element, (first_key, key))) in state[1..].iter_mut().zip(keys).enumerate() {
            let words = words_of_bytes(node(index));
            if !is_canonical(&words) {
                return Err(NotCanonical { index });
            }
            *element = s_box(&add_mod(&words, first_key), key);
        }
        for keys in &self.head[1..] {
            self.multiply(&mut state);
            substitute(&mut state, keys);
        }
        match &self.partial {
            Partial::Dense { rescale, keys } => {
                self.multiply(&mut state);
                for (rescale, key) in rescale.iter().zip(keys) {
                    state[0] = product(&s_box(&state[0], &NO_KEY), rescale, key);
                    self.multiply(&mut state);
                }
            }
            Partial::Filter { enter, keys, feedback, output, leave } => {
                filter(&mut state, enter, keys, (feedback, output), leave);
            }
        }
        for keys in &self.tail {
            substitute(&mut state, keys);
            self.multiply(&mut state);
        }
        substitute(&mut state, &[NO_KEY; WIDTH]);
        let sum = small_products(&state, &self.small[1..]);
        Ok(canonical(product(&sum, &self.last, &NO_KEY)))
    }

    /// The small matrix.
    fn multiply(&self, state: &mut [Words; WIDTH]) {
        let before = *state;
        for (i, element) in state.iter_mut().enumerate() {
            *element = small_products(&before, &self.small[i..]);
        }
    }
}

/// The S-box, and a key after it.
#[inline(always)]
fn s_box(element: &Words, key: &Words) -> Words {
    product(&square(&square(element)), element, key)
}

#[inline(always)]
fn substitute<const WIDTH: usize>(state: &mut [Words; WIDTH], keys: &[Words; WIDTH]) {
    for (element, key) in state.iter_mut().zip(keys) {
        *element = s_box(element, key);
    }
}

/// From the state before the matrix of the last full round before the partial rounds to the state
/// after the matrix of the last partial round.
fn filter<const WIDTH: usize>(
    state: &mut [Words; WIDTH],
    enter: &[[Words; WIDTH]; WIDTH],
    keys: &[Words],
    (feedback, output): (&[Words; WIDTH], &[Words; WIDTH]),
    leave: &[[Words; WIDTH]],
) {
    // All elements of the past, the oldest first; each round looks at the last of them.
    let mut past = [NO_KEY; MOST_PAST];
    let mut first = sum_of_products(&enter[0], state, &NO_KEY);
    for (place, row) in past.iter_mut().zip(&enter[1..]) {
        *place = sum_of_products(row, state, &NO_KEY);
    }
    let newest = WIDTH - 1;
    let mut factors = *feedback;
    for (round, key) in keys.iter().enumerate() {
        let window = &mut past[round..round + WIDTH];
        // The S-box's last product is one of the sum's.
        factors[newest] = square(&square(&first));
        window[newest] = first;
        window[newest] = sum_of_products(&factors, window, key);
        first = sum_of_products(output, window, &NO_KEY);
    }
    let window = &past[keys.len()..keys.len() + newest];
    state[0] = first;
    for (element, row) in state[1..].iter_mut().zip(leave) {
        *element = sum_of_products(&row[..newest], window, &NO_KEY);
    }
}

static THREE: LazyLock<Constants<3>> = LazyLock::new(|| Constants::derive(false));
static NINE: LazyLock<Constants<9>> = LazyLock::new(|| Constants::derive(true));
static TWELVE: LazyLock<Constants<12>> = LazyLock::new(|| Constants::derive(true));

/// Hashes preimages, whose elements `node` finds by hash and element. On an error, which names
/// the first hash with an element that is not canonical and the first such element, `hashes` is of
/// no use.
pub(crate) fn hash<'n>(
    poseidon: &Poseidon,
    node: impl Fn(usize, usize) -> &'n [u8; 32],
    hashes: &mut [[u8; 32]],
) -> Result<(), (usize, usize)> {
    match poseidon.arity() {
        2 => hash_all(&THREE, node, hashes),
        8 => hash_all(&NINE, node, hashes),
        _ => hash_all(&TWELVE, node, hashes),
    }
}

fn hash_all<'n, const WIDTH: usize>(
    constants: &Constants<WIDTH>,
    node: impl Fn(usize, usize) -> &'n [u8; 32],
    hashes: &mut [[u8; 32]],
) -> Result<(), (usize, usize)> {
    for (i, hash) in hashes.iter_mut().enumerate() {
        *hash = constants.hash(|element| node(i, element)).map_err(|bad| (i, bad.index))?;
    }
    Ok(())
}
