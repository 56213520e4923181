//! The base field of BLS12-381 and its quadratic extension, one element at a time, by blst; and
//! the constants from which the vector kernels are built.

use blst::{blst_fp, blst_fp2};

/// An element as six little-endian words; which Montgomery form is the user's affair.
pub(crate) type Words = [u64; 6];

/// The modulus p.
pub(crate) const P: Words = [
    0xb9fe_ffff_ffff_aaab,
    0x1eab_fffe_b153_ffff,
    0x6730_d2a0_f6b0_f624,
    0x6477_4b84_f385_12bf,
    0x4b1b_a7b6_434b_acd7,
    0x1a01_11ea_397f_e69a,
];

/// Whether `a >= b`.
const fn at_least(a: &Words, b: &Words) -> bool {
    let mut i = 6;
    while i > 0 {
        i -= 1;
        if a[i] != b[i] {
            return a[i] > b[i];
        }
    }
    true
}

/// `a - b`, modulo 2^384.
const fn minus(a: &Words, b: &Words) -> Words {
    let mut out = [0; 6];
    let mut borrow = false;
    let mut i = 0;
    while i < 6 {
        let (difference, one) = a[i].overflowing_sub(b[i]);
        let (difference, two) = difference.overflowing_sub(borrow as u64);
        out[i] = difference;
        borrow = one | two;
        i += 1;
    }
    out
}

/// Takes p away from `a` if it is there: canonical for everything below 2p.
#[inline]
pub(crate) const fn below_p(a: &Words) -> Words {
    if at_least(a, &P) { minus(a, &P) } else { *a }
}

/// Minus `a`, canonical, of an element below 2p.
#[inline]
pub(crate) const fn negative(a: &Words) -> Words {
    let a = below_p(a);
    // Minus zero would be p.
    below_p(&minus(&P, &a))
}

/// `2^exponent` modulo p.
pub(crate) const fn power_of_two(exponent: u32) -> Words {
    let mut value = [1, 0, 0, 0, 0, 0];
    let mut i = 0;
    while i < exponent {
        // p is below 2^381, so a doubled element fits.
        let mut doubled = [0; 6];
        let mut word = 0;
        while word < 6 {
            let below = if word == 0 { 0 } else { value[word - 1] >> 63 };
            doubled[word] = value[word] << 1 | below;
            word += 1;
        }
        value = below_p(&doubled);
        i += 1;
    }
    value
}

/// An element, in blst's Montgomery form, canonical.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Fp(pub(crate) blst_fp);

impl Fp {
    pub(crate) const ONE: Self = Self(blst_fp { l: power_of_two(384) });

    #[inline]
    pub(crate) fn mul(&self, other: &Self) -> Self {
        let mut out = blst_fp::default();
        // SAFETY: all three are references to whole elements, and blst allows any of them.
        unsafe { blst::blst_fp_mul(&mut out, &self.0, &other.0) };
        Self(out)
    }

    #[inline]
    pub(crate) fn sqr(&self) -> Self {
        let mut out = blst_fp::default();
        // SAFETY: both are references to whole elements.
        unsafe { blst::blst_fp_sqr(&mut out, &self.0) };
        Self(out)
    }

    #[inline]
    pub(crate) fn add(&self, other: &Self) -> Self {
        let mut out = blst_fp::default();
        // SAFETY: all three are references to whole elements.
        unsafe { blst::blst_fp_add(&mut out, &self.0, &other.0) };
        Self(out)
    }

    #[inline]
    pub(crate) fn sub(&self, other: &Self) -> Self {
        let mut out = blst_fp::default();
        // SAFETY: all three are references to whole elements.
        unsafe { blst::blst_fp_sub(&mut out, &self.0, &other.0) };
        Self(out)
    }

    /// The inverse, in time that depends on the value; zero for zero.
    pub(crate) fn inverse(&self) -> Self {
        let mut out = blst_fp::default();
        // SAFETY: both are references to whole elements.
        unsafe { blst::blst_fp_eucl_inverse(&mut out, &self.0) };
        Self(out)
    }
}

/// An element of the quadratic extension, in blst's Montgomery form, canonical.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Fp2(pub(crate) blst_fp2);

impl Fp2 {
    pub(crate) const ONE: Self = Self(blst_fp2 { fp: [Fp::ONE.0, blst_fp { l: [0; 6] }] });

    #[inline]
    pub(crate) fn mul(&self, other: &Self) -> Self {
        let mut out = blst_fp2::default();
        // SAFETY: all three are references to whole elements.
        unsafe { blst::blst_fp2_mul(&mut out, &self.0, &other.0) };
        Self(out)
    }

    #[inline]
    pub(crate) fn sqr(&self) -> Self {
        let mut out = blst_fp2::default();
        // SAFETY: both are references to whole elements.
        unsafe { blst::blst_fp2_sqr(&mut out, &self.0) };
        Self(out)
    }

    #[inline]
    pub(crate) fn add(&self, other: &Self) -> Self {
        let mut out = blst_fp2::default();
        // SAFETY: all three are references to whole elements.
        unsafe { blst::blst_fp2_add(&mut out, &self.0, &other.0) };
        Self(out)
    }

    #[inline]
    pub(crate) fn sub(&self, other: &Self) -> Self {
        let mut out = blst_fp2::default();
        // SAFETY: all three are references to whole elements.
        unsafe { blst::blst_fp2_sub(&mut out, &self.0, &other.0) };
        Self(out)
    }

    /// The inverse, in time that depends on the value; zero for zero.
    pub(crate) fn inverse(&self) -> Self {
        let mut out = blst_fp2::default();
        // SAFETY: both are references to whole elements.
        unsafe { blst::blst_fp2_eucl_inverse(&mut out, &self.0) };
        Self(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_agree_with_blst() {
        let one = Fp(blst_fp { l: power_of_two(384) });
        assert_eq!(one.mul(&one), one, "2^384 is one in Montgomery form");
        let two = one.add(&one);
        assert_eq!(two.0.l, power_of_two(385));
        assert_eq!(two.mul(&two.inverse()), one);
        assert_eq!(Fp::default().inverse(), Fp::default());
    }

    #[test]
    fn negatives_are_those_of_blst() {
        let mut last = P;
        last[0] -= 1;
        for words in [[0; 6], power_of_two(0), power_of_two(700), last] {
            let expected = Fp::default().sub(&Fp(blst_fp { l: words })).0.l;
            assert_eq!(negative(&words), expected);
        }
        assert_eq!(negative(&P), [0; 6]);
    }

    #[test]
    fn the_modulus_is_taken_away_once() {
        assert_eq!(below_p(&P), [0; 6]);
        let mut last = P;
        last[0] -= 1;
        assert_eq!(below_p(&last), last);
    }
}
