//! The names of instructions that compute, and what they mean.

use crate::op::{Carry, DoubleWork, Special, WordWork};

/// What is done in a chain of carries.
pub(crate) enum Chained {
    Add,
    Subtract,
    AddDouble,
    SubtractDouble,
    MultiplyAdd { high: bool },
}

/// What a name with a carry flag means.
pub(crate) fn carry_of(name: &str) -> Option<(Chained, Carry)> {
    let parts: Vec<_> = name.split('.').collect();
    let given = parts.contains(&"cc");
    let rest: Vec<_> = parts.iter().copied().filter(|part| *part != "cc").collect();
    let taken = matches!(rest.first(), Some(&("addc" | "subc" | "madc")));
    if !taken && !given {
        return None;
    }
    let kind = match rest[..] {
        ["add" | "addc", "u32" | "s32"] => Chained::Add,
        ["sub" | "subc", "u32" | "s32"] => Chained::Subtract,
        ["add" | "addc", "u64" | "s64"] => Chained::AddDouble,
        ["sub" | "subc", "u64" | "s64"] => Chained::SubtractDouble,
        ["mad" | "madc", "lo", "u32" | "s32"] => Chained::MultiplyAdd { high: false },
        ["mad" | "madc", "hi", "u32"] => Chained::MultiplyAdd { high: true },
        _ => return None,
    };
    Some((kind, Carry { taken, given }))
}

/// A register that is read only.
pub(crate) fn special_of(name: &str) -> Option<Special> {
    Some(match name {
        "%tid.x" => Special::ThreadX,
        "%tid.y" | "%tid.z" => Special::ThreadOther,
        "%ctaid.x" => Special::BlockX,
        "%ctaid.y" | "%ctaid.z" => Special::BlockOther,
        "%ntid.x" => Special::ThreadsX,
        "%ntid.y" | "%ntid.z" => Special::ThreadsOther,
        "%nctaid.x" => Special::BlocksX,
        "%nctaid.y" | "%nctaid.z" => Special::BlocksOther,
        "%laneid" => Special::Lane,
        _ => return None,
    })
}

/// What is done to words, and with how many operands.
pub(crate) fn word_work(name: &str) -> Option<(WordWork, usize)> {
    Some(match name {
        "add.u32" | "add.s32" => (WordWork::Add, 2),
        "sub.u32" | "sub.s32" => (WordWork::Subtract, 2),
        "mul.lo.u32" | "mul.lo.s32" => (WordWork::MultiplyLow, 2),
        "mul.hi.u32" => (WordWork::MultiplyHigh, 2),
        "mul.hi.s32" => (WordWork::MultiplyHighSigned, 2),
        "mad.lo.u32" | "mad.lo.s32" => (WordWork::MultiplyAddLow, 3),
        "mad.hi.u32" => (WordWork::MultiplyAddHigh, 3),
        "and.b32" => (WordWork::And, 2),
        "or.b32" => (WordWork::Or, 2),
        "xor.b32" => (WordWork::Xor, 2),
        "not.b32" => (WordWork::Not, 1),
        "neg.s32" => (WordWork::Negate, 1),
        "shl.b32" => (WordWork::ShiftLeft, 2),
        "shr.u32" | "shr.b32" => (WordWork::ShiftRight, 2),
        "shr.s32" => (WordWork::ShiftRightSigned, 2),
        "shf.l.wrap.b32" => (WordWork::FunnelLeftWrap, 3),
        "shf.r.wrap.b32" => (WordWork::FunnelRightWrap, 3),
        "min.u32" => (WordWork::Minimum, 2),
        "max.u32" => (WordWork::Maximum, 2),
        "min.s32" => (WordWork::MinimumSigned, 2),
        "max.s32" => (WordWork::MaximumSigned, 2),
        "rem.u32" => (WordWork::Remainder, 2),
        "div.u32" => (WordWork::Divide, 2),
        "popc.b32" => (WordWork::CountOnes, 1),
        "clz.b32" => (WordWork::LeadingZeros, 1),
        "prmt.b32" => (WordWork::Permute, 3),
        _ => return None,
    })
}

/// What is done to doubles, and with how many operands.
pub(crate) fn double_work(name: &str) -> Option<(DoubleWork, usize)> {
    Some(match name {
        "add.u64" | "add.s64" => (DoubleWork::Add, 2),
        "sub.u64" | "sub.s64" => (DoubleWork::Subtract, 2),
        "mul.lo.u64" | "mul.lo.s64" => (DoubleWork::MultiplyLow, 2),
        "mul.hi.u64" => (DoubleWork::MultiplyHigh, 2),
        "mad.lo.u64" | "mad.lo.s64" => (DoubleWork::MultiplyAddLow, 3),
        "and.b64" => (DoubleWork::And, 2),
        "or.b64" => (DoubleWork::Or, 2),
        "xor.b64" => (DoubleWork::Xor, 2),
        "not.b64" => (DoubleWork::Not, 1),
        "neg.s64" => (DoubleWork::Negate, 1),
        "min.u64" => (DoubleWork::Minimum, 2),
        "max.u64" => (DoubleWork::Maximum, 2),
        "min.s64" => (DoubleWork::MinimumSigned, 2),
        "max.s64" => (DoubleWork::MaximumSigned, 2),
        "add.rn.f64" | "add.f64" => (DoubleWork::FloatAdd, 2),
        "mul.rn.f64" | "mul.f64" => (DoubleWork::FloatMultiply, 2),
        "fma.rn.f64" => (DoubleWork::FloatMultiplyAdd, 3),
        _ => return None,
    })
}
