//! A sector on its way through the stages, for tests: its files, and the tasks as venus-worker
//! writes them. The JSON is written out here and not by our own types, so that it can judge them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use seal_types::{MANIFEST, RegisteredProof, TREE_D};
use serde_json::{Value, json};

use crate::vector::{FileDigest, Vector, file_digest};

/// The storage provider's number in tasks of C2.
const MINER: u64 = 1000;

/// Whether the file `file` is being written: there is a part of it beside it.
pub fn has_part_of(file: &Path) -> Result<bool> {
    let (dir, name) = (file.parent().context("a directory")?, file.file_name().context("a name")?);
    let start = format!(".{}.", name.to_string_lossy());
    Ok(names_in(dir)?.iter().any(|name| name.starts_with(&start) && name.ends_with(".part")))
}

/// How many layers PC1's record in `directory` has.
pub fn on_record(directory: &Path) -> Result<usize> {
    let text = fs::read_to_string(directory.join(MANIFEST))?;
    let manifest: Value = serde_json::from_str(&text)?;
    Ok(manifest["finished"].as_array().context("a list")?.len())
}

/// Locks the parents cache in `parents` as other software does while it makes one. As it was not
/// checked yet: one that was needs nobody's lock.
pub fn lock_parents(parents: &Path) -> Result<File> {
    for entry in fs::read_dir(parents)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cache") {
            let file = File::open(&path)?;
            file.lock()?;
            let name = path.file_name().context("a cache has a name")?.to_string_lossy();
            fs::remove_file(path.with_file_name(format!(".{name}.seal-exec.json")))?;
            return Ok(file);
        }
    }
    bail!("PC1 made no parents cache")
}

/// The names in a cache directory as [`Sector::names`] has them.
pub fn names_in(cache: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(cache)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| name != MANIFEST);
    names.sort();
    Ok(names)
}

/// A sector in a directory of its own.
#[derive(Debug)]
pub struct Sector {
    /// Where all inputs come from.
    pub vector: Vector,
    /// The proof it is sealed for, of the same size as the vector's own.
    pub proof: RegisteredProof,
    dir: PathBuf,
}

impl Sector {
    /// Stages the data of `vector` in `dir`, which is made, to be sealed for the vector's proof.
    pub fn stage(vector: &Vector, dir: &Path) -> Result<Self> {
        let proof = vector.registered_proof.context("a vector of a registered proof")?;
        Self::stage_for(proof, vector, dir)
    }

    /// Stages the data of `vector` in `dir`, which is made, to be sealed for `proof`.
    pub fn stage_for(proof: RegisteredProof, vector: &Vector, dir: &Path) -> Result<Self> {
        let sector = Self { vector: vector.clone(), proof, dir: dir.to_path_buf() };
        fs::create_dir_all(sector.cache())?;
        fs::write(sector.staged(), vector.staged_bytes())?;
        File::create(sector.sealed())?;
        Ok(sector)
    }

    /// Makes the cache directory empty and truncates the sealed file, as a worker does before PC1.
    pub fn clear(&self) -> Result<()> {
        fs::remove_dir_all(self.cache())?;
        fs::create_dir(self.cache())?;
        File::create(self.sealed())?;
        Ok(())
    }

    /// The cache directory.
    pub fn cache(&self) -> PathBuf {
        self.dir.join("cache")
    }

    /// The staged file.
    pub fn staged(&self) -> PathBuf {
        self.dir.join("staged")
    }

    /// The sealed file.
    pub fn sealed(&self) -> PathBuf {
        self.dir.join("sealed")
    }

    /// The names in the cache directory, sorted: hidden ones too, but not the record that PC1 keeps
    /// of its layers, which no other software knows.
    pub fn names(&self) -> Result<Vec<String>> {
        names_in(&self.cache())
    }

    /// Names of what a PC1 that failed on the data has left and must not: all but tree D, which may
    /// have been right, and finished layers. Labels are computed beside the data's part and do not
    /// depend on it, so that a layer may be finished before the failure; a rerun uses it.
    pub fn wrongly_left(&self) -> Result<Vec<String>> {
        let mut names = self.names()?;
        names.retain(|name| {
            let layer = name.strip_prefix("sc-02-data-layer-");
            let layer = layer.and_then(|name| name.strip_suffix(".dat"));
            let is_layer = layer.is_some_and(|number| number.parse::<u32>().is_ok());
            name != TREE_D && !is_layer
        });
        Ok(names)
    }

    /// Lengths and digests of the sealed file and everything in the cache directory.
    pub fn files(&self) -> Result<BTreeMap<String, FileDigest>> {
        let mut files: BTreeMap<_, _> = self
            .names()?
            .into_iter()
            .map(|name| Ok((name.clone(), file_digest(&self.cache().join(name))?)))
            .collect::<Result<_>>()?;
        files.insert("sealed".to_owned(), file_digest(&self.sealed())?);
        Ok(files)
    }

    /// The task of PC1.
    pub fn pc1_task(&self) -> Result<Value> {
        let pieces = self.pieces()?;
        self.identified(json!({
            "cache_path": self.cache(), "in_path": self.staged(), "out_path": self.sealed(),
            "piece_infos": pieces,
        }))
    }

    /// The task of PC2 after PC1 answered `pc1out`.
    pub fn pc2_task(&self, pc1out: &Value) -> Value {
        json!({ "pc1out": pc1out, "cache_dir": self.cache(), "sealed_file": self.sealed() })
    }

    /// The task of C1, which the oracle does, after PC2 answered `pc2out`.
    pub fn c1_task(&self, pc2out: &Value) -> Result<Value> {
        let (seed, pieces) = (self.vector.seed()?, self.pieces()?);
        self.identified(json!({
            "cache_path": self.cache(), "replica_path": self.sealed(), "seed": seed.0,
            "comm_r": pc2out["comm_r"], "comm_d": pc2out["comm_d"], "piece_infos": pieces,
        }))
    }

    /// The task of C2 after C1 answered `c1out`.
    pub fn c2_task(&self, c1out: &Value) -> Result<Value> {
        Ok(json!({
            "c1out": c1out, "prover_id": self.vector.prover_id()?.0,
            "sector_id": self.vector.sector_id.0, "miner_id": MINER,
        }))
    }

    /// What the oracle verifies after PC2 answered `pc2out` and C2 `proof`.
    pub fn verify_task(&self, pc2out: &Value, proof: &Value) -> Result<Value> {
        let seed = self.vector.seed()?;
        self.identified(json!({
            "comm_r": pc2out["comm_r"], "comm_d": pc2out["comm_d"], "seed": seed.0, "proof": proof,
        }))
    }

    /// The one piece, which fills the sector.
    fn pieces(&self) -> Result<Value> {
        let commitment = self.vector.comm_d()?;
        Ok(json!([{ "commitment": commitment.0, "size": self.vector.piece.bytes }]))
    }

    /// `task` and the fields by which a sector is known.
    fn identified(&self, mut task: Value) -> Result<Value> {
        task["registered_proof"] = json!(self.proof.to_string());
        task["prover_id"] = json!(self.vector.prover_id()?.0);
        task["sector_id"] = json!(self.vector.sector_id.0);
        task["ticket"] = json!(self.vector.ticket()?.0);
        Ok(task)
    }
}
