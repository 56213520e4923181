//! The replica: data plus the labels of the last layer, as field elements.

use seal_host::FileError;
use seal_types::NODE_SIZE;

use crate::Node;
use crate::node_file::{NodeFile, ReadNodes};

/// The modulus of the field in words, the lowest first. (The scalar field of BLS12-381; source:
/// the BLS signatures draft, appendix of pairing-friendly curves.)
const MODULUS: [u64; 4] =
    [0xffff_ffff_0000_0001, 0x53bd_a402_fffe_5bfe, 0x3339_d808_09a1_d805, 0x73ed_a753_299d_7d48];

/// A summand that is no element of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadNode {
    /// The data at this index of the block.
    Data(usize),
    /// The label at this index of the block.
    Label(usize),
}

/// Writes the replica of a block into `replica`.
///
/// # Panics
/// When the three differ in length.
pub(crate) fn encode_into(
    data: &[Node],
    labels: &[Node],
    replica: &mut [Node],
) -> Result<(), BadNode> {
    assert!(data.len() == labels.len() && data.len() == replica.len(), "nodes of one block");
    for (i, ((node, data), label)) in replica.iter_mut().zip(data).zip(labels).enumerate() {
        *node = encode_node(data, label).map_err(|bad| match bad {
            BadNode::Data(_) => BadNode::Data(i),
            BadNode::Label(_) => BadNode::Label(i),
        })?;
    }
    Ok(())
}

/// The replica of a single node: the sum in the field. A number is an element if it is below the
/// modulus, and then so is the sum after at most one subtraction, which no form but the plain one
/// is needed for.
pub(crate) fn encode_node(data: &Node, label: &Node) -> Result<Node, BadNode> {
    let (data, label) = (words(data), words(label));
    if minus(&data, &MODULUS).is_some() {
        return Err(BadNode::Data(0));
    }
    if minus(&label, &MODULUS).is_some() {
        return Err(BadNode::Label(0));
    }
    // Two numbers below 2^255 have a sum below 2^256.
    let mut carry = false;
    let sum = std::array::from_fn(|i| {
        let (partial, first) = data[i].overflowing_add(label[i]);
        let (sum, second) = partial.overflowing_add(u64::from(carry));
        carry = first | second;
        sum
    });
    let sum = minus(&sum, &MODULUS).unwrap_or(sum);
    let mut node = [0; NODE_SIZE];
    for (bytes, word) in node.as_chunks_mut().0.iter_mut().zip(sum) {
        *bytes = word.to_le_bytes();
    }
    Ok(node)
}

fn words(node: &Node) -> [u64; 4] {
    let (words, _) = node.as_chunks();
    std::array::from_fn(|i| u64::from_le_bytes(words[i]))
}

/// `a - b`, unless that is negative.
fn minus(a: &[u64; 4], b: &[u64; 4]) -> Option<[u64; 4]> {
    let mut borrow = false;
    let difference = std::array::from_fn(|i| {
        let (partial, first) = a[i].overflowing_sub(b[i]);
        let (difference, second) = partial.overflowing_sub(u64::from(borrow));
        borrow = first | second;
        difference
    });
    (!borrow).then_some(difference)
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
    use proptest::prelude::*;
    use seal_poseidon::{Fr, element_from_bytes, element_to_bytes};

    fn in_the_field(data: &Node, label: &Node) -> Result<Node, BadNode> {
        let data = element_from_bytes(data).ok_or(BadNode::Data(0))?;
        let label = element_from_bytes(label).ok_or(BadNode::Label(0))?;
        Ok(element_to_bytes(&(data + label)))
    }

    proptest! {
        #[test]
        fn nodes_are_added_as_the_field_adds_them(data: Node, label: Node, top in 0..=1_u8) {
            // Below the modulus, and about it.
            let [data, label] = [data, label].map(|mut node| {
                node[31] = if top == 0 { node[31] & 0x3f } else { 0x70 | node[31] & 0x07 };
                node
            });
            prop_assert_eq!(encode_node(&data, &label), in_the_field(&data, &label));
        }
    }

    #[test]
    fn the_corners_of_the_field_are_added_too() {
        let mut modulus = element_to_bytes(&-Fr::from(1));
        modulus[0] += 1;
        let small = [0, 1, 2].map(|n| element_to_bytes(&Fr::from(n)));
        let large = [1, 2].map(|n| element_to_bytes(&-Fr::from(n)));
        let beyond = [modulus, [0xff; 32]];
        let corners = [&small[..], &large, &beyond].concat();
        for data in &corners {
            for label in &corners {
                assert_eq!(encode_node(data, label), in_the_field(data, label));
            }
        }
    }

    #[test]
    fn a_node_that_is_no_element_is_named() {
        let (good, mut bad) = (vec![[0; 32]; 5000], vec![[0; 32]; 5000]);
        bad[4999] = [0xff; 32];
        let mut replica = vec![[0; 32]; 5000];
        assert_eq!(encode_into(&good, &bad, &mut replica), Err(BadNode::Label(4999)));
        assert_eq!(encode_into(&bad, &good, &mut replica), Err(BadNode::Data(4999)));
    }
}
