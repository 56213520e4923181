//! What the status and the metrics say of a supervisor that runs.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use test_support::exposition::Exposition;
use test_support::skip::skipped;

use crate::harness::{Scene, Supervisor, eventually, executor};

fn status_command(scene: &Scene, args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_seal-supervisor"))
        .arg("status")
        .args(args)
        .env("SEAL_RUNTIME_DIR", scene.path("run"))
        .env_remove("SEAL_CONFIG")
        .output()
        .expect("it runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The status, once it is as `wanted`.
fn status_when(scene: &Scene, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || {
        let status: Value =
            serde_json::from_str(&status_command(scene, &["--json"])).expect("JSON");
        wanted(&status).then_some(status)
    })
}

/// The status where nothing runs.
fn nobody(scene: &Scene) -> String {
    format!("no supervisor is running in {}\n", scene.text("run"))
}

/// A port that nobody listens on now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

/// The metrics, which a strict reader takes, once somebody serves them.
fn scrape(port: u16) -> Option<Exposition> {
    let mut client = TcpStream::connect(("127.0.0.1", port)).ok()?;
    client.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").ok()?;
    let mut text = String::new();
    client.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    Some(Exposition::parse(body).unwrap_or_else(|error| panic!("{error:#}\n{body}")))
}

#[test]
fn the_status_tells_how_far_a_whole_task_is_and_why_it_waits() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc1", &executor("pc1", &[], ""));
    let event = |part: &str, done: u64, more: &str| {
        json!({"raw": format!(
            "{{\"event\":\"progress\",\"id\":7,\"part\":\"{part}\",\"done\":{done},\"total\":4,\
             \"unit\":\"steps\"{more},\"whole\":{{\"permille\":417,\"left_ms\":6120000}}}}\n"
        )})
    };
    let waits = ",\"waits\":\"for a seat: all are taken\"";
    let beside = format!(",\"beside\":true{waits}");
    let steps = json!([
        event("layer 1", 1, ""),
        event("waiting", 0, waits),
        event("copy", 4, &beside),
        {"await": scene.path("go")},
        event("layer 1", 2, ""),
        {"await": scene.path("end")},
        {"answer": 7},
    ]);
    supervisor.send(7, steps);
    let task = |status: &Value| status["supervisors"][0]["executors"][0]["tasks"][0].clone();
    let status = status_when(&scene, "it waits", |status| !task(status)["waits"].is_null());
    let told = task(&status);
    assert_eq!(told["waits"], "for a seat: all are taken");
    assert_eq!((&told["whole"], &told["left"]), (&json!(0.417), &json!(6120.0)));
    let text = status_command(&scene, &[]);
    for part in
        ["  41 % done, 1h 42m of work left  layer 1 25 %", "waits for a seat: all are taken"]
    {
        assert!(text.contains(part), "{part}\n{text}");
    }
    scene.touch("go");
    let status = status_when(&scene, "it goes on", |status| task(status)["waits"].is_null());
    assert_eq!(task(&status)["progress"]["done"], 2, "the copy does not hide the layer");
    assert!(status_command(&scene, &[]).contains("41 % done, 1h 42m left  layer 1 50 %"));
    scene.touch("end");
    supervisor.output(7);
    supervisor.finish();
}

#[test]
fn the_status_tells_executors_tasks_locks_waiting_and_the_last_tasks() {
    let scene = Scene::new();
    let cpu = seal_host::allowed_cpus().expect("readable").first().expect("one");
    let locks = "[processors.ext_locks]\ngpu1 = 1\n";
    let more = format!(
        "locks = ['gpu1']\ncgroup.cpuset = '{cpu}'\nenvs = {{ CUDA_VISIBLE_DEVICES = '3', \
         API_TOKEN = 'hunter2' }}"
    );
    assert_eq!(status_command(&scene, &[]), nobody(&scene));
    let one = executor("c2", &[], &more);
    let config = format!("{locks}{one}{}", executor("c2", &[], "locks = ['gpu1']"));
    let mut supervisor = scene.start("c2", &config);
    supervisor.ask(1, json!([{"answer": 1}]));
    supervisor.send(2, json!([{"await": scene.path("go")}, {"answer": 2}]));
    supervisor.send(3, json!([{"answer": 3}]));
    let status = status_when(&scene, "one runs, one waits, one is done", |status| {
        let told = &status["supervisors"][0];
        let running = |index: usize| &told["executors"][index]["tasks"][0]["req"];
        (running(0) == 2 || running(1) == 2)
            && told["waiting"] == 1
            && told["history"][0]["req"] == 1
            && status["queue"][0]["stage"] == "c2"
    });
    let told = &status["supervisors"][0];
    assert_eq!((&told["pid"], &told["stage"]), (&json!(supervisor.pid()), &json!("c2")));
    assert_eq!((&told["life"], &told["done"]), (&json!("serving"), &json!(1)));
    let executor = &told["executors"][0];
    assert_eq!(executor["state"], "ready");
    let busy = told["executors"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|executor| executor["tasks"][0]["req"] == 2);
    let busy = busy.expect("one of them runs it");
    assert_eq!((&executor["cpus"], &executor["gpu"]), (&json!(cpu.to_string()), &json!("3")));
    assert_eq!(executor["live"]["cpus"], cpu.to_string(), "read from the kernel");
    assert!(executor["live"]["resident"].as_u64().is_some_and(|bytes| bytes > 0));
    assert_eq!(busy["tasks"][0]["holds"], json!(["lock gpu1"]));
    let lock = &status["resources"][0];
    assert_eq!((&lock["kind"], &lock["name"]), (&json!("lock"), &json!("gpu1")));
    assert_eq!((&lock["count"], &lock["held"]), (&json!(1), &json!(1)));
    assert_eq!(lock["holders"][0]["executor"], busy["pid"]);
    let reason = status["queue"][0]["reason"].as_str().expect("text");
    assert!(reason.contains("gpu1 is held by c2"), "{reason}");
    let had = told["history"][0]["executor"].as_str().expect("an executor had it");
    assert!(had.starts_with("processors.c2["), "{had}");

    let text = status_command(&scene, &[]);
    for part in ["c2  supervisor ", "lock gpu1  1 of 1 held", "gpu 3", "last tasks"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("hunter2") && !status.to_string().contains("hunter2"));
    assert!(!supervisor.log().contains("hunter2"), "{}", supervisor.log());

    scene.touch("go");
    supervisor.output(2);
    supervisor.output(3);
    supervisor.finish();
    assert_eq!(status_command(&scene, &[]), nobody(&scene));
    let files = std::fs::read_dir(scene.path("run/status")).expect("there").count();
    assert_eq!(files, 0, "the status was left behind");
}

/// All files below `dir` with their owners.
fn owners(dir: &Path, found: &mut BTreeMap<PathBuf, u32>) {
    for entry in std::fs::read_dir(dir).expect("readable").flatten() {
        let path = entry.path();
        // One that is just being replaced may be gone.
        let Ok(meta) = entry.metadata() else { continue };
        found.insert(path.clone(), meta.uid());
        if path.is_dir() {
            owners(&path, found);
        }
    }
}

#[test]
fn root_sees_the_supervisors_of_a_services_user_and_another_user_is_told_why_not() {
    const USER: u32 = 4242;
    let name = "root_sees_the_supervisors_of_a_services_user_and_another_user_is_told_why_not";
    let scene = Scene::new();
    let locks = "[processors.ext_locks]\ngpu1 = 1\n";
    let config = format!("{locks}{}", executor("c2", &[], "locks = ['gpu1']"));
    let mut supervisor = scene.start("c2", &config);
    supervisor.ask(1, json!([{"answer": 1}]));
    status_when(&scene, "it is there", |status| status["supervisors"][0]["done"] == 1);
    // To whoever looks these are now files of a service's user.
    let run = scene.path("run");
    let mut files = BTreeMap::from([(run.clone(), 0)]);
    owners(&run, &mut files);
    for path in files.keys() {
        if let Err(error) = std::os::unix::fs::chown(path, Some(USER), None) {
            return skipped(name, &format!("only root gives files away: {error}"));
        }
    }
    let open: Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(scene.path(""), open).expect("ours");
    let told = status_command(&scene, &[]);
    assert!(told.contains("c2  supervisor ") && told.contains("lock gpu1  0 of 1 held"), "{told}");
    let mut after = BTreeMap::new();
    owners(&run, &mut after);
    let made = after.iter().filter(|(path, owner)| **owner == 0 && !files.contains_key(*path));
    // Its own supervisor, which is root's in truth, replaces its files all the while.
    let made: Vec<_> =
        made.filter(|(path, _)| path.extension().is_none_or(|e| e != "part")).collect();
    assert!(made.is_empty(), "{made:?}");

    let other = Command::new(env!("CARGO_BIN_EXE_seal-supervisor"))
        .args(["status", "--runtime-dir"])
        .arg(&run)
        .env_remove("SEAL_CONFIG")
        .uid(USER + 1)
        .output();
    let Ok(output) = other else {
        return skipped(name, "another user cannot run what was built here");
    };
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains("belongs to user 4242: look at it as that user or as root"), "{told}");
    supervisor.finish();
}

#[test]
fn output_that_cannot_be_written_is_said_to_be_that() {
    let scene = Scene::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("there");
    let output = Command::new(env!("CARGO_BIN_EXE_seal-supervisor"))
        .arg("status")
        .env("SEAL_RUNTIME_DIR", scene.path("run"))
        .env_remove("SEAL_CONFIG")
        .stdout(full)
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("cannot write to standard output: No space left"), "{told}");
}

#[test]
fn what_waits_for_a_lock_of_its_own_stage_is_told_so() {
    let scene = Scene::new();
    let lock = "[processors.ext_locks]\ngpu = 1\n";
    let config = format!("{lock}{}", executor("pc2", &[], "locks = ['gpu']"));
    let mut supervisor = scene.start("pc2", &config);
    supervisor.send(1, json!([{"await": scene.path("go")}, {"answer": 1}]));
    supervisor.send(2, json!([{"answer": 2}]));
    let status =
        status_when(&scene, "one waits", |status| status["supervisors"][0]["queue"][0]["req"] == 2);
    let reason = &status["supervisors"][0]["queue"][0]["reason"];
    assert_eq!(reason, "lock gpu is held by tasks of this supervisor's own executors");
    scene.touch("go");
    assert_eq!((supervisor.output(1), supervisor.output(2)), (json!(1), json!(2)));
    supervisor.finish();
}

#[test]
fn a_status_of_a_killed_supervisor_is_not_shown_and_goes_with_the_next_start() {
    let scene = Scene::new();
    let mut killed = scene.start("c2", &executor("c2", &[], ""));
    status_when(&scene, "it is there", |status| status["supervisors"][0]["stage"] == "c2");
    killed.signal(nix::sys::signal::Signal::SIGKILL);
    killed.wait_status();
    assert_eq!(status_command(&scene, &[]), nobody(&scene));
    let next = scene.start("pc2", &executor("pc2", &[], ""));
    let status =
        status_when(&scene, "it is there", |status| status["supervisors"][0]["stage"] == "pc2");
    assert_eq!(status["supervisors"].as_array().map(Vec::len), Some(1));
    let files = std::fs::read_dir(scene.path("run/status")).expect("there");
    let names = files.map(|file| file.expect("readable").file_name().into_string().expect("UTF-8"));
    assert!(names.filter(|name| name.starts_with("c2")).count() == 0);
    next.finish();
}

#[test]
fn metrics_of_all_supervisors_are_served_at_one_address() {
    let scene = Scene::new();
    let port = free_port().to_string();
    let options = ["--metrics", port.as_str()];
    // Two of one stage and configuration, which only their names tell apart.
    let config = executor("pc2", &[], "");
    let mut first = scene.start_with("pc2", &config, &options);
    let mut second = scene.start_with("pc2", &config, &options);
    let mut other = scene.start_with("c2", &executor("c2", &[], ""), &options);
    // Sectors of two miners with one number.
    for (miner, supervisor) in [(1000, &mut first), (1001, &mut second)] {
        let cache = format!("/sectors/s-t0{miner}-77/cache");
        let steps = json!([{"progress": ["tree C", 1, 2]}, {"await": scene.path("go")},
            {"answer": 1}]);
        supervisor.send(1, json!({"steps": steps, "sector_id": 77, "cache_path": cache}));
    }
    other.ask(1, json!([{"answer": 1}]));
    let port = port.parse().expect("a number");
    let done = |page: &Exposition, stage: &str, supervisor: &str| {
        page.value("seal_tasks_done_total", &[("stage", stage), ("supervisor", supervisor)])
    };
    let page = eventually("all are measured", || {
        let page = scrape(port)?;
        let sectors = page.series().filter(|(name, _)| name == "seal_task_progress_ratio");
        let mut sectors: Vec<_> = sectors.map(|(_, labels)| labels["sector"].clone()).collect();
        sectors.sort();
        (sectors == ["s-t01000-77", "s-t01001-77"] && done(&page, "c2", "c2") == Some(1.0))
            .then_some(page)
    });
    let names = ["pc2", "pc2-2"].map(|name| done(&page, "pc2", name));
    assert_eq!(names, [Some(0.0), Some(0.0)]);
    let version = env!("CARGO_PKG_VERSION");
    let built = [("stage", "pc2"), ("supervisor", "pc2-2"), ("version", version)];
    assert_eq!(page.value("seal_build_info", &built), Some(1.0));
    scene.touch("go");
    assert_eq!((first.output(1), second.output(1)), (json!(1), json!(1)));
    eventually("both are done", || {
        let page = scrape(port)?;
        (["pc2", "pc2-2"].map(|name| done(&page, "pc2", name)) == [Some(1.0); 2]).then_some(())
    });
    // When the one that serves ends, another one takes over; started anew it has its name back.
    let started = |page: &Exposition, name: &str| {
        let labels = [("stage", "pc2"), ("supervisor", name)];
        page.value("seal_supervisor_start_time_seconds", &labels)
    };
    let before = started(&page, "pc2");
    first.finish();
    let again = scene.start_with("pc2", &config, &options);
    eventually("it is served under its name by another one", || {
        let page = scrape(port)?;
        let fresh = started(&page, "pc2").filter(|at| Some(*at) != before);
        (fresh.is_some() && started(&page, "pc2-2").is_some()).then_some(())
    });
    for supervisor in [again, second, other] {
        supervisor.finish();
    }
}

#[test]
fn an_address_that_cannot_be_had_stops_the_start() {
    let scene = Scene::new();
    let config = scene.config("c.toml", &executor("c2", &[], ""));
    let output = scene
        .command("c2", &config)
        .args(["--metrics", "192.0.2.1:9184"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let supervisor = Supervisor::spawn(scene.command("c2", &config).args(["--metrics", "x"]));
    assert_eq!(supervisor.wait(), 2);
}

#[test]
fn the_configuration_is_checked_shown_and_explained() {
    let scene = Scene::new();
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_seal-supervisor"))
            .arg("config")
            .args(args)
            .env_remove("SEAL_CONFIG")
            .output()
            .expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("UTF-8"))
    };
    let (code, example) = run(&["--example"]);
    assert_eq!(code, Some(0));
    let path = scene.config("example.toml", &example);
    let path = path.to_str().expect("UTF-8");
    let (code, shown) = run(&["--config", path, "--show"]);
    assert_eq!(code, Some(0));
    assert!(shown.contains("retry = 1  # line "), "{shown}");
    let (code, told) = run(&["--config", path, "--check"]);
    assert_eq!(code, Some(4), "{told}");
    assert!(told.contains("there is no executable /opt/seal-exec/pc1-exec"), "{told}");
    let good = scene.config("good.toml", &executor("c2", &[], "inherit_envs = false"));
    let (code, told) = run(&["--config", good.to_str().expect("UTF-8"), "--check"]);
    assert_eq!((code, told.as_str()), (Some(0), "c2: 1 executor(s), good\n"));
    let bad = scene.config("bad.toml", "[processors]\nlimit.pc1 = 0\n");
    let (code, told) = run(&["--config", bad.to_str().expect("UTF-8"), "--check"]);
    assert_eq!(code, Some(3));
    // For people, also when it is not a terminal.
    let place = format!("ERROR {}:2: processors.limit.pc1 = 0: ", bad.display());
    assert!(told.trim_start().starts_with(&place), "{told}");
    let text = "[processors]\nlimit.pc1 = 0\n[[processors.c2]]\nconcurent = 1\n";
    let bad = scene.config("bad.toml", text);
    let (_, told) = run(&["--config", bad.to_str().expect("UTF-8"), "--check"]);
    for line in [2, 4] {
        assert!(told.contains(&format!("{}:{line}: ", bad.display())), "{told}");
    }
    assert_eq!(run(&["--check"]).0, Some(2), "a file is needed");
}

#[test]
fn every_death_is_counted_whichever_end_is_told_first() {
    const DEATHS: u64 = 15;
    let scene = Scene::new();
    let mut supervisor = scene.start("pc2", &executor("pc2", &[], ""));
    for id in 0..DEATHS {
        // Its output ends long before it does, at the same time, or with it alone.
        let steps = match id % 3 {
            0 => json!(["close_stdout", {"work_ms": 20}, {"signal": "SIGKILL"}]),
            1 => json!([{"signal": "SIGKILL"}]),
            _ => json!([{"exit": 0}]),
        };
        supervisor.send(id, steps);
        let error = supervisor.error(id);
        let ending = if id % 3 == 2 { "exited with code 0" } else { "was ended by signal 9" };
        assert!(error.contains(ending), "{id}: {error}");
        // One that answers is no crash loop.
        supervisor.ask(DEATHS + id, json!([{"answer": 1}]));
    }
    let status = status_when(&scene, "the deaths are told", |status| {
        status["supervisors"][0]["deaths"].as_u64() >= Some(DEATHS)
    });
    assert_eq!(status["supervisors"][0]["deaths"], DEATHS);
    supervisor.finish();
}
