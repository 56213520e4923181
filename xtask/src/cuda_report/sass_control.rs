//! What of machine code decides branches: integer arithmetic with small numbers, comparisons,
//! predicates. All else makes its results unknown.

use anyhow::{Result, bail};

use super::control::{Flow, Program};
use super::sass::Function;
use super::sass_decode::{
    Action, Combined, Compared, Condition, Decoded, PREDICATES, REGISTERS, Sign, Source, UNIFORM,
    ZERO, decode,
};

/// A thread of a kernel.
pub(crate) struct Thread<'a> {
    function: &'a Function,
    program: Vec<Decoded>,
    registers: Box<[Option<u32>; REGISTERS]>,
    predicates: [Option<bool>; PREDICATES],
}

impl<'a> Thread<'a> {
    pub(crate) fn new(function: &'a Function) -> Result<Self> {
        let program = function.instructions.iter().map(decode).collect::<Result<_>>()?;
        let mut thread = Self {
            function,
            program,
            registers: Box::new([None; REGISTERS]),
            predicates: [None; PREDICATES],
        };
        for zero in [ZERO, UNIFORM + ZERO] {
            thread.registers[usize::from(zero)] = Some(0);
        }
        for always in [7, 15] {
            thread.predicates[always] = Some(true);
        }
        Ok(thread)
    }

    fn condition(&self, condition: Condition) -> Option<bool> {
        self.predicates[usize::from(condition.predicate)].map(|value| value != condition.negated)
    }

    fn word(&self, source: Source) -> Option<u32> {
        #[expect(clippy::cast_possible_truncation, reason = "a word of a number")]
        match source {
            Source::Number(number) => Some(number as u32),
            Source::Register { register, sign } => {
                let value = self.registers[usize::from(register)]?;
                Some(match sign {
                    Sign::Plain => value,
                    Sign::Negative => value.wrapping_neg(),
                    Sign::Complement => !value,
                })
            }
            Source::Constant { bank, register, offset } => {
                let bank = self.function.constants.get(&bank)?;
                let place = self.registers[usize::from(register)]?.wrapping_add(offset) as usize;
                let word = bank.get(place..place.checked_add(4)?)?;
                Some(u32::from_le_bytes(word.try_into().ok()?))
            }
            Source::Unknown => None,
        }
    }

    /// Two words.
    fn pair(&self, source: Source) -> Option<u64> {
        match source {
            Source::Number(number) => Some(number),
            Source::Register { register, sign } => {
                let low = self.registers[usize::from(register)]?;
                let is_zero = register == ZERO || register == UNIFORM + ZERO;
                let high = if is_zero { 0 } else { self.registers[usize::from(register) + 1]? };
                let value = u64::from(high) << 32 | u64::from(low);
                Some(match sign {
                    Sign::Plain => value,
                    Sign::Negative => value.wrapping_neg(),
                    Sign::Complement => !value,
                })
            }
            Source::Constant { .. } | Source::Unknown => None,
        }
    }

    fn set(&mut self, register: u16, value: Option<u32>) {
        if register != ZERO && register != UNIFORM + ZERO {
            self.registers[usize::from(register)] = value;
        }
    }

    fn set_pair(&mut self, register: u16, value: Option<u64>) {
        if register == ZERO || register == UNIFORM + ZERO {
            return;
        }
        #[expect(clippy::cast_possible_truncation, reason = "a word of a number")]
        self.set(register, value.map(|value| value as u32));
        self.set(register + 1, value.map(|value| (value >> 32) as u32));
    }

    fn set_predicate(&mut self, predicate: u8, value: Option<bool>) {
        if predicate % 8 != 7 {
            self.predicates[usize::from(predicate)] = value;
        }
    }

    /// To the instruction at an address.
    fn at_address(&self, address: i64) -> Result<Flow> {
        let instructions = &self.function.instructions;
        let found = instructions.iter().position(|i| i64::from(i.address) == address);
        match found {
            Some(to) => Ok(Flow::To(to)),
            None => bail!("a jump to {address:#x} of {}, where nothing is", self.function.name),
        }
    }

    /// Makes everything unknown that an instruction writes.
    fn forget(&mut self, decoded: &Decoded) {
        for (first, count) in decoded.writes {
            for register in first..first + u16::from(count) {
                self.set(register, None);
            }
        }
        for predicate in (0..PREDICATES as u8).filter(|p| decoded.predicates >> p & 1 == 1) {
            self.set_predicate(predicate, None);
        }
    }

    fn compute(&mut self, decoded: &Decoded) {
        match decoded.action {
            Action::Add { to, from, wide: false } => {
                let sum = from
                    .iter()
                    .try_fold(0u32, |sum, &source| Some(sum.wrapping_add(self.word(source)?)));
                self.forget(decoded);
                self.set(to, sum);
            }
            Action::Add { to, from, wide: true } => {
                let sum = from
                    .iter()
                    .try_fold(0u64, |sum, &source| Some(sum.wrapping_add(self.pair(source)?)));
                self.forget(decoded);
                self.set_pair(to, sum);
            }
            Action::Multiply { to, from: [a, b, c], wide: false } => {
                let product = (|| {
                    // A factor of 0 makes the other one known.
                    let (a, b) = (self.word(a), self.word(b));
                    let product = match (a, b) {
                        (Some(0), _) | (_, Some(0)) => 0,
                        (a, b) => a?.wrapping_mul(b?),
                    };
                    Some(product.wrapping_add(self.word(c)?))
                })();
                self.forget(decoded);
                self.set(to, product);
            }
            Action::Multiply { to, from: [a, b, c], wide: true } => {
                let product = (|| {
                    let product = u64::from(self.word(a)?) * u64::from(self.word(b)?);
                    Some(product.wrapping_add(self.pair(c)?))
                })();
                self.forget(decoded);
                self.set_pair(to, product);
            }
            Action::ShiftLeft { to, what, by } => {
                let value = self.word(what).zip(self.word(by));
                self.forget(decoded);
                self.set(to, value.map(|(what, by)| what.checked_shl(by).unwrap_or(0)));
            }
            Action::ShiftRight { to, what, by } => {
                let value = self.word(what).zip(self.word(by));
                self.forget(decoded);
                self.set(to, value.map(|(what, by)| what.checked_shr(by).unwrap_or(0)));
            }
            Action::Logic { to, predicate, from: [a, b, c], table } => {
                let value = (|| Some(logic(self.word(a)?, self.word(b)?, self.word(c)?, table)))();
                self.forget(decoded);
                if let Some(to) = to {
                    self.set(to, value);
                }
                if let Some(predicate) = predicate {
                    self.set_predicate(predicate, value.map(|value| value != 0));
                }
            }
            Action::Select { to, from: [a, b], condition } => {
                let value = match self.condition(condition) {
                    Some(true) => self.word(a),
                    Some(false) => self.word(b),
                    None => self.word(a).filter(|_| self.word(a) == self.word(b)),
                };
                self.forget(decoded);
                self.set(to, value);
            }
            Action::Compare { to, from: [a, b], compared, signed, wide, combined, condition } => {
                let order = if wide {
                    self.pair(a).zip(self.pair(b)).map(|(a, b)| compare(a, b, 64, signed))
                } else {
                    let pair = self.word(a).zip(self.word(b));
                    pair.map(|(a, b)| compare(a.into(), b.into(), 32, signed))
                };
                let holds = order.map(|order| compared.holds(order));
                let condition = self.condition(condition);
                self.forget(decoded);
                for (to, holds) in to.into_iter().zip([holds, holds.map(|holds| !holds)]) {
                    if let Some(to) = to {
                        self.set_predicate(to, combined.of(holds, condition));
                    }
                }
            }
            Action::Combine { to, from, tables } => {
                let from = from.map(|condition| self.condition(condition));
                self.forget(decoded);
                for (to, table) in to.into_iter().zip(tables) {
                    if let Some(to) = to {
                        self.set_predicate(to, combine(from, table));
                    }
                }
            }
            Action::Extreme { to, sum: [a, b], other, signed, condition } => {
                let value = (|| {
                    let sum = self.word(a)?.wrapping_add(self.word(b)?);
                    let other = self.word(other)?;
                    let less = compare(sum.into(), other.into(), 32, signed).is_lt();
                    Some(if less == self.condition(condition)? { sum } else { other })
                })();
                self.forget(decoded);
                self.set(to, value);
            }
            Action::Vote { to, condition } => {
                let value = self.condition(condition);
                self.forget(decoded);
                self.set_predicate(to, value);
            }
            _ => self.forget(decoded),
        }
    }
}

impl Program for Thread<'_> {
    fn length(&self) -> usize {
        self.program.len()
    }

    fn step(&mut self, at: usize) -> Result<Flow> {
        let decoded = self.program[at];
        let guard = decoded.guard.map_or(Some(true), |guard| self.condition(guard));
        let condition = match decoded.action {
            Action::Branch { condition: Some(condition), .. } => {
                match (guard, self.condition(condition)) {
                    (Some(false), _) | (_, Some(false)) => Some(false),
                    (Some(true), Some(true)) => Some(true),
                    _ => None,
                }
            }
            _ => guard,
        };
        match (decoded.action, condition) {
            (_, Some(false)) => Ok(Flow::Next),
            (Action::Branch { to, .. }, Some(true)) => Ok(Flow::To(to)),
            (Action::Branch { to, .. }, None) => Ok(Flow::Either(to)),
            (Action::Exit, Some(true)) => Ok(Flow::End),
            // What ends a thread early is the end of the grid.
            (Action::Exit, None) => Ok(Flow::Next),
            (Action::Call(to), Some(true)) => Ok(Flow::Call(to)),
            (Action::Return, Some(true)) => Ok(Flow::Return),
            (Action::Indirect { register, from }, Some(true)) => match self.word(register) {
                Some(offset) => self.at_address(from + i64::from(offset.cast_signed())),
                None => bail!("where it goes on is not known: {}", self.show(at)),
            },
            (Action::Call(_) | Action::Return | Action::Indirect { .. }, _) => {
                bail!("where it goes on is not known without its data: {}", self.show(at))
            }
            (_, Some(true)) => {
                self.compute(&decoded);
                Ok(Flow::Next)
            }
            (_, None) => {
                self.forget(&decoded);
                Ok(Flow::Next)
            }
        }
    }

    fn straight(&self, at: usize) -> Option<usize> {
        let decoded = &self.program[at];
        match decoded.action {
            Action::Exit | Action::Return | Action::Indirect { .. } if decoded.guard.is_none() => {
                None
            }
            Action::Branch { to, condition: None } if decoded.guard.is_none() => Some(to),
            _ => Some(at + 1),
        }
    }

    fn show(&self, at: usize) -> String {
        format!("{} of {}", self.function.instructions[at].show(), self.function.name)
    }
}

fn logic(a: u32, b: u32, c: u32, table: u8) -> u32 {
    (0..8).filter(|i| table >> i & 1 == 1).fold(0, |value, i| {
        let pick = |word: u32, bit: u32| if i >> bit & 1 == 1 { word } else { !word };
        value | pick(a, 2) & pick(b, 1) & pick(c, 0)
    })
}

/// What a table says of three predicates, if those that are unknown make no difference.
fn combine(from: [Option<bool>; 3], table: u8) -> Option<bool> {
    let possible = (0..8u8).filter(|place| {
        let agrees = |(bit, known): (usize, &Option<bool>)| {
            known.is_none_or(|known| (place >> (2 - bit) & 1 == 1) == known)
        };
        from.iter().enumerate().all(agrees)
    });
    let mut values = possible.map(|place| table >> place & 1 == 1);
    let first = values.next()?;
    values.all(|value| value == first).then_some(first)
}

fn compare(a: u64, b: u64, bits: u32, signed: bool) -> std::cmp::Ordering {
    // The sign's bit turned over makes signed numbers as ordered as others.
    let turn = if signed { 1u64 << (bits - 1) } else { 0 };
    (a ^ turn).cmp(&(b ^ turn))
}

impl Compared {
    fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl Combined {
    fn of(self, a: Option<bool>, b: Option<bool>) -> Option<bool> {
        match (self, a, b) {
            (Self::And, Some(false), _) | (Self::And, _, Some(false)) => Some(false),
            (Self::Or, Some(true), _) | (Self::Or, _, Some(true)) => Some(true),
            (Self::And, a, b) => Some(a? && b?),
            (Self::Or, a, b) => Some(a? || b?),
            (Self::Xor, a, b) => Some(a? != b?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::control::run;
    use super::super::sass::{self, tests::KERNEL};
    use super::*;

    fn counts(lines: &str) -> Result<Vec<u64>> {
        let functions = sass::parse(&format!(".text.f:\n{}", numbered(lines)))?;
        Ok(run(&mut Thread::new(&functions[0])?)?.counts)
    }

    fn numbered(lines: &str) -> String {
        let instruction = |line: &str| {
            if line.ends_with(':') { line.to_owned() } else { format!("/*0000*/ {line} ;") }
        };
        lines.lines().map(|line| instruction(line.trim())).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_loop_of_a_kernel_runs_as_often_as_it_says() {
        let functions = sass::parse(KERNEL).expect("machine code");
        let executed = run(&mut Thread::new(&functions[0]).expect("known")).expect("ends");
        assert_eq!(executed.counts[..6], [1; 6]);
        assert_eq!(executed.counts[6..13], [12; 7]);
        assert_eq!(executed.counts[13..], [1, 0, 0]);
        assert_eq!(executed.back[0].taken, 11);
    }

    #[test]
    fn a_loop_whose_bound_is_the_outer_counter_runs_as_a_triangle() {
        let counts = counts(
            "HFMA2 R0, -RZ, RZ, 0, 0
             .outer:
             IADD3 R1, PT, PT, R0, 0x1, RZ
             ISETP.GT.U32.AND P0, PT, R1, 0xb, PT
             @P0 BRA `(.none)
             .inner:
             IADD3 R1, PT, PT, R1, 0x1, RZ
             ISETP.NE.AND P6, PT, R1, 0xc, PT
             @P6 BRA `(.inner)
             .none:
             UISETP.NE.AND UP0, UPT, UR3, 0x1, UPT
             VIADD R0, R0, 0x1
             ISETP.GE.U32.AND P0, PT, R0, 0xc, PT
             @!P0 BRA `(.outer)
             EXIT",
        )
        .expect("ends");
        assert_eq!(counts, [1, 12, 12, 12, 66, 66, 66, 12, 12, 12, 12, 1]);
    }

    #[test]
    fn counters_may_be_uniform_wide_shifted_or_packed() {
        let check = |lines: &str, times: u64| {
            let counts = counts(lines).expect("ends");
            assert_eq!(counts[counts.len() - 2], times, "{lines}");
        };
        check(
            "UMOV UR4, 0x3\n.l:\nUIADD3 UR4, UPT, UPT, UR4, -0x1, URZ\nUISETP.NE.AND UP0, UPT, \
               UR4, URZ, UPT\nBRA.U UP0, `(.l)\nEXIT",
            3,
        );
        check(
            "CS2R R2, SRZ\n.l:\nIADD.64 R2, R2, 0x20\nISETP.GE.U64.AND P0, PT, R2, 0x160, PT\n\
               @!P0 BRA `(.l)\nEXIT",
            11,
        );
        check(
            "IMAD.MOV.U32 R1, RZ, RZ, 0x1\n.l:\nIMAD.SHL.U32 R1, R1, 0x2, RZ\nLOP3.LUT P2, RZ, \
               R1, 0x40, RZ, 0xc0, !PT\n@!P2 BRA `(.l)\nEXIT",
            6,
        );
        check(
            "MOV R1, 0x40\n.l:\nSHF.R.U32.HI R1, RZ, 0x1, R1\nISETP.LT.AND P1, PT, RZ, R1, PT\n\
               VOTEU.ANY UP1, P1\nBRA.U UP1, `(.l)\nEXIT",
            7,
        );
        // Of a warp's predicate and one that is always true.
        check(
            "UMOV UR6, 0x400\n.l:\nUIADD3 UR6, UR6, 0x800, URZ\nUISETP.NE.AND UP0, UPT, UR6, \
               0x1c00, UPT\nPLOP3.LUT P6, PT, PT, PT, UP0, 0x80, 0x0\n@P6 BRA `(.l)\nEXIT",
            3,
        );
        // A signed counter downwards.
        check(
            "MOV R1, 0xb\n.l:\nVIADD R1, R1, 0xffffffff\nISETP.GE.AND P1, PT, R1, RZ, PT\n\
               @P1 BRA `(.l)\nEXIT",
            12,
        );
        // A small number of half precision is a counter that was moved.
        check(
            "HFMA2.MMA R1, -RZ, RZ, 0, 5.9604644775390625e-07\n.l:\nVIADD R1, R1, -0x1\n\
               ISETP.NE.AND P1, PT, R1, RZ, PT\n@P1 BRA `(.l)\nEXIT",
            10,
        );
        check(
            "MOV R1, 0x0\nMOV R2, 0x5\n.l:\nVIADD R1, R1, 0x1\nSEL R3, R2, 0x7, !PT\n\
               ISETP.NE.AND P1, PT, R1, R3, PT\n@P1 BRA `(.l)\nEXIT",
            7,
        );
    }

    #[test]
    fn what_comes_from_memory_is_unknown() {
        let load = "MOV R2, 0x5\nMOV R3, 0x5\nLDC.64 R2, c[0x0][0x160]\n.l:\n\
                    VIADD R3, R3, 0xffffffff\nISETP.NE.AND P0, PT, R3, RZ, PT\n@P0 BRA `(.l)\nEXIT";
        assert!(counts(load).is_err(), "both words of a pair are loaded");
        let narrow = load.replace("LDC.64", "LDC");
        assert_eq!(counts(&narrow).expect("ends")[3], 5);
        // Nothing is known of what an unknown instruction writes.
        let unknown = load.replace("LDC.64 R2, c[0x0][0x160]", "FROB R0, R1, R5");
        assert!(counts(&unknown).is_err());
        // Nor of what is written under an unknown condition.
        let guarded = load.replace("LDC.64 R2, c[0x0][0x160]", "@P3 MOV R3, 0x4");
        assert!(counts(&guarded).is_err());
    }

    #[test]
    fn branches_by_data_and_ends_of_the_grid_are_told_apart() {
        let lines = "ISETP.GE.U32.AND P0, PT, R9, UR5, PT\n@P0 EXIT\n@P1 BRA `(.over)\n\
                     RED.E [R2], R4\n.over:\nSTG.E [R2], R4\nEXIT";
        assert_eq!(counts(lines).expect("ends"), [1, 1, 1, 0, 1, 1]);
        assert!(counts("BRX R2 -0x180\nEXIT").is_err());
        assert!(counts("@Q0 EXIT").is_err());
    }

    #[test]
    fn a_table_of_jumps_is_followed() {
        let run_with = |kind: &str| {
            let text = format!(
                "\
.nv.constant2.f:
 /*0000*/ .byte 0x60, 0x00, 0x00, 0x00, 0x80, 0x00, 0x00, 0x00
\t.section .text.f
.text.f:
 /*0000*/ MOV R5, {kind} ;
 /*0010*/ MOV R0, 0xfffffffc ;
 /*0020*/ VIADDMNMX.U32 R0, R5, R0, 0x1, PT ;
 /*0030*/ SHF.L.U32 R0, R0, 0x2, RZ ;
 /*0040*/ LDC R2, c[0x2][R0] ;
 /*0050*/ BRX R2 -0x60 (*\"BRANCH_TARGETS .L_x_1,.L_x_2\"*);
.L_x_1:
 /*0060*/ STS [R1], R2 ;
 /*0070*/ EXIT ;
.L_x_2:
 /*0080*/ EXIT ;
"
            );
            let functions = sass::parse(&text).expect("machine code");
            Ok::<_, anyhow::Error>(run(&mut Thread::new(&functions[0])?)?.counts)
        };
        assert_eq!(run_with("0x4").expect("known")[6..], [1, 1, 0]);
        assert_eq!(run_with("0x5").expect("known")[6..], [0, 0, 1]);
        assert_eq!(run_with("0x7").expect("known")[6..], [0, 0, 1]);
        assert!(run_with("c[0x0][0x160]").is_err(), "what it is called with is not known");
    }

    #[test]
    fn predicates_that_make_no_difference_need_not_be_known() {
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(combine([yes, yes, yes], 0x80), yes);
        assert_eq!(combine([None, no, None], 0x80), no);
        assert_eq!(combine([None, yes, yes], 0x80), None);
        assert_eq!(combine([None, yes, None], 0xcc), yes);
        // The first is the highest bit.
        assert_eq!(combine([yes, no, no], 0x10), yes);
        assert_eq!(combine([no, no, yes], 0x10), no);
    }
}
