//! Number theoretic transforms of the scalar field, as a Groth16 prover needs them.
//!
//! From the values of a polynomial to its coefficients and back, the order is never made natural
//! in between: coefficients stand at the bit reversal of their index, and values in natural
//! order. Nor is anything scaled: [`Ntt::interpolate`] yields `n` times the coefficients, and the
//! factors of all steps are paid for once, in [`Ntt::quotient`].
//!
//! Elements are four words in the Montgomery form of blst (R = 2^256). A transform is linear, so
//! the vector kernel computes with other constants and never converts.
//!
//! Transforms run on the threads of the current rayon pool. They work in place; the vector kernel
//! takes 640 KiB more for each thread, and tables of some 200 KiB.

#[cfg(target_arch = "x86_64")]
mod ifma;
mod portable;
#[cfg(test)]
mod tests;

use blst::blst_fr;
use blstrs::Scalar;
use ff::{Field, PrimeField};

use crate::curve::CurveKernel;

/// An element in blst's Montgomery form.
pub type FrWords = [u64; 4];

/// Transforms of one length.
pub struct Ntt {
    bits: u32,
    constants: Constants,
    engine: Engine,
}

enum Engine {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Ifma(ifma::Engine),
}

/// What a transform is made of, as field elements.
#[derive(Clone, Copy)]
pub(crate) struct Constants {
    /// A primitive root of unity of the length.
    root: Scalar,
    root_inverse: Scalar,
    /// The coset's shift.
    shift: Scalar,
    shift_inverse: Scalar,
}

/// A length that has no transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTransform {
    /// Its logarithm to base 2.
    pub bits: u32,
}

impl std::fmt::Display for NoTransform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the scalar field has no transform of length 2^{}, only up to 2^32", self.bits)
    }
}

impl std::error::Error for NoTransform {}

impl Ntt {
    /// Transforms of length `2^bits` by `kernel`.
    pub fn new(kernel: CurveKernel, bits: u32) -> Result<Self, NoTransform> {
        let below = Scalar::S.checked_sub(bits).ok_or(NoTransform { bits })?;
        let mut root = Scalar::ROOT_OF_UNITY;
        for _ in 0..below {
            root = root.square();
        }
        // Neither is zero.
        let inverse = |value: Scalar| Option::<Scalar>::from(value.invert()).unwrap_or(value);
        let shift = Scalar::MULTIPLICATIVE_GENERATOR;
        let constants =
            Constants { root, root_inverse: inverse(root), shift, shift_inverse: inverse(shift) };
        let engine = match kernel.vectors() {
            #[cfg(target_arch = "x86_64")]
            Some(proof) if bits >= ifma::LEAST => {
                Engine::Ifma(ifma::Engine::new(proof, bits, &constants))
            }
            _ => Engine::Portable,
        };
        Ok(Self { bits, constants, engine })
    }

    /// The length.
    #[expect(clippy::len_without_is_empty, reason = "a transform is never empty")]
    pub fn len(&self) -> usize {
        1 << self.bits
    }

    /// From values to `n` times the coefficients, those at the bit reversal of their index.
    ///
    /// # Panics
    ///
    /// As all others here: if a slice is not of the transform's length.
    pub fn interpolate(&self, data: &mut [FrWords]) {
        self.check(data);
        match &self.engine {
            Engine::Portable => portable::interpolate(data, &self.constants),
            #[cfg(target_arch = "x86_64")]
            Engine::Ifma(engine) => engine.interpolate(data),
        }
    }

    /// From coefficients, at the bit reversal of their index, to values on the coset.
    pub fn evaluate_on_coset(&self, data: &mut [FrWords]) {
        self.check(data);
        match &self.engine {
            Engine::Portable => portable::evaluate_on_coset(data, &self.constants),
            #[cfg(target_arch = "x86_64")]
            Engine::Ifma(engine) => engine.evaluate_on_coset(data),
        }
    }

    /// From values on the coset to `n` times the coefficients, those at the bit reversal of their
    /// index.
    pub fn interpolate_on_coset(&self, data: &mut [FrWords]) {
        self.check(data);
        match &self.engine {
            Engine::Portable => portable::interpolate_on_coset(data, &self.constants),
            #[cfg(target_arch = "x86_64")]
            Engine::Ifma(engine) => engine.interpolate_on_coset(data),
        }
    }

    /// Multiplies `a` by `b`, value by value, up to the factor that [`Self::quotient`] expects.
    pub fn multiply(&self, a: &mut [FrWords], b: &[FrWords]) {
        self.check(a);
        self.check(b);
        match &self.engine {
            Engine::Portable => portable::multiply(a, b),
            #[cfg(target_arch = "x86_64")]
            Engine::Ifma(engine) => engine.multiply(a, b),
        }
    }

    /// The coefficients of `(a b - c) / (x^n - 1)`, each below the modulus and not in Montgomery
    /// form, into `product`, at the bit reversal of their index.
    ///
    /// `product` is what [`Self::interpolate_on_coset`] made of the product of `a` and `b`, both
    /// from [`Self::interpolate`] and [`Self::evaluate_on_coset`]; `c` comes from
    /// [`Self::interpolate`] alone: division by `x^n - 1`, a constant on the coset, and both
    /// transforms are linear, so `c` needs to be neither evaluated nor interpolated there.
    pub fn quotient(&self, product: &mut [FrWords], c: &[FrWords]) {
        self.check(product);
        self.check(c);
        let n = Scalar::from(1_u64 << self.bits);
        let n_inverse = Option::<Scalar>::from(n.invert()).unwrap_or(n);
        let vanishing = self.constants.shift.pow_vartime([1_u64 << self.bits]) - Scalar::ONE;
        // The generator's order is r - 1, no power of two.
        let divided = Option::<Scalar>::from(vanishing.invert()).unwrap_or(vanishing);
        let (of_c, cubed) = (divided * n_inverse, divided * n_inverse * n_inverse * n_inverse);
        match &self.engine {
            Engine::Portable => portable::quotient(product, c, cubed, of_c),
            #[cfg(target_arch = "x86_64")]
            Engine::Ifma(engine) => engine.quotient(product, c, cubed, of_c),
        }
    }

    fn check(&self, data: &[FrWords]) {
        assert_eq!(data.len(), self.len(), "the transform's length");
    }
}

/// An element of blst's Montgomery form as blstrs has it.
#[inline]
pub fn scalar_of_words(words: &FrWords) -> Scalar {
    Scalar::from(blst_fr { l: *words })
}

/// An element in blst's Montgomery form.
#[inline]
pub fn words_of_scalar(scalar: Scalar) -> FrWords {
    blst_fr::from(scalar).l
}

/// Where index `index` of `2^bits` stands in bit-reversed order.
#[inline]
pub fn bit_reversed(index: usize, bits: u32) -> usize {
    if bits == 0 { 0 } else { index.reverse_bits() >> (usize::BITS - bits) }
}
