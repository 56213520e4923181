//! The scalar field's elements as five limbs of 52 bits, one at a time: what constants are made
//! of.

/// Limbs of an element.
pub const LIMBS: usize = 5;
/// Bits of a limb.
pub const LIMB_BITS: u32 = 52;
/// The bits of a limb.
pub(crate) const MASK: u64 = (1 << LIMB_BITS) - 1;

/// A number below 2^260 by its limbs, the lowest first.
pub type Limbs = [u64; LIMBS];

/// The modulus r of the scalar field, in words of 64 bits, the lowest first.
pub(crate) const MODULUS_WORDS: [u64; 4] =
    [0xffff_ffff_0000_0001, 0x53bd_a402_fffe_5bfe, 0x3339_d808_09a1_d805, 0x73ed_a753_299d_7d48];

/// The modulus r.
pub(crate) const MODULUS: Limbs = limbs_of_words(MODULUS_WORDS);

/// `-1 / r` modulo 2^52: times this, a limb is how often r has to be added to clear it.
///
/// r is 1 - 2^32 modulo 2^64, whose inverse is 1 + 2^32.
pub(crate) const CLEARING: u64 = (1 << LIMB_BITS) - (1 + (1 << 32));

/// `FOLDS[n]` is `2^(-52 n)` modulo r: a limb that is taken away may be given back, times this, `n`
/// limbs further up.
pub(crate) const FOLDS: [Limbs; 4] = {
    let mut folds = [[1, 0, 0, 0, 0]; 4];
    let mut n = 1;
    while n < folds.len() {
        folds[n] = divided(folds[n - 1]);
        n += 1;
    }
    folds
};

/// A number below r divided by 2^52 modulo r.
const fn divided(number: Limbs) -> Limbs {
    let times = number[0].wrapping_mul(CLEARING) & MASK;
    let mut quotient = [0; LIMBS];
    let mut carry = 0_u128;
    let mut i = 0;
    while i < LIMBS {
        carry += number[i] as u128 + MODULUS[i] as u128 * times as u128;
        if i > 0 {
            quotient[i - 1] = carry as u64 & MASK;
        }
        carry >>= LIMB_BITS;
        i += 1;
    }
    quotient[LIMBS - 1] = carry as u64;
    quotient
}

/// The limbs of a number of 256 bits in words of 64, the lowest first.
pub const fn limbs_of_words(words: [u64; 4]) -> Limbs {
    let [a, b, c, d] = words;
    [
        a & MASK,
        (a >> 52 | b << 12) & MASK,
        (b >> 40 | c << 24) & MASK,
        (c >> 28 | d << 36) & MASK,
        d >> 16,
    ]
}

/// The limbs of a little-endian number.
pub fn limbs_of_bytes(bytes: &[u8; 32]) -> Limbs {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    limbs_of_words(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use blstrs::Scalar as Fr;
    use ff::Field;

    #[test]
    fn limbs_are_the_bits_in_order() {
        for bit in 0..256 {
            let mut bytes = [0; 32];
            bytes[bit / 8] = 1 << (bit % 8);
            let mut expected = [0; LIMBS];
            expected[bit / 52] = 1 << (bit % 52);
            assert_eq!(limbs_of_bytes(&bytes), expected, "bit {bit}");
        }
    }

    #[test]
    fn clearing_is_minus_the_inverse_of_the_modulus() {
        assert_eq!(MODULUS[0].wrapping_mul(CLEARING) & MASK, MASK);
    }

    #[test]
    fn a_fold_times_its_power_of_two_is_one() {
        let number = |limbs: &Limbs| {
            limbs.iter().rev().fold(Fr::ZERO, |sum, limb| sum * Fr::from(1 << 52) + Fr::from(*limb))
        };
        let mut power = Fr::ONE;
        for fold in FOLDS {
            assert_eq!(number(&fold) * power, Fr::ONE);
            assert_eq!(number(&MODULUS), Fr::ZERO);
            assert!(fold.iter().rev().lt(MODULUS.iter().rev()), "below the modulus");
            power *= Fr::from(1 << 52);
        }
    }
}
