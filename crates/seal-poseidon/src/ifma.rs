//! Hashes in the lanes of AVX-512 vectors, by the lean form of the permutation.

mod count;
mod filter;
mod permutation;

use std::sync::LazyLock;

use seal_field::fr8::LANES;
use seal_field::{Ifma, LIMB_BITS, LIMBS, Limbs, limbs_of_bytes};

use crate::batch::MAX_ARITY;
use crate::terms::Number;
use crate::{Fr, Poseidon, Reduction, element_to_bytes, terms};
use permutation::hash_lanes;

type Constants = terms::Constants<Limbs>;

impl Number for Limbs {
    const REDUCTION: Reduction = Reduction { bits: LIMB_BITS * LIMBS as u32, shift: LIMB_BITS };

    fn of(element: &Fr) -> Self {
        limbs_of_bytes(&element_to_bytes(element))
    }
}

static THREE: LazyLock<Constants> = LazyLock::new(|| Constants::derive::<3>(false));
static NINE: LazyLock<Constants> = LazyLock::new(|| Constants::derive::<9>(true));
static TWELVE: LazyLock<Constants> = LazyLock::new(|| Constants::derive::<12>(true));

/// Multiply-adds on vectors that eight hashes take together.
pub(crate) fn multiply_adds(poseidon: &Poseidon) -> u64 {
    match poseidon.arity() {
        2 => count::multiply_adds(&THREE),
        8 => count::multiply_adds(&NINE),
        _ => count::multiply_adds(&TWELVE),
    }
}

/// Hashes preimages, whose elements `node` finds by hash and element. Tells whether all are
/// canonical; if not, `hashes` is of no use.
pub(crate) fn hash<'a>(
    proof: Ifma,
    poseidon: &Poseidon,
    node: impl Fn(usize, usize) -> &'a [u8; 32],
    hashes: &mut [[u8; 32]],
) -> bool {
    // Vectors take turns, because the S-box of a partial round waits for the one before. Of width
    // 3 there is little else to do meanwhile, so there are more of them.
    match poseidon.arity() {
        2 => hash_all::<3, 4>(proof, &THREE, node, hashes),
        8 => hash_all::<9, 2>(proof, &NINE, node, hashes),
        _ => hash_all::<12, 2>(proof, &TWELVE, node, hashes),
    }
}

fn hash_all<'a, const WIDTH: usize, const VECTORS: usize>(
    proof: Ifma,
    constants: &Constants,
    node: impl Fn(usize, usize) -> &'a [u8; 32],
    hashes: &mut [[u8; 32]],
) -> bool {
    let Some(last) = hashes.len().checked_sub(1) else {
        return true;
    };
    let mut preimages = [[[&[0; 32]; LANES]; VECTORS]; MAX_ARITY];
    let preimages = &mut preimages[..WIDTH - 1];
    let mut results = [[[0; 32]; LANES]; VECTORS];
    for (batch, hashes) in hashes.chunks_mut(LANES * VECTORS).enumerate() {
        for (element, nodes) in preimages.iter_mut().enumerate() {
            for (lane, place) in nodes.as_flattened_mut().iter_mut().enumerate() {
                // Lanes that are left over repeat the last hash.
                *place = node((batch * LANES * VECTORS + lane).min(last), element);
            }
        }
        if !enter::<WIDTH, VECTORS>(proof, constants, preimages, &mut results) {
            return false;
        }
        hashes.copy_from_slice(&results.as_flattened()[..hashes.len()]);
    }
    true
}

fn enter<const WIDTH: usize, const VECTORS: usize>(
    _: Ifma,
    constants: &Constants,
    preimages: &[[[&[u8; 32]; LANES]; VECTORS]],
    hashes: &mut [[[u8; 32]; LANES]; VECTORS],
) -> bool {
    // SAFETY: `hash_lanes` needs avx512f and avx512ifma; an `Ifma` exists only if it saw both.
    unsafe { hash_lanes::<WIDTH, VECTORS>(constants, preimages, hashes) }
}
