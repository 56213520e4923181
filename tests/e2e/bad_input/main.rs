//! Bad input to the executors as processes: a clear error that names what is wrong, the process
//! goes on serving, and no partial file is under a final name.

mod c2;
mod disk;
mod ending;
mod params;
mod pc1;
mod pc2;
mod requests;
mod start;
mod unread;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use seal_types::Stage;
use seal_wire::ErrorCode;
use serde_json::Value;
use test_support::client::Processor;
use test_support::data::{fr32_pad, piece};
use test_support::launch::{Launch, Log};
use test_support::plain::tree_d;
use test_support::sector::Sector;
use test_support::vector::{FileDigest, Vector};

/// No task of these tests takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Layers and tree D of a 2 KiB or 8 MiB sector: what PC1 leaves in a cache directory.
const AFTER_PC1: [&str; 3] =
    ["sc-02-data-layer-1.dat", "sc-02-data-layer-2.dat", "sc-02-data-tree-d.dat"];
const LAYER_1: &str = AFTER_PC1[0];
const LAYER_2: &str = AFTER_PC1[1];
const TREE_D: &str = AFTER_PC1[2];

/// The executor of `stage` and its log, with its files in `dir`.
fn serve(stage: Stage, dir: &Path) -> Result<(Processor, Log)> {
    Launch::executor(stage, dir)?.serve(stage)
}

/// A sector staged from the vector called `name`, in a directory of that name below `dir`.
fn stage(name: &str, dir: &Path) -> Result<Sector> {
    Sector::stage(&Vector::named(name)?, &dir.join(name))
}

/// A staged sector after PC1, and what PC1 answered.
fn after_pc1(name: &str, dir: &Path) -> Result<(Sector, Value)> {
    let sector = stage(name, dir)?;
    let pc1out = serve(Stage::Pc1, dir)?.0.call(&sector.pc1_task()?, PATIENCE)?;
    Ok((sector, pc1out))
}

/// `error` must have `code`, and name all of `words`.
fn tells(error: &str, code: ErrorCode, words: &[&str]) -> Result<()> {
    ensure!(error.starts_with(&format!("[{code}] ")), "not [{code}]: {error}");
    for word in words {
        ensure!(error.contains(word), "{word:?} is not named: {error}");
    }
    Ok(())
}

/// Seals `sector` by PC1 and compares every file with the vector.
fn pc1_succeeds(pc1: &mut Processor, sector: &Sector) -> Result<Value> {
    let pc1out = pc1.call(&sector.pc1_task()?, PATIENCE)?;
    let files = expected_after_pc1(&sector.vector);
    ensure!(sector.files()? == files, "{:#?} is not {files:#?}", sector.files()?);
    Ok(pc1out)
}

/// The files after PC1 as the vector has them.
fn expected_after_pc1(vector: &Vector) -> BTreeMap<String, FileDigest> {
    let sealed = FileDigest { bytes: vector.sector_size, sha256: vector.staged_sha256.clone() };
    let mut files = vector.cache_files.clone();
    files.retain(|name, _| AFTER_PC1.contains(&name.as_str()));
    files.insert("sealed".to_owned(), sealed);
    files
}

/// Finishes `sector` by PC2 and compares every file with the vector.
fn pc2_succeeds(pc2: &mut Processor, sector: &Sector, pc1out: &Value) -> Result<()> {
    let vector = &sector.vector;
    let pc2out = pc2.call(&sector.pc2_task(pc1out), PATIENCE)?;
    let comm_r: seal_types::Commitment = serde_json::from_value(pc2out["comm_r"].clone())?;
    ensure!(comm_r.to_string() == vector.comm_r, "comm_r is {comm_r}");
    let mut files = sector.files()?;
    ensure!(files.remove("t_aux").is_some(), "there is no t_aux");
    let mut expected = vector.cache_files.clone();
    let sealed = FileDigest { bytes: vector.sector_size, sha256: vector.sealed_sha256.clone() };
    expected.insert("sealed".to_owned(), sealed);
    ensure!(files == expected, "{files:#?} is not {expected:#?}");
    Ok(())
}

/// The tree D of another 2 KiB sector's data, and its root in hex.
fn foreign_tree_d() -> (Vec<u8>, String) {
    let tree = tree_d(&fr32_pad(&piece("another sector", 2032)));
    let root = hex::encode(&tree[tree.len() - 32..]);
    (tree, root)
}

/// A request for C2 as it was captured, with all of a good C1 output.
fn captured_c2_task() -> Result<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("protocol/c2.request.jsonl");
    let request: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    Ok(request["task"].clone())
}

/// An executor of C2 that finds no parameters, which it looks for after everything else is good.
fn c2_without_params(dir: &Path) -> Result<(Processor, Log)> {
    Launch::executor(Stage::C2, dir)?
        .env("FIL_PROOFS_PARAMETER_CACHE", dir.join("no-params"))
        .serve(Stage::C2)
}

/// Sends the good task and is told that only the parameters are missing.
fn c2_still_serves(c2: &mut Processor) -> Result<()> {
    let error = c2.call_failing(&captured_c2_task()?, PATIENCE)?;
    tells(&error, ErrorCode::Parameters, &["is missing"])
}
