//! The words of a PTX text, each with its line.
//!
//! Only what words are is known here; what they mean together is `parse`'s.

/// A word: a name, a number, or one of the marks that PTX has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    /// Counted from 1.
    pub(crate) line: u32,
}

/// Characters that a name or a number is made of. A number may have a sign in front.
fn within_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}

/// All words of a text, without comments.
pub(crate) fn words(text: &str) -> Vec<Word> {
    let bytes = text.as_bytes();
    let mut words = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let rest = &bytes[at..];
        if rest[0] == b'\n' {
            line += 1;
            at += 1;
        } else if rest[0].is_ascii_whitespace() {
            at += 1;
        } else if rest.starts_with(b"//") {
            at += rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        } else if rest.starts_with(b"/*") {
            let length = find(rest, b"*/").map_or(rest.len(), |end| end + 2);
            line += rest[..length].iter().filter(|&&byte| byte == b'\n').count() as u32;
            at += length;
        } else {
            let length = length_of_word(rest);
            words.push(Word { text: text[at..at + length].to_owned(), line });
            at += length;
        }
    }
    words
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn length_of_word(rest: &[u8]) -> usize {
    if rest[0] == b'"' {
        let end = rest[1..].iter().position(|&byte| byte == b'"');
        return end.map_or(rest.len(), |end| end + 2);
    }
    let sign = usize::from(rest[0] == b'-' && rest.get(1).is_some_and(u8::is_ascii_digit));
    let name = rest[sign..].iter().take_while(|&&byte| within_name(byte)).count();
    if name > 0 {
        return sign + name;
    }
    // A mark; a text of other characters is taken by whole characters.
    (1..rest.len()).find(|&length| rest[length] & 0xc0 != 0x80).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_marks_are_words_and_comments_are_not() {
        let text = "@!%p1 bra $L__BB0_2; // away\n/* two\nlines */ ld.u32 %r1, [%rd2+-16];";
        let found: Vec<_> = words(text).into_iter().map(|word| (word.text, word.line)).collect();
        let first = ["@", "!", "%p1", "bra", "$L__BB0_2", ";"].map(|word| (word.to_owned(), 1));
        let second = ["ld.u32", "%r1", ",", "[", "%rd2", "+", "-16", "]", ";"];
        let second = second.map(|word| (word.to_owned(), 3));
        assert_eq!(found, [&first[..], &second[..]].concat());
    }
}
