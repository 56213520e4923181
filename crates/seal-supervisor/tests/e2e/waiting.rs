//! A supervisor that a worker started and that cannot start what it should: it stays, lets requests
//! wait, and takes the good configuration when it comes.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{ACCEPTED, Scene, Supervisor, eventually, executor};

/// What the log has for each request that waits.
const WAITS: &str = "a request waits until the start succeeds";

/// A supervisor whose start fails, as a worker sees it: ready.
fn faulty(scene: &Scene, stage: &str, config: &Path, args: &[&str]) -> Supervisor {
    let mut supervisor = Supervisor::spawn(scene.command(stage, config).args(args));
    supervisor.ready(stage);
    supervisor
}

/// Replaces a configuration, as an editor does that writes a new file.
fn mend(scene: &Scene, config: &Path, text: &str) {
    fs::rename(scene.config("mended.toml", text), config).expect("ours");
}

fn end(mut supervisor: Supervisor, code: i32) {
    supervisor.end_input();
    assert_eq!(supervisor.wait(), code);
}

#[test]
fn requests_wait_with_a_bad_file_and_are_served_when_it_is_mended() {
    let scene = Scene::new();
    let good = executor("c2", &[], "concurrent = 1");
    let config = scene.config("c2.toml", &good.replace("concurrent", "concurent"));
    let mut supervisor = faulty(&scene, "c2", &config, &[]);
    for id in [1, 2] {
        supervisor.send(id, json!([{"answer": id}]));
    }
    supervisor.send(1, json!([{"answer": "again"}]));
    supervisor.send_raw(b"{\"id\": 9, \"task\": \n");
    assert!(supervisor.error(9).starts_with("[bad-request]"));
    supervisor.await_log(WAITS, 2);
    supervisor.await_log("repeats an id in use", 1);
    supervisor.assert_no_line();
    // Another fault in its place is told, and changes nothing else.
    mend(&scene, &config, "[[processors.c2]]\nlocks = ['undeclared']");
    supervisor.await_log("c2.toml:2: processors.c2[0].locks[0]", 1);
    supervisor.assert_no_line();
    mend(&scene, &config, &good);
    assert_eq!((supervisor.output(1), supervisor.output(2)), (json!(1), json!(2)));
    assert_eq!(supervisor.ask(3, json!([{"answer": 3}])), 3);
    supervisor.finish();
}

#[test]
fn who_has_waited_long_enough_is_answered_with_the_fault() {
    let scene = Scene::new();
    let config = scene.config("c2.toml", "[[processors.c2]]\nconcurent = 1");
    let mut supervisor = faulty(&scene, "c2", &config, &["--fault-wait", "50ms"]);
    for id in [1, 2] {
        supervisor.send(id, json!([{"answer": id}]));
        let error = supervisor.error(id);
        assert!(error.starts_with("[unavailable] the supervisor of c2 cannot start: "), "{error}");
        for part in ["c2.toml:2", "concurent", "did you mean", "has waited for 50ms"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    // What it ends with is the code of the fault, as by hand.
    end(supervisor, 3);
}

#[test]
fn whatever_keeps_it_from_starting_is_waited_with() {
    let scene = Scene::new();
    let bad_run = scene.path("bad-run");
    fs::create_dir(&bad_run).expect("writable");
    let all: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(&bad_run, all).expect("ours");
    let bad_run = bad_run.to_str().expect("UTF-8").to_owned();
    let cases: [(&str, &str, &[&str], &str, i32); 6] = [
        ("no file", "", &[], "no-such.toml", 3),
        ("no table", "[[processors.pc1]]\nbin = '/bin/true'", &[], "[[processors.c2]]", 3),
        ("no binary", "[[processors.c2]]\nbin = '/no/such/c2-exec'", &[], "/no/such/c2-exec", 4),
        (
            "no cpus",
            &executor("c2", &[], "cgroup.cpuset = '8000'"),
            &[],
            "cpus 8000 are missing",
            4,
        ),
        ("no place", &executor("c2", &[], ""), &["--runtime-dir", &bad_run], "bad-run", 4),
        ("no time", &executor("c2", &[], ""), &["--restart-wait", "1h"], "--restart-wait is 1h", 2),
    ];
    for (what, config, args, part, code) in cases {
        let path = match what {
            "no file" => scene.path("no-such.toml"),
            _ => scene.config("c2.toml", config),
        };
        let mut supervisor = faulty(&scene, "c2", &path, args);
        supervisor.send(1, json!([{"answer": 1}]));
        supervisor.await_log(WAITS, 1);
        supervisor.end_input();
        let error = supervisor.error(1);
        assert!(error.starts_with("[unavailable]") && error.contains(part), "{what}: {error}");
        assert_eq!(supervisor.wait(), code, "{what}");
    }
}

#[test]
fn a_start_by_hand_ends_with_the_fault() {
    let scene = Scene::new();
    let config = scene.config("c2.toml", "[[processors.c2]]\nconcurent = 1");
    // Its input stays open, as that of a worker does.
    let mut once = Supervisor::spawn(scene.command("c2", &config).arg("--once"));
    assert_eq!(once.line_or_end(), None);
    assert_eq!(once.wait(), 3);
    let config = scene.config("c2.toml", &executor("c2", &["--die"], ""));
    let mut once = Supervisor::spawn(scene.command("c2", &config).arg("--once"));
    assert_eq!(once.line_or_end(), None);
    assert_eq!(once.wait(), 4);
}

#[test]
fn a_signal_ends_the_wait_and_cancels_what_waits() {
    let scene = Scene::new();
    let config = scene.config("c2.toml", "[[processors.c2]]\nconcurent = 1");
    let mut supervisor = faulty(&scene, "c2", &config, &[]);
    supervisor.send(1, json!([{"answer": 1}]));
    supervisor.await_log(WAITS, 1);
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.error(1), "[cancelled] the supervisor was told to end by SIGTERM");
    assert_eq!(supervisor.wait(), 0);
}

#[test]
fn requests_that_wait_do_not_fill_the_memory() {
    let scene = Scene::new();
    let config = scene.config("c2.toml", "[[processors.c2]]\nconcurent = 1");
    let mut supervisor = faulty(&scene, "c2", &config, &[]);
    let lines: String =
        (0..1025).map(|id| format!("{}\n", json!({"id": id, "task": [{"answer": id}]}))).collect();
    supervisor.send_raw(lines.as_bytes());
    let error = supervisor.error(1024);
    assert!(error.contains("; 1024 requests wait already"), "{error}");
    mend(&scene, &config, &executor("c2", &[], "concurrent = 1"));
    for id in 0..1024 {
        assert_eq!(supervisor.output(id), id);
    }
    supervisor.finish();
}

#[test]
fn the_status_tells_that_it_cannot_start_and_why() {
    let scene = Scene::new();
    let config = scene.config("c2.toml", "[[processors.c2]]\nconcurent = 1");
    let mut supervisor = faulty(&scene, "c2", &config, &[]);
    supervisor.send(7, json!([{"answer": 7}]));
    let status = || {
        let output = Command::new(env!("CARGO_BIN_EXE_seal-supervisor"))
            .args(["status", "--json", "--runtime-dir", &scene.text("run")])
            .output();
        let output = output.expect("it runs").stdout;
        let status: Value = serde_json::from_slice(&output).expect("JSON");
        status["supervisors"].as_array().expect("some").first().cloned()
    };
    let told = |wanted: fn(&Value) -> bool| eventually("it is told", || status().filter(wanted));
    let waits = told(|supervisor| supervisor["waiting"] == 1);
    assert_eq!(waits["life"], "cannot-start");
    assert!(waits["why"].as_str().is_some_and(|why| why.contains("concurent")), "{waits}");
    assert_eq!(waits["queue"][0]["req"], 7);
    mend(&scene, &config, &executor("c2", &[], ""));
    assert_eq!(supervisor.output(7), 7);
    told(|supervisor| supervisor["life"] == "serving" && supervisor["done"] == 1);
    supervisor.finish();
}

#[test]
fn an_executor_that_fails_at_the_start_is_tried_again_while_requests_wait() {
    let scene = Scene::new();
    scene.touch("broken");
    let config = executor("c2", &["--die-if", &scene.text("broken")], "");
    let config = scene.config("c2.toml", &config);
    let mut command = scene.command("c2", &config);
    command.args(["--restart-wait", "10ms", "--restart-wait-max", "50ms"]);
    let mut supervisor = Supervisor::spawn(command.args(["--ready-within", "100ms"]));
    supervisor.ready("c2");
    supervisor.send(1, json!([{"answer": 1}]));
    supervisor.await_log("\"message\":\"restart\"", 2);
    fs::remove_file(scene.path("broken")).expect("ours");
    assert_eq!(supervisor.output(1), 1);
    supervisor.finish();
}

#[test]
fn an_executor_that_fails_by_its_configuration_is_mended_with_it() {
    let scene = Scene::new();
    let config = scene.config("c2.toml", &executor("c2", &["--die"], "auto_restart = false"));
    let args = ["--ready-within", "100ms", "--restart-wait", "1h", "--restart-wait-max", "1h"];
    let mut supervisor =
        faulty(&scene, "c2", &config, &[&args[..], &["--fault-wait", "50ms"]].concat());
    // Given up: nothing is left to wait for but another file.
    supervisor.await_log("executor is given up", 1);
    supervisor.send(1, json!([{"answer": 1}]));
    assert!(supervisor.error(1).starts_with("[unavailable] no executor of c2 can be had"));
    // In a wait of an hour: the request waits too, until the file is another one.
    mend(&scene, &config, &executor("c2", &["--die"], ""));
    supervisor.await_log("\"message\":\"restart\"", 1);
    supervisor.send(2, json!([{"answer": 2}]));
    supervisor.assert_no_line();
    mend(&scene, &config, &executor("c2", &[], ""));
    assert_eq!(supervisor.output(2), 2);
    // From then on a change of the file is for the next start.
    mend(&scene, &config, &executor("c2", &["--die"], ""));
    assert_eq!(supervisor.ask(3, json!([{"answer": 3}])), 3);
    supervisor.finish();
}

#[test]
fn requests_wait_in_a_crash_loop_before_any_executor_was_ready_as_with_a_bad_file() {
    let scene = Scene::new();
    scene.touch("broken");
    let own = "[supervisor]\ncrash_loop_wait = '100ms'\n";
    let config = executor("c2", &["--die-if", &scene.text("broken")], "");
    let config = scene.config("c2.toml", &format!("{own}{config}"));
    let args = ["--restart-wait", "10ms", "--restart-wait-max", "10ms"];
    let args = [&args[..], &["--ready-within", "100ms", "--crash-loop-after", "2"]].concat();
    // Who has waited long enough is answered with the reason, in its order.
    let mut supervisor =
        faulty(&scene, "c2", &config, &[&args[..], &["--fault-wait", "300ms"]].concat());
    supervisor.await_log("executor is in a crash loop", 1);
    for id in [1, 2] {
        supervisor.send(id, json!([{"answer": id}]));
    }
    for id in [1, 2] {
        let error = supervisor.error(id);
        assert!(error.starts_with("[unavailable] no executor of c2 can be had"), "{error}");
        for part in ["exited with code 9", "has waited for 300ms"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    // At the end of the input nobody waits any more for what cannot be had.
    supervisor.finish();
    let mut supervisor = faulty(&scene, "c2", &config, &args);
    supervisor.await_log("executor is in a crash loop", 2);
    supervisor.send(1, json!([{"answer": 1}]));
    supervisor.await_log(ACCEPTED, 1);
    supervisor.assert_no_line();
    fs::remove_file(scene.path("broken")).expect("ours");
    assert_eq!(supervisor.output(1), 1);
    supervisor.finish();
}

#[test]
fn what_waits_for_a_first_executor_is_answered_when_the_input_ends() {
    let scene = Scene::new();
    let config = scene.config("c2.toml", &executor("c2", &["--die"], "auto_restart = false"));
    let mut supervisor = faulty(&scene, "c2", &config, &["--ready-within", "100ms"]);
    supervisor.await_log("executor is given up", 1);
    supervisor.send(1, json!([{"answer": 1}]));
    supervisor.await_log(ACCEPTED, 1);
    supervisor.assert_no_line();
    supervisor.end_input();
    assert!(supervisor.error(1).starts_with("[unavailable] no executor of c2 can be had"));
    assert_eq!(supervisor.wait(), 0);
}

#[test]
fn a_start_that_is_tried_again_and_again_says_the_same_once() {
    const WARNING: &str = "FIL_PROOFS_MAXIMIZE_CACHING has no effect";
    let scene = Scene::new();
    let envs = "envs = { FIL_PROOFS_MAXIMIZE_CACHING = '1' }";
    let broken = "bin = '/no/such/c2-exec'";
    let config = format!("[[processors.c2]]\n{broken}\n{envs}\n");
    let config = scene.config("c2.toml", &config);
    let supervisor = faulty(&scene, "c2", &config, &[]);
    supervisor.await_log(WARNING, 1);
    // As many tries as take three seconds.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let log = supervisor.log();
    for said in [WARNING, "/no/such/c2-exec", "the start is tried again"] {
        let lines = log.lines().filter(|line| line.contains(said) && line.contains("message"));
        let lines: Vec<_> = lines.collect();
        assert_eq!(lines.len(), 1, "{said}: {lines:#?}");
    }
    end(supervisor, 4);
}

/// One executor under a limit of so many tasks; what runs at the end is finished.
fn limited(count: u32) -> String {
    let limit = format!("[processors.limitation.concurrent]\npc2 = {count}\n");
    format!("[supervisor]\ndrain = 'task'\n{limit}{}", executor("pc2", &[], ""))
}

#[test]
fn the_next_supervisor_waits_for_the_end_of_one_with_other_limits() {
    let scene = Scene::new();
    let mut old = scene.start("pc2", &limited(2));
    old.send(1, json!([{"touch": scene.path("runs")}, {"await": scene.path("go")}, {"answer": 1}]));
    scene.await_file("runs");
    // The worker is restarted: the old one finishes what it has.
    old.end_input();
    old.await_log("input ended", 1);
    let config = scene.config("new.toml", &limited(1));
    let mut new = faulty(&scene, "pc2", &config, &[]);
    new.send(2, json!([{"answer": 2}]));
    new.await_log("limit pc2 is 1 here and 2 for the supervisor of pc2", 1);
    new.assert_no_line();
    scene.touch("go");
    assert_eq!(old.output(1), 1);
    assert_eq!(old.wait(), 0);
    assert_eq!(new.output(2), 2);
    new.finish();
}

#[test]
fn a_second_worker_with_other_limits_is_told_what_it_needs() {
    let scene = Scene::new();
    let one = scene.start("pc2", &limited(2));
    let config = scene.config("other.toml", &limited(1));
    let mut other = faulty(&scene, "pc2", &config, &["--fault-wait", "50ms"]);
    other.send(1, json!([{"answer": 1}]));
    let error = other.error(1);
    assert!(error.starts_with("[unavailable]"), "{error}");
    for part in ["limit pc2 is 1 here and 2 for", "needs a runtime_dir of its own"] {
        assert!(error.contains(part), "{error}");
    }
    end(other, 4);
    one.finish();
    // With one of its own it needs nothing.
    let one = scene.start("pc2", &limited(2));
    let own = scene.text("own");
    let other = faulty(&scene, "pc2", &config, &["--runtime-dir", &own]);
    other.finish();
    one.finish();
}
