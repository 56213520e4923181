//! What the vector kernels of both curves share.

use std::arch::x86_64::__mmask8;

use blst::blst_fp;

use super::sums::{BATCH, PointRef};
use crate::fp::{Fp, Words, below_p, power_of_two};
use crate::fp_ifma::{Lanes, ONE, Stored};

/// How many vectors of eight hold a batch.
pub(crate) const VECTORS: usize = BATCH / 8;

/// How many vectors ahead points are asked for.
pub(crate) const AHEAD: usize = 3;

/// What is kept of a vector of additions until the inverses are there. In G1 only the first
/// part of each pair is used.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    /// The product of all norms before.
    pub(crate) before: Stored,
    /// The norm of the difference of x, or the difference itself in G1.
    pub(crate) norm: Stored,
    /// The difference of x.
    pub(crate) difference: [Stored; 2],
    /// The first point's x.
    pub(crate) x: [Stored; 2],
    /// Lanes that the formula does not cover.
    pub(crate) special: __mmask8,
}

/// Room for a batch.
pub(crate) struct Workspace {
    pub(crate) slots: Vec<Slot>,
}

impl Default for Workspace {
    fn default() -> Self {
        let slot = Slot {
            before: Stored::ZERO,
            norm: Stored::ZERO,
            difference: [Stored::ZERO; 2],
            x: [Stored::ZERO; 2],
            special: 0,
        };
        Self { slots: vec![slot; VECTORS] }
    }
}

/// The inverse of an element in the form of the vectors; `None` for zero.
fn inverse(element: &Words) -> Option<Words> {
    let element = below_p(element);
    if element == [0; 6] {
        return None;
    }
    // 2^416 a, inverted by blst as if it were 2^384 b, is 2^(2 * 384 - 416) / a = 2^352 / a;
    // the product with 2^448, divided by 2^384, is 2^416 / a.
    let inverse = Fp(blst_fp { l: element }).inverse();
    Some(inverse.mul(&Fp(blst_fp { l: power_of_two(448) })).0.l)
}

/// The inverses of all lanes of two vectors; `None` if one is zero.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
pub(crate) fn inverses(products: &[Lanes; 2]) -> Option<[Lanes; 2]> {
    let t = products[0].mul(&products[1]);
    let four = t.exchanged::<4>();
    let t4 = t.mul(&four);
    let two = t4.exchanged::<2>();
    let t2 = t4.mul(&two);
    let one = t2.exchanged::<1>();
    // The product of all, in every lane.
    let all = t2.mul(&one);
    let inverse = Lanes::splat(&inverse(&all.to_words()[0])?);
    let inverse = inverse.mul(&one).mul(&two).mul(&four);
    Some([inverse.mul(&products[1]), inverse.mul(&products[0])])
}

/// One in all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn ones() -> Lanes {
    Lanes::splat(&ONE)
}

/// The pairs of a vector; behind the last one the first is repeated.
#[inline]
pub(crate) fn of_vector(pairs: &[[PointRef; 2]], vector: usize) -> [[PointRef; 2]; 8] {
    std::array::from_fn(|lane| *pairs.get(8 * vector + lane).unwrap_or(&pairs[0]))
}

/// The lanes whose point is to be negated; `side` tells which one of the pair.
#[inline]
pub(crate) fn minus_mask(refs: &[[PointRef; 2]; 8], side: usize) -> __mmask8 {
    refs.iter()
        .enumerate()
        .fold(0, |mask, (lane, pair)| mask | u8::from(pair[side].is_minus()) << lane)
}
