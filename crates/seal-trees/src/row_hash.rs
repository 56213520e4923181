//! The hashes that make one row of a tree from the row below.

use rayon::prelude::*;
use seal_poseidon::{NotCanonical, Poseidon};
use seal_sha256::Kernel;
use seal_types::NODE_SIZE;

use crate::Node;
use crate::node_file::buffer;

/// Parents that one thread hashes at a time: some milliseconds of Poseidon.
const PARENTS_PER_TASK: usize = 128;

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

    /// The row above `children`, whose number is a multiple of the arity; hashed on all threads.
    pub(crate) fn row(self, children: &[Node]) -> Result<Vec<Node>, NotCanonical> {
        let arity = self.arity();
        let mut parents = buffer(children.len() / arity);
        parents
            .par_chunks_mut(PARENTS_PER_TASK)
            .zip(children.par_chunks(PARENTS_PER_TASK * arity))
            .enumerate()
            .try_for_each(|(task, (parents, children))| {
                for (i, (parent, children)) in
                    parents.iter_mut().zip(children.chunks_exact(arity)).enumerate()
                {
                    *parent = self.parent(children).map_err(|error| NotCanonical {
                        index: (task * PARENTS_PER_TASK + i) * arity + error.index,
                    })?;
                }
                Ok(())
            })?;
        Ok(parents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_the_parents_of_its_groups() {
        let children: Vec<Node> = (0..8 * 300).map(|i| [(i % 64) as u8; 32]).collect();
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
        let mut children = vec![[0; 32]; 8 * 300];
        children[1999] = [0xff; 32];
        let error = RowHash::Poseidon(Poseidon::arity8()).row(&children).unwrap_err();
        assert_eq!(error.index, 1999);
    }
}
