//! The published sealing crates as a benchmark peer.
//!
//! `peer FILE` does the PC1 task in FILE, the same that `pc1-exec run --task FILE` does, and
//! writes its output to standard output. Log lines of the crates go to standard error with the
//! milliseconds since the start.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use filecoin_proofs_api::seal::seal_pre_commit_phase1;
use filecoin_proofs_api::{PieceInfo, ProverId, RegisteredSealProof, SectorId, Ticket};
use serde::Deserialize;

#[derive(Deserialize)]
struct Task {
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
    let file = std::env::args_os().nth(1).context("usage: peer FILE")?;
    let task: Task = serde_json::from_str(&std::fs::read_to_string(file)?)?;
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
    let mut stdout = std::io::stdout().lock();
    serde_json::to_writer(&mut stdout, &output)?;
    Ok(stdout.write_all(b"\n")?)
}
