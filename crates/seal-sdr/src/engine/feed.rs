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
        for (i, parent) in parents[..BASE_PARENTS].iter().enumerate() {
            slot.base_nodes[i] = *parent;
            match labels.get(*parent as usize) {
                Some(label) => slot.parents[i] = *label,
                None => slot.late |= 1 << i,
            }
        }
        if let Some(previous) = &self.shared.previous {
            let previous = previous.published();
            for (i, parent) in parents.iter().enumerate().skip(BASE_PARENTS) {
                slot.parents[i] = previous[*parent as usize];
            }
        }
        slot.hash_ahead(&self.shared.prefix, self.shared.layer, node as u64);
    }

    /// Asks for the labels that `node` will need.
    #[inline(always)]
    pub(crate) fn prefetch(&self, node: usize, labels: &[[u8; 32]]) {
        let parents = self.shared.parents.parents(node);
        for parent in &parents[..BASE_PARENTS] {
            if let Some(label) = labels.get(*parent as usize) {
                prefetch(label);
            }
        }
        if let Some(previous) = &self.shared.previous {
            let previous = previous.published();
            for parent in &parents[BASE_PARENTS..] {
                prefetch(&previous[*parent as usize]);
            }
        }
    }
}
