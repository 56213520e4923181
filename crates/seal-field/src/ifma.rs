//! The proof that this processor has the 52-bit multiply-add of AVX-512.

/// Proof that this processor has AVX-512 IFMA (`avx512f` and `avx512ifma`) and the operating
/// system keeps its registers; only [`Ifma::detect`] makes one.
///
/// Who holds it may call functions with `#[target_feature(enable = "avx512f,avx512ifma")]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ifma(());

impl Ifma {
    /// The proof, if this processor gives it.
    pub fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        let has = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma");
        #[cfg(not(target_arch = "x86_64"))]
        let has = false;
        has.then_some(Self(()))
    }
}
