//! A machine as a tree for people.

use std::fmt::Write;

use super::{Hardware, L3Group, Node};
use seal_host::CpuSet;

/// The machine as a tree.
pub fn show(hardware: &Hardware) -> String {
    let mut text = format!("{}\n", hardware.name);
    let mut line = |depth: usize, words: String| {
        let _ = writeln!(text, "{}{words}", "  ".repeat(depth));
    };
    let threads = hardware.threads_per_core();
    line(
        1,
        format!(
            "{} cores of {threads} thread(s), {} L3 groups, {} memory ({} usable)",
            hardware.cores(),
            hardware.l3_groups().len(),
            hardware.memory(),
            hardware.usable()
        ),
    );
    for limit in &hardware.limits {
        line(1, format!("limited: {limit}"));
    }
    if let Some(names) = &hardware.instructions {
        let has = |name: &str, what: &str| {
            let answer = if names.contains(name) { "yes" } else { "no" };
            format!("{what} {answer}")
        };
        let sets = [
            has("sha_ni", "SHA-NI"),
            has("avx2", "AVX2"),
            has("fma", "FMA"),
            has("avx512f", "AVX-512"),
            has("avx512ifma", "AVX-512 IFMA"),
        ];
        line(1, format!("instructions: {}", sets.join(", ")));
    }
    for (socket, nodes) in hardware.sockets() {
        line(1, format!("socket {socket}"));
        for node in nodes {
            line(2, format!("NUMA node {}: {} ({} usable)", node.id, node.memory, node.usable));
            line(3, huge_pages(node));
            for words in l3_lines(&hardware.l3_groups_of(node.id)) {
                line(3, words);
            }
            for gpu in hardware.gpus.iter().filter(|gpu| gpu.node == Some(node.id)) {
                line(3, gpu.to_string());
            }
        }
    }
    for gpu in hardware.gpus.iter().filter(|gpu| gpu.node.is_none()) {
        line(1, format!("{gpu}, at an unknown NUMA node"));
    }
    if hardware.gpus.is_empty() {
        line(1, "no GPU".to_owned());
    }
    for disk in &hardware.disks {
        line(1, format!("disk {}: {} of {} free", disk.path.display(), disk.free, disk.size));
    }
    text
}

fn huge_pages(node: &Node) -> String {
    if node.huge_pages.is_empty() {
        return "no huge pages set aside".to_owned();
    }
    let pages = node.huge_pages.iter().map(|(size, pages)| {
        format!("{} of {} huge pages of {size} free", pages.free, pages.total)
    });
    pages.collect::<Vec<_>>().join(", ")
}

/// One line for each group, or one for all that are alike and follow each other.
fn l3_lines(groups: &[L3Group]) -> Vec<String> {
    let cpus = |group: &L3Group| -> CpuSet {
        group.cores.iter().flat_map(|core| core.cpus.iter().collect::<Vec<_>>()).collect()
    };
    let mut lines = Vec::new();
    for run in groups.chunk_by(|a, b| a.cores.len() == b.cores.len()) {
        let size = run[0].cores.len();
        let core = if size == 1 { "core" } else { "cores" };
        match run {
            [one] => lines.push(format!("L3 group of {size} {core}: cpus {}", cpus(one))),
            [first, .., last] => lines.push(format!(
                "{} L3 groups of {size} {core}: cpus {} to {}",
                run.len(),
                cpus(first),
                cpus(last)
            )),
            [] => {}
        }
    }
    lines
}

impl std::fmt::Display for super::Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GPU {}: {}", self.index, self.model)?;
        if let Some(memory) = self.memory {
            write!(f, ", {memory}")?;
        }
        self.uuid.as_ref().map_or(Ok(()), |uuid| write!(f, ", {uuid}"))
    }
}
