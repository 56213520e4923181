//! Processes and threads, which the kernel counts alike.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::Limiter;
use super::groups::chain;
use crate::Roots;

/// How many processes and threads there may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskBudget {
    /// The least of all limits.
    pub most: u64,
    /// What sets it.
    pub by: Limiter,
    /// How many it counts now, where that is known.
    pub now: Option<u64>,
}

impl TaskBudget {
    /// The limit that leaves the fewest; `None` where nothing is known of any.
    pub fn of(roots: &Roots) -> Option<Self> {
        let groups = chain(roots, "pids").into_iter().filter_map(|group| {
            let most = group.number("pids.max")?;
            let now = group.number("pids.current");
            Some(Self { most, by: Limiter::Group(group.name), now })
        });
        let threads_max = std::fs::read_to_string(roots.proc.join("sys/kernel/threads-max"));
        let kernel = threads_max.ok().and_then(|text| text.trim().parse().ok()).map(|most| Self {
            most,
            by: Limiter::Named("kernel.threads-max"),
            now: None,
        });
        let user = getrlimit(Resource::RLIMIT_NPROC).ok().map(|(soft, _)| soft);
        let user = user.filter(|soft| *soft != RLIM_INFINITY && !is_exempt()).map(|most| Self {
            most,
            by: Limiter::Named("RLIMIT_NPROC"),
            now: None,
        });
        groups.chain(kernel).chain(user).min_by_key(Self::left)
    }

    /// How many more there may be, as far as is known.
    pub fn left(&self) -> u64 {
        self.most.saturating_sub(self.now.unwrap_or(0))
    }

    /// What is to be said if `wanted` threads are to be started.
    pub fn warning(&self, wanted: u64) -> Option<String> {
        (self.left() < wanted).then(|| {
            let now = self.now.map(|now| format!(", and there are {now}")).unwrap_or_default();
            format!(
                "{} allows {} processes and threads{now}; about {wanted} more are wanted: tasks \
                 for which none can be started fail with [unavailable]; raise it (pids.max, \
                 TasksMax=, ulimit -u)",
                self.by, self.most
            )
        })
    }
}

/// The kernel does not hold root to `RLIMIT_NPROC`.
fn is_exempt() -> bool {
    nix::unistd::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::tests::Fake;

    #[test]
    fn the_group_that_leaves_the_fewest_limits() {
        let fake = Fake::with(
            &[("cgroup2", "rw", "cg")],
            "0::/a/b\n",
            &[
                ("cg/a/pids.max", "40\n"),
                ("cg/a/pids.current", "30\n"),
                ("cg/a/b/pids.max", "20\n"),
                ("cg/a/b/pids.current", "5\n"),
                ("proc/sys/kernel/threads-max", "1000\n"),
            ],
        );
        let budget = TaskBudget::of(&fake.roots()).expect("there are limits");
        assert_eq!(
            (budget.most, budget.left(), budget.by.to_string().as_str()),
            (40, 10, "cgroup /a")
        );
        assert_eq!(budget.warning(10), None);
        let warning = budget.warning(11).expect("too many");
        assert!(
            warning.starts_with("cgroup /a allows 40 processes and threads, and there are 30;"),
            "{warning}"
        );
    }

    #[test]
    fn without_groups_the_kernel_limits() {
        let fake = Fake::with(&[], "", &[("proc/sys/kernel/threads-max", "7\n")]);
        let budget = TaskBudget::of(&fake.roots()).expect("there is one");
        assert_eq!((budget.most, budget.by), (7, Limiter::Named("kernel.threads-max")));
    }
}
