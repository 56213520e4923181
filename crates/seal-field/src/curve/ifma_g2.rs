//! Additions in G2, eight at a time.
//!
//! Inverses are shared in the base field: the inverse of an element is its conjugate over its
//! norm, and a product in the base field costs a third of one in the extension.

use super::ifma::{AHEAD, Workspace, inverses, minus_mask, of_vector, ones};
use super::kernel::{G2, Packed, add_one};
use super::sums::{Batch, PointRef};
use crate::Ifma;
use crate::fp::{Fp2, Words};
use crate::fp_ifma::{Lanes, prefetch};

/// An element of the extension in each lane; parts are below 1.001 p where nothing else is said.
#[derive(Clone, Copy)]
struct Lanes2([Lanes; 2]);

impl Lanes2 {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn gather(rows: [&[Words; 2]; 8]) -> Self {
        Self([Lanes::gather(rows.map(|row| &row[0])), Lanes::gather(rows.map(|row| &row[1]))])
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn mul(&self, other: &Self) -> Self {
        let ([a0, a1], [b0, b1]) = (&self.0, &other.0);
        let (low, high) = (a0.mul(b0), a1.mul(b1));
        let cross = a0.add(a1).mul(&b0.add(b1));
        Self([low.sub_reduced(&high), cross.sub_two_reduced(&low, &high)])
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn sqr(&self) -> Self {
        let [a0, a1] = &self.0;
        let product = a0.mul(a1);
        Self([a0.add(a1).mul(&a0.sub(a1)), product.add_reduced(&product)])
    }

    /// The product with an element of the base field.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn scaled(&self, factor: &Lanes) -> Self {
        Self([self.0[0].mul(factor), self.0[1].mul(factor)])
    }

    /// The difference plus 2 p, for a subtrahend below 2 p.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn sub(&self, other: &Self) -> Self {
        Self([self.0[0].sub(&other.0[0]), self.0[1].sub(&other.0[1])])
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn sub_reduced(&self, other: &Self) -> Self {
        Self([self.0[0].sub_reduced(&other.0[0]), self.0[1].sub_reduced(&other.0[1])])
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn conjugate(&self) -> Self {
        Self([self.0[0], Lanes::zero().sub(&self.0[1])])
    }

    /// Below 2.002 p; zero only for zero, because -1 is no square.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn norm(&self) -> Lanes {
        self.0[0].sqr().add(&self.0[1].sqr())
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn negated_where(&self, mask: u8) -> Self {
        Self([self.0[0].negated_where(mask), self.0[1].negated_where(mask)])
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn all_bits_zero(&self) -> u8 {
        self.0[0].all_bits_zero() & self.0[1].all_bits_zero()
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn scatter(&self, places: [&mut [Words; 2]; 8]) {
        let mut second = places.map(|place| {
            let [first, second] = place;
            (first, second)
        });
        self.0[0].scatter(second.each_mut().map(|(first, _)| &mut **first));
        self.0[1].scatter(second.each_mut().map(|(_, second)| &mut **second));
    }
}

/// `out[i] = pairs[i][0] + pairs[i][1]`, for at most a batch of pairs.
pub(crate) fn add_pairs(
    proof: Ifma,
    source: &[Packed<2>],
    pairs: &[[PointRef; 2]],
    out: &mut [Packed<2>],
    batch: &mut Batch,
) {
    let lanes = &mut batch.lanes;
    // SAFETY: `add_batch` needs avx512f and avx512ifma, which `proof` was made for.
    if unsafe { add_batch::<false>(source, pairs, out, lanes) } {
        return;
    }
    // Some pair is equal, opposite or has the point at infinity: once more with a closer look.
    // SAFETY: as above.
    let done = unsafe { add_batch::<true>(source, pairs, out, lanes) };
    debug_assert!(done, "no zero is left");
    for (index, (pair, out)) in pairs.iter().zip(out).enumerate() {
        if lanes.slots[index / 8].special >> (index % 8) & 1 == 1 {
            *out = add_one::<G2, Fp2, 2>(proof, source, *pair);
        }
    }
}

/// Adds all pairs. Without `CAREFUL` it gives up, by `false`, where the formula does not hold;
/// with it, such lanes are named in the workspace and come out wrong.
#[target_feature(enable = "avx512f,avx512ifma")]
fn add_batch<const CAREFUL: bool>(
    source: &[Packed<2>],
    pairs: &[[PointRef; 2]],
    out: &mut [Packed<2>],
    lanes: &mut Workspace,
) -> bool {
    let vectors = pairs.len().div_ceil(8);
    let slots = &mut lanes.slots[..vectors];
    let mut products = [ones(); 2];
    let mut suspicious = 0;
    for (vector, slot) in slots.iter_mut().enumerate() {
        if vector + AHEAD < vectors {
            for [a, b] in of_vector(pairs, vector + AHEAD) {
                prefetch(&source[a.index()]);
                prefetch(&source[b.index()]);
            }
        }
        let refs = of_vector(pairs, vector);
        let a = Lanes2::gather(refs.map(|[a, _]| &source[a.index()].x));
        let b = Lanes2::gather(refs.map(|[_, b]| &source[b.index()].x));
        let difference = b.sub_reduced(&a);
        let mut norm = difference.norm();
        let maybe_infinity = a.all_bits_zero() | b.all_bits_zero();
        if CAREFUL {
            slot.special = maybe_infinity | norm.is_zero();
            norm = norm.or_where(slot.special, &ones());
        } else {
            suspicious |= maybe_infinity;
        }
        let product = &mut products[vector % 2];
        product.store(&mut slot.before);
        norm.store(&mut slot.norm);
        for part in 0..2 {
            difference.0[part].store(&mut slot.difference[part]);
            a.0[part].store(&mut slot.x[part]);
        }
        *product = product.mul(&norm);
    }
    if suspicious != 0 {
        return false;
    }
    let Some(mut inverse) = inverses(&products) else {
        return false;
    };
    for (vector, slot) in slots.iter().enumerate().rev() {
        let refs = of_vector(pairs, vector);
        let norm = Lanes::load(&slot.norm);
        let difference = Lanes2(slot.difference.each_ref().map(|part| Lanes::load(part)));
        let x_a = Lanes2(slot.x.each_ref().map(|part| Lanes::load(part)));
        let own = inverse[vector % 2].mul(&Lanes::load(&slot.before));
        inverse[vector % 2] = inverse[vector % 2].mul(&norm);
        let y_a = Lanes2::gather(refs.map(|[a, _]| &source[a.index()].y))
            .negated_where(minus_mask(&refs, 0));
        let y_b = Lanes2::gather(refs.map(|[_, b]| &source[b.index()].y))
            .negated_where(minus_mask(&refs, 1));
        let slope = y_b.sub(&y_a).mul(&difference.conjugate()).scaled(&own);
        let square = slope.sqr();
        let x = Lanes2([0, 1].map(|part| {
            let x_b = x_a.0[part].add(&difference.0[part]);
            square.0[part].sub_two_reduced(&x_a.0[part], &x_b)
        }));
        let y = slope.mul(&x_a.sub(&x)).sub_reduced(&y_a);
        let scatter = |out: &mut [Packed<2>; 8]| {
            x.scatter(out.each_mut().map(|point| &mut point.x));
            y.scatter(out.each_mut().map(|point| &mut point.y));
        };
        let out = &mut out[8 * vector..];
        match out.first_chunk_mut::<8>() {
            Some(out) => scatter(out),
            None => {
                let mut eight = [Packed::INFINITY; 8];
                scatter(&mut eight);
                out.copy_from_slice(&eight[..out.len()]);
            }
        }
    }
    true
}
