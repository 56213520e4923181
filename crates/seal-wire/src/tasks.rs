//! Tasks and outputs of the stages, as `vc-processors` 0.2 and `filecoin-proofs-api` 19.1 write
//! them.
//!
//! A task with a field we do not know is refused: it asks for something that would not be done.

use std::collections::BTreeMap;
use std::path::PathBuf;

use seal_types::{Commitment, ProverId, RegisteredProof, ReplicaId, SectorId, Seed, Ticket};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::objects::objects_only;

/// A piece of a sector's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct PieceInfo {
    /// Root of the piece's own tree.
    pub commitment: Commitment,
    /// Bytes of client data, before fr32 padding.
    pub size: u64,
}

/// Task of PC1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct Pc1Task {
    /// Which proof the sector is sealed for.
    pub registered_proof: RegisteredProof,
    /// Directory for layers and trees.
    pub cache_path: PathBuf,
    /// The staged file: the sector's data, padded. May be `/dev/zero`.
    pub in_path: PathBuf,
    /// Where the data is copied for PC2 to encode.
    pub out_path: PathBuf,
    /// The storage provider.
    pub prover_id: ProverId,
    /// The sector.
    pub sector_id: SectorId,
    /// Sealing randomness.
    pub ticket: Ticket,
    /// The pieces that `comm_d` must follow from.
    pub piece_infos: Vec<PieceInfo>,
}

/// Where a store lies: `<path>/sc-02-data-<id>.dat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct StoreConfig {
    /// Directory.
    pub path: PathBuf,
    /// Store id.
    pub id: String,
    /// Number of elements, where it is known.
    pub size: Option<u64>,
    /// Rows above the leaves that the file leaves out.
    pub rows_to_discard: u64,
}

/// The stores of a sector's layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct LabelStores {
    /// One store per layer, first layer first.
    pub labels: Vec<StoreConfig>,
    /// A marker type in the crates' structure; always null.
    #[serde(default)]
    pub _h: (),
}

/// The layers under the name of the sector's shape, for example `StackedDrg32GiBV1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(pub BTreeMap<String, LabelStores>);

/// Output of PC1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct Pc1Output {
    /// As in the task.
    pub registered_proof: RegisteredProof,
    /// The layers.
    pub labels: Labels,
    /// Tree D.
    pub config: StoreConfig,
    /// Root of tree D.
    pub comm_d: Commitment,
}

/// Task of PC2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct Pc2Task {
    /// What PC1 answered. Its paths are not used: the sector may have moved.
    pub pc1out: Pc1Output,
    /// Directory with the layers and tree D.
    pub cache_dir: PathBuf,
    /// The file with the data, which becomes the replica.
    pub sealed_file: PathBuf,
}

/// Output of PC2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct Pc2Output {
    /// As in the task.
    pub registered_proof: RegisteredProof,
    /// Commitment to the replica.
    pub comm_r: Commitment,
    /// Commitment to the data.
    pub comm_d: Commitment,
}

/// Output of C1, which C2 proves. The vanilla proofs stay text: only the prover knows them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct C1Output {
    /// Which proof the sector is sealed for.
    pub registered_proof: RegisteredProof,
    /// The vanilla proofs by partition and challenge, under the name of the sector's shape.
    pub vanilla_proofs: Box<RawValue>,
    /// Commitment to the replica.
    pub comm_r: Commitment,
    /// Commitment to the data.
    pub comm_d: Commitment,
    /// The replica id.
    pub replica_id: ReplicaId,
    /// Interactive randomness.
    pub seed: Seed,
    /// Sealing randomness.
    pub ticket: Ticket,
}

/// Task of C2.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct C2Task {
    /// What C1 answered.
    pub c1out: C1Output,
    /// The storage provider.
    pub prover_id: ProverId,
    /// The sector.
    pub sector_id: SectorId,
    /// The storage provider's number.
    pub miner_id: u64,
}

/// Output of C2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct C2Output {
    /// The Groth16 proofs of all partitions, 192 bytes each.
    pub proof: Vec<u8>,
}

objects_only!(
    PieceInfo,
    Pc1Task,
    StoreConfig,
    LabelStores,
    Pc1Output,
    Pc2Task,
    Pc2Output,
    C1Output,
    C2Task,
    C2Output,
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RawRequest;

    /// The captured lines lie with the end-to-end tests, which use them as input.
    fn captured(name: &str) -> String {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/protocol/");
        std::fs::read_to_string(format!("{path}{name}")).expect("part of every clone")
    }

    fn task<T: serde::de::DeserializeOwned>(name: &str) -> T {
        let request = RawRequest::parse(captured(name).trim_end().as_bytes()).expect("captured");
        assert_eq!(request.id, 1);
        serde_json::from_str(request.task.get()).expect("captured")
    }

    fn same_json<T: Serialize>(value: &T, text: &str) {
        let ours = serde_json::to_value(value).expect("plain data");
        let theirs: serde_json::Value = serde_json::from_str(text).expect("captured");
        assert_eq!(ours, theirs);
    }

    #[test]
    fn captured_tasks_and_outputs_are_read_and_written_back() {
        let pc1: Pc1Task = task("pc1.request.jsonl");
        assert_eq!(pc1.sector_id, SectorId(2_116_055_739_896));
        let pc2: Pc2Task = task("pc2.request.jsonl");
        let output = captured("pc1.output.json");
        same_json(&pc2.pc1out, &output);
        same_json(&serde_json::from_str::<Pc1Output>(&output).expect("captured"), &output);
        let output = captured("pc2.output.json");
        same_json(&serde_json::from_str::<Pc2Output>(&output).expect("captured"), &output);
        let c2: C2Task = task("c2.request.jsonl");
        assert!(c2.c1out.vanilla_proofs.get().starts_with(r#"{"StackedDrg2KiBV1":"#));
    }

    /// A list of values is no task: which of them is which is nobody's to guess.
    #[test]
    fn values_without_names_are_refused_at_every_depth() {
        fn lists(value: &serde_json::Value, found: &mut Vec<serde_json::Value>) {
            // Every object of the value once as a list of what is in it.
            match value {
                serde_json::Value::Object(fields) => {
                    found.push(fields.values().cloned().collect());
                    for (name, inner) in fields {
                        let mut inners = Vec::new();
                        lists(inner, &mut inners);
                        for changed in inners {
                            let mut fields = fields.clone();
                            fields.insert(name.clone(), changed);
                            found.push(fields.into());
                        }
                    }
                }
                serde_json::Value::Array(values) => {
                    for (place, inner) in values.iter().enumerate() {
                        let mut inners = Vec::new();
                        lists(inner, &mut inners);
                        for changed in inners {
                            let mut values = values.clone();
                            values[place] = changed;
                            found.push(values.into());
                        }
                    }
                }
                _ => {}
            }
        }
        fn refused<T: serde::de::DeserializeOwned>(text: &str) {
            let value: serde_json::Value = serde_json::from_str(text).expect("captured");
            serde_json::from_value::<T>(value.clone()).map(drop).expect("captured");
            let mut found = Vec::new();
            lists(&value, &mut found);
            assert!(!found.is_empty());
            for changed in found {
                let changed = changed.to_string();
                assert!(serde_json::from_str::<T>(&changed).is_err(), "accepted {changed}");
            }
        }
        let task = |name: &str| {
            let line = captured(name);
            let request = RawRequest::parse(line.trim_end().as_bytes()).expect("captured");
            request.task.get().to_owned()
        };
        refused::<Pc1Task>(&task("pc1.request.jsonl"));
        refused::<Pc2Task>(&task("pc2.request.jsonl"));
        refused::<Pc1Output>(&captured("pc1.output.json"));
        refused::<Pc2Output>(&captured("pc2.output.json"));
        // What is in the vanilla proofs is not read here.
        let mut c2: serde_json::Value =
            serde_json::from_str(&task("c2.request.jsonl")).expect("it");
        c2["c1out"]["vanilla_proofs"] = serde_json::json!(null);
        refused::<C2Task>(&c2.to_string());
        refused::<C2Output>(r#"{"proof":[1,2]}"#);
    }

    #[test]
    fn unknown_and_wrong_typed_fields_are_named() {
        let text = captured("pc1.request.jsonl");
        let refused = |from: &str, to: &str, named: &str| {
            let text = text.replacen(from, to, 1);
            let request = RawRequest::parse(text.trim_end().as_bytes()).expect("still a request");
            let error = serde_json::from_str::<Pc1Task>(request.task.get()).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        };
        refused("\"ticket\":", "\"tocket\":", "tocket");
        refused("\"sector_id\":2116055739896", "\"sector_id\":\"x\"", "u64");
        refused("StackedDrg2KiBV1_1", "StackedDrg3KiBV1_1", "StackedDrg3KiBV1_1");
        refused("\"size\":2032", "\"size\":-1", "u64");
    }
}
