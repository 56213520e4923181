//! The end of an executor's log, for whoever is told that it died.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use seal_types::shown;
use serde_json::{Map, Value};

/// How many lines are remembered.
const LINES: usize = 6;

/// How many fields beside its message are told of a line.
const FIELDS: usize = 6;

/// The last lines, as people read them.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    /// A line has come.
    pub(crate) fn add(&self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = match serde_json::from_str::<Map<String, Value>>(&text) {
            Ok(event) => of_event(&event),
            Err(_) => Some(text.trim().to_owned()),
        };
        let Some(text) = text.filter(|text| !text.is_empty()) else { return };
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(shown(&text).into_owned());
    }

    /// All of them as one line; empty if there are none.
    pub(crate) fn told(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join(" | ")
    }
}

/// What a JSON line of a log says; nothing for one that only tells progress.
fn of_event(event: &Map<String, Value>) -> Option<String> {
    // Where they stand depends on who has written it.
    let inner = event.get("fields").and_then(Value::as_object).unwrap_or(event);
    let message = inner.get("message").or_else(|| inner.get("msg"));
    let message = match message.map(plain) {
        Some(message) if message == "progress" => return None,
        Some(message) => message,
        None => return Some(Value::Object(event.clone()).to_string()),
    };
    let level = event.get("level").and_then(Value::as_str);
    let level = level.filter(|level| !level.eq_ignore_ascii_case("info"));
    let mut told = level.map(|level| format!("{level} ")).unwrap_or_default();
    told.push_str(&message);
    // When, where and of which task it was written is told beside this, or is of no use.
    let dull = ["message", "msg", "level", "timestamp", "target", "span", "spans", "threadId"];
    let fields = inner.iter().filter(|(name, value)| {
        !dull.contains(&name.as_str()) && !value.is_null() && !value.is_object()
    });
    for (name, value) in fields.take(FIELDS) {
        told.push_str(&format!(" {name}={}", plain(value)));
    }
    Some(told)
}

/// A value without the quotes of JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &[&str]) -> String {
        let last = LastLines::default();
        lines.iter().for_each(|line| last.add(line.as_bytes()));
        last.told()
    }

    #[test]
    fn json_lines_are_told_as_people_read_them() {
        let lines = [
            r#"{"timestamp":"2026-01-01T00:00:00Z","level":"INFO","message":"task starts","target":"x","span":{"req":1,"name":"task"}}"#,
            r#"{"timestamp":"t","level":"INFO","message":"progress","part":"layer 1 of 2","done":5}"#,
            r#"{"timestamp":"t","level":"ERROR","message":"cannot read","error":"No such file","code":2,"target":"x"}"#,
            r#"{"timestamp":"t","level":"WARN","fields":{"message":"old form"},"target":"x"}"#,
            r#"{"other":1}"#,
            r#"["a"]"#,
            " plain text ",
            "",
        ];
        let expected = "task starts | ERROR cannot read code=2 error=No such file | WARN old form | \
                        {\"other\":1} | [\"a\"] | plain text";
        assert_eq!(told(&lines), expected);
    }

    #[test]
    fn lines_are_few_short_and_on_one_line() {
        let long = format!(r#"{{"level":"INFO","message":"begin{}end"}}"#, "\\n".repeat(50_000));
        let text = "y\u{1b}[31m".repeat(50_000);
        let words = told(&[&long, &text, &long, &text, &long, &text, &long, &text]);
        assert!(words.len() < LINES * 3 * seal_types::VALUE_MOST, "{} bytes", words.len());
        assert_eq!(words.split(" | ").count(), LINES);
        assert!(words.contains("begin") && words.contains("end") && !words.contains('\n'));
        assert!(!words.contains('\u{1b}'));
    }
}
