//! The values of a partition's variables, and the products of the matrices with them.
//!
//! Challenge by challenge, in parallel: a circuit with one challenge alone is filled through the
//! published gadgets, which yields the prologue's values and the challenge's, and its rows are
//! multiplied at once, while the values are near. Nothing is laid out a second time.
//!
//! Memory: 32 bytes for each variable and for each of the three products' rows, and another 32
//! for each variable of the challenges that are being filled.

use bellperson::{Circuit, ConstraintSystem, Index, LinearCombination, SynthesisError, Variable};
use blstrs::Scalar;
use ff::Field;
use rayon::prelude::*;
use seal_field::ntt::{FrWords, words_of_scalar};

use crate::msm::Words;
use crate::r1cs::{Compiled, Counts};

/// Rows that a thread multiplies at a time.
const ROWS: usize = 1 << 13;

/// How the values of variables are written. Products are always in Montgomery form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Below the modulus, not in Montgomery form: for our multiplications.
    Canonical,
    /// In blst's Montgomery form.
    Montgomery,
}

impl Form {
    fn words(self, value: &Scalar) -> Words {
        match self {
            Self::Canonical => canonical(value),
            Self::Montgomery => words_of_scalar(*value),
        }
    }
}

/// A partition ready for the prover.
pub(crate) struct Assignment {
    /// All variables, inputs first, in the form that was asked for.
    pub(crate) values: Vec<Words>,
    /// The products of A, B and C with the variables, padded with zeros to the domain.
    pub(crate) products: [Vec<FrWords>; 3],
}

/// A constraint system that only computes values. Inputs come first, in the room left for them.
struct Filler {
    counts: Counts,
    inputs: usize,
    values: Vec<Scalar>,
}

impl Filler {
    fn new(counts: Counts) -> Self {
        let mut values = Vec::with_capacity(counts.inputs + counts.aux);
        values.resize(counts.inputs, Scalar::ZERO);
        values[0] = Scalar::ONE;
        Self { counts, inputs: 1, values }
    }

    fn aux(&self) -> usize {
        self.values.len() - self.counts.inputs
    }
}

impl ConstraintSystem<Scalar> for Filler {
    type Root = Self;

    fn alloc<F, A, AR>(&mut self, _: A, f: F) -> Result<Variable, SynthesisError>
    where
        F: FnOnce() -> Result<Scalar, SynthesisError>,
        A: FnOnce() -> AR,
        AR: Into<String>,
    {
        self.values.push(f()?);
        Ok(Variable::new_unchecked(Index::Aux(self.aux() - 1)))
    }

    fn alloc_input<F, A, AR>(&mut self, _: A, f: F) -> Result<Variable, SynthesisError>
    where
        F: FnOnce() -> Result<Scalar, SynthesisError>,
        A: FnOnce() -> AR,
        AR: Into<String>,
    {
        let value = f()?;
        if self.inputs == self.counts.inputs {
            return Err(SynthesisError::MalformedProofs("more inputs than recorded".to_owned()));
        }
        self.values[self.inputs] = value;
        self.inputs += 1;
        Ok(Variable::new_unchecked(Index::Input(self.inputs - 1)))
    }

    fn enforce<A, AR, LA, LB, LC>(&mut self, _: A, _: LA, _: LB, _: LC)
    where
        A: FnOnce() -> AR,
        AR: Into<String>,
        LA: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
        LB: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
        LC: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
    {
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

    // Lets the gadgets for Poseidon compute their values without laying constraints out.
    fn is_witness_generator(&self) -> bool {
        true
    }

    fn extend_aux(&mut self, new: &[Scalar]) {
        self.values.extend_from_slice(new);
    }

    fn allocate_empty(&mut self, aux: usize, inputs: usize) -> (&mut [Scalar], &mut [Scalar]) {
        let (first_input, first_aux) = (self.inputs, self.aux());
        self.inputs += inputs;
        self.values.resize(self.values.len() + aux, Scalar::ZERO);
        let (all_inputs, all_aux) = self.values.split_at_mut(self.counts.inputs);
        (&mut all_aux[first_aux..], &mut all_inputs[first_input..first_input + inputs])
    }

    fn allocate_empty_aux(&mut self, count: usize) -> &mut [Scalar] {
        self.allocate_empty(count, 0).0
    }

    fn inputs_slice(&self) -> &[Scalar] {
        &self.values[..self.inputs]
    }

    fn aux_slice(&self) -> &[Scalar] {
        &self.values[self.counts.inputs..]
    }
}

/// The pieces of a vector that belong to a challenge.
struct Places<'a> {
    inputs: &'a mut [Words],
    aux: &'a mut [Words],
    products: [&'a mut [FrWords]; 3],
}

/// Fills the circuit of a partition, of which `circuit(i)` is the one with challenge `i` alone.
/// `filled` is called after each challenge.
pub(crate) fn assign<C: Circuit<Scalar>>(
    compiled: &Compiled,
    form: Form,
    circuit: impl Fn(usize) -> Result<C, SynthesisError> + Sync,
    filled: &(dyn Fn() + Sync),
) -> Result<Assignment, SynthesisError> {
    let (whole, prologue, each) = (compiled.counts(), compiled.prologue, compiled.each);
    let domain = 1 << compiled.domain_bits();
    let mut values = vec![[0; 4]; whole.inputs + whole.aux];
    let mut products = [0; 3].map(|_| vec![[0; 4]; domain]);

    // The first challenge's pieces contain the prologue's.
    let (mut inputs, mut aux) = values.split_at_mut(whole.inputs);
    let mut rows = products.each_mut().map(|product| product.as_mut_slice());
    let mut places = Vec::with_capacity(compiled.challenges);
    for challenge in 0..compiled.challenges {
        let own = if challenge == 0 { prologue } else { Counts::default() };
        places.push(Places {
            inputs: take(&mut inputs, own.inputs + each.inputs),
            aux: take(&mut aux, own.aux + each.aux),
            products: rows.each_mut().map(|rows| take(rows, own.rows + each.rows)),
        });
    }
    places.into_par_iter().enumerate().try_for_each(|(challenge, places)| {
        let mut filler = Filler::new(compiled.local());
        circuit(challenge)?.synthesize(&mut filler)?;
        fill(compiled, form, &filler, places)?;
        filled();
        Ok::<_, SynthesisError>(())
    })?;
    // Rows for inputs: A has the input, B and C have nothing.
    let inputs = values[..whole.inputs].iter().map(|input| match form {
        Form::Canonical => montgomery(input),
        Form::Montgomery => *input,
    });
    for (place, input) in products[0][whole.rows..].iter_mut().zip(inputs) {
        *place = input;
    }
    Ok(Assignment { values, products })
}

fn take<'a, T>(rest: &mut &'a mut [T], count: usize) -> &'a mut [T] {
    let (head, tail) = std::mem::take(rest).split_at_mut(count);
    *rest = tail;
    head
}

/// Writes what a challenge has computed to its places.
fn fill(
    compiled: &Compiled,
    form: Form,
    filler: &Filler,
    places: Places<'_>,
) -> Result<(), SynthesisError> {
    let (local, prologue) = (compiled.local(), compiled.prologue);
    if filler.inputs != local.inputs || filler.aux() != local.aux {
        return Err(SynthesisError::MalformedProofs(format!(
            "the challenge has {} inputs and {} other variables, but {} and {} were recorded",
            filler.inputs,
            filler.aux(),
            local.inputs,
            local.aux
        )));
    }
    let z = filler.values.as_slice();
    let (inputs, aux) = z.split_at(local.inputs);
    let is_first = places.inputs.len() == local.inputs;
    let from = |own: usize| if is_first { 0 } else { own };
    for (place, value) in places.inputs.iter_mut().zip(&inputs[from(prologue.inputs)..]) {
        *place = form.words(value);
    }
    let aux = &aux[from(prologue.aux)..];
    places.aux.par_chunks_mut(ROWS).zip(aux.par_chunks(ROWS)).for_each(|(places, values)| {
        for (place, value) in places.iter_mut().zip(values) {
            *place = form.words(value);
        }
    });
    let first_row = from(prologue.rows);
    for (matrix, product) in places.products.into_iter().enumerate() {
        product.par_chunks_mut(ROWS).enumerate().for_each(|(chunk, out)| {
            let start = first_row + chunk * ROWS;
            compiled.multiply(matrix, start..start + out.len(), z, out);
        });
    }
    Ok(())
}

/// Below the modulus, not in Montgomery form.
fn canonical(value: &Scalar) -> Words {
    if *value == Scalar::ZERO {
        return [0; 4];
    }
    if *value == Scalar::ONE {
        return [1, 0, 0, 0];
    }
    let bytes = value.to_bytes_le();
    std::array::from_fn(|word| {
        u64::from_le_bytes(std::array::from_fn(|byte| bytes[8 * word + byte]))
    })
}

/// The way back.
fn montgomery(words: &Words) -> FrWords {
    let scalar = Option::<Scalar>::from(Scalar::from_u64s_le(words));
    // Came from a scalar.
    words_of_scalar(scalar.unwrap_or_default())
}
