//! Instructions in the form in which they are executed.
//!
//! An operand is always a register: numbers stand in registers that are filled once
//! ([`Numbers`](crate::decode::Numbers)). A register is its place in the file of its class, so
//! that what is executed has no names to look up.

/// A place in a file of registers.
pub(crate) type Place = u32;

/// On words; three operands at most, of which those that an operation lacks are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WordWork {
    Move,
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
    Move,
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

/// Where an access begins: a register of 64 or 32 bits, and a distance; or a place that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    Double(Place),
    Word(Place),
    Fixed(u64),
}

/// Registers that are loaded or stored side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Values {
    Words(Box<[Place]>),
    Doubles(Box<[Place]>),
    /// The lower halves of doubles; what is loaded is filled up with zeros.
    Halves(Box<[Place]>),
}

impl Values {
    pub(crate) fn bytes(&self) -> u32 {
        match self {
            Self::Words(places) | Self::Halves(places) => 4 * places.len() as u32,
            Self::Doubles(places) => 8 * places.len() as u32,
        }
    }
}

/// What is to be done. `d` is where the result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    /// The begin of a basic block.
    Begin {
        block: u32,
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
        d: Place,
        a: Place,
        b: Place,
        c: Place,
    },
    ShiftDouble {
        shift: Shift,
        d: Place,
        a: Place,
        b: Place,
    },
    /// 32 by 32 bits with a result of 64, and an addend of 64.
    Wide {
        signed: bool,
        d: Place,
        a: Place,
        b: Place,
        c: Option<Place>,
    },
    SelectWord {
        d: Place,
        a: Place,
        b: Place,
        p: Place,
    },
    SelectDouble {
        d: Place,
        a: Place,
        b: Place,
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
        a: Place,
        b: Place,
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
        d: Place,
        a: Place,
        b: Place,
    },
    SubtractBorrowDouble {
        carry: Carry,
        d: Place,
        a: Place,
        b: Place,
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
    Join {
        d: Place,
        low: Place,
        high: Place,
    },
    Split {
        low: Option<Place>,
        high: Option<Place>,
        a: Place,
    },
    Extend {
        signed: bool,
        d: Place,
        a: Place,
    },
    Cut {
        d: Place,
        a: Place,
    },
    FloatFromDouble {
        d: Place,
        a: Place,
    },
    FloatFromWord {
        d: Place,
        a: Place,
    },
    ReadSpecial {
        d: Place,
        which: Special,
    },
    Clock {
        d: Place,
    },
    ClockWord {
        d: Place,
    },
    Load {
        space: Space,
        to: Values,
        base: Base,
        offset: i64,
    },
    Store {
        space: Space,
        from: Values,
        base: Base,
        offset: i64,
    },
    /// The smaller of what is there and `a`; what was there goes to `d`.
    AtomicMinimum {
        d: Option<Place>,
        a: Place,
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

/// Which file a register is in.
pub(crate) use crate::parse::Class;

impl Op {
    /// Shows every register of the operation, reads first. `visit` may put another place there.
    pub(crate) fn registers(&mut self, visit: &mut dyn FnMut(Use, Class, &mut Place)) {
        use Class::{Double, Predicate, Word};
        use Use::{Reads, Writes};
        let base = |base: &mut Base, visit: &mut dyn FnMut(Use, Class, &mut Place)| match base {
            Base::Double(place) => visit(Reads, Double, place),
            Base::Word(place) => visit(Reads, Word, place),
            Base::Fixed(_) => {}
        };
        let values = |values: &mut Values, how, visit: &mut dyn FnMut(Use, Class, &mut Place)| {
            let (class, places) = match values {
                Values::Words(places) => (Word, places),
                Values::Doubles(places) | Values::Halves(places) => (Double, places),
            };
            places.iter_mut().for_each(|place| visit(how, class, place));
        };
        match self {
            Self::Begin { .. } | Self::Barrier | Self::Jump { .. } | Self::End => {}
            Self::Words { d, a, b, c, .. } => {
                [a, b, c].into_iter().for_each(|place| visit(Reads, Word, place));
                visit(Writes, Word, d);
            }
            Self::Doubles { d, a, b, c, .. } => {
                [a, b, c].into_iter().for_each(|place| visit(Reads, Double, place));
                visit(Writes, Double, d);
            }
            Self::ShiftDouble { d, a, b, .. } => {
                visit(Reads, Double, a);
                visit(Reads, Word, b);
                visit(Writes, Double, d);
            }
            Self::Wide { d, a, b, c, .. } => {
                [a, b].into_iter().for_each(|place| visit(Reads, Word, place));
                c.iter_mut().for_each(|place| visit(Reads, Double, place));
                visit(Writes, Double, d);
            }
            Self::SelectWord { d, a, b, p } => {
                [a, b].into_iter().for_each(|place| visit(Reads, Word, place));
                visit(Reads, Predicate, p);
                visit(Writes, Word, d);
            }
            Self::SelectDouble { d, a, b, p } => {
                [a, b].into_iter().for_each(|place| visit(Reads, Double, place));
                visit(Reads, Predicate, p);
                visit(Writes, Double, d);
            }
            Self::CompareWords { d, a, b, .. } => {
                [a, b].into_iter().for_each(|place| visit(Reads, Word, place));
                visit(Writes, Predicate, d);
            }
            Self::CompareDoubles { d, a, b, .. } => {
                [a, b].into_iter().for_each(|place| visit(Reads, Double, place));
                visit(Writes, Predicate, d);
            }
            Self::Predicates { d, a, b, .. } => {
                [a, b].into_iter().for_each(|place| visit(Reads, Predicate, place));
                visit(Writes, Predicate, d);
            }
            Self::AddCarry { d, a, b, .. } | Self::SubtractBorrow { d, a, b, .. } => {
                [a, b].into_iter().for_each(|place| visit(Reads, Word, place));
                visit(Writes, Word, d);
            }
            Self::AddCarryDouble { d, a, b, .. } | Self::SubtractBorrowDouble { d, a, b, .. } => {
                [a, b].into_iter().for_each(|place| visit(Reads, Double, place));
                visit(Writes, Double, d);
            }
            Self::MultiplyAddCarry { d, a, b, c, .. } => {
                [a, b, c].into_iter().for_each(|place| visit(Reads, Word, place));
                visit(Writes, Word, d);
            }
            Self::Pair { d, a, b, c: [c0, c1], .. } => {
                [a, b, c0, c1].into_iter().for_each(|place| visit(Reads, Word, place));
                d.iter_mut().for_each(|place| visit(Writes, Word, place));
            }
            Self::Join { d, low, high } => {
                [low, high].into_iter().for_each(|place| visit(Reads, Word, place));
                visit(Writes, Double, d);
            }
            Self::Split { low, high, a } => {
                visit(Reads, Double, a);
                low.iter_mut().chain(high).for_each(|place| visit(Writes, Word, place));
            }
            Self::Extend { d, a, .. } => {
                visit(Reads, Word, a);
                visit(Writes, Double, d);
            }
            Self::Cut { d, a } => {
                visit(Reads, Double, a);
                visit(Writes, Word, d);
            }
            Self::FloatFromDouble { d, a } => {
                visit(Reads, Double, a);
                visit(Writes, Double, d);
            }
            Self::FloatFromWord { d, a } => {
                visit(Reads, Word, a);
                visit(Writes, Double, d);
            }
            Self::ReadSpecial { d, .. } | Self::ClockWord { d } => visit(Writes, Word, d),
            Self::Clock { d } => visit(Writes, Double, d),
            Self::Load { to, base: from, .. } => {
                base(from, visit);
                values(to, Writes, visit);
            }
            Self::Store { from, base: to, .. } => {
                base(to, visit);
                values(from, Reads, visit);
            }
            Self::AtomicMinimum { d, a, base: at, .. } => {
                base(at, visit);
                visit(Reads, Double, a);
                d.iter_mut().for_each(|place| visit(Writes, Double, place));
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
