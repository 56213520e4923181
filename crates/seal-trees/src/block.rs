//! Blocks: the part of a sector that is in memory at a time, a whole subtree of every tree.

use seal_types::{NODE_SIZE, Porep};

use crate::Node;
use crate::backend::{BlockView, Session, Work};

/// Areas and whole blocks begin at multiples of this many nodes, as direct I/O wants it.
const ALIGNMENT: usize = 4096 / NODE_SIZE;

/// How many blocks a sector should have for each worker, so that none is idle for long at the end.
const BLOCKS_PER_WORKER: u64 = 16;

/// Blocks of so many rows are not made smaller for the sake of [`BLOCKS_PER_WORKER`].
const SMALL_ROWS: u32 = 3;

/// How large blocks are and how many are in memory at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockPlan {
    pub(crate) work: Work,
    /// Rows of the trees above the leaves of a block.
    pub(crate) rows: u32,
    /// Blocks in memory.
    pub(crate) in_memory: usize,
    /// Blocks of the sector.
    pub(crate) count: u64,
}

impl BlockPlan {
    /// The largest blocks of which enough fit into `memory_bytes` for everybody to have work. The
    /// smallest ones are used if nothing fits.
    pub(crate) fn new(porep: &Porep, session: &dyn Session, memory_bytes: u64) -> Self {
        let workers = session.workers().max(1);
        let arity = porep.shape.base;
        let plan = |rows: u32, in_memory: usize| {
            let block_nodes = (arity as usize).pow(rows);
            let work = Work { layers: porep.layers, arity, block_nodes };
            Self { work, rows, in_memory, count: porep.nodes() / block_nodes as u64 }
        };
        // One for each worker, one being read and one being written; at best one for each reader
        // and writer, and half as many as there are workers that wait for one.
        let least = workers + 2;
        let most = workers + workers.div_ceil(2) + session.readers().max(1) + 2;
        let fits = |rows: u32| {
            let bytes = plan(rows, 1).block_nodes() as u64 * NODE_SIZE as u64;
            usize::try_from(memory_bytes / bytes).unwrap_or(usize::MAX)
        };
        let largest = porep.base_tree_leaves().min(session.largest_block().max(1) as u64);
        let enough = |rows: &u32| {
            let count = plan(*rows, 1).count;
            let busy = *rows <= SMALL_ROWS || count >= BLOCKS_PER_WORKER * workers as u64;
            busy && fits(*rows) >= least
        };
        // A single node is no block of SHA-256.
        let (fewest, many) = (1, largest.ilog(u64::from(arity)).max(1));
        let rows = (fewest..=many).rev().find(enough).unwrap_or(fewest);
        let in_memory = fits(rows).clamp(least, most);
        let count = usize::try_from(plan(rows, 1).count).unwrap_or(usize::MAX);
        plan(rows, in_memory.min(count.max(1)))
    }

    /// Bytes of all blocks in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.in_memory * self.block_nodes() * NODE_SIZE
    }

    /// Nodes of a block with everything that belongs to it.
    pub(crate) fn block_nodes(&self) -> usize {
        self.areas().iter().sum()
    }

    /// Nodes from leaves to the root of a block.
    fn tree_nodes(&self) -> usize {
        row_lengths(self.work.block_nodes, self.work.arity as usize).sum()
    }

    /// Nodes of the areas, in the order of [`Block::view`].
    fn areas(&self) -> Vec<usize> {
        let nodes = self.work.block_nodes;
        let tree = self.tree_nodes();
        let align = |area: usize| {
            if nodes < ALIGNMENT { area } else { area.next_multiple_of(ALIGNMENT) }
        };
        let mut areas = vec![nodes; self.work.layers as usize + 1];
        areas.extend([tree, nodes, tree - nodes].map(align));
        areas
    }

    /// Cuts `memory` into blocks.
    pub(crate) fn cut<'m>(&self, memory: &'m mut [u8]) -> impl Iterator<Item = &'m mut [Node]> {
        let (nodes, _) = memory.as_chunks_mut::<NODE_SIZE>();
        nodes.chunks_exact_mut(self.block_nodes()).take(self.in_memory)
    }
}

/// The lengths of the rows over `leaves`, these first.
pub(crate) fn row_lengths(leaves: usize, arity: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(leaves), move |row| (*row > 1).then(|| row / arity))
}

/// A block of a sector in its memory.
#[derive(Debug)]
pub(crate) struct Block<'m> {
    /// Which one, counted from the start of the sector.
    pub(crate) number: u64,
    pub(crate) memory: &'m mut [Node],
}

impl Block<'_> {
    /// The sector's node that is the block's first.
    pub(crate) fn first_node(&self, plan: &BlockPlan) -> u64 {
        self.number * plan.work.block_nodes as u64
    }

    /// The areas that are read: the layers, then the data.
    pub(crate) fn inputs(&mut self, plan: &BlockPlan) -> impl Iterator<Item = &mut [Node]> {
        let inputs = plan.work.layers as usize + 1;
        self.memory.chunks_exact_mut(plan.work.block_nodes).take(inputs)
    }

    /// All areas.
    pub(crate) fn view(&mut self, plan: &BlockPlan) -> BlockView<'_> {
        let (nodes, tree) = (plan.work.block_nodes, plan.tree_nodes());
        let mut areas = Vec::new();
        let mut rest = &mut *self.memory;
        for area in plan.areas() {
            let (first, others) = rest.split_at_mut(area);
            areas.push(first);
            rest = others;
        }
        let mut last = || areas.pop().expect("as many as `areas` has");
        let (tree_r, replica, tree_c, data) = (last(), last(), last(), last());
        BlockView {
            layers: areas.into_iter().map(|area| &*area).collect(),
            data,
            tree_c: &mut tree_c[..tree],
            replica,
            tree_r: &mut tree_r[..tree - nodes],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{DeviceError, Worker};
    use proptest::prelude::*;
    use seal_types::RegisteredProof;

    #[derive(Debug)]
    struct Workers(usize, usize);

    impl Session for Workers {
        fn device(&self) -> String {
            String::new()
        }

        fn workers(&self) -> usize {
            self.0
        }

        fn largest_block(&self) -> usize {
            self.1
        }

        fn readers(&self) -> usize {
            2
        }

        fn worker(&self, _: &Work) -> Result<Box<dyn Worker + '_>, DeviceError> {
            Err("only counted here".into())
        }
    }

    fn plan(proof: &str, workers: Workers, memory_bytes: u64) -> BlockPlan {
        let porep = proof.parse::<RegisteredProof>().expect("a proof").porep();
        BlockPlan::new(&porep, &workers, memory_bytes)
    }

    #[test]
    fn blocks_are_as_large_as_memory_and_sector_allow() {
        let block = |proof, workers, memory| {
            let plan = plan(proof, Workers(workers, 1 << 15), memory);
            (plan.work.block_nodes, plan.in_memory)
        };
        assert_eq!(block("StackedDrg32GiBV1_1", 2, 2 << 30), (1 << 15, 7));
        assert_eq!(block("StackedDrg64GiBV1_1", 128, 2 << 30), (1 << 15, 143));
        assert_eq!(block("StackedDrg64GiBV1_1", 128, 1 << 30), (1 << 12, 196));
        assert_eq!(block("StackedDrg512MiBV1_1", 2, 2 << 30), (1 << 15, 7));
        assert_eq!(block("StackedDrg512MiBV1_1", 64, 2 << 30), (1 << 12, 100));
        assert_eq!(block("StackedDrg8MiBV1_1", 2, 2 << 30), (1 << 12, 7));
        assert_eq!(block("StackedDrg8MiBV1_1", 128, 2 << 30), (512, 196));
        assert_eq!(block("StackedDrg2KiBV1_1", 2, 2 << 30), (64, 1));
        assert_eq!(block("StackedDrg2KiBV1_1", 2, 0), (8, 4));
    }

    proptest! {
        #[test]
        fn memory_is_bounded_whatever_the_sector(
            proof in prop::sample::select(RegisteredProof::all().collect::<Vec<_>>()),
            workers in 1..300_usize, rows in 0..8_u32, memory_mib in 1..4096_u64,
        ) {
            let porep = proof.porep();
            let session = Workers(workers, 8_usize.pow(rows));
            let plan = BlockPlan::new(&porep, &session, memory_mib << 20);
            prop_assert!(plan.memory_bytes() as u64 <= memory_mib << 20, "{plan:?}");
            prop_assert_eq!(plan.count * plan.work.block_nodes as u64, porep.nodes());
            prop_assert!(porep.base_tree_leaves().is_multiple_of(plan.work.block_nodes as u64));
            prop_assert!(plan.in_memory >= 1);
        }
    }

    #[test]
    fn areas_are_aligned_and_do_not_overlap() {
        for rows in 1..5 {
            let mut plan = plan("StackedDrg32GiBV1_1", Workers(1, 8_usize.pow(rows)), 1 << 30);
            plan.in_memory = 2;
            let mut memory = seal_host::Region::anonymous(plan.memory_bytes()).expect("memory");
            let blocks: Vec<_> = plan.cut(memory.bytes_mut()).collect();
            assert_eq!(blocks.len(), 2);
            for memory in blocks {
                let mut block = Block { number: 3, memory };
                assert_eq!(block.inputs(&plan).count(), 12);
                let first = block.memory.as_ptr().addr();
                let bytes = block.memory.len() * NODE_SIZE;
                let view = block.view(&plan);
                let nodes = 8_usize.pow(rows);
                let mut areas = vec![view.data, view.tree_c, view.replica, view.tree_r];
                areas.extend(view.layers);
                assert_eq!(areas.len(), 15);
                assert_eq!(areas[1].len(), areas[3].len() + nodes);
                let mut places: Vec<_> =
                    areas.iter().map(|area| (area.as_ptr().addr(), area.len() * 32)).collect();
                places.sort();
                for pair in places.windows(2) {
                    assert!(pair[0].0 + pair[0].1 <= pair[1].0);
                }
                let last = places.last().expect("fifteen");
                assert!(places[0].0 == first && last.0 + last.1 <= first + bytes);
                assert!(rows < 3 || places.iter().all(|(place, _)| place % 4096 == 0));
            }
        }
    }
}
