//! Disks: room for the sectors in all stages and for those that wait for the chain's randomness.

use super::{Checking, Severity};
use crate::disk::{self, OnDisk};
use crate::figures::disk_of_sector;
use crate::throughput::throughput;

impl Checking<'_> {
    pub(super) fn disks(&mut self) {
        let against = self.against;
        let Some(room) = disk::room(against.hardware, against.sector_size) else { return };
        let rate = throughput(&self.scheme, against.hardware, against.given).sectors_per_day;
        let expected = OnDisk::of(&self.scheme, rate, against.seed_wait);
        let sectors = against.sectors.unwrap_or(expected.total());
        if room >= sectors {
            return;
        }
        let why = match against.sectors {
            Some(_) => String::new(),
            None => format!(
                " ({} in the stages, {} waiting for the chain's randomness at {rate:.0} a day)",
                expected.working, expected.waiting
            ),
        };
        let each = disk_of_sector(against.sector_size);
        let paths: Vec<_> =
            against.hardware.disks.iter().map(|disk| disk.path.display().to_string()).collect();
        self.find(
            ("disk-short", Severity::Error),
            "processors",
            format!(
                "{sectors} sectors at a time{why} take {each} each while they are sealed, and {} \
                 has room for {room}",
                paths.join(", ")
            ),
            format!(
                "free space, add disks (--disk), seal fewer sectors at a time, or let the worker \
                 have no more than {room} on their way and tell so with --sectors {room}"
            ),
        );
    }
}
