//! Square matrices over the field: as much linear algebra as deriving the constants takes.

use ff::Field;

use crate::Fr;

/// A square matrix by rows; vectors are columns, so a matrix stands to their left.
pub(crate) type Matrix<const N: usize> = [[Fr; N]; N];

/// The identity.
pub(crate) fn identity<const N: usize>() -> Matrix<N> {
    let mut matrix = [[Fr::ZERO; N]; N];
    for (i, row) in matrix.iter_mut().enumerate() {
        row[i] = Fr::ONE;
    }
    matrix
}

/// `matrix * vector`.
#[inline]
pub(crate) fn apply<const N: usize>(matrix: &Matrix<N>, vector: &[Fr; N]) -> [Fr; N] {
    let mut product = [Fr::ZERO; N];
    for (element, row) in product.iter_mut().zip(matrix) {
        *element = dot(row, vector);
    }
    product
}

/// The sum of products.
#[inline]
pub(crate) fn dot(left: &[Fr], right: &[Fr]) -> Fr {
    let mut pairs = left.iter().zip(right);
    let first = pairs.next().map_or(Fr::ZERO, |(l, r)| l * r);
    pairs.fold(first, |sum, (l, r)| sum + l * r)
}

/// `left * right`.
pub(crate) fn multiply<const N: usize>(left: &Matrix<N>, right: &Matrix<N>) -> Matrix<N> {
    let mut product = [[Fr::ZERO; N]; N];
    for (i, row) in product.iter_mut().enumerate() {
        for (j, element) in row.iter_mut().enumerate() {
            *element = (0..N).map(|k| left[i][k] * right[k][j]).sum();
        }
    }
    product
}

/// The inverse, by elimination.
///
/// # Panics
/// When there is none. The matrices inverted here are Cauchy matrices, their minors and products
/// of such, whose determinants are not zero.
pub(crate) fn inverse<const N: usize>(matrix: &Matrix<N>) -> Matrix<N> {
    let mut left = *matrix;
    let mut right = identity();
    for column in 0..N {
        let pivot = (column..N)
            .find(|&row| !bool::from(left[row][column].is_zero()))
            .expect("the matrix is regular");
        left.swap(column, pivot);
        right.swap(column, pivot);
        let scale = Option::<Fr>::from(left[column][column].invert()).expect("it is not zero");
        for k in 0..N {
            left[column][k] *= scale;
            right[column][k] *= scale;
        }
        let (left_pivot, right_pivot) = (left[column], right[column]);
        for row in (0..N).filter(|&row| row != column) {
            let factor = left[row][column];
            for k in 0..N {
                left[row][k] -= factor * left_pivot[k];
                right[row][k] -= factor * right_pivot[k];
            }
        }
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_times_its_inverse_is_the_identity() {
        // A leading zero, so that rows have to be swapped.
        let matrix = [[0, 2, 1], [3, 0, 5], [7, 11, 13]].map(|row: [u64; 3]| row.map(Fr::from));
        assert_eq!(multiply(&matrix, &inverse(&matrix)), identity());
        assert_eq!(multiply(&inverse(&matrix), &matrix), identity());
    }

    #[test]
    fn products_agree_with_application() {
        let a = [[1, 2], [3, 4]].map(|row: [u64; 2]| row.map(Fr::from));
        let b = [[5, 6], [7, 8]].map(|row: [u64; 2]| row.map(Fr::from));
        assert_eq!(multiply(&a, &b)[1], [Fr::from(43), Fr::from(50)]);
        let vector = [Fr::from(9), Fr::from(10)];
        assert_eq!(apply(&multiply(&a, &b), &vector), apply(&a, &apply(&b, &vector)));
    }
}
