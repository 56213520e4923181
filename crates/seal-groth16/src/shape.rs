//! Everything about a sector size's circuit that does not change from task to task.

use filecoin_proofs::DefaultPieceHasher;
use seal_field::curve::CurveKernel;
use seal_field::ntt::Ntt;
use seal_types::RegisteredProof;
use storage_proofs_core::compound_proof::CompoundProof;
use storage_proofs_core::merkle::MerkleTreeTrait;
use storage_proofs_porep::stacked::{Challenges, StackedCompound};

use crate::circuit::public_params;
use crate::circuit_cache::{CircuitCache, Origin};
use crate::fillers::Fillers;
use crate::groth::Queries;
use crate::r1cs::Compiled;
use crate::{CircuitFiles, Groth16Error};

/// A circuit, compiled, with what the prover derives from it.
pub(crate) struct Shape {
    pub(crate) compiled: Compiled,
    pub(crate) queries: Queries,
    pub(crate) ntt: Ntt,
    /// Who fills partitions.
    pub(crate) fillers: Fillers,
    /// Memory that a partition takes from its first variable to its proof.
    pub(crate) partition_bytes: u64,
    /// Where the circuit came from.
    pub(crate) origin: Origin,
}

/// The compiled circuit of a proof, from `cache` if it is there.
pub(crate) fn shape<Tree: 'static + MerkleTreeTrait>(
    proof: RegisteredProof,
    kernel: CurveKernel,
    cache: Option<&CircuitCache>,
) -> Result<Shape, Groth16Error> {
    let record = || record::<Tree>(proof);
    let (compiled, origin) = match cache {
        Some(cache) => cache.get(&CircuitFiles::of(proof.sector_size())?, record)?,
        None => (record()?, Origin::Recorded),
    };
    let queries = Queries::of(&compiled);
    let ntt = Ntt::new(kernel, compiled.domain_bits())
        .map_err(Groth16Error::upstream("transform polynomials of the circuit"))?;
    let fillers = Fillers::start(compiled.challenges)?;
    let partition_bytes = partition_bytes(&compiled);
    Ok(Shape { compiled, queries, ntt, fillers, partition_bytes, origin })
}

/// Records the circuit of a proof from the published gadgets.
pub(crate) fn record<Tree: 'static + MerkleTreeTrait>(
    proof: RegisteredProof,
) -> Result<Compiled, Groth16Error> {
    let mut params = public_params::<Tree>(proof)?;
    let challenges = params.challenges.num_challenges_per_partition();
    let mut blank = |count: usize| {
        params.challenges = Challenges::new_interactive(count);
        StackedCompound::<Tree, DefaultPieceHasher>::blank_circuit(&params)
    };
    let (one, two) = (blank(1), blank(2));
    Compiled::record(challenges, one, two).map_err(Groth16Error::upstream("compile the circuit"))
}

/// Variables, once more for those of the challenges being filled; three products, transformed in
/// place; and the sorted scalars of a multiplication.
fn partition_bytes(compiled: &Compiled) -> u64 {
    let counts = compiled.counts();
    let variables = 2 * 32 * (counts.inputs + counts.aux) as u64;
    let products = 3 * 32 * (1_u64 << compiled.domain_bits());
    let terms = 48 * (1_u64 << compiled.domain_bits()).min(1 << 24);
    variables + products + terms
}
