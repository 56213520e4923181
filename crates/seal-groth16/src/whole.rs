//! Tests of compiled circuit and prover on sectors, against what the published crates lay out and
//! prove.

use std::ops::ControlFlow;
use std::path::Path;

use bellperson::groth16::{Parameters, create_proof_batch};
use bellperson::multiexp::DensityTracker;
use bellperson::{Circuit, ConstraintSystem, Index, LinearCombination, SynthesisError, Variable};
use blstrs::{Bls12, Scalar};
use ff::Field;
use filecoin_proofs::{DefaultPieceHasher, DefaultTreeHasher, with_shape};
use rand::rngs::OsRng;
use rayon::prelude::*;
use seal_cuda::CudaError;
use seal_cuda::groth16::{self, Density, RawProof};
use seal_field::curve::CurveKernel;
use seal_field::ntt::{FrWords, words_of_scalar};
use seal_types::{ParameterLengths, SectorSize};
use seal_wire::C2Task;
use storage_proofs_core::compound_proof::CompoundProof;
use storage_proofs_core::merkle::MerkleTreeTrait;
use storage_proofs_porep::stacked::{self, StackedCircuit, StackedCompound};
use test_support::skip::{skipped, slow_tests};

use crate::captured::{captured, prover};
use crate::circuit::{public_params, representative};
use crate::circuit_cache::{CircuitCache, Origin};
use crate::device::{AcceleratorKey, DeviceKey};
use crate::groth::{self, ProofTimes, Queries};
use crate::layout::Lengths;
use crate::load::LoadedPoints;
use crate::r1cs::Compiled;
use crate::shape::{record, shape};
use crate::task::{self, public_inputs, vanilla_proofs};
use crate::tiny;
use crate::witness::{Assignment, Form, assign};

/// A constraint system that lays everything out, as bellperson's prover does.
struct Whole {
    inputs: Vec<Scalar>,
    aux: Vec<Scalar>,
    products: [Vec<FrWords>; 3],
    /// As bellperson's prover keeps them: of A, and of B for inputs and other variables.
    a_aux: DensityTracker,
    b_inputs: DensityTracker,
    b_aux: DensityTracker,
}

impl Whole {
    fn of(circuit: impl Circuit<Scalar>) -> Self {
        let mut whole = Self {
            inputs: vec![Scalar::ONE],
            aux: Vec::new(),
            products: Default::default(),
            a_aux: DensityTracker::new(),
            b_inputs: DensityTracker::new(),
            b_aux: DensityTracker::new(),
        };
        whole.b_inputs.add_element();
        circuit.synthesize(&mut whole).expect("a good circuit");
        // A row for each input, as the prover adds them.
        for input in &whole.inputs {
            whole.products[0].push(words_of_scalar(*input));
        }
        whole
    }

    fn value(&self, sum: &LinearCombination<Scalar>) -> FrWords {
        let of = |variable: Variable| match variable.get_unchecked() {
            Index::Input(index) => self.inputs[index],
            Index::Aux(index) => self.aux[index],
        };
        words_of_scalar(sum.iter().map(|(variable, factor)| of(variable) * factor).sum())
    }
}

impl ConstraintSystem<Scalar> for Whole {
    type Root = Self;

    fn alloc<F, A, AR>(&mut self, _: A, f: F) -> Result<Variable, SynthesisError>
    where
        F: FnOnce() -> Result<Scalar, SynthesisError>,
        A: FnOnce() -> AR,
        AR: Into<String>,
    {
        self.aux.push(f()?);
        self.a_aux.add_element();
        self.b_aux.add_element();
        Ok(Variable::new_unchecked(Index::Aux(self.aux.len() - 1)))
    }

    fn alloc_input<F, A, AR>(&mut self, _: A, f: F) -> Result<Variable, SynthesisError>
    where
        F: FnOnce() -> Result<Scalar, SynthesisError>,
        A: FnOnce() -> AR,
        AR: Into<String>,
    {
        self.inputs.push(f()?);
        self.b_inputs.add_element();
        Ok(Variable::new_unchecked(Index::Input(self.inputs.len() - 1)))
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
        let sums = [a(zero()), b(zero()), c(zero())];
        for (variable, _) in sums[0].iter().filter(|(_, factor)| !bool::from(factor.is_zero())) {
            if let Index::Aux(index) = variable.get_unchecked() {
                self.a_aux.inc(index);
            }
        }
        for (variable, _) in sums[1].iter().filter(|(_, factor)| !bool::from(factor.is_zero())) {
            match variable.get_unchecked() {
                Index::Input(index) => self.b_inputs.inc(index),
                Index::Aux(index) => self.b_aux.inc(index),
            }
        }
        let values = sums.map(|sum| self.value(&sum));
        for (product, value) in self.products.iter_mut().zip(values) {
            product.push(value);
        }
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

/// A captured task's circuit: the whole, and one challenge after the other.
struct Captured<Tree: 'static + MerkleTreeTrait> {
    params: stacked::PublicParams<Tree>,
    public: task::PublicInputs,
    challenges: Vec<stacked::Proof<Tree, DefaultPieceHasher>>,
}

impl<Tree: 'static + MerkleTreeTrait<Hasher = DefaultTreeHasher>> Captured<Tree> {
    fn new() -> Self {
        let task: C2Task = serde_json::from_value(captured()).expect("captured");
        let vanilla = vanilla_proofs::<Tree>(&task.c1out).expect("captured");
        Self {
            params: public_params(task.c1out.registered_proof).expect("registered"),
            public: public_inputs(&task.c1out).expect("captured"),
            challenges: vanilla.into_iter().next().expect("one partition"),
        }
    }

    fn circuit(
        &self,
        challenges: &[stacked::Proof<Tree, DefaultPieceHasher>],
    ) -> StackedCircuit<Tree, DefaultPieceHasher> {
        let challenges = challenges.to_vec();
        StackedCompound::<Tree, DefaultPieceHasher>::circuit(
            &self.public,
            (),
            &challenges,
            &self.params,
            Some(0),
        )
        .expect("captured")
    }
}

fn filled<Tree>(captured: &Captured<Tree>, compiled: &Compiled, form: Form) -> Assignment
where
    Tree: 'static + MerkleTreeTrait<Hasher = DefaultTreeHasher>,
{
    let one = |challenge: usize| Ok(captured.circuit(&captured.challenges[challenge..=challenge]));
    assign(compiled, form, one, &|| {}).expect("captured")
}

fn check_vectors<Tree>()
where
    Tree: 'static + MerkleTreeTrait<Hasher = DefaultTreeHasher>,
{
    let proof = representative(SectorSize::KIB_2).expect("registered");
    let compiled = record::<Tree>(proof).expect("the published circuit");
    assert_eq!(compiled.counts().rows, 2_687_921, "as published software counts them");
    let captured = Captured::<Tree>::new();
    let ours = filled(&captured, &compiled, Form::Canonical);
    let whole = Whole::of(captured.circuit(&captured.challenges));

    assert_eq!(ours.values.len(), whole.inputs.len() + whole.aux.len());
    let values = whole.inputs.par_iter().chain(&whole.aux);
    let differs = ours.values.par_iter().zip(values).position_first(|(ours, theirs)| {
        Option::<Scalar>::from(Scalar::from_u64s_le(ours)) != Some(*theirs)
    });
    assert_eq!(differs, None, "a variable's value");
    for (name, (ours, theirs)) in
        ["A", "B", "C"].iter().zip(ours.products.iter().zip(&whole.products))
    {
        let differs = ours.par_iter().zip(theirs).position_first(|(ours, theirs)| ours != theirs);
        assert_eq!(differs, None, "a row of {name}");
        assert!(ours[theirs.len()..].par_iter().all(|row| *row == [0; 4]), "{name} is padded");
    }
}

#[test]
fn variables_and_products_of_a_sector_are_those_of_a_full_synthesis() {
    with_shape!(SectorSize::KIB_2.bytes(), check_vectors);
}

fn check_lengths<Tree: 'static + MerkleTreeTrait>(size: SectorSize) {
    let proof = representative(size).expect("registered");
    let compiled = record::<Tree>(proof).expect("the published circuit");
    let lengths = ParameterLengths::of(size).expect("registered");
    let ParameterLengths { inputs, h, l, a, b } = lengths;
    let found = Lengths { inputs, h, l, a, b_g1: b, b_g2: b };
    assert_eq!(Queries::of(&compiled).check(found), Ok(()), "{size}");
}

#[test]
fn the_lengths_that_planners_reckon_with_are_those_of_the_circuits() {
    for size in SectorSize::REGISTERED {
        if size >= SectorSize::GIB_32 && !slow_tests() {
            let name = "the_lengths_that_planners_reckon_with_are_those_of_the_circuits";
            let what = format!("seal-groth16 {name}, of {size}");
            skipped(&what, "recording it takes 15 seconds; --slow runs it");
            continue;
        }
        with_shape!(size.bytes(), check_lengths, size);
    }
}

fn check_production<Tree: 'static + MerkleTreeTrait>() {
    let proof = representative(SectorSize::GIB_32).expect("registered");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let cache = CircuitCache::new(dir.path());
    let shape = || {
        shape::<Tree>(proof, CurveKernel::detect(), Some(&cache)).expect("the published circuit")
    };
    let recorded = shape();
    let compiled = &recorded.compiled;
    assert_eq!(compiled.constraints(), 130_278_869, "with a row for each input");
    assert_eq!(compiled.counts().aux, 130_169_893);
    assert_eq!(compiled.domain_bits(), 27);
    // What --help and docs/operations.md say.
    assert_eq!(recorded.partition_bytes.div_ceil(1 << 30), 21);
    assert_eq!(compiled.bytes() / 1_000_000, 327);
    assert_eq!(recorded.queries.bytes() / 1_000_000, 651);
    assert_eq!(recorded.origin, Origin::Recorded);

    let read = shape();
    assert_eq!(read.origin, Origin::Cache);
    assert!(read.compiled == *compiled, "it is read back as it was");
}

#[test]
fn the_circuit_of_32_gib_sectors_is_as_large_as_the_networks() {
    if !slow_tests() {
        let name = "seal-groth16 the_circuit_of_32_gib_sectors_is_as_large_as_the_networks";
        return skipped(name, "recording it takes 15 seconds; --slow runs it");
    }
    with_shape!(SectorSize::GIB_32.bytes(), check_production);
}

fn check_bytes<Tree>(dir: &Path)
where
    Tree: 'static + MerkleTreeTrait<Hasher = DefaultTreeHasher>,
{
    let size = SectorSize::KIB_2;
    let kernel = CurveKernel::detect();
    let loaded = prover(dir).load(size, 0, &mut |_| ControlFlow::Continue(())).expect("whole");
    let proof = representative(size).expect("registered");
    let shape = shape::<Tree>(proof, kernel, None).expect("the published circuit");
    let captured = Captured::<Tree>::new();
    let assignment = filled(&captured, &shape.compiled, Form::Canonical);
    let [r, s] = [0; 2].map(|_| Scalar::random(OsRng));
    let (mut times, mut go_on) = (ProofTimes::default(), |_| Ok(()));
    let LoadedPoints::Cpu(key) = &loaded.points else { panic!("no device was asked for") };
    let queries = &shape.queries;
    let ours = groth::prove(key, queries, &shape.ntt, assignment, [r, s], &mut times, &mut go_on);

    let file = std::fs::File::open(dir.join(tiny::files().params())).expect("there");
    let parameters = Parameters::<Bls12>::read(std::io::BufReader::new(file), false);
    let parameters = parameters.expect("the same file");
    let circuit = captured.circuit(&captured.challenges);
    let theirs = create_proof_batch(vec![circuit], &parameters, vec![r], vec![s]);
    assert_eq!(ours.as_ref(), Ok(&theirs.expect("captured")[0]));
}

#[test]
fn a_sectors_proof_is_bellpersons_for_the_same_randomness() {
    let name = "seal-groth16 a_sectors_proof_is_bellpersons_for_the_same_randomness";
    if !slow_tests() {
        return skipped(name, "bellperson takes a minute; --slow runs it");
    }
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-params"));
    if !dir.join(tiny::files().params()).exists() {
        return skipped(name, "there are no test parameters in target/test-params");
    }
    with_shape!(SectorSize::KIB_2.bytes(), check_bytes, dir);
}

/// In place of a device: compares what it is given with what bellperson would give it.
struct Compare(Whole);

impl AcceleratorKey for Compare {
    fn prove(
        &self,
        circuit: &groth16::Circuit,
        given: &groth16::Assignment<'_>,
        random: [groth16::Scalar; 2],
    ) -> Result<RawProof, CudaError> {
        let whole = &self.0;
        let same_bits = |name: &str, ours: &Density, theirs: &DensityTracker| {
            let words: Vec<u64> =
                theirs.bv.as_raw_slice().iter().map(|word| *word as u64).collect();
            assert!(ours.words() == words, "bits of {name}");
            assert_eq!(ours.len(), theirs.bv.len(), "bits of {name}");
            assert_eq!(ours.ones(), theirs.get_total_density(), "points of {name}");
        };
        same_bits("A", &circuit.a_aux, &whole.a_aux);
        same_bits("the inputs in B", &circuit.b_inputs, &whole.b_inputs);
        same_bits("B", &circuit.b_aux, &whole.b_aux);
        assert_eq!(circuit.rows, whole.products[0].len(), "rows, those of inputs among them");
        for (name, ours, theirs) in
            [("inputs", given.inputs, &whole.inputs), ("variables", given.aux, &whole.aux)]
        {
            assert_eq!(ours.len(), theirs.len(), "{name}");
            let differs = ours
                .par_iter()
                .zip(theirs)
                .position_first(|(ours, theirs)| *ours != words_of_scalar(*theirs));
            assert_eq!(differs, None, "{name}");
        }
        for (name, (ours, theirs)) in
            ["A", "B", "C"].iter().zip(given.products.iter().zip(&whole.products))
        {
            // B and C have nothing in the rows of inputs.
            let (rows, rest) = ours.split_at(theirs.len());
            assert!(rows == theirs, "products of {name}");
            assert!(rest.iter().all(|row| *row == [0; 4]), "products of {name}");
        }
        assert_eq!(random, [words_of_scalar(Scalar::from(3)), words_of_scalar(Scalar::from(5))]);
        Ok(RawProof::default())
    }
}

fn check_given<Tree>()
where
    Tree: 'static + MerkleTreeTrait<Hasher = DefaultTreeHasher>,
{
    let proof = representative(SectorSize::KIB_2).expect("registered");
    let compiled = record::<Tree>(proof).expect("the published circuit");
    let captured = Captured::<Tree>::new();
    let assignment = filled(&captured, &compiled, Form::Montgomery);
    let key = DeviceKey::of(Box::new(Compare(Whole::of(captured.circuit(&captured.challenges)))));
    let (queries, rows) = (Queries::of(&compiled), compiled.constraints());
    let random = [Scalar::from(3), Scalar::from(5)];
    key.prove(&queries, rows, &assignment, random, &mut || Ok::<(), ()>(()))
        .expect("nobody stops it")
        .expect("everything is the same");
}

#[test]
fn what_a_device_is_given_for_a_sector_is_what_bellperson_gives_it() {
    with_shape!(SectorSize::KIB_2.bytes(), check_given);
}
