//! What the tasks of the stages tell of their sector.

use seal_types::{SectorClues, SectorName};

use crate::{C2Task, Pc1Task, Pc2Task};

impl Pc1Task {
    /// The sector as everybody names it.
    pub fn sector(&self) -> SectorName {
        let paths = [&*self.cache_path, &*self.out_path, &*self.in_path];
        named(SectorClues {
            paths: &paths,
            number: Some(self.sector_id.0),
            miner: None,
            prover: Some(self.prover_id),
        })
    }
}

impl Pc2Task {
    /// The sector as everybody names it. The task has no number: the paths must tell.
    pub fn sector(&self) -> SectorName {
        let paths = [&*self.cache_dir, &*self.sealed_file];
        named(SectorClues { paths: &paths, ..SectorClues::default() })
    }
}

impl C2Task {
    /// The sector as everybody names it.
    pub fn sector(&self) -> SectorName {
        named(SectorClues {
            paths: &[],
            number: Some(self.sector_id.0),
            miner: Some(self.miner_id),
            prover: Some(self.prover_id),
        })
    }
}

fn named(clues: SectorClues<'_>) -> SectorName {
    // Only paths without a single name in them, such as `/`, tell nothing.
    clues.name().unwrap_or_else(|| SectorName { name: "unknown".to_owned(), doubt: None })
}
