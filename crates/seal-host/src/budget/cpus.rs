//! Cpus: those that the process may run on, and how much of their time its cgroups grant.

use super::groups::{Group, chain};
use crate::cgroup::Version;
use crate::{CpuSet, Roots, allowed_cpus, grantable_cpus};

/// The cpus that this process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuBudget {
    /// The cpus on which its threads may run: what affinity and cpusets leave.
    pub cpus: CpuSet,
    /// How much of their time it gets, where a cgroup sets a quota.
    pub quota: Option<CpuQuota>,
}

/// A quota of cpu time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuQuota {
    /// In thousandths of a cpu.
    pub thousandths: u64,
    /// The group that sets it, by its path below what is mounted here.
    pub group: String,
}

impl CpuBudget {
    /// What this process has now.
    pub fn of(roots: &Roots) -> std::io::Result<Self> {
        Ok(Self { cpus: allowed_cpus()?, quota: CpuQuota::least(roots) })
    }

    /// Those of the cpus `there` that this process could give to others that it starts, which need
    /// not be those it runs on itself.
    pub fn to_give(roots: &Roots, there: &CpuSet) -> std::io::Result<Self> {
        Ok(Self { cpus: grantable_cpus(there)?, quota: CpuQuota::least(roots) })
    }

    /// What is to be said if work for `cores` cores has less time than that.
    pub fn warning(&self, cores: usize) -> Option<String> {
        let CpuQuota { thousandths, group } = self.quota.as_ref()?;
        ((*thousandths as u128) < cores as u128 * 1000).then(|| {
            format!(
                "the cpu quota of cgroup {group} is {}.{:03} cpus, less than the {cores} in use: \
                 threads are stopped for a part of the time, and labelling waits for the slowest; \
                 raise it (cpu.max, cpu.cfs_quota_us, CPUQuota=), or use fewer cpus",
                thousandths / 1000,
                thousandths % 1000,
            )
        })
    }
}

impl CpuQuota {
    /// The least of the quotas of all groups above this process.
    pub fn least(roots: &Roots) -> Option<Self> {
        chain(roots, "cpu").iter().filter_map(Self::of).min_by_key(|quota| quota.thousandths)
    }

    fn of(group: &Group) -> Option<Self> {
        let (quota, period): (u64, u64) = match group.version {
            Version::V2 => {
                let text = group.text("cpu.max")?;
                let (quota, period) = text.trim().split_once(' ')?;
                (quota.parse().ok()?, period.parse().ok()?)
            }
            // -1 is no quota.
            Version::V1 => (group.number("cpu.cfs_quota_us")?, group.number("cpu.cfs_period_us")?),
        };
        let thousandths = quota.checked_mul(1000)?.checked_div(period)?;
        Some(Self { thousandths, group: group.name.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::tests::Fake;

    #[test]
    fn the_least_quota_of_all_groups_is_found_in_both_versions() {
        let v2 = Fake::with(
            &[("cgroup2", "rw", "cg")],
            "0::/a/b\n",
            &[("cg/a/cpu.max", "250000 100000\n"), ("cg/a/b/cpu.max", "max 100000\n")],
        );
        let quota = CpuQuota::least(&v2.roots()).expect("there is one");
        assert_eq!((quota.thousandths, quota.group.as_str()), (2500, "/a"));
        let v1 = Fake::with(
            &[("cgroup", "rw,cpu,cpuacct", "cpu")],
            "2:cpu,cpuacct:/a/b\n",
            &[
                ("cpu/a/cpu.cfs_quota_us", "-1\n"),
                ("cpu/a/cpu.cfs_period_us", "100000\n"),
                ("cpu/a/b/cpu.cfs_quota_us", "50000\n"),
                ("cpu/a/b/cpu.cfs_period_us", "100000\n"),
            ],
        );
        let quota = CpuQuota::least(&v1.roots()).expect("there is one");
        assert_eq!((quota.thousandths, quota.group.as_str()), (500, "/a/b"));
        assert_eq!(CpuQuota::least(&Fake::new().roots()), None);
    }

    #[test]
    fn a_quota_below_the_cores_is_a_warning() {
        let quota = Some(CpuQuota { thousandths: 2500, group: "/a".to_owned() });
        let budget = CpuBudget { cpus: CpuSet::default(), quota };
        let warning = budget.warning(3).expect("too little");
        assert!(warning.starts_with("the cpu quota of cgroup /a is 2.500 cpus"), "{warning}");
        assert_eq!(budget.warning(2), None);
        assert_eq!(CpuBudget { quota: None, ..budget }.warning(1000), None);
    }
}
