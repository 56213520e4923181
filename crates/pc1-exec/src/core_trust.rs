//! What is thought of the cores that label, by the wrong labels that are known of each.
//!
//! A core whose labels were wrong twice labels no more: the next sector would only be the next one
//! to fail, after hours. That is remembered in the runtime directory, because the process may end
//! in between and a fault of the core does not end with it. A machine that was started anew has
//! an empty one where that directory is in memory, as is the default for root; elsewhere whoever
//! has mended the machine removes the file. It is looked at again and again, so that all processes
//! go by it without a restart.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use seal_runtime::CorruptionLog;
use seal_types::CpuSet;
use seal_wire::{
    Corruption, CorruptionKind, DeviceReport, DeviceStanding, cpus_left_out, wrong_labels,
};

use crate::Pc1Error;

/// How old what is known may get.
const FRESH: Duration = Duration::from_secs(5);

/// The cores that label in this process.
#[derive(Debug)]
pub(crate) struct CoreTrust {
    /// The cpus, one of each unit.
    consumers: CpuSet,
    log: Option<Arc<CorruptionLog>>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Wrong labels that this process has found.
    wrong: u64,
    /// Own cores that label no more.
    left_out: BTreeSet<u32>,
    /// The last wrong label of one of the own cores.
    last: Option<String>,
    looked: Option<Instant>,
}

impl CoreTrust {
    /// What `log` has of these cores is said at once.
    pub(crate) fn new(consumers: CpuSet, log: Option<Arc<CorruptionLog>>) -> Self {
        let trust = Self { consumers, log, known: Mutex::default() };
        trust.look();
        trust
    }

    pub(crate) fn log(&self) -> Option<Arc<CorruptionLog>> {
        self.log.clone()
    }

    /// Takes note of a wrong result that has been written down.
    pub(crate) fn noted(&self, found: &Corruption) {
        if found.kind == CorruptionKind::Label && found.cpu.is_some() {
            self.known().wrong += 1;
        }
        self.look();
    }

    /// Reads what is known now, and says which cores are left out by that.
    pub(crate) fn look(&self) {
        let Some(log) = &self.log else { return };
        let all = log.all();
        let own = |cpu: &u32| self.consumers.contains(*cpu);
        let left_out: BTreeSet<_> = cpus_left_out(&all).into_iter().filter(own).collect();
        let counts = wrong_labels(&all);
        let last = all.iter().rev().find(|found| {
            found.kind == CorruptionKind::Label && found.cpu.as_ref().is_some_and(own)
        });
        let mut known = self.known();
        for cpu in left_out.difference(&known.left_out) {
            tracing::error!(
                cpu,
                wrong_labels = counts.get(cpu),
                file = %log.path().display(),
                "nothing is labelled on this cpu any more{}; docs/corruption.md says what to test. \
                 When that is done, remove the file to have the cpu taken in again",
                several(&counts.keys().copied().collect())
            );
        }
        for cpu in known.left_out.difference(&left_out) {
            tracing::info!(
                cpu,
                "the cpu labels again: its wrong labels are not on record any more"
            );
        }
        known.last = last.map(|found| format!("{}: {}", found.on(), found.what));
        known.left_out = left_out;
        known.looked = Some(Instant::now());
    }

    /// Whether sectors may be labelled on the cpu.
    pub(crate) fn is_sound(&self, cpu: u32) -> bool {
        !self.known().left_out.contains(&cpu)
    }

    pub(crate) fn are_all_left_out(&self) -> bool {
        let known = self.known();
        !known.left_out.is_empty() && known.left_out.len() == self.consumers.len()
    }

    /// That no core is left.
    pub(crate) fn no_core(&self) -> Pc1Error {
        let path = self.log.as_ref().map(|log| log.path()).unwrap_or_default();
        Pc1Error::NoSoundCore { cpus: self.consumers.clone(), path }
    }

    /// What the parent is told; nothing as long as there is nothing bad to be told.
    pub(crate) fn report(&self) -> Option<DeviceReport> {
        let is_old = |looked: Option<Instant>| looked.is_none_or(|at| at.elapsed() > FRESH);
        let looked = self.known().looked;
        if is_old(looked) {
            self.look();
        }
        let all_out = self.are_all_left_out();
        let known = self.known();
        if known.wrong == 0 && known.last.is_none() {
            return None;
        }
        let standing = match (&known.last, all_out) {
            (_, true) => DeviceStanding::LeftOut,
            (Some(_), false) => DeviceStanding::Suspect,
            (None, false) => DeviceStanding::Good,
        };
        let out: CpuSet = known.left_out.iter().copied().collect();
        let reason = known.last.clone().map(|last| match out.is_empty() {
            true => last,
            false => format!("{last}; nothing is labelled on {out} any more"),
        });
        let left = self.consumers.minus(&out);
        let replaced_by =
            (!out.is_empty() && !left.is_empty()).then(|| format!("the units of cpus {left}"));
        let device = format!("labelling cpus {}", self.consumers);
        Some(DeviceReport { device, standing, wrong: known.wrong, reason, replaced_by })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What it means that several cores have erred.
fn several(erring: &BTreeSet<u32>) -> &'static str {
    if erring.len() > 2 {
        " (several cpus have labelled wrongly: memory, which they share, is the likelier reason)"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use seal_types::Stage;

    use super::*;

    fn wrong(cpu: u32) -> Corruption {
        Corruption { cpu: Some(cpu), ..Corruption::new(CorruptionKind::Label, "node 7") }
    }

    fn trust(dir: &std::path::Path) -> (CoreTrust, Arc<CorruptionLog>) {
        let log = Arc::new(CorruptionLog::in_dir(Stage::Pc1, &dir.join("run")));
        (CoreTrust::new("0,2".parse().expect("cpus"), Some(Arc::clone(&log))), log)
    }

    #[test]
    fn a_core_that_repeats_is_left_out_also_by_the_next_process_until_the_record_is_removed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (trust, log) = self::trust(dir.path());
        let note = |cpu| {
            log.note(Some("s-t01000-1"), wrong(cpu));
            trust.noted(&wrong(cpu));
        };
        assert_eq!(trust.report(), None);
        note(2);
        assert!(trust.is_sound(2) && !trust.are_all_left_out());
        let report = trust.report().expect("something is wrong");
        assert_eq!((report.standing, report.wrong), (DeviceStanding::Suspect, 1));
        assert!(report.reason.expect("told").contains("cpu 2: node 7"));
        note(2);
        assert!(!trust.is_sound(2) && trust.is_sound(0) && !trust.are_all_left_out());
        let report = trust.report().expect("something is wrong");
        assert_eq!(report.replaced_by.as_deref(), Some("the units of cpus 0"));
        assert!(report.computes());
        // Cores of others are no matter of this process.
        note(9);
        note(9);
        assert!(trust.is_sound(0));
        note(0);
        note(0);
        assert!(trust.are_all_left_out());
        let (next, _) = self::trust(dir.path());
        assert!(next.are_all_left_out());
        let report = next.report().expect("something is wrong");
        assert_eq!((report.standing, report.wrong), (DeviceStanding::LeftOut, 0));
        let error = next.no_core();
        assert_eq!(error.code().name(), "bad-device");
        let text = error.to_string();
        assert!(text.contains("0,2") && text.contains("corruption.jsonl"), "{text}");
        std::fs::remove_file(log.path()).expect("there");
        for trust in [&trust, &next] {
            trust.look();
            assert!(trust.is_sound(0) && trust.is_sound(2));
        }
        assert_eq!(next.report(), None);
    }
}
