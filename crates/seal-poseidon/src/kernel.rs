//! Choice of the kernel at run time.

#[cfg(target_arch = "x86_64")]
use seal_field::{Fma, Ifma};

/// How a batch is computed. The variants wrap what proves that the processor can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Fma(Fma),
    #[cfg(target_arch = "x86_64")]
    Ifma(Ifma),
}

/// The chosen kernel. Holding one is proof that this processor can run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(pub(crate) Isa);

/// A kernel was asked for that this processor or this build does not have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Poseidon kernel {name:?} is not available here; there are: {}", names())]
pub struct KernelError {
    /// What was asked for.
    pub name: String,
}

fn names() -> String {
    Kernel::available().map(Kernel::name).collect::<Vec<_>>().join(", ")
}

impl Kernel {
    /// The fastest kernel of this processor.
    pub fn detect() -> Self {
        Self::available().last().unwrap_or(Self::portable())
    }

    /// The kernel called `name`: `portable`, `fma` or `ifma`.
    pub fn by_name(name: &str) -> Result<Self, KernelError> {
        Self::available()
            .find(|kernel| kernel.name() == name)
            .ok_or_else(|| KernelError { name: name.to_owned() })
    }

    /// All kernels this processor can run, the fastest last.
    pub fn available() -> impl Iterator<Item = Self> {
        [Some(Self::portable()), Self::fma(), Self::ifma()].into_iter().flatten()
    }

    /// The kernel that every processor can run.
    pub const fn portable() -> Self {
        Self(Isa::Portable)
    }

    /// The kernel in double precision with fused multiply-add, sixteen hashes at a time.
    pub fn fma() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return Fma::detect().map(|proof| Self(Isa::Fma(proof)));
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// The kernel for the 52-bit multiply-add of AVX-512, eight hashes at a time.
    pub fn ifma() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return Ifma::detect().map(|proof| Self(Isa::Ifma(proof)));
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// The kernel's name.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Isa::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Isa::Fma(_) => "fma",
            #[cfg(target_arch = "x86_64")]
            Isa::Ifma(_) => "ifma",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::skip::skipped;

    /// The other tests go through the kernels that there are; this one tells which there are not.
    #[test]
    fn kernels_that_are_not_tested_here_are_named() {
        let required = std::env::var("SEAL_REQUIRE_ISA").unwrap_or_default();
        let required: Vec<_> = required.split(',').map(str::trim).collect();
        assert_eq!(Kernel::available().next(), Some(Kernel::portable()));
        if Kernel::fma().is_none() {
            assert!(!required.contains(&"fma"), "SEAL_REQUIRE_ISA: fma is not available");
            skipped("Poseidon in double precision", "this processor has no AVX2 and FMA");
        }
        if Kernel::ifma().is_none() {
            assert!(!required.contains(&"ifma"), "SEAL_REQUIRE_ISA: ifma is not available");
            skipped("Poseidon in AVX-512 vectors", "this processor has no AVX-512 IFMA");
        }
    }

    #[test]
    fn unknown_kernels_are_refused_by_name() {
        let error = Kernel::by_name("mmx").unwrap_err();
        assert!(error.to_string().contains("\"mmx\""), "{error}");
        assert!(error.to_string().ends_with(Kernel::available().last().unwrap().name()), "{error}");
        for kernel in Kernel::available() {
            assert_eq!(Kernel::by_name(kernel.name()), Ok(kernel));
        }
    }
}
