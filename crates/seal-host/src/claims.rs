//! Cpus that a process has for itself, among all that share a runtime directory.
//!
//! Processes with cpusets of their own do not meet. Those without would all choose the first cores
//! of the machine; a claim tells them which are taken. It is a lock that the kernel releases when
//! its holder dies, and it binds only those who ask. It holds on when the runtime directory is
//! removed ([`crate::kept`]).

use std::path::PathBuf;

use crate::kept::KeptSlots;
use crate::{CpuSet, FileError, RuntimeDir};

/// Where claims are made.
#[derive(Clone, Debug)]
pub struct CpuClaims {
    runtime_dir: PathBuf,
}

/// Cpus that nobody else has claimed, until this is dropped.
#[derive(Debug)]
#[must_use = "the claim ends when this is dropped"]
pub struct CpuClaim {
    cpus: CpuSet,
    /// One slot for each cpu; the kernel releases them when this is closed.
    _slots: KeptSlots,
}

impl CpuClaims {
    /// Claims among all processes that use this runtime directory.
    pub fn in_dir(runtime_dir: &RuntimeDir) -> Self {
        Self { runtime_dir: runtime_dir.path().to_path_buf() }
    }

    /// Claims all of `cpus`, or none if some of them are claimed, by this process or another one.
    pub fn try_claim(&self, cpus: &CpuSet) -> Result<Option<CpuClaim>, FileError> {
        let slots = KeptSlots::try_take(&self.runtime_dir, "cpus.slots", cpus.iter().collect())?;
        Ok(slots.map(|slots| CpuClaim { cpus: cpus.clone(), _slots: slots }))
    }
}

impl CpuClaim {
    /// The cpus.
    pub fn cpus(&self) -> &CpuSet {
        &self.cpus
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(list: &str) -> CpuSet {
        list.parse().expect("a list")
    }

    #[test]
    fn a_cpu_has_one_holder_and_claims_are_whole_or_none() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let open = || CpuClaims::in_dir(&RuntimeDir::open(&dir.path().join("run")).expect("ours"));
        let (one, other) = (open(), open());
        let first = one.try_claim(&cpus("0-1")).expect("lockable").expect("free");
        assert_eq!(*first.cpus(), cpus("0-1"));
        assert!(other.try_claim(&cpus("1-2")).expect("lockable").is_none());
        assert!(one.try_claim(&cpus("0")).expect("lockable").is_none(), "its own is taken too");
        // Cpu 2 was not kept by the claim that failed.
        let second = one.try_claim(&cpus("2-3")).expect("lockable").expect("free");
        drop(first);
        assert!(other.try_claim(&cpus("0-1")).expect("lockable").is_some());
        drop(second);
        assert!(other.try_claim(&cpus("0-3")).expect("lockable").is_some());
    }

    #[test]
    fn a_claim_holds_on_when_the_runtime_directory_is_removed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let run = dir.path().join("run");
        let claims = CpuClaims::in_dir(&RuntimeDir::open(&run).expect("ours"));
        let first = claims.try_claim(&cpus("0-1")).expect("lockable").expect("free");
        crate::kept::tests::remove_and_await(&run, "cpus.slots", 2);
        let other = CpuClaims::in_dir(&RuntimeDir::open(&run).expect("ours"));
        assert!(other.try_claim(&cpus("1-2")).expect("lockable").is_none(), "they are used");
        assert!(other.try_claim(&cpus("2-3")).expect("lockable").is_some());
        drop(first);
        assert!(other.try_claim(&cpus("0-3")).expect("lockable").is_some());
    }
}
