//! PC1 in processes that may use the same cpus: each unit works for one of them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use seal_host::{MemoryTurns, NodeId, RuntimeDir};
use seal_types::{CpuSet, Stage};
use serde_json::Value;
use test_support::client::Processor;
use test_support::launch::{Launch, Log, until};
use test_support::sector::Sector;
use test_support::skip::skipped;
use test_support::vector::Vector;

const PATIENCE: Duration = Duration::from_secs(120);

/// The first two cpus that this process may use.
fn two_cpus() -> Result<Option<CpuSet>> {
    let two: CpuSet = allowed()?.iter().take(2).collect();
    Ok((two.len() == 2).then_some(two))
}

/// The cpus that this process may use.
fn allowed() -> Result<CpuSet> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    Ok(CpuSet::from_kernel(list.context("status names the cpus")?.trim())?)
}

/// An executor on `cpus`, a unit of one sector on each of them.
struct Labeller {
    process: Processor,
    log: Log,
    sector: Sector,
}

impl Labeller {
    fn start(name: &str, cpus: &CpuSet, dir: &Path) -> Result<Self> {
        let own = dir.join(name);
        let sector = Sector::stage(&Vector::named("8MiB-v1_1-a")?, &own)?;
        let (process, log) = Launch::executor(Stage::Pc1, &own)?
            .env("SEAL_RUNTIME_DIR", dir.join("run"))
            .env("FIL_PROOFS_PARENT_CACHE", dir.join("parents"))
            .env("VC_CG_CPUSET", cpus.to_string())
            .env("FIL_PROOFS_MULTICORE_SDR_PRODUCERS", "0")
            .env("SEAL_PC1_LANES", "1")
            .env("SEAL_PC1_SMT", "1")
            // Slow enough to be stopped in its middle.
            .env("SEAL_FORCE_ISA", "portable")
            .serve(Stage::Pc1)?;
        Ok(Self { process, log, sector })
    }

    fn begin(&mut self) -> Result<()> {
        self.process.send(&self.sector.pc1_task()?)?;
        Ok(())
    }

    /// The cpu on which it labels, as soon as it does.
    fn cpu(&self) -> Result<u64> {
        self.log.wait_for(&["\"message\":\"labelling\""], PATIENCE)?;
        let lines = self.log.lines_with(&["\"message\":\"labelling\""])?;
        let line: Value = serde_json::from_str(lines.last().context("a line")?)?;
        line["consumer"].as_u64().with_context(|| format!("the cpu in {line}"))
    }

    /// Waits until it has all of its memory, which others may take then.
    fn has_memory(&self) -> Result<()> {
        until(PATIENCE, || Ok(self.log.lines_with(&["\"memory for a layer\""])?.len() == 2))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.process.pid())?), signal)?)
    }

    fn finishes(mut self) -> Result<()> {
        let answer = self.process.answer(PATIENCE)?;
        ensure!(answer.err_msg.is_none(), "{:?}", answer.err_msg);
        let layer = "sc-02-data-layer-2.dat";
        let (files, expected) = (self.sector.files()?, &self.sector.vector.cache_files);
        ensure!(files.get(layer) == expected.get(layer), "the last layer differs");
        ensure!(self.process.finish()?.success());
        Ok(())
    }
}

#[test]
fn processes_without_cpusets_of_their_own_label_on_different_units() -> Result<()> {
    let Some(cpus) = two_cpus()? else {
        skipped(
            "processes_without_cpusets_of_their_own_label_on_different_units",
            "it takes two cpus",
        );
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    let start = |name| Labeller::start(name, &cpus, dir.path());
    let (mut one, mut other, mut third) = (start("one")?, start("other")?, start("third")?);

    // Stopped while it labels, a process keeps its unit.
    one.begin()?;
    let first = one.cpu()?;
    one.has_memory()?;
    one.signal(Signal::SIGSTOP)?;
    other.begin()?;
    let second = other.cpu()?;
    other.has_memory()?;
    other.signal(Signal::SIGSTOP)?;
    ensure!(first != second, "both label on cpu {first}");
    let both: CpuSet = [first, second].into_iter().filter_map(|cpu| cpu.try_into().ok()).collect();
    ensure!(both == cpus, "they label on {both} and not on {cpus}");

    third.begin()?;
    third.log.wait_for(&["2 of 2 units are claimed by other processes"], PATIENCE)?;
    ensure!(third.log.lines_with(&["\"message\":\"labelling\""])?.is_empty(), "it labels");
    // The kernel gives up what a dead process had claimed.
    one.process.kill()?;
    ensure!(third.cpu()? == first, "the unit of the dead one is free");
    other.signal(Signal::SIGCONT)?;
    third.finishes()?;
    other.finishes()
}

/// This process and an executor: what the one is about to take is not promised to the other.
#[test]
fn memory_that_another_process_is_taking_is_waited_for() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let turns = MemoryTurns::in_dir(&RuntimeDir::open(&dir.path().join("run"))?);
    let nodes: Vec<_> = (0..64).map(NodeId).collect();
    let turn = turns.try_take(&nodes)?.context("nobody else is there")?;
    let mut executor = Labeller::start("one", &allowed()?, dir.path())?;
    executor.begin()?;
    executor.log.wait_for(&["waiting: for memory: another process is taking some"], PATIENCE)?;
    ensure!(executor.log.lines_with(&["memory for a layer"])?.is_empty(), "it takes memory");
    drop(turn);
    executor.cpu()?;
    // It gives its own turn up as soon as it has all of its memory, long before it is done.
    executor.has_memory()?;
    ensure!(turns.try_take(&nodes)?.is_some(), "it keeps its turn");
    ensure!(executor.log.lines_with(&["\"layer labelled\""])?.is_empty(), "it kept its turn");
    executor.finishes()
}
