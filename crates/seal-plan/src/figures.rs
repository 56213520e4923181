//! What a task of each stage takes of memory and disk, by the size of its sector.
//!
//! The figures are those of this project's executors; where another executor's are known to be
//! larger, `docs/planning.md` says so.

use seal_cuda::groth16::{Card, Lists};
use seal_types::{ParameterLengths, SectorSize, Stage};

use crate::Bytes;

/// Memory of a stage's executor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageMemory {
    /// Held once by the process, whatever it runs.
    pub once: Bytes,
    /// Held by each task that runs.
    pub task: Bytes,
    /// What all tasks of the process together hold at most, if it was told so; the others wait.
    pub tasks_most: Option<Bytes>,
}

impl StageMemory {
    /// What `tasks` at the same time take. A process that never runs any takes nothing.
    pub fn of_tasks(self, tasks: u64) -> Bytes {
        if tasks == 0 { Bytes::default() } else { self.once + self.tasks(tasks) }
    }

    /// What `tasks` at the same time take beside what the process holds anyway.
    pub fn tasks(self, tasks: u64) -> Bytes {
        let all = self.task.times(tasks);
        self.tasks_most.map_or(all, |most| all.min(most))
    }
}

/// Layers of a sector: 11 from 32 GiB on, 2 of test sizes.
pub fn layers(size: SectorSize) -> u64 {
    if size >= SectorSize::GIB_32 { 11 } else { 2 }
}

/// Memory of a stage.
///
/// - PC1: two layers, the one that is labelled and the one before.
/// - PC2: buffers of at most 2 GiB (`pc2-exec --memory-mib`).
/// - C2: the parameters, about as much as their file, and two partitions: one that is proved and
///   the next one. For 32 GiB sectors 45 GiB and 21 GiB each (`c2-exec --help`); for 64 GiB the
///   circuit is little larger and fits the same domain of 2^27. Smaller sectors have one partition
///   of a few million constraints (2 KiB: 2.7 million, parameters of 1.1 GB).
pub fn stage_memory(stage: Stage, size: SectorSize) -> StageMemory {
    let sector = Bytes(size.bytes());
    let (once, task) = match stage {
        Stage::Pc1 => (Bytes::default(), sector.times(2)),
        Stage::Pc2 => (Bytes::default(), Bytes::gib(2)),
        Stage::C2 if size >= SectorSize::GIB_32 => (Bytes::gib(45), partition(size).times(2)),
        Stage::C2 => (Bytes::gib(2), partition(size)),
    };
    StageMemory { once, task, tasks_most: None }
}

/// A partition that C2 works on, without which it cannot go on.
pub fn partition(size: SectorSize) -> Bytes {
    if size >= SectorSize::GIB_32 { Bytes::gib(21) } else { Bytes::gib(2) }
}

/// Memory of a GPU that a process takes before it computes anything: its context, the code of its
/// kernels and what the allocator holds back. Assumed; nobody has measured it here.
const GPU_CONTEXT: Bytes = Bytes(512 << 20);

/// Multiprocessors of a large GPU. How many there are makes a difference of a kilobyte each.
const MULTIPROCESSORS: u64 = 200;

/// Memory of a GPU that C2 takes there at most, of a GPU with so much: worked out from the sources
/// of the published prover (`docs/gpu.md`). `None` for sizes without a circuit.
pub fn gpu_memory_of_c2(size: SectorSize, gpu: Bytes) -> Option<Bytes> {
    let ParameterLengths { inputs, h, l, a, b } = ParameterLengths::of(size)?;
    let card = Card { multiprocessors: MULTIPROCESSORS, memory_bytes: gpu.0 };
    let proof = Lists { inputs, h, l, a, b }.demand(card).most();
    Some(Bytes(proof) + GPU_CONTEXT)
}

/// Whether C2 fits a GPU with so much memory, as far as that is known.
pub fn fits_c2(size: SectorSize, gpu: Option<Bytes>) -> bool {
    let needed = gpu.and_then(|memory| Some((gpu_memory_of_c2(size, memory)?, memory)));
    needed.is_none_or(|(needed, memory)| needed <= memory)
}

/// The parents cache of a registered proof: 14 parents of 4 bytes for each node. It is mapped, so
/// it lies in memory that the kernel can take back: what does not fit is read from disk again.
pub fn parents_cache(size: SectorSize) -> Bytes {
    Bytes(size.nodes()).times(14 * 4)
}

/// The most that a sector without data has on the disk of its cache directory at a time: layers,
/// tree D (twice the sector), the sealed file and its replacement, tree C (8/7 of the sector) and
/// tree R last (less than a hundredth). A worker that has one tree D for all such sectors
/// (`static_tree_d`) needs twice the sector less.
pub fn disk_of_sector(size: SectorSize) -> Bytes {
    let sector = Bytes(size.bytes());
    sector.times(layers(size) + 2 + 2) + sector.part(8, 7) + sector.part(1, 100)
}

/// How much sealing a sector adds to the network's storage.
pub fn sealed(size: SectorSize) -> Bytes {
    Bytes(size.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c2_of_32_gib_fits_cards_with_10_gib_and_not_with_8() {
        for size in [SectorSize::GIB_32, SectorSize::GIB_64] {
            for (gib, fits) in [(8, false), (10, true), (12, true), (16, true), (24, true)] {
                assert_eq!(fits_c2(size, Some(Bytes::gib(gib))), fits, "{size} on {gib} GiB");
            }
        }
        let taken = |gib| gpu_memory_of_c2(SectorSize::GIB_32, Bytes::gib(gib)).expect("a circuit");
        assert_eq!(taken(10).0 >> 20, 9048 + 512);
        assert_eq!(taken(24).0 >> 20, 12_288 + 40 + 512, "where three products fit");
        assert!(fits_c2(SectorSize::KIB_2, Some(Bytes::gib(2))));
        assert!(fits_c2(SectorSize::GIB_32, None), "nobody knows");
    }

    #[test]
    fn a_32_gib_sector_takes_what_is_documented() {
        let size = SectorSize::GIB_32;
        assert_eq!(stage_memory(Stage::Pc1, size).of_tasks(28), Bytes::gib(1792));
        assert_eq!(stage_memory(Stage::C2, size).of_tasks(1), Bytes::gib(87));
        assert_eq!(stage_memory(Stage::C2, size).of_tasks(0), Bytes(0));
        assert_eq!(parents_cache(size), Bytes::gib(56));
        assert_eq!(disk_of_sector(size).to_string(), "517 GiB");
    }
}
