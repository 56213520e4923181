//! What is computed for 32 threads at once, in the vectors that the processor has.

use crate::fault::Deed;
use crate::op::{Comparison, DoubleWork, WordWork};

/// Threads of a warp.
pub(crate) const LANES: usize = 32;

pub(crate) type Words = [u32; LANES];
pub(crate) type Doubles = [u64; LANES];

#[inline(always)]
pub(crate) fn bit(bits: u32, lane: usize) -> bool {
    bits >> lane & 1 == 1
}

/// Lanes, as words of ones and zeros, so that choosing between two values takes no branch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mask {
    pub(crate) lanes: u32,
    words: Words,
}

impl Mask {
    pub(crate) fn new(lanes: u32) -> Self {
        let words = each(|lane| if bit(lanes, lane) { u32::MAX } else { 0 });
        Self { lanes, words }
    }
}

/// Lanes of `new` where the mask has ones, of `old` elsewhere.
#[inline(always)]
pub(crate) fn blend_words(old: &mut Words, new: Words, mask: &Mask) {
    if mask.lanes == u32::MAX {
        *old = new;
    } else {
        *old = each(|i| new[i] & mask.words[i] | old[i] & !mask.words[i]);
    }
}

/// 64 bits of their halves.
#[inline(always)]
pub(crate) fn joined(low: &Words, high: &Words) -> Doubles {
    map2(low, high, |low, high| u64::from(high) << 32 | u64::from(low))
}

/// As `array::from_fn`, which is not always inlined and then knows nothing of the vectors that
/// there are.
#[inline(always)]
pub(crate) fn each<B: Copy + Default>(f: impl Fn(usize) -> B) -> [B; LANES] {
    let mut all = [B::default(); LANES];
    for (lane, value) in all.iter_mut().enumerate() {
        *value = f(lane);
    }
    all
}

#[inline(always)]
pub(crate) fn map<A: Copy, B: Copy + Default>(a: &[A; LANES], f: impl Fn(A) -> B) -> [B; LANES] {
    each(|i| f(a[i]))
}

#[inline(always)]
pub(crate) fn map2<A: Copy, B: Copy, C: Copy + Default>(
    a: &[A; LANES],
    b: &[B; LANES],
    f: impl Fn(A, B) -> C,
) -> [C; LANES] {
    each(|i| f(a[i], b[i]))
}

#[inline(always)]
pub(crate) fn map3<A: Copy, B: Copy + Default>(
    a: &[A; LANES],
    b: &[A; LANES],
    c: &[A; LANES],
    f: impl Fn(A, A, A) -> B,
) -> [B; LANES] {
    each(|i| f(a[i], b[i], c[i]))
}

/// Bits of what holds.
#[inline(always)]
pub(crate) fn holds<A: Copy>(a: &[A; LANES], b: &[A; LANES], f: impl Fn(A, A) -> bool) -> u32 {
    (0..LANES).fold(0, |bits, i| bits | u32::from(f(a[i], b[i])) << i)
}

#[inline(always)]
pub(crate) fn compare<T: Copy + PartialOrd>(
    how: Comparison,
    a: &[T; LANES],
    b: &[T; LANES],
) -> u32 {
    match how {
        Comparison::Equal => holds(a, b, |a, b| a == b),
        Comparison::NotEqual => holds(a, b, |a, b| a != b),
        Comparison::Less => holds(a, b, |a, b| a < b),
        Comparison::LessOrEqual => holds(a, b, |a, b| a <= b),
        Comparison::Greater => holds(a, b, |a, b| a > b),
        Comparison::GreaterOrEqual => holds(a, b, |a, b| a >= b),
    }
}

#[inline(always)]
pub(crate) fn word_work(
    work: WordWork,
    a: &Words,
    b: &Words,
    c: &Words,
    lanes: u32,
) -> Result<Words, (Deed, usize)> {
    let wide = |a: u32, b: u32| u64::from(a) * u64::from(b);
    let signed = |a: u32, b: u32| i64::from(a.cast_signed()) * i64::from(b.cast_signed());
    Ok(match work {
        WordWork::Add => map2(a, b, u32::wrapping_add),
        WordWork::Subtract => map2(a, b, u32::wrapping_sub),
        WordWork::MultiplyLow => map2(a, b, u32::wrapping_mul),
        WordWork::MultiplyHigh => map2(a, b, |a, b| (wide(a, b) >> 32) as u32),
        WordWork::MultiplyHighSigned => map2(a, b, |a, b| (signed(a, b) >> 32) as u32),
        WordWork::MultiplyAddLow => map3(a, b, c, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        WordWork::MultiplyAddHigh => {
            map3(a, b, c, |a, b, c| ((wide(a, b) >> 32) as u32).wrapping_add(c))
        }
        WordWork::And => map2(a, b, |a, b| a & b),
        WordWork::Or => map2(a, b, |a, b| a | b),
        WordWork::Xor => map2(a, b, |a, b| a ^ b),
        WordWork::Not => map(a, |a| !a),
        WordWork::Negate => map(a, u32::wrapping_neg),
        WordWork::ShiftLeft => map2(a, b, |a, b| a.checked_shl(b).unwrap_or(0)),
        WordWork::ShiftRight => map2(a, b, |a, b| a.checked_shr(b).unwrap_or(0)),
        WordWork::ShiftRightSigned => {
            map2(a, b, |a, b| (a.cast_signed() >> b.min(31)).cast_unsigned())
        }
        // The words are the lower and the upper one.
        WordWork::FunnelLeftWrap => {
            map3(a, b, c, |a, b, c| ((u64::from(b) << 32 | u64::from(a)) << (c % 32) >> 32) as u32)
        }
        WordWork::FunnelRightWrap => {
            map3(a, b, c, |a, b, c| ((u64::from(b) << 32 | u64::from(a)) >> (c % 32)) as u32)
        }
        WordWork::Minimum => map2(a, b, u32::min),
        WordWork::Maximum => map2(a, b, u32::max),
        WordWork::MinimumSigned => {
            map2(a, b, |a, b| a.cast_signed().min(b.cast_signed()).cast_unsigned())
        }
        WordWork::MaximumSigned => {
            map2(a, b, |a, b| a.cast_signed().max(b.cast_signed()).cast_unsigned())
        }
        WordWork::Remainder | WordWork::Divide => {
            if let Some(lane) = (0..LANES).find(|&lane| bit(lanes, lane) && b[lane] == 0) {
                return Err((Deed::Division, lane));
            }
            map2(a, b, |a, b| {
                let by = b.max(1);
                if work == WordWork::Divide { a / by } else { a % by }
            })
        }
        WordWork::CountOnes => map(a, u32::count_ones),
        WordWork::LeadingZeros => map(a, u32::leading_zeros),
        WordWork::Logic(table) => map3(a, b, c, |a, b, c| {
            (0..8).filter(|row| table >> row & 1 == 1).fold(0, |value, row| {
                let side = |word: u32, place: u8| if row >> place & 1 == 1 { word } else { !word };
                value | side(a, 2) & side(b, 1) & side(c, 0)
            })
        }),
        WordWork::Permute => map3(a, b, c, |a, b, c| {
            let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
            u32::from_le_bytes(std::array::from_fn(|i| {
                let choice = c >> (4 * i) & 0xf;
                let byte = bytes[choice as usize & 7];
                // The fourth bit of a choice: the sign of the byte, everywhere.
                if choice & 8 == 0 { byte } else { (byte.cast_signed() >> 7).cast_unsigned() }
            }))
        }),
    })
}

#[inline(always)]
pub(crate) fn double_work(work: DoubleWork, a: &Doubles, b: &Doubles, c: &Doubles) -> Doubles {
    let float = f64::from_bits;
    match work {
        DoubleWork::Add => map2(a, b, u64::wrapping_add),
        DoubleWork::Subtract => map2(a, b, u64::wrapping_sub),
        DoubleWork::MultiplyLow => map2(a, b, u64::wrapping_mul),
        DoubleWork::MultiplyHigh => {
            map2(a, b, |a, b| ((u128::from(a) * u128::from(b)) >> 64) as u64)
        }
        DoubleWork::MultiplyAddLow => map3(a, b, c, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        DoubleWork::And => map2(a, b, |a, b| a & b),
        DoubleWork::Or => map2(a, b, |a, b| a | b),
        DoubleWork::Xor => map2(a, b, |a, b| a ^ b),
        DoubleWork::Not => map(a, |a| !a),
        DoubleWork::Negate => map(a, u64::wrapping_neg),
        DoubleWork::Minimum => map2(a, b, u64::min),
        DoubleWork::Maximum => map2(a, b, u64::max),
        DoubleWork::MinimumSigned => {
            map2(a, b, |a, b| a.cast_signed().min(b.cast_signed()).cast_unsigned())
        }
        DoubleWork::MaximumSigned => {
            map2(a, b, |a, b| a.cast_signed().max(b.cast_signed()).cast_unsigned())
        }
        DoubleWork::FloatAdd => map2(a, b, |a, b| (float(a) + float(b)).to_bits()),
        DoubleWork::FloatMultiply => map2(a, b, |a, b| (float(a) * float(b)).to_bits()),
        DoubleWork::FloatMultiplyAdd => {
            map3(a, b, c, |a, b, c| float(a).mul_add(float(b), float(c)).to_bits())
        }
    }
}
