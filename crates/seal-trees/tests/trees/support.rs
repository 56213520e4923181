//! Plain, obviously correct forms of what PC2 works from: a vector's data, its fr32 padding, the
//! graph and the labels. Written by the letter of the specification, one node at a time, without
//! a line of the crates under test.

use std::fs;
use std::path::{Path, PathBuf};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use seal_types::{
    ApiVersion, Commitment, Porep, PorepId, RegisteredProof, ReplicaId, SectorSize, TREE_D,
    TreeShape, layer_file,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A reference vector.
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) porep: Porep,
    json: Value,
}

impl Vector {
    /// Reads `tests/vectors/<name>.json`.
    pub(crate) fn load(name: &str) -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors");
        let text = fs::read_to_string(dir.join(format!("{name}.json"))).expect("a vector");
        let json: Value = serde_json::from_str(&text).expect("JSON");
        let porep = match json.get("registered_proof").and_then(Value::as_str) {
            Some(proof) => proof.parse::<RegisteredProof>().expect("a registered proof").porep(),
            None => shape_porep(&json),
        };
        Self { name: name.to_owned(), porep, json }
    }

    pub(crate) fn commitment(&self, field: &str) -> Commitment {
        self.json[field].as_str().expect("a commitment").parse().expect("hex")
    }

    pub(crate) fn text(&self, field: &str) -> &str {
        self.json[field].as_str().expect("a text")
    }

    /// SHA-256 of each layer file.
    pub(crate) fn layers_sha256(&self) -> Vec<String> {
        serde_json::from_value(self.json["layers_sha256"].clone()).expect("digests")
    }

    /// Name, length and SHA-256 of every file of the cache directory.
    pub(crate) fn cache_files(&self) -> Vec<(String, u64, String)> {
        let files = self.json["cache_files"].as_object().expect("files");
        files
            .iter()
            .map(|(name, file)| {
                let bytes = file["bytes"].as_u64().expect("a length");
                (name.clone(), bytes, file["sha256"].as_str().expect("a digest").to_owned())
            })
            .collect()
    }

    /// The sector's data, padded.
    pub(crate) fn staged(&self) -> Vec<u8> {
        let unpadded = usize::try_from(self.porep.sector_size.unpadded_bytes()).expect("small");
        let data = match self.text("data") {
            "zero" => vec![0; unpadded],
            _ => {
                let seed = Sha256::digest(format!("data:{}", self.text("case")));
                xorshift(u64::from_le_bytes(seed[..8].try_into().expect("8 bytes")), unpadded)
            }
        };
        fr32_pad(&data)
    }

    /// A directory as PC1 leaves it: layers and tree D in `cache`, the data in `sealed`.
    pub(crate) fn after_pc1(&self) -> Sector {
        self.after_pc1_in(&std::env::temp_dir())
    }

    /// The same, within `parent`.
    pub(crate) fn after_pc1_in(&self, parent: &Path) -> Sector {
        let dir = tempfile::tempdir_in(parent).expect("a temporary directory");
        let (cache, sealed) = (dir.path().join("cache"), dir.path().join("sealed"));
        let sector = Sector { cache, sealed, _dir: dir };
        fs::create_dir(&sector.cache).expect("writable");
        let staged = self.staged();
        assert_eq!(sha256(&staged), self.text("staged_sha256"), "{}: staged file", self.name);
        fs::write(&sector.sealed, &staged).expect("writable");
        fs::write(sector.cache.join(TREE_D), tree_d(&staged)).expect("writable");
        let replica_id = ReplicaId(self.commitment("replica_id").0);
        for (layer, labels) in (1..).zip(label_layers(&self.porep, replica_id)) {
            fs::write(sector.cache.join(layer_file(layer)), labels.as_flattened())
                .expect("writable");
        }
        sector
    }
}

/// A sector's files, removed when dropped.
pub(crate) struct Sector {
    pub(crate) cache: PathBuf,
    pub(crate) sealed: PathBuf,
    _dir: tempfile::TempDir,
}

/// SHA-256 in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn shape_porep(json: &Value) -> Porep {
    let sector_size =
        SectorSize::new(json["sector_size"].as_u64().expect("a size")).expect("a sector size");
    let mut porep_id = PorepId::default();
    hex::decode_to_slice(json["porep_id"].as_str().expect("an id"), &mut porep_id.0).expect("hex");
    Porep {
        sector_size,
        api_version: match json["api_version"].as_str().expect("a version") {
            "1.0" => ApiVersion::V1_0,
            _ => ApiVersion::V1_1,
        },
        porep_id,
        layers: json["layers"].as_u64().expect("a number") as u32,
        shape: TreeShape::of(sector_size),
    }
}

fn xorshift(seed: u64, bytes: usize) -> Vec<u8> {
    let mut x = seed | 1;
    let mut data = Vec::with_capacity(bytes + 8);
    while data.len() < bytes {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        data.extend_from_slice(&x.to_le_bytes());
    }
    data.truncate(bytes);
    data
}

/// Two zero bits after every 254 bits, bit by bit from the lowest.
fn fr32_pad(data: &[u8]) -> Vec<u8> {
    let mut padded = vec![0; data.len() / 127 * 128];
    for bit in 0..data.len() * 8 {
        let to = bit / 254 * 256 + bit % 254;
        padded[to / 8] |= ((data[bit / 8] >> (bit % 8)) & 1) << (to % 8);
    }
    padded
}

fn tree_d(staged: &[u8]) -> Vec<u8> {
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
fn label_layers(porep: &Porep, replica_id: ReplicaId) -> Vec<Vec<[u8; 32]>> {
    let graph = Graph::new(porep);
    let nodes = porep.nodes() as usize;
    let parents: Vec<_> = (0..nodes as u64).map(|node| graph.parents(node)).collect();
    let mut layers: Vec<Vec<[u8; 32]>> = Vec::new();
    for layer in 1..=porep.layers {
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
                if let Some(before) = layers.last() {
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
        layers.push(labels);
    }
    layers
}

/// The stacked graph: DRSample base parents and expander parents by a Feistel permutation.
struct Graph {
    nodes: u64,
    api_version: ApiVersion,
    drg_seed: [u8; 28],
    feistel_keys: [u64; 3],
}

impl Graph {
    fn new(porep: &Porep) -> Self {
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

    fn parents(&self, node: u64) -> ([u64; 6], [u64; 8]) {
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
                return element / 8;
            }
        }
    }
}
