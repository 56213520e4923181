//! The memory of a device: pieces at addresses that are far apart, so that whoever leaves a piece
//! is outside.
//!
//! Words are atomics, because the blocks of a kernel run on several threads; which of them come
//! first is theirs to keep apart, as on a device.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock};

use crate::fault::Deed;

/// Where the memory of devices begins: past what a 32-bit address reaches.
const FIRST: u64 = 0x7000_0000_0000;

/// Bytes between pieces that belong to nobody.
const GAP: u64 = 1 << 20;

/// As cuMemAlloc aligns.
const ALIGNMENT: u64 = 256;

/// A piece of memory.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) start: u64,
    pub(crate) bytes: u64,
    words: Box<[AtomicU32]>,
    /// For each word, which of its bytes have been written, as bits.
    written: Box<[AtomicU8]>,
    /// Whether kernels may only read it.
    constant: bool,
}

impl Piece {
    fn new(start: u64, bytes: u64, constant: bool) -> Self {
        let words = usize::try_from(bytes.div_ceil(4)).unwrap_or(usize::MAX);
        Self {
            start,
            bytes,
            // What is there before anybody writes is not zero, as on a device that was used before.
            words: (0..words).map(|_| AtomicU32::new(0xa5a5_a5a5)).collect(),
            written: (0..words).map(|_| AtomicU8::new(0)).collect(),
            constant,
        }
    }

    fn holds(&self, address: u64, bytes: u64) -> bool {
        address >= self.start && bytes <= self.bytes && address - self.start <= self.bytes - bytes
    }

    /// A word at an aligned address within.
    pub(crate) fn load(&self, address: u64) -> Result<u32, Deed> {
        let word = ((address - self.start) / 4) as usize;
        if self.written[word].load(Relaxed) != 0xf {
            return Err(Deed::Unwritten { address });
        }
        Ok(self.words[word].load(Relaxed))
    }

    /// Stores a word at an aligned address within.
    pub(crate) fn store(&self, address: u64, value: u32) {
        let word = ((address - self.start) / 4) as usize;
        self.words[word].store(value, Relaxed);
        self.written[word].store(0xf, Relaxed);
    }

    fn put_byte(&self, at: u64, byte: u8) {
        let (word, shift) = ((at / 4) as usize, at % 4);
        let old = self.words[word].load(Relaxed) & !(0xff << (8 * shift));
        self.words[word].store(old | u32::from(byte) << (8 * shift), Relaxed);
        self.written[word].fetch_or(1 << shift, Relaxed);
    }

    fn byte(&self, at: u64) -> u8 {
        (self.words[(at / 4) as usize].load(Relaxed) >> (8 * (at % 4))) as u8
    }
}

/// All memory of a device.
#[derive(Debug)]
pub struct Memory {
    pieces: RwLock<BTreeMap<u64, Arc<Piece>>>,
    next: Mutex<u64>,
    /// Held by what reads and writes in one.
    pub(crate) atomics: Mutex<()>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { pieces: RwLock::default(), next: Mutex::new(FIRST), atomics: Mutex::default() }
    }
}

/// A lock whose holder has panicked is as good as any: what it guards is whole at every moment.
fn hold<T>(lock: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Memory {
    /// Takes `bytes` and returns where they begin.
    pub fn take(&self, bytes: u64) -> u64 {
        self.take_piece(bytes, false)
    }

    pub(crate) fn take_piece(&self, bytes: u64, constant: bool) -> u64 {
        let start = {
            let mut next = hold(&self.next);
            let start = *next;
            *next = (start + bytes + GAP).next_multiple_of(ALIGNMENT);
            start
        };
        let piece = Arc::new(Piece::new(start, bytes, constant));
        self.write_pieces().insert(start, piece);
        start
    }

    /// Gives back what begins there. Whether there was anything.
    pub fn give_back(&self, start: u64) -> bool {
        self.write_pieces().remove(&start).is_some()
    }

    fn write_pieces(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<u64, Arc<Piece>>> {
        self.pieces.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Everything that there is now, in the order of addresses.
    pub(crate) fn pieces(&self) -> Vec<Arc<Piece>> {
        let pieces = self.pieces.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        pieces.values().cloned().collect()
    }

    fn piece(&self, address: u64, bytes: u64) -> Option<Arc<Piece>> {
        let pieces = self.pieces.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (_, piece) = pieces.range(..=address).next_back()?;
        piece.holds(address, bytes).then(|| Arc::clone(piece))
    }

    /// Writes bytes from outside. Whether all of them lie in one piece.
    pub fn write(&self, address: u64, bytes: &[u8]) -> bool {
        let Some(piece) = self.piece(address, bytes.len() as u64) else { return false };
        let from = address - piece.start;
        let (words, rest) = bytes.as_chunks::<4>();
        if from.is_multiple_of(4) {
            for (at, word) in (address..).step_by(4).zip(words) {
                piece.store(at, u32::from_le_bytes(*word));
            }
            let done = from + 4 * words.len() as u64;
            (done..).zip(rest).for_each(|(at, byte)| piece.put_byte(at, *byte));
        } else {
            (from..).zip(bytes).for_each(|(at, byte)| piece.put_byte(at, *byte));
        }
        true
    }

    /// Reads bytes from outside. Whether all of them lie in one piece.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        let Some(piece) = self.piece(address, bytes.len() as u64) else { return false };
        let from = address - piece.start;
        (from..).zip(bytes).for_each(|(at, byte)| *byte = piece.byte(at));
        true
    }
}

/// The pieces that a kernel finds, and the one that it found last.
#[derive(Debug)]
pub(crate) struct View {
    pieces: Vec<Arc<Piece>>,
    last: usize,
}

impl View {
    pub(crate) fn new(memory: &Memory) -> Self {
        Self { pieces: memory.pieces(), last: 0 }
    }

    /// The piece that an aligned access lies in.
    pub(crate) fn piece(
        &mut self,
        address: u64,
        bytes: u32,
        constant: bool,
    ) -> Result<&Piece, Deed> {
        let outside = Deed::Outside { address, bytes };
        let length = u64::from(bytes);
        if !self.pieces.get(self.last).is_some_and(|piece| piece.holds(address, length)) {
            let after = self.pieces.partition_point(|piece| piece.start <= address);
            self.last = after.checked_sub(1).ok_or(outside)?;
        }
        let piece = &self.pieces[self.last];
        if !piece.holds(address, length) || piece.constant != constant {
            return Err(outside);
        }
        if !address.is_multiple_of(length) {
            return Err(Deed::Unaligned { address, bytes });
        }
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_from_outside_is_read_again_wherever_it_begins() {
        let memory = Memory::default();
        let start = memory.take(41);
        let bytes: Vec<u8> = (1..=41).collect();
        for from in 0..5 {
            assert!(memory.write(start + from, &bytes[from as usize..]));
        }
        let mut read = [0; 41];
        assert!(memory.read(start, &mut read));
        assert_eq!(read[..], bytes[..]);
        assert!(!memory.write(start + 1, &bytes), "one past the end");
        assert!(!memory.read(start - 1, &mut read), "one before the begin");
        assert!(memory.give_back(start) && !memory.give_back(start));
        assert!(!memory.read(start, &mut read));
    }

    #[test]
    fn an_access_lies_in_one_piece_is_aligned_and_reads_what_was_written() {
        let memory = Memory::default();
        let first = memory.take(64);
        let constant = memory.take_piece(64, true);
        assert!(memory.write(first, &[7; 30]));
        let mut view = View::new(&memory);
        let access = |view: &mut View, address, bytes, constant| {
            view.piece(address, bytes, constant).map(|piece| piece.start)
        };
        assert_eq!(access(&mut view, first + 48, 16, false), Ok(first));
        assert_eq!(access(&mut view, constant, 4, true), Ok(constant));
        for (address, is_constant) in
            [(first + 64, false), (first - 16, false), (first, true), (constant, false), (8, false)]
        {
            let outside = Deed::Outside { address, bytes: 16 };
            assert_eq!(access(&mut view, address, 16, is_constant), Err(outside));
        }
        let address = first + 8;
        let unaligned = Deed::Unaligned { address, bytes: 16 };
        assert_eq!(access(&mut view, address, 16, false), Err(unaligned));
        let piece = view.piece(first, 4, false).expect("it is there");
        assert_eq!(piece.load(first), Ok(0x0707_0707));
        // Two of its four bytes.
        let address = first + 28;
        assert_eq!(piece.load(address), Err(Deed::Unwritten { address }));
    }
}
