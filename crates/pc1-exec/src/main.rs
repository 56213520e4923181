//! The `pc1-exec` binary.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    pc1_exec::main().into()
}
