//! A strict reader of the text format of Prometheus (version 0.0.4).
//!
//! It takes what the format's description and the linter of Prometheus allow and nothing else:
//! scrapers differ in what they let pass, and what one of them refuses is lost as a whole.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};

/// Labels of a series.
pub type Labels = BTreeMap<String, String>;

/// All samples of a page.
#[derive(Clone, Debug, Default)]
pub struct Exposition {
    samples: BTreeMap<(String, Labels), f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Debug)]
struct Family {
    name: String,
    kind: Option<Kind>,
    /// The names of the labels of all its samples, but `le`.
    labels: Option<BTreeSet<String>>,
}

impl Exposition {
    /// Reads a page.
    pub fn parse(text: &str) -> Result<Self> {
        ensure!(text.is_empty() || text.ends_with('\n'), "the last line has no end");
        let mut all = Self::default();
        let mut families = BTreeSet::new();
        let mut family: Option<Family> = None;
        for (at, line) in text.lines().enumerate() {
            all.line(line, &mut families, &mut family)
                .with_context(|| format!("line {}: {line:?}", at + 1))?;
        }
        ensure!(!text.contains('\r'), "a carriage return");
        all.check_histograms()?;
        Ok(all)
    }

    /// The value of a series, by its name and all its labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        self.samples.get(&(name.to_owned(), labels.collect())).copied()
    }

    /// All series, by name and labels.
    pub fn series(&self) -> impl Iterator<Item = &(String, Labels)> {
        self.samples.keys()
    }

    fn line(
        &mut self,
        line: &str,
        families: &mut BTreeSet<String>,
        family: &mut Option<Family>,
    ) -> Result<()> {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').context("no text")?;
            check_name(name, true)?;
            ensure!(!help.trim().is_empty(), "no text");
            check_escapes(help, "\\n")?;
            ensure!(families.insert(name.to_owned()), "the family is there twice");
            *family = Some(Family { name: name.to_owned(), kind: None, labels: None });
            return Ok(());
        }
        let family = family.as_mut().context("it comes before any HELP")?;
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').context("no type")?;
            ensure!(name == family.name, "it does not follow its HELP");
            ensure!(family.kind.is_none(), "a second type");
            let kind = match kind {
                "counter" => Kind::Counter,
                "gauge" => Kind::Gauge,
                "histogram" => Kind::Histogram,
                _ => bail!("an unknown type"),
            };
            ensure!((kind == Kind::Counter) == name.ends_with("_total"), "_total is of counters");
            family.kind = Some(kind);
            return Ok(());
        }
        ensure!(!line.starts_with('#'), "a comment that is neither HELP nor TYPE");
        self.sample(line, family)
    }

    fn sample(&mut self, line: &str, family: &mut Family) -> Result<()> {
        let kind = family.kind.context("its family has no type")?;
        let end = line.find(['{', ' ']).context("no value")?;
        let (name, rest) = line.split_at(end);
        check_name(name, true)?;
        let (mut labels, rest) = read_labels(rest)?;
        let text = rest.strip_prefix(' ').context("no space before the value")?;
        let value = read_value(text)?;
        let suffix = name.strip_prefix(family.name.as_str()).context("of another family")?;
        match (kind, suffix) {
            (Kind::Histogram, "_bucket") => {
                ensure!(labels.contains_key("le"), "a bucket without le");
            }
            (Kind::Histogram, "_sum" | "_count") | (Kind::Counter | Kind::Gauge, "") => {
                ensure!(!labels.contains_key("le"), "le is of buckets");
            }
            _ => bail!("of another family"),
        }
        let counts = kind == Kind::Counter || matches!(suffix, "_bucket" | "_count");
        ensure!(!counts || (value.is_finite() && value >= 0.0), "counts are not negative");
        let key = (name.to_owned(), labels.clone());
        ensure!(self.samples.insert(key, value).is_none(), "the series is there twice");
        labels.remove("le");
        let names: BTreeSet<_> = labels.into_keys().collect();
        let others = family.labels.get_or_insert_with(|| names.clone());
        ensure!(*others == names, "other samples have the labels {others:?}");
        Ok(())
    }

    fn check_histograms(&self) -> Result<()> {
        let mut histograms: BTreeMap<(String, Labels), Vec<(f64, f64)>> = BTreeMap::new();
        for ((name, labels), value) in &self.samples {
            let Some(name) = name.strip_suffix("_bucket") else { continue };
            let mut labels = labels.clone();
            let bound = labels.remove("le").context("checked")?;
            let bound = read_value(&bound).with_context(|| format!("{name}: le={bound:?}"))?;
            histograms.entry((name.to_owned(), labels)).or_default().push((bound, *value));
        }
        for ((name, labels), mut buckets) in histograms {
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            let what = || format!("{name} of {labels:?}: {buckets:?}");
            for pair in buckets.windows(2) {
                ensure!(pair[0].0 < pair[1].0, "{}: a bound is there twice", what());
                ensure!(pair[0].1 <= pair[1].1, "{}: buckets are not cumulative", what());
            }
            let last = buckets.last().filter(|(bound, _)| *bound == f64::INFINITY);
            let all = last.with_context(|| format!("{}: no bucket +Inf", what()))?.1;
            let of = |suffix: &str| self.samples.get(&(format!("{name}{suffix}"), labels.clone()));
            ensure!(of("_count") == Some(&all), "{}: the count is another", what());
            ensure!(of("_sum").is_some(), "{}: no sum", what());
        }
        Ok(())
    }
}

fn check_name(name: &str, colons: bool) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
    ensure!(
        !name.is_empty()
            && name.chars().all(fits)
            && !name.starts_with(|c: char| c.is_ascii_digit()),
        "{name:?} is no name"
    );
    Ok(())
}

/// Whether every backslash begins one of `known` or is doubled.
fn check_escapes(text: &str, known: &str) -> Result<()> {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        ensure!(!c.is_control(), "a control character");
        if c == '\\' {
            let next = chars.next().context("a backslash at the end")?;
            ensure!(next == '\\' || known[1..].contains(next), "an unknown escape \\{next}");
        }
    }
    Ok(())
}

/// Reads `{name="value",...}`, if it is there, and returns the rest.
fn read_labels(text: &str) -> Result<(Labels, &str)> {
    let mut labels = Labels::new();
    let Some(mut rest) = text.strip_prefix('{') else { return Ok((labels, text)) };
    loop {
        let (name, after) = rest.split_once("=\"").context("no label")?;
        check_name(name, false)?;
        ensure!(!name.starts_with("__"), "{name} is reserved");
        let (value, after) = read_text(after)?;
        ensure!(labels.insert(name.to_owned(), value).is_none(), "{name} is there twice");
        match after.split_at_checked(1) {
            Some((",", after)) => rest = after,
            Some(("}", after)) => return Ok((labels, after)),
            _ => bail!("labels without an end"),
        }
    }
}

/// Reads up to the quote that ends a label's value.
fn read_text(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next().context("a backslash at the end")?.1 {
                'n' => value.push('\n'),
                c @ ('\\' | '"') => value.push(c),
                c => bail!("an unknown escape \\{c}"),
            },
            c if c.is_control() => bail!("a control character"),
            c => value.push(c),
        }
    }
    bail!("a value without an end")
}

fn read_value(text: &str) -> Result<f64> {
    match text {
        "+Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        "NaN" => Ok(f64::NAN),
        _ => {
            let fits = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
            ensure!(!text.is_empty() && text.chars().all(fits), "{text:?} is no value");
            text.parse().with_context(|| format!("{text:?} is no value"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a_total What.\n# TYPE a_total counter\na_total{x=\"1\\\"\\\\\\n\"} 2\n\
        # HELP h Times.\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\n\
        h_sum 3.5\nh_count 2\n# HELP g Now.\n# TYPE g gauge\ng -1e9\n";

    #[test]
    fn what_the_format_allows_is_read() {
        let read = Exposition::parse(GOOD).expect("well formed");
        assert_eq!(read.value("a_total", &[("x", "1\"\\\n")]), Some(2.0));
        assert_eq!(read.value("h_bucket", &[("le", "+Inf")]), Some(2.0));
        assert_eq!(read.value("g", &[]), Some(-1e9));
        assert_eq!((read.value("g", &[("x", "1")]), read.series().count()), (None, 6));
    }

    #[test]
    fn everything_else_is_refused() {
        for (from, to) in [
            ("g -1e9\n", "g -1e9"),
            ("g -1e9\n", "g -1e9\ng 1\n"),
            ("g -1e9\n", "g  1\n"),
            ("g -1e9\n", "g 1 \n"),
            ("g -1e9\n", "g 1 1700000000\n"),
            ("g -1e9\n", "g inf\n"),
            ("g -1e9\n", "g\n"),
            ("g -1e9\n", "g 1\r\n"),
            ("g -1e9\n", "\ng 1\n"),
            ("g -1e9\n", "other 1\n"),
            ("g -1e9\n", "g{x=\"1\"} 1\ng{y=\"1\"} 1\n"),
            ("g -1e9\n", "g{x=\"1\",x=\"2\"} 1\n"),
            ("g -1e9\n", "g{x=\"1\",} 1\n"),
            ("g -1e9\n", "g{__x=\"1\"} 1\n"),
            ("g -1e9\n", "g{1x=\"1\"} 1\n"),
            ("g -1e9\n", "g{x=\"\\t\"} 1\n"),
            ("g -1e9\n", "g{x=\"\u{1b}\"} 1\n"),
            ("g -1e9\n", "g{} 1\n"),
            ("# TYPE g gauge\n", ""),
            ("# TYPE g gauge\n", "# TYPE g gauge\n# TYPE g gauge\n"),
            ("# TYPE g gauge", "# TYPE g number"),
            ("# TYPE g gauge", "# TYPE g counter"),
            ("# HELP g Now.\n", ""),
            ("# HELP g Now.", "# HELP g "),
            ("# HELP g Now.", "# HELP g \\x"),
            ("# HELP g Now.", "# HELP h Now."),
            ("# HELP g Now.", "# more\n# HELP g Now."),
            ("} 2\n#", "} -2\n#"),
            ("h_bucket{le=\"1\"} 1", "h_bucket{le=\"1\"} 3"),
            ("h_bucket{le=\"1\"} 1", "h_bucket{le=\"x\"} 1"),
            ("h_bucket{le=\"1\"} 1", "h_bucket 1"),
            ("h_bucket{le=\"+Inf\"} 2\n", ""),
            ("h_sum 3.5\n", ""),
            ("h_count 2\n", "h_count 1\n"),
            ("h_count 2\n", "h_count 2\nh_max 2\n"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from:?}");
            assert!(Exposition::parse(&text).is_err(), "{from:?} as {to:?} is accepted");
        }
    }
}
