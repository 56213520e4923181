//! Registers with few places: a text names thousands, each for a moment; those in use at once
//! fit in a cache.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::alive::{Set, index, registers_of};
use crate::decode::Numbers;
use crate::flow::Block;
use crate::op::{File, Place, Use};

/// Gives registers new places, so that those that are never in use together share one. Returns how
/// many places there are.
pub(crate) fn place_anew(
    blocks: &mut [Block],
    alive: &[(Set, Set)],
    counts: [usize; 2],
    numbers: &mut Numbers,
) -> [usize; 2] {
    // First and last moment of every register. A step reads at an even moment and writes at the
    // odd one behind it, so that what it writes may take the place of what it reads last.
    let mut spans: [Vec<Option<(u32, u32)>>; 2] = counts.map(|count| vec![None; count]);
    let mut note = |file: usize, place: Place, moment: u32| {
        let span = &mut spans[file][place as usize];
        let (from, to) = span.unwrap_or((moment, moment));
        *span = Some((from.min(moment), to.max(moment)));
    };
    let mut moment = 0;
    for (block, (begin, end)) in blocks.iter().zip(alive) {
        begin.each(|file, place| note(file, place, moment));
        for step in &block.steps {
            registers_of(step, |how, file, place| {
                note(index(file), place, moment + u32::from(how == Use::Writes));
                if step.guard.is_some() && how == Use::Writes {
                    note(index(file), place, moment);
                }
            });
            moment += 2;
        }
        end.each(|file, place| note(file, place, moment));
        moment += 2;
    }
    // Numbers are there from the begin to the end.
    for (place, _) in &numbers.words {
        note(index(File::Words), *place, 0);
        note(index(File::Words), *place, moment);
    }
    let mut totals = [0; 2];
    let mut renamed: [Vec<Place>; 2] = counts.map(|count| vec![0; count]);
    for file in 0..2 {
        totals[file] = share(&spans[file], &mut renamed[file]);
    }
    for step in blocks.iter_mut().flat_map(|block| &mut block.steps) {
        if let Some(guard) = &mut step.guard {
            let place = guard.predicate.number as usize;
            guard.predicate.number = renamed[index(File::Predicates)][place];
        }
        step.op.registers(&mut |_, file, place| *place = renamed[index(file)][*place as usize]);
    }
    for (place, _) in &mut numbers.words {
        *place = renamed[index(File::Words)][*place as usize];
    }
    totals
}

/// Takes the lowest free place for each span, in the order in which they begin.
fn share(spans: &[Option<(u32, u32)>], renamed: &mut [Place]) -> usize {
    let mut order: Vec<_> = spans
        .iter()
        .enumerate()
        .filter_map(|(i, span)| span.map(|(from, to)| (from, to, i)))
        .collect();
    order.sort_unstable();
    let mut in_use: BinaryHeap<Reverse<(u32, Place)>> = BinaryHeap::new();
    let mut free: BinaryHeap<Reverse<Place>> = BinaryHeap::new();
    let mut total = 0;
    for (from, to, register) in order {
        while let Some(&Reverse((end, place))) = in_use.peek()
            && end < from
        {
            in_use.pop();
            free.push(Reverse(place));
        }
        let place = free.pop().map_or_else(
            || {
                total += 1;
                total - 1
            },
            |Reverse(place)| place,
        );
        renamed[register] = place;
        in_use.push(Reverse((to, place)));
    }
    total as usize
}
