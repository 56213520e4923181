//! The `[processors]` section of a venus-worker configuration, and our own `[supervisor]` section
//! beside it: read strictly, with file, line, key and value in every complaint, and turned into a
//! validated form.
//!
//! The file may hold these sections alone or be a whole venus-worker.toml, whose other sections are
//! left alone. Nothing here looks at the machine: whether a cpu or a binary exists is found out by
//! those who use it.
#![forbid(unsafe_code)]

mod cpulist;
mod env_names;
mod error;
mod processors;
mod stage;
mod tree;

pub use cpulist::{CpuListError, parse_cpu_list};
pub use env_names::{EnvWarning, PLACEMENT_NAMES, env_warning};
pub use error::{ConfigError, Invalid};
pub use processors::{Config, DEFAULT_STABLE_WAIT, ExecutorConfig, default_retry, load, parse};
pub use stage::StageName;
