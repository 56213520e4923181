//! The machine that executors are to be started on, as far as their placement goes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use seal_host::{CgroupTree, CpuQuota, CpuSet, MemoryBudget, NodeId, Roots, TaskBudget};

/// What a plan is held against.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(crate) online: CpuSet,
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) node_cpus: BTreeMap<NodeId, CpuSet>,
    pub(crate) grant: Grant,
    pub(crate) budget: Budget,
    /// What the processor has, by its names in `/proc/cpuinfo`, where that is known.
    pub(crate) instructions: Option<BTreeSet<String>>,
}

/// What limits this process and all that it starts; nothing for a machine that is only described.
#[derive(Clone, Debug, Default)]
pub(crate) struct Budget {
    pub(crate) memory: Option<MemoryBudget>,
    pub(crate) quota: Option<CpuQuota>,
    pub(crate) tasks: Option<TaskBudget>,
}

/// Which of the cpus that are there the executors can have.
#[derive(Clone, Debug)]
pub(crate) enum Grant {
    /// All.
    All,
    /// Those that the kernel lets a thread of this process use.
    Asked,
    /// Those of the cgroup in which theirs are made.
    Within(CpuSet),
}

impl Machine {
    /// The machine this process runs on, with executors in the given cgroups, or placed by
    /// affinity.
    pub fn this(cgroups: Option<&CgroupTree>) -> Result<Self, seal_host::FileError> {
        let described = Self::described(Path::new("/sys"))?;
        // A group that cannot tell its cpus will say so when the first executor gets one.
        let within = cgroups.and_then(|tree| tree.available_cpus().ok());
        let roots = Roots::default();
        let budget = Budget {
            memory: MemoryBudget::of(&roots, None).ok(),
            quota: CpuQuota::least(&roots),
            tasks: TaskBudget::of(&roots),
        };
        let grant = within.map_or(Grant::Asked, Grant::Within);
        Ok(Self { grant, budget, instructions: seal_host::instructions(&roots), ..described })
    }

    /// A machine known only from its sysfs, all of which may be used.
    pub fn described(sys_root: &Path) -> Result<Self, seal_host::FileError> {
        let nodes = seal_host::online_nodes(sys_root)?;
        let cpus_of = |node: &NodeId| Ok((*node, seal_host::node_cpus(sys_root, *node)?));
        Ok(Self {
            online: seal_host::online_cpus(sys_root)?,
            node_cpus: nodes.iter().map(cpus_of).collect::<Result<_, _>>()?,
            nodes,
            grant: Grant::All,
            budget: Budget::default(),
            instructions: None,
        })
    }

    /// Whether the processor has an instruction set; `None` where nobody said.
    pub(crate) fn has(&self, instruction: &str) -> Option<bool> {
        self.instructions.as_ref().map(|names| names.contains(instruction))
    }

    /// Those of the wanted cpus that executors can have.
    pub(crate) fn granted(&self, wanted: &CpuSet) -> io::Result<CpuSet> {
        match &self.grant {
            Grant::All => Ok(wanted.clone()),
            Grant::Asked => seal_host::grantable_cpus(wanted),
            Grant::Within(cpus) => Ok(wanted.and(cpus)),
        }
    }
}
