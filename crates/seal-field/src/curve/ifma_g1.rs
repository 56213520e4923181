//! Additions in G1, eight at a time.

use super::ifma::{AHEAD, Workspace, inverses, minus_mask, of_vector, ones};
use super::kernel::{G1, Packed, add_one};
use super::sums::{Batch, PointRef};
use crate::Ifma;
use crate::fp::Fp;
use crate::fp_ifma::{Lanes, prefetch};

/// `out[i] = pairs[i][0] + pairs[i][1]`, for at most a batch of pairs.
pub(crate) fn add_pairs(
    proof: Ifma,
    source: &[Packed<1>],
    pairs: &[[PointRef; 2]],
    out: &mut [Packed<1>],
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
            *out = add_one::<G1, Fp, 1>(proof, source, *pair);
        }
    }
}

/// Adds all pairs. Without `CAREFUL` it gives up, by `false`, where the formula does not hold;
/// with it, such lanes are named in the workspace and come out wrong.
#[target_feature(enable = "avx512f,avx512ifma")]
fn add_batch<const CAREFUL: bool>(
    source: &[Packed<1>],
    pairs: &[[PointRef; 2]],
    out: &mut [Packed<1>],
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
        let a = Lanes::gather(refs.map(|[a, _]| &source[a.index()].x[0]));
        let b = Lanes::gather(refs.map(|[_, b]| &source[b.index()].x[0]));
        let mut difference = b.sub_reduced(&a);
        // x = 0 is no point at infinity, but points at infinity have it.
        let maybe_infinity = a.all_bits_zero() | b.all_bits_zero();
        if CAREFUL {
            slot.special = maybe_infinity | difference.is_zero();
            difference = difference.or_where(slot.special, &ones());
        } else {
            suspicious |= maybe_infinity;
        }
        let product = &mut products[vector % 2];
        product.store(&mut slot.before);
        difference.store(&mut slot.difference[0]);
        a.store(&mut slot.x[0]);
        *product = product.mul(&difference);
    }
    if suspicious != 0 {
        return false;
    }
    let Some(mut inverse) = inverses(&products) else {
        return false;
    };
    for (vector, slot) in slots.iter().enumerate().rev() {
        let refs = of_vector(pairs, vector);
        let difference = Lanes::load(&slot.difference[0]);
        let x_a = Lanes::load(&slot.x[0]);
        let own = inverse[vector % 2].mul(&Lanes::load(&slot.before));
        inverse[vector % 2] = inverse[vector % 2].mul(&difference);
        let y_a = Lanes::gather(refs.map(|[a, _]| &source[a.index()].y[0]))
            .negated_where(minus_mask(&refs, 0));
        let y_b = Lanes::gather(refs.map(|[_, b]| &source[b.index()].y[0]))
            .negated_where(minus_mask(&refs, 1));
        let slope = y_b.sub(&y_a).mul(&own);
        let x = slope.sqr().sub_two_reduced(&x_a, &x_a.add(&difference));
        let y = slope.mul(&x_a.sub(&x)).sub_reduced(&y_a);
        let scatter = |out: &mut [Packed<1>; 8]| {
            x.scatter(out.each_mut().map(|point| &mut point.x[0]));
            y.scatter(out.each_mut().map(|point| &mut point.y[0]));
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
