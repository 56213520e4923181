//! Numbers of four words of 64 bits modulo the field's modulus `p`.
//!
//! Results are loose, below 2^256, and so may the numbers be that they are made of, unless it
//! says otherwise.

/// A number, the lowest word first.
pub(super) type Words = [u64; 4];

/// The modulus `p`. (The scalar field of BLS12-381; source: the BLS signatures draft, appendix of
/// pairing-friendly curves.)
const MODULUS: Words =
    [0xffff_ffff_0000_0001, 0x53bd_a402_fffe_5bfe, 0x3339_d808_09a1_d805, 0x73ed_a753_299d_7d48];

/// `2^256 mod p`, which is `2^256 - 2 p`.
const FOLD: Words = folds()[1];

/// `h 2^256 mod p` for the carries `h` that a sum of products can have.
const FOLDS: [Words; CARRIES] = folds();

/// The most products in a sum.
const MOST_TERMS: usize = 12;

/// A power of two above all carries.
const CARRIES: usize = 16;

const fn folds() -> [Words; CARRIES] {
    let mut folds = [[0; 4]; CARRIES];
    let mut h = 1;
    while h < CARRIES {
        // The one before, plus 2^256 - 2 p, which is below p; so one subtraction does.
        let mut step = [0; 4];
        (step, _) = minus(&step, &MODULUS);
        (step, _) = minus(&step, &MODULUS);
        let (sum, _) = plus(&folds[h - 1], &step);
        let (reduced, borrow) = minus(&sum, &MODULUS);
        folds[h] = if borrow { sum } else { reduced };
        h += 1;
    }
    folds
}

/// `a + b` modulo 2^256, and whether that is not all.
#[inline(always)]
const fn plus(a: &Words, b: &Words) -> (Words, bool) {
    let mut sum = [0; 4];
    let mut carry = false;
    let mut i = 0;
    while i < 4 {
        let (partial, first) = a[i].overflowing_add(b[i]);
        let (word, second) = partial.overflowing_add(carry as u64);
        sum[i] = word;
        carry = first | second;
        i += 1;
    }
    (sum, carry)
}

/// `a - b` modulo 2^256, and whether `b` is greater.
#[inline(always)]
const fn minus(a: &Words, b: &Words) -> (Words, bool) {
    let mut difference = [0; 4];
    let mut borrow = false;
    let mut i = 0;
    while i < 4 {
        let (partial, first) = a[i].overflowing_sub(b[i]);
        let (word, second) = partial.overflowing_sub(borrow as u64);
        difference[i] = word;
        borrow = first | second;
        i += 1;
    }
    (difference, borrow)
}

/// The number that 32 bytes are, the lowest first.
#[inline(always)]
pub(super) fn words_of_bytes(bytes: &[u8; 32]) -> Words {
    let (words, _) = bytes.as_chunks();
    [0, 1, 2, 3].map(|i: usize| u64::from_le_bytes(words[i]))
}

/// Whether a number is below `p`.
#[inline(always)]
pub(super) fn is_canonical(number: &Words) -> bool {
    minus(number, &MODULUS).1
}

/// The bytes of the number below `p` that a loose one stands for.
#[inline(always)]
pub(super) fn canonical(mut number: Words) -> [u8; 32] {
    // 2^256 is below 3 p.
    for _ in 0..2 {
        let (reduced, borrow) = minus(&number, &MODULUS);
        if !borrow {
            number = reduced;
        }
    }
    let mut bytes = [0; 32];
    for (place, word) in bytes.as_chunks_mut().0.iter_mut().zip(number) {
        *place = word.to_le_bytes();
    }
    bytes
}

/// The sum of two numbers below `p`.
#[inline(always)]
pub(super) fn add_mod(a: &Words, b: &Words) -> Words {
    // Below 2^256, which is above 2 p.
    plus(a, b).0
}

/// The lower half of a product.
#[inline(always)]
fn low(product: u128) -> u64 {
    product as u64
}

/// The upper half of a product.
#[inline(always)]
fn high(product: u128) -> u64 {
    (product >> 64) as u64
}

#[inline(always)]
fn wide(a: u64, b: u64) -> u128 {
    u128::from(a).wrapping_mul(u128::from(b))
}

/// `a^2 2^-256`.
#[inline(always)]
pub(super) fn square(a: &Words) -> Words {
    // The products that there are twice, as a number of six words from the second on.
    let mut sums = [0; 6];
    add(&mut sums, 0, wide(a[0], a[1]));
    add(&mut sums, 1, wide(a[0], a[2]));
    add(&mut sums, 2, wide(a[0], a[3]));
    add(&mut sums, 2, wide(a[1], a[2]));
    add(&mut sums, 3, wide(a[1], a[3]));
    add(&mut sums, 4, wide(a[2], a[3]));
    let ([w1, w2, w3, w4, w5, w6], _) = carried(sums);
    let twice = [
        w1 << 1,
        w2 << 1 | w1 >> 63,
        w3 << 1 | w2 >> 63,
        w4 << 1 | w3 >> 63,
        w5 << 1 | w4 >> 63,
        w6 << 1 | w5 >> 63,
        w6 >> 63,
    ];
    let squares = [wide(a[0], a[0]), wide(a[1], a[1]), wide(a[2], a[2]), wide(a[3], a[3])];
    let mut words = [0; 8];
    words[0] = low(squares[0]);
    let mut carry = false;
    for i in 0..7 {
        let square = squares[usize::div_ceil(i, 2)];
        let half = if i % 2 == 0 { high(square) } else { low(square) };
        let (partial, first) = half.overflowing_add(twice[i]);
        let (word, second) = partial.overflowing_add(u64::from(carry));
        words[i + 1] = word;
        carry = first | second;
    }
    fold_once(reduce(words, 0))
}

/// `a b 2^-256 + key`, of a key below `p`.
#[inline(always)]
pub(super) fn product(a: &Words, b: &Words, key: &Words) -> Words {
    // Below 2^256 + 2 p.
    fold_once(reduce_sum(&[*a], &[*b], key))
}

/// The sum of `a[i] b[i] 2^-256`, and a key; the `a[i]` but one, and the key, below `p`.
///
/// # Panics
/// When the lengths differ or are above [`MOST_TERMS`].
#[inline(always)]
pub(super) fn sum_of_products(a: &[Words], b: &[Words], key: &Words) -> Words {
    assert!(a.len() == b.len() && a.len() <= MOST_TERMS, "a sum of at most {MOST_TERMS} products");
    // Twelve products, one of them of loose numbers, and two moduli: below 7.5 times 2^256.
    let (number, carry) = reduce_sum(a, b, key);
    let (number, again) = plus(&number, &FOLDS[carry as usize % CARRIES]);
    fold_once((number, u64::from(again)))
}

/// The same before the last carry is folded.
///
/// Each word of the sum is a sum by itself until all products are in, so that nothing waits for
/// carries, and the products come in three runs, so that the sums of a run fit the registers.
#[inline(always)]
fn reduce_sum(a: &[Words], b: &[Words], key: &Words) -> (Words, u64) {
    let mut low = [0; 4];
    for (a, b) in a.iter().zip(b) {
        add(&mut low, 0, wide(a[0], b[0]));
        add(&mut low, 1, wide(a[0], b[1]));
        add(&mut low, 1, wide(a[1], b[0]));
        add(&mut low, 2, wide(a[0], b[2]));
        add(&mut low, 2, wide(a[1], b[1]));
        add(&mut low, 2, wide(a[2], b[0]));
    }
    let mut middle = [low[3], u128::from(key[0])];
    for (a, b) in a.iter().zip(b) {
        add(&mut middle, 0, wide(a[0], b[3]));
        add(&mut middle, 0, wide(a[1], b[2]));
        add(&mut middle, 0, wide(a[2], b[1]));
        add(&mut middle, 0, wide(a[3], b[0]));
    }
    let mut high = [middle[1], key[1].into(), key[2].into(), key[3].into()];
    for (a, b) in a.iter().zip(b) {
        add(&mut high, 0, wide(a[1], b[3]));
        add(&mut high, 0, wide(a[2], b[2]));
        add(&mut high, 0, wide(a[3], b[1]));
        add(&mut high, 1, wide(a[2], b[3]));
        add(&mut high, 1, wide(a[3], b[2]));
        add(&mut high, 2, wide(a[3], b[3]));
    }
    let [w0, w1, w2, _] = low;
    let [w4, w5, w6, w7] = high;
    let (words, above) = carried([w0, w1, w2, middle[0], w4, w5, w6, w7]);
    reduce(words, above)
}

/// Adds a product whose lower word belongs to `sums[at]`.
#[inline(always)]
fn add<const N: usize>(sums: &mut [u128; N], at: usize, product: u128) {
    // Some dozens of halves of 64 bits do not overflow, and a check would cost a tenth.
    sums[at] = sums[at].wrapping_add(u128::from(low(product)));
    sums[at + 1] = sums[at + 1].wrapping_add(product >> 64);
}

/// Sums as words, and what lies above them.
#[inline(always)]
fn carried<const N: usize>(sums: [u128; N]) -> ([u64; N], u64) {
    let mut words = [0; N];
    let mut carry = 0;
    for (word, sum) in words.iter_mut().zip(sums) {
        // Far from full, see `add`.
        let sum = sum.wrapping_add(carry);
        *word = low(sum);
        carry = sum >> 64;
    }
    (words, low(carry))
}

/// The sum of `numbers[i] factors[i] 2^-64`, for factors below 2^60.
///
/// # Panics
/// When there are fewer factors than numbers.
#[inline(always)]
pub(super) fn small_products(numbers: &[Words], factors: &[u64]) -> Words {
    assert!(factors.len() >= numbers.len(), "a factor for each number");
    // Sums of a dozen products of 64 and 60 bits.
    let mut columns = [0_u128; 4];
    for (number, factor) in numbers.iter().zip(factors) {
        for (column, word) in columns.iter_mut().zip(number) {
            *column = column.wrapping_add(wide(*word, *factor));
        }
    }
    let [column, rest @ ..] = columns;
    let (factor, carry) = annihilate(low(column));
    let mut carry = (column >> 64) + u128::from(carry);
    let mut words = [0; 4];
    for ((word, column), modulus) in words.iter_mut().zip(rest).zip(&MODULUS[1..]) {
        let multiple = wide(factor, *modulus);
        // Below 2^112 + 2^112 + 2^64.
        let sum = column.wrapping_add(u128::from(low(multiple))).wrapping_add(carry);
        *word = low(sum);
        carry = (sum >> 64).wrapping_add(multiple >> 64);
    }
    words[3] = low(carry);
    words
}

/// The multiple of `p` that makes `word` zero: its factor, and what the lowest words of both carry.
#[inline(always)]
fn annihilate(word: u64) -> (u64, u64) {
    // The inverse of p modulo 2^64 is 2^32 + 1.
    let factor = (word << 32).wrapping_add(word).wrapping_neg();
    (factor, high(wide(factor, MODULUS[0]).wrapping_add(u128::from(word))))
}

/// `number 2^-256` for eight words and what lies above them: a number and what lies above it.
#[inline(always)]
fn reduce(words: [u64; 8], above: u64) -> (Words, u64) {
    let [w0, w1, w2, w3, w4, w5, w6, w7] = words;
    let ([w1, w2, w3, w4], carry) = reduce_word([w0, w1, w2, w3, w4], 0);
    let ([w2, w3, w4, w5], carry) = reduce_word([w1, w2, w3, w4, w5], carry);
    let ([w3, w4, w5, w6], carry) = reduce_word([w2, w3, w4, w5, w6], carry);
    let (number, carry) = reduce_word([w3, w4, w5, w6, w7], carry);
    (number, above.wrapping_add(carry))
}

/// Adds the multiple of `p` that makes the lowest word zero, and `above` to the highest word.
#[inline(always)]
fn reduce_word([w0, w1, w2, w3, w4]: [u64; 5], above: u64) -> (Words, u64) {
    let (factor, carry) = annihilate(w0);
    let (w1, carry) = multiply_add(factor, MODULUS[1], w1, carry);
    let (w2, carry) = multiply_add(factor, MODULUS[2], w2, carry);
    let (w3, carry) = multiply_add(factor, MODULUS[3], w3, carry);
    let sum = u128::from(w4).wrapping_add(carry.into()).wrapping_add(above.into());
    ([w1, w2, w3, low(sum)], high(sum))
}

/// `a b + c + d`, lower half first: at most 2^128 - 1.
#[inline(always)]
fn multiply_add(a: u64, b: u64, c: u64, d: u64) -> (u64, u64) {
    let sum = wide(a, b).wrapping_add(c.into()).wrapping_add(d.into());
    (low(sum), high(sum))
}

/// Brings a number below `2^256 + 2 p` below 2^256.
#[inline(always)]
fn fold_once((number, above): (Words, u64)) -> Words {
    let mask = above.wrapping_neg();
    plus(&number, &FOLD.map(|word| word & mask)).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fr, element_to_bytes};
    use ff::Field;
    use proptest::prelude::*;

    /// The element that any number below 2^256 stands for.
    fn element(number: &Words) -> Fr {
        let radix = Fr::from(1 << 32).square();
        number.iter().rev().fold(Fr::ZERO, |sum, word| sum * radix + Fr::from(*word))
    }

    fn shifted(number: Fr, bits: u64) -> Fr {
        number * Option::<Fr>::from(Fr::from(2).pow_vartime([bits]).invert()).expect("not zero")
    }

    /// Numbers below 2^256, most of them at its ends, where carries are.
    fn loose() -> impl Strategy<Value = Words> {
        let word = prop_oneof![
            3 => any::<u64>(), 2 => Just(u64::MAX), 1 => Just(0), 1 => Just(1_u64 << 63),
        ];
        prop_oneof![4 => proptest::array::uniform4(word), 1 => Just(MODULUS), 1 => reduced()]
    }

    /// Numbers below the modulus.
    fn reduced() -> impl Strategy<Value = Words> {
        let minus_one = words_of_bytes(&element_to_bytes(&-Fr::ONE));
        let any = any::<Words>().prop_map(|words| words_of_bytes(&canonical(words)));
        prop_oneof![3 => any, 1 => Just(minus_one)]
    }

    proptest! {
        #[test]
        fn loose_numbers_become_canonical(number in loose()) {
            prop_assert_eq!(canonical(number), element_to_bytes(&element(&number)));
            let is_element = words_of_bytes(&canonical(number)) == number;
            prop_assert_eq!(is_canonical(&number), is_element);
        }

        #[test]
        fn products_are_those_of_the_field(a in loose(), b in loose(), key in reduced()) {
            let wanted = shifted(element(&a) * element(&b), 256) + element(&key);
            prop_assert_eq!(element(&product(&a, &b, &key)), wanted);
            prop_assert_eq!(element(&square(&a)), shifted(element(&a).square(), 256));
        }

        #[test]
        fn sums_of_products_are_those_of_the_field(
            loose_factor in loose(),
            factors in prop::collection::vec(reduced(), 0..MOST_TERMS),
            numbers in prop::collection::vec(loose(), MOST_TERMS),
            key in reduced(),
        ) {
            let factors = [&factors[..], &[loose_factor]].concat();
            let numbers = &numbers[..factors.len()];
            let sum: Fr = factors.iter().zip(numbers).map(|(a, b)| element(a) * element(b)).sum();
            let found = sum_of_products(&factors, numbers, &key);
            prop_assert_eq!(element(&found), shifted(sum, 256) + element(&key));
        }

        #[test]
        fn sums_of_small_products_are_those_of_the_field(
            numbers in prop::collection::vec(loose(), 1..=MOST_TERMS),
            factors in prop::collection::vec(1..1_u64 << 44, MOST_TERMS),
        ) {
            let pairs = numbers.iter().zip(&factors);
            let sum: Fr = pairs.map(|(number, f)| element(number) * Fr::from(*f)).sum();
            prop_assert_eq!(element(&small_products(&numbers, &factors)), shifted(sum, 64));
        }
    }

    #[test]
    fn the_largest_sum_fits() {
        let largest = words_of_bytes(&element_to_bytes(&-Fr::ONE));
        let mut factors = [largest; MOST_TERMS];
        factors[MOST_TERMS - 1] = [u64::MAX; 4];
        let numbers = [[u64::MAX; 4]; MOST_TERMS];
        let sum: Fr = factors.iter().zip(&numbers).map(|(a, b)| element(a) * element(b)).sum();
        let found = sum_of_products(&factors, &numbers, &largest);
        assert_eq!(element(&found), shifted(sum, 256) - Fr::ONE);
        let small = small_products(&numbers, &[(1 << 44) - 1; MOST_TERMS]);
        let sum = element(&numbers[0]) * Fr::from(12 * ((1 << 44) - 1));
        assert_eq!(element(&small), shifted(sum, 64));
    }
}
