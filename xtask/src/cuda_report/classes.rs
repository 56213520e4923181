//! Classes of machine instructions, and the parts of a multiprocessor that execute them.

use super::sass::Instruction;
use super::sass_decode::moved_halves;

/// What an instruction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Class {
    /// 32 by 32 bits, all 64 of them, with addend and carry.
    WideProduct,
    /// Other products and what is computed by the multiplier: sums, shifts.
    Product,
    /// Sums of words, with carries.
    Sum,
    Logic,
    Comparison,
    /// Predicates that are packed into a register or taken out of it.
    PackedPredicate,
    Selection,
    Shift,
    Move,
    LoadGlobal,
    LoadShared,
    LoadConstant,
    StoreGlobal,
    StoreShared,
    /// To and from a stack: what registers did not suffice for.
    Local,
    Branch,
    /// What is the same for all threads of a warp, and computed once.
    Uniform,
    Other,
}

impl Class {
    pub(crate) const ALL: [Self; 18] = [
        Self::WideProduct,
        Self::Product,
        Self::Sum,
        Self::Logic,
        Self::Comparison,
        Self::PackedPredicate,
        Self::Selection,
        Self::Shift,
        Self::Move,
        Self::LoadGlobal,
        Self::LoadShared,
        Self::LoadConstant,
        Self::StoreGlobal,
        Self::StoreShared,
        Self::Local,
        Self::Branch,
        Self::Uniform,
        Self::Other,
    ];

    /// Its name in tables and files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WideProduct => "wide product",
            Self::Product => "product",
            Self::Sum => "sum",
            Self::Logic => "logic",
            Self::Comparison => "comparison",
            Self::PackedPredicate => "packed predicate",
            Self::Selection => "selection",
            Self::Shift => "shift",
            Self::Move => "move",
            Self::LoadGlobal => "load global",
            Self::LoadShared => "load shared",
            Self::LoadConstant => "load constant",
            Self::StoreGlobal => "store global",
            Self::StoreShared => "store shared",
            Self::Local => "stack",
            Self::Branch => "branch",
            Self::Uniform => "uniform",
            Self::Other => "other",
        }
    }

    /// The class of an instruction.
    pub(crate) fn of(instruction: &Instruction) -> Self {
        if packs_predicate(instruction) {
            return Self::PackedPredicate;
        }
        match instruction.base() {
            "IMAD" if instruction.has("WIDE") => Self::WideProduct,
            "IMAD" if is_move(instruction) => Self::Move,
            "IMAD" | "IMUL" => Self::Product,
            "IADD3" | "IADD" | "VIADD" | "LEA" | "VIADD3" => Self::Sum,
            "LOP3" | "PRMT" | "LOP" => Self::Logic,
            "ISETP" | "PLOP3" => Self::Comparison,
            "SEL" => Self::Selection,
            "SHF" | "SHL" | "SHR" => Self::Shift,
            "MOV" => Self::Move,
            "HFMA2" if moved_halves(instruction).is_some() => Self::Move,
            "CS2R" if instruction.operand(1) == "SRZ" => Self::Move,
            "LDG" | "LD" => Self::LoadGlobal,
            "LDS" => Self::LoadShared,
            "LDC" => Self::LoadConstant,
            "STG" | "ST" | "RED" | "REDG" | "ATOM" | "ATOMG" => Self::StoreGlobal,
            "STS" => Self::StoreShared,
            "LDL" | "STL" => Self::Local,
            "BRA" | "BRX" | "BRXU" | "JMP" | "JMX" | "EXIT" | "RET" | "CALL" | "BSSY" | "BSYNC"
            | "BREAK" | "WARPSYNC" | "YIELD" | "BAR" => Self::Branch,
            base if base.starts_with('U') || ["LDCU", "R2UR", "S2UR"].contains(&base) => {
                Self::Uniform
            }
            _ => Self::Other,
        }
    }
}

/// The part of a multiprocessor whose rate limits an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Pipe {
    /// The multiplier, at the rate of wide products.
    WideMultiplier,
    /// The multiplier.
    Multiplier,
    /// Sums, logic, comparisons.
    Logic,
    /// Limited by nothing but the slots in which instructions are issued, or by memory.
    None,
}

impl Pipe {
    /// What executes an instruction of a class. Source: the pipelines that NVIDIA's Nsight Compute
    /// names in its Kernel Profiling Guide: FMA has the products and sums of `IMAD`, ALU other
    /// integer arithmetic, logic, comparisons and moves.
    pub(crate) fn of(instruction: &Instruction, class: Class) -> Self {
        match class {
            Class::WideProduct => Self::WideMultiplier,
            Class::Product => Self::Multiplier,
            Class::Move if instruction.base() == "IMAD" => Self::Multiplier,
            Class::Move if instruction.base() == "MOV" => Self::Logic,
            Class::Sum
            | Class::Logic
            | Class::Comparison
            | Class::PackedPredicate
            | Class::Selection
            | Class::Shift => Self::Logic,
            _ => Self::None,
        }
    }
}

/// `IMAD.MOV.U32 R0, RZ, RZ, R1` and the like: with a factor of 0 nothing is multiplied.
fn is_move(instruction: &Instruction) -> bool {
    instruction.has("MOV") || !instruction.has("X") && instruction.operand(1) == "RZ"
}

/// Whether an instruction packs a predicate into a register, bit by bit or all at once, or takes
/// one out.
fn packs_predicate(instruction: &Instruction) -> bool {
    match instruction.base() {
        "P2R" | "R2P" | "UP2UR" | "UR2UP" => true,
        // `@P3 LOP3.LUT R1, R1, 0x80, RZ, 0xfc, !PT` sets a bit where the predicate holds, after
        // `LOP3.LUT R1, R1, 0xffffff7f, RZ, 0xc0, !PT` has cleared it.
        "LOP3" => {
            let number = number_of(instruction.operand(2));
            let same = instruction.operand(0) == instruction.operand(1);
            let table = instruction.operand(4);
            let bit = number.is_some_and(u32::is_power_of_two);
            let all_but_one = number.is_some_and(|number| (!number).is_power_of_two());
            let sets = same && bit && table == "0xfc" && instruction.guard.is_some();
            let clears = same && all_but_one && table == "0xc0";
            // `LOP3.LUT P2, RZ, R1, 0x80, RZ, 0xc0, !PT` takes it out.
            let taken = number_of(instruction.operand(3)).is_some_and(u32::is_power_of_two);
            let takes = instruction.operand(0).starts_with('P')
                && instruction.operand(1) == "RZ"
                && taken
                && instruction.operand(5) == "0xc0";
            sets || clears || takes
        }
        _ => false,
    }
}

fn number_of(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::super::sass;
    use super::*;

    fn class(line: &str) -> Class {
        let functions = sass::parse(&format!(".text.f:\n/*0000*/ {line} ;")).expect("code");
        Class::of(&functions[0].instructions[0])
    }

    #[test]
    fn instructions_are_told_apart() {
        for (line, expected) in [
            ("IMAD.WIDE.U32.X R18, P1, R8, R54, R18, P2", Class::WideProduct),
            ("IMAD.MOV.U32 R26, RZ, RZ, RZ", Class::Move),
            ("IMAD.U32 R26, RZ, RZ, UR4", Class::Move),
            ("IMAD.X R5, RZ, RZ, RZ, P0", Class::Product),
            ("IMAD.SHL.U32 R4, R26, 0x80, RZ", Class::Product),
            ("IADD3.X R5, P0, R1, R2, RZ, P0, !PT", Class::Sum),
            ("VIADD R26, R26, 0x1", Class::Sum),
            ("HFMA2.MMA R1, -RZ, RZ, 0, 5.9604644775390625e-07", Class::Move),
            ("HFMA2 R1, R2, R3, R4", Class::Other),
            ("CS2R R2, SRZ", Class::Move),
            ("CS2R R2, SR_CLOCKLO", Class::Other),
            ("MOV.64 R2, RZ", Class::Move),
            ("LDS.128 R4, [R30+0x400]", Class::LoadShared),
            ("LDC.64 R54, c[0x3][R35+0x1628]", Class::LoadConstant),
            ("STL [R1], R2", Class::Local),
            ("UIADD3 UR4, UR4, 0x1, URZ", Class::Uniform),
            ("LDCU.64 UR8, c[0x0][0x358]", Class::Uniform),
            ("BRA.U UP0, `(.L_x_87)", Class::Branch),
            ("NOP", Class::Other),
        ] {
            assert_eq!(class(line), expected, "{line}");
        }
    }

    #[test]
    fn packed_predicates_are_found_in_every_form() {
        for (line, packed) in [
            ("P2R R28, PR, RZ, 0x20", true),
            ("R2P PR, R28, 0x7f", true),
            ("LOP3.LUT R134, R134, 0xffffffbf, RZ, 0xc0, !PT", true),
            ("@P3 LOP3.LUT R134, R134, 0x80, RZ, 0xfc, !PT", true),
            ("LOP3.LUT P2, RZ, R134, 0x80, RZ, 0xc0, !PT", true),
            ("LOP3.LUT R134, R134, 0xfffffff0, RZ, 0xc0, !PT", false),
            ("LOP3.LUT R1, R2, 0x80, RZ, 0xfc, !PT", false),
            ("LOP3.LUT R9, R8, UR4, RZ, 0xfc, !PT", false),
            ("LOP3.LUT P2, RZ, R134, R3, RZ, 0xc0, !PT", false),
        ] {
            assert_eq!(class(line) == Class::PackedPredicate, packed, "{line}");
        }
    }

    #[test]
    fn every_class_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = Class::ALL.iter().map(|c| c.name()).collect();
        assert_eq!(names.len(), Class::ALL.len());
    }
}
