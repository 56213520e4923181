//! The Poseidon hash of Filecoin's trees: arities 2, 8 and 11 over the BLS12-381 scalar field.
//!
//! A hash takes exactly `arity` field elements: the columns of a sector (2 or 11 layers), the
//! rows of tree C and tree R last (8 children, 2 or 8 on the upper rows), and `comm_r` (2). Every
//! constant is derived in code from the specification: round numbers ([`RoundNumbers`]), round
//! constants (Grain LFSR), the Cauchy MDS matrix, and from these the form in which most rounds
//! multiply by a sparse matrix.
//!
//! Source: Grassi et al., "Poseidon: A New Hash Function for Zero-Knowledge Proof Systems"
//! (ePrint 2019/458), and the Filecoin specification, section "Poseidon".
//!
//! Knows nothing of trees, files or sectors.

mod batch;
mod constants;
mod element;
#[cfg(target_arch = "x86_64")]
mod fma;
mod grain;
mod hash;
#[cfg(target_arch = "x86_64")]
mod ifma;
mod kernel;
mod lean;
mod matrix;
mod permutation;
mod portable;
mod rounds;
#[cfg(target_arch = "x86_64")]
mod terms;

pub use batch::{BadLabel, Hasher};
pub use element::{NotCanonical, element_from_bytes, element_to_bytes, elements_from_bytes};
pub use hash::Poseidon;
pub use kernel::{Kernel, KernelError};
pub use lean::{Lean, LeanPartial, Reduction};
pub use rounds::RoundNumbers;

/// An element of the BLS12-381 scalar field.
pub use blstrs::Scalar as Fr;
