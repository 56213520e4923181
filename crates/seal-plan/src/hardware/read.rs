//! The machine we are on, as sysfs and procfs tell of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use seal_host::{
    CpuBudget, CpuQuota, FileError, GroupMemory, MemoryBudget, NodeId, NodeMemory, Roots, Topology,
};

use super::{Disk, Gpu, Hardware, HugePages, Node};
use crate::Bytes;

/// Instruction sets that our kernels choose by.
const INSTRUCTIONS: [&str; 5] = ["sha_ni", "avx2", "fma", "avx512f", "avx512ifma"];

/// Reads the machine that `roots` tell of, with the file systems that hold `disks`, each once, and
/// the GPUs that were found.
pub fn read(roots: &Roots, disks: &[PathBuf], gpus: Vec<Gpu>) -> Result<Hardware, FileError> {
    let all = Topology::read(&roots.sys)?;
    let mut limits = Vec::new();
    let (topology, limit) = granted(roots, all);
    limits.extend(limit);
    let ids = topology.nodes_of(&topology.cpu_set());
    let mut nodes = Vec::new();
    for id in &ids {
        nodes.push(read_node(roots, &topology, *id)?);
    }
    let cpuinfo = read_text(&roots.proc.join("cpuinfo"))?;
    let line = |key: &str| {
        cpuinfo.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == key).then(|| value.trim().to_owned())
        })
    };
    let instructions: Option<BTreeSet<String>> = line("flags").map(|flags| {
        let has = |name: &&str| flags.split_ascii_whitespace().any(|flag| flag == *name);
        INSTRUCTIONS.into_iter().filter(has).map(str::to_owned).collect()
    });
    let mut hardware = Hardware {
        name: String::new(),
        instructions,
        topology,
        nodes,
        gpus,
        disks: file_systems(disks)?
            .first
            .iter()
            .map(|path| read_disk(path))
            .collect::<Result<_, _>>()?,
        limits,
    };
    limit_memory(roots, &mut hardware)?;
    let model = line("model name").unwrap_or_else(|| "unknown processor".to_owned());
    hardware.name = name(&hardware, &model);
    Ok(hardware)
}

/// The cpus that processes of this session can have, and what to say if these are not all.
fn granted(roots: &Roots, all: Topology) -> (Topology, Option<String>) {
    let there = all.cpu_set();
    // A machine that is only described is not this one, whose kernel would be asked.
    let budget = if *roots == Roots::default() {
        CpuBudget::to_give(roots, &there).ok()
    } else {
        Some(CpuBudget { cpus: there.clone(), quota: CpuQuota::least(roots) })
    };
    let Some(budget) = budget.filter(|budget| !budget.cpus.is_empty()) else { return (all, None) };
    let topology = all.within(&budget.cpus);
    let cores: BTreeSet<_> = topology.cpus().map(|cpu| cpu.core).collect();
    if budget.cpus != there {
        let text = format!(
            "cpus {}: those that the cpuset of this process's cgroup grants, the machine has {there}",
            budget.cpus
        );
        return (topology, Some(text));
    }
    (topology, budget.warning(cores.len()))
}

/// Leaves nodes no more than the cgroups above this process allow. Huge pages are not counted
/// there; what is limited may lie on any node, so that each gets its part.
fn limit_memory(roots: &Roots, hardware: &mut Hardware) -> Result<(), FileError> {
    let groups = GroupMemory::above(roots);
    let usable = groups.iter().map(|group| group.limit.saturating_sub(group.default_reserve()));
    let Some(usable) = usable.min().map(Bytes) else { return Ok(()) };
    let ordinary = hardware.ordinary();
    if usable >= ordinary {
        return Ok(());
    }
    for node in &mut hardware.nodes {
        node.usable = node.set_aside() + usable.part(node.ordinary().0, ordinary.0);
    }
    let budget = MemoryBudget::of(roots, None)?;
    hardware.limits.push(format!(
        "memory {}: limit of {}, the machine has {}",
        Bytes(budget.bytes),
        budget.by,
        Bytes(budget.there)
    ));
    Ok(())
}

/// `2 x AMD EPYC 7642 48-Core Processor, 2 TiB, 2 x GeForce RTX 3080`.
fn name(hardware: &Hardware, model: &str) -> String {
    let mut models: BTreeMap<&str, usize> = BTreeMap::new();
    for gpu in &hardware.gpus {
        *models.entry(&gpu.model).or_default() += 1;
    }
    let gpus = models.iter().map(|(model, count)| format!("{count} x {model}"));
    let machine = format!("{} x {model}", hardware.sockets().len());
    let parts = [machine, hardware.memory().to_string()];
    parts.into_iter().chain(gpus).collect::<Vec<_>>().join(", ")
}

fn read_node(roots: &Roots, topology: &Topology, id: NodeId) -> Result<Node, FileError> {
    let dir = roots.sys.join(format!("devices/system/node/node{id}"));
    // A kernel without NUMA support has one node and no directory for it.
    let known = dir.exists();
    let memory = NodeMemory::read(roots, known.then_some(id))?;
    let total = Bytes(memory.total);
    let cpu = topology.cpus().find(|cpu| cpu.node == id).map_or(0, |cpu| cpu.number);
    let package =
        roots.sys.join(format!("devices/system/cpu/cpu{cpu}/topology/physical_package_id"));
    let huge = if known { dir.join("hugepages") } else { roots.sys.join("kernel/mm/hugepages") };
    Ok(Node {
        id,
        // Virtual machines may not know their packages, and some count them as -1.
        socket: read_number(&package)?.unwrap_or(0),
        memory: total,
        usable: total.less(Bytes(memory.default_reserve())),
        huge_pages: read_huge_pages(&huge)?,
    })
}

fn read_huge_pages(dir: &Path) -> Result<BTreeMap<Bytes, HugePages>, FileError> {
    let mut pages = BTreeMap::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(pages),
        Err(error) => return Err(FileError::of("list", dir)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(FileError::of("list", dir))?;
        let name = entry.file_name();
        let size = name.to_str().and_then(|name| {
            name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok()
        });
        let Some(size) = size else { continue };
        let count = |file: &str| read_number(&entry.path().join(file));
        let (total, free) = (count("nr_hugepages")?, count("free_hugepages")?);
        let [total, free] = [total, free].map(|count| count.unwrap_or(0));
        if total > 0 {
            pages.insert(Bytes(size << 10), HugePages { total, free });
        }
    }
    Ok(pages)
}

/// Directories with those before them that are on the same file system: its space counts once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSystems {
    /// One directory of each file system, in the order in which they were named.
    pub first: Vec<PathBuf>,
    /// The others, each with the one of `first` that stands for its file system.
    pub again: Vec<(PathBuf, PathBuf)>,
}

/// Sorts out which of `paths` are on the same file system.
///
/// # Errors
/// When a directory is not there, or its file system cannot be asked.
pub fn file_systems(paths: &[PathBuf]) -> Result<FileSystems, FileError> {
    let mut seen: Vec<(u64, u64, PathBuf)> = Vec::new();
    let mut found = FileSystems::default();
    for path in paths {
        let device = path.metadata().map_err(FileError::of("look at", path))?.dev();
        let id = query(path)?.filesystem_id();
        // Some file systems have no id of their own; 0 says nothing.
        let same = |(other, other_id): (u64, u64)| device == other || (id != 0 && id == other_id);
        match seen.iter().find(|(device, id, _)| same((*device, *id))) {
            Some((_, _, first)) => found.again.push((path.clone(), first.clone())),
            None => {
                seen.push((device, id, path.clone()));
                found.first.push(path.clone());
            }
        }
    }
    Ok(found)
}

fn query(path: &Path) -> Result<nix::sys::statvfs::Statvfs, FileError> {
    statvfs(path).map_err(|errno| FileError::of("query the file system of", path)(errno.into()))
}

fn read_disk(path: &Path) -> Result<Disk, FileError> {
    let stat = query(path)?;
    Ok(Disk {
        path: path.to_path_buf(),
        size: Bytes(stat.blocks() * stat.fragment_size()),
        free: Bytes(stat.blocks_available() * stat.fragment_size()),
    })
}

fn read_text(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(FileError::of("read", path))
}

/// The number in a file, if there is such a file and such a number.
fn read_number<T: std::str::FromStr>(path: &Path) -> Result<Option<T>, FileError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::of("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::{self, find_gpus};

    fn write(path: PathBuf, text: &str) {
        fs::create_dir_all(path.parent().expect("below the root")).expect("writable");
        fs::write(path, text).expect("writable");
    }

    const MEMINFO: &str = "MemTotal: 67108864 kB\nMemFree: 1 kB\nActive(file): 1 kB\n\
                           Inactive(file): 1 kB\nSReclaimable: 1 kB\n";

    #[test]
    fn a_described_machine_is_read_and_shown() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let roots = Roots { sys: root.path().join("sys"), proc: root.path().join("proc") };
        let system = roots.sys.join("devices/system");
        write(system.join("cpu/online"), "0-3\n");
        write(system.join("node/online"), "0-1\n");
        for (node, cpus) in [(0, "0-1"), (1, "2-3")] {
            let dir = system.join(format!("node/node{node}"));
            write(dir.join("cpulist"), cpus);
            let prefix = |line: &str| format!("Node {node} {line}\n");
            let meminfo: String = MEMINFO.lines().map(prefix).collect();
            write(dir.join("meminfo"), &meminfo);
            write(dir.join("hugepages/hugepages-1048576kB/nr_hugepages"), "56\n");
            write(dir.join("hugepages/hugepages-1048576kB/free_hugepages"), "54\n");
            write(dir.join("hugepages/hugepages-2048kB/nr_hugepages"), "0\n");
        }
        for cpu in 0..4 {
            let dir = system.join(format!("cpu/cpu{cpu}"));
            write(dir.join("topology/physical_package_id"), &format!("{}\n", cpu / 2));
            write(dir.join("cache/index3/level"), "3\n");
            let shared = if cpu < 2 { "0-1" } else { "2-3" };
            write(dir.join("cache/index3/shared_cpu_list"), shared);
        }
        let cpuinfo = "processor : 0\nmodel name\t: EPYC\nflags\t\t: fpu sha_ni avx2 fma sse\n";
        write(roots.proc.join("cpuinfo"), cpuinfo);
        let disk = [root.path().to_path_buf()];
        let hardware = read(&roots, &disk, Vec::new()).expect("readable");
        assert_eq!(hardware.name, "2 x EPYC, 128 GiB");
        assert_eq!((hardware.has("sha_ni"), hardware.has("avx512ifma")), (Some(true), Some(false)));
        let pages = hardware.nodes[1].huge_pages[&Bytes::gib(1)];
        assert_eq!((pages.total, pages.free), (56, 54));
        assert!(hardware.disks[0].size >= hardware.disks[0].free);
        let text = hardware::show(&hardware);
        let expected = "\
2 x EPYC, 128 GiB
  4 cores of 1 thread(s), 2 L3 groups, 128 GiB memory (127 GiB usable)
  instructions: SHA-NI yes, AVX2 yes, FMA yes, AVX-512 no, AVX-512 IFMA no
  socket 0
    NUMA node 0: 64 GiB (63.4 GiB usable)
      54 of 56 huge pages of 1 GiB free
      L3 group of 2 cores: cpus 0-1
  socket 1
    NUMA node 1: 64 GiB (63.4 GiB usable)
      54 of 56 huge pages of 1 GiB free
      L3 group of 2 cores: cpus 2-3
  no GPU
";
        assert!(text.starts_with(expected), "{text}");
        let again = hardware::parse(Path::new("m.toml"), &hardware::write(&hardware));
        assert_eq!(again.expect("our own"), hardware);

        // In a container, the machine is what its cgroup leaves of it.
        let group = root.path().join("cg");
        let mount = format!("30 24 0:26 / {} rw - cgroup2 cgroup2 rw\n", group.display());
        write(roots.proc.join("self/mountinfo"), &mount);
        write(roots.proc.join("self/cgroup"), "0::/a/b\n");
        write(group.join("a/memory.max"), &format!("{}\n", 10_u64 << 30));
        write(group.join("a/cpu.max"), "250000 100000\n");
        write(roots.proc.join("meminfo"), &MEMINFO.replace("67108864", "134217728"));
        let limited = read(&roots, &disk, Vec::new()).expect("readable");
        assert!(limited.ordinary() <= Bytes::gib(10) && limited.ordinary() > Bytes::gib(9));
        let [cpus, memory] = &limited.limits[..] else { panic!("two: {:?}", limited.limits) };
        assert!(cpus.starts_with("the cpu quota of cgroup /a is 2.500 cpus"), "{cpus}");
        assert_eq!(*memory, "memory 10 GiB: limit of cgroup /a, the machine has 128 GiB");
        assert!(hardware::show(&limited).contains(&format!("  limited: {memory}\n")));
        let again = hardware::parse(Path::new("m.toml"), &hardware::write(&limited));
        assert_eq!(again.expect("our own"), limited);
    }

    #[test]
    fn this_machine_is_read() {
        let roots = Roots::default();
        let hardware = read(&roots, &["/".into()], find_gpus(&roots)).expect("readable");
        assert!(hardware.cores() > 0 && hardware.memory() > Bytes(0));
        assert!(hardware.usable() < hardware.memory());
        let json = hardware::write_json(&hardware).expect("text and numbers");
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["disks"][0]["path"], "/");
    }

    #[test]
    fn a_file_system_counts_once_however_many_of_its_directories_are_named() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let dirs = ["a", "b"].map(|name| root.path().join(name));
        dirs.iter().for_each(|dir| fs::create_dir(dir).expect("writable"));
        let other = PathBuf::from("/proc");
        let named = [dirs[0].clone(), other.clone(), dirs[1].clone(), dirs[0].clone()];
        let found = file_systems(&named).expect("all are there");
        assert_eq!(found.first, [dirs[0].clone(), other]);
        let first = dirs[0].clone();
        assert_eq!(found.again, [(dirs[1].clone(), first.clone()), (first.clone(), first)]);
        let hardware = read(&Roots::default(), &named, Vec::new()).expect("readable");
        assert_eq!(hardware.disks.len(), 2);
    }

    #[test]
    fn a_disk_that_is_not_there_is_named() {
        let error = read(&Roots::default(), &["/no/such".into()], Vec::new()).unwrap_err();
        assert!(error.to_string().contains("/no/such"), "{error}");
    }
}
