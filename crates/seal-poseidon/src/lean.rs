//! The constants of a third form of the permutation, the one with the fewest word
//! multiplications, for kernels that count them.
//!
//! Two facts about Filecoin's matrix are used that the sparse form does not know.
//!
//! **Its entries are small.** The Cauchy matrix is `1 / (i + j + width)`, so its multiple by the
//! least common multiple `L` of the denominators consists of integers of 8, 32 and 44 bits (widths
//! 3, 9, 12) that depend on `i + j` alone. A product with one takes an eighth to a quarter of the
//! word multiplications of a product in the field, and the reduction shrinks likewise. The state
//! is then a known multiple of the true one; the multiple goes into the keys, since an S-box only
//! raises it to the fifth power.
//!
//! **Partial rounds are a linear filter.** In a partial round one element passes an S-box and the
//! others are moved by a matrix `A` that is the same in every round. What the first element gets
//! to see of them is a linear recurrence over the past outputs of its S-box: with the coefficients
//! of the characteristic polynomial of `A`, a round is two dot products of `width - 1` and `width`
//! elements with the same coefficients in all rounds, one reduction each, where the sparse form
//! has a dot product and `width - 1` multiplications with a reduction each.
//!
//! Which one is cheaper for partial rounds depends on the width: the small matrix at 3 and 9 (in
//! words of 32 bits 982 against 1,464 word multiplications a round), the filter at 12 (2,840
//! against 1,848; the sparse form has 2,328).
//!
//! A kernel works on *stored* numbers `V` below the modulus, and its steps are, with
//! `R = 2^word_bits` a power above the modulus:
//! - `V⁵ R⁻⁴`, the S-box from Montgomery products;
//! - `(Σ e V) 2^-shift`, a dot product with small integers and the reduction that belongs to it;
//! - `(Σ c V) R⁻¹`, a dot product with constants of full size.

use ff::{Field, PrimeField};

use crate::constants::{Cheap, Plain};
use crate::matrix::{Matrix, apply, dot, inverse, multiply};
use crate::{Fr, Poseidon};

/// How a kernel reduces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reduction {
    /// `R` is 2 to this: 256 for 32-bit words, 260 for 52-bit words.
    pub bits: u32,
    /// By how many bits a dot product with small integers is reduced.
    pub shift: u32,
}

/// The constants, as stored numbers. Their use, in this order:
///
/// 1. The state is the domain tag and the preimage as plain numbers; add [`Lean::first_key`].
/// 2. For each of [`Lean::head`]: S-boxes, add it, multiply by the small matrix. With a
///    [`LeanPartial::Filter`] the last of them multiplies by its `enter` instead.
/// 3. The partial rounds, see [`LeanPartial`].
/// 4. For each of [`Lean::tail`]: S-boxes, add it, multiply by the small matrix.
/// 5. S-boxes, then row 1 of the small matrix; a Montgomery product with [`Lean::last`] makes it
///    the plain number that is the hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lean {
    /// Entry `(i, j)` of the small matrix is `small[i + j]`.
    pub small: Vec<u64>,
    /// The domain tag, a plain number that stays below 2^12.
    pub tag: u64,
    /// Added to the input.
    pub first_key: Vec<Fr>,
    /// Full rounds before the partial ones.
    pub head: Vec<Vec<Fr>>,
    /// The partial rounds.
    pub partial: LeanPartial,
    /// Full rounds after the partial ones but for the last.
    pub tail: Vec<Vec<Fr>>,
    /// Turns the last dot product into a plain number.
    pub last: Fr,
}

/// The partial rounds of [`Lean`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeanPartial {
    /// Each round: S-box of the first element, Montgomery product with `rescale`, add `key`,
    /// multiply the state by the small matrix.
    Dense {
        /// Makes the first element the same multiple as the others.
        rescale: Vec<Fr>,
        /// Added to the first element.
        keys: Vec<Fr>,
    },
    /// The state is the first element `x` and a window of the last `width - 1` values of `w`, the
    /// newest first: what `enter` makes of the state, in this order.
    ///
    /// Each round: `w₀ = S-box(x) + key + Σ feedback[i] w[i]`, then
    /// `x = output[0] w₀ + Σ output[i + 1] w[i]`, and `w₀` enters the window.
    ///
    /// `leave` makes of the window the elements from the second on.
    Filter {
        /// `width` rows.
        enter: Vec<Vec<Fr>>,
        /// For each round, added after the S-box.
        keys: Vec<Fr>,
        /// `width - 1` coefficients.
        feedback: Vec<Fr>,
        /// `width` coefficients.
        output: Vec<Fr>,
        /// `width - 1` rows.
        leave: Vec<Vec<Fr>>,
    },
}

impl Poseidon {
    /// The lean form of this permutation for a kernel that reduces like this.
    ///
    /// Derived anew at each call, in some ten milliseconds.
    pub fn lean(&self, reduction: Reduction) -> Lean {
        match self.arity() {
            2 => derive::<3>(reduction, false),
            8 => derive::<9>(reduction, false),
            _ => derive::<12>(reduction, true),
        }
    }
}

/// The lean form of the permutation of `WIDTH` elements, with the partial rounds as a filter or
/// with the small matrix.
pub(crate) fn derive<const WIDTH: usize>(reduction: Reduction, filter: bool) -> Lean {
    let plain = Plain::<WIDTH>::derive();
    let cheap = Cheap::derive(&plain);
    let radix = Fr::from(2).pow_vartime([u64::from(reduction.bits)]);
    let multiple = common_multiple(WIDTH as u64..3 * WIDTH as u64 - 1);
    let small = (WIDTH as u64..3 * WIDTH as u64 - 1).map(|sum| multiple / sum).collect();
    // What the small matrix multiplies the state by, beside the true matrix.
    let growth = Fr::from(multiple) * inverted(Fr::from(2).pow_vartime([reduction.shift.into()]));
    let through_s_box = |scale: Fr| scale.pow_vartime([5]) * inverted(radix.pow_vartime([4]));
    let scaled = |key: &[Fr], scale: Fr| key.iter().map(|key| *key * scale).collect::<Vec<_>>();

    // A stored number is the true one times `scale`.
    let mut scale = Fr::ONE;
    let mut head = Vec::new();
    for key in cheap.head.iter().chain([&cheap.pre_sparse_key]) {
        scale = through_s_box(scale);
        head.push(scaled(key, scale));
        scale *= growth;
    }
    let keys = cheap.partial.iter().map(|round| round.key);
    let partial = if filter {
        // The matrix of the last of these rounds is part of `enter`.
        let into = radix.square() * growth * inverted(scale);
        scale = radix;
        Filter::derive(&plain.mds).scaled(radix, into, keys.map(|key| key * radix).collect())
    } else {
        let (mut rescale, mut scaled_keys) = (Vec::new(), Vec::new());
        for key in keys {
            rescale.push(radix * scale * inverted(through_s_box(scale)));
            scaled_keys.push(key * scale);
            scale *= growth;
        }
        LeanPartial::Dense { rescale, keys: scaled_keys }
    };
    let mut tail = Vec::new();
    for key in &cheap.tail {
        scale = through_s_box(scale);
        tail.push(scaled(key, scale));
        scale *= growth;
    }
    let last = radix * inverted(through_s_box(scale) * growth);
    let tag = (1 << (WIDTH - 1)) - 1;
    Lean { small, tag, first_key: cheap.first_key.to_vec(), head, partial, tail, last }
}

/// The partial rounds as a filter, in true numbers.
///
/// With the matrix `[[m, v], [u, A]]` the elements from the second on move by `x' = A x + u y`,
/// where `y` is what leaves the S-box, and the first becomes `m y + v x`. By Cayley and Hamilton
/// `A^n = Σ a[i] A^(n-1-i)`; with `w = y + Σ a[i] w[i]` the elements are `x = Σ Q[i] w[i]`, where
/// `Q[0] = u` and `Q[i] = A Q[i-1] - a[i-1] u`.
struct Filter<const WIDTH: usize> {
    feedback: Vec<Fr>,
    output: Vec<Fr>,
    /// From the window to the elements from the second on: `Q`, bordered by the identity.
    leave: Matrix<WIDTH>,
    /// From the state before the matrix of a round to what is after it: first element, window.
    enter: Matrix<WIDTH>,
}

impl<const WIDTH: usize> Filter<WIDTH> {
    fn derive(mds: &Matrix<WIDTH>) -> Self {
        // Vectors without the first element are kept with a zero in its place.
        let mut inner = *mds;
        inner[0] = [Fr::ZERO; WIDTH];
        for row in &mut inner {
            row[0] = Fr::ZERO;
        }
        let feedback = characteristic(&inner);
        let mut u = mds.map(|row| row[0]);
        u[0] = Fr::ZERO;
        let mut columns = vec![u];
        for coefficient in &feedback[..WIDTH - 2] {
            let mut next = apply(&inner, &columns[columns.len() - 1]);
            for (element, u) in next.iter_mut().zip(&u) {
                *element -= *coefficient * u;
            }
            columns.push(next);
        }
        let mut output = vec![mds[0][0]];
        for (column, coefficient) in columns.iter().zip(&feedback) {
            output.push(dot(&mds[0][1..], &column[1..]) - mds[0][0] * coefficient);
        }
        let mut leave = [[Fr::ZERO; WIDTH]; WIDTH];
        leave[0][0] = Fr::ONE;
        for (i, column) in columns.iter().enumerate() {
            for row in 1..WIDTH {
                leave[row][i + 1] = column[row];
            }
        }
        let enter = multiply(&inverse(&leave), mds);
        Self { feedback, output, leave, enter }
    }

    /// As stored numbers: constants in Montgomery form, and `enter` times `into`.
    fn scaled(&self, radix: Fr, into: Fr, keys: Vec<Fr>) -> LeanPartial {
        let by = |factor: Fr, row: &[Fr]| row.iter().map(|c| *c * factor).collect::<Vec<_>>();
        LeanPartial::Filter {
            enter: self.enter.iter().map(|row| by(into, row)).collect(),
            keys,
            feedback: by(radix, &self.feedback),
            output: by(radix, &self.output),
            leave: self.leave[1..].iter().map(|row| by(radix, &row[1..])).collect(),
        }
    }
}

/// The `a` of `A^n = Σ a[i] A^(n-1-i)` for the matrix without its first row and column, which are
/// zero, by the method of Faddeev and LeVerrier.
fn characteristic<const WIDTH: usize>(inner: &Matrix<WIDTH>) -> Vec<Fr> {
    let mut power = *inner;
    (1..WIDTH)
        .map(|n| {
            let trace: Fr = (0..WIDTH).map(|i| power[i][i]).sum();
            let coefficient = trace * inverted(Fr::from(n as u64));
            for (i, row) in power.iter_mut().enumerate().skip(1) {
                row[i] -= coefficient;
            }
            power = multiply(inner, &power);
            coefficient
        })
        .collect()
}

/// The least common multiple.
fn common_multiple(numbers: impl Iterator<Item = u64>) -> u64 {
    let divisor = |mut a: u64, mut b: u64| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    numbers.fold(1, |multiple, number| multiple / divisor(multiple, number) * number)
}

fn inverted<F: PrimeField>(number: F) -> F {
    Option::from(number.invert()).expect("products of powers of two and divisors are not zero")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The hash by the letter of the documentation of [`Lean`], on stored numbers.
    fn hash(lean: &Lean, reduction: Reduction, preimage: &[Fr]) -> Fr {
        let unit = inverted(Fr::from(2).pow_vartime([u64::from(reduction.bits)]));
        let unshift = inverted(Fr::from(2).pow_vartime([u64::from(reduction.shift)]));
        let s_box = |v: Fr| v.pow_vartime([5]) * unit.pow_vartime([4]);
        let full = |row: &[Fr], state: &[Fr]| dot(row, state) * unit;
        let small_row = |i: usize, state: &[Fr]| {
            let row = lean.small[i..].iter().map(|&entry| Fr::from(entry));
            row.zip(state).map(|(entry, v)| entry * v).sum::<Fr>() * unshift
        };
        let small = |state: &[Fr]| (0..state.len()).map(|i| small_row(i, state)).collect();
        let add = |state: &mut Vec<Fr>, key: &[Fr]| {
            state.iter_mut().zip(key).for_each(|(v, key)| *v += key);
        };

        let mut state = vec![Fr::from(lean.tag)];
        state.extend(preimage);
        add(&mut state, &lean.first_key);
        for (round, key) in lean.head.iter().enumerate() {
            state = state.into_iter().map(s_box).collect();
            add(&mut state, key);
            state = match &lean.partial {
                LeanPartial::Filter { enter, .. } if round + 1 == lean.head.len() => {
                    enter.iter().map(|row| full(row, &state)).collect()
                }
                _ => small(&state),
            };
        }
        match &lean.partial {
            LeanPartial::Dense { rescale, keys } => {
                for (rescale, key) in rescale.iter().zip(keys) {
                    state[0] = s_box(state[0]) * rescale * unit + key;
                    state = small(&state);
                }
            }
            LeanPartial::Filter { keys, feedback, output, leave, .. } => {
                for key in keys {
                    let mut first = full(&output[1..], &state[1..]);
                    let newest = s_box(state[0]) + key + full(feedback, &state[1..]);
                    first += output[0] * newest * unit;
                    state.pop();
                    state[0] = newest;
                    state.insert(0, first);
                }
                let rest: Vec<_> = leave.iter().map(|row| full(row, &state[1..])).collect();
                state.splice(1.., rest);
            }
        }
        for key in &lean.tail {
            state = state.into_iter().map(s_box).collect();
            add(&mut state, key);
            state = small(&state);
        }
        state = state.into_iter().map(s_box).collect();
        small_row(1, &state) * lean.last * unit
    }

    fn equals_the_cheap_form(poseidon: &Poseidon) {
        for reduction in [(256, 32), (256, 64), (260, 52)] {
            let reduction = Reduction { bits: reduction.0, shift: reduction.1 };
            let lean = poseidon.lean(reduction);
            let preimages = prop::collection::vec(any::<[u64; 3]>(), poseidon.arity());
            let config = ProptestConfig::with_cases(8);
            proptest::test_runner::TestRunner::new(config)
                .run(&preimages, |words| {
                    let preimage: Vec<Fr> = words
                        .into_iter()
                        .map(|[a, b, c]| {
                            Option::from(Fr::from_u64s_le(&[a, b, c, a >> 2])).unwrap()
                        })
                        .collect();
                    prop_assert_eq!(hash(&lean, reduction, &preimage), poseidon.hash(&preimage));
                    Ok(())
                })
                .expect("both forms agree");
            for corner in [Fr::ZERO, -Fr::ONE] {
                let preimage = vec![corner; poseidon.arity()];
                assert_eq!(hash(&lean, reduction, &preimage), poseidon.hash(&preimage));
            }
        }
    }

    #[test]
    fn the_lean_form_equals_the_cheap_one() {
        equals_the_cheap_form(Poseidon::arity2());
        equals_the_cheap_form(Poseidon::arity8());
        equals_the_cheap_form(Poseidon::arity11());
    }

    #[test]
    fn small_matrices_have_8_32_and_44_bits() {
        for (poseidon, bits) in
            [(Poseidon::arity2(), 8), (Poseidon::arity8(), 32), (Poseidon::arity11(), 44)]
        {
            let lean = poseidon.lean(Reduction { bits: 256, shift: 32 });
            let largest = lean.small.iter().max().expect("entries");
            assert_eq!(u64::BITS - largest.leading_zeros(), bits);
            // The small matrix is a multiple of the true one.
            let width = poseidon.arity() as u64 + 1;
            for (sum, entry) in (width..).zip(&lean.small) {
                assert_eq!(entry * sum, lean.small[0] * width);
            }
        }
    }
}
