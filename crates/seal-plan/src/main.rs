//! The planner's binary.
#![forbid(unsafe_code)]

/// Without memory for a few bytes no request would be answered.
#[global_allocator]
static MEMORY: seal_host::LastMemory = seal_host::LastMemory::new();

fn main() -> std::process::ExitCode {
    seal_plan::run().into()
}
