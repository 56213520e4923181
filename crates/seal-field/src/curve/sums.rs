//! Sums of groups of points.
//!
//! A group is halved again and again: its points are added two by two, all groups of a block at
//! the same time, so that some thousand additions share an inversion. A block and its halves
//! stay in the processor's cache; only the points themselves come from memory.

#[cfg(target_arch = "x86_64")]
use super::kernel::Workspace;
use super::kernel::{Curve, CurveKernel};
use super::points::{Points, PointsMut};

/// How many points are worked on at a time: 4096 additions in the first halving.
const BLOCK: usize = 8192;
/// How many additions share an inversion.
pub(crate) const BATCH: usize = 2048;

/// A point by its place in a list, or its negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PointRef(u32);

impl PointRef {
    const MINUS: u32 = 1 << 31;

    /// How many places there are: 2^31.
    pub const LIMIT: usize = 1 << 31;

    /// The point at `index`, which must be below 2^31.
    #[inline]
    pub fn plus(index: u32) -> Self {
        debug_assert!(index < Self::MINUS);
        Self(index)
    }

    /// The negative of the point at `index`, which must be below 2^31.
    #[inline]
    pub fn minus(index: u32) -> Self {
        debug_assert!(index < Self::MINUS);
        Self(index | Self::MINUS)
    }

    /// The place in the list.
    #[inline]
    pub fn index(self) -> usize {
        (self.0 & !Self::MINUS) as usize
    }

    /// The negative of this one.
    #[inline]
    #[must_use]
    pub fn negated(self) -> Self {
        Self(self.0 ^ Self::MINUS)
    }

    /// Whether the negative is meant.
    #[inline]
    pub fn is_minus(self) -> bool {
        self.0 & Self::MINUS != 0
    }
}

/// Room for a batch of additions.
pub struct Batch {
    #[cfg(target_arch = "x86_64")]
    pub(crate) lanes: Workspace,
}

/// Adds groups of points; keeps its memory (about 2 MiB in G1, 4 MiB in G2) from call to call.
pub struct PointSums<C: Curve> {
    kernel: CurveKernel,
    batch: Batch,
    level: [Vec<C::Packed>; 2],
    refs: Vec<PointRef>,
    lengths: Vec<usize>,
    pairs: Vec<[PointRef; 2]>,
    alone: Vec<PointRef>,
}

impl<C: Curve> PointSums<C> {
    /// Sums by `kernel`.
    pub fn new(kernel: CurveKernel) -> Self {
        Self {
            kernel,
            batch: Batch {
                #[cfg(target_arch = "x86_64")]
                lanes: Workspace::default(),
            },
            level: Default::default(),
            refs: Vec::new(),
            lengths: Vec::new(),
            pairs: Vec::new(),
            alone: Vec::new(),
        }
    }

    /// The sum of each group of `points`, into `out`, one for each group, whatever stood there.
    /// Group `i` is `refs[ends[i - 1]..ends[i]]`, the first one from 0; an empty group sums up to
    /// infinity.
    ///
    /// # Panics
    ///
    /// If `points` and `out` belong to another kernel, `out` is not as long as `ends`, an end is
    /// beyond `refs` or before the one before, or a reference beyond `points`.
    pub fn sum_groups<'a>(
        &mut self,
        points: &Points<C>,
        refs: &[PointRef],
        ends: &[usize],
        out: impl Into<PointsMut<'a, C>>,
    ) {
        let PointsMut { kernel, packed } = out.into();
        assert!(points.kernel() == self.kernel && kernel == self.kernel, "one kernel");
        self.sum_packed(points.packed(), refs, ends, packed);
    }

    fn sum_packed(
        &mut self,
        points: &[C::Packed],
        refs: &[PointRef],
        ends: &[usize],
        out: &mut [C::Packed],
    ) {
        assert_eq!(out.len(), ends.len(), "one sum for each group");
        let (mut first, mut start) = (0, 0);
        while first < ends.len() {
            if ends[first] - start > BLOCK {
                out[first] = self.sum_long(points, &refs[start..ends[first]]);
                start = ends[first];
                first += 1;
                continue;
            }
            let fits = |end: &usize| *end - start <= BLOCK;
            let last = first + ends[first..].iter().take_while(|end| fits(end)).count();
            let end = ends[last - 1];
            self.lengths.clear();
            let mut before = start;
            for end in &ends[first..last] {
                self.lengths.push(end - before);
                before = *end;
            }
            self.sum_block(points, &refs[start..end], &mut out[first..last]);
            (first, start) = (last, end);
        }
    }

    /// The sum of one group of more than a block.
    fn sum_long(&mut self, points: &[C::Packed], refs: &[PointRef]) -> C::Packed {
        let mut parts = Vec::with_capacity(refs.len().div_ceil(BLOCK));
        for part in refs.chunks(BLOCK) {
            let mut sum = [C::Packed::default()];
            self.sum_packed(points, part, &[part.len()], &mut sum);
            parts.extend(sum);
        }
        // At most 2^31 / BLOCK parts.
        let all: Vec<_> = (0..parts.len() as u32).map(PointRef::plus).collect();
        let mut sum = [C::Packed::default()];
        self.sum_packed(&parts, &all, &[all.len()], &mut sum);
        sum[0]
    }

    /// The sums of groups of `self.lengths` points each.
    fn sum_block(&mut self, points: &[C::Packed], refs: &[PointRef], out: &mut [C::Packed]) {
        let kernel = self.kernel;
        out.fill(C::Packed::default());
        let [mut from, mut to] = std::mem::take(&mut self.level);
        let mut is_first = true;
        self.refs.clear();
        self.refs.extend_from_slice(refs);
        loop {
            let source = if is_first { points } else { &from };
            self.pairs.clear();
            self.alone.clear();
            let mut rest = self.refs.as_slice();
            for (length, out) in self.lengths.iter_mut().zip(&mut *out) {
                let (group, after) = rest.split_at(*length);
                rest = after;
                if let [one] = group {
                    let point = &source[one.index()];
                    *out = if one.is_minus() { C::negated(point) } else { *point };
                    *length = 0;
                    continue;
                }
                let (pairs, alone) = group.as_chunks::<2>();
                self.pairs.extend_from_slice(pairs);
                self.alone.extend_from_slice(alone);
            }
            if self.pairs.is_empty() {
                break;
            }
            // Sums first, then what found no partner.
            to.resize(self.pairs.len(), C::Packed::default());
            for (pairs, to) in self.pairs.chunks(BATCH).zip(to.chunks_mut(BATCH)) {
                C::add_pairs(kernel, source, pairs, to, &mut self.batch);
            }
            for one in &self.alone {
                let point = &source[one.index()];
                to.push(if one.is_minus() { C::negated(point) } else { *point });
            }
            self.refs.clear();
            let (mut sum, mut alone) = (0, self.pairs.len() as u32);
            for length in &mut self.lengths {
                let pairs = (*length / 2) as u32;
                self.refs.extend((sum..sum + pairs).map(PointRef::plus));
                sum += pairs;
                if *length % 2 == 1 {
                    self.refs.push(PointRef::plus(alone));
                    alone += 1;
                }
                *length = length.div_ceil(2);
            }
            std::mem::swap(&mut from, &mut to);
            is_first = false;
        }
        self.level = [from, to];
    }
}
