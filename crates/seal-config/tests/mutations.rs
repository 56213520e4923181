//! Configurations that are almost right, and some that are far from it: they are read or refused,
//! never with a panic, and never with more memory than the text is worth.

use std::path::Path;

use proptest::prelude::*;
use seal_config::{ConfigError, parse, show};

fn read(text: &str) -> Result<seal_config::Config, ConfigError> {
    parse(Path::new("w.toml"), text)
}

/// One change to a text, at places given in parts of its length.
#[derive(Clone, Debug)]
enum Change {
    /// Removes some characters.
    Remove(f64, usize),
    /// Writes something in between.
    Insert(f64, String),
    /// Repeats a line elsewhere.
    CopyLine(f64, f64),
    /// Exchanges two words.
    Swap(f64, f64),
}

fn change() -> impl Strategy<Value = Change> {
    let at = || 0.0..1.0_f64;
    let inserted = prop_oneof![
        "[\\[\\]{}=\"'.,#\n ]{1,4}",
        "[0-9_eE+\\-.xob]{1,12}",
        Just("\u{0}".to_owned()),
        Just("\u{feff}".to_owned()),
        Just("[[[[[[[[".to_owned()),
        Just("\"\"\"".to_owned()),
        Just("99999999999999999999".to_owned()),
        Just("1979-05-27T07:32:00Z".to_owned()),
        any::<char>().prop_map(String::from),
    ];
    prop_oneof![
        (at(), 1..20_usize).prop_map(|(at, count)| Change::Remove(at, count)),
        (at(), inserted).prop_map(|(at, text)| Change::Insert(at, text)),
        (at(), at()).prop_map(|(from, to)| Change::CopyLine(from, to)),
        (at(), at()).prop_map(|(one, other)| Change::Swap(one, other)),
    ]
}

fn apply(text: &str, change: &Change) -> String {
    let chars: Vec<char> = text.chars().collect();
    let index = |part: f64, count: usize| ((part * count as f64) as usize).min(count);
    match change {
        Change::Remove(at, count) => {
            let at = index(*at, chars.len());
            chars[..at].iter().chain(chars.iter().skip(at + count)).collect()
        }
        Change::Insert(at, inserted) => {
            let at = index(*at, chars.len());
            chars[..at]
                .iter()
                .copied()
                .chain(inserted.chars())
                .chain(chars[at..].iter().copied())
                .collect()
        }
        Change::CopyLine(from, to) => {
            let mut lines: Vec<&str> = text.lines().collect();
            if let Some(line) = lines.get(index(*from, lines.len())).copied() {
                lines.insert(index(*to, lines.len()), line);
            }
            lines.join("\n")
        }
        Change::Swap(one, other) => {
            let mut words: Vec<&str> = text.split(' ').collect();
            let (one, other) = (index(*one, words.len()), index(*other, words.len()));
            if one < words.len() && other < words.len() {
                words.swap(one, other);
            }
            words.join(" ")
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn changed_configurations_are_read_or_refused(
        changes in proptest::collection::vec(change(), 1..6),
        scheme in any::<bool>(),
    ) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/schemes/scheme-b.toml");
        let text = if scheme {
            std::fs::read_to_string(path).expect("readable")
        } else {
            seal_config::example()
        };
        let text = changes.iter().fold(text, |text, change| apply(&text, change));
        match read(&text) {
            // What was understood can be shown, and what is shown can be read.
            Ok(config) => {
                let shown = show(&config);
                prop_assert!(read(&shown).is_ok(), "{}", shown);
            }
            Err(error) => {
                let told = error.to_string();
                prop_assert!(told.starts_with("w.toml:"), "{}", told);
                // The trouble is pointed at, not repeated.
                prop_assert!(told.len() < 2000, "{} bytes", told.len());
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = read(&text);
        let _ = read(&format!("[processors]\n{text}"));
    }
}

#[test]
fn text_without_end_in_depth_or_length_is_refused() {
    for text in [
        "[".repeat(1 << 20),
        format!("[processors]\nx = {}", "[".repeat(1 << 18)),
        format!("[processors]\nx = {}", "{a=".repeat(1 << 16)),
        format!("[processors.{}]", "a.".repeat(1 << 14)),
        format!("[[processors.pc1]]\nbin = \"{}\"\nbim = 1", "x".repeat(1 << 20)),
        format!("[[processors.pc1]]\ncgroup.cpuset = \"{}\"", "0-,".repeat(1 << 18)),
        "[[processors.pc1]]\ncgroup.cpuset = \"0-4294967295\"".to_owned(),
    ] {
        let error = read(&text).expect_err("nobody means that").to_string();
        assert!(error.len() < 4000, "{} bytes", error.len());
    }
}

#[test]
fn a_file_that_is_far_too_long_is_not_read() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    // Sparse: it takes no space.
    file.as_file().set_len(1 << 40).expect("sparse");
    let error = seal_config::load(file.path()).expect_err("nobody means that");
    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert_eq!(cause, "it has more than 16 MiB");
}
