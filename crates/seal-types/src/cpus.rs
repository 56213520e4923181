//! Sets of cpus, as users and the kernel write them: `0-41,48,50-53`.
//!
//! What the kernel takes is taken (`bitmap_parselist` in its lib/bitmap-str.c): commas and blanks
//! between parts, as many as there are; `0-10:2/4` for the first two of every four; `N` for the
//! last cpu of the machine and `all` for all of them. What is written is always the plain form.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// More than any Linux kernel can be built for; a number beyond it is a typing error.
const HIGHEST: u32 = 8191;

/// A set of cpu numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet {
    cpus: BTreeSet<u32>,
    /// Whether it was written with `all` or `N` and no machine has told yet which cpus these are;
    /// [`HIGHEST`] stands for the last one.
    open: bool,
}

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
    /// A pattern takes more of each group than the group has, or groups have no cpus.
    #[error(
        "the pattern of {part:?} takes more cpus than its groups have; \"0-10:2/4\" takes the first \
         two of every four"
    )]
    Pattern {
        /// The part.
        part: String,
    },
    /// A cpu beyond what Linux supports.
    #[error("cpu {cpu} is beyond {HIGHEST}, the highest that Linux supports")]
    TooHigh {
        /// The number.
        cpu: u32,
    },
    /// A list that describes a machine says "as many as the machine has".
    #[error(
        "{list:?} says \"all\" or \"N\", but it is what tells how many cpus there are; write numbers"
    )]
    Open {
        /// The list.
        list: String,
    },
}

impl CpuSet {
    /// Reads a list that the kernel wrote, in which nothing at all is the empty set.
    pub fn from_kernel(text: &str) -> Result<Self, CpuListError> {
        if text.trim().is_empty() { Ok(Self::default()) } else { Self::of_machine(text) }
    }

    /// Reads a list that tells which cpus a machine has: without `all` and `N`.
    pub fn of_machine(text: &str) -> Result<Self, CpuListError> {
        let set: Self = text.parse()?;
        if set.open { Err(CpuListError::Open { list: text.trim().to_owned() }) } else { Ok(set) }
    }

    /// The set on a machine that has the cpus `there`: where it was written with `all` or `N`,
    /// these are the machine's. A list of numbers stays as it is, also where there are none such.
    #[must_use]
    pub fn on(&self, there: &Self) -> Self {
        let Some(last) = there.cpus.last().filter(|_| self.open) else { return self.clone() };
        let mut set = self.and(there);
        if self.contains(HIGHEST) {
            set.cpus.insert(*last);
        }
        set
    }

    /// Whether there is no cpu in it.
    pub fn is_empty(&self) -> bool {
        self.cpus.is_empty()
    }

    /// How many cpus are in it.
    pub fn len(&self) -> usize {
        self.cpus.len()
    }

    /// The cpus in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.cpus.iter().copied()
    }

    /// Whether the cpu is in it.
    pub fn contains(&self, cpu: u32) -> bool {
        self.cpus.contains(&cpu)
    }

    /// The lowest cpu.
    pub fn first(&self) -> Option<u32> {
        self.cpus.first().copied()
    }

    /// The cpus that are in `other` too.
    pub fn and(&self, other: &Self) -> Self {
        self.cpus.intersection(&other.cpus).copied().collect()
    }

    /// The cpus that are not in `other`.
    pub fn minus(&self, other: &Self) -> Self {
        self.cpus.difference(&other.cpus).copied().collect()
    }
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        Self { cpus: cpus.into_iter().collect(), open: false }
    }
}

impl FromStr for CpuSet {
    type Err = CpuListError;

    /// Reads a list that a person wrote: at least one cpu.
    fn from_str(text: &str) -> Result<Self, CpuListError> {
        let mut set = Self::default();
        let parts = text.split([',', ' ', '\t', '\n', '\r', '\x0b', '\x0c']);
        for part in parts.filter(|part| !part.is_empty()) {
            set.add(part)?;
        }
        if set.is_empty() { Err(CpuListError::Empty) } else { Ok(set) }
    }
}

impl CpuSet {
    /// Adds what one part of a list names: `4`, `0-7`, `0-7:1/2`, with `all` and `N` for numbers.
    fn add(&mut self, part: &str) -> Result<(), CpuListError> {
        let bad = || CpuListError::Part { part: part.to_owned() };
        let mut number = |text: &str| match text {
            "N" => {
                self.open = true;
                Ok(HIGHEST)
            }
            // `parse` would take a sign.
            text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse::<u32>().map_err(|_| bad())
            }
            _ => Err(bad()),
        };
        let (range, pattern) = match part.split_once(':') {
            Some((range, pattern)) => (range, Some(pattern)),
            None => (part, None),
        };
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None if range.eq_ignore_ascii_case("all") => (0, number("N")?),
            // A pattern needs a range.
            None if pattern.is_none() => (number(range)?, number(range)?),
            None => return Err(bad()),
        };
        let (used, group) = match pattern {
            Some(pattern) => {
                let (used, group) = pattern.split_once('/').ok_or_else(bad)?;
                if pattern.contains('N') {
                    return Err(bad());
                }
                (number(used)?, number(group)?)
            }
            None => (1, 1),
        };
        if last > HIGHEST {
            return Err(CpuListError::TooHigh { cpu: last });
        }
        if first > last {
            return Err(CpuListError::Backwards { part: part.to_owned() });
        }
        if group == 0 || used > group {
            return Err(CpuListError::Pattern { part: part.to_owned() });
        }
        self.cpus.extend((first..=last).filter(|cpu| (cpu - first) % group < used));
        Ok(())
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        if self.open && self.len() == HIGHEST as usize + 1 {
            return f.write_str("all");
        }
        let is_last = |cpu: u32| self.open && cpu == HIGHEST;
        let mut cpus = self.iter().peekable();
        let mut separator = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if(|cpu| *cpu == last + 1) {
                last = next;
            }
            f.write_str(separator)?;
            match last - first {
                0 if is_last(first) => f.write_str("N")?,
                0 => write!(f, "{first}")?,
                _ if is_last(last) => write!(f, "{first}-N")?,
                _ => write!(f, "{first}-{last}")?,
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
            // Whatever the kernel takes.
            ("0-1,", &[0, 1]),
            (",,0,, 1", &[0, 1]),
            ("0 1", &[0, 1]),
            ("0-1,1", &[0, 1]),
            ("0-41:1/20", &[0, 20, 40]),
            ("0-10:2/4", &[0, 1, 4, 5, 8, 9]),
            ("4-6:3/3 9", &[4, 5, 6, 9]),
            ("0-3:0/2,7", &[7]),
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
            (",", CpuListError::Empty),
            ("0-3:0/2", CpuListError::Empty),
            ("0-", part("0-")),
            ("0 - 3", part("-")),
            ("0:1/2", part("0:1/2")),
            ("0-3:1", part("0-3:1")),
            ("0-3:/2", part("0-3:/2")),
            ("0-3:1/", part("0-3:1/")),
            ("0-3:1/2/3", part("0-3:1/2/3")),
            ("n", part("n")),
            ("0-3:1/0", CpuListError::Pattern { part: "0-3:1/0".to_owned() }),
            ("0-3:3/2", CpuListError::Pattern { part: "0-3:3/2".to_owned() }),
            ("1;2", part("1;2")),
            ("-1", part("-1")),
            ("+1", part("+1")),
            ("0-3-5", part("0-3-5")),
            ("99999999999", part("99999999999")),
            ("5-2", CpuListError::Backwards { part: "5-2".to_owned() }),
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

    #[test]
    fn all_and_n_are_those_of_the_machine() {
        let there = set(&[0, 1, 2, 3, 8, 9]);
        for (text, shown, cpus) in [
            ("all", "all", &[0, 1, 2, 3, 8, 9][..]),
            ("ALL,3", "all", &[0, 1, 2, 3, 8, 9]),
            ("0-N", "all", &[0, 1, 2, 3, 8, 9]),
            ("N", "N", &[9]),
            ("1,3-N", "1,3-N", &[1, 3, 8, 9]),
            ("0-3", "0-3", &[0, 1, 2, 3]),
            // Named by its number: that it is not there has to be told.
            ("5", "5", &[5]),
        ] {
            let list: CpuSet = text.parse().expect(text);
            assert_eq!((list.to_string().as_str(), list.on(&there)), (shown, set(cpus)), "{text}");
            assert_eq!(list.to_string().parse(), Ok(list), "{text}");
        }
        let every_other: CpuSet = "all:1/2".parse().expect("a list");
        assert_eq!(every_other.on(&there), set(&[0, 2, 8]));
        for text in ["all", "0-N", "all:1/2"] {
            assert!(matches!(CpuSet::of_machine(text), Err(CpuListError::Open { .. })), "{text}");
            assert!(CpuSet::from_kernel(text).is_err(), "{text}");
        }
    }

    /// As the kernel reads it, character by character (`bitmap_parselist`), on a machine of 64.
    fn plain(text: &str) -> Option<BTreeSet<u32>> {
        fn number(text: &mut &[u8]) -> Option<u32> {
            if let Some(rest) = text.strip_prefix(b"N") {
                *text = rest;
                return Some(63);
            }
            let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (number, rest) = text.split_at(digits);
            *text = rest;
            std::str::from_utf8(number).ok()?.parse().ok()
        }
        let ends = |text: &[u8]| text.first().is_none_or(|b| *b == b',' || b.is_ascii_whitespace());
        let (mut text, mut cpus) = (text.as_bytes(), BTreeSet::new());
        loop {
            while let [b',', rest @ ..] | [b' ', rest @ ..] = text {
                text = rest;
            }
            if text.is_empty() {
                return Some(cpus);
            }
            let (first, last);
            if text.len() >= 3 && text[..3].eq_ignore_ascii_case(b"all") {
                (first, last) = (0, 63);
                text = &text[3..];
            } else {
                first = number(&mut text)?;
                if ends(text) {
                    cpus.insert(first);
                    continue;
                }
                text = text.strip_prefix(b"-")?;
                last = number(&mut text)?;
            }
            let (mut used, mut group) = (last + 1, last + 1);
            if !ends(text) {
                text = text.strip_prefix(b":")?;
                used = number(&mut text)?;
                text = text.strip_prefix(b"/")?;
                group = number(&mut text)?;
                // The kernel would take what follows for the next part, without a separator.
                ends(text).then_some(())?;
            }
            if first > last || group == 0 || used > group {
                return None;
            }
            let mut start = first;
            while start <= last {
                cpus.extend(start..start + used.min(last - start + 1));
                start += group;
            }
        }
    }

    proptest! {
        #[test]
        fn a_list_is_read_as_the_kernel_reads_it(
            parts in prop::collection::vec("[0-9]|[0-3]?[0-9]|[0-9]-[0-5]?[0-9]|N|all|[0-9]-N|\
                [0-9]-[0-5][0-9]:[0-3]/[0-5]|all:1/[2-4]|[0-9a:/-]{1,4}", 0..5),
            separators in prop::collection::vec("[, ]{1,3}", 5),
        ) {
            let joined = parts.iter().zip(&separators).map(|(part, separator)| {
                format!("{part}{separator}")
            });
            let text: String = joined.collect();
            let there: CpuSet = (0..64).collect();
            let read = text.parse::<CpuSet>().map(|set| set.on(&there)).ok();
            let wanted = plain(&text).filter(|cpus| !cpus.is_empty());
            // The kernel counts groups by the machine's last cpu too; nobody can mean that.
            let beyond = wanted.as_ref().is_some_and(|cpus| cpus.iter().any(|cpu| *cpu > 63));
            if !text.contains(":N") && !text.contains("/N") && !beyond {
                prop_assert_eq!(read, wanted.map(CpuSet::from_iter), "{}", text);
            }
        }

        #[test]
        fn what_is_written_is_read_back(cpus in prop::collection::btree_set(0_u32..300, 1..60)) {
            let set = CpuSet::from_iter(cpus);
            prop_assert_eq!(set.to_string().parse(), Ok(set));
        }

        #[test]
        fn reading_never_panics_and_never_gives_nothing(text in "[0-9,\\- xNal:/]{0,20}") {
            if let Ok(cpus) = text.parse::<CpuSet>() {
                prop_assert!(!cpus.is_empty());
            }
        }
    }
}
