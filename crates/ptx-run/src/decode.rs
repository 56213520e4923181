//! From instructions by name to what is executed.
//!
//! A name that is not known is an error, so that nothing is executed by guess.

use std::collections::HashMap;
use std::ops::Range;

use crate::fault::TextFault;
use crate::names::{Chained, carry_of, double_work, special_of, word_work};
use crate::op::{Comparison, Halves, Op, Place, PredicateWork, Reading, Shift, WordWork};
use crate::parse::{Class, Entry, Guard, Instruction, Item, Operand, Register, Variable};

/// Where the parameters of a kernel lie, in a range of addresses that no other memory has.
pub(crate) const PARAMETERS: u64 = 0x1000;
/// Where a thread's local memory lies.
pub(crate) const LOCAL: u64 = 0x10_0000;

/// Numbers in registers: those that a text has, each once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Numbers {
    pub(crate) words: Vec<(Place, u32)>,
}

/// An operation with its condition and where it stands in the text.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) op: Op,
    pub(crate) guard: Option<Guard>,
    pub(crate) line: u32,
}

/// A kernel, decoded. Jumps lead to labels, by number.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) steps: Vec<Line>,
    pub(crate) numbers: Numbers,
    /// The places of registers of 64 bits.
    pub(crate) doubles: Range<Place>,
    /// Bytes of parameters, of shared and of local memory.
    pub(crate) parameters: Vec<Variable>,
    pub(crate) parameter_places: Vec<u64>,
    pub(crate) shared_bytes: u64,
    pub(crate) local_bytes: u64,
}

/// A step, or the place of a label.
#[derive(Debug)]
pub(crate) enum Line {
    Label(u32),
    /// With the instruction's name.
    Step(Step, String),
}

/// Puts variables side by side, each aligned, and returns their places and the end.
pub(crate) fn lay_out(variables: &[Variable], from: u64) -> (Vec<u64>, u64) {
    let mut end = from;
    let places = variables
        .iter()
        .map(|variable| {
            let place = end.next_multiple_of(variable.align.max(1));
            end = place + variable.bytes;
            place
        })
        .collect();
    (places, end)
}

/// Decodes a kernel. `globals` has the addresses of variables that all kernels share.
pub(crate) fn decode(entry: &Entry, globals: &HashMap<String, u64>) -> Result<Decoded, TextFault> {
    let (parameter_places, _) = lay_out(&entry.parameters, PARAMETERS);
    let (shared_places, shared_bytes) = lay_out(&entry.shared, 0);
    let (local_places, local_end) = lay_out(&entry.local, LOCAL);
    let mut names = globals.clone();
    for (variables, places) in [
        (&entry.parameters, &parameter_places),
        (&entry.shared, &shared_places),
        (&entry.local, &local_places),
    ] {
        names.extend(variables.iter().map(|v| v.name.clone()).zip(places.iter().copied()));
    }
    let labels = entry.items.iter().filter_map(|item| match item {
        Item::Label(name) => Some(name.clone()),
        Item::Instruction(_) => None,
    });
    let labels: HashMap<String, u32> = labels.zip(0..).collect();
    // Registers of 64 bits get places behind those of words, numbers behind both.
    let [words, doubles] = highest(entry);
    let doubles = words..words + 2 * doubles;
    let mut decoder = Decoder {
        names,
        labels,
        numbers: Numbers::default(),
        words: HashMap::new(),
        doubles: doubles.clone(),
    };
    let mut steps = Vec::new();
    for item in &entry.items {
        match item {
            Item::Label(name) => steps.push(Line::Label(decoder.labels[name])),
            Item::Instruction(instruction) => {
                let op = decoder.op(instruction)?;
                let step = Step { op, guard: instruction.guard, line: instruction.line };
                steps.push(Line::Step(step, counted_as(instruction)));
            }
        }
    }
    Ok(Decoded {
        steps,
        numbers: decoder.numbers,
        doubles,
        parameters: entry.parameters.clone(),
        parameter_places,
        shared_bytes,
        local_bytes: local_end - LOCAL,
    })
}

/// What an instruction is counted as: its name, and for a wide product whether it is one by a
/// number, as addresses are made.
fn counted_as(instruction: &Instruction) -> String {
    let by_number = instruction.operands.iter().any(|o| matches!(o, Operand::Number(_)));
    match instruction.name.contains(".wide.") && by_number {
        true => format!("{} by a number", instruction.name),
        false => instruction.name.clone(),
    }
}

/// One past the last register of words and of doubles.
fn highest(entry: &Entry) -> [Place; 2] {
    fn look(operand: &Operand, most: &mut [Place; 2]) {
        match operand {
            Operand::Register(Register { class, number }) => match class {
                Class::Word => most[0] = most[0].max(number + 1),
                Class::Double => most[1] = most[1].max(number + 1),
                Class::Predicate => {}
            },
            Operand::Address(base, _) => look(base, most),
            Operand::List(list) => list.iter().for_each(|operand| look(operand, most)),
            Operand::Number(_) | Operand::Special(_) | Operand::Name(_) | Operand::Sink => {}
        }
    }
    let mut most = [0; 2];
    for item in &entry.items {
        if let Item::Instruction(instruction) = item {
            instruction.operands.iter().for_each(|operand| look(operand, &mut most));
        }
    }
    most
}

pub(crate) struct Decoder {
    names: HashMap<String, u64>,
    labels: HashMap<String, u32>,
    numbers: Numbers,
    words: HashMap<u32, Place>,
    doubles: Range<Place>,
}

/// An instruction and the way through its operands.
pub(crate) struct Given<'i> {
    instruction: &'i Instruction,
    count: usize,
}

impl<'i> Given<'i> {
    pub(crate) fn fault(&self, what: impl AsRef<str>) -> TextFault {
        let Instruction { line, name, .. } = self.instruction;
        TextFault::new(*line, format!("{name}: {}", what.as_ref()))
    }

    /// So many operands must be there.
    pub(crate) fn operands(&self, wanted: usize) -> Result<(), TextFault> {
        if self.count == wanted {
            return Ok(());
        }
        Err(self.fault(format!("{} operands where {wanted} belong", self.count)))
    }

    pub(crate) fn at(&self, i: usize) -> Result<&'i Operand, TextFault> {
        self.instruction.operands.get(i).ok_or_else(|| self.fault(format!("no operand {i}")))
    }

    /// The register that a result goes to.
    pub(crate) fn to(&self, i: usize, class: Class) -> Result<Place, TextFault> {
        match self.at(i)? {
            Operand::Register(register) if register.class == class => Ok(register.number),
            other => Err(self.fault(format!("{other:?} is no register of {class:?}"))),
        }
    }
}

impl Decoder {
    pub(crate) fn word_number(&mut self, value: u32) -> Place {
        *self.words.entry(value).or_insert_with(|| {
            let place = self.doubles.end + self.numbers.words.len() as Place;
            self.numbers.words.push((place, value));
            place
        })
    }

    pub(crate) fn double_number(&mut self, value: u64) -> Halves {
        [self.word_number(value as u32), self.word_number((value >> 32) as u32)]
    }

    /// The places of a register of 64 bits.
    pub(crate) fn halves(&self, number: Place) -> Halves {
        let low = self.doubles.start + 2 * number;
        [low, low + 1]
    }

    /// The register of 64 bits that a result goes to.
    pub(crate) fn to_double(&self, given: &Given<'_>, i: usize) -> Result<Halves, TextFault> {
        Ok(self.halves(given.to(i, Class::Double)?))
    }

    pub(crate) fn address_of(&self, given: &Given<'_>, name: &str) -> Result<u64, TextFault> {
        let known = self.names.get(name).copied();
        known.ok_or_else(|| given.fault(format!("{name} is not declared")))
    }

    fn word(&mut self, given: &Given<'_>, i: usize) -> Result<Place, TextFault> {
        match given.at(i)? {
            Operand::Register(Register { class: Class::Word, number }) => Ok(*number),
            // Numbers stand with the bits of their sign, or without.
            Operand::Number(value)
                if *value <= u64::from(u32::MAX)
                    || *value >= u64::from(u32::MAX).wrapping_neg() =>
            {
                Ok(self.word_number(*value as u32))
            }
            Operand::Name(name) => {
                let address = self.address_of(given, name)?;
                let address = u32::try_from(address);
                let address =
                    address.map_err(|_| given.fault(format!("{name} lies past 32 bits")))?;
                Ok(self.word_number(address))
            }
            other => Err(given.fault(format!("{other:?} is no operand of 32 bits"))),
        }
    }

    pub(crate) fn double(&mut self, given: &Given<'_>, i: usize) -> Result<Halves, TextFault> {
        match given.at(i)? {
            Operand::Register(Register { class: Class::Double, number }) => {
                Ok(self.halves(*number))
            }
            Operand::Number(value) => Ok(self.double_number(*value)),
            Operand::Name(name) => {
                let address = self.address_of(given, name)?;
                Ok(self.double_number(address))
            }
            other => Err(given.fault(format!("{other:?} is no operand of 64 bits"))),
        }
    }

    fn predicate(&self, given: &Given<'_>, i: usize) -> Result<Place, TextFault> {
        given.to(i, Class::Predicate)
    }

    fn op(&mut self, instruction: &Instruction) -> Result<Op, TextFault> {
        let given = &Given { instruction, count: instruction.operands.len() };
        let name = instruction.name.as_str();
        if let Some(op) = self.memory(given, name)? {
            return Ok(op);
        }
        if let Some(op) = self.carries(given, name)? {
            return Ok(op);
        }
        if let Some(op) = self.moves(given, name)? {
            return Ok(op);
        }
        if let Some(op) = self.comparison(given, name)? {
            return Ok(op);
        }
        if let Some((work, operands)) = word_work(name) {
            given.operands(operands + 1)?;
            let d = given.to(0, Class::Word)?;
            let a = self.word(given, 1)?;
            // What is not there is what is.
            let b = if operands > 1 { self.word(given, 2)? } else { a };
            let c = if operands > 2 { self.word(given, 3)? } else { a };
            return Ok(Op::Words { work, d, a, b, c });
        }
        if let ("and.b64", Some(Operand::Number(0xffff_ffff))) = (name, instruction.operands.get(2))
        {
            given.operands(3)?;
            let (d, [low, _]) = (self.to_double(given, 0)?, self.double(given, 1)?);
            return Ok(Op::MoveDouble { d, a: [low, self.word_number(0)] });
        }
        if let Some((work, operands)) = double_work(name) {
            given.operands(operands + 1)?;
            let d = self.to_double(given, 0)?;
            let a = self.double(given, 1)?;
            let b = if operands > 1 { self.double(given, 2)? } else { a };
            let c = if operands > 2 { self.double(given, 3)? } else { a };
            return Ok(Op::Doubles { work, d, a, b, c });
        }
        self.others(given, name)
    }

    fn others(&mut self, given: &Given<'_>, name: &str) -> Result<Op, TextFault> {
        if let Some(shift) = match name {
            "shl.b64" => Some(Shift::Left),
            "shr.u64" | "shr.b64" => Some(Shift::Right),
            "shr.s64" => Some(Shift::RightSigned),
            _ => None,
        } {
            given.operands(3)?;
            let d = self.to_double(given, 0)?;
            let a = self.double(given, 1)?;
            // By as much as a word: words move.
            if let (Operand::Number(32), Shift::Left | Shift::Right) = (given.at(2)?, shift) {
                let zero = self.word_number(0);
                let a = if shift == Shift::Left { [zero, a[0]] } else { [a[1], zero] };
                return Ok(Op::MoveDouble { d, a });
            }
            return Ok(Op::ShiftDouble { shift, d, a, b: self.word(given, 2)? });
        }
        match name {
            "mul.wide.u32" | "mul.wide.s32" | "mad.wide.u32" | "mad.wide.s32" => {
                let adds = name.starts_with("mad");
                given.operands(3 + usize::from(adds))?;
                let (a, b) = (self.word(given, 1)?, self.word(given, 2)?);
                let c = if adds { Some(self.double(given, 3)?) } else { None };
                let d = self.to_double(given, 0)?;
                Ok(Op::Wide { signed: name.ends_with("s32"), d, a, b, c })
            }
            "lop3.b32" => {
                given.operands(5)?;
                let Operand::Number(table) = given.at(4)? else {
                    return Err(given.fault("a table belongs here"));
                };
                let table = u8::try_from(*table).map_err(|_| given.fault("a table has 8 bits"))?;
                let (a, b, c) = (self.word(given, 1)?, self.word(given, 2)?, self.word(given, 3)?);
                Ok(Op::Words {
                    work: WordWork::Logic(table),
                    d: given.to(0, Class::Word)?,
                    a,
                    b,
                    c,
                })
            }
            "selp.b32" | "selp.u32" | "selp.s32" => {
                given.operands(4)?;
                let (a, b) = (self.word(given, 1)?, self.word(given, 2)?);
                let p = self.predicate(given, 3)?;
                Ok(Op::SelectWord { d: given.to(0, Class::Word)?, a, b, p })
            }
            "selp.b64" | "selp.u64" | "selp.s64" => {
                given.operands(4)?;
                let (a, b) = (self.double(given, 1)?, self.double(given, 2)?);
                let p = self.predicate(given, 3)?;
                Ok(Op::SelectDouble { d: self.to_double(given, 0)?, a, b, p })
            }
            "bra" | "bra.uni" => {
                given.operands(1)?;
                let Operand::Name(label) = given.at(0)? else {
                    return Err(given.fault("a label belongs here"));
                };
                let to = self.labels.get(label).copied();
                Ok(Op::Jump { to: to.ok_or_else(|| given.fault(format!("no label {label}")))? })
            }
            "ret" | "ret.uni" | "exit" => {
                given.operands(0)?;
                Ok(Op::End)
            }
            "bar.sync" | "barrier.sync" | "barrier.sync.aligned" => {
                given.operands(1)?;
                match given.at(0)? {
                    Operand::Number(0) => Ok(Op::Barrier),
                    _ => Err(given.fault("only barrier 0 is known here")),
                }
            }
            _ => Err(given.fault("not an instruction that is known here")),
        }
    }

    /// Instructions with the carry flag.
    fn carries(&mut self, given: &Given<'_>, name: &str) -> Result<Option<Op>, TextFault> {
        let Some((kind, carry)) = carry_of(name) else { return Ok(None) };
        match kind {
            Chained::Add | Chained::Subtract => {
                given.operands(3)?;
                let (d, a, b) =
                    (given.to(0, Class::Word)?, self.word(given, 1)?, self.word(given, 2)?);
                Ok(Some(match kind {
                    Chained::Add => Op::AddCarry { carry, d, a, b },
                    _ => Op::SubtractBorrow { carry, d, a, b },
                }))
            }
            Chained::AddDouble | Chained::SubtractDouble => {
                given.operands(3)?;
                let (d, a, b) =
                    (self.to_double(given, 0)?, self.double(given, 1)?, self.double(given, 2)?);
                Ok(Some(match kind {
                    Chained::AddDouble => Op::AddCarryDouble { carry, d, a, b },
                    _ => Op::SubtractBorrowDouble { carry, d, a, b },
                }))
            }
            Chained::MultiplyAdd { high } => {
                given.operands(4)?;
                let d = given.to(0, Class::Word)?;
                let (a, b, c) = (self.word(given, 1)?, self.word(given, 2)?, self.word(given, 3)?);
                Ok(Some(Op::MultiplyAddCarry { high, carry, d, a, b, c }))
            }
        }
    }

    fn moves(&mut self, given: &Given<'_>, name: &str) -> Result<Option<Op>, TextFault> {
        Ok(Some(match name {
            "mov.u32" | "mov.b32" | "mov.s32" => {
                given.operands(2)?;
                let d = given.to(0, Class::Word)?;
                if let Operand::Special(special) = given.at(1)? {
                    if special == "%clock" {
                        return Ok(Some(Op::ClockWord { d }));
                    }
                    let which = special_of(special)
                        .ok_or_else(|| given.fault(format!("{special} is not known here")))?;
                    return Ok(Some(Op::ReadSpecial { d, which }));
                }
                let a = self.word(given, 1)?;
                Op::Move { d, a }
            }
            "mov.u64" | "mov.b64" | "mov.s64" | "mov.f64" => {
                given.operands(2)?;
                match (given.at(0)?, given.at(1)?) {
                    (_, Operand::Special(special)) if special == "%clock64" => {
                        Op::Clock { d: self.to_double(given, 0)? }
                    }
                    (Operand::List(to), _) => {
                        let [low, high] = &to[..] else {
                            return Err(given.fault("two halves belong here"));
                        };
                        let half = |operand: &Operand| match operand {
                            Operand::Register(Register { class: Class::Word, number }) => {
                                Ok(Some(*number))
                            }
                            Operand::Sink => Ok(None),
                            other => Err(given.fault(format!("{other:?} is no half"))),
                        };
                        let a = self.double(given, 1)?;
                        match (half(low)?, half(high)?) {
                            (Some(low), Some(high)) => Op::MoveDouble { d: [low, high], a },
                            (Some(low), None) => Op::Move { d: low, a: a[0] },
                            (None, Some(high)) => Op::Move { d: high, a: a[1] },
                            (None, None) => return Err(given.fault("nothing is taken")),
                        }
                    }
                    (_, Operand::List(from)) => {
                        let Ok([low, high]) = <[_; 2]>::try_from(from.clone()) else {
                            return Err(given.fault("two halves belong here"));
                        };
                        let inner =
                            Instruction { operands: vec![low, high], ..given.instruction.clone() };
                        let halves = Given { instruction: &inner, count: 2 };
                        let a = [self.word(&halves, 0)?, self.word(&halves, 1)?];
                        Op::MoveDouble { d: self.to_double(given, 0)?, a }
                    }
                    _ => {
                        let a = self.double(given, 1)?;
                        let d = self.to_double(given, 0)?;
                        Op::MoveDouble { d, a }
                    }
                }
            }
            // One range of addresses for all memory, so that an address is the same in each.
            "cvta.to.global.u64" | "cvta.global.u64" | "cvta.local.u64" | "cvta.to.local.u64"
            | "cvta.const.u64" | "cvta.to.const.u64" | "cvta.param.u64" | "cvta.to.param.u64" => {
                given.operands(2)?;
                let a = self.double(given, 1)?;
                let d = self.to_double(given, 0)?;
                Op::MoveDouble { d, a }
            }
            "cvt.u64.u32" | "cvt.s64.u32" | "cvt.s64.s32" | "cvt.u64.s32" => {
                given.operands(2)?;
                let d = self.to_double(given, 0)?;
                let a = self.word(given, 1)?;
                if name.ends_with("s32") {
                    Op::Extend { d, a }
                } else {
                    Op::MoveDouble { d, a: [a, self.word_number(0)] }
                }
            }
            "cvt.u32.u64" | "cvt.s32.s64" | "cvt.u32.s64" | "cvt.s32.u64" => {
                given.operands(2)?;
                Op::Move { d: given.to(0, Class::Word)?, a: self.double(given, 1)?[0] }
            }
            "cvt.rn.f64.u64" => {
                given.operands(2)?;
                Op::FloatFromDouble { d: self.to_double(given, 0)?, a: self.double(given, 1)? }
            }
            "cvt.rn.f64.u32" => {
                given.operands(2)?;
                Op::FloatFromWord { d: self.to_double(given, 0)?, a: self.word(given, 1)? }
            }
            "mov.pred" | "not.pred" | "and.pred" | "or.pred" | "xor.pred" => {
                let work = match name {
                    "mov.pred" => PredicateWork::Move,
                    "not.pred" => PredicateWork::Not,
                    "and.pred" => PredicateWork::And,
                    "or.pred" => PredicateWork::Or,
                    _ => PredicateWork::Xor,
                };
                let two = !matches!(work, PredicateWork::Move | PredicateWork::Not);
                given.operands(2 + usize::from(two))?;
                let d = given.to(0, Class::Predicate)?;
                if let (Operand::Number(value), PredicateWork::Move) = (given.at(1)?, work) {
                    // A constant: a comparison of a number with itself.
                    let zero = self.word_number(0);
                    let how = if *value == 0 { Comparison::NotEqual } else { Comparison::Equal };
                    let reading = Reading::Unsigned;
                    return Ok(Some(Op::CompareWords { how, reading, d, a: zero, b: zero }));
                }
                let a = self.predicate(given, 1)?;
                let b = if two { self.predicate(given, 2)? } else { a };
                Op::Predicates { work, d, a, b }
            }
            _ => return Ok(None),
        }))
    }

    fn comparison(&mut self, given: &Given<'_>, name: &str) -> Result<Option<Op>, TextFault> {
        let parts: Vec<_> = name.split('.').collect();
        let ["setp", how, kind] = parts[..] else { return Ok(None) };
        let how = match how {
            "eq" => Comparison::Equal,
            "ne" => Comparison::NotEqual,
            "lt" | "lo" => Comparison::Less,
            "le" | "ls" => Comparison::LessOrEqual,
            "gt" | "hi" => Comparison::Greater,
            "ge" | "hs" => Comparison::GreaterOrEqual,
            _ => return Ok(None),
        };
        let reading = if kind.starts_with('s') { Reading::Signed } else { Reading::Unsigned };
        given.operands(3)?;
        let d = given.to(0, Class::Predicate)?;
        Ok(match kind {
            "b32" | "u32" | "s32" => {
                let (a, b) = (self.word(given, 1)?, self.word(given, 2)?);
                Some(Op::CompareWords { how, reading, d, a, b })
            }
            "b64" | "u64" | "s64" => {
                let (a, b) = (self.double(given, 1)?, self.double(given, 2)?);
                Some(Op::CompareDoubles { how, reading, d, a, b })
            }
            _ => None,
        })
    }
}
