//! Pre-commit phase 1: from a staged file to the layers of a sector.
//!
//! [`pre_commit1`] is the stage; [`main`] is the executor around it.
#![forbid(unsafe_code)]

mod cli;
mod core_trust;
mod data;
mod directory;
mod error;
mod executor;
mod hugepages;
mod kept;
mod labeller;
mod parents;
mod progress;
mod stage;
mod tree_d;
mod work_dir;

pub use cli::main;
pub use error::Pc1Error;
pub use executor::Pc1;
pub use labeller::{Labeller, LabellerSettings};
pub use stage::{
    Pc1Job, Pc1Result, Pc1Settings, REPLACE_FINISHED, ReplaceFinished, Resume, pre_commit1,
};
