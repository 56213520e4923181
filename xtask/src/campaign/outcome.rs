//! What came of the cases of a campaign, counted.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::out::say;

/// What one case, or a part of it, has shown.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What was done, for example `pc1 SIGKILL`.
    pub(super) kind: String,
    /// What was hit: the phase of a task, the call that failed.
    pub(super) hit: String,
    /// How many tries it stands for.
    pub(super) tries: u64,
    pub(super) verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Held,
    /// What is wrong.
    Failed(String),
    /// Why it could not be tried here.
    Impossible(String),
}

impl Verdict {
    /// Held where `result` is right.
    pub(super) fn of<T>(result: Result<T, String>) -> Self {
        result.map_or_else(Self::Failed, |_| Self::Held)
    }
}

#[derive(Debug, Default)]
struct Count {
    tries: u64,
    failures: u64,
    hits: BTreeMap<String, u64>,
}

/// A failure, as it is kept.
#[derive(Debug)]
struct Failure {
    part: &'static str,
    case: u64,
    kind: String,
    hit: String,
    reason: String,
}

/// All outcomes of a campaign.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: BTreeMap<(&'static str, String), Count>,
    failures: Vec<Failure>,
    impossible: BTreeMap<(&'static str, String), String>,
}

impl Tally {
    /// Counts `outcome` of a case. Returns whether it is a failure.
    pub(super) fn add(&mut self, part: &'static str, case: u64, outcome: Outcome) -> bool {
        let Outcome { kind, hit, tries, verdict } = outcome;
        if let Verdict::Impossible(reason) = verdict {
            self.impossible.insert((part, kind), reason);
            return false;
        }
        let count = self.counts.entry((part, kind.clone())).or_default();
        count.tries += tries;
        *count.hits.entry(hit.clone()).or_default() += tries;
        let Verdict::Failed(reason) = verdict else { return false };
        count.failures += 1;
        self.failures.push(Failure { part, case, kind, hit, reason });
        true
    }

    /// Tries of a part whose kind begins with `kind`.
    pub(super) fn tries(&self, part: &str, kind: &str) -> u64 {
        let counts = self.counts.iter();
        let of_kind = counts.filter(|((of, name), _)| *of == part && name.starts_with(kind));
        of_kind.map(|(_, count)| count.tries).sum()
    }

    pub(super) fn failures(&self) -> usize {
        self.failures.len()
    }

    /// Writes the table for people.
    pub(super) fn print(&self) {
        say("");
        say("  part        kind                              tries  failures  hit");
        for ((part, kind), count) in &self.counts {
            let mut hits: Vec<_> = count.hits.iter().collect();
            hits.sort_by_key(|(_, number)| **number);
            let hits: Vec<_> =
                hits.iter().take(8).map(|(name, number)| format!("{name} {number}")).collect();
            let more = count.hits.len().saturating_sub(hits.len());
            let more = if more > 0 { format!(", {more} more") } else { String::new() };
            say(&format!(
                "  {part:<11} {kind:<32} {:>6} {:>9}  {}{more}",
                count.tries,
                count.failures,
                hits.join(", ")
            ));
        }
        for ((part, kind), reason) in &self.impossible {
            say(&format!("  {part:<11} {kind:<32} not possible here: {reason}"));
        }
    }

    pub(super) fn record(&self) -> Value {
        let counts: Vec<_> = self
            .counts
            .iter()
            .map(|((part, kind), count)| {
                json!({ "part": part, "kind": kind, "tries": count.tries,
                    "failures": count.failures, "hits": count.hits })
            })
            .collect();
        let failures: Vec<_> = self
            .failures
            .iter()
            .map(|failure| {
                json!({ "part": failure.part, "case": failure.case, "kind": failure.kind,
                    "hit": failure.hit, "reason": without_paths(&failure.reason) })
            })
            .collect();
        let impossible: Vec<_> = self
            .impossible
            .iter()
            .map(|((part, kind), reason)| {
                json!({ "part": part, "kind": kind, "reason": without_paths(reason) })
            })
            .collect();
        json!({ "counts": counts, "failed": failures, "impossible": impossible })
    }
}

/// `text` with the last names of absolute paths only: results are kept where others read them.
pub(super) fn without_paths(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('/') {
        let before = &rest[..start];
        let starts_word = !before.ends_with(|c: char| c.is_alphanumeric() || c == '.');
        let tail = &rest[start..];
        let ends = |c: char| c.is_whitespace() || "\"'`,;:()[]{}".contains(c);
        let length = tail.find(ends).unwrap_or(tail.len());
        result.push_str(before);
        let path = &tail[..length];
        if starts_word && path[1..].contains('/') {
            result.push_str("…/");
            result.push_str(path.rsplit('/').next().unwrap_or_default());
        } else {
            result.push_str(path);
        }
        rest = &tail[length..];
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(verdict: Verdict) -> Outcome {
        Outcome { kind: "pc1 SIGKILL".to_owned(), hit: "copy".to_owned(), tries: 2, verdict }
    }

    #[test]
    fn failures_are_counted_and_kept_without_paths() {
        let mut tally = Tally::default();
        assert!(!tally.add("kills", 0, outcome(Verdict::Held)));
        assert!(tally.add("kills", 7, outcome(Verdict::Failed("no /a/b/sealed: x".to_owned()))));
        assert!(!tally.add("kills", 8, outcome(Verdict::Impossible("no root".to_owned()))));
        assert_eq!((tally.tries("kills", "pc1"), tally.failures()), (4, 1));
        assert_eq!(tally.tries("kills", "pc2"), 0);
        let record = tally.record();
        assert_eq!(record["failed"][0]["reason"], "no …/sealed: x");
        assert_eq!(record["failed"][0]["case"], 7);
        assert_eq!(record["counts"][0]["hits"]["copy"], 4);
        assert_eq!(record["impossible"][0]["reason"], "no root");
    }

    #[test]
    fn paths_are_cut_and_other_strokes_stay() {
        assert_eq!(without_paths("\"/w/x/y.dat\": 3 MiB/s, /proc"), "\"…/y.dat\": 3 MiB/s, /proc");
    }
}
