//! The text of a piece of inline assembly, in PTX: its instructions and what each reads and writes.

/// A token of PTX.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Token {
    /// The operand of this number.
    Operand(usize),
    /// A register, an opcode, a number.
    Word(String),
    /// Any other character.
    Mark(char),
}

impl Token {
    fn show(&self) -> String {
        match self {
            Self::Operand(number) => format!("%{number}"),
            Self::Word(word) => word.clone(),
            Self::Mark(mark) => mark.to_string(),
        }
    }
}

/// Splits PTX. In a template `%3` and `%[name]` stand for operands and `%%` for `%`; what nvcc has
/// emitted has registers there.
///
/// # Errors
/// What cannot be read.
pub(super) fn tokens(text: &str, names: Option<&[Option<String>]>) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || "_.$%".contains(c);
        if c.is_whitespace() {
            rest = &rest[c.len_utf8()..];
        } else if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.starts_with("/*") {
            let end = rest.find("*/").ok_or("a comment without an end")?;
            rest = &rest[end + 2..];
        } else if let Some(names) = names.filter(|_| c == '%' && !rest.starts_with("%%")) {
            let (operand, after) = operand(&rest[1..], names)?;
            tokens.push(Token::Operand(operand));
            rest = after;
        } else if is_word(c) {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let word = if names.is_some() { word.replace("%%", "\u{0}") } else { word.to_owned() };
            if names.is_some() && word.contains('%') {
                return Err(format!("an operand in the middle of {word:?}"));
            }
            tokens.push(Token::Word(word.replace('\u{0}', "%")));
            rest = after;
        } else {
            tokens.push(Token::Mark(c));
            rest = &rest[c.len_utf8()..];
        }
    }
    Ok(tokens)
}

/// The operand that stands behind a `%`, and what comes after it.
fn operand<'a>(text: &'a str, names: &[Option<String>]) -> Result<(usize, &'a str), String> {
    let (number, after) = if let Some(named) = text.strip_prefix('[') {
        let (name, after) = named.split_once(']').ok_or("%[ without ]")?;
        let number = names.iter().position(|known| known.as_deref() == Some(name));
        (number.ok_or_else(|| format!("%[{name}], and no operand has this name"))?, after)
    } else {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, after) = text.split_at(end);
        let number = digits.parse().map_err(|_| {
            let shown: String = text.chars().take(8).collect();
            format!("%{shown}, which is neither an operand (%0, %[name]) nor a % of PTX (%%)")
        })?;
        (number, after)
    };
    if number >= names.len() {
        return Err(format!("operand %{number}, and there are {}", names.len()));
    }
    Ok((number, after))
}

/// An instruction with the operands of the piece that it reads and writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) reads: Vec<usize>,
    pub(super) writes: Vec<usize>,
    text: String,
}

impl Instruction {
    /// As it may be shown.
    pub(super) fn show(&self) -> &str {
        &self.text
    }
}

/// The instructions of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) instructions: Vec<Instruction>,
    /// Whether there are labels, so that what stands later may come earlier.
    pub(super) labels: bool,
}

/// What writes its first operand.
const WITH_RESULT: &str = "abs activemask add addc and atom bfe bfi bfind bmsk brev clz cnot \
    copysign cos cvt cvta div dp2a dp4a elect ex2 fma fns isspacep ld ldu lg2 lop3 mad mad24 madc \
    match max min mov mul mul24 neg not or popc prmt rcp redux rem rsqrt sad selp set setp shf \
    shfl shl shr sin slct sqrt sub subc szext testp vote xor";
/// What writes no operand.
const WITHOUT_RESULT: &str =
    "bar barrier bra exit fence membar nanosleep prefetch prefetchu red ret st trap";

/// Reads the instructions of a piece.
///
/// # Errors
/// What cannot be read, such as an instruction that is not in the lists above.
pub(super) fn parse(tokens: &[Token]) -> Result<Template, String> {
    let mut template = Template { instructions: Vec::new(), labels: false };
    let mut rest = tokens;
    while let Some((first, after)) = rest.split_first() {
        match first {
            // A block of local registers, and what ends without a semicolon before its end.
            Token::Mark('{' | '}' | ';') => rest = after,
            Token::Word(_) if after.first() == Some(&Token::Mark(':')) => {
                template.labels = true;
                rest = &after[1..];
            }
            _ => {
                let end = rest.iter().position(|token| *token == Token::Mark(';'));
                let (statement, after) = rest.split_at(end.unwrap_or(rest.len()));
                rest = after;
                if let Some(instruction) = instruction(statement)? {
                    template.instructions.push(instruction);
                }
            }
        }
    }
    Ok(template)
}

/// Reads a statement; declarations are none.
fn instruction(statement: &[Token]) -> Result<Option<Instruction>, String> {
    let text = show(statement);
    let mut reads = Vec::new();
    let mut rest = statement;
    if rest.first() == Some(&Token::Mark('@')) {
        let end = 1 + usize::from(rest.get(1) == Some(&Token::Mark('!')));
        let Some(guard) = rest.get(end) else { return Err(format!("{text:?}, a bare @")) };
        operands(std::slice::from_ref(guard), &mut reads);
        rest = &rest[end + 1..];
    }
    let Some((Token::Word(opcode), arguments)) = rest.split_first() else {
        return Err(format!("{text:?}, which is no instruction"));
    };
    if opcode.starts_with('.') {
        return Ok(None);
    }
    let base = opcode.split('.').next().unwrap_or(opcode);
    let listed = |list: &str| list.split_whitespace().any(|known| known == base);
    let result = listed(WITH_RESULT) || base.starts_with("bar") && opcode.contains(".red.");
    if !result && !listed(WITHOUT_RESULT) {
        return Err(format!(
            "{text:?}: whether {base:?} writes its first operand is not known to the check; add \
             it to the lists of build/asm/template.rs"
        ));
    }
    let mut writes = Vec::new();
    let mut sources = arguments;
    if result {
        let (first, others) = arguments.split_at(first_argument(arguments));
        operands(first, &mut writes);
        sources = others;
    }
    operands(sources, &mut reads);
    Ok(Some(Instruction { reads, writes, text }))
}

/// How many tokens the first argument has: up to a comma that is not between braces.
fn first_argument(arguments: &[Token]) -> usize {
    let mut depth = 0;
    for (at, token) in arguments.iter().enumerate() {
        match token {
            Token::Mark('{' | '[' | '(') => depth += 1,
            Token::Mark('}' | ']' | ')') => depth -= 1,
            Token::Mark(',') if depth == 0 => return at,
            _ => {}
        }
    }
    arguments.len()
}

fn operands(tokens: &[Token], to: &mut Vec<usize>) {
    let numbers = tokens.iter().filter_map(|token| match token {
        Token::Operand(number) => Some(*number),
        _ => None,
    });
    to.extend(numbers);
}

fn show(tokens: &[Token]) -> String {
    let mut text = String::new();
    let mut glue = true;
    for token in tokens {
        let tight = matches!(token, Token::Mark(',' | '}' | ']' | ')' | '+' | '|'));
        if !glue && !tight {
            text.push(' ');
        }
        text.push_str(&token.show());
        glue = matches!(token, Token::Mark('{' | '[' | '(' | '+' | '@' | '!' | '|' | '-'));
    }
    text
}
