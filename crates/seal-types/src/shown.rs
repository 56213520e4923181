//! Text that came from outside, as it stands in messages.
//!
//! Whatever a request, a file or an executor says may be long and may hold anything. What is told
//! of it to people is bounded and on one line, so that nobody can fill a log or an answer, make up
//! log lines, or colour a terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// How many bytes of one value are shown.
pub const VALUE_MOST: usize = 200;

/// How many bytes a whole message has.
pub const MESSAGE_MOST: usize = 4096;

/// A value as it stands in a message: control characters are escaped, and of a long one the begin,
/// the end and the length are shown.
pub fn shown(value: &str) -> Cow<'_, str> {
    shortened(value, VALUE_MOST)
}

/// What a reader says of a text, as it stands in a message: readers quote what they read.
pub fn shown_reason(reason: &impl std::fmt::Display) -> String {
    shortened(&reason.to_string(), 2 * VALUE_MOST).into_owned()
}

/// As [`shown`], of bytes that may be no text.
pub fn shown_bytes(value: &[u8]) -> String {
    if value.len() <= VALUE_MOST {
        return shown(&String::from_utf8_lossy(value)).into_owned();
    }
    // What is left out need not be looked at: it may be a hundred megabytes.
    let head = String::from_utf8_lossy(&value[..head_of(VALUE_MOST)]);
    let tail = String::from_utf8_lossy(&value[value.len() - tail_of(VALUE_MOST)..]);
    format!("{} ...({} bytes)... {}", escaped(&head), value.len(), escaped(&tail))
}

/// `text` in at most about `most` bytes: the begin, how long it is, and the end, which in messages
/// often says where something is.
pub fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return escaped(text);
    }
    let head = &text[..floor(text, head_of(most))];
    let tail = &text[floor(text, text.len() - tail_of(most))..];
    format!("{} ...({} bytes)... {}", escaped(head), text.len(), escaped(tail)).into()
}

fn head_of(most: usize) -> usize {
    most * 3 / 4
}

fn tail_of(most: usize) -> usize {
    most - head_of(most)
}

/// `text` with its control characters as they are written in programs.
fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return text.into();
    }
    let mut plain = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_control() {
            // Writing to a string cannot fail.
            let _ = write!(plain, "{}", c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain.into()
}

/// The last place at or before `index` where a character begins.
fn floor(text: &str, index: usize) -> usize {
    (0..=index).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_value_is_shown_as_it_is_on_one_line() {
        assert_eq!(shown("StackedDrg2KiBV1"), "StackedDrg2KiBV1");
        assert_eq!(shown("a\nb\u{1b}[31mc\0"), "a\\nb\\u{1b}[31mc\\u{0}");
        assert_eq!(shown_bytes(b"a\xff\n"), "a\u{fffd}\\n");
        assert_eq!(shown("é".repeat(100).as_str()), "é".repeat(100));
    }

    #[test]
    fn of_a_long_value_begin_end_and_length_are_shown() {
        for c in ["x", "é", "字", "\u{1f600}", "\n"] {
            let long = format!("begin{}end", c.repeat(1 << 20));
            for told in [shown(&long).into_owned(), shown_bytes(long.as_bytes())] {
                assert!(told.starts_with("begin") && told.ends_with("end"), "{told}");
                assert!(told.contains(&format!("({} bytes)", long.len())), "{told}");
                assert!(told.len() < 2 * VALUE_MOST + 40, "{} bytes", told.len());
                assert!(!told.contains('\n'));
            }
            assert!(shortened(&long, MESSAGE_MOST).len() < 2 * MESSAGE_MOST + 40);
        }
    }
}
