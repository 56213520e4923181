//! The hashes that make one row of a tree from the row below.

use rayon::prelude::*;
use seal_poseidon::{Hasher, NotCanonical, Poseidon};
use seal_sha256::Kernel;
use seal_types::NODE_SIZE;

use crate::Node;
use crate::node_file::buffer;

/// Parents that one thread hashes at a time.
const PARENTS_PER_TASK: usize = 1024;

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
    fn row_into(self, children: &[Node], parents: &mut [Node]) -> Result<(), NotCanonical> {
        match self {
            Self::Sha256(kernel) => {
                kernel.two_to_one_row(children, parents);
                Ok(())
            }
            Self::Poseidon(poseidon) => Hasher::new(poseidon, seal_poseidon::Kernel::portable())
                .hash_rows(children, parents),
        }
    }

    /// The row above `children`, whose number is a multiple of the arity; hashed on all threads.
    pub(crate) fn row(self, children: &[Node]) -> Result<Vec<Node>, NotCanonical> {
        let arity = self.arity();
        let mut parents = buffer(children.len() / arity);
        parents
            .par_chunks_mut(PARENTS_PER_TASK)
            .zip(children.par_chunks(PARENTS_PER_TASK * arity))
            .enumerate()
            .try_for_each(|(task, (parents, children))| {
                self.row_into(children, parents).map_err(|error| NotCanonical {
                    index: task * PARENTS_PER_TASK * arity + error.index,
                })
            })?;
        Ok(parents)
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
        let children: Vec<Node> = (0..8 * 2000).map(|i| [(i % 64) as u8; 32]).collect();
        for hash in [RowHash::Sha256(Kernel::detect()), RowHash::Poseidon(Poseidon::arity8())] {
            let row = hash.row(&children).expect("canonical");
            assert_eq!(row.len(), children.len() / hash.arity());
            for (parent, children) in row.iter().zip(children.chunks(hash.arity())) {
                assert_eq!(*parent, hash.parent(children).expect("canonical"));
            }
        }
    }

    #[test]
    fn a_child_that_is_no_element_is_named() {
        let mut children = vec![[0; 32]; 8 * 3000];
        children[19_999] = [0xff; 32];
        let error = RowHash::Poseidon(Poseidon::arity8()).row(&children).unwrap_err();
        assert_eq!(error.index, 19_999);
    }
}
