//! What a kernel's machine code is made of, as it stands and as a thread executes it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::classes::{Class, Pipe};
use super::control::{self, Executed};
use super::sass::{Function, INSTRUCTION_BYTES, Instruction};
use super::{ptx, ptx_control, sass_control};

/// How many instructions of each class.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts(BTreeMap<(Class, Pipe), u64>);

impl Counts {
    /// Those of a piece of machine code, each as often as `times` says.
    fn of<'a>(instructions: impl Iterator<Item = (&'a Instruction, u64)>) -> Self {
        let mut counts = Self::default();
        for (instruction, times) in instructions.filter(|(_, times)| *times > 0) {
            let class = Class::of(instruction);
            *counts.0.entry((class, Pipe::of(instruction, class))).or_default() += times;
        }
        counts
    }

    pub(crate) fn get(&self, class: Class) -> u64 {
        self.0.iter().filter(|((of, _), _)| *of == class).map(|(_, count)| count).sum()
    }

    /// All of them: an instruction takes a slot in which one is issued.
    pub(crate) fn all(&self) -> u64 {
        self.0.values().sum()
    }

    /// Those that a pipe executes.
    pub(crate) fn of_pipe(&self, pipe: Pipe) -> u64 {
        self.0.iter().filter(|((_, by), _)| *by == pipe).map(|(_, count)| count).sum()
    }

    /// Instructions for each wide product.
    pub(crate) fn for_each_wide_product(&self) -> f64 {
        self.all() as f64 / self.get(Class::WideProduct).max(1) as f64
    }

    pub(crate) fn to_json(&self) -> Value {
        let there = Class::ALL.iter().filter(|class| self.get(**class) > 0);
        let counts = there.map(|class| (class.name().to_owned(), json!(self.get(*class))));
        Value::Object(counts.chain([("all".to_owned(), json!(self.all()))]).collect())
    }
}

/// A loop, as executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loop {
    /// Its place in the kernel, in bytes.
    pub(crate) address: u32,
    /// Instructions from its beginning to its end, with loops within.
    pub(crate) instructions: usize,
    /// How often it was entered.
    pub(crate) entered: u64,
    /// How often its first instruction was executed.
    pub(crate) passes: u64,
    /// What was executed between its beginning and its end.
    pub(crate) executed: Counts,
}

/// A kernel's machine code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MachineCode {
    pub(crate) code: Counts,
    pub(crate) bytes: usize,
    /// As a thread executes it; `None` where that depends on what a kernel is called with.
    pub(crate) executed: Option<Whole>,
}

/// What a thread executes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) counts: Counts,
    pub(crate) loops: Vec<Loop>,
    /// Bytes that it moves to and from shared memory.
    pub(crate) shared_bytes: u64,
    /// Branches that depend on data, of which the shorter way was taken.
    pub(crate) by_data: usize,
}

impl MachineCode {
    /// Counts a kernel's machine code; `run` is whether what it does depends on nothing that it is
    /// called with.
    pub(crate) fn of(function: &Function, run: bool) -> Result<Self> {
        let instructions = &function.instructions;
        // What stands behind the end is never executed: a trap, and what fills up.
        let end = instructions.iter().rposition(|i| i.base() == "EXIT" || i.base() == "RET");
        let code = &instructions[..end.map_or(instructions.len(), |end| end + 1)];
        let executed = if run {
            let mut thread = sass_control::Thread::new(function)?;
            let executed = control::run(&mut thread)
                .with_context(|| format!("what {} executes cannot be counted", function.name))?;
            Some(Whole::of(instructions, &executed))
        } else {
            None
        };
        Ok(Self {
            code: Counts::of(code.iter().map(|instruction| (instruction, 1))),
            bytes: code.len() * INSTRUCTION_BYTES,
            executed,
        })
    }
}

impl Whole {
    fn of(instructions: &[Instruction], executed: &Executed) -> Self {
        let counted = || instructions.iter().zip(executed.counts.iter().copied());
        let loops = executed.back.iter().map(|back| {
            let range = back.to..=back.from;
            let passes = executed.counts[back.to];
            Loop {
                address: instructions[back.to].address,
                instructions: range.clone().count(),
                entered: passes - back.taken,
                passes,
                executed: Counts::of(counted().skip(back.to).take(range.count())),
            }
        });
        let shared = |instruction: &Instruction| match Class::of(instruction) {
            Class::LoadShared | Class::StoreShared => [("128", 16), ("64", 8)]
                .iter()
                .find(|(part, _)| instruction.has(part))
                .map_or(4, |p| p.1),
            _ => 0,
        };
        Self {
            counts: Counts::of(counted()),
            loops: loops.collect(),
            shared_bytes: counted().map(|(instruction, times)| shared(instruction) * times).sum(),
            by_data: executed.by_data,
        }
    }

    /// The loop in which most is executed and that has no loop within: what a kernel that only
    /// repeats one thing repeats.
    pub(crate) fn innermost(&self) -> Option<&Loop> {
        self.loops.iter().max_by_key(|l| l.passes)
    }
}

impl Loop {
    pub(crate) fn to_json(&self) -> Value {
        let Self { address, instructions, entered, passes, executed } = self;
        json!({
            "address": address, "instructions": instructions, "entered": entered,
            "passes": passes, "executed": executed.to_json(),
        })
    }

    /// Instructions of a class in each pass.
    pub(crate) fn each(&self, class: Class) -> f64 {
        self.executed.get(class) as f64 / self.passes.max(1) as f64
    }

    /// All instructions of a pass.
    pub(crate) fn each_pass(&self) -> f64 {
        self.executed.all() as f64 / self.passes.max(1) as f64
    }
}

/// Wide products that a thread executes of a kernel's PTX, which knows nothing of the machine's
/// loops.
pub(crate) fn wide_products_of_ptx(function: &ptx::Function) -> Result<u64> {
    let mut thread = ptx_control::Thread::new(function)?;
    let executed = control::run(&mut thread)
        .with_context(|| format!("what the PTX of {} executes cannot be counted", function.name))?;
    let counted = function.instructions.iter().zip(&executed.counts);
    Ok(counted.filter(|(i, _)| i.is_wide_product()).map(|(_, count)| count).sum())
}

#[cfg(test)]
mod tests {
    use super::super::sass::{self, tests::KERNEL};
    use super::*;

    #[test]
    fn code_and_what_is_executed_of_it_are_counted_apart() {
        let functions = sass::parse(KERNEL).expect("machine code");
        let counted = MachineCode::of(&functions[0], true).expect("counted");
        // Without the trap and the padding behind the end.
        assert_eq!((counted.code.all(), counted.bytes), (14, 14 * 16));
        assert_eq!(counted.code.get(Class::WideProduct), 1);
        let executed = counted.executed.expect("executed");
        assert_eq!(executed.counts.get(Class::WideProduct), 12);
        assert_eq!(executed.counts.all(), 6 + 7 * 12 + 1);
        let [only] = &executed.loops[..] else { panic!("one loop") };
        assert_eq!((only.address, only.instructions, only.entered, only.passes), (0x60, 7, 1, 12));
        assert_eq!((only.each_pass(), only.each(Class::WideProduct)), (7.0, 1.0));
        assert_eq!(executed.counts.of_pipe(Pipe::Logic), 1 + 2 * 12);
        assert!(MachineCode::of(&functions[0], false).expect("counted").executed.is_none());
    }

    #[test]
    fn bytes_of_shared_memory_are_those_of_a_thread() {
        let text = ".text.f:\n/*0000*/ LDS.128 R4, [R2] ;\n/*0010*/ STS.64 [R2], R4 ;\n\
                    /*0020*/ LDS R4, [R2] ;\n/*0030*/ EXIT ;";
        let functions = sass::parse(text).expect("machine code");
        let executed = MachineCode::of(&functions[0], true).expect("counted").executed;
        assert_eq!(executed.expect("executed").shared_bytes, 28);
    }

    #[test]
    fn wide_products_of_ptx_are_pairs() {
        let functions = ptx::parse(ptx::tests::KERNEL).expect("PTX");
        assert_eq!(wide_products_of_ptx(&functions[0]).expect("counted"), 22);
    }
}
