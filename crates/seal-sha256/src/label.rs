//! The message of a label.
//!
//! A label is SHA-256 over 1,248 bytes, cut to 254 bits: 64 bytes of replica id, layer and node,
//! then 37 parents of 32 bytes — the parents in order, repeated until there are 37. With its
//! padding that is exactly 20 blocks. Node 0 has no parents: one block and padding.
//!
//! Source: specification, "SDR labelling"; `storage_proofs_porep::stacked::create_label`.

use crate::kernel::{INITIAL_STATE, Kernel, State, digest_of};

/// How many parents a label's message holds.
pub const REPEATED_PARENTS: usize = 37;
/// Parents of a node in layer 1: the base parents.
pub const BASE_PARENTS: usize = 6;
/// Parents of a node in the other layers: base and expander parents.
pub const ALL_PARENTS: usize = 14;

/// Blocks of a label's message after the header.
const PARENT_BLOCKS: usize = 19;

/// What the labels of one sector have in common: the replica id.
#[derive(Clone, Copy, Debug)]
pub struct LabelPrefix {
    kernel: Kernel,
    replica_id: [u8; 32],
}

impl LabelPrefix {
    /// Labels of the sector with `replica_id`, by `kernel`.
    pub fn new(kernel: Kernel, replica_id: [u8; 32]) -> Self {
        Self { kernel, replica_id }
    }

    /// The label of node 0 of `layer`, which has no parents.
    pub fn label_without_parents(&self, layer: u32) -> [u8; 32] {
        let mut padding = [0; 64];
        padding[0] = 0x80;
        padding[62] = 0x02;
        let mut state = INITIAL_STATE;
        self.kernel.compress(&mut state, &[self.header(layer, 0), padding]);
        cut(&state)
    }

    /// The label of `node` of `layer` over its parents' labels: 6 in layer 1, 14 in the others.
    #[inline]
    pub fn label<const PARENTS: usize>(
        &self,
        layer: u32,
        node: u64,
        parents: &[[u8; 32]; PARENTS],
    ) -> [u8; 32] {
        let mut message = [[0_u8; 64]; 1 + PARENT_BLOCKS];
        message[0] = self.header(layer, node);
        let (slots, _) = message[1..].as_flattened_mut().as_chunks_mut::<32>();
        for (slot, index) in slots[..REPEATED_PARENTS].iter_mut().zip((0..PARENTS).cycle()) {
            *slot = parents[index];
        }
        // Padding fills the last half block: 1,248 bytes are 9,984 bits.
        let last = &mut slots[REPEATED_PARENTS];
        last[0] = 0x80;
        last[30..].copy_from_slice(&9984_u16.to_be_bytes());
        let mut state = INITIAL_STATE;
        self.kernel.compress(&mut state, &message);
        cut(&state)
    }

    /// The kernel.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// The state after the header of `node` of `layer`.
    pub(crate) fn header_state(&self, layer: u32, node: u64) -> State {
        let mut state = INITIAL_STATE;
        self.kernel.compress(&mut state, &[self.header(layer, node)]);
        state
    }

    /// Replica id, layer and node, the numbers big-endian.
    fn header(&self, layer: u32, node: u64) -> [u8; 64] {
        let mut block = [0; 64];
        block[..32].copy_from_slice(&self.replica_id);
        block[32..36].copy_from_slice(&layer.to_be_bytes());
        block[36..44].copy_from_slice(&node.to_be_bytes());
        block
    }
}

/// The digest without its two highest bits, so that it is an element of the scalar field.
pub(crate) fn cut(state: &State) -> [u8; 32] {
    let mut label = digest_of(state);
    label[31] &= 0x3f;
    label
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    /// The label as the specification writes it, over the published hash.
    fn plain(replica_id: &[u8; 32], layer: u32, node: u64, parents: &[[u8; 32]]) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(replica_id);
        hasher.update(layer.to_be_bytes());
        hasher.update(node.to_be_bytes());
        hasher.update([0; 20]);
        for parent in parents.iter().cycle().take(if parents.is_empty() { 0 } else { 37 }) {
            hasher.update(parent);
        }
        let mut label: [u8; 32] = hasher.finalize().into();
        label[31] &= 0x3f;
        label
    }

    proptest! {
        #[test]
        fn every_kernel_labels_as_the_specification_says(
            replica_id: [u8; 32],
            layer: u32,
            node: u64,
            parents: [[u8; 32]; 14],
        ) {
            let base: &[[u8; 32]; 6] = parents.first_chunk().expect("14 is more than 6");
            for kernel in Kernel::available() {
                let prefix = LabelPrefix::new(kernel, replica_id);
                prop_assert_eq!(
                    prefix.label_without_parents(layer),
                    plain(&replica_id, layer, 0, &[])
                );
                prop_assert_eq!(
                    prefix.label(layer, node, base),
                    plain(&replica_id, layer, node, base)
                );
                prop_assert_eq!(
                    prefix.label(layer, node, &parents),
                    plain(&replica_id, layer, node, &parents)
                );
            }
        }
    }
}
