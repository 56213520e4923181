//! The field's operations against blst, which is what `Fr` computes with: random numbers, and those
//! around which carries and comparisons turn.

use ff::Field;
use seal_cuda::Node;
use seal_cuda::check::{Operation, field};
use seal_poseidon::{Fr, element_to_bytes};

use crate::support::{Numbers, device};

/// A number of 256 bits as an element: its residue.
fn residue(bytes: &Node) -> Fr {
    let (words, _) = bytes.as_chunks::<8>();
    let value = |word: &[u8; 8]| Fr::from(u64::from_le_bytes(*word));
    words.iter().rev().fold(Fr::ZERO, |sum, word| sum * power_of_two(64) + value(word))
}

fn power_of_two(exponent: u64) -> Fr {
    Fr::from(2).pow_vartime([exponent])
}

fn halved(element: Fr, times: u64) -> Fr {
    element * Option::<Fr>::from(power_of_two(times).invert()).expect("not zero")
}

/// Numbers whose highest byte is at most `highest`: all ones, zero, words of ones and zeros, and
/// random ones.
fn operands(count: usize, highest: u8, seed: u64) -> Vec<Node> {
    let mut numbers = Numbers(seed);
    (0..count)
        .map(|i| {
            let mut bytes = match i % 8 {
                0 => [0xff; 32],
                1 => [0; 32],
                2 | 3 => {
                    let pattern = numbers.word();
                    std::array::from_fn(
                        |byte| if pattern >> (byte / 4) & 1 == 1 { 0xff } else { 0 },
                    )
                }
                4 => numbers.node(),
                _ => numbers.bytes(),
            };
            bytes[31] = bytes[31].min(highest);
            bytes
        })
        .collect()
}

/// The highest byte of the modulus, and of twice the modulus.
const P: u8 = 0x73;
const TWICE_P: u8 = 0xe7;

/// Runs an operation and compares each result with what `expected` says of pair `i`. Results must
/// be below the modulus, unless a `lazy` bound of their highest byte is given.
fn check(
    operation: Operation,
    highest: (u8, u8),
    lazy: Option<u8>,
    expected: impl Fn(&[Node], &[Node], usize) -> Fr,
) {
    let Some(tested) = device("the field's operations on a device") else { return };
    for (seed, count) in [(1, 1), (2, 1000), (3, 3001)] {
        let a = operands(count, highest.0, seed);
        let mut b = operands(count, highest.1, seed + 100);
        // Not each corner with the same corner.
        b.rotate_left(count / 3);
        let results = field(&tested.device, operation, &a, &b).expect("the device works");
        for i in 0..count {
            let wanted = expected(&a, &b, i);
            let what = format!("{operation:?} of pair {i}: {:02x?} {:02x?}", a[i], b[i]);
            if let Some(bound) = lazy {
                assert_eq!(residue(&results[i]), wanted, "{what}");
                assert!(results[i][31] <= bound, "{what}");
            } else {
                assert_eq!(results[i], element_to_bytes(&wanted), "{what}");
            }
        }
    }
}

#[test]
fn products_are_those_of_blst() {
    // One factor below the modulus and one of any size: the result is canonical.
    let product = |a: &[Node], b: &[Node], i: usize| halved(residue(&a[i]) * residue(&b[i]), 256);
    check(Operation::Multiply, (P - 1, 0xff), None, product);
    check(Operation::Multiply, (P - 1, P - 1), None, product);
}

#[test]
fn squares_are_those_of_blst() {
    let square = |a: &[Node], _: &[Node], i: usize| halved(residue(&a[i]).square(), 256);
    check(Operation::Square, (P - 1, 0), None, square);
    // Up to 1.4 times the modulus.
    check(Operation::Square, (0xa2, 0), None, square);
}

#[test]
fn fifth_powers_are_those_of_blst() {
    let quintic =
        |a: &[Node], _: &[Node], i: usize| halved(residue(&a[i]).pow_vartime([5]), 4 * 256);
    check(Operation::Quintic, (P, 0), None, quintic);
}

#[test]
fn sums_are_those_of_blst() {
    check(Operation::Add, (P - 1, P - 1), None, |a, b, i| residue(&a[i]) + residue(&b[i]));
}

#[test]
fn subtraction_happens_where_a_number_is_not_below_the_modulus() {
    check(Operation::Subtract, (TWICE_P - 1, 0), None, |a, _, i| residue(&a[i]));
}

#[test]
fn sums_of_products_are_those_of_blst() {
    check(Operation::Dot, (TWICE_P - 1, P - 1), Some(TWICE_P), |a, b, i| {
        let pairs = (i..i + 12).map(|j| j % a.len());
        let sum: Fr = pairs.map(|j| residue(&a[j]) * residue(&b[j])).sum();
        residue(&a[i]) + halved(sum, 288)
    });
}

#[test]
fn sums_of_products_with_small_integers_are_those_of_blst() {
    for (operation, bytes) in [(Operation::SmallDot1, 4), (Operation::SmallDot2, 8)] {
        // Two words of all ones are more than any integer of the matrices has: with 44 bits the
        // sums stay below the bound, so numbers are kept as much smaller here.
        let highest = if bytes == 8 { 0 } else { 0xff };
        check(operation, (highest, 0xff), Some(P), |a, b, i| {
            let pairs = (i..i + 12).map(|j| j % a.len());
            let low = |node: &Node| {
                let mut low = [0; 32];
                low[..bytes].copy_from_slice(&node[..bytes]);
                residue(&low)
            };
            halved(pairs.map(|j| residue(&a[j]) * low(&b[j])).sum(), 64)
        });
    }
}
