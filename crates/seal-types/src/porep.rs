//! What a proof of replication is made of: graph, layers, partitions and the shape of its trees.
//!
//! Source: the Filecoin specification, section "Stacked DRG proof of replication", and the
//! constants of `filecoin-proofs` 19.1.

use crate::{PorepId, SectorSize};

/// Bytes of a node: a label, a tree element, a 254-bit piece of data.
pub const NODE_SIZE: usize = 32;

/// The version of the proofs API, which decides the order of base parents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ApiVersion {
    /// 1.0: the predecessor is the last base parent (parent 5), and Feistel output is cut to 32
    /// bits, which shows from 32 GiB on.
    V1_0,
    /// 1.1: the predecessor is the first base parent (parent 0).
    V1_1,
    /// 1.2: as 1.1, with features.
    V1_2,
}

/// What a proof of API 1.2 does beyond the interactive proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feature {
    /// Interactive proof of replication.
    Interactive,
    /// Synthetic: vanilla proofs for a larger challenge set are stored before C1.
    Synthetic,
    /// Non-interactive: many partitions, answered with one aggregate.
    NonInteractive,
}

/// The arities of a replica's Poseidon trees (tree C and tree R last) from the leaves up.
///
/// `sub` and `top` are the arities of the rows that join the base trees; 1 where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TreeShape {
    /// Arity within a base tree: 8.
    pub base: u32,
    /// How many base trees one sub tree joins: 1, 2 or 8.
    pub sub: u32,
    /// How many sub trees the top joins: 1 or 2.
    pub top: u32,
}

impl TreeShape {
    /// The shape used for sectors of `size`.
    pub fn of(size: SectorSize) -> Self {
        let (sub, top) = match size.bytes() >> 10 {
            // 32 KiB and 64 GiB: 8-8-2
            32 | 0x400_0000 => (8, 2),
            // 16 KiB and 32 GiB: 8-8
            16 | 0x200_0000 => (8, 1),
            // 4 KiB and 16 MiB, 1 GiB: 8-2
            4 | 0x4000 | 0x10_0000 => (2, 1),
            _ => (1, 1),
        };
        Self { base: 8, sub, top }
    }

    /// How many base trees, and so how many `tree-c` and `tree-r-last` files, there are.
    pub const fn base_trees(self) -> u32 {
        self.sub * self.top
    }
}

/// Everything the stages need to know of a proof of replication.
///
/// Registered proofs give theirs by [`crate::RegisteredProof::porep`]; tests make others, for
/// sectors of sizes that have no registered proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Porep {
    /// Size of the sector.
    pub sector_size: SectorSize,
    /// Version of the proofs API.
    pub api_version: ApiVersion,
    /// Seed of the graph.
    pub porep_id: PorepId,
    /// Number of layers: 2 for test sizes, 11 from 32 GiB on.
    pub layers: u32,
    /// Shape of tree C and tree R last.
    pub shape: TreeShape,
}

impl Porep {
    /// Number of nodes of the sector, and so of each layer.
    pub const fn nodes(&self) -> u64 {
        self.sector_size.nodes()
    }

    /// Number of leaves of one base tree.
    pub const fn base_tree_leaves(&self) -> u64 {
        self.nodes() / self.shape.base_trees() as u64
    }

    /// How many rows above the leaves tree R last leaves out: 2, or fewer where a base tree has
    /// no rows to spare between leaves and root.
    ///
    /// Source: `storage_proofs_core::util::default_rows_to_discard`.
    pub fn rows_to_discard(&self) -> u32 {
        let rows = self.base_tree_leaves().ilog(u64::from(self.shape.base)) + 1;
        rows.saturating_sub(2).min(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn porep(size: SectorSize) -> Porep {
        Porep {
            sector_size: size,
            api_version: ApiVersion::V1_1,
            porep_id: PorepId::default(),
            layers: 11,
            shape: TreeShape::of(size),
        }
    }

    #[test]
    fn shapes_follow_the_sector_size() {
        for (text, sub, top) in [
            ("2KiB", 1, 1),
            ("4KiB", 2, 1),
            ("16KiB", 8, 1),
            ("32KiB", 8, 2),
            ("8MiB", 1, 1),
            ("16MiB", 2, 1),
            ("512MiB", 1, 1),
            ("1GiB", 2, 1),
            ("32GiB", 8, 1),
            ("64GiB", 8, 2),
        ] {
            let shape = TreeShape::of(text.parse().expect("a size"));
            assert_eq!(shape, TreeShape { base: 8, sub, top }, "{text}");
        }
    }

    #[test]
    fn base_trees_are_full_octrees() {
        for text in ["2KiB", "4KiB", "16KiB", "32KiB", "8MiB", "512MiB", "32GiB", "64GiB"] {
            let leaves = porep(text.parse().expect("a size")).base_tree_leaves();
            assert!(
                leaves.is_power_of_two() && leaves.trailing_zeros().is_multiple_of(3),
                "{text}"
            );
        }
    }

    #[test]
    fn discards_two_rows_where_there_are_enough() {
        for (text, rows) in [("2KiB", 1), ("4KiB", 1), ("8MiB", 2), ("512MiB", 2), ("32GiB", 2)] {
            assert_eq!(porep(text.parse().expect("a size")).rows_to_discard(), rows, "{text}");
        }
    }
}
