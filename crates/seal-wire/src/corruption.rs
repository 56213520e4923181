//! What a machine remembers of results that were wrong: one line of JSON for each, in a file of the
//! runtime directory.
//!
//! The file is written by whoever found the fault, so that no supervisor is needed for it, and it
//! outlives both. Status, metrics, planner and support bundle read it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use seal_types::shown;
use serde::{Deserialize, Serialize};

/// The file in the runtime directory. Whoever removes it has all cores and GPUs taken in again.
pub const CORRUPTION_FILE: &str = "corruption.jsonl";

/// So many wrong labels take a core out, and so many wrong results a GPU. One may be a particle from
/// the sky; a second one at the same core or GPU is no accident.
pub const LEAVES_OUT_AFTER: usize = 2;

/// What was found to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CorruptionKind {
    /// A label is not what its parents make it.
    Label,
    /// A finished layer has another digest than its manifest.
    Layer,
    /// A parents cache does not hold what its graph has.
    Parents,
    /// A node of a tree or of the replica is not what it is computed from.
    Node,
    /// A proof does not verify although its inputs do.
    Proof,
    /// A GPU has computed wrongly; nothing of it was put in place.
    Device,
    /// The kernel reports a page of memory that is broken.
    Memory,
    /// Something this reader does not know.
    #[serde(other)]
    Unknown,
}

impl CorruptionKind {
    /// Those that executors record.
    pub const ALL: [Self; 7] = [
        Self::Label,
        Self::Layer,
        Self::Parents,
        Self::Node,
        Self::Proof,
        Self::Device,
        Self::Memory,
    ];

    /// The word that stands for it in records and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::Layer => "layer",
            Self::Parents => "parents",
            Self::Node => "node",
            Self::Proof => "proof",
            Self::Device => "device",
            Self::Memory => "memory",
            Self::Unknown => "unknown",
        }
    }
}

/// One wrong result, with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Corruption {
    /// When it was found, in seconds since 1970.
    #[serde(default)]
    pub at: u64,
    /// The stage that found it.
    #[serde(default)]
    pub stage: String,
    /// What it is.
    pub kind: CorruptionKind,
    /// The sector as everybody names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sector: Option<String>,
    /// The layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<u32>,
    /// The node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u64>,
    /// The file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Where the file was put aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    /// The cpu that computed it, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// The cpus that had a part in it, as a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<String>,
    /// What else it was computed on: a GPU by model and UUID, or the processor and its kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What was seen, for people.
    #[serde(default)]
    pub what: String,
}

impl Corruption {
    /// A wrong result of this kind, described for people by `what`; the rest is not known yet.
    pub fn new(kind: CorruptionKind, what: impl fmt::Display) -> Self {
        Self {
            at: 0,
            stage: String::new(),
            kind,
            sector: None,
            layer: None,
            node: None,
            path: None,
            kept: None,
            cpu: None,
            cpus: None,
            device: None,
            what: shown(&what.to_string()).into_owned(),
        }
    }

    /// All records in the lines of a file. What is no record, such as a line that was cut when its
    /// writer was killed, is left out.
    pub fn read_all(lines: &[u8]) -> Vec<Self> {
        let lines = lines.split(|byte| *byte == b'\n');
        lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    /// What it was computed on: `cpu 4`, the name of a GPU, or nothing.
    pub fn on(&self) -> String {
        match (&self.cpu, &self.device) {
            (Some(cpu), _) => format!("cpu {cpu}"),
            (None, Some(device)) => device.clone(),
            (None, None) => String::new(),
        }
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.stage, self.kind.name())?;
        if let Some(sector) = &self.sector {
            write!(f, " of sector {sector}")?;
        }
        if !self.on().is_empty() {
            write!(f, " on {}", self.on())?;
        }
        write!(f, ": {}", self.what)?;
        if let Some(kept) = &self.kept {
            write!(f, "; the file was kept as {kept}")?;
        }
        Ok(())
    }
}

/// How many wrong labels are known of each cpu that labels.
pub fn wrong_labels(records: &[Corruption]) -> BTreeMap<u32, usize> {
    let mut counts = BTreeMap::new();
    let labels = records.iter().filter(|record| record.kind == CorruptionKind::Label);
    for cpu in labels.filter_map(|record| record.cpu) {
        *counts.entry(cpu).or_default() += 1;
    }
    counts
}

/// The cpus on which nothing is labelled any more.
pub fn cpus_left_out(records: &[Corruption]) -> BTreeSet<u32> {
    let counts = wrong_labels(records).into_iter();
    counts.filter(|(_, count)| *count >= LEAVES_OUT_AFTER).map(|(cpu, _)| cpu).collect()
}

/// What of each GPU is on record that computed wrongly, the oldest first.
pub fn wrong_devices(records: &[Corruption]) -> BTreeMap<&str, Vec<&Corruption>> {
    let mut wrong: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.kind == CorruptionKind::Device) {
        if let Some(device) = &record.device {
            wrong.entry(&**device).or_default().push(record);
        }
    }
    wrong
}

/// The GPUs that no executor uses which is started now.
pub fn devices_left_out(records: &[Corruption]) -> BTreeSet<&str> {
    let wrong = wrong_devices(records).into_iter();
    wrong.filter(|(_, found)| found.len() >= LEAVES_OUT_AFTER).map(|(device, _)| device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::to_line;

    fn label(cpu: u32) -> Corruption {
        Corruption { cpu: Some(cpu), ..Corruption::new(CorruptionKind::Label, "wrong") }
    }

    #[test]
    fn a_core_is_left_out_by_its_second_wrong_label_and_no_other_is() {
        let mut records = vec![label(4), label(6)];
        assert!(cpus_left_out(&records).is_empty());
        records.push(Corruption { kind: CorruptionKind::Layer, ..label(4) });
        assert!(cpus_left_out(&records).is_empty(), "a layer on disk says nothing of a core");
        records.push(label(4));
        assert_eq!(cpus_left_out(&records), [4].into());
        assert_eq!(wrong_labels(&records), [(4, 2), (6, 1)].into());
    }

    #[test]
    fn a_gpu_is_left_out_by_its_second_wrong_result_in_whatever_process_and_no_other_is() {
        let of = |device: &str, kind| Corruption {
            device: Some(device.to_owned()),
            ..Corruption::new(kind, "row 3")
        };
        let mut records = vec![
            of("A100 (GPU-7)", CorruptionKind::Device),
            of("A100 (GPU-8)", CorruptionKind::Device),
            // Memory or disk may be to blame for it.
            of("A100 (GPU-7)", CorruptionKind::Node),
        ];
        assert!(devices_left_out(&records).is_empty());
        records.push(of("A100 (GPU-7)", CorruptionKind::Device));
        assert_eq!(devices_left_out(&records), ["A100 (GPU-7)"].into());
        assert_eq!(wrong_devices(&records)["A100 (GPU-8)"].len(), 1);
        assert!(cpus_left_out(&records).is_empty());
    }

    #[test]
    fn records_are_read_back_and_what_is_none_is_left_out() {
        let first = Corruption {
            sector: Some("s-t01000-1".to_owned()),
            layer: Some(3),
            ..Corruption::new(CorruptionKind::Layer, "two\nlines")
        };
        let mut file = to_line(&first);
        assert_eq!(file.iter().filter(|byte| **byte == b'\n').count(), 1);
        file.extend(b"{\"kind\":\"label\",\"cp\n");
        file.extend(b"{\"kind\":\"melted\",\"more\":1}\n\n");
        file.extend(to_line(&label(4)));
        let read = Corruption::read_all(&file);
        assert_eq!(read.len(), 3);
        assert_eq!(read[0], first);
        assert_eq!(read[1].kind, CorruptionKind::Unknown);
        assert_eq!(read[2], label(4));
        for kind in CorruptionKind::ALL {
            let word = serde_json::to_string(&kind).expect("a word");
            assert_eq!(word, format!("{:?}", kind.name()));
        }
    }
}
