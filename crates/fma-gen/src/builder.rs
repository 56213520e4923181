//! Records programs and keeps, for every value, how large it can be. A step whose result could
//! leave its range panics, so that no such program is ever written.
//!
//! Two kinds of values are told apart by type: [`Double`], an integer that a double holds exactly,
//! and [`Column`], an integer of 64 bits plus a constant that is known here, modulo 2^64.
//!
//! # The split product
//!
//! With rounding to nearest, and for a split at `bits`, let `M = 1.5 * 2^(52 + bits)` and
//! `m = 1.5 * 2^52`. The doubles in `[2^(52 + bits), 2^(53 + bits)]` are the multiples of
//! `2^bits`, and their bit patterns are consecutive integers. So `h = fma(a, b, M)` is `M` plus the
//! product rounded to a multiple of `2^bits`, and its pattern is that of `M` plus the rounded
//! product divided by `2^bits`, as long as it stays within `2^(51 + bits)` of `M`. What rounding
//! took away is at most `2^(bits - 1)`, and `fma(a, b, -(h - M))` is exactly that, because `h - M`
//! is a multiple of `2^bits` that has fewer than 53 bits and the result fits into a double.
//! With `M + m` for `M` the result is `m` plus that, whose pattern is the integer plus that of `m`.
//!
//! Several products are added by passing `h` on: `h' = fma(c, d, h)`.

use std::collections::HashMap;

use crate::program::{
    Binary, Count, Fused, Instruction, Loop, Memory, Operand, Part, Pointer, Value,
};

/// An integer in a double: at most `max` in absolute value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Double {
    pub(crate) value: Operand,
    pub(crate) max: u128,
}

/// An integer of 64 bits: a number of at most `max` in absolute value, plus `offset`, modulo 2^64.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) value: Operand,
    pub(crate) offset: u64,
    pub(crate) max: u128,
}

/// The constants of a file, each once.
#[derive(Debug, Default)]
pub(crate) struct Constants {
    pub(crate) patterns: Vec<u64>,
}

impl Constants {
    fn place(&mut self, pattern: u64) -> Memory {
        let place = self.patterns.iter().position(|known| *known == pattern);
        Memory::Constant(place.unwrap_or_else(|| {
            self.patterns.push(pattern);
            self.patterns.len() - 1
        }))
    }
}

/// Where integers are exact.
const EXACT: u128 = 1 << 53;

/// `1.5 * 2^exponent`.
fn one_and_a_half(exponent: u32) -> f64 {
    1.5 * 2_f64.powi(exponent as i32)
}

/// The pattern of `1.5 * 2^52`, the constant `m`.
fn low_pattern() -> u64 {
    one_and_a_half(52).to_bits()
}

/// Records a routine.
pub(crate) struct Builder<'a> {
    constants: &'a mut Constants,
    parts: Vec<Part>,
    next: u32,
    /// Constants that have a register of their own.
    pinned: HashMap<u64, Value>,
}

/// The parts of a sum of split products.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Split {
    /// The multiples of `2^bits`, divided by it.
    pub(crate) high: Column,
    /// The rest.
    pub(crate) low: Column,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(constants: &'a mut Constants) -> Self {
        Self { constants, parts: Vec::new(), next: 0, pinned: HashMap::new() }
    }

    pub(crate) fn finish(self) -> Vec<Part> {
        self.parts
    }

    fn fresh(&mut self) -> Value {
        self.next += 1;
        Value(self.next - 1)
    }

    fn push(&mut self, instruction: Instruction) {
        self.parts.push(Part::Instruction(instruction));
    }

    fn in_register(&mut self, operand: Operand) -> Value {
        match operand {
            Operand::Value(value) => value,
            Operand::Memory(from @ Memory::EightAt(..)) => {
                let to = self.fresh();
                self.push(Instruction::Broadcast { to, from });
                to
            }
            Operand::Memory(from) => {
                let to = self.fresh();
                self.push(Instruction::Load { to, from, shared: false });
                to
            }
        }
    }

    /// What is used twice and is not to be loaded twice gets a register: constants, which other
    /// vectors share, and eight bytes that have to be broadcast.
    fn for_two_uses(&mut self, operand: Operand) -> Operand {
        match operand {
            Operand::Memory(Memory::EightAt(..)) => self.in_register(operand).into(),
            Operand::Memory(from @ Memory::Constant(_)) => {
                let to = self.fresh();
                self.push(Instruction::Load { to, from, shared: true });
                to.into()
            }
            there => there,
        }
    }

    fn binary(&mut self, op: Binary, a: Operand, b: Operand) -> Value {
        // All but the subtraction commute.
        let (a, b) = match (a, b) {
            (Operand::Memory(_), Operand::Value(_)) if op != Binary::SubDouble => (b, a),
            both => both,
        };
        let b = match b {
            Operand::Memory(Memory::EightAt(..)) => self.in_register(b).into(),
            there => there,
        };
        let a = self.in_register(a);
        let to = self.fresh();
        self.push(Instruction::Binary { op, to, a, b });
        to
    }

    fn fused(&mut self, op: Fused, a: Operand, b: Operand, c: Operand) -> Value {
        let (a, b) = if matches!(a, Operand::Memory(_)) { (b, a) } else { (a, b) };
        let a = self.in_register(a);
        let c = self.in_register(c);
        let to = self.fresh();
        self.push(Instruction::Fused { op, to, a, b, c });
        to
    }

    fn pattern(&mut self, pattern: u64) -> Operand {
        if let Some(value) = self.pinned.get(&pattern) {
            return Operand::Value(*value);
        }
        Operand::Memory(self.constants.place(pattern))
    }

    /// Gives the constants of products split at `bits` registers of their own, which spares loads:
    /// a core does two in a cycle.
    pub(crate) fn pin_split(&mut self, bits: u32) {
        let magic = one_and_a_half(52 + bits);
        for number in [magic, magic + one_and_a_half(52)] {
            let from = self.constants.place(number.to_bits());
            let to = self.fresh();
            self.push(Instruction::Load { to, from, shared: false });
            self.pinned.insert(number.to_bits(), to);
        }
    }

    fn number(&mut self, number: f64) -> Operand {
        self.pattern(number.to_bits())
    }

    /// The same double, read once.
    pub(crate) fn in_register_double(&mut self, double: Double) -> Double {
        Double { value: self.in_register(double.value).into(), max: double.max }
    }

    /// A constant integer.
    pub(crate) fn constant(&mut self, number: i64) -> Double {
        assert!(u128::from(number.unsigned_abs()) <= EXACT, "{number} is not exact");
        Double { value: self.number(number as f64), max: number.unsigned_abs().into() }
    }

    /// A double in memory that is at most `max`; read where it is used.
    pub(crate) fn double_at(&mut self, pointer: Pointer, offset: i32, max: u128) -> Double {
        assert!(max <= EXACT);
        Double { value: Memory::At(pointer, offset).into(), max }
    }

    /// The same, read once.
    pub(crate) fn load_double(&mut self, pointer: Pointer, offset: i32, max: u128) -> Double {
        let double = self.double_at(pointer, offset, max);
        Double { value: self.in_register(double.value).into(), max }
    }

    /// A double of eight bytes, broadcast where it is used.
    pub(crate) fn same_double_at(&mut self, pointer: Pointer, offset: i32, max: u128) -> Double {
        assert!(max <= EXACT);
        Double { value: Memory::EightAt(pointer, offset).into(), max }
    }

    /// The same, read once.
    pub(crate) fn broadcast_double(&mut self, pointer: Pointer, offset: i32, max: u128) -> Double {
        let double = self.same_double_at(pointer, offset, max);
        Double { value: self.in_register(double.value).into(), max }
    }

    /// A column in memory that is at most `max` beside its offset.
    pub(crate) fn column_at(
        &mut self,
        pointer: Pointer,
        place: i32,
        offset: u64,
        max: u128,
    ) -> Column {
        Column { value: Memory::At(pointer, place).into(), offset, max }
    }

    /// A column of eight bytes, broadcast where it is used.
    pub(crate) fn same_column_at(&mut self, pointer: Pointer, offset: i32, max: u128) -> Column {
        Column { value: Memory::EightAt(pointer, offset).into(), offset: 0, max }
    }

    pub(crate) fn store_double(&mut self, pointer: Pointer, offset: i32, double: Double) {
        let value = self.in_register(double.value);
        self.push(Instruction::Store { to: Memory::At(pointer, offset), value });
    }

    /// Stores a column with its offset, which whoever reads it has to know.
    pub(crate) fn store_column(&mut self, pointer: Pointer, offset: i32, column: Column) {
        let value = self.in_register(column.value);
        self.push(Instruction::Store { to: Memory::At(pointer, offset), value });
    }

    /// Stores a column that is read again by the same routine.
    pub(crate) fn put_away(&mut self, pointer: Pointer, offset: i32, column: Column) -> Column {
        self.store_column(pointer, offset, column);
        Column { value: Memory::At(pointer, offset).into(), ..column }
    }

    /// The sum of the products, in two columns.
    pub(crate) fn split(&mut self, bits: u32, products: &[(Double, Double)]) -> Split {
        let most = 1_u128 << (bits - 1);
        let sum: u128 = products.iter().map(|(a, b)| a.max * b.max).sum();
        assert!(sum <= 1 << (51 + bits), "the high part of {products:?} leaves its range");
        let lows: u128 = products.iter().map(|(a, b)| most.min(a.max * b.max)).sum();
        assert!(lows <= 1 << 51, "the low part of {products:?} leaves its range");
        let magic = one_and_a_half(52 + bits);
        let mut before = self.number(magic);
        let both = magic + one_and_a_half(52);
        let mut low: Option<Value> = None;
        for (a, b) in products {
            let a = Double { value: self.for_two_uses(a.value), max: a.max };
            let b = Double { value: self.for_two_uses(b.value), max: b.max };
            let high = self.fused(Fused::Add, a.value, b.value, before);
            // h - M exactly; of the first product, less m.
            let minus = if low.is_none() { self.number(both) } else { before };
            let rounded = self.binary(Binary::SubDouble, high.into(), minus);
            let part = self.fused(Fused::Sub, a.value, b.value, rounded.into());
            low = Some(match low {
                None => part,
                Some(low) => self.binary(Binary::AddDouble, low.into(), part.into()),
            });
            before = high.into();
        }
        let low = low.expect("a product at least");
        Split {
            high: Column {
                value: before,
                offset: magic.to_bits(),
                max: (sum >> bits) + products.len() as u128,
            },
            low: Column { value: low.into(), offset: low_pattern(), max: lows },
        }
    }

    /// The sum of two columns.
    pub(crate) fn add_columns(&mut self, a: Column, b: Column) -> Column {
        let max = a.max + b.max;
        assert!(max < 1 << 63, "a column of 64 bits is too small");
        Column {
            value: self.binary(Binary::AddInteger, a.value, b.value).into(),
            offset: a.offset.wrapping_add(b.offset),
            max,
        }
    }

    /// The same column, read once.
    pub(crate) fn in_register_column(&mut self, column: Column) -> Column {
        Column { value: self.in_register(column.value).into(), ..column }
    }

    /// Adds to a sum that may be nothing yet.
    pub(crate) fn add_to(&mut self, sum: &mut Option<Column>, column: Column) {
        *sum = Some(match *sum {
            None => column,
            Some(sum) => self.add_columns(sum, column),
        });
    }

    /// A column with this offset and no other.
    fn with_offset(&mut self, column: Column, offset: u64) -> Value {
        let missing = offset.wrapping_sub(column.offset);
        if missing == 0 {
            return self.in_register(column.value);
        }
        let plus = self.pattern(missing);
        self.binary(Binary::AddInteger, column.value, plus)
    }

    /// The offset with which [`Self::digit`] spares an addition.
    pub(crate) fn offset_for_digit(bits: u32) -> u64 {
        (1 << 62) + (1 << (bits - 1))
    }

    /// The offset with which [`Self::over_one_less_power`] spares an addition.
    pub(crate) fn offset_for_quotient(bits: u32) -> u64 {
        1 << (bits - 1)
    }

    /// The same column with another offset.
    pub(crate) fn offset_by(&mut self, column: Column, offset: u64) -> Column {
        let value = self.with_offset(column, offset).into();
        Column { value, offset, ..column }
    }

    /// The balanced lowest `bits` bits of a column, from `-2^(bits - 1)` on, and the rest divided
    /// by `2^bits`.
    pub(crate) fn digit(&mut self, bits: u32, column: Column) -> (Double, Column) {
        // A multiple of 2^bits that makes every number positive.
        let lift = 1_u64 << 62;
        let half = 1_u64 << (bits - 1);
        assert!(column.max + u128::from(half) <= u128::from(lift), "a digit of too large a column");
        let positive = self.with_offset(column, lift.wrapping_add(half));
        let carry = self.fresh();
        self.push(Instruction::ShiftRight { to: carry, a: positive, bits });
        let mask = self.pattern((1 << bits) - 1);
        let lowest = self.binary(Binary::And, positive.into(), mask);
        let exponent = self.pattern(2_f64.powi(52).to_bits());
        let as_double = self.binary(Binary::Or, lowest.into(), exponent);
        let minus = self.number(2_f64.powi(52) + half as f64);
        let digit = self.binary(Binary::SubDouble, as_double.into(), minus);
        (
            Double { value: digit.into(), max: half.into() },
            Column {
                value: carry.into(),
                offset: lift >> bits,
                max: ((column.max + u128::from(half)) >> bits) + 1,
            },
        )
    }

    /// A column as a double.
    pub(crate) fn as_double(&mut self, column: Column) -> Double {
        assert!(column.max <= 1 << 51, "a column of up to {} is no double", column.max);
        let plus = self.pattern(low_pattern().wrapping_sub(column.offset));
        let pattern = self.binary(Binary::AddInteger, column.value, plus);
        let minus = self.number(one_and_a_half(52));
        let value = self.binary(Binary::SubDouble, pattern.into(), minus).into();
        Double { value, max: column.max }
    }

    /// The sum of two doubles.
    pub(crate) fn add(&mut self, a: Double, b: Double) -> Double {
        let max = a.max + b.max;
        assert!(max <= EXACT, "a sum is not exact");
        Double { value: self.binary(Binary::AddDouble, a.value, b.value).into(), max }
    }

    /// Records a loop; `body` is recorded once.
    pub(crate) fn repeat(
        &mut self,
        count: Count,
        steps: &[(Pointer, i32)],
        restored: &[Pointer],
        body: impl FnOnce(&mut Self),
    ) {
        let outside = std::mem::take(&mut self.parts);
        body(self);
        let body = std::mem::replace(&mut self.parts, outside);
        let (steps, restored) = (steps.to_vec(), restored.to_vec());
        self.parts.push(Part::Loop(Loop { count, steps, restored, body }));
    }

    /// Records the same for each of `streams` and takes turns between them, instruction by
    /// instruction, so that none waits for itself.
    pub(crate) fn side_by_side(&mut self, streams: usize, mut body: impl FnMut(&mut Self, usize)) {
        let outside = std::mem::take(&mut self.parts);
        let mut recorded = Vec::new();
        for stream in 0..streams {
            body(self, stream);
            let parts = std::mem::take(&mut self.parts);
            recorded.extend(parts.into_iter().enumerate());
        }
        self.parts = outside;
        recorded.sort_by_key(|(turn, _)| *turn);
        // Loads of the same constant in one turn are one.
        let mut same = HashMap::new();
        for turn in recorded.chunk_by(|(one, _), (other, _)| one == other) {
            let mut loaded = HashMap::new();
            for (_, part) in turn {
                let mut part = part.clone();
                if let Part::Instruction(instruction) = &mut part {
                    instruction.rename(&same);
                    if let Instruction::Load {
                        to,
                        from: Memory::Constant(constant),
                        shared: true,
                    } = *instruction
                    {
                        if let Some(there) = loaded.get(&constant) {
                            same.insert(to, *there);
                            continue;
                        }
                        loaded.insert(constant, to);
                    }
                }
                self.parts.push(part);
            }
        }
    }

    /// `column / (1 - 2^power)` modulo `2^bits`, balanced, where that is `column (1 + 2^power)`.
    pub(crate) fn over_one_less_power(&mut self, bits: u32, power: u32, column: Column) -> Double {
        assert!(2 * power >= bits && power > 0);
        let half = 1_u64 << (bits - 1);
        // Half of 2^bits is not changed by the factor, modulo 2^bits.
        let lifted = self.with_offset(column, half);
        let shifted = self.fresh();
        self.push(Instruction::ShiftLeft { to: shifted, a: lifted, bits: power });
        let product = self.binary(Binary::AddInteger, lifted.into(), shifted.into());
        let mask = self.pattern((1 << bits) - 1);
        let lowest = self.binary(Binary::And, product.into(), mask);
        let exponent = self.pattern(2_f64.powi(52).to_bits());
        let as_double = self.binary(Binary::Or, lowest.into(), exponent);
        let minus = self.number(2_f64.powi(52) + half as f64);
        let value = self.binary(Binary::SubDouble, as_double.into(), minus).into();
        Double { value, max: half.into() }
    }

    /// A column that is a multiple of `2^bits`, divided by it.
    pub(crate) fn divided(&mut self, bits: u32, column: Column) -> Column {
        let lift = 1_u64 << 62;
        assert!(column.max <= u128::from(lift));
        let positive = self.with_offset(column, lift);
        let to = self.fresh();
        self.push(Instruction::ShiftRight { to, a: positive, bits });
        Column { value: to.into(), offset: lift >> bits, max: (column.max >> bits) + 1 }
    }
}
