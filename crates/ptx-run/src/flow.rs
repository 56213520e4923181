//! The flow of a kernel: basic blocks, what is known to be written where, and registers with few
//! places.
//!
//! Here a text is refused that could read a register which nobody has written on some way to it,
//! or a carry flag that another kind of chain has left: on a device both give whatever is there.
//! A text names thousands of registers, each for a moment; they get places anew, so that those in
//! use fit in a cache.

use std::collections::HashMap;

use crate::decode::{Decoded, Line, Numbers, Step};
use crate::fault::TextFault;
use crate::op::{Carry, Chain, Class, Op, Place, Use};
use crate::parse::Guard;

/// A kernel that can be executed. Jumps lead to places in `steps`.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) steps: Vec<Step>,
    pub(crate) numbers: Numbers,
    /// Registers of words, doubles and predicates.
    pub(crate) registers: [usize; 3],
    /// How often each instruction stands in each basic block, by the name that it has.
    pub(crate) blocks: Vec<HashMap<String, u64>>,
}

/// A run of steps that is entered at its begin and left at its end.
struct Block {
    steps: Vec<Step>,
    follows: Vec<usize>,
    names: HashMap<String, u64>,
}

/// Registers by class, as bits.
#[derive(Clone, PartialEq, Eq)]
struct Set([Vec<u64>; 3]);

fn index(class: Class) -> usize {
    match class {
        Class::Word => 0,
        Class::Double => 1,
        Class::Predicate => 2,
    }
}

impl Set {
    fn new(counts: [usize; 3], full: bool) -> Self {
        let word = if full { u64::MAX } else { 0 };
        Self(counts.map(|count| vec![word; count.div_ceil(64)]))
    }

    fn has(&self, class: Class, place: Place) -> bool {
        self.0[index(class)][place as usize / 64] >> (place % 64) & 1 == 1
    }

    fn put(&mut self, class: Class, place: Place) {
        self.0[index(class)][place as usize / 64] |= 1 << (place % 64);
    }

    fn remove(&mut self, class: Class, place: Place) {
        self.0[index(class)][place as usize / 64] &= !(1 << (place % 64));
    }

    /// Joins by `with`; whether anything has changed.
    fn join(&mut self, other: &Self, with: impl Fn(u64, u64) -> u64) -> bool {
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

    fn each(&self, mut visit: impl FnMut(usize, Place)) {
        for (class, words) in self.0.iter().enumerate() {
            for (i, word) in words.iter().enumerate() {
                let mut word = *word;
                while word != 0 {
                    visit(class, i as Place * 64 + word.trailing_zeros());
                    word &= word - 1;
                }
            }
        }
    }
}

/// Every register that a step reads or writes, its condition among them. What is written under a
/// condition stays as it was elsewhere, so that it is read too.
fn registers_of(step: &Step, mut visit: impl FnMut(Use, Class, Place)) {
    if let Some(guard) = step.guard {
        visit(Use::Reads, Class::Predicate, guard.predicate.number);
    }
    let mut op = step.op.clone();
    op.registers(&mut |how, class, place| visit(how, class, *place));
}

/// Makes a program of what was decoded.
pub(crate) fn program(decoded: &Decoded) -> Result<Program, TextFault> {
    let mut blocks = blocks(decoded)?;
    check_carries(&blocks)?;
    let counts = counts(&blocks, &decoded.numbers);
    check_written(&blocks, counts, &decoded.numbers)?;
    blocks.iter_mut().for_each(|block| join_pairs(&mut block.steps));
    let mut numbers = decoded.numbers.clone();
    let registers = place_anew(&mut blocks, counts, &mut numbers);
    let mut starts = Vec::new();
    let mut length = 0;
    for block in &blocks {
        starts.push(length as u32);
        length += block.steps.len() + 1;
    }
    let mut steps = Vec::with_capacity(length);
    let mut names = Vec::new();
    for (number, block) in blocks.into_iter().enumerate() {
        let line = block.steps.first().map_or(0, |step| step.line);
        let op = Op::Begin { block: number as u32 };
        steps.push(Step { op, guard: None, line });
        for mut step in block.steps {
            if let Op::Jump { to } = &mut step.op {
                *to = starts[*to as usize];
            }
            steps.push(step);
        }
        names.push(block.names);
    }
    Ok(Program { steps, numbers, registers, blocks: names })
}

/// Cuts a text into blocks. Jumps then lead to blocks, by number.
fn blocks(decoded: &Decoded) -> Result<Vec<Block>, TextFault> {
    let new = || Block { steps: Vec::new(), follows: Vec::new(), names: HashMap::new() };
    let mut blocks = vec![new()];
    let mut labels = HashMap::new();
    let mut ended = false;
    for line in &decoded.steps {
        match line {
            Line::Label(label) => {
                if !blocks[blocks.len() - 1].steps.is_empty() {
                    blocks.push(new());
                }
                labels.insert(*label, blocks.len() - 1);
            }
            Line::Step(step, name) => {
                if ended && !blocks[blocks.len() - 1].steps.is_empty() {
                    blocks.push(new());
                }
                let last = blocks.len() - 1;
                blocks[last].steps.push(step.clone());
                *blocks[last].names.entry(name.clone()).or_default() += 1;
                ended = matches!(step.op, Op::Jump { .. } | Op::End);
            }
        }
    }
    let count = blocks.len();
    for (number, block) in blocks.iter_mut().enumerate() {
        let Some(last) = block.steps.last_mut() else {
            return Err(TextFault::new(0, "a label with nothing behind it"));
        };
        let mut goes_on = last.guard.is_some();
        match &mut last.op {
            Op::Jump { to } => {
                let target = labels.get(to).copied();
                let target =
                    target.ok_or_else(|| TextFault::new(last.line, "a label that is not there"))?;
                block.follows.push(target);
                *to = target as u32;
            }
            Op::End => {}
            _ => goes_on = true,
        }
        if goes_on {
            if number + 1 == count {
                return Err(TextFault::new(last.line, "the kernel goes on past its end"));
            }
            block.follows.push(number + 1);
        }
    }
    Ok(blocks)
}

/// A flag is taken only from the step of the same block that gave it last, only as what it was
/// given as, and only by those threads that gave it.
fn check_carries(blocks: &[Block]) -> Result<(), TextFault> {
    for block in blocks {
        let mut left: Option<(Chain, Option<Guard>)> = None;
        for step in &block.steps {
            if let Some((Carry { taken, given }, chain)) = step.op.carry() {
                let what = match left {
                    _ if !taken => None,
                    None => Some("takes a carry that nothing in this block has given"),
                    Some((other, _)) if other != chain => {
                        Some("takes a carry as a borrow, or a borrow as a carry")
                    }
                    Some((_, guard)) if guard != step.guard => {
                        Some("takes a carry under another condition than it was given")
                    }
                    Some(_) => None,
                };
                if let Some(what) = what {
                    return Err(TextFault::new(step.line, what));
                }
                if given {
                    left = Some((chain, step.guard));
                }
            }
            // Behind a new value of the condition other threads take part.
            registers_of(step, |how, class, place| {
                let condition = left.and_then(|(_, guard)| guard).map(|guard| guard.predicate);
                let same = condition.is_some_and(|c| c.class == class && c.number == place);
                if how == Use::Writes && same {
                    left = None;
                }
            });
        }
    }
    Ok(())
}

fn counts(blocks: &[Block], numbers: &Numbers) -> [usize; 3] {
    let mut counts = [0; 3];
    let mut see = |class: Class, place: Place| {
        let most = &mut counts[index(class)];
        *most = (*most).max(place as usize + 1);
    };
    for step in blocks.iter().flat_map(|block| &block.steps) {
        registers_of(step, |_, class, place| see(class, place));
    }
    numbers.words.iter().for_each(|(place, _)| see(Class::Word, *place));
    numbers.doubles.iter().for_each(|(place, _)| see(Class::Double, *place));
    counts
}

/// Every register that is read has been written on every way that leads there.
fn check_written(blocks: &[Block], counts: [usize; 3], numbers: &Numbers) -> Result<(), TextFault> {
    let mut first = Set::new(counts, false);
    numbers.words.iter().for_each(|(place, _)| first.put(Class::Word, *place));
    numbers.doubles.iter().for_each(|(place, _)| first.put(Class::Double, *place));
    let mut before = vec![Set::new(counts, true); blocks.len()];
    before[0] = first;
    let mut waiting = vec![0];
    let mut seen = vec![false; blocks.len()];
    while let Some(number) = waiting.pop() {
        seen[number] = true;
        let mut written = before[number].clone();
        for step in &blocks[number].steps {
            if step.guard.is_none() {
                registers_of(step, |how, class, place| {
                    if how == Use::Writes {
                        written.put(class, place);
                    }
                });
            }
        }
        for &next in &blocks[number].follows {
            if before[next].join(&written, |a, b| a & b) || !seen[next] {
                waiting.push(next);
            }
        }
    }
    for (number, block) in blocks.iter().enumerate().filter(|(number, _)| seen[*number]) {
        let mut written = before[number].clone();
        for step in &block.steps {
            let mut unwritten = None;
            registers_of(step, |how, class, place| {
                if how == Use::Reads && !written.has(class, place) {
                    unwritten = Some(class);
                } else if how == Use::Writes && step.guard.is_none() {
                    written.put(class, place);
                }
            });
            if let Some(class) = unwritten {
                let what = format!("reads a register ({class:?}) that nobody may have written");
                return Err(TextFault::new(step.line, what));
            }
        }
    }
    Ok(())
}

/// The lower half of a product followed by its upper half becomes one step.
fn join_pairs(steps: &mut Vec<Step>) {
    let mut joined: Vec<Step> = Vec::with_capacity(steps.len());
    for step in steps.drain(..) {
        if let Some(before) = joined.last_mut()
            && before.guard == step.guard
            && let Some(op) = pair(&before.op, &step.op)
        {
            before.op = op;
        } else {
            joined.push(step);
        }
    }
    *steps = joined;
}

fn pair(low: &Op, high: &Op) -> Option<Op> {
    use Op::MultiplyAddCarry;
    match (low, high) {
        (
            &MultiplyAddCarry { high: false, carry: first, d: d0, a, b, c: c0 },
            &MultiplyAddCarry { high: true, carry: second, d: d1, a: a1, b: b1, c: c1 },
        ) if first.given && second.taken => {
            // The second must not read what the first has written, but for the flag.
            let apart = d0 != a && d0 != b && d0 != c1 && d0 != d1;
            let carry = Carry { taken: first.taken, given: second.given };
            (apart && (a, b) == (a1, b1)).then_some(Op::Pair {
                carry,
                d: [d0, d1],
                a,
                b,
                c: [c0, c1],
            })
        }
        _ => None,
    }
}

/// Gives registers new places, so that those that are never in use together share one. Returns how
/// many places there are.
fn place_anew(blocks: &mut [Block], counts: [usize; 3], numbers: &mut Numbers) -> [usize; 3] {
    let alive = alive_at_ends(blocks, counts);
    // First and last moment of every register. A step reads at an even moment and writes at the
    // odd one behind it, so that what it writes may take the place of what it reads last.
    let mut spans: [Vec<Option<(u32, u32)>>; 3] = counts.map(|count| vec![None; count]);
    let mut note = |class: usize, place: Place, moment: u32| {
        let span = &mut spans[class][place as usize];
        let (from, to) = span.unwrap_or((moment, moment));
        *span = Some((from.min(moment), to.max(moment)));
    };
    let mut moment = 0;
    for (block, (begin, end)) in blocks.iter().zip(&alive) {
        begin.each(|class, place| note(class, place, moment));
        for step in &block.steps {
            registers_of(step, |how, class, place| {
                note(index(class), place, moment + u32::from(how == Use::Writes));
                if step.guard.is_some() && how == Use::Writes {
                    note(index(class), place, moment);
                }
            });
            moment += 2;
        }
        end.each(|class, place| note(class, place, moment));
        moment += 2;
    }
    // Numbers are there from the begin to the end.
    for (place, _) in &numbers.words {
        note(index(Class::Word), *place, 0);
        note(index(Class::Word), *place, moment);
    }
    for (place, _) in &numbers.doubles {
        note(index(Class::Double), *place, 0);
        note(index(Class::Double), *place, moment);
    }
    let mut totals = [0; 3];
    let mut renamed: [Vec<Place>; 3] = counts.map(|count| vec![0; count]);
    for class in 0..3 {
        totals[class] = share(&spans[class], &mut renamed[class]);
    }
    for step in blocks.iter_mut().flat_map(|block| &mut block.steps) {
        if let Some(guard) = &mut step.guard {
            let place = guard.predicate.number as usize;
            guard.predicate.number = renamed[index(Class::Predicate)][place];
        }
        step.op.registers(&mut |_, class, place| *place = renamed[index(class)][*place as usize]);
    }
    for (place, _) in &mut numbers.words {
        *place = renamed[index(Class::Word)][*place as usize];
    }
    for (place, _) in &mut numbers.doubles {
        *place = renamed[index(Class::Double)][*place as usize];
    }
    totals
}

/// Takes the lowest free place for each span, in the order in which they begin.
fn share(spans: &[Option<(u32, u32)>], renamed: &mut [Place]) -> usize {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;
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

/// Which registers are still read behind the begin and the end of every block.
fn alive_at_ends(blocks: &[Block], counts: [usize; 3]) -> Vec<(Set, Set)> {
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
                registers_of(step, |how, class, place| {
                    if how == Use::Writes && step.guard.is_none() {
                        begin.remove(class, place);
                    }
                });
                registers_of(step, |how, class, place| {
                    if how == Use::Reads || step.guard.is_some() {
                        begin.put(class, place);
                    }
                });
            }
            changed |= (&begin, &end) != (&alive[number].0, &alive[number].1);
            alive[number] = (begin, end);
        }
    }
    alive
}
