//! The hashes that make one row of a tree from the row below.

use seal_poseidon::{Hasher, NotCanonical, Poseidon};
use seal_sha256::Kernel;
use seal_types::NODE_SIZE;

use crate::Node;

/// A hash of a fixed number of children.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RowHash {
    /// Tree D.
    Sha256(Kernel),
    /// The other trees.
    Poseidon(&'static Poseidon),
}

impl RowHash {
    /// How many children a node has.
    pub(crate) fn arity(self) -> usize {
        match self {
            Self::Sha256(_) => 2,
            Self::Poseidon(poseidon) => poseidon.arity(),
        }
    }

    /// The node above `children`.
    pub(crate) fn parent(self, children: &[Node]) -> Result<Node, NotCanonical> {
        match self {
            Self::Sha256(kernel) => {
                let mut block = [0; 2 * NODE_SIZE];
                block.copy_from_slice(children.as_flattened());
                Ok(kernel.two_to_one(&block))
            }
            Self::Poseidon(poseidon) => poseidon.hash_nodes(children),
        }
    }

    /// The row above `children` into `parents`, on the calling thread.
    ///
    /// # Panics
    /// When there are not exactly as many children as these parents have.
    pub(crate) fn row_into(
        self,
        children: &[Node],
        parents: &mut [Node],
    ) -> Result<(), NotCanonical> {
        match self {
            Self::Sha256(kernel) => {
                kernel.two_to_one_row(children, parents);
                Ok(())
            }
            Self::Poseidon(poseidon) => Hasher::new(poseidon, seal_poseidon::Kernel::portable())
                .hash_rows(children, parents),
        }
    }

    /// The root over `leaves`, whose number is a power of the arity, on the calling thread.
    /// `rows` is room for half of them or more.
    pub(crate) fn root(self, leaves: &[Node], rows: &mut [Node]) -> Result<Node, NotCanonical> {
        let (mut children, mut rest) = (leaves, rows);
        while children.len() > 1 {
            let (parents, others) = rest.split_at_mut(children.len() / self.arity());
            self.row_into(children, parents)?;
            (children, rest) = (parents, others);
        }
        Ok(children[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_the_parents_of_its_groups() {
        let children: Vec<Node> = (0..8 * 30).map(|i| [(i % 64) as u8; 32]).collect();
        for hash in [RowHash::Sha256(Kernel::detect()), RowHash::Poseidon(Poseidon::arity8())] {
            let mut row = vec![[0; 32]; children.len() / hash.arity()];
            hash.row_into(&children, &mut row).expect("canonical");
            for (parent, children) in row.iter().zip(children.chunks(hash.arity())) {
                assert_eq!(*parent, hash.parent(children).expect("canonical"));
            }
        }
    }

    #[test]
    fn a_root_is_the_last_of_its_rows() {
        let leaves: Vec<Node> = (0..64).map(|i| [i; 32]).collect();
        for hash in [RowHash::Sha256(Kernel::detect()), RowHash::Poseidon(Poseidon::arity8())] {
            let mut row = leaves.clone();
            while row.len() > 1 {
                row = row
                    .chunks(hash.arity())
                    .map(|children| hash.parent(children).expect("canonical"))
                    .collect();
            }
            assert_eq!(hash.root(&leaves, &mut [[0; 32]; 64]), Ok(row[0]));
        }
    }

    #[test]
    fn a_child_that_is_no_element_is_named() {
        let mut children = vec![[0; 32]; 8 * 8];
        children[39] = [0xff; 32];
        let error = RowHash::Poseidon(Poseidon::arity8()).root(&children, &mut [[0; 32]; 64]);
        assert_eq!(error, Err(NotCanonical { index: 39 }));
    }
}
