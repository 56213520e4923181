//! Amounts of memory and disk, as people write them: `64GiB`, `1.96TiB`.

use std::fmt;
use std::iter::Sum;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// Units, the largest first.
const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A text that is no amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a size; write a number with KiB, MiB, GiB or TiB, such as \"1.5TiB\"")]
pub struct NotBytes {
    /// The text.
    pub text: String,
}

impl Bytes {
    /// So many GiB.
    pub const fn gib(number: u64) -> Self {
        Self(number << 30)
    }

    /// So many MiB.
    pub const fn mib(number: u64) -> Self {
        Self(number << 20)
    }

    /// The amount in GiB.
    #[expect(clippy::cast_precision_loss, reason = "for people and rates")]
    pub fn in_gib(self) -> f64 {
        self.0 as f64 / (1_u64 << 30) as f64
    }

    /// This less `other`, or nothing.
    #[must_use]
    pub fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// How many pieces of `size` fit; any number where a piece is nothing.
    pub fn holds(self, size: Self) -> u64 {
        self.0.checked_div(size.0).unwrap_or(u64::MAX)
    }

    /// So many times this.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count))
    }

    /// The part that `numerator` of `denominator` are. Nothing where there are no parts.
    #[must_use]
    pub fn part(self, numerator: u64, denominator: u64) -> Self {
        let product = u128::from(self.0) * u128::from(numerator);
        let part = product.checked_div(u128::from(denominator)).unwrap_or(0);
        Self(u64::try_from(part).unwrap_or(u64::MAX))
    }

    /// The amount without loss: in the largest unit of which it is a whole number.
    pub fn exact(self) -> String {
        let (unit, size) =
            UNITS.into_iter().find(|(_, size)| self.0.is_multiple_of(*size)).unwrap_or(("B", 1));
        format!("{}{unit}", self.0 / size)
    }
}

impl std::ops::Add for Bytes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::ops::AddAssign for Bytes {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self(0), std::ops::Add::add)
    }
}

impl fmt::Display for Bytes {
    /// At most four digits, in the unit that suits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, size) = UNITS.into_iter().find(|(_, size)| self.0 >= *size).unwrap_or(("B", 1));
        #[expect(clippy::cast_precision_loss, reason = "shown to people")]
        let number = self.0 as f64 / size as f64;
        if self.0.is_multiple_of(size) || number >= 100.0 {
            write!(f, "{number:.0} {unit}")
        } else {
            let digits = if number >= 10.0 { 1 } else { 2 };
            write!(f, "{number:.digits$} {unit}")
        }
    }
}

impl FromStr for Bytes {
    type Err = NotBytes;

    fn from_str(text: &str) -> Result<Self, NotBytes> {
        let error = || NotBytes { text: text.to_owned() };
        let trimmed = text.trim();
        let (number, size) = UNITS
            .into_iter()
            .find_map(|(unit, size)| Some((trimmed.strip_suffix(unit)?.trim_end(), size)))
            .ok_or_else(error)?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
            return Err(error());
        }
        let whole: u64 = whole.parse().map_err(|_| error())?;
        let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| error())?);
        let fraction: u128 = fraction.parse().map_err(|_| error())?;
        let part = u64::try_from(u128::from(size) * fraction / scale).map_err(|_| error())?;
        whole
            .checked_mul(size)
            .and_then(|whole| whole.checked_add(part))
            .map(Self)
            .ok_or_else(error)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.exact())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write_and_nothing_else() {
        for (text, bytes) in [
            ("2TiB", 2 << 40),
            ("1.5 GiB", 3 << 29),
            ("0.5KiB", 512),
            ("10B", 10),
            ("1.96TiB", (1 << 40) + (1_u64 << 40) * 96 / 100),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for text in
            ["", "2", "2TB", "-1GiB", "1.GiB", ".5GiB", "1.5.5GiB", "99999999999TiB", "1e3GiB"]
        {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn people_see_few_digits() {
        for (bytes, text) in [
            (Bytes::gib(2048), "2 TiB"),
            (Bytes::gib(2007), "1.96 TiB"),
            (Bytes::gib(976), "976 GiB"),
            (Bytes(3 << 29), "1.50 GiB"),
            (Bytes(0), "0 B"),
        ] {
            assert_eq!(bytes.to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_exactly_is_read_back(bytes: u64) {
            prop_assert_eq!(Bytes(bytes).exact().parse(), Ok(Bytes(bytes)));
        }

        #[test]
        fn reading_never_panics(text in "[0-9. ]{0,12}(B|KiB|MiB|GiB|TiB|)") {
            let _ = text.parse::<Bytes>();
        }
    }
}
