//! Sums over all tasks of a supervisor, from which metrics are made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The upper bounds of a histogram's classes in seconds: from tasks of test sectors to a day.
pub(crate) const BOUNDS: [f64; 14] = [
    0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 57600.0,
    86400.0,
];

/// How often which durations were seen.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct Histogram {
    /// By class; the last is for what is beyond all bounds.
    pub(crate) counts: Vec<u64>,
    pub(crate) sum: f64,
}

impl Histogram {
    pub(crate) fn add(&mut self, seconds: f64) {
        self.counts.resize(BOUNDS.len() + 1, 0);
        let class = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.counts[class] += 1;
        self.sum += seconds;
    }
}

/// Everything that is summed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct Measures {
    /// How long tasks ran, by executor, of those that were done.
    pub(crate) done: BTreeMap<String, Histogram>,
    /// The same of those that failed.
    pub(crate) failed: BTreeMap<String, Histogram>,
    /// How long they waited.
    pub(crate) waited: Histogram,
    /// How long limits and locks were held.
    pub(crate) held: BTreeMap<String, Histogram>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_class_that_ends_with_them() {
        let mut histogram = Histogram::default();
        for seconds in [0.0, 0.1, 0.2, 60.0, 90_000.0] {
            histogram.add(seconds);
        }
        assert_eq!(histogram.counts[..5], [2, 1, 0, 0, 1]);
        assert_eq!(histogram.counts[BOUNDS.len()], 1);
        assert!((histogram.sum - 90_060.3).abs() < 1e-6);
        assert!(BOUNDS.is_sorted());
    }
}
