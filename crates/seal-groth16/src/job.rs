//! A task's partitions on their way through the prover.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bellperson::SynthesisError;
use bellperson::groth16::{Proof, verify_proof};
use blstrs::{Bls12, Scalar};
use ff::Field;
use filecoin_proofs::{DefaultPieceHasher, DefaultTreeHasher};
use rand::rngs::OsRng;
use seal_cuda::CudaError;
use seal_types::RegisteredProof;
use seal_wire::{ErrorCode, TaskError};
use storage_proofs_core::compound_proof::CompoundProof;
use storage_proofs_core::merkle::MerkleTreeTrait;
use storage_proofs_porep::stacked::{self, StackedCompound};

use crate::device::{DeviceKey, asking};
use crate::groth::{self, ProofTimes, Stopped};
use crate::load::{Loaded, LoadedPoints};
use crate::pipeline::{GoOn, one_by_one};
use crate::shape::Shape;
use crate::step::{At, Gauges, ProveStep, Work};
use crate::task::{Challenge, PublicInputs, VanillaProofs};
use crate::turns::Share;
use crate::witness::{Assignment, Form, assign};
use crate::{Groth16Error, Prover};

/// How often a partition's proof may fail, and how often the processor may make a wrong one.
const MOST_ATTEMPTS: u32 = 2;

/// A task on its way through the prover.
pub(crate) struct Job<'a, Tree: 'static + MerkleTreeTrait> {
    pub(crate) prover: &'a Prover,
    pub(crate) proof: RegisteredProof,
    pub(crate) params: &'a stacked::PublicParams<Tree>,
    pub(crate) public: &'a PublicInputs,
    pub(crate) loaded: &'a Loaded,
    pub(crate) shape: &'a Shape,
    /// Where its partitions are.
    gauges: Gauges,
}

/// A partition that waits for the prover, with the memory that is set aside for it.
struct Filled<'a, Tree: MerkleTreeTrait> {
    assignment: Assignment,
    /// For a second attempt.
    challenges: Vec<Vec<Challenge<Tree>>>,
    took: Duration,
    _memory: Share<'a>,
}

/// Logs what the parts of a partition's proof took.
fn tell(partition: u32, times: &ProofTimes) {
    let ms = |took: Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(
        partition,
        witness_ms = ms(times.witness),
        transforms_ms = ms(times.transforms),
        h_ms = ms(times.h),
        l_ms = ms(times.l),
        a_ms = ms(times.a),
        b_ms = ms(times.b),
        device_ms = ms(times.device),
        "partition proved"
    );
}

impl<'a, Tree> Job<'a, Tree>
where
    Tree: 'static + MerkleTreeTrait<Hasher = DefaultTreeHasher>,
{
    /// A task with what was made ready for it.
    pub(crate) fn new(
        prover: &'a Prover,
        proof: RegisteredProof,
        (params, public): (&'a stacked::PublicParams<Tree>, &'a PublicInputs),
        (loaded, shape): (&'a Loaded, &'a Shape),
    ) -> Self {
        Self { prover, proof, params, public, loaded, shape, gauges: Gauges::default() }
    }

    /// Proves all partitions. While one is proved, the variables of the next are computed, as far
    /// as memory allows.
    pub(crate) fn prove_partitions(
        &self,
        vanilla: VanillaProofs<Tree>,
        at: &mut At<'_>,
    ) -> Result<Vec<Proof<Bls12>>, Groth16Error> {
        let fill =
            |partition, challenges, stop: &AtomicBool| self.fill(partition, challenges, stop);
        let prove = |partition, filled, stop: &AtomicBool, go_on: &mut GoOn<'_>| {
            self.prove_partition(partition, filled, stop, go_on)
        };
        let mut at = |step| match step {
            ProveStep::Proving { partition, partitions, .. } => {
                let (filling, proving) = (self.gauges.filling.read(), self.gauges.proving.read());
                at(ProveStep::Proving { partition, partitions, filling, proving })
            }
            other => at(other),
        };
        one_by_one(vanilla, fill, prove, &mut at)
    }

    /// The values of a partition's variables, once there is memory for them.
    fn fill(
        &self,
        partition: u32,
        challenges: Vec<Challenge<Tree>>,
        stop: &AtomicBool,
    ) -> Result<Filled<'_, Tree>, Groth16Error> {
        let wanted = self.shape.partition_bytes;
        let memory = &self.prover.memory;
        let mut go_on = || {
            self.gauges.filling.set(partition, Work::AwaitMemory, 0, 1);
            match stop.load(Ordering::Relaxed) {
                false => Ok(()),
                true => Err(Groth16Error::Cancelled),
            }
        };
        let share = memory.take(wanted, &mut go_on)?;
        let share = share.ok_or_else(|| Groth16Error::TooLittleMemory {
            proof: self.proof,
            wanted,
            params: 0,
            allowed: memory.total(),
        })?;
        let challenges: Vec<_> = challenges.into_iter().map(|challenge| vec![challenge]).collect();
        let start = Instant::now();
        let assignment = self.assign(partition, &challenges, stop)?;
        Ok(Filled { assignment, challenges, took: start.elapsed(), _memory: share })
    }

    fn assign(
        &self,
        partition: u32,
        challenges: &[Vec<Challenge<Tree>>],
        stop: &AtomicBool,
    ) -> Result<Assignment, Groth16Error> {
        let circuit = |challenge: usize| {
            if stop.load(Ordering::Relaxed) {
                return Err(SynthesisError::IoError(io::ErrorKind::Interrupted.into()));
            }
            StackedCompound::<Tree, DefaultPieceHasher>::circuit(
                self.public,
                (),
                &challenges[challenge],
                self.params,
                Some(partition as usize),
            )
            .map_err(|error| SynthesisError::IoError(io::Error::other(error)))
        };
        let form = match &self.loaded.points {
            LoadedPoints::Cpu(_) => Form::Canonical,
            LoadedPoints::Device(_) => Form::Montgomery,
        };
        let Shape { compiled, fillers, .. } = self.shape;
        // Who computes them anew, for a second attempt, tells as well.
        let (count, filled) = (challenges.len() as u32, AtomicU32::new(0));
        let tell = |done| self.gauges.filling.set(partition, Work::Witness, done, count);
        tell(0);
        fillers
            .run(|| {
                assign(compiled, form, circuit, &|| {
                    tell(filled.fetch_add(1, Ordering::Relaxed) + 1);
                })
            })
            .map_err(Groth16Error::upstream("fill the circuit"))
    }

    /// A proof that verifies: what a passing fault spoiled is computed once more. A device that has
    /// computed wrongly is tried before that, with its parameters read anew.
    fn prove_partition(
        &self,
        partition: u32,
        filled: Filled<'_, Tree>,
        stop: &AtomicBool,
        go_on: &mut GoOn<'_>,
    ) -> Result<Proof<Bls12>, Groth16Error> {
        let Filled { assignment, challenges, took, _memory } = filled;
        let inputs = StackedCompound::<Tree, DefaultPieceHasher>::generate_public_inputs(
            self.public,
            self.params,
            Some(partition as usize),
        )
        .map_err(Groth16Error::upstream("derive the public inputs"))?;
        let mut next = Some(assignment);
        let (mut wrong, mut failed) = (0, 0);
        loop {
            let assignment = match next.take() {
                Some(assignment) => assignment,
                None => self.assign(partition, &challenges, stop)?,
            };
            let mut times = ProofTimes { witness: took, ..ProofTimes::default() };
            let (reading, proved) = {
                let mut waits = || {
                    self.gauges.proving.set(partition, Work::AwaitTurn, 0, 1);
                    go_on()
                };
                let _turn = self.prover.proving.take(1, &mut waits)?;
                let reading = match &self.loaded.points {
                    // Nobody reads them anew out of turn.
                    LoadedPoints::Device(key) => key.reading_number(),
                    LoadedPoints::Cpu(_) => 0,
                };
                (reading, self.prove_once(partition, assignment, &mut times, go_on)?)
            };
            tell(partition, &times);
            let device = self.prover.device();
            let fault = match proved {
                Ok(Some(proof)) => {
                    let valid = verify_proof(&self.loaded.verifying_key, &proof, &inputs)
                        .map_err(Groth16Error::upstream("verify a partition's proof"))?;
                    if valid {
                        return Ok(proof);
                    }
                    "does not verify"
                }
                Ok(None) => "is not one of points",
                Err(source) => {
                    failed += 1;
                    let causes = TaskError::from_error(ErrorCode::Unavailable, &source).message;
                    tracing::error!(partition, failed, device, error = causes, "no proof");
                    // Memory has been waited for.
                    if failed == MOST_ATTEMPTS || source.is_out_of_memory() {
                        let what = match failed {
                            1 => format!("prove partition {partition}"),
                            _ => format!("prove partition {partition}, twice"),
                        };
                        return Err(Groth16Error::of_device(what, device, source));
                    }
                    continue;
                }
            };
            wrong += 1;
            tracing::error!(partition, wrong, device, "a proof {fault}");
            match &self.loaded.points {
                LoadedPoints::Device(key) => {
                    self.device_was_wrong(partition, key, reading, go_on)?;
                }
                LoadedPoints::Cpu(_) if wrong == MOST_ATTEMPTS => {
                    let what = format!("the proof of partition {partition}, made twice,");
                    return Err(Groth16Error::SelfCheck { what, device });
                }
                LoadedPoints::Cpu(_) => {}
            }
        }
    }

    /// What follows a wrong proof: the device is marked, and tried with parameters read anew; or it
    /// is left out. The proof was made from the reading of parameters with this number.
    fn device_was_wrong(
        &self,
        partition: u32,
        key: &DeviceKey,
        reading: u64,
        go_on: &mut GoOn<'_>,
    ) -> Result<(), Groth16Error> {
        // The device's prover drops it when a sum of points finds no memory.
        let device = self.prover.device();
        let failed = |what: String, source| Groth16Error::of_device(what, device.clone(), source);
        if let Err(source @ CudaError::TooLittle { .. }) = key.check_memory() {
            let what = format!("prove partition {partition}, for want of memory as it seems");
            return Err(failed(what, source));
        }
        self.prover.device_was_wrong(reading, &format!("the proof of partition {partition}"));
        if self.prover.device_is_left_out() {
            return Err(self.prover.bad_device());
        }
        {
            let _turn = self.prover.proving.take(1, go_on)?;
            // Unless another task, with another proof from that reading, has done it.
            if key.reading_number() == reading {
                let faults = self.prover.device_faults();
                asking(|| key.read_anew(faults), go_on)?
                    .map_err(|source| failed("read the parameters anew".to_owned(), source))?;
            }
        }
        self.prover.try_device_anew(go_on)?;
        if self.prover.device_is_left_out() { Err(self.prover.bad_device()) } else { Ok(()) }
    }

    /// A proof that nobody has looked at; none where a device returns something else, or its
    /// error.
    fn prove_once(
        &self,
        partition: u32,
        assignment: Assignment,
        times: &mut ProofTimes,
        go_on: &mut GoOn<'_>,
    ) -> Result<Result<Option<Proof<Bls12>>, CudaError>, Groth16Error> {
        let Shape { compiled, queries, ntt, .. } = self.shape;
        let random = [Scalar::random(OsRng), Scalar::random(OsRng)];
        match &self.loaded.points {
            LoadedPoints::Cpu(key) => {
                let mut go_on = |(work, done, total)| {
                    self.gauges.proving.set(partition, work, done, total);
                    go_on().map_err(|_| Stopped)
                };
                groth::prove(key, queries, ntt, assignment, random, times, &mut go_on)
                    .map(|proof| Ok(Some(proof)))
                    .map_err(|Stopped| Groth16Error::Cancelled)
            }
            LoadedPoints::Device(_) if self.prover.device_is_left_out() => {
                Err(self.prover.bad_device())
            }
            LoadedPoints::Device(key) => {
                let start = Instant::now();
                let rows = compiled.constraints();
                // It tells nothing until it is done.
                self.gauges.proving.set(partition, Work::Device, 0, 1);
                let proved = key.prove(queries, rows, &assignment, random, go_on)?;
                self.gauges.proving.set(partition, Work::Device, 1, 1);
                times.device = start.elapsed();
                Ok(proved)
            }
        }
    }
}
