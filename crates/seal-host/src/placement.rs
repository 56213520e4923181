//! Where a child process runs and what it may use: asked for before the fork, applied and read
//! back between fork and exec.

use std::fs::File;
use std::io;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use crate::affinity::CpuMask;
use crate::numa::Policy;
use crate::{Binding, Cgroup, CpuSet, NodeId};

/// Where a child runs. What is asked for here holds before its first instruction, or it does not
/// start; but a node that is only preferred is a preference, and one that is refused a warning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The cpus it may use; `None` leaves it those of its parent or of its cgroup.
    pub cpus: Option<CpuSet>,
    /// The NUMA node whose memory it should use.
    pub preferred_node: Option<NodeId>,
    /// How strictly its memory stays there.
    pub binding: Binding,
    /// How many files it may have open.
    pub open_files: ResourceLimit,
    /// How many bytes of memory it may lock.
    pub locked_memory: ResourceLimit,
}

/// How much of a resource a child may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResourceLimit {
    /// As much as its parent.
    #[default]
    Inherited,
    /// As much as the hard limit lets it have without more rights.
    Hard,
    /// So much. More than the hard limit needs rights (`CAP_SYS_RESOURCE`).
    Exactly(u64),
    /// Without limit. This needs rights, unless there is none already.
    Unlimited,
}

/// What is done in the child before exec, as the byte by which the child tells where it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    DieWithParent = 1,
    Signals,
    Cgroup,
    Affinity,
    AffinityReadBack,
    MemoryPolicy,
    MemoryPolicyReadBack,
    OpenFiles,
    LockedMemory,
    Inherit,
    FileSizeSignal,
}

/// A placement in the kernel's form: nothing is left to be allocated in the child.
#[derive(Debug)]
pub(crate) struct Prepared {
    cgroup: Option<File>,
    cpus: Option<CpuMask>,
    memory: Option<Policy>,
    binding: Binding,
    open_files: ResourceLimit,
    locked_memory: ResourceLimit,
}

impl Prepared {
    pub(crate) fn new(
        placement: &Placement,
        cgroup: Option<&Cgroup>,
    ) -> Result<Self, (Step, io::Error)> {
        let beyond = || io::Error::from_raw_os_error(libc::EINVAL);
        let cpus = placement.cpus.as_ref();
        let mask = |cpus: &CpuSet| CpuMask::of(cpus).ok_or_else(|| (Step::Affinity, beyond()));
        let policy = |node| {
            Policy::new(node, placement.binding).ok_or_else(|| (Step::MemoryPolicy, beyond()))
        };
        Ok(Self {
            cgroup: cgroup.map(Cgroup::door).transpose().map_err(|error| (Step::Cgroup, error))?,
            cpus: cpus.map(mask).transpose()?,
            memory: placement.preferred_node.map(policy).transpose()?,
            binding: placement.binding,
            open_files: placement.open_files,
            locked_memory: placement.locked_memory,
        })
    }

    /// Puts the calling process in its place; returns the step of a preference that was refused.
    /// Async-signal-safe: system calls on memory that was there before, and errors that are plain
    /// errno values.
    pub(crate) fn apply(&self) -> Result<Option<Step>, (Step, io::Error)> {
        let at = |step: Step| move |error: io::Error| (step, error);
        let not_effective = || io::Error::from_raw_os_error(libc::EINVAL);
        if let Some(door) = &self.cgroup {
            Cgroup::enter(door).map_err(at(Step::Cgroup))?;
        }
        if let Some(cpus) = &self.cpus {
            // Also in a cgroup, whose cpus may change: it shows whether they are granted now.
            cpus.apply().map_err(at(Step::Affinity))?;
            // The kernel drops cpus it does not grant without an error.
            if CpuMask::current().map_err(at(Step::AffinityReadBack))? != *cpus {
                return Err(at(Step::AffinityReadBack)(not_effective()));
            }
        }
        let mut refused = None;
        if let Some(memory) = &self.memory {
            refused = match memory.apply().map_err(at(Step::MemoryPolicy)) {
                Ok(()) => match memory.is_current() {
                    Ok(true) => None,
                    Ok(false) => Some((Step::MemoryPolicyReadBack, not_effective())),
                    Err(error) => Some((Step::MemoryPolicyReadBack, error)),
                },
                Err(refused) => Some(refused),
            };
        }
        let refused = match (self.binding, refused) {
            (Binding::Strict, Some(refused)) => return Err(refused),
            (Binding::Strict | Binding::Preferred, refused) => refused,
        };
        limit(Resource::RLIMIT_NOFILE, self.open_files).map_err(at(Step::OpenFiles))?;
        limit(Resource::RLIMIT_MEMLOCK, self.locked_memory).map_err(at(Step::LockedMemory))?;
        Ok(refused.map(|(step, _)| step))
    }
}

/// Sets a limit of the calling process and reads it back. Async-signal-safe.
fn limit(resource: Resource, wanted: ResourceLimit) -> io::Result<()> {
    let (_, hard) = getrlimit(resource)?;
    let wanted = match wanted {
        ResourceLimit::Inherited => return Ok(()),
        ResourceLimit::Hard => (hard, hard),
        ResourceLimit::Exactly(amount) => (amount, hard.max(amount)),
        ResourceLimit::Unlimited => (RLIM_INFINITY, RLIM_INFINITY),
    };
    setrlimit(resource, wanted.0, wanted.1)?;
    if getrlimit(resource)? == wanted {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EINVAL))
    }
}

impl Step {
    const ALL: [Self; 11] = [
        Self::DieWithParent,
        Self::Signals,
        Self::Cgroup,
        Self::Affinity,
        Self::AffinityReadBack,
        Self::MemoryPolicy,
        Self::MemoryPolicyReadBack,
        Self::OpenFiles,
        Self::LockedMemory,
        Self::Inherit,
        Self::FileSizeSignal,
    ];

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|step| *step as u8 == byte)
    }

    /// What was being done, with the value.
    pub(crate) fn describe(self, placement: &Placement, cgroup: Option<&Cgroup>) -> String {
        let cpus = placement.cpus.as_ref().map(CpuSet::to_string).unwrap_or_default();
        let node = placement.preferred_node.map(|node| node.to_string()).unwrap_or_default();
        let memory = match placement.binding {
            Binding::Preferred => format!("make it prefer the memory of NUMA node {node}"),
            Binding::Strict => {
                format!("bind it to the memory of NUMA node {node}, as memory = \"strict\" demands")
            }
        };
        match self {
            Self::DieWithParent => "tie its life to this process".to_owned(),
            Self::Signals => "let it receive signals".to_owned(),
            Self::Cgroup => {
                let path = cgroup.map(|cgroup| cgroup.path().display().to_string());
                format!("put it into the cgroup {}", path.unwrap_or_default())
            }
            Self::Affinity => format!("confine it to cpus {cpus}"),
            Self::AffinityReadBack => {
                format!("confine it to cpus {cpus}: the kernel grants only some of them")
            }
            Self::MemoryPolicy => format!("{memory} (containers may need CAP_SYS_NICE)"),
            Self::MemoryPolicyReadBack => format!("{memory}: the kernel says otherwise"),
            Self::OpenFiles => format!("let it open {} files", placement.open_files),
            Self::FileSizeSignal => "give it the default action of SIGXFSZ".to_owned(),
            Self::Inherit => "let it have the descriptors of its locks".to_owned(),
            Self::LockedMemory => {
                format!("let it lock {} bytes of memory", placement.locked_memory)
            }
        }
    }
}

impl std::fmt::Display for ResourceLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inherited => f.write_str("as many as this process"),
            Self::Hard => f.write_str("as many as the hard limit"),
            Self::Exactly(amount) => amount.fmt(f),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}
