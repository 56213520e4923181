//! What the executors and the supervisor ask of the operating system: files that appear whole,
//! free space, holes, standard output, processes, placement, locks.
//!
//! Knows nothing of sealing. One of the five crates that may contain unsafe code; everything it
//! offers is safe to call.

mod files;
mod map;
mod space;
mod stdio;

pub use files::{
    FileError, PartFile, copy_exact, open_read, read_dir_names, remove_if_there, sync_dir,
};
pub use map::ReadMap;
pub use space::{SpaceError, free_bytes, is_all_holes, require_free};
pub use stdio::{claim_stdout, has_reader};
