//! How many multiply-adds a hash takes: by their number and a core's rate of them, one can tell how
//! far a kernel is from what the multipliers allow.
//!
//! The functions here mirror those of the permutation and its filter, step by step.

use seal_field::Limbs;
use seal_field::fr8::{Fr8, Products, SmallProducts};

use super::Constants;
use crate::terms::{Dense, Filter, Partial};

/// Of eight hashes in the lanes of vectors.
pub(super) fn multiply_adds(constants: &Constants) -> u64 {
    let width = constants.first_key.len() as u64;
    let (s_boxes, matrix) = (width * S_BOX, small_matrix(width));
    // The first element of all preimages is the same, and so is what the first S-box makes of it.
    let head = s_boxes - S_BOX + (constants.head.len() as u64 - 1) * (matrix + s_boxes);
    let partial = match &constants.partial {
        Partial::Dense(rounds) => dense(rounds, width),
        Partial::Filter(rounds) => filter(rounds, width),
    };
    let tail = constants.tail.len() as u64 * (s_boxes + matrix);
    let hash = s_boxes + small_row(width) + Fr8::TIMES;
    head + partial + tail + hash
}

/// A fifth power and its key.
const S_BOX: u64 = 2 * Fr8::SQUARE + Products::PRODUCT + Products::REDUCTION;

fn small_row(width: u64) -> u64 {
    width * SmallProducts::PRODUCT + SmallProducts::REDUCTION
}

fn small_matrix(width: u64) -> u64 {
    width * small_row(width)
}

fn dense(rounds: &Dense<Limbs>, width: u64) -> u64 {
    let rescale = Products::PRODUCT + Products::REDUCTION;
    let round = 2 * Fr8::SQUARE + Fr8::TIMES + rescale + small_matrix(width);
    small_matrix(width) + rounds.keys.len() as u64 * round
}

fn filter(rounds: &Filter<Limbs>, width: u64) -> u64 {
    let window = width - 1;
    // A step of a round: the sum for `w` and the one for the first element are completed.
    let step = S_BOX + Products::PRODUCT + Products::REDUCTION;
    let alone = 2 * window * Products::PRODUCT + step;
    let past = rounds.both.len() + rounds.newer.len() + rounds.older.len();
    let two = 2 * past as u64 * Products::PRODUCT + 2 * step + 2 * Products::PRODUCT;
    rows(width, width) + alone + rounds.pair_keys.len() as u64 * two + rows(window, window)
}

/// So many rows of a matrix of elements, which are taken two by two.
fn rows(rows: u64, columns: u64) -> u64 {
    let sums = rows.next_multiple_of(2);
    sums * columns * Products::PRODUCT + rows * Products::REDUCTION
}

#[cfg(test)]
mod tests {
    use crate::Poseidon;

    /// The numbers were also found by a debugger that went through the kernel instruction by
    /// instruction and counted.
    #[test]
    fn multiply_adds_are_counted_as_a_debugger_counts_them() {
        let counts =
            [2, 8, 11].map(|arity| Poseidon::of_arity(arity).map(crate::ifma::multiply_adds));
        assert_eq!(counts, [Some(33_360), Some(90_330), Some(118_460)]);
    }
}
