//! What the machine code has to keep.

use super::classes::Class;
use super::counts::Counts;

/// The architectures for which the numbers of instructions are held.
pub(crate) const JUDGED: [u32; 3] = [80, 90, 120];

/// Instructions of a product and of a square, with the loop around them.
pub(crate) const PRODUCT: f64 = 205.0;
pub(crate) const SQUARE: f64 = 185.0;
/// Instructions for each wide product, of whole columns of eleven and rows of eight as executed.
pub(crate) const FOR_EACH_WIDE_PRODUCT: f64 = 1.8;
/// How far the wide products that the PTX executes may be from those that are counted by hand: the
/// place of a node is computed by one, too.
pub(crate) const COUNTED_APART: f64 = 0.001;
/// How far those that the machine code executes may be from those of the PTX: ptxas leaves out what
/// is multiplied by 0.
pub(crate) const COMPILED_APART: f64 = 0.005;

/// How far what the planner reckons with may be from what is predicted.
pub(crate) const PLANNED_APART: f64 = 0.02;

/// The threads of each kernel that ran on a multiprocessor before the carries were closed early, at
/// e86127d: no fewer may run.
const THREADS: [(&str, [(u32, u32); 7]); 5] = [
    (
        "seal_columns_11",
        [(75, 128), (80, 384), (86, 256), (89, 256), (90, 384), (100, 384), (120, 256)],
    ),
    (
        "seal_columns_2",
        [(75, 640), (80, 768), (86, 768), (89, 768), (90, 640), (100, 768), (120, 640)],
    ),
    (
        "seal_rows_8",
        [(75, 192), (80, 384), (86, 320), (89, 320), (90, 384), (100, 512), (120, 320)],
    ),
    (
        "seal_rows_2",
        [(75, 640), (80, 768), (86, 768), (89, 768), (90, 640), (100, 768), (120, 640)],
    ),
    (
        "seal_encode",
        [(75, 1024), (80, 2048), (86, 1024), (89, 1536), (90, 2048), (100, 2048), (120, 1280)],
    ),
];

/// A figure and what it has to keep.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Check {
    /// What it is of.
    pub(crate) what: String,
    pub(crate) figure: f64,
    /// At most this, or at least.
    pub(crate) bound: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Check {
    pub(crate) fn at_most(what: String, figure: f64, most: f64) -> Self {
        Self { what, figure, bound: Bound::AtMost(most) }
    }

    pub(crate) fn kept(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.figure <= most,
            Bound::AtLeast(least) => self.figure >= least,
        }
    }
}

/// The least threads of a kernel on a multiprocessor.
pub(crate) fn threads(kernel: &str, architecture: u32, figure: u32) -> Option<Check> {
    let (_, of_kernel) = THREADS.iter().find(|(name, _)| *name == kernel)?;
    let (_, least) = of_kernel.iter().find(|(known, _)| *known == architecture)?;
    Some(Check {
        what: format!("threads a multiprocessor, {kernel} for {architecture}"),
        figure: figure.into(),
        bound: Bound::AtLeast((*least).into()),
    })
}

/// That no predicate is packed into a register.
pub(crate) fn no_packed_predicate(kernel: &str, architecture: u32, code: &Counts) -> Check {
    Check::at_most(
        format!("packed predicates, {kernel} for {architecture}"),
        code.get(Class::PackedPredicate) as f64,
        0.0,
    )
}

/// That two counts of the same are near each other.
pub(crate) fn near(what: String, one: u64, other: u64, apart: f64) -> Check {
    let difference = one.abs_diff(other) as f64 / other.max(1) as f64;
    Check::at_most(what, difference, apart)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_keeps_its_bound_or_does_not() {
        let most = |figure| Check::at_most("a".to_owned(), figure, PRODUCT).kept();
        assert!(most(205.0) && !most(205.1));
        let threads = |figure| threads("seal_rows_8", 90, figure).expect("known").kept();
        assert!(threads(384) && threads(512) && !threads(352));
        assert_eq!(super::threads("seal_field", 90, 1), None);
        let near = |one| near("a".to_owned(), one, 1000, 0.01).kept();
        assert!(near(990) && near(1010) && !near(989) && !near(1011));
    }
}
