//! SDR labelling: the graph, its parents cache and the layers.
//!
//! From a replica id and a graph this crate makes the layers of a sector. It knows nothing of
//! the sector's data, of trees or of requests.
#![forbid(unsafe_code)]

mod engine;
mod error;
mod feistel;
mod generate;
mod graph;
mod in_order;
mod labels;
mod manifest;
mod pace;
mod parents;
mod parents_wait;
mod replica_id;
mod resume;
mod sector;
mod self_check;
mod shared_parents;
mod stamp;
mod store;

pub use engine::{Bind, Engine, LayerHandle, LayerJob, MAX_LANES, NoSeat, Seat, UnitCores};
pub use error::SdrError;
pub use graph::{EXPANDER_DEGREE, Graph, PARENTS};
pub use labels::{Labelling, Parents, label_layer};
pub use manifest::{LayerRecord, Manifest, Sealing};
pub use pace::label_time;
pub use parents::{ParentsCache, parents_digest};
pub use replica_id::replica_id;
pub use resume::{ChangedLayer, FoundLayers, find_layers, finished_layers, load_layer};
pub use sector::label_sector;
pub use self_check::check_labels;
pub use shared_parents::SharedParents;
pub use store::{LabelSource, LayerStore};

/// How a long piece of work tells where it is and learns that it is no longer wanted.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Called with what is being done, how much is done and how much there is (in nodes).
    pub progress: &'a (dyn Fn(Part, u64, u64) + Sync),
    /// Whether to stop; asked often.
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The parents of every node are computed.
    MakeParents,
    /// The parents cache that was made is compared with the graph and brought to disk.
    StoreParents,
    /// Another one makes the parents cache, or another one in its directory: told again and again,
    /// with as much of it as is there, where that is seen. Nothing else goes on meanwhile.
    AwaitParents {
        /// Its process; 0 where that is not known.
        pid: u32,
    },
    /// The parents cache is compared with its digest.
    CheckParents,
    /// The labels of a layer are computed.
    Layer(LayerOf),
    /// A sample of the labels of a layer is computed again.
    CheckLabels(LayerOf),
    /// The labels of a layer are written.
    StoreLayer(LayerOf),
    /// A layer of an earlier run is compared with its digest.
    CheckLayer(LayerOf),
    /// A layer of an earlier run is read into memory.
    LoadLayer(LayerOf),
}

/// A layer among those of its sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerOf {
    /// The layer, counted from 1.
    pub layer: u32,
    /// How many the sector has.
    pub layers: u32,
}

impl std::fmt::Display for LayerOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "layer {} of {}", self.layer, self.layers)
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MakeParents => f.write_str("parents cache"),
            Self::StoreParents => f.write_str("parents cache to disk"),
            Self::AwaitParents { .. } => f.write_str("parents cache of another"),
            Self::CheckParents => f.write_str("check of the parents cache"),
            Self::Layer(layer) => write!(f, "{layer}"),
            Self::CheckLabels(layer) => write!(f, "self-check of {layer}"),
            Self::StoreLayer(layer) => write!(f, "store {layer}"),
            Self::CheckLayer(layer) => write!(f, "check of {layer}"),
            Self::LoadLayer(layer) => write!(f, "load {layer}"),
        }
    }
}
