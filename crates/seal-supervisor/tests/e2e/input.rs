//! Bad input from the parent.

use serde_json::json;

use crate::harness::{Scene, executor};

#[test]
fn bad_lines_are_answered_where_they_have_an_id_and_serving_goes_on() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc2", &executor("pc2", &[], ""));
    supervisor.send_raw(b"junk\n\xff\xfe\n{}\n[]\n{\"id\":-1,\"task\":{}}\n\n   \n");
    for (line, id, text) in [
        (&br#"{"id":1,"task":{"a":"#[..], 1, "EOF while parsing"),
        (br#"{"id":2}"#, 2, "missing field `task`"),
        (br#"{"id":3,"task":1,"task":2}"#, 3, "duplicate field `task`"),
    ] {
        supervisor.send_raw(line);
        supervisor.send_raw(b"\n");
        let error = supervisor.error(id);
        assert!(error.starts_with("[bad-request] ") && error.contains(text), "{error}");
    }
    supervisor.await_log("a line is no request and has no id", 5);
    assert_eq!(supervisor.ask(9, json!([{"answer": 9}])), 9);
    supervisor.finish();
}

#[test]
fn a_line_over_the_cap_is_answered_and_serving_goes_on() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc2", &executor("pc2", &[], ""));
    let cap = seal_types::Stage::Pc2.line_cap();
    let line = |id: u64, length: usize| {
        let begin = format!("{{\"id\":{id},\"task\":[{{\"length\":{{\"x\":\"");
        let end = "\"}}]}";
        let padding = "x".repeat(length - begin.len() - end.len());
        format!("{begin}{padding}{end}\n")
    };
    supervisor.send_raw(line(1, cap + 1).as_bytes());
    assert_eq!(
        supervisor.error(1),
        "[bad-request] the line has 1048577 bytes and requests of pc2 may have 1048576"
    );
    supervisor.send_raw(line(2, cap).as_bytes());
    assert_eq!(supervisor.output(2), cap);
    supervisor.finish();
}

#[test]
fn a_request_that_repeats_an_id_in_use_is_ignored() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc2", &executor("pc2", &[], ""));
    supervisor.send(1, json!([{"await": scene.path("go")}, {"answer": "first"}]));
    supervisor.send(1, json!([{"answer": "second"}]));
    supervisor.send_raw(b"{\"id\":1,\"task\":[broken\n");
    supervisor.await_log("a request repeats an id in use; it is ignored", 2);
    scene.touch("go");
    assert_eq!(supervisor.output(1), "first");
    assert_eq!(supervisor.ask(1, json!([{"answer": "third"}])), "third");
    supervisor.finish();
}

#[test]
fn half_a_line_at_the_end_of_input_is_answered_or_ignored() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc2", &executor("pc2", &[], ""));
    supervisor.send_raw(br#"{"id":4,"task":[{"answer"#);
    supervisor.end_input();
    assert!(supervisor.error(4).starts_with("[bad-request]"));
    assert_eq!(supervisor.wait(), 0);

    let mut supervisor = scene.start("pc2", &executor("pc2", &[], ""));
    supervisor.send_raw(br#"{"i"#);
    supervisor.finish();
}

#[test]
fn a_last_request_without_a_line_end_is_done() {
    let scene = Scene::new();
    let config = format!("[supervisor]\ndrain = 'task'\n{}", executor("pc2", &[], ""));
    let mut supervisor = scene.start("pc2", &config);
    supervisor.send_raw(br#"{"id":4,"task":[{"answer":4}]}"#);
    supervisor.end_input();
    assert_eq!(supervisor.output(4), 4);
    assert_eq!(supervisor.wait(), 0);
}
