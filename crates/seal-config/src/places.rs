//! Where in the file the values of a configuration stand.

use std::collections::BTreeMap;
use std::ops::Range;

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line it starts on, from 1.
    pub line: usize,
    /// The bytes of the file from its first to its last.
    pub span: Range<usize>,
}

/// The places of all values that were read, by the full name of their key, such as
/// `processors.pc1[0].cgroup.cpuset`. What is not here stands at its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    by_key: BTreeMap<String, Place>,
}

impl Places {
    pub(crate) fn note(&mut self, key: String, place: Place) {
        self.by_key.insert(key, place);
    }

    /// Where the value of `key` stands, if it is written.
    pub fn get(&self, key: &str) -> Option<&Place> {
        self.by_key.get(key)
    }

    /// All keys that are written, with their places.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Place)> {
        self.by_key.iter().map(|(key, place)| (key.as_str(), place))
    }
}
