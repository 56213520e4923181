//! What a supervisor inherits from the session in which it was started.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use test_support::skip::skipped;

use crate::harness::{Scene, Supervisor, executor};

/// Whether a process ignores a signal.
fn ignores(pid: i64, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("told");
    let mask = u64::from_str_radix(mask.trim(), 16).expect("hexadecimal");
    mask >> (signal as u32 - 1) & 1 == 1
}

fn start_after(scene: &Scene, setup: &str) -> Supervisor {
    let config = scene.config("c2.toml", &executor("c2", &[], ""));
    let mut supervisor = Supervisor::spawn(&mut scene.command_after(setup, "c2", &config));
    supervisor.ready("c2");
    supervisor.await_log("executor is ready", 1);
    supervisor
}

#[test]
fn what_was_ignored_at_the_start_stays_ignored_as_under_nohup() {
    for (name, signal) in
        [("HUP", Signal::SIGHUP), ("INT", Signal::SIGINT), ("TERM", Signal::SIGTERM)]
    {
        let scene = Scene::new();
        let mut supervisor = start_after(&scene, &format!("trap '' {name}"));
        assert!(ignores(supervisor.pid(), signal), "{name}");
        supervisor.signal(signal);
        // If it were heeded, the request would be refused.
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(supervisor.ask(2, json!([{"answer": 2}])), 2, "{name}");
        supervisor.finish();
    }
}

#[test]
fn executors_inherit_what_is_ignored_except_what_their_supervisor_tells_them() {
    let scene = Scene::new();
    // No program of Rust, which ignores SIGPIPE by itself.
    let script = "echo c2 processor ready; while read -r line; do :; done";
    let config = format!("[[processors.c2]]\nbin = '/bin/sh'\nargs = ['-c', {script:?}]\n");
    let config = scene.config("sh.toml", &config);
    let setup = "trap '' HUP INT TERM USR1";
    let mut supervisor = Supervisor::spawn(&mut scene.command_after(setup, "c2", &config));
    supervisor.ready("c2");
    supervisor.await_log("executor is ready", 1);
    let pid = supervisor.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let child: i64 = children.expect("readable").trim().parse().expect("one executor");
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGUSR1] {
        assert!(ignores(child, signal), "{signal}");
    }
    for signal in [Signal::SIGTERM, Signal::SIGPIPE] {
        assert!(!ignores(child, signal), "{signal}");
    }
    supervisor.finish();
}

#[test]
fn what_was_not_ignored_ends_it_although_something_else_was() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let scene = Scene::new();
        let supervisor = start_after(&scene, "trap '' HUP");
        supervisor.signal(signal);
        assert_eq!(supervisor.wait(), 0);
    }
    // A shell cannot undo that a signal was ignored when it was started.
    if ignores(std::process::id().into(), Signal::SIGHUP) {
        return skipped("the end by SIGHUP", "the tests were started with SIGHUP ignored");
    }
    let scene = Scene::new();
    let supervisor = start_after(&scene, "trap '' TERM INT");
    supervisor.signal(Signal::SIGHUP);
    assert_eq!(supervisor.wait(), 0);
}
