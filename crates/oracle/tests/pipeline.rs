//! The judge must be the published software and nothing else: sectors that it seals by the
//! command line equal the reference vectors, and its answers have the wire format.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use seal_types::Commitment;
use serde_json::{Value, json};
use test_support::vector::{Vector, file_digest};

/// Runs the oracle in `dir`, where it keeps its parents caches and finds no parameters.
fn run(dir: &Path, arguments: &[&str], task: &Value) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_oracle"))
        .args(arguments)
        .env("FIL_PROOFS_PARENT_CACHE", dir.join("parents"))
        .env("FIL_PROOFS_PARAMETER_CACHE", dir.join("parameters"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("built with this test");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(task.to_string().as_bytes()).expect("it reads its task");
    drop(input);
    child.wait_with_output().expect("it ends")
}

fn oracle(dir: &Path, arguments: &[&str], task: &Value) -> Value {
    let output = run(dir, arguments, task);
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    let line = text.trim_end().lines().last().expect("a result");
    serde_json::from_str(line).expect("JSON in the last line")
}

/// Seals a vector's sector up to C1 under `proof`. Returns the C1 output.
fn seal(dir: &Path, vector: &Vector, proof: &str) -> (Value, Commitment) {
    let at = |name: &str| dir.join(name).to_str().expect("UTF-8").to_owned();
    std::fs::write(at("data"), vector.piece_bytes()).expect("writable");
    std::fs::create_dir(at("cache")).expect("writable");
    let arguments =
        ["add-piece", "--proof", proof, "--input", &at("data"), "--staged", &at("staged")];
    let added = oracle(dir, &arguments, &Value::Null);
    let mut pc1 = json!({
        "registered_proof": proof,
        "cache_path": at("cache"),
        "in_path": at("staged"),
        "out_path": at("sealed"),
        "prover_id": vector.prover_id().expect("hex"),
        "sector_id": vector.sector_id,
        "ticket": vector.ticket().expect("hex"),
        "piece_infos": added["piece_infos"],
    });
    let pc1out = oracle(dir, &["pc1"], &pc1);
    let pc2 = json!({ "pc1out": pc1out, "cache_dir": at("cache"), "sealed_file": at("sealed") });
    let pc2out = oracle(dir, &["pc2"], &pc2);
    let comm_r = serde_json::from_value(pc2out["comm_r"].clone()).expect("32 numbers");

    let mut c1 = pc1.as_object_mut().expect("an object").clone();
    c1.remove("in_path");
    c1.remove("out_path");
    c1.insert("replica_path".to_owned(), json!(at("sealed")));
    c1.insert("seed".to_owned(), json!(vector.seed().expect("hex")));
    c1.insert("comm_r".to_owned(), pc2out["comm_r"].clone());
    c1.insert("comm_d".to_owned(), pc2out["comm_d"].clone());
    (oracle(dir, &["c1"], &Value::Object(c1)), comm_r)
}

#[test]
fn sealed_sectors_equal_the_vectors() {
    for name in ["2KiB-v1-a", "2KiB-v1_1-a"] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let vector = Vector::named(name).expect("part of every clone");
        let proof = vector.registered_proof.expect("it has one").to_string();
        let (c1out, comm_r) = seal(dir.path(), &vector, &proof);
        assert_eq!(comm_r.to_string(), vector.comm_r, "{name}");
        let sealed = file_digest(&dir.path().join("sealed")).expect("readable");
        assert_eq!(sealed.sha256, vector.sealed_sha256, "{name}");
        for (file, digest) in &vector.cache_files {
            let found = file_digest(&dir.path().join("cache").join(file)).expect("readable");
            assert_eq!(found, *digest, "{name}: {file}");
        }
        let replica_id: seal_types::ReplicaId =
            serde_json::from_value(c1out["replica_id"].clone()).expect("32 numbers");
        assert_eq!(replica_id, vector.replica_id().expect("hex"), "{name}");
        let c1out: seal_wire::C1Output = serde_json::from_value(c1out).expect("a C1 output");
        assert!(c1out.vanilla_proofs.get().starts_with(r#"{"StackedDrg2KiBV1":"#));
    }
}

#[test]
fn proofs_with_features_get_as_far_as_c1() {
    for (feature, partitions) in
        [("V1_1_Feat_SyntheticPoRep", 1), ("V1_2_Feat_NonInteractivePoRep", 13)]
    {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let vector = Vector::named("2KiB-v1_1-a").expect("part of every clone");
        let (c1out, _) = seal(dir.path(), &vector, &format!("StackedDrg2KiB{feature}"));
        let proofs = &c1out["vanilla_proofs"]["StackedDrg2KiBV1"];
        assert_eq!(proofs.as_array().map(Vec::len), Some(partitions), "{feature}");
    }
}

#[test]
fn what_cannot_be_judged_is_an_error_not_a_verdict() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let task = json!({
        "registered_proof": "StackedDrg2KiBV1_1",
        "comm_r": vec![1; 32],
        "comm_d": vec![1; 32],
        "prover_id": vec![1; 32],
        "sector_id": 1,
        "ticket": vec![1; 32],
        "seed": vec![1; 32],
        "proof": vec![0; 192],
    });
    let output = run(dir.path(), &["verify"], &task);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(error.contains(".params"), "no parameters: {error}");
    let output = run(dir.path(), &["verify"], &json!({ "proof": 1 }));
    assert!(!output.status.success());
}
