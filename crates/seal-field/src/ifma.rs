//! The proof that this processor has the 52-bit multiply-add of AVX-512.

/// Proof that this processor has AVX-512 IFMA (`avx512f` and `avx512ifma`) and the operating
/// system keeps its registers; only [`Ifma::detect`] makes one.
///
/// Who holds it may call functions with `#[target_feature(enable = "avx512f,avx512ifma")]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ifma(Proof);

#[cfg(target_arch = "x86_64")]
type Proof = ();
/// Where no processor has the instructions there is no value of the type, so that code which
/// claims to hold one cannot run.
#[cfg(not(target_arch = "x86_64"))]
type Proof = std::convert::Infallible;

impl Ifma {
    /// The proof, if this processor gives it.
    pub fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma"))
            .then_some(Self(()));
        #[cfg(not(target_arch = "x86_64"))]
        None
    }
}
