//! The last look at a finished proof.

use filecoin_proofs::{DefaultPieceHasher, DefaultTreeHasher};
use seal_types::RegisteredProof;
use storage_proofs_core::compound_proof::{self, CompoundProof};
use storage_proofs_core::merkle::MerkleTreeTrait;
use storage_proofs_core::multi_proof::MultiProof;
use storage_proofs_porep::stacked::{self, ChallengeRequirements, StackedCompound};

use crate::circuit::porep_config;
use crate::load::Loaded;
use crate::task::PublicInputs;
use crate::{Groth16Error, Prover};

/// Bytes of one partition's proof: two compressed points of G1 and one of G2.
pub const PROOF_BYTES: usize = 192;

/// Verifies the bytes that will be returned, as the network does.
pub(crate) fn verify<Tree>(
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
