//! Benchmarks beside the binaries of another revision: both in one run and in turn, because times
//! of two runs cannot be compared.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use test_support::revision::Revision;

use crate::bench::median;
use crate::out::{say, step};

/// Pairs of runs where nobody says how many.
const PAIRS: usize = 5;

/// Options of benchmarks that can be compared with another revision.
#[derive(Debug, clap::Args)]
pub(crate) struct BaseArgs {
    /// Runs of each side; the median counts. Default: 1, and 5 with --base.
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// Do the same work by the binaries of this revision of the repository, in turn, and tell the
    /// ratio. They are built once, in the target directory.
    #[arg(long, value_name = "REV")]
    base: Option<String>,
}

impl BaseArgs {
    pub(crate) fn runs(&self) -> Result<usize> {
        let runs = self.runs.unwrap_or(if self.base.is_some() { PAIRS } else { 1 });
        ensure!(runs > 0, "at least one run");
        Ok(runs)
    }

    /// The revision to compare with, built.
    pub(crate) fn base(&self, packages: &[&str]) -> Result<Option<Revision>> {
        let Some(name) = &self.base else { return Ok(None) };
        let revision = Revision::find(name)?;
        step(&format!("the base {name} is {}", revision.short()));
        revision.build(packages)?;
        Ok(Some(revision))
    }
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Ours,
    Base,
}

/// Who runs in the pair with this number, in this order. Who is first changes from pair to pair, so
/// that what the first leaves to the second falls on both.
pub(crate) fn turns(pair: usize, base: Option<&Revision>) -> &'static [Side] {
    match (base, pair.is_multiple_of(2)) {
        (None, _) => &[Side::Ours],
        (Some(_), true) => &[Side::Ours, Side::Base],
        (Some(_), false) => &[Side::Base, Side::Ours],
    }
}

/// Tells how much longer ours took than the base, by the medians and by the pairs. Below one is
/// faster.
pub(crate) fn compare(what: &str, ours: &[f64], base: &[f64]) -> Value {
    let middle = |side: &[f64]| median(side.iter().copied());
    let ratio = middle(ours).zip(middle(base)).map(|(ours, base)| ours / base);
    let pairs: Vec<_> = ours.iter().zip(base).map(|(ours, base)| ours / base).collect();
    if let Some(ratio) = ratio {
        let spread = pairs
            .iter()
            .fold((f64::MAX, f64::MIN), |(low, high), pair| (low.min(*pair), high.max(*pair)));
        say(&format!(
            "  {what}: {ratio:.3} of the base by the medians, pairs {:.3} to {:.3}",
            spread.0, spread.1
        ));
    }
    json!({ "ours": ours, "base": base, "ratio": ratio, "pair_ratios": pairs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_first_in_turn() {
        assert_eq!(turns(1, None), [Side::Ours]);
        let Ok(head) = Revision::find("HEAD") else {
            test_support::skip::skipped("turns of two sides", "this is no git checkout");
            return;
        };
        assert_eq!(turns(1, Some(&head)), [Side::Base, Side::Ours]);
        assert_eq!(turns(2, Some(&head)), [Side::Ours, Side::Base]);
    }

    #[test]
    fn the_ratio_is_that_of_the_medians() {
        let compared = compare("x", &[3.0, 1.0, 2.0], &[4.0, 4.0, 1.0]);
        assert_eq!(compared["ratio"], json!(0.5));
        assert_eq!(compared["pair_ratios"], json!([0.75, 0.25, 2.0]));
        assert_eq!(compare("x", &[], &[])["ratio"], Value::Null);
    }

    #[test]
    fn pairs_are_five_unless_told() {
        let args = |runs, base: Option<&str>| BaseArgs { runs, base: base.map(str::to_owned) };
        let runs = |args: BaseArgs| args.runs().expect("a number");
        assert_eq!(runs(args(None, None)), 1);
        assert_eq!(runs(args(None, Some("HEAD"))), 5);
        assert_eq!(runs(args(Some(3), Some("HEAD"))), 3);
        args(Some(0), None).runs().unwrap_err();
    }
}
