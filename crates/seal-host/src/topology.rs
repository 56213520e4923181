//! Which cpus belong together: cores, L3 caches, NUMA nodes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::affinity::read_cpu_set;
use crate::{CpuSet, FileError, NodeId, node_cpus, online_cpus, online_nodes};

/// Cpus that share an L3 cache and a NUMA node, named by the lowest of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct L3Id(pub u32);

impl std::fmt::Display for L3Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One cpu and what it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its number in the kernel.
    pub number: u32,
    /// Its core, named by the lowest of the core's cpus.
    pub core: u32,
    /// Its L3 cache within its node.
    pub l3: L3Id,
    /// Its NUMA node; 0 on a kernel without NUMA support.
    pub node: NodeId,
}

/// The cpus of a machine that are switched on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    cpus: BTreeMap<u32, Cpu>,
}

impl Topology {
    /// A machine of the given cpus.
    pub fn of(cpus: impl IntoIterator<Item = Cpu>) -> Self {
        Self { cpus: cpus.into_iter().map(|cpu| (cpu.number, cpu)).collect() }
    }

    /// This or another machine, from sysfs (`/sys` as `sys_root`).
    ///
    /// A cpu whose caches are not described counts as sharing one with its package, and where
    /// packages are not described either, with its node.
    pub fn read(sys_root: &Path) -> Result<Self, FileError> {
        let online = online_cpus(sys_root)?;
        let mut nodes = BTreeMap::new();
        for node in online_nodes(sys_root)? {
            for cpu in node_cpus(sys_root, node)?.iter() {
                nodes.insert(cpu, node);
            }
        }
        let node_of = |cpu: u32| nodes.get(&cpu).copied().unwrap_or(NodeId(0));
        let mut cpus = BTreeMap::new();
        for number in online.iter() {
            let dir = sys_root.join(format!("devices/system/cpu/cpu{number}"));
            let siblings = first_there(&[
                dir.join("topology/core_cpus_list"),
                dir.join("topology/thread_siblings_list"),
            ])?;
            let shared = match l3_cpus(&dir)? {
                Some(shared) => Some(shared),
                None => first_there(&[
                    dir.join("topology/package_cpus_list"),
                    dir.join("topology/core_siblings_list"),
                ])?,
            };
            let node = node_of(number);
            // An L3 cache can span nodes where a processor is split into several.
            let in_node = |cpu: &u32| node_of(*cpu) == node;
            let group = shared.unwrap_or_else(|| online.clone());
            cpus.insert(
                number,
                Cpu {
                    number,
                    core: siblings.and_then(|cpus| cpus.first()).unwrap_or(number),
                    l3: L3Id(group.iter().find(in_node).unwrap_or(number)),
                    node,
                },
            );
        }
        Ok(Self { cpus })
    }

    /// Those of its cpus that are among `cpus`. Cores and caches are named by what is left of them.
    #[must_use]
    pub fn within(&self, cpus: &CpuSet) -> Self {
        let left = || self.cpus.values().filter(|cpu| cpus.contains(cpu.number));
        let lowest = |same: &dyn Fn(&Cpu) -> bool, or: u32| {
            left().find(|cpu| same(cpu)).map_or(or, |cpu| cpu.number)
        };
        Self::of(left().map(|cpu| Cpu {
            core: lowest(&|other| other.core == cpu.core, cpu.core),
            l3: L3Id(lowest(&|other| (other.l3, other.node) == (cpu.l3, cpu.node), cpu.l3.0)),
            ..*cpu
        }))
    }

    /// The cpus in ascending order.
    pub fn cpus(&self) -> impl Iterator<Item = &Cpu> {
        self.cpus.values()
    }

    /// A cpu, if it is switched on.
    pub fn cpu(&self, number: u32) -> Option<&Cpu> {
        self.cpus.get(&number)
    }

    /// The numbers of all cpus.
    pub fn cpu_set(&self) -> CpuSet {
        self.cpus.keys().copied().collect()
    }

    /// The nodes on which `cpus` lie, in ascending order.
    pub fn nodes_of(&self, cpus: &CpuSet) -> Vec<NodeId> {
        let mut nodes: Vec<_> =
            cpus.iter().filter_map(|cpu| Some(self.cpus.get(&cpu)?.node)).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }
}

/// The cpus that share the L3 cache of the cpu described in `dir`.
fn l3_cpus(dir: &Path) -> Result<Option<CpuSet>, FileError> {
    // A cache's index is a running number, only usually its level plus one or the level itself.
    for index in 0..10 {
        let cache = dir.join(format!("cache/index{index}"));
        let level = match std::fs::read_to_string(cache.join("level")) {
            Ok(level) => level,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(FileError::of("read", &cache.join("level"))(error)),
        };
        if level.trim() == "3" {
            return first_there(&[cache.join("shared_cpu_list")]);
        }
    }
    Ok(None)
}

/// The set in the first of `paths` that is there and not empty.
fn first_there(paths: &[PathBuf]) -> Result<Option<CpuSet>, FileError> {
    for path in paths {
        match read_cpu_set(path) {
            Ok(cpus) if !cpus.is_empty() => return Ok(Some(cpus)),
            Err(error) if error.source.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs;

    /// A machine of equal parts: `nodes` nodes (one package each) of `groups` L3 caches each of
    /// `cores` cores, numbered through, second threads after all cores.
    pub(crate) fn machine(nodes: u32, groups: u32, cores: u32, threads: u32) -> Topology {
        let all = nodes * groups * cores;
        Topology::of((0..threads).flat_map(|thread| {
            (0..all).map(move |core| Cpu {
                number: thread * all + core,
                core,
                l3: L3Id(core / cores * cores),
                node: NodeId(core / (groups * cores)),
            })
        }))
    }

    /// Writes what sysfs says of `topology` under `root`.
    pub(crate) fn write_sysfs(root: &Path, topology: &Topology) {
        let list = |belongs: &dyn Fn(&Cpu) -> bool| {
            let cpus: CpuSet =
                topology.cpus().filter(|cpu| belongs(cpu)).map(|cpu| cpu.number).collect();
            format!("{cpus}\n")
        };
        let write = |path: PathBuf, text: String| {
            fs::create_dir_all(path.parent().expect("below the root")).expect("writable");
            fs::write(path, text).expect("writable");
        };
        let cpus = root.join("devices/system/cpu");
        write(cpus.join("online"), list(&|_| true));
        for cpu in topology.cpus() {
            let dir = cpus.join(format!("cpu{}", cpu.number));
            write(dir.join("cache/index0/level"), "1\n".to_owned());
            write(dir.join("cache/index2/level"), "2\n".to_owned());
            write(dir.join("cache/index3/level"), "3\n".to_owned());
            write(dir.join("cache/index3/shared_cpu_list"), list(&|other| other.l3 == cpu.l3));
            write(dir.join("topology/thread_siblings_list"), list(&|o| o.core == cpu.core));
            write(dir.join("topology/core_siblings_list"), list(&|o| o.node == cpu.node));
            let node = root.join(format!("devices/system/node/node{}", cpu.node));
            write(node.join("cpulist"), list(&|other| other.node == cpu.node));
        }
        let nodes = topology.nodes_of(&topology.cpu_set());
        let nodes: CpuSet = nodes.into_iter().map(|node| node.0).collect();
        write(root.join("devices/system/node/online"), format!("{nodes}\n"));
    }

    #[test]
    fn what_sysfs_says_is_read() {
        for topology in
            [machine(2, 16, 3, 1), machine(2, 8, 8, 2), machine(1, 1, 8, 2), machine(1, 1, 1, 1)]
        {
            let sys = tempfile::tempdir().expect("a temporary directory");
            write_sysfs(sys.path(), &topology);
            assert_eq!(Topology::read(sys.path()).expect("readable"), topology);
        }
    }

    #[test]
    fn without_a_description_of_caches_a_package_is_a_group() {
        let sys = tempfile::tempdir().expect("a temporary directory");
        write_sysfs(sys.path(), &machine(2, 2, 2, 1));
        for cpu in 0..8 {
            let cache = sys.path().join(format!("devices/system/cpu/cpu{cpu}/cache"));
            fs::remove_dir_all(cache).expect("removable");
        }
        let topology = Topology::read(sys.path()).expect("readable");
        let groups: Vec<_> = topology.cpus().map(|cpu| cpu.l3.0).collect();
        assert_eq!(groups, [0, 0, 0, 0, 4, 4, 4, 4]);
    }

    #[test]
    fn an_l3_cache_across_two_nodes_is_two_groups() {
        let sys = tempfile::tempdir().expect("a temporary directory");
        let split = machine(2, 1, 2, 1);
        let one = Topology::of(split.cpus().map(|cpu| Cpu { l3: L3Id(0), ..*cpu }));
        write_sysfs(sys.path(), &one);
        let topology = Topology::read(sys.path()).expect("readable");
        let groups: Vec<_> = topology.cpus().map(|cpu| (cpu.l3.0, cpu.node.0)).collect();
        assert_eq!(groups, [(0, 0), (0, 0), (2, 1), (2, 1)]);
    }

    #[test]
    fn a_machine_of_which_only_the_cpus_are_told_is_one_group() {
        let sys = tempfile::tempdir().expect("a temporary directory");
        let cpu = sys.path().join("devices/system/cpu");
        fs::create_dir_all(&cpu).expect("writable");
        fs::write(cpu.join("online"), "0-3\n").expect("writable");
        let topology = Topology::read(sys.path()).expect("readable");
        assert!(topology.cpus().all(|cpu| cpu.l3 == L3Id(0) && cpu.node == NodeId(0)));
        assert!(topology.cpus().all(|cpu| cpu.core == cpu.number));
    }

    #[test]
    fn a_part_of_a_machine_is_a_machine() {
        let part = machine(2, 2, 2, 2).within(&"1,3,5-7,9,13".parse().expect("a list"));
        let told: Vec<_> =
            part.cpus().map(|cpu| (cpu.number, cpu.core, cpu.l3.0, cpu.node.0)).collect();
        assert_eq!(
            told,
            [
                (1, 1, 1, 0),
                (3, 3, 3, 0),
                (5, 5, 5, 1),
                (6, 6, 6, 1),
                (7, 7, 6, 1),
                (9, 1, 1, 0),
                (13, 5, 5, 1)
            ]
        );
        let all = machine(2, 2, 2, 2);
        assert_eq!(all.within(&all.cpu_set()), all);
    }

    #[test]
    fn this_machine_is_understood() {
        let topology = Topology::read(Path::new("/sys")).expect("readable");
        let allowed = crate::allowed_cpus().expect("always readable");
        assert!(allowed.minus(&topology.cpu_set()).is_empty());
        assert!(topology.cpus().all(|cpu| topology.cpu(cpu.core).is_some()));
    }
}
