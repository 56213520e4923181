//! Sector sizes in bytes, written as people write them: `2KiB`, `512MiB`, `32GiB`.

use std::fmt;
use std::str::FromStr;

/// A sector's size in bytes, after fr32 padding. Always a power of two of at least 2 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SectorSize(u64);

/// A sector size that cannot be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SizeError {
    /// Not a number with a unit.
    #[error("{text:?} is not a sector size; write it like 2KiB, 8MiB, 512MiB, 32GiB or 64GiB")]
    Syntax {
        /// What was given.
        text: String,
    },
    /// Not a power of two between 2 KiB and 64 GiB.
    #[error("a sector of {bytes} bytes is not a power of two between 2KiB and 64GiB")]
    Impossible {
        /// What was given.
        bytes: u64,
    },
}

impl SectorSize {
    /// 2 KiB.
    pub const KIB_2: Self = Self(2 << 10);
    /// 8 MiB.
    pub const MIB_8: Self = Self(8 << 20);
    /// 512 MiB.
    pub const MIB_512: Self = Self(512 << 20);
    /// 32 GiB.
    pub const GIB_32: Self = Self(32 << 30);
    /// 64 GiB.
    pub const GIB_64: Self = Self(64 << 30);

    /// The sizes that have registered proofs, smallest first.
    pub const REGISTERED: [Self; 5] =
        [Self::KIB_2, Self::MIB_8, Self::MIB_512, Self::GIB_32, Self::GIB_64];

    /// A size of `bytes`; test shapes (4 KiB, 16 KiB, 32 KiB) are allowed.
    pub fn new(bytes: u64) -> Result<Self, SizeError> {
        let possible = bytes.is_power_of_two() && (2 << 10..=64 << 30).contains(&bytes);
        possible.then_some(Self(bytes)).ok_or(SizeError::Impossible { bytes })
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of 32-byte nodes.
    pub const fn nodes(self) -> u64 {
        self.0 / 32
    }

    /// How many bytes of a client's data fit: 127 of every 128.
    pub const fn unpadded_bytes(self) -> u64 {
        self.0 / 128 * 127
    }
}

impl fmt::Display for SectorSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.trailing_zeros() {
            30.. => write!(f, "{}GiB", self.0 >> 30),
            20..30 => write!(f, "{}MiB", self.0 >> 20),
            _ => write!(f, "{}KiB", self.0 >> 10),
        }
    }
}

impl FromStr for SectorSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let syntax = || SizeError::Syntax { text: crate::shown(text).into_owned() };
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "kib" | "k" => 10,
            "mib" | "m" => 20,
            "gib" | "g" => 30,
            _ => return Err(syntax()),
        };
        let number: u64 = number.parse().map_err(|_| syntax())?;
        let bytes = number.checked_mul(1 << shift).ok_or_else(syntax)?;
        Self::new(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_what_people_write() {
        for (text, bytes) in [("2KiB", 2048), ("8MiB", 8 << 20), ("32GiB", 32 << 30)] {
            let size: SectorSize = text.parse().expect("a registered size");
            assert_eq!(size.bytes(), bytes);
            assert_eq!(size.to_string(), text);
        }
        assert_eq!("512 mib".parse(), Ok(SectorSize::MIB_512));
        assert_eq!("2048".parse(), Ok(SectorSize::KIB_2));
    }

    #[test]
    fn rejects_the_impossible() {
        for text in
            ["", "GiB", "2KB", "-2KiB", "99999999999999999999GiB", "18446744073709551615GiB"]
        {
            assert!(matches!(text.parse::<SectorSize>(), Err(SizeError::Syntax { .. })), "{text}");
        }
        for text in ["0", "1KiB", "3KiB", "128GiB"] {
            let got = text.parse::<SectorSize>();
            assert!(matches!(got, Err(SizeError::Impossible { .. })), "{text}: {got:?}");
        }
    }
}
