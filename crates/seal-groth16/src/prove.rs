//! From a C2 task to a verified proof.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bellperson::groth16::{Proof, create_random_proof_batch};
use blstrs::Bls12;
use filecoin_hashers::{Domain, Hasher};
use filecoin_proofs::{DefaultPieceDomain, DefaultPieceHasher, DefaultTreeHasher, with_shape};
use rand::rngs::OsRng;
use rayon::prelude::*;
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

use crate::circuit::{porep_config, public_params};
use crate::load::{Loaded, load};
use crate::vanilla::{Expectation, Fault, VanillaProof, check_element};
use crate::{FoundParams, Groth16Error, ParamDir, Trust};

/// Bytes of one partition's proof: two compressed points of G1 and one of G2.
pub const PROOF_BYTES: usize = 192;

/// How far a proof is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProveStep {
    /// The C1 output is checked.
    Checking,
    /// The parameters are read; this happens once per sector size.
    Loading {
        /// Bytes read.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A partition is about to be proved.
    Proving {
        /// Its number, from 0.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// The finished proof is verified.
    Verifying,
}

/// Told before each step; `Break` stops the work. A partition that is being proved is finished
/// first, which takes a minute or more for production sizes.
pub type At<'a> = dyn FnMut(ProveStep) -> ControlFlow<()> + 'a;

type VanillaProofs<Tree> = Vec<Vec<stacked::Proof<Tree, DefaultPieceHasher>>>;
type TreeDomain = <DefaultTreeHasher as Hasher>::Domain;
type Slot = Arc<Mutex<Option<Arc<Loaded>>>>;

/// Proves C2 tasks. Parameters are loaded on first use and kept.
pub struct Prover {
    params: ParamDir,
    trust: Trust,
    loaded: Mutex<BTreeMap<SectorSize, Slot>>,
}

impl Prover {
    /// A prover with the parameters in `params`, as far as `trust` lets it use them.
    pub fn new(params: ParamDir, trust: Trust) -> Self {
        Self { params, trust, loaded: Mutex::default() }
    }

    /// Finds the parameters for sectors of `sector_size` without loading them.
    pub fn find(&self, sector_size: SectorSize) -> Result<FoundParams, Groth16Error> {
        self.params.find(sector_size, self.trust)
    }

    /// Loads the parameters for sectors of `sector_size` ahead of the first task.
    pub fn preload(&self, sector_size: SectorSize, at: &mut At<'_>) -> Result<(), Groth16Error> {
        self.load(sector_size, at).map(drop)
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
        // Missing parameters are told before minutes of work, the more so before loading.
        self.find(proof.sector_size())?;
        let size = proof.sector_size().bytes();
        with_shape!(size, prove_shape, self, task, at)
    }

    fn load(&self, sector_size: SectorSize, at: &mut At<'_>) -> Result<Arc<Loaded>, Groth16Error> {
        let slot = lock(&self.loaded).entry(sector_size).or_default().clone();
        // Held while loading: a second task of the same size waits instead of loading again.
        let mut slot = lock(&slot);
        if let Some(loaded) = &*slot {
            return Ok(loaded.clone());
        }
        let found = self.find(sector_size)?;
        let loaded = Arc::new(load(&found, at)?);
        *slot = Some(loaded.clone());
        Ok(loaded)
    }
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
    let text = proofs_of_shape(c1)?;
    let vanilla: VanillaProofs<Tree> = serde_json::from_str(text.get())
        .map_err(Groth16Error::upstream("read the vanilla proofs"))?;
    let public = public_inputs(c1)?;
    let params = public_params::<Tree>(proof)?;
    verify_vanilla(c1, &params, &public, &vanilla)?;

    let loaded = prover.load(proof.sector_size(), at)?;
    check_circuit::<Tree>(prover, proof, &params, &public, &loaded)?;
    let mut proofs = Vec::with_capacity(vanilla.len() * PROOF_BYTES);
    let partitions = proof.partitions();
    for (partition, challenges) in (0..partitions).zip(vanilla) {
        step(at, ProveStep::Proving { partition, partitions })?;
        let one = prove_partition::<Tree>(&params, &public, partition, &challenges, &loaded)?;
        one.write(&mut proofs).map_err(Groth16Error::upstream("write a proof"))?;
    }
    step(at, ProveStep::Verifying)?;
    verify::<Tree>(proof, params, &public, &proofs, &loaded)?;
    Ok(proofs)
}

fn public_inputs(
    c1: &C1Output,
) -> Result<stacked::PublicInputs<TreeDomain, DefaultPieceDomain>, Groth16Error> {
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
    public: &stacked::PublicInputs<TreeDomain, DefaultPieceDomain>,
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
    public: &stacked::PublicInputs<TreeDomain, DefaultPieceDomain>,
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
    let (found, expected) = (loaded.parameters.vk.ic.len(), inputs.len() + 1);
    if found == expected {
        return Ok(());
    }
    let files = crate::CircuitFiles::of(proof.sector_size())?;
    Err(Groth16Error::DamagedParameters {
        path: prover.params.path().join(files.params()),
        reason: format!("it is for a circuit with {found} inputs, that of {proof} has {expected}"),
    })
}

fn prove_partition<Tree>(
    params: &stacked::PublicParams<Tree>,
    public: &stacked::PublicInputs<TreeDomain, DefaultPieceDomain>,
    partition: u32,
    challenges: &Vec<stacked::Proof<Tree, DefaultPieceHasher>>,
    loaded: &Loaded,
) -> Result<Proof<Bls12>, Groth16Error>
where
    Tree: 'static + MerkleTreeTrait<Hasher = DefaultTreeHasher>,
{
    let circuit = StackedCompound::<Tree, DefaultPieceHasher>::circuit(
        public,
        (),
        challenges,
        params,
        Some(partition as usize),
    )
    .map_err(Groth16Error::upstream("build the circuit"))?;
    let proofs = create_random_proof_batch(vec![circuit], &loaded.parameters, &mut OsRng)
        .map_err(Groth16Error::upstream("prove the circuit"))?;
    proofs.into_iter().next().ok_or(Groth16Error::SelfCheck)
}

/// Verifies the bytes that will be returned, as the network does.
fn verify<Tree>(
    proof: RegisteredProof,
    params: stacked::PublicParams<Tree>,
    public: &stacked::PublicInputs<TreeDomain, DefaultPieceDomain>,
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
    if valid { Ok(()) } else { Err(Groth16Error::SelfCheck) }
}
