//! Which executor gets which request, and when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Scene, Supervisor, executor, open_files, resident_kib};

/// Steps that write when they start and end, and wait for a file in between.
fn logged(scene: &Scene, name: &str, until: Option<&str>) -> Value {
    let log = scene.path("log");
    let mut steps = vec![json!({"log": [log, format!("start {name}")]})];
    steps.extend(until.map(|file| json!({"await": scene.path(file)})));
    steps.push(json!({"log": [log, format!("end {name}")]}));
    steps.push(json!({"answer": name}));
    steps.into()
}

/// The most tasks at once that the log shows.
fn most_at_once(log: &[String]) -> usize {
    let (mut running, mut most) = (0, 0);
    for line in log {
        if line.starts_with("start") {
            running += 1
        } else {
            running -= 1
        }
        most = most.max(running);
    }
    most
}

#[test]
fn requests_go_to_the_least_loaded_executor_that_has_room() {
    let scene = Scene::new();
    let config = executor("pc1", &[], "concurrent = 4") + &executor("pc1", &[], "concurrent = 2");
    let mut supervisor = scene.start("pc1", &config);
    for id in 0..6 {
        let started = scene.path(&format!("started {id}"));
        supervisor.send(id, json!([{"touch": started}, {"await": scene.path("go")}, "describe"]));
        scene.await_file(&format!("started {id}"));
    }
    scene.touch("go");
    let mut placed = BTreeMap::<_, Vec<_>>::new();
    for _ in 0..6 {
        let (id, output) = supervisor.answer();
        let pid = output.expect("answered")["pid"].as_u64().expect("a pid");
        placed.entry(pid).or_default().push(id);
    }
    let mut placed: Vec<_> = placed.into_values().collect();
    placed.iter_mut().for_each(|ids| ids.sort_unstable());
    placed.sort();
    assert_eq!(placed, [vec![0, 2, 4, 5], vec![1, 3]]);
    supervisor.finish();
}

#[test]
fn an_executor_never_has_more_tasks_than_it_takes_and_they_start_in_order() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc1", &executor("pc1", &[], "concurrent = 1"));
    for id in 0..10 {
        supervisor.send(id, logged(&scene, &id.to_string(), None));
    }
    for id in 0..10 {
        assert_eq!(supervisor.output(id), id.to_string());
    }
    let expected: Vec<_> =
        (0..10).flat_map(|id| [format!("start {id}"), format!("end {id}")]).collect();
    assert_eq!(scene.lines("log"), expected);
    supervisor.finish();
}

#[test]
fn the_limit_of_the_stage_holds_over_all_its_executors() {
    let scene = Scene::new();
    let limit = "[processors.limitation.concurrent]\npc1 = 3\n";
    let two = executor("pc1", &[], "") + &executor("pc1", &[], "");
    let mut supervisor = scene.start("pc1", &format!("{limit}{two}"));
    for id in 0..9 {
        supervisor.send(id, logged(&scene, &id.to_string(), Some("go")));
    }
    crate::harness::eventually("three run", || (scene.lines("log").len() == 3).then_some(()));
    scene.touch("go");
    for _ in 0..9 {
        supervisor.answer().1.expect("answered");
    }
    assert_eq!(most_at_once(&scene.lines("log")), 3);
    supervisor.finish();
    scene.assert_nothing_is_locked();
}

#[test]
fn starts_keep_their_distance() {
    let scene = Scene::new();
    let stagger = "[processors.limitation.staggered]\npc1 = '300ms'\n";
    let mut supervisor = scene.start("pc1", &format!("{stagger}{}", executor("pc1", &[], "")));
    let begin = Instant::now();
    for id in 0..3 {
        supervisor.send(id, json!([{"answer": 0}]));
    }
    for id in 0..3 {
        supervisor.output(id);
    }
    let passed = begin.elapsed();
    assert!(passed >= Duration::from_millis(600), "three starts took {passed:?}");
    supervisor.finish();
}

#[test]
fn answers_are_passed_on_in_any_order_as_they_are() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc1", &executor("pc1", &[], ""));
    let odd = r#"{ "output" : {"b":1,"a":[ 1e2 ]}, "err_msg" : null, "id":7, "extra":"ü" }"#;
    supervisor.send(1, json!([{"await": scene.path("go")}, {"fail": "[io] cannot"}]));
    supervisor.send(7, json!([{"raw": format!("{odd}\n")}, {"touch": scene.path("go")}]));
    assert_eq!(supervisor.line(), odd);
    assert_eq!(supervisor.error(1), "[io] cannot");
    supervisor.finish();
}

#[test]
fn requests_are_passed_on_as_they_are() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc1", &executor("pc1", &[], ""));
    let line = br#" { "task" : [ {"length":{}} ] , "more" : 1, "id" : 5 } "#;
    supervisor.send_raw(line);
    supervisor.send_raw(b"\r\n\n");
    assert_eq!(supervisor.output(5), line.len());
    supervisor.finish();
}

#[test]
fn a_request_of_60_megabytes_goes_through() {
    let scene = Scene::new();
    let mut supervisor = scene.start("c2", &executor("c2", &[], ""));
    let line = json!({"id": 1, "task": [{"length": {"padding": "x".repeat(60_000_000)}}]});
    let line = line.to_string();
    supervisor.send_raw(line.as_bytes());
    supervisor.send_raw(b"\n");
    assert_eq!(supervisor.output(1), line.len());
    supervisor.finish();
}

#[test]
fn each_change_of_state_is_one_line_with_stage_sector_request_and_pid() {
    let scene = Scene::new();
    let config = scene.config("c.toml", &executor("pc1", &[], ""));
    let mut supervisor = Supervisor::spawn(scene.command("pc1", &config).env("RUST_LOG", "info"));
    supervisor.ready("pc1");
    supervisor.send(5, json!({"sector_id": 77, "steps": ["describe"]}));
    let pid = supervisor.output(5)["pid"].clone();
    supervisor.await_log("task ends", 1);
    let lines: Vec<Value> = supervisor
        .log()
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON where there is no terminal"))
        .collect();
    for (message, has_task) in [
        ("executor starts", false),
        ("executor is ready", false),
        ("task starts", true),
        ("task ends", true),
    ] {
        let told: Vec<_> = lines.iter().filter(|line| line["message"] == message).collect();
        let [line] = told[..] else { panic!("{message} is told {} times", told.len()) };
        assert_eq!((&line["pid"], &line["span"]["stage"]), (&pid, &json!("pc1")), "{line}");
        if has_task {
            assert_eq!((&line["req"], &line["sector"]), (&json!(5), &json!("77")), "{line}");
        }
    }
    supervisor.finish();
}

#[test]
fn ten_thousand_requests_are_answered_once_each_and_leave_nothing_behind() {
    const MANY: u64 = 10_000;
    let scene = Scene::new();
    let config = executor("pc1", &[], "concurrent = 4") + &executor("pc1", &[], "concurrent = 4");
    let limit = "[processors.limitation.concurrent]\npc1 = 8\n";
    let config = scene.config("pc1.toml", &format!("{limit}{config}"));
    let mut command = scene.command("pc1", &config);
    let mut supervisor = Supervisor::spawn(command.env("RUST_LOG", "warn"));
    supervisor.ready("pc1");
    let mut run = |first: u64, count: u64, ahead: u64| {
        let mut answered = std::collections::BTreeSet::new();
        let mut next = first;
        while answered.len() as u64 != count {
            while next < first + count && next < first + answered.len() as u64 + ahead {
                supervisor.send(next, json!([{"answer": next}]));
                next += 1;
            }
            let (id, output) = supervisor.answer();
            assert_eq!(output.expect("answered"), id);
            assert!(answered.insert(id), "request {id} was answered twice");
        }
        (resident_kib(supervisor.pid()), open_files(supervisor.pid()))
    };
    // Some of them all at once, so that many wait.
    let (memory, files) = run(0, 2500, 2000);
    let (memory_after, files_after) = run(2500, MANY, 2000);
    assert_eq!(files_after, files, "descriptors");
    assert!(memory_after < 16 << 10, "{memory_after} KiB resident");
    // 100 bytes for each task would be 1 MB.
    assert!(memory_after < memory + 1024, "{memory} KiB, then {memory_after} KiB resident");
    supervisor.finish();
    scene.assert_nothing_is_locked();
}
