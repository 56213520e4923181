//! The project's own commands. `cargo xtask help` lists them.
#![forbid(unsafe_code)]

mod bench;
mod bench_c2;
mod bench_gpu;
mod bench_labels;
mod bench_parents;
mod bench_pc1;
mod bench_pc2;
mod bench_progress;
mod bench_relay;
mod campaign;
mod cargo;
mod cuda_build;
mod cuda_report;
mod cuda_toolkit;
mod fatbin;
mod gpu_check;
mod out;
mod ptx_mutants;
mod ptx_test;
mod revision;
mod seal;
mod sector;
mod test;
mod tidy;
mod vm_test;

use std::process::ExitCode;

use clap::Parser;

/// The commands of this project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
enum Command {
    /// Seal a sector end to end: every stage in its own executor under seal-supervisor, C1 and
    /// the verification by the published crates.
    Seal(seal::Args),
    /// Check formatting, lints and structure, and run all tests.
    Test(test::Args),
    /// Measure labelling of whole layers in memory, of any size.
    BenchLabels(bench_labels::Args),
    /// Measure how long a parents cache takes, if wanted against the published crates.
    BenchParents(bench_parents::Args),
    /// Measure PC1 of whole sectors, if wanted against the published crates in the same run.
    BenchPc1(bench_pc1::Args),
    /// Measure PC2 of a whole sector, if wanted against the published crates in the same run.
    BenchPc2(bench_pc2::Args),
    /// Measure C2 of a captured task, if wanted against the published crates in the same run.
    BenchC2(bench_c2::Args),
    /// Measure what the supervisor adds to a task, and what memory it takes.
    BenchRelay(bench_relay::Args),
    /// Measure how right the time left is that tasks tell.
    BenchProgress(bench_progress::Args),
    /// Put faults into everything that runs, by a seed, and see that nothing comes of them but the
    /// same bytes or a clear error.
    Campaign(campaign::Args),
    /// Install nvcc and its disassembler into the target directory, from Python packages.
    CudaToolkit(cuda_toolkit::ToolkitArgs),
    /// Build pc2-exec and c2-exec with what they need to use a GPU.
    CudaBuild(cuda_build::Args),
    /// Compile the CUDA kernels, count what their machine code executes and predict what it takes
    /// on known cards; fails where a count is not what it has to be.
    CudaReport(cuda_report::Args),
    /// Gather tests and benchmark for a machine with a GPU and without Rust, or run them here on
    /// executed PTX.
    GpuCheck(gpu_check::Args),
    /// Run the tests of devices on what nvcc makes of the kernels, executed on the processor.
    PtxTest(ptx_test::Args),
    /// Put faults into the device code one by one, and see whether the tests of it find each.
    PtxMutants(ptx_mutants::Args),
    /// Check placement on an emulated machine with two NUMA nodes; needs QEMU.
    VmTest(vm_test::Args),
    /// Check the structure only: layers, unsafe code, documents.
    Tidy,
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Seal(args) => seal::run(&args),
        Command::Test(args) => test::run(&args),
        Command::BenchLabels(args) => bench_labels::run(&args),
        Command::BenchParents(args) => bench_parents::run(&args),
        Command::BenchPc1(args) => bench_pc1::run(&args),
        Command::BenchPc2(args) => bench_pc2::run(&args),
        Command::BenchC2(args) => bench_c2::run(&args),
        Command::BenchRelay(args) => bench_relay::run(&args),
        Command::BenchProgress(args) => bench_progress::run(&args),
        Command::Campaign(args) => campaign::run(&args),
        Command::CudaToolkit(args) => cuda_toolkit::install(&args),
        Command::CudaBuild(args) => cuda_build::run(&args),
        Command::CudaReport(args) => cuda_report::run(&args),
        Command::GpuCheck(args) => gpu_check::run(&args),
        Command::PtxTest(args) => ptx_test::run(&args),
        Command::PtxMutants(args) => ptx_mutants::run(&args),
        Command::VmTest(args) => vm_test::run(&args),
        Command::Tidy => tidy::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            out::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
