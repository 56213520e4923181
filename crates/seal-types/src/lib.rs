//! The vocabulary of sealing: stages, registered proofs, sector sizes, tree shapes, ids,
//! commitments, sets of cpus, the names of the files in a sector's cache directory and the published digests.
//!
//! Every other crate speaks in these words. Nothing here reads a file, a clock or the
//! environment.
#![forbid(unsafe_code)]

mod bytes32;
mod cache_files;
mod cpus;
mod digests;
mod parameters;
mod porep;
mod proof;
mod sector_name;
mod shown;
mod size;
mod stage;
mod stage_name;

pub use bytes32::{Commitment, HexError, PorepId, ProverId, ReplicaId, Seed, Ticket};
pub use cache_files::{
    MANIFEST, P_AUX, T_AUX, TREE_D, files_of_sector, is_remains_of_sealing, layer_file, layer_id,
    tree_c_file, tree_r_last_file,
};
pub use cpus::{CpuListError, CpuSet};
pub use digests::{
    GrothFile, ParentsDigest, groth_file_digest, parents_cache_digest, published_groth_files,
    published_parents_caches,
};
pub use parameters::{DEFAULT_PARAM_DIR, ParameterLengths};
pub use porep::{ApiVersion, Feature, NODE_SIZE, Porep, TreeShape};
pub use proof::{RegisteredProof, UnknownProof};
pub use sector_name::{SectorClues, SectorName};
pub use shown::{MESSAGE_MOST, VALUE_MOST, shortened, shown, shown_bytes, shown_reason};
pub use size::{SectorSize, SizeError};
pub use stage::{Stage, UnknownStage};
pub use stage_name::{StageName, UnknownStageName};

/// The sector number within one storage provider.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct SectorId(pub u64);

impl std::fmt::Display for SectorId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
