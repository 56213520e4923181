//! The end in the middle of a task: of the input, of the reader of answers, by a signal.
//!
//! PC1 is held in its middle by a lock on the parents cache, which the published software takes
//! while it makes one: the moment is certain and nothing has to be timed.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use anyhow::Context;
use serde_json::json;
use test_support::launch::{test_params, until};
use test_support::sector::{has_part_of, lock_parents};
use test_support::skip::skipped;

use super::*;

const CASE: &str = "2KiB-v1_1-a";

/// Makes the parents cache of `sector` in `dir` and takes the lock that stops PC1 there.
fn hold_parents(sector: &Sector, dir: &Path) -> Result<File> {
    serve(Stage::Pc1, dir)?.0.call(&sector.pc1_task()?, PATIENCE)?;
    sector.clear()?;
    lock_parents(&dir.join("parents"))
}

/// Waits until `tasks` tasks wait for the lock, and `sector`'s tree D, which is made at the same
/// time, is there.
fn wait_until_held(log: &Log, tasks: usize, sector: &Sector) -> Result<()> {
    let words = ["waiting: another one makes the parents cache"];
    until(PATIENCE, || Ok(log.lines_with(&words)?.len() >= tasks))?;
    until(PATIENCE, || Ok(sector.cache().join(TREE_D).exists()))
}

/// What PC1 has made when it waits for the parents cache.
fn only_tree_d(sector: &Sector) -> Result<()> {
    ensure!(sector.names()? == [TREE_D], "{:?}", sector.names()?);
    Ok(())
}

#[test]
fn at_the_end_of_the_input_tasks_at_hand_are_finished_and_answered() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let sector = stage(CASE, dir.path())?;
    let held = hold_parents(&sector, dir.path())?;
    // One runs and one waits for its turn: both are at hand.
    let launch = Launch::executor(Stage::Pc1, dir.path())?.args(["--concurrent", "1"]);
    let (mut pc1, log) = launch.serve(Stage::Pc1)?;
    let second = stage("2KiB-v1-a", dir.path())?;
    let ids = [pc1.send(&sector.pc1_task()?)?, pc1.send(&second.pc1_task()?)?];
    wait_until_held(&log, 1, &sector)?;
    pc1.close_input();
    log.wait_for(&["end of input", "\"running\":1", "\"waiting\":1"], PATIENCE)?;
    held.unlock()?;

    for id in ids {
        let answer = pc1.answer(PATIENCE)?;
        ensure!(answer.id == id && answer.err_msg.is_none(), "{answer:?}");
    }
    let (lines, status) = pc1.ended(PATIENCE)?;
    ensure!(lines.is_empty() && status.success(), "{status}, {lines:?}");
    for sector in [sector, second] {
        ensure!(sector.files()? == expected_after_pc1(&sector.vector), "{}", sector.proof);
    }
    Ok(())
}

#[test]
fn when_nobody_reads_the_answers_the_process_ends() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let sector = stage(CASE, dir.path())?;
    let _held = hold_parents(&sector, dir.path())?;
    for input_stays_open in [true, false] {
        sector.clear()?;
        let launch = Launch::executor(Stage::Pc1, dir.path())?;
        let waiting = launch.log().lines_with(&["another one makes"])?.len();
        let mut command = launch.command()?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().expect("piped");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        ensure!(line == "pc1 processor ready\n", "{line}");
        stdin.write_all(
            format!("{}\n", json!({ "id": 1, "task": sector.pc1_task()? })).as_bytes(),
        )?;
        wait_until_held(&launch.log(), waiting + 1, &sector)?;

        drop(stdout);
        let stdin = input_stays_open.then_some(stdin);
        let mut status = None;
        until(PATIENCE, || {
            status = child.try_wait()?;
            Ok(status.is_some())
        })?;
        drop(stdin);
        ensure!(status.is_some_and(|status| !status.success()), "it ended with {status:?}");
        only_tree_d(&sector)?;
    }
    Ok(())
}

#[test]
fn told_to_end_it_answers_that_the_tasks_are_cancelled() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let sector = stage(CASE, dir.path())?;
    let held = hold_parents(&sector, dir.path())?;
    let launch = Launch::executor(Stage::Pc1, dir.path())?.args(["--concurrent", "1"]);
    let (mut pc1, log) = launch.serve(Stage::Pc1)?;
    let running = pc1.send(&sector.pc1_task()?)?;
    let waiting = pc1.send(&stage("2KiB-v1-a", dir.path())?.pc1_task()?)?;
    wait_until_held(&log, 1, &sector)?;
    pc1.terminate()?;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let answer = pc1.answer(PATIENCE)?;
        tells(&answer.err_msg.unwrap_or_default(), ErrorCode::Cancelled, &[])?;
        ids.push(answer.id);
    }
    ids.sort_unstable();
    ensure!(ids == [running, waiting], "{ids:?}");
    let (lines, status) = pc1.ended(PATIENCE)?;
    ensure!(lines.is_empty() && status.success(), "{status}, {lines:?}");
    only_tree_d(&sector)?;

    held.unlock()?;
    pc1_succeeds(&mut serve(Stage::Pc1, dir.path())?.0, &sector)?;
    Ok(())
}

#[test]
fn killed_while_it_makes_the_parents_it_leaves_none_that_could_be_taken_for_whole() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let sector = stage("8MiB-v1_1-a", dir.path())?;
    let (mut pc1, _) = serve(Stage::Pc1, dir.path())?;
    let parents = dir.path().join("parents");
    let names = || -> Result<Vec<String>> {
        let Ok(entries) = fs::read_dir(&parents) else { return Ok(Vec::new()) };
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    pc1.send(&sector.pc1_task()?)?;
    until(PATIENCE, || Ok(!names()?.is_empty()))?;
    pc1.kill()?;
    let left = names()?;
    ensure!(left.len() == 1 && left[0].starts_with('.') && left[0].ends_with(".part"), "{left:?}");
    // Tree D is made at the same time: it is whole, or it has no name.
    let mut files = sector.files()?;
    files.retain(|name, _| !name.starts_with('.') && name != "sealed");
    let whole = expected_after_pc1(&sector.vector);
    ensure!(files.iter().all(|(name, file)| whole.get(name) == Some(file)), "{files:#?}");
    ensure!(files.keys().all(|name| name == TREE_D), "{files:#?}");

    pc1_succeeds(&mut serve(Stage::Pc1, dir.path())?.0, &sector)?;
    ensure!(names()?.iter().all(|name| !name.ends_with(".part")), "{:?}", names()?);
    Ok(())
}

#[test]
fn pc2_told_to_end_leaves_the_data_and_runs_again() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (sector, pc1out) = after_pc1("8MiB-v1_1-a", dir.path())?;
    let (mut pc2, _) = serve(Stage::Pc2, dir.path())?;
    let sealed = dir.path().join("8MiB-v1_1-a/sealed");
    let id = pc2.send(&sector.pc2_task(&pc1out))?;
    until(PATIENCE, || has_part_of(&sealed))?;
    pc2.terminate()?;
    let answer = pc2.answer(PATIENCE)?;
    ensure!(answer.id == id, "{answer:?}");
    tells(&answer.err_msg.unwrap_or_default(), ErrorCode::Cancelled, &[])?;
    let (lines, status) = pc2.ended(PATIENCE)?;
    ensure!(lines.is_empty() && status.success(), "{status}, {lines:?}");
    ensure!(!has_part_of(&sealed)?, "a temporary is left behind");
    ensure!(sector.files()? == expected_after_pc1(&sector.vector), "{:#?}", sector.files()?);

    // At the end of the input it is finished instead.
    let (mut pc2, _) = serve(Stage::Pc2, dir.path())?;
    pc2.send(&sector.pc2_task(&pc1out))?;
    pc2.close_input();
    let answer = pc2.answer(PATIENCE)?;
    ensure!(answer.err_msg.is_none(), "{answer:?}");
    let (lines, status) = pc2.ended(PATIENCE)?;
    ensure!(lines.is_empty() && status.success(), "{status}, {lines:?}");
    let sealed = sector.files()?.remove("sealed");
    let expected = Some(sector.vector.sealed_sha256.clone());
    ensure!(sealed.map(|file| file.sha256) == expected, "the replica differs");
    Ok(())
}

#[test]
fn c2_told_to_end_stops_while_it_loads_and_while_it_proves() -> Result<()> {
    let params = match test_params() {
        Ok(params) => params,
        Err(reason) => {
            skipped("C2 told to end in the middle of a proof", &reason);
            return Ok(());
        }
    };
    for moment in ["checking the C1 output", "load parameters"] {
        let dir = tempfile::tempdir()?;
        let (mut c2, log) = Launch::executor(Stage::C2, dir.path())?
            .env("FIL_PROOFS_PARAMETER_CACHE", &params)
            .env("SEAL_ALLOW_TEST_PARAMS", "1")
            .serve(Stage::C2)?;
        let id = c2.send(&captured_c2_task()?)?;
        if moment == "load parameters" {
            log.wait_for(&[moment, "\"percent\":100"], PATIENCE)?;
            // In the middle of the proof, which takes many seconds of processor time.
            let loaded = processor_ticks(c2.pid())?;
            until(PATIENCE, || Ok(processor_ticks(c2.pid())? > loaded + 200))?;
        } else {
            log.wait_for(&[moment], PATIENCE)?;
        }
        c2.terminate()?;
        let answer = c2.answer(PATIENCE)?;
        ensure!(answer.id == id, "{answer:?}");
        // Stopped by itself: nothing is told of a grace that ran out.
        let told = answer.err_msg.unwrap_or_default();
        ensure!(told == format!("[{}] cancelled", ErrorCode::Cancelled), "{told}");
        let (lines, status) = c2.ended(PATIENCE)?;
        ensure!(lines.is_empty() && status.success(), "{status}, {lines:?}");
        ensure!(log.lines_with(&["partition proved"])?.is_empty(), "it went on to the end");
    }
    Ok(())
}

/// Processor time that a process has used, in hundredths of a second.
fn processor_ticks(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("a name in brackets")?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || -> Result<u64> { Ok(fields.next().context("two times")?.parse()?) };
    Ok(next()? + next()?)
}
