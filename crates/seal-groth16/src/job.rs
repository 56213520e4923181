//! A task's partitions on their way through the prover.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bellperson::SynthesisError;
use bellperson::groth16::{Proof, verify_proof};
use blstrs::{Bls12, Scalar};
use ff::Field;
use filecoin_proofs::{DefaultPieceHasher, DefaultTreeHasher};
use rand::rngs::OsRng;
use seal_types::RegisteredProof;
use storage_proofs_core::compound_proof::CompoundProof;
use storage_proofs_core::merkle::MerkleTreeTrait;
use storage_proofs_porep::stacked::{self, StackedCompound};

use crate::groth::{self, ProofTimes, Stopped};
use crate::load::Loaded;
use crate::pipeline::{GoOn, one_by_one};
use crate::shape::Shape;
use crate::step::At;
use crate::task::{Challenge, PublicInputs, VanillaProofs};
use crate::turns::Share;
use crate::witness::{Assignment, assign};
use crate::{Groth16Error, Prover};

/// A task on its way through the prover.
pub(crate) struct Job<'a, Tree: 'static + MerkleTreeTrait> {
    pub(crate) prover: &'a Prover,
    pub(crate) proof: RegisteredProof,
    pub(crate) params: &'a stacked::PublicParams<Tree>,
    pub(crate) public: &'a PublicInputs,
    pub(crate) loaded: &'a Loaded,
    pub(crate) shape: &'a Shape,
}

/// A partition that waits for the prover, with the memory that is set aside for it.
struct Filled<'a, Tree: MerkleTreeTrait> {
    assignment: Assignment,
    /// For a second attempt.
    challenges: Vec<Vec<Challenge<Tree>>>,
    took: Duration,
    _memory: Share<'a>,
}

impl<Tree> Job<'_, Tree>
where
    Tree: 'static + MerkleTreeTrait<Hasher = DefaultTreeHasher>,
{
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
        one_by_one(vanilla, fill, prove, at)
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
        let mut go_on = || match stop.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Groth16Error::Cancelled),
        };
        let share = memory.take(wanted, &mut go_on)?;
        let share = share.ok_or_else(|| Groth16Error::TooLittleMemory {
            proof: self.proof,
            wanted,
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
        assign(&self.shape.compiled, circuit).map_err(Groth16Error::upstream("fill the circuit"))
    }

    /// A proof that verifies: what a passing fault spoiled is computed once more.
    fn prove_partition(
        &self,
        partition: u32,
        filled: Filled<'_, Tree>,
        stop: &AtomicBool,
        go_on: &mut GoOn<'_>,
    ) -> Result<Proof<Bls12>, Groth16Error> {
        let Shape { queries, ntt, .. } = self.shape;
        let Filled { assignment, challenges, took, _memory } = filled;
        let inputs = StackedCompound::<Tree, DefaultPieceHasher>::generate_public_inputs(
            self.public,
            self.params,
            Some(partition as usize),
        )
        .map_err(Groth16Error::upstream("derive the public inputs"))?;
        let mut next = Some(assignment);
        for attempt in 1..=2 {
            let assignment = match next.take() {
                Some(assignment) => assignment,
                None => self.assign(partition, &challenges, stop)?,
            };
            let mut times = ProofTimes { witness: took, ..ProofTimes::default() };
            let proof = {
                let _turn = self.prover.proving.take(1, go_on)?;
                let random = [Scalar::random(OsRng), Scalar::random(OsRng)];
                let key = &self.loaded.key;
                let mut go_on = || go_on().map_err(|_| Stopped);
                groth::prove(key, queries, ntt, assignment, random, &mut times, &mut go_on)
                    .map_err(|Stopped| Groth16Error::Cancelled)?
            };
            let ms = |took: Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(
                partition,
                witness_ms = ms(times.witness),
                transforms_ms = ms(times.transforms),
                h_ms = ms(times.h),
                l_ms = ms(times.l),
                a_ms = ms(times.a),
                b_ms = ms(times.b),
                "partition proved"
            );
            let valid = verify_proof(&self.loaded.verifying_key, &proof, &inputs)
                .map_err(Groth16Error::upstream("verify a partition's proof"))?;
            if valid {
                return Ok(proof);
            }
            tracing::error!(
                partition,
                attempt,
                device = self.prover.device(),
                "a partition's proof does not verify"
            );
        }
        Err(Groth16Error::SelfCheck {
            what: format!("the proof of partition {partition}, made twice,"),
            device: self.prover.device(),
        })
    }
}
