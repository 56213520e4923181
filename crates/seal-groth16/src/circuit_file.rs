//! A compiled circuit as a file.
//!
//! Little-endian throughout: a head (magic, format, whose circuit it is, numbers), the dictionary,
//! the three matrices one after the other (ends of rows, columns, coefficients), and a digest over
//! all of that. Nothing is believed before the digest has been compared, but the numbers in the
//! head have to agree with the file's length before memory is taken for them.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use blake2b_simd::State;
use blstrs::Scalar;
use ff::{Field, PrimeField};
use seal_host::{FileError, PartFile, open_input};

use crate::r1cs::{Compiled, Counts, Matrix};

/// Changes with this layout, and with how circuits are recorded.
pub(crate) const FORMAT: u32 = 1;

const MAGIC: [u8; 8] = *b"SEALR1CS";
const DIGEST_BYTES: usize = 32;
/// Challenges, two times three counts, coefficients of the dictionary, terms of three matrices.
const NUMBERS: usize = 11;
const HEAD_BYTES: usize = MAGIC.len() + 4 + DIGEST_BYTES + 8 * NUMBERS;
/// How much is converted at a time.
const BLOCK: usize = 1 << 20;

/// Whose circuit a file holds: a digest of what is to be the same.
pub(crate) type Owner = [u8; DIGEST_BYTES];

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadCircuit {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("it is no circuit of seal-exec")]
    Magic,
    #[error("its format is {found}, not {FORMAT}")]
    Format { found: u32 },
    #[error("it is another circuit, or was recorded by other versions of the published crates")]
    Owner,
    #[error("it has {found} bytes, but its head asks for {expected}")]
    Length { found: u64, expected: u64 },
    #[error("its head is impossible")]
    Head,
    #[error("its content does not have the digest that was recorded with it")]
    Digest,
    #[error("{what}, although the digest is right")]
    Content { what: &'static str },
}

/// The numbers from which everything else in a file follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    challenges: usize,
    prologue: Counts,
    each: Counts,
    dictionary: usize,
    terms: [usize; 3],
}

impl Head {
    fn of(compiled: &Compiled) -> Self {
        Self {
            challenges: compiled.challenges,
            prologue: compiled.prologue,
            each: compiled.each,
            dictionary: compiled.dictionary.len(),
            terms: compiled.matrices.each_ref().map(|matrix| matrix.columns.len()),
        }
    }

    fn numbers(&self) -> [usize; NUMBERS] {
        let (p, e, t) = (self.prologue, self.each, self.terms);
        let (first, second) = ([p.inputs, p.aux, p.rows], [e.inputs, e.aux, e.rows]);
        let mut out = [self.challenges; NUMBERS];
        out[1..4].copy_from_slice(&first);
        out[4..7].copy_from_slice(&second);
        out[7] = self.dictionary;
        out[8..].copy_from_slice(&t);
        out
    }

    fn from_numbers(numbers: [usize; NUMBERS]) -> Self {
        let [challenges, a, b, c, d, e, f, dictionary, terms @ ..] = numbers;
        Self {
            challenges,
            prologue: Counts { inputs: a, aux: b, rows: c },
            each: Counts { inputs: d, aux: e, rows: f },
            dictionary,
            terms,
        }
    }

    /// Rows of each matrix.
    fn rows(&self) -> Option<usize> {
        self.prologue.rows.checked_add(self.each.rows)
    }

    /// The larger of the whole partition's numbers of variables and of rows.
    fn largest(&self) -> Option<usize> {
        let variables = |counts: Counts| counts.inputs.checked_add(counts.aux);
        let all = |own: usize, each: usize| own.checked_add(each.checked_mul(self.challenges)?);
        let variables = all(variables(self.prologue)?, variables(self.each)?)?;
        Some(variables.max(all(self.prologue.rows, self.each.rows)?))
    }

    /// The length of the file; `None` if there can be no such file.
    fn file_bytes(&self) -> Option<u64> {
        let rows = self.rows()?.checked_mul(3 * 4)?;
        let mut terms = 0_usize;
        for count in self.terms {
            // Ends of rows are 32 bits wide.
            u32::try_from(count).ok()?;
            terms = terms.checked_add(count.checked_mul(4 + 2)?)?;
        }
        // Variables are counted by 32 bits.
        u32::try_from(self.largest()?).ok()?;
        let own = HEAD_BYTES + DIGEST_BYTES;
        let body = self.dictionary.checked_mul(32)?.checked_add(rows)?.checked_add(terms)?;
        u64::try_from(own.checked_add(body)?).ok()
    }
}

/// Writes a circuit under `path`, which it gets when it is whole and on disk.
pub(crate) fn write(path: &Path, owner: &Owner, compiled: &Compiled) -> Result<(), FileError> {
    let part = PartFile::create(path)?;
    let mut sink = Sink {
        file: BufWriter::with_capacity(BLOCK, part.file()),
        state: digest(),
        block: Vec::with_capacity(BLOCK),
    };
    put(&mut sink, owner, compiled)
        .and_then(|()| sink.finish())
        .map_err(FileError::of("write", part.part_path()))?;
    part.finish()
}

/// Reads the circuit of `owner` at `path`.
pub(crate) fn read(path: &Path, owner: &Owner) -> Result<Compiled, BadCircuit> {
    let file = open_input(path)?;
    let found = file.metadata().map_err(FileError::of("look at", path))?.len();
    let mut source = Source { file, path, state: digest(), block: Vec::new() };
    if found < HEAD_BYTES as u64 {
        return Err(BadCircuit::Length { found, expected: HEAD_BYTES as u64 });
    }
    let head = head(&mut source, owner)?;
    let expected = head.file_bytes().ok_or(BadCircuit::Head)?;
    if found != expected {
        return Err(BadCircuit::Length { found, expected });
    }
    let dictionary = source.list(head.dictionary, |bytes: [u8; 32]| bytes)?;
    let mut matrices: [Matrix; 3] = Default::default();
    for (matrix, terms) in matrices.iter_mut().zip(head.terms) {
        matrix.ends = source.list(head.rows().ok_or(BadCircuit::Head)?, u32::from_le_bytes)?;
        matrix.columns = source.list(terms, u32::from_le_bytes)?;
        matrix.coefficients = source.list(terms, u16::from_le_bytes)?;
    }
    let expected = source.state.finalize();
    let stored = source.take(DIGEST_BYTES)?;
    if expected.as_bytes() != stored {
        return Err(BadCircuit::Digest);
    }
    let dictionary = dictionary.into_iter().map(|bytes| Scalar::from_repr(bytes).into());
    let dictionary: Option<Vec<Scalar>> = dictionary.collect();
    let dictionary =
        dictionary.ok_or(BadCircuit::Content { what: "a coefficient is too large" })?;
    let Head { challenges, prologue, each, .. } = head;
    let compiled = Compiled { challenges, prologue, each, matrices, dictionary };
    check(&compiled)?;
    Ok(compiled)
}

fn digest() -> State {
    blake2b_simd::Params::new().hash_length(DIGEST_BYTES).to_state()
}

/// What the evaluation relies on. A file with the right digest that fails here was made by
/// somebody else.
fn check(compiled: &Compiled) -> Result<(), BadCircuit> {
    let wrong = |what| Err(BadCircuit::Content { what });
    if compiled.dictionary.get(..2) != Some(&[Scalar::ONE, -Scalar::ONE]) {
        return wrong("the first coefficients are not one and minus one");
    }
    if compiled.prologue.inputs == 0 || compiled.challenges == 0 {
        return wrong("there is no constant, or no challenge");
    }
    let local = compiled.local();
    let variables = (local.inputs + local.aux) as u64;
    for matrix in &compiled.matrices {
        let last = matrix.ends.last().map_or(0, |end| *end as usize);
        if !matrix.ends.is_sorted() || last != matrix.columns.len() {
            return wrong("rows do not follow each other");
        }
        if matrix.columns.iter().any(|column| u64::from(*column) >= variables) {
            return wrong("there is a variable too many");
        }
        let places = compiled.dictionary.len();
        if matrix.coefficients.iter().any(|place| usize::from(*place) >= places) {
            return wrong("there is a coefficient too many");
        }
    }
    Ok(())
}

fn put(sink: &mut Sink<'_>, owner: &Owner, compiled: &Compiled) -> io::Result<()> {
    sink.list(&[MAGIC], |bytes| *bytes)?;
    sink.list(&[FORMAT], |number| number.to_le_bytes())?;
    sink.list(&[*owner], |bytes| *bytes)?;
    sink.list(&Head::of(compiled).numbers(), |number| (*number as u64).to_le_bytes())?;
    sink.list(&compiled.dictionary, PrimeField::to_repr)?;
    for Matrix { ends, columns, coefficients } in &compiled.matrices {
        sink.list(ends, |end| end.to_le_bytes())?;
        sink.list(columns, |column| column.to_le_bytes())?;
        sink.list(coefficients, |place| place.to_le_bytes())?;
    }
    Ok(())
}

fn head(source: &mut Source<'_>, owner: &Owner) -> Result<Head, BadCircuit> {
    if source.list(1, |bytes: [u8; 8]| bytes)? != [MAGIC] {
        return Err(BadCircuit::Magic);
    }
    let format = source.list(1, u32::from_le_bytes)?;
    if format != [FORMAT] {
        return Err(BadCircuit::Format { found: format[0] });
    }
    if source.list(1, |bytes: Owner| bytes)? != [*owner] {
        return Err(BadCircuit::Owner);
    }
    let mut numbers = [0; NUMBERS];
    for (number, there) in numbers.iter_mut().zip(source.list(NUMBERS, u64::from_le_bytes)?) {
        *number = usize::try_from(there).map_err(|_| BadCircuit::Head)?;
    }
    Ok(Head::from_numbers(numbers))
}

/// Where a circuit goes.
struct Sink<'a> {
    file: BufWriter<&'a File>,
    state: State,
    block: Vec<u8>,
}

impl Sink<'_> {
    fn list<T, const N: usize>(
        &mut self,
        items: &[T],
        bytes: impl Fn(&T) -> [u8; N],
    ) -> io::Result<()> {
        for items in items.chunks(BLOCK / N) {
            self.block.clear();
            for item in items {
                self.block.extend_from_slice(&bytes(item));
            }
            self.state.update(&self.block);
            self.file.write_all(&self.block)?;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.file.write_all(self.state.finalize().as_bytes())?;
        self.file.flush()
    }
}

/// Where a circuit comes from.
struct Source<'a> {
    file: File,
    path: &'a Path,
    state: State,
    block: Vec<u8>,
}

impl Source<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], BadCircuit> {
        self.block.resize(count, 0);
        self.file.read_exact(&mut self.block).map_err(FileError::of("read", self.path))?;
        Ok(&self.block)
    }

    fn list<T, const N: usize>(
        &mut self,
        count: usize,
        item: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, BadCircuit> {
        let mut out = Vec::with_capacity(count);
        while out.len() < count {
            let some = (BLOCK / N).min(count - out.len());
            self.take(some * N)?;
            self.state.update(&self.block);
            let (items, _) = self.block.as_chunks::<N>();
            out.extend(items.iter().map(|bytes| item(*bytes)));
        }
        Ok(out)
    }
}
