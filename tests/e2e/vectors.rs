//! Every reference vector is reproduced, all files byte for byte.
//!
//! The vectors were made with the published crates; `SEAL_VECTORS_DIR` names another directory of
//! such files. Sectors above 8 MiB are sealed only when the slow tests were asked for.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use pc1_exec::{
    Labeller, LabellerSettings, Pc1Job, Pc1Settings, ReplaceFinished, Resume, pre_commit1,
};
use seal_runtime::{CancelToken, TaskContext};
use seal_sha256::{ChaCha8, Kernel};
use seal_trees::{Cpu, Pc2Job, Pc2Paths, Piece, Settings, Watch, pre_commit2};
use seal_types::{MANIFEST, SectorSize, layer_file};
use test_support::skip::{skipped, slow_tests};
use test_support::vector::{Vector, file_digest, vectors_dir};

const QUIET: Watch<'static> = Watch { progress: &|_, _, _| {}, cancelled: &|| false };

/// Seals the vector's sector in `dir` and compares everything with the vector.
fn reproduce(vector: &Vector, dir: &Path, kernel: Kernel, labeller: &Arc<Labeller>) -> Result<()> {
    let staged = dir.join("staged");
    std::fs::write(&staged, vector.staged_bytes())?;
    ensure!(file_digest(&staged)?.sha256 == vector.staged_sha256, "the staged file differs");

    let (cache, sealed) = (dir.join("cache"), dir.join("sealed"));
    std::fs::create_dir(&cache)?;
    let job = Pc1Job {
        porep: vector.porep()?,
        cache_path: cache.clone(),
        in_path: staged,
        out_path: sealed.clone(),
        prover_id: vector.prover_id()?,
        sector_id: vector.sector_id,
        ticket: vector.ticket()?,
        pieces: vec![Piece { commitment: vector.comm_d()?, unpadded_bytes: vector.piece.bytes }],
    };
    let draws = ChaCha8::detect();
    let (parents, labeller) = (dir.join("parents"), Arc::clone(labeller));
    let resume = Resume::Yes;
    let replace_finished = ReplaceFinished::No;
    let settings = Pc1Settings {
        parents,
        kernel,
        draws,
        labeller,
        resume,
        replace_finished,
        work_dir: None,
        lock_wait: std::time::Duration::ZERO,
    };
    let context = TaskContext::new("vector".to_owned(), CancelToken::default());
    let pc1 = pre_commit1(&job, &settings, &context)?;
    ensure!(pc1.comm_d == vector.comm_d()?, "comm_d is {}", pc1.comm_d);
    ensure!(pc1.replica_id == vector.replica_id()?, "the replica id is {}", pc1.replica_id);
    ensure!(file_digest(&sealed)?.sha256 == vector.staged_sha256, "the copied data differs");

    let paths = Pc2Paths { cache_dir: &cache, sealed_file: &sealed };
    let comm_d = pc1.comm_d;
    let layer_digests: Vec<_> = (1..=job.porep.layers)
        .map(|layer| vector.cache_files[&layer_file(layer)].sha256.clone())
        .collect();
    let job = Pc2Job { porep: &job.porep, paths, comm_d, layer_digests: &layer_digests };
    let cpu = Cpu::new(seal_poseidon::Kernel::detect());
    let (pc2, _) = pre_commit2(&job, &cpu, &Settings::default(), &QUIET)?;
    ensure!(pc2.comm_c.to_string() == vector.comm_c, "comm_c is {}", pc2.comm_c);
    ensure!(
        pc2.comm_r_last.to_string() == vector.comm_r_last,
        "comm_r_last is {}",
        pc2.comm_r_last
    );
    ensure!(pc2.comm_r.to_string() == vector.comm_r, "comm_r is {}", pc2.comm_r);
    ensure!(file_digest(&sealed)?.sha256 == vector.sealed_sha256, "the replica differs");

    for (name, expected) in &vector.cache_files {
        ensure!(&file_digest(&cache.join(name))? == expected, "{name} differs");
    }
    for entry in std::fs::read_dir(&cache)? {
        let name = entry?
            .file_name()
            .into_string()
            .map_err(|name| anyhow::anyhow!("{} is not a name of ours", name.display()))?;
        let known = vector.cache_files.contains_key(&name) || ["t_aux", MANIFEST].contains(&&*name);
        ensure!(known, "{name} does not belong in the cache directory");
    }
    Ok(())
}

fn labeller(producers: usize, lanes: usize) -> Result<Arc<Labeller>> {
    let settings = LabellerSettings { producers, lanes, ..LabellerSettings::default() };
    Ok(Arc::new(Labeller::start(&settings)?))
}

/// The vectors of small sectors, which all variants can seal.
fn small_vectors() -> Result<Vec<(String, Vector)>> {
    let mut vectors = Vector::all(&vectors_dir())?;
    vectors.retain(|(_, vector)| vector.sector_size <= 32 << 10);
    if vectors.is_empty() {
        skipped("vectors with every variant", "no vector of up to 32 KiB in SEAL_VECTORS_DIR");
    }
    Ok(vectors)
}

#[test]
fn vectors_are_reproduced_byte_for_byte() -> Result<()> {
    let dir = vectors_dir();
    let labeller = labeller(1, 4)?;
    let mut sealed = 0;
    for (name, vector) in Vector::all(&dir)? {
        if vector.sector_size > SectorSize::MIB_8.bytes() && !slow_tests() {
            skipped(&format!("vector {name}"), "slow; run with --slow");
            continue;
        }
        let scratch = tempfile::tempdir()?;
        reproduce(&vector, scratch.path(), Kernel::detect(), &labeller)
            .with_context(|| name.clone())?;
        sealed += 1;
    }
    ensure!(sealed > 0, "there is no vector in {}", dir.display());
    Ok(())
}

#[test]
fn vectors_are_reproduced_by_every_sha256_kernel() -> Result<()> {
    let labeller = labeller(0, 1)?;
    for (name, vector) in small_vectors()? {
        for kernel in Kernel::available() {
            let scratch = tempfile::tempdir()?;
            reproduce(&vector, scratch.path(), kernel, &labeller)
                .with_context(|| format!("{name} with {}", kernel.name()))?;
        }
    }
    Ok(())
}

#[test]
fn vectors_are_reproduced_by_sectors_that_share_a_unit() -> Result<()> {
    let vectors = small_vectors()?;
    for (producers, lanes) in [(0, 2), (0, 4), (1, 1), (1, 2), (1, 4)] {
        let labeller = labeller(producers, lanes)?;
        std::thread::scope(|scope| {
            let sealings: Vec<_> = vectors
                .iter()
                .map(|(name, vector)| {
                    let labeller = &labeller;
                    scope.spawn(move || -> Result<()> {
                        let scratch = tempfile::tempdir()?;
                        reproduce(vector, scratch.path(), Kernel::detect(), labeller).with_context(
                            || format!("{name} with {producers} producers and {lanes} lanes"),
                        )
                    })
                })
                .collect();
            sealings.into_iter().try_for_each(|one| one.join().expect("no panic"))
        })?;
    }
    Ok(())
}
