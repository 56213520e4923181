//! The real executors under the real supervisor, and what becomes of a task whose executor is
//! killed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use seal_types::Stage;
use seal_wire::{EVENTS, Event, RawResponse, Started};
use serde_json::Value;
use test_support::client::Processor;
use test_support::launch::{Launch, Log, until};
use test_support::sector::{Sector, has_part_of, lock_parents};
use test_support::vector::{FileDigest, Vector};

const PATIENCE: Duration = Duration::from_secs(120);

/// Executors of PC1 and PC2 whose tasks exclude each other, on this machine and in all of its
/// supervisors.
const SHARED: &str = r#"
[processors.limitation.concurrent]
pc1 = 1
pc2 = 1

[processors.ext_locks]
disk = 1

[[processors.pc1]]
locks = ["disk"]

[[processors.pc2]]
locks = ["disk"]

# The deaths are told, so that they can be looked at.
[supervisor.pc1]
retry = 0
"#;

fn supervise(stage: Stage, dir: &Path) -> Result<(Processor, Log)> {
    Launch::supervisor(stage, SHARED, dir)?.serve(stage)
}

fn stage(name: &str, dir: &Path) -> Result<Sector> {
    Sector::stage(&Vector::named(name)?, &dir.join(name))
}

/// The process ids of a process's children.
fn children(parent: u32) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may have ended since the directory was read.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let (_, fields) = stat.rsplit_once(')').context("a name in brackets")?;
        if fields.split_whitespace().nth(1) == Some(&parent.to_string()) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// The only executor of a supervisor.
fn executor(supervisor: &Processor) -> Result<i32> {
    let pids = children(supervisor.pid())?;
    ensure!(pids.len() == 1, "one executor: {pids:?}");
    Ok(pids[0])
}

fn kill_executor(supervisor: &Processor) -> Result<i32> {
    let pid = executor(supervisor)?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    Ok(pid)
}

/// The next answer must be that the executor of request `id` died.
fn tells_the_death(supervisor: &mut Processor, id: u64, pid: i32) -> Result<()> {
    let answer = supervisor.answer(PATIENCE)?;
    let error = answer.err_msg.unwrap_or_default();
    ensure!(answer.id == id, "{} was answered instead of {id}: {error}", answer.id);
    ensure!(error.starts_with("[executor-died] "), "{error}");
    for words in [&pid.to_string(), "SIGKILL", "can be sent again"] {
        ensure!(error.contains(words), "{words} is not named: {error}");
    }
    Ok(())
}

/// The next answer must be the output of request `id`.
fn output(supervisor: &mut Processor, id: u64) -> Result<Value> {
    let answer = supervisor.answer(PATIENCE)?;
    ensure!(answer.id == id && answer.err_msg.is_none(), "{answer:?}");
    Ok(serde_json::from_str(answer.output.context("an output")?.get())?)
}

fn ends_well(supervisor: Processor) -> Result<()> {
    let (lines, status) = supervisor.ended_by_input(PATIENCE)?;
    ensure!(lines.is_empty() && status.success(), "{status}, {lines:?}");
    Ok(())
}

/// What a sector's files must be: after PC1 without those that only PC2 makes.
fn expected(vector: &Vector, after: Stage) -> BTreeMap<String, FileDigest> {
    let mut files = vector.cache_files.clone();
    let sealed = if after == Stage::Pc1 {
        files.retain(|name, _| name.contains("layer") || name.contains("tree-d"));
        vector.staged_sha256.clone()
    } else {
        vector.sealed_sha256.clone()
    };
    files.insert("sealed".to_owned(), FileDigest { bytes: vector.sector_size, sha256: sealed });
    files
}

fn is_sealed(sector: &Sector, after: Stage) -> Result<()> {
    let mut files = sector.files()?;
    files.remove("t_aux");
    let expected = expected(&sector.vector, after);
    ensure!(files == expected, "{files:#?} is not {expected:#?}");
    Ok(())
}

#[test]
fn sectors_pass_through_supervised_executors() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut pc1, _) = supervise(Stage::Pc1, dir.path())?;
    let (mut pc2, _) = supervise(Stage::Pc2, dir.path())?;
    let mut labelling = Vec::new();
    for name in ["2KiB-v1-a", "2KiB-v1_1-a", "2KiB-v1_1-cc"] {
        let sector = stage(name, dir.path())?;
        labelling.push((pc1.send(&sector.pc1_task()?)?, sector));
    }
    // PC2 of one sector while the next one is labelled: the lock makes them take turns.
    for (id, sector) in &labelling {
        let pc1out = output(&mut pc1, *id)?;
        is_sealed(sector, Stage::Pc1)?;
        pc2.call(&sector.pc2_task(&pc1out), PATIENCE)?;
        is_sealed(sector, Stage::Pc2)?;
    }
    ends_well(pc1)?;
    ends_well(pc2)
}

#[test]
fn a_task_that_fails_is_logged_once_with_and_without_a_supervisor() -> Result<()> {
    const NOTHING: &str = "/no/such/staged-file";
    let dir = tempfile::tempdir()?;
    let sector = stage("2KiB-v1_1-a", dir.path())?;
    let mut task = sector.pc1_task()?;
    task["in_path"] = NOTHING.into();
    let alone = Launch::executor(Stage::Pc1, dir.path())?.serve(Stage::Pc1)?;
    for (mut processor, log) in [alone, supervise(Stage::Pc1, dir.path())?] {
        let error = processor.call_failing(&task, PATIENCE)?;
        ensure!(error.contains(NOTHING), "{error}");
        ends_well(processor)?;
        let told = log.lines_with(&[NOTHING])?;
        ensure!(told.len() == 1, "{told:#?}");
    }
    Ok(())
}

#[test]
fn an_executor_tells_how_far_it_is_if_its_parent_asks_and_only_then() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let sector = stage("2KiB-v1_1-a", dir.path())?;
    for asked in [false, true] {
        sector.clear()?;
        let mut launch = Launch::executor(Stage::Pc1, dir.path())?;
        if asked {
            launch = launch.env(EVENTS, "1");
        }
        let (mut pc1, _) = launch.serve(Stage::Pc1)?;
        let id = pc1.send(&sector.pc1_task()?)?;
        let (lines, _) = pc1.ended_by_input(PATIENCE)?;
        let (answer, events) = lines.split_last().context("an answer")?;
        ensure!(RawResponse::parse(answer.as_bytes())?.id == id, "{answer}");
        ensure!(asked || events.is_empty(), "{events:?}");
        let events = events.iter().map(|line| Event::parse(line.as_bytes()));
        let mut events = events.collect::<Result<Vec<_>, _>>()?.into_iter();
        if asked {
            // No directory names it, and its prover id is no miner's number.
            let prover = sector.vector.prover_id()?.to_string();
            let sector = format!("s-{}-{}", &prover[..12], sector.vector.sector_id);
            // PC1 has no choice of devices.
            let started = Started { id, sector, device: None };
            ensure!(events.next() == Some(Event::Started(started)));
            let layer = |event: &Event| {
                matches!(event, Event::Progress(it)
                if it.id == id && it.part.contains("layer") && it.done == it.total)
            };
            ensure!(events.as_slice().iter().any(layer), "{events:?}");
        }
    }
    Ok(())
}

#[test]
fn a_killed_executor_is_answered_for_and_replaced_and_its_locks_are_free() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (victim, next) = (stage("2KiB-v1_1-a", dir.path())?, stage("2KiB-v1_1-cc", dir.path())?);
    let (mut pc1, log) = supervise(Stage::Pc1, dir.path())?;
    let (mut pc2, _) = supervise(Stage::Pc2, dir.path())?;

    // PC1 waits in its middle for whoever makes its parents cache.
    pc1.call(&victim.pc1_task()?, PATIENCE)?;
    victim.clear()?;
    let making = lock_parents(&dir.path().join("parents"))?;
    let ids = [pc1.send(&victim.pc1_task()?)?, pc1.send(&next.pc1_task()?)?];
    log.wait_for(&["waiting: another one makes the parents cache"], PATIENCE)?;
    // Tree D is made at the same time.
    until(PATIENCE, || Ok(victim.cache().join("sc-02-data-tree-d.dat").exists()))?;

    let killed = kill_executor(&pc1)?;
    tells_the_death(&mut pc1, ids[0], killed)?;
    ensure!(victim.names()? == ["sc-02-data-tree-d.dat"], "{:?}", victim.names()?);
    making.unlock()?;

    // The one that waited runs in a new process; so does the first when it is sent again.
    output(&mut pc1, ids[1])?;
    is_sealed(&next, Stage::Pc1)?;
    ensure!(executor(&pc1)? != killed, "the executor is still {killed}");
    let pc1out = pc1.call(&victim.pc1_task()?, PATIENCE)?;
    is_sealed(&victim, Stage::Pc1)?;

    // The dead one's lock is free for the other supervisor.
    pc2.call(&victim.pc2_task(&pc1out), PATIENCE)?;
    is_sealed(&victim, Stage::Pc2)?;
    ends_well(pc1)?;
    ends_well(pc2)
}

#[test]
fn executors_killed_while_they_write_leave_nothing_that_could_be_taken_for_whole() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let sector = stage("8MiB-v1_1-a", dir.path())?;
    // Slow labels: the second layer takes long after the first one is there.
    let (mut pc1, _) = Launch::supervisor(Stage::Pc1, SHARED, dir.path())?
        .env("SEAL_FORCE_ISA", "portable")
        .serve(Stage::Pc1)?;
    let (mut pc2, _) = supervise(Stage::Pc2, dir.path())?;

    let id = pc1.send(&sector.pc1_task()?)?;
    let (layer_1, layer_2) = ("sc-02-data-layer-1.dat", "sc-02-data-layer-2.dat");
    until(PATIENCE, || Ok(sector.cache().join(layer_1).exists()))?;
    let killed = kill_executor(&pc1)?;
    tells_the_death(&mut pc1, id, killed)?;
    let mut files = finished(&sector)?;
    ensure!(files.remove(layer_2).is_none(), "it was killed while it labelled layer 2");
    let mut whole = expected(&sector.vector, Stage::Pc1);
    whole.remove(layer_2);
    ensure!(files == whole, "{files:#?} is not {whole:#?}");
    let pc1out = pc1.call(&sector.pc1_task()?, PATIENCE)?;
    is_sealed(&sector, Stage::Pc1)?;

    // The replica is written within milliseconds. Where it was whole before the executor was
    // stopped, the data comes back, and another task is tried.
    let inode = || -> Result<u64> { Ok(fs::metadata(sector.sealed())?.ino()) };
    let mut tries = 0;
    loop {
        let data = inode()?;
        let id = pc2.send(&sector.pc2_task(&pc1out))?;
        until(PATIENCE, || Ok(has_part_of(&sector.sealed())? || inode()? != data))?;
        let pid = executor(&pc2)?;
        kill(Pid::from_raw(pid), Signal::SIGSTOP)?;
        if has_part_of(&sector.sealed())? {
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
            tells_the_death(&mut pc2, id, pid)?;
            break;
        }
        kill(Pid::from_raw(pid), Signal::SIGCONT)?;
        output(&mut pc2, id)?;
        tries += 1;
        ensure!(tries < 50, "never stopped in the middle");
        sector.clear()?;
        pc1.call(&sector.pc1_task()?, PATIENCE)?;
    }
    let files = finished(&sector)?;
    let whole = expected(&sector.vector, Stage::Pc1);
    ensure!(files == whole, "{files:#?} is not {whole:#?}");
    pc2.call(&sector.pc2_task(&pc1out), PATIENCE)?;
    is_sealed(&sector, Stage::Pc2)?;
    ends_well(pc1)?;
    ends_well(pc2)
}

/// The files that have their own names.
fn finished(sector: &Sector) -> Result<BTreeMap<String, FileDigest>> {
    let mut files = sector.files()?;
    files.retain(|name, _| !(name.starts_with('.') && name.ends_with(".part")));
    Ok(files)
}
