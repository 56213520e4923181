//! What a support bundle tells of the machine, as the kernel tells it.

use std::fmt::Write;
use std::io::{self, Read};
use std::path::Path;

use seal_host::{
    FileSystem, NodeId, allowed_cpus, free_bytes, node_cpus, online_cpus, online_nodes, open_input,
};

/// No file of the kernel that is read whole is longer.
const LONGEST: u64 = 64 << 10;

/// Instructions of the processor that change what is computed with.
const FLAGS: [&str; 9] =
    ["sha_ni", "avx2", "fma", "avx512f", "avx512ifma", "avx512vl", "adx", "bmi2", "hypervisor"];

/// All of it; `dirs` are the directories that sealing uses.
pub(super) fn machine(dirs: &[String]) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    };
    let kernel = ["ostype", "osrelease", "version"].map(|name| {
        read(&format!("/proc/sys/kernel/{name}")).unwrap_or_default().trim().to_owned()
    });
    line(format!("kernel: {}", kernel.join(" ")));
    let cpuinfo = read("/proc/cpuinfo").unwrap_or_default();
    let of_cpu = |name: &str| {
        cpuinfo.lines().find_map(|line| Some(line.strip_prefix(name)?.split_once(':')?.1.trim()))
    };
    line(format!("processor: {}", of_cpu("model name").unwrap_or("unknown")));
    line(format!("microcode: {}", of_cpu("microcode").unwrap_or("unknown")));
    let flags: Vec<_> = of_cpu("flags").unwrap_or_default().split(' ').collect();
    let flags: Vec<_> = FLAGS.into_iter().filter(|flag| flags.contains(flag)).collect();
    line(format!("instructions: {}", flags.join(" ")));
    let sys = Path::new("/sys");
    let told = |cpus: Result<String, String>| cpus.unwrap_or_else(|error| error);
    line(format!(
        "cpus online: {}",
        told(online_cpus(sys).map(|it| it.to_string()).map_err(|it| it.to_string()))
    ));
    line(format!(
        "cpus allowed: {}",
        told(allowed_cpus().map(|it| it.to_string()).map_err(|it| it.to_string()))
    ));
    for node in online_nodes(sys).unwrap_or_default() {
        let cpus = node_cpus(sys, node).map(|cpus| cpus.to_string());
        line(format!("node {node}: cpus {}", told(cpus.map_err(|error| error.to_string()))));
        line(indented(&node_memory(node)));
    }
    for (file, wanted) in [
        ("/proc/meminfo", &["MemTotal", "MemFree", "MemAvailable", "HugePages", "Swap"][..]),
        ("/proc/self/limits", &["Max open", "Max locked", "Max processes", "Max address"]),
        ("/proc/self/cgroup", &[""]),
        ("/sys/fs/cgroup/memory.max", &[""]),
        ("/sys/fs/cgroup/cpu.max", &[""]),
        ("/sys/fs/cgroup/pids.max", &[""]),
        ("/sys/kernel/mm/transparent_hugepage/enabled", &[""]),
        ("/proc/driver/nvidia/version", &[""]),
        ("/proc/uptime", &[""]),
    ] {
        line(format!("{file}:"));
        line(match read(file) {
            Ok(content) => indented(&lines_of(&content, wanted)),
            Err(error) => format!("    {error}"),
        });
    }
    line("file systems:".to_owned());
    for dir in dirs {
        let path = Path::new(dir);
        let kind = FileSystem::of(path).map(|found| found.to_string());
        let kind = told(kind.map_err(|error| error.to_string()));
        // Of one that is not there yet, where it would be made.
        let there = path.ancestors().find(|dir| dir.exists()).unwrap_or(path);
        let free = free_bytes(there).map(|free| format!("{} GiB free", free >> 30));
        line(format!("    {dir}: {kind}, {}", told(free.map_err(|error| error.to_string()))));
    }
    text
}

fn node_memory(node: NodeId) -> String {
    let content = read(&format!("/sys/devices/system/node/node{node}/meminfo"));
    content.map_or_else(
        |error| error.to_string(),
        |it| lines_of(&it, &["MemTotal", "MemFree", "HugePages"]),
    )
}

fn lines_of(content: &str, wanted: &[&str]) -> String {
    let is_wanted = |line: &&str| wanted.iter().any(|word| line.contains(word));
    content.lines().filter(is_wanted).collect::<Vec<_>>().join("\n")
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

fn read(path: &str) -> io::Result<String> {
    let mut text = Vec::new();
    let file = open_input(Path::new(path)).map_err(|error| error.source)?;
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
