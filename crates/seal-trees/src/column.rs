//! Columns: the labels of one node in all layers, hashed into a leaf of tree C.

use rayon::prelude::*;
use seal_poseidon::{Fr, Poseidon, element_from_bytes, element_to_bytes};

use crate::Node;
use crate::node_file::buffer;

/// Columns that one thread hashes at a time.
const COLUMNS_PER_TASK: usize = 256;

/// A label that is no element of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadLabel {
    /// Index into the layers.
    pub(crate) layer: usize,
    /// Index into the block.
    pub(crate) node: usize,
}

/// The leaves of tree C over a block of nodes, given by layer.
pub(crate) fn hash_columns(
    hash: &'static Poseidon,
    layers: &[Vec<Node>],
) -> Result<Vec<Node>, BadLabel> {
    let mut leaves = buffer(layers[0].len());
    leaves.par_chunks_mut(COLUMNS_PER_TASK).enumerate().try_for_each(|(task, leaves)| {
        let mut column = vec![Fr::default(); layers.len()];
        for (i, leaf) in leaves.iter_mut().enumerate() {
            let node = task * COLUMNS_PER_TASK + i;
            for (layer, (element, labels)) in column.iter_mut().zip(layers).enumerate() {
                *element = element_from_bytes(&labels[node]).ok_or(BadLabel { layer, node })?;
            }
            *leaf = element_to_bytes(&hash.hash(&column));
        }
        Ok(())
    })?;
    Ok(leaves)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_is_the_hash_of_its_column() {
        let layers: Vec<Vec<Node>> =
            (0..11).map(|layer| (0..600).map(|n| [(layer + n % 40) as u8; 32]).collect()).collect();
        let leaves = hash_columns(Poseidon::arity11(), &layers).expect("canonical");
        for node in [0, 255, 256, 599] {
            let column: Vec<Node> = layers.iter().map(|labels| labels[node]).collect();
            assert_eq!(Poseidon::arity11().hash_nodes(&column), Ok(leaves[node]));
        }
    }

    #[test]
    fn a_label_that_is_no_element_is_named() {
        let mut layers = vec![vec![[0; 32]; 300]; 2];
        layers[1][299] = [0xff; 32];
        let error = hash_columns(Poseidon::arity2(), &layers);
        assert_eq!(error, Err(BadLabel { layer: 1, node: 299 }));
    }
}
