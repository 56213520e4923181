//! Moves are left out: whoever reads a register reads it where its value was made.
//!
//! Within a block every value that is written gets a register of its own, and each register of the
//! text stands for the one that has its value at that moment; a move only makes it stand for
//! another. At the end of the block, what is read behind it is put back where it belongs, which
//! mostly is where it was made.

use std::collections::HashMap;

use crate::alive::Set;
use crate::decode::Step;
use crate::flow::Block;
use crate::op::{File, Op, Place, Use};

/// Leaves out what moves of words it can. `alive` tells what is read behind the begin and the end
/// of each block. Of `words` registers there are more then; returns how many.
pub(crate) fn drop_moves(blocks: &mut [Block], alive: &[(Set, Set)], words: usize) -> usize {
    let mut values = Values {
        stands_for: (0..words as Place).collect(),
        names: vec![1; words],
        changed: Vec::new(),
    };
    for (block, (_, end)) in blocks.iter_mut().zip(alive) {
        let steps = std::mem::take(&mut block.steps);
        block.steps = Kept::new(&mut values).block(steps, end);
        for name in std::mem::take(&mut values.changed) {
            values.set(name, name);
        }
        values.changed.clear();
    }
    values.names.len()
}

/// Which register has the value of each register of the text.
struct Values {
    stands_for: Vec<Place>,
    /// How many registers of the text stand for each.
    names: Vec<u32>,
    /// Those that do not, or did not, stand for themselves.
    changed: Vec<Place>,
}

impl Values {
    fn of(&self, name: Place) -> Place {
        self.stands_for[name as usize]
    }

    fn set(&mut self, name: Place, to: Place) {
        let old = std::mem::replace(&mut self.stands_for[name as usize], to);
        self.names[old as usize] -= 1;
        self.names[to as usize] += 1;
        self.changed.push(name);
    }

    /// A new register.
    fn new_one(&mut self) -> Place {
        self.names.push(0);
        self.names.len() as Place - 1
    }

    /// A new register, which `name` stands for from now on.
    fn new_for(&mut self, name: Place) -> Place {
        let new = self.new_one();
        self.set(name, new);
        new
    }
}

/// The steps of a block that are kept.
struct Kept<'v> {
    values: &'v mut Values,
    /// The first register that is new in this block.
    first_new: Place,
    steps: Vec<Step>,
    /// By which step each new register is written first.
    made_by: Vec<usize>,
    /// The last step that touches each register that is not new.
    last_use: HashMap<Place, usize>,
}

impl<'v> Kept<'v> {
    fn new(values: &'v mut Values) -> Self {
        let first_new = values.names.len() as Place;
        Self { values, first_new, steps: Vec::new(), made_by: Vec::new(), last_use: HashMap::new() }
    }

    fn block(mut self, steps: Vec<Step>, end: &Set) -> Vec<Step> {
        let line = steps.last().map_or(0, |step| step.line);
        let mut last = None;
        for step in steps {
            match step {
                Step { op: Op::Move { d, a }, guard: None, .. } => {
                    self.values.set(d, self.values.of(a));
                }
                Step { op: Op::MoveDouble { d, a }, guard: None, .. } => {
                    let a = a.map(|a| self.values.of(a));
                    self.values.set(d[0], a[0]);
                    self.values.set(d[1], a[1]);
                }
                // What leaves a block is its last step, and touches no words.
                Step { op: Op::Jump { .. } | Op::End, .. } => last = Some(step),
                step => self.keep(step),
            }
        }
        let moves = self.at_end(end);
        for (d, a) in one_by_one(moves, || self.values.new_one()) {
            self.steps.push(Step { op: Op::Move { d, a }, guard: None, line });
        }
        self.steps.extend(last);
        self.steps
    }

    fn keep(&mut self, mut step: Step) {
        let Self { values, first_new, steps, made_by, last_use } = self;
        let (guard, line) = (step.guard, step.line);
        step.op.registers(&mut |how, file, place| match (file, how, guard) {
            (File::Predicates, ..) => {}
            (File::Words, Use::Reads, _) => *place = values.of(*place),
            (File::Words, Use::Writes, None) => *place = values.new_for(*place),
            // Some threads keep what is there. Where others stand for it too, it goes on apart.
            (File::Words, Use::Writes, Some(_)) => {
                let old = values.of(*place);
                let alone = values.names[old as usize] == 1;
                *place = if alone { old } else { values.new_for(*place) };
                if !alone {
                    made_by.push(steps.len());
                    if old < *first_new {
                        last_use.insert(old, steps.len());
                    }
                    steps.push(Step { op: Op::Move { d: *place, a: old }, guard: None, line });
                }
            }
        });
        let at = steps.len();
        made_by.resize(values.names.len() - *first_new as usize, at);
        step.op.registers(&mut |_, file, place| {
            if file == File::Words && *place < *first_new {
                last_use.insert(*place, at);
            }
        });
        steps.push(step);
    }

    /// Names new registers as those of the text that stand for them at the end, where these have
    /// no other use since. Returns the moves that are left, to be done at once.
    fn at_end(&mut self, end: &Set) -> Vec<(Place, Place)> {
        let mut names = self.values.changed.clone();
        names.sort_unstable();
        names.dedup();
        names.retain(|&name| end.has(File::Words, name));
        let needed: Vec<_> = names.iter().map(|&name| (name, self.values.of(name))).collect();
        let mut renamed = HashMap::new();
        for &(name, value) in needed.iter().filter(|(name, value)| name != value) {
            let Some(new) = value.checked_sub(self.first_new) else { continue };
            let made = self.made_by[new as usize];
            let in_use = self.last_use.get(&name).is_some_and(|&last| last > made)
                || needed.iter().any(|&(_, value)| value == name);
            if !in_use {
                renamed.entry(value).or_insert(name);
            }
        }
        for step in &mut self.steps {
            step.op.registers(&mut |_, file, place| {
                if let (File::Words, Some(&name)) = (file, renamed.get(place)) {
                    *place = name;
                }
            });
        }
        let now = |value: Place| renamed.get(&value).copied().unwrap_or(value);
        let moves = needed.into_iter().map(|(name, value)| (name, now(value)));
        moves.filter(|(name, value)| name != value).collect()
    }
}

/// Puts moves that are done at once in an order in which they can be done one by one. What a ring
/// of them needs, `spare` gives.
fn one_by_one(
    mut moves: Vec<(Place, Place)>,
    mut spare: impl FnMut() -> Place,
) -> Vec<(Place, Place)> {
    let mut ordered = Vec::with_capacity(moves.len());
    while !moves.is_empty() {
        let free = moves.iter().position(|(d, _)| moves.iter().all(|(_, a)| a != d));
        let (d, a) = moves.swap_remove(free.unwrap_or(0));
        if free.is_none() {
            // Others still read what is there.
            let kept = spare();
            ordered.push((kept, d));
            moves.iter_mut().filter(|(_, a)| *a == d).for_each(|(_, a)| *a = kept);
        }
        ordered.push((d, a));
    }
    ordered
}
