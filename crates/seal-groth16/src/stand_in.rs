//! Stand-ins for a device's prover, for tests on machines without a device.
//!
//! [`Contract`] does what supraseal-c2 does with what it is given, as its sources say, by the
//! slowest and plainest means and with nothing of ours: what it gets right, the device is given
//! right. [`Scripted`] proves whole tasks by our own prover, and fails as it is told.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use bellperson::groth16::{Parameters, Proof};
use blstrs::{Bls12, G1Affine, G1Projective, G2Projective, Scalar};
use ff::{Field, PrimeField};
use group::{Curve as _, Group};
use seal_cuda::CudaError;
use seal_cuda::groth16::{Assignment, Circuit, Density, Lists, RawProof};
use seal_field::curve::CurveKernel;
use seal_field::ntt::{Ntt, scalar_of_words};
use seal_types::SectorSize;

use crate::device::{Accelerator, AcceleratorKey};
use crate::groth::{self, ProofTimes, Queries};
use crate::load::{LoadedPoints, load};
use crate::{ParamDir, TestParams, Trust, witness};

/// A device with these parameters.
pub(crate) struct Contract(pub(crate) Parameters<Bls12>);

impl AcceleratorKey for Contract {
    fn prove(
        &self,
        circuit: &Circuit,
        given: &Assignment<'_>,
        [r, s]: [[u64; 4]; 2],
    ) -> Result<RawProof, CudaError> {
        let of = |list: &[[u64; 4]]| list.iter().map(scalar_of_words).collect::<Vec<Scalar>>();
        let (inputs, aux) = (of(given.inputs), of(given.aux));
        let [r, s] = [scalar_of_words(&r), scalar_of_words(&s)];
        let Parameters { vk, h, l, a, b_g1, b_g2 } = &self.0;

        let h = sum::<G1Projective>(h.iter().map(|p| p.into()), quotient(given.products.map(of)));
        let l = sum::<G1Projective>(l.iter().map(|p| p.into()), aux.iter().copied());
        let of_a: Vec<_> = inputs.iter().chain(having(&circuit.a_aux, &aux)).copied().collect();
        assert_eq!(a.len(), of_a.len(), "points of A");
        let a = sum::<G1Projective>(a.iter().map(|p| p.into()), of_a);
        let of_b: Vec<_> = having(&circuit.b_inputs, &inputs)
            .chain(having(&circuit.b_aux, &aux))
            .copied()
            .collect();
        assert_eq!(b_g1.len(), of_b.len(), "points of B");
        let b1 = sum::<G1Projective>(b_g1.iter().map(|p| p.into()), of_b.iter().copied());
        let b2 = sum::<G2Projective>(b_g2.iter().map(|p| p.into()), of_b);

        let proof = Proof {
            a: (vk.delta_g1 * r + vk.alpha_g1 + a).to_affine(),
            b: (vk.delta_g2 * s + vk.beta_g2 + b2).to_affine(),
            c: (a * s + b1 * r + vk.delta_g1 * (r * s) + vk.alpha_g1 * s + vk.beta_g1 * r + h + l)
                .to_affine(),
        };
        Ok(raw(&proof))
    }
}

fn sum<G: Group<Scalar = Scalar>>(
    points: impl Iterator<Item = G>,
    scalars: impl IntoIterator<Item = Scalar>,
) -> G {
    points.zip(scalars).map(|(point, scalar)| point * scalar).sum()
}

/// The values whose bit is set, counted from the lowest of the first word.
fn having<'a>(density: &'a Density, values: &'a [Scalar]) -> impl Iterator<Item = &'a Scalar> {
    assert_eq!(density.len(), values.len());
    let words = density.words();
    let set = |place: usize| words[place / 64] >> (place % 64) & 1 == 1;
    values.iter().enumerate().filter(move |(place, _)| set(*place)).map(|(_, value)| value)
}

/// The coefficients of (a b - c) / (x^n - 1), where a, b and c take the given values at the powers
/// of the root of unity.
fn quotient(products: [Vec<Scalar>; 3]) -> Vec<Scalar> {
    let n = products[0].len().next_power_of_two();
    let mut root = Scalar::ROOT_OF_UNITY;
    for _ in n.trailing_zeros()..Scalar::S {
        root = root.square();
    }
    let back = root.invert().expect("not zero");
    let by = Scalar::from(n as u64).invert().expect("not zero");
    let [a, b, c] = products.map(|values| {
        let of_power = |power: u64| {
            let step = back.pow_vartime([power]);
            let mut x = Scalar::ONE;
            let mut sum = Scalar::ZERO;
            for value in &values {
                sum += *value * x;
                x *= step;
            }
            sum * by
        };
        (0..n as u64).map(of_power).collect::<Vec<_>>()
    });
    let mut product = vec![Scalar::ZERO; 2 * n];
    for (i, a) in a.iter().enumerate() {
        for (j, b) in b.iter().enumerate() {
            product[i + j] += *a * b;
        }
    }
    for (product, c) in product.iter_mut().zip(c) {
        *product -= c;
    }
    let (low, high) = product.split_at(n);
    assert!(low.iter().zip(high).all(|(low, high)| *low == -high), "the products do not hold");
    high[..n - 1].to_vec()
}

/// A proof as a device leaves it.
pub(crate) fn raw(proof: &Proof<Bls12>) -> RawProof {
    let g1 = |point: &G1Affine| [point.as_ref().x.l, point.as_ref().y.l];
    let b = proof.b.as_ref();
    RawProof {
        a: g1(&proof.a),
        b: [b.x, b.y].map(|coordinate| coordinate.fp.map(|part| part.l)),
        c: g1(&proof.c),
    }
}

/// Points of the groups that are no proof of anything asked for.
fn of_something_else() -> RawProof {
    raw(&Proof {
        a: G1Projective::generator().to_affine(),
        b: G2Projective::generator().to_affine(),
        c: G1Projective::generator().to_affine(),
    })
}

/// What a scripted device does when it is to prove.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Proves.
    Right,
    /// Says that it has failed.
    Fail,
    /// Leaves its memory as it was.
    Nothing,
    /// Leaves a proof of something else, as where a sum of points finds no memory.
    Other,
    /// The same, and afterwards its memory is short so often.
    Dropped(Arc<AtomicUsize>),
    /// Says that it works, and does so until it is let go.
    Hold(Arc<Held>),
}

/// The two ends of [`Act::Hold`].
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) works: AtomicBool,
    pub(crate) let_go: AtomicBool,
}

impl Act {
    /// What comes back where `really` would prove.
    fn of(act: Option<Self>, really: impl FnOnce() -> RawProof) -> Result<RawProof, CudaError> {
        match act {
            Some(Self::Fail) => {
                Err(CudaError::Groth16 { what: "prove", said: "a launch failed".to_owned() })
            }
            Some(Self::Nothing) => Ok(RawProof { a: [[7; 6]; 2], ..RawProof::default() }),
            Some(Self::Other) => Ok(of_something_else()),
            Some(Self::Dropped(short)) => {
                short.store(1, Ordering::SeqCst);
                Ok(of_something_else())
            }
            Some(Self::Hold(held)) => {
                held.works.store(true, Ordering::SeqCst);
                while !held.let_go.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(5));
                }
                Ok(RawProof::default())
            }
            Some(Self::Right) | None => Ok(really()),
        }
    }
}

/// A list of acts, taken one by one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script(Arc<Mutex<VecDeque<Act>>>);

impl Script {
    fn of(acts: impl IntoIterator<Item = Act>) -> Self {
        Self(Arc::new(Mutex::new(acts.into_iter().collect())))
    }

    fn next(&self) -> Option<Act> {
        self.0.lock().expect("no test panics with it").pop_front()
    }
}

/// A device that does what scripts say, for proofs and for its trials, and then proves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scripted {
    pub(crate) proofs: Script,
    pub(crate) trials: Script,
    /// How often it has read parameters.
    pub(crate) reads: Arc<AtomicUsize>,
    /// How often it was tried.
    pub(crate) tried: Arc<AtomicUsize>,
    /// How often it is to say that its memory does not suffice.
    pub(crate) short: Arc<AtomicUsize>,
    /// Whether its memory never suffices for parameters.
    pub(crate) small: bool,
    /// The same for those of its trials.
    pub(crate) small_for_trials: bool,
}

pub(crate) const LABEL: &str = "Scripted (GPU-0)";

impl Scripted {
    pub(crate) fn new(script: impl IntoIterator<Item = Act>) -> Self {
        Self { proofs: Script::of(script), ..Self::default() }
    }

    /// The same with other acts.
    pub(crate) fn then(self, script: impl IntoIterator<Item = Act>) -> Self {
        Self { proofs: Script::of(script), ..self }
    }

    pub(crate) fn with_trials(self, script: impl IntoIterator<Item = Act>) -> Self {
        Self { trials: Script::of(script), ..self }
    }
}

impl Accelerator for Scripted {
    fn label(&self) -> String {
        LABEL.to_owned()
    }

    fn check_memory(&self, _: Lists) -> Result<(), CudaError> {
        let short = |left: usize| left.checked_sub(1);
        match self.short.fetch_update(Ordering::SeqCst, Ordering::SeqCst, short) {
            Ok(_) => Err(CudaError::TooLittle { needed: 9 << 30, free: 3 << 30 }),
            Err(_) => Ok(()),
        }
    }

    fn load(&self, path: &Path, lists: Lists) -> Result<Box<dyn AcceleratorKey>, CudaError> {
        let too_small = || CudaError::TooSmall { needed: 9 << 30, memory: 8 << 30 };
        // A trial's parameters lie in memory.
        if path.starts_with("/proc") {
            if self.small_for_trials {
                return Err(too_small());
            }
            let file = std::fs::File::open(path).expect("there");
            let parameters = Parameters::read(std::io::BufReader::new(file), true);
            self.tried.fetch_add(1, Ordering::SeqCst);
            let contract = Contract(parameters.expect("points of the curve"));
            return Ok(Box::new(TrialKey(contract, self.trials.clone())));
        }
        if self.small {
            return Err(too_small());
        }
        self.reads.fetch_add(1, Ordering::SeqCst);
        let dir = path.parent().expect("a file").to_path_buf();
        Ok(Box::new(ScriptedKey {
            script: self.proofs.clone(),
            dir,
            lists,
            points: OnceLock::new(),
        }))
    }
}

/// What a scripted device is tried with.
struct TrialKey(Contract, Script);

impl AcceleratorKey for TrialKey {
    fn prove(
        &self,
        circuit: &Circuit,
        given: &Assignment<'_>,
        random: [[u64; 4]; 2],
    ) -> Result<RawProof, CudaError> {
        Act::of(self.1.next(), || self.0.prove(circuit, given, random).expect("it proves"))
    }
}

struct ScriptedKey {
    script: Script,
    dir: PathBuf,
    lists: Lists,
    points: OnceLock<LoadedPoints>,
}

impl AcceleratorKey for ScriptedKey {
    fn prove(
        &self,
        circuit: &Circuit,
        given: &Assignment<'_>,
        random: [[u64; 4]; 2],
    ) -> Result<RawProof, CudaError> {
        Act::of(self.script.next(), || self.really(circuit, given, random))
    }
}

impl ScriptedKey {
    /// By our own prover, from nothing but what is given.
    fn really(&self, circuit: &Circuit, given: &Assignment<'_>, random: [[u64; 4]; 2]) -> RawProof {
        let kernel = CurveKernel::detect();
        let points = self.points.get_or_init(|| {
            let trust = Trust { test_params: TestParams::Allow, ..Trust::default() };
            let found = ParamDir::new(&self.dir).find(SectorSize::KIB_2, trust).expect("there");
            assert_eq!(self.lists, crate::device::lists(found.layout.lengths()));
            load(&found, kernel, &mut |_| ControlFlow::Continue(())).expect("whole").points
        });
        let LoadedPoints::Cpu(key) = points else { panic!("loaded by the processor") };
        let places = |density: &Density, from: usize| {
            let words = density.words().to_vec();
            (0..density.len())
                .filter(move |place| words[place / 64] >> (place % 64) & 1 == 1)
                .map(move |place| (from + place) as u32)
                .collect::<Vec<_>>()
        };
        let inputs = given.inputs.len();
        let bits = circuit.rows.next_power_of_two().trailing_zeros();
        let a = [(0..inputs as u32).collect(), places(&circuit.a_aux, inputs)].concat();
        let b = [places(&circuit.b_inputs, 0), places(&circuit.b_aux, inputs)].concat();
        let queries = Queries::with(a, b, inputs, given.aux.len(), bits);
        let canonical = |words: &[u64; 4]| {
            let bytes = scalar_of_words(words).to_bytes_le();
            std::array::from_fn(|word| {
                u64::from_le_bytes(std::array::from_fn(|byte| bytes[8 * word + byte]))
            })
        };
        let values = given.inputs.iter().chain(given.aux).map(canonical).collect();
        let products = given.products.map(|product| {
            let mut product = product.to_vec();
            product.resize(1 << bits, [0; 4]);
            product
        });
        let assignment = witness::Assignment { values, products };
        let ntt = Ntt::new(kernel, bits).expect("a circuit's length");
        let random = random.map(|words| scalar_of_words(&words));
        let mut times = ProofTimes::default();
        let proof =
            groth::prove(key, &queries, &ntt, assignment, random, &mut times, &mut |_| Ok(()))
                .expect("nobody stops it");
        raw(&proof)
    }
}
