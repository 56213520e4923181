//! Requests and answers, and what can be told of a line that is neither.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use seal_types::StageName;

use crate::objects::message_of;
use crate::salvage_id;

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
        message_of(line)
    }
}

impl RawResponse {
    /// Reads one line. Exactly one of `err_msg` and `output` must be there.
    pub fn parse(line: &[u8]) -> Result<Self, BadLine> {
        let bad = |reason: String| BadLine { id: salvage_id(line), reason };
        let response: Self = message_of(line)?;
        match (&response.err_msg, &response.output) {
            (Some(_), None) | (None, Some(_)) => Ok(response),
            (None, None) => Err(bad("neither err_msg nor output is there".to_owned())),
            (Some(_), Some(_)) => Err(bad("both err_msg and output are there".to_owned())),
        }
    }
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
