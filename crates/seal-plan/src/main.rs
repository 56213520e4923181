//! The planner's binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Without memory for a few bytes no request would be answered.
#[global_allocator]
static MEMORY: seal_host::LastMemory = seal_host::LastMemory::new();

fn main() -> ExitCode {
    seal_plan::run()
}
