//! What the executors and the supervisor ask of the operating system: files that appear whole,
//! free space, holes, standard output, processes, placement, locks.
//!
//! Knows nothing of sealing. One of the five crates that may contain unsafe code; everything it
//! offers is safe to call.

mod admission;
mod affinity;
mod alive;
mod budget;
mod cgroup;
mod child;
mod claims;
mod count;
mod dir_lock;
mod direct;
mod direct_at;
mod earlier;
mod fault;
mod file_in_memory;
mod file_size;
mod files;
mod filesystem;
mod huge_pages;
mod inputs;
mod instructions;
mod kept;
mod kept_lines;
mod labels;
mod last_memory;
mod lock_wait;
mod log_form;
mod log_levels;
mod log_queue;
mod map;
mod memory;
mod memory_files;
mod numa;
mod oom;
mod part_file;
mod paths;
mod place_self;
mod placement;
mod priority;
mod process;
mod reservations;
mod ring;
mod runtime_dir;
mod signals;
mod slots;
mod space;
mod stdio;
mod threads;
mod topology;
mod turns;
mod units;
mod watched;

pub use admission::{Admission, AdmissionError, Admitted, NodeMemory, Reserved, Roots};
pub use affinity::{
    BindError, allowed_cpus, bind_current_thread, confine_current_thread, confine_like_this_thread,
    grantable_cpus, online_cpus,
};
pub use alive::{Alive, Life, is_unlike_others, life_at, lives_in, unlike_others};
pub use budget::{CpuBudget, CpuQuota, GroupMemory, Limiter, MemoryBudget, TaskBudget};
pub use cgroup::{
    Cgroup, CgroupError, CgroupTree, Entered, Swept, Version as CgroupVersion, Wanted,
};
pub use child::{Ending, SpawnError, signal_group, spawn, spawn_in, wait_ended};
pub use claims::{CpuClaim, CpuClaims};
pub use dir_lock::{DirectoryLock, DirectoryLockError, LOCK_FILE};
pub use direct::{DirectFile, read_through};
pub use direct_at::{DirectPart, DirectReader};
pub use earlier::EarlierOwner;
pub use file_in_memory::FileInMemory;
pub use file_size::ignore_file_size_signal;
pub use files::{FileError, copy_exact, read_dir_names, remove_if_there, sync_dir};
pub use filesystem::{FileSystem, is_without_locks, lock_failed};
pub use inputs::{
    Input, WrongKind, open_dir, open_input, open_input_or_zeros, open_lock, read_input, read_own,
    read_text,
};
pub use instructions::instructions;
pub use kept_lines::KeptLines;
pub use labels::{Label, LabelMemory, LayerReader, LayerWriter};
pub use last_memory::LastMemory;
pub use lock_wait::{
    ENDING_TAKES, LockHolder, LockWait, lock_holder, take_patiently, take_while_it_moves,
};
pub use log_form::LogForm;
pub use log_levels::LogLevels;
pub use log_queue::{LastWords, LogQueue};
pub use map::{MapError, ReadMap};
pub use memory::{MemoryError, MemoryPolicy, PageChoice, Pages, Region};
pub use memory_files::{MemoryFiles, PrepareError, Prepared};
pub use numa::{Binding, NodeId, interleave_memory, node_cpus, online_nodes, preferred_node};
pub use oom::OomCounter;
pub use part_file::{PartFile, part_target, remove_stale_part, remove_stale_parts};
pub use paths::{
    SameFile, TakenForRemains, behind_links, find_same_file, find_taken_for_remains, parent_of,
};
pub use place_self::{PlaceError, Placed, WantedPlace, place_self};
pub use placement::{Placement, ResourceLimit};
pub use priority::yield_to_others;
pub use process::{ProcessHandle, pid_namespace, process_start};
pub use reservations::{Reservations, SpaceReserved, SpaceWanted, reserve_space, share_disk_space};
pub use ring::{EmptyBatch, FullBatch, RingConsumer, RingProducer, ring};
pub use runtime_dir::{
    RuntimeDir, RuntimeDirError, SYSTEM_RUNTIME_DIR, default_runtime_dir, earlier_runtime_dir,
    remake,
};
pub use signals::{ending_signals, unblock};
pub use slots::{Mutex, MutexGuard, Slots};
pub use space::{SpaceError, free_bytes, is_all_holes, require_free};
pub use stdio::{claim_stdout, has_reader, has_writer};
pub use threads::{start_scoped, start_small_thread, start_thread};
pub use topology::{Cpu, L3Id, Topology};
pub use turns::{MemoryTurn, MemoryTurns};
pub use units::{CoreUnit, NoUnits, Reduced, Threads, UnitPlan, UnitRequest, plan_units};

pub use seal_types::CpuSet;
