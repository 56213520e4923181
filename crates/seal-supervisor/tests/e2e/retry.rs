//! Requests whose executor died are sent again: one answer, from whichever executor lives.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::harness::{ACCEPTED, Scene, eventually, executor};

/// Kills the executor that was started as number `start`, counted from 0.
fn kill_start(scene: &Scene, start: usize) {
    let pid = scene.lines("starts")[start].parse().expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
}

/// Waits until a task has run `count` times.
fn await_runs(scene: &Scene, count: usize) {
    eventually("the task runs", || (scene.lines("runs").len() >= count).then_some(()));
}

#[test]
fn a_pc1_whose_executor_is_killed_runs_again_and_is_answered_once() {
    let scene = Scene::new();
    let starts = scene.text("starts");
    let limits = "[processors.ext_locks]\ndisk = 1\n[processors.limitation.concurrent]\npc1 = 1\n";
    let one = executor("pc1", &["--starts", &starts], "locks = ['disk']");
    let mut supervisor = scene.start("pc1", &format!("{limits}{one}"));
    let log = json!({"log": [scene.path("runs"), "run"]});
    supervisor.send(1, json!([log, {"await": scene.path("go")}, {"answer": "done"}]));
    await_runs(&scene, 1);
    kill_start(&scene, 0);
    await_runs(&scene, 2);
    supervisor.assert_no_line();
    scene.touch("go");
    assert_eq!(supervisor.output(1), "done");
    assert_eq!(scene.lines("starts").len(), 2);
    supervisor.await_log("the task is sent again", 1);
    assert_eq!(supervisor.ask(2, json!([{"answer": 2}])), 2);
    supervisor.finish();
    assert_eq!(scene.lines("runs").len(), 2);
    scene.assert_nothing_is_locked();
}

#[test]
fn a_task_that_kills_every_executor_fails_after_its_tries() {
    for (stage, setting, runs) in [
        ("pc1", "", 2),
        ("pc1", "[supervisor.pc1]\nretry = 0", 1),
        ("pc2", "", 1),
        ("c2", "[supervisor]\nc2.retry = 3\npc1.retry = 7", 4),
    ] {
        let scene = Scene::new();
        let config = format!("{}{setting}\n", executor(stage, &[], ""));
        let mut supervisor = scene.start(stage, &config);
        let log = json!({"log": [scene.path("runs"), "run"]});
        supervisor.send(1, json!([log, {"signal": "SIGKILL"}]));
        let error = supervisor.error(1);
        assert!(error.starts_with("[executor-died] ") && error.contains("SIGKILL"), "{error}");
        assert_eq!(error.contains(&format!("was tried {runs} times")), runs > 1, "{error}");
        assert_eq!(scene.lines("runs").len(), runs, "{stage} {setting}");
        assert_eq!(supervisor.ask(2, json!([{"answer": 2}])), 2);
        supervisor.finish();
    }
}

#[test]
fn a_task_is_sent_again_to_another_executor_when_its_own_stays_dead() {
    let scene = Scene::new();
    let (other, own) = (scene.text("other"), scene.text("starts"));
    let more = "concurrent = 1\nauto_restart = false";
    let two =
        executor("pc1", &["--starts", &other], more) + &executor("pc1", &["--starts", &own], more);
    let mut supervisor = scene.start("pc1", &two);
    let log = json!({"log": [scene.path("runs"), "run"]});
    supervisor.send(1, json!([log, {"await": scene.path("go 1")}, {"answer": 1}]));
    await_runs(&scene, 1);
    supervisor.send(2, json!([log, {"await": scene.path("go 2")}, "describe"]));
    await_runs(&scene, 2);
    kill_start(&scene, 0);
    supervisor.await_log("the task is sent again", 1);
    // Nobody has room for it until the first task is done.
    scene.touch("go 1");
    assert_eq!(supervisor.output(1), 1);
    await_runs(&scene, 3);
    scene.touch("go 2");
    assert_eq!(supervisor.output(2)["pid"].to_string(), scene.lines("other")[0]);
    assert_eq!([scene.lines("other").len(), scene.lines("starts").len()], [1, 1]);
    supervisor.finish();
}

#[test]
fn a_task_that_is_sent_again_goes_before_those_that_came_later() {
    let scene = Scene::new();
    let starts = scene.text("starts");
    let one = executor("pc1", &["--starts", &starts], "concurrent = 1");
    let mut supervisor = scene.start("pc1", &one);
    let log = |id: u64| json!({"log": [scene.path("runs"), format!("{id}")]});
    supervisor.send(1, json!([log(1), {"await": scene.path("go")}, {"answer": 1}]));
    await_runs(&scene, 1);
    supervisor.send(2, json!([log(2), {"answer": 2}]));
    supervisor.send(3, json!([log(3), {"answer": 3}]));
    supervisor.await_log(ACCEPTED, 3);
    scene.touch("go");
    // Killed at once or after its answer: whatever was answered is not run again.
    kill_start(&scene, 0);
    for id in 1..=3 {
        assert_eq!(supervisor.output(id), id);
    }
    let runs = scene.lines("runs");
    let mut order: Vec<u64> = runs.iter().map(|id| id.parse().expect("an id")).collect();
    order.dedup();
    assert_eq!(order, [1, 2, 3]);
    supervisor.finish();
}

#[test]
fn a_task_that_waits_to_be_sent_again_is_answered_when_the_supervisor_ends() {
    let scene = Scene::new();
    let starts = scene.text("starts");
    let one = executor("pc1", &["--starts", &starts], "");
    let config = scene.config("pc1.toml", &one);
    let mut command = scene.command("pc1", &config);
    command.args(["--restart-wait", "1h", "--restart-wait-max", "1h"]);
    let mut supervisor = crate::harness::Supervisor::spawn(&mut command);
    supervisor.ready("pc1");
    supervisor.send(1, json!([{"signal": "SIGKILL"}]));
    supervisor.await_log("the task is sent again", 1);
    supervisor.signal(Signal::SIGTERM);
    let error = supervisor.error(1);
    assert!(error.starts_with("[cancelled] "), "{error}");
    assert_eq!(supervisor.wait(), 0);
}

#[test]
fn a_task_sent_again_after_the_end_of_the_input_is_still_answered() {
    let scene = Scene::new();
    let starts = scene.text("starts");
    let one = executor("pc1", &["--starts", &starts], "");
    let mut supervisor = scene.start("pc1", &format!("[supervisor]\ndrain = 'task'\n{one}"));
    let log = json!({"log": [scene.path("runs"), "run"]});
    supervisor.send(1, json!([log, {"await": scene.path("go")}, {"answer": "done"}]));
    await_runs(&scene, 1);
    supervisor.end_input();
    supervisor.await_log("input ended", 1);
    kill_start(&scene, 0);
    await_runs(&scene, 2);
    scene.touch("go");
    assert_eq!(supervisor.output(1), "done");
    assert_eq!(supervisor.wait(), 0);
}
