//! Transforms over blst's scalars, for every processor.

use blstrs::Scalar;
use ff::Field;
use rayon::prelude::*;

use super::{Constants, FrWords, scalar_of_words, words_of_scalar};

/// Below this length a part is not worth a thread.
const PARALLEL: usize = 1 << 12;

/// From natural to bit-reversed order: halves are combined, then each is transformed by itself.
fn down(data: &mut [FrWords], root: Scalar) {
    let half = data.len() / 2;
    if half == 0 {
        return;
    }
    let (low, high) = data.split_at_mut(half);
    combine(low, high, root, |a, b, twiddle| {
        let (x, y) = (scalar_of_words(a), scalar_of_words(b));
        *a = words_of_scalar(x + y);
        *b = words_of_scalar((x - y) * twiddle);
    });
    let square = root.square();
    if half < PARALLEL {
        down(low, square);
        down(high, square);
    } else {
        rayon::join(|| down(low, square), || down(high, square));
    }
}

/// From bit-reversed to natural order: each half is transformed by itself, then they are combined.
fn up(data: &mut [FrWords], root: Scalar) {
    let half = data.len() / 2;
    if half == 0 {
        return;
    }
    let (low, high) = data.split_at_mut(half);
    let square = root.square();
    if half < PARALLEL {
        up(low, square);
        up(high, square);
    } else {
        rayon::join(|| up(low, square), || up(high, square));
    }
    combine(low, high, root, |a, b, twiddle| {
        let (x, y) = (scalar_of_words(a), scalar_of_words(b) * twiddle);
        *a = words_of_scalar(x + y);
        *b = words_of_scalar(x - y);
    });
}

/// A level: `butterfly` of each pair and its power of `root`. Long halves are cut, because in the
/// first levels of `down` and the last of `up` there are fewer halves than threads.
fn combine(
    low: &mut [FrWords],
    high: &mut [FrWords],
    root: Scalar,
    butterfly: impl Fn(&mut FrWords, &mut FrWords, &Scalar) + Sync,
) {
    let run = |low: &mut [FrWords], high: &mut [FrWords], mut twiddle: Scalar| {
        for (a, b) in low.iter_mut().zip(high) {
            butterfly(a, b, &twiddle);
            twiddle *= root;
        }
    };
    if low.len() <= PARALLEL {
        return run(low, high, Scalar::ONE);
    }
    let parts = low.par_chunks_mut(PARALLEL).zip(high.par_chunks_mut(PARALLEL));
    parts.enumerate().for_each(|(part, (low, high))| {
        // A percent of the part's own products.
        run(low, high, root.pow_vartime([(part * PARALLEL) as u64]));
    });
}

/// Multiplies the element whose index is `i` by `shift^i`, in bit-reversed order.
fn scale(data: &mut [FrWords], shift: Scalar, first: Scalar) {
    let half = data.len() / 2;
    if half == 0 {
        for element in data {
            *element = words_of_scalar(scalar_of_words(element) * first);
        }
        return;
    }
    // Even indices stand before odd ones.
    let (low, high) = data.split_at_mut(half);
    let square = shift.square();
    if half < PARALLEL {
        scale(low, square, first);
        scale(high, square, first * shift);
    } else {
        rayon::join(|| scale(low, square, first), || scale(high, square, first * shift));
    }
}

pub(super) fn interpolate(data: &mut [FrWords], constants: &Constants) {
    down(data, constants.root_inverse);
}

pub(super) fn evaluate_on_coset(data: &mut [FrWords], constants: &Constants) {
    scale(data, constants.shift, Scalar::ONE);
    up(data, constants.root);
}

pub(super) fn interpolate_on_coset(data: &mut [FrWords], constants: &Constants) {
    down(data, constants.root_inverse);
    scale(data, constants.shift_inverse, Scalar::ONE);
}

pub(super) fn multiply(a: &mut [FrWords], b: &[FrWords]) {
    a.par_iter_mut().zip(b).with_min_len(PARALLEL).for_each(|(a, b)| {
        *a = words_of_scalar(scalar_of_words(a) * scalar_of_words(b));
    });
}

pub(super) fn quotient(product: &mut [FrWords], c: &[FrWords], of_product: Scalar, of_c: Scalar) {
    product.par_iter_mut().zip(c).with_min_len(PARALLEL).for_each(|(product, c)| {
        let value = scalar_of_words(product) * of_product - scalar_of_words(c) * of_c;
        let bytes = value.to_bytes_le();
        *product = std::array::from_fn(|word| {
            u64::from_le_bytes(std::array::from_fn(|byte| bytes[8 * word + byte]))
        });
    });
}
