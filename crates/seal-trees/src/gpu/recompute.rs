//! What a device has computed of a block, computed again by the processor.
//!
//! Nodes are recomputed from what the device was given and from the rows below them, by the plain
//! form of the hash (`Poseidon::hash_nodes`), which shares nothing with the kernels.

use std::hash::{BuildHasher, RandomState};

use seal_cuda::Parts;
use seal_poseidon::Poseidon;

use crate::Node;
use crate::block::row_lengths;
use crate::replica::encode_node;

/// A block with what was made of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Computed<'b> {
    pub(super) layers: &'b [&'b [Node]],
    pub(super) data: &'b [Node],
    pub(super) tree_c: &'b [Node],
    pub(super) replica: &'b [Node],
    pub(super) tree_r: &'b [Node],
}

/// Something that the device computed wrongly: which kernel, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) kernel: String,
    pub(super) place: String,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.kernel, self.place)
    }
}

/// Which nodes are recomputed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Which {
    /// One of each kind and row, drawn by these numbers.
    Drawn(Numbers),
    /// Of each kind and row those of which the number leaves `remainder` when it is divided by
    /// `of`: a part of all.
    Every { of: usize, remainder: usize },
}

impl Which {
    /// Those of a row of `length` nodes.
    fn of_row(&mut self, length: usize) -> Box<dyn Iterator<Item = usize>> {
        match self {
            Self::Drawn(numbers) => Box::new(std::iter::once(numbers.below(length))),
            Self::Every { of, remainder } => Box::new((*remainder..length).step_by(*of)),
        }
    }
}

/// Recomputes nodes of the parts that the device had.
pub(super) fn recompute(
    block: &Computed<'_>,
    parts: Parts,
    (columns, rows): (&Poseidon, &Poseidon),
    mut which: Which,
) -> Result<(), Wrong> {
    let nodes = block.data.len();
    if parts.columns {
        for node in which.of_row(nodes) {
            let column: Vec<Node> = block.layers.iter().map(|layer| layer[node]).collect();
            if columns.hash_nodes(&column).ok() != Some(block.tree_c[node]) {
                let kernel = format!("columns of {}", columns.arity());
                return Err(Wrong { kernel, place: format!("column {node} of {nodes}") });
            }
        }
    }
    if !parts.trees {
        return Ok(());
    }
    if let [.., labels] = block.layers {
        for node in which.of_row(nodes) {
            if encode_node(&block.data[node], &labels[node]).ok() != Some(block.replica[node]) {
                let kernel = "the replica".to_owned();
                return Err(Wrong { kernel, place: format!("node {node} of {nodes}") });
            }
        }
    }
    let (hashes, above_c) = block.tree_c.split_at(nodes);
    for (tree, leaves, above) in
        [("tree C", hashes, above_c), ("tree R last", block.replica, block.tree_r)]
    {
        let (mut children, mut rest) = (leaves, above);
        for (row, length) in row_lengths(nodes, rows.arity()).enumerate().skip(1) {
            let (parents, higher) = rest.split_at(length);
            for node in which.of_row(length) {
                let below = &children[node * rows.arity()..][..rows.arity()];
                if rows.hash_nodes(below).ok() != Some(parents[node]) {
                    let kernel = format!("rows of {}", rows.arity());
                    let place = format!("node {node} of {length} in row {row} of {tree}");
                    return Err(Wrong { kernel, place });
                }
            }
            (children, rest) = (parents, higher);
        }
    }
    Ok(())
}

/// Whether a node is an element of the field.
pub(super) fn is_element(node: &Node) -> bool {
    encode_node(node, &[0; 32]).is_ok()
}

/// Numbers that are others each time, and the same again from the same seed: SplitMix64.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// A seed that nobody can foresee.
    pub(super) fn new_seed() -> u64 {
        RandomState::new().hash_one(0)
    }

    pub(super) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is at least 1.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.word() % end as u64) as usize
    }

    /// An element of the field: random, or of a kind around which carries and comparisons turn.
    pub(super) fn element(&mut self) -> Node {
        /// The modulus less one.
        const LAST: Node = [
            0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xfe, 0x5b, 0xfe, 0xff, 2, 0xa4, 0xbd, 0x53, 5,
            0xd8, 0xa1, 9, 8, 0xd8, 0x39, 0x33, 0x48, 0x7d, 0x9d, 0x29, 0x53, 0xa7, 0xed, 0x73,
        ];
        let mut node = [0; 32];
        match self.word() % 16 {
            0 => return node,
            1 => return LAST,
            // Words of all zeros and all ones.
            2 | 3 => {
                let pattern = self.word();
                for (i, byte) in node.iter_mut().enumerate() {
                    *byte = if pattern >> (i / 4) & 1 == 1 { 0xff } else { 0 };
                }
            }
            _ => {
                for word in node.as_chunks_mut::<8>().0 {
                    *word = self.word().to_le_bytes();
                }
            }
        }
        while !is_element(&node) {
            node[31] >>= 1;
        }
        node
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Parts = Parts { columns: true, trees: true };

    /// A block as it should be.
    struct Block {
        layers: Vec<Vec<Node>>,
        data: Vec<Node>,
        tree_c: Vec<Node>,
        replica: Vec<Node>,
        tree_r: Vec<Node>,
    }

    fn block(nodes: usize) -> Block {
        let mut numbers = Numbers::from_seed(1);
        let mut elements = || (0..nodes).map(|_| numbers.element()).collect::<Vec<_>>();
        let (layers, data) = (vec![elements(), elements()], elements());
        let tree = |leaves: Vec<Node>| {
            let mut all = leaves.clone();
            let mut row = leaves;
            while row.len() > 1 {
                let parents = row.chunks(8);
                row = parents
                    .map(|nodes| Poseidon::arity8().hash_nodes(nodes).expect("elements"))
                    .collect();
                all.extend_from_slice(&row);
            }
            all
        };
        let column = |node: usize| {
            Poseidon::arity2().hash_nodes(&[layers[0][node], layers[1][node]]).expect("elements")
        };
        let sum = |node: usize| encode_node(&data[node], &layers[1][node]).expect("elements");
        let (hashes, replica) = ((0..nodes).map(column).collect(), (0..nodes).map(sum).collect());
        let (tree_c, tree_r) = (tree(hashes), tree(Vec::clone(&replica)).split_off(nodes));
        Block { layers, data, tree_c, replica, tree_r }
    }

    impl Block {
        fn judge(&self, which: Which) -> Result<(), Wrong> {
            let layers: Vec<_> = self.layers.iter().map(Vec::as_slice).collect();
            let computed = Computed {
                layers: &layers,
                data: &self.data,
                tree_c: &self.tree_c,
                replica: &self.replica,
                tree_r: &self.tree_r,
            };
            recompute(&computed, BOTH, (Poseidon::arity2(), Poseidon::arity8()), which)
        }
    }

    const ALL: Which = Which::Every { of: 1, remainder: 0 };

    #[test]
    fn every_node_is_recomputed_and_what_is_wrong_is_named() {
        let good = block(64);
        good.judge(ALL).expect("all of it is right");
        for (node, told) in [
            (0, "columns of 2 (column 0 of 64)"),
            (63, "columns of 2 (column 63 of 64)"),
            (64 + 7, "rows of 8 (node 7 of 8 in row 1 of tree C)"),
            (72, "rows of 8 (node 0 of 1 in row 2 of tree C)"),
        ] {
            let mut bad = block(64);
            bad.tree_c[node][9] ^= 4;
            assert_eq!(bad.judge(ALL).expect_err("one is wrong").to_string(), told);
        }
        let mut bad = block(64);
        bad.replica[5] = [0xff; 32];
        let told = bad.judge(ALL).expect_err("one is no element").to_string();
        assert_eq!(told, "the replica (node 5 of 64)");
        let mut bad = block(64);
        bad.tree_r[8][0] ^= 1;
        let told = bad.judge(ALL).expect_err("one is wrong").to_string();
        assert_eq!(told, "rows of 8 (node 0 of 1 in row 2 of tree R last)");
    }

    #[test]
    fn parts_of_all_are_all() {
        for wrong in 0..73 {
            let mut bad = block(64);
            bad.tree_c[wrong][0] ^= 1;
            let found = |remainder| bad.judge(Which::Every { of: 3, remainder }).is_err();
            assert!((0..3).any(found), "node {wrong}");
        }
    }

    #[test]
    fn a_wrong_block_is_found_by_one_node_of_each_row() {
        // Each row by itself, all of it wrong.
        for (from, to) in [(0, 64), (64, 72), (72, 73)] {
            let mut bad = block(64);
            bad.tree_c[from..to].iter_mut().for_each(|node| node[0] ^= 1);
            for seed in 0..20 {
                let which = Which::Drawn(Numbers::from_seed(seed));
                bad.judge(which).expect_err("every node of a row is wrong");
            }
        }
        for seed in 0..20 {
            block(64).judge(Which::Drawn(Numbers::from_seed(seed))).expect("it is right");
        }
    }

    #[test]
    fn elements_are_random_and_extreme() {
        let mut numbers = Numbers::from_seed(7);
        let elements: Vec<_> = (0..1000).map(|_| numbers.element()).collect();
        assert!(elements.iter().all(is_element));
        let last =
            elements.iter().max_by_key(|node| node.iter().rev().copied().collect::<Vec<_>>());
        let mut beyond = *last.expect("thousand");
        beyond[0] += 1;
        assert!(!is_element(&beyond), "the last element is among them");
        assert!(elements.contains(&[0; 32]));
        assert_ne!(Numbers::new_seed(), Numbers::new_seed());
    }
}
