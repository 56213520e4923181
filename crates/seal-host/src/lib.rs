//! What the executors and the supervisor ask of the operating system: files that appear whole,
//! free space, holes, standard output, processes, placement, locks.
//!
//! Knows nothing of sealing. One of the five crates that may contain unsafe code; everything it
//! offers is safe to call.

mod affinity;
mod child;
mod cpuset;
mod files;
mod labels;
mod lock;
mod map;
mod memory;
mod numa;
mod ring;
mod space;
mod stdio;

pub use affinity::{grantable_cpus, online_cpus};
pub use child::{Ending, Placement, SpawnError, signal_group, spawn, wait_ended};
pub use cpuset::{BadCpuSet, CpuSet};
pub use files::{
    FileError, PartFile, copy_exact, open_read, read_dir_names, remove_if_there, sync_dir,
};
pub use labels::{Label, LabelMemory, LayerReader, LayerWriter};
pub use lock::FileLock;
pub use map::ReadMap;
pub use memory::Region;
pub use numa::{NodeId, node_cpus, online_nodes};
pub use ring::{RingConsumer, RingProducer, ring};
pub use space::{SpaceError, free_bytes, is_all_holes, require_free};
pub use stdio::{claim_stdout, has_reader};
