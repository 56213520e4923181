//! What the benchmarks of stages have in common.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use seal_types::RegisteredProof;
use serde_json::{Value, json};

use crate::cargo::{binary, cargo, root, target};
use crate::out::say;

/// Builds the published crates as a peer.
pub(crate) fn build_peer() -> Result<PathBuf> {
    let dir = target().join("peer");
    let manifest = root().join("benches/peer/Cargo.toml");
    let manifest = manifest.to_str().context("the repository's path is UTF-8")?;
    let build = ["build", "--release", "--manifest-path", manifest];
    cargo(&build, &[("CARGO_TARGET_DIR", dir.as_os_str())])
        .context("the peer needs libhwloc (Debian: libhwloc-dev)")?;
    Ok(dir.join("release/peer"))
}

/// Stages a sector full of client data as `dir`/staged. Returns its pieces.
pub(crate) fn stage_data(proof: RegisteredProof, dir: &Path) -> Result<Value> {
    let input = dir.join("input");
    crate::sector::write_input(&input, proof.sector_size().unpadded_bytes())?;
    let output = Command::new(binary("oracle"))
        .args(["add-piece", "--proof", &proof.to_string(), "--input"])
        .arg(&input)
        .arg("--staged")
        .arg(dir.join("staged"))
        .stderr(Stdio::null())
        .output()
        .context("cannot start oracle")?;
    ensure!(output.status.success(), "oracle add-piece failed");
    std::fs::remove_file(&input)?;
    let added: Value = serde_json::from_slice(&output.stdout)?;
    Ok(added["piece_infos"].clone())
}

/// Where parents caches of small graphs are kept.
pub(crate) fn parents() -> PathBuf {
    target().join("parents")
}

/// Makes the parents cache of `proof` unless it is there.
pub(crate) fn ensure_parents(proof: RegisteredProof) -> Result<()> {
    let status = Command::new(binary("pc1-exec"))
        .args(["parents", "--proof", &proof.to_string()])
        .env("FIL_PROOFS_PARENT_CACHE", parents())
        .stdout(Stdio::null())
        .status()
        .context("cannot start pc1-exec")?;
    ensure!(status.success(), "pc1-exec parents failed");
    Ok(())
}

/// The most memory the process ever had, in bytes.
pub(crate) fn peak_memory(pid: u32) -> Option<u64> {
    peak_of(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// The most memory that a text like `/proc/PID/status` tells of, in bytes.
pub(crate) fn peak_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// From "Layer n" to "storing labels" in the crates' log.
pub(crate) fn peer_layer_seconds(log: &str) -> Vec<f64> {
    let mut began = None;
    let mut layers = Vec::new();
    for line in log.lines() {
        let Some((at, text)) = line.split_once(' ') else { continue };
        let Ok(at) = at.parse::<f64>() else { continue };
        if text.trim_start().starts_with("Layer ") {
            began = Some(at);
        } else if text.contains("storing labels on disk")
            && let Some(began) = began.take()
        {
            layers.push((at - began) / 1000.0);
        }
    }
    layers
}

/// The serial chain of a label, measured on this machine just now.
#[derive(Clone, Copy, Debug, serde::Deserialize, serde::Serialize)]
pub(crate) struct Chain {
    /// Nanoseconds of one lane beside idle cores.
    pub(crate) chain_ns: f64,
    /// The same beside a busy core, as labelling runs, where there are two.
    pub(crate) chain_beside_busy_ns: Option<f64>,
    /// The clock of the core beside idle ones.
    pub(crate) clock_ghz: f64,
    /// And beside a busy one.
    pub(crate) clock_beside_busy_ghz: Option<f64>,
    /// Cycles of one lane for a block.
    pub(crate) chain_cycles_per_block: f64,
    /// Cycles of two lanes side by side for a block of each, halved.
    pub(crate) chain_x2_cycles_per_block: f64,
}

impl Chain {
    pub(crate) fn measure() -> Result<Self> {
        let output = Command::new(binary("labelling")).arg("--chain").output();
        let output = output.context("cannot start labelling")?;
        ensure!(output.status.success(), "labelling --chain failed: {}", output.status);
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// What labelling is compared with, in nanoseconds, and the clock it goes by.
    pub(crate) fn as_labelling_runs(&self) -> (f64, f64) {
        (
            self.chain_beside_busy_ns.unwrap_or(self.chain_ns),
            self.clock_beside_busy_ghz.unwrap_or(self.clock_ghz),
        )
    }
}

/// The middle one, or what lies between the two in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let (upper, lower) = (values.len() / 2, values.len().saturating_sub(1) / 2);
    Some(f64::midpoint(*values.get(lower)?, *values.get(upper)?))
}

/// Keeps `record` in `benches/runs` as `name` with the date, and with what describes the machine
/// and the command.
pub(crate) fn write_result(name: &str, mut record: Value) -> Result<()> {
    let text = |command: &str, arguments: &[&str]| -> String {
        let output = Command::new(command).args(arguments).current_dir(root()).output();
        output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
    };
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find(|line| line.starts_with("model name"));
    let cpu = cpu.and_then(|line| line.split(':').nth(1)).unwrap_or("unknown").trim().to_owned();
    let date = text("date", &["-u", "+%Y-%m-%dT%H-%M-%SZ"]);
    let machine = json!({
        "command": std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        "commit": text("git", &["rev-parse", "--short", "HEAD"]),
        "cpu": cpu, "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "physical_cores": physical_cores(),
        "kernel": text("uname", &["-r"]), "date": date,
    });
    if let (Value::Object(record), Value::Object(machine)) = (&mut record, machine) {
        record.extend(machine);
    }
    let dir = root().join("benches/runs");
    std::fs::create_dir_all(&dir)?;
    let file = dir.join(format!("{name}-{date}.json"));
    std::fs::write(&file, serde_json::to_string_pretty(&record)? + "\n")?;
    say(&format!("  kept in {}", file.display()));
    Ok(())
}

/// How many cores the hardware threads of this machine are; nothing where the kernel does not tell.
fn physical_cores() -> Option<usize> {
    let mut cores = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir("/sys/devices/system/cpu").ok()?.flatten() {
        let threads = entry.path().join("topology/thread_siblings_list");
        // Not every entry is a cpu, and one that is off has no siblings.
        cores.extend(std::fs::read_to_string(threads).ok());
    }
    (!cores.is_empty()).then_some(cores.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([3.0, 1.0, 2.0, 10.0].into_iter()), Some(2.5));
        assert_eq!(median([7.0].into_iter()), Some(7.0));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn layers_of_the_peer_are_timed_from_its_log() {
        let log = "5 Layer 1\n1505 >>   storing labels on disk\n1600 Layer 2\n4100   storing labels on disk";
        assert_eq!(peer_layer_seconds(log), [1.5, 2.5]);
    }

    #[test]
    fn cores_are_no_more_than_threads() {
        let threads = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let threads = threads.lines().filter(|line| line.starts_with("processor")).count();
        if let Some(cores) = physical_cores() {
            assert!((1..=threads).contains(&cores), "{cores} cores of {threads} threads");
        }
    }

    #[test]
    fn peak_memory_is_read_from_a_status() {
        assert_eq!(peak_of("VmPeak:\t 9 kB\nVmHWM:\t  123 kB\nx"), Some(123 << 10));
        assert_eq!(peak_of("VmPeak:\t 9 kB\n"), None);
    }
}
