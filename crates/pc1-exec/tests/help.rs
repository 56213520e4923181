//! Help is there for those whose environment is wrong.

use std::process::{Command, Stdio};

#[test]
fn help_and_version_come_whatever_the_environment_says() {
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_pc1-exec"))
            .args(arguments)
            .env("SEAL_FORCE_ISA", "mmx")
            .stdin(Stdio::null())
            .output()
            .expect("it starts")
    };
    for argument in ["--help", "--version"] {
        let output = run(&[argument]);
        assert!(output.status.success() && !output.stdout.is_empty(), "{argument}: {output:?}");
    }
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("mmx"), "{output:?}");
}
