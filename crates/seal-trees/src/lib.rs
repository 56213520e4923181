//! The trees of a sector and the replica: tree D over the data, columns and tree C over the
//! layers, tree R last over the replica, and the auxiliary files that C1 reads.
//!
//! Every file is byte for byte the one that `rust-fil-proofs` writes, for every tree shape, and
//! appears under its name only when it is complete. Everything streams: memory does not grow
//! with the sector.
//!
//! Knows nothing of the graph, of labelling or of requests.
#![forbid(unsafe_code)]

mod aux_files;
mod backend;
mod block;
mod cpu;
mod digests;
mod error;
mod forest;
mod former;
mod gpu;
mod inputs;
mod node_file;
mod outputs;
mod pc2;
mod pieces;
mod pipeline;
mod replica;
mod row_hash;
mod self_check;
mod top;
mod tree;
mod tree_d;
mod tree_d_compared;
mod verify;
mod watch;

pub use aux_files::{StoreConfig, TemporaryAux, p_aux_bytes};
pub use backend::{
    Backend, BlockView, ComputeError, ComputedWrongly, DeviceError, Memory, Session, Work, Worker,
};
pub use cpu::Cpu;
pub use error::{TreesError, code_of_file};
pub use gpu::{Gpu, GpuSettings};
pub use pc2::{
    NoRecord, Pc2Job, Pc2Paths, Pc2Report, Pc2Result, RecordedLayers, Settings, pre_commit2,
};
pub use pieces::{Piece, PieceError, comm_d_of_pieces, zero_commitment};
pub use pipeline::{Busy, Stages};
pub use replica::SealedState;
pub use seal_cuda::{Before as WrongBefore, CudaError, Opinion, Parts as GpuParts, Standing};
pub use tree_d::{ZeroLeaves, build_tree_d, build_zero_tree_d, check_tree_d};
pub use tree_d_compared::{TreeDCompared, compare_tree_d, compare_zero_tree_d};
pub use watch::{Part, PartUnit, Watch};

/// A node of a layer, a tree or the replica: 32 bytes, little-endian.
pub type Node = [u8; seal_types::NODE_SIZE];
