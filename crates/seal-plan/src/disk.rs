//! How many sectors a scheme keeps on disk, and for how many disks have room.
//!
//! A sector is on disk from the start of PC1 until C1 is done: while a stage works on it, and while
//! it waits for the randomness of the chain that C1 needs, because C1 reads the layers.

use std::time::Duration;

use seal_config::StageName;
use seal_types::{SectorSize, Stage};

use crate::figures::disk_of_sector;
use crate::{Hardware, Scheme};

/// Seconds of a day.
const DAY: f64 = 86_400.0;

/// Sectors on disk at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnDisk {
    /// A stage works on them, all stages as many as they may.
    pub working: u64,
    /// They wait for randomness, between PC2 and C2.
    pub waiting: u64,
}

impl OnDisk {
    /// Of `scheme` when it delivers so many sectors a day, each of which waits so long.
    pub fn of(scheme: &Scheme, sectors_per_day: f64, seed_wait: Duration) -> Self {
        let places = Stage::ALL.into_iter().filter_map(|stage| scheme.tasks(stage.into()));
        let working = places.map(u64::from).sum();
        // Sectors wait where their layers are: with those who made and read them.
        let waits = [StageName::Pc1, StageName::Pc2]
            .into_iter()
            .all(|stage| scheme.stage(stage).next().is_some());
        let waiting = if waits { waiting(sectors_per_day, seed_wait) } else { 0 };
        Self { working, waiting }
    }

    /// All of them.
    pub fn total(self) -> u64 {
        self.working.saturating_add(self.waiting)
    }
}

/// Sectors that wait at the same time: as many as come in that time (Little's law).
fn waiting(sectors_per_day: f64, seed_wait: Duration) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is clamped to what a number of sectors can be"
    )]
    let count = (sectors_per_day / DAY * seed_wait.as_secs_f64()).ceil().clamp(0.0, 1e9) as u64;
    count
}

/// For how many sectors the disks have room, each as a whole on one of them; `None` where no disk
/// is known.
pub fn room(hardware: &Hardware, size: SectorSize) -> Option<u64> {
    let each = disk_of_sector(size);
    (!hardware.disks.is_empty())
        .then(|| hardware.disks.iter().map(|disk| disk.free.holds(each)).sum())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::hardware;

    #[test]
    fn sectors_that_wait_for_randomness_are_on_disk_too() {
        let hardware = hardware::parse(
            Path::new("m.toml"),
            "name = 'm'\nmemory = '1TiB'\nnuma_nodes = [{ id = 0, cpus = '0-7' }]\n",
        );
        let of = |text: &str, rate: f64| {
            let config = seal_config::parse(Path::new("w.toml"), text).expect("valid");
            let hardware = hardware.as_ref().expect("a machine");
            let scheme = Scheme::of(&config, hardware, SectorSize::GIB_32);
            OnDisk::of(&scheme, rate, Duration::from_secs(75 * 60))
        };
        let text = "[[processors.pc1]]\nconcurrent = 4\n[[processors.pc2]]\n[[processors.c2]]\n";
        // 75 minutes are 5/96 of a day: of 96 sectors a day 5 wait.
        assert_eq!(of(text, 96.0), OnDisk { working: 6, waiting: 5 });
        assert_eq!(of(text, 97.0).total(), 6 + 6);
        let alone = "[[processors.pc1]]\nconcurrent = 4\n";
        assert_eq!(of(alone, 96.0), OnDisk { working: 4, waiting: 0 });
    }
}
