//! The fields in double precision, for processors without AVX-512 IFMA.

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
