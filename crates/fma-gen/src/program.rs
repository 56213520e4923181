//! Straight-line programs over 256-bit vectors: values, the instructions that make them, and loops
//! around them.
//!
//! A value is made once. Instructions stay in the order in which they are recorded; registers are
//! given out later (`allocate`).

use std::collections::HashMap;

/// A value: four lanes of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Value(pub(crate) u32);

/// A pointer that a routine is given, by its place among the arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pointer(pub(crate) usize);

/// 32 bytes of memory, or 8 where they are broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// At a pointer plus bytes.
    At(Pointer, i32),
    /// Eight bytes at a pointer plus bytes, which have to be broadcast.
    EightAt(Pointer, i32),
    /// A constant of the table, by its place there.
    Constant(usize),
}

/// The second operand of most instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    Value(Value),
    Memory(Memory),
}

impl From<Value> for Operand {
    fn from(value: Value) -> Self {
        Self::Value(value)
    }
}

impl From<Memory> for Operand {
    fn from(memory: Memory) -> Self {
        Self::Memory(memory)
    }
}

/// Instructions that make a value of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    AddDouble,
    SubDouble,
    AddInteger,
    And,
    Or,
}

impl Binary {
    pub(crate) fn mnemonic(self) -> &'static str {
        match self {
            Self::AddDouble => "vaddpd",
            Self::SubDouble => "vsubpd",
            Self::AddInteger => "vpaddq",
            Self::And => "vpand",
            Self::Or => "vpor",
        }
    }
}

/// The sign of the addend of a fused multiply-add, and of the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fused {
    /// `a b + c`
    Add,
    /// `a b - c`
    Sub,
}

impl Fused {
    pub(crate) fn stem(self) -> &'static str {
        match self {
            Self::Add => "vfmadd",
            Self::Sub => "vfmsub",
        }
    }
}

/// What makes a value, or uses it up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Instruction {
    /// `shared` is a constant that vectors side by side may read from one register.
    Load {
        to: Value,
        from: Memory,
        shared: bool,
    },
    /// Eight bytes into all lanes.
    Broadcast {
        to: Value,
        from: Memory,
    },
    Binary {
        op: Binary,
        to: Value,
        a: Value,
        b: Operand,
    },
    /// Logical, of 64-bit lanes.
    ShiftRight {
        to: Value,
        a: Value,
        bits: u32,
    },
    ShiftLeft {
        to: Value,
        a: Value,
        bits: u32,
    },
    Fused {
        op: Fused,
        to: Value,
        a: Value,
        b: Operand,
        c: Value,
    },
    Store {
        to: Memory,
        value: Value,
    },
}

/// How often a loop runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Fixed(u32),
    /// An argument of the routine, by its place among the arguments.
    Argument(usize),
}

/// A loop around a part of a program.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Loop {
    pub(crate) count: Count,
    /// By how many bytes pointers move at the end of each turn.
    pub(crate) steps: Vec<(Pointer, i32)>,
    /// Pointers that are after the loop where they were before.
    pub(crate) restored: Vec<Pointer>,
    pub(crate) body: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    Instruction(Instruction),
    Loop(Loop),
}

/// A function of the generated file.
#[derive(Clone, Debug)]
pub(crate) struct Routine {
    pub(crate) name: &'static str,
    /// Lines of its documentation.
    pub(crate) about: &'static [&'static str],
    /// The arguments by name and type, pointers and counts.
    pub(crate) arguments: &'static [(&'static str, &'static str)],
    pub(crate) body: Vec<Part>,
}

impl Instruction {
    /// The value that it makes.
    pub(crate) fn made(&self) -> Option<Value> {
        match *self {
            Self::Load { to, .. }
            | Self::Broadcast { to, .. }
            | Self::Binary { to, .. }
            | Self::ShiftRight { to, .. }
            | Self::ShiftLeft { to, .. }
            | Self::Fused { to, .. } => Some(to),
            Self::Store { .. } => None,
        }
    }

    /// The values that it reads.
    pub(crate) fn read(&self) -> Vec<Value> {
        let operand = |operand: Operand| match operand {
            Operand::Value(value) => Some(value),
            Operand::Memory(_) => None,
        };
        match *self {
            Self::Load { .. } | Self::Broadcast { .. } => Vec::new(),
            Self::Binary { a, b, .. } => [Some(a), operand(b)].into_iter().flatten().collect(),
            Self::ShiftRight { a, .. } | Self::ShiftLeft { a, .. } => vec![a],
            Self::Fused { a, b, c, .. } => {
                [Some(a), operand(b), Some(c)].into_iter().flatten().collect()
            }
            Self::Store { value, .. } => vec![value],
        }
    }

    /// Whether a vector unit executes it, and not the units for memory or the renaming of registers.
    pub(crate) fn is_operation(&self) -> bool {
        match self {
            Self::Binary { .. }
            | Self::ShiftRight { .. }
            | Self::ShiftLeft { .. }
            | Self::Fused { .. } => true,
            Self::Load { .. } | Self::Broadcast { .. } | Self::Store { .. } => false,
        }
    }

    /// Reads other values in the place of some.
    pub(crate) fn rename(&mut self, same: &HashMap<Value, Value>) {
        let renamed = |value: &mut Value| *value = *same.get(value).unwrap_or(value);
        let operand = |operand: &mut Operand| {
            if let Operand::Value(value) = operand {
                renamed(value);
            }
        };
        match self {
            Self::Load { .. } | Self::Broadcast { .. } => {}
            Self::Binary { a, b, .. } => {
                renamed(a);
                operand(b);
            }
            Self::ShiftRight { a, .. } | Self::ShiftLeft { a, .. } => renamed(a),
            Self::Fused { a, b, c, .. } => {
                renamed(a);
                operand(b);
                renamed(c);
            }
            Self::Store { value, .. } => renamed(value),
        }
    }
}
