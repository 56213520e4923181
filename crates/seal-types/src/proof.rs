//! The twenty registered seal proofs, under the names `filecoin-proofs-api` gives them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{ApiVersion, Feature, Porep, PorepId, SectorSize, TreeShape, shown};

/// A registered seal proof. The discriminant is the number the network knows it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegisteredProof(u8);

/// A name that no registered seal proof has.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "unknown registered proof {name:?}; the names are StackedDrg<size>V1, V1_1, \
     V1_1_Feat_SyntheticPoRep and V1_2_Feat_NonInteractivePoRep for 2KiB, 8MiB, 512MiB, 32GiB \
     and 64GiB"
)]
pub struct UnknownProof {
    /// What was given, as it is shown.
    pub name: String,
}

/// Suffix, API version and feature of each group of five proofs, in the order of their numbers.
const GROUPS: [(&str, ApiVersion, Feature); 4] = [
    ("V1", ApiVersion::V1_0, Feature::Interactive),
    ("V1_1", ApiVersion::V1_1, Feature::Interactive),
    // Published with 1_1 in its name although it belongs to API 1.2.
    ("V1_1_Feat_SyntheticPoRep", ApiVersion::V1_2, Feature::Synthetic),
    ("V1_2_Feat_NonInteractivePoRep", ApiVersion::V1_2, Feature::NonInteractive),
];

impl RegisteredProof {
    /// All registered proofs, by number.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..20).map(Self)
    }

    /// The proof of `size` with the given API version and feature, if there is one.
    pub fn find(size: SectorSize, api_version: ApiVersion, feature: Feature) -> Option<Self> {
        Self::all().find(|p| {
            p.sector_size() == size && p.api_version() == api_version && p.feature() == feature
        })
    }

    /// The registered number, 0 to 19.
    pub const fn number(self) -> u8 {
        self.0
    }

    fn group(self) -> &'static (&'static str, ApiVersion, Feature) {
        &GROUPS[usize::from(self.0 / 5)]
    }

    /// The sector size.
    pub fn sector_size(self) -> SectorSize {
        SectorSize::REGISTERED[usize::from(self.0 % 5)]
    }

    /// The version of the proofs API.
    pub fn api_version(self) -> ApiVersion {
        self.group().1
    }

    /// Interactive, synthetic or non-interactive.
    pub fn feature(self) -> Feature {
        self.group().2
    }

    /// The name by which `labels` and `vanilla_proofs` of this size go on the wire: that of the
    /// API 1.0 proof, whatever the proof's own version.
    pub fn shape_name(self) -> String {
        format!("StackedDrg{}V1", self.sector_size())
    }

    /// The id that seeds the graph: number and nonce 0, little-endian.
    pub fn porep_id(self) -> PorepId {
        let mut id = [0; 32];
        id[0] = self.0;
        PorepId(id)
    }

    /// Number of Groth16 partitions.
    ///
    /// Source: `POREP_PARTITIONS` of `filecoin-proofs` and, for the non-interactive proofs,
    /// FIP-0092.
    pub fn partitions(self) -> u32 {
        let large = self.sector_size() >= SectorSize::GIB_32;
        match (self.feature(), large) {
            (Feature::NonInteractive, true) => 126,
            (Feature::NonInteractive, false) => 13,
            (_, true) => 10,
            (_, false) => 1,
        }
    }

    /// Graph, layers and tree shape.
    pub fn porep(self) -> Porep {
        let sector_size = self.sector_size();
        Porep {
            sector_size,
            api_version: self.api_version(),
            porep_id: self.porep_id(),
            layers: if sector_size >= SectorSize::GIB_32 { 11 } else { 2 },
            shape: TreeShape::of(sector_size),
        }
    }
}

impl fmt::Display for RegisteredProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StackedDrg{}{}", self.sector_size(), self.group().0)
    }
}

impl FromStr for RegisteredProof {
    type Err = UnknownProof;

    fn from_str(name: &str) -> Result<Self, UnknownProof> {
        Self::all()
            .find(|proof| proof.to_string() == name)
            .ok_or_else(|| UnknownProof { name: shown(name).into_owned() })
    }
}

impl Serialize for RegisteredProof {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RegisteredProof {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_the_published_ones() {
        for (name, number) in [
            ("StackedDrg2KiBV1", 0),
            ("StackedDrg64GiBV1", 4),
            ("StackedDrg32GiBV1_1", 8),
            ("StackedDrg512MiBV1_1_Feat_SyntheticPoRep", 12),
            ("StackedDrg2KiBV1_2_Feat_NonInteractivePoRep", 15),
            ("StackedDrg64GiBV1_2_Feat_NonInteractivePoRep", 19),
        ] {
            let proof: RegisteredProof = name.parse().expect("a registered proof");
            assert_eq!((proof.number(), proof.to_string().as_str()), (number, name));
        }
    }

    #[test]
    fn every_name_round_trips_through_json() {
        for proof in RegisteredProof::all() {
            let json = serde_json::to_string(&proof).expect("a string");
            assert_eq!(serde_json::from_str::<RegisteredProof>(&json).expect("its name"), proof);
        }
    }

    #[test]
    fn unknown_proofs_are_named_in_the_error() {
        let error = serde_json::from_str::<RegisteredProof>("\"StackedDrg1TiBV9\"").unwrap_err();
        assert!(error.to_string().contains("\"StackedDrg1TiBV9\""), "{error}");
    }

    #[test]
    fn layers_and_partitions_follow_the_size() {
        let of = |name: &str| name.parse::<RegisteredProof>().expect("a registered proof");
        assert_eq!(of("StackedDrg512MiBV1").porep().layers, 2);
        assert_eq!(of("StackedDrg32GiBV1_1").porep().layers, 11);
        assert_eq!(of("StackedDrg64GiBV1").partitions(), 10);
        assert_eq!(of("StackedDrg32GiBV1_2_Feat_NonInteractivePoRep").partitions(), 126);
        assert_eq!(of("StackedDrg2KiBV1_2_Feat_NonInteractivePoRep").partitions(), 13);
    }
}
