//! What the binary says and exits with before its first task.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Runs pc2-exec with nothing to read. Returns its exit code and what it says.
fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_pc2-exec"))
        .args(arguments)
        .envs(environment.iter().copied())
        .env_remove("SEAL_GPU")
        // Where there is a GPU, it must not be found.
        .env("CUDA_VISIBLE_DEVICES", "-1")
        .stdin(Stdio::null())
        .output()
        .expect("it starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_gpu_that_is_not_usable_is_another_exit_than_a_wrong_value() {
    let (code, log) = run(&[], &[("FIL_PROOFS_USE_GPU_TREE_BUILDER", "1")]);
    assert_eq!(code, Some(4), "{log}");
    assert!(log.contains("no GPU is usable"), "{log}");
    for (name, value) in [
        ("FIL_PROOFS_USE_GPU_TREE_BUILDER", "maybe"),
        ("FIL_PROOFS_MAX_GPU_TREE_BATCH_SIZE", "x"),
        ("FIL_PROOFS_ROWS_TO_DISCARD", "3"),
        ("SEAL_FORCE_ISA", "mmx"),
    ] {
        let (code, log) = run(&[], &[(name, value)]);
        assert_eq!(code, Some(3), "{name}={value}: {log}");
        assert!(log.contains(name) && log.contains(value), "{log}");
    }
    let (_, log) = run(&[], &[("FIL_PROOFS_MAX_GPU_TREE_BATCH_SIZE", "x")]);
    assert!(log.contains("a number from 1 on"), "{log}");
}

#[test]
fn instructions_of_another_executor_are_a_warning_and_leave_the_fastest() {
    let (code, log) = run(&[], &[("SEAL_FORCE_ISA", "shani")]);
    assert_eq!(code, Some(0), "{log}");
    let fastest = seal_poseidon::Kernel::detect().name();
    for said in [
        "does nothing here: it names instructions of pc1-exec; pc2-exec takes the fastest",
        &format!("Poseidon {fastest},"),
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
    let (_, log) = run(&[], &[("SEAL_FORCE_ISA", fastest)]);
    assert!(!log.contains("does nothing here"), "{log}");
}

#[test]
fn numbers_beyond_all_reason_are_refused_and_not_cut() {
    for arguments in [
        ["--memory-mib", "17592186044416"],
        ["--memory-mib", "18446744073709551615"],
        ["--check-nodes", "18446744073709551615"],
    ] {
        let (code, log) = run(&arguments, &[]);
        assert_eq!(code, Some(2), "{arguments:?}: {log}");
        assert!(log.contains(arguments[0]) && log.contains(arguments[1]), "{log}");
    }
}

#[test]
fn a_hangup_that_was_ignored_at_the_start_stays_ignored_and_another_is_told_to_end() {
    for (setup, survives) in [("trap '' HUP", true), ("trap - HUP", false)] {
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("{setup}; exec \"$0\""), env!("CARGO_BIN_EXE_pc2-exec")])
            .env("CUDA_VISIBLE_DEVICES", "-1")
            .env_remove("SEAL_GPU")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut ready = String::new();
        let output = child.stdout.as_mut().expect("piped");
        BufReader::new(output).read_line(&mut ready).expect("readable");
        assert_eq!(ready, "pc2 processor ready\n");
        let kill = format!("kill -HUP {}", child.id());
        let killed = Command::new("/bin/sh").args(["-c", &kill]).status();
        assert!(killed.expect("it runs").success());
        if survives {
            std::thread::sleep(std::time::Duration::from_millis(100));
            assert!(child.try_wait().expect("ours").is_none(), "it ended by the signal");
            drop(child.stdin.take());
        }
        // Either way it ends by itself and not by the signal.
        assert_eq!(child.wait().expect("ours").code(), Some(0), "{setup}");
    }
}
