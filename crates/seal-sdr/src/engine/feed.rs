//! Preparing labels ahead of the chain.

use std::sync::Arc;

use seal_sha256::{BASE_PARENTS, Prepared, prefetch};

use super::job::Shared;

/// Prepares nodes of one layer, as far as their parents are complete.
pub(crate) struct Feed {
    pub(crate) shared: Arc<Shared>,
}

impl Feed {
    /// Prepares `node` over the `labels` of its own layer that are complete. A base parent that is
    /// not among them is late, and nothing over it is hashed.
    #[inline(always)]
    pub(crate) fn prepare(&self, node: usize, labels: &[[u8; 32]], slot: &mut Prepared) {
        let parents = self.shared.parents.parents(node);
        slot.late = 0;
        for (i, parent) in parents.into_iter().enumerate() {
            self.gather(node, i, parent, labels, slot);
        }
        self.hash_ahead(node, slot);
    }

    /// Copies the label of parent `i` of `node`, or notes that it is late. One that cannot be a
    /// parent of it, which only a damaged file has, stops the layer.
    #[inline(always)]
    pub(crate) fn gather(
        &self,
        node: usize,
        i: usize,
        parent: u32,
        labels: &[[u8; 32]],
        slot: &mut Prepared,
    ) {
        if i < BASE_PARENTS {
            slot.base_nodes[i] = parent;
            match labels.get(parent as usize) {
                Some(label) => slot.parents[i] = *label,
                None => {
                    slot.late |= 1 << i;
                    // Node 0 has itself for parents, which nobody asks for.
                    if parent as usize >= node.max(1) {
                        self.shared.met_bad_parent(node, i, parent);
                        // Node 0 is there when it is asked for.
                        slot.base_nodes[i] = 0;
                    }
                }
            }
        } else if let Some(previous) = &self.shared.previous {
            match previous.published().get(parent as usize) {
                Some(label) => slot.parents[i] = *label,
                None => self.shared.met_bad_parent(node, i, parent),
            }
        }
    }

    /// Hashes what is complete of `node`, once its base parents are gathered.
    #[inline(always)]
    pub(crate) fn hash_ahead(&self, node: usize, slot: &mut Prepared) {
        slot.hash_ahead(&self.shared.prefix, self.shared.layer, node as u64);
    }

    /// Asks for the labels that `node` will need.
    #[inline(always)]
    pub(crate) fn prefetch(&self, node: usize, labels: &[[u8; 32]]) {
        for (i, parent) in self.shared.parents.parents(node).into_iter().enumerate() {
            self.prefetch_one(i, parent, labels);
        }
    }

    /// Asks for the label of parent `i`.
    #[inline(always)]
    pub(crate) fn prefetch_one(&self, i: usize, parent: u32, labels: &[[u8; 32]]) {
        if i < BASE_PARENTS {
            if let Some(label) = labels.get(parent as usize) {
                prefetch(label);
            }
        } else if let Some(previous) = &self.shared.previous
            && let Some(label) = previous.published().get(parent as usize)
        {
            prefetch(label);
        }
    }
}
