//! Descriptions of machines that are not there.

use std::fs;
use std::io;
use std::path::Path;

/// Writes under `root` what sysfs says of a machine: `node_cpus` are the cpus of its NUMA nodes
/// as the kernel lists them, for example `["0-47", "48-95"]`.
pub fn write_sysfs(root: &Path, online: &str, node_cpus: &[&str]) -> io::Result<()> {
    let cpu = root.join("devices/system/cpu");
    fs::create_dir_all(&cpu)?;
    fs::write(cpu.join("online"), format!("{online}\n"))?;
    let nodes = root.join("devices/system/node");
    fs::create_dir_all(&nodes)?;
    let last = node_cpus.len().saturating_sub(1);
    fs::write(nodes.join("online"), format!("0-{last}\n"))?;
    for (number, cpus) in node_cpus.iter().enumerate() {
        let node = nodes.join(format!("node{number}"));
        fs::create_dir_all(&node)?;
        fs::write(node.join("cpulist"), format!("{cpus}\n"))?;
    }
    Ok(())
}
