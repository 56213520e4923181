//! Which registers are still read, where.

use crate::decode::Step;
use crate::flow::Block;
use crate::op::{File, Place, Use};

/// Registers by file, as bits.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Set([Vec<u64>; 2]);

pub(crate) fn index(file: File) -> usize {
    match file {
        File::Words => 0,
        File::Predicates => 1,
    }
}

impl Set {
    pub(crate) fn new(counts: [usize; 2], full: bool) -> Self {
        let word = if full { u64::MAX } else { 0 };
        Self(counts.map(|count| vec![word; count.div_ceil(64)]))
    }

    pub(crate) fn has(&self, file: File, place: Place) -> bool {
        self.0[index(file)][place as usize / 64] >> (place % 64) & 1 == 1
    }

    pub(crate) fn put(&mut self, file: File, place: Place) {
        self.0[index(file)][place as usize / 64] |= 1 << (place % 64);
    }

    pub(crate) fn remove(&mut self, file: File, place: Place) {
        self.0[index(file)][place as usize / 64] &= !(1 << (place % 64));
    }

    /// Joins by `with`; whether anything has changed.
    pub(crate) fn join(&mut self, other: &Self, with: impl Fn(u64, u64) -> u64) -> bool {
        let mut changed = false;
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            for (mine, theirs) in mine.iter_mut().zip(theirs) {
                let joined = with(*mine, *theirs);
                changed |= joined != *mine;
                *mine = joined;
            }
        }
        changed
    }

    pub(crate) fn each(&self, mut visit: impl FnMut(usize, Place)) {
        for (file, words) in self.0.iter().enumerate() {
            for (i, word) in words.iter().enumerate() {
                let mut word = *word;
                while word != 0 {
                    visit(file, i as Place * 64 + word.trailing_zeros());
                    word &= word - 1;
                }
            }
        }
    }
}

/// Every register that a step reads or writes, its condition among them. What is written under a
/// condition stays as it was elsewhere, so that it is read too.
pub(crate) fn registers_of(step: &Step, mut visit: impl FnMut(Use, File, Place)) {
    if let Some(guard) = step.guard {
        visit(Use::Reads, File::Predicates, guard.predicate.number);
    }
    let mut op = step.op.clone();
    op.registers(&mut |how, file, place| visit(how, file, *place));
}

/// Which registers are still read behind the begin and the end of every block.
pub(crate) fn alive_at_ends(blocks: &[Block], counts: [usize; 2]) -> Vec<(Set, Set)> {
    let none = Set::new(counts, false);
    let mut alive = vec![(none.clone(), none); blocks.len()];
    let mut changed = true;
    while changed {
        changed = false;
        for number in (0..blocks.len()).rev() {
            let mut end = alive[number].1.clone();
            for &next in &blocks[number].follows {
                end.join(&alive[next].0, |a, b| a | b);
            }
            let mut begin = end.clone();
            for step in blocks[number].steps.iter().rev() {
                registers_of(step, |how, file, place| {
                    if how == Use::Writes && step.guard.is_none() {
                        begin.remove(file, place);
                    }
                });
                registers_of(step, |how, file, place| {
                    if how == Use::Reads || step.guard.is_some() {
                        begin.put(file, place);
                    }
                });
            }
            changed |= (&begin, &end) != (&alive[number].0, &alive[number].1);
            alive[number] = (begin, end);
        }
    }
    alive
}
