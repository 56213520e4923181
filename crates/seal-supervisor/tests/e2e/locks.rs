//! Limits and locks between supervisors.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{ACCEPTED, Scene, eventually, executor, is_alive};

const GPU: &str = "[processors.ext_locks]\ngpu1 = 1\n";

/// A configuration of one executor of `stage` whose tasks hold the lock.
fn sharing(stage: &str) -> String {
    format!("{GPU}{}", executor(stage, &[], "locks = ['gpu1']"))
}

fn logged(scene: &Scene, name: &str) -> Value {
    let log = |text: &str| json!({"log": [scene.path("log"), format!("{text} {name}")]});
    json!([log("start"), {"work_ms": 100}, log("end"), {"answer": name}])
}

#[test]
fn two_supervisors_never_hold_a_lock_at_once_and_take_turns() {
    const TASKS: u64 = 12;
    let scene = Scene::new();
    let mut pc2 = scene.start("pc2", &sharing("pc2"));
    let mut c2 = scene.start("c2", &sharing("c2"));
    // Both start together, when this one is done.
    pc2.send(0, json!([{"touch": scene.path("held")}, {"await": scene.path("go")}, {"answer": 0}]));
    scene.await_file("held");
    for id in 1..=TASKS {
        pc2.send(id, logged(&scene, "pc2"));
        c2.send(id, logged(&scene, "c2"));
    }
    c2.await_log(ACCEPTED, usize::try_from(TASKS).expect("small"));
    scene.touch("go");
    pc2.output(0);
    for id in 1..=TASKS {
        assert_eq!(pc2.output(id), "pc2");
        assert_eq!(c2.output(id), "c2");
    }
    let log = scene.lines("log");
    assert_eq!(log.len(), 4 * usize::try_from(TASKS).expect("small"));
    for pair in log.chunks(2) {
        let name = pair[0].strip_prefix("start ").expect("a start follows an end");
        assert_eq!(pair[1], format!("end {name}"), "{log:?}");
    }
    // Neither is starved: each has a task in the first half.
    for name in ["start pc2", "start c2"] {
        assert!(log[..log.len() / 2].iter().any(|line| line == name), "{log:?}");
    }
    pc2.finish();
    c2.finish();
    scene.assert_nothing_is_locked();
}

#[test]
fn a_waiter_goes_on_when_the_holding_supervisor_is_killed() {
    let scene = Scene::new();
    let mut holder = scene.start("pc2", &sharing("pc2"));
    let mut waiter = scene.start("c2", &sharing("c2"));
    let hold = json!([{"log": [scene.path("pid"), "held"]}, {"await": scene.path("never")}]);
    let executor = holder.ask(1, json!(["describe"]))["pid"].as_i64().expect("a pid");
    holder.send(2, hold);
    scene.await_file("pid");
    waiter.send(1, json!([{"answer": 1}]));
    waiter.await_log(ACCEPTED, 1);
    waiter.assert_no_line();
    holder.signal(Signal::SIGKILL);
    assert_eq!(waiter.output(1), 1);
    eventually("the executor dies with its supervisor", || (!is_alive(executor)).then_some(()));
    waiter.finish();
    scene.assert_nothing_is_locked();
}

#[test]
fn a_waiter_goes_on_when_the_holding_executor_is_killed() {
    let scene = Scene::new();
    let mut holder = scene.start("pc2", &sharing("pc2"));
    let mut waiter = scene.start("c2", &sharing("c2"));
    let wait = json!({"await": scene.path("go")});
    holder.send(1, json!([{"touch": scene.path("held")}, wait, {"signal": "SIGKILL"}]));
    scene.await_file("held");
    waiter.send(1, json!([{"answer": 1}]));
    waiter.await_log(ACCEPTED, 1);
    waiter.assert_no_line();
    scene.touch("go");
    assert_eq!(waiter.output(1), 1);
    assert!(holder.error(1).contains("SIGKILL"));
    assert_eq!(holder.ask(2, json!([{"answer": 2}])), 2);
    holder.finish();
    waiter.finish();
    scene.assert_nothing_is_locked();
}

#[test]
fn a_runtime_directory_that_is_removed_takes_no_lock_with_it() {
    let scene = Scene::new();
    let mut holder = scene.start("pc2", &sharing("pc2"));
    let mut waiter = scene.start("c2", &sharing("c2"));
    let done = json!({"log": [scene.path("log"), "holder"]});
    holder.send(
        1,
        json!([{"touch": scene.path("held")}, {"await": scene.path("go")}, done, {"answer": 1}]),
    );
    scene.await_file("held");
    // In one step, because somebody may just write in it.
    std::fs::rename(scene.path("run"), scene.path("gone")).expect("ours");
    std::fs::remove_dir_all(scene.path("gone")).expect("ours");
    waiter.send(1, json!([{"log": [scene.path("log"), "waiter"]}, {"answer": 1}]));
    for supervisor in [&holder, &waiter] {
        supervisor.await_log("the directory of limits and locks was removed; it is made again", 1);
    }
    holder.send(2, json!([{"answer": 2}]));
    eventually("the holder holds it there too", || (scene.locked().len() == 1).then_some(()));
    scene.touch("go");
    assert_eq!(holder.output(1), 1);
    assert_eq!(waiter.output(1), 1);
    assert_eq!(scene.lines("log"), ["holder", "waiter"]);
    assert_eq!(holder.output(2), 2);
    holder.finish();
    waiter.finish();
    scene.assert_nothing_is_locked();
}

#[test]
fn tasks_are_answered_when_the_runtime_directory_cannot_be_made_again() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc2", &sharing("pc2"));
    assert_eq!(supervisor.ask(1, json!([{"answer": 1}])), 1);
    std::fs::rename(scene.path("run"), scene.path("gone")).expect("ours");
    scene.touch("run");
    supervisor.send(2, json!([{"answer": 2}]));
    let error = supervisor.error(2);
    assert!(error.starts_with("[unavailable] limits and locks cannot be used: "), "{error}");
    assert!(error.contains("run is not a directory"), "{error}");
    let lines = supervisor.log().matches("limits and locks cannot be used; tasks wait").count();
    // Once for each thing that was found: for a moment there was nothing at all.
    assert!(lines <= 2, "not each second: {}", supervisor.log());
    std::fs::remove_file(scene.path("run")).expect("ours");
    // The place is looked at each second; a request that comes before that is told the same.
    let served = (3..1000).find(|id| {
        supervisor.send(*id, json!([{"answer": *id}]));
        match supervisor.answer() {
            (got, Ok(output)) => got == *id && output == *id,
            (_, Err(error)) => {
                assert!(error.starts_with("[unavailable] limits and locks"), "{error}");
                std::thread::sleep(std::time::Duration::from_millis(50));
                false
            }
        }
    });
    assert!(served.is_some(), "{}", supervisor.log());
    supervisor.finish();
}

#[test]
fn supervisors_of_one_stage_share_its_limit() {
    let scene = Scene::new();
    let config =
        format!("[processors.limitation.concurrent]\npc1 = 1\n{}", executor("pc1", &[], ""));
    let (mut one, mut other) = (scene.start("pc1", &config), scene.start("pc1", &config));
    one.send(1, json!([{"touch": scene.path("held")}, {"await": scene.path("go")}, {"answer": 1}]));
    scene.await_file("held");
    other.send(1, json!([{"touch": scene.path("second")}, {"answer": 1}]));
    other.await_log(ACCEPTED, 1);
    // The other one has looked at least once when its log says so; the task cannot have started.
    assert!(!scene.path("second").exists());
    scene.touch("go");
    one.output(1);
    other.output(1);
    one.finish();
    other.finish();
}

#[test]
fn a_task_goes_to_the_executor_whose_lock_is_free() {
    let scene = Scene::new();
    let locks = "[processors.ext_locks]\ngpu1 = 1\ngpu2 = 1\n";
    let two = executor("pc2", &[], "locks = ['gpu1']") + &executor("pc2", &[], "locks = ['gpu2']");
    let mut holder =
        scene.start("c2", &format!("{locks}{}", executor("c2", &[], "locks = ['gpu1']")));
    let mut pc2 = scene.start("pc2", &format!("{locks}{two}"));
    holder.send(
        1,
        json!([{"touch": scene.path("held")}, {"await": scene.path("go")}, {"answer": 1}]),
    );
    scene.await_file("held");
    let first = pc2.ask(1, json!(["describe"]))["pid"].clone();
    assert_eq!(pc2.ask(2, json!(["describe"]))["pid"], first, "the other's lock is held");
    scene.touch("go");
    holder.output(1);
    holder.finish();
    pc2.finish();
}

#[test]
fn a_supervisor_that_knows_another_count_does_not_start() {
    let scene = Scene::new();
    let running = scene.start("pc2", &sharing("pc2"));
    let other = sharing("c2").replace("gpu1 = 1", "gpu1 = 2");
    let config = scene.config("other.toml", &other);
    let output = scene.command("c2", &config).output().expect("it runs");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{log}");
    let text = "lock gpu1 is 2 here and 1 for the supervisor of pc2 that runs";
    assert!(log.contains(text) && log.contains(&format!("pid {}", running.pid())), "{log}");
    running.finish();
    let mut alone = scene.start("c2", &other);
    assert_eq!(alone.ask(1, json!([{"answer": 1}])), 1);
    alone.finish();
}

#[test]
fn starts_keep_their_distance_across_supervisors_and_restarts() {
    let scene = Scene::new();
    let stagger = "[processors.limitation.staggered]\npc1 = '400ms'\n";
    let config = format!("{stagger}{}", executor("pc1", &[], ""));
    let begin = std::time::Instant::now();
    let (mut one, mut other) = (scene.start("pc1", &config), scene.start("pc1", &config));
    one.send(1, json!([{"answer": 1}]));
    other.send(1, json!([{"answer": 1}]));
    one.output(1);
    other.output(1);
    one.finish();
    other.signal(Signal::SIGKILL);
    other.wait_status();
    let mut later = scene.start("pc1", &config);
    later.ask(1, json!([{"answer": 1}]));
    let passed = begin.elapsed();
    assert!(passed.as_millis() >= 800, "three starts took {passed:?}");
    later.finish();
}

#[test]
fn a_lock_is_not_held_while_a_request_waits_for_an_executor() {
    let scene = Scene::new();
    let locks = "[processors.ext_locks]\na = 1\nb = 1\n";
    let both = executor("pc2", &[], "concurrent = 1\nlocks = ['b', 'a']");
    let mut pc2 = scene.start("pc2", &format!("{locks}{both}"));
    let mut c2 = scene.start("c2", &format!("{locks}{}", executor("c2", &[], "locks = ['b']")));
    c2.send(1, json!([{"touch": scene.path("held")}, {"await": scene.path("go")}, {"answer": 1}]));
    scene.await_file("held");
    pc2.send(1, json!([{"answer": 1}]));
    pc2.await_log(ACCEPTED, 1);
    assert_eq!(scene.locked(), [("lock-b.slots".to_owned(), 0)], "it waits for b, and a is free");
    scene.touch("go");
    c2.output(1);
    pc2.output(1);
    pc2.finish();
    c2.finish();
}
