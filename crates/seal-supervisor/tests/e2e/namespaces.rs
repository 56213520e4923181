//! Supervisors that share a runtime directory and not their pid namespace, as containers do.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use test_support::skip::skipped;

use crate::harness::{Scene, Supervisor, eventually, executor, is_alive};

/// The command in a pid namespace of its own, with a `/proc` of its own.
fn contained(plain: &Command) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    command.arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// The command in a time namespace in which the machine has run for an hour longer.
pub(crate) fn in_another_time(plain: &Command) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--time", "--boottime=3600", "--monotonic=3600", "--fork", "--kill-child"]);
    command.arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// Whether pid namespaces can be made here; says so if not.
fn can_contain(test: &str) -> bool {
    can(test, contained, "no pid namespace can be made here (that takes root and unshare)")
}

fn can(test: &str, wrap: fn(&Command) -> Command, otherwise: &str) -> bool {
    let tried = wrap(&Command::new("true")).output();
    let can = tried.is_ok_and(|output| output.status.success());
    if !can {
        skipped(test, otherwise);
    }
    can
}

fn files(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
    names.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[test]
fn supervisors_in_different_pid_namespaces_leave_each_other_alone() {
    if !can_contain("supervisors_in_different_pid_namespaces_leave_each_other_alone") {
        return;
    }
    let scene = Scene::new();
    let config = format!("[supervisor]\ncgroup = 'never'\n{}", executor("c2", &[], ""));
    let config = scene.config("c2.toml", &config);
    let start = |wrap: fn(&Command) -> Command| {
        let mut command = wrap(&scene.command("c2", &config));
        let mut supervisor = Supervisor::spawn(&mut command);
        supervisor.ready("c2");
        supervisor.await_log("executor is ready", 1);
        supervisor
    };
    let status = scene.path("run/status");
    // Both of them are process 1 of their namespace.
    let mut inner = [start(contained), start(contained)];
    for (id, supervisor) in inner.iter_mut().enumerate() {
        let id = u64::try_from(id).expect("small");
        let started = format!("started {id}");
        let steps =
            json!([{"touch": scene.path(&started)}, {"await": scene.path("go")}, {"answer": id}]);
        supervisor.send(id, steps);
        scene.await_file(&started);
    }
    eventually("both have a status file", || (files(&status).len() == 2).then_some(()));
    let mut outer = start(|plain| {
        let mut command = Command::new(plain.get_program());
        command.args(plain.get_args());
        for (name, value) in plain.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.env_remove("SEAL_CONFIG").env_remove("SEAL_READY_WITHIN");
        command
    });
    eventually("all have a status file", || (files(&status).len() == 3).then_some(()));
    assert!(!outer.log().contains("killed what an executor"), "{}", outer.log());
    let told = Command::new(env!("CARGO_BIN_EXE_seal-supervisor"))
        .arg("status")
        .env("SEAL_RUNTIME_DIR", scene.path("run"))
        .output()
        .expect("it runs");
    let told = String::from_utf8(told.stdout).expect("UTF-8");
    assert_eq!(told.matches("c2  supervisor ").count(), 3, "{told}");
    assert_eq!(told.matches("(in another pid namespace)").count(), 2, "{told}");

    // One more that starts within a container leaves those alone that are not in it.
    let third = start(contained);
    assert!(files(&status).len() >= 3, "{:?}", files(&status));
    assert!(!third.log().contains("killed what an executor"), "{}", third.log());
    outer.ask(7, json!([{"answer": 7}]));

    scene.touch("go");
    for (id, supervisor) in inner.iter_mut().enumerate() {
        assert_eq!(supervisor.output(u64::try_from(id).expect("small")), json!(id));
    }
    for supervisor in inner.into_iter().chain([outer, third]) {
        supervisor.finish();
    }
    assert_eq!(files(&status), [""; 0]);
}

#[test]
fn a_start_in_another_time_namespace_kills_nobody_who_lives() {
    let otherwise = "no time namespace can be made here (that takes root and unshare)";
    let test = "a_start_in_another_time_namespace_kills_nobody_who_lives";
    if !can(test, in_another_time, otherwise) {
        return;
    }
    let scene = Scene::new();
    // What such an executor starts bears its mark, is in its cgroup, and outlives it.
    let daemon = |name: &str| json!({"daemon": scene.path(name)});
    let mut lives = scene.start("c2", &executor("c2", &[], ""));
    let wait = json!({"await": scene.path("go")});
    lives.send(1, json!([daemon("daemon"), {"touch": scene.path("held")}, wait, {"answer": 1}]));
    scene.await_file("held");
    let config = scene.config("pc2.toml", &executor("pc2", &[], ""));
    let start = |wrap: fn(&Command) -> Command| {
        let mut supervisor = Supervisor::spawn(&mut wrap(&scene.command("pc2", &config)));
        supervisor.ready("pc2");
        supervisor.await_log("executor is ready", 1);
        supervisor
    };
    let mut other = start(in_another_time);
    other.ask(1, json!([{"answer": 1}]));
    for text in ["killed", "cgroup of a dead supervisor removed"] {
        assert!(!other.log().contains(text), "{}", other.log());
    }
    let daemon = |name: &str| {
        let pid = || scene.lines(name).first().and_then(|pid| pid.parse::<i64>().ok());
        eventually("the daemon tells its number", pid)
    };
    assert!(is_alive(daemon("daemon")));
    scene.touch("go");
    assert_eq!(lives.output(1), 1, "its executor still has the task");
    // And it finds those that are really dead.
    lives.signal(nix::sys::signal::Signal::SIGKILL);
    lives.wait_status();
    let third = start(in_another_time);
    eventually("what is left is ended", || (!is_alive(daemon("daemon"))).then_some(()));
    third.finish();
    other.finish();
    assert_eq!(files(&scene.path("run/alive")), [""; 0]);
}
