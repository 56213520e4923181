//! What a wire can carry that nobody meant to send: whatever it is, it is read without a panic and
//! with no more memory than a line may have.

use std::io::{self, BufReader, Read};

use proptest::prelude::*;
use seal_wire::{Event, Line, LineReader, RawRequest, RawResponse, salvage_id};

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
        Some(Line::TooLong { head, length }) => {
            assert_eq!(length, 16 + (512 << 20));
            assert_eq!(salvage_id(&head), Some(7));
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
