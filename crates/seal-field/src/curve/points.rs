//! Lists of points in the form of a kernel.

use rayon::prelude::*;

use super::kernel::{Curve, CurveKernel};
use crate::pages::advise_huge_pages;

/// Points of one curve in the Montgomery form of one kernel.
#[derive(Clone, Debug)]
pub struct Points<C: Curve> {
    kernel: CurveKernel,
    packed: Vec<C::Packed>,
}

/// Neighbours in a list, to write to.
#[derive(Debug)]
pub struct PointsMut<'a, C: Curve> {
    pub(crate) kernel: CurveKernel,
    pub(crate) packed: &'a mut [C::Packed],
}

impl<'a, C: Curve> From<&'a mut Points<C>> for PointsMut<'a, C> {
    fn from(points: &'a mut Points<C>) -> Self {
        Self { kernel: points.kernel, packed: &mut points.packed }
    }
}

/// A point in a file that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PointFault {
    /// Its place in the list, from 0.
    pub index: usize,
}

impl<C: Curve> Points<C> {
    /// `count` times the point at infinity.
    pub fn infinity(kernel: CurveKernel, count: usize) -> Self {
        let mut points = Self::with_capacity(kernel, count);
        points.packed.resize(count, C::Packed::default());
        points
    }

    /// No points yet, and room for `count`.
    pub fn with_capacity(kernel: CurveKernel, count: usize) -> Self {
        let mut packed = Vec::with_capacity(count);
        // Points are read in no order: with small pages every one would miss the address cache.
        advise_huge_pages(packed.spare_capacity_mut());
        Self { kernel, packed }
    }

    /// The given points.
    pub fn of_affine(kernel: CurveKernel, points: &[C::Affine]) -> Self {
        let mut out = Self::with_capacity(kernel, points.len());
        out.packed.extend(points.iter().map(|point| C::pack(kernel, point)));
        out
    }

    /// Appends the points of `bytes`, uncompressed as zcash's format has them, each checked to be
    /// on the curve. Bytes behind the last whole point are left alone.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<(), PointFault> {
        let points = bytes.chunks_exact(C::BYTES);
        self.packed.reserve(points.len());
        for (index, bytes) in points.enumerate() {
            let point = C::decode(bytes).ok_or(PointFault { index })?;
            self.packed.push(C::pack(self.kernel, &point));
        }
        Ok(())
    }

    /// The kernel that adds them.
    pub fn kernel(&self) -> CurveKernel {
        self.kernel
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.packed.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// The point at `index`, in blst's form.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn get(&self, index: usize) -> C::Affine {
        C::unpack(self.kernel, &self.packed[index])
    }

    /// Whether the point at `index` is the one at infinity.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn is_infinity(&self, index: usize) -> bool {
        self.packed[index] == C::Packed::default()
    }

    /// Puts other points behind these.
    ///
    /// # Panics
    ///
    /// If they belong to another kernel.
    pub fn append(&mut self, mut other: Self) {
        assert!(self.kernel == other.kernel, "one kernel");
        self.packed.append(&mut other.packed);
    }

    /// Keeps the first `count` points.
    pub fn truncate(&mut self, count: usize) {
        self.packed.truncate(count);
    }

    /// The points in parts of `count`, of which the last may be shorter, for threads to write to.
    ///
    /// # Panics
    ///
    /// If `count` is zero.
    pub fn par_chunks_mut(
        &mut self,
        count: usize,
    ) -> impl IndexedParallelIterator<Item = PointsMut<'_, C>> {
        let kernel = self.kernel;
        self.packed.par_chunks_mut(count).map(move |packed| PointsMut { kernel, packed })
    }

    /// Exchanges the points at two places.
    ///
    /// # Panics
    ///
    /// If there is none at one of them.
    pub fn swap(&mut self, one: usize, other: usize) {
        self.packed.swap(one, other);
    }

    pub(crate) fn packed(&self) -> &[C::Packed] {
        &self.packed
    }
}
