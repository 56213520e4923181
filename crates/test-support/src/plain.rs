//! Plain, obviously correct forms of graph, labels and tree D: written by the letter of the
//! specification, one node at a time, without a line of the crates they judge.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use seal_types::{ApiVersion, Porep, ReplicaId};
use sha2::{Digest, Sha256};

/// The file of tree D over `staged`.
pub fn tree_d(staged: &[u8]) -> Vec<u8> {
    let mut file = staged.to_vec();
    let mut row = staged.to_vec();
    while row.len() > 32 {
        row = row
            .chunks(64)
            .flat_map(|pair| {
                let mut hash: [u8; 32] = Sha256::digest(pair).into();
                hash[31] &= 0x3f;
                hash
            })
            .collect();
        file.extend_from_slice(&row);
    }
    file
}

/// All layers of a sector.
pub fn label_layers(porep: &Porep, replica_id: ReplicaId) -> Vec<Vec<[u8; 32]>> {
    label_first_nodes(porep, replica_id, porep.layers, porep.nodes() as usize)
}

/// The first `nodes` labels of the first `layers` layers. Of a part of the nodes only layer 1 can
/// be labelled: expander parents come from everywhere.
pub fn label_first_nodes(
    porep: &Porep,
    replica_id: ReplicaId,
    layers: u32,
    nodes: usize,
) -> Vec<Vec<[u8; 32]>> {
    let graph = Graph::new(porep);
    let parents: Vec<_> = (0..nodes as u64).map(|node| graph.parents(node)).collect();
    let mut done: Vec<Vec<[u8; 32]>> = Vec::new();
    for layer in 1..=layers {
        let mut labels: Vec<[u8; 32]> = Vec::with_capacity(nodes);
        for (node, (base, expander)) in parents.iter().enumerate() {
            let mut hasher = Sha256::new();
            hasher.update(replica_id.0);
            hasher.update(layer.to_be_bytes());
            hasher.update((node as u64).to_be_bytes());
            hasher.update([0; 20]);
            if node > 0 {
                // Base parents are of this layer, expander parents of the one before. All parents
                // in turn, until there are 37.
                let mut of_round: Vec<[u8; 32]> =
                    base.iter().map(|p| labels[*p as usize]).collect();
                if let Some(before) = done.last() {
                    of_round.extend(expander.iter().map(|p| before[*p as usize]));
                }
                for label in of_round.iter().cycle().take(37) {
                    hasher.update(label);
                }
            }
            let mut label: [u8; 32] = hasher.finalize().into();
            label[31] &= 0x3f;
            labels.push(label);
        }
        done.push(labels);
    }
    done
}

/// The stacked graph: DRSample base parents and expander parents by a Feistel permutation.
#[derive(Debug)]
pub struct Graph {
    nodes: u64,
    api_version: ApiVersion,
    drg_seed: [u8; 28],
    feistel_keys: [u64; 3],
}

impl Graph {
    /// The graph that `porep` labels.
    pub fn new(porep: &Porep) -> Self {
        let seed = |tag: &str| -> [u8; 32] {
            Sha256::new().chain_update(tag).chain_update(porep.porep_id.0).finalize().into()
        };
        let keys = seed("Filecoin_Feistel");
        let key =
            |i: usize| u64::from_le_bytes(keys[8 * i..8 * i + 8].try_into().expect("8 bytes"));
        Self {
            nodes: porep.nodes(),
            api_version: porep.api_version,
            drg_seed: seed("Filecoin_DRSample")[..28].try_into().expect("28 bytes"),
            feistel_keys: [key(0), key(1), key(2)],
        }
    }

    /// Base and expander parents of `node`.
    pub fn parents(&self, node: u64) -> ([u64; 6], [u64; 8]) {
        (self.base_parents(node), std::array::from_fn(|i| self.expander_parent(node, i as u64)))
    }

    fn base_parents(&self, node: u64) -> [u64; 6] {
        if node < 2 {
            return [0; 6];
        }
        let mut seed = [0; 32];
        seed[..28].copy_from_slice(&self.drg_seed);
        seed[28..].copy_from_slice(&(node as u32).to_le_bytes());
        let mut random = ChaCha8Rng::from_seed(seed);
        // The metagraph has five nodes for each node, one for each parent but the predecessor.
        let meta_node = 5 * node;
        let buckets = (meta_node as f64).log2().ceil() as u64;
        let drawn: [u64; 5] = std::array::from_fn(|_| {
            let bucket = random.r#gen::<u64>() % buckets + 1;
            let largest = meta_node.min(1 << bucket);
            let smallest = 2.max(largest / 2);
            let distance = smallest + random.r#gen::<u64>() % (largest - smallest + 1);
            let parent = (meta_node - distance) / 5;
            if parent == node { node - 1 } else { parent }
        });
        let [a, b, c, d, e] = drawn;
        match self.api_version {
            ApiVersion::V1_0 => [a, b, c, d, e, node - 1],
            ApiVersion::V1_1 | ApiVersion::V1_2 => [node - 1, a, b, c, d, e],
        }
    }

    fn expander_parent(&self, node: u64, index: u64) -> u64 {
        let elements = 8 * self.nodes;
        // Halves of equal length that together hold every element.
        let mut half_bits = 1;
        while 1 << (2 * half_bits) < elements {
            half_bits += 1;
        }
        let mask = (1 << half_bits) - 1;
        let mut element = 8 * node + index;
        loop {
            let (mut left, mut right) = (element >> half_bits, element & mask);
            for key in self.feistel_keys {
                let hash =
                    blake2b_simd::blake2b(&[right.to_be_bytes(), key.to_be_bytes()].concat());
                let word = u64::from_be_bytes(hash.as_bytes()[..8].try_into().expect("8 bytes"));
                (left, right) = (right, left ^ (word & mask));
            }
            element = left << half_bits | right;
            if element < elements {
                // API 1.0 keeps 32 bits of the element.
                let kept = match self.api_version {
                    ApiVersion::V1_0 => element & 0xffff_ffff,
                    ApiVersion::V1_1 | ApiVersion::V1_2 => element,
                };
                return kept / 8;
            }
        }
    }
}
