//! Threads that execute a kernel side by side.
//!
//! A warp here is any 32 threads of a block, not those that a device would take. They go through
//! the text in fragments: threads at the same place, which part where a condition tells them
//! apart, and join where they meet again.

use crate::decode::{LOCAL, PARAMETERS};
use crate::fault::Deed;
use crate::flow::Program;
use crate::lanes::{
    Doubles, DoublesAt, LANES, Mask, Row, Words, WordsAt, bit, blend_words, compare, double_work,
    each, joined, map, map2, map3, word_work,
};
use crate::memory::{Memory, View};
use crate::op::{Base, Halves, Op, Place, PredicateWork, Reading, Shift, Space, Special};
use crate::shared::Shared;

/// Threads at the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) at: u32,
    /// Which lanes, as bits.
    pub(crate) lanes: u32,
}

/// Why a fragment does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It has come to a place where others may have to go first, and can go on from there.
    Pause(Fragment),
    /// All its threads wait at the barrier before this place.
    Barrier(Fragment),
    /// All its threads have ended.
    Ended,
}

/// What all threads of a block share.
pub(crate) struct Block<'b> {
    pub(crate) program: &'b Program,
    pub(crate) memory: &'b Memory,
    pub(crate) view: &'b mut View,
    pub(crate) shared: &'b mut Shared,
    pub(crate) parameters: &'b [u8],
    pub(crate) number: u32,
    pub(crate) threads: u32,
    pub(crate) blocks: u32,
    /// Steps that the block has taken: its clock.
    pub(crate) clock: u64,
    /// How many threads have entered each basic block.
    pub(crate) entered: &'b mut [u64],
}

/// A deed, with the step and the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caught {
    pub(crate) deed: Deed,
    pub(crate) step: u32,
    pub(crate) thread: u32,
}

/// Registers of 32 threads, and where these are.
#[derive(Debug)]
pub(crate) struct Warp {
    words: Vec<Row>,
    predicates: Vec<u32>,
    carry: Row,
    threads: Words,
    /// Local memory, word by word of all lanes, and which lanes have written it.
    local: Vec<(Words, u32)>,
    pub(crate) fragments: Vec<Fragment>,
    pub(crate) waiting: Vec<Fragment>,
}

impl Warp {
    /// Registers for a program.
    pub(crate) fn new(program: &Program, local_bytes: u64) -> Self {
        let [words, predicates] = program.registers;
        Self {
            words: vec![Row::ZERO; words],
            predicates: vec![0; predicates],
            carry: Row::ZERO,
            threads: [0; LANES],
            local: vec![([0; LANES], 0); local_bytes.div_ceil(4) as usize],
            fragments: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Puts these threads, 32 at most, at the begin of the program.
    pub(crate) fn start(&mut self, program: &Program, threads: &[u32]) {
        for (place, value) in &program.numbers.words {
            *self.words[*place as usize] = [*value; LANES];
        }
        self.local.iter_mut().for_each(|(_, written)| *written = 0);
        self.threads = each(|lane| threads.get(lane).copied().unwrap_or(0));
        let lanes = u32::MAX >> (LANES - threads.len());
        self.fragments.clear();
        self.fragments.push(Fragment { at: 0, lanes });
        self.waiting.clear();
    }

    /// Goes on with a fragment until it stops. It pauses where it enters a basic block while other
    /// fragments wait, and after `patience` blocks.
    pub(crate) fn run(
        &mut self,
        arch: pulp::Arch,
        block: &mut Block<'_>,
        fragment: Fragment,
        patience: u32,
    ) -> Result<Stop, Caught> {
        // All that is inlined here is compiled for the vectors that the processor has.
        struct Going<'g, 'b>(&'g mut Warp, &'g mut Block<'b>, Fragment, u32);
        impl pulp::WithSimd for Going<'_, '_> {
            type Output = Result<Stop, Caught>;
            #[inline(always)]
            fn with_simd<S: pulp::Simd>(self, _: S) -> Self::Output {
                self.0.go(self.1, self.2, self.3)
            }
        }
        arch.dispatch(Going(self, block, fragment, patience))
    }

    #[inline(always)]
    fn go(
        &mut self,
        block: &mut Block<'_>,
        fragment: Fragment,
        mut patience: u32,
    ) -> Result<Stop, Caught> {
        let Fragment { at, mut lanes } = fragment;
        let program = block.program;
        let mut at = at as usize;
        let mut first = true;
        let mut mask = Mask::new(lanes);
        loop {
            let step = &program.steps[at];
            let mut active = lanes;
            if let Some(guard) = step.guard {
                let holds = self.predicates[guard.predicate.number as usize];
                active &= if guard.negated { !holds } else { holds };
            }
            match &step.op {
                Op::Begin { block: number } => {
                    patience = patience.saturating_sub(1);
                    if !first && (patience == 0 || !self.fragments.is_empty()) {
                        return Ok(Stop::Pause(Fragment { at: at as u32, lanes }));
                    }
                    first = false;
                    block.entered[*number as usize] += u64::from(lanes.count_ones());
                    at += 1;
                    continue;
                }
                Op::Jump { to } => {
                    block.clock += 1;
                    if active == lanes {
                        at = *to as usize;
                    } else if active == 0 {
                        at += 1;
                    } else {
                        self.fragments.push(Fragment { at: *to, lanes: active });
                        lanes &= !active;
                        at += 1;
                    }
                    continue;
                }
                Op::End => {
                    lanes &= !active;
                    if lanes == 0 {
                        return Ok(Stop::Ended);
                    }
                }
                Op::Barrier => {
                    let waiting = Fragment { at: at as u32 + 1, lanes: active };
                    lanes &= !active;
                    if lanes == 0 {
                        return Ok(Stop::Barrier(waiting));
                    }
                    self.waiting.push(waiting);
                }
                op => {
                    block.clock += 1;
                    if active != 0 {
                        if active != mask.lanes {
                            mask = Mask::new(active);
                        }
                        self.execute(op, &mask, block).map_err(|(deed, lane)| Caught {
                            deed,
                            step: at as u32,
                            thread: self.threads[lane],
                        })?;
                    }
                }
            }
            at += 1;
        }
    }

    /// The thread of the lowest lane of a fragment.
    pub(crate) fn first_thread(&self, fragment: Fragment) -> u32 {
        self.threads[fragment.lanes.trailing_zeros() as usize % LANES]
    }

    #[inline(always)]
    fn put_word(&mut self, d: u32, value: Words, mask: &Mask) {
        blend_words(&mut self.words[d as usize], value, mask);
    }

    #[inline(always)]
    fn put_double(&mut self, [low, high]: Halves, value: Doubles, mask: &Mask) {
        self.put_word(low, map(&value, |value| value as u32), mask);
        self.put_word(high, map(&value, |value| (value >> 32) as u32), mask);
    }

    #[inline(always)]
    fn put_predicate(&mut self, d: u32, value: u32, lanes: u32) {
        let old = &mut self.predicates[d as usize];
        *old = *old & !lanes | value & lanes;
    }

    #[inline(always)]
    fn execute(
        &mut self,
        op: &Op,
        mask: &Mask,
        block: &mut Block<'_>,
    ) -> Result<(), (Deed, usize)> {
        let lanes = mask.lanes;
        let w = |place: Place| *self.words[place as usize];
        let q = |[low, high]: Halves| joined(&w(low), &w(high));
        match *op {
            Op::Pair { carry, d, a, b, c } => {
                let (a, b, low, high) = (w(a), w(b), w(c[0]), w(c[1]));
                let taken = if carry.taken { *self.carry } else { [0; LANES] };
                let product = map2(&a, &b, |a, b| u64::from(a) * u64::from(b));
                // Room for two words more: (2^32 - 1)^2 + 2 (2^32 - 1) = 2^64 - 1.
                let sum = map2(&low, &taken, |l, t| u64::from(l) + u64::from(t));
                let sum: Doubles = map2(&product, &sum, u64::wrapping_add);
                let lower = map(&sum, |sum| sum as u32);
                let upper = map2(&sum, &high, |sum, high| (sum >> 32) + u64::from(high));
                self.put_word(d[0], lower, mask);
                self.put_word(d[1], map(&upper, |upper| upper as u32), mask);
                if carry.given {
                    blend_words(&mut self.carry, map(&upper, |upper| (upper >> 32) as u32), mask);
                }
            }
            Op::Move { d, a } => self.put_word(d, w(a), mask),
            Op::MoveDouble { d, a } => {
                let (low, high) = (w(a[0]), w(a[1]));
                self.put_word(d[0], low, mask);
                self.put_word(d[1], high, mask);
            }
            Op::AddCarry { carry, d, a, b } => {
                let taken = if carry.taken { *self.carry } else { [0; LANES] };
                let sum = map3(&w(a), &w(b), &taken, |a, b, c| {
                    u64::from(a) + u64::from(b) + u64::from(c)
                });
                self.put_word(d, map(&sum, |sum| sum as u32), mask);
                if carry.given {
                    blend_words(&mut self.carry, map(&sum, |sum| (sum >> 32) as u32), mask);
                }
            }
            Op::SubtractBorrow { carry, d, a, b } => {
                let taken = if carry.taken { *self.carry } else { [0; LANES] };
                let difference = map3(&w(a), &w(b), &taken, |a, b, c| {
                    u64::from(a).wrapping_sub(u64::from(b)).wrapping_sub(u64::from(c))
                });
                self.put_word(d, map(&difference, |difference| difference as u32), mask);
                if carry.given {
                    blend_words(&mut self.carry, map(&difference, |d| (d >> 63) as u32), mask);
                }
            }
            Op::AddCarryDouble { carry, d, a, b } => {
                let taken = if carry.taken { *self.carry } else { [0; LANES] };
                let (a, b) = (q(a), q(b));
                let sum: [u128; LANES] =
                    each(|i| u128::from(a[i]) + u128::from(b[i]) + u128::from(taken[i]));
                self.put_double(d, map(&sum, |sum| sum as u64), mask);
                if carry.given {
                    blend_words(&mut self.carry, map(&sum, |sum| (sum >> 64) as u32), mask);
                }
            }
            Op::SubtractBorrowDouble { carry, d, a, b } => {
                let taken = if carry.taken { *self.carry } else { [0; LANES] };
                let (a, b) = (q(a), q(b));
                let difference: [u128; LANES] = each(|i| {
                    u128::from(a[i]).wrapping_sub(u128::from(b[i])).wrapping_sub(taken[i].into())
                });
                self.put_double(d, map(&difference, |difference| difference as u64), mask);
                if carry.given {
                    blend_words(&mut self.carry, map(&difference, |d| (d >> 127) as u32), mask);
                }
            }
            Op::MultiplyAddCarry { high, carry, d, a, b, c } => {
                let taken = if carry.taken { *self.carry } else { [0; LANES] };
                let half = map2(&w(a), &w(b), |a, b| {
                    let product = u64::from(a) * u64::from(b);
                    if high { (product >> 32) as u32 } else { product as u32 }
                });
                let sum = map3(&half, &w(c), &taken, |a, b, c| {
                    u64::from(a) + u64::from(b) + u64::from(c)
                });
                self.put_word(d, map(&sum, |sum| sum as u32), mask);
                if carry.given {
                    blend_words(&mut self.carry, map(&sum, |sum| (sum >> 32) as u32), mask);
                }
            }
            Op::Wide { signed, d, a, b, c } => {
                let product: Doubles = if signed {
                    map2(&w(a), &w(b), |a, b| {
                        (i64::from(a.cast_signed()) * i64::from(b.cast_signed())).cast_unsigned()
                    })
                } else {
                    map2(&w(a), &w(b), |a, b| u64::from(a) * u64::from(b))
                };
                let sum = match c {
                    Some(c) => map2(&product, &q(c), u64::wrapping_add),
                    None => product,
                };
                self.put_double(d, sum, mask);
            }
            Op::Words { work, d, a, b, c } => {
                word_work(work, WordsAt { words: &mut self.words, mask, d, a, b, c })?;
            }
            Op::Doubles { work, d, a, b, c } => {
                double_work(work, DoublesAt { words: &mut self.words, mask, d, a, b, c });
            }
            Op::ShiftDouble { shift, d, a, b } => {
                let value = map2(&q(a), &w(b), |a, b| match shift {
                    Shift::Left => a.checked_shl(b).unwrap_or(0),
                    Shift::Right => a.checked_shr(b).unwrap_or(0),
                    Shift::RightSigned => (a.cast_signed() >> b.min(63)).cast_unsigned(),
                });
                self.put_double(d, value, mask);
            }
            Op::SelectWord { d, a, b, p } => {
                let (a, b, p) = (w(a), w(b), self.predicates[p as usize]);
                let value = each(|i| if bit(p, i) { a[i] } else { b[i] });
                self.put_word(d, value, mask);
            }
            Op::SelectDouble { d, a, b, p } => {
                let (a, b, p) = (q(a), q(b), self.predicates[p as usize]);
                let value = each(|i| if bit(p, i) { a[i] } else { b[i] });
                self.put_double(d, value, mask);
            }
            Op::CompareWords { how, reading, d, a, b } => {
                let (a, b) = (w(a), w(b));
                let bits = match reading {
                    Reading::Unsigned => compare(how, &a, &b),
                    Reading::Signed => {
                        compare(how, &map(&a, u32::cast_signed), &map(&b, u32::cast_signed))
                    }
                };
                self.put_predicate(d, bits, lanes);
            }
            Op::CompareDoubles { how, reading, d, a, b } => {
                let (a, b) = (q(a), q(b));
                let bits = match reading {
                    Reading::Unsigned => compare(how, &a, &b),
                    Reading::Signed => {
                        compare(how, &map(&a, u64::cast_signed), &map(&b, u64::cast_signed))
                    }
                };
                self.put_predicate(d, bits, lanes);
            }
            Op::Predicates { work, d, a, b } => {
                let (a, b) = (self.predicates[a as usize], self.predicates[b as usize]);
                let value = match work {
                    PredicateWork::Move => a,
                    PredicateWork::Not => !a,
                    PredicateWork::And => a & b,
                    PredicateWork::Or => a | b,
                    PredicateWork::Xor => a ^ b,
                };
                self.put_predicate(d, value, lanes);
            }
            Op::Extend { d, a } => {
                let value = map(&w(a), |a| i64::from(a.cast_signed()).cast_unsigned());
                self.put_double(d, value, mask);
            }
            Op::FloatFromDouble { d, a } => {
                self.put_double(d, map(&q(a), |a| (a as f64).to_bits()), mask);
            }
            Op::FloatFromWord { d, a } => {
                self.put_double(d, map(&w(a), |a| f64::from(a).to_bits()), mask);
            }
            Op::ReadSpecial { d, which } => {
                let value = match which {
                    Special::ThreadX => self.threads,
                    Special::ThreadOther | Special::BlockOther => [0; LANES],
                    Special::BlockX => [block.number; LANES],
                    Special::ThreadsX => [block.threads; LANES],
                    Special::ThreadsOther | Special::BlocksOther => [1; LANES],
                    Special::BlocksX => [block.blocks; LANES],
                    Special::Lane => map(&self.threads, |thread| thread % LANES as u32),
                };
                self.put_word(d, value, mask);
            }
            Op::Clock { d } => self.put_double(d, [block.clock; LANES], mask),
            Op::ClockWord { d } => self.put_word(d, [block.clock as u32; LANES], mask),
            Op::Load { space, ref to, halves, base, offset } => {
                self.load(block, space, (to, halves), (base, offset), lanes)?;
            }
            Op::Store { space, ref from, base, offset } => {
                self.store(block, space, from, (base, offset), lanes)?;
            }
            Op::AtomicMinimum { d, a, base, offset } => {
                self.atomic_minimum(block, (d, a), (base, offset), lanes)?;
            }
            Op::Begin { .. } | Op::Jump { .. } | Op::End | Op::Barrier => {}
        }
        Ok(())
    }

    fn double(&self, [low, high]: Halves, lane: usize) -> u64 {
        u64::from(self.words[high as usize][lane]) << 32 | u64::from(self.words[low as usize][lane])
    }

    fn address(&self, base: Base, offset: i64, lane: usize) -> u64 {
        match base {
            Base::Double(halves) => self.double(halves, lane).wrapping_add_signed(offset),
            Base::Word(place) => {
                u64::from(self.words[place as usize][lane].wrapping_add_signed(offset as i32))
            }
            Base::Zero => offset.cast_unsigned(),
        }
    }

    fn load(
        &mut self,
        block: &mut Block<'_>,
        space: Space,
        (to, halves): (&[Place], bool),
        (base, offset): (Base, i64),
        lanes: u32,
    ) -> Result<(), (Deed, usize)> {
        let count = if halves { to.len() / 2 } else { to.len() };
        let bytes = 4 * count as u32;
        for lane in (0..LANES).filter(|&lane| bit(lanes, lane)) {
            let address = self.address(base, offset, lane);
            let mut words = [0; 8];
            let caught = |deed| (deed, lane);
            match space {
                Space::Global | Space::Constant => {
                    let constant = space == Space::Constant;
                    let piece = block.view.piece(address, bytes, constant).map_err(caught)?;
                    for (at, word) in (address..).step_by(4).zip(&mut words[..count]) {
                        *word = piece.load(at).map_err(caught)?;
                    }
                }
                Space::Shared => {
                    let place = block.shared.place(address, bytes).map_err(caught)?;
                    for (at, word) in (place..).zip(&mut words[..count]) {
                        *word = block.shared.load(at, self.threads[lane]).map_err(caught)?;
                    }
                }
                Space::Local => {
                    let place = self.local_place(address, bytes).map_err(caught)?;
                    for (at, word) in (place..).zip(&mut words[..count]) {
                        let (values, written) = &self.local[at];
                        if !bit(*written, lane) {
                            let address = LOCAL + 4 * at as u64;
                            return Err(caught(Deed::Unwritten { address }));
                        }
                        *word = values[lane];
                    }
                }
                Space::Parameter => {
                    let from = parameter_place(block, address, bytes).map_err(caught)?;
                    let (chunks, _) = block.parameters[from..].as_chunks::<4>();
                    for (chunk, word) in chunks.iter().zip(&mut words[..count]) {
                        *word = u32::from_le_bytes(*chunk);
                    }
                }
            }
            if halves {
                for (place, word) in to.as_chunks().0.iter().zip(words) {
                    let [low, high] = *place;
                    self.words[low as usize][lane] = word;
                    self.words[high as usize][lane] = 0;
                }
            } else {
                for (place, word) in to.iter().zip(words) {
                    self.words[*place as usize][lane] = word;
                }
            }
        }
        Ok(())
    }

    fn store(
        &mut self,
        block: &mut Block<'_>,
        space: Space,
        from: &[Place],
        (base, offset): (Base, i64),
        lanes: u32,
    ) -> Result<(), (Deed, usize)> {
        let count = from.len();
        let bytes = 4 * count as u32;
        for lane in (0..LANES).filter(|&lane| bit(lanes, lane)) {
            let address = self.address(base, offset, lane);
            let caught = |deed| (deed, lane);
            let mut words = [0; 8];
            for (place, word) in from.iter().zip(&mut words) {
                *word = self.words[*place as usize][lane];
            }
            match space {
                Space::Global => {
                    let piece = block.view.piece(address, bytes, false).map_err(caught)?;
                    for (at, word) in (address..).step_by(4).zip(&words[..count]) {
                        piece.store(at, *word);
                    }
                }
                Space::Shared => {
                    let place = block.shared.place(address, bytes).map_err(caught)?;
                    for (at, word) in (place..).zip(&words[..count]) {
                        block.shared.store(at, self.threads[lane], *word).map_err(caught)?;
                    }
                }
                Space::Local => {
                    let place = self.local_place(address, bytes).map_err(caught)?;
                    for (at, word) in (place..).zip(&words[..count]) {
                        self.local[at].0[lane] = *word;
                        self.local[at].1 |= 1 << lane;
                    }
                }
                // The decoder takes no such store.
                Space::Constant | Space::Parameter => {
                    return Err(caught(Deed::Outside { address, bytes }));
                }
            }
        }
        Ok(())
    }

    fn atomic_minimum(
        &mut self,
        block: &mut Block<'_>,
        (d, a): (Option<Halves>, Halves),
        (base, offset): (Base, i64),
        lanes: u32,
    ) -> Result<(), (Deed, usize)> {
        let memory = block.memory;
        let _held = memory.atomics.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for lane in (0..LANES).filter(|&lane| bit(lanes, lane)) {
            let caught = |deed| (deed, lane);
            let address = self.address(base, offset, lane);
            let piece = block.view.piece(address, 8, false).map_err(caught)?;
            let low = piece.load(address).map_err(caught)?;
            let high = piece.load(address + 4).map_err(caught)?;
            let old = u64::from(high) << 32 | u64::from(low);
            let new = old.min(self.double(a, lane));
            piece.store(address, new as u32);
            piece.store(address + 4, (new >> 32) as u32);
            if let Some([low, high]) = d {
                self.words[low as usize][lane] = old as u32;
                self.words[high as usize][lane] = (old >> 32) as u32;
            }
        }
        Ok(())
    }

    fn local_place(&self, address: u64, bytes: u32) -> Result<usize, Deed> {
        let at = address.wrapping_sub(LOCAL);
        if at.checked_add(u64::from(bytes)).is_none_or(|end| end > 4 * self.local.len() as u64) {
            return Err(Deed::Outside { address, bytes });
        }
        if !address.is_multiple_of(u64::from(bytes)) {
            return Err(Deed::Unaligned { address, bytes });
        }
        Ok((at / 4) as usize)
    }
}

fn parameter_place(block: &Block<'_>, address: u64, bytes: u32) -> Result<usize, Deed> {
    let at = address.wrapping_sub(PARAMETERS);
    let end = at.checked_add(u64::from(bytes));
    if end.is_none_or(|end| end > block.parameters.len() as u64) {
        return Err(Deed::Outside { address, bytes });
    }
    if !address.is_multiple_of(u64::from(bytes)) {
        return Err(Deed::Unaligned { address, bytes });
    }
    Ok(at as usize)
}
