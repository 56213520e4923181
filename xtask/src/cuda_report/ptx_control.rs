//! What of PTX decides branches: integer arithmetic, comparisons, predicates. All else makes its
//! results unknown.

use std::collections::HashMap;

use anyhow::{Context, Result};

use super::control::{Flow, Program};
use super::ptx::{Function, Instruction};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Number(u64),
    Register(usize),
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Move,
    /// To so many bits, from a number that has a sign if its type has.
    Convert(u32),
    Add,
    Subtract,
    Multiply,
    MultiplyAdd,
    ShiftLeft,
    ShiftRight,
    And,
    Or,
    ExclusiveOr,
    /// Which orders hold: less, equal, greater.
    Compare([bool; 3]),
    Select,
    Branch(usize),
    End,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Type {
    bits: u32,
    signed: bool,
}

struct Decoded {
    guard: Option<(usize, bool)>,
    operation: Operation,
    of: Type,
    from: [Source; 3],
    to: Vec<usize>,
}

/// A thread of a kernel. Values are of 64 bits at most, predicates 0 or 1.
pub(crate) struct Thread<'a> {
    function: &'a Function,
    program: Vec<Decoded>,
    values: Vec<Option<u64>>,
}

impl<'a> Thread<'a> {
    pub(crate) fn new(function: &'a Function) -> Result<Self> {
        let mut names = Names::default();
        let program = function
            .instructions
            .iter()
            .map(|instruction| decode(instruction, &mut names))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { function, program, values: vec![None; names.registers.len()] })
    }

    fn value(&self, source: Source) -> Option<u64> {
        match source {
            Source::Number(number) => Some(number),
            Source::Register(register) => self.values[register],
            Source::Unknown => None,
        }
    }

    fn compute(&self, decoded: &Decoded) -> Option<u64> {
        let Type { bits, signed } = decoded.of;
        let mask = mask_of(bits);
        let source = |place: usize| Some(self.value(decoded.from[place])? & mask);
        let value = match decoded.operation {
            Operation::Move => source(0)?,
            Operation::Convert(to) => {
                let value = source(0)?;
                let negative = signed && bits < 64 && value >> (bits - 1) & 1 == 1;
                let value = if negative { value | !mask } else { value };
                return Some(value & mask_of(to));
            }
            Operation::Add => source(0)?.wrapping_add(source(1)?),
            Operation::Subtract => source(0)?.wrapping_sub(source(1)?),
            Operation::Multiply => source(0)?.wrapping_mul(source(1)?),
            Operation::MultiplyAdd => source(0)?.wrapping_mul(source(1)?).wrapping_add(source(2)?),
            Operation::ShiftLeft => {
                let by = u32::try_from(self.value(decoded.from[1])?).ok()?;
                source(0)?.checked_shl(by).unwrap_or(0)
            }
            Operation::ShiftRight if !signed => {
                let by = u32::try_from(self.value(decoded.from[1])?).ok()?;
                source(0)?.checked_shr(by).unwrap_or(0)
            }
            Operation::And => source(0)? & source(1)?,
            Operation::Or => source(0)? | source(1)?,
            Operation::ExclusiveOr => source(0)? ^ source(1)?,
            Operation::Compare([less, equal, greater]) => {
                // The sign's bit turned over makes signed numbers as ordered as others.
                let turn = if signed { 1 << (bits - 1) } else { 0 };
                u64::from(match (source(0)? ^ turn).cmp(&(source(1)? ^ turn)) {
                    std::cmp::Ordering::Less => less,
                    std::cmp::Ordering::Equal => equal,
                    std::cmp::Ordering::Greater => greater,
                })
            }
            Operation::Select => match self.value(decoded.from[2])? {
                0 => source(1)?,
                _ => source(0)?,
            },
            _ => return None,
        };
        Some(value & mask)
    }
}

impl Program for Thread<'_> {
    fn length(&self) -> usize {
        self.program.len()
    }

    fn step(&mut self, at: usize) -> Result<Flow> {
        let decoded = &self.program[at];
        let guard = match decoded.guard {
            Some((register, negated)) => self.values[register].map(|value| (value != 0) != negated),
            None => Some(true),
        };
        if guard == Some(false) {
            return Ok(Flow::Next);
        }
        let to = match decoded.operation {
            Operation::Branch(to) => Some(to),
            Operation::End if guard.is_some() => return Ok(Flow::End),
            _ => None,
        };
        if let Some(to) = to {
            return Ok(if guard.is_some() { Flow::To(to) } else { Flow::Either(to) });
        }
        let value = guard.and_then(|_| self.compute(decoded));
        for &register in &self.program[at].to {
            self.values[register] = value;
        }
        Ok(Flow::Next)
    }

    fn straight(&self, at: usize) -> Option<usize> {
        let decoded = &self.program[at];
        match decoded.operation {
            Operation::End if decoded.guard.is_none() => None,
            Operation::Branch(to) if decoded.guard.is_none() => Some(to),
            _ => Some(at + 1),
        }
    }

    fn show(&self, at: usize) -> String {
        format!("{} of {}", self.function.instructions[at].show(), self.function.name)
    }
}

/// Places for registers, and addresses for names of variables.
#[derive(Default)]
struct Names {
    registers: HashMap<String, usize>,
    variables: HashMap<String, u64>,
}

impl Names {
    fn register(&mut self, name: &str) -> usize {
        let next = self.registers.len();
        *self.registers.entry(name.to_owned()).or_insert(next)
    }

    fn source(&mut self, text: &str) -> Source {
        if let Some(number) = number_of(text) {
            return Source::Number(number);
        }
        match text {
            // The first thread of the first block.
            "%tid.x" | "%ctaid.x" => Source::Number(0),
            _ if text.starts_with("%tid") || text.starts_with("%ntid") => Source::Unknown,
            _ if text.starts_with('%') || self.registers.contains_key(text) => {
                Source::Register(self.register(text))
            }
            _ if text.contains(['[', '{', '(']) => Source::Unknown,
            // A variable lies far from all others.
            _ => {
                let next = (self.variables.len() as u64 + 1) << 32;
                Source::Number(*self.variables.entry(text.to_owned()).or_insert(next))
            }
        }
    }
}

fn mask_of(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

fn number_of(text: &str) -> Option<u64> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let value = match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok()?,
        None => digits.parse().ok()?,
    };
    Some(if negative { value.wrapping_neg() } else { value })
}

/// The last part of an opcode, which is the type of the sources.
fn type_of(instruction: &Instruction) -> Option<Type> {
    let part = instruction.opcode.rsplit('.').next()?;
    if part == "pred" {
        return Some(Type { bits: 1, signed: false });
    }
    let bits = part.strip_prefix(['s', 'u', 'b'])?.parse().ok()?;
    Some(Type { bits, signed: part.starts_with('s') })
}

/// The bits of the first type among the parts of an opcode, which is that of the result.
fn result_bits(instruction: &Instruction) -> Option<u32> {
    let bits = |part: &str| part.strip_prefix(['s', 'u', 'b'])?.parse().ok();
    instruction.opcode.split('.').find_map(bits).filter(|bits| *bits <= 64)
}

/// What writes no register.
const WITHOUT_RESULT: [&str; 12] = [
    "bra",
    "ret",
    "exit",
    "st",
    "red",
    "bar",
    "barrier",
    "membar",
    "fence",
    "trap",
    "prefetch",
    "nanosleep",
];

fn decode(instruction: &Instruction, names: &mut Names) -> Result<Decoded> {
    let guard = instruction.guard.as_ref().map(|text| match text.strip_prefix('!') {
        Some(name) => (names.register(name), true),
        None => (names.register(text), false),
    });
    let mut operands = instruction.operands.iter();
    let mut to = Vec::new();
    if !WITHOUT_RESULT.contains(&instruction.base()) {
        let first = operands.next().with_context(|| instruction.show())?;
        let first = first.trim_start_matches('{').trim_end_matches('}');
        to.extend(first.split([',', '|']).map(|name| names.register(name.trim())));
    }
    let mut from = [Source::Unknown; 3];
    for (source, text) in from.iter_mut().zip(operands.by_ref()) {
        *source = names.source(text);
    }
    let known = type_of(instruction).filter(|of| of.bits <= 64);
    let carries = instruction.has("cc") || ["addc", "subc", "madc"].contains(&instruction.base());
    let low = instruction.has("lo");
    let operation = match instruction.base() {
        "bra" => Operation::Branch(instruction.target.with_context(|| instruction.show())?),
        "ret" | "exit" => Operation::End,
        _ if carries || known.is_none() || to.len() != 1 => Operation::Other,
        "mov" | "cvta" => Operation::Move,
        "cvt" => result_bits(instruction).map_or(Operation::Other, Operation::Convert),
        "add" => Operation::Add,
        "sub" => Operation::Subtract,
        "mul" if low => Operation::Multiply,
        "mad" if low => Operation::MultiplyAdd,
        "shl" => Operation::ShiftLeft,
        "shr" => Operation::ShiftRight,
        "and" => Operation::And,
        "or" => Operation::Or,
        "xor" => Operation::ExclusiveOr,
        "selp" => Operation::Select,
        "setp" => orders(instruction).map_or(Operation::Other, Operation::Compare),
        _ => Operation::Other,
    };
    let of = known.unwrap_or(Type { bits: 64, signed: false });
    Ok(Decoded { guard, operation, of, from, to })
}

/// Which orders a comparison takes; `None` if it is combined with another predicate.
fn orders(instruction: &Instruction) -> Option<[bool; 3]> {
    if instruction.operands.len() != 3 {
        return None;
    }
    Some(match instruction.opcode.split('.').nth(1)? {
        "eq" => [false, true, false],
        "ne" => [true, false, true],
        "lt" | "lo" => [true, false, false],
        "le" | "ls" => [true, true, false],
        "gt" | "hi" => [false, false, true],
        "ge" | "hs" => [false, true, true],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::control::run;
    use super::super::ptx::{self, tests::KERNEL};
    use super::*;

    fn counts(lines: &str) -> Result<Vec<u64>> {
        let functions = ptx::parse(&format!(".entry f()\n{{\n{lines}\n}}\n"))?;
        Ok(run(&mut Thread::new(&functions[0])?)?.counts)
    }

    #[test]
    fn a_loop_of_a_kernel_runs_as_often_as_it_says() {
        let functions = ptx::parse(KERNEL).expect("PTX");
        let executed = run(&mut Thread::new(&functions[0]).expect("known")).expect("ends");
        assert_eq!(executed.counts[..6], [1; 6]);
        assert_eq!(executed.counts[6..20], [11; 14]);
        assert_eq!(executed.counts[20], 1);
        // The bound of the grid is not known.
        assert_eq!(executed.by_data, 1);
    }

    #[test]
    fn counters_may_be_addresses_or_triangles() {
        let address = "mov.u64 %rd1, table;\nadd.s64 %rd2, %rd1, 352;\n$L:\n\
                       add.s64 %rd1, %rd1, 32;\nsetp.ne.s64 %p1, %rd1, %rd2;\n@%p1 bra $L;\nret;";
        assert_eq!(counts(address).expect("ends"), [1, 1, 11, 11, 11, 1]);
        let triangle = "mov.u32 %r1, 0;\n$A:\nmov.u32 %r2, %r1;\n$B:\nadd.s32 %r2, %r2, 1;\n\
                        setp.lt.u32 %p1, %r2, 12;\n@%p1 bra $B;\nadd.s32 %r1, %r1, 1;\n\
                        setp.eq.s32 %p2, %r1, 12;\n@!%p2 bra $A;\nret;";
        assert_eq!(counts(triangle).expect("ends"), [1, 12, 78, 78, 78, 12, 12, 12, 1]);
        let predicate = "mov.pred %p1, -1;\n$A:\nmov.pred %p2, %p1;\nmov.pred %p1, 0;\n\
                         @%p2 bra $A;\nret;";
        assert_eq!(counts(predicate).expect("ends")[1], 2);
        let down = "mov.u32 %r1, 11;\n$A:\nadd.s32 %r1, %r1, -1;\nsetp.gt.s32 %p1, %r1, -1;\n\
                    @%p1 bra $A;\nret;";
        assert_eq!(counts(down).expect("ends")[1], 12);
    }

    #[test]
    fn numbers_keep_their_sign_and_lose_what_has_no_room() {
        let converted = "mov.u32 %r1, 3;\n$A:\ncvt.s64.s32 %rd1, %r1;\nadd.s64 %rd1, %rd1, -1;\n\
                         cvt.u32.u64 %r1, %rd1;\ncvt.s64.s32 %rd2, %r1;\n\
                         setp.ne.s64 %p1, %rd2, -2;\n@%p1 bra $A;\nret;";
        assert_eq!(counts(converted).expect("ends")[1], 5);
        // From and to other kinds of numbers.
        let float = converted.replace("cvt.s64.s32 %rd2", "cvt.rzi.s64.f64 %rd2");
        assert!(counts(&float).is_err());
    }

    #[test]
    fn what_comes_from_memory_or_carries_is_unknown() {
        for lines in [
            "ld.param.u32 %r1, [n];\n$A:\nadd.s32 %r1, %r1, -1;\nsetp.ne.s32 %p1, %r1, 0;\n\
             @%p1 bra $A;\nret;",
            "mov.u32 %r1, 3;\n$A:\naddc.cc.u32 %r1, %r1, 1;\nsetp.ne.s32 %p1, %r1, 9;\n\
             @%p1 bra $A;\nret;",
            "mov.u32 %r1, 3;\nmov.b64 {%r1, %r2}, %rd4;\n$A:\nadd.u32 %r1, %r1, 1;\n\
             setp.ne.s32 %p1, %r1, 9;\n@%p1 bra $A;\nret;",
            "mov.u32 %r1, 3;\n@%p4 mov.u32 %r1, 4;\n$A:\nadd.u32 %r1, %r1, 1;\n\
             setp.ne.s32 %p1, %r1, 9;\n@%p1 bra $A;\nret;",
        ] {
            assert!(counts(lines).is_err(), "{lines}");
        }
    }
}
