//! Executors of this version and of an earlier one, under supervisors of either: together they make
//! the same bytes, one goes on with what the other has begun, and what excludes processes of one
//! version excludes those of both.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use seal_types::Stage;
use serde_json::{Value, json};
use test_support::client::{Processor, binary};
use test_support::launch::{Launch, Log, test_params, until};
use test_support::oracle::Oracle;
use test_support::revision::{Revision, earlier};
use test_support::sector::{Sector, has_part_of, on_record};
use test_support::skip::{skipped, slow_tests};
use test_support::vector::{FileDigest, Vector};

const PATIENCE: Duration = Duration::from_secs(120);
/// With two cores shared with other tests.
const PROOF_PATIENCE: Duration = Duration::from_secs(900);

const LAYER_1: &str = "sc-02-data-layer-1.dat";
const LAYER_2: &str = "sc-02-data-layer-2.dat";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Now,
    Before,
}

const WAYS: [(Side, Side); 2] = [(Side::Before, Side::Now), (Side::Now, Side::Before)];

fn program(side: Side, name: &str, before: &Revision) -> Result<PathBuf> {
    match side {
        Side::Now => binary(name),
        Side::Before => Ok(before.binary(name)),
    }
}

/// The supervisor of one version with an executor of the other.
fn supervise(
    stage: Stage,
    (supervisor, executor): (Side, Side),
    before: &Revision,
    dir: &Path,
) -> Result<Launch> {
    let bin = program(executor, stage.executor(), before)?;
    let shared = "[processors.limitation.concurrent]\npc1 = 1\npc2 = 1\n\
        [processors.ext_locks]\ndisk = 1\n";
    let config = format!("{shared}[[processors.{stage}]]\nbin = {bin:?}\nlocks = ['disk']\n");
    let launch = Launch::supervisor(stage, &config, dir)?;
    Ok(launch.program(program(supervisor, "seal-supervisor", before)?))
}

/// What a sector's files must be.
fn expected(vector: &Vector) -> BTreeMap<String, FileDigest> {
    let mut files = vector.cache_files.clone();
    let sealed = FileDigest { bytes: vector.sector_size, sha256: vector.sealed_sha256.clone() };
    files.insert("sealed".to_owned(), sealed);
    files
}

fn is_sealed(sector: &Sector) -> Result<()> {
    let mut files = sector.files()?;
    files.remove("t_aux");
    let expected = expected(&sector.vector);
    ensure!(files == expected, "{files:#?} is not {expected:#?}");
    Ok(())
}

#[test]
fn a_sector_is_sealed_by_executors_of_one_version_under_supervisors_of_the_other() -> Result<()> {
    let test = "a_sector_is_sealed_by_executors_of_one_version_under_supervisors_of_the_other";
    let packages = ["seal-supervisor", "pc1-exec", "pc2-exec"];
    let Some(before) = earlier(test, &packages)? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    // Both ways at once, in one runtime directory and with one directory of parents.
    let start = |stage, way| supervise(stage, way, &before, dir.path())?.serve(stage);
    for (pc1_way, pc2_way) in [(WAYS[0], WAYS[1]), (WAYS[1], WAYS[0])] {
        let (mut pc1, pc1_log) = start(Stage::Pc1, pc1_way)?;
        let (mut pc2, _) = start(Stage::Pc2, pc2_way)?;
        for name in ["2KiB-v1-a", "2KiB-v1_1-cc"] {
            let own = dir.path().join(format!("{name}-{:?}", pc1_way.0));
            let sector = Sector::stage(&Vector::named(name)?, &own)?;
            let pc1out = pc1.call(&sector.pc1_task()?, PATIENCE)?;
            pc2.call(&sector.pc2_task(&pc1out), PATIENCE)?;
            is_sealed(&sector)?;
        }
        for processor in [pc1, pc2] {
            let (lines, status) = processor.ended_by_input(PATIENCE)?;
            ensure!(lines.is_empty() && status.success(), "{status}, {lines:?}");
        }
        let errors = pc1_log.lines_with(&["\"ERROR\""])?;
        ensure!(errors.is_empty(), "{errors:#?}");
    }
    Ok(())
}

#[test]
fn a_proof_is_made_by_a_c2_of_one_version_under_a_supervisor_of_the_other() -> Result<()> {
    let test = "a_proof_is_made_by_a_c2_of_one_version_under_a_supervisor_of_the_other";
    let params = match test_params() {
        Ok(params) if slow_tests() => params,
        Ok(_) => {
            skipped(test, "two proofs; run with --slow");
            return Ok(());
        }
        Err(reason) => {
            skipped(test, &reason);
            return Ok(());
        }
    };
    let Some(before) = earlier(test, &["seal-supervisor", "c2-exec"])? else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let sector = Sector::stage(&Vector::named("2KiB-v1_1-a")?, &dir.path().join("sector"))?;
    let oracle = Oracle::new(dir.path(), &params);
    let serve = |stage| Launch::executor(stage, dir.path())?.serve(stage);
    let pc1out = serve(Stage::Pc1)?.0.call(&sector.pc1_task()?, PATIENCE)?;
    let pc2out = serve(Stage::Pc2)?.0.call(&sector.pc2_task(&pc1out), PATIENCE)?;
    let c1out = oracle.ask("c1", &sector.c1_task(&pc2out)?)?;
    for way in WAYS {
        let (mut c2, _) = supervise(Stage::C2, way, &before, dir.path())?
            .env("FIL_PROOFS_PARAMETER_CACHE", &params)
            .env("SEAL_ALLOW_TEST_PARAMS", "1")
            .serve(Stage::C2)?;
        let proof = c2.call(&sector.c2_task(&c1out)?, PROOF_PATIENCE)?;
        let verdict = oracle.ask("verify", &sector.verify_task(&pc2out, &proof["proof"])?)?;
        ensure!(verdict == json!({ "valid": true }), "{way:?}: {verdict}");
    }
    Ok(())
}

/// An executor by itself.
fn executor(stage: Stage, side: Side, before: &Revision, dir: &Path) -> Result<Launch> {
    let own = dir.join(format!("{side:?}"));
    fs::create_dir_all(&own)?;
    let launch = Launch::executor(stage, &own)?.program(program(side, stage.executor(), before)?);
    let launch = launch.env("SEAL_RUNTIME_DIR", dir.join("run"));
    // Slow enough to be stopped in its middle.
    let launch = launch.env("SEAL_FORCE_ISA", "portable");
    Ok(launch.env("FIL_PROOFS_PARENT_CACHE", dir.join("parents")))
}

/// The parents caches, by their inodes.
fn caches(dir: &Path) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir.join("parents"))? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "cache") {
            found.push(entry.ino());
        }
    }
    Ok(found)
}

/// The names of unfinished files.
fn parts(sector: &Sector) -> Result<Vec<String>> {
    let mut names = sector.names()?;
    names.retain(|name| name.ends_with(".part"));
    Ok(names)
}

#[test]
fn a_sector_begun_by_one_version_is_finished_by_the_other() -> Result<()> {
    let test = "a_sector_begun_by_one_version_is_finished_by_the_other";
    let Some(before) = earlier(test, &["pc1-exec", "pc2-exec"])? else { return Ok(()) };
    for (first, second) in WAYS {
        let dir = tempfile::tempdir()?;
        let sector = Sector::stage(&Vector::named("8MiB-v1_1-a")?, &dir.path().join("sector"))?;
        let (mut pc1, _) = executor(Stage::Pc1, first, &before, dir.path())?.serve(Stage::Pc1)?;
        pc1.send(&sector.pc1_task()?)?;
        let there = |name: &str| sector.cache().join(name).exists();
        until(PATIENCE, || Ok(on_record(&sector.cache()).unwrap_or(0) == 1))?;
        pc1.kill()?;
        ensure!(!there(LAYER_2), "it was killed while it labelled");
        let made = fs::metadata(sector.cache().join(LAYER_1))?.modified()?;
        let parents = caches(dir.path())?;
        ensure!(parents.len() == 1, "{parents:?}");

        let (mut pc1, _) = executor(Stage::Pc1, second, &before, dir.path())?.serve(Stage::Pc1)?;
        let pc1out = pc1.call(&sector.pc1_task()?, PATIENCE)?;
        let kept = fs::metadata(sector.cache().join(LAYER_1))?.modified()?;
        ensure!(kept == made, "{second:?} made the layer again that {first:?} had finished");
        ensure!(caches(dir.path())? == parents, "{second:?} made {first:?}'s parents again");

        let (mut pc2, _) = executor(Stage::Pc2, first, &before, dir.path())?.serve(Stage::Pc2)?;
        let inode = || -> Result<u64> { Ok(fs::metadata(sector.sealed())?.ino()) };
        let data = inode()?;
        pc2.send(&sector.pc2_task(&pc1out))?;
        // Written within milliseconds: it may be whole by the time that one looks.
        let begun = || Ok(has_part_of(&sector.sealed())? || old_part(&sector) || inode()? != data);
        until(PATIENCE, begun)?;
        pc2.kill()?;
        let (mut pc2, _) = executor(Stage::Pc2, second, &before, dir.path())?.serve(Stage::Pc2)?;
        pc2.call(&sector.pc2_task(&pc1out), PATIENCE)?;
        if second == Side::Now {
            let left = parts(&sector)?;
            ensure!(left.is_empty() && !old_part(&sector), "left of {first:?}: {left:?}");
        }
        let mut files = sector.files()?;
        files.retain(|name, _| !name.ends_with(".part") && name != "t_aux");
        let expected = expected(&sector.vector);
        ensure!(files == expected, "{first:?}, {second:?}: {files:#?} is not {expected:#?}");
    }
    Ok(())
}

/// Whether the sealed file is being written as the earlier version does.
fn old_part(sector: &Sector) -> bool {
    sector.sealed().with_file_name(".sealed.part").exists()
}

fn signal(processor: &Processor, signal: Signal) -> Result<()> {
    Ok(kill(Pid::from_raw(i32::try_from(processor.pid())?), signal)?)
}

fn is_labelling(log: &Log) -> Result<Value> {
    log.wait_for(&["\"message\":\"labelling\""], PATIENCE)?;
    let lines = log.lines_with(&["\"message\":\"labelling\""])?;
    Ok(serde_json::from_str(lines.last().context("a line")?)?)
}

#[test]
fn a_sector_is_worked_on_by_one_version_at_a_time() -> Result<()> {
    let test = "a_sector_is_worked_on_by_one_version_at_a_time";
    let Some(before) = earlier(test, &["pc1-exec"])? else { return Ok(()) };
    for (first, second) in WAYS {
        let dir = tempfile::tempdir()?;
        let sector = Sector::stage(&Vector::named("8MiB-v1_1-a")?, &dir.path().join("sector"))?;
        let start = |side| executor(Stage::Pc1, side, &before, dir.path())?.serve(Stage::Pc1);
        let (mut holder, log) = start(first)?;
        let (mut other, other_log) = start(second)?;
        holder.send(&sector.pc1_task()?)?;
        is_labelling(&log)?;
        other.send(&sector.pc1_task()?)?;
        if second == Side::Before {
            // It does not wait.
            let error = other.answer(PATIENCE)?.err_msg.context("it is in use")?;
            ensure!(error.starts_with("[unavailable]") && error.contains("in use"), "{error}");
            ensure!(holder.answer(PATIENCE)?.err_msg.is_none());
        } else {
            other_log.wait_for(&["waiting for another process"], PATIENCE)?;
            holder.kill()?;
            ensure!(other.answer(PATIENCE)?.err_msg.is_none());
        }
        let (files, expected) = (sector.files()?, &sector.vector.cache_files);
        ensure!(files.get(LAYER_2) == expected.get(LAYER_2), "the last layer differs");
    }
    Ok(())
}

#[test]
fn versions_label_on_different_cores() -> Result<()> {
    let test = "versions_label_on_different_cores";
    let Some(before) = earlier(test, &["pc1-exec"])? else { return Ok(()) };
    let cpus = seal_host::allowed_cpus()?;
    let two: Vec<_> = cpus.iter().take(2).map(|cpu| cpu.to_string()).collect();
    if two.len() < 2 {
        skipped(test, "it takes two cpus");
        return Ok(());
    }
    for (first, second) in WAYS {
        let dir = tempfile::tempdir()?;
        let start = |side| -> Result<_> {
            let own = dir.path().join(format!("sector-{side:?}"));
            let sector = Sector::stage(&Vector::named("8MiB-v1_1-a")?, &own)?;
            let (processor, log) = executor(Stage::Pc1, side, &before, dir.path())?
                .env("VC_CG_CPUSET", two.join(","))
                .env("FIL_PROOFS_MULTICORE_SDR_PRODUCERS", "0")
                .env("SEAL_PC1_LANES", "1")
                .env("SEAL_PC1_SMT", "1")
                .serve(Stage::Pc1)?;
            Ok((processor, log, sector))
        };
        let (mut one, one_log, one_sector) = start(first)?;
        let (mut other, other_log, other_sector) = start(second)?;
        one.send(&one_sector.pc1_task()?)?;
        let cpu = is_labelling(&one_log)?["consumer"].clone();
        until(PATIENCE, || Ok(one_log.lines_with(&["\"memory for a layer\""])?.len() == 2))?;
        // Stopped while it labels, a process keeps its unit.
        signal(&one, Signal::SIGSTOP)?;
        other.send(&other_sector.pc1_task()?)?;
        let others = is_labelling(&other_log)?["consumer"].clone();
        ensure!(cpu.is_u64() && others.is_u64() && cpu != others, "both label on {cpu}, {others}");
        signal(&one, Signal::SIGCONT)?;
        for processor in [&mut one, &mut other] {
            let answer = processor.answer(PATIENCE)?;
            ensure!(answer.err_msg.is_none(), "{answer:?}");
        }
    }
    Ok(())
}
