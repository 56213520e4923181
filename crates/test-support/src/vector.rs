//! The reference vectors: sectors sealed with the published crates.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use seal_types::{
    ApiVersion, Commitment, Porep, PorepId, ProverId, RegisteredProof, ReplicaId, SectorId,
    SectorSize, Seed, Ticket, TreeShape,
};
use serde::Deserialize;

use crate::data;

/// One sealed sector, as its JSON file tells.
#[derive(Debug, Clone, Deserialize)]
pub struct Vector {
    /// From which all inputs are derived.
    pub case: String,
    /// `xs` for the xorshift stream, `zero` for a sector without data.
    pub data: String,
    /// Bytes of the sector.
    pub sector_size: u64,
    /// The proof, unless the sector's size has none.
    pub registered_proof: Option<RegisteredProof>,
    /// Graph of a sector without registered proof.
    pub porep_id: Option<String>,
    /// API version of a sector without registered proof.
    pub api_version: Option<String>,
    /// Layers of a sector without registered proof.
    pub layers: Option<u32>,
    /// Who seals.
    pub prover_id: String,
    /// The sector.
    pub sector_id: SectorId,
    /// Sealing randomness.
    pub ticket: String,
    /// Interactive randomness.
    pub seed: String,
    /// The replica id.
    pub replica_id: String,
    /// Commitments.
    pub comm_d: String,
    /// Root of tree C.
    pub comm_c: String,
    /// Root of tree R last.
    pub comm_r_last: String,
    /// Commitment to the replica.
    pub comm_r: String,
    /// SHA-256 over the piece.
    pub piece: FileDigest,
    /// SHA-256 over the staged file.
    pub staged_sha256: String,
    /// SHA-256 over the replica.
    pub sealed_sha256: String,
    /// Every file of the cache directory but `t_aux`.
    pub cache_files: BTreeMap<String, FileDigest>,
    /// SHA-256 over the C1 output, where there is one.
    pub c1_output_sha256: Option<String>,
}

/// Length and digest of a file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FileDigest {
    /// Length.
    pub bytes: u64,
    /// SHA-256 in hex.
    pub sha256: String,
}

/// The directory of the vectors: `SEAL_VECTORS_DIR`, or `tests/vectors`.
pub fn vectors_dir() -> PathBuf {
    std::env::var_os("SEAL_VECTORS_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors"),
        PathBuf::from,
    )
}

impl Vector {
    /// All vectors in `dir`, by file name. Other JSON files (tables of digests) are left out.
    pub fn all(dir: &Path) -> Result<Vec<(String, Self)>> {
        let mut vectors = Vec::new();
        let entries =
            std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = std::fs::read_to_string(&path)?;
            let json: serde_json::Value =
                serde_json::from_str(&text).with_context(|| path.display().to_string())?;
            if json.get("sealed_sha256").is_some() {
                let vector =
                    serde_json::from_value(json).with_context(|| path.display().to_string())?;
                vectors.push((name, vector));
            }
        }
        vectors.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(vectors)
    }

    /// The vector called `name`: the project's own, or, where a test runs without the project
    /// around it, or as if it did (`SEAL_TEST_WITHOUT_PROJECT=1`), that of `SEAL_VECTORS_DIR`.
    pub fn named(name: &str) -> Result<Self> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors");
        let without = std::env::var_os("SEAL_TEST_WITHOUT_PROJECT").is_some_and(|v| v == "1");
        let dir = if dir.is_dir() && !without { dir } else { vectors_dir() };
        let path = dir.join(format!("{name}.json"));
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Graph, layers and shape.
    pub fn porep(&self) -> Result<Porep> {
        if let Some(proof) = self.registered_proof {
            return Ok(proof.porep());
        }
        let sector_size = SectorSize::new(self.sector_size)?;
        let porep_id: PorepId = self.porep_id.as_deref().context("a porep_id")?.parse()?;
        let api_version = match self.api_version.as_deref() {
            Some("1.0") => ApiVersion::V1_0,
            Some("1.1") => ApiVersion::V1_1,
            other => anyhow::bail!("unknown api_version {other:?}"),
        };
        let layers = self.layers.context("a number of layers")?;
        let shape = TreeShape::of(sector_size);
        Ok(Porep { sector_size, api_version, porep_id, layers, shape })
    }

    /// The piece's data, before padding.
    pub fn piece_bytes(&self) -> Vec<u8> {
        let length = usize::try_from(self.sector_size / 128 * 127).expect("64-bit addresses");
        match self.data.as_str() {
            "zero" => vec![0; length],
            _ => data::piece(&self.case, length),
        }
    }

    /// The staged file: the piece, padded.
    pub fn staged_bytes(&self) -> Vec<u8> {
        data::fr32_pad(&self.piece_bytes())
    }

    /// Who seals.
    pub fn prover_id(&self) -> Result<ProverId> {
        Ok(self.prover_id.parse()?)
    }

    /// Sealing randomness.
    pub fn ticket(&self) -> Result<Ticket> {
        Ok(self.ticket.parse()?)
    }

    /// Interactive randomness.
    pub fn seed(&self) -> Result<Seed> {
        Ok(self.seed.parse()?)
    }

    /// The replica id.
    pub fn replica_id(&self) -> Result<ReplicaId> {
        Ok(self.replica_id.parse()?)
    }

    /// Commitment to the data.
    pub fn comm_d(&self) -> Result<Commitment> {
        Ok(self.comm_d.parse()?)
    }
}

/// Length and SHA-256 of the file at `path`.
pub fn file_digest(path: &Path) -> Result<FileDigest> {
    use sha2::{Digest, Sha256};
    let mut file =
        std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut hasher = Sha256::new();
    let bytes = std::io::copy(&mut file, &mut hasher)?;
    Ok(FileDigest { bytes, sha256: hex::encode(hasher.finalize()) })
}
