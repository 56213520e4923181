//! PTX as it stands in a text: variables, kernels, and their instructions by name.
//!
//! Of the language only what nvcc emits for kernels without calls is known; anything else is an
//! error that names its line. What an instruction means is not known here.

use std::collections::HashMap;

use crate::fault::TextFault;
use crate::text::{Word, words};

/// What a register holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    Predicate,
    Word,
    Double,
}

/// A register, by number among those of its class and kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Register {
    pub(crate) class: Class,
    pub(crate) number: u32,
}

/// What stands after an instruction's name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand {
    Register(Register),
    /// Integers by their bits, as far as they reach; numbers of floating point by theirs.
    Number(u64),
    /// A register that is read only, such as `%tid.x`.
    Special(String),
    /// A variable or a label.
    Name(String),
    /// `[base+offset]`.
    Address(Box<Operand>, i64),
    /// `{a, b}`.
    List(Vec<Operand>),
    /// `_`: a result that nobody wants.
    Sink,
}

/// A condition before an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Guard {
    pub(crate) predicate: Register,
    pub(crate) negated: bool,
}

/// An instruction as it stands in the text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Instruction {
    pub(crate) line: u32,
    pub(crate) guard: Option<Guard>,
    pub(crate) name: String,
    pub(crate) operands: Vec<Operand>,
}

/// A piece of memory that the text declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) align: u64,
}

/// A label, or an instruction.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    Label(String),
    Instruction(Instruction),
}

/// A kernel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) line: u32,
    pub(crate) parameters: Vec<Variable>,
    pub(crate) shared: Vec<Variable>,
    pub(crate) local: Vec<Variable>,
    pub(crate) items: Vec<Item>,
    /// The most threads of a block, if it says so.
    pub(crate) most_threads: Option<u32>,
}

/// A text.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Text {
    /// Such as `sm_90`.
    pub(crate) target: String,
    pub(crate) constants: Vec<Variable>,
    pub(crate) globals: Vec<Variable>,
    pub(crate) entries: Vec<Entry>,
}

/// Reads a text.
pub(crate) fn parse(text: &str) -> Result<Text, TextFault> {
    let words = words(text);
    let mut reader = Reader { words: &words, at: 0 };
    let mut found = Text::default();
    while let Some(word) = reader.peek() {
        let line = word.line;
        match word.text.as_str() {
            ".version" | ".address_size" => reader.skip(2)?,
            ".target" => {
                reader.skip(1)?;
                found.target = reader.next()?.text.clone();
                while reader.take(",") {
                    reader.skip(1)?;
                }
            }
            ".visible" | ".weak" | ".extern" => reader.skip(1)?,
            ".const" => {
                reader.skip(1)?;
                found.constants.push(reader.variable()?);
                reader.want(";")?;
            }
            ".global" => {
                reader.skip(1)?;
                found.globals.push(reader.variable()?);
                reader.want(";")?;
            }
            ".entry" => {
                reader.skip(1)?;
                found.entries.push(reader.entry()?);
            }
            other => return Err(TextFault::new(line, format!("{other} is not known here"))),
        }
    }
    Ok(found)
}

struct Reader<'w> {
    words: &'w [Word],
    at: usize,
}

impl<'w> Reader<'w> {
    fn peek(&self) -> Option<&'w Word> {
        self.words.get(self.at)
    }

    fn line(&self) -> u32 {
        self.peek().or(self.words.last()).map_or(0, |word| word.line)
    }

    fn next(&mut self) -> Result<&'w Word, TextFault> {
        let word = self.peek().ok_or_else(|| TextFault::new(self.line(), "the text ends"))?;
        self.at += 1;
        Ok(word)
    }

    fn skip(&mut self, count: usize) -> Result<(), TextFault> {
        (0..count).try_for_each(|_| self.next().map(drop))
    }

    fn take(&mut self, text: &str) -> bool {
        let there = self.peek().is_some_and(|word| word.text == text);
        self.at += usize::from(there);
        there
    }

    fn want(&mut self, text: &str) -> Result<(), TextFault> {
        let word = self.next()?;
        if word.text == text {
            return Ok(());
        }
        Err(TextFault::new(word.line, format!("{:?} stands where {text:?} belongs", word.text)))
    }

    fn number(&mut self) -> Result<u64, TextFault> {
        let word = self.next()?;
        number(&word.text)
            .ok_or_else(|| TextFault::new(word.line, format!("{:?} is no number", word.text)))
    }

    /// `.align 16 .b8 name[24576]` or `.u32 name`, and what else may stand between.
    fn variable(&mut self) -> Result<Variable, TextFault> {
        let (mut align, mut each) = (None, None);
        loop {
            let word = self.next()?;
            match word.text.as_str() {
                ".align" => align = Some(self.number()?),
                // A hint at what a pointer points to.
                ".ptr" | ".global" => {}
                text if text.starts_with('.') => match bytes_of(text) {
                    Some(bytes) if each.is_none() => each = Some(bytes),
                    _ => {
                        return Err(TextFault::new(word.line, format!("{text} is not known here")));
                    }
                },
                name => {
                    let each =
                        each.ok_or_else(|| TextFault::new(word.line, format!("no type: {name}")))?;
                    // After `.ptr` stands the alignment of what is pointed to.
                    let mut bytes = each;
                    while self.take("[") {
                        bytes *= self.number()?;
                        self.want("]")?;
                    }
                    let align = align.unwrap_or(each).max(each);
                    return Ok(Variable { name: name.to_owned(), bytes, align });
                }
            }
        }
    }

    fn entry(&mut self) -> Result<Entry, TextFault> {
        let name = self.next()?;
        let mut entry = Entry {
            name: name.text.clone(),
            line: name.line,
            parameters: Vec::new(),
            shared: Vec::new(),
            local: Vec::new(),
            items: Vec::new(),
            most_threads: None,
        };
        if self.take("(") {
            while !self.take(")") {
                self.want(".param")?;
                entry.parameters.push(self.variable()?);
                self.take(",");
            }
        }
        loop {
            let word = self.next()?;
            match word.text.as_str() {
                ".maxntid" | ".reqntid" => {
                    let mut most = self.number()?;
                    while self.take(",") {
                        most *= self.number()?;
                    }
                    entry.most_threads = u32::try_from(most).ok();
                }
                ".minnctapersm" | ".maxnreg" => self.skip(1)?,
                "{" => break,
                other => {
                    return Err(TextFault::new(word.line, format!("{other} is not known here")));
                }
            }
        }
        self.body(&mut entry)?;
        Ok(entry)
    }

    fn body(&mut self, entry: &mut Entry) -> Result<(), TextFault> {
        let mut registers = Registers::default();
        registers.enter();
        while registers.depth() > 0 {
            let word = self.next()?;
            match word.text.as_str() {
                "{" => registers.enter(),
                "}" => registers.leave(),
                ".reg" => self.registers(&mut registers)?,
                ".shared" => {
                    entry.shared.push(self.variable()?);
                    self.want(";")?;
                }
                ".local" => {
                    entry.local.push(self.variable()?);
                    self.want(";")?;
                }
                // Hints for who compiles the text further.
                ".pragma" => {
                    self.skip(1)?;
                    self.want(";")?;
                }
                text if text.starts_with('.') => {
                    return Err(TextFault::new(word.line, format!("{text} is not known here")));
                }
                text if self.take(":") => entry.items.push(Item::Label(text.to_owned())),
                _ => {
                    self.at -= 1;
                    let instruction = self.instruction(&mut registers)?;
                    entry.items.push(Item::Instruction(instruction));
                }
            }
        }
        Ok(())
    }

    /// `.b32 %r<8805>;` or `.u32 t0, t1;`
    fn registers(&mut self, registers: &mut Registers) -> Result<(), TextFault> {
        let word = self.next()?;
        let class = match word.text.as_str() {
            ".pred" => Class::Predicate,
            ".b32" | ".u32" | ".s32" => Class::Word,
            ".b64" | ".u64" | ".s64" | ".f64" => Class::Double,
            other => {
                let what = format!("registers of {other} are not known here");
                return Err(TextFault::new(word.line, what));
            }
        };
        loop {
            let name = self.next()?.text.clone();
            let count = if self.take("<") {
                let count = self.number()?;
                self.want(">")?;
                Some(count)
            } else {
                None
            };
            registers.declare(name, class, count);
            if !self.take(",") {
                break;
            }
        }
        self.want(";")
    }

    fn instruction(&mut self, registers: &mut Registers) -> Result<Instruction, TextFault> {
        let line = self.line();
        let mut guard = None;
        if self.take("@") {
            let negated = self.take("!");
            let name = self.next()?;
            let predicate = registers.find(&name.text).filter(|r| r.class == Class::Predicate);
            let predicate = predicate.ok_or_else(|| {
                TextFault::new(line, format!("{} is no predicate that is declared", name.text))
            })?;
            guard = Some(Guard { predicate, negated });
        }
        let name = self.next()?.text.clone();
        let mut operands = Vec::new();
        while !self.take(";") {
            operands.push(self.operand(registers)?);
            // `setp` may join two results by a bar.
            if !self.take(",") {
                self.take("|");
            }
        }
        Ok(Instruction { line, guard, name, operands })
    }

    fn operand(&mut self, registers: &mut Registers) -> Result<Operand, TextFault> {
        let word = self.next()?;
        match word.text.as_str() {
            "{" => {
                let mut list = Vec::new();
                while !self.take("}") {
                    list.push(self.operand(registers)?);
                    self.take(",");
                }
                Ok(Operand::List(list))
            }
            "[" => {
                let base = self.operand(registers)?;
                let offset = if self.take("+") { self.number()?.cast_signed() } else { 0 };
                self.want("]")?;
                Ok(Operand::Address(Box::new(base), offset))
            }
            "_" => Ok(Operand::Sink),
            text => {
                if let Some(register) = registers.find(text) {
                    Ok(Operand::Register(register))
                } else if let Some(number) = number(text) {
                    Ok(Operand::Number(number))
                } else if text.starts_with('%') {
                    Ok(Operand::Special(text.to_owned()))
                } else if text
                    .starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '$')
                {
                    Ok(Operand::Name(text.to_owned()))
                } else {
                    Err(TextFault::new(word.line, format!("{text:?} is no operand")))
                }
            }
        }
    }
}

/// Bytes of a type that a variable may have.
fn bytes_of(name: &str) -> Option<u64> {
    Some(match name {
        ".b8" | ".u8" | ".s8" => 1,
        ".b16" | ".u16" | ".s16" => 2,
        ".b32" | ".u32" | ".s32" | ".f32" => 4,
        ".b64" | ".u64" | ".s64" | ".f64" => 8,
        _ => return None,
    })
}

/// A number, by its bits.
fn number(text: &str) -> Option<u64> {
    if let Some(bits) = text.strip_prefix("0d").or(text.strip_prefix("0D")) {
        return u64::from_str_radix(bits, 16).ok();
    }
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let rest = rest.strip_suffix('U').unwrap_or(rest);
    let value = match rest.strip_prefix("0x").or(rest.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None => rest.parse().ok()?,
    };
    Some(if negative { value.wrapping_neg() } else { value })
}

/// The registers that are declared, by scope.
#[derive(Default)]
struct Registers {
    scopes: Vec<Scope>,
    counts: HashMap<Class, u32>,
}

#[derive(Default)]
struct Scope {
    /// `%r<12>`: class and number of names.
    ranges: HashMap<String, (Class, u64)>,
    names: HashMap<String, Register>,
}

impl Registers {
    fn enter(&mut self) {
        self.scopes.push(Scope::default());
    }

    fn leave(&mut self) {
        self.scopes.pop();
    }

    fn depth(&self) -> usize {
        self.scopes.len()
    }

    fn new_one(&mut self, class: Class) -> Register {
        let count = self.counts.entry(class).or_default();
        let register = Register { class, number: *count };
        *count += 1;
        register
    }

    fn declare(&mut self, name: String, class: Class, count: Option<u64>) {
        let register = if count.is_none() { Some(self.new_one(class)) } else { None };
        let Some(scope) = self.scopes.last_mut() else { return };
        match (count, register) {
            (Some(count), _) => drop(scope.ranges.insert(name, (class, count))),
            (None, Some(register)) => drop(scope.names.insert(name, register)),
            (None, None) => {}
        }
    }

    /// The register of this name in the innermost scope that has one.
    fn find(&mut self, name: &str) -> Option<Register> {
        let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
        let (prefix, number) = name.split_at(name.len() - digits);
        for depth in (0..self.scopes.len()).rev() {
            if let Some(register) = self.scopes[depth].names.get(name) {
                return Some(*register);
            }
            let range = self.scopes[depth].ranges.get(prefix).copied();
            let Some((class, count)) = range else { continue };
            if number.parse::<u64>().is_ok_and(|number| number < count) {
                let register = self.new_one(class);
                self.scopes[depth].names.insert(name.to_owned(), register);
                return Some(register);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
.version 9.0
.target sm_90
.address_size 64
.const .align 4 .b8 table[40];
.visible .entry work(
    .param .align 8 .b8 work_param_0[88],
    .param .u64 .ptr .align 1 work_param_1
)
.maxntid 64
.minnctapersm 6
{
    .reg .pred %p<2>;
    .reg .b32 %r<3>;
    .shared .align 16 .b8 memory[24576];
    mov.u32 %r1, %tid.x;
$L__BB0_1:
    .pragma "nounroll";
    { .reg .u32 t0, t1;
    mov.u32 t0, -2;
    }
    @!%p1 bra $L__BB0_1;
    ld.shared.v2.u32 {%r1, _}, [%r2+-16];
    ret;
}
"#;

    #[test]
    fn what_a_text_declares_is_found() {
        let text = parse(TEXT).expect("it is known");
        assert_eq!(text.target, "sm_90");
        let table = Variable { name: "table".to_owned(), bytes: 40, align: 4 };
        assert_eq!(text.constants, [table]);
        let [entry] = &text.entries[..] else { panic!("one kernel") };
        let sizes: Vec<_> = entry.parameters.iter().map(|p| (p.bytes, p.align)).collect();
        assert_eq!(sizes, [(88, 8), (8, 8)]);
        assert_eq!((entry.most_threads, entry.shared[0].bytes), (Some(64), 24576));
        let names: Vec<_> = entry
            .items
            .iter()
            .map(|item| match item {
                Item::Label(name) => name.as_str(),
                Item::Instruction(instruction) => instruction.name.as_str(),
            })
            .collect();
        let wanted = ["mov.u32", "$L__BB0_1", "mov.u32", "bra", "ld.shared.v2.u32", "ret"];
        assert_eq!(names, wanted);
    }

    #[test]
    fn what_is_not_known_is_named_with_its_line() {
        let fault = parse(&TEXT.replace(".pragma", ".strange")).expect_err("it is not known");
        assert_eq!(fault.to_string(), "line 18: .strange is not known here");
        let fault = parse(&TEXT.replace("%r2+-16", "%r7+-16")).expect("names are looked at later");
        let Item::Instruction(load) = &fault.entries[0].items[4] else { panic!("a load") };
        // %r7 is past what is declared, so it is no register.
        let address = Operand::Address(Box::new(Operand::Special("%r7".to_owned())), -16);
        assert_eq!(load.operands[1], address);
        assert!(parse(&TEXT[..TEXT.len() - 10]).is_err(), "a text that is cut off");
    }
}
