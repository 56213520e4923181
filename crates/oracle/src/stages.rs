//! The steps of sealing. Tasks are read in the crates' own types where they have one, so that
//! nothing of ours stands between the text and the judge.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use filecoin_proofs_api::seal::{
    self, SealCommitPhase1Output, SealCommitPhase2Output, SealPreCommitPhase1Output,
    SealPreCommitPhase2Output,
};
use filecoin_proofs_api::{
    ApiFeature, Commitment, PieceInfo, ProverId, RegisteredSealProof, SectorId, Ticket,
    UnpaddedBytesAmount,
};
use seal_types::RegisteredProof;
use serde::{Deserialize, Serialize};

/// Result of adding a piece.
#[derive(Serialize)]
pub(crate) struct AddedPiece {
    registered_proof: RegisteredSealProof,
    /// Always one piece, which fills the sector.
    piece_infos: Vec<PieceInfo>,
}

/// Task of PC1, as `vc-processors` writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pc1Task {
    registered_proof: RegisteredSealProof,
    cache_path: PathBuf,
    in_path: PathBuf,
    out_path: PathBuf,
    prover_id: ProverId,
    sector_id: u64,
    ticket: Ticket,
    piece_infos: Vec<PieceInfo>,
}

/// Task of PC2, as `vc-processors` writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pc2Task {
    pc1out: SealPreCommitPhase1Output,
    cache_dir: PathBuf,
    sealed_file: PathBuf,
}

/// Task of C1, which workers do themselves: the fields are those of the other stages.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct C1Task {
    registered_proof: RegisteredSealProof,
    cache_path: PathBuf,
    replica_path: PathBuf,
    prover_id: ProverId,
    sector_id: u64,
    ticket: Ticket,
    seed: Ticket,
    comm_r: Commitment,
    comm_d: Commitment,
    piece_infos: Vec<PieceInfo>,
}

/// Task of C2, as `vc-processors` writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct C2Task {
    c1out: SealCommitPhase1Output,
    prover_id: ProverId,
    sector_id: u64,
    /// Part of the wire format; the crates have no use for it.
    #[serde(rename = "miner_id")]
    _miner_id: u64,
}

/// Everything the network knows when it verifies.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyTask {
    registered_proof: RegisteredSealProof,
    comm_r: Commitment,
    comm_d: Commitment,
    prover_id: ProverId,
    sector_id: u64,
    ticket: Ticket,
    seed: Ticket,
    proof: Vec<u8>,
}

/// The verdict.
#[derive(Serialize)]
pub(crate) struct Verdict {
    valid: bool,
}

pub(crate) fn add_piece(
    proof: RegisteredProof,
    input: &Path,
    staged: &Path,
) -> anyhow::Result<AddedPiece> {
    let registered_proof = published(proof)?;
    let size = proof.sector_size().unpadded_bytes();
    let data = File::open(input).with_context(|| format!("cannot open {}", input.display()))?;
    let data = BufReader::new(data).chain(std::io::repeat(0)).take(size);
    let target = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(staged)
        .with_context(|| format!("cannot create {}", staged.display()))?;
    let (piece, written) =
        seal::add_piece(registered_proof, data, target, UnpaddedBytesAmount(size), &[])?;
    ensure!(u64::from(written) == size, "{} of {size} bytes were added", u64::from(written));
    Ok(AddedPiece { registered_proof, piece_infos: vec![piece] })
}

pub(crate) fn pc1(task: Pc1Task) -> anyhow::Result<SealPreCommitPhase1Output> {
    // What a worker does before it asks for PC1.
    File::create(&task.out_path)
        .with_context(|| format!("cannot create {}", task.out_path.display()))?;
    seal::seal_pre_commit_phase1(
        task.registered_proof,
        task.cache_path,
        task.in_path,
        task.out_path,
        task.prover_id,
        SectorId::from(task.sector_id),
        task.ticket,
        &task.piece_infos,
    )
}

pub(crate) fn pc2(task: Pc2Task) -> anyhow::Result<SealPreCommitPhase2Output> {
    seal::seal_pre_commit_phase2(task.pc1out, task.cache_dir, task.sealed_file)
}

pub(crate) fn c1(task: C1Task) -> anyhow::Result<SealCommitPhase1Output> {
    let proof = task.registered_proof;
    let (cache, replica) = (&task.cache_path, &task.replica_path);
    let sector_id = SectorId::from(task.sector_id);
    let pre_commit = SealPreCommitPhase2Output {
        registered_proof: proof,
        comm_r: task.comm_r,
        comm_d: task.comm_d,
    };
    if proof.feature_enabled(ApiFeature::SyntheticPoRep) {
        seal::generate_synth_proofs(
            cache,
            replica,
            task.prover_id,
            sector_id,
            task.ticket,
            pre_commit.clone(),
            &task.piece_infos,
        )?;
    }
    seal::seal_commit_phase1(
        cache,
        replica,
        task.prover_id,
        sector_id,
        task.ticket,
        task.seed,
        pre_commit,
        &task.piece_infos,
    )
}

pub(crate) fn c2(task: C2Task) -> anyhow::Result<SealCommitPhase2Output> {
    seal::seal_commit_phase2(task.c1out, task.prover_id, SectorId::from(task.sector_id))
}

pub(crate) fn verify(task: VerifyTask) -> anyhow::Result<Verdict> {
    let valid = seal::verify_seal(
        task.registered_proof,
        task.comm_r,
        task.comm_d,
        task.prover_id,
        SectorId::from(task.sector_id),
        task.ticket,
        task.seed,
        &task.proof,
    )?;
    Ok(Verdict { valid })
}

/// The proof in the crates' own type, which has the same names.
fn published(proof: RegisteredProof) -> anyhow::Result<RegisteredSealProof> {
    serde_json::from_value(serde_json::to_value(proof)?).context("the crates know no such proof")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_proof_has_the_same_properties_as_the_published_one() {
        for proof in RegisteredProof::all() {
            let theirs = published(proof).expect("the same names");
            let config = theirs.as_v1_config();
            assert_eq!(config.porep_id, proof.porep_id().0, "{proof}");
            assert_eq!(u64::from(config.sector_size), proof.sector_size().bytes(), "{proof}");
            assert_eq!(u32::from(theirs.partitions()), proof.partitions(), "{proof}");
        }
    }
}
