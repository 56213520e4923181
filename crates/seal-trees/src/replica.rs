//! The replica: data plus the labels of the last layer, as field elements.

use rayon::prelude::*;
use seal_host::FileError;
use seal_poseidon::{element_from_bytes, element_to_bytes};

use crate::Node;
use crate::node_file::{NodeFile, ReadNodes, buffer};

/// Nodes that one thread encodes at a time.
const NODES_PER_TASK: usize = 4096;

/// A summand that is no element of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadNode {
    /// The data at this index of the block.
    Data(usize),
    /// The label at this index of the block.
    Label(usize),
}

/// The replica of a block.
pub(crate) fn encode(data: &[Node], labels: &[Node]) -> Result<Vec<Node>, BadNode> {
    let mut replica = buffer(data.len());
    replica
        .par_chunks_mut(NODES_PER_TASK)
        .zip(data.par_chunks(NODES_PER_TASK).zip(labels.par_chunks(NODES_PER_TASK)))
        .enumerate()
        .try_for_each(|(task, (replica, (data, labels)))| {
            for (i, ((node, data), label)) in replica.iter_mut().zip(data).zip(labels).enumerate() {
                *node =
                    encode_node(data, label).map_err(|bad| bad.after(task * NODES_PER_TASK + i))?;
            }
            Ok(())
        })?;
    Ok(replica)
}

/// The replica of a single node.
fn encode_node(data: &Node, label: &Node) -> Result<Node, BadNode> {
    let data = element_from_bytes(data).ok_or(BadNode::Data(0))?;
    let label = element_from_bytes(label).ok_or(BadNode::Label(0))?;
    Ok(element_to_bytes(&(data + label)))
}

impl BadNode {
    fn after(self, nodes: usize) -> Self {
        match self {
            Self::Data(index) => Self::Data(nodes + index),
            Self::Label(index) => Self::Label(nodes + index),
        }
    }
}

/// What a sealed file was found to hold before PC2, judged by samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedState {
    /// The unsealed data, as PC1 leaves it.
    Unsealed,
    /// The finished replica: PC2 has run before.
    Replica,
    /// Some of both: software that encodes in place was interrupted.
    Mixed,
    /// Neither: another length, or other bytes.
    Other,
}

/// Compares `sealed` at the nodes `samples` with the leaf row of tree D and with the replica.
pub(crate) fn sealed_state(
    sealed: &NodeFile,
    tree_d: &NodeFile,
    last_layer: &NodeFile,
    nodes: u64,
    samples: impl Iterator<Item = u64>,
) -> Result<SealedState, FileError> {
    let node_bytes = std::mem::size_of::<Node>() as u64;
    if sealed.bytes()? != nodes * node_bytes {
        return Ok(SealedState::Other);
    }
    let (mut unsealed, mut replica) = (false, false);
    for node in samples {
        let (found, data) = (sealed.node(node)?, tree_d.node(node)?);
        let encoded = encode_node(&data, &last_layer.node(node)?);
        match (found == data, Ok(found) == encoded) {
            (true, false) => unsealed = true,
            (false, true) => replica = true,
            // A label of zero: either way the node is as it should be.
            (true, true) => {}
            (false, false) => return Ok(SealedState::Other),
        }
    }
    Ok(match (unsealed, replica) {
        (true, true) => SealedState::Mixed,
        (false, true) => SealedState::Replica,
        (_, false) => SealedState::Unsealed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_added_in_the_field() {
        let minus_one = element_to_bytes(&-seal_poseidon::Fr::from(1));
        let two = element_to_bytes(&seal_poseidon::Fr::from(2));
        let one = element_to_bytes(&seal_poseidon::Fr::from(1));
        assert_eq!(encode(&[minus_one, two], &[two, minus_one]), Ok(vec![one, one]));
    }

    #[test]
    fn a_node_that_is_no_element_is_named() {
        let (good, mut bad) = (vec![[0; 32]; 5000], vec![[0; 32]; 5000]);
        bad[4999] = [0xff; 32];
        assert_eq!(encode(&good, &bad), Err(BadNode::Label(4999)));
        assert_eq!(encode(&bad, &good), Err(BadNode::Data(4999)));
    }
}
