//! The parents of all nodes in order, as fast as they can be had.
//!
//! What [`Graph::parents`] says of one node, for blocks of nodes: drawn parents from vectors of
//! ChaCha8 streams, expander parents from tables of the round functions, and multiplications in
//! place of divisions. For a node of the 32 GiB graph that is two ChaCha8 blocks, 48 look-ups in
//! tables that fit the second-level cache, and ten reductions of two multiplications each.

use seal_sha256::{BASE_PARENTS, ChaCha8, STREAM_WORDS, STREAMS, StreamWords};
use seal_types::ApiVersion;

use crate::feistel::RoundTables;
use crate::graph::METAGRAPH_DEGREE;
use crate::{EXPANDER_DEGREE, Graph, PARENTS};

/// Bytes of a node's parents in the cache.
pub(crate) const ENTRY: usize = PARENTS * 4;
/// Nodes whose expander parents are computed together: few enough that they leave the first-level
/// cache to the tables, many enough that the last, short passes don't count.
const TOGETHER: usize = 512;
/// Buckets of distances: the metagraph has fewer than 2^35 nodes.
const BUCKETS: usize = 36;

/// What it takes to compute the parents of a graph in bulk. Shared by threads.
#[derive(Debug)]
pub(crate) struct Generator {
    api_version: ApiVersion,
    seed: [u32; 7],
    draws: ChaCha8,
    tables: RoundTables,
    /// Divides by the number of buckets.
    buckets: [Modulus; BUCKETS],
    /// Divides by the number of distances in a bucket that is complete.
    distances: [Modulus; BUCKETS],
}

impl Generator {
    /// A generator for `graph`; takes some milliseconds.
    pub(crate) fn new(graph: &Graph) -> Self {
        let mut seed = [0; 7];
        for (word, bytes) in seed.iter_mut().zip(graph.base_seed().as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self {
            api_version: graph.api_version(),
            seed,
            draws: graph.draws(),
            tables: RoundTables::new(graph.feistel()),
            buckets: std::array::from_fn(|buckets| Modulus::new(buckets.max(1) as u64)),
            distances: std::array::from_fn(|bucket| {
                let largest = 1 << bucket.max(1);
                Modulus::new(largest - smallest_distance(largest) + 1)
            }),
        }
    }

    /// Writes the parents of the nodes from `first` on, as the cache has them.
    pub(crate) fn write(&self, first: u32, entries: &mut [u8]) {
        let (entries, rest) = entries.as_chunks_mut::<ENTRY>();
        assert!(rest.is_empty(), "whole entries");
        let mut images = [0; TOGETHER * EXPANDER_DEGREE];
        let mut again = Vec::new();
        let mut words = [[0; STREAMS]; STREAM_WORDS];
        for (first, entries) in (first..).step_by(TOGETHER).zip(entries.chunks_mut(TOGETHER)) {
            let images = &mut images[..entries.len() * EXPANDER_DEGREE];
            let index = u64::from(first) * EXPANDER_DEGREE as u64;
            self.tables.permute_from(index, images, &mut again);
            self.write_expander(images, entries);
            for (first, entries) in (first..).step_by(STREAMS).zip(entries.chunks_mut(STREAMS)) {
                self.draws.streams(&self.seed, first, &mut words);
                for (lane, (node, entry)) in (first..).zip(entries).enumerate() {
                    self.write_base(node, &words, lane, entry);
                }
            }
        }
    }

    fn write_expander(&self, images: &[u64], entries: &mut [[u8; ENTRY]]) {
        // API 1.0 cuts the image to 32 bits before it divides.
        let kept = match self.api_version {
            ApiVersion::V1_0 => u64::from(u32::MAX),
            ApiVersion::V1_1 | ApiVersion::V1_2 => u64::MAX,
        };
        for (entry, images) in entries.iter_mut().zip(images.as_chunks::<EXPANDER_DEGREE>().0) {
            let parents = &mut entry.as_chunks_mut().0[BASE_PARENTS..];
            for (parent, image) in parents.iter_mut().zip(images) {
                // Below the number of nodes, so nothing is cut here.
                *parent = (((image & kept) / EXPANDER_DEGREE as u64) as u32).to_le_bytes();
            }
        }
    }

    #[inline]
    fn write_base(&self, node: u32, words: &StreamWords, lane: usize, entry: &mut [u8; ENTRY]) {
        let parents = &mut entry.as_chunks_mut().0[..BASE_PARENTS];
        if node < 2 {
            parents.fill([0; 4]);
            return;
        }
        let (predecessor, drawn) = match self.api_version {
            ApiVersion::V1_0 => (BASE_PARENTS - 1, 0),
            ApiVersion::V1_1 | ApiVersion::V1_2 => (0, 1),
        };
        parents[predecessor] = (node - 1).to_le_bytes();

        let meta_node = u64::from(node) * METAGRAPH_DEGREE;
        let buckets = ((meta_node - 1).ilog2() + 1) as usize;
        let bucket_of = self.buckets[buckets];
        let draws = words.as_chunks::<4>().0;
        for (parent, draws) in parents[drawn..].iter_mut().zip(draws) {
            let [a, b, c, d] = draws.map(|word| u64::from(word[lane]));
            let (random_bucket, random_distance) = (a | (b << 32), c | (d << 32));
            let bucket = bucket_of.remainder(random_bucket) as usize + 1;
            let distance = if bucket == buckets {
                // The last bucket ends at the node itself.
                let smallest = smallest_distance(meta_node);
                smallest + random_distance % (meta_node - smallest + 1)
            } else {
                smallest_distance(1 << bucket) + self.distances[bucket].remainder(random_distance)
            };
            // A distance is at least 2, so the parent comes before its node.
            *parent = (((meta_node - distance) / METAGRAPH_DEGREE) as u32).to_le_bytes();
        }
    }
}

/// The smallest distance of the bucket whose largest is `largest`.
#[inline]
fn smallest_distance(largest: u64) -> u64 {
    (largest >> 1).max(2)
}

/// Remainders by a divisor that is used often, by multiplication with its inverse.
#[derive(Clone, Copy, Debug)]
struct Modulus {
    divisor: u64,
    inverse: u64,
}

impl Modulus {
    fn new(divisor: u64) -> Self {
        Self { divisor, inverse: u64::MAX / divisor }
    }

    /// The inverse is less than 1 too small as a multiple of 2^-64, so the quotient is the right
    /// one or the one before.
    #[inline]
    fn remainder(self, value: u64) -> u64 {
        let quotient = ((u128::from(value) * u128::from(self.inverse)) >> 64) as u64;
        let rest = value.wrapping_sub(quotient.wrapping_mul(self.divisor));
        if rest >= self.divisor { rest.wrapping_sub(self.divisor) } else { rest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use seal_types::{Porep, RegisteredProof};
    use test_support::plain;

    fn porep(name: &str) -> Porep {
        name.parse::<RegisteredProof>().expect("a registered proof").porep()
    }

    /// Compares nodes with the plain graph, which shares no line with this one.
    fn assert_same(graph: &plain::Graph, generator: &Generator, first: u32, count: u32) {
        let mut bytes = vec![0xff; count as usize * ENTRY];
        generator.write(first, &mut bytes);
        for (node, entry) in (first..).zip(bytes.as_chunks::<ENTRY>().0) {
            let found = entry.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
            let (base, expander) = graph.parents(u64::from(node));
            let expected = base.iter().chain(&expander).map(|parent| *parent as u32);
            assert!(found.eq(expected), "{} {graph:?} node {node}", generator.draws.name());
        }
    }

    #[test]
    fn every_kernel_writes_what_the_plain_graph_says() {
        for proof in RegisteredProof::all() {
            let porep = proof.porep();
            let graph = plain::Graph::new(&porep);
            let last = u32::try_from(porep.nodes() - 1).expect("below 2^32");
            let mut generator = Generator::new(&Graph::new(&porep));
            for kernel in ChaCha8::available() {
                generator.draws = kernel;
                // Where the number of buckets grows: 5 node - 1 passes a power of two.
                let passes = (3..34).map(|bits| u32::try_from((1_u64 << bits) / 5).unwrap_or(0));
                for around in passes.chain([0, last / 3, last]).filter(|node| *node <= last) {
                    let first = around.saturating_sub(5);
                    assert_same(&graph, &generator, first, 30.min(last - first + 1));
                }
            }
        }
    }

    #[test]
    fn blocks_of_any_length_are_filled() {
        let porep = porep("StackedDrg8MiBV1");
        let (graph, generator) = (plain::Graph::new(&porep), Generator::new(&Graph::new(&porep)));
        for count in [0, 1, 15, 17, 511, 513, 1025] {
            assert_same(&graph, &generator, 1000, count);
        }
    }

    proptest! {
        #[test]
        fn remainders_are_those_of_a_division(value: u64, divisor in 1_u64.., bits in 0_u32..64) {
            for divisor in [divisor, (divisor >> bits).max(1), 1 << bits, (1 << bits) + 1] {
                for value in [value, u64::MAX, u64::MAX - (u64::MAX % divisor), divisor - 1, 0] {
                    prop_assert_eq!(Modulus::new(divisor).remainder(value), value % divisor);
                }
            }
        }
    }
}
