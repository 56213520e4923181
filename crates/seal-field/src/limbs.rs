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

/// `(1 + r * CLEARING) / 2^52`.
///
/// `r * CLEARING` is -1 modulo 2^52, so a limb is itself how often that has to be added to clear
/// it: adding `limb * r * CLEARING` is taking the limb away and adding `limb * FOLD` one limb up.
pub(crate) const FOLD: Limbs = {
    let mut folded = [0; LIMBS];
    let mut carry = 1_u128;
    let mut i = 0;
    while i < LIMBS {
        carry += MODULUS[i] as u128 * CLEARING as u128;
        if i > 0 {
            folded[i - 1] = carry as u64 & MASK;
        }
        carry >>= LIMB_BITS;
        i += 1;
    }
    folded[LIMBS - 1] = carry as u64;
    folded
};

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
    fn folding_adds_a_multiple_of_the_modulus() {
        // r * CLEARING is FOLD * 2^52 - 1, whose limbs are all bits, FOLD[0] - 1 and the rest of FOLD.
        let mut carry = 0_u128;
        for i in 0..=LIMBS {
            let modulus = MODULUS.get(i).copied().unwrap_or(0);
            carry += u128::from(modulus) * u128::from(CLEARING);
            let limb = if i == 0 { MASK } else { FOLD[i - 1] - u64::from(i == 1) };
            assert_eq!(carry as u64 & MASK, limb, "limb {i}");
            carry >>= LIMB_BITS;
        }
        assert_eq!(carry, 0);
    }
}
