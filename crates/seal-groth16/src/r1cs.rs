//! The constraints of the circuit, recorded once.
//!
//! A partition's circuit is a prologue and then the same constraints for each of its challenges,
//! over the prologue's variables and the challenge's own. So only the prologue and one challenge
//! are kept: 6 bytes for each coefficient that is not zero and 4 for each row, which makes 300 MB
//! for 32 GiB sectors instead of 5 GB. That the second challenge repeats the first is checked
//! while recording, not assumed.
//!
//! Columns are local: the prologue's inputs, the challenge's inputs, the prologue's other
//! variables, the challenge's other variables, as a circuit with this challenge alone has them.

use std::collections::HashMap;

use bellperson::{Circuit, ConstraintSystem, Index, LinearCombination, SynthesisError, Variable};
use blstrs::Scalar;
use ff::Field;
use seal_field::ntt::{FrWords, words_of_scalar};

/// The coefficient one in a dictionary.
pub(crate) const ONE: u16 = 0;
/// The coefficient minus one in a dictionary.
pub(crate) const MINUS_ONE: u16 = 1;

/// A circuit that cannot be kept in this form.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// The published crates could not lay the circuit out.
    #[error("the circuit could not be recorded")]
    Synthesis(#[from] SynthesisError),
    /// A limit of the format.
    #[error("the circuit has {what}, more than {limit}")]
    TooLarge {
        /// Of what there is too much.
        what: String,
        /// How much there may be.
        limit: u64,
    },
    /// Challenges differ.
    #[error("the circuit's second challenge does not repeat the first: {what}")]
    NotRepeated {
        /// Where.
        what: String,
    },
}

/// Numbers of variables and rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) inputs: usize,
    pub(crate) aux: usize,
    pub(crate) rows: usize,
}

impl Counts {
    fn plus(self, other: Self, times: usize) -> Self {
        Self {
            inputs: self.inputs + times * other.inputs,
            aux: self.aux + times * other.aux,
            rows: self.rows + times * other.rows,
        }
    }
}

/// One of the three matrices, row by row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Matrix {
    /// Where each row ends.
    pub(crate) ends: Vec<u32>,
    pub(crate) columns: Vec<u32>,
    /// Places in the dictionary.
    pub(crate) coefficients: Vec<u16>,
}

impl Matrix {
    pub(crate) fn row(&self, row: usize) -> impl Iterator<Item = (u32, u16)> + '_ {
        let start = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        let range = start..self.ends[row] as usize;
        self.columns[range.clone()].iter().copied().zip(self.coefficients[range].iter().copied())
    }

    fn cut(&self, rows: usize) -> Self {
        let terms = if rows == 0 { 0 } else { self.ends[rows - 1] as usize };
        Self {
            ends: self.ends[..rows].to_vec(),
            columns: self.columns[..terms].to_vec(),
            coefficients: self.coefficients[..terms].to_vec(),
        }
    }
}

/// The different coefficients of a circuit.
#[derive(Debug)]
struct Dictionary {
    values: Vec<Scalar>,
    places: HashMap<FrWords, u16>,
}

impl Dictionary {
    fn new() -> Self {
        let mut dictionary = Self { values: Vec::new(), places: HashMap::new() };
        // At the places of ONE and MINUS_ONE.
        dictionary.place(Scalar::ONE);
        dictionary.place(-Scalar::ONE);
        dictionary
    }

    /// The value's place; `None` when there are too many.
    fn place(&mut self, value: Scalar) -> Option<u16> {
        let next = u16::try_from(self.values.len()).ok();
        match self.places.entry(words_of_scalar(value)) {
            std::collections::hash_map::Entry::Occupied(entry) => Some(*entry.get()),
            std::collections::hash_map::Entry::Vacant(entry) => {
                self.values.push(value);
                next.map(|place| *entry.insert(place))
            }
        }
    }
}

/// Marks a column of an auxiliary variable while inputs are still being allocated.
const AUX: u32 = 1 << 31;

/// A constraint system that writes down what is enforced, without any values.
struct Recorder<'a> {
    counts: Counts,
    matrices: [Matrix; 3],
    dictionary: &'a mut Dictionary,
    overflow: Option<RecordError>,
}

impl Recorder<'_> {
    fn term(&mut self, matrix: usize, variable: Variable, coefficient: &Scalar) {
        let Some(place) = self.dictionary.place(*coefficient) else {
            let what = "different coefficients".to_owned();
            self.overflow = Some(RecordError::TooLarge { what, limit: 1 << 16 });
            return;
        };
        let (index, tag) = match variable.get_unchecked() {
            Index::Input(index) => (index, 0),
            Index::Aux(index) => (index, AUX),
        };
        match u32::try_from(index) {
            Ok(index) if index < AUX => {
                self.matrices[matrix].columns.push(index | tag);
                self.matrices[matrix].coefficients.push(place);
            }
            _ => {
                let what = format!("variable {index} in a challenge");
                self.overflow = Some(RecordError::TooLarge { what, limit: AUX.into() });
            }
        }
    }
}

impl ConstraintSystem<Scalar> for Recorder<'_> {
    type Root = Self;

    fn alloc<F, A, AR>(&mut self, _: A, _: F) -> Result<Variable, SynthesisError>
    where
        F: FnOnce() -> Result<Scalar, SynthesisError>,
        A: FnOnce() -> AR,
        AR: Into<String>,
    {
        self.counts.aux += 1;
        Ok(Variable::new_unchecked(Index::Aux(self.counts.aux - 1)))
    }

    fn alloc_input<F, A, AR>(&mut self, _: A, _: F) -> Result<Variable, SynthesisError>
    where
        F: FnOnce() -> Result<Scalar, SynthesisError>,
        A: FnOnce() -> AR,
        AR: Into<String>,
    {
        self.counts.inputs += 1;
        Ok(Variable::new_unchecked(Index::Input(self.counts.inputs - 1)))
    }

    fn enforce<A, AR, LA, LB, LC>(&mut self, _: A, a: LA, b: LB, c: LC)
    where
        A: FnOnce() -> AR,
        AR: Into<String>,
        LA: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
        LB: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
        LC: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
    {
        let zero = LinearCombination::zero;
        for (matrix, sum) in [a(zero()), b(zero()), c(zero())].into_iter().enumerate() {
            // The published prover passes over coefficients that are zero as well.
            for (variable, coefficient) in sum.iter().filter(|(_, c)| !c.is_zero_vartime()) {
                self.term(matrix, variable, coefficient);
            }
            let matrix = &mut self.matrices[matrix];
            match u32::try_from(matrix.columns.len()) {
                Ok(end) => matrix.ends.push(end),
                Err(_) => {
                    let what = format!("{} coefficients in a challenge", matrix.columns.len());
                    self.overflow = Some(RecordError::TooLarge { what, limit: u32::MAX.into() });
                }
            }
        }
        self.counts.rows += 1;
    }

    fn push_namespace<NR, N>(&mut self, _: N)
    where
        NR: Into<String>,
        N: FnOnce() -> NR,
    {
    }

    fn pop_namespace(&mut self) {}

    fn get_root(&mut self) -> &mut Self::Root {
        self
    }
}

/// A recorded circuit with columns still tagged.
struct Recorded {
    counts: Counts,
    matrices: [Matrix; 3],
}

fn record_one(
    circuit: impl Circuit<Scalar>,
    dictionary: &mut Dictionary,
) -> Result<Recorded, RecordError> {
    let mut recorder = Recorder {
        counts: Counts { inputs: 1, ..Counts::default() },
        matrices: Default::default(),
        dictionary,
        overflow: None,
    };
    circuit.synthesize(&mut recorder)?;
    let Recorder { counts, matrices, overflow, .. } = recorder;
    match overflow {
        Some(error) => Err(error),
        None => Ok(Recorded { counts, matrices }),
    }
}

/// The circuit of a partition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Compiled {
    /// How many challenges a partition has.
    pub(crate) challenges: usize,
    /// The prologue alone; its inputs include the constant.
    pub(crate) prologue: Counts,
    /// What each challenge adds.
    pub(crate) each: Counts,
    /// A, B and C: rows of the prologue, then of a challenge.
    pub(crate) matrices: [Matrix; 3],
    /// The different coefficients; one and minus one come first.
    pub(crate) dictionary: Vec<Scalar>,
}

impl Compiled {
    /// Compiles a circuit of `challenges` challenges from blank ones with one and with two.
    pub(crate) fn record<C: Circuit<Scalar>>(
        challenges: usize,
        one: C,
        two: C,
    ) -> Result<Self, RecordError> {
        let mut dictionary = Dictionary::new();
        let one = record_one(one, &mut dictionary)?;
        let two = record_one(two, &mut dictionary)?;
        let less = |a: usize, b: usize| {
            a.checked_sub(b)
                .ok_or_else(|| RecordError::NotRepeated { what: "it is smaller".to_owned() })
        };
        let (first, second) = (one.counts, two.counts);
        let each = Counts {
            inputs: less(second.inputs, first.inputs)?,
            aux: less(second.aux, first.aux)?,
            rows: less(second.rows, first.rows)?,
        };
        let prologue = Counts {
            inputs: less(first.inputs, each.inputs)?,
            aux: less(first.aux, each.aux)?,
            rows: less(first.rows, each.rows)?,
        };
        for (matrix, name) in ["A", "B", "C"].into_iter().enumerate() {
            check_repeated(&one.matrices[matrix], &two.matrices[matrix], prologue, each)
                .map_err(|row| RecordError::NotRepeated { what: format!("row {row} of {name}") })?;
        }
        let inputs = first.inputs as u32;
        let matrices = one.matrices.map(|mut matrix| {
            for column in &mut matrix.columns {
                *column = if *column & AUX == 0 { *column } else { (*column ^ AUX) + inputs };
            }
            // Recorded one by one.
            matrix.ends.shrink_to_fit();
            matrix.columns.shrink_to_fit();
            matrix.coefficients.shrink_to_fit();
            matrix
        });
        Ok(Self { challenges, prologue, each, matrices, dictionary: dictionary.values })
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let matrices = self.matrices.iter();
        let of_matrices = matrices.map(|matrix| {
            4 * (matrix.ends.len() + matrix.columns.len()) + 2 * matrix.columns.len()
        });
        of_matrices.sum::<usize>() + 32 * self.dictionary.len()
    }

    /// Variables and rows of the whole partition, without the rows that the prover adds for
    /// inputs.
    pub(crate) fn counts(&self) -> Counts {
        self.prologue.plus(self.each, self.challenges)
    }

    /// Variables and rows of a circuit with one challenge.
    pub(crate) fn local(&self) -> Counts {
        self.prologue.plus(self.each, 1)
    }

    /// Rows of the whole, with one for each input.
    pub(crate) fn constraints(&self) -> usize {
        let counts = self.counts();
        counts.rows + counts.inputs
    }

    /// Logarithm of the length of the transforms.
    pub(crate) fn domain_bits(&self) -> u32 {
        self.constraints().next_power_of_two().trailing_zeros()
    }

    /// The variables, inputs first, that occur in a matrix; all inputs if that is asked for.
    pub(crate) fn occurring(&self, matrix: usize, inputs: Inputs) -> Vec<u32> {
        let local = self.local();
        let mut seen = vec![false; local.inputs + local.aux];
        for column in &self.matrices[matrix].columns {
            seen[*column as usize] = true;
        }
        if inputs == Inputs::All {
            seen[..local.inputs].fill(true);
        }
        let (inputs, aux) = seen.split_at(local.inputs);
        let parts = [inputs.split_at(self.prologue.inputs), aux.split_at(self.prologue.aux)];
        let ones = |seen: &[bool]| seen.iter().filter(|seen| **seen).count();
        let count = parts.iter().map(|(own, each)| ones(own) + self.challenges * ones(each)).sum();
        // Kept for as long as the process lives: half a GB of A and no more.
        let mut out = Vec::with_capacity(count);
        let mut next = 0_u32;
        for (own, each) in parts {
            let lists = std::iter::once(own).chain(std::iter::repeat_n(each, self.challenges));
            for seen in lists {
                out.extend((next..).zip(seen).filter(|(_, seen)| **seen).map(|(at, _)| at));
                next += seen.len() as u32;
            }
        }
        out
    }

    /// The rows of `range` times the local variables `z`.
    pub(crate) fn multiply(
        &self,
        matrix: usize,
        rows: std::ops::Range<usize>,
        z: &[Scalar],
        out: &mut [FrWords],
    ) {
        let matrix = &self.matrices[matrix];
        for (row, out) in rows.zip(out) {
            let mut sum = Scalar::ZERO;
            for (column, coefficient) in matrix.row(row) {
                let value = &z[column as usize];
                match coefficient {
                    ONE => sum += value,
                    MINUS_ONE => sum -= value,
                    // Nearly all values are zero or one.
                    _ if *value == Scalar::ZERO => {}
                    place if *value == Scalar::ONE => sum += self.dictionary[place as usize],
                    place => sum += self.dictionary[place as usize] * value,
                }
            }
            *out = words_of_scalar(sum);
        }
    }
}

/// Whether all inputs count as occurring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inputs {
    /// In A, for which the prover adds a row for each input.
    All,
    /// In B.
    Occurring,
}

/// Checks that `two` is `one` and then the challenge's rows again, over variables of their own;
/// otherwise tells the row.
fn check_repeated(one: &Matrix, two: &Matrix, prologue: Counts, each: Counts) -> Result<(), usize> {
    if *one != two.cut(one.ends.len()) {
        return Err(0);
    }
    let moved = |column: u32| {
        let (tag, index) = (column & AUX, (column & !AUX) as usize);
        let (own, step) =
            if tag == 0 { (prologue.inputs, each.inputs) } else { (prologue.aux, each.aux) };
        if index < own { column } else { column + step as u32 }
    };
    for row in prologue.rows..one.ends.len() {
        let expected = one.row(row).map(|(column, coefficient)| (moved(column), coefficient));
        if !expected.eq(two.row(row + each.rows)) {
            return Err(row + each.rows);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::small::Small;

    #[test]
    fn a_circuit_whose_challenges_differ_is_refused() {
        struct Growing(usize);
        impl Circuit<Scalar> for Growing {
            fn synthesize<CS: ConstraintSystem<Scalar>>(
                self,
                cs: &mut CS,
            ) -> Result<(), SynthesisError> {
                for challenge in 0..self.0 {
                    let x = cs.alloc(|| "x", || Ok(Scalar::ONE))?;
                    let factor = Scalar::from(challenge as u64 + 2);
                    cs.enforce(|| "x", |lc| lc + (factor, x), |lc| lc + x, |lc| lc);
                }
                Ok(())
            }
        }
        let error = Compiled::record(2, Growing(1), Growing(2)).expect_err("other coefficients");
        assert!(error.to_string().contains("row 1 of A"), "{error}");
    }

    #[test]
    fn counts_are_those_of_the_whole() {
        let compiled = Small::compiled(5);
        assert_eq!(compiled.prologue, Counts { inputs: 2, aux: 2, rows: 2 });
        assert_eq!(compiled.each, Counts { inputs: 1, aux: 24, rows: 24 });
        assert_eq!(compiled.counts(), Counts { inputs: 7, aux: 122, rows: 122 });
        assert_eq!(compiled.constraints(), 129);
        assert_eq!(compiled.domain_bits(), 8);
    }

    #[test]
    fn a_circuit_and_its_lists_of_variables_take_no_more_than_their_length() {
        let compiled = Small::compiled(5);
        for Matrix { ends, columns, coefficients } in &compiled.matrices {
            let capacities = [ends.capacity(), columns.capacity(), coefficients.capacity()];
            assert_eq!(capacities, [ends.len(), columns.len(), coefficients.len()]);
        }
        for (matrix, inputs) in [(0, Inputs::All), (1, Inputs::Occurring)] {
            let list = compiled.occurring(matrix, inputs);
            assert_eq!(list.capacity(), list.len(), "matrix {matrix}");
        }
    }
}
