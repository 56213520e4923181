//! The constants of a permutation, in the plain form of the specification and in the form that
//! is cheap to compute.

use ff::Field;

use crate::grain::round_constants;
use crate::matrix::{Matrix, apply, dot, identity, inverse, multiply};
use crate::{Fr, RoundNumbers};

/// The plain form: every round adds its key, applies the S-box to all elements (full rounds) or
/// to the first (partial rounds) and multiplies by the MDS matrix.
pub(crate) struct Plain<const WIDTH: usize> {
    pub(crate) rounds: RoundNumbers,
    /// What each round adds before its S-boxes.
    pub(crate) keys: Vec<[Fr; WIDTH]>,
    pub(crate) mds: Matrix<WIDTH>,
}

impl<const WIDTH: usize> Plain<WIDTH> {
    pub(crate) fn derive() -> Self {
        let rounds = RoundNumbers::for_width(WIDTH);
        let keys = round_constants(WIDTH, rounds).as_chunks().0.to_vec();
        Self { rounds, keys, mds: cauchy() }
    }
}

/// The cheap form, equal to the plain one on every input.
///
/// Keys are moved back through the matrix, so that they are added after the S-boxes of the round
/// before: `M s + k = M (s + M⁻¹ k)`. In partial rounds all elements but the first pass the
/// S-box layer unchanged, so their part of a key moves on to the first half's last full round and
/// one element per round stays.
///
/// The matrix of a partial round is split, `M = S D`, into a sparse `S` (first row, first column
/// and a diagonal of ones) and a `D` that leaves the first element alone. `D` commutes with the
/// S-box and the key of its round and moves back into the matrix of the round before.
pub(crate) struct Cheap<const WIDTH: usize> {
    /// Added to the input.
    pub(crate) first_key: [Fr; WIDTH],
    /// The first half of the full rounds but for the last of them: what is added after their
    /// S-boxes.
    pub(crate) head: Vec<[Fr; WIDTH]>,
    /// The last full round before the partial ones: what is added after its S-boxes.
    pub(crate) pre_sparse_key: [Fr; WIDTH],
    /// Its matrix.
    pub(crate) pre_sparse: Matrix<WIDTH>,
    /// The partial rounds.
    pub(crate) partial: Vec<Partial<WIDTH>>,
    /// The second half of the full rounds but for the last of them, which adds nothing.
    pub(crate) tail: Vec<[Fr; WIDTH]>,
    /// The matrix of the other full rounds.
    pub(crate) mds: Matrix<WIDTH>,
}

/// A partial round of the cheap form.
pub(crate) struct Partial<const WIDTH: usize> {
    /// Added to the first element after its S-box.
    pub(crate) key: Fr,
    /// First row of the sparse matrix.
    pub(crate) row: [Fr; WIDTH],
    /// First column of the sparse matrix; its first element is that of `row`.
    pub(crate) column: [Fr; WIDTH],
}

impl<const WIDTH: usize> Cheap<WIDTH> {
    pub(crate) fn derive(plain: &Plain<WIDTH>) -> Self {
        let half = plain.rounds.full / 2;
        let partial_end = half + plain.rounds.partial;
        let mds_inverse = inverse(&plain.mds);
        let moved_back = |round: usize| apply(&mds_inverse, &plain.keys[round]);

        let mut partial = Vec::with_capacity(plain.rounds.partial);
        let mut key = plain.keys[partial_end];
        let mut matrix = plain.mds;
        for round in (half..partial_end).rev() {
            let moved = apply(&mds_inverse, &key);
            let (row, column, rest) = split(&matrix);
            partial.push(Partial { key: moved[0], row, column });
            key = plain.keys[round];
            for (element, moved) in key.iter_mut().zip(moved).skip(1) {
                *element += moved;
            }
            matrix = multiply(&rest, &plain.mds);
        }
        partial.reverse();

        Self {
            first_key: plain.keys[0],
            head: (1..half).map(moved_back).collect(),
            pre_sparse_key: apply(&mds_inverse, &key),
            pre_sparse: matrix,
            partial,
            tail: (partial_end + 1..plain.rounds.total()).map(moved_back).collect(),
            mds: plain.mds,
        }
    }
}

/// The MDS matrix of Filecoin: a Cauchy matrix, `1 / (i + j + WIDTH)`.
fn cauchy<const WIDTH: usize>() -> Matrix<WIDTH> {
    let mut matrix = [[Fr::ZERO; WIDTH]; WIDTH];
    for (i, row) in matrix.iter_mut().enumerate() {
        for (j, element) in row.iter_mut().enumerate() {
            let sum = Fr::from((i + j + WIDTH) as u64);
            *element = Option::from(sum.invert()).expect("a small positive number is not zero");
        }
    }
    matrix
}

/// Splits a matrix into sparse times rest: first row and first column of the sparse one, and the
/// rest, which leaves the first element alone.
///
/// With `M = [[m, v], [w, A]]` the sparse matrix is `[[m, v A⁻¹], [w, 1]]` and the rest
/// `[[1, 0], [0, A]]`.
fn split<const WIDTH: usize>(matrix: &Matrix<WIDTH>) -> ([Fr; WIDTH], [Fr; WIDTH], Matrix<WIDTH>) {
    let mut rest = *matrix;
    rest[0] = identity()[0];
    for row in &mut rest[1..] {
        row[0] = Fr::ZERO;
    }
    let rest_inverse = inverse(&rest);
    let mut row = [matrix[0][0]; WIDTH];
    for (j, element) in row.iter_mut().enumerate().skip(1) {
        let column: [Fr; WIDTH] = std::array::from_fn(|i| rest_inverse[i][j]);
        *element = dot(&matrix[0][1..], &column[1..]);
    }
    (row, matrix.map(|row| row[0]), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_matrix_multiplies_to_the_whole() {
        let matrix: Matrix<9> = cauchy();
        let (row, column, rest) = split(&matrix);
        let mut sparse = identity();
        sparse[0] = row;
        for (i, element) in column.into_iter().enumerate() {
            sparse[i][0] = element;
        }
        assert_eq!(multiply(&sparse, &rest), matrix);
    }
}
