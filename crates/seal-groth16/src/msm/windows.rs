//! Scalars and their signs, and how they are cut into windows with signed digits.

/// A scalar as four little-endian words, below the modulus, not in Montgomery form.
pub(crate) type Words = [u64; 4];

/// Bits of a scalar that has been made smaller than half the modulus, and one for the carry.
const SCALAR_BITS: u32 = 255;

/// The modulus of the scalar field.
const MODULUS: Words =
    [0xffff_ffff_0000_0001, 0x53bd_a402_fffe_5bfe, 0x3339_d808_09a1_d805, 0x73ed_a753_299d_7d48];

/// How scalars are cut into windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SignedWindows {
    /// Bits of a window: digits are from -2^(bits-1) to 2^(bits-1).
    bits: u32,
    count: u32,
}

impl SignedWindows {
    /// The width with the fewest additions for `terms` terms: one for each term and window, and
    /// two for each bucket.
    pub(super) fn for_terms(terms: usize) -> Self {
        (3..=20)
            .map(|bits| Self { bits, count: SCALAR_BITS.div_ceil(bits) })
            .min_by_key(|windows| windows.count as usize * (terms + 2 * windows.buckets()))
            .unwrap_or(Self { bits: 3, count: 85 })
    }

    /// The width with the fewest additions for a table from which `count` multiples are made.
    pub(crate) fn for_table(count: usize) -> Self {
        (3..=16)
            .map(|bits| Self { bits, count: SCALAR_BITS.div_ceil(bits) })
            .min_by_key(|windows| windows.count as usize * (count + windows.buckets()))
            .unwrap_or(Self { bits: 3, count: 85 })
    }

    /// Bits of a window.
    pub(crate) fn bits(self) -> u32 {
        self.bits
    }

    /// How many windows there are.
    pub(crate) fn count(self) -> u32 {
        self.count
    }

    /// The digits of `scalar` that are not zero: window, size and whether it is negative.
    pub(crate) fn digits(self, scalar: &Words, mut each: impl FnMut(u32, usize, bool)) {
        let (value, is_minus) = halved(scalar);
        let shifted = plus(&value, &self.half_of_each());
        for window in 0..self.count {
            let digit = self.digit(&shifted, window);
            if digit != 0 {
                each(window, digit.unsigned_abs() as usize, (digit < 0) != is_minus);
            }
        }
    }

    /// The largest size of a digit.
    pub(crate) fn buckets(self) -> usize {
        1 << (self.bits - 1)
    }

    /// By adding this, half of the digits' range in every window but the top one, digits need no
    /// carry.
    pub(super) fn half_of_each(self) -> Words {
        let mut out = [0; 4];
        for window in 0..self.count - 1 {
            let bit = window * self.bits + self.bits - 1;
            out[bit as usize / 64] |= 1 << (bit % 64);
        }
        out
    }

    /// The digit of a scalar to which half of each window has been added.
    #[inline]
    pub(super) fn digit(self, shifted: &Words, window: u32) -> i32 {
        let bit = window * self.bits;
        let (word, shift) = (bit as usize / 64, bit % 64);
        let mut value = shifted[word] >> shift;
        if shift + self.bits > 64 && word < 3 {
            value |= shifted[word + 1] << (64 - shift);
        }
        let unsigned = (value & ((1 << self.bits) - 1)) as i32;
        if window + 1 == self.count { unsigned } else { unsigned - (1 << (self.bits - 1)) }
    }
}

/// The scalar or its negative, whichever is below half the modulus, and whether it is the negative.
pub(super) fn halved(scalar: &Words) -> (Words, bool) {
    let negative = minus(&MODULUS, scalar);
    if is_less(&negative, scalar) { (negative, true) } else { (*scalar, false) }
}

/// `a + b`; the sum of a scalar and half of each window stays below 2^256.
pub(super) fn plus(a: &Words, b: &Words) -> Words {
    let mut out = [0; 4];
    let mut carry = false;
    for (out, (a, b)) in out.iter_mut().zip(a.iter().zip(b)) {
        let (sum, one) = a.overflowing_add(*b);
        let (sum, two) = sum.overflowing_add(u64::from(carry));
        *out = sum;
        carry = one | two;
    }
    out
}

fn minus(a: &Words, b: &Words) -> Words {
    let mut out = [0; 4];
    let mut borrow = false;
    for (out, (a, b)) in out.iter_mut().zip(a.iter().zip(b)) {
        let (difference, one) = a.overflowing_sub(*b);
        let (difference, two) = difference.overflowing_sub(u64::from(borrow));
        *out = difference;
        borrow = one | two;
    }
    out
}

fn is_less(a: &Words, b: &Words) -> bool {
    a.iter().rev().lt(b.iter().rev())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{random, words};
    use super::*;
    use blstrs::Scalar;
    use ff::Field;

    #[test]
    fn digits_of_every_width_make_up_the_scalar() {
        let two = Scalar::from(2);
        for bits in 3..=20 {
            let windows = SignedWindows { bits, count: SCALAR_BITS.div_ceil(bits) };
            for scalar in [random(1), random(2), two.invert().expect("not zero") - Scalar::ONE] {
                let (value, sign) = if is_less(&minus(&MODULUS, &words(scalar)), &words(scalar)) {
                    (minus(&MODULUS, &words(scalar)), -Scalar::ONE)
                } else {
                    (words(scalar), Scalar::ONE)
                };
                let shifted = plus(&value, &windows.half_of_each());
                let sum: Scalar = (0..windows.count)
                    .map(|window| {
                        let digit = windows.digit(&shifted, window);
                        assert!(digit.unsigned_abs() as usize <= windows.buckets());
                        let weight = two.pow_vartime([u64::from(window * bits)]);
                        let size = Scalar::from(u64::from(digit.unsigned_abs()));
                        weight * if digit < 0 { -size } else { size }
                    })
                    .sum();
                assert_eq!(sum * sign, scalar, "{bits} bits");
            }
        }
    }
}
