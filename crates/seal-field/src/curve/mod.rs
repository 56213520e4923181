//! Points of the two groups of BLS12-381, and sums of many of them.
//!
//! Everything a Groth16 prover does with points comes down to sums of groups of points: the
//! buckets of a multi-scalar multiplication, the points whose scalar is one, the digits of a
//! multiplication by tables. So there is one operation, [`PointSums::sum_groups`], and it adds in
//! affine coordinates: a whole batch shares one inversion, which leaves 6 field multiplications
//! per addition where projective formulas take 11 or more, and needs no more memory than the
//! points themselves.
//!
//! Points are kept in the Montgomery form of the kernel that adds them ([`CurveKernel`]), 96 bytes
//! in G1 and 192 in G2, so [`Points`] knows its kernel.

#[cfg(target_arch = "x86_64")]
mod ifma;
#[cfg(target_arch = "x86_64")]
mod ifma_g1;
#[cfg(target_arch = "x86_64")]
mod ifma_g2;
mod kernel;
mod points;
mod portable;
mod sums;
#[cfg(test)]
mod tests;

pub use kernel::{Curve, CurveKernel, CurveKernelError, G1, G2, Packed};
pub use points::{PointFault, Points, PointsMut};
pub use sums::{PointRef, PointSums};
