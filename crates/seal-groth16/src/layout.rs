//! Where things lie in a parameter file: the verifying key, then the point lists H, L, A, B in
//! G1 and B in G2, each behind its length as a big-endian `u32`. Points are uncompressed.
//!
//! The published readers index into the file by these lengths without looking, so a file that is
//! cut off or whose lengths are wrong has to be found here.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use seal_host::{FileError, open_input};

use crate::Groth16Error;

/// Bytes of an uncompressed point of G1.
pub(crate) const G1: u64 = 96;
/// Bytes of an uncompressed point of G2.
pub(crate) const G2: u64 = 192;

/// Bytes of a list's length.
const LENGTH: u64 = 4;
/// Alpha, beta and delta in G1; beta, gamma and delta in G2.
const KEY_HEAD: u64 = 3 * G1 + 3 * G2;

/// A list of points: where it begins, behind its length, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct List {
    pub(crate) offset: u64,
    pub(crate) count: u32,
}

/// How many points the lists of parameters have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lengths {
    pub(crate) inputs: usize,
    pub(crate) h: usize,
    pub(crate) l: usize,
    pub(crate) a: usize,
    pub(crate) b_g1: usize,
    pub(crate) b_g2: usize,
}

/// What a parameter file is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Points of the verifying key for the public inputs.
    pub(crate) ic: List,
    pub(crate) h: List,
    pub(crate) l: List,
    pub(crate) a: List,
    pub(crate) b_g1: List,
    pub(crate) b_g2: List,
    /// The whole file.
    pub(crate) bytes: u64,
}

impl Layout {
    /// Reads the lengths and checks that they fit each other and the file.
    pub(crate) fn read(path: &Path) -> Result<Self, Groth16Error> {
        let mut cursor = Cursor::open(path)?;
        cursor.skip(KEY_HEAD, "the verifying key")?;
        let layout = Self {
            ic: cursor.list(G1, "the verifying key's inputs")?,
            h: cursor.list(G1, "list H")?,
            l: cursor.list(G1, "list L")?,
            a: cursor.list(G1, "list A")?,
            b_g1: cursor.list(G1, "list B in G1")?,
            b_g2: cursor.list(G2, "list B in G2")?,
            bytes: cursor.length,
        };
        cursor.end()?;
        layout.check_counts().map_err(|reason| cursor.damaged(reason))?;
        Ok(layout)
    }

    /// Bytes of the verifying key at the head of the file, which are the whole of a `.vk` file.
    pub(crate) fn key_bytes(&self) -> u64 {
        self.ic.offset + u64::from(self.ic.count) * G1
    }

    /// How many points there are.
    pub(crate) fn lengths(&self) -> Lengths {
        let [inputs, h, l, a, b_g1, b_g2] =
            [self.ic, self.h, self.l, self.a, self.b_g1, self.b_g2].map(|list| list.count as usize);
        Lengths { inputs, h, l, a, b_g1, b_g2 }
    }

    fn check_counts(&self) -> Result<(), String> {
        let (ic, h, l) = (self.ic.count, self.h.count, self.l.count);
        if !(u64::from(h) + 1).is_power_of_two() {
            return Err(format!("list H has {h} points, which is not one below a power of two"));
        }
        let variables = u64::from(ic) + u64::from(l);
        for (name, count) in [("A", self.a.count), ("B in G1", self.b_g1.count)] {
            if u64::from(count) > variables {
                return Err(format!("list {name} has {count} points for {variables} variables"));
            }
        }
        if self.b_g1.count != self.b_g2.count {
            return Err(format!(
                "list B has {} points in G1 and {} in G2",
                self.b_g1.count, self.b_g2.count
            ));
        }
        Ok(())
    }
}

/// Checks that a `.vk` file has the length its own header gives it.
pub(crate) fn check_key_file(path: &Path) -> Result<(), Groth16Error> {
    let mut cursor = Cursor::open(path)?;
    cursor.skip(KEY_HEAD, "the verifying key")?;
    cursor.list(G1, "the verifying key's inputs")?;
    cursor.end()
}

/// Walks through a file by lengths without reading the points.
struct Cursor<'a> {
    file: File,
    path: &'a Path,
    at: u64,
    length: u64,
}

impl<'a> Cursor<'a> {
    fn open(path: &'a Path) -> Result<Self, Groth16Error> {
        let file = open_input(path)?;
        let metadata = file.metadata().map_err(FileError::of("look at", path))?;
        if !metadata.is_file() {
            let reason = "it is not a regular file".to_owned();
            return Err(Groth16Error::DamagedParameters { path: path.to_path_buf(), reason });
        }
        Ok(Self { file, path, at: 0, length: metadata.len() })
    }

    fn damaged(&self, reason: String) -> Groth16Error {
        Groth16Error::DamagedParameters { path: self.path.to_path_buf(), reason }
    }

    fn skip(&mut self, bytes: u64, what: &str) -> Result<(), Groth16Error> {
        let end = self.at + bytes;
        if end > self.length {
            return Err(self.damaged(format!(
                "{what} would end at byte {end}, but the file ends at byte {}",
                self.length
            )));
        }
        self.at = end;
        Ok(())
    }

    fn list(&mut self, point: u64, what: &str) -> Result<List, Groth16Error> {
        let start = self.at;
        self.skip(LENGTH, what)?;
        let mut count = [0; LENGTH as usize];
        self.file
            .seek(SeekFrom::Start(start))
            .and_then(|_| self.file.read_exact(&mut count))
            .map_err(FileError::of("read", self.path))?;
        let list = List { offset: self.at, count: u32::from_be_bytes(count) };
        self.skip(u64::from(list.count) * point, what)?;
        if list.count == 0 {
            return Err(self.damaged(format!("{what} is empty")));
        }
        Ok(list)
    }

    fn end(&self) -> Result<(), Groth16Error> {
        if self.at == self.length {
            return Ok(());
        }
        let (at, length) = (self.at, self.length);
        Err(self.damaged(format!("its lists end at byte {at}, but the file at byte {length}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file with the given list lengths and zeros for points.
    fn file(counts: [u32; 6]) -> Vec<u8> {
        let mut bytes = vec![0; KEY_HEAD as usize];
        for (index, count) in counts.into_iter().enumerate() {
            let point = if index == 5 { G2 } else { G1 };
            bytes.extend_from_slice(&count.to_be_bytes());
            bytes.resize(bytes.len() + count as usize * point as usize, 0);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Layout, String> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("x.params");
        std::fs::write(&path, bytes).expect("writable");
        Layout::read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn finds_the_lists() {
        let bytes = file([2, 7, 5, 6, 4, 4]);
        let layout = read(&bytes).expect("whole");
        assert_eq!(layout.ic, List { offset: 868, count: 2 });
        assert_eq!(layout.key_bytes(), 868 + 2 * 96);
        assert_eq!(layout.h, List { offset: layout.key_bytes() + 4, count: 7 });
        assert_eq!(layout.b_g2.offset + 4 * G2, bytes.len() as u64);
    }

    #[test]
    fn every_truncation_is_found() {
        let bytes = file([2, 7, 5, 6, 4, 4]);
        for length in 0..bytes.len() {
            let error = read(&bytes[..length]).expect_err("cut off");
            assert!(error.contains("x.params") && error.contains("damaged"), "{error}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(read(&longer).expect_err("too long").contains("end at byte"));
    }

    #[test]
    fn lengths_that_do_not_fit_each_other_are_found() {
        for (counts, named) in [
            ([2, 8, 5, 6, 4, 4], "list H has 8"),
            ([2, 7, 5, 8, 4, 4], "list A has 8"),
            ([2, 7, 5, 6, 4, 3], "4 points in G1 and 3 in G2"),
            ([2, 7, 0, 2, 1, 1], "list L is empty"),
        ] {
            let error = read(&file(counts)).expect_err("does not fit");
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_directory_is_no_parameter_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let error = Layout::read(dir.path()).unwrap_err();
        let Groth16Error::File(error) = error else { panic!("{error}") };
        assert!(error.source.to_string().contains("not a regular file"), "{error:?}");
    }

    proptest! {
        #[test]
        fn a_flipped_bit_in_a_length_is_found(list in 0_usize..6, bit in 0_u32..32) {
            let counts = [2, 7, 5, 6, 4, 4];
            let mut bytes = file(counts);
            let points: u64 = counts[..list].iter().map(|count| u64::from(*count) * G1 + LENGTH).sum();
            let at = (KEY_HEAD + points) as usize;
            bytes[at + 3 - (bit / 8) as usize] ^= 1 << (bit % 8);
            prop_assert!(read(&bytes).is_err());
        }
    }
}
