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

/// The modulus as words, lowest first.
const MODULUS: [u32; 8] = [
    0x0000_0001,
    0xffff_ffff,
    0xfffe_5bfe,
    0x53bd_a402,
    0x09a1_d805,
    0x3339_d808,
    0x299d_7d48,
    0x73ed_a753,
];

fn node(words: [u32; 8]) -> Node {
    let mut bytes = [0; 32];
    for (part, word) in bytes.chunks_exact_mut(4).zip(words) {
        part.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// So many hundredths of the modulus, or the largest number.
fn hundredths(factor: u64) -> Node {
    let mut words = [0; 8];
    let mut above = 0;
    for (word, of_modulus) in words.iter_mut().zip(MODULUS).rev() {
        let value = (u128::from(above) << 32) + u128::from(of_modulus) * u128::from(factor);
        *word = (value / 100) as u64;
        above = (value % 100) as u64;
    }
    let mut carry = 0;
    let words = words.map(|word| {
        carry += word;
        let low = carry as u32;
        carry >>= 32;
        low
    });
    if carry == 0 { node(words) } else { [0xff; 32] }
}

fn below(a: &Node, b: &Node) -> bool {
    a.iter().rev().lt(b.iter().rev())
}

/// A number in units of the modulus, nearly.
fn in_moduli(number: &Node) -> f64 {
    let value = |bytes: &Node| bytes.iter().rev().fold(0.0, |sum, &b| sum * 256.0 + f64::from(b));
    value(number) / value(&node(MODULUS))
}

/// 2^256 in units of the modulus.
const RADIX: f64 = 2.208_260_830_025_09;

/// Numbers up to `highest`: it, zero and one, words of ones and zeros, the modulus and its
/// neighbours, and random ones.
fn operands(count: usize, highest: &Node, seed: u64) -> Vec<Node> {
    let mut numbers = Numbers(seed);
    (0..count)
        .map(|i| {
            let mut bytes = match i % 16 {
                0 | 8 => *highest,
                1 => [0; 32],
                2 => node([1, 0, 0, 0, 0, 0, 0, 0]),
                3 => [0xff; 32],
                4..8 => {
                    let pattern = numbers.word();
                    std::array::from_fn(
                        |byte| if pattern >> (byte / 4) & 1 == 1 { 0xff } else { 0 },
                    )
                }
                9 => node(MODULUS),
                10 => {
                    let mut words = MODULUS;
                    words[0] = (numbers.word() % 4) as u32;
                    node(words)
                }
                _ => numbers.bytes(),
            };
            if below(highest, &bytes) {
                // As it is in its lower words, and at the bound in its highest.
                bytes[28..].copy_from_slice(&highest[28..]);
                if below(highest, &bytes) {
                    let word =
                        u32::from_le_bytes([highest[28], highest[29], highest[30], highest[31]]);
                    bytes[28..].copy_from_slice(&word.saturating_sub(1).to_le_bytes());
                }
            }
            bytes
        })
        .collect()
}

/// Runs an operation on numbers up to `highest` and compares each result with what `expected` says
/// of pair `i`: the element, and if it is lazy the bound of its number in units of the modulus.
fn check(
    operation: Operation,
    highest: (Node, Node),
    expected: impl Fn(&[Node], &[Node], usize) -> (Fr, Option<f64>),
) {
    let Some(tested) = device("the field's operations on a device") else { return };
    for (seed, count) in [(1, 1), (2, 1000), (3, 4001)] {
        let a = operands(count, &highest.0, seed);
        let mut b = operands(count, &highest.1, seed + 100);
        // Not each corner with the same corner, but for the largest with itself.
        b.rotate_left((count / 3) & !7);
        let results = field(&tested.device, operation, &a, &b).expect("the device works");
        for i in 0..count {
            let (wanted, bound) = expected(&a, &b, i);
            let what = format!("{operation:?} of pair {i}: {:02x?} {:02x?}", a[i], b[i]);
            assert_eq!(residue(&results[i]), wanted, "{what}");
            if let Some(bound) = bound {
                let got = in_moduli(&results[i]);
                assert!(got <= bound + 1e-9, "{what}: {got} above {bound}");
            } else {
                assert_eq!(results[i], element_to_bytes(&wanted), "{what}");
            }
        }
    }
}

/// What a lazy product of numbers is below.
fn lazy(a: &Node, b: &Node) -> Option<f64> {
    Some(1.0 + in_moduli(a) * in_moduli(b) / RADIX)
}

/// Numbers that the kernels have nothing above.
fn largest() -> Node {
    hundredths(220)
}

#[test]
fn bounds_are_multiples_of_the_modulus() {
    assert_eq!(hundredths(100), node(MODULUS));
    assert_eq!(hundredths(300), [0xff; 32]);
    assert!((in_moduli(&hundredths(220)) - 2.2).abs() < 1e-12);
    assert!((in_moduli(&[0xff; 32]) - RADIX).abs() < 1e-6);
    assert!(below(&hundredths(110), &hundredths(111)) && !below(&[1; 32], &[1; 32]));
}

#[test]
fn products_are_those_of_blst() {
    let product = |a: &[Node], b: &[Node], i: usize| {
        let bound = lazy(&a[i], &b[i]);
        (halved(residue(&a[i]) * residue(&b[i]), 256), bound)
    };
    for (a, b) in [(100, 100), (220, 120), (120, 220), (163, 163)] {
        check(Operation::Multiply, (hundredths(a), hundredths(b)), product);
    }
}

#[test]
fn products_with_a_summand_are_those_of_blst() {
    check(Operation::MultiplyAdd, (largest(), hundredths(100)), |a, b, i| {
        let bound = lazy(&a[i], &b[i]);
        (halved(residue(&a[i]) * residue(&b[i]) + residue(&b[i]), 256), bound)
    });
}

#[test]
fn squares_are_those_of_blst() {
    let square = |a: &[Node], i: usize| halved(residue(&a[i]).square(), 256);
    for highest in [100, 110] {
        let highest = (hundredths(highest), [0; 32]);
        check(Operation::Square, highest, |a, _, i| (square(a, i), None));
        check(Operation::SquareLazy, highest, |a, _, i| (square(a, i), lazy(&a[i], &a[i])));
    }
}

#[test]
fn fifth_powers_are_those_of_blst() {
    let fifth = |a: &[Node], b: &[Node], i: usize| {
        (
            halved(residue(&a[i]).pow_vartime([5]), 4 * 256) + halved(residue(&b[i]), 256),
            Some(1.724),
        )
    };
    check(Operation::Quintic, (hundredths(110), hundredths(100)), fifth);
}

#[test]
fn sums_are_those_of_blst() {
    let mut highest = MODULUS;
    highest[0] -= 1;
    check(Operation::Add, (node(highest), node(highest)), |a, b, i| {
        (residue(&a[i]) + residue(&b[i]), None)
    });
}

#[test]
fn subtraction_happens_where_a_number_is_not_below_the_modulus() {
    check(Operation::Subtract, (hundredths(199), [0; 32]), |a, _, i| (residue(&a[i]), None));
}

#[test]
fn sums_of_products_are_those_of_blst() {
    check(Operation::Dot, (largest(), hundredths(100)), |a, b, i| {
        let pairs = (i..i + 12).map(|j| j % a.len());
        let sum: Fr = pairs.map(|j| residue(&a[j]) * residue(&b[j])).sum();
        (residue(&a[i]) + halved(sum + residue(&b[i]), 288), Some(RADIX))
    });
    // Nothing added: the sum is hardly above the modulus.
    check(Operation::DotAlone, (largest(), hundredths(100)), |a, b, i| {
        let pairs = (i..i + 12).map(|j| j % a.len());
        let sum: Fr = pairs.map(|j| residue(&a[j]) * residue(&b[j])).sum();
        (halved(sum + residue(&b[i]), 288), Some(1.0 + 1e-8))
    });
}

#[test]
fn sums_of_products_with_small_integers_are_those_of_blst() {
    for (operation, bytes) in [(Operation::SmallDot1, 4), (Operation::SmallDot2, 8)] {
        // Two words of all ones are more than any integer of the matrices has: with 44 bits the
        // sums stay below the bound, so numbers are kept as much smaller here.
        let mut highest = [0xff; 32];
        if bytes == 8 {
            highest[29..].copy_from_slice(&[0x0f, 0, 0]);
        }
        check(operation, (highest, [0xff; 32]), |a, b, i| {
            let pairs = (i..i + 12).map(|j| j % a.len());
            let low = |node: &Node| {
                let mut low = [0; 32];
                low[..bytes].copy_from_slice(&node[..bytes]);
                residue(&low)
            };
            let sum = pairs.map(|j| residue(&a[j]) * low(&b[j])).sum();
            (halved(sum, 64), Some(1.0 + 1e-4))
        });
    }
}
