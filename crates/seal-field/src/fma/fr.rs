//! Sixteen elements of the scalar field in double precision, limb by limb in memory.
//!
//! An element is five balanced limbs of 51 bits, each an integer in a double, and limb `i` of all
//! sixteen stands together. Sums of products are ten columns of 64-bit integers. What the routines
//! compute, and within which limits, is in `fma-gen`, which writes them.
//!
//! Reduction divides by 2^306, and by 2^51 for sums of products with small numbers: what a result
//! is divided by has to be made up for in constants.

use blstrs::Scalar;
use ff::PrimeField;

use super::Fma;
use super::fr_code;
use crate::limbs::MODULUS_WORDS;

/// Limbs of an element.
pub const LIMBS: usize = 5;
/// Bits of a limb.
pub const LIMB_BITS: u32 = 51;
/// Elements that are computed together.
pub const LANES: usize = 16;
/// Columns of a sum of products.
pub const COLUMNS: usize = 2 * LIMBS;
/// The logarithm to base 2 of what [`Sum::reduce`] divides by.
pub const REDUCTION_BITS: u32 = 6 * LIMB_BITS;

/// The limit of all limbs but the highest.
const LIMB_LIMIT: f64 = (1_u64 << 50) as f64;
/// The limit of the highest limb of an element.
const TOP_LIMIT: f64 = ((1_u64 << 51) * 92 / 100) as f64;
/// The limit of the highest limb of a constant.
const CONSTANT_TOP_LIMIT: f64 = ((1_u64 << 50) * 92 / 100) as f64;

/// A number in balanced limbs, the lowest first: each at most 2^50 in absolute value but for the
/// highest.
pub type Balanced = [f64; LIMBS];

/// Sixteen reduced elements: at most 1.01 times the modulus in absolute value, with limbs as in
/// [`Balanced`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(32))]
pub struct Fr16(pub(crate) [[f64; LANES]; LIMBS]);

/// A sum of products, for sixteen elements.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(32))]
pub struct Sum(pub(crate) [[i64; LANES]; COLUMNS]);

/// A number by its words of 64 bits, the lowest first.
pub type Words = [u64; 4];

/// Whether limbs are integers within the limits of a reduced element, `times` over.
fn is_within(limbs: &Balanced, top: f64, times: f64) -> bool {
    limbs.iter().enumerate().all(|(i, limb)| {
        let limit = if i < LIMBS - 1 { LIMB_LIMIT } else { top };
        limb.abs() <= limit * times && limb.fract() == 0.0
    })
}

/// The residue of least absolute value, at most half the modulus.
pub fn balanced(element: &Scalar) -> Balanced {
    let words = words_of_bytes(&element.to_repr());
    let opposite = minus(&MODULUS_WORDS, &words).0;
    if opposite.iter().rev().lt(words.iter().rev()) {
        balanced_of_words(&opposite).map(|limb| -limb)
    } else {
        balanced_of_words(&words)
    }
}

/// The balanced limbs of a number up to the modulus.
#[inline]
fn balanced_of_words([a, b, c, d]: &Words) -> Balanced {
    const HALF: u64 = 1 << (LIMB_BITS - 1);
    const MASK: u64 = (1 << LIMB_BITS) - 1;
    let limbs = [*a, a >> 51 | b << 13, b >> 38 | c << 26, c >> 25 | d << 39, d >> 12];
    let mut carry = HALF;
    let mut balanced = [0.0; LIMBS];
    for (i, limb) in limbs.into_iter().enumerate() {
        let sum = (limb & MASK) + carry;
        if i == LIMBS - 1 {
            balanced[i] = (sum - HALF) as i64 as f64;
        } else {
            balanced[i] = ((sum & MASK) as i64 - HALF as i64) as f64;
            carry = HALF + (sum >> LIMB_BITS);
        }
    }
    balanced
}

/// The words of the number below the modulus that a reduced one is.
#[inline]
pub fn canonical_words(limbs: &Balanced) -> Words {
    let mut limbs = limbs.map(|limb| limb as i64);
    carry(&mut limbs);
    if limbs[LIMBS - 1] < 0 {
        for (limb, modulus) in limbs.iter_mut().zip(MODULUS) {
            *limb += modulus;
        }
        carry(&mut limbs);
    }
    let [a, b, c, d, e] = limbs.map(i64::cast_unsigned);
    let words = [a | b << 51, b >> 13 | c << 38, c >> 26 | d << 25, d >> 39 | e << 12];
    let (reduced, is_less) = minus(&words, &MODULUS_WORDS);
    if is_less { words } else { reduced }
}

/// Limbs but for the highest become those of a number that is not balanced.
#[inline]
fn carry(limbs: &mut [i64; LIMBS]) {
    for i in 0..LIMBS - 1 {
        limbs[i + 1] += limbs[i] >> LIMB_BITS;
        limbs[i] &= (1 << LIMB_BITS) - 1;
    }
}

/// The modulus in limbs, not balanced.
const MODULUS: [i64; LIMBS] = {
    let [a, b, c, d] = MODULUS_WORDS;
    let limbs = [a, a >> 51 | b << 13, b >> 38 | c << 26, c >> 25 | d << 39, d >> 12];
    let mut modulus = [0; LIMBS];
    let mut i = 0;
    while i < LIMBS {
        modulus[i] = (limbs[i] & ((1 << LIMB_BITS) - 1)) as i64;
        i += 1;
    }
    modulus
};

#[inline]
fn words_of_bytes(bytes: &[u8; 32]) -> Words {
    let (words, _) = bytes.as_chunks();
    [0, 1, 2, 3].map(|i: usize| u64::from_le_bytes(words[i]))
}

/// `a - b` modulo 2^256, and whether `b` is greater.
#[inline]
fn minus(a: &Words, b: &Words) -> (Words, bool) {
    let mut difference = [0; 4];
    let mut borrow = false;
    for (place, (a, b)) in difference.iter_mut().zip(a.iter().zip(b)) {
        let (partial, first) = a.overflowing_sub(*b);
        let (word, second) = partial.overflowing_sub(u64::from(borrow));
        *place = word;
        borrow = first | second;
    }
    (difference, borrow)
}

#[inline]
fn plus(a: &Words, b: &Words) -> Words {
    let mut sum = [0; 4];
    let mut carry = false;
    for (place, (a, b)) in sum.iter_mut().zip(a.iter().zip(b)) {
        let (partial, first) = a.overflowing_add(*b);
        let (word, second) = partial.overflowing_add(u64::from(carry));
        *place = word;
        carry = first | second;
    }
    sum
}

/// A product that begins a sum takes as many operations as one that is added.
const _: () = assert!(
    fr_code::PRODUCT_OPERATIONS == fr_code::ADD_PRODUCT_OPERATIONS
        && fr_code::CONSTANT_PRODUCT_OPERATIONS == fr_code::ADD_CONSTANT_PRODUCTS_OPERATIONS
);

/// Pairs of products, in a number of turns, for measuring. Returns how many vector operations that
/// were.
pub(crate) fn mix(proof: Fma, turns: usize) -> u64 {
    let _ = proof;
    // SAFETY: the proof says that the processor has AVX2 and FMA; the routine touches no memory of
    // ours.
    unsafe { fr_code::mix(turns.max(1)) };
    turns.max(1) as u64 * fr_code::MIX_OPERATIONS
}

impl Fr16 {
    /// Vector operations of [`Fr16::square`], for all sixteen.
    pub const SQUARE: u64 = fr_code::SQUARE_OPERATIONS + Sum::REDUCTION;

    /// Vector operations of [`Fr16::small_rows`] for so many elements and rows.
    ///
    /// # Panics
    /// If there is no such matrix.
    pub fn small_rows_operations(elements: usize, rows: usize) -> u64 {
        let three = match elements {
            3 => fr_code::SMALL_ROWS_OF_3_OPERATIONS,
            9 => fr_code::SMALL_ROWS_OF_9_OPERATIONS,
            12 => fr_code::SMALL_ROWS_OF_12_OPERATIONS,
            other => panic!("{other} elements have no small matrix"),
        };
        rows as u64 / 3 * three
    }

    /// Reads little-endian numbers and adds one that is below the modulus. `None` if one of them
    /// is not below the modulus.
    pub fn load_plus(nodes: &[&[u8; 32]; LANES], number: &Words) -> Option<Self> {
        let mut loaded = Self::ZERO;
        for (lane, node) in nodes.iter().enumerate() {
            let words = words_of_bytes(node);
            if !minus(&words, &MODULUS_WORDS).1 {
                return None;
            }
            let sum = plus(&words, number);
            let (reduced, is_less) = minus(&sum, &MODULUS_WORDS);
            loaded.set(lane, &balanced_of_words(if is_less { &sum } else { &reduced }));
        }
        Some(loaded)
    }

    /// Writes the numbers below the modulus, little-endian.
    pub fn store(&self, nodes: &mut [[u8; 32]; LANES]) {
        for (lane, node) in nodes.iter_mut().enumerate() {
            let words = canonical_words(&self.get(lane));
            for (bytes, word) in node.as_chunks_mut().0.iter_mut().zip(words) {
                *bytes = word.to_le_bytes();
            }
        }
    }

    /// Zero in all lanes.
    pub const ZERO: Self = Self([[0.0; LANES]; LIMBS]);

    /// The same number in all lanes.
    pub fn same(number: &Balanced) -> Self {
        Self(number.map(|limb| [limb; LANES]))
    }

    /// Puts a number into a lane.
    pub fn set(&mut self, lane: usize, number: &Balanced) {
        for (lanes, limb) in self.0.iter_mut().zip(number) {
            lanes[lane] = *limb;
        }
    }

    /// The number of a lane.
    pub fn get(&self, lane: usize) -> Balanced {
        self.0.map(|lanes| lanes[lane])
    }

    /// Whether all lanes are within the limits of a reduced element, `times` over.
    fn is_reduced(&self, times: f64) -> bool {
        (0..LANES).all(|lane| is_within(&self.get(lane), TOP_LIMIT, times))
    }

    /// Becomes `element² / 2^306`.
    #[inline]
    pub fn set_square(&mut self, proof: Fma, element: &Self, columns: &mut Sum) {
        debug_assert!(element.is_reduced(1.0));
        // SAFETY: the proof says that the processor has AVX2 and FMA; rounding is to nearest
        // (`check_rounding`). The routine reads a whole element and writes a whole sum.
        unsafe { fr_code::square(columns.0.as_mut_ptr().cast(), element.0.as_ptr().cast()) };
        columns.reduce(proof, self);
    }

    /// Becomes its square divided by 2^306.
    #[inline]
    pub fn square(&mut self, proof: Fma, columns: &mut Sum) {
        debug_assert!(self.is_reduced(1.0));
        // SAFETY: as in `set_square`.
        unsafe { fr_code::square(columns.0.as_mut_ptr().cast(), self.0.as_ptr().cast()) };
        columns.reduce(proof, self);
    }

    /// Becomes `self * other / 2^306` plus what the start has, which expects a product of elements.
    #[inline]
    pub fn times_plus(&mut self, proof: Fma, other: &Self, start: &Start, columns: &mut Sum) {
        debug_assert!(self.is_reduced(1.0) && other.is_reduced(1.0));
        // SAFETY: as in `set_square`; the routine reads two elements and a start.
        unsafe {
            fr_code::product(
                columns.0.as_mut_ptr().cast(),
                self.0.as_ptr().cast(),
                other.0.as_ptr().cast(),
                start.0.as_ptr(),
            );
        }
        columns.reduce(proof, self);
    }

    /// For each row `Σ elements[j] numbers[i + j] / 2^51`, of numbers that are integers below 2^44.
    ///
    /// # Panics
    /// If there are not 3, 9 or 12 elements, the rows are no multiple of three, or there are too
    /// few numbers.
    #[inline]
    pub fn small_rows(proof: Fma, elements: &[Self], numbers: &[f64], rows: &mut [Self]) {
        let routine = match elements.len() {
            3 => fr_code::small_rows_of_3,
            9 => fr_code::small_rows_of_9,
            12 => fr_code::small_rows_of_12,
            other => panic!("{other} elements have no small matrix"),
        };
        assert!(rows.len().is_multiple_of(3) && !rows.is_empty(), "rows come in threes");
        assert!(numbers.len() + 1 >= elements.len() + rows.len(), "numbers for all rows");
        debug_assert!(numbers.iter().all(|number| (0.0..2_f64.powi(44)).contains(number)));
        debug_assert!(elements.iter().all(|element| element.is_reduced(1.0)));
        let _ = proof;
        // SAFETY: as in `set_square`; there are as many elements, numbers and rows as it reads and
        // writes.
        unsafe {
            routine(
                rows.as_mut_ptr().cast(),
                elements.as_ptr().cast(),
                numbers.as_ptr(),
                rows.len() / 3,
            );
        }
    }

    /// The sum of two elements: to be multiplied by constants only.
    #[inline]
    pub fn plus(&self, other: &Self) -> Self {
        let mut sum = *self;
        for (limb, other) in sum.0.as_flattened_mut().iter_mut().zip(other.0.as_flattened()) {
            *limb += other;
        }
        sum
    }
}

/// What a sum begins with, in all lanes: a number, less what the products that are to be added
/// bring with them beside their value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Start([i64; COLUMNS]);

impl Start {
    /// For a sum to which exactly so many products are to be added, with constants and of
    /// elements.
    pub const fn new(constants: u32, elements: u32) -> Self {
        let mut start = [0; COLUMNS];
        let mut k = 0;
        while k < COLUMNS {
            let of_constants = fr_code::CONSTANT_PRODUCT_OFFSETS[k].wrapping_mul(constants as u64);
            let of_elements = fr_code::PRODUCT_OFFSETS[k].wrapping_mul(elements as u64);
            let brought = of_constants.wrapping_add(of_elements);
            start[k] = fr_code::SUM_OFFSETS[k].wrapping_sub(brought).cast_signed();
            k += 1;
        }
        Self(start)
    }

    /// For a sum of so many products with constants that is to be added to another one.
    pub const fn of_addend(constants: u32) -> Self {
        let mut start = Self::new(constants, 0);
        let mut k = 0;
        while k < COLUMNS {
            start.0[k] = start.0[k].wrapping_sub(fr_code::SUM_OFFSETS[k].cast_signed());
            k += 1;
        }
        start
    }

    /// The same with a number that is not multiplied by anything: to have a constant in the
    /// result, give it times 2^306.
    pub fn with(number: &Balanced, constants: u32, elements: u32) -> Self {
        let mut start = Self::new(constants, elements);
        for (column, limb) in start.0.iter_mut().zip(number) {
            *column = column.wrapping_add(*limb as i64);
        }
        start
    }
}

impl Sum {
    /// Vector operations of a product of elements that is added.
    pub const PRODUCT: u64 = fr_code::ADD_PRODUCT_OPERATIONS;

    /// Vector operations of a product with a constant that is added.
    pub const CONSTANT_PRODUCT: u64 = fr_code::ADD_CONSTANT_PRODUCTS_OPERATIONS;

    /// Vector operations of [`Sum::reduce`].
    pub const REDUCTION: u64 = fr_code::REDUCE_OPERATIONS;

    /// Room for sums, with nothing of use in it.
    pub const EMPTY: Self = Self([[0; LANES]; COLUMNS]);

    /// Becomes a start plus the products of elements, or sums of two, with constants.
    ///
    /// # Panics
    /// If there are not as many constants as elements, or none.
    #[inline]
    pub fn set_products(
        &mut self,
        proof: Fma,
        start: &Start,
        elements: &[Fr16],
        constants: &[Balanced],
    ) {
        let (Some((element, elements)), Some((constant, constants))) =
            (elements.split_first(), constants.split_first())
        else {
            panic!("a sum of no products");
        };
        debug_assert!(element.is_reduced(2.0) && is_within(constant, CONSTANT_TOP_LIMIT, 1.0));
        // SAFETY: as in `Fr16::set_square`; it reads an element, a constant and a start, and
        // writes all of the sum.
        unsafe {
            fr_code::constant_product(
                self.0.as_mut_ptr().cast(),
                element.0.as_ptr().cast(),
                constant.as_ptr(),
                start.0.as_ptr(),
            );
        }
        self.add_products(proof, elements, constants);
    }

    /// Adds the products of elements, or sums of two, with constants.
    ///
    /// # Panics
    /// If there are not as many constants as elements.
    #[inline]
    pub fn add_products(&mut self, proof: Fma, elements: &[Fr16], constants: &[Balanced]) {
        assert_eq!(elements.len(), constants.len(), "a constant for each element");
        debug_assert!(elements.iter().all(|element| element.is_reduced(2.0)));
        debug_assert!(constants.iter().all(|c| is_within(c, CONSTANT_TOP_LIMIT, 1.0)));
        let _ = proof;
        if elements.is_empty() {
            return;
        }
        // SAFETY: as in `Fr16::set_square`; it reads as many elements and constants as are told.
        unsafe {
            fr_code::add_constant_products(
                self.0.as_mut_ptr().cast(),
                elements.as_ptr().cast(),
                constants.as_ptr().cast(),
                elements.len(),
            );
        }
    }

    /// Adds the product of two elements.
    #[inline]
    pub fn add_product(&mut self, proof: Fma, left: &Fr16, right: &Fr16) {
        debug_assert!(left.is_reduced(1.0) && right.is_reduced(1.0));
        let _ = proof;
        // SAFETY: as in `Fr16::set_square`; it reads two whole elements.
        unsafe {
            fr_code::add_product(
                self.0.as_mut_ptr().cast(),
                left.0.as_ptr().cast(),
                right.0.as_ptr().cast(),
            );
        }
    }

    /// Adds another sum.
    #[inline]
    pub fn add(&mut self, other: &Self) {
        for (column, other) in self.0.as_flattened_mut().iter_mut().zip(other.0.as_flattened()) {
            *column = column.wrapping_add(*other);
        }
    }

    /// Whether all columns are within the limit of a sum, so that all expected products have been
    /// added as well.
    fn is_small(&self) -> bool {
        self.0.iter().zip(fr_code::SUM_OFFSETS).all(|(lanes, offset)| {
            lanes
                .iter()
                .all(|column| column.wrapping_sub(offset.cast_signed()).unsigned_abs() <= 1 << 60)
        })
    }

    /// Divides the sum by 2^306 and leaves nothing of use in it.
    #[inline]
    pub fn reduce(&mut self, proof: Fma, element: &mut Fr16) {
        let _ = proof;
        debug_assert!(self.is_small());
        // SAFETY: as in `Fr16::set_square`; it reads a whole sum and writes a whole element.
        unsafe { fr_code::reduce(element.0.as_mut_ptr().cast(), self.0.as_mut_ptr().cast()) };
        debug_assert!(element.is_reduced(1.0));
    }
}

#[cfg(test)]
mod tests;
