//! The kernels in this binary: machine code for some architectures, and PTX for all others.

use std::fmt;

/// Bytes at a place where numbers of any width can be read, which those of `include_bytes!` need
/// not be. An image is a structure of such numbers to the driver.
#[cfg(any(test, feature = "cuda"))]
#[repr(C, align(64))]
struct Aligned<B: ?Sized>(B);

/// The kernels, if the feature `cuda` was on.
pub fn embedded() -> Option<&'static [u8]> {
    #[cfg(feature = "cuda")]
    {
        static KERNELS: &Aligned<[u8]> =
            &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin")));
        Some(&KERNELS.0)
    }
    #[cfg(not(feature = "cuda"))]
    None
}

/// The oldest architecture that there is an image for, if there is any.
pub(crate) fn oldest() -> Option<u32> {
    architectures().min()
}

fn architectures() -> impl Iterator<Item = u32> {
    ARCHITECTURES.split(',').filter_map(|number| number.parse().ok())
}

/// What nvcc has said of every kernel's registers, stack and spills, for every architecture.
pub fn report() -> Option<&'static str> {
    #[cfg(feature = "cuda")]
    return Some(include_str!(concat!(env!("OUT_DIR"), "/ptxas.txt")));
    #[cfg(not(feature = "cuda"))]
    None
}

/// The architectures that there is machine code for. PTX is that of the oldest, so that every newer
/// device can take it: nothing in the kernels is special to an architecture. Set by build.rs.
const ARCHITECTURES: &str = match option_env!("SEAL_CUDA_BUILT_ARCHITECTURES") {
    Some(list) => list,
    None => "",
};

/// Which image of the kernels a device takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    /// Machine code for this architecture.
    Machine(u32),
    /// The driver compiles PTX of this architecture, at start.
    Ptx(u32),
    /// None that is known of: the driver will say.
    Unknown,
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(architecture) => write!(f, "sm_{architecture}"),
            Self::Ptx(architecture) => write!(f, "PTX of compute_{architecture}"),
            Self::Unknown => f.write_str("of an unknown image"),
        }
    }
}

impl Image {
    pub(crate) fn for_device(compute: (i32, i32)) -> Self {
        Self::choose(&architectures().collect::<Vec<_>>(), compute)
    }

    /// As the driver chooses: machine code runs on devices of the same major number and the same
    /// or a higher minor one.
    fn choose(architectures: &[u32], (major, minor): (i32, i32)) -> Self {
        let (Ok(major), Ok(minor)) = (u32::try_from(major), u32::try_from(minor)) else {
            return Self::Unknown;
        };
        let machine =
            architectures.iter().filter(|&&built| built / 10 == major && built % 10 <= minor).max();
        let oldest = architectures.iter().min().filter(|&&oldest| oldest <= major * 10 + minor);
        match (machine, oldest) {
            (Some(&built), _) => Self::Machine(built),
            (None, Some(&oldest)) => Self::Ptx(oldest),
            (None, None) => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_lie_where_the_driver_can_read_numbers() {
        // Of odd lengths, so that they would not be aligned by chance one after the other.
        static SOME: [&Aligned<[u8]>; 3] =
            [&Aligned(*b"a"), &Aligned(*include_bytes!("images.rs")), &Aligned(*b"abc")];
        for image in SOME {
            assert_eq!(image.0.as_ptr().addr() % 64, 0);
        }
        assert!(SOME[1].0.starts_with(b"//!"));
        assert!(embedded().is_none_or(|image| image.as_ptr().addr() % 64 == 0));
        assert_eq!(embedded().is_some(), cfg!(feature = "cuda"));
    }

    #[test]
    fn a_device_takes_machine_code_of_its_own_major_number_or_older_ptx() {
        let built = [80, 86, 89, 90, 120];
        for (compute, image) in [
            ((8, 0), Image::Machine(80)),
            ((8, 7), Image::Machine(86)),
            ((8, 9), Image::Machine(89)),
            ((9, 0), Image::Machine(90)),
            ((12, 1), Image::Machine(120)),
            ((13, 0), Image::Ptx(80)),
            ((10, 0), Image::Ptx(80)),
            ((7, 5), Image::Unknown),
        ] {
            assert_eq!(Image::choose(&built, compute), image, "{compute:?}");
        }
        assert_eq!(Image::choose(&[], (9, 0)), Image::Unknown);
    }
}
