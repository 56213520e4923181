//! The shared memory of a block, and who has touched it since the last barrier.

use crate::fault::Deed;

/// Nobody, or several threads.
const NOBODY: u32 = u32::MAX;
const SEVERAL: u32 = u32::MAX - 1;

/// What is known of a word.
#[derive(Debug, Clone, Copy)]
struct Word {
    value: u32,
    written: bool,
    /// Who wrote it, and between which barriers.
    writer: u32,
    written_in: u32,
    reader: u32,
    read_in: u32,
}

/// The memory of one block.
#[derive(Debug)]
pub(crate) struct Shared {
    words: Vec<Word>,
    /// Barriers that the block has passed.
    pub(crate) barriers: u32,
}

impl Shared {
    /// Memory that nobody has written.
    pub(crate) fn new(bytes: u64) -> Self {
        let word = Word {
            value: 0xdead_beef,
            written: false,
            writer: NOBODY,
            written_in: 0,
            reader: NOBODY,
            read_in: 0,
        };
        Self { words: vec![word; bytes.div_ceil(4) as usize], barriers: 0 }
    }

    /// The first word of an access that is aligned and lies within.
    pub(crate) fn place(&self, address: u64, bytes: u32) -> Result<usize, Deed> {
        let end = address.checked_add(u64::from(bytes));
        if end.is_none_or(|end| end > 4 * self.words.len() as u64) {
            return Err(Deed::Outside { address, bytes });
        }
        if !address.is_multiple_of(u64::from(bytes)) {
            return Err(Deed::Unaligned { address, bytes });
        }
        Ok((address / 4) as usize)
    }

    pub(crate) fn load(&mut self, place: usize, thread: u32) -> Result<u32, Deed> {
        let address = 4 * place as u64;
        let word = &mut self.words[place];
        if !word.written {
            return Err(Deed::Unwritten { address });
        }
        if word.writer != NOBODY && word.written_in == self.barriers && word.writer != thread {
            return Err(Deed::Race { address, other: Some(word.writer) });
        }
        if word.reader == NOBODY || word.read_in != self.barriers {
            (word.reader, word.read_in) = (thread, self.barriers);
        } else if word.reader != thread {
            word.reader = SEVERAL;
        }
        Ok(word.value)
    }

    pub(crate) fn store(&mut self, place: usize, thread: u32, value: u32) -> Result<(), Deed> {
        let address = 4 * place as u64;
        let word = &mut self.words[place];
        if word.writer != NOBODY && word.written_in == self.barriers && word.writer != thread {
            return Err(Deed::Race { address, other: Some(word.writer) });
        }
        if word.reader != NOBODY && word.read_in == self.barriers && word.reader != thread {
            let other = Some(word.reader).filter(|&reader| reader != SEVERAL);
            return Err(Deed::Race { address, other });
        }
        *word = Word { value, written: true, writer: thread, written_in: self.barriers, ..*word };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_threads_may_touch_a_word_with_a_barrier_between() {
        let mut shared = Shared::new(8);
        shared.store(0, 3, 7).expect("nobody was there");
        assert_eq!(shared.load(0, 3), Ok(7), "its own");
        let race = |other| Deed::Race { address: 0, other };
        assert_eq!(shared.load(0, 4), Err(race(Some(3))), "read after a write");
        assert_eq!(shared.store(0, 4, 1), Err(race(Some(3))), "write after a write");
        shared.barriers += 1;
        assert_eq!((shared.load(0, 4), shared.load(0, 5)), (Ok(7), Ok(7)), "readers are many");
        assert_eq!(shared.store(0, 4, 1), Err(race(None)), "write after reads");
        shared.barriers += 1;
        shared.store(0, 4, 1).expect("a barrier is between");
        assert_eq!(shared.load(1, 0), Err(Deed::Unwritten { address: 4 }));
    }

    #[test]
    fn an_access_lies_within_and_is_aligned() {
        let shared = Shared::new(32);
        assert_eq!(shared.place(16, 16), Ok(4));
        let outside = |address| Err(Deed::Outside { address, bytes: 16 });
        assert_eq!(shared.place(32, 16), outside(32));
        assert_eq!(shared.place(u64::MAX, 16), outside(u64::MAX));
        assert_eq!(shared.place(8, 16), Err(Deed::Unaligned { address: 8, bytes: 16 }));
    }
}
