//! The serial part of labelling: from what could be prepared to the label.
//!
//! Of the 20 blocks of a label's message only the header is independent of other labels. With API
//! 1.1 the predecessor is parent 0, which stands in the first block after the header, so 19 blocks
//! remain for the one who computes label after label: the chain that bounds a sector's latency.
//! With API 1.0 the predecessor is parent 5, and up to two more blocks can be hashed ahead.
//!
//! Several independent chains are interleaved in one thread: one alone waits for the latency of
//! each round most of the time.

use crate::kernel::{Kernel, State};
use crate::label::{ALL_PARENTS, BASE_PARENTS, LabelPrefix};

/// Blocks of a label's message after the header.
pub(crate) const CHAIN: usize = 19;
/// The last of them holds one parent and padding.
const LAST: usize = CHAIN - 1;

/// The end of the message: padding behind 1,248 bytes, and their length in bits.
pub(crate) const PADDING: [u8; 32] = {
    let mut half = [0; 32];
    half[0] = 0x80;
    let length = 9984_u16.to_be_bytes();
    half[30] = length[0];
    half[31] = length[1];
    half
};

/// What a producer prepares of one label: the parents that were complete, and the state after the
/// header and the blocks over them.
///
/// 512 bytes, so that a slot of the ring fills whole cache lines.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub struct Prepared {
    /// Labels of the parents, base parents first. Those that were late hold anything.
    pub parents: [[u8; 32]; ALL_PARENTS],
    /// State after the header and [`Prepared::ahead`] blocks.
    pub state: State,
    /// The nodes of the base parents, so that late ones can be looked up.
    pub base_nodes: [u32; BASE_PARENTS],
    /// Bit `i` is set if base parent `i` was late.
    pub late: u8,
    /// How many blocks after the header are in `state`.
    pub ahead: u8,
}

impl Default for Prepared {
    fn default() -> Self {
        Self {
            parents: [[0; 32]; ALL_PARENTS],
            state: State::default(),
            base_nodes: [0; BASE_PARENTS],
            late: 0,
            ahead: 0,
        }
    }
}

impl Prepared {
    /// Starts the message of `node` and hashes what is complete: the header, and each of the first
    /// blocks whose two parents were not late. Parents and `late` are set before.
    pub fn hash_ahead(&mut self, prefix: &LabelPrefix, layer: u32, node: u64) {
        let kernel = prefix.kernel();
        self.state = prefix.header_state(layer, node);
        self.ahead = 0;
        while self.late & (0b11 << (2 * self.ahead)) == 0 && usize::from(self.ahead) < AHEAD {
            let block = usize::from(self.ahead);
            kernel.compress_halves(
                &mut self.state,
                &self.parents[2 * block],
                &self.parents[2 * block + 1],
            );
            self.ahead += 1;
        }
    }

    /// Puts the late parents in, from the labels of the layer so far.
    #[inline(always)]
    pub fn patch(&mut self, labels: &[[u8; 32]]) {
        let mut late = self.late;
        while late != 0 {
            let i = late.trailing_zeros() as usize;
            self.parents[i] = labels[self.base_nodes[i] as usize];
            late &= late - 1;
        }
    }

    /// The two halves of block `block` after the header, for a message of `PARENTS` parents.
    #[inline(always)]
    pub(crate) fn halves<const PARENTS: usize>(&self, block: usize) -> (&[u8; 32], &[u8; 32]) {
        const { assert!(PARENTS == BASE_PARENTS || PARENTS == ALL_PARENTS) };
        if block == LAST {
            return (&self.parents[(2 * LAST) % PARENTS], &PADDING);
        }
        let first = 2 * block % PARENTS;
        (&self.parents[first], &self.parents[first + 1])
    }
}

/// At most the three blocks over the base parents, of which the predecessor is always in one.
const AHEAD: usize = BASE_PARENTS / 2;

/// A run of labels in `LANES` lanes: where the chain takes what is prepared, and where the labels
/// go.
pub trait Run<const LANES: usize> {
    /// Goes to the next node of each lane and puts all of its parents in place; `false` ends the
    /// run.
    fn advance(&mut self) -> bool;
    /// What is prepared of the nodes that [`Run::advance`] went to.
    fn prepared(&self) -> [&Prepared; LANES];
    /// Is called after each block, at least [`CALLS_BESIDE`] times for a node: a little work that
    /// does not wait for the label is executed while the chain waits for its round instructions,
    /// which in one piece would stand before the next chain.
    #[inline(always)]
    fn beside(&mut self) {}
    /// Takes the labels of these nodes. The next ones may need them.
    fn done(&mut self, labels: [[u8; 32]; LANES]);
}

/// How often [`Run::beside`] is called for a node at least: after every block that cannot be
/// hashed ahead.
pub const CALLS_BESIDE: usize = CHAIN - AHEAD;

impl Kernel {
    /// Labels the nodes of `run`, one of each lane at a time: messages of `PARENTS` parents, 6 in
    /// layer 1 and 14 in the others.
    #[inline]
    pub fn chain<const PARENTS: usize, const LANES: usize>(self, run: &mut impl Run<LANES>) {
        self.run_chain::<PARENTS, LANES>(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Labels by chains must be those by [`LabelPrefix`], which the published hash judges.
    fn check<const PARENTS: usize, const LANES: usize>(
        kernel: Kernel,
        parents: &[[[u8; 32]; ALL_PARENTS]],
        late: &[u8],
    ) {
        let layer = if PARENTS == BASE_PARENTS { 1 } else { 2 };
        let mut expected = Vec::new();
        let mut slots = Vec::new();
        for lane in 0..LANES {
            let node = 40 + lane as u64;
            let prefix = LabelPrefix::new(kernel, [lane.to_le_bytes()[0]; 32]);
            let of_node: &[[u8; 32]; PARENTS] = parents[lane].first_chunk().expect("14");
            expected.push(prefix.label::<PARENTS>(layer, node, of_node));

            // Late parents are elsewhere until they are patched in.
            let mut slot =
                Prepared { parents: parents[lane], late: late[lane], ..Prepared::default() };
            for i in 0..BASE_PARENTS {
                slot.base_nodes[i] = u32::try_from(i).expect("small");
                if late[lane] >> i & 1 == 1 {
                    slot.parents[i] = [0xee; 32];
                }
            }
            slot.hash_ahead(&prefix, layer, node);
            slot.patch(&parents[lane]);
            slots.push(slot);
        }
        let mut run = Repeated::<LANES> { slots, left: 4, calls: 0, labels: Vec::new() };
        kernel.chain::<PARENTS, LANES>(&mut run);
        assert_eq!(run.labels.len(), 3);
        for labels in run.labels {
            assert_eq!(labels[..], expected, "{} {PARENTS} {LANES} {late:?}", kernel.name());
        }
        assert_eq!(run.left, 0, "the run was taken to its end");
    }

    /// The same nodes several times, so that nothing is left over from the one before.
    struct Repeated<const LANES: usize> {
        slots: Vec<Prepared>,
        left: u32,
        calls: usize,
        labels: Vec<[[u8; 32]; LANES]>,
    }

    impl<const LANES: usize> Run<LANES> for Repeated<LANES> {
        fn advance(&mut self) -> bool {
            self.calls = 0;
            self.left = self.left.saturating_sub(1);
            self.left > 0
        }

        fn prepared(&self) -> [&Prepared; LANES] {
            std::array::from_fn(|lane| &self.slots[lane])
        }

        fn beside(&mut self) {
            self.calls += 1;
        }

        fn done(&mut self, labels: [[u8; 32]; LANES]) {
            assert!((CALLS_BESIDE..=CHAIN).contains(&self.calls), "{}", self.calls);
            self.labels.push(labels);
        }
    }

    proptest! {
        #[test]
        fn chains_end_in_the_label_whatever_was_late(
            parents: [[[u8; 32]; ALL_PARENTS]; 4],
            late in proptest::collection::vec(1_u8..64, 4),
        ) {
            for kernel in Kernel::available() {
                check::<BASE_PARENTS, 1>(kernel, &parents, &late);
                check::<BASE_PARENTS, 2>(kernel, &parents, &late);
                check::<BASE_PARENTS, 4>(kernel, &parents, &late);
                check::<ALL_PARENTS, 1>(kernel, &parents, &late);
                check::<ALL_PARENTS, 2>(kernel, &parents, &late);
                check::<ALL_PARENTS, 4>(kernel, &parents, &late);
            }
        }
    }

    #[test]
    fn blocks_are_hashed_ahead_until_the_first_late_parent() {
        let prefix = LabelPrefix::new(Kernel::detect(), [1; 32]);
        for (late, ahead) in [(0b00_0001, 0), (0b10_0000, 2), (0b10_0100, 1), (0b10_0010, 0)] {
            let mut slot = Prepared { late, ..Prepared::default() };
            slot.hash_ahead(&prefix, 2, 40);
            assert_eq!(slot.ahead, ahead, "{late:b}");
        }
    }

    #[test]
    fn a_slot_fills_whole_cache_lines() {
        assert_eq!(size_of::<Prepared>(), 512);
    }
}
