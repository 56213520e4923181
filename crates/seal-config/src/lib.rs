//! The `[processors]` section of a venus-worker configuration, and our own `[supervisor]` section
//! beside it: read strictly, with file, line, key and value in every complaint, and turned into a
//! validated form.
//!
//! The file may hold these sections alone or be a whole venus-worker.toml, whose other sections are
//! left alone. Nothing here looks at the machine: whether a cpu or a binary exists is found out by
//! those who use it.
#![forbid(unsafe_code)]

mod config;
mod error;
mod executor;
mod keys;
mod places;
mod reference;
mod show;
mod supervisor;
mod tree;

pub use config::{Config, Ignored, LockConfig, LockOrder, load, load_all, parse, parse_all};
pub use error::{ConfigError, Invalid, Refused};
pub use executor::{DEFAULT_STABLE_WAIT, ExecutorConfig};
pub use places::{Place, Places};
pub use reference::{example, reference};
pub use seal_types::{CpuSet, StageName};
pub use show::show;
pub use supervisor::{
    CgroupUse, Drain, MemoryBinding, MemoryLimit, StageSettings, SupervisorConfig,
};
