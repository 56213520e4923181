//! Small limits of threads, files and memory: one task fails with a clear error that can be tried
//! again, and the executor lives on and does the next.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seal_types::Stage;
use test_support::client::Processor;
use test_support::group::Group;
use test_support::launch::{Launch, Log};
use test_support::sector::Sector;
use test_support::skip::skipped;
use test_support::vector::Vector;

const PATIENCE: Duration = Duration::from_secs(120);

/// Sets a limit of a running process, by prlimit(1).
fn prlimit(pid: u32, limit: &str) -> Result<bool> {
    let Ok(done) = Command::new("prlimit").args(["--pid", &pid.to_string(), limit]).status() else {
        return Ok(false);
    };
    ensure!(done.success(), "prlimit {limit}: {done}");
    Ok(true)
}

/// The address space of a process, in bytes.
fn address_space(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).context("its size")?;
    let kib = line.split_whitespace().next().context("a number")?;
    Ok(kib.parse::<u64>()? << 10)
}

/// Asks executors that may take ever more memory than they have. Each answers, whatever it is that
/// cannot be had, and does the task when it may take what it needs. Returns how many could not.
fn with_little_memory(
    start: impl Fn() -> Result<(Processor, Log)>,
    task: &serde_json::Value,
) -> Result<usize> {
    let mut failed = 0;
    for kib in [0, 16, 64, 256, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288] {
        let (mut process, log) = start()?;
        let ended = || format!("{kib} KiB more; its log: {}", log.text().unwrap_or_default());
        // What starts with the first task is there then: a thread that finds no memory for its signal
        // stack ends the process, which the standard library does.
        process.call(task, PATIENCE).with_context(ended)?;
        let most = address_space(process.pid())? + (kib << 10);
        prlimit(process.pid(), &format!("--as={most}:unlimited"))?;
        process.send(task)?;
        let answer = process.answer(PATIENCE).with_context(ended)?;
        if let Some(error) = answer.err_msg {
            ensure!(error.starts_with("[unavailable]"), "{kib} KiB more: {error}");
            failed += 1;
        }
        prlimit(process.pid(), "--as=unlimited")?;
        process.call(task, PATIENCE).with_context(ended)?;
        ensure!(process.finish()?.success());
    }
    Ok(failed)
}

#[test]
fn memory_that_cannot_be_had_fails_one_task_and_not_the_executor() -> Result<()> {
    if Command::new("prlimit").arg("--version").output().is_err() {
        skipped("memory_that_cannot_be_had_fails_one_task", "there is no prlimit");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let sector = sector("2KiB-v1_1-a", dir.path())?;
    let pc1out = executor(Stage::Pc1, dir.path())?.call(&sector.pc1_task()?, PATIENCE)?;
    for (stage, task) in [(Stage::Pc1, sector.pc1_task()?), (Stage::Pc2, sector.pc2_task(&pc1out))]
    {
        let failed = with_little_memory(|| executor_with_log(stage, dir.path()), &task)?;
        ensure!(failed > 3, "{stage}: only {failed} could not have what they need");
    }
    Ok(())
}

fn sector(vector: &str, dir: &Path) -> Result<Sector> {
    Sector::stage(&Vector::named(vector)?, &dir.join("sector"))
}

fn executor(stage: Stage, dir: &Path) -> Result<Processor> {
    Ok(executor_with_log(stage, dir)?.0)
}

fn executor_with_log(stage: Stage, dir: &Path) -> Result<(Processor, Log)> {
    let own = dir.join(stage.executor());
    fs::create_dir_all(&own)?;
    Launch::executor(stage, &own)?
        .env("SEAL_RUNTIME_DIR", dir.join("run"))
        .env("FIL_PROOFS_PARENT_CACHE", dir.join("parents"))
        .serve(stage)
}

#[test]
fn a_limit_on_the_size_of_files_fails_one_task_and_names_file_and_limit() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let sector = sector("8MiB-v1_1-a", dir.path())?;
    let mut pc1 = executor(Stage::Pc1, dir.path())?;
    if !prlimit(pc1.pid(), "--fsize=1048576:unlimited")? {
        skipped("a_limit_on_the_size_of_files_fails_one_task", "there is no prlimit");
        return Ok(());
    }
    let is_told = |error: &str| {
        ensure!(error.starts_with("[io]"), "{error}");
        ensure!(error.contains("may write files of at most 1048576 bytes"), "{error}");
        ensure!(error.contains(dir.path().to_string_lossy().as_ref()), "{error}");
        Ok(())
    };
    is_told(&pc1.call_failing(&sector.pc1_task()?, PATIENCE)?)?;
    prlimit(pc1.pid(), "--fsize=unlimited")?;
    let pc1out = pc1.call(&sector.pc1_task()?, PATIENCE)?;
    ensure!(pc1.finish()?.success());

    let mut pc2 = executor(Stage::Pc2, dir.path())?;
    prlimit(pc2.pid(), "--fsize=1048576:unlimited")?;
    is_told(&pc2.call_failing(&sector.pc2_task(&pc1out), PATIENCE)?)?;
    prlimit(pc2.pid(), "--fsize=unlimited")?;
    pc2.call(&sector.pc2_task(&pc1out), PATIENCE)?;
    ensure!(pc2.finish()?.success());
    Ok(())
}

/// Asks with ever more threads to be had: each task is answered once, and one that could have no
/// thread may be tried again. Returns the output of the last one, without a limit.
fn with_few_threads(
    process: &mut Processor,
    task: &serde_json::Value,
    group: Option<&Group>,
) -> Result<serde_json::Value> {
    let pid = process.pid();
    if let Some(group) = group {
        group.write("cgroup.procs", &pid.to_string())?;
    }
    let mut failed = 0;
    for more in [0, 1, 2, 3, 4, 6, 8, 12] {
        match group {
            Some(group) => {
                group.write("pids.max", &(group.number("pids.current")? + more).to_string())?;
            }
            // One is fewer than the process has already.
            None => ensure!(prlimit(pid, "--nproc=1:unlimited")?),
        }
        process.send(task)?;
        let answer = process.answer(PATIENCE)?;
        if let Some(error) = answer.err_msg {
            ensure!(error.starts_with("[unavailable]"), "{more} more threads: {error}");
            ensure!(error.contains("thread"), "{more} more threads: {error}");
            failed += 1;
        }
        ensure!(process.is_running()?, "it has ended with {more} more threads");
    }
    ensure!(failed > 0, "the limit was none");
    match group {
        Some(group) => group.write("pids.max", "max")?,
        None => ensure!(prlimit(pid, "--nproc=unlimited")?),
    }
    process.call(task, PATIENCE)
}

#[test]
fn a_thread_that_cannot_be_started_fails_one_task_and_not_the_executor() -> Result<()> {
    let name = "a_thread_that_cannot_be_started_fails_one_task_and_not_the_executor";
    // The kernel does not hold root to RLIMIT_NPROC.
    let group = match nix::unistd::geteuid().is_root() {
        true => match Group::of("pids", "threads") {
            Some(group) => Some(group),
            None => {
                skipped(name, "no cgroup of version 1 with a limit of pids can be made");
                return Ok(());
            }
        },
        false => None,
    };
    if Command::new("prlimit").arg("--version").output().is_err() {
        skipped(name, "there is no prlimit");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let sector = sector("2KiB-v1_1-a", dir.path())?;
    let mut pc1 = executor(Stage::Pc1, dir.path())?;
    let pc1out = with_few_threads(&mut pc1, &sector.pc1_task()?, group.as_ref())?;
    ensure!(pc1.finish()?.success());
    let mut pc2 = executor(Stage::Pc2, dir.path())?;
    with_few_threads(&mut pc2, &sector.pc2_task(&pc1out), group.as_ref())?;
    ensure!(pc2.finish()?.success());
    Ok(())
}

#[test]
fn memory_that_a_cgroup_does_not_allow_is_refused_with_its_name_and_limit() -> Result<()> {
    let Some(group) = Group::of("memory", "memory") else {
        skipped(
            "memory_that_a_cgroup_does_not_allow_is_refused_with_its_name_and_limit",
            "no cgroup of version 1 with a limit of memory can be made",
        );
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    // The parents cache is made and read with the first, before there is a limit.
    let first = sector("8MiB-v1_1-cc", &dir.path().join("first"))?;
    let mut pc1 = executor(Stage::Pc1, dir.path())?;
    pc1.call(&first.pc1_task()?, PATIENCE)?;
    let sector = sector("8MiB-v1_1-cc", dir.path())?;
    // Two layers take 16 MiB, and 16 MiB are left alone.
    group.write("memory.limit_in_bytes", &(30 << 20).to_string())?;
    group.write("cgroup.procs", &pc1.pid().to_string())?;
    let error = pc1.call_failing(&sector.pc1_task()?, PATIENCE)?;
    let named = group.name();
    ensure!(error.starts_with("[unavailable] cgroup /"), "{error}");
    ensure!(error.contains(&format!("{named} (limit 30 MiB) has too little memory")), "{error}");
    group.write("memory.limit_in_bytes", &(1 << 30).to_string())?;
    pc1.call(&sector.pc1_task()?, PATIENCE)?;
    ensure!(pc1.finish()?.success());
    Ok(())
}
