//! The published sealing crates as a benchmark peer.
//!
//! `peer FILE` does the PC1, PC2 or C2 task in FILE, the same that `pc1-exec run --task FILE`,
//! `pc2-exec run --task FILE` or `c2-exec run --task FILE` does, and writes its output to standard
//! output; or it labels layers of any size, as `labelling` does, or makes a parents cache. Log lines of the crates go to
//! standard error with the milliseconds since the start; the last line there is the most memory
//! that the process had, as `/proc` tells it.
//!
//! `peer rates` measures what `pc2-exec rates` does, by the published crates.
#![forbid(unsafe_code)]

mod rates;

use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use filecoin_proofs_api::seal::{
    SealCommitPhase1Output, SealPreCommitPhase1Output, seal_commit_phase2, seal_pre_commit_phase1,
    seal_pre_commit_phase2,
};
use filecoin_proofs_api::{PieceInfo, ProverId, RegisteredSealProof, SectorId, Ticket};
use filecoin_hashers::poseidon::PoseidonHasher;
use serde::Deserialize;
use storage_proofs_core::api_version::ApiVersion;
use storage_proofs_core::drgraph::BASE_DEGREE;
use storage_proofs_core::merkle::DiskTree;
use storage_proofs_porep::stacked::create_label::multi::create_labels_for_encoding;
use storage_proofs_porep::stacked::{EXP_DEGREE, StackedBucketGraph};
use typenum::{U0, U8};

#[derive(Deserialize)]
#[serde(untagged)]
enum Task {
    Pc1(Pc1),
    Pc2(Pc2),
    C2(C2),
    Labels(Labels),
    Parents(Parents),
}

/// A parents cache alone, in the directory of `FIL_PROOFS_PARENT_CACHE`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parents {
    nodes: u32,
    porep_id: [u8; 32],
}

impl Parents {
    fn run(&self) -> Result<()> {
        graph(self.nodes, self.porep_id)?.parent_cache()?;
        Ok(())
    }
}

fn graph(nodes: u32, porep_id: [u8; 32]) -> Result<StackedBucketGraph<PoseidonHasher>> {
    StackedBucketGraph::new_stacked(
        nodes as usize,
        BASE_DEGREE,
        EXP_DEGREE,
        porep_id,
        ApiVersion::V1_1_0,
    )
}

/// Layers alone, of a graph that need not belong to a registered proof.
#[derive(Deserialize)]
struct Labels {
    nodes: u32,
    layers: usize,
    porep_id: [u8; 32],
    replica_id: [u8; 32],
    cache_dir: PathBuf,
}

/// Any shape will do, since no tree is made.
type Tree = DiskTree<PoseidonHasher, U8, U0, U0>;

impl Labels {
    fn run(&self) -> Result<()> {
        let graph = graph(self.nodes, self.porep_id)?;
        let parents = graph.parent_cache()?;
        create_labels_for_encoding::<Tree, _, _>(
            &graph,
            &parents,
            self.layers,
            self.replica_id,
            &self.cache_dir,
        )?;
        Ok(())
    }
}

#[derive(Deserialize)]
struct C2 {
    c1out: SealCommitPhase1Output,
    prover_id: ProverId,
    sector_id: u64,
}

#[derive(Deserialize)]
struct Pc2 {
    pc1out: SealPreCommitPhase1Output,
    cache_dir: PathBuf,
    sealed_file: PathBuf,
}

#[derive(Deserialize)]
struct Pc1 {
    registered_proof: RegisteredSealProof,
    cache_path: PathBuf,
    in_path: PathBuf,
    out_path: PathBuf,
    prover_id: ProverId,
    sector_id: u64,
    ticket: Ticket,
    piece_infos: Vec<PieceInfo>,
}

struct Logger;

fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Info
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = format!("{} {}\n", start().elapsed().as_millis(), record.args());
            // Nobody is left to tell.
            let _ = std::io::stderr().lock().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

fn main() -> Result<()> {
    start();
    log::set_logger(&Logger).map_err(|error| anyhow!("{error}"))?;
    log::set_max_level(log::LevelFilter::Info);
    let file = std::env::args_os().nth(1).context("usage: peer FILE | rates")?;
    if file == "rates" {
        return rates::print();
    }
    let task: Task = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    let mut stdout = std::io::stdout().lock();
    match task {
        Task::Pc1(task) => {
            let output = seal_pre_commit_phase1(
                task.registered_proof,
                task.cache_path,
                task.in_path,
                task.out_path,
                task.prover_id,
                SectorId::from(task.sector_id),
                task.ticket,
                &task.piece_infos,
            )?;
            serde_json::to_writer(&mut stdout, &output)?;
        }
        Task::Pc2(task) => {
            let output = seal_pre_commit_phase2(task.pc1out, task.cache_dir, task.sealed_file)?;
            serde_json::to_writer(&mut stdout, &output)?;
        }
        Task::Labels(task) => task.run()?,
        Task::Parents(task) => task.run()?,
        Task::C2(task) => {
            let output =
                seal_commit_phase2(task.c1out, task.prover_id, SectorId::from(task.sector_id))?;
            serde_json::to_writer(&mut stdout, &output.proof)?;
        }
    }
    stdout.write_all(b"\n")?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    Ok(writeln!(std::io::stderr().lock(), "{peak}")?)
}
