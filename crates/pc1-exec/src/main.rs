//! The `pc1-exec` binary.
#![forbid(unsafe_code)]

/// Without memory for a few bytes no request would be answered.
#[global_allocator]
static MEMORY: seal_host::LastMemory = seal_host::LastMemory::new();

fn main() -> std::process::ExitCode {
    pc1_exec::main().into()
}
