//! Whether the kernel killed processes of a cgroup because memory ran out.

use std::fs;
use std::path::{Path, PathBuf};

/// A counter of the processes that the kernel killed for memory: that of a process's own cgroup
/// (v2 or v1); where that has none, of the cgroup above it that has, or of the whole machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomCounter {
    file: PathBuf,
    of_group: bool,
    at_start: u64,
}

impl OomCounter {
    /// The counter for a process that runs now.
    pub fn of(pid: u32) -> Option<Self> {
        Self::within(Path::new("/proc"), Path::new("/sys/fs/cgroup"), pid)
    }

    /// [`OomCounter::of`] with other roots.
    pub fn within(proc_root: &Path, cgroup_root: &Path, pid: u32) -> Option<Self> {
        let groups = fs::read_to_string(proc_root.join(pid.to_string()).join("cgroup"));
        let files = groups.unwrap_or_default();
        let files = files.lines().filter_map(|line| {
            // `0::/path` for v2, `7:memory:/path` for v1.
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, group) = (fields.next()?, fields.next()?.trim_start_matches('/'));
            let (top, file) = match controllers {
                "" => (cgroup_root.to_path_buf(), "memory.events"),
                _ if controllers.split(',').any(|name| name == "memory") => {
                    (cgroup_root.join("memory"), "memory.oom_control")
                }
                _ => return None,
            };
            // Counters of a group count what is below it too.
            let own = Path::new(group).ancestors().enumerate();
            Some(own.map(|(up, group)| (top.join(group).join(file), up == 0)).collect::<Vec<_>>())
        });
        let machine = (proc_root.join("vmstat"), false);
        files.flatten().chain([machine]).find_map(|(file, of_group)| {
            let at_start = read(&file)?;
            Some(Self { file, of_group, at_start })
        })
    }

    /// How many were killed since.
    pub fn kills(&self) -> u64 {
        read(&self.file).map_or(0, |now| now.saturating_sub(self.at_start))
    }

    /// Whether it counts the process's own cgroup, and not others too.
    pub fn is_of_group(&self) -> bool {
        self.of_group
    }
}

/// The line `oom_kill NUMBER` of a file.
fn read(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn with(files: &[(&str, &str)]) -> Self {
            let tree = Self(tempfile::tempdir().expect("a temporary directory"));
            files.iter().for_each(|(name, text)| tree.write(name, text));
            tree
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.0.path().join(name);
            fs::create_dir_all(path.parent().expect("in the tree")).expect("writable");
            fs::write(path, text).expect("writable");
        }

        fn counter(&self) -> Option<OomCounter> {
            OomCounter::within(&self.0.path().join("proc"), &self.0.path().join("cgroup"), 7)
        }
    }

    #[test]
    fn kills_of_the_own_group_are_counted_from_the_start() {
        for (groups, file) in [
            ("0::/seal/pc1\n", "cgroup/seal/pc1/memory.events"),
            (
                "4:cpuset:/x\n3:hugetlb,memory:/seal/pc1\n",
                "cgroup/memory/seal/pc1/memory.oom_control",
            ),
        ] {
            let tree = Tree::with(&[
                ("proc/7/cgroup", groups),
                ("proc/vmstat", "oom_kill 40\n"),
                (file, "low 0\noom 3\noom_kill 2\noom_group_kill 9\n"),
            ]);
            let counter = tree.counter().expect("a counter");
            assert!(counter.is_of_group());
            assert_eq!(counter.kills(), 0);
            tree.write(file, "oom_kill 3\n");
            assert_eq!(counter.kills(), 1);
            fs::remove_file(tree.0.path().join(file)).expect("ours");
            assert_eq!(counter.kills(), 0, "a group that is gone tells nothing");
        }
    }

    #[test]
    fn a_group_without_a_counter_is_counted_by_the_one_above_it() {
        let tree = Tree::with(&[
            ("proc/7/cgroup", "0::/seal.service/pc1/0.1\n"),
            ("proc/vmstat", "oom_kill 40\n"),
            ("cgroup/seal.service/memory.events", "oom_kill 1\n"),
        ]);
        let counter = tree.counter().expect("a counter");
        tree.write("cgroup/seal.service/memory.events", "oom_kill 3\n");
        assert_eq!((counter.kills(), counter.is_of_group()), (2, false));
    }

    #[test]
    fn without_a_group_of_its_own_the_machine_is_counted() {
        let tree = Tree::with(&[("proc/7/cgroup", "0::/\n"), ("proc/vmstat", "x 1\noom_kill 5\n")]);
        let counter = tree.counter().expect("a counter");
        assert!(!counter.is_of_group());
        tree.write("proc/vmstat", "oom_kill 6\n");
        assert_eq!(counter.kills(), 1);
        assert_eq!(Tree::with(&[]).counter(), None);
    }
}
