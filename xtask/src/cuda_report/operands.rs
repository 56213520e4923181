//! The operands of an instruction, as PTX and disassembled machine code both write them.

/// Splits operands at the commas that are not between brackets.
pub(super) fn split(operands: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (at, c) in operands.char_indices() {
        match c {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => depth -= 1,
            ',' if depth == 0 => {
                all.push(operands[start..at].trim().to_owned());
                start = at + 1;
            }
            _ => {}
        }
    }
    let last = operands[start..].trim();
    if !last.is_empty() {
        all.push(last.to_owned());
    }
    all
}
