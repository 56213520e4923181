//! The flow of a kernel: basic blocks, and what is known to be written where.
//!
//! Here a text is refused that could read a register which nobody has written on some way to it,
//! or a carry flag that another kind of chain has left: on a device both give whatever is there.
//! What then becomes of the steps is the same to every thread; how many instructions of which name
//! a block has, is told of the text.

use std::collections::HashMap;

use crate::alive::{Set, alive_at_ends, index, registers_of};
use crate::decode::{Decoded, Line, Numbers, Step};
use crate::fault::TextFault;
use crate::moves::drop_moves;
use crate::op::{Carry, Chain, File, Op, Place, Use};
use crate::parse::Guard;
use crate::places::place_anew;

/// A kernel that can be executed. Jumps lead to places in `steps`.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) steps: Vec<Step>,
    pub(crate) numbers: Numbers,
    /// Registers of words and predicates.
    pub(crate) registers: [usize; 2],
    /// How often each instruction stands in each basic block, by the name that it has.
    pub(crate) blocks: Vec<HashMap<String, u64>>,
}

/// A run of steps that is entered at its begin and left at its end.
#[derive(Debug)]
pub(crate) struct Block {
    /// Of its first instruction.
    line: u32,
    pub(crate) steps: Vec<Step>,
    pub(crate) follows: Vec<usize>,
    names: HashMap<String, u64>,
}

/// Makes a program of what was decoded.
pub(crate) fn program(decoded: &Decoded) -> Result<Program, TextFault> {
    let mut blocks = blocks(decoded)?;
    check_carries(&blocks)?;
    let mut counts = counts(&blocks, &decoded.numbers);
    check_written(&blocks, counts, decoded)?;
    let alive = alive_at_ends(&blocks, counts);
    counts[index(File::Words)] = drop_moves(&mut blocks, &alive, counts[index(File::Words)]);
    blocks.iter_mut().for_each(|block| join_pairs(&mut block.steps));
    let mut numbers = decoded.numbers.clone();
    let registers = place_anew(&mut blocks, &alive, counts, &mut numbers);
    let mut starts = Vec::new();
    let mut length = 0;
    for block in &blocks {
        starts.push(length as u32);
        length += block.steps.len() + 1;
    }
    let mut steps = Vec::with_capacity(length);
    let mut names = Vec::new();
    for (number, block) in blocks.into_iter().enumerate() {
        let op = Op::Begin { block: number as u32 };
        steps.push(Step { op, guard: None, line: block.line });
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
    let new = || Block { line: 0, steps: Vec::new(), follows: Vec::new(), names: HashMap::new() };
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
                if blocks[last].steps.is_empty() {
                    blocks[last].line = step.line;
                }
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
            registers_of(step, |how, file, place| {
                let condition = left.and_then(|(_, guard)| guard).map(|guard| guard.predicate);
                let same = condition.is_some_and(|c| file == File::Predicates && c.number == place);
                if how == Use::Writes && same {
                    left = None;
                }
            });
        }
    }
    Ok(())
}

fn counts(blocks: &[Block], numbers: &Numbers) -> [usize; 2] {
    let mut counts = [0; 2];
    let mut see = |file: File, place: Place| {
        let most = &mut counts[index(file)];
        *most = (*most).max(place as usize + 1);
    };
    for step in blocks.iter().flat_map(|block| &block.steps) {
        registers_of(step, |_, file, place| see(file, place));
    }
    numbers.words.iter().for_each(|(place, _)| see(File::Words, *place));
    counts
}

/// Every register that is read has been written on every way that leads there.
fn check_written(blocks: &[Block], counts: [usize; 2], decoded: &Decoded) -> Result<(), TextFault> {
    let numbers = &decoded.numbers;
    let mut first = Set::new(counts, false);
    numbers.words.iter().for_each(|(place, _)| first.put(File::Words, *place));
    let mut before = vec![Set::new(counts, true); blocks.len()];
    before[0] = first;
    let mut waiting = vec![0];
    let mut seen = vec![false; blocks.len()];
    while let Some(number) = waiting.pop() {
        seen[number] = true;
        let mut written = before[number].clone();
        for step in &blocks[number].steps {
            if step.guard.is_none() {
                registers_of(step, |how, file, place| {
                    if how == Use::Writes {
                        written.put(file, place);
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
            registers_of(step, |how, file, place| {
                if how == Use::Reads && !written.has(file, place) {
                    unwritten = Some((file, place));
                } else if how == Use::Writes && step.guard.is_none() {
                    written.put(file, place);
                }
            });
            if let Some((file, place)) = unwritten {
                let kind = match file {
                    File::Predicates => "Predicate",
                    File::Words if decoded.doubles.contains(&place) => "Double",
                    File::Words => "Word",
                };
                let what = format!("reads a register ({kind}) that nobody may have written");
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
