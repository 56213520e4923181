//! The prover: what it holds from task to task, and a task's way through it.

mod on_device;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, TryLockError};
use std::thread;
use std::time::Instant;

use filecoin_proofs::{DefaultPieceHasher, DefaultTreeHasher, with_shape};
use seal_field::curve::CurveKernel;
use seal_types::{Feature, RegisteredProof, SectorSize};
use seal_wire::C2Task;
use storage_proofs_core::compound_proof::CompoundProof;
use storage_proofs_core::merkle::MerkleTreeTrait;
use storage_proofs_porep::stacked::{self, StackedCompound};

use crate::circuit::{public_params, representative};
use crate::circuit_cache::{CircuitCache, Origin};
use crate::job::Job;
use crate::kept::{Slots, is_filled, kept, lock};
use crate::load::{Loaded, load, load_on};
use crate::shape::{Shape, shape};
use crate::step::{At, LOOK_EVERY, ProveStep, step};
use crate::task::{PublicInputs, check_task, public_inputs, vanilla_proofs, verify_vanilla};
use crate::turns::{Kept, Turns};
use crate::verify::{PROOF_BYTES, verify};
use crate::{Device, FoundParams, Groth16Error, ParamDir, Trust};

/// What a prover may use.
#[derive(Clone, Debug)]
pub struct Resources {
    /// Who computes proofs.
    pub device: Device,
    /// The arithmetic.
    pub kernel: CurveKernel,
    /// Bytes for the partitions in flight, beside parameters and circuits.
    pub memory: u64,
    /// Bytes for parameters. Those of other sector sizes make room, once no task uses them.
    pub params_memory: u64,
    /// Bytes for all of it: partitions, parameters and circuits.
    pub whole_memory: u64,
}

impl Default for Resources {
    /// The processor with its fastest kernel, and no limit.
    fn default() -> Self {
        Self {
            device: Device::cpu(),
            kernel: CurveKernel::detect(),
            memory: u64::MAX,
            params_memory: u64::MAX,
            whole_memory: u64::MAX,
        }
    }
}

/// Proves C2 tasks. Parameters and circuits are loaded on first use and kept.
pub struct Prover {
    params: ParamDir,
    trust: Trust,
    device: Device,
    kernel: CurveKernel,
    params_memory: u64,
    circuits: Option<CircuitCache>,
    loaded: Slots<Loaded>,
    shapes: Slots<Shape>,
    /// Memory, in bytes: shares of it are partitions', and parameters and circuits are kept in it.
    pub(crate) memory: Arc<Turns>,
    /// One partition is proved at a time, by all threads; tasks take turns.
    pub(crate) proving: Turns,
}

impl Prover {
    /// A prover with the parameters in `params`, as far as `trust` lets it use them.
    pub fn new(params: ParamDir, trust: Trust, resources: Resources) -> Self {
        let Resources { device, kernel, memory, params_memory, whole_memory } = resources;
        Self {
            params,
            trust,
            device,
            kernel,
            params_memory,
            circuits: None,
            loaded: Mutex::default(),
            shapes: Mutex::default(),
            memory: Arc::new(Turns::within(memory, whole_memory)),
            proving: Turns::new(1),
        }
    }

    /// Keeps compiled circuits in `dir`, which is made when there is one, so that the next
    /// process need not record them. Whatever is wrong with the directory or the files there is
    /// logged and costs time only.
    #[must_use]
    pub fn keep_circuits(mut self, dir: impl Into<PathBuf>) -> Self {
        self.circuits = Some(CircuitCache::new(dir));
        self
    }

    /// Finds the parameters for sectors of `sector_size` without loading them.
    pub fn find(&self, sector_size: SectorSize) -> Result<FoundParams, Groth16Error> {
        self.params.find(sector_size, self.trust)
    }

    /// Loads the parameters for sectors of `sector_size`, and compiles their circuit, ahead of the
    /// first task. That there is too little memory for a partition is told now and not only then.
    pub fn preload(&self, sector_size: SectorSize, at: &mut At<'_>) -> Result<(), Groth16Error> {
        self.try_device(at)?;
        self.find(sector_size)?;
        let proof = representative(sector_size)?;
        let shape = with_shape!(sector_size.bytes(), shape_of, self, proof, at)?;
        self.load(sector_size, shape.partition_bytes, at)?;
        self.check_memory(proof, &shape)
    }

    /// Whether there may ever be memory for a partition of `proof`.
    fn check_memory(&self, proof: RegisteredProof, shape: &Shape) -> Result<(), Groth16Error> {
        let (wanted, allowed) = (shape.partition_bytes, self.memory.total());
        if wanted <= allowed {
            return Ok(());
        }
        Err(Groth16Error::TooLittleMemory { proof, wanted, params: 0, allowed })
    }

    /// Proves a task: 192 bytes per partition, verified. A device that computes wrongly more than
    /// once is left out, and the task begun anew on the processor where that may take its place.
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
        loop {
            self.try_device(at)?;
            let size = proof.sector_size().bytes();
            match with_shape!(size, prove_shape, self, task, at) {
                Err(error @ Groth16Error::BadDevice { .. }) if self.device_is_replaced() => {
                    tracing::warn!("the processor takes over: {error}");
                }
                proved => return proved,
            }
        }
    }

    /// The parameters, for partitions of `partition_bytes`.
    pub(crate) fn load(
        &self,
        sector_size: SectorSize,
        partition_bytes: u64,
        at: &mut At<'_>,
    ) -> Result<Arc<Loaded>, Groth16Error> {
        kept(&self.loaded, sector_size, at, |at| {
            let found = self.find(sector_size)?;
            let room = Some(self.room(sector_size, found.bytes, partition_bytes, at)?);
            step(at, ProveStep::Loading { done: 0, total: found.bytes })?;
            let loaded = self.load_found(&found, at)?;
            Ok(Loaded { _room: room, ..loaded })
        })
    }

    fn load_found(&self, found: &FoundParams, at: &mut At<'_>) -> Result<Loaded, Groth16Error> {
        let Some(held) = self.device.held().filter(|held| !held.standing.is_left_out()) else {
            return load(found, self.kernel, at);
        };
        match load_on(&held.accelerator, held.standing.faults(), found, self.kernel, at) {
            // Its memory will not grow.
            Err(Groth16Error::SmallDevice { source, device, .. })
                if held.standing.may_be_replaced() =>
            {
                tracing::warn!(device, "the processor takes over: {source}");
                held.standing.leave_out(source.to_string());
                load(found, self.kernel, at)
            }
            loaded => loaded,
        }
    }

    /// Room for parameters of `bytes`, beside which there is always some for a partition. Those of
    /// other sizes are let go of for it, and what tasks still use of them is waited for.
    fn room(
        &self,
        sector_size: SectorSize,
        bytes: u64,
        partition_bytes: u64,
        at: &mut At<'_>,
    ) -> Result<Kept, Groth16Error> {
        let allowed = self.params_memory;
        if bytes > allowed {
            return Err(Groth16Error::TooLargeParameters { sector_size, bytes, allowed });
        }
        let (params, wanted, allowed) = (bytes, partition_bytes, self.memory.whole());
        if params.saturating_add(wanted) > allowed {
            let proof = representative(sector_size)?;
            return Err(Groth16Error::TooLittleMemory { proof, wanted, params, allowed });
        }
        loop {
            if let Some(room) = self.make_room(sector_size, bytes, partition_bytes) {
                return Ok(room);
            }
            step(at, ProveStep::Waiting { sector_size })?;
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Lets go of other sizes' parameters until `bytes` more fit; `None` if others still use too many
    /// of them.
    fn make_room(&self, sector_size: SectorSize, bytes: u64, partition_bytes: u64) -> Option<Kept> {
        // Slots that are locked are being loaded; they are counted when their turn comes.
        let slots: Vec<_> =
            lock(&self.loaded).iter().map(|(size, slot)| (*size, slot.clone())).collect();
        let others = slots.iter().filter(|(size, _)| *size != sector_size);
        // Parameters that tasks still use are kept, whether they are in a slot or not.
        let room = || self.memory.keep(bytes, partition_bytes, self.params_memory);
        for (size, slot) in others {
            if let Some(room) = room() {
                return Some(room);
            }
            let taken = match slot.try_lock() {
                Ok(mut slot) => slot.take(),
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().take(),
                Err(TryLockError::WouldBlock) => None,
            };
            if taken.is_some() {
                tracing::info!("the parameters for {size} make room for those for {sector_size}");
            }
        }
        room()
    }

    /// How proofs are computed, for messages.
    pub fn device(&self) -> String {
        match self.device.name() {
            Some(name) if !self.device_is_replaced() => name,
            _ => self.processor(),
        }
    }

    fn processor(&self) -> String {
        format!("processor ({})", self.kernel.name())
    }
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
    // That they are missing is told before the circuit is compiled, which says how much memory is
    // needed beside them. Those that are in memory need no file.
    if !is_filled(&prover.loaded, size) {
        prover.find(size)?;
    }
    let shape = shape_of::<Tree>(prover, proof, at)?;
    let loaded = prover.load(size, shape.partition_bytes, at)?;
    check_circuit::<Tree>(prover, proof, &params, &public, &loaded)?;
    shape.queries.check(loaded.lengths).map_err(|other| {
        let found = format!("a list {} of {} points", other.list, other.found);
        other_circuit(prover, proof, &found, &format!("one of {}", other.expected))
    })?;

    let job = Job::new(prover, proof, (&params, &public), (&loaded, &shape));
    let mut proofs = Vec::with_capacity(vanilla.len() * PROOF_BYTES);
    for one in job.prove_partitions(vanilla, at)? {
        one.write(&mut proofs).map_err(Groth16Error::upstream("write a proof"))?;
    }
    step(at, ProveStep::Verifying)?;
    verify::<Tree>(prover, proof, params, &public, &proofs, &loaded)?;
    Ok(proofs)
}

/// The compiled circuit of a proof.
fn shape_of<Tree: 'static + MerkleTreeTrait>(
    prover: &Prover,
    proof: RegisteredProof,
    at: &mut At<'_>,
) -> Result<Arc<Shape>, Groth16Error> {
    let sector_size = proof.sector_size();
    kept(&prover.shapes, sector_size, at, |at| {
        step(at, ProveStep::Compiling)?;
        let start = Instant::now();
        let shape = shape::<Tree>(proof, prover.kernel, prover.circuits.as_ref())?;
        prover.memory.keep_for_ever((shape.compiled.bytes() + shape.queries.bytes()) as u64);
        tracing::info!(
            constraints = shape.compiled.constraints(),
            circuit_bytes = shape.compiled.bytes() + shape.queries.bytes(),
            partition_bytes = shape.partition_bytes,
            elapsed_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
            "the circuit for {sector_size} is {}",
            match shape.origin {
                Origin::Cache => "read",
                Origin::Recorded => "compiled",
            }
        );
        Ok(shape)
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
    let (found, expected) = (loaded.lengths.inputs, inputs.len() + 1);
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

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::path::Path;
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::captured::{captured, prove, prover};
    use crate::tiny;
    use bellperson::groth16::{VerifyingKey, prepare_verifying_key};
    use blstrs::Bls12;
    use seal_wire::ErrorCode;
    use test_support::skip::{skipped, slow_tests};

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
    fn parameters_partitions_and_circuits_are_one_sum_of_memory() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        tiny::write(dir.path());
        tiny::mark(dir.path());
        let within = |whole_memory| {
            let trust = Trust { test_params: crate::TestParams::Allow, ..Trust::default() };
            let resources = Resources { whole_memory, ..Resources::default() };
            Prover::new(ParamDir::new(dir.path()), trust, resources)
        };
        let preload =
            |prover: &Prover| prover.preload(SectorSize::KIB_2, &mut |_| ControlFlow::Continue(()));
        let prover = within(u64::MAX);
        preload(&prover).expect("there is no limit");
        let circuits = u64::MAX - prover.memory.whole();
        let params = prover.find(SectorSize::KIB_2).expect("there").bytes;
        let slot = lock(&prover.shapes).get(&SectorSize::KIB_2).expect("compiled").clone();
        let partition = lock(&slot).as_ref().expect("compiled").partition_bytes;
        let all = circuits + params + partition;
        preload(&within(all)).expect("there is room for all of it");
        let error = preload(&within(all - 1)).expect_err("each alone has room");
        let Groth16Error::TooLittleMemory { wanted, params: beside, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!((*wanted, *beside), (partition, params));
        assert_eq!(error.code(), ErrorCode::Unavailable);
        assert!(error.to_string().contains("MiB for its parameters"), "{error}");
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

        // It is asked first while the partition is filled.
        let ended = prover.prove(&task, &mut |step| match step {
            ProveStep::Proving { .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        assert!(matches!(ended, Err(Groth16Error::Cancelled)));
    }

    #[test]
    fn a_proof_that_does_not_verify_is_made_twice_and_told_with_partition_and_device() {
        let name = "seal-groth16 a_proof_that_does_not_verify_is_made_twice";
        let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-params"));
        if !slow_tests() {
            return skipped(name, "three proofs take a minute; --slow runs it");
        }
        if !dir.join(tiny::files().params()).exists() {
            return skipped(name, "there are no test parameters in target/test-params");
        }
        let prover = prover(dir);
        prover.preload(SectorSize::KIB_2, &mut |_| ControlFlow::Continue(())).expect("whole");
        // As if memory had lost a bit of the key by which proofs are judged.
        let vk = std::fs::File::open(dir.join(tiny::files().vk())).expect("there");
        let good = VerifyingKey::<Bls12>::read(vk).expect("whole");
        let bad = VerifyingKey { alpha_g1: good.beta_g1, ..good.clone() };
        let judge_by = |key: &VerifyingKey<Bls12>| {
            let slot = lock(&prover.loaded).get(&SectorSize::KIB_2).expect("loaded").clone();
            let mut slot = lock(&slot);
            let loaded = Arc::into_inner(slot.take().expect("loaded")).expect("nobody proves");
            let verifying_key = prepare_verifying_key(key);
            *slot = Some(Arc::new(Loaded { verifying_key, ..loaded }));
        };
        judge_by(&bad);
        let error = prove(&prover, &captured()).expect_err("it does not verify");
        assert_eq!(error.code(), ErrorCode::SelfCheck);
        let text = error.to_string();
        for words in ["the proof of partition 0, made twice,", &prover.device(), "faulty"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        judge_by(&good);
        prove(&prover, &captured()).expect("the prover goes on");
    }
}
