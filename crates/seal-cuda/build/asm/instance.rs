//! The pieces of inline assembly in the PTX that nvcc emitted, with registers for operands: each is
//! matched with the statement it came of, and no two operands may share a register where one is
//! written before the last read of the other.

use std::collections::BTreeMap;

use super::template::{self, Token};
use super::{Fault, Statement};

/// Finds what is wrong in a file of PTX, given the statements of the sources. Also says how many
/// pieces there are.
pub(crate) fn faults_of_ptx(
    file: &str,
    ptx: &str,
    statements: &[Statement],
) -> (usize, Vec<Fault>) {
    let mut pieces = 0;
    let mut faults = Vec::new();
    let mut function = "no function";
    let mut piece: Option<(usize, String)> = None;
    for (number, line) in ptx.lines().enumerate() {
        let mut fault = |line, what| {
            let what = format!("in {function}, {what}");
            faults.push(Fault { file: file.to_owned(), line, what });
        };
        if let Some((first, text)) = &mut piece {
            if line.trim() == END {
                pieces += 1;
                if let Some(what) = fault_of(text, statements) {
                    fault(*first, what);
                }
                piece = None;
            } else {
                text.push_str(line);
                text.push('\n');
            }
        } else if line.trim() == BEGIN {
            piece = Some((number + 1, String::new()));
        } else if let Some(name) = function_name(line) {
            function = name;
        }
    }
    if let Some((line, _)) = piece {
        let what = format!("inline assembly that has no {END:?}");
        faults.push(Fault { file: file.to_owned(), line, what });
    }
    (pieces, faults)
}

const BEGIN: &str = "// begin inline asm";
const END: &str = "// end inline asm";

fn function_name(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(".entry ").or_else(|| line.split_once(".func "))?;
    // Results of a function stand in front of its name.
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('(').map_or(Some(rest), |rest| Some(rest.split_once(')')?.1))?;
    rest.trim_start().split(['(', ' ']).next().filter(|name| !name.is_empty())
}

fn fault_of(text: &str, statements: &[Statement]) -> Option<String> {
    let tokens = match template::tokens(text, None) {
        Ok(tokens) => tokens,
        Err(what) => return Some(format!("inline assembly with {what}")),
    };
    // One instruction reads all that it reads before it writes: no operands can be in its way. The
    // toolkit's own headers have such pieces.
    if tokens.iter().filter(|token| **token == Token::Mark(';')).count() <= 1 {
        return None;
    }
    let mut fault = None;
    for statement in statements {
        let Some(registers) = registers(&statement.tokens, &tokens) else { continue };
        match shared(statement, &registers) {
            // Of two statements that differ in their operands only, a piece may be of either.
            None => return None,
            Some(what) => fault = Some(what),
        }
    }
    fault.or_else(|| {
        let shown: Vec<_> = text.split_whitespace().take(12).collect();
        Some(format!(
            "inline assembly that is of none of the sources, so that its operands are unknown: {} …",
            shown.join(" ")
        ))
    })
}

/// What stands for each operand, if a piece is of this template.
fn registers<'a>(template: &[Token], piece: &'a [Token]) -> Option<BTreeMap<usize, &'a [Token]>> {
    let mut registers: BTreeMap<usize, &[Token]> = BTreeMap::new();
    let mut rest = piece;
    for token in template {
        let length = match token {
            // A number may have a sign.
            Token::Operand(_) => 1 + usize::from(rest.first() == Some(&Token::Mark('-'))),
            _ => 1,
        };
        let (these, after) = rest.split_at_checked(length)?;
        rest = after;
        match token {
            Token::Operand(operand) => {
                if !matches!(these.last(), Some(Token::Word(_)))
                    || *registers.entry(*operand).or_insert(these) != these
                {
                    return None;
                }
            }
            token => {
                if these != std::slice::from_ref(token) {
                    return None;
                }
            }
        }
    }
    rest.is_empty().then_some(registers)
}

/// The first two operands that share a register and must not.
fn shared(statement: &Statement, registers: &BTreeMap<usize, &[Token]>) -> Option<String> {
    for written in (0..statement.operand_count()).filter(|operand| statement.is_output(*operand)) {
        for other in (0..statement.operand_count()).filter(|other| *other != written) {
            let (Some(one), Some(two)) = (registers.get(&written), registers.get(&other)) else {
                continue;
            };
            if one != two || statement.is_tied(other, written) {
                continue;
            }
            let [Token::Word(register)] = one else { continue };
            let both = format!(
                "{} and {} of {} share the register {register}",
                statement.show(written),
                statement.show(other),
                statement.place()
            );
            if statement.is_output(other) {
                return Some(format!("{both}, and both are written"));
            }
            if let Some((write, read)) = statement.written_too_early(written, other) {
                return Some(format!(
                    "{both}: {} overwrites what {} reads",
                    statement.show_instruction(write),
                    statement.show_instruction(read)
                ));
            }
        }
    }
    None
}
