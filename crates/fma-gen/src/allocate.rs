//! Registers for the values of a routine, and its text.
//!
//! A value has its register from the instruction that makes it to the last one that reads it.
//! There is no spilling: a routine that needs more than the sixteen registers is refused, because
//! it would be slow without showing it.

use std::collections::HashMap;

use crate::program::{Count, Fused, Instruction, Loop, Memory, Operand, Part, Routine, Value};

/// Vector registers.
const REGISTERS: usize = 16;

/// A routine as lines of assembly, and how many vector registers it uses.
pub(crate) struct Text {
    pub(crate) lines: Vec<String>,
    pub(crate) registers: usize,
    /// How many loops are within each other at most.
    pub(crate) counters: usize,
    /// How many pointers are saved at once at most.
    pub(crate) saved: usize,
}

/// The text of a routine.
///
/// # Panics
/// If it needs too many registers.
pub(crate) fn text(routine: &Routine) -> Text {
    let mut last_reads = HashMap::new();
    let mut position = 0;
    find_last_reads(&routine.body, &mut position, &mut last_reads);
    let mut writer = Writer {
        routine,
        last_reads,
        position: 0,
        free: (0..REGISTERS).rev().collect(),
        of: HashMap::new(),
        text: Text { lines: Vec::new(), registers: 0, counters: 0, saved: 0 },
        depth: 0,
        labels: 2,
    };
    writer.parts(&routine.body);
    writer.text
}

/// The position of the last instruction that reads each value. A value from outside a loop that
/// is read within it is read until the loop's end.
fn find_last_reads(parts: &[Part], position: &mut usize, last: &mut HashMap<Value, usize>) {
    for part in parts {
        match part {
            Part::Instruction(instruction) => {
                for value in instruction.read() {
                    last.insert(value, *position);
                }
                *position += 1;
            }
            Part::Loop(inner) => {
                let mut within = HashMap::new();
                find_last_reads(&inner.body, position, &mut within);
                let mut made = Vec::new();
                all_made(&inner.body, &mut made);
                for (value, read) in within {
                    let read = if made.contains(&value) { read } else { *position };
                    last.insert(value, read);
                }
                *position += 1;
            }
        }
    }
}

fn all_made(parts: &[Part], made: &mut Vec<Value>) {
    for part in parts {
        match part {
            Part::Instruction(instruction) => made.extend(instruction.made()),
            Part::Loop(inner) => all_made(&inner.body, made),
        }
    }
}

struct Writer<'a> {
    routine: &'a Routine,
    last_reads: HashMap<Value, usize>,
    position: usize,
    free: Vec<usize>,
    of: HashMap<Value, usize>,
    text: Text,
    depth: usize,
    labels: usize,
}

impl Writer<'_> {
    fn parts(&mut self, parts: &[Part]) {
        for part in parts {
            match part {
                Part::Instruction(instruction) => self.instruction(instruction),
                Part::Loop(inner) => self.loop_(inner),
            }
        }
    }

    fn loop_(&mut self, inner: &Loop) {
        let label = self.labels;
        self.labels += 1;
        let counter = match inner.count {
            Count::Fixed(count) => {
                let counter = format!("{{count{}:e}}", self.depth);
                self.line(format!("mov {counter}, {count}"));
                format!("{{count{}:r}}", self.depth)
            }
            Count::Argument(argument) => {
                let counter = format!("{{count{}:r}}", self.depth);
                self.line(format!("mov {counter}, {{{}}}", self.routine.arguments[argument].0));
                counter
            }
        };
        for (place, pointer) in inner.restored.iter().enumerate() {
            self.line(format!("mov {{saved{place}}}, {{{}}}", self.routine.arguments[pointer.0].0));
        }
        self.text.saved = self.text.saved.max(inner.restored.len());
        self.depth += 1;
        self.text.counters = self.text.counters.max(self.depth);
        self.line(format!("{label}:"));
        self.parts(&inner.body);
        for (pointer, step) in &inner.steps {
            self.line(format!("add {{{}}}, {step}", self.routine.arguments[pointer.0].0));
        }
        self.line(format!("dec {counter}"));
        self.line(format!("jnz {label}b"));
        for (place, pointer) in inner.restored.iter().enumerate() {
            self.line(format!("mov {{{}}}, {{saved{place}}}", self.routine.arguments[pointer.0].0));
        }
        self.depth -= 1;
        self.release(&[]);
        self.position += 1;
    }

    fn line(&mut self, line: String) {
        self.text.lines.push(line);
    }

    fn memory(&self, memory: Memory) -> String {
        match memory {
            Memory::EightAt(..) => panic!("{}: eight bytes are no vector", self.routine.name),
            Memory::At(pointer, 0) => format!("[{{{}}}]", self.routine.arguments[pointer.0].0),
            Memory::At(pointer, offset) => {
                format!("[{{{}}} + {offset}]", self.routine.arguments[pointer.0].0)
            }
            Memory::Constant(index) => format!("[{{constants}} + {}]", 32 * index),
        }
    }

    fn register(&self, value: Value) -> usize {
        *self.of.get(&value).unwrap_or_else(|| {
            panic!("{}: {value:?} is read after its end", self.routine.name);
        })
    }

    fn name(&self, value: Value) -> String {
        format!("ymm{}", self.register(value))
    }

    fn operand(&self, operand: Operand) -> String {
        match operand {
            Operand::Value(value) => self.name(value),
            Operand::Memory(memory) => self.memory(memory),
        }
    }

    fn take(&mut self) -> usize {
        // The one that was free for longest has the least to do with what runs now.
        let free = self.free.pop().unwrap_or_else(|| {
            panic!(
                "{} needs more than {REGISTERS} registers at instruction {}: {:?}",
                self.routine.name, self.position, self.of
            )
        });
        self.text.registers = self.text.registers.max(free + 1);
        free
    }

    fn ends_here(&self, value: Value) -> bool {
        self.last_reads.get(&value) == Some(&self.position)
    }

    /// Frees the registers of all values that have been read for the last time, but for those in
    /// `passed_on`.
    fn release(&mut self, passed_on: &[Value]) {
        let ended: Vec<_> = self
            .of
            .keys()
            .filter(|value| self.last_reads.get(value).is_none_or(|last| *last <= self.position))
            .copied()
            .collect();
        let mut ended = ended;
        ended.sort();
        for value in ended {
            let register = self.of.remove(&value).expect("it has one");
            if !passed_on.contains(&value) {
                self.free.insert(0, register);
            }
        }
    }

    fn instruction(&mut self, instruction: &Instruction) {
        let reads = instruction.read();
        for value in &reads {
            self.register(*value);
        }
        match *instruction {
            Instruction::Load { to, from, .. } => {
                let from = self.memory(from);
                let register = self.take();
                self.line(format!("vmovupd ymm{register}, {from}"));
                self.of.insert(to, register);
            }
            Instruction::Broadcast { to, from } => {
                let Memory::EightAt(pointer, offset) = from else {
                    panic!("{}: {from:?} is broadcast", self.routine.name)
                };
                let from = self.memory(Memory::At(pointer, offset));
                let register = self.take();
                self.line(format!("vbroadcastsd ymm{register}, {from}"));
                self.of.insert(to, register);
            }
            Instruction::Binary { op, to, a, b } => {
                let operands = format!("{}, {}", self.name(a), self.operand(b));
                self.release_then_make(to, |register| {
                    format!("{} ymm{register}, {operands}", op.mnemonic())
                });
                return;
            }
            Instruction::ShiftRight { to, a, bits } => {
                let a = self.name(a);
                self.release_then_make(to, |register| format!("vpsrlq ymm{register}, {a}, {bits}"));
                return;
            }
            Instruction::ShiftLeft { to, a, bits } => {
                let a = self.name(a);
                self.release_then_make(to, |register| format!("vpsllq ymm{register}, {a}, {bits}"));
                return;
            }
            Instruction::Fused { op, to, a, b, c } => return self.fused(op, to, a, b, c),
            Instruction::Store { to, value } => {
                let line = format!("vmovupd {}, {}", self.memory(to), self.name(value));
                self.line(line);
            }
        }
        self.release(&[]);
        self.position += 1;
    }

    /// For instructions whose result may take the place of an operand.
    fn release_then_make(&mut self, to: Value, line: impl FnOnce(usize) -> String) {
        self.release(&[]);
        let register = self.take();
        let line = line(register);
        self.line(line);
        self.of.insert(to, register);
        self.position += 1;
    }

    /// The instruction overwrites an operand: the addend where it ends here, else a factor, else
    /// a copy of the addend.
    fn fused(&mut self, op: Fused, to: Value, a: Value, b: Operand, c: Value) {
        let stem = op.stem();
        let (a_name, b_name, c_name) = (self.name(a), self.operand(b), self.name(c));
        let is_twice = b == Operand::Value(a);
        let (target, line) = if self.ends_here(c) {
            (Some(c), format!("{stem}231pd {c_name}, {a_name}, {b_name}"))
        } else if self.ends_here(a) && !is_twice {
            let line = match b {
                Operand::Value(_) => format!("{stem}213pd {a_name}, {b_name}, {c_name}"),
                Operand::Memory(_) => format!("{stem}132pd {a_name}, {c_name}, {b_name}"),
            };
            (Some(a), line)
        } else {
            let register = self.take();
            self.line(format!("vmovapd ymm{register}, {c_name}"));
            let line = format!("{stem}231pd ymm{register}, {a_name}, {b_name}");
            self.line(line);
            self.of.insert(to, register);
            self.release_but(to);
            self.position += 1;
            return;
        };
        self.line(line);
        let target = target.expect("one of the two");
        let register = self.register(target);
        self.release(&[target]);
        self.of.insert(to, register);
        self.position += 1;
    }

    /// Frees what ended here; `made` was just made and is not to be freed even if nobody reads it.
    fn release_but(&mut self, made: Value) {
        let register = self.of.remove(&made).expect("just made");
        self.release(&[]);
        self.of.insert(made, register);
    }
}
