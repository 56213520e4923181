//! The stacked graph: six base parents (DRSample) and eight expander parents of every node.
//!
//! Source: specification, "Depth robust graphs" and "Expander graphs";
//! `storage_proofs_core::drgraph`, `storage_proofs_porep::stacked::graph`.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use seal_sha256::{ALL_PARENTS, BASE_PARENTS, ChaCha8};
use seal_types::{ApiVersion, Porep, PorepId};
use sha2::{Digest, Sha256};

use crate::feistel::Feistel;

/// Parents of a node: base parents, then expander parents.
pub const PARENTS: usize = ALL_PARENTS;
/// Expander parents of a node.
pub const EXPANDER_DEGREE: usize = ALL_PARENTS - BASE_PARENTS;

/// Nodes of the graph behind the base graph, for each node of the base graph.
pub(crate) const METAGRAPH_DEGREE: u64 = BASE_PARENTS as u64 - 1;

/// The graph of one registered proof.
#[derive(Clone, Debug)]
pub struct Graph {
    nodes: u64,
    api_version: ApiVersion,
    base_seed: [u8; 28],
    feistel_keys: [u64; 4],
    feistel: Feistel,
    draws: ChaCha8,
}

impl Graph {
    /// The graph that `porep` labels.
    pub fn new(porep: &Porep) -> Self {
        let nodes = porep.nodes();
        let seed = domain_seed("Filecoin_DRSample", porep.porep_id);
        let base_seed = *seed.first_chunk().expect("32 is more than 28");
        let seed = domain_seed("Filecoin_Feistel", porep.porep_id);
        let mut feistel_keys = [0; 4];
        for (key, bytes) in feistel_keys.iter_mut().zip(seed.as_chunks::<8>().0) {
            *key = u64::from_le_bytes(*bytes);
        }
        let [k0, k1, k2, _] = feistel_keys;
        let feistel = Feistel::new(nodes * EXPANDER_DEGREE as u64, [k0, k1, k2]);
        Self {
            nodes,
            api_version: porep.api_version,
            base_seed,
            feistel_keys,
            feistel,
            draws: ChaCha8::detect(),
        }
    }

    /// The same graph, whose parents cache is made with `kernel` instead of the fastest there is.
    pub fn drawing_with(self, kernel: ChaCha8) -> Self {
        Self { draws: kernel, ..self }
    }

    /// A graph with the name of this one and other parents.
    #[cfg(test)]
    pub(crate) fn spoilt(self) -> Self {
        Self { base_seed: [0; 28], ..self }
    }

    /// Number of nodes; below 2^32.
    pub fn nodes(&self) -> u64 {
        self.nodes
    }

    /// The parents of `node`. The expander parents are nodes of the previous layer.
    pub fn parents(&self, node: u32) -> [u32; PARENTS] {
        let mut parents = [0; PARENTS];
        let (base, expander) = parents.split_at_mut(BASE_PARENTS);
        self.base_parents(node, base);
        for (i, parent) in (0..).zip(expander) {
            *parent = self.expander_parent(node, i);
        }
        parents
    }

    pub(crate) fn api_version(&self) -> ApiVersion {
        self.api_version
    }

    pub(crate) fn base_seed(&self) -> &[u8; 28] {
        &self.base_seed
    }

    pub(crate) fn feistel(&self) -> &Feistel {
        &self.feistel
    }

    pub(crate) fn draws(&self) -> ChaCha8 {
        self.draws
    }

    fn base_parents(&self, node: u32, parents: &mut [u32]) {
        // Node 0 has no parents and node 1 only node 0.
        if node < 2 {
            parents.fill(0);
            return;
        }
        let (drawn, predecessor) = match self.api_version {
            ApiVersion::V1_0 => {
                let (drawn, last) = parents.split_at_mut(BASE_PARENTS - 1);
                (drawn, last)
            }
            ApiVersion::V1_1 | ApiVersion::V1_2 => {
                let (first, drawn) = parents.split_at_mut(1);
                (drawn, first)
            }
        };
        predecessor[0] = node - 1;

        let mut seed = [0; 32];
        seed[..28].copy_from_slice(&self.base_seed);
        seed[28..].copy_from_slice(&node.to_le_bytes());
        let mut random = ChaCha8Rng::from_seed(seed);

        // Distances in the metagraph fall into buckets that double in size.
        let meta_node = u64::from(node) * METAGRAPH_DEGREE;
        let buckets = u64::from((meta_node - 1).ilog2()) + 1;
        for parent in drawn {
            let bucket = random.next_u64() % buckets + 1;
            let largest = meta_node.min(1 << bucket);
            let smallest = (largest >> 1).max(2);
            let distance = smallest + random.next_u64() % (largest - smallest + 1);
            let meta_parent = meta_node - distance;
            let drawn = u32::try_from(meta_parent / METAGRAPH_DEGREE).expect("below `node`");
            *parent = if drawn == node { node - 1 } else { drawn };
        }
    }

    fn expander_parent(&self, node: u32, i: u64) -> u32 {
        let image = self.feistel.permute(u64::from(node) * EXPANDER_DEGREE as u64 + i);
        match self.api_version {
            // API 1.0 cuts the image to 32 bits before it divides: visible from 32 GiB on.
            #[expect(clippy::cast_possible_truncation, reason = "what API 1.0 does")]
            ApiVersion::V1_0 => image as u32 / EXPANDER_DEGREE as u32,
            ApiVersion::V1_1 | ApiVersion::V1_2 => {
                u32::try_from(image / EXPANDER_DEGREE as u64).expect("below the number of nodes")
            }
        }
    }

    /// The name of this graph's parents cache in other software, without `.cache`.
    ///
    /// Source: `storage_proofs_porep::stacked::cache`.
    pub fn cache_name(&self) -> String {
        const HASHER: &str = "poseidon_hasher";
        let mut name = Sha256::new();
        name.update(HASHER);
        name.update(format!(
            "stacked_graph::StackedGraph{{expansion_degree: {EXPANDER_DEGREE} base_graph: \
             drgraph::BucketGraph{{size: {}; degree: {BASE_PARENTS}; hasher: {HASHER}}} }}",
            self.nodes
        ));
        for key in self.feistel_keys {
            name.update(key.to_le_bytes());
        }
        let nodes = u32::try_from(self.nodes).expect("at most 64 GiB, so below 2^32 nodes");
        name.update(nodes.to_le_bytes());
        format!("v28-sdr-parent-{}", hex::encode(name.finalize()))
    }
}

/// What seeds one use of a porep id.
fn domain_seed(domain: &str, porep_id: PorepId) -> [u8; 32] {
    Sha256::new().chain_update(domain).chain_update(porep_id.0).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use seal_types::{RegisteredProof, parents_cache_digest, published_parents_caches};

    fn graph(name: &str) -> Graph {
        Graph::new(&name.parse::<RegisteredProof>().expect("a registered proof").porep())
    }

    #[test]
    fn caches_of_api_1_0_and_1_1_have_published_names() {
        let mut names: Vec<_> = RegisteredProof::all()
            .filter(|proof| proof.api_version() != ApiVersion::V1_2)
            .map(|proof| {
                let name = Graph::new(&proof.porep()).cache_name();
                let digest = parents_cache_digest(&name).expect("published");
                assert_eq!(digest.sector_size, proof.sector_size(), "{proof}");
                name
            })
            .collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), published_parents_caches().len());
    }

    #[test]
    fn parents_come_before_their_node() {
        for name in ["StackedDrg2KiBV1", "StackedDrg2KiBV1_1", "StackedDrg8MiBV1_1"] {
            let graph = graph(name);
            let last = u32::try_from(graph.nodes() - 1).expect("small");
            for node in (2..66).chain([last]) {
                let parents = graph.parents(node);
                assert!(parents[..BASE_PARENTS].iter().all(|p| *p < node), "{name} {node}");
                assert!(parents[BASE_PARENTS..].iter().all(|p| *p <= last), "{name} {node}");
            }
        }
    }

    #[test]
    fn the_predecessor_is_last_in_api_1_0_and_first_later() {
        assert_eq!(graph("StackedDrg8MiBV1").parents(77)[5], 76);
        assert_eq!(graph("StackedDrg8MiBV1_1").parents(77)[0], 76);
    }
}
