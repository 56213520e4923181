//! The id of a line that is no message, or is too long to be held.
//!
//! Whoever sent it waits for an answer, which only the id brings to it. So the id is looked for
//! wherever it stands, by a reader that knows of JSON no more than strings and brackets, and needs
//! no more memory than a few words, however long the line is.

/// The id at the top level of an object that may be broken elsewhere.
pub fn salvage_id(line: &[u8]) -> Option<u64> {
    let mut scanner = IdScanner::default();
    scanner.read(line);
    scanner.id()
}

/// Looks for the id of a message in parts of its line. The first one counts: a message with several
/// is refused, and its sender knows it by the first as well as by any.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdScanner {
    at: At,
    /// How many brackets are open.
    depth: u64,
}

/// What has been read up to here.
#[derive(Clone, Copy, Debug, Default)]
enum At {
    /// Nothing yet.
    #[default]
    Begin,
    /// The begin of the object, or a comma in it.
    Comma,
    /// The begin of a name: how much of it is that of the id, if all of it so far is.
    Name(Option<usize>),
    /// A name, and whether it is that of the id.
    NameEnd(bool),
    /// The colon after the id's name.
    Colon,
    /// Digits after it.
    Digits(u64),
    /// The number after it, and space.
    Number(u64),
    /// Something within a value that does not matter.
    Value,
    /// Something within a string of such a value.
    Text,
    /// A backslash in a string: of a name if so.
    Escape { name: bool },
    /// The id.
    Found(u64),
    /// The object was closed, or there was none.
    End,
}

const NAME: &[u8] = b"id";

impl IdScanner {
    /// Reads the next part of the line.
    pub(crate) fn read(&mut self, part: &[u8]) {
        for byte in part {
            if matches!(self.at, At::Found(_) | At::End) {
                return;
            }
            self.at = self.step(*byte);
        }
    }

    /// The id, if it was found.
    pub(crate) fn id(&self) -> Option<u64> {
        match self.at {
            At::Found(id) => Some(id),
            _ => None,
        }
    }

    fn step(&mut self, byte: u8) -> At {
        let space = byte.is_ascii_whitespace();
        match self.at {
            At::Begin if byte == b'{' => {
                self.depth = 1;
                At::Comma
            }
            At::Begin if !space => At::End,
            At::Comma if byte == b'"' => At::Name(Some(0)),
            At::Name(_) if byte == b'\\' => At::Escape { name: true },
            At::Name(matched) if byte == b'"' => At::NameEnd(matched == Some(NAME.len())),
            At::Name(matched) => At::Name(
                matched
                    .and_then(|matched| (NAME.get(matched) == Some(&byte)).then_some(matched + 1)),
            ),
            At::NameEnd(true) if byte == b':' => At::Colon,
            At::Colon if byte.is_ascii_digit() => At::Digits(u64::from(byte - b'0')),
            At::Digits(number) if byte.is_ascii_digit() => {
                let digit = u64::from(byte - b'0');
                let more = number.checked_mul(10).and_then(|tens| tens.checked_add(digit));
                // What is greater than an id can be is none.
                more.map_or(At::Value, At::Digits)
            }
            // A number that a break cut short is not the id.
            At::Digits(number) | At::Number(number) if matches!(byte, b',' | b'}') => {
                At::Found(number)
            }
            At::Digits(number) | At::Number(number) if space => At::Number(number),
            At::Text if byte == b'\\' => At::Escape { name: false },
            At::Text if byte == b'"' => At::Value,
            At::Text => At::Text,
            // An escape in a name makes it another one.
            At::Escape { name: true } => At::Name(None),
            At::Escape { name: false } => At::Text,
            before if space => before,
            _ => self.skip(byte),
        }
    }

    /// A byte of a value that does not matter, or of something that is no JSON.
    fn skip(&mut self, byte: u8) -> At {
        match byte {
            b'"' => return At::Text,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    return At::End;
                }
            }
            b',' if self.depth == 1 => return At::Comma,
            _ => {}
        }
        At::Value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn salvages_the_id_of_a_broken_line() {
        for (line, id) in [
            (r#"{"id":7,"task":{"a""#, Some(7)),
            (r#" { "id" : 7 , "ta"#, Some(7)),
            (r#"{"id":18446744073709551615,"#, Some(u64::MAX)),
            (r#"{"task":{},"id":7}"#, Some(7)),
            (r#"{"task":{"id":8,"x":["}",{"id":9}]},"id":7,"#, Some(7)),
            (r#"{"task":1,"task":2,"id":7}"#, Some(7)),
            (r#"{"more":[1,2],"id":7}"#, Some(7)),
            (r#"{"a":"\"id\":1,\\","id":7}"#, Some(7)),
            (r#"{"task":nonsense,"id":7}"#, Some(7)),
            (r#"{"task":[1},"id":7}"#, Some(7)),
            (r#"{"task" {"a":1},"id":7}"#, Some(7)),
            (r#"{,,"id":7}"#, Some(7)),
            (r#"{"id":7} trailing"#, Some(7)),
            (r#"{"id":"x","id":7}"#, Some(7)),
            (r#"{"id":7"#, None),
            (r#"{"id":7x,"#, None),
            (r#"{"id":7.0,"#, None),
            (r#"{"id":-7,"#, None),
            (r#"{"id":99999999999999999999,"#, None),
            (r#"{"id":"7","task":{}}"#, None),
            (r#"{"id":[7],"task":{}}"#, None),
            (r#"{"task":{"id":7},"#, None),
            (r#"{"ids":7,"i":7,"i\d":7,"\id":7}"#, None),
            (r#"{"task":{}},"id":7}"#, None),
            (r#"[{"id":7}]"#, None),
            (r#"[7,{}]"#, None),
            (r#""id":7,"#, None),
            ("junk", None),
            ("", None),
        ] {
            assert_eq!(salvage_id(line.as_bytes()), id, "{line}");
        }
    }

    proptest! {
        #[test]
        fn however_a_line_is_cut_the_id_is_the_same(
            line in "\\{(\"(id|task|x)\":([0-9]{1,3}|\"[a-z\\\\\"]{0,3}\"|\\[[0-9,]{0,4}\\]),?){0,4}\\}?",
            cut in any::<prop::sample::Index>(),
        ) {
            let (head, tail) = line.as_bytes().split_at(cut.index(line.len()));
            let mut scanner = IdScanner::default();
            scanner.read(head);
            scanner.read(tail);
            prop_assert_eq!(scanner.id(), salvage_id(line.as_bytes()));
        }
    }
}
