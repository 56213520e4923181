//! How many vector operations a hash takes: by their number and a core's rate of them, one can tell
//! how far the kernel is from what the vector units allow.
//!
//! The functions here mirror those of the permutation and its filter, step by step.

use seal_field::fma::fr::{Fr16, Sum};

use super::constants::{Constants, Filter, Partial};

/// A fifth power and its key.
const S_BOX: u64 = 2 * Fr16::SQUARE + Sum::PRODUCT + Sum::REDUCTION;

/// Of sixteen hashes.
pub(super) fn operations(constants: &Constants) -> u64 {
    let width = constants.first_key.len();
    let (s_boxes, matrix) = (width as u64 * S_BOX, Fr16::small_rows_operations(width, width));
    // The first element of all preimages is the same, and so is what the first S-box makes of it.
    let head = s_boxes - S_BOX + (constants.head.len() as u64 - 1) * (matrix + s_boxes);
    let partial = match &constants.partial {
        Partial::Dense(rounds) => {
            let round = S_BOX + Sum::CONSTANT_PRODUCT + Sum::REDUCTION + matrix;
            matrix + rounds.keys.len() as u64 * round
        }
        Partial::Filter(rounds) => filter(rounds, width as u64),
    };
    let tail = constants.tail.len() as u64 * (s_boxes + matrix);
    let hash = s_boxes + Fr16::small_rows_operations(width, 3) + Sum::PRODUCT + Sum::REDUCTION;
    head + partial + tail + hash
}

fn filter(filter: &Filter, width: u64) -> u64 {
    let window = width - 1;
    let rows = |rows: u64, columns: u64| rows * (columns * Sum::CONSTANT_PRODUCT + Sum::REDUCTION);
    // A step of a round: the sum for what is appended and the one for the first element are
    // completed.
    let step = S_BOX + Sum::CONSTANT_PRODUCT + Sum::REDUCTION;
    let alone = 2 * window * Sum::CONSTANT_PRODUCT + step;
    let past = filter.both[0].len() + filter.newer[0].len() + filter.older[0].len();
    let two = 2 * (past as u64 + 1) * Sum::CONSTANT_PRODUCT + 2 * step;
    rows(width, width) + alone + filter.pair_starts.len() as u64 * two + rows(window, window)
}

#[cfg(test)]
mod tests {
    use crate::Poseidon;

    /// How many there were when this was written; a kernel that needs more has to say why.
    #[test]
    fn operations_are_counted() {
        let counts = [2, 8, 11].map(|arity| Poseidon::of_arity(arity).map(crate::fma::operations));
        assert_eq!(counts, [Some(428_912), Some(996_152), Some(1_284_452)]);
    }
}
