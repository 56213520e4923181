//! Hardware files: a machine as TOML that people read and write.
//!
//! Regular machines need few lines: cpus by node, cores for each L3 cache, threads for each core.
//! What is not regular is listed: `l3` has the cpus of each L3 cache, `cores` the hardware threads
//! of each core.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use seal_host::{Cpu, CpuSet, L3Id, NodeId, Topology};
use seal_types::{shown, shown_reason};
use serde::{Deserialize, Serialize};

use super::{Disk, Gpu, Hardware, HugePages, L3Group, Node};
use crate::Bytes;

/// A hardware file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HardwareError {
    /// It cannot be read.
    #[error("cannot read the hardware file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// It is not TOML, or has keys or values that it cannot have.
    #[error("{}:{line}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// What it says of a key does not fit the rest.
    #[error("{}: {key}: {reason}", path.display())]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What does not fit.
        reason: String,
    },
}

/// The file as it is written.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instructions: Option<BTreeSet<String>>,
    memory: Bytes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    usable_memory: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cores_per_l3: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    threads_per_core: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    l3: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cores: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    limits: Vec<String>,
    numa_nodes: Vec<WrittenNode>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gpus: Vec<WrittenGpu>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    disks: Vec<WrittenDisk>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenNode {
    id: u32,
    cpus: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    socket: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    usable_memory: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    huge_pages: Vec<WrittenHugePages>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenHugePages {
    size: Bytes,
    total: u64,
    free: u64,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenGpu {
    index: u32,
    model: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uuid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    numa_node: Option<u32>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenDisk {
    path: PathBuf,
    size: Bytes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    free: Option<Bytes>,
}

/// Reads the hardware file `path`.
pub fn load(path: &Path) -> Result<Hardware, HardwareError> {
    let text = seal_host::read_text(path)
        .map_err(|error| HardwareError::Read { path: path.to_path_buf(), source: error.source })?;
    parse(path, &text)
}

/// Reads a hardware file's `text`; `path` is for messages.
pub fn parse(path: &Path, text: &str) -> Result<Hardware, HardwareError> {
    let written: Written = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        HardwareError::Syntax {
            path: path.to_path_buf(),
            line: text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1,
            reason: shown_reason(&error.message().trim().replace('\n', ", ")),
        }
    })?;
    understand(written).map_err(|(key, reason)| HardwareError::Contradiction {
        path: path.to_path_buf(),
        key: shown(&key).into_owned(),
        reason: shown_reason(&reason),
    })
}

/// What does not fit: the key, and why.
type Misfit = (String, String);

fn misfit(key: &str, reason: impl Into<String>) -> Misfit {
    (key.to_owned(), reason.into())
}

fn understand(written: Written) -> Result<Hardware, Misfit> {
    let usable = written.usable_memory.unwrap_or(written.memory);
    if usable > written.memory {
        return Err(misfit("usable_memory", "is more than memory"));
    }
    let nodes = read_nodes(&written, usable)?;
    let topology = read_topology(&written)?;
    let ids: BTreeSet<_> = nodes.iter().map(|node| node.id).collect();
    let mut seen = BTreeSet::new();
    let mut gpus = Vec::new();
    for (at, gpu) in written.gpus.into_iter().enumerate() {
        let node = gpu.numa_node.map(NodeId);
        if node.is_some_and(|node| !ids.contains(&node)) {
            return Err(misfit(&format!("gpus[{at}].numa_node"), "is not among numa_nodes"));
        }
        if !seen.insert(gpu.index) {
            return Err(misfit(&format!("gpus[{at}].index"), "another GPU has this index"));
        }
        let WrittenGpu { index, model, uuid, memory, .. } = gpu;
        gpus.push(Gpu { index, model, uuid, memory, node });
    }
    gpus.sort_by_key(|gpu| gpu.index);
    let mut disks = Vec::new();
    for (at, disk) in written.disks.into_iter().enumerate() {
        let free = disk.free.unwrap_or(disk.size);
        if free > disk.size {
            return Err(misfit(&format!("disks[{at}].free"), "is more than size"));
        }
        disks.push(Disk { path: disk.path, size: disk.size, free });
    }
    let instructions = written.instructions.map(with_fma);
    let (name, limits) = (written.name, written.limits);
    Ok(Hardware { name, instructions, topology, nodes, gpus, disks, limits })
}

/// The same with FMA where AVX2 is named: every processor of AMD or Intel that has the one has the
/// other, and files of earlier versions do not name it.
fn with_fma(mut names: BTreeSet<String>) -> BTreeSet<String> {
    if names.contains("avx2") {
        names.insert("fma".to_owned());
    }
    names
}

fn read_nodes(written: &Written, usable: Bytes) -> Result<Vec<Node>, Misfit> {
    let count = written.numa_nodes.len() as u64;
    if count == 0 {
        return Err(misfit("numa_nodes", "a machine has at least one node"));
    }
    let given: Vec<_> = written.numa_nodes.iter().filter_map(|node| node.memory).collect();
    if !given.is_empty() && given.len() as u64 != count {
        return Err(misfit("numa_nodes", "give memory for all nodes or for none"));
    }
    if !given.is_empty() && given.iter().copied().sum::<Bytes>() != written.memory {
        return Err(misfit("memory", "is not the sum of the nodes' memory"));
    }
    let mut nodes = Vec::new();
    for (at, node) in written.numa_nodes.iter().enumerate() {
        let key = |name: &str| format!("numa_nodes[{at}].{name}");
        let memory = node.memory.unwrap_or(written.memory.part(1, count));
        let own = usable.part(memory.0, written.memory.0);
        let usable = node.usable_memory.unwrap_or(own);
        if usable > memory {
            return Err(misfit(&key("usable_memory"), "is more than the node's memory"));
        }
        let id = NodeId(node.id);
        if nodes.iter().any(|other: &Node| other.id == id) {
            return Err(misfit(&key("id"), "another node has this id"));
        }
        let pages = |pages: &WrittenHugePages| {
            (pages.size, HugePages { total: pages.total, free: pages.free })
        };
        let huge_pages: BTreeMap<_, _> = node.huge_pages.iter().map(pages).collect();
        // Without word of sockets every node is one.
        let socket = node.socket.unwrap_or(node.id);
        nodes.push(Node { id, socket, memory, usable, huge_pages });
    }
    nodes.sort_by_key(|node| node.id);
    Ok(nodes)
}

fn read_topology(written: &Written) -> Result<Topology, Misfit> {
    let irregular = !written.cores.is_empty();
    if irregular && (written.threads_per_core.is_some() || written.cores_per_l3.is_some()) {
        let reason = "cores lists every core: leave out threads_per_core and cores_per_l3";
        return Err(misfit("cores", reason));
    }
    if !written.l3.is_empty() && written.cores_per_l3.is_some() {
        return Err(misfit("l3", "lists every L3 cache: leave out cores_per_l3"));
    }
    let mut cpus: BTreeMap<u32, Cpu> = BTreeMap::new();
    for (at, node) in written.numa_nodes.iter().enumerate() {
        let key = format!("numa_nodes[{at}].cpus");
        for cpu in regular_cpus(written, node, &key)? {
            if cpus.insert(cpu.number, cpu).is_some() {
                return Err(misfit(&key, format!("cpu {} is in another node too", cpu.number)));
            }
        }
    }
    for members in sets(&written.cores, "cores", &cpus)? {
        let core = members.first().unwrap_or_default();
        members.iter().for_each(|cpu| change(&mut cpus, cpu, |cpu| cpu.core = core));
    }
    for members in sets(&written.l3, "l3", &cpus)? {
        let l3 = L3Id(members.first().unwrap_or_default());
        members.iter().for_each(|cpu| change(&mut cpus, cpu, |cpu| cpu.l3 = l3));
    }
    for cpu in cpus.values() {
        let place = |number: u32| cpus.get(&number).map(|cpu| (cpu.l3, cpu.node));
        if place(cpu.core) != place(cpu.number) {
            let reason = format!("threads of core {} do not share L3 cache and node", cpu.core);
            return Err(misfit("cores", reason));
        }
        if place(cpu.l3.0).map(|(_, node)| node) != Some(cpu.node) {
            return Err(misfit("l3", format!("the group of cpu {} spans nodes", cpu.number)));
        }
    }
    Ok(Topology::of(cpus.into_values()))
}

fn change(cpus: &mut BTreeMap<u32, Cpu>, number: u32, how: impl FnOnce(&mut Cpu)) {
    if let Some(cpu) = cpus.get_mut(&number) {
        how(cpu);
    }
}

/// The cpus of a node, as Linux numbers them: the first threads of all cores, then the second ones.
fn regular_cpus(written: &Written, node: &WrittenNode, key: &str) -> Result<Vec<Cpu>, Misfit> {
    let list = CpuSet::of_machine(&node.cpus).map_err(|error| misfit(key, error.to_string()))?;
    let list: Vec<u32> = list.iter().collect();
    let threads = written.threads_per_core.unwrap_or(1) as usize;
    if threads == 0 || !list.len().is_multiple_of(threads) {
        let reason = format!("{} cpus make no cores of {threads} threads", list.len());
        return Err(misfit("threads_per_core", reason));
    }
    let cores = list.len() / threads;
    let per_l3 = written.cores_per_l3.map_or(cores, |cores| cores as usize);
    if per_l3 == 0 || !cores.is_multiple_of(per_l3) {
        let reason = format!("{cores} cores of node {} make no groups of {per_l3}", node.id);
        return Err(misfit("cores_per_l3", reason));
    }
    let cpu = |(place, number): (usize, &u32)| Cpu {
        number: *number,
        core: list[place % cores],
        l3: L3Id(list[place % cores / per_l3 * per_l3]),
        node: NodeId(node.id),
    };
    Ok(list.iter().enumerate().map(cpu).collect())
}

/// Lists of cpus that divide all cpus of the machine among them.
fn sets(lists: &[String], key: &str, cpus: &BTreeMap<u32, Cpu>) -> Result<Vec<CpuSet>, Misfit> {
    let mut seen = BTreeSet::new();
    let mut sets = Vec::new();
    for (at, list) in lists.iter().enumerate() {
        let key = format!("{key}[{at}]");
        let set = CpuSet::of_machine(list).map_err(|error| misfit(&key, error.to_string()))?;
        for cpu in set.iter() {
            if !cpus.contains_key(&cpu) {
                return Err(misfit(&key, format!("cpu {cpu} is in no NUMA node")));
            }
            if !seen.insert(cpu) {
                return Err(misfit(&key, format!("cpu {cpu} is in an earlier list too")));
            }
        }
        sets.push(set);
    }
    if let Some(missing) = cpus.keys().find(|cpu| !lists.is_empty() && !seen.contains(*cpu)) {
        return Err(misfit(key, format!("cpu {missing} is in none of the lists")));
    }
    Ok(sets)
}

/// The hardware file of `hardware`: [`parse`] reads it back.
pub fn write(hardware: &Hardware) -> String {
    // Every value is a number, a text or a table of those.
    let body = toml::to_string(&written(hardware)).unwrap_or_default();
    format!("# A machine, for `seal-plan ... --hardware FILE`.\n{body}")
}

/// The same as one JSON object.
pub fn write_json(hardware: &Hardware) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&written(hardware)).map(|text| text + "\n")
}

fn written(hardware: &Hardware) -> Written {
    let mut written = Written {
        name: hardware.name.clone(),
        instructions: hardware.instructions.clone(),
        memory: hardware.memory(),
        usable_memory: None,
        cores_per_l3: None,
        threads_per_core: None,
        l3: Vec::new(),
        cores: Vec::new(),
        numa_nodes: hardware.nodes.iter().map(|node| write_node(hardware, node)).collect(),
        gpus: hardware.gpus.iter().map(write_gpu).collect(),
        disks: hardware.disks.iter().map(write_disk).collect(),
        limits: hardware.limits.clone(),
    };
    write_topology(hardware, &mut written);
    written
}

/// The regular form where the machine is regular, else lists.
fn write_topology(hardware: &Hardware, written: &mut Written) {
    let groups = hardware.l3_groups();
    let count = |number: usize| u32::try_from(number).ok();
    written.threads_per_core = count(hardware.threads_per_core());
    written.cores_per_l3 = groups.first().and_then(|group| count(group.cores.len()));
    if read_topology(written).is_ok_and(|topology| topology == hardware.topology) {
        return;
    }
    (written.threads_per_core, written.cores_per_l3) = (None, None);
    let cores = groups.iter().flat_map(|group| &group.cores);
    written.cores = cores.map(|core| core.cpus.to_string()).collect();
    let cpus = |group: &L3Group| -> CpuSet {
        group.cores.iter().flat_map(|core| core.cpus.iter().collect::<Vec<_>>()).collect()
    };
    written.l3 = groups.iter().map(|group| cpus(group).to_string()).collect();
}

fn write_node(hardware: &Hardware, node: &Node) -> WrittenNode {
    let cpus: CpuSet =
        hardware.topology.cpus().filter(|cpu| cpu.node == node.id).map(|cpu| cpu.number).collect();
    let pages = |(size, pages): (&Bytes, &HugePages)| WrittenHugePages {
        size: *size,
        total: pages.total,
        free: pages.free,
    };
    WrittenNode {
        id: node.id.0,
        cpus: cpus.to_string(),
        socket: Some(node.socket),
        memory: Some(node.memory),
        usable_memory: Some(node.usable),
        huge_pages: node.huge_pages.iter().map(pages).collect(),
    }
}

fn write_gpu(gpu: &Gpu) -> WrittenGpu {
    WrittenGpu {
        index: gpu.index,
        model: gpu.model.clone(),
        uuid: gpu.uuid.clone(),
        memory: gpu.memory,
        numa_node: gpu.node.map(|node| node.0),
    }
}

fn write_disk(disk: &Disk) -> WrittenDisk {
    WrittenDisk { path: disk.path.clone(), size: disk.size, free: Some(disk.free) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Hardware, String> {
        parse(Path::new("m.toml"), text).map_err(|error| error.to_string())
    }

    fn epyc() -> Hardware {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("machines/epyc7642x2.toml");
        load(&path).expect("a machine of ours")
    }

    #[test]
    fn files_that_do_not_name_fma_have_it_with_avx2() {
        let of = |names: &str| {
            let text = format!(
                "name = 'm'\n{names}\nmemory = '1TiB'\ncores_per_l3 = 8\n\
                 numa_nodes = [{{ id = 0, cpus = '0-15' }}]"
            );
            read(&text).expect("a machine").has("fma")
        };
        assert_eq!(of("instructions = ['avx2', 'sha_ni']"), Some(true));
        assert_eq!(of("instructions = ['avx2', 'fma', 'sha_ni']"), Some(true));
        assert_eq!(of("instructions = ['sha_ni']"), Some(false));
        assert_eq!(of(""), None);
    }

    #[test]
    fn the_machine_of_the_two_schemes_is_understood() {
        let hardware = epyc();
        assert_eq!((hardware.has("fma"), hardware.has("avx512ifma")), (Some(true), Some(false)));
        assert_eq!((hardware.cores(), hardware.threads_per_core()), (96, 1));
        let groups = hardware.l3_groups();
        assert_eq!(groups.len(), 32);
        assert!(groups.iter().all(|group| group.cores.len() == 3));
        assert_eq!((groups[16].id, groups[16].node), (L3Id(48), NodeId(1)));
        assert_eq!(hardware.memory(), Bytes::gib(2048));
        assert_eq!(hardware.usable().to_string(), "1.96 TiB");
        assert_eq!(hardware.sockets().len(), 2);
        assert_eq!(hardware.gpu_named("1").and_then(|gpu| gpu.node), Some(NodeId(1)));
    }

    #[test]
    fn second_threads_come_after_all_cores_of_the_node() {
        let hardware = read(
            "name = 'm'\nmemory = '64GiB'\ncores_per_l3 = 2\nthreads_per_core = 2\n\
             numa_nodes = [{ id = 0, cpus = '0-3,8-11' }, { id = 1, cpus = '4-7,12-15' }]",
        )
        .expect("good");
        let cpu = |number| hardware.topology.cpu(number).expect("there");
        assert_eq!((cpu(10).core, cpu(10).l3), (2, L3Id(2)));
        assert_eq!((cpu(13).core, cpu(13).l3, cpu(13).node), (5, L3Id(4), NodeId(1)));
    }

    #[test]
    fn what_a_file_holds_is_not_repeated_whole() {
        let long = "x".repeat(1 << 20);
        let good = "name = 'm'\nmemory = '64GiB'\nnuma_nodes = [{ id = 0, cpus = '0-3' }]\n";
        for text in [
            format!("{good}{long} = 1"),
            format!("{good}{long}"),
            good.replace("64GiB", &long),
            good.replace("0-3", &long),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.len() < 1024, "{} bytes", error.len());
            assert!(error.contains("m.toml") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_key() {
        let good = "name = 'm'\nmemory = '64GiB'\nnuma_nodes = [{ id = 0, cpus = '0-3' }]\n";
        assert!(read(good).is_ok());
        let node = |rest: &str| {
            format!("name = 'm'\nmemory = '64GiB'\nnuma_nodes = [{{ id = 0, cpus = '0-3' }}{rest}]")
        };
        for (text, message) in [
            (format!("{good}memry = '1GiB'"), "m.toml:4: unknown field `memry`"),
            (good.replace("64GiB", "64GB"), "m.toml:2: \"64GB\" is not a size"),
            (good.replace("0-3", "3-0"), "numa_nodes[0].cpus: the range \"3-0\" runs backwards"),
            (format!("{good}cores_per_l3 = 3"), "cores_per_l3: 4 cores of node 0 make no groups"),
            (format!("{good}cores_per_l3 = 0"), "cores_per_l3: 4 cores"),
            (format!("{good}threads_per_core = 3"), "threads_per_core: 4 cpus make no cores of 3"),
            (format!("{good}usable_memory = '65GiB'"), "usable_memory: is more than memory"),
            (format!("{good}l3 = ['0-1']"), "l3: cpu 2 is in none of the lists"),
            (format!("{good}l3 = ['0-1', '1-3']"), "l3[1]: cpu 1 is in an earlier list too"),
            (format!("{good}l3 = ['0-4']"), "l3[0]: cpu 4 is in no NUMA node"),
            (format!("{good}l3 = ['0-3']\ncores_per_l3 = 2"), "l3: lists every L3 cache"),
            (format!("{good}cores = ['0-3']\nthreads_per_core = 4"), "cores: cores lists every"),
            (
                format!("{good}cores = ['0,1', '2,3']\nl3 = ['0,2', '1,3']"),
                "cores: threads of core 0 do not share",
            ),
            (node(", { id = 0, cpus = '4' }"), "numa_nodes[1].id: another node has this id"),
            (node(", { id = 1, cpus = '3' }"), "numa_nodes[1].cpus: cpu 3 is in another node too"),
            (node(", { id = 1, cpus = '4', memory = '1GiB' }"), "memory for all nodes or for none"),
            (
                node(", { id = 1, cpus = '4' }").replace("64GiB'", "64GiB'\nl3 = ['0-4']"),
                "l3: the group of cpu 4 spans nodes",
            ),
            (
                format!("{good}gpus = [{{ index = 0, model = 'x', numa_node = 1 }}]"),
                "gpus[0].numa_node: is not among numa_nodes",
            ),
            (
                format!("{good}disks = [{{ path = '/', size = '1GiB', free = '2GiB' }}]"),
                "disks[0].free: is more than size",
            ),
            ("name = 'm'\nmemory = '1GiB'\nnuma_nodes = []".to_owned(), "at least one node"),
        ] {
            let error = read(&text).expect_err(&text);
            assert!(error.contains(message), "{text}\n   gave {error}\n   not  {message}");
        }
        let error = load(Path::new("/no/such.toml")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the hardware file /no/such.toml");
    }

    /// Nodes of groups of cores, numbered through; second threads next to the first ones or after
    /// all cores.
    fn machine(groups: &[Vec<u32>], threads: u32, adjacent: bool) -> Hardware {
        let total: u32 = groups.iter().flatten().sum();
        let mut cpus = Vec::new();
        let mut core = 0;
        for (node, groups) in (0..).zip(groups) {
            for size in groups {
                let first = core;
                for _ in 0..*size {
                    for thread in 0..threads {
                        let number = |core| {
                            if adjacent { core * threads + thread } else { core + thread * total }
                        };
                        let lowest = |core| if adjacent { core * threads } else { core };
                        cpus.push(Cpu {
                            number: number(core),
                            core: lowest(core),
                            l3: L3Id(lowest(first)),
                            node: NodeId(node),
                        });
                    }
                    core += 1;
                }
            }
        }
        let nodes = (0..).zip(groups).map(|(id, _)| Node {
            id: NodeId(id),
            socket: id / 2,
            memory: Bytes::gib(64),
            usable: Bytes::gib(60),
            huge_pages: BTreeMap::from([(Bytes::gib(1), HugePages { total: 4, free: 1 })]),
        });
        Hardware {
            name: "a \"quoted\" name".to_owned(),
            instructions: Some(BTreeSet::from(["sha_ni".to_owned()])),
            nodes: nodes.collect(),
            topology: Topology::of(cpus),
            limits: vec!["memory 4 GiB".to_owned()],
            gpus: vec![Gpu {
                index: 0,
                model: "G".to_owned(),
                uuid: Some("GPU-1".to_owned()),
                memory: Some(Bytes::gib(10)),
                node: Some(NodeId(0)),
            }],
            disks: vec![Disk { path: "/mnt".into(), size: Bytes::gib(9), free: Bytes(7) }],
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            groups in prop::collection::vec(prop::collection::vec(1_u32..5, 1..4), 1..4),
            threads in 1_u32..3,
            adjacent: bool,
        ) {
            let hardware = machine(&groups, threads, adjacent);
            let text = write(&hardware);
            prop_assert_eq!(read(&text), Ok(hardware), "{}", text);
        }

        #[test]
        fn reading_never_panics(text in "(name = 'm'\n|memory = '1GiB'\n|(l3|cores) = \\['[0-9,-]{0,4}'\\]\n|cores_per_l3 = [0-4]\n|numa_nodes = \\[\\{ id = [0-9], cpus = '[0-9,-]{0,5}' \\}\\]\n){0,7}") {
            let _ = read(&text);
        }
    }
}
