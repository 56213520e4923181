//! From a C2 task to a verified proof.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use bellperson::SynthesisError;
use bellperson::groth16::{Proof, verify_proof};
use blstrs::{Bls12, Scalar};
use ff::Field;
use filecoin_hashers::{Domain, Hasher};
use filecoin_proofs::{DefaultPieceDomain, DefaultPieceHasher, DefaultTreeHasher, with_shape};
use rand::rngs::OsRng;
use rayon::prelude::*;
use seal_field::curve::CurveKernel;
use seal_types::{Feature, RegisteredProof, ReplicaId, SectorSize};
use seal_wire::{C1Output, C2Task};
use serde_json::value::RawValue;
use storage_proofs_core::compound_proof::{self, CompoundProof};
use storage_proofs_core::merkle::{MerkleProofTrait, MerkleTreeTrait};
use storage_proofs_core::multi_proof::MultiProof;
use storage_proofs_core::proof::ProofScheme;
use storage_proofs_porep::stacked::{
    self, ChallengeRequirements, StackedCompound, StackedDrg, Tau, generate_replica_id,
};

use crate::circuit::{porep_config, public_params, representative};
use crate::groth::{self, ProofTimes, Stopped};
use crate::load::{Loaded, load};
use crate::shape::{Shape, shape};
use crate::turns::{Share, Turns};
use crate::vanilla::{Expectation, Fault, VanillaProof, check_element};
use crate::witness::{Assignment, assign};
use crate::{FoundParams, Groth16Error, ParamDir, Trust};

/// Bytes of one partition's proof: two compressed points of G1 and one of G2.
pub const PROOF_BYTES: usize = 192;

/// How far a proof is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProveStep {
    /// The C1 output is checked.
    Checking,
    /// The parameters, or the circuit, are being loaded for another task or ahead of all; told
    /// again and again.
    Waiting {
        /// Whose.
        sector_size: SectorSize,
    },
    /// The parameters are read; this happens once per sector size.
    Loading {
        /// Bytes read.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A partition is filled and proved; told again and again.
    Proving {
        /// Its number, from 0.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// The finished proof is verified.
    Verifying,
}

/// Told before each step, and several times a second to several times a minute, by the sector's
/// size, while a partition is proved; `Break` stops the work there.
pub type At<'a> = dyn FnMut(ProveStep) -> ControlFlow<()> + 'a;

/// How often a task that waits is asked whether to go on.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(crate) type Challenge<Tree> = stacked::Proof<Tree, DefaultPieceHasher>;
pub(crate) type VanillaProofs<Tree> = Vec<Vec<Challenge<Tree>>>;
pub(crate) type PublicInputs = stacked::PublicInputs<TreeDomain, DefaultPieceDomain>;
type TreeDomain = <DefaultTreeHasher as Hasher>::Domain;
type Slots<T> = Mutex<BTreeMap<SectorSize, Arc<Mutex<Option<Arc<T>>>>>>;

/// What a prover may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// The arithmetic.
    pub kernel: CurveKernel,
    /// Bytes for the partitions in flight, beside parameters and circuits.
    pub memory: u64,
    /// Bytes for parameters. Those of other sector sizes make room, once no task uses them.
    pub params_memory: u64,
}

impl Default for Resources {
    /// The fastest kernel, and no limit.
    fn default() -> Self {
        Self { kernel: CurveKernel::detect(), memory: u64::MAX, params_memory: u64::MAX }
    }
}

/// Proves C2 tasks. Parameters and circuits are loaded on first use and kept.
pub struct Prover {
    params: ParamDir,
    trust: Trust,
    kernel: CurveKernel,
    params_memory: u64,
    loaded: Slots<Loaded>,
    shapes: Slots<Shape>,
    /// Memory for partitions, in bytes.
    memory: Turns,
    /// One partition is proved at a time, by all threads; tasks take turns.
    proving: Turns,
}

impl Prover {
    /// A prover with the parameters in `params`, as far as `trust` lets it use them.
    pub fn new(params: ParamDir, trust: Trust, resources: Resources) -> Self {
        let Resources { kernel, memory, params_memory } = resources;
        Self {
            params,
            trust,
            kernel,
            params_memory,
            loaded: Mutex::default(),
            shapes: Mutex::default(),
            memory: Turns::new(memory),
            proving: Turns::new(1),
        }
    }

    /// Finds the parameters for sectors of `sector_size` without loading them.
    pub fn find(&self, sector_size: SectorSize) -> Result<FoundParams, Groth16Error> {
        self.params.find(sector_size, self.trust)
    }

    /// Loads the parameters for sectors of `sector_size`, and compiles their circuit, ahead of the
    /// first task.
    pub fn preload(&self, sector_size: SectorSize, at: &mut At<'_>) -> Result<(), Groth16Error> {
        self.load(sector_size, at)?;
        let proof = representative(sector_size)?;
        with_shape!(sector_size.bytes(), shape_of, self, proof, at).map(drop)
    }

    /// Proves a task: 192 bytes per partition, verified.
    pub fn prove(&self, task: &C2Task, at: &mut At<'_>) -> Result<Vec<u8>, Groth16Error> {
        let proof = task.c1out.registered_proof;
        if proof.feature() == Feature::NonInteractive {
            return Err(Groth16Error::Unsupported {
                proof,
                reason: "non-interactive proofs of replication are aggregated, which this \
                         executor does not do; send the task to the published software",
            });
        }
        step(at, ProveStep::Checking)?;
        check_task(task)?;
        let size = proof.sector_size().bytes();
        with_shape!(size, prove_shape, self, task, at)
    }

    pub(crate) fn load(
        &self,
        sector_size: SectorSize,
        at: &mut At<'_>,
    ) -> Result<Arc<Loaded>, Groth16Error> {
        kept(&self.loaded, sector_size, at, |at| {
            let found = self.find(sector_size)?;
            self.make_room(sector_size, found.bytes)?;
            load(&found, self.kernel, at)
        })
    }

    /// Lets go of other sizes' parameters until `bytes` more fit.
    fn make_room(&self, sector_size: SectorSize, bytes: u64) -> Result<(), Groth16Error> {
        let allowed = self.params_memory;
        if bytes > allowed {
            return Err(Groth16Error::TooLargeParameters { sector_size, bytes, allowed });
        }
        // Slots that are locked are being loaded; they are counted when their turn comes.
        let slots: Vec<_> =
            lock(&self.loaded).iter().map(|(size, slot)| (*size, slot.clone())).collect();
        let others = || slots.iter().filter(|(size, _)| *size != sector_size);
        let there = |slot: &Mutex<Option<Arc<Loaded>>>| {
            slot.try_lock().ok().and_then(|slot| slot.as_ref().map(|loaded| loaded.bytes))
        };
        let mut used: u64 = others().filter_map(|(_, slot)| there(slot)).sum();
        for (size, slot) in others() {
            if used.saturating_add(bytes) <= allowed {
                break;
            }
            if let Ok(mut slot) = slot.try_lock()
                && let Some(loaded) = slot.take()
            {
                used -= loaded.bytes;
                tracing::info!("the parameters for {size} make room for those for {sector_size}");
            }
        }
        Ok(())
    }

    /// How proofs are computed, for messages.
    fn device(&self) -> String {
        format!("processor ({})", self.kernel.name())
    }
}

/// What is kept for a sector size, made on first use.
fn kept<T>(
    slots: &Slots<T>,
    sector_size: SectorSize,
    at: &mut At<'_>,
    make: impl FnOnce(&mut At<'_>) -> Result<T, Groth16Error>,
) -> Result<Arc<T>, Groth16Error> {
    let slot = lock(slots).entry(sector_size).or_default().clone();
    // Held while it is made: a second task of the same size waits instead of making it again.
    let mut slot = loop {
        match slot.try_lock() {
            Ok(slot) => break slot,
            Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                step(at, ProveStep::Waiting { sector_size })?;
                thread::sleep(LOOK_EVERY);
            }
        }
    };
    if let Some(there) = &*slot {
        return Ok(there.clone());
    }
    let made = Arc::new(make(at)?);
    *slot = Some(made.clone());
    Ok(made)
}

/// What a panicking task leaves behind is whole: slots are only ever filled.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn step(at: &mut At<'_>, step: ProveStep) -> Result<(), Groth16Error> {
    if at(step).is_break() { Err(Groth16Error::Cancelled) } else { Ok(()) }
}

/// Everything about a task that does not depend on the shape of its trees.
fn check_task(task: &C2Task) -> Result<(), Groth16Error> {
    let c1 = &task.c1out;
    let proof = c1.registered_proof;
    let bad =
        |fault: Fault| Groth16Error::BadC1Output { proof, at: fault.at, reason: fault.reason };
    for (name, value) in [("comm_r", c1.comm_r.0), ("comm_d", c1.comm_d.0), ("seed", c1.seed.0)] {
        if value == [0; 32] {
            return Err(bad(Fault::new("it is all zero").within(name)));
        }
    }
    for (name, value) in
        [("comm_r", c1.comm_r.0), ("comm_d", c1.comm_d.0), ("replica_id", c1.replica_id.0)]
    {
        check_element(&value).map_err(|fault| bad(fault.within(name)))?;
    }
    let expected = expected_replica_id(task);
    if c1.replica_id != expected {
        return Err(Groth16Error::OtherSector {
            proof,
            found: c1.replica_id,
            expected,
            prover_id: task.prover_id,
            sector_id: task.sector_id,
        });
    }
    let text = proofs_of_shape(c1)?;
    let partitions: Vec<Vec<VanillaProof>> = serde_json::from_str(text.get())
        .map_err(|error| bad(Fault::new(error.to_string()).within("vanilla_proofs")))?;
    Expectation::of(proof)
        .check(&partitions)
        .map_err(|fault| bad(fault.within(proof.shape_name()).within("vanilla_proofs")))
}

fn expected_replica_id(task: &C2Task) -> ReplicaId {
    let id: TreeDomain = generate_replica_id::<DefaultTreeHasher, _>(
        &task.prover_id.0,
        task.sector_id.0,
        &task.c1out.ticket.0,
        task.c1out.comm_d.0,
        &task.c1out.registered_proof.porep_id().0,
    );
    let mut bytes = [0; 32];
    bytes.copy_from_slice(id.as_ref());
    ReplicaId(bytes)
}

/// The proofs, which stand under the name of the sector's shape.
fn proofs_of_shape(c1: &C1Output) -> Result<&RawValue, Groth16Error> {
    let proof = c1.registered_proof;
    let bad = |reason: String| Groth16Error::BadC1Output {
        proof,
        at: "vanilla_proofs".to_owned(),
        reason,
    };
    let by_shape: BTreeMap<String, &RawValue> =
        serde_json::from_str(c1.vanilla_proofs.get()).map_err(|error| bad(error.to_string()))?;
    let expected = proof.shape_name();
    let names: Vec<&str> = by_shape.keys().map(String::as_str).collect();
    if names != [expected.as_str()] {
        return Err(bad(format!("proofs for {names:?}, expected {expected}")));
    }
    by_shape.into_values().next().ok_or_else(|| bad(format!("no proofs, expected {expected}")))
}

fn prove_shape<Tree>(
    prover: &Prover,
    task: &C2Task,
    at: &mut At<'_>,
) -> Result<Vec<u8>, Groth16Error>
where
    Tree: 'static + MerkleTreeTrait<Hasher = DefaultTreeHasher>,
{
    let c1 = &task.c1out;
    let proof = c1.registered_proof;
    let vanilla = vanilla_proofs::<Tree>(c1)?;
    let public = public_inputs(c1)?;
    let params = public_params::<Tree>(proof)?;
    verify_vanilla(c1, &params, &public, &vanilla)?;

    let size = proof.sector_size();
    let loaded = prover.load(size, at)?;
    check_circuit::<Tree>(prover, proof, &params, &public, &loaded)?;
    let shape = shape_of::<Tree>(prover, proof, at)?;
    shape.queries.check(&loaded.key).map_err(|other| {
        let found = format!("a list {} of {} points", other.list, other.found);
        other_circuit(prover, proof, &found, &format!("one of {}", other.expected))
    })?;

    let job =
        Job { prover, proof, params: &params, public: &public, loaded: &loaded, shape: &shape };
    let mut proofs = Vec::with_capacity(vanilla.len() * PROOF_BYTES);
    for one in job.prove_partitions(vanilla, at)? {
        one.write(&mut proofs).map_err(Groth16Error::upstream("write a proof"))?;
    }
    step(at, ProveStep::Verifying)?;
    verify::<Tree>(prover, proof, params, &public, &proofs, &loaded)?;
    Ok(proofs)
}

pub(crate) fn vanilla_proofs<Tree: 'static + MerkleTreeTrait<Hasher = DefaultTreeHasher>>(
    c1: &C1Output,
) -> Result<VanillaProofs<Tree>, Groth16Error> {
    serde_json::from_str(proofs_of_shape(c1)?.get())
        .map_err(Groth16Error::upstream("read the vanilla proofs"))
}

/// The compiled circuit of a proof.
fn shape_of<Tree: 'static + MerkleTreeTrait>(
    prover: &Prover,
    proof: RegisteredProof,
    at: &mut At<'_>,
) -> Result<Arc<Shape>, Groth16Error> {
    let sector_size = proof.sector_size();
    kept(&prover.shapes, sector_size, at, |_| {
        let start = Instant::now();
        let shape = shape::<Tree>(proof, prover.kernel)?;
        tracing::info!(
            constraints = shape.compiled.constraints(),
            circuit_bytes = shape.compiled.bytes(),
            partition_bytes = shape.partition_bytes,
            elapsed_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
            "the circuit for {sector_size} is compiled"
        );
        Ok(shape)
    })
}

/// A task on its way through the prover.
struct Job<'a, Tree: 'static + MerkleTreeTrait> {
    prover: &'a Prover,
    proof: RegisteredProof,
    params: &'a stacked::PublicParams<Tree>,
    public: &'a PublicInputs,
    loaded: &'a Loaded,
    shape: &'a Shape,
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
    fn prove_partitions(
        &self,
        vanilla: VanillaProofs<Tree>,
        at: &mut At<'_>,
    ) -> Result<Vec<Proof<Bls12>>, Groth16Error> {
        let partitions = self.proof.partitions();
        let stop = AtomicBool::new(false);
        let (ready, next) = mpsc::sync_channel(0);
        thread::scope(|scope| {
            let stop = &stop;
            scope.spawn(move || {
                for (partition, challenges) in (0..).zip(vanilla) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // Nobody listens after an error; the next look at `stop` ends this.
                    let _ = ready.send(self.fill(partition, challenges, stop));
                }
            });
            let mut proofs = Vec::with_capacity(partitions as usize);
            let mut prove_next = |partition| {
                let mut go_on = || step(at, ProveStep::Proving { partition, partitions });
                let filled = loop {
                    go_on()?;
                    match next.recv_timeout(LOOK_EVERY) {
                        Err(RecvTimeoutError::Timeout) => {}
                        // The sender ends early only after `stop`.
                        other => {
                            break other.map_err(Groth16Error::upstream("fill the circuit"))??;
                        }
                    }
                };
                self.prove_partition(partition, filled, stop, &mut go_on)
            };
            for partition in 0..partitions {
                match prove_next(partition) {
                    Ok(proof) => proofs.push(proof),
                    Err(error) => {
                        stop.store(true, Ordering::Relaxed);
                        // Frees a sender that waits.
                        drop(next);
                        return Err(error);
                    }
                }
            }
            Ok(proofs)
        })
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
        let share = memory.take(wanted).ok_or_else(|| Groth16Error::TooLittleMemory {
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
        go_on: &mut dyn FnMut() -> Result<(), Groth16Error>,
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
                let _turn = self.prover.proving.take(1);
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

pub(crate) fn public_inputs(c1: &C1Output) -> Result<PublicInputs, Groth16Error> {
    let tree = |bytes: &[u8; 32]| {
        TreeDomain::try_from_bytes(bytes).map_err(Groth16Error::upstream("read an element"))
    };
    let comm_d = DefaultPieceDomain::try_from_bytes(&c1.comm_d.0)
        .map_err(Groth16Error::upstream("read comm_d"))?;
    Ok(stacked::PublicInputs {
        replica_id: tree(&c1.replica_id.0)?,
        seed: Some(c1.seed.0),
        tau: Some(Tau { comm_d, comm_r: tree(&c1.comm_r.0)? }),
        k: None,
    })
}

/// Verifies the vanilla proofs as C1 does, and the two paths that its verification does not walk.
fn verify_vanilla<Tree>(
    c1: &C1Output,
    params: &stacked::PublicParams<Tree>,
    public: &PublicInputs,
    vanilla: &VanillaProofs<Tree>,
) -> Result<(), Groth16Error>
where
    Tree: 'static + MerkleTreeTrait<Hasher = DefaultTreeHasher>,
{
    let whole =
        StackedDrg::<Tree, DefaultPieceHasher>::verify_all_partitions(params, public, vanilla)
            .map_err(Groth16Error::upstream("verify the vanilla proofs"))?;
    let paths = || {
        vanilla.par_iter().flatten().all(|proof| {
            let node = proof.comm_d_proofs.path_index();
            proof.comm_d_proofs.validate(node) && proof.comm_r_last_proof.validate(node)
        })
    };
    if whole && paths() {
        return Ok(());
    }
    Err(Groth16Error::BadVanillaProofs {
        proof: c1.registered_proof,
        comm_r: c1.comm_r,
        comm_d: c1.comm_d,
    })
}

/// Parameters of another circuit would only show as a proof that does not verify.
fn check_circuit<Tree>(
    prover: &Prover,
    proof: RegisteredProof,
    params: &stacked::PublicParams<Tree>,
    public: &PublicInputs,
    loaded: &Loaded,
) -> Result<(), Groth16Error>
where
    Tree: 'static + MerkleTreeTrait<Hasher = DefaultTreeHasher>,
{
    let inputs = StackedCompound::<Tree, DefaultPieceHasher>::generate_public_inputs(
        public,
        params,
        Some(0),
    )
    .map_err(Groth16Error::upstream("derive the public inputs"))?;
    // One more for the constant.
    let (found, expected) = (loaded.key.vk.ic.len(), inputs.len() + 1);
    if found == expected {
        return Ok(());
    }
    let found = format!("a circuit with {found} inputs");
    Err(other_circuit(prover, proof, &found, &expected.to_string()))
}

fn other_circuit(
    prover: &Prover,
    proof: RegisteredProof,
    found: &str,
    expected: &str,
) -> Groth16Error {
    match crate::CircuitFiles::of(proof.sector_size()) {
        Ok(files) => Groth16Error::DamagedParameters {
            path: prover.params.path().join(files.params()),
            reason: format!("it is for {found}, that of {proof} has {expected}"),
        },
        Err(error) => error,
    }
}

/// Verifies the bytes that will be returned, as the network does.
fn verify<Tree>(
    prover: &Prover,
    proof: RegisteredProof,
    params: stacked::PublicParams<Tree>,
    public: &PublicInputs,
    proofs: &[u8],
    loaded: &Loaded,
) -> Result<(), Groth16Error>
where
    Tree: 'static + MerkleTreeTrait<Hasher = DefaultTreeHasher>,
{
    let partitions = Some(proof.partitions() as usize);
    let public_params =
        compound_proof::PublicParams { vanilla_params: params, partitions, priority: false };
    let requirements =
        ChallengeRequirements { minimum_challenges: porep_config(proof)?.minimum_challenges() };
    let multi = MultiProof::new_from_bytes(partitions, proofs, &loaded.verifying_key)
        .map_err(Groth16Error::upstream("read the finished proof"))?;
    let valid = StackedCompound::<Tree, DefaultPieceHasher>::verify(
        &public_params,
        public,
        &multi,
        &requirements,
    )
    .map_err(Groth16Error::upstream("verify the finished proof"))?;
    if valid {
        return Ok(());
    }
    let what = "the finished proof".to_owned();
    Err(Groth16Error::SelfCheck { what, device: prover.device() })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{TestParams, tiny};
    use seal_wire::{ErrorCode, RawRequest};
    use serde_json::{Value, json};
    use std::path::Path;

    /// The task of a captured request: a C1 output for `StackedDrg2KiBV1_1`.
    pub(crate) fn captured() -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/protocol/c2.request.jsonl");
        let line = std::fs::read(path).expect("part of every clone");
        let request = RawRequest::parse(line.trim_ascii_end()).expect("captured");
        serde_json::from_str(request.task.get()).expect("captured")
    }

    pub(crate) fn prover(dir: &Path) -> Prover {
        let trust = Trust { test_params: TestParams::Allow, ..Trust::default() };
        Prover::new(ParamDir::new(dir), trust, Resources::default())
    }

    fn prove(prover: &Prover, task: &Value) -> Result<Vec<u8>, Groth16Error> {
        let task: C2Task = serde_json::from_value(task.clone()).expect("well formed");
        prover.prove(&task, &mut |_| ControlFlow::Continue(()))
    }

    /// Proves a captured task after `change`, without parameters, and returns why not.
    fn refused(change: impl FnOnce(&mut Value)) -> Groth16Error {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut task = captured();
        change(&mut task);
        prove(&prover(dir.path()), &task).expect_err("there are no parameters")
    }

    fn check_refused(change: impl FnOnce(&mut Value), named: &[&str]) {
        let error = refused(change);
        assert_eq!(error.code(), ErrorCode::BadInput, "{error}");
        let text = error.to_string();
        for named in named {
            assert!(text.contains(named), "{named}: {text}");
        }
    }

    fn challenge(task: &mut Value, challenge: usize) -> &mut Value {
        &mut task["c1out"]["vanilla_proofs"]["StackedDrg2KiBV1"][0][challenge]
    }

    #[test]
    fn a_good_task_without_parameters_names_the_file() {
        let error = refused(|_| ());
        assert!(matches!(error, Groth16Error::MissingParameters { .. }), "{error}");
        assert_eq!(error.code(), ErrorCode::Parameters);
        assert!(error.to_string().contains(&tiny::files().params()), "{error}");
    }

    #[test]
    fn non_interactive_proofs_are_refused_by_name() {
        let name = "StackedDrg2KiBV1_2_Feat_NonInteractivePoRep";
        let error = refused(|task| task["c1out"]["registered_proof"] = json!(name));
        assert_eq!(error.code(), ErrorCode::Unsupported);
        assert!(error.to_string().contains(name), "{error}");
    }

    #[test]
    fn elements_at_or_above_the_modulus_are_named() {
        let bad = json!(vec![0xff; 32]);
        for name in ["comm_r", "comm_d", "replica_id"] {
            let change = |task: &mut Value| task["c1out"][name] = bad.clone();
            check_refused(change, &[name, "ffffffff", "modulus"]);
        }
        for (pointer, place) in [
            ("/comm_d_proofs/data/Single/root", "comm_d_proofs.root"),
            ("/comm_d_proofs/data/Single/path/path/5/hashes/0", "path[5].hashes[0]"),
            ("/comm_r_last_proof/data/Single/leaf", "comm_r_last_proof.leaf"),
            ("/replica_column_proofs/c_x/column/rows/1", "c_x.column.rows[1]"),
            (
                "/replica_column_proofs/exp_parents/7/inclusion_proof/data/Single/root",
                "exp_parents[7].inclusion_proof.root",
            ),
            ("/labeling_proofs/1/parents/36", "labeling_proofs[1].parents[36]"),
        ] {
            let change = |task: &mut Value| {
                *challenge(task, 1).pointer_mut(pointer).expect("there") = bad.clone();
            };
            check_refused(change, &["vanilla_proofs.StackedDrg2KiBV1[0][1].", place, "modulus"]);
        }
    }

    #[test]
    fn proofs_of_the_wrong_shape_are_refused_without_a_panic() {
        let drop_last = |pointer: &'static str| {
            move |task: &mut Value| {
                let list = challenge(task, 0).pointer_mut(pointer).expect("there");
                list.as_array_mut().expect("a list").pop();
            }
        };
        for (pointer, named) in [
            ("/comm_d_proofs/data/Single/path/path", "5 levels, expected 6"),
            ("/comm_r_last_proof/data/Single/path/path/0/hashes", "6 siblings, expected 7"),
            ("/replica_column_proofs/c_x/column/rows", "1 rows, expected 2"),
            ("/replica_column_proofs/drg_parents", "5 parents, expected 6"),
            ("/replica_column_proofs/exp_parents", "7 parents, expected 8"),
            ("/labeling_proofs", "1 layers, expected 2"),
            ("/labeling_proofs/0/parents", "labeling_proofs[0]"),
            ("/encoding_proof/parents", "encoding_proof"),
        ] {
            check_refused(drop_last(pointer), &[named]);
        }
        check_refused(
            |task| {
                let path = "/comm_r_last_proof/data/Single/path/path/1/index";
                *challenge(task, 0).pointer_mut(path).expect("there") = json!(8);
            },
            &["index 8 of 8 nodes"],
        );
        check_refused(
            |task| challenge(task, 0)["comm_d_proofs"] = json!("text"),
            &["vanilla_proofs", "invalid type"],
        );
    }

    #[test]
    fn wrong_numbers_of_partitions_and_challenges_are_told() {
        check_refused(
            |task| {
                let proofs = &mut task["c1out"]["vanilla_proofs"]["StackedDrg2KiBV1"];
                let partition = proofs[0].clone();
                proofs.as_array_mut().expect("a list").push(partition);
            },
            &["2 partitions, expected 1"],
        );
        check_refused(
            |task| task["c1out"]["vanilla_proofs"]["StackedDrg2KiBV1"] = json!([[]]),
            &["[0]", "0 challenges, expected 2"],
        );
        check_refused(
            |task| task["c1out"]["vanilla_proofs"]["StackedDrg2KiBV1"] = json!([]),
            &["0 partitions, expected 1"],
        );
    }

    #[test]
    fn proofs_under_another_shapes_name_are_refused() {
        check_refused(
            |task| {
                let proofs = task["c1out"]["vanilla_proofs"]["StackedDrg2KiBV1"].take();
                task["c1out"]["vanilla_proofs"] = json!({ "StackedDrg8MiBV1": proofs });
            },
            &["StackedDrg8MiBV1", "StackedDrg2KiBV1"],
        );
        check_refused(|task| task["c1out"]["vanilla_proofs"] = json!({}), &["StackedDrg2KiBV1"]);
        check_refused(|task| task["c1out"]["vanilla_proofs"] = json!(7), &["vanilla_proofs"]);
    }

    #[test]
    fn a_c1_output_of_another_sector_is_told_as_such() {
        let other_sector = |task: &mut Value| task["sector_id"] = json!(7);
        let other_prover = |task: &mut Value| task["prover_id"] = json!(vec![1; 32]);
        let other_ticket = |task: &mut Value| task["c1out"]["ticket"][0] = json!(0);
        let other_graph =
            |task: &mut Value| task["c1out"]["registered_proof"] = json!("StackedDrg2KiBV1");
        check_refused(other_sector, &["another sector", "sector 7"]);
        check_refused(other_prover, &["another sector"]);
        check_refused(other_ticket, &["another sector"]);
        check_refused(other_graph, &["another sector"]);
    }

    #[test]
    fn commitments_and_seed_must_not_be_zero() {
        for name in ["comm_r", "comm_d", "seed"] {
            check_refused(|task| task["c1out"][name] = json!(vec![0; 32]), &[name, "zero"]);
        }
    }

    #[test]
    fn proofs_that_do_not_hold_are_found_before_proving() {
        // Another seed asks for other challenges; the rest is a sibling or a label gone bad in
        // each part, of which the published verification walks all but the first two paths.
        check_refused(|task| task["c1out"]["seed"][0] = json!(0), &["do not verify"]);
        for pointer in [
            "/comm_d_proofs/data/Single/path/path/3/hashes/0/0",
            "/comm_r_last_proof/data/Single/path/path/1/hashes/6/0",
            "/replica_column_proofs/c_x/inclusion_proof/data/Single/path/path/0/hashes/0/0",
            "/replica_column_proofs/drg_parents/0/inclusion_proof/data/Single/path/path/1/hashes/0/0",
        ] {
            let change = |task: &mut Value| {
                let byte = challenge(task, 1).pointer_mut(pointer).expect("there");
                *byte = json!(byte.as_u64().expect("a byte") ^ 1);
            };
            check_refused(change, &["do not verify"]);
        }
    }

    #[test]
    fn labels_that_differ_from_the_parents_columns_are_found() {
        let pointer = "/replica_column_proofs/drg_parents/2/column/rows/0/0";
        let change = |task: &mut Value| {
            let byte = challenge(task, 0).pointer_mut(pointer).expect("there");
            *byte = json!(byte.as_u64().expect("a byte") ^ 1);
        };
        check_refused(change, &["[0][0].labeling_proofs[0]", "differ"]);
        let change = |task: &mut Value| challenge(task, 0)["labeling_proofs"][0]["node"] = json!(1);
        check_refused(change, &["labeling_proofs[0]", "node 1"]);
    }

    #[test]
    fn parameters_of_another_circuit_are_told_as_damaged() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        tiny::write(dir.path());
        tiny::mark(dir.path());
        let error = prove(&prover(dir.path()), &captured()).expect_err("no such circuit");
        assert_eq!(error.code(), ErrorCode::Parameters);
        assert!(error.to_string().contains("a circuit with 2 inputs"), "{error}");
    }

    #[test]
    fn a_task_that_waits_for_loading_is_told_and_can_be_stopped() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        tiny::write(dir.path());
        tiny::mark(dir.path());
        let prover = prover(dir.path());
        let (loading, is_loading) = mpsc::channel();
        let (stopped, has_stopped) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let prover = &prover;
            scope.spawn(move || {
                // Held in its middle until the other has given up.
                let ended = prover.preload(SectorSize::KIB_2, &mut |_| {
                    loading.send(()).expect("the test waits");
                    has_stopped.recv().expect("the test ends it");
                    ControlFlow::Break(())
                });
                assert!(matches!(ended, Err(Groth16Error::Cancelled)));
            });
            is_loading.recv().expect("it loads");
            let mut told = 0;
            let ended = prover.preload(SectorSize::KIB_2, &mut |step| {
                assert_eq!(step, ProveStep::Waiting { sector_size: SectorSize::KIB_2 });
                told += 1;
                if told == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert!(matches!(ended, Err(Groth16Error::Cancelled)));
            stopped.send(()).expect("it waits");
        });
    }

    #[test]
    fn a_task_can_be_stopped_before_it_begins() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let task: C2Task = serde_json::from_value(captured()).expect("captured");
        let error = prover(dir.path()).prove(&task, &mut |_| ControlFlow::Break(()));
        assert!(matches!(error, Err(Groth16Error::Cancelled)));
    }

    /// Needs real parameters, which take minutes to make; the end-to-end tests make them.
    #[test]
    fn a_captured_task_is_proved_and_parameters_are_kept() {
        let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-params"));
        if !dir.join(tiny::files().params()).exists() {
            return test_support::skip::skipped(
                "seal-groth16 a_captured_task_is_proved_and_parameters_are_kept",
                "there are no test parameters in target/test-params",
            );
        }
        let prover = prover(dir);
        let mut loads = 0;
        let mut count_loads = |step| {
            loads +=
                usize::from(matches!(step, ProveStep::Loading { done, total } if done == total));
            ControlFlow::Continue(())
        };
        let task: C2Task = serde_json::from_value(captured()).expect("captured");
        let proof = prover.prove(&task, &mut count_loads).expect("a good task");
        assert_eq!(proof.len(), PROOF_BYTES);
        prover.preload(SectorSize::KIB_2, &mut count_loads).expect("loaded already");
        assert_eq!(loads, 1);
    }
}
