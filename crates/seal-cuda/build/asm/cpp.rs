//! Tokens of C++, as far as inline assembly needs them: what is a comment, what a text, what else.

/// A token and the line it begins in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) line: usize,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name or a number.
    Word(String),
    /// A text, with its escapes resolved.
    Text(String),
    /// Any other character.
    Mark(char),
}

impl Token {
    pub(super) fn is(&self, mark: char) -> bool {
        self.kind == Kind::Mark(mark)
    }

    pub(super) fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    /// As it may be shown.
    pub(super) fn show(&self) -> String {
        match &self.kind {
            Kind::Word(word) => word.clone(),
            Kind::Text(text) => format!("{text:?}"),
            Kind::Mark(mark) => mark.to_string(),
        }
    }
}

/// The tokens of a source. Comments and the ends of continued lines are left out.
///
/// # Errors
/// The line and what is wrong: a text or comment without an end, a raw string.
pub(super) fn tokens(source: &str) -> Result<Vec<Token>, (usize, String)> {
    let mut reader = Reader { rest: source.chars().peekable(), line: 1 };
    let mut tokens = Vec::new();
    while let Some(next) = reader.next() {
        let line = reader.line;
        let kind = match next {
            '/' if reader.peek() == Some('/') => {
                while reader.peek().is_some_and(|c| c != '\n') {
                    reader.next();
                }
                continue;
            }
            '/' if reader.peek() == Some('*') => {
                reader.next();
                let mut before = ' ';
                loop {
                    let c = reader.next().ok_or((line, "a comment without an end".to_owned()))?;
                    if before == '*' && c == '/' {
                        break;
                    }
                    before = c;
                }
                continue;
            }
            '"' => Kind::Text(reader.text('"', line)?),
            '\'' => {
                reader.text('\'', line)?;
                continue;
            }
            c if c.is_alphanumeric() || c == '_' => {
                let word = reader.word(c);
                if reader.peek() == Some('"') && word.ends_with('R') {
                    return Err((line, "a raw string, which this check does not read".to_owned()));
                }
                Kind::Word(word)
            }
            c if c.is_whitespace() => continue,
            '\\' => continue,
            c => Kind::Mark(c),
        };
        tokens.push(Token { line, kind });
    }
    Ok(tokens)
}

struct Reader<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        if next == Some('\n') {
            self.line += 1;
        }
        next
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().copied()
    }

    /// A name or a number, which may have apostrophes between digits.
    fn word(&mut self, first: char) -> String {
        let number = first.is_ascii_digit();
        let mut word = String::from(first);
        while let Some(c) = self.peek() {
            if c.is_alphanumeric() || c == '_' || number && (c == '.' || c == '\'') {
                word.push(c);
                self.next();
            } else {
                break;
            }
        }
        word
    }

    /// What stands between quotes.
    fn text(&mut self, quote: char, line: usize) -> Result<String, (usize, String)> {
        let endless = || (line, "a text without an end".to_owned());
        let mut text = String::new();
        loop {
            match self.next().ok_or_else(endless)? {
                c if c == quote => return Ok(text),
                '\n' => return Err(endless()),
                '\\' => match self.next().ok_or_else(endless)? {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    '\n' => {}
                    c => text.push(c),
                },
                c => text.push(c),
            }
        }
    }
}
