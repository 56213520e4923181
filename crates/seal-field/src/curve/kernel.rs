//! Which curve, and by which instructions.

use blst::{blst_fp, blst_fp2, blst_p1_affine, blst_p2_affine};

use super::portable;
use super::sums::{Batch, PointRef};
#[cfg(target_arch = "x86_64")]
use super::{ifma, ifma_g1, ifma_g2};
use crate::Ifma;
use crate::fp::{Fp, Fp2, Words, below_p, negative, power_of_two};

/// An affine point over a field of degree `D`, in the Montgomery form of a kernel. All zero is
/// the point at infinity. Aligned so that a point of G1 lies in two cache lines and never in three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct Packed<const D: usize> {
    pub(crate) x: [Words; D],
    pub(crate) y: [Words; D],
}

impl<const D: usize> Packed<D> {
    /// The point at infinity.
    pub const INFINITY: Self = Self { x: [[0; 6]; D], y: [[0; 6]; D] };

    /// Whether this is the point at infinity.
    #[inline]
    pub fn is_infinity(&self) -> bool {
        *self == Self::INFINITY
    }

    /// The opposite point, in whatever form this one is.
    pub(crate) fn negated(&self) -> Self {
        Self { x: self.x, y: self.y.map(|part| negative(&part)) }
    }
}

impl<const D: usize> Default for Packed<D> {
    fn default() -> Self {
        Self::INFINITY
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Isa {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Ifma(Ifma),
}

/// The chosen arithmetic. Holding one is proof that this processor can run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurveKernel(Isa);

/// A kernel was asked for that this processor or this build does not have.
#[derive(Debug, PartialEq, Eq)]
pub struct CurveKernelError {
    /// What was asked for.
    pub name: String,
}

impl std::fmt::Display for CurveKernelError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name } = self;
        write!(f, "the kernel {name:?} for curve points is not available here; there are: ")?;
        let names: Vec<_> = CurveKernel::available().map(CurveKernel::name).collect();
        f.write_str(&names.join(", "))
    }
}

impl std::error::Error for CurveKernelError {}

impl CurveKernel {
    /// The fastest kernel of this processor.
    pub fn detect() -> Self {
        Self::ifma().unwrap_or(Self::portable())
    }

    /// The kernel called `name`: `portable` or `ifma`.
    pub fn by_name(name: &str) -> Result<Self, CurveKernelError> {
        Self::available()
            .find(|kernel| kernel.name() == name)
            .ok_or_else(|| CurveKernelError { name: name.to_owned() })
    }

    /// All kernels this processor can run.
    pub fn available() -> impl Iterator<Item = Self> {
        [Some(Self::portable()), Self::ifma()].into_iter().flatten()
    }

    /// The kernel that every processor can run, over blst.
    pub const fn portable() -> Self {
        Self(Isa::Portable)
    }

    /// The kernel for AVX-512 IFMA.
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
            Isa::Ifma(_) => "ifma",
        }
    }

    /// The proof that vectors can be used, where this is their kernel.
    pub(crate) fn vectors(self) -> Option<Ifma> {
        match self.0 {
            Isa::Portable => None,
            #[cfg(target_arch = "x86_64")]
            Isa::Ifma(proof) => Some(proof),
        }
    }

    /// An element as this kernel keeps it.
    fn pack(self, element: &blst_fp) -> Words {
        match self.0 {
            Isa::Portable => element.l,
            // blst has R = 2^384, IFMA R = 2^416; blst's product divides by 2^384.
            #[cfg(target_arch = "x86_64")]
            Isa::Ifma(_) => Fp(*element).mul(&Fp(blst_fp { l: power_of_two(416) })).0.l,
        }
    }

    /// An element as blst keeps it.
    fn unpack(self, words: &Words) -> blst_fp {
        let element = blst_fp { l: below_p(words) };
        match self.0 {
            Isa::Portable => element,
            #[cfg(target_arch = "x86_64")]
            Isa::Ifma(_) => Fp(element).mul(&Fp(blst_fp { l: power_of_two(352) })).0,
        }
    }
}

mod sealed {
    use super::{Batch, CurveKernel, PointRef};

    /// What [`super::Curve`] does behind its interface.
    pub trait Kernels: Sized {
        type Affine: Copy + Send + Sync;
        type Packed: Copy + Default + PartialEq + Send + Sync + std::fmt::Debug;

        fn pack(kernel: CurveKernel, point: &Self::Affine) -> Self::Packed;
        fn unpack(kernel: CurveKernel, point: &Self::Packed) -> Self::Affine;
        fn negated(point: &Self::Packed) -> Self::Packed;
        /// `out[i] = pairs[i][0] + pairs[i][1]`.
        fn add_pairs(
            kernel: CurveKernel,
            source: &[Self::Packed],
            pairs: &[[PointRef; 2]],
            out: &mut [Self::Packed],
            batch: &mut Batch,
        );
        /// The point whose uncompressed form is `bytes`, checked to be on the curve.
        fn decode(bytes: &[u8]) -> Option<Self::Affine>;
    }
}
pub(crate) use sealed::Kernels;

/// One of the two groups.
pub trait Curve: Kernels + Copy + Send + Sync + 'static {
    /// Its name in messages.
    const NAME: &'static str;
    /// Bytes of an uncompressed point in a file.
    const BYTES: usize;
}

/// The group over the base field.
#[derive(Clone, Copy, Debug)]
pub struct G1;

/// The group over the quadratic extension.
#[derive(Clone, Copy, Debug)]
pub struct G2;

impl Curve for G1 {
    const NAME: &'static str = "G1";
    const BYTES: usize = 96;
}

impl Curve for G2 {
    const NAME: &'static str = "G2";
    const BYTES: usize = 192;
}

impl Kernels for G1 {
    type Affine = blst_p1_affine;
    type Packed = Packed<1>;

    fn pack(kernel: CurveKernel, point: &blst_p1_affine) -> Packed<1> {
        Packed { x: [kernel.pack(&point.x)], y: [kernel.pack(&point.y)] }
    }

    fn unpack(kernel: CurveKernel, point: &Packed<1>) -> blst_p1_affine {
        blst_p1_affine { x: kernel.unpack(&point.x[0]), y: kernel.unpack(&point.y[0]) }
    }

    fn negated(point: &Packed<1>) -> Packed<1> {
        point.negated()
    }

    fn add_pairs(
        kernel: CurveKernel,
        source: &[Packed<1>],
        pairs: &[[PointRef; 2]],
        out: &mut [Packed<1>],
        batch: &mut Batch,
    ) {
        match kernel.0 {
            Isa::Portable => portable::add_pairs::<Fp, 1>(source, pairs, out),
            #[cfg(target_arch = "x86_64")]
            Isa::Ifma(proof) => ifma_g1::add_pairs(proof, source, pairs, out, batch),
        }
    }

    fn decode(bytes: &[u8]) -> Option<blst_p1_affine> {
        let bytes: &[u8; 96] = bytes.try_into().ok()?;
        let mut point = blst_p1_affine::default();
        // SAFETY: blst reads 96 bytes unless the first says that the point is compressed, when it
        // reads fewer; the reference is to 96.
        let error = unsafe { blst::blst_p1_deserialize(&mut point, bytes.as_ptr()) };
        // A compressed point would be read as well, so the flag is looked at here.
        (error == blst::BLST_ERROR::BLST_SUCCESS && bytes[0] & 0x80 == 0).then_some(point)
    }
}

impl Kernels for G2 {
    type Affine = blst_p2_affine;
    type Packed = Packed<2>;

    fn pack(kernel: CurveKernel, point: &blst_p2_affine) -> Packed<2> {
        let pack = |element: &blst_fp2| element.fp.map(|part| kernel.pack(&part));
        Packed { x: pack(&point.x), y: pack(&point.y) }
    }

    fn unpack(kernel: CurveKernel, point: &Packed<2>) -> blst_p2_affine {
        let unpack = |words: &[Words; 2]| blst_fp2 { fp: words.map(|part| kernel.unpack(&part)) };
        blst_p2_affine { x: unpack(&point.x), y: unpack(&point.y) }
    }

    fn negated(point: &Packed<2>) -> Packed<2> {
        point.negated()
    }

    fn add_pairs(
        kernel: CurveKernel,
        source: &[Packed<2>],
        pairs: &[[PointRef; 2]],
        out: &mut [Packed<2>],
        batch: &mut Batch,
    ) {
        match kernel.0 {
            Isa::Portable => portable::add_pairs::<Fp2, 2>(source, pairs, out),
            #[cfg(target_arch = "x86_64")]
            Isa::Ifma(proof) => ifma_g2::add_pairs(proof, source, pairs, out, batch),
        }
    }

    fn decode(bytes: &[u8]) -> Option<blst_p2_affine> {
        let bytes: &[u8; 192] = bytes.try_into().ok()?;
        let mut point = blst_p2_affine::default();
        // SAFETY: blst reads 192 bytes unless the first says that the point is compressed, when
        // it reads fewer; the reference is to 192.
        let error = unsafe { blst::blst_p2_deserialize(&mut point, bytes.as_ptr()) };
        (error == blst::BLST_ERROR::BLST_SUCCESS && bytes[0] & 0x80 == 0).then_some(point)
    }
}

/// The sum of two points in the form of the IFMA kernel, whatever they are.
#[cfg(target_arch = "x86_64")]
pub(crate) fn add_one<C, F, const D: usize>(
    proof: Ifma,
    source: &[Packed<D>],
    pair: [PointRef; 2],
) -> Packed<D>
where
    C: Curve<Packed = Packed<D>>,
    F: portable::Field<D>,
{
    let (own, plain) = (CurveKernel(Isa::Ifma(proof)), CurveKernel(Isa::Portable));
    let source = pair.map(|at| {
        let point = C::pack(plain, &C::unpack(own, &source[at.index()]));
        if at.is_minus() { point.negated() } else { point }
    });
    let mut out = [Packed::INFINITY];
    portable::add_pairs::<F, D>(&source, &[[PointRef::plus(0), PointRef::plus(1)]], &mut out);
    C::pack(own, &C::unpack(plain, &out[0]))
}

#[cfg(target_arch = "x86_64")]
pub(crate) use ifma::Workspace;
