//! Operations of the field by themselves, for tests of the arithmetic on a device or its stand-in.

use crate::batch::Node;
use crate::stream::{Argument, Span, Stream};
use crate::{CudaError, Device};

/// An operation on numbers of eight words, which need not be below the modulus `p`, only below the
/// bounds that `kernels/field.cuh` names. Lazy results are congruent and below the bounds that are
/// given, others are below `p`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `x y / 2^256`, lazily: below `p + x y / 2^256`.
    Multiply,
    /// `x x / 2^256` for `x` up to `1.1 p`.
    Square,
    /// `x + y` of numbers below `p`.
    Add,
    /// `x^5 / 2^1024 + y / 2^256` for `x` up to `1.1 p` and `y` up to `p`, lazily: below `1.724 p`.
    Quintic,
    /// `x` below `2 p`, less `p` if it is not below.
    Subtract,
    /// `x + (y + Σ x y) / 2^288` over twelve pairs from this one on, from the first again after the
    /// last; for `x` up to `2.2 p` and `y` up to `p`, lazily: below `2^256`.
    Dot,
    /// `Σ x e / 2^64`, where `e` is the lowest word of `y`; over the same pairs; of sums up to
    /// `2^304`, lazily: below `p + 2^240`.
    SmallDot1,
    /// The same with the two lowest words.
    SmallDot2,
    /// `x x / 2^256` for `x` up to `1.1 p`, lazily: below `p + x x / 2^256`.
    SquareLazy,
    /// `(x y + y) / 2^256` for `y` up to `p`, lazily: below `p + x y / 2^256`.
    MultiplyAdd,
    /// `(y + Σ x y) / 2^288` as in [`Self::Dot`], lazily: below `p + p / 2^28`.
    DotAlone,
}

/// The operation on each pair of `a` and `b`.
///
/// # Panics
/// When they differ in length.
pub fn field(
    device: &Device,
    operation: Operation,
    a: &[Node],
    b: &[Node],
) -> Result<Vec<Node>, CudaError> {
    assert_eq!(a.len(), b.len(), "pairs");
    let count = a.len();
    let mut stream = Stream::new(device, 3 * count)?;
    let [left, right, out] = [0, 1, 2].map(|area| Span { first: area * count, nodes: count });
    let mut results = vec![[0; 32]; count];
    let kernel = device.0.kernel("seal_field")?;
    stream.in_flight(|work| {
        work.upload(left, a)?;
        work.upload(right, b)?;
        work.launch(
            kernel,
            count,
            &[
                Argument::Number(operation as u64),
                Argument::Nodes(left),
                Argument::Nodes(right),
                Argument::Count(count),
                Argument::Nodes(out),
            ],
        )?;
        work.download(&mut results, out)
    })?;
    Ok(results)
}
