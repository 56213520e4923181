//! The fields in double precision, for processors without AVX-512 IFMA.

#[cfg(target_arch = "x86_64")]
pub mod fr;
#[cfg(target_arch = "x86_64")]
mod fr_code;

/// Proof that this processor has AVX2 and FMA (`avx2` and `fma`) and the operating system keeps
/// their registers; only [`Fma::detect`] makes one.
///
/// Who holds it may call functions with `#[target_feature(enable = "avx2,fma")]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fma(Proof);

#[cfg(target_arch = "x86_64")]
type Proof = ();
/// As in [`crate::Ifma`]: no value where no processor has the instructions.
#[cfg(not(target_arch = "x86_64"))]
type Proof = std::convert::Infallible;

impl Fma {
    /// The proof, if this processor gives it.
    pub fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"))
            .then_some(Self(()));
        #[cfg(not(target_arch = "x86_64"))]
        None
    }
}

/// Makes sure that this thread rounds to nearest and keeps small numbers, on which all that is
/// exact here depends. Nothing of this project changes either.
///
/// # Panics
/// If a library has changed the mode of the thread.
#[cfg(target_arch = "x86_64")]
#[inline]
pub fn check_rounding() {
    /// Rounding, and what flushes numbers to zero.
    const MODES: u32 = 3 << 13 | 1 << 15 | 1 << 6;
    let mut control = 0_u32;
    // SAFETY: the instruction writes four bytes to where it is told, which are there.
    unsafe {
        std::arch::asm!(
            "stmxcsr [{control}]",
            control = in(reg) &raw mut control,
            options(nostack, preserves_flags),
        );
    }
    assert!(
        control & MODES == 0,
        "this thread does not round to nearest (MXCSR is {control:#x}): kernels in double \
         precision would be wrong; a library that was loaded into the process has changed the \
         mode"
    );
}
