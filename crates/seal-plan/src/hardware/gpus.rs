//! NVIDIA GPUs: what the driver's management library tells, or, without it, its files in procfs.
//!
//! The library is loaded at run time; a machine without it has no GPUs that could be used.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use seal_host::{NodeId, Roots};

use super::Gpu;
use crate::Bytes;

/// Under this name every driver installs it; the name without a number comes with toolkits.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// The GPUs of the machine, in the order of their places on the bus, which is the order of
/// `nvidia-smi`. CUDA counts the same way with `CUDA_DEVICE_ORDER=PCI_BUS_ID`, and where all GPUs
/// are of one model.
pub fn find_gpus(roots: &Roots) -> Vec<Gpu> {
    let told = Nvml::builder().lib_path(LIBRARY.as_ref()).init().and_then(|nvml| ask(&nvml, roots));
    told.unwrap_or_else(|_| from_procfs(roots))
}

fn ask(nvml: &Nvml, roots: &Roots) -> Result<Vec<Gpu>, NvmlError> {
    let mut gpus = Vec::new();
    for index in 0..nvml.device_count()? {
        let device = nvml.device_by_index(index)?;
        let bus = device.pci_info()?;
        gpus.push(Gpu {
            index,
            model: device.name()?,
            uuid: device.uuid().ok(),
            memory: device.memory_info().ok().map(|memory| Bytes(memory.total)),
            node: node_of(roots, &bus.bus_id),
        });
    }
    Ok(gpus)
}

/// What the kernel module says of its devices. It does not tell their memory.
fn from_procfs(roots: &Roots) -> Vec<Gpu> {
    let dir = roots.proc.join("driver/nvidia/gpus");
    let mut by_bus = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(text) = fs::read_to_string(entry.path().join("information")) else { continue };
        let line = |key: &str| {
            text.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                (name.trim() == key).then(|| value.trim().to_owned())
            })
        };
        let bus = entry.file_name().to_string_lossy().to_lowercase();
        let model = line("Model").unwrap_or_else(|| "NVIDIA GPU".to_owned());
        // A device that was never opened has question marks in its place.
        let uuid = line("GPU UUID").filter(|uuid| !uuid.contains('?'));
        by_bus.insert(bus, (model, uuid));
    }
    let gpu = |(index, (bus, (model, uuid))): (u32, (String, _))| Gpu {
        index,
        model,
        uuid,
        memory: None,
        node: node_of(roots, &bus),
    };
    (0..).zip(by_bus).map(gpu).collect()
}

/// The NUMA node of a device, by its place on the bus: `00000000:65:00.0` or `0000:65:00.0`.
fn node_of(roots: &Roots, bus: &str) -> Option<NodeId> {
    let (domain, rest) = bus.split_once(':')?;
    let domain = u32::from_str_radix(domain, 16).ok()?;
    let name = format!("{domain:04x}:{}", rest.to_lowercase());
    let path = roots.sys.join("bus/pci/devices").join(name).join("numa_node");
    // -1 where the firmware does not say.
    let node: u32 = fs::read_to_string(Path::new(&path)).ok()?.trim().parse().ok()?;
    Some(NodeId(node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_library_the_module_tells_of_its_devices() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let roots = Roots { sys: root.path().join("sys"), proc: root.path().join("proc") };
        let write = |path: std::path::PathBuf, text: &str| {
            fs::create_dir_all(path.parent().expect("below the root")).expect("writable");
            fs::write(path, text).expect("writable");
        };
        for (bus, uuid) in [("0000:C1:00.0", "GPU-0b"), ("0000:41:00.0", "GPU-????????")] {
            let text = format!("Model: \t\t NVIDIA RTX A5000\nIRQ:   1\nGPU UUID: \t {uuid}\n");
            write(roots.proc.join("driver/nvidia/gpus").join(bus).join("information"), &text);
        }
        write(roots.sys.join("bus/pci/devices/0000:41:00.0/numa_node"), "0\n");
        write(roots.sys.join("bus/pci/devices/0000:c1:00.0/numa_node"), "1\n");
        let gpu = |index, uuid: Option<&str>| Gpu {
            index,
            model: "NVIDIA RTX A5000".to_owned(),
            uuid: uuid.map(str::to_owned),
            memory: None,
            node: Some(NodeId(index)),
        };
        assert_eq!(from_procfs(&roots), [gpu(0, None), gpu(1, Some("GPU-0b"))]);
        assert_eq!(node_of(&roots, "00000000:C1:00.0"), Some(NodeId(1)));
        assert_eq!(node_of(&roots, "00000000:C2:00.0"), None);
    }
}
