//! The ways in which PC2 and C2 could share a machine's GPUs.

use seal_types::Stage;

use super::{GpuSharing, Impossible, Sharing, Wish};
use crate::Hardware;
use crate::figures::fits_c2;
use crate::hardware::Gpu;

/// The ways to share that come into question, the simpler one first.
pub(super) fn sharings(hardware: &Hardware, wish: &Wish) -> Result<Vec<Sharing>, Impossible> {
    let gpus = hardware.gpus.len();
    if gpus == 0 {
        return if wish.sharing.is_some() {
            Err(Impossible::NoGpu)
        } else {
            Ok(vec![Sharing::Turns])
        };
    }
    let with = |stage| wish.stages.contains(&stage);
    let mut exclusive: Vec<_> = match (with(Stage::Pc2), with(Stage::C2)) {
        (true, true) if gpus == 1 => vec![Sharing::Exclusive { pc2: 1, c2: 0 }],
        (true, true) => (1..gpus).map(|pc2| Sharing::Exclusive { pc2, c2: gpus - pc2 }).collect(),
        (true, false) => vec![Sharing::Exclusive { pc2: gpus, c2: 0 }],
        (false, _) => vec![Sharing::Exclusive { pc2: 0, c2: gpus }],
    };
    let mut shared = vec![Sharing::Shared { gpus }];
    // Every executor takes memory, so that fewer of them can leave room for more sectors.
    if gpus > 1 {
        let one = |stage| usize::from(with(stage));
        let few = Sharing::Exclusive { pc2: one(Stage::Pc2), c2: one(Stage::C2) };
        exclusive.extend((!exclusive.contains(&few)).then_some(few));
        exclusive.extend(with(Stage::Pc2).then_some(Sharing::Exclusive { pc2: 1, c2: 0 }));
        shared.push(Sharing::Shared { gpus: 1 });
    }
    let mut sharings: Vec<_> = match wish.sharing {
        Some(GpuSharing::Exclusive) => exclusive,
        Some(GpuSharing::Shared) => shared,
        None => exclusive.into_iter().chain(shared).collect(),
    };
    // Any of the GPUs could become one of C2.
    let fit = |gpu: &Gpu| fits_c2(wish.sector_size, gpu.memory);
    if with(Stage::C2) && !hardware.gpus.iter().all(fit) {
        sharings.retain(|sharing| matches!(sharing, Sharing::Exclusive { c2: 0, .. }));
        if sharings.is_empty() {
            let on_cpu = Sharing::Exclusive { pc2: gpus, c2: 0 };
            sharings.push(if with(Stage::Pc2) { on_cpu } else { Sharing::Turns });
        }
    }
    Ok(sharings)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Bytes, hardware};

    #[test]
    fn c2_gets_no_gpu_that_is_too_small_for_it() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("machines/epyc7642x2.toml");
        let with_memory = |gib: Option<u64>| {
            let mut hardware = hardware::load(&path).expect("good");
            assert!(hardware.gpus.len() > 1);
            hardware.gpus[0].memory = gib.map(Bytes::gib);
            hardware
        };
        let uses_gpu = |sharing: &Sharing| match sharing {
            Sharing::Turns => false,
            Sharing::Exclusive { c2, .. } => *c2 > 0,
            Sharing::Shared { .. } => true,
        };
        for sharing in [None, Some(GpuSharing::Exclusive), Some(GpuSharing::Shared)] {
            let ways = |gib, stages: &[Stage]| {
                let stages = stages.iter().copied().collect();
                let wish = Wish { sharing, stages, ..Wish::default() };
                sharings(&with_memory(gib), &wish).expect("there are GPUs")
            };
            let all = &Stage::ALL[..];
            for gib in [None, Some(10), Some(24)] {
                assert!(ways(gib, all).iter().any(uses_gpu), "{gib:?}");
            }
            for stages in [all, &[Stage::C2]] {
                let ways = ways(Some(8), stages);
                assert!(!ways.is_empty() && !ways.iter().any(uses_gpu), "{ways:?}");
            }
            let pc2 = ways(Some(8), &[Stage::Pc1, Stage::Pc2]);
            assert!(!pc2.is_empty(), "PC2 needs little");
        }
    }
}
