//! Requests and answers, and what can be told of a line that is neither.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use seal_types::StageName;

/// What follows the stage's name in the first line an executor writes.
pub const READY_SUFFIX: &str = " processor ready";

/// The line by which an executor says that it takes requests, for example `pc1 processor ready`.
pub fn ready_line(stage: impl Into<StageName>) -> String {
    format!("{}{READY_SUFFIX}", stage.into().wire_name())
}

/// A request whose task is still text. Unknown fields beside `id` and `task` are ignored.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct RawRequest {
    /// The sender's number for the request; the answer repeats it.
    pub id: u64,
    /// The task, as it was sent.
    pub task: Box<RawValue>,
}

/// An answer whose output is still text, as the supervisor passes it on.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct RawResponse {
    /// The number of the request that is answered.
    pub id: u64,
    /// What went wrong.
    #[serde(default)]
    pub err_msg: Option<String>,
    /// The stage's output.
    #[serde(default)]
    pub output: Option<Box<RawValue>>,
}

/// An answer. Exactly one of `err_msg` and `output` is present.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Response<O> {
    /// The number of the request that is answered.
    pub id: u64,
    /// What went wrong.
    pub err_msg: Option<String>,
    /// The stage's output.
    pub output: Option<O>,
}

impl<O> Response<O> {
    /// The answer of a task that was done.
    pub fn done(id: u64, output: O) -> Self {
        Self { id, err_msg: None, output: Some(output) }
    }

    /// The answer of a task that failed.
    pub fn failed(id: u64, error: &crate::TaskError) -> Self {
        Self { id, err_msg: Some(error.to_string()), output: None }
    }
}

/// A line that is not a request.
#[derive(Debug, thiserror::Error)]
#[error("not a request: {reason}")]
pub struct BadLine {
    /// The request's id, where it could be read all the same; the request then gets an answer.
    pub id: Option<u64>,
    /// What is wrong.
    pub reason: String,
}

impl RawRequest {
    /// Reads one line.
    pub fn parse(line: &[u8]) -> Result<Self, BadLine> {
        serde_json::from_slice(line)
            .map_err(|error| BadLine { id: salvage_id(line), reason: error.to_string() })
    }
}

impl RawResponse {
    /// Reads one line. Exactly one of `err_msg` and `output` must be there.
    pub fn parse(line: &[u8]) -> Result<Self, BadLine> {
        let bad = |reason: String| BadLine { id: salvage_id(line), reason };
        let response: Self =
            serde_json::from_slice(line).map_err(|error| bad(error.to_string()))?;
        match (&response.err_msg, &response.output) {
            (Some(_), None) | (None, Some(_)) => Ok(response),
            (None, None) => Err(bad("neither err_msg nor output is there".to_owned())),
            (Some(_), Some(_)) => Err(bad("both err_msg and output are there".to_owned())),
        }
    }
}

/// The id at the start of a line that begins like a message but is broken further on.
pub fn salvage_id(line: &[u8]) -> Option<u64> {
    let rest = line.trim_ascii_start().strip_prefix(b"{")?.trim_ascii_start();
    let rest = rest.strip_prefix(b"\"id\"")?.trim_ascii_start();
    let rest = rest.strip_prefix(b":")?.trim_ascii_start();
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, after) = rest.split_at(digits);
    // A number that the break cut short is not the id.
    let complete = matches!(after.trim_ascii_start().first(), Some(b',' | b'}'));
    complete.then(|| std::str::from_utf8(number).ok()?.parse().ok()).flatten()
}

/// `message` as one line, with its line end.
pub fn to_line<T: Serialize>(message: &T) -> Vec<u8> {
    let mut line =
        serde_json::to_vec(message).expect("messages have string keys and no failing serializers");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ready_line_has_the_name_that_workers_wait_for() {
        assert_eq!(ready_line(StageName::SnapProve), "snap_prove processor ready");
        assert_eq!(ready_line(StageName::SealingDaemons), "EMPTY processor ready");
    }

    #[test]
    fn salvages_the_id_of_a_broken_line() {
        for (line, id) in [
            (r#"{"id":7,"task":{"a""#, Some(7)),
            (r#" { "id" : 7 , "ta"#, Some(7)),
            (r#"{"id":7"#, None),
            (r#"{"id":-7,"#, None),
            (r#"{"id":99999999999999999999,"#, None),
            (r#"{"task":{},"id":7}"#, None),
            ("junk", None),
        ] {
            assert_eq!(salvage_id(line.as_bytes()), id, "{line}");
        }
    }

    #[test]
    fn a_broken_request_with_an_id_can_be_answered() {
        let error = RawRequest::parse(br#"{"id":3,"job":{}}"#).unwrap_err();
        assert_eq!(error.id, Some(3));
        assert!(error.reason.contains("task"), "{error}");
    }

    #[test]
    fn an_answer_is_done_or_failed_never_both() {
        for line in [r#"{"id":1,"err_msg":null,"output":null}"#, r#"{"id":1}"#] {
            assert!(RawResponse::parse(line.as_bytes()).is_err(), "{line}");
        }
        assert!(RawResponse::parse(br#"{"id":1,"err_msg":"x","output":1}"#).is_err());
        assert!(RawResponse::parse(br#"{"id":1,"err_msg":null,"output":{"proof":[]}}"#).is_ok());
    }

    proptest! {
        #[test]
        fn reading_never_panics(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = RawRequest::parse(&line);
            let _ = RawResponse::parse(&line);
            let _ = salvage_id(&line);
        }

        #[test]
        fn what_is_written_is_read_back(id: u64, text in ".*") {
            let task = serde_json::value::to_raw_value(&text).expect("a string");
            let line = to_line(&RawRequest { id, task });
            let request = RawRequest::parse(&line).expect("our own line");
            prop_assert_eq!(request.id, id);
            prop_assert_eq!(serde_json::from_str::<String>(request.task.get()).expect("a string"), text);
            prop_assert_eq!(salvage_id(&line), Some(id));
        }
    }
}
