//! What keeps a proposal from delivering more.

use std::fmt;

use seal_config::StageName;
use seal_types::Stage;

use super::{Goal, Proposal, Wish};
use crate::figures::{disk_of_sector, stage_memory};
use crate::throughput::Limit;
use crate::{Bytes, Scheme};

/// The resource of which there is too little.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scarce {
    /// None: fewer sectors were asked for than there is room for.
    Asked(u32),
    /// Memory for labels.
    Memory {
        /// What a sector in PC1 holds.
        each: Bytes,
    },
    /// Disk space.
    Disk {
        /// What a sector takes while it is sealed.
        each: Bytes,
    },
    /// Cores: for units of PC1, or for the stage that is named.
    Cores(Option<StageName>),
    /// GPUs for a stage, or for all that share them.
    Gpus(Option<StageName>),
}

impl Scarce {
    /// The resource in a word or two.
    pub fn word(&self) -> String {
        match self {
            Self::Asked(count) => format!("pc1 = {count}, as asked"),
            Self::Memory { .. } => "memory".to_owned(),
            Self::Disk { .. } => "disk".to_owned(),
            Self::Cores(None) => "cores".to_owned(),
            Self::Cores(Some(stage)) => format!("cores for {stage}"),
            Self::Gpus(None) => "GPUs".to_owned(),
            Self::Gpus(Some(stage)) => format!("GPUs for {stage}"),
        }
    }
}

impl fmt::Display for Scarce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.word())?;
        match self {
            Self::Memory { each } => write!(f, ": a sector in pc1 holds {each}"),
            Self::Disk { each } => write!(f, ": a sector takes {each} while it is sealed"),
            Self::Cores(None) => {
                f.write_str(": more units of pc1 would leave too few for the others")
            }
            Self::Asked(_) | Self::Cores(Some(_)) | Self::Gpus(_) => Ok(()),
        }
    }
}

impl Proposal {
    /// What keeps it from delivering more.
    pub fn scarce(&self, scheme: &Scheme, wish: &Wish) -> Scarce {
        let tasks: u64 = self.layout.pc1.iter().map(|part| u64::from(part.tasks)).sum();
        let stretched = self.bounds.disk.is_some_and(|disk| disk <= tasks)
            || self.bounds.memory <= tasks
            || self.bounds.cores <= tasks;
        // A number that was asked for limits only where there is more of everything.
        if let Some(count) = wish.pc1.filter(|_| wish.stages.contains(&Stage::Pc1) && !stretched) {
            return Scarce::Asked(count);
        }
        let rate = self.throughput.sectors_per_day;
        // PC1 gets no more sectors than the later stages can go on with: then those are scarce.
        let slack = if wish.goal == Goal::Latency { 2.1 } else { 1.02 };
        let later = self.throughput.bounds.iter().find(|(limit, bound)| {
            let of_pc1 = matches!(limit, Limit::Stage(StageName::Pc1) | Limit::Staggered(_));
            !of_pc1 && *bound <= rate * slack
        });
        match later {
            Some((Limit::Stage(stage), _)) if !stretched || self.layout.pc1.is_empty() => {
                let gpus = scheme.stage(*stage).any(|executor| !executor.gpus.is_empty());
                if gpus { Scarce::Gpus(Some(*stage)) } else { Scarce::Cores(Some(*stage)) }
            }
            Some((Limit::Lock(name), _)) if !stretched || self.layout.pc1.is_empty() => {
                let gpus = scheme
                    .executors
                    .iter()
                    .any(|executor| executor.locks.contains(name) && !executor.gpus.is_empty());
                if gpus { Scarce::Gpus(None) } else { Scarce::Cores(None) }
            }
            _ if self.bounds.disk.is_some_and(|disk| disk <= tasks) => {
                Scarce::Disk { each: disk_of_sector(wish.sector_size) }
            }
            _ if self.bounds.memory <= tasks => {
                Scarce::Memory { each: stage_memory(Stage::Pc1, wish.sector_size).task }
            }
            _ => Scarce::Cores(None),
        }
    }
}
