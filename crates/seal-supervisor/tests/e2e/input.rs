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
        (br#"{"task":1,"task":2,"id":4}"#, 4, "duplicate field `task`"),
        (br#"{"more":{"id":1},"id":5}"#, 5, "missing field `task`"),
        (br#"{"task":[broken],"id":6}"#, 6, "expected value"),
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
fn an_id_that_was_answered_and_is_used_again_at_once_is_a_new_request() {
    let scene = Scene::new();
    let config = executor("pc2", &[], "concurrent = 2");
    let mut supervisor = scene.start("pc2", &config);
    for time in 0..2000 {
        assert_eq!(supervisor.ask(7, json!([{"answer": time}])), time);
    }
    supervisor.finish();
}

#[test]
fn content_of_a_line_is_neither_answered_nor_logged_whole() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc2", &executor("pc2", &[], ""));
    let long = "x".repeat(500_000);
    for (id, line) in [
        (1, format!("{{\"id\":1,\"{long}")),
        (2, format!("{{\"{long}\":1,\"id\":2,\"task\":[{long}]}}")),
        (3, format!("{{\"task\":\"{}\",\"id\":3}}", long.repeat(200))),
    ] {
        supervisor.send_raw(line.as_bytes());
        supervisor.send_raw(b"\n");
        let error = supervisor.error(id);
        assert!(error.len() < 1024, "{} bytes", error.len());
    }
    // What names the sector may be long too.
    let path = format!("/sectors/{long}");
    supervisor.send(4, json!({"steps": [{"answer": 4}], "sector_id": 1, "cache_path": path}));
    assert_eq!(supervisor.output(4), 4);
    let steps = json!({"steps": [{"fail": long}], "sector_id": 1});
    supervisor.send(5, steps);
    assert_eq!(supervisor.error(5).len(), long.len(), "an executor's own error is passed on");
    let log = supervisor.log();
    assert!(log.len() < 64 << 10, "{} bytes of log", log.len());
    supervisor.finish();
}

#[test]
fn a_sector_is_named_by_its_directory_and_what_contradicts_that_is_told() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc2", &executor("pc2", &[], ""));
    let task = |number: u64| {
        let cache = "/sectors/s-t01000-1/cache";
        json!({"steps": [{"answer": number}], "sector_id": number, "cache_path": cache})
    };
    for number in [1, 5] {
        supervisor.send(number, task(number));
        assert_eq!(supervisor.output(number), number);
    }
    supervisor.await_log("\"req\":5,\"sector\":\"s-t01000-1\"", 2);
    supervisor.await_log("the request contradicts itself: sector_id is 5", 1);
    assert_eq!(supervisor.log().matches("contradicts itself").count(), 1);
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
