//! Executors that die, hang, babble or lie: one answer for each request, and the next task runs.

use std::fs;

use serde_json::json;

use crate::harness::{Scene, Supervisor, eventually, executor, is_alive};

/// Checks that a task runs, and that its answer is the next line: nothing was answered twice.
fn goes_on(supervisor: &mut Supervisor, id: u64) {
    assert_eq!(supervisor.ask(id, json!([{"answer": id}])), id);
}

#[test]
fn a_task_whose_executor_is_killed_gets_an_error_that_says_so() {
    let scene = Scene::new();
    let starts = scene.text("starts");
    let limits = "[processors.ext_locks]\ngpu = 1\n[processors.limitation.concurrent]\npc2 = 1\n";
    let one = executor("pc2", &["--starts", &starts], "locks = ['gpu']");
    let mut supervisor = scene.start("pc2", &format!("{limits}{one}"));
    supervisor.send(1, json!([{"signal": "SIGKILL"}]));
    supervisor.send(2, json!(["describe"]));
    let error = supervisor.error(1);
    let first = &scene.lines("starts")[0];
    assert_eq!(
        error,
        format!(
            "[executor-died] fake-exec (pid {first}, stage pc2) was ended by signal 9 (SIGKILL), \
             while it had this task; the task can be sent again"
        )
    );
    assert_ne!(supervisor.output(2)["pid"].to_string(), *first, "it was restarted");
    assert_eq!(scene.lines("starts").len(), 2);
    supervisor.finish();
    scene.assert_nothing_is_locked();
}

#[test]
fn all_tasks_of_a_dead_executor_are_answered_and_no_others() {
    let scene = Scene::new();
    let two = executor("pc2", &[], "concurrent = 2") + &executor("pc2", &[], "concurrent = 2");
    let mut supervisor = scene.start("pc2", &two);
    let wait = json!({"await": scene.path("go")});
    for id in 0..3 {
        let started = scene.path(&format!("started {id}"));
        supervisor.send(id, json!([{"touch": started}, wait, {"answer": id}]));
        scene.await_file(&format!("started {id}"));
    }
    // The first executor has 0 and 2, the second has 1 and gets this one.
    supervisor.send(3, json!([{"exit": 0}]));
    let mut errors = [supervisor.answer(), supervisor.answer()];
    errors.sort_by_key(|(id, _)| *id);
    for ((id, result), expected) in errors.into_iter().zip([1, 3]) {
        assert_eq!(id, expected);
        let error = result.expect_err("its executor died");
        assert!(error.contains("[executor-died]") && error.contains("exited with code 0"));
    }
    scene.touch("go");
    let mut outputs = [supervisor.answer(), supervisor.answer()].map(|(id, output)| {
        assert_eq!(output.expect("its executor lives"), id);
        id
    });
    outputs.sort_unstable();
    assert_eq!(outputs, [0, 2]);
    goes_on(&mut supervisor, 4);
    supervisor.finish();
}

#[test]
fn an_answer_written_before_death_counts() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc2", &executor("pc2", &[], ""));
    for id in 0..20 {
        supervisor.send(id, json!([{"answer": "done"}, {"exit": 1}]));
        assert_eq!(supervisor.output(id), "done");
        supervisor.await_log("executor ended", usize::try_from(id).expect("small") + 1);
    }
    supervisor.finish();
}

#[test]
fn broken_answers_are_answered_with_an_error() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc2", &executor("pc2", &[], ""));
    for (id, steps, text) in [
        (1, json!([{"huge": 2_000_000}]), "wrote a broken answer: the line has 2000000 bytes"),
        (
            2,
            json!([{"raw": "{\"id\":2,\"err_msg\":null,\"output\":null}\n"}]),
            "neither err_msg nor",
        ),
        (3, json!([{"raw": "{\"id\":3,\"output\":{]\n"}]), "wrote a broken answer"),
        (4, json!([{"raw": "{\"id\":4,\"output\":{"}, {"exit": 7}]), "ended in the middle of"),
    ] {
        supervisor.send(id, steps);
        let error = supervisor.error(id);
        assert!(error.starts_with("[internal] fake-exec (pid "), "{error}");
        assert!(error.contains(text), "{error}");
        goes_on(&mut supervisor, id + 100);
    }
    supervisor.finish();
}

#[test]
fn half_a_line_without_an_id_and_then_death_is_one_error() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc2", &executor("pc2", &[], ""));
    supervisor.send(1, json!([{"raw": "{\"i"}, {"exit": 7}]));
    let error = supervisor.error(1);
    assert!(error.starts_with("[executor-died] ") && error.contains("code 7"), "{error}");
    goes_on(&mut supervisor, 2);
    supervisor.finish();
}

#[test]
fn junk_second_answers_and_answers_to_nobody_are_ignored() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc2", &executor("pc2", &[], ""));
    let nobody = "{\"id\":99,\"err_msg\":null,\"output\":1}\n";
    let junk = format!("thread panicked\n\n\u{0}\n{nobody}");
    let babble = json!({"babble": 2 << 20});
    supervisor.send(1, json!([{"raw": junk}, babble, {"answer": 1}, {"answer": 2}]));
    assert_eq!(supervisor.output(1), 1);
    goes_on(&mut supervisor, 2);
    supervisor.await_log("an answer to no request of this executor", 2);
    supervisor.await_log("thread panicked", 1);
    supervisor.finish();
}

#[test]
fn an_answer_of_one_executor_to_anothers_request_is_ignored() {
    let scene = Scene::new();
    let two = executor("pc2", &[], "concurrent = 1") + &executor("pc2", &[], "concurrent = 1");
    let mut supervisor = scene.start("pc2", &two);
    supervisor
        .send(1, json!([{"touch": scene.path("1")}, {"await": scene.path("go")}, {"answer": 1}]));
    scene.await_file("1");
    let forged = "{\"id\":1,\"err_msg\":null,\"output\":\"forged\"}\n";
    assert_eq!(supervisor.ask(2, json!([{"raw": forged}, {"answer": 2}])), 2);
    scene.touch("go");
    assert_eq!(supervisor.output(1), 1);
    supervisor.finish();
}

#[test]
fn an_executor_that_closes_its_output_is_replaced() {
    let scene = Scene::new();
    let mut supervisor = scene.start_with("pc2", &executor("pc2", &[], ""), &["--grace", "1s"]);
    supervisor.send(1, json!(["close_stdout", {"await": scene.path("never")}]));
    let error = supervisor.error(1);
    assert!(error.starts_with("[executor-died] "), "{error}");
    assert!(error.contains("because it closed its standard output"), "{error}");
    goes_on(&mut supervisor, 2);
    supervisor.finish();
}

#[test]
fn what_a_dead_executor_started_dies_with_it() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc2", &executor("pc2", &[], ""));
    supervisor.send(1, json!([{"grandchild": scene.path("pid")}, {"signal": "SIGKILL"}]));
    assert!(supervisor.error(1).contains("SIGKILL"));
    let pid = fs::read_to_string(scene.path("pid")).expect("written").parse().expect("a pid");
    eventually("the grandchild dies", || (!is_alive(pid)).then_some(()));
    goes_on(&mut supervisor, 2);
    supervisor.finish();
}

#[test]
fn a_sick_executor_gets_no_task_and_the_others_go_on() {
    let scene = Scene::new();
    let sick = scene.text("sick");
    let starts = scene.text("starts");
    let two = executor("pc2", &["--die-if", &sick, "--starts", &starts], "concurrent = 1")
        + &executor("pc2", &[], "concurrent = 1");
    let mut supervisor = scene.start_with("pc2", &two, &["--crash-loop-after", "3"]);
    scene.touch("sick");
    supervisor.send(1, json!([{"signal": "SIGKILL"}]));
    assert!(supervisor.error(1).starts_with("[executor-died]"));
    for id in 2..30 {
        goes_on(&mut supervisor, id);
    }
    supervisor.await_log("executor is in a crash loop", 1);
    assert_eq!(scene.lines("starts").len(), 4, "one good start and three that failed");
    goes_on(&mut supervisor, 30);
    supervisor.finish();
}

#[test]
fn tasks_are_refused_while_all_executors_are_in_a_crash_loop_and_taken_when_one_recovers() {
    let scene = Scene::new();
    let own = "[supervisor]\ncrash_loop_wait = '300ms'\n";
    let one = executor("pc2", &["--die-if", &scene.text("sick")], "concurrent = 1");
    let mut supervisor =
        scene.start_with("pc2", &format!("{own}{one}"), &["--crash-loop-after", "2"]);
    scene.touch("sick");
    supervisor.send(1, json!([{"signal": "SIGABRT"}]));
    supervisor.send(2, json!([{"answer": 2}]));
    let error = supervisor.error(1);
    assert!(error.contains("signal 6 (SIGABRT)"), "{error}");
    for id in [2, 3] {
        if id == 3 {
            supervisor.send(id, json!([{"answer": 3}]));
        }
        let error = supervisor.error(id);
        assert!(error.starts_with("[unavailable] no executor of pc2 can be had"), "{error}");
        assert!(error.contains("exited with code 9"), "{error}");
    }
    supervisor.await_log("executor is in a crash loop", 3);
    fs::remove_file(scene.path("sick")).expect("there");
    supervisor.await_log("executor is ready", 2);
    goes_on(&mut supervisor, 4);
    supervisor.finish();
}

#[test]
fn an_executor_without_auto_restart_stays_dead() {
    let scene = Scene::new();
    let starts = scene.text("starts");
    let one = executor("pc2", &["--starts", &starts], "auto_restart = false");
    let mut supervisor = scene.start("pc2", &one);
    supervisor.send(1, json!([{"exit": 3}]));
    assert!(supervisor.error(1).contains("exited with code 3"));
    supervisor.send(2, json!([{"answer": 2}]));
    let error = supervisor.error(2);
    assert!(error.contains("[unavailable]") && error.contains("auto_restart is off"), "{error}");
    assert_eq!(scene.lines("starts").len(), 1);
    supervisor.finish();
}

#[test]
fn an_executor_that_hangs_at_its_restart_is_killed_and_started_again() {
    let scene = Scene::new();
    let (starts, slow) = (scene.text("starts"), scene.text("ready"));
    scene.touch("ready");
    let args = ["--starts", &starts, "--ready-if", &slow, "--ignore-sigterm"];
    let one = executor("pc2", &args, "stable_wait = '1s'\nconcurrent = 1");
    let mut supervisor = scene.start_with("pc2", &one, &["--grace", "100ms"]);
    fs::remove_file(scene.path("ready")).expect("there");
    supervisor.send(1, json!([{"exit": 3}]));
    supervisor.send(2, json!([{"answer": 2}]));
    assert!(supervisor.error(1).contains("exited with code 3"));
    supervisor.await_log("it was not ready within 1s", 1);
    scene.touch("ready");
    assert_eq!(supervisor.output(2), 2);
    let pids = scene.lines("starts");
    assert!(pids.len() >= 3, "{pids:?}");
    assert!(!is_alive(pids[1].parse().expect("a pid")), "the hung one was killed");
    supervisor.finish();
}
