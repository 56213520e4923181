//! One name for a sector, whoever speaks of it.
//!
//! Venus-worker and lotus call a sector `s-t01000-1`: miner 1000, number 1. A request tells of it
//! in several ways, and each stage's in others. The rule by which the name follows from them
//! stands here alone, so that logs, events, status and metrics of all stages say the same.

use std::fmt::Write;
use std::path::{Component, Path};

use crate::{ProverId, shown};

/// What a request tells of its sector.
#[derive(Clone, Copy, Debug, Default)]
pub struct SectorClues<'a> {
    /// The paths in the request, those that name the sector best first.
    pub paths: &'a [&'a Path],
    /// The sector's number.
    pub number: Option<u64>,
    /// The storage provider's number.
    pub miner: Option<u64>,
    /// The storage provider as the proofs see it, from which its number follows as a rule.
    pub prover: Option<ProverId>,
}

/// A sector as people know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectorName {
    /// The name.
    pub name: String,
    /// What contradicts it in the request.
    pub doubt: Option<String>,
}

/// What a name of the form `s-t01000-1` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts {
    miner: u64,
    number: u64,
}

impl Parts {
    /// Reads a name. One with needless zeros is somebody else's.
    fn of(name: &str) -> Option<Self> {
        let (miner, number) = name.strip_prefix("s-t0")?.split_once('-')?;
        let parts = Self { miner: miner.parse().ok()?, number: number.parse().ok()? };
        (parts.name() == name).then_some(parts)
    }

    /// Of the last component of `path` that is such a name: the nearest to the file.
    fn nearest(path: &Path) -> Option<Self> {
        path.components().rev().find_map(|component| match component {
            Component::Normal(name) => Self::of(name.to_str()?),
            _ => None,
        })
    }

    fn name(self) -> String {
        format!("s-t0{}-{}", self.miner, self.number)
    }
}

impl SectorClues<'_> {
    /// The name: that of the nearest directory (or file) of the form `s-t01000-1` in the first path
    /// that has one; else it follows from miner and number; else it is the name of the first file.
    /// `None` where nothing is told.
    pub fn name(&self) -> Option<SectorName> {
        let proved = self.prover.and_then(miner_of);
        let miner = self.miner.or(proved);
        let named: Vec<Parts> = self.paths.iter().filter_map(|path| Parts::nearest(path)).collect();
        let name = match (named.first(), self.number) {
            (Some(parts), _) => parts.name(),
            (None, Some(number)) => match (miner, self.prover) {
                (Some(miner), _) => Parts { miner, number }.name(),
                // An address that is no number: its begin tells miners apart all the same.
                (None, Some(prover)) => format!("s-{}-{number}", &prover.to_string()[..12]),
                (None, None) => number.to_string(),
            },
            (None, None) => {
                let file = self.paths.iter().find_map(|path| path.file_name())?;
                shown(&file.to_string_lossy()).into_owned()
            }
        };
        let doubt = self.doubt(&named, proved);
        Some(SectorName { name, doubt })
    }

    /// What in the request contradicts the rest of it.
    fn doubt(&self, named: &[Parts], proved: Option<u64>) -> Option<String> {
        let mut told = String::new();
        let mut differ = |what: &str, value: String| {
            let and = if told.is_empty() { "" } else { ", and " };
            // Writing to a string cannot fail.
            let _ = write!(told, "{and}{what} {value}");
        };
        let first = named.first();
        if let Some(other) = named.iter().find(|other| Some(*other) != first) {
            differ("another path names", other.name());
        }
        let miner = first.map(|parts| parts.miner);
        if let (Some(number), Some(parts)) = (self.number, first)
            && parts.number != number
        {
            differ("sector_id is", number.to_string());
        }
        if let (Some(own), Some(miner)) = (self.miner, miner)
            && own != miner
        {
            differ("miner_id is", own.to_string());
        }
        if let (Some(proved), Some(miner)) = (proved, self.miner.or(miner))
            && proved != miner
        {
            differ("prover_id is that of miner", proved.to_string());
        }
        (!told.is_empty()).then_some(told)
    }
}

/// The number of a storage provider: the prover id is the payload of its address, which of an
/// address by number is the number in groups of seven bits, least first, and zeros after it.
fn miner_of(prover: ProverId) -> Option<u64> {
    const GROUPS_MOST: usize = 10;
    let length = 1 + prover.0.iter().position(|byte| byte & 0x80 == 0)?;
    let (number, rest) = prover.0.split_at(length);
    let needless = length > 1 && number[length - 1] == 0;
    if length > GROUPS_MOST || needless || rest.iter().any(|byte| *byte != 0) {
        return None;
    }
    number
        .iter()
        .rev()
        .try_fold(0_u64, |sum, group| sum.checked_mul(0x80)?.checked_add(u64::from(group & 0x7f)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prover(bytes: &[u8]) -> ProverId {
        let mut id = [0; 32];
        id[..bytes.len()].copy_from_slice(bytes);
        ProverId(id)
    }

    fn name(clues: &SectorClues<'_>) -> (String, String) {
        let SectorName { name, doubt } = clues.name().expect("something is told");
        (name, doubt.unwrap_or_default())
    }

    #[test]
    fn the_number_of_a_miner_follows_from_its_address() {
        for (bytes, miner) in [
            (&[0xe8, 0x07][..], Some(1000)),
            (&[0], Some(0)),
            (&[0x7f], Some(127)),
            (&[0xff; 9][..], None),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Some(u64::MAX)),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], None),
            (&[0xe8, 0x00], None),
            (&[0xe8, 0x07, 0x01], None),
            (&[192, 15, 14, 251, 81, 99], None),
            (&[0xff; 32], None),
        ] {
            assert_eq!(miner_of(prover(bytes)), miner, "{bytes:?}");
        }
    }

    #[test]
    fn the_nearest_directory_of_the_form_names_the_sector() {
        for (path, expected) in [
            ("/sectors/s-t01000-1/cache", "s-t01000-1"),
            ("/cache/s-t01000-77", "s-t01000-77"),
            ("/old/s-t01-1/new/s-t02-2/cache/x", "s-t02-2"),
            ("s-t01000-1/cache", "s-t01000-1"),
            // Another form is none.
            ("/sectors/s-t01000-01/cache", "cache"),
            ("/sectors/s-t01000/cache", "cache"),
            ("/sectors/s-t01000-1.bak/cache", "cache"),
            ("/sectors/s-t01000-99999999999999999999/cache", "cache"),
        ] {
            let paths = [Path::new(path)];
            let clues = SectorClues { paths: &paths, ..SectorClues::default() };
            assert_eq!(name(&clues), (expected.to_owned(), String::new()), "{path}");
        }
        assert_eq!(SectorClues::default().name(), None);
    }

    #[test]
    fn without_such_a_directory_miner_and_number_name_it_so_that_miners_stay_apart() {
        let (id, other) = (prover(&[0xe8, 0x07]), prover(&[0xe9, 0x07]));
        let of = |prover| SectorClues { number: Some(77), prover, ..SectorClues::default() };
        assert_eq!(name(&of(Some(id))).0, "s-t01000-77");
        assert_eq!(name(&of(Some(other))).0, "s-t01001-77");
        assert_eq!(name(&of(Some(prover(&[192, 15, 14, 251, 81, 99])))).0, "s-c00f0efb5163-77");
        assert_eq!(name(&of(None)).0, "77");
        let clues = SectorClues { miner: Some(1000), ..of(None) };
        assert_eq!(name(&clues).0, "s-t01000-77");
    }

    #[test]
    fn what_contradicts_the_name_is_told() {
        let paths = [Path::new("/s/s-t01000-1/cache"), Path::new("/s/s-t01000-1/sealed")];
        let good = SectorClues {
            paths: &paths,
            number: Some(1),
            miner: Some(1000),
            prover: Some(prover(&[0xe8, 0x07])),
        };
        assert_eq!(name(&good), ("s-t01000-1".to_owned(), String::new()));
        let others = [paths[0], Path::new("/s/s-t01000-2/sealed")];
        for (clues, doubt) in [
            (SectorClues { paths: &others, ..good }, "another path names s-t01000-2"),
            (SectorClues { number: Some(5), ..good }, "sector_id is 5"),
            (SectorClues { miner: Some(7), prover: None, ..good }, "miner_id is 7"),
            (SectorClues { prover: Some(prover(&[7])), ..good }, "prover_id is that of miner 7"),
            (
                SectorClues { number: Some(5), miner: Some(7), ..good },
                "sector_id is 5, and miner_id is 7, and prover_id is that of miner 1000",
            ),
        ] {
            assert_eq!(name(&clues), ("s-t01000-1".to_owned(), doubt.to_owned()));
        }
    }
}
