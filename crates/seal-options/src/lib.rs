//! What can be set for each executor: options of its command line and names of its environment.
//!
//! Each executor has a table ([`Pc1`], [`Pc2`], [`C2`]), one row a setting: its names, form,
//! default and meaning, and the function that takes a value. Executors start from what
//! [`Settings::read`] makes of their command line and environment; whoever checks a configuration
//! asks [`judge`] about the same texts, so that what is checked is what starts. Help texts,
//! warnings of unknown names and `docs/options.md` come from the tables too.
//!
//! The only place that knows a name, a range or a default, and the only one that reads the
//! environment.
#![forbid(unsafe_code)]

mod c2;
mod common;
mod environment;
mod fault;
mod forms;
mod help;
mod isa;
mod judge;
mod names;
mod nearest;
mod pc1;
mod pc2;
mod reference;
mod row;
mod settings;
mod sizes;

pub use c2::{C2, C2Device};
pub use common::{Common, LOCK_WAIT, LogChoice, Place, RUNTIME_DIR};
pub use environment::Environment;
pub use fault::{Fault, Source};
pub use help::environment_help;
pub use isa::IdleIsa;
pub use judge::{Options, judge, look, refused_stage, rows_of};
pub use names::{EnvWarning, PLACEMENT_NAMES, env_warning, settings_file, shown_value};
pub use nearest::nearest;
pub use pc1::{MAX_LANES, MemoryFilesAt, NodeMemory, Pc1};
pub use pc2::Pc2;
pub use reference::reference;
pub use row::{About, Row, Unset};
pub use settings::{Settings, Sources};
pub use sizes::parse_size;
