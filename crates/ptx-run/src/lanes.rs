//! What is computed for 32 threads at once, in the vectors that the processor has.

use std::ops::{Deref, DerefMut};

use crate::fault::Deed;
use crate::op::{Comparison, DoubleWork, Halves, Place, WordWork};

/// Threads of a warp.
pub(crate) const LANES: usize = 32;

pub(crate) type Words = [u32; LANES];
pub(crate) type Doubles = [u64; LANES];

/// A register of words. It begins where a cache line does, so that no vector lies across two.
#[derive(Debug, Clone, Copy)]
#[repr(align(128))]
pub(crate) struct Row(Words);

impl Row {
    pub(crate) const ZERO: Self = Self([0; LANES]);
}

impl Deref for Row {
    type Target = Words;

    #[inline(always)]
    fn deref(&self) -> &Words {
        &self.0
    }
}

impl DerefMut for Row {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Words {
        &mut self.0
    }
}

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

/// The registers of an operation on words. What it computes is put where it goes at once: kept in
/// between, it would go by way of the stack.
pub(crate) struct WordsAt<'w> {
    pub(crate) words: &'w mut [Row],
    pub(crate) mask: &'w Mask,
    pub(crate) d: Place,
    pub(crate) a: Place,
    pub(crate) b: Place,
    pub(crate) c: Place,
}

impl WordsAt<'_> {
    #[inline(always)]
    fn put(self, value: Words) {
        blend_words(&mut self.words[self.d as usize], value, self.mask);
    }

    #[inline(always)]
    fn one(self, f: impl Fn(u32) -> u32) {
        let value = map(&self.words[self.a as usize], f);
        self.put(value);
    }

    #[inline(always)]
    fn two(self, f: impl Fn(u32, u32) -> u32) {
        let value = map2(&self.words[self.a as usize], &self.words[self.b as usize], f);
        self.put(value);
    }

    #[inline(always)]
    fn three(self, f: impl Fn(u32, u32, u32) -> u32) {
        let [a, b, c] = [self.a, self.b, self.c].map(|place| &*self.words[place as usize]);
        let value = map3(a, b, c, f);
        self.put(value);
    }
}

#[inline(always)]
pub(crate) fn word_work(work: WordWork, at: WordsAt<'_>) -> Result<(), (Deed, usize)> {
    let wide = |a: u32, b: u32| u64::from(a) * u64::from(b);
    let signed = |a: u32, b: u32| i64::from(a.cast_signed()) * i64::from(b.cast_signed());
    match work {
        WordWork::Add => at.two(u32::wrapping_add),
        WordWork::Subtract => at.two(u32::wrapping_sub),
        WordWork::MultiplyLow => at.two(u32::wrapping_mul),
        WordWork::MultiplyHigh => at.two(|a, b| (wide(a, b) >> 32) as u32),
        WordWork::MultiplyHighSigned => at.two(|a, b| (signed(a, b) >> 32) as u32),
        WordWork::MultiplyAddLow => at.three(|a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        WordWork::MultiplyAddHigh => {
            at.three(|a, b, c| ((wide(a, b) >> 32) as u32).wrapping_add(c))
        }
        WordWork::And => at.two(|a, b| a & b),
        WordWork::Or => at.two(|a, b| a | b),
        WordWork::Xor => at.two(|a, b| a ^ b),
        WordWork::Not => at.one(|a| !a),
        WordWork::Negate => at.one(u32::wrapping_neg),
        WordWork::ShiftLeft => at.two(|a, b| a.checked_shl(b).unwrap_or(0)),
        WordWork::ShiftRight => at.two(|a, b| a.checked_shr(b).unwrap_or(0)),
        WordWork::ShiftRightSigned => at.two(|a, b| (a.cast_signed() >> b.min(31)).cast_unsigned()),
        // The words are the lower and the upper one.
        WordWork::FunnelLeftWrap => {
            at.three(|a, b, c| ((u64::from(b) << 32 | u64::from(a)) << (c % 32) >> 32) as u32)
        }
        WordWork::FunnelRightWrap => {
            at.three(|a, b, c| ((u64::from(b) << 32 | u64::from(a)) >> (c % 32)) as u32)
        }
        WordWork::Minimum => at.two(u32::min),
        WordWork::Maximum => at.two(u32::max),
        WordWork::MinimumSigned => {
            at.two(|a, b| a.cast_signed().min(b.cast_signed()).cast_unsigned())
        }
        WordWork::MaximumSigned => {
            at.two(|a, b| a.cast_signed().max(b.cast_signed()).cast_unsigned())
        }
        WordWork::Remainder | WordWork::Divide => {
            let b = &at.words[at.b as usize];
            if let Some(lane) = (0..LANES).find(|&lane| bit(at.mask.lanes, lane) && b[lane] == 0) {
                return Err((Deed::Division, lane));
            }
            at.two(|a, b| {
                let by = b.max(1);
                if work == WordWork::Divide { a / by } else { a % by }
            })
        }
        WordWork::CountOnes => at.one(u32::count_ones),
        WordWork::LeadingZeros => at.one(u32::leading_zeros),
        WordWork::Logic(table) => at.three(|a, b, c| {
            (0..8).filter(|row| table >> row & 1 == 1).fold(0, |value, row| {
                let side = |word: u32, place: u8| if row >> place & 1 == 1 { word } else { !word };
                value | side(a, 2) & side(b, 1) & side(c, 0)
            })
        }),
        WordWork::Permute => at.three(|a, b, c| {
            let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
            u32::from_le_bytes(std::array::from_fn(|i| {
                let choice = c >> (4 * i) & 0xf;
                let byte = bytes[choice as usize & 7];
                // The fourth bit of a choice: the sign of the byte, everywhere.
                if choice & 8 == 0 { byte } else { (byte.cast_signed() >> 7).cast_unsigned() }
            }))
        }),
    }
    Ok(())
}

/// The registers of an operation on 64 bits. What it computes is put where it goes at once: kept in
/// between, it would go by way of the stack.
pub(crate) struct DoublesAt<'w> {
    pub(crate) words: &'w mut [Row],
    pub(crate) mask: &'w Mask,
    pub(crate) d: Halves,
    pub(crate) a: Halves,
    pub(crate) b: Halves,
    pub(crate) c: Halves,
}

impl DoublesAt<'_> {
    #[inline(always)]
    fn of(&self, [low, high]: Halves) -> Doubles {
        joined(&self.words[low as usize], &self.words[high as usize])
    }

    #[inline(always)]
    fn put(self, value: Doubles) {
        let [low, high] = self.d;
        blend_words(&mut self.words[low as usize], map(&value, |v| v as u32), self.mask);
        blend_words(&mut self.words[high as usize], map(&value, |v| (v >> 32) as u32), self.mask);
    }

    #[inline(always)]
    fn one(self, f: impl Fn(u64) -> u64) {
        let value = map(&self.of(self.a), f);
        self.put(value);
    }

    #[inline(always)]
    fn two(self, f: impl Fn(u64, u64) -> u64) {
        let value = map2(&self.of(self.a), &self.of(self.b), f);
        self.put(value);
    }

    #[inline(always)]
    fn three(self, f: impl Fn(u64, u64, u64) -> u64) {
        let value = map3(&self.of(self.a), &self.of(self.b), &self.of(self.c), f);
        self.put(value);
    }
}

#[inline(always)]
pub(crate) fn double_work(work: DoubleWork, at: DoublesAt<'_>) {
    let float = f64::from_bits;
    match work {
        DoubleWork::Add => at.two(u64::wrapping_add),
        DoubleWork::Subtract => at.two(u64::wrapping_sub),
        DoubleWork::MultiplyLow => at.two(u64::wrapping_mul),
        DoubleWork::MultiplyHigh => at.two(|a, b| ((u128::from(a) * u128::from(b)) >> 64) as u64),
        DoubleWork::MultiplyAddLow => at.three(|a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        DoubleWork::And => at.two(|a, b| a & b),
        DoubleWork::Or => at.two(|a, b| a | b),
        DoubleWork::Xor => at.two(|a, b| a ^ b),
        DoubleWork::Not => at.one(|a| !a),
        DoubleWork::Negate => at.one(u64::wrapping_neg),
        DoubleWork::Minimum => at.two(u64::min),
        DoubleWork::Maximum => at.two(u64::max),
        DoubleWork::MinimumSigned => {
            at.two(|a, b| a.cast_signed().min(b.cast_signed()).cast_unsigned())
        }
        DoubleWork::MaximumSigned => {
            at.two(|a, b| a.cast_signed().max(b.cast_signed()).cast_unsigned())
        }
        DoubleWork::FloatAdd => at.two(|a, b| (float(a) + float(b)).to_bits()),
        DoubleWork::FloatMultiply => at.two(|a, b| (float(a) * float(b)).to_bits()),
        DoubleWork::FloatMultiplyAdd => {
            at.three(|a, b, c| float(a).mul_add(float(b), float(c)).to_bits())
        }
    }
}
