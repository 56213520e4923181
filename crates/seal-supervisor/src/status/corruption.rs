//! Wrong results that are on record on this machine, for people.

use std::path::Path;

use seal_host::KeptLines;
use seal_types::shown;
use seal_wire::{CORRUPTION_FILE, Corruption, cpus_left_out, devices_left_out};

use super::document::Machine;
use super::text::duration;

/// How many are told of one by one.
const SHOWN: usize = 5;

/// What is on record in `runtime_dir`, the oldest first.
pub(super) fn on_record(runtime_dir: &Path) -> Vec<Corruption> {
    Corruption::read_all(&KeptLines::at(&runtime_dir.join(CORRUPTION_FILE)).read())
}

/// Lines about them, the latest first; none where nothing is on record.
pub(crate) fn corruption_told(machine: &Machine) -> Vec<String> {
    let records = &machine.corruption;
    if records.is_empty() {
        return Vec::new();
    }
    let count = records.len();
    let mut lines =
        vec![format!("wrong results: {count} on record, see docs/corruption.md for what to test")];
    let left_out: Vec<_> = cpus_left_out(records).iter().map(u32::to_string).collect();
    if !left_out.is_empty() {
        lines.push(format!(
            "  nothing is labelled on cpu {} any more; when that is mended, remove {}",
            left_out.join(","),
            Path::new(&machine.runtime_dir).join(CORRUPTION_FILE).display()
        ));
    }
    for device in devices_left_out(records) {
        lines.push(format!(
            "  {} is not used by executors that start now; when it is mended, remove {}",
            shown(device),
            Path::new(&machine.runtime_dir).join(CORRUPTION_FILE).display()
        ));
    }
    for record in records.iter().rev().take(SHOWN) {
        let ago = duration(machine.at - record.at as f64);
        lines.push(format!("  {ago} ago  {}", shown(&record.to_string())));
    }
    lines
}

#[cfg(test)]
pub(crate) mod tests {
    use seal_wire::CorruptionKind;

    use super::*;

    /// A machine with a core that labels wrongly and a layer that has changed.
    pub(crate) fn corrupt() -> Machine {
        let found = |at, kind, what: &str| Corruption {
            at,
            stage: "pc1".to_owned(),
            sector: Some("s-t01000-1".to_owned()),
            ..Corruption::new(kind, what)
        };
        let label = |at| Corruption { cpu: Some(4), ..found(at, CorruptionKind::Label, "node 7") };
        let layer = found(980, CorruptionKind::Layer, "layer 3 has changed");
        let corruption = vec![label(940), label(950), layer];
        Machine { at: 1000.0, runtime_dir: "/run/x".to_owned(), corruption, ..Machine::default() }
    }

    #[test]
    fn wrong_results_are_told_with_the_core_that_is_left_out_and_what_to_do() {
        let expected = "\
wrong results: 3 on record, see docs/corruption.md for what to test
  nothing is labelled on cpu 4 any more; when that is mended, remove /run/x/corruption.jsonl
  20s ago  pc1 layer of sector s-t01000-1: layer 3 has changed
  50s ago  pc1 label of sector s-t01000-1 on cpu 4: node 7
  1m 00s ago  pc1 label of sector s-t01000-1 on cpu 4: node 7";
        assert_eq!(corruption_told(&corrupt()).join("\n"), expected);
        assert!(corruption_told(&Machine::default()).is_empty());
    }

    #[test]
    fn a_gpu_that_is_left_out_after_a_restart_is_told() {
        let wrong = Corruption {
            device: Some("A100 (GPU-7)".to_owned()),
            ..Corruption::new(CorruptionKind::Device, "row 3")
        };
        let corruption = vec![wrong.clone(), wrong];
        let machine =
            Machine { runtime_dir: "/run/x".to_owned(), corruption, ..Machine::default() };
        let told = corruption_told(&machine).join("\n");
        assert!(told.contains("A100 (GPU-7) is not used by executors that start now"), "{told}");
        assert!(told.contains("remove /run/x/corruption.jsonl"), "{told}");
    }

    #[test]
    fn what_the_file_has_is_read_and_no_file_is_no_fault() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert!(on_record(dir.path()).is_empty());
        let lines = KeptLines::at(&dir.path().join(CORRUPTION_FILE));
        let record = Corruption::new(CorruptionKind::Proof, "it does not verify");
        lines.add(&seal_wire::to_line(&record)).expect("writable");
        assert_eq!(on_record(dir.path()), [record]);
    }
}
