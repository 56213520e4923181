//! Values as people write them. Blanks around a value are no part of it, except in paths.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// Words for yes and no, as `filecoin-proofs` reads them.
pub(crate) const YES_OR_NO: &str = "1 or 0";
/// A number of things of which there has to be one.
pub(crate) const COUNT: &str = "a number from 1 on";
/// What [`time`] understands.
pub(crate) const TIME: &str = "a time, such as 4s or 2m 30s";
/// What [`crate::parse_size`] understands.
pub(crate) const SIZE: &str = "a size, such as 512MiB or 96GiB";
/// A path of a directory.
pub(crate) const DIRECTORY: &str = "a directory";

pub(crate) fn yes_or_no(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "on" | "yes" => Some(true),
        "0" | "false" | "off" | "no" => Some(false),
        _ => None,
    }
}

pub(crate) fn count(text: &str) -> Option<NonZeroUsize> {
    text.trim().parse().ok()
}

pub(crate) fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.trim().parse().ok()
}

pub(crate) fn time(text: &str) -> Option<Duration> {
    humantime::parse_duration(text.trim()).ok()
}

pub(crate) fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

/// One of some words.
pub(crate) fn one_of<T: Copy>(text: &str, words: &[(&str, T)]) -> Option<T> {
    let text = text.trim();
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yes_and_no_are_what_other_software_takes_for_them() {
        for (text, is_yes) in [
            ("1", Some(true)),
            ("ON", Some(true)),
            (" yes ", Some(true)),
            ("False", Some(false)),
            ("0", Some(false)),
            ("", None),
            ("2", None),
        ] {
            assert_eq!(yes_or_no(text), is_yes, "{text:?}");
        }
    }

    #[test]
    fn numbers_and_times_are_read_without_the_blanks_around_them() {
        assert_eq!(count(" 3 ").map(NonZeroUsize::get), Some(3));
        for text in ["0", "-1", "3.0", "", "three"] {
            assert_eq!(count(text), None, "{text:?}");
        }
        assert_eq!(time(" 1h 5s "), Some(Duration::from_secs(3605)));
        for text in ["5", "soon", "-1s", ""] {
            assert_eq!(time(text), None, "{text:?}");
        }
    }
}
