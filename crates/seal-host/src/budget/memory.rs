//! Memory: of the machine, of a node, and of the cgroups above the process.

use super::Limiter;
use super::groups::{Group, chain};
use crate::cgroup::Version;
use crate::{FileError, NodeId, NodeMemory, Roots};

/// Limits of version 1 from here on are none: the kernel writes the largest number of whole pages.
const NO_LIMIT: u64 = 1 << 62;

/// Memory of a cgroup that has a limit. In bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMemory {
    /// Its path below what is mounted here.
    pub name: String,
    /// Its limit.
    pub limit: u64,
    /// What all in it use, caches among it.
    pub used: u64,
    /// What of that can be dropped: copies of files, caches of the kernel.
    pub reclaimable: u64,
}

impl GroupMemory {
    /// The groups above this process that have a limit, its own first.
    pub fn above(roots: &Roots) -> Vec<Self> {
        let mut groups = Vec::new();
        for group in chain(roots, "memory") {
            groups.extend(Self::of(&group));
            // Without this, groups of version 1 do not count what is below them.
            if group.version == Version::V1 && parent_counts_nothing(&group) {
                break;
            }
        }
        groups
    }

    fn of(group: &Group) -> Option<Self> {
        let stat = |names: &[&str]| {
            let text = group.text("memory.stat").unwrap_or_default();
            let value = |line: &str| {
                let (name, value) = line.split_once(' ')?;
                if names.contains(&name) { value.trim().parse::<u64>().ok() } else { None }
            };
            text.lines().filter_map(value).sum::<u64>()
        };
        let (limit, used, reclaimable) = match group.version {
            // What is over `high` is throttled until it is as good as stopped.
            Version::V2 => (
                [group.number("memory.max"), group.number("memory.high")]
                    .into_iter()
                    .flatten()
                    .min()?,
                group.number("memory.current"),
                stat(&["active_file", "inactive_file", "slab_reclaimable"]),
            ),
            Version::V1 => (
                group.number("memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT)?,
                group.number("memory.usage_in_bytes"),
                stat(&["total_active_file", "total_inactive_file"]),
            ),
        };
        let used = used.unwrap_or(0);
        let name = group.name.clone();
        Some(Self { name, limit, used, reclaimable: reclaimable.min(used) })
    }

    /// What more can be had in it.
    pub fn available(&self) -> u64 {
        self.limit.saturating_sub(self.used - self.reclaimable)
    }

    /// What is left alone by default: for what a process takes beside the memory that it asks for.
    pub fn default_reserve(&self) -> u64 {
        (self.limit / 100).max(16 << 20)
    }
}

fn parent_counts_nothing(group: &Group) -> bool {
    let above = group.dir.parent().map(|dir| dir.join("memory.use_hierarchy"));
    above.is_some_and(|file| std::fs::read_to_string(file).is_ok_and(|text| text.trim() == "0"))
}

/// How many bytes of memory there can be for this process, in use or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryBudget {
    /// The least of all limits.
    pub bytes: u64,
    /// What sets it.
    pub by: Limiter,
    /// What the node, or the machine, has.
    pub there: u64,
}

impl MemoryBudget {
    /// On `node`, or on the whole machine.
    pub fn of(roots: &Roots, node: Option<NodeId>) -> Result<Self, FileError> {
        let there = NodeMemory::read(roots, node)?.total;
        let own = (there, node.map_or(Limiter::Machine, Limiter::Node));
        let groups = GroupMemory::above(roots);
        let least = groups
            .into_iter()
            .map(|group| (group.limit, Limiter::Group(group.name)))
            .min_by_key(|(limit, _)| *limit)
            .filter(|(limit, _)| *limit < there);
        let (bytes, by) = least.unwrap_or(own);
        Ok(Self { bytes, by, there })
    }

    /// How much memory can be had now: what is free or can be dropped, on the machine and in every
    /// group above this process.
    pub fn available_now(roots: &Roots) -> Result<(u64, Limiter), FileError> {
        let machine = NodeMemory::read(roots, None)?;
        let groups = GroupMemory::above(roots);
        let groups =
            groups.into_iter().map(|group| (group.available(), Limiter::Group(group.name)));
        let all = groups.chain([(machine.free + machine.reclaimable, Limiter::Machine)]);
        Ok(all.min_by_key(|(bytes, _)| *bytes).unwrap_or((0, Limiter::Machine)))
    }
}

impl std::fmt::Display for MemoryBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "memory {} MiB", self.bytes >> 20)?;
        match &self.by {
            Limiter::Machine | Limiter::Node(_) => Ok(()),
            by => write!(f, ": limit of {by}, the machine has {} MiB", self.there >> 20),
        }
    }
}

/// How many bytes of huge pages of `page` bytes the hugetlb controller still grants; `None` where
/// it has no limit.
pub(crate) fn free_of_hugetlb(roots: &Roots, page: usize) -> Option<u64> {
    let size = match page {
        1_073_741_824 => "1GB".to_owned(),
        page => format!("{}MB", page >> 20),
    };
    let left = |group: Group| {
        let (limit, used) = match group.version {
            Version::V2 => ("max", "current"),
            Version::V1 => ("limit_in_bytes", "usage_in_bytes"),
        };
        let number = |what: &str| group.number(&format!("hugetlb.{size}.{what}"));
        let limit = number(limit).filter(|limit| *limit < NO_LIMIT)?;
        Some(limit.saturating_sub(number(used).unwrap_or(0)))
    };
    chain(roots, "hugetlb").into_iter().filter_map(left).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::tests::Fake;

    const MIB: u64 = 1 << 20;
    const V2: (&str, &str, &str) = ("cgroup2", "rw", "cg");
    const MEMINFO: &str = "MemTotal: 16777216 kB\nMemFree: 8388608 kB\nActive(file): 0 kB\n\
                           Inactive(file): 0 kB\nSReclaimable: 0 kB\n";

    fn found(fake: &Fake) -> Vec<(String, u64, u64)> {
        let above = GroupMemory::above(&fake.roots());
        let told =
            |group: GroupMemory| (group.name.clone(), group.limit / MIB, group.available() / MIB);
        above.into_iter().map(told).collect()
    }

    #[test]
    fn every_group_of_version_2_above_counts_and_file_caches_are_free() {
        let fake = Fake::with(
            &[V2],
            "0::/a/b/c\n",
            &[
                ("cg/a/memory.max", "1073741824\n"),
                ("cg/a/memory.current", "536870912\n"),
                ("cg/a/memory.stat", "anon 5\nactive_file 104857600\ninactive_file 104857600\n"),
                ("cg/a/b/memory.max", "max\n"),
                ("cg/a/b/memory.current", "4096\n"),
                ("cg/a/b/c/memory.max", "max\n"),
                ("cg/a/b/c/memory.high", "419430400\n"),
                ("cg/a/b/c/memory.current", "10485760\n"),
                ("cg/a/b/c/memory.stat", "slab_reclaimable 1048576\nslab_unreclaimable 1048576\n"),
                ("proc/meminfo", MEMINFO),
            ],
        );
        assert_eq!(found(&fake), [("/a/b/c".to_owned(), 400, 391), ("/a".to_owned(), 1024, 712)]);
        let budget = MemoryBudget::of(&fake.roots(), None).expect("readable");
        assert_eq!(
            budget.to_string(),
            "memory 400 MiB: limit of cgroup /a/b/c, the machine has 16384 MiB"
        );
        let available = MemoryBudget::available_now(&fake.roots()).expect("readable");
        assert_eq!(available, (391 * MIB, Limiter::Group("/a/b/c".to_owned())));
    }

    #[test]
    fn groups_of_version_1_count_also_beside_a_hierarchy_of_version_2() {
        let fake = Fake::with(
            &[("cgroup2", "rw", "unified"), ("cgroup", "rw,memory", "m")],
            "4:memory:/x/y\n3:cpuset:/\n0::/z\n",
            &[
                ("m/memory.limit_in_bytes", "9223372036854771712\n"),
                ("m/x/memory.limit_in_bytes", "419430400\n"),
                ("m/x/memory.usage_in_bytes", "104857600\n"),
                ("m/x/memory.stat", "cache 7\ntotal_inactive_file 52428800\ntotal_active_file 0\n"),
                ("m/x/y/memory.limit_in_bytes", "9223372036854771712\n"),
                ("unified/z/memory.max", "1\n"),
                ("proc/meminfo", MEMINFO),
            ],
        );
        assert_eq!(found(&fake), [("/x".to_owned(), 400, 350)]);
    }

    #[test]
    fn in_a_namespace_the_top_is_the_own_group_and_without_a_mount_there_is_no_limit() {
        let files = [("cg/memory.max", "419430400\n"), ("proc/meminfo", MEMINFO)];
        for cgroup in ["0::/\n", "0::/../../elsewhere\n"] {
            let fake = Fake::with(&[V2], cgroup, &files);
            assert_eq!(found(&fake), [("/".to_owned(), 400, 400)], "{cgroup}");
        }
        let none = Fake::with(&[], "0::/\n", &files);
        assert!(found(&none).is_empty());
        let budget = MemoryBudget::of(&none.roots(), None).expect("readable");
        assert_eq!((budget.bytes, budget.by), (16384 * MIB, Limiter::Machine));
        assert!(found(&Fake::new()).is_empty(), "no /proc/self/mountinfo");
    }

    #[test]
    fn a_limit_that_makes_no_sense_or_is_above_the_machine_limits_nothing() {
        for limit in ["", "many", "-1", "max", "17592186044416"] {
            let files = [("cg/a/memory.max", limit), ("proc/meminfo", MEMINFO)];
            let fake = Fake::with(&[V2], "0::/a\n", &files);
            let budget = MemoryBudget::of(&fake.roots(), None).expect("readable");
            assert_eq!((budget.bytes, budget.by), (16384 * MIB, Limiter::Machine), "{limit}");
        }
    }

    #[test]
    fn huge_pages_have_limits_of_their_own() {
        let v2 = Fake::with(
            &[V2],
            "0::/a/b\n",
            &[
                ("cg/a/hugetlb.2MB.max", "8388608\n"),
                ("cg/a/hugetlb.2MB.current", "4194304\n"),
                ("cg/a/b/hugetlb.2MB.max", "max\n"),
                ("cg/a/b/hugetlb.1GB.max", "0\n"),
            ],
        );
        assert_eq!(free_of_hugetlb(&v2.roots(), 2 << 20), Some(4 * MIB));
        assert_eq!(free_of_hugetlb(&v2.roots(), 1 << 30), Some(0));
        let v1 = Fake::with(
            &[("cgroup", "rw,hugetlb", "h")],
            "9:hugetlb:/a\n",
            &[
                ("h/a/hugetlb.1GB.limit_in_bytes", "2147483648\n"),
                ("h/a/hugetlb.1GB.usage_in_bytes", "1073741824\n"),
                ("h/a/hugetlb.2MB.limit_in_bytes", "9223372036852678656\n"),
            ],
        );
        assert_eq!(free_of_hugetlb(&v1.roots(), 1 << 30), Some(1 << 30));
        assert_eq!(free_of_hugetlb(&v1.roots(), 2 << 20), None);
        assert_eq!(free_of_hugetlb(&Fake::new().roots(), 2 << 20), None);
    }
}
