//! Every example in `docs/protocol.md` is what this crate reads and writes.

use seal_types::Stage;
use seal_wire::{
    C2Output, EVENTS, ErrorCode, Event, Pc1Output, Pc1Task, Pc2Output, RawRequest, RawResponse,
    ready_line,
};
use serde::{Serialize, de::DeserializeOwned};

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol.md");
    std::fs::read_to_string(path).expect("part of every clone")
}

/// The blocks that begin with ```` ```<kind> ````.
fn examples(document: &str, kind: &str) -> Vec<String> {
    let fence = format!("```{kind}\n");
    let blocks = document.split(&fence).skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

fn reads_and_writes<T: DeserializeOwned + Serialize>(text: &str) {
    let value: T = serde_json::from_str(text).expect(text);
    let json: serde_json::Value = serde_json::from_str(text).expect(text);
    assert_eq!(serde_json::to_value(value).expect("plain data"), json);
}

#[test]
fn every_example_is_read() {
    let document = document();
    let mut count = 0;
    for (kind, check) in [
        ("json pc1-output", reads_and_writes::<Pc1Output> as fn(&str)),
        ("json pc2-output", reads_and_writes::<Pc2Output>),
        ("json c2-output", reads_and_writes::<C2Output>),
        ("json event", reads_and_writes::<Event>),
        ("json answer", |text| {
            let answer = RawResponse::parse(text.as_bytes()).expect(text);
            let message = answer.err_msg.expect("an error");
            assert!(ErrorCode::of_message(&message).is_some(), "{message}");
        }),
        ("json pc1-request", |text| {
            let request = RawRequest::parse(text.as_bytes()).expect(text);
            reads_and_writes::<Pc1Task>(request.task.get());
        }),
    ] {
        let examples = examples(&document, kind);
        assert!(!examples.is_empty(), "no example of {kind}");
        examples.iter().for_each(|text| check(text));
        count += examples.len();
    }
    assert_eq!(count, document.matches("```json").count(), "an example of an unknown kind");
    assert!(document.contains(&ready_line(Stage::Pc1)));
    assert!(document.contains(&format!("`{EVENTS}=1`")));
}

#[test]
fn every_error_code_is_listed_with_its_answer() {
    let document = document();
    for code in ErrorCode::ALL {
        let line = document.lines().find(|line| line.starts_with(&format!("| `{code}` |")));
        let line = line.unwrap_or_else(|| panic!("{code} is not listed"));
        let again = if code.retryable() { "| yes |" } else { "| no |" };
        assert!(line.ends_with(again), "{line}");
    }
}
