//! GPUs that are not there, that two executors use at once, or that nobody uses.

use seal_config::StageName;

use super::{Checking, Severity};
use crate::Executor;
use crate::figures::{fits_c2, gpu_memory_of_c2};

impl Checking<'_> {
    pub(super) fn gpus(&mut self) {
        for executor in self.scheme.executors.clone() {
            self.gpu_there(&executor);
            self.gpu_large_enough(&executor);
            self.gpu_asked_for(&executor);
        }
        self.gpus_shared();
    }

    fn envs(&self, executor: &Executor) -> std::collections::BTreeMap<String, String> {
        let tables = self.config.executors.get(&executor.stage);
        let table = tables.and_then(|tables| tables.get(executor.index));
        table.map(|table| table.envs.clone()).unwrap_or_default()
    }

    fn gpu_there(&mut self, executor: &Executor) {
        let hardware = self.against.hardware;
        let there = match hardware.gpus.as_slice() {
            [] => "the machine has no GPU".to_owned(),
            gpus => {
                let names: Vec<_> = gpus.iter().map(|gpu| gpu.index.to_string()).collect();
                format!("the machine has GPUs {}", names.join(", "))
            }
        };
        let key = format!("{}.envs.CUDA_VISIBLE_DEVICES", executor.key);
        if !executor.missing_gpus.is_empty() {
            self.find(
                ("gpu-missing", Severity::Error),
                &key,
                format!("there is no GPU {}: {there}", executor.missing_gpus.join(", ")),
                "name a GPU that is there, by its index or its UUID",
            );
            return;
        }
        let envs = self.envs(executor);
        let nothing_visible = envs.get("CUDA_VISIBLE_DEVICES").is_some_and(|v| v.trim().is_empty());
        let asks = executor.asks_for_gpu
            && (executor.stage == StageName::Pc2
                || executor.stage == StageName::C2 && executor.ours);
        if asks && executor.gpus.is_empty() {
            let reason = if nothing_visible {
                "asks for a GPU and lets the executor see none".to_owned()
            } else {
                format!("asks for a GPU, and {there}")
            };
            let optional = envs.get("SEAL_GPU").is_some_and(|value| value == "optional");
            let (severity, then) = if optional {
                (Severity::Warning, "it would work on the CPU")
            } else {
                (Severity::Error, "the executor's start would fail")
            };
            self.find(
                ("gpu-missing", severity),
                &format!("{}.envs", executor.key),
                format!("{reason}: {then}"),
                match executor.stage {
                    StageName::C2 => "leave out SEAL_C2_DEVICE and --device, or name a GPU",
                    _ => {
                        "leave out FIL_PROOFS_USE_GPU_COLUMN_BUILDER and \
                         FIL_PROOFS_USE_GPU_TREE_BUILDER, or name a GPU"
                    }
                },
            );
        }
    }

    /// A proof takes a fixed part of the GPU's memory, and where it is not there no proof verifies.
    fn gpu_large_enough(&mut self, executor: &Executor) {
        let uses = executor.stage == StageName::C2 && executor.ours && executor.asks_for_gpu;
        let size = self.against.sector_size;
        // The first that it sees.
        let gpu = executor
            .gpus
            .first()
            .and_then(|index| self.against.hardware.gpus.iter().find(|gpu| gpu.index == *index));
        let Some(memory) = gpu.filter(|_| uses).and_then(|gpu| gpu.memory) else { return };
        if fits_c2(size, Some(memory)) {
            return;
        }
        let needed = gpu_memory_of_c2(size, memory).unwrap_or_default();
        let envs = self.envs(executor);
        let optional = envs.get("SEAL_GPU").is_some_and(|value| value == "optional");
        let (severity, then) = if optional {
            (Severity::Warning, "it would work on the CPU")
        } else {
            (Severity::Error, "its tasks would fail")
        };
        self.find(
            ("gpu-too-small", severity),
            &format!("{}.envs", executor.key),
            format!(
                "a proof for sectors of {size} takes {needed} of the memory of a GPU, and this one \
                 has {memory}: {then}"
            ),
            "name a GPU with more memory, or leave out SEAL_C2_DEVICE and --device",
        );
    }

    /// A GPU that is given and not asked for: the work is done on the CPU, and nobody is told.
    fn gpu_asked_for(&mut self, executor: &Executor) {
        let envs = self.envs(executor);
        let given = envs.get("CUDA_VISIBLE_DEVICES").is_some_and(|list| !list.trim().is_empty());
        let told = envs.contains_key("SEAL_C2_DEVICE") || envs.contains_key("BELLMAN_NO_GPU");
        let (stage, remedy) = match executor.stage {
            StageName::Pc2 => (
                "pc2",
                "add FIL_PROOFS_USE_GPU_COLUMN_BUILDER = \"1\" and \
                 FIL_PROOFS_USE_GPU_TREE_BUILDER = \"1\", or leave the GPU out",
            ),
            StageName::C2 if executor.ours && !told => (
                "c2",
                "add SEAL_C2_DEVICE = \"cuda\" (c2-exec built with cuda), or \"cpu\" to leave the \
                 GPU idle",
            ),
            _ => return,
        };
        if given && !executor.asks_for_gpu {
            self.find(
                ("gpu-idle", Severity::Warning),
                &format!("{}.envs.CUDA_VISIBLE_DEVICES", executor.key),
                format!(
                    "gives {stage} a GPU, but nothing asks it to use one: it would work on the CPU"
                ),
                remedy,
            );
        }
    }

    fn gpus_shared(&mut self) {
        let executors = self.scheme.executors.clone();
        for (at, later) in executors.iter().enumerate() {
            for earlier in &executors[..at] {
                let both: Vec<_> = later
                    .gpus
                    .iter()
                    .filter(|gpu| earlier.gpus.contains(gpu))
                    .map(u32::to_string)
                    .collect();
                if both.is_empty() || self.scheme.exclude_each_other(earlier, later) {
                    continue;
                }
                let sees_all =
                    |executor: &Executor| !self.envs(executor).contains_key("CUDA_VISIBLE_DEVICES");
                let all = match (sees_all(earlier), sees_all(later)) {
                    (_, true) => {
                        "; it uses every GPU it sees, and no CUDA_VISIBLE_DEVICES limits them"
                    }
                    (true, false) => {
                        ", which uses every GPU it sees: no CUDA_VISIBLE_DEVICES limits them"
                    }
                    (false, false) => "",
                };
                let common: Vec<_> = earlier.locks.intersection(&later.locks).cloned().collect();
                let why = match common.first() {
                    Some(lock) => format!("their lock {lock:?} lets more than one task have it"),
                    None => "no lock keeps them apart".to_owned(),
                };
                self.find(
                    ("gpu-shared", Severity::Error),
                    &format!("{}.envs.CUDA_VISIBLE_DEVICES", later.key),
                    format!(
                        "GPU {} is also used by {}{all}, and {why}: together they can run out of its \
                         memory, and both tasks fail",
                        both.join(", "),
                        earlier.key
                    ),
                    "declare a lock of 1 for each GPU under [processors.ext_locks], and name it \
                     in the locks of all executors that use that GPU",
                );
            }
        }
    }
}
