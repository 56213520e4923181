//! Machine instructions as far as control goes: which of them are understood, what they read, and
//! what every one of them writes.

use anyhow::{Result, bail};

use super::sass::{INSTRUCTION_BYTES, Instruction};

/// Registers, then those that are the same for a whole warp.
pub(super) const REGISTERS: usize = 512;
pub(super) const UNIFORM: u16 = 256;
/// The one that is always 0, of either kind.
pub(super) const ZERO: u16 = 255;
/// Predicates, then those of a whole warp. The last of eight is always true.
pub(super) const PREDICATES: usize = 16;

/// A source of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Number(u64),
    /// Its complement or negative, too.
    Register {
        register: u16,
        sign: Sign,
    },
    /// A word of a bank, at a place that a register may be a part of.
    Constant {
        bank: u8,
        register: u16,
        offset: u32,
    },
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Plain,
    Negative,
    Complement,
}

/// A predicate that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) predicate: u8,
    pub(super) negated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compared {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Combined {
    And,
    Or,
    Xor,
}

/// What is known of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// What it writes is unknown.
    Other,
    /// Sum, of two words each if wide.
    Add {
        to: u16,
        from: [Source; 3],
        wide: bool,
    },
    /// `a b + c`; of two words if wide.
    Multiply {
        to: u16,
        from: [Source; 3],
        wide: bool,
    },
    ShiftLeft {
        to: u16,
        what: Source,
        by: Source,
    },
    ShiftRight {
        to: u16,
        what: Source,
        by: Source,
    },
    Logic {
        to: Option<u16>,
        predicate: Option<u8>,
        from: [Source; 3],
        table: u8,
    },
    Select {
        to: u16,
        from: [Source; 2],
        condition: Condition,
    },
    Compare {
        to: [Option<u8>; 2],
        from: [Source; 2],
        compared: Compared,
        signed: bool,
        wide: bool,
        combined: Combined,
        condition: Condition,
    },
    /// A table of three predicates for each of two.
    Combine {
        to: [Option<u8>; 2],
        from: [Condition; 3],
        tables: [u8; 2],
    },
    Vote {
        to: u8,
        condition: Condition,
    },
    /// The lesser of a sum and another number, or the greater where the condition does not hold.
    Extreme {
        to: u16,
        sum: [Source; 2],
        other: Source,
        signed: bool,
        condition: Condition,
    },
    Branch {
        to: usize,
        condition: Option<Condition>,
    },
    Call(usize),
    Return,
    Exit,
    /// To where a register says, from here on.
    Indirect {
        register: Source,
        from: i64,
    },
}

/// An instruction as it is executed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decoded {
    pub(super) guard: Option<Condition>,
    pub(super) action: Action,
    /// Registers that it writes: the first, and how many.
    pub(super) writes: [(u16, u8); 2],
    /// Predicates that it writes, a bit each.
    pub(super) predicates: u16,
}

impl Compared {
    fn of(instruction: &Instruction) -> Option<Self> {
        Some(match instruction.opcode.split('.').nth(1)? {
            "EQ" => Self::Equal,
            "NE" => Self::NotEqual,
            "LT" => Self::Less,
            "LE" => Self::LessOrEqual,
            "GT" => Self::Greater,
            "GE" => Self::GreaterOrEqual,
            _ => return None,
        })
    }
}

fn number_of(text: &str) -> Option<u64> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let value = u64::from_str_radix(digits.strip_prefix("0x")?, 16).ok()?;
    Some(if negative { value.wrapping_neg() } else { value })
}

fn register_of(text: &str) -> Option<u16> {
    match text {
        "RZ" => return Some(ZERO),
        "URZ" => return Some(UNIFORM + ZERO),
        _ => {}
    }
    let (base, number) = match text.strip_prefix("UR") {
        Some(number) => (UNIFORM, number),
        None => (0, text.strip_prefix('R')?),
    };
    let number: u16 = number.parse().ok().filter(|number| *number < ZERO)?;
    Some(base + number)
}

fn predicate_of(text: &str) -> Option<u8> {
    match text {
        "PT" => return Some(7),
        "UPT" => return Some(15),
        _ => {}
    }
    let (base, number) = match text.strip_prefix("UP") {
        Some(number) => (8, number),
        None => (0, text.strip_prefix('P')?),
    };
    let number: u8 = number.parse().ok().filter(|number| *number < 7)?;
    Some(base + number)
}

fn condition_of(text: &str) -> Option<Condition> {
    let (negated, name) = text.strip_prefix('!').map_or((false, text), |name| (true, name));
    Some(Condition { predicate: predicate_of(name)?, negated })
}

fn source_of(instruction: &Instruction, operand: usize) -> Source {
    let text = instruction.operand(operand);
    if let Some(number) = number_of(text) {
        return Source::Number(number);
    }
    if let Some(constant) = constant_of(text) {
        return constant;
    }
    let (sign, name) = match text.as_bytes().first() {
        Some(b'-') => (Sign::Negative, &text[1..]),
        Some(b'~') => (Sign::Complement, &text[1..]),
        _ => (Sign::Plain, text),
    };
    let name = name.strip_suffix(".64").unwrap_or(name);
    register_of(name).map_or(Source::Unknown, |register| Source::Register { register, sign })
}

/// `c[0x2][R0+0x10]`, with either part or both.
fn constant_of(text: &str) -> Option<Source> {
    let (bank, place) = text.strip_prefix("c[")?.split_once("][")?;
    let bank = u8::try_from(number_of(bank)?).ok()?;
    let place = place.strip_suffix(']')?;
    let (register, offset) = match place.split_once('+') {
        Some((register, offset)) => (register_of(register)?, number_of(offset)?),
        None => match register_of(place) {
            Some(register) => (register, 0),
            None => (ZERO, number_of(place)?),
        },
    };
    Some(Source::Constant { bank, register, offset: u32::try_from(offset).ok()? })
}

/// What writes no register.
const WITHOUT_RESULT: &str = "\
    ST STG STS STL RED REDG REDS BRA BRX BRXU JMP JMX EXIT RET CALL BAR NOP BSSY BSYNC BREAK \
    WARPSYNC YIELD DEPBAR MEMBAR ERRBAR CCTL FENCE NANOSLEEP BPT KILL UCGABAR_WAIT";
/// What writes one register, or two where a part of its name says so. All else is taken to write
/// four.
const OF_ONE_WORD: &str = "\
    IADD3 IADD VIADD IMAD MOV LOP3 LOP SEL SHF SHL SHR LEA HFMA2 CS2R S2R S2UR P2R PRMT LDC LDS \
    LDG LD LDL ISETP PLOP3 R2UR UIADD3 UMOV UIMAD ULEA ULOP3 USHF USEL UISETP ULDC LDCU UPLOP3 \
    VOTE VOTEU IMNMX VIMNMX IABS POPC FLO BREV SGXT BMSK VIADDMNMX I2F F2I";

fn listed(list: &str, instruction: &Instruction) -> bool {
    list.split_whitespace().any(|known| known == instruction.base())
}

fn width(instruction: &Instruction) -> u8 {
    let part = |part| instruction.opcode.contains(part);
    if !listed(OF_ONE_WORD, instruction) || part(".128") || part(".256") {
        4
    } else if part("64") || part(".WIDE") || instruction.base() == "CS2R" && !part(".32") {
        2
    } else {
        1
    }
}

pub(super) fn decode(instruction: &Instruction) -> Result<Decoded> {
    let guard = match &instruction.guard {
        Some(text) => match condition_of(text) {
            Some(condition) => Some(condition),
            None => bail!("an unknown guard: {}", instruction.show()),
        },
        None => None,
    };
    let mut decoded = Decoded { guard, action: Action::Other, writes: [(0, 0); 2], predicates: 0 };
    if !listed(WITHOUT_RESULT, instruction) {
        writes(instruction, &mut decoded);
    }
    decoded.action = action(instruction)?;
    Ok(decoded)
}

/// Finds what an instruction writes: its first operand, and the predicates next to it.
fn writes(instruction: &Instruction, decoded: &mut Decoded) {
    if instruction.base() == "R2P" || instruction.base() == "R2UP" {
        decoded.predicates = u16::MAX;
        return;
    }
    let width = width(instruction);
    // Comparisons write predicates only.
    let compares = ["SETP", "PLOP3"].iter().any(|end| instruction.base().ends_with(end));
    let mut registers = 0;
    for operand in 0..instruction.operands.len() {
        let text = instruction.operand(operand);
        if let Some(predicate) = predicate_of(text) {
            decoded.predicates |= 1 << predicate;
        } else if let Some(register) = register_of(text) {
            // Loads of eight words have two places.
            let most = if instruction.has("ENL2") { 2 } else { 1 };
            if registers == most || compares {
                break;
            }
            decoded.writes[registers] = (register, width);
            registers += 1;
        } else {
            break;
        }
    }
}

/// What of an instruction is known.
fn action(instruction: &Instruction) -> Result<Action> {
    let base = instruction.base().strip_prefix('U').unwrap_or(instruction.base());
    let plain = !instruction.has("X") && !instruction.has("EX");
    let to = register_of(instruction.operand(0));
    // Sources stand behind the predicates that take carries.
    let predicates = (1..3).take_while(|i| predicate_of(instruction.operand(*i)).is_some()).count();
    let source = |place: usize| {
        let operand = 1 + predicates + place;
        if operand < instruction.operands.len() {
            source_of(instruction, operand)
        } else {
            Source::Number(0)
        }
    };
    let sources = [source(0), source(1), source(2)];
    let wide = instruction.has("64") || instruction.has("WIDE");
    Ok(match (base, to) {
        ("BRA", _) => {
            let Some(to) = instruction.target else {
                bail!("a branch to an unknown place: {}", instruction.show());
            };
            // `BRA.U UP0` and `BRA.DIV` have a condition among their operands.
            let condition = instruction.operands.iter().find_map(|text| condition_of(text));
            Action::Branch { to, condition }
        }
        ("CALL", _) => match instruction.target {
            Some(to) => Action::Call(to),
            None => bail!("a call to an unknown place: {}", instruction.show()),
        },
        ("RET", _) => Action::Return,
        ("EXIT", _) => Action::Exit,
        ("BRX" | "BRXU", _) => {
            // `BRX R2 -0x24a0`: from the next instruction on.
            let mut words = instruction.operand(0).split(' ');
            let register = words.next().and_then(register_of);
            let offset = words.next().map_or(Some(0), number_of);
            let (Some(register), Some(offset)) = (register, offset) else {
                bail!("a branch to an unknown place: {}", instruction.show());
            };
            let next = i64::from(instruction.address) + INSTRUCTION_BYTES as i64;
            Action::Indirect {
                register: Source::Register { register, sign: Sign::Plain },
                from: next + offset.cast_signed(),
            }
        }
        ("JMX" | "JMP" | "BREAK", _) => Action::Indirect { register: Source::Unknown, from: 0 },
        ("MOV" | "R2UR" | "LDC" | "LDCU", Some(to)) => {
            Action::Add { to, from: [source(0), Source::Number(0), Source::Number(0)], wide }
        }
        ("IADD3" | "VIADD" | "IADD" | "VIADD3", Some(to)) if plain => {
            Action::Add { to, from: sources, wide }
        }
        ("IMAD", Some(to))
            if plain && !instruction.has("HI") && (!wide || instruction.has("U32")) =>
        {
            Action::Multiply { to, from: sources, wide }
        }
        ("LEA", Some(to)) if plain && !instruction.has("HI") => match sources[2] {
            Source::Number(by @ 0..32) => Action::Multiply {
                to,
                from: [sources[0], Source::Number(1 << by), sources[1]],
                wide: false,
            },
            _ => Action::Other,
        },
        ("SHF", Some(to)) => {
            let empty = |source| {
                matches!(source, Source::Number(0))
                    || matches!(source, Source::Register { register, .. }
                        if register == ZERO || register == UNIFORM + ZERO)
            };
            if instruction.has("L") && !instruction.has("HI") && empty(sources[2]) {
                Action::ShiftLeft { to, what: sources[0], by: sources[1] }
            } else if instruction.has("R")
                && instruction.has("HI")
                && instruction.has("U32")
                && empty(sources[0])
            {
                Action::ShiftRight { to, what: sources[2], by: sources[1] }
            } else {
                Action::Other
            }
        }
        ("LOP3", _) => logic_action(instruction),
        ("SEL", Some(to)) => match condition_of(instruction.operand(3)) {
            Some(condition) if !wide => {
                Action::Select { to, from: [sources[0], sources[1]], condition }
            }
            _ => Action::Other,
        },
        ("ISETP", _) if plain => compare_action(instruction),
        ("VIADDMNMX" | "IMNMX" | "VIMNMX", Some(to)) => {
            let [a, b, c] = sources;
            let (sum, other, place) = match base {
                "VIADDMNMX" => ([a, b], c, 4),
                _ => ([a, Source::Number(0)], b, 3),
            };
            match condition_of(instruction.operand(place)) {
                Some(condition) if plain && instruction.operands.len() == place + 1 => {
                    let signed = !instruction.has("U32");
                    Action::Extreme { to, sum, other, signed, condition }
                }
                _ => Action::Other,
            }
        }
        ("PLOP3", _) => combine_action(instruction),
        ("VOTE" | "VOTEU", _) => {
            let predicate = predicate_of(instruction.operand(0));
            match (predicate, condition_of(instruction.operand(1)), instruction.operands.len()) {
                (Some(to), Some(condition), 2) => Action::Vote { to, condition },
                _ => Action::Other,
            }
        }
        ("CS2R", Some(to)) if instruction.operand(1) == "SRZ" => {
            Action::Add { to, from: [Source::Number(0); 3], wide: !instruction.has("32") }
        }
        ("HFMA2", Some(to)) => match moved_halves(instruction) {
            Some(value) => {
                let value = Source::Number(value.into());
                Action::Add { to, from: [value, Source::Number(0), Source::Number(0)], wide: false }
            }
            None => Action::Other,
        },
        ("S2R" | "S2UR", Some(to)) if instruction.operand(1).starts_with("SR_") => {
            match instruction.operand(1) {
                // The first thread of the first block.
                text if text.starts_with("SR_TID") || text.starts_with("SR_CTAID") => {
                    Action::Add { to, from: [Source::Number(0); 3], wide: false }
                }
                _ => Action::Other,
            }
        }
        _ => Action::Other,
    })
}

fn logic_action(instruction: &Instruction) -> Action {
    let predicate = predicate_of(instruction.operand(0));
    let first = usize::from(predicate.is_some());
    let to = register_of(instruction.operand(first));
    let from = [1, 2, 3].map(|place| source_of(instruction, first + place));
    let table =
        number_of(instruction.operand(first + 4)).and_then(|table| u8::try_from(table).ok());
    match table {
        Some(table) if instruction.has("LUT") => Action::Logic { to, predicate, from, table },
        _ => Action::Other,
    }
}

fn combine_action(instruction: &Instruction) -> Action {
    let from = [2, 3, 4].map(|operand| condition_of(instruction.operand(operand)));
    let table = |operand| u8::try_from(number_of(instruction.operand(operand))?).ok();
    match (from, table(5), table(6)) {
        ([Some(a), Some(b), Some(c)], Some(one), Some(other)) => Action::Combine {
            to: [0, 1].map(|operand| predicate_of(instruction.operand(operand))),
            from: [a, b, c],
            tables: [one, other],
        },
        _ => Action::Other,
    }
}

fn compare_action(instruction: &Instruction) -> Action {
    let to = [0, 1].map(|operand| predicate_of(instruction.operand(operand)));
    let combined = if instruction.has("AND") {
        Combined::And
    } else if instruction.has("OR") {
        Combined::Or
    } else {
        Combined::Xor
    };
    let unsigned = instruction.has("U32") || instruction.has("U64");
    match (Compared::of(instruction), condition_of(instruction.operand(4))) {
        (Some(compared), Some(condition)) if instruction.operands.len() == 5 => Action::Compare {
            to,
            from: [2, 3].map(|operand| source_of(instruction, operand)),
            compared,
            signed: !unsigned,
            wide: instruction.has("U64") || instruction.has("S64"),
            combined,
            condition,
        },
        _ => Action::Other,
    }
}

/// The word that `HFMA2 R0, -RZ, RZ, 1.5, 0` moves: two numbers of half precision, the upper one
/// first.
pub(super) fn moved_halves(instruction: &Instruction) -> Option<u32> {
    let zero = |operand| ["RZ", "-RZ"].contains(&instruction.operand(operand));
    if instruction.base() != "HFMA2" || !zero(1) || !zero(2) || instruction.operands.len() < 5 {
        return None;
    }
    let half = |operand| half_of(instruction.operand(operand).parse().ok()?);
    Some(u32::from(half(3)?) << 16 | u32::from(half(4)?))
}

/// The bits of a number of half precision; `None` if it is none.
fn half_of(value: f64) -> Option<u16> {
    let sign = u16::from(value.is_sign_negative()) << 15;
    let size = value.abs();
    if size == 0.0 {
        return Some(sign);
    }
    #[expect(clippy::cast_possible_truncation, reason = "exponents are small")]
    let exponent = (size.log2().floor() as i32).max(-14);
    let scaled = size / f64::powi(2.0, exponent - 10);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "11 bits")]
    let digits = scaled.round() as u16;
    if (scaled - f64::from(digits)).abs() > 1e-3 || exponent > 15 || digits >= 2048 {
        return None;
    }
    // Below the smallest exponent the leading bit is not implied.
    let biased = u16::try_from(exponent + 15 - i32::from(digits < 1024)).ok()?;
    Some(sign | biased << 10 | digits & 1023)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_half_precision_are_bits() {
        for (value, bits) in [
            (0.0, 0),
            (-0.0, 0x8000),
            (1.0, 0x3c00),
            (-2.0, 0xc000),
            (5.960_464_477_539_063e-8, 1),
            (6.556_510_925_292_969e-7, 11),
            (6.103_515_625e-5, 0x0400),
            (65504.0, 0x7bff),
        ] {
            assert_eq!(half_of(value), Some(bits), "{value}");
        }
        assert_eq!(half_of(1.000_1), None);
        assert_eq!(half_of(1e6), None);
    }
}
