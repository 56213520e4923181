//! Reading lines of bounded length.
//!
//! A line over the cap is skipped to its end instead of being held in memory. Its head is kept, and
//! an id is looked for on the way, so that the request can still be answered.

use std::io::{self, BufRead};

use crate::salvage::IdScanner;

/// How much of a line over the cap is kept, for whoever is told of it.
const HEAD: usize = 4096;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A whole line, without its end.
    Whole(Vec<u8>),
    /// The last bytes of the input, which no line end followed.
    Unterminated(Vec<u8>),
    /// A line longer than the cap.
    TooLong {
        /// Its first bytes.
        head: Vec<u8>,
        /// Its length in bytes.
        length: u64,
        /// The id of the message, wherever it stands in the line.
        id: Option<u64>,
    },
}

/// Reads lines no longer than a cap.
#[derive(Debug)]
pub struct LineReader<R> {
    input: R,
    cap: usize,
}

impl<R: BufRead> LineReader<R> {
    /// Reads lines of at most `cap` bytes from `input`.
    pub fn new(input: R, cap: usize) -> Self {
        Self { input, cap }
    }

    /// The next line, or `None` at the end of the input.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        let mut line = Vec::new();
        let mut length = 0_u64;
        let mut scanner = None;
        loop {
            let chunk = match self.input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() {
                return Ok((length > 0).then(|| self.finish(line, length, scanner, false)));
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            length += part.len() as u64;
            if length <= self.cap as u64 {
                line.extend_from_slice(part);
            } else {
                let scanner = scanner.get_or_insert_with(|| {
                    let mut scanner = IdScanner::default();
                    scanner.read(&line);
                    scanner
                });
                scanner.read(part);
                let missing = HEAD.saturating_sub(line.len()).min(part.len());
                line.extend_from_slice(&part[..missing]);
                line.truncate(HEAD);
                line.shrink_to_fit();
            }
            let used = part.len() + usize::from(end.is_some());
            self.input.consume(used);
            if end.is_some() {
                return Ok(Some(self.finish(line, length, scanner, true)));
            }
        }
    }

    fn finish(
        &self,
        mut line: Vec<u8>,
        length: u64,
        scanner: Option<IdScanner>,
        terminated: bool,
    ) -> Line {
        if length > self.cap as u64 {
            let id = scanner.and_then(|scanner| scanner.id());
            return Line::TooLong { head: line, length, id };
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if terminated { Line::Whole(line) } else { Line::Unterminated(line) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(input: &[u8], cap: usize, buffer: usize) -> Vec<Line> {
        let mut reader = LineReader::new(io::BufReader::with_capacity(buffer, input), cap);
        std::iter::from_fn(|| reader.next_line().expect("memory cannot fail")).collect()
    }

    #[test]
    fn tells_whole_lines_from_the_rest() {
        assert_eq!(
            lines(b"one\r\n\ntwo", 10, 4),
            [Line::Whole(b"one".into()), Line::Whole(vec![]), Line::Unterminated(b"two".into())]
        );
    }

    #[test]
    fn a_line_over_the_cap_is_skipped_and_its_head_kept() {
        let mut input = vec![b'x'; 10_000];
        input.extend_from_slice(b"\nnext\n");
        let got = lines(&input, 5, 7);
        assert_eq!(
            got,
            [
                Line::TooLong { head: vec![b'x'; HEAD], length: 10_000, id: None },
                Line::Whole(b"next".into())
            ]
        );
    }

    #[test]
    fn the_id_of_a_line_over_the_cap_is_found_wherever_it_stands() {
        let padding = "x".repeat(10_000);
        for (line, expected) in [
            (format!("{{\"id\":7,\"task\":\"{padding}\"}}\n"), Some(7)),
            (format!("{{\"task\":{{\"a\":[\"{padding}\"],\"id\":1}},\"id\":7}}\n"), Some(7)),
            (format!("{{\"task\":\"{padding}\"}}\n"), None),
        ] {
            for buffer in [7, 4096, 1 << 20] {
                let got = lines(line.as_bytes(), 5000, buffer);
                let [Line::TooLong { id, .. }] = &got[..] else { panic!("{got:?}") };
                assert_eq!(*id, expected, "{}", &line[..20]);
            }
        }
    }

    #[test]
    fn a_line_of_exactly_the_cap_is_whole() {
        assert_eq!(lines(b"12345\n", 5, 2), [Line::Whole(b"12345".into())]);
        assert!(matches!(lines(b"123456\n", 5, 2)[..], [Line::TooLong { length: 6, .. }]));
    }

    proptest! {
        #[test]
        fn every_byte_is_accounted_for(
            input in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'a'), any::<u8>()], 0..200),
            cap in 1_usize..50,
            buffer in 1_usize..30,
        ) {
            let got = lines(&input, cap, buffer);
            let expected: Vec<&[u8]> = input.split(|b| *b == b'\n').collect();
            let count = expected.len() - usize::from(expected.last().is_some_and(|l| l.is_empty()));
            prop_assert_eq!(got.len(), count);
            for (line, text) in got.iter().zip(expected) {
                match line {
                    Line::TooLong { length, .. } => prop_assert_eq!(*length, text.len() as u64),
                    Line::Whole(bytes) | Line::Unterminated(bytes) => {
                        prop_assert_eq!(&bytes[..], text.strip_suffix(b"\r").unwrap_or(text));
                    }
                }
            }
        }
    }
}
