//! The base trees of a replica's tree and how their roots are joined.

use seal_poseidon::Poseidon;
use seal_types::Porep;

use crate::row_hash::RowHash;
use crate::tree::Layout;
use crate::{Node, TreesError};

/// The base trees of tree C or tree R last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forest {
    /// Hash of the rows of base trees.
    pub(crate) hash: RowHash,
    /// One base tree's file.
    pub(crate) layout: Layout,
    /// How many base trees there are.
    pub(crate) trees: u32,
    sub: u32,
    top: u32,
}

impl Forest {
    /// Tree C: the files hold all rows.
    pub(crate) fn tree_c(porep: &Porep) -> Result<Self, TreesError> {
        Self::new(porep, 0)
    }

    /// Tree R last: the files begin above the discarded rows. The leaves are the replica.
    pub(crate) fn tree_r_last(porep: &Porep) -> Result<Self, TreesError> {
        let discarded = porep.rows_to_discard();
        Self::new(porep, if discarded == 0 { 0 } else { discarded + 1 })
    }

    fn new(porep: &Porep, first_row: u32) -> Result<Self, TreesError> {
        let shape = porep.shape;
        let hash = row_hash(porep, shape.base)?;
        let layout = Layout::new(hash.arity(), porep.base_tree_leaves(), first_row)?;
        for arity in [shape.sub, shape.top].into_iter().filter(|arity| *arity != 1) {
            row_hash(porep, arity)?;
        }
        let trees = shape.base_trees();
        Ok(Self { hash, layout, trees, sub: shape.sub, top: shape.top })
    }

    /// Nodes of all files together.
    pub(crate) fn file_nodes(&self) -> u64 {
        self.layout.file_nodes() * u64::from(self.trees)
    }

    /// The root over the roots of the base trees: first the sub trees, then the top.
    ///
    /// # Panics
    /// When there are not as many roots as base trees, or they are no hashes.
    pub(crate) fn root(&self, base_roots: &[Node]) -> Node {
        assert_eq!(base_roots.len(), self.trees as usize, "one root per base tree");
        let mut roots = base_roots.to_vec();
        for arity in [self.sub, self.top].into_iter().filter(|arity| *arity != 1) {
            let hash = Poseidon::of_arity(arity).expect("checked when the forest was made");
            roots = roots
                .chunks(arity as usize)
                .map(|children| hash.hash_nodes(children).expect("roots are hashes"))
                .collect();
        }
        roots[0]
    }
}

fn row_hash(porep: &Porep, arity: u32) -> Result<RowHash, TreesError> {
    match arity {
        2 | 8 => Poseidon::of_arity(arity).map(RowHash::Poseidon),
        _ => None,
    }
    .ok_or(TreesError::Shape { leaves: porep.base_tree_leaves(), arity })
}

#[cfg(test)]
mod tests {
    use super::*;
    use seal_types::{ApiVersion, PorepId, TreeShape};

    fn porep(size: &str, shape: TreeShape) -> Porep {
        Porep {
            sector_size: size.parse().expect("a size"),
            api_version: ApiVersion::V1_1,
            porep_id: PorepId::default(),
            layers: 2,
            shape,
        }
    }

    #[test]
    fn base_roots_are_joined_by_sub_trees_then_by_the_top() {
        let porep = porep("32KiB", TreeShape { base: 8, sub: 8, top: 2 });
        let forest = Forest::tree_c(&porep).expect("a shape of the network");
        let roots: Vec<Node> = (0..16).map(|i| [i; 32]).collect();
        let hash8 = |nodes: &[Node]| Poseidon::arity8().hash_nodes(nodes).expect("canonical");
        let subs = [hash8(&roots[..8]), hash8(&roots[8..])];
        let top = Poseidon::arity2().hash_nodes(&subs).expect("canonical");
        assert_eq!(forest.root(&roots), top);
    }

    #[test]
    fn a_single_base_tree_is_the_whole() {
        let porep = porep("2KiB", TreeShape { base: 8, sub: 1, top: 1 });
        let forest = Forest::tree_r_last(&porep).expect("a shape of the network");
        assert_eq!(forest.root(&[[5; 32]]), [5; 32]);
        assert_eq!(forest.file_nodes(), 1);
    }

    #[test]
    fn arities_without_a_hash_are_refused() {
        for shape in [
            TreeShape { base: 4, sub: 1, top: 1 },
            TreeShape { base: 8, sub: 4, top: 1 },
            TreeShape { base: 8, sub: 8, top: 11 },
        ] {
            let forest = Forest::tree_c(&porep("2KiB", shape));
            assert!(matches!(forest, Err(TreesError::Shape { .. })), "{forest:?}");
        }
    }
}
