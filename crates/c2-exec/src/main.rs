//! The `c2-exec` binary.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    c2_exec::main().into()
}
