//! Instructions in the form in which they are executed.
//!
//! An operand is always a register: numbers stand in registers that are filled once
//! ([`Numbers`](crate::decode::Numbers)). A register is its place in a file, so that what is
//! executed has no names to look up. A register of 64 bits is two places of words, so that whoever
//! takes it apart or puts it together only moves words.

/// A place in a file of registers.
pub(crate) type Place = u32;

/// The places of the lower and the upper half of 64 bits.
pub(crate) type Halves = [Place; 2];

/// Which file a register is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum File {
    Words,
    Predicates,
}

/// On words; three operands at most, of which those that an operation lacks are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WordWork {
    Add,
    Subtract,
    MultiplyLow,
    MultiplyHigh,
    MultiplyHighSigned,
    MultiplyAddLow,
    MultiplyAddHigh,
    And,
    Or,
    Xor,
    Not,
    Negate,
    ShiftLeft,
    ShiftRight,
    ShiftRightSigned,
    /// Of two words, wrapping or clamping the distance.
    FunnelLeftWrap,
    FunnelRightWrap,
    Minimum,
    Maximum,
    MinimumSigned,
    MaximumSigned,
    Remainder,
    Divide,
    CountOnes,
    LeadingZeros,
    /// Any function of three bits, by its table.
    Logic(u8),
    /// Bytes of two words, chosen by a third.
    Permute,
}

/// On doubles (64 bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DoubleWork {
    Add,
    Subtract,
    MultiplyLow,
    MultiplyHigh,
    MultiplyAddLow,
    And,
    Or,
    Xor,
    Not,
    Negate,
    Minimum,
    Maximum,
    MinimumSigned,
    MaximumSigned,
    /// Of floating point.
    FloatAdd,
    FloatMultiply,
    FloatMultiplyAdd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shift {
    Left,
    Right,
    RightSigned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// How bits are read by a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    Unsigned,
    Signed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PredicateWork {
    Move,
    Not,
    And,
    Or,
    Xor,
}

/// What the carry flag is to an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Carry {
    pub(crate) taken: bool,
    pub(crate) given: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Special {
    ThreadX,
    ThreadOther,
    BlockX,
    BlockOther,
    ThreadsX,
    ThreadsOther,
    BlocksX,
    BlocksOther,
    Lane,
}

/// A kind of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Global,
    Constant,
    Shared,
    Local,
    Parameter,
}

/// Where an access begins, but for a distance: a register of 64 or 32 bits, or the address 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    Double(Halves),
    Word(Place),
    Zero,
}

/// What is to be done. `d` is where the result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    /// The begin of a basic block.
    Begin {
        block: u32,
    },
    Move {
        d: Place,
        a: Place,
    },
    /// Both words are read before one is written.
    MoveDouble {
        d: Halves,
        a: Halves,
    },
    Words {
        work: WordWork,
        d: Place,
        a: Place,
        b: Place,
        c: Place,
    },
    Doubles {
        work: DoubleWork,
        d: Halves,
        a: Halves,
        b: Halves,
        c: Halves,
    },
    ShiftDouble {
        shift: Shift,
        d: Halves,
        a: Halves,
        b: Place,
    },
    /// 32 by 32 bits with a result of 64, and an addend of 64.
    Wide {
        signed: bool,
        d: Halves,
        a: Place,
        b: Place,
        c: Option<Halves>,
    },
    SelectWord {
        d: Place,
        a: Place,
        b: Place,
        p: Place,
    },
    SelectDouble {
        d: Halves,
        a: Halves,
        b: Halves,
        p: Place,
    },
    CompareWords {
        how: Comparison,
        reading: Reading,
        d: Place,
        a: Place,
        b: Place,
    },
    CompareDoubles {
        how: Comparison,
        reading: Reading,
        d: Place,
        a: Halves,
        b: Halves,
    },
    Predicates {
        work: PredicateWork,
        d: Place,
        a: Place,
        b: Place,
    },
    AddCarry {
        carry: Carry,
        d: Place,
        a: Place,
        b: Place,
    },
    SubtractBorrow {
        carry: Carry,
        d: Place,
        a: Place,
        b: Place,
    },
    AddCarryDouble {
        carry: Carry,
        d: Halves,
        a: Halves,
        b: Halves,
    },
    SubtractBorrowDouble {
        carry: Carry,
        d: Halves,
        a: Halves,
        b: Halves,
    },
    MultiplyAddCarry {
        high: bool,
        carry: Carry,
        d: Place,
        a: Place,
        b: Place,
        c: Place,
    },
    /// The lower and the upper half of one product, one after the other: what two instructions of
    /// a text do, at once.
    Pair {
        carry: Carry,
        d: [Place; 2],
        a: Place,
        b: Place,
        c: [Place; 2],
    },
    /// Fills up with the sign.
    Extend {
        d: Halves,
        a: Place,
    },
    FloatFromDouble {
        d: Halves,
        a: Halves,
    },
    FloatFromWord {
        d: Halves,
        a: Place,
    },
    ReadSpecial {
        d: Place,
        which: Special,
    },
    Clock {
        d: Halves,
    },
    ClockWord {
        d: Place,
    },
    /// Of words side by side.
    Load {
        space: Space,
        to: Box<[Place]>,
        /// Every other place is an upper half, which nothing is loaded for but zeros.
        halves: bool,
        base: Base,
        offset: i64,
    },
    Store {
        space: Space,
        from: Box<[Place]>,
        base: Base,
        offset: i64,
    },
    /// The smaller of what is there and `a`; what was there goes to `d`.
    AtomicMinimum {
        d: Option<Halves>,
        a: Halves,
        base: Base,
        offset: i64,
    },
    Barrier,
    Jump {
        to: u32,
    },
    End,
}

/// What an operation does with a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Reads,
    Writes,
}

/// What is shown each register of an operation.
type Visit<'v> = &'v mut dyn FnMut(Use, File, &mut Place);

fn words<'p>(how: Use, places: impl IntoIterator<Item = &'p mut Place>, visit: Visit<'_>) {
    places.into_iter().for_each(|place| visit(how, File::Words, place));
}

impl Base {
    fn registers(&mut self, visit: Visit<'_>) {
        match self {
            Self::Double(halves) => words(Use::Reads, halves, visit),
            Self::Word(place) => visit(Use::Reads, File::Words, place),
            Self::Zero => {}
        }
    }
}

impl Op {
    /// Shows every register of the operation, reads first. `visit` may put another place there.
    pub(crate) fn registers(&mut self, visit: Visit<'_>) {
        use File::{Predicates, Words};
        use Use::{Reads, Writes};
        match self {
            Self::Begin { .. } | Self::Barrier | Self::Jump { .. } | Self::End => {}
            Self::Move { d, a } => {
                visit(Reads, Words, a);
                visit(Writes, Words, d);
            }
            Self::MoveDouble { d, a } | Self::FloatFromDouble { d, a } => {
                words(Reads, a, visit);
                words(Writes, d, visit);
            }
            Self::Words { d, a, b, c, .. } | Self::MultiplyAddCarry { d, a, b, c, .. } => {
                words(Reads, [a, b, c], visit);
                visit(Writes, Words, d);
            }
            Self::Doubles { d, a, b, c, .. } => {
                words(Reads, a.iter_mut().chain(b).chain(c), visit);
                words(Writes, d, visit);
            }
            Self::ShiftDouble { d, a, b, .. } => {
                words(Reads, a.iter_mut().chain([b]), visit);
                words(Writes, d, visit);
            }
            Self::Wide { d, a, b, c, .. } => {
                words(Reads, [a, b].into_iter().chain(c.iter_mut().flatten()), visit);
                words(Writes, d, visit);
            }
            Self::SelectWord { d, a, b, p } => {
                words(Reads, [a, b], visit);
                visit(Reads, Predicates, p);
                visit(Writes, Words, d);
            }
            Self::SelectDouble { d, a, b, p } => {
                words(Reads, a.iter_mut().chain(b), visit);
                visit(Reads, Predicates, p);
                words(Writes, d, visit);
            }
            Self::CompareWords { d, a, b, .. } => {
                words(Reads, [a, b], visit);
                visit(Writes, Predicates, d);
            }
            Self::CompareDoubles { d, a, b, .. } => {
                words(Reads, a.iter_mut().chain(b), visit);
                visit(Writes, Predicates, d);
            }
            Self::Predicates { d, a, b, .. } => {
                [a, b].into_iter().for_each(|place| visit(Reads, Predicates, place));
                visit(Writes, Predicates, d);
            }
            Self::AddCarry { d, a, b, .. } | Self::SubtractBorrow { d, a, b, .. } => {
                words(Reads, [a, b], visit);
                visit(Writes, Words, d);
            }
            Self::AddCarryDouble { d, a, b, .. } | Self::SubtractBorrowDouble { d, a, b, .. } => {
                words(Reads, a.iter_mut().chain(b), visit);
                words(Writes, d, visit);
            }
            Self::Pair { d, a, b, c: [c0, c1], .. } => {
                words(Reads, [a, b, c0, c1], visit);
                words(Writes, d, visit);
            }
            Self::Extend { d, a } | Self::FloatFromWord { d, a } => {
                visit(Reads, Words, a);
                words(Writes, d, visit);
            }
            Self::ReadSpecial { d, .. } | Self::ClockWord { d } => visit(Writes, Words, d),
            Self::Clock { d } => words(Writes, d, visit),
            Self::Load { to, base, .. } => {
                base.registers(visit);
                words(Writes, to, visit);
            }
            Self::Store { from, base, .. } => {
                base.registers(visit);
                words(Reads, from, visit);
            }
            Self::AtomicMinimum { d, a, base, .. } => {
                base.registers(visit);
                words(Reads, a, visit);
                words(Writes, d.iter_mut().flatten(), visit);
            }
        }
    }

    /// Whether the carry flag is taken, and given.
    pub(crate) fn carry(&self) -> Option<(Carry, Chain)> {
        match *self {
            Self::AddCarry { carry, .. }
            | Self::AddCarryDouble { carry, .. }
            | Self::MultiplyAddCarry { carry, .. }
            | Self::Pair { carry, .. } => Some((carry, Chain::Sum)),
            Self::SubtractBorrow { carry, .. } | Self::SubtractBorrowDouble { carry, .. } => {
                Some((carry, Chain::Difference))
            }
            _ => None,
        }
    }
}

/// What the flag means: a carry and a borrow are not the same to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chain {
    Sum,
    Difference,
}
