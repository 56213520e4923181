//! The kernels' constants as bytes, in the order of `struct constants` in
//! `kernels/poseidon.cuh`.

use ff::Field;
use seal_poseidon::{Fr, Lean, LeanPartial, Poseidon, Reduction, element_to_bytes};

/// How the kernels reduce: eight words after a product, two after a dot product with small
/// integers.
const REDUCTION: Reduction = Reduction { bits: 256, shift: 64 };

/// A dot product is reduced by one word more than a product, so that its result is hardly above the
/// modulus; its constants make up for it.
const ONE_MORE_WORD: u64 = 1 << 32;

/// Full rounds of a permutation.
const FULL_ROUNDS: usize = 8;

/// The constants for one arity.
pub(crate) fn table(poseidon: &Poseidon) -> Vec<u8> {
    let Lean { small, tag, mut first_key, head, partial, tail, last } = poseidon.lean(REDUCTION);
    first_key[0] += Fr::from(tag);
    let mut table = Vec::new();
    let mut put = |elements: &[Fr]| {
        for element in elements {
            table.extend(element_to_bytes(element));
        }
    };
    // A key is added to the sum that is reduced, and is so divided with it.
    let radix = Fr::from(2).pow_vartime([u64::from(REDUCTION.bits)]);
    let before_reduction =
        |keys: Vec<Fr>| -> Vec<Fr> { keys.into_iter().map(|key| key * radix).collect() };
    let width = first_key.len();
    put(&first_key);
    let full: Vec<_> = head.into_iter().chain(tail).collect();
    assert_eq!(full.len() + 1, FULL_ROUNDS, "full rounds with keys");
    full.into_iter().for_each(|keys| put(&before_reduction(keys)));
    put(&vec![Fr::ZERO; width]);
    put(&[last]);
    match partial {
        LeanPartial::Dense { rescale, keys } => {
            put(&rescale);
            put(&before_reduction(keys));
        }
        LeanPartial::Filter { enter, keys, feedback, output, leave } => {
            // The window is kept divided by 2^32: the product that ends an S-box is a term of the
            // sum that makes its newest element, and is reduced by that word more.
            let more = Fr::from(ONE_MORE_WORD);
            let less = Option::<Fr>::from(more.invert()).expect("a power of two");
            let rounds = keys.len();
            let scaled = |row: Vec<Fr>, factor: Fr| -> Vec<Fr> {
                row.into_iter().map(|c| c * factor).collect()
            };
            put(&before_reduction(keys));
            let feedback = scaled(feedback, more);
            let output = scaled(output, more * more);
            put(&output[..1]);
            for (to_newest, to_output) in feedback.into_iter().zip(&output[1..]) {
                put(&[to_newest, *to_output]);
            }
            let mut enter = turned(enter, rounds);
            for row in &mut enter[1..] {
                row.iter_mut().for_each(|element| *element *= less);
            }
            let leave = leave.into_iter().map(|row| scaled(row, more)).collect();
            // The factors of a product share what the reduction of one divides by: it is in the
            // lower triangle, and the upper one needs its own.
            for matrix in [enter, leave] {
                for (diagonal, mut row) in triangles(matrix).into_iter().enumerate() {
                    row[diagonal + 1..].iter_mut().for_each(|element| *element *= radix);
                    put(&scaled(row, more));
                }
            }
        }
    }
    let words = if small.iter().all(|&integer| u32::try_from(integer).is_ok()) { 4 } else { 8 };
    for integer in small {
        table.extend(&integer.to_le_bytes()[..words]);
    }
    // The table is as aligned as an element.
    table.resize(table.len().next_multiple_of(4), 0);
    table
}

/// `enter` with the window turned by `rounds`, so that the newest element of the ring, which moves
/// one place down each round, is in the first place after the last round.
fn turned(enter: Vec<Vec<Fr>>, rounds: usize) -> Vec<Vec<Fr>> {
    let mut rows = enter;
    let window = rows.len() - 1;
    rows[1..].rotate_right(rounds % window);
    rows
}

/// A matrix as lower times upper triangle in one, the diagonal of the upper one being of ones.
///
/// # Panics
/// When the matrix has no such form. The two that are taken here have: the tests run them.
fn triangles(mut matrix: Vec<Vec<Fr>>) -> Vec<Vec<Fr>> {
    let size = matrix.len();
    for k in 0..size {
        let pivot = Option::<Fr>::from(matrix[k][k].invert()).expect("a leading minor is not zero");
        for element in &mut matrix[k][k + 1..] {
            *element *= pivot;
        }
        for i in k + 1..size {
            for j in k + 1..size {
                let product = matrix[i][k] * matrix[k][j];
                matrix[i][j] -= product;
            }
        }
    }
    matrix
}
