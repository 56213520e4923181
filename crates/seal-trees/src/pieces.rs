//! `comm_d` from the commitments of a sector's pieces.
//!
//! Source: Filecoin specification, section "Piece commitments and the sector's data commitment".

use seal_sha256::Kernel;
use seal_types::{Commitment, NODE_SIZE, SectorSize};

/// The smallest piece before padding; every piece is this times a power of two.
const SMALLEST_PIECE: u64 = 127;

/// A piece of a sector's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Root of the piece's own tree.
    pub commitment: Commitment,
    /// Bytes before fr32 padding: 127 times a power of two.
    pub unpadded_bytes: u64,
}

/// Pieces that no sector can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PieceError {
    /// A piece of a size that no piece has.
    #[error(
        "piece {index} has {unpadded_bytes} bytes, which is not 127 times a power of two; pad the \
         piece with zeros"
    )]
    Size {
        /// Which piece, counted from 0.
        index: usize,
        /// Its size before padding.
        unpadded_bytes: u64,
    },
    /// More data than fits.
    #[error(
        "piece {index} ends {excess} padded bytes behind the end of a {sector_size} sector; leave \
         it out or use a larger sector"
    )]
    TooMuch {
        /// The first piece that does not fit, counted from 0.
        index: usize,
        /// By how many bytes, after padding and alignment.
        excess: u64,
        /// The sector.
        sector_size: SectorSize,
    },
}

/// The `comm_d` of a sector that holds `pieces` in this order, each aligned to its own size, with
/// zeros between and behind them.
pub fn comm_d_of_pieces(
    sector_size: SectorSize,
    pieces: &[Piece],
) -> Result<Commitment, PieceError> {
    let kernel = Kernel::detect();
    // Complete subtrees from left to right: padded size and root.
    let mut subtrees: Vec<(u64, Commitment)> = Vec::new();
    let mut end: u64 = 0;
    for (index, piece) in pieces.iter().enumerate() {
        let size = padded_bytes(index, piece)?;
        // The first piece starts at 0, the others at the next multiple of their size.
        end = end.div_ceil(size).saturating_mul(size).saturating_add(size);
        if end > sector_size.bytes() {
            let excess = end - sector_size.bytes();
            return Err(PieceError::TooMuch { index, excess, sector_size });
        }
        while let Some(&(last, _)) = subtrees.last().filter(|(last, _)| *last < size) {
            push(kernel, &mut subtrees, (last, zero_commitment(last)));
        }
        push(kernel, &mut subtrees, (size, piece.commitment));
    }
    while let Some(&(last, _)) = subtrees.last().filter(|(last, _)| *last < sector_size.bytes()) {
        push(kernel, &mut subtrees, (last, zero_commitment(last)));
    }
    Ok(subtrees.pop().map_or_else(|| zero_commitment(sector_size.bytes()), |(_, root)| root))
}

/// The commitment of `padded_bytes` zeros, a power of two of at least one node.
pub fn zero_commitment(padded_bytes: u64) -> Commitment {
    let kernel = Kernel::detect();
    let rows = (padded_bytes / NODE_SIZE as u64).max(1).ilog2();
    let zeros = Commitment::default();
    (0..rows).fold(zeros, |node, _| join(kernel, &node, &node))
}

fn padded_bytes(index: usize, piece: &Piece) -> Result<u64, PieceError> {
    let unpadded_bytes = piece.unpadded_bytes;
    let units = unpadded_bytes / SMALLEST_PIECE;
    // Up to 2^32 units are far above any sector.
    if !unpadded_bytes.is_multiple_of(SMALLEST_PIECE) || !units.is_power_of_two() || units > 1 << 32
    {
        return Err(PieceError::Size { index, unpadded_bytes });
    }
    Ok(units * (SMALLEST_PIECE + 1))
}

/// Appends a subtree and joins equal neighbours.
fn push(kernel: Kernel, subtrees: &mut Vec<(u64, Commitment)>, new: (u64, Commitment)) {
    let (mut size, mut root) = new;
    while let Some((_, left)) = subtrees.pop_if(|(left_size, _)| *left_size == size) {
        root = join(kernel, &left, &root);
        size *= 2;
    }
    subtrees.push((size, root));
}

fn join(kernel: Kernel, left: &Commitment, right: &Commitment) -> Commitment {
    let mut block = [0; 2 * NODE_SIZE];
    block[..NODE_SIZE].copy_from_slice(&left.0);
    block[NODE_SIZE..].copy_from_slice(&right.0);
    Commitment(kernel.two_to_one(&block))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row_hash::RowHash;
    use proptest::prelude::*;

    fn root(nodes: &[crate::Node]) -> Commitment {
        let hash = RowHash::Sha256(Kernel::portable());
        let mut rows = nodes.to_vec();
        Commitment(hash.root(nodes, &mut rows).expect("bytes of any value"))
    }

    /// A piece of `nodes` nodes, all of value `fill`.
    fn piece(nodes: u64, fill: u8) -> Piece {
        let commitment = root(&vec![[fill; NODE_SIZE]; nodes as usize]);
        Piece { commitment, unpadded_bytes: nodes * 32 / 128 * 127 }
    }

    #[test]
    fn zeros_have_the_published_commitments() {
        // The commitments of empty sectors as the network knows them.
        for (size, commitment) in [
            (SectorSize::KIB_2, "fc7e928296e516faade986b28f92d44a4f24b935485223376a799027bc18f833"),
            (
                SectorSize::GIB_32,
                "077e5fde35c50a9303a55009e3498a4ebedff39c42b710b730d8ec7ac7afa63e",
            ),
        ] {
            assert_eq!(zero_commitment(size.bytes()).to_string(), commitment);
            assert_eq!(comm_d_of_pieces(size, &[]), Ok(zero_commitment(size.bytes())));
        }
    }

    #[test]
    fn one_piece_that_fills_the_sector_is_comm_d() {
        let piece = piece(64, 3);
        assert_eq!(comm_d_of_pieces(SectorSize::KIB_2, &[piece]), Ok(piece.commitment));
    }

    #[test]
    fn pieces_of_impossible_sizes_are_named() {
        let good = piece(4, 1);
        for unpadded_bytes in [0, 1, 128, 126, 127 * 3, 127 << 40] {
            let bad = Piece { unpadded_bytes, ..good };
            assert_eq!(
                comm_d_of_pieces(SectorSize::KIB_2, &[good, bad]),
                Err(PieceError::Size { index: 1, unpadded_bytes })
            );
        }
    }

    #[test]
    fn the_piece_that_does_not_fit_is_named() {
        let sector_size = SectorSize::KIB_2;
        assert_eq!(
            comm_d_of_pieces(sector_size, &[piece(4, 1), piece(64, 2)]),
            Err(PieceError::TooMuch { index: 1, excess: 2048, sector_size })
        );
        assert_eq!(
            comm_d_of_pieces(sector_size, &[piece(128, 2)]),
            Err(PieceError::TooMuch { index: 0, excess: 2048, sector_size })
        );
    }

    proptest! {
        #[test]
        fn equals_the_tree_over_the_padded_data(pieces in prop::collection::vec((2..6_u32, 1..9_u8), 0..8)) {
            let mut data = Vec::new();
            let mut infos = Vec::new();
            for (log, fill) in pieces {
                let nodes = 1_usize << log;
                let start = data.len().next_multiple_of(nodes);
                if start + nodes > 64 {
                    break;
                }
                data.resize(start, [0; NODE_SIZE]);
                data.resize(start + nodes, [fill; NODE_SIZE]);
                infos.push(piece(nodes as u64, fill));
            }
            data.resize(64, [0; NODE_SIZE]);
            prop_assert_eq!(comm_d_of_pieces(SectorSize::KIB_2, &infos), Ok(root(&data)));
        }
    }
}
