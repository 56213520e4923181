//! Which circuit a proof has, and under which names its parameters are kept.
//!
//! There is one circuit per sector size: the API version changes the graph but not the circuit,
//! and the synthetic and non-interactive proofs have as many challenges per partition as the
//! interactive one.

use std::sync::LazyLock;

use filecoin_proofs::{DefaultPieceHasher, PoRepConfig, with_shape};
use seal_types::{ApiVersion, Feature, RegisteredProof, SectorSize};
use storage_proofs_core::api_version::{ApiFeature, ApiVersion as UpstreamVersion};
use storage_proofs_core::merkle::MerkleTreeTrait;
use storage_proofs_core::parameter_cache::CacheableParameters;
use storage_proofs_porep::stacked::{PublicParams, StackedCircuit, StackedCompound};

use crate::Groth16Error;

/// The files of one circuit's parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitFiles {
    sector_size: SectorSize,
    stem: String,
}

impl CircuitFiles {
    /// The files for sectors of `sector_size`.
    pub fn of(sector_size: SectorSize) -> Result<Self, Groth16Error> {
        static ALL: LazyLock<Vec<Result<CircuitFiles, String>>> = LazyLock::new(|| {
            let sizes = SectorSize::REGISTERED.into_iter();
            sizes
                .map(|size| CircuitFiles::derive(size).map_err(|error| error.to_string()))
                .collect()
        });
        let index = SectorSize::REGISTERED.into_iter().position(|size| size == sector_size);
        let index = index.ok_or(Groth16Error::NoCircuit { sector_size })?;
        ALL[index].clone().map_err(Groth16Error::upstream("derive the parameters' names"))
    }

    fn derive(sector_size: SectorSize) -> Result<Self, Groth16Error> {
        let proof = representative(sector_size)?;
        let stem = with_shape!(sector_size.bytes(), stem, proof)?;
        Ok(Self { sector_size, stem })
    }

    /// The size of the sectors whose circuit it is.
    pub fn sector_size(&self) -> SectorSize {
        self.sector_size
    }

    /// What all names begin with.
    pub(crate) fn stem(&self) -> &str {
        &self.stem
    }

    /// Name of the file with all points.
    pub fn params(&self) -> String {
        format!("{}.params", self.stem)
    }

    /// Name of the file with the verifying key alone.
    pub fn vk(&self) -> String {
        format!("{}.vk", self.stem)
    }

    /// Name of the file that tells the sector size.
    pub fn meta(&self) -> String {
        format!("{}.meta", self.stem)
    }
}

/// The proof by which a size's circuit is described: any of the four would do.
pub(crate) fn representative(sector_size: SectorSize) -> Result<RegisteredProof, Groth16Error> {
    RegisteredProof::find(sector_size, ApiVersion::V1_1, Feature::Interactive)
        .ok_or(Groth16Error::NoCircuit { sector_size })
}

fn stem<Tree: 'static + MerkleTreeTrait>(proof: RegisteredProof) -> Result<String, Groth16Error> {
    let params = public_params::<Tree>(proof)?;
    let id = <StackedCompound<Tree, DefaultPieceHasher> as CacheableParameters<
        StackedCircuit<Tree, DefaultPieceHasher>,
        PublicParams<Tree>,
    >>::cache_identifier(&params);
    Ok(format!("v{}-{id}", storage_proofs_core::parameter_cache::VERSION))
}

/// Graph, layers and challenges of a proof in the published crates' terms.
pub(crate) fn public_params<Tree: 'static + MerkleTreeTrait>(
    proof: RegisteredProof,
) -> Result<PublicParams<Tree>, Groth16Error> {
    filecoin_proofs::parameters::public_params(&porep_config(proof)?)
        .map_err(Groth16Error::upstream("set up the proof's graph"))
}

/// A registered proof in the published crates' terms.
pub(crate) fn porep_config(proof: RegisteredProof) -> Result<PoRepConfig, Groth16Error> {
    let version = match proof.api_version() {
        ApiVersion::V1_0 => UpstreamVersion::V1_0_0,
        ApiVersion::V1_1 => UpstreamVersion::V1_1_0,
        ApiVersion::V1_2 => UpstreamVersion::V1_2_0,
    };
    let features = match proof.feature() {
        Feature::Interactive => vec![],
        Feature::Synthetic => vec![ApiFeature::SyntheticPoRep],
        Feature::NonInteractive => vec![ApiFeature::NonInteractivePoRep],
    };
    PoRepConfig::new_groth16_with_features(
        proof.sector_size().bytes(),
        proof.porep_id().0,
        version,
        features,
    )
    .map_err(Groth16Error::upstream("describe the registered proof"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use seal_types::published_groth_files;

    #[test]
    fn names_are_the_published_ones() {
        let mut ours: Vec<_> = SectorSize::REGISTERED
            .into_iter()
            .map(|size| CircuitFiles::of(size).expect("a registered size"))
            .flat_map(|files| {
                [(files.params(), files.sector_size()), (files.vk(), files.sector_size())]
            })
            .collect();
        let mut published: Vec<_> =
            published_groth_files().iter().map(|f| (f.name.to_owned(), f.sector_size)).collect();
        ours.sort();
        published.sort();
        assert_eq!(ours, published);
    }

    #[test]
    fn all_proofs_of_a_size_share_one_circuit() {
        for proof in RegisteredProof::all() {
            let size = proof.sector_size();
            let name = with_shape!(size.bytes(), stem, proof).expect("a registered proof");
            assert_eq!(name + ".params", CircuitFiles::of(size).expect("registered").params());
        }
    }

    #[test]
    fn partitions_agree_with_the_published_crates() {
        for proof in RegisteredProof::all() {
            let config = porep_config(proof).expect("a registered proof");
            assert_eq!(usize::from(config.partitions) as u32, proof.partitions(), "{proof}");
        }
    }

    #[test]
    fn a_size_without_registered_proof_is_named() {
        let size: SectorSize = "16KiB".parse().expect("a size");
        let error = CircuitFiles::of(size).unwrap_err();
        assert!(error.to_string().contains("16KiB"), "{error}");
    }
}
