//! Constants of the fields as balanced limbs.

/// A non-negative number by its words of 64 bits, the lowest first.
pub(crate) type Words = [u64; 7];

/// The modulus r of the scalar field of BLS12-381 (source: the BLS signatures draft).
pub(crate) const SCALAR_MODULUS: Words = [
    0xffff_ffff_0000_0001,
    0x53bd_a402_fffe_5bfe,
    0x3339_d808_09a1_d805,
    0x73ed_a753_299d_7d48,
    0,
    0,
    0,
];

fn is_less(a: &Words, b: &Words) -> bool {
    a.iter().rev().lt(b.iter().rev())
}

fn plus(a: &Words, b: &Words) -> Words {
    let mut sum = [0; 7];
    let mut carry = 0_u128;
    for (place, (a, b)) in sum.iter_mut().zip(a.iter().zip(b)) {
        carry += u128::from(*a) + u128::from(*b);
        *place = carry as u64;
        carry >>= 64;
    }
    sum
}

fn minus(a: &Words, b: &Words) -> Words {
    let mut difference = [0; 7];
    let mut borrow = 0_i128;
    for (place, (a, b)) in difference.iter_mut().zip(a.iter().zip(b)) {
        borrow += i128::from(*a) - i128::from(*b);
        *place = borrow as u64;
        borrow >>= 64;
    }
    difference
}

fn half(a: &Words) -> Words {
    std::array::from_fn(|i| a[i] >> 1 | a.get(i + 1).map_or(0, |above| above << 63))
}

/// `2^-bits` modulo an odd modulus.
pub(crate) fn inverse_power(modulus: &Words, bits: u32) -> Words {
    let mut number = [1, 0, 0, 0, 0, 0, 0];
    for _ in 0..bits {
        if number[0] & 1 == 1 {
            number = plus(&number, modulus);
        }
        number = half(&number);
    }
    number
}

/// The limbs of a number, balanced: each from `-2^(bits - 1)` to `2^(bits - 1) - 1` but for the
/// highest, which has what is left.
pub(crate) fn balanced<const LIMBS: usize>(number: &Words, bits: u32) -> [i64; LIMBS] {
    let mut limbs = [0; LIMBS];
    let mut carry = 0;
    for (i, limb) in limbs.iter_mut().enumerate() {
        let (word, shift) = (i as u32 * bits / 64, i as u32 * bits % 64);
        let low = number[word as usize] >> shift;
        let high =
            number.get(word as usize + 1).map_or(0, |above| u128::from(*above) << (64 - shift));
        let part = (u128::from(low) | high) as u64 & ((1 << bits) - 1);
        let value = part as i64 + carry;
        carry = 0;
        *limb = value;
        if i < LIMBS - 1 && value >= 1 << (bits - 1) {
            *limb = value - (1 << bits);
            carry = 1;
        }
    }
    limbs
}

/// The residue of least absolute value, as balanced limbs.
pub(crate) fn least_residue<const LIMBS: usize>(
    number: &Words,
    modulus: &Words,
    bits: u32,
) -> [i64; LIMBS] {
    let opposite = minus(modulus, number);
    if is_less(&opposite, number) {
        balanced(&opposite, bits).map(|limb: i64| -limb)
    } else {
        balanced(number, bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(limbs: &[i64], bits: u32) -> [i128; 7] {
        // Digits of 64 bits, not carried.
        let mut words = [0_i128; 7];
        for (i, limb) in limbs.iter().enumerate() {
            let bit = i as u32 * bits;
            let wide = i128::from(*limb) << (bit % 64);
            words[(bit / 64) as usize] += wide & i128::from(u64::MAX);
            if let Some(word) = words.get_mut((bit / 64) as usize + 1) {
                *word += wide >> 64;
            }
        }
        for i in 0..6 {
            let carry = words[i] >> 64;
            words[i] &= i128::from(u64::MAX);
            words[i + 1] += carry;
        }
        words
    }

    #[test]
    fn limbs_add_up_to_the_number() {
        let modulus = SCALAR_MODULUS.map(i128::from);
        assert_eq!(value(&balanced::<5>(&SCALAR_MODULUS, 51), 51), modulus);
        assert_eq!(balanced::<5>(&SCALAR_MODULUS, 51)[0], 1 - (1 << 32));
    }

    #[test]
    fn an_inverse_power_doubles_back_to_one() {
        for bits in [1, 51, 102, 153] {
            let mut number = inverse_power(&SCALAR_MODULUS, bits);
            for _ in 0..bits {
                number = plus(&number, &number);
                if !is_less(&number, &SCALAR_MODULUS) {
                    number = minus(&number, &SCALAR_MODULUS);
                }
            }
            assert_eq!(number, [1, 0, 0, 0, 0, 0, 0]);
        }
    }

    #[test]
    fn least_residues_differ_by_the_modulus_at_most() {
        for bits in [51, 102, 153] {
            let number = inverse_power(&SCALAR_MODULUS, bits);
            let limbs = least_residue::<5>(&number, &SCALAR_MODULUS, 51);
            let sum = value(&limbs, 51);
            let plain = number.map(i128::from);
            let less = minus(&number, &SCALAR_MODULUS).map(i128::from);
            // A negative number's highest word is signed.
            let signed = |mut words: [i128; 7]| {
                words[6] = i128::from(words[6] as u64 as i64);
                words
            };
            assert!(signed(sum) == signed(plain) || signed(sum) == signed(less), "{bits}");
        }
    }
}
