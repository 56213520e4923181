//! `cargo xtask gpu-check`: gathers what a machine with a GPU and without Rust needs to be checked
//! and measured, and runs the same here on a stand-in that executes the kernels' PTX.

mod gather;
mod needs;
mod on_stand_in;

#[cfg(test)]
mod script_tests;

use std::path::PathBuf;

use anyhow::Result;

use crate::cargo::target;

pub(crate) use gather::build;
pub(crate) use on_stand_in::check_on_stand_in;

/// Options of `gpu-check`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Where to gather the files; default: gpu-check in the target directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Only what is for PC2: what C2 needs takes nvcc minutes.
    #[arg(long)]
    pub(crate) without_c2: bool,
    /// Run it here, without C2, on a stand-in for the driver that executes this PTX of the kernels:
    /// `nvcc -std=c++17 -O3 --ptx -arch=compute_80 crates/seal-cuda/kernels/kernels.cu`.
    #[arg(long, value_name = "PTX", conflicts_with_all = ["out", "without_c2"])]
    pub(crate) on_stand_in: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(ptx) = &args.on_stand_in {
        return check_on_stand_in(ptx);
    }
    let dir = args.out.clone().unwrap_or_else(|| target().join("gpu-check"));
    gather::gather(&dir, args.without_c2)
}
