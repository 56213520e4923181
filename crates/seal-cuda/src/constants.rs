//! The kernels' constants as bytes, in the order of `struct constants` in
//! `kernels/poseidon.cuh`.

use ff::Field;
use seal_poseidon::{Fr, Lean, LeanPartial, Poseidon, Reduction, element_to_bytes};

/// How the kernels reduce: eight words after a product, two after a dot product with small
/// integers.
const REDUCTION: Reduction = Reduction { bits: 256, shift: 64 };

/// A dot product with constants is reduced by one word more than a product, so that its result is
/// below the modulus; its constants make up for it.
const ONE_MORE_WORD: u64 = 1 << 32;

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
    put(&first_key);
    head.iter().for_each(|keys| put(keys));
    tail.iter().for_each(|keys| put(keys));
    put(&[last]);
    match partial {
        LeanPartial::Dense { rescale, keys } => {
            put(&rescale);
            put(&keys);
        }
        LeanPartial::Filter { enter, keys, feedback, output, leave } => {
            put(&keys);
            let more = |row: Vec<Fr>| -> Vec<Fr> {
                row.into_iter().map(|c| c * Fr::from(ONE_MORE_WORD)).collect()
            };
            put(&more(feedback));
            put(&more(output));
            // The factors of a product share what the reduction of one divides by: it is in the
            // lower triangle, and the upper one needs its own.
            let radix = Fr::from(2).pow_vartime([u64::from(REDUCTION.bits)]);
            for matrix in [turned(enter, keys.len()), leave] {
                for (diagonal, mut row) in triangles(matrix).into_iter().enumerate() {
                    row[diagonal + 1..].iter_mut().for_each(|element| *element *= radix);
                    put(&more(row));
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
