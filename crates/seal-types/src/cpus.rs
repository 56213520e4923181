//! Sets of cpus, as users and the kernel write them: `0-41,48,50-53`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// More than any Linux kernel can be built for; a number beyond it is a typing error.
const HIGHEST: u32 = 8191;

/// A set of cpu numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet(BTreeSet<u32>);

/// What is wrong with a list of cpus.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuListError {
    /// Nothing was given.
    #[error("the list is empty; write cpus and ranges like \"0-3,8\"")]
    Empty,
    /// A part is neither a number nor a range.
    #[error("{part:?} is neither a cpu nor a range; write cpus and ranges like \"0-3,8\"")]
    Part {
        /// The part between the commas.
        part: String,
    },
    /// A range runs backwards.
    #[error("the range {part:?} runs backwards")]
    Backwards {
        /// The range.
        part: String,
    },
    /// A cpu beyond what Linux supports.
    #[error("cpu {cpu} is beyond {HIGHEST}, the highest that Linux supports")]
    TooHigh {
        /// The number.
        cpu: u32,
    },
    /// A cpu is there twice, which is most often a slip in one of the numbers.
    #[error("cpu {cpu} is in the list twice")]
    Twice {
        /// The number.
        cpu: u32,
    },
}

impl CpuSet {
    /// Reads a list that the kernel wrote, in which nothing at all is the empty set.
    pub fn from_kernel(text: &str) -> Result<Self, CpuListError> {
        if text.trim().is_empty() { Ok(Self::default()) } else { text.parse() }
    }

    /// Whether there is no cpu in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many cpus are in it.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The cpus in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter().copied()
    }

    /// Whether the cpu is in it.
    pub fn contains(&self, cpu: u32) -> bool {
        self.0.contains(&cpu)
    }

    /// The lowest cpu.
    pub fn first(&self) -> Option<u32> {
        self.0.first().copied()
    }

    /// The cpus that are in `other` too.
    pub fn and(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).copied().collect())
    }

    /// The cpus that are not in `other`.
    pub fn minus(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).copied().collect())
    }
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        Self(cpus.into_iter().collect())
    }
}

impl FromStr for CpuSet {
    type Err = CpuListError;

    /// Reads a list that a person wrote: at least one cpu, none of them twice.
    fn from_str(text: &str) -> Result<Self, CpuListError> {
        if text.trim().is_empty() {
            return Err(CpuListError::Empty);
        }
        let mut cpus = BTreeSet::new();
        for part in text.split(',') {
            let bad = || CpuListError::Part { part: part.trim().to_owned() };
            let number = |text: &str| match text.trim() {
                // `parse` would take a sign.
                text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                    text.parse::<u32>().map_err(|_| bad())
                }
                _ => Err(bad()),
            };
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if last > HIGHEST {
                return Err(CpuListError::TooHigh { cpu: last });
            }
            if first > last {
                return Err(CpuListError::Backwards { part: part.trim().to_owned() });
            }
            if let Some(cpu) = (first..=last).find(|cpu| !cpus.insert(*cpu)) {
                return Err(CpuListError::Twice { cpu });
            }
        }
        Ok(Self(cpus))
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let mut cpus = self.iter().peekable();
        let mut separator = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if(|cpu| *cpu == last + 1) {
                last = next;
            }
            match last - first {
                0 => write!(f, "{separator}{first}")?,
                _ => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(cpus: &[u32]) -> CpuSet {
        cpus.iter().copied().collect()
    }

    #[test]
    fn reads_cpus_and_ranges() {
        for (text, cpus) in [
            ("0", &[0][..]),
            ("0-3", &[0, 1, 2, 3]),
            ("8, 2-3 ,5", &[2, 3, 5, 8]),
            ("7-7", &[7]),
            ("0-1\n", &[0, 1]),
        ] {
            assert_eq!(text.parse(), Ok(set(cpus)), "{text}");
            assert_eq!(CpuSet::from_kernel(text), Ok(set(cpus)), "{text}");
        }
        for empty in ["", "\n"] {
            assert_eq!(CpuSet::from_kernel(empty), Ok(CpuSet::default()));
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_list() {
        let part = |part: &str| CpuListError::Part { part: part.to_owned() };
        for (text, error) in [
            ("", CpuListError::Empty),
            (" ", CpuListError::Empty),
            ("0-", part("0-")),
            ("1,,2", part("")),
            ("1;2", part("1;2")),
            ("-1", part("-1")),
            ("+1", part("+1")),
            ("0-3-5", part("0-3-5")),
            ("99999999999", part("99999999999")),
            ("5-2", CpuListError::Backwards { part: "5-2".to_owned() }),
            ("0-41,40", CpuListError::Twice { cpu: 40 }),
            ("0-4294967295", CpuListError::TooHigh { cpu: u32::MAX }),
        ] {
            assert_eq!(text.parse::<CpuSet>(), Err(error), "{text}");
        }
    }

    #[test]
    fn tells_what_is_missing() {
        let wanted: CpuSet = "0-41".parse().expect("a list");
        let missing = wanted.minus(&"0-1".parse().expect("a list"));
        assert_eq!(missing.to_string(), "2-41");
        assert_eq!(wanted.minus(&wanted).to_string(), "none");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(cpus in prop::collection::btree_set(0_u32..300, 1..60)) {
            let set = CpuSet::from_iter(cpus);
            prop_assert_eq!(set.to_string().parse(), Ok(set));
        }

        #[test]
        fn reading_never_panics_and_never_gives_nothing(text in "[0-9,\\- x]{0,20}") {
            if let Ok(cpus) = text.parse::<CpuSet>() {
                prop_assert!(!cpus.is_empty());
            }
        }
    }
}
