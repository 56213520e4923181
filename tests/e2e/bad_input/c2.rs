//! Bad input to C2: C1 outputs that are damaged or of another sector.
//!
//! No parameters are needed: everything about a C1 output is checked before they are looked for.

use serde_json::json;

use super::*;

/// The first challenge of the captured C1 output.
const CHALLENGE: &str = "/c1out/vanilla_proofs/StackedDrg2KiBV1/0/0";

/// Everywhere an element stands, in what C1 says of the sector and in each kind of proof, and the
/// name by which people are told.
const ELEMENTS: [(&str, &str); 11] = [
    ("/c1out/comm_r", "comm_r"),
    ("/c1out/comm_d", "comm_d"),
    ("/c1out/replica_id", "replica_id"),
    ("/comm_d_proofs/data/Single/root", "comm_d_proofs"),
    ("/comm_d_proofs/data/Single/leaf", "comm_d_proofs"),
    ("/comm_d_proofs/data/Single/path/path/5/hashes/0", "path[5].hashes[0]"),
    ("/comm_r_last_proof/data/Single/leaf", "comm_r_last_proof"),
    ("/replica_column_proofs/c_x/column/rows/1", "c_x.column.rows[1]"),
    (
        "/replica_column_proofs/c_x/inclusion_proof/data/Single/path/path/0/hashes/6",
        "path[0].hashes[6]",
    ),
    ("/replica_column_proofs/exp_parents/7/column/rows/0", "exp_parents[7].column.rows[0]"),
    ("/labeling_proofs/1/parents/36", "labeling_proofs[1].parents[36]"),
];

fn pointer_of(place: &str) -> String {
    if place.starts_with("/c1out") { place.to_owned() } else { format!("{CHALLENGE}{place}") }
}

#[test]
fn values_at_or_above_the_modulus_are_refused_wherever_they_stand() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut c2, _) = c2_without_params(dir.path())?;
    // The modulus itself, least significant byte first, is the smallest value that is too large.
    let modulus: [u8; 32] = {
        let hex = "01000000fffffffffe5bfeff02a4bd5305d8a10908d83933487d9d2953a7ed73";
        hex::decode(hex)?.try_into().map_err(|_| anyhow::anyhow!("32 bytes"))?
    };
    for (place, name) in ELEMENTS {
        for value in [modulus, [0xff; 32]] {
            let mut task = captured_c2_task()?;
            let element = task.pointer_mut(&pointer_of(place)).expect("a place in a C1 output");
            ensure!(element.as_array().is_some_and(|bytes| bytes.len() == 32), "{place}");
            *element = json!(value);
            let error = c2.call_failing(&task, PATIENCE)?;
            let hex = hex::encode(value);
            tells(&error, ErrorCode::BadInput, &[name, &hex, "field's modulus"])?;
        }
    }
    c2_still_serves(&mut c2)
}

#[test]
fn a_c1_output_of_another_sector_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut c2, _) = c2_without_params(dir.path())?;
    let good = captured_c2_task()?;
    for (field, value) in [
        ("/sector_id", json!(7)),
        ("/prover_id", json!(vec![7; 32])),
        ("/c1out/ticket", json!(vec![7; 32])),
        ("/c1out/replica_id", json!(vec![7; 32])),
    ] {
        let mut task = good.clone();
        *task.pointer_mut(field).expect("a field of a task") = value;
        let error = c2.call_failing(&task, PATIENCE)?;
        tells(&error, ErrorCode::BadInput, &["another sector", "replica id"])?;
    }
    // Values that are possible, but not those of the vanilla proofs.
    for (field, value) in [
        ("/c1out/comm_r".to_owned(), json!(vec![7; 32])),
        ("/c1out/seed".to_owned(), json!(vec![7; 32])),
        (pointer_of("/comm_d_proofs/data/Single/leaf"), json!(vec![7; 32])),
        (pointer_of("/comm_r_last_proof/data/Single/leaf"), json!(vec![7; 32])),
        (pointer_of("/encoding_proof/parents/0"), json!(vec![7; 32])),
    ] {
        let mut task = good.clone();
        *task.pointer_mut(&field).expect("a field of a task") = value;
        let error = c2.call_failing(&task, PATIENCE)?;
        tells(&error, ErrorCode::BadInput, &["StackedDrg2KiBV1_1"])?;
    }
    c2_still_serves(&mut c2)
}

#[test]
fn vanilla_proofs_that_are_not_whole_are_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut c2, _) = c2_without_params(dir.path())?;
    let good = captured_c2_task()?;
    let partitions = good["c1out"]["vanilla_proofs"]["StackedDrg2KiBV1"].clone();
    let mut one_challenge = partitions.clone();
    one_challenge[0].as_array_mut().expect("challenges").truncate(1);
    let mut no_row = partitions.clone();
    let row = no_row.pointer_mut("/0/0/replica_column_proofs/c_x/column/rows");
    row.and_then(Value::as_array_mut).expect("rows").truncate(1);
    for (proofs, words) in [
        (json!({ "StackedDrg8MiBV1": partitions }), &["StackedDrg8MiBV1", "StackedDrg2KiBV1"][..]),
        (json!({}), &["StackedDrg2KiBV1"]),
        (json!({ "StackedDrg2KiBV1": [] }), &["vanilla_proofs"]),
        (json!({ "StackedDrg2KiBV1": one_challenge }), &["vanilla_proofs"]),
        (json!({ "StackedDrg2KiBV1": no_row }), &["vanilla_proofs", "rows"]),
        (json!({ "StackedDrg2KiBV1": [["x"]] }), &["vanilla_proofs"]),
        (json!([]), &["vanilla_proofs"]),
    ] {
        let mut task = good.clone();
        task["c1out"]["vanilla_proofs"] = proofs;
        let error = c2.call_failing(&task, PATIENCE)?;
        tells(&error, ErrorCode::BadInput, words)?;
    }
    c2_still_serves(&mut c2)
}
