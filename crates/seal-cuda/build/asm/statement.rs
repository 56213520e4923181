//! `asm` statements of the sources: template, operands, constraints, and what is wrong with them.

use super::Fault;
use super::cpp::{self, Kind};
use super::template::{self, Template, Token};

/// What a constraint says of an operand.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Role {
    /// Written; read before that if `also_read`. An early one shares no register with an input.
    Output { also_read: bool, early: bool },
    /// Read. One that is tied lies in the register of that output.
    Input { tied: Option<usize>, immediate: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Operand {
    role: Role,
    constraint: String,
    /// What it stands for in C++.
    expression: String,
}

/// A piece of inline assembly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    file: String,
    line: usize,
    operands: Vec<Operand>,
    template: Template,
    pub(super) tokens: Vec<Token>,
}

/// Finds the `asm` statements of a C++ source.
pub(super) fn find(file: &str, source: &str) -> (Vec<Statement>, Vec<Fault>) {
    let fault = |line, what| Fault { file: file.to_owned(), line, what };
    let tokens = match cpp::tokens(source) {
        Ok(tokens) => tokens,
        Err((line, what)) => return (Vec::new(), vec![fault(line, what)]),
    };
    let (mut statements, mut faults) = (Vec::new(), Vec::new());
    for (at, token) in tokens.iter().enumerate() {
        if !matches!(token.word(), Some("asm" | "__asm" | "__asm__")) {
            continue;
        }
        match statement(file, token.line, &tokens[at + 1..]) {
            Ok(statement) => statements.push(statement),
            Err(what) => faults.push(fault(token.line, format!("inline assembly with {what}"))),
        }
    }
    (statements, faults)
}

/// Reads what stands behind `asm`.
fn statement(file: &str, line: usize, tokens: &[cpp::Token]) -> Result<Statement, String> {
    let open = tokens
        .iter()
        .position(|token| {
            !matches!(token.word(), Some("volatile" | "__volatile__" | "inline" | "__inline__"))
        })
        .filter(|open| tokens[*open].is('('))
        .ok_or("no ( behind it")?;
    let tokens = &tokens[open + 1..];
    let (text, mut rest) = texts(tokens);
    let text = text.ok_or("a template that is no text, which cannot be checked")?;
    // Outputs, inputs, clobbers: each behind a colon.
    let mut operands: Vec<Operand> = Vec::new();
    let mut names = Vec::new();
    let mut section = 0;
    while let Some((token, after)) = rest.split_first() {
        rest = after;
        if token.is(')') {
            break;
        } else if token.is(':') {
            section += 1;
        } else if token.is(',') || section > 2 {
            // What is clobbered is no operand.
        } else if section == 0 {
            return Err(format!("{:?} behind its template, which cannot be checked", token.show()));
        } else {
            let (name, operand, after) = operand(token, after, section == 1)?;
            names.push(name);
            operands.push(operand);
            rest = after;
        }
    }
    let tokens = template::tokens(&text, Some(&names))?;
    let template = template::parse(&tokens)?;
    Ok(Statement { file: file.to_owned(), line, operands, template, tokens })
}

/// The texts at the beginning, joined, and the tokens behind them.
fn texts(tokens: &[cpp::Token]) -> (Option<String>, &[cpp::Token]) {
    let mut all: Option<String> = None;
    let mut rest = tokens;
    while let Some((cpp::Token { kind: Kind::Text(text), .. }, after)) = rest.split_first() {
        all.get_or_insert_default().push_str(text);
        rest = after;
    }
    (all, rest)
}

/// Reads `[name] "constraint" (expression)`.
fn operand<'a>(
    first: &cpp::Token,
    after: &'a [cpp::Token],
    output: bool,
) -> Result<(Option<String>, Operand, &'a [cpp::Token]), String> {
    let unclear = || format!("an operand that cannot be read, at {:?}", first.show());
    let (mut name, mut rest) = (None, after);
    let constraint = if first.is('[') {
        name = after.first().and_then(cpp::Token::word).map(str::to_owned);
        let behind = after.get(2..).filter(|_| name.is_some() && after[1].is(']'));
        let (text, after) = texts(behind.ok_or_else(unclear)?);
        rest = after;
        text.ok_or_else(unclear)?
    } else {
        let Kind::Text(text) = &first.kind else { return Err(unclear()) };
        text.clone()
    };
    let mut depth = 0;
    let mut expression = String::new();
    for (at, token) in rest.iter().enumerate() {
        if token.is(')') {
            depth -= 1;
        }
        if depth > 0 {
            expression.push_str(&token.show());
        }
        if token.is('(') {
            depth += 1;
        }
        if depth == 0 {
            if at == 0 {
                break;
            }
            let role = role(&constraint, output)?;
            let operand = Operand { role, constraint, expression };
            return Ok((name, operand, &rest[at + 1..]));
        }
    }
    Err(unclear())
}

fn role(constraint: &str, output: bool) -> Result<Role, String> {
    let letters = constraint.trim_start_matches(['=', '+', '&', '%']);
    if output {
        let also_read = constraint.starts_with('+');
        if !also_read && !constraint.starts_with('=') {
            return Err(format!("the output {constraint:?}, which has neither = nor +"));
        }
        return Ok(Role::Output { also_read, early: constraint.contains('&') });
    }
    if letters != constraint {
        return Err(format!("the input {constraint:?}, which is marked as an output"));
    }
    let tied = letters.parse().ok();
    Ok(Role::Input { tied, immediate: ["n", "i"].contains(&letters) })
}

impl Statement {
    /// The place of the first instruction that writes an operand, and of the last that reads it.
    fn first_write(&self, operand: usize) -> Option<usize> {
        self.template.instructions.iter().position(|i| i.writes.contains(&operand))
    }

    fn last_read(&self, operand: usize) -> Option<usize> {
        self.template.instructions.iter().rposition(|i| i.reads.contains(&operand))
    }

    /// The instructions by which one operand is written and another is read after it, if so.
    pub(super) fn written_too_early(&self, written: usize, read: usize) -> Option<(usize, usize)> {
        let write = self.first_write(written)?;
        let read = self.last_read(read)?;
        // With labels nothing is known of the order.
        (read > write || self.template.labels).then_some((write, read))
    }

    pub(super) fn operand_count(&self) -> usize {
        self.operands.len()
    }

    pub(super) fn is_output(&self, operand: usize) -> bool {
        matches!(self.operands[operand].role, Role::Output { .. })
    }

    pub(super) fn is_tied(&self, input: usize, output: usize) -> bool {
        matches!(self.operands[input].role, Role::Input { tied: Some(to), .. } if to == output)
    }

    /// Where it stands.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }

    /// An operand, as messages name it.
    pub(super) fn show(&self, operand: usize) -> String {
        format!("%{operand} ({})", self.operands[operand].expression)
    }

    /// An instruction, as messages name it.
    pub(super) fn show_instruction(&self, at: usize) -> String {
        format!("instruction {} ({})", at + 1, self.template.instructions[at].show())
    }

    /// What is wrong with the constraints.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (number, operand) in self.operands.iter().enumerate() {
            let what = match operand.role {
                Role::Output { also_read, early } => self.fault_of_output(number, also_read, early),
                Role::Input { tied: Some(output), .. } => {
                    self.written_too_early(output, number).map(|(write, read)| {
                        format!(
                            "{} lies in the register of %{output}, which {} writes before {} \
                             reads it; read %{output} there",
                            self.show(number),
                            self.show_instruction(write),
                            self.show_instruction(read)
                        )
                    })
                }
                Role::Input { tied: None, .. } => self.first_write(number).map(|write| {
                    format!(
                        "{} is an input and written by {}; make it an output that is read, \"+{}\"",
                        self.show(number),
                        self.show_instruction(write),
                        operand.constraint
                    )
                }),
            };
            let fault = |what| Fault { file: self.file.clone(), line: self.line, what };
            faults.extend(what.map(fault));
        }
        faults
    }

    fn fault_of_output(&self, number: usize, also_read: bool, early: bool) -> Option<String> {
        let Some(write) = self.first_write(number) else {
            return Some(format!("{} is an output and never written", self.show(number)));
        };
        let instructions = &self.template.instructions;
        let read = instructions.iter().position(|i| i.reads.contains(&number));
        if let Some(read) = read.filter(|read| !also_read && *read <= write) {
            return Some(format!(
                "{} is read by {} before it is written; make its constraint {:?}",
                self.show(number),
                self.show_instruction(read),
                self.operands[number].constraint.replace('=', "+")
            ));
        }
        if early {
            return None;
        }
        let (other, (write, read)) = (0..self.operands.len())
            .filter(|other| {
                matches!(self.operands[*other].role, Role::Input { tied: None, immediate: false })
            })
            .filter_map(|other| Some((other, self.written_too_early(number, other)?)))
            .next()?;
        let (mark, letters) = self.operands[number].constraint.split_at(1);
        Some(format!(
            "{} is written by {} before the last read of {}, by {}; where both are known to be \
             equal the compiler gives them one register: make its constraint \"{mark}&{letters}\"",
            self.show(number),
            self.show_instruction(write),
            self.show(other),
            self.show_instruction(read)
        ))
    }
}
