//! The fields of BLS12-381 in the lanes of AVX-512 vectors.
//!
//! One element at a time, the published `blst` is the arithmetic to use. This crate is for work
//! that does the same to many elements: with the 52-bit multiply-add of AVX-512 IFMA a core does
//! eight multiplications in less time than `blst` takes for two.
//!
//! Functions here are compiled for their instructions (`#[target_feature]`), so that they become
//! part of the caller's loop. The caller is compiled for them as well, and is entered through
//! [`Ifma`], whose existence is the proof that the processor has them.
//!
//! Knows nothing of hashes, trees or proofs.

pub mod curve;
pub mod fma;
mod fp;
#[cfg(target_arch = "x86_64")]
mod fp_ifma;
#[cfg(target_arch = "x86_64")]
pub mod fr8;
#[cfg(target_arch = "x86_64")]
mod fr_ifma;
mod ifma;
mod limbs;
pub mod ntt;
mod pages;
#[cfg(target_arch = "x86_64")]
pub mod rate;

pub use fma::Fma;
pub use ifma::Ifma;
pub use limbs::{LIMB_BITS, LIMBS, Limbs, limbs_of_bytes, limbs_of_words};
