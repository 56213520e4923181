//! Hashes in double precision, sixteen at a time, by the lean form of the permutation.
//!
//! The arithmetic is in routines that work on sixteen elements in memory (`seal_field::fma::fr`);
//! four vectors within a routine keep the multipliers busy, so steps may simply wait for each
//! other here.

mod constants;
mod count;
mod filter;
mod permutation;

use std::sync::LazyLock;

use seal_field::Fma;
use seal_field::fma::check_rounding;
pub(crate) use seal_field::fma::fr::LANES;

use crate::Poseidon;
use crate::batch::MAX_ARITY;
use constants::Constants;
use permutation::Room;

static THREE: LazyLock<Constants> = LazyLock::new(|| Constants::derive::<3>(false));
static NINE: LazyLock<Constants> = LazyLock::new(|| Constants::derive::<9>(true));
static TWELVE: LazyLock<Constants> = LazyLock::new(|| Constants::derive::<12>(true));

/// Vector operations that sixteen hashes take together.
pub(crate) fn operations(poseidon: &Poseidon) -> u64 {
    match poseidon.arity() {
        2 => count::operations(&THREE),
        8 => count::operations(&NINE),
        _ => count::operations(&TWELVE),
    }
}

/// Hashes preimages, whose elements `node` finds by hash and element. Tells whether all are
/// canonical; if not, `hashes` is of no use.
pub(crate) fn hash<'a>(
    proof: Fma,
    poseidon: &Poseidon,
    node: impl Fn(usize, usize) -> &'a [u8; 32],
    hashes: &mut [[u8; 32]],
) -> bool {
    match poseidon.arity() {
        2 => hash_all::<3>(proof, &THREE, node, hashes),
        8 => hash_all::<9>(proof, &NINE, node, hashes),
        _ => hash_all::<12>(proof, &TWELVE, node, hashes),
    }
}

fn hash_all<'a, const WIDTH: usize>(
    proof: Fma,
    constants: &Constants,
    node: impl Fn(usize, usize) -> &'a [u8; 32],
    hashes: &mut [[u8; 32]],
) -> bool {
    let Some(last) = hashes.len().checked_sub(1) else {
        return true;
    };
    check_rounding();
    let mut preimages = [[&[0; 32]; LANES]; MAX_ARITY];
    let preimages = &mut preimages[..WIDTH - 1];
    let mut results = [[0; 32]; LANES];
    let mut room = Box::new(Room::<WIDTH>::new(proof));
    for (batch, hashes) in hashes.chunks_mut(LANES).enumerate() {
        for (element, nodes) in preimages.iter_mut().enumerate() {
            for (lane, place) in nodes.iter_mut().enumerate() {
                // Lanes that are left over repeat the last hash.
                *place = node((batch * LANES + lane).min(last), element);
            }
        }
        if !room.hash(constants, preimages, &mut results) {
            return false;
        }
        hashes.copy_from_slice(&results[..hashes.len()]);
    }
    true
}
