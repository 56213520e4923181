//! Transforms by every kernel against sums of powers, and against each other.

use blstrs::Scalar;
use ff::{Field, PrimeField};
use proptest::prelude::*;

use super::{FrWords, Ntt, bit_reversed, scalar_of_words, words_of_scalar};
use crate::curve::CurveKernel;

fn random(count: usize, seed: u64) -> Vec<Scalar> {
    let mut value = Scalar::from(seed) + Scalar::ROOT_OF_UNITY;
    (0..count)
        .map(|i| {
            value = value.square() + Scalar::from(i as u64);
            value
        })
        .collect()
}

fn words(scalars: &[Scalar]) -> Vec<FrWords> {
    scalars.iter().map(|scalar| words_of_scalar(*scalar)).collect()
}

fn canonical(words: &FrWords) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (chunk, word) in bytes.chunks_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// A primitive root of unity of order `2^bits`.
fn root(bits: u32) -> Scalar {
    Scalar::ROOT_OF_UNITY.pow_vartime([1_u64 << (Scalar::S - bits)])
}

/// The polynomial's value, term by term.
fn value(coefficients: &[Scalar], at: Scalar) -> Scalar {
    coefficients.iter().rev().fold(Scalar::ZERO, |sum, c| sum * at + c)
}

fn bit_reverse(list: &[Scalar]) -> Vec<Scalar> {
    let bits = list.len().trailing_zeros();
    (0..list.len()).map(|i| list[bit_reversed(i, bits)]).collect()
}

/// Values that a kernel may leave unreduced.
fn same(words: &[FrWords], expected: &[Scalar], what: &str) {
    for (index, (words, expected)) in words.iter().zip(expected).enumerate() {
        // Adding zero makes blst reduce.
        assert_eq!(scalar_of_words(words) * Scalar::ONE, *expected, "{what} at {index}");
    }
}

/// The powers of the root of order `2^bits`.
fn points(bits: u32) -> Vec<Scalar> {
    let root = root(bits);
    std::iter::successors(Some(Scalar::ONE), |power| Some(power * root)).take(1 << bits).collect()
}

fn check_against_sums(bits: u32, coefficients: &[Scalar]) {
    check_against(bits, coefficients, |at| value(coefficients, at));
}

/// Transforms of a polynomial against `value`, its value at a point.
fn check_against(bits: u32, coefficients: &[Scalar], value: impl Fn(Scalar) -> Scalar) {
    let n = 1_u64 << bits;
    let points = points(bits);
    let shift = Scalar::MULTIPLICATIVE_GENERATOR;
    let values: Vec<_> = points.iter().map(|at| value(*at)).collect();
    let on_coset: Vec<_> = points.iter().map(|at| value(shift * at)).collect();
    let times_n: Vec<_> = coefficients.iter().map(|c| c * Scalar::from(n)).collect();
    for kernel in CurveKernel::available() {
        let ntt = Ntt::new(kernel, bits).expect("short");
        let what = |step: &str| format!("{step} of 2^{bits} by {}", kernel.name());
        let mut data = words(&values);
        ntt.interpolate(&mut data);
        same(&data, &bit_reverse(&times_n), &what("interpolate"));
        let mut data = words(&bit_reverse(coefficients));
        ntt.evaluate_on_coset(&mut data);
        same(&data, &on_coset, &what("evaluate_on_coset"));
        let mut data = words(&on_coset);
        ntt.interpolate_on_coset(&mut data);
        same(&data, &bit_reverse(&times_n), &what("interpolate_on_coset"));
    }
}

#[test]
fn transforms_are_sums_of_powers() {
    for bits in 0..=9 {
        check_against_sums(bits, &random(1 << bits, u64::from(bits)));
    }
}

#[test]
fn values_at_the_ends_of_the_field_are_transformed() {
    for value in [Scalar::ZERO, Scalar::ONE, -Scalar::ONE] {
        check_against_sums(7, &[value; 128]);
        let mut one = vec![Scalar::ZERO; 128];
        one[1] = value;
        check_against_sums(7, &one);
    }
}

/// At lengths whose levels are cut into parts for threads, where sums term by term take too long:
/// of a geometric series, `((c x)^n - 1) / (c x - 1)`, every coefficient and value is known.
#[test]
fn transforms_of_a_geometric_series_are_its_closed_form() {
    let factor = random(1, 11)[0];
    for bits in 12..=16 {
        let n = 1_usize << bits;
        let coefficients: Vec<_> =
            std::iter::successors(Some(Scalar::ONE), |power| Some(power * factor))
                .take(n)
                .collect();
        check_against(bits, &coefficients, |at| {
            let x = factor * at;
            let below = (x - Scalar::ONE).invert().expect("no root of unity");
            (x.pow_vartime([n as u64]) - Scalar::ONE) * below
        });
    }
}

#[test]
fn long_transforms_of_all_kernels_agree() {
    // Two passes, then three.
    for bits in [14, 19, 23] {
        let mut values = random(1 << 12, 5);
        while values.len() < 1 << bits {
            values.extend_from_within(..);
        }
        // Not periodic.
        values[1 << 11] = -Scalar::ONE;
        let mut results = Vec::new();
        for kernel in CurveKernel::available() {
            let ntt = Ntt::new(kernel, bits).expect("short");
            let mut data = words(&values);
            ntt.interpolate(&mut data);
            ntt.evaluate_on_coset(&mut data);
            ntt.interpolate_on_coset(&mut data);
            results.push(data);
        }
        let first = results.remove(0);
        for other in results {
            for (index, (a, b)) in first.iter().zip(&other).enumerate() {
                assert_eq!(
                    scalar_of_words(a) * Scalar::ONE,
                    scalar_of_words(b) * Scalar::ONE,
                    "{index} of 2^{bits}"
                );
            }
        }
    }
}

/// Schoolbook division by x^n - 1 of the product of two interpolated polynomials minus a third.
fn check_quotient(bits: u32, seed: u64) {
    let n = 1_usize << bits;
    let (a, b) = (random(n, seed), random(n, seed + 1));
    // Values of c make a b - c vanish on the domain, so that the division has no rest.
    let points = points(bits);
    let at = |list: &[Scalar]| points.iter().map(|x| value(list, *x)).collect::<Vec<_>>();
    let (a_values, b_values) = (at(&a), at(&b));
    let c_values: Vec<_> = a_values.iter().zip(&b_values).map(|(a, b)| a * b).collect();
    let mut product = vec![Scalar::ZERO; 2 * n];
    for (i, a) in a.iter().enumerate() {
        for (j, b) in b.iter().enumerate() {
            product[i + j] += a * b;
        }
    }
    // a b = q x^n + rest = q (x^n - 1) + (q + rest), so the upper half is the quotient.
    let expected = bit_reverse(&product[n..]);
    for kernel in CurveKernel::available() {
        let ntt = Ntt::new(kernel, bits).expect("short");
        let [mut a, mut b, mut c] = [words(&a_values), words(&b_values), words(&c_values)];
        for list in [&mut a, &mut b, &mut c] {
            ntt.interpolate(list);
        }
        ntt.evaluate_on_coset(&mut a);
        ntt.evaluate_on_coset(&mut b);
        ntt.multiply(&mut a, &b);
        ntt.interpolate_on_coset(&mut a);
        ntt.quotient(&mut a, &c);
        for (index, (h, expected)) in a.iter().zip(&expected).enumerate() {
            assert_eq!(canonical(h), expected.to_bytes_le(), "{index} by {}", kernel.name());
        }
    }
}

#[test]
fn the_quotient_is_that_of_long_division() {
    for bits in [0, 1, 3, 6, 8] {
        check_quotient(bits, 3);
    }
}

#[test]
fn a_length_without_roots_of_unity_is_refused() {
    let error = Ntt::new(CurveKernel::portable(), 33).err().expect("too long");
    assert!(error.to_string().contains("2^33"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn quotients_of_random_polynomials(seed in any::<u64>(), bits in 0_u32..8) {
        check_quotient(bits, seed >> 1);
    }
}
