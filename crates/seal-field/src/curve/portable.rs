//! Additions in affine coordinates over blst's field, for every processor.

use crate::fp::{Fp, Fp2, Words};
use blst::{blst_fp, blst_fp2};

use super::kernel::Packed;
use super::sums::PointRef;

/// What the formulas need of a field of degree `D`.
pub(crate) trait Field<const D: usize>: Copy + PartialEq + Default {
    const ONE: Self;
    fn of_words(words: &[Words; D]) -> Self;
    fn words(&self) -> [Words; D];
    fn mul(&self, other: &Self) -> Self;
    fn sqr(&self) -> Self;
    fn add(&self, other: &Self) -> Self;
    fn sub(&self, other: &Self) -> Self;
    fn inverse(&self) -> Self;
}

macro_rules! field {
    ($name:ident, $degree:literal, $of:expr, $words:expr) => {
        impl Field<$degree> for $name {
            const ONE: Self = Self::ONE;
            fn of_words(words: &[Words; $degree]) -> Self {
                Self($of(words))
            }
            fn words(&self) -> [Words; $degree] {
                $words(&self.0)
            }
            fn mul(&self, other: &Self) -> Self {
                self.mul(other)
            }
            fn sqr(&self) -> Self {
                self.sqr()
            }
            fn add(&self, other: &Self) -> Self {
                self.add(other)
            }
            fn sub(&self, other: &Self) -> Self {
                self.sub(other)
            }
            fn inverse(&self) -> Self {
                self.inverse()
            }
        }
    };
}

field!(Fp, 1, |words: &[Words; 1]| blst_fp { l: words[0] }, |element: &blst_fp| [element.l]);
field!(
    Fp2,
    2,
    |words: &[Words; 2]| blst_fp2 { fp: words.map(|l| blst_fp { l }) },
    |element: &blst_fp2| element.fp.map(|part| part.l)
);

#[derive(Clone, Copy)]
struct Point<F> {
    x: F,
    y: F,
}

fn point<F: Field<D>, const D: usize>(source: &[Packed<D>], at: PointRef) -> Point<F> {
    let packed = &source[at.index()];
    let (x, y) = (F::of_words(&packed.x), F::of_words(&packed.y));
    Point { x, y: if at.is_minus() { F::default().sub(&y) } else { y } }
}

/// What is left to do for a pair when the inverse of `divisor` is known.
enum Step<F> {
    /// The slope is `numerator / divisor`.
    Line { numerator: F, a: Point<F>, b: Point<F> },
    /// The sum is known.
    Known(Point<F>),
}

/// `out[i] = pairs[i][0] + pairs[i][1]`, with one inversion for all. Doublings, opposite points
/// and infinity are as good as any.
pub(crate) fn add_pairs<F: Field<D>, const D: usize>(
    source: &[Packed<D>],
    pairs: &[[PointRef; 2]],
    out: &mut [Packed<D>],
) {
    let mut work = Vec::with_capacity(pairs.len());
    let mut product = F::ONE;
    let zero = F::default();
    let infinity = Point { x: zero, y: zero };
    let is_infinity = |point: &Point<F>| point.x == zero && point.y == zero;
    for [a, b] in pairs {
        let (a, b) = (point::<F, D>(source, *a), point::<F, D>(source, *b));
        let (divisor, step) = if is_infinity(&a) {
            (F::ONE, Step::Known(b))
        } else if is_infinity(&b) {
            (F::ONE, Step::Known(a))
        } else if a.x != b.x {
            (b.x.sub(&a.x), Step::Line { numerator: b.y.sub(&a.y), a, b })
        } else if a.y == b.y && a.y != zero {
            let square = a.x.sqr();
            let numerator = square.add(&square).add(&square);
            (a.y.add(&a.y), Step::Line { numerator, a, b })
        } else {
            (F::ONE, Step::Known(infinity))
        };
        work.push((step, divisor, product));
        product = product.mul(&divisor);
    }
    // No divisor is zero: differences of different values, and twice a y that is not zero in a
    // field of odd characteristic.
    let mut inverse = product.inverse();
    for ((step, divisor, before), out) in work.into_iter().zip(out).rev() {
        let sum = match step {
            Step::Known(point) => point,
            Step::Line { numerator, a, b } => {
                let slope = numerator.mul(&inverse.mul(&before));
                let x = slope.sqr().sub(&a.x).sub(&b.x);
                Point { x, y: slope.mul(&a.x.sub(&x)).sub(&a.y) }
            }
        };
        inverse = inverse.mul(&divisor);
        *out = Packed { x: sum.x.words(), y: sum.y.words() };
    }
}
