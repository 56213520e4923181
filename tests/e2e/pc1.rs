//! `pc1-exec` as people meet it: what it refuses to start with, what it warns of, what its log tells
//! while it labels.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seal_types::Stage;
use seal_wire::ExitCode;
use serde_json::Value;
use test_support::launch::{Launch, Log, until};
use test_support::sector::Sector;
use test_support::vector::Vector;

const PATIENCE: Duration = Duration::from_secs(120);

/// Starts it with one setting. It must end before it is ready, as after a bad configuration, and
/// name all of `words`.
fn refuses(name: &str, value: &Path, words: &[&str]) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let launch = Launch::executor(Stage::Pc1, dir.path())?.env(name, value);
    let output = launch.command()?.stdin(Stdio::null()).output()?;
    let log = launch.log().text()?;
    let code = output.status.code();
    ensure!(code == Some(ExitCode::Config as i32), "{name}={}: {code:?}: {log}", value.display());
    ensure!(output.stdout.is_empty(), "it says that it is ready");
    for word in words.iter().chain([&name]) {
        ensure!(log.contains(word), "{word:?} is not named: {log}");
    }
    Ok(())
}

#[test]
fn settings_that_cannot_work_stop_the_start() -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    let remedy = "name a directory that is there and can be written";
    refuses("SEAL_WORK_DIR", Path::new("/nonexistent"), &["/nonexistent", "No such file", remedy])?;
    refuses("SEAL_WORK_DIR", Path::new("/proc"), &["cannot create /proc", remedy])?;
    refuses("SEAL_WORK_DIR", file.path(), &["is not a directory", remedy])?;
    refuses("SEAL_PC1_SMT", Path::new("maybe"), &["it has to be 1 or 0"])?;
    refuses("SEAL_PC1_SMT", Path::new("2"), &["it has to be 1 or 0"])
}

#[test]
fn a_relative_runtime_directory_stops_the_start_of_every_executor() -> Result<()> {
    for stage in [Stage::Pc1, Stage::Pc2, Stage::C2] {
        let dir = tempfile::tempdir()?;
        let launch = Launch::executor(stage, dir.path())?.env("SEAL_RUNTIME_DIR", "run-rel");
        let output = launch.command()?.current_dir(dir.path()).stdin(Stdio::null()).output()?;
        let log = launch.log().text()?;
        ensure!(output.status.code() == Some(ExitCode::Config as i32), "{stage}: {log}");
        let absolute = format!("such as {}", dir.path().join("run-rel").display());
        for word in ["the runtime directory run-rel is not an absolute path", &absolute] {
            ensure!(log.contains(word), "{stage}: {word:?} is not named: {log}");
        }
        ensure!(output.stdout.is_empty() && !dir.path().join("run-rel").exists(), "{stage}");
    }
    Ok(())
}

#[test]
fn a_time_that_is_none_stops_the_start() -> Result<()> {
    refuses("SEAL_LOCK_WAIT", Path::new("soon"), &["it has to be a time"])
}

/// An executor and a sector of 8 MiB that takes it a moment.
fn labelling(dir: &Path, settings: &[(&str, &str)]) -> Result<(Launch, Sector)> {
    let mut launch = Launch::executor(Stage::Pc1, dir)?;
    for (name, value) in settings {
        launch = launch.env(name, value);
    }
    let sector = Sector::stage(&Vector::named("8MiB-v1_1-a")?, &dir.join("sector"))?;
    Ok((launch, sector))
}

/// The lines of the log with `words`, as they are read by programs.
fn lines(log: &Log, words: &[&str]) -> Result<Vec<Value>> {
    log.lines_with(words)?.iter().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

#[test]
fn settings_that_do_nothing_are_said() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let settings = [("SEAL_PC1_LANE", "2"), ("HUGEPAGE_FILES_PATH", "/nonexistent")];
    let (launch, sector) = labelling(dir.path(), &settings)?;
    let (mut pc1, log) = launch.serve(Stage::Pc1)?;
    pc1.call(&sector.pc1_task()?, PATIENCE)?;
    let warned = |words: &[&str]| -> Result<()> {
        let found = log.lines_with(&[&["WARN"], words].concat())?;
        ensure!(!found.is_empty(), "no warning with {words:?}: {}", log.text()?);
        Ok(())
    };
    warned(&["SEAL_PC1_LANE ", "did you mean SEAL_PC1_LANES?"])?;
    warned(&["no memory file of 8MiB", "/nonexistent/numa_", "pc1-exec hugepages --node"])?;
    // There is no limit, so none is told.
    let ready = lines(&log, &["pc1 processor ready"])?;
    ensure!(ready.len() == 1 && ready[0].get("concurrent").is_none(), "{ready:?}");
    Ok(())
}

#[test]
fn progress_tells_the_layer_the_rate_and_whose_it_is() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (launch, sector) = labelling(dir.path(), &[])?;
    let (mut pc1, log) = launch.serve(Stage::Pc1)?;
    pc1.call(&sector.pc1_task()?, PATIENCE)?;
    // No directory of the request has the name of a sector, so it is that of prover and number.
    let id = sector.vector.sector_id.0.to_string();
    let ends = lines(&log, &["\"message\":\"progress\"", "\"percent\":100"])?;
    for (part, total) in [
        ("layer 1 of 2", 1_u64 << 18),
        ("layer 2 of 2", 1 << 18),
        ("copy", 8 << 20),
        ("tree D", 1 << 18),
        ("parents cache", 1 << 18),
    ] {
        let line = ends.iter().find(|line| line["part"].as_str().is_some_and(|p| p == part));
        let line = line.with_context(|| format!("no line of {part:?}: {ends:#?}"))?;
        ensure!(line["done"] == total && line["total"] == total, "{line}");
        ensure!(line["eta_s"].as_f64() == Some(0.0), "{line}");
        ensure!(line["per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{line}");
        let whose = line["span"]["sector"].as_str().unwrap_or_default();
        ensure!(
            whose.starts_with("s-c00f0efb5163-") && whose.ends_with(&id),
            "whose progress is it? {line}"
        );
    }
    Ok(())
}

/// How often the process has the parents cache mapped.
fn maps_of_parents(pid: u32) -> Result<usize> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    Ok(maps.lines().filter(|line| line.ends_with(".cache")).count())
}

#[test]
fn tasks_of_a_process_share_one_map_of_the_parents() -> Result<()> {
    let dir = tempfile::tempdir()?;
    // Slow enough to be looked at.
    let settings = [("SEAL_FORCE_ISA", "portable"), ("SEAL_PC1_LANES", "4")];
    let (launch, first) = labelling(dir.path(), &settings)?;
    let second = Sector::stage(&Vector::named("8MiB-v1_1-cc")?, &dir.path().join("second"))?;
    let (mut pc1, log) = launch.serve(Stage::Pc1)?;
    pc1.call(&first.pc1_task()?, PATIENCE)?;
    ensure!(maps_of_parents(pc1.pid())? == 0, "mapped while nobody labels");
    first.clear()?;
    for sector in [&first, &second] {
        pc1.send(&sector.pc1_task()?)?;
    }
    let labelling = ["\"message\":\"labelling\""];
    until(PATIENCE, || Ok(log.lines_with(&labelling)?.len() == 3))?;
    let maps = maps_of_parents(pc1.pid())?;
    for _ in 0..2 {
        let answer = pc1.answer(PATIENCE)?;
        ensure!(answer.err_msg.is_none(), "{:?}", answer.err_msg);
    }
    ensure!(maps == 1, "two tasks have {maps} maps");
    Ok(())
}

/// The path of the mapped parents cache called `name`.
fn cache_of(pid: u32, name: &str) -> Result<PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let path = maps.lines().filter_map(|line| line.split_ascii_whitespace().nth(5));
    let found = path.map(PathBuf::from).find(|path| {
        path.file_stem().is_some_and(|stem| stem == name) && path.extension().is_some()
    });
    found.with_context(|| format!("{name} is not mapped: {maps}"))
}

#[test]
fn a_parents_cache_that_is_cut_fails_the_task_that_uses_it_and_no_other() -> Result<()> {
    let dir = tempfile::tempdir()?;
    // Slow enough to be cut in the middle.
    let settings = [("SEAL_FORCE_ISA", "portable"), ("SEAL_PC1_LANES", "4")];
    let (launch, cut) = labelling(dir.path(), &settings)?;
    let sound = Sector::stage(&Vector::named("8MiB-v1-b")?, &dir.path().join("sound"))?;
    let (mut pc1, log) = launch.serve(Stage::Pc1)?;
    // Both caches are made before.
    for sector in [&cut, &sound] {
        pc1.call(&sector.pc1_task()?, PATIENCE)?;
        sector.clear()?;
    }
    let (sent, mut sent_sound) = (pc1.send(&cut.pc1_task()?)?, None);
    let labelling = ["\"message\":\"labelling\""];
    until(PATIENCE, || Ok(log.lines_with(&labelling)?.len() == 3))?;
    let graph = seal_sdr::Graph::new(&cut.proof.porep());
    let path = cache_of(pc1.pid(), &graph.cache_name())?;
    fs::File::options().write(true).open(&path)?.set_len(4096)?;
    sent_sound.replace(pc1.send(&sound.pc1_task()?)?);

    let mut answers = [pc1.answer(PATIENCE)?, pc1.answer(PATIENCE)?];
    answers.sort_by_key(|answer| Some(answer.id) != Some(sent));
    let error = answers[0].err_msg.as_deref().context("its parents are gone")?;
    let told = format!("[io] parents cache: {} was cut from ", path.display());
    ensure!(error.starts_with(&told), "{error}");
    ensure!(error.contains(" to 4096 bytes while it was used"), "{error}");
    ensure!(Some(answers[1].id) == sent_sound, "two answers for one request");
    ensure!(answers[1].err_msg.is_none(), "{:?}", answers[1].err_msg);
    // Layers that were finished before the cut may be there; none of them is wrong.
    for (name, digest) in cut.files()? {
        let layer = name.starts_with("sc-02-data-layer");
        ensure!(!layer || digest == cut.vector.cache_files[&name], "{name} is wrong");
    }

    // The same process makes the cache again, and the sector is that of the vector.
    pc1.call(&cut.pc1_task()?, PATIENCE)?;
    for sector in [&cut, &sound] {
        let files = sector.files()?;
        for (name, digest) in &sector.vector.cache_files {
            let of_pc1 = name.starts_with("sc-02-data-layer");
            ensure!(!of_pc1 || files.get(name) == Some(digest), "{name} is wrong");
        }
    }
    ensure!(pc1.finish()?.success(), "it ends as usual: {}", log.text()?);
    Ok(())
}
