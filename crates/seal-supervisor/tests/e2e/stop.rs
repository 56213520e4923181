//! The end: of the input, of the parent, by signals.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{ACCEPTED, Scene, Supervisor, eventually, executor, is_alive};

fn pid_of_executor(supervisor: &mut Supervisor) -> i64 {
    supervisor.ask(1000, json!(["describe"]))["pid"].as_i64().expect("a pid")
}

/// One executor; what was asked for is finished at the end.
fn finishing() -> String {
    format!("[supervisor]\ndrain = 'task'\n{}", executor("pc1", &[], "concurrent = 1"))
}

#[test]
fn at_the_end_of_input_running_tasks_are_stopped_and_waiting_ones_cancelled() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc1", &executor("pc1", &[], "concurrent = 1"));
    let pid = pid_of_executor(&mut supervisor);
    supervisor.send(1, json!([{"touch": scene.path("1")}, {"await": scene.path("never")}]));
    supervisor.send(2, json!([{"answer": 2}]));
    scene.await_file("1");
    supervisor.end_input();
    let mut errors = [supervisor.answer(), supervisor.answer()];
    errors.sort_by_key(|(id, _)| *id);
    for ((id, error), expected) in errors.into_iter().zip([1, 2]) {
        assert_eq!((id, error), (expected, Err("[cancelled] the input ended".to_owned())));
    }
    assert_eq!(supervisor.wait(), 0);
    assert!(!is_alive(pid));
}

#[test]
fn what_was_asked_for_is_finished_after_the_end_of_input_with_drain_task() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc1", &finishing());
    let pid = pid_of_executor(&mut supervisor);
    supervisor.send(1, json!([{"await": scene.path("go")}, {"answer": 1}]));
    supervisor.send(2, json!([{"answer": 2}]));
    supervisor.end_input();
    supervisor.await_log("input ended", 1);
    scene.touch("go");
    assert_eq!(supervisor.output(1), 1);
    assert_eq!(supervisor.output(2), 2);
    assert_eq!(supervisor.wait(), 0);
    assert!(!is_alive(pid));
}

#[test]
fn an_executor_that_dies_after_the_end_of_input_is_replaced_for_what_waits() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc1", &finishing());
    supervisor.send(1, json!([{"await": scene.path("go")}, {"exit": 1}]));
    supervisor.send(2, json!([{"answer": 2}]));
    supervisor.end_input();
    supervisor.await_log("input ended", 1);
    scene.touch("go");
    assert!(supervisor.error(1).starts_with("[executor-died]"));
    assert_eq!(supervisor.output(2), 2);
    assert_eq!(supervisor.wait(), 0);
}

#[test]
fn tasks_are_ended_when_the_parent_is_gone() {
    let scene = Scene::new();
    let config = executor("pc1", &[], "");
    let config = scene.config("c.toml", &config);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = scene.command("pc1", &config);
    let mut child = command
        .args(["--grace", "1s"])
        .stdin(std::process::Stdio::piped())
        .stdout(writer)
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("it runs");
    drop(command);
    let mut stdin = child.stdin.take().expect("piped");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(reader));
    lines.next().expect("a ready line").expect("readable");
    let steps = json!([{"log": [scene.path("pid"), "x"]}, {"await": scene.path("never")}]);
    let line = json!({"id": 1, "task": steps});
    std::io::Write::write_all(&mut stdin, format!("{line}\n").as_bytes()).expect("it reads");
    scene.await_file("pid");
    // The parent dies: both pipes are closed at once.
    drop((stdin, lines));
    let status = eventually("it ends", || child.try_wait().expect("our child"));
    assert_eq!(status.code(), Some(5));
    scene.assert_nothing_is_locked();
}

#[test]
fn it_ends_when_answers_are_not_taken_any_more() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc1", &executor("pc1", &[], ""));
    supervisor.stop_reading();
    // One answer makes the reader notice that nobody listens, the next one finds the pipe closed.
    supervisor.send(1, json!([{"answer": 1}]));
    supervisor.await_log("task ends", 1);
    eventually("it ends", || {
        let line = json!({"id": 2, "task": [{"answer": 2}]});
        supervisor.try_send(&line);
        supervisor.log().contains("the parent does not take answers any more").then_some(())
    });
    assert_eq!(supervisor.wait_status().code(), Some(5));
}

#[test]
fn told_to_end_it_cancels_what_is_left_and_leaves_nothing_behind() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let scene = Scene::new();
        let limits = "[processors.limitation.concurrent]\npc1 = 1\n";
        let config = format!("{limits}{}", executor("pc1", &[], ""));
        let mut supervisor = scene.start_with("pc1", &config, &["--grace", "1h"]);
        let pid = pid_of_executor(&mut supervisor);
        supervisor.send(1, json!([{"touch": scene.path("1")}, {"await": scene.path("never")}]));
        supervisor.send(2, json!([{"answer": 2}]));
        scene.await_file("1");
        supervisor.await_log(ACCEPTED, 3);
        supervisor.signal(signal);
        let mut errors = [supervisor.answer(), supervisor.answer()];
        errors.sort_by_key(|(id, _)| *id);
        for ((id, error), expected) in errors.into_iter().zip([1, 2]) {
            let text = format!("[cancelled] the supervisor was told to end by {signal}");
            assert_eq!((id, error), (expected, Err(text)));
        }
        assert_eq!(supervisor.wait(), 0);
        assert!(!is_alive(pid));
        scene.assert_nothing_is_locked();
    }
}

#[test]
fn with_drain_task_what_runs_is_finished_and_nothing_else() {
    let scene = Scene::new();
    let own = "[supervisor]\ndrain = 'task'\ngrace = '300ms'\n";
    let config = format!("{own}{}", executor("pc1", &[], "concurrent = 1"));
    let mut supervisor = scene.start("pc1", &config);
    let pid = pid_of_executor(&mut supervisor);
    supervisor
        .send(1, json!([{"touch": scene.path("1")}, {"await": scene.path("go")}, {"answer": 1}]));
    supervisor.send(2, json!([{"answer": 2}]));
    scene.await_file("1");
    supervisor.await_log(ACCEPTED, 3);
    supervisor.signal(Signal::SIGTERM);
    assert!(supervisor.error(2).starts_with("[cancelled] the supervisor was told to end"));
    supervisor.try_send(&json!({"id": 3, "task": [{"answer": 3}]}));
    assert!(supervisor.error(3).starts_with("[cancelled]"));
    // Longer than the grace: that is for executors that have nothing to do any more.
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert!(is_alive(pid));
    scene.touch("go");
    assert_eq!(supervisor.output(1), 1);
    assert_eq!(supervisor.wait(), 0);
    assert!(!is_alive(pid));
}

#[test]
fn with_drain_task_a_second_signal_ends_at_once() {
    let scene = Scene::new();
    let config = format!("[supervisor]\ndrain = 'task'\n{}", executor("pc1", &[], ""));
    let mut supervisor = scene.start("pc1", &config);
    supervisor.send(1, json!([{"touch": scene.path("1")}, {"await": scene.path("never")}]));
    scene.await_file("1");
    supervisor.signal(Signal::SIGTERM);
    supervisor.await_log("told to end", 1);
    supervisor.assert_no_line();
    supervisor.signal(Signal::SIGINT);
    assert!(supervisor.error(1).starts_with("[cancelled]"));
    assert_eq!(supervisor.wait(), 0);
}

#[test]
fn with_drain_now_nothing_is_waited_for() {
    let scene = Scene::new();
    let own = "[supervisor]\ndrain = 'now'\ngrace = '1h'\n";
    let config = format!("{own}{}", executor("pc1", &["--ignore-sigterm", "--stay"], ""));
    let mut supervisor = scene.start("pc1", &config);
    let pid = pid_of_executor(&mut supervisor);
    supervisor.send(1, json!([{"touch": scene.path("1")}, {"await": scene.path("never")}]));
    scene.await_file("1");
    supervisor.signal(Signal::SIGTERM);
    assert!(supervisor.error(1).starts_with("[cancelled]"));
    assert_eq!(supervisor.wait(), 0);
    assert!(!is_alive(pid));
    scene.assert_nothing_is_locked();
}

#[test]
fn an_executor_that_ignores_the_request_to_end_is_killed() {
    let scene = Scene::new();
    let config = executor("pc1", &["--ignore-sigterm", "--stay"], "");
    let mut supervisor = scene.start_with("pc1", &config, &["--grace", "200ms"]);
    let pid = pid_of_executor(&mut supervisor);
    supervisor.send(1, json!([{"touch": scene.path("1")}, {"await": scene.path("never")}]));
    scene.await_file("1");
    supervisor.signal(Signal::SIGTERM);
    assert!(supervisor.error(1).starts_with("[cancelled]"));
    supervisor.await_log("did not end in time and is killed", 1);
    assert_eq!(supervisor.wait(), 0);
    assert!(!is_alive(pid));
}

#[test]
fn a_second_signal_kills_at_once() {
    let scene = Scene::new();
    let config = executor("pc1", &["--ignore-sigterm", "--stay"], "");
    let mut supervisor = scene.start_with("pc1", &config, &["--grace", "1h"]);
    supervisor.send(1, json!([{"touch": scene.path("1")}, {"await": scene.path("never")}]));
    scene.await_file("1");
    supervisor.signal(Signal::SIGTERM);
    supervisor.await_log("told to end", 1);
    supervisor.signal(Signal::SIGTERM);
    assert!(supervisor.error(1).starts_with("[cancelled]"));
    assert_eq!(supervisor.wait(), 0);
}

#[test]
fn an_executor_that_stays_after_the_end_of_its_input_is_reminded() {
    let scene = Scene::new();
    let config = executor("pc1", &["--stay"], "");
    let mut supervisor = scene.start_with("pc1", &config, &["--grace", "200ms"]);
    let pid = pid_of_executor(&mut supervisor);
    supervisor.finish();
    assert!(!is_alive(pid));
}

#[test]
fn executors_do_not_outlive_a_killed_supervisor() {
    let scene = Scene::new();
    let config = executor("pc1", &["--ignore-sigterm", "--stay"], "");
    let mut supervisor = scene.start("pc1", &config);
    let pid = pid_of_executor(&mut supervisor);
    supervisor.signal(Signal::SIGKILL);
    supervisor.wait_status();
    eventually("the executor dies", || (!is_alive(pid)).then_some(()));
}
