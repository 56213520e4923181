//! Sets of cpus, in the form in which the kernel writes them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A set of cpu numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet(BTreeSet<u32>);

/// A list that is not in the kernel's form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a list of cpus such as \"0-3,8\"")]
pub struct BadCpuSet {
    /// What was read.
    pub text: String,
}

impl CpuSet {
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
    type Err = BadCpuSet;

    /// Reads a list as it stands in sysfs, procfs and cgroups. Empty text is the empty set.
    fn from_str(text: &str) -> Result<Self, BadCpuSet> {
        let bad = || BadCpuSet { text: text.to_owned() };
        let mut cpus = BTreeSet::new();
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u32, u32) =
                (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
            // The bound keeps a damaged file from filling the memory.
            if first > last || last - first > 1 << 20 {
                return Err(bad());
            }
            cpus.extend(first..=last);
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

    #[test]
    fn reads_what_the_kernel_writes() {
        for (text, cpus) in
            [("0-1\n", vec![0, 1]), ("0,2-3,9", vec![0, 2, 3, 9]), ("\n", vec![]), ("", vec![])]
        {
            assert_eq!(text.parse(), Ok(CpuSet::from_iter(cpus)), "{text:?}");
        }
        for text in ["x", "3-1", "1-", "0-4294967295"] {
            assert_eq!(text.parse::<CpuSet>(), Err(BadCpuSet { text: text.to_owned() }));
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
    }
}
