//! A consumer without producers prepares its labels itself, one node ahead of the chain.

use seal_sha256::{ALL_PARENTS, BASE_PARENTS, CALLS_BESIDE, Prepared};

use super::feed::Feed;
use crate::PARENTS;

/// Nodes ahead for which labels of parents are brought into the cache.
const FETCH_AHEAD: usize = 24;

/// The nodes that are being labelled and prepared, in turn.
///
/// A node is prepared in steps of some ten instructions, which the processor executes in the
/// waiting times of the chain before; in one piece they would have to be done before the chain is
/// in sight.
pub(crate) struct Own {
    feed: Feed,
    /// Node `n` is in slot `n mod 2`.
    slots: [Prepared; 2],
    /// The node that is labelled.
    current: usize,
    /// The node that is prepared; none after the last one.
    node: Option<usize>,
    /// What is to be done of it next.
    step: usize,
    parents: [u32; PARENTS],
    /// Parents of the node that is fetched for.
    later: [u32; PARENTS],
}

/// Parents of the same layer come first; what is complete of them can be hashed then, and the
/// header, before the expander parents.
const HASH: usize = BASE_PARENTS;
/// One step for each parent, and one for hashing.
const STEPS: usize = ALL_PARENTS + 1;
const _: () = assert!(STEPS <= CALLS_BESIDE);

impl Own {
    pub(crate) fn new(feed: Feed) -> Self {
        Self {
            feed,
            slots: Default::default(),
            current: 0,
            node: None,
            step: STEPS,
            parents: [0; PARENTS],
            later: [0; PARENTS],
        }
    }

    /// Goes to the node after those in `labels`, and begins with the one after it.
    #[inline(always)]
    pub(crate) fn advance(&mut self, labels: &[[u8; 32]], nodes: usize) {
        let next = labels.len();
        if self.node != Some(next) {
            // The first node after the start of the layer.
            self.begin(next, nodes);
        }
        while self.step < STEPS {
            self.step(labels);
        }
        self.current = next;
        self.slots[next % 2].patch(labels);
        if next + 1 < nodes {
            self.begin(next + 1, nodes);
        } else {
            self.node = None;
        }
    }

    /// The node that is labelled, with all of its parents.
    #[inline(always)]
    pub(crate) fn current(&self) -> &Prepared {
        &self.slots[self.current % 2]
    }

    #[inline(always)]
    fn begin(&mut self, node: usize, nodes: usize) {
        let parents = &self.feed.shared.parents;
        self.parents = parents.parents(node);
        self.later = parents.parents((node + FETCH_AHEAD).min(nodes - 1));
        self.slots[node % 2].late = 0;
        self.node = Some(node);
        self.step = 0;
    }

    /// Does the next step over the `labels` of the layer that are complete.
    #[inline(always)]
    pub(crate) fn step(&mut self, labels: &[[u8; 32]]) {
        if self.step >= STEPS {
            return;
        }
        let Some(node) = self.node else { return };
        let slot = &mut self.slots[node % 2];
        let step = self.step;
        self.step += 1;
        if step == HASH {
            self.feed.hash_ahead(node, slot);
        } else {
            let parent = if step < HASH { step } else { step - 1 };
            self.feed.gather(node, parent, self.parents[parent], labels, slot);
            self.feed.prefetch_one(parent, self.later[parent], labels);
        }
    }
}
