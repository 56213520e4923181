//! A parent that does not read what the supervisor writes.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Write};
use std::thread;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Scene, Supervisor, executor, resident_kib};

#[test]
fn with_an_unread_log_tasks_go_on_and_the_end_is_obeyed() {
    const TASKS: u64 = 400;
    let scene = Scene::new();
    let config = scene.config("c.toml", &executor("pc1", &[], "concurrent = 8"));
    let (_unread, log) = io::pipe().expect("a pipe");
    let mut command = scene.command("pc1", &config);
    let mut supervisor =
        Supervisor::attach(command.stdout(std::process::Stdio::piped()).stderr(log));
    drop(command);
    supervisor.ready("pc1");
    // Far more than the pipe and the queue hold, of the supervisor and of its executor.
    for id in 0..TASKS {
        supervisor.send(id, json!([{"complain": "x".repeat(10_000)}, {"answer": id}]));
    }
    let mut answered = BTreeSet::new();
    for _ in 0..TASKS {
        let (id, output) = supervisor.answer();
        assert_eq!(output.expect("answered"), id);
        assert!(answered.insert(id), "{id} was answered twice");
    }
    let memory = resident_kib(supervisor.pid());
    assert!(memory < 16 << 10, "{memory} KiB resident");
    supervisor.send(TASKS, json!([{"touch": scene.path("runs")}, {"await": scene.path("never")}]));
    scene.await_file("runs");
    supervisor.signal(Signal::SIGTERM);
    assert!(supervisor.error(TASKS).starts_with("[cancelled]"));
    assert_eq!(supervisor.wait(), 0);
}

#[test]
fn lines_that_were_lost_are_told_when_the_log_is_read_again() {
    let scene = Scene::new();
    let config = scene.config("c.toml", &executor("pc1", &[], ""));
    let (unread, log) = io::pipe().expect("a pipe");
    let mut command = scene.command("pc1", &config);
    let mut supervisor =
        Supervisor::attach(command.stdout(std::process::Stdio::piped()).stderr(log));
    drop(command);
    supervisor.ready("pc1");
    let complaint = json!({"complain": "x".repeat(60_000)});
    for id in 0..40 {
        supervisor.ask(id, json!([complaint, {"answer": id}]));
    }
    let reader = thread::spawn(move || {
        let lines = BufReader::new(unread).lines().map(|line| line.expect("UTF-8"));
        lines.filter(|line| !line.starts_with("xxx")).collect::<Vec<_>>()
    });
    supervisor.finish();
    let lines = reader.join().expect("no panic");
    let told: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).expect("whole lines"))
        .filter(|line: &Value| {
            line["message"].as_str().is_some_and(|text| text.starts_with("log lines were lost"))
        })
        .collect();
    assert!(told.iter().any(|line| line["lost"].as_u64() > Some(0)), "{lines:#?}");
}

#[test]
fn requests_that_wait_stay_in_the_pipe_when_they_are_many() {
    const REQUESTS: u64 = 10_000;
    let scene = Scene::new();
    let config = executor("pc1", &[], "concurrent = 1");
    let mut supervisor = scene.start("pc1", &config);
    supervisor.send(REQUESTS, json!([{"await": scene.path("go")}, {"answer": 0}]));
    let mut input = supervisor.take_input();
    let sender = thread::spawn(move || {
        // 50 MB in all.
        let padding = "x".repeat(5000);
        for id in 0..REQUESTS {
            let line = json!({"id": id, "task": [{"answer": id}], "padding": padding});
            input.write_all(format!("{line}\n").as_bytes()).expect("the supervisor reads");
        }
        input
    });
    supervisor.await_log("many requests wait; further ones are not read yet", 1);
    let memory = resident_kib(supervisor.pid());
    assert!(memory < 32 << 10, "{memory} KiB resident");
    scene.touch("go");
    let mut answered = BTreeSet::new();
    for _ in 0..=REQUESTS {
        let (id, output) = supervisor.answer();
        assert!(output.is_ok() && answered.insert(id), "{id}: {output:?}");
    }
    drop(sender.join().expect("no panic"));
    assert_eq!(supervisor.wait_status().code(), Some(0));
}

#[test]
fn a_parent_that_dies_while_many_requests_wait_is_seen() {
    // As the supervisor counts it: 8 MiB, and 256 bytes for each on top of its own.
    const ROOM: usize = 8 << 20;
    for input_stays in [false, true] {
        let scene = Scene::new();
        let config = scene.config("c.toml", &executor("pc1", &[], "concurrent = 1"));
        let (answers, output) = io::pipe().expect("a pipe");
        let mut command = scene.command("pc1", &config);
        let mut supervisor =
            Supervisor::attach(command.stdout(output).stderr(std::process::Stdio::piped()));
        drop(command);
        let mut ready = String::new();
        let mut answers = BufReader::new(answers);
        answers.read_line(&mut ready).expect("it says that it is ready");
        supervisor.send(0, json!([{"await": scene.path("never")}]));
        supervisor.await_log("task starts", 1);
        let padding = "x".repeat(5000);
        // And some more, which stay in the pipe.
        let (mut held, mut more, mut id) = (0, 3, 0);
        while more > 0 {
            id += 1;
            let line = json!({"id": id, "task": [{"answer": id}], "padding": padding}).to_string();
            held += 256 + line.len();
            more -= usize::from(held > ROOM);
            supervisor.send_raw(format!("{line}\n").as_bytes());
        }
        supervisor.await_log("many requests wait; further ones are not read yet", 1);
        // The parent is gone; another process of it may still have the input.
        let kept = Some(supervisor.take_input()).filter(|_| input_stays);
        drop(answers);
        assert_eq!(supervisor.wait_status().code(), Some(5), "{}", supervisor.log());
        drop(kept);
    }
}

#[test]
fn with_unread_answers_no_more_requests_are_taken_until_they_are_read() {
    const REQUESTS: u64 = 20_000;
    let scene = Scene::new();
    let config = scene.config("c.toml", &executor("pc1", &[], ""));
    let (answers, output) = io::pipe().expect("a pipe");
    let mut command = scene.command("pc1", &config);
    command.env("RUST_LOG", "info,seal_supervisor::supervisor::requests=off");
    let mut supervisor =
        Supervisor::attach(command.stdout(output).stderr(std::process::Stdio::piped()));
    drop(command);
    let mut lines = BufReader::new(answers).lines().map(|line| line.expect("UTF-8"));
    assert_eq!(lines.next().as_deref(), Some("pc1 processor ready"));
    let mut input = supervisor.take_input();
    let sender = thread::spawn(move || {
        // Lines of 5 kB that are answered at once.
        let padding = "x".repeat(5000);
        for id in 0..REQUESTS {
            let line = json!({"id": id, "padding": padding});
            input.write_all(format!("{line}\n").as_bytes()).expect("the supervisor reads");
        }
        input
    });
    supervisor.await_log("the parent does not read answers; no requests are taken", 1);
    let memory = resident_kib(supervisor.pid());
    assert!(memory < 16 << 10, "{memory} KiB resident");
    let mut answered = BTreeSet::new();
    for line in lines.by_ref().take(usize::try_from(REQUESTS).expect("small")) {
        let answer: Value = serde_json::from_str(&line).expect("answers are JSON");
        assert!(answer["err_msg"].as_str().is_some_and(|e| e.starts_with("[bad-request]")));
        assert!(answered.insert(answer["id"].as_u64()), "{line} is there twice");
    }
    assert_eq!(answered.len() as u64, REQUESTS);
    drop(sender.join().expect("no panic"));
    assert_eq!(lines.next(), None);
    assert_eq!(supervisor.wait_status().code(), Some(0));
}
