//! The cgroups of executors: opened once, one made for each start of an executor, and removed with
//! all that is in it when the executor is gone.

use std::sync::Arc;
use std::time::Instant;

use seal_config::CgroupUse;
use seal_host::{Cgroup, CgroupError, CgroupTree, Wanted};
use seal_wire::{ErrorCode, TaskError};

use crate::said::Said;

/// Cgroups that were asked for and cannot be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "supervisor.cgroup = \"always\", but no cgroup can be made: {reasons}; run as root, or as a \
     unit of systemd with Delegate=cpuset and DelegateSubgroup="
)]
pub struct NoCgroups {
    reasons: String,
}

/// Where the executors' cgroups are made, or `None` where cpu affinity does the same.
pub(crate) fn open(wanted: CgroupUse) -> Result<Option<Arc<CgroupTree>>, NoCgroups> {
    if wanted == CgroupUse::Never {
        return Ok(None);
    }
    match CgroupTree::open() {
        Ok(tree) => Ok(Some(Arc::new(tree))),
        Err(errors) => {
            let told =
                |error: &CgroupError| TaskError::from_error(ErrorCode::Unavailable, error).message;
            let reasons: Vec<_> = errors.iter().map(told).collect();
            let reasons = reasons.join("; ");
            if wanted == CgroupUse::Always {
                return Err(NoCgroups { reasons });
            }
            tracing::warn!(
                reasons,
                "no cgroup can be made: cpus hold by affinity, and what executors start is found \
                 by its mark only; supervisor.cgroup = \"never\" does not ask for one"
            );
            Ok(None)
        }
    }
}

/// Ends what dead supervisors have left behind, and says so; what stays as it was, once.
pub(crate) fn sweep(tree: &CgroupTree, said: &mut Said) {
    let swept = tree.sweep();
    let now = Instant::now();
    if !swept.killed.is_empty() {
        let pids = &swept.killed;
        tracing::warn!(?pids, "processes of supervisors that died were still there; killed");
    }
    for group in &swept.removed {
        tracing::info!(group = %group.display(), "cgroup of a dead supervisor removed");
    }
    for (group, error) in &swept.unknown {
        let group = group.display();
        if said.is_due(&format!("{group}: {error}"), now) {
            tracing::warn!(%group, %error, "whether the owner of a cgroup lives cannot be told; it is taken to live");
        }
    }
    for error in &swept.errors {
        let error = TaskError::from_error(ErrorCode::Internal, error).message;
        if said.is_due(&error, now) {
            tracing::warn!(error, "a cgroup of a dead supervisor stays");
        }
    }
}

/// The cgroup that an executor gets at each start.
#[derive(Clone, Debug)]
pub struct GroupPlan {
    /// Where it is made.
    pub(crate) tree: Arc<CgroupTree>,
    /// Its name there, to which the number of the start is added.
    pub(crate) name: String,
    /// What it has.
    pub(crate) wanted: Wanted,
    /// Whether it may not run without.
    pub(crate) is_demand: bool,
}

/// The cgroup of a running executor. What is in it ends with this.
#[derive(Debug)]
pub(crate) struct OwnGroup {
    tree: Arc<CgroupTree>,
    group: Option<Cgroup>,
}

impl GroupPlan {
    /// Makes the group for the start with this number. Where none was demanded and none can be had
    /// any more, there is none: its cpus hold by affinity, and its memory by its policy.
    pub(crate) fn make(&self, start: u64) -> Result<Option<OwnGroup>, CgroupError> {
        match self.tree.create(&format!("{}.{start}", self.name), &self.wanted) {
            Ok(group) => Ok(Some(OwnGroup { tree: self.tree.clone(), group: Some(group) })),
            Err(error) if self.is_demand => Err(error),
            Err(error) => {
                let reason = TaskError::from_error(ErrorCode::Unavailable, &error).message;
                tracing::warn!(
                    reason,
                    "an executor starts without a cgroup; its cpus hold by affinity, and what it \
                     starts is found by its mark only"
                );
                Ok(None)
            }
        }
    }
}

impl OwnGroup {
    pub(crate) fn group(&self) -> Option<&Cgroup> {
        self.group.as_ref()
    }

    /// Kills all that is in it.
    pub(crate) fn kill(&self) {
        if let Some(group) = &self.group {
            group.kill();
        }
    }
}

impl Drop for OwnGroup {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            self.tree.retire(group);
        }
    }
}
