//! The bucket method, for scalars of full size.

use group::Group as _;
use rayon::prelude::*;
use seal_field::curve::{PointRef, Points};

use super::windows::{SignedWindows, Words, plus};
use super::{GoOn, Group, Spares};
use crate::groth::Stopped;

/// Buckets of a window that are sorted and summed together.
const GRID_ROW_BITS: u32 = 8;

/// A term of full size: below half the modulus, the sign is with the point.
#[derive(Clone, Copy)]
pub(super) struct Term {
    pub(super) point: PointRef,
    pub(super) scalar: Words,
}

/// The sum of terms of full size by the bucket method.
pub(super) fn buckets<C: Group>(
    points: &Points<C>,
    terms: &mut [Vec<Term>],
    spares: &Spares<C>,
    go_on: &mut GoOn<'_>,
) -> Result<C::Sum, Stopped> {
    let count: usize = terms.iter().map(Vec::len).sum();
    if count == 0 {
        return Ok(C::Sum::identity());
    }
    let windows = SignedWindows::for_terms(count);
    let half = windows.half_of_each();
    terms.par_iter_mut().flatten().for_each(|term| term.scalar = plus(&term.scalar, &half));
    // Of all windows, one after the other.
    let mut grid = Points::infinity(points.kernel(), windows.buckets());
    let mut total = C::Sum::identity();
    for window in (0..windows.count()).rev() {
        go_on(f64::from(windows.count() - 1 - window) / f64::from(windows.count()))?;
        for _ in 0..windows.bits() {
            total = total.double();
        }
        total += window_sum(points, terms, windows, window, spares, &mut grid);
    }
    Ok(total)
}

/// The terms of a chunk, grouped by row of the grid of buckets.
struct Rows {
    items: Vec<(PointRef, u32)>,
    ends: Vec<usize>,
}

impl Rows {
    fn row(&self, row: usize) -> &[(PointRef, u32)] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.items[start..self.ends[row]]
    }
}

fn window_sum<C: Group>(
    points: &Points<C>,
    terms: &[Vec<Term>],
    windows: SignedWindows,
    window: u32,
    spares: &Spares<C>,
    grid: &mut Points<C>,
) -> C::Sum {
    let row_bits = GRID_ROW_BITS.min((windows.bits() - 1) / 2 + 1);
    let (columns, rows) = (1 << row_bits, windows.buckets() >> row_bits);
    let chunks: Vec<Rows> =
        terms.par_iter().map(|terms| by_row(terms, windows, window, row_bits, rows)).collect();
    // Row by row: each bucket's sum.
    grid.par_chunks_mut(columns).enumerate().for_each(|(row, sums)| {
        let mut ends = vec![0_usize; columns];
        let items = || chunks.iter().flat_map(|chunk| chunk.row(row));
        for (_, column) in items() {
            ends[*column as usize] += 1;
        }
        let mut sum = 0;
        for end in &mut ends {
            // The starts for now; placing moves each to its end.
            (*end, sum) = (sum, sum + *end);
        }
        let mut refs = vec![PointRef::plus(0); sum];
        for (point, column) in items() {
            let place = &mut ends[*column as usize];
            refs[*place] = *point;
            *place += 1;
        }
        spares.with(|adder| adder.sum_groups(points, &refs, &ends, sums));
    });
    let grid = &*grid;
    let line = |start: usize, step: usize, count: usize| {
        (0..count).map(move |i| start + i * step).filter(|i| !grid.is_infinity(*i))
    };
    let sum_lines = |lines: usize, start: usize, step: usize, count: usize| -> Vec<C::Sum> {
        let tasks: Vec<usize> = (0..lines).step_by(32).collect();
        tasks
            .into_par_iter()
            .flat_map_iter(|first| {
                let lines = first..lines.min(first + 32);
                let (mut refs, mut ends) = (Vec::new(), Vec::new());
                for index in lines.clone() {
                    // At most 2^20 buckets.
                    let line = line(index * start, step, count);
                    refs.extend(line.map(|i| PointRef::plus(i as u32)));
                    ends.push(refs.len());
                }
                let mut sums = Points::infinity(points.kernel(), ends.len());
                spares.with(|adder| adder.sum_groups(grid, &refs, &ends, &mut sums));
                lines.zip(0..).map(move |(_, i)| C::sum(sums.get(i)))
            })
            .collect()
    };
    let row_sums = sum_lines(rows, columns, 1, columns);
    let column_sums = sum_lines(columns, 1, columns, rows);
    // Bucket (row, column) is worth row * columns + column + 1.
    let mut total = weighted(&row_sums[1..]);
    for _ in 0..row_bits {
        total = total.double();
    }
    total + weighted(&column_sums)
}

/// `1 s[0] + 2 s[1] + …`
fn weighted<S: group::Group>(sums: &[S]) -> S {
    let (mut running, mut total) = (S::identity(), S::identity());
    for sum in sums.iter().rev() {
        running += sum;
        total += running;
    }
    total
}

/// Sorts terms by the row of their bucket.
fn by_row(terms: &[Term], windows: SignedWindows, window: u32, row_bits: u32, rows: usize) -> Rows {
    let digit = |term: &Term| windows.digit(&term.scalar, window);
    let mut ends = vec![0_usize; rows];
    for term in terms {
        let digit = digit(term);
        if digit != 0 {
            ends[((digit.unsigned_abs() - 1) >> row_bits) as usize] += 1;
        }
    }
    let mut sum = 0;
    for end in &mut ends {
        (*end, sum) = (sum, sum + *end);
    }
    let mut items = vec![(PointRef::plus(0), 0); sum];
    for term in terms {
        let digit = digit(term);
        if digit != 0 {
            let bucket = digit.unsigned_abs() - 1;
            let place = &mut ends[(bucket >> row_bits) as usize];
            let point = if digit < 0 { term.point.negated() } else { term.point };
            items[*place] = (point, bucket & ((1 << row_bits) - 1));
            *place += 1;
        }
    }
    Rows { items, ends }
}
