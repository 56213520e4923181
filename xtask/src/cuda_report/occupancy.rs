//! How many threads of a kernel run on a multiprocessor at a time, by what they take of its
//! registers and shared memory.

use anyhow::{Context, Result};

/// What a multiprocessor has. Source: the table of technical specifications by compute capability
/// in the CUDA C++ Programming Guide, and `cuda_occupancy.h` of the toolkit 13.0, NVIDIA's own
/// calculation, whose results are in the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Such as 90.
    pub(crate) architecture: u32,
    warps: u32,
    blocks: u32,
    /// Bytes for all blocks.
    shared: u32,
    /// Bytes of each block that the system takes.
    shared_reserved: u32,
    /// Bytes, of which a block gets a multiple.
    shared_unit: u32,
}

/// Registers of a multiprocessor, in four parts of which each has its own warps.
const REGISTERS: u32 = 65_536;
const PARTS: u32 = 4;
/// Registers, of which a warp gets a multiple.
const REGISTER_UNIT: u32 = 256;
const WARP: u32 = 32;

const fn limits(architecture: u32, warps: u32, blocks: u32, shared_kib: u32) -> Limits {
    let (reserved, unit) = if architecture < 80 { (0, 256) } else { (1024, 128) };
    Limits {
        architecture,
        warps,
        blocks,
        shared: shared_kib << 10,
        shared_reserved: reserved,
        shared_unit: unit,
    }
}

const LIMITS: [Limits; 7] = [
    limits(75, 32, 16, 64),
    limits(80, 64, 32, 164),
    limits(86, 48, 16, 100),
    limits(89, 48, 24, 100),
    limits(90, 64, 32, 228),
    limits(100, 64, 32, 228),
    limits(120, 48, 24, 100),
];

/// What a block of a kernel takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) threads: u32,
    /// Of each thread.
    pub(crate) registers: u32,
    /// Bytes.
    pub(crate) shared: u32,
}

/// What lets no more blocks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Registers,
    SharedMemory,
    Warps,
    Blocks,
}

impl Limit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Registers => "registers",
            Self::SharedMemory => "shared memory",
            Self::Warps => "warps",
            Self::Blocks => "blocks",
        }
    }
}

/// What runs on a multiprocessor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Occupancy {
    pub(crate) threads: u32,
    pub(crate) warps: u32,
    /// What limits it; registers, if several do.
    pub(crate) limit: Limit,
}

impl Occupancy {
    /// Of a kernel on an architecture.
    pub(crate) fn of(architecture: u32, block: Block) -> Result<Self> {
        let limits = LIMITS.iter().find(|limits| limits.architecture == architecture);
        let limits = limits.with_context(|| {
            format!("what a multiprocessor of compute {architecture} has is not in the table")
        })?;
        let warps = block.threads.div_ceil(WARP).max(1);
        let of_warp = (block.registers * WARP).next_multiple_of(REGISTER_UNIT).max(REGISTER_UNIT);
        let warps_by_registers = REGISTERS / PARTS / of_warp * PARTS;
        let shared = (block.shared + limits.shared_reserved).next_multiple_of(limits.shared_unit);
        let by_shared = limits.shared.checked_div(shared).unwrap_or(u32::MAX);
        let (blocks, limit) = [
            (warps_by_registers / warps, Limit::Registers),
            (by_shared, Limit::SharedMemory),
            (limits.warps / warps, Limit::Warps),
            (limits.blocks, Limit::Blocks),
        ]
        .into_iter()
        .min_by_key(|(blocks, _)| *blocks)
        .context("four limits")?;
        Ok(Self { threads: blocks * block.threads, warps: blocks * warps, limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks by `cudaOccMaxActiveBlocksPerMultiprocessor` of the toolkit 13.0, with as much shared
    /// memory as there is: for each architecture the same blocks, given by registers, bytes of
    /// shared memory and threads.
    #[test]
    fn blocks_are_those_of_the_toolkits_own_calculation() {
        let blocks = [
            (160, 24_576, 64),
            (128, 18_432, 64),
            (127, 18_432, 64),
            (78, 6_144, 64),
            (40, 0, 64),
            (168, 24_576, 64),
            (168, 24_576, 32),
            (255, 0, 64),
            (96, 0, 128),
            (33, 1_000, 96),
        ];
        for (architecture, expected) in [
            (75, [2, 3, 3, 10, 16, 2, 2, 4, 5, 10]),
            (80, [6, 8, 8, 12, 24, 6, 6, 4, 5, 16]),
            (86, [4, 5, 5, 12, 16, 4, 4, 4, 5, 16]),
            (89, [4, 5, 5, 12, 24, 4, 4, 4, 5, 16]),
            (90, [6, 8, 8, 12, 24, 6, 9, 4, 5, 16]),
            (100, [6, 8, 8, 12, 24, 6, 9, 4, 5, 16]),
            (120, [4, 5, 5, 12, 24, 4, 4, 4, 5, 16]),
        ] {
            for ((registers, shared, threads), blocks) in blocks.into_iter().zip(expected) {
                let block = Block { threads, registers, shared };
                let occupancy = Occupancy::of(architecture, block).expect("known");
                assert_eq!(occupancy.threads, blocks * threads, "{architecture} {block:?}");
                assert_eq!(occupancy.warps, blocks * threads / 32, "{architecture} {block:?}");
            }
        }
    }

    #[test]
    fn what_limits_is_named() {
        let limit = |architecture, registers, shared| {
            let block = Block { threads: 64, registers, shared };
            Occupancy::of(architecture, block).expect("known").limit
        };
        assert_eq!(limit(90, 160, 24_576), Limit::Registers);
        assert_eq!(limit(75, 160, 24_576), Limit::SharedMemory);
        assert_eq!(limit(86, 40, 0), Limit::Blocks);
        assert_eq!(limit(90, 32, 0), Limit::Registers);
        assert!(Occupancy::of(61, Block { threads: 64, registers: 32, shared: 0 }).is_err());
    }
}
