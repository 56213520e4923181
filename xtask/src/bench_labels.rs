//! `cargo xtask bench-labels`: layers alone, of any size, and by the published crates beside them.
//!
//! Layers far larger than the caches show what a 32 GiB sector's labelling is bounded by, without
//! its hours: expander parents are cache and TLB misses from layer 2 on.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use seal_types::SectorSize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::bench::{build_peer, parents, peer_layer_seconds, write_result};
use crate::cargo::{binary, cargo, target};
use crate::out::{say, step};

/// As `benches/src/bin/labelling.rs` has them for the first sector.
const POREP_ID: [u8; 32] = [9; 32];
const REPLICA_ID: [u8; 32] = {
    let mut id = [7; 32];
    id[0] = 0;
    id
};
/// What is compared of each last layer: the labels at its end, over which all others are.
const COMPARED: u64 = 32 << 20;

/// Options of `bench-labels`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Size of a layer: a power of two. Two layers are in memory, and the parents cache has 1.75
    /// times the size of a layer.
    #[arg(long, value_name = "SIZE", default_value = "4GiB")]
    layer_size: SectorSize,
    /// Layers to label.
    #[arg(long, value_name = "N", default_value_t = 2)]
    layers: usize,
    /// Do the same work by storage-proofs-porep 19.1 with multicore SDR and one producer. Needs
    /// libhwloc, and disk space for the layers.
    #[arg(long)]
    peer: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    cargo(&["build", "--release", "-p", "benches", "--bin", "labelling"], &[])?;
    let peer = if args.peer { Some(build_peer()?) } else { None };
    let cache = parents();
    std::fs::create_dir_all(&cache)?;

    step(&format!("{} layers of {}", args.layers, args.layer_size));
    let ours = ours(args, &cache)?;
    let theirs = match &peer {
        Some(peer) => Some(theirs(args, peer, &cache)?),
        None => None,
    };
    let nodes = args.layer_size.nodes() as f64;
    say("  layer  ours ns/label  chain ns  over the chain  producer ns/label  peer ns/label");
    let mut layers = Vec::new();
    for (index, line) in ours.iter().enumerate() {
        let figure = |name: &str| line[name].as_f64().with_context(|| format!("no {name}"));
        let (ns, chain) = (figure("ns_per_label")?, figure("chain_beside_busy_ns")?);
        let producer = line["producer_ns_per_label"].as_f64();
        let peer_ns = theirs.as_ref().map(|(seconds, _)| seconds[index] * 1e9 / nodes);
        say(&format!(
            "  {:>5} {ns:>14.1} {chain:>9.1} {:>13.1} % {:>18} {:>14}",
            index + 1,
            (ns / chain - 1.0) * 100.0,
            producer.map_or_else(|| "-".to_owned(), |ns| format!("{ns:.1}")),
            peer_ns.map_or_else(|| "-".to_owned(), |ns| format!("{ns:.1}")),
        ));
        layers.push(json!({ "ours": line, "peer_ns_per_label": peer_ns }));
    }
    if let Some((_, digest)) = &theirs {
        let ours = ours.last().and_then(|line| line["sha256"].as_str());
        ensure!(ours == Some(digest), "the last layers differ: {ours:?} and {digest}");
        say("  the last layers are equal");
    }
    write_result(&format!("labels-{}", args.layer_size), json!({ "layers": layers }))
}

/// One line for each layer.
fn ours(args: &Args, cache: &Path) -> Result<Vec<Value>> {
    let output = Command::new(binary("labelling"))
        .args(["--layer-size", &args.layer_size.to_string()])
        .args(["--layers", &args.layers.to_string(), "--parents"])
        .arg(cache)
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot start labelling")?;
    ensure!(output.status.success(), "labelling failed: {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Seconds of each layer, and the digest of the end of the last one.
fn theirs(args: &Args, peer: &Path, cache: &Path) -> Result<(Vec<f64>, String)> {
    let scratch = tempfile::Builder::new().prefix("labels-").tempdir_in(target())?;
    let task = scratch.path().join("task.json");
    let request = json!({
        "nodes": args.layer_size.nodes(), "layers": args.layers, "porep_id": POREP_ID,
        "replica_id": REPLICA_ID, "cache_dir": scratch.path(),
    });
    std::fs::write(&task, request.to_string())?;
    let output = Command::new(peer)
        .arg(&task)
        .env("FIL_PROOFS_PARENT_CACHE", cache)
        .env("FIL_PROOFS_USE_MULTICORE_SDR", "1")
        .env("FIL_PROOFS_MULTICORE_SDR_PRODUCERS", "1")
        .output()
        .context("cannot start the peer")?;
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the peer failed: {log}");
    let seconds = peer_layer_seconds(&log);
    ensure!(seconds.len() == args.layers, "{} layers in the peer's log: {log}", seconds.len());
    let last = std::fs::read_dir(scratch.path())?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains(&format!("layer-{}", args.layers)))
        .context("the peer has stored no last layer")?;
    Ok((seconds, digest_of_end(&last)?))
}

fn digest_of_end(file: &Path) -> Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(file)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(COMPARED)))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    Ok(hex::encode(Sha256::digest(&end)))
}
