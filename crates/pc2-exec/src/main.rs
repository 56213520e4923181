//! The `pc2-exec` binary.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    pc2_exec::main().into()
}
