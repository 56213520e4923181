//! What a wire can carry that nobody meant to send: whatever it is, it is read without a panic and
//! with no more memory than a line may have.

use std::io::{self, BufReader, Read};

use proptest::prelude::*;
use seal_wire::{Event, Line, LineReader, RawRequest, RawResponse, RequestHead, salvage_id};

/// The most memory this process has had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("there");
    let kib = line.trim().split(' ').next().and_then(|kib| kib.parse::<u64>().ok());
    kib.expect("a number") << 10
}

/// Understands a line in every way there is, and tells the id that each way found.
fn understand(text: &[u8]) -> Vec<Option<u64>> {
    vec![
        RawRequest::parse(text).map_or_else(|bad| bad.id, |request| Some(request.id)),
        RawResponse::parse(text).map_or_else(|bad| bad.id, |response| Some(response.id)),
        Event::parse(text).map_or_else(|bad| bad.id, |_| salvage_id(text)),
        salvage_id(text),
    ]
}

#[test]
fn a_line_without_end_takes_no_more_memory_than_the_cap() {
    const CAP: usize = 1 << 20;
    let head = br#"{"id":7,"task":""#;
    let endless = head.chain(io::repeat(b'x').take(512 << 20)).chain(&b"\n{}\n"[..]);
    let before = peak();
    let mut reader = LineReader::new(BufReader::new(endless), CAP);
    match reader.next_line().expect("memory cannot fail") {
        Some(Line::TooLong { head, length, id }) => {
            assert_eq!(length, 16 + (512 << 20));
            assert_eq!(id, Some(7));
            assert!(head.capacity() < 64 << 10);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(reader.next_line().expect("memory"), Some(Line::Whole(b"{}".into())));
    let grown = peak() - before;
    assert!(grown < 32 << 20, "{grown} bytes for a line of which {CAP} are kept");
}

#[test]
fn depth_does_not_overflow_the_stack() {
    for open in ["[", "{\"a\":", "[{\"id\":"] {
        let deep = open.repeat(200_000);
        for text in
            [deep.clone(), format!("{{\"id\":3,\"task\":{deep}"), format!("{{\"id\":3,{deep}")]
        {
            understand(text.as_bytes());
        }
    }
}

/// A request's parts, of which a line is made in any order, number and state.
#[derive(Clone, Debug)]
enum Part {
    Id,
    Task(&'static str),
    More(&'static str),
}

impl Part {
    fn text(&self) -> String {
        match self {
            Self::Id => r#""id":41"#.to_owned(),
            Self::Task(value) => format!("\"task\":{value}"),
            Self::More(text) => (*text).to_owned(),
        }
    }
}

fn part() -> impl Strategy<Value = Part> {
    let values = prop::sample::select(vec![
        "{}",
        "[1,{\"id\":2}]",
        "null",
        "\"}\\\"\"",
        "nonsense",
        "{\"id\":3,\"a\":{}}",
        "-1e9",
        "",
    ]);
    let more = prop::sample::select(vec![
        "\"x\":{\"id\":9}",
        "\"ids\":5",
        "\"err_msg\":\"\\\\\"",
        "1",
        "\"y\"",
        "\"z\":[[],{}]",
    ]);
    prop_oneof![
        2 => Just(Part::Id),
        3 => values.prop_map(Part::Task),
        1 => more.prop_map(Part::More),
    ]
}

proptest! {
    /// Whoever sent a line with an id, wherever it stands and whatever else is wrong, is told: it
    /// is a request with this id, or it is none and the id is known.
    #[test]
    fn an_id_is_found_wherever_it_stands_and_whatever_stands_beside_it(
        parts in proptest::collection::vec(part(), 0..6),
        after in prop::sample::select(vec!["}", "", ",", "} ", "}}", "} {"]),
        cap in 8_usize..200,
    ) {
        let texts: Vec<_> = parts.iter().map(Part::text).collect();
        let line = format!("{{{}{after}", texts.join(","));
        // An id that ends the line, without anything after it, may have been cut.
        let complete = !(after.is_empty() && matches!(parts.last(), Some(Part::Id)));
        let ids = parts.iter().filter(|part| matches!(part, Part::Id)).count();
        let there = ids > usize::from(!complete);
        let expected = there.then_some(41);
        prop_assert_eq!(salvage_id(line.as_bytes()), expected, "{}", &line);
        match RawRequest::parse(line.as_bytes()) {
            Ok(request) => prop_assert_eq!(Some(request.id), expected, "{}", &line),
            Err(bad) => prop_assert_eq!(bad.id, expected, "{}: {}", &line, bad.reason),
        }
        let text = format!("{line}\n");
        let mut reader = LineReader::new(BufReader::with_capacity(7, text.as_bytes()), cap);
        let found = match reader.next_line().expect("memory cannot fail").expect("a line") {
            Line::TooLong { id, .. } => id,
            Line::Whole(whole) | Line::Unterminated(whole) => salvage_id(&whole),
        };
        prop_assert_eq!(found, expected);
    }

    /// What a refusal quotes of a line is bounded.
    #[test]
    fn no_refusal_repeats_the_line(length in 1_usize..200_000, place in 0_usize..4) {
        let long = "x".repeat(length);
        let line = [
            format!("{{\"id\":1,\"{long}"),
            format!("{{\"id\":\"{long}\",\"task\":1}}"),
            long.clone(),
            format!("[\"{long}\",{{}}]"),
        ][place].clone();
        for reason in [
            RawRequest::parse(line.as_bytes()).map(drop).unwrap_err().reason,
            RawResponse::parse(line.as_bytes()).map(drop).unwrap_err().reason,
            Event::parse(line.as_bytes()).map(drop).unwrap_err().reason,
        ] {
            prop_assert!(reason.len() < 1024, "{} bytes", reason.len());
        }
    }
}

#[test]
fn a_list_of_values_is_no_message() {
    for list in [
        r#"[7,{}]"#,
        r#" [7,{"a":1}]"#,
        r#"[7,null,{"proof":[]}]"#,
        r#"["started",7,"s"]"#,
        r#"["progress",7,"p",1,2,"nodes"]"#,
        r#"["device","d","good",0]"#,
    ] {
        let list = list.as_bytes();
        assert!(RawRequest::parse(list).is_err());
        assert!(RequestHead::parse(list).is_err());
        assert!(RawResponse::parse(list).is_err());
        assert!(Event::parse(list).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Real lines with bytes changed: none of them is understood as another request's.
    #[test]
    fn changed_lines_never_panic(
        line in prop_oneof![
            Just(&br#"{"id":41,"task":{"registered_proof":"StackedDrg2KiBV1_1","x":[1,2,{"y":null}]}}"#[..]),
            Just(&br#"{"id":41,"err_msg":null,"output":{"proof":[1,2,3]}}"#[..]),
            Just(&br#"{"id":41,"err_msg":"[no-space] \"full\"","output":null}"#[..]),
            Just(&br#"{"event":"progress","id":41,"part":"p","done":1,"total":2,"unit":"nodes"}"#[..]),
        ],
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        cut in any::<prop::sample::Index>(),
        split in 1_usize..64,
    ) {
        let mut bytes = line.to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        understand(&bytes);
        let mut reader = LineReader::new(BufReader::with_capacity(split, &bytes[..]), 48);
        let mut length = 0;
        while let Some(line) = reader.next_line().expect("memory cannot fail") {
            let (Line::Whole(text) | Line::Unterminated(text) | Line::TooLong { head: text, .. }) =
                &line;
            understand(text);
            length += match &line {
                Line::TooLong { length, .. } => usize::try_from(*length).expect("short"),
                _ => text.len(),
            };
        }
        prop_assert!(length <= bytes.len());
    }
}
