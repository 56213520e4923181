//! Everything that an executor can do wrong, one test for each: every request is answered exactly
//! once, and the next one is done.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use test_support::skip::skipped;

use crate::harness::{Scene, Supervisor, eventually, executor, is_alive};

/// Runs a task, and one more behind it, which shows that nothing was answered twice.
fn outcome(supervisor: &mut Supervisor, id: u64, steps: Value) -> Result<Value, String> {
    supervisor.send(id, steps);
    let (answered, outcome) = supervisor.answer();
    assert_eq!(answered, id, "{outcome:?}");
    let next = id + 1000;
    assert_eq!(supervisor.ask(next, json!([{"answer": next}])), next);
    supervisor.assert_no_line();
    outcome
}

fn error(supervisor: &mut Supervisor, id: u64, steps: Value) -> String {
    outcome(supervisor, id, steps).expect_err("the task fails")
}

fn one(args: &[&str]) -> String {
    executor("pc2", args, "concurrent = 1\nstable_wait = '60s'")
}

#[test]
fn dies_before_it_is_ready_at_a_restart() {
    let scene = Scene::new();
    let (sick, starts) = (scene.text("sick"), scene.text("starts"));
    let mut supervisor = scene.start("pc2", &one(&["--die-if", &sick, "--starts", &starts]));
    scene.touch("sick");
    supervisor.send(1, json!([{"exit": 5}]));
    supervisor.send(2, json!([{"answer": 2}]));
    assert!(supervisor.error(1).contains("exited with code 5"));
    eventually("starts fail", || (scene.lines("starts").len() > 3).then_some(()));
    supervisor.assert_no_line();
    fs::remove_file(scene.path("sick")).expect("there");
    assert_eq!(supervisor.output(2), 2);
    supervisor.finish();
}

#[test]
fn is_ready_too_late_at_a_restart() {
    let scene = Scene::new();
    let (starts, ready) = (scene.text("starts"), scene.text("ready"));
    scene.touch("ready");
    let args = ["--starts", &starts, "--ready-if", &ready];
    let one = executor("pc2", &args, "concurrent = 1\nstable_wait = '4s'");
    let mut supervisor = scene.start("pc2", &one);
    fs::remove_file(scene.path("ready")).expect("there");
    supervisor.send(1, json!([{"exit": 5}]));
    supervisor.send(2, json!([{"answer": 2}]));
    assert!(supervisor.error(1).contains("exited with code 5"));
    supervisor.await_log("it was not ready within 4s", 1);
    supervisor.assert_no_line();
    scene.touch("ready");
    assert_eq!(supervisor.output(2), 2);
    supervisor.finish();
}

#[test]
fn hangs_beyond_its_deadline() {
    let scene = Scene::new();
    let own = "[supervisor.pc2]\ndeadline = '2s'\nretry = 5\ngrace = '200ms'\n";
    let mut supervisor =
        scene.start("pc2", &format!("{own}{}", one(&["--ignore-sigterm", "--stay"])));
    let log = json!({"log": [scene.path("runs"), "run"]});
    let error = error(&mut supervisor, 1, json!([log, {"await": scene.path("never")}]));
    assert!(error.starts_with("[executor-died]"), "{error}");
    let why = "because request 1 ran longer than the deadline of 2s";
    assert!(error.contains("signal 9 (SIGKILL)") && error.contains(why), "{error}");
    assert_eq!(scene.lines("runs").len(), 1, "it would not be quicker the next time");
    supervisor.finish();
}

#[test]
fn makes_no_progress() {
    let scene = Scene::new();
    let own = "[supervisor.pc2]\nno_progress = '2s'\nretry = 1\n";
    let mut supervisor = scene.start("pc2", &format!("{own}{}", one(&[])));
    // As long as it tells progress it may take its time.
    let tell = |done: u64| json!({"progress": ["layer 1 of 2", done, 9]});
    let mut steps = Vec::new();
    for done in 0..12 {
        steps.extend([tell(done), json!({"work_ms": 250})]);
    }
    steps.push(json!({"answer": "slow"}));
    assert_eq!(outcome(&mut supervisor, 1, steps.into()), Ok("slow".into()));
    // The same figure again and again is none.
    let log = json!({"log": [scene.path("runs"), "run"]});
    let mut steps = vec![log];
    for _ in 0..40 {
        steps.extend([tell(7), json!({"work_ms": 250})]);
    }
    steps.push(json!({"answer": "too late"}));
    let error = error(&mut supervisor, 2, steps.into());
    let why = "because request 2 made no progress for 2s, while it had this task, which was tried 2 times";
    assert!(error.starts_with("[executor-died]") && error.contains(why), "{error}");
    assert_eq!(scene.lines("runs").len(), 2);
    supervisor.finish();
}

#[test]
fn one_that_says_why_it_waits_is_not_ended_for_want_of_progress() {
    let scene = Scene::new();
    let own = "[supervisor.pc2]\nno_progress = '1s'\n";
    let mut supervisor = scene.start("pc2", &format!("{own}{}", one(&[])));
    let waits = "{\"event\":\"progress\",\"id\":1,\"part\":\"waiting\",\"done\":0,\"total\":1,\
                 \"unit\":\"steps\",\"waits\":\"for its turn\"}\n";
    let steps = json!([{"raw": waits}, {"work_ms": 2500}, {"answer": 5}]);
    assert_eq!(outcome(&mut supervisor, 1, steps), Ok(5.into()));
    supervisor.finish();
}

#[test]
fn what_it_tells_of_its_progress_is_not_passed_on() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc2", &one(&[]));
    let told = json!([{"progress": ["columns", 1, 2]}, {"raw": "{\"event\":\"new\",\"id\":1}\n"},
        {"answer": 1}]);
    assert_eq!(outcome(&mut supervisor, 1, told), Ok(1.into()));
    assert!(!supervisor.log().contains("no answer"), "{}", supervisor.log());
    supervisor.finish();
}

/// An event that says this of the executor's device.
fn of_device(standing: &str, wrong: u64, more: &str) -> Value {
    let event = format!(
        "{{\"event\":\"device\",\"device\":\"A100 (GPU-7)\",\"standing\":\"{standing}\",\
         \"wrong\":{wrong}{more}}}\n"
    );
    json!({ "raw": event })
}

#[test]
fn its_device_computes_wrongly_and_it_gets_no_task_until_it_is_started_anew() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc2", &one(&[]));
    // One that is suspect, or that something else stands in for, goes on.
    for (id, device) in [
        (1, of_device("suspect", 1, "")),
        (2, of_device("left_out", 2, ",\"replaced_by\":\"cpu\"")),
    ] {
        assert_eq!(outcome(&mut supervisor, id, json!([device, {"answer": id}])), Ok(id.into()));
    }
    let device = of_device("left_out", 3, ",\"reason\":\"row 3\"");
    supervisor
        .send(3, json!([device, {"await": scene.path("go")}, {"fail": "[bad-device] row 3"}]));
    supervisor.send(4, json!([{"answer": 4}]));
    // What waits has nobody to wait for; what runs is answered as its executor says.
    let refused = supervisor.error(4);
    for part in
        ["[unavailable]", "A100 (GPU-7) computes wrongly and is left out: row 3", "replace it"]
    {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    scene.touch("go");
    assert!(supervisor.error(3).starts_with("[bad-device] row 3"));
    supervisor.send(5, json!([{"answer": 5}]));
    assert!(supervisor.error(5).contains("GPU-7"));
    supervisor.finish();
}

#[test]
fn its_device_is_left_out_and_another_executor_does_the_tasks() {
    let scene = Scene::new();
    let both = format!("{}{}", one(&[]), one(&[]));
    let mut supervisor = scene.start("pc2", &both);
    let device = of_device("left_out", 2, "");
    supervisor.send(1, json!([device, {"answer": "last"}]));
    assert_eq!(supervisor.output(1), "last");
    let pids: std::collections::BTreeSet<_> =
        (2..8).map(|id| supervisor.ask(id, json!(["describe"]))["pid"].to_string()).collect();
    assert_eq!(pids.len(), 1, "{pids:?}");
    supervisor.finish();
}

#[test]
fn prints_junk() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc2", &one(&["--junk-first", "loading ..."]));
    let junk = json!([{"raw": "thread panicked\n\u{0}\n{}\n[]\n"}, {"answer": 1}]);
    assert_eq!(outcome(&mut supervisor, 1, junk), Ok(1.into()));
    supervisor.await_log("thread panicked", 1);
    supervisor.finish();
}

#[test]
fn writes_half_a_line() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc2", &one(&[]));
    let half = json!([{"raw": "{\"id\":1,\"err_msg\":null,\"out"}, {"exit": 0}]);
    let error = error(&mut supervisor, 1, half);
    assert!(error.starts_with("[internal]") && error.contains("in the middle of"), "{error}");
    supervisor.finish();
}

#[test]
fn writes_a_line_of_100_megabytes() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc2", &one(&[]));
    let error = error(&mut supervisor, 1, json!([{"huge": 100_000_000}]));
    assert!(error.contains("the line has 100000000 bytes"), "{error}");
    let babble = json!([{"babble": 100_000_000}, {"answer": 2}]);
    assert_eq!(outcome(&mut supervisor, 2, babble), Ok(2.into()));
    let status = fs::read_to_string(format!("/proc/{}/status", supervisor.pid())).expect("runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("told");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak < 16 << 10, "{peak} KiB were used for lines that are thrown away");
    supervisor.finish();
}

#[test]
fn answers_twice() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc2", &one(&[]));
    let twice = json!([{"answer": "first"}, {"answer": "second"}]);
    assert_eq!(outcome(&mut supervisor, 1, twice), Ok("first".into()));
    supervisor.await_log("an answer to no request of this executor", 1);
    supervisor.finish();
}

#[test]
fn answers_an_unknown_id() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc2", &one(&[]));
    let unknown = "{\"id\":77,\"err_msg\":null,\"output\":1}\n";
    let steps = json!([{"raw": unknown}, {"answer": "own"}]);
    assert_eq!(outcome(&mut supervisor, 1, steps), Ok("own".into()));
    supervisor.await_log("an answer to no request of this executor", 1);
    supervisor.finish();
}

#[test]
fn ignores_sigterm() {
    let scene = Scene::new();
    let config = format!("[supervisor]\ngrace = '200ms'\n{}", one(&["--ignore-sigterm", "--stay"]));
    let mut supervisor = scene.start("pc2", &config);
    let pid = supervisor.ask(1, json!(["describe"]))["pid"].as_i64().expect("a pid");
    supervisor.send(2, json!([{"touch": scene.path("2")}, {"await": scene.path("never")}]));
    scene.await_file("2");
    supervisor.signal(Signal::SIGTERM);
    assert!(supervisor.error(2).starts_with("[cancelled]"));
    assert_eq!(supervisor.wait(), 0);
    assert!(!is_alive(pid));
    scene.assert_nothing_is_locked();
}

#[test]
fn forks_a_grandchild_that_leaves_its_group() {
    let scene = Scene::new();
    let locks = "[supervisor]\ncgroup = 'never'\n[processors.ext_locks]\ngpu = 1\n";
    let config = format!("{locks}{}locks = ['gpu']\n", one(&[]));
    let mut supervisor = scene.start("pc2", &config);
    supervisor.send(1, json!([{"daemon": scene.path("daemon")}, {"exit": 1}]));
    assert!(supervisor.error(1).contains("exited with code 1"));
    let pid = fs::read_to_string(scene.path("daemon")).expect("written");
    let pid = pid.trim().parse().expect("a pid");
    eventually("what it left behind is killed", || (!is_alive(pid)).then_some(()));
    assert_eq!(supervisor.ask(2, json!([{"answer": 2}])), 2, "its lock is free");
    supervisor.finish();
}

#[test]
fn leaves_a_grandchild_when_its_supervisor_is_killed() {
    let scene = Scene::new();
    let locks = "[supervisor]\ncgroup = 'never'\n[processors.ext_locks]\ngpu = 1\n";
    let config = format!("{locks}{}locks = ['gpu']\n", one(&[]));
    let mut killed = scene.start("pc2", &config);
    killed.send(1, json!([{"daemon": scene.path("daemon")}, {"await": scene.path("never")}]));
    scene.await_file("daemon");
    let pid = fs::read_to_string(scene.path("daemon")).expect("written");
    let pid = pid.trim().parse().expect("a pid");
    killed.signal(Signal::SIGKILL);
    killed.wait_status();
    // What still uses the GPU keeps its lock.
    assert!(is_alive(pid));
    eventually("the executor is gone", || {
        (scene.locked() == [("lock-gpu.slots".into(), 0)]).then_some(())
    });
    let mut next = scene.start("pc2", &config);
    eventually("the next supervisor ends it", || (!is_alive(pid)).then_some(()));
    assert_eq!(next.ask(2, json!([{"answer": 2}])), 2);
    next.finish();
    scene.assert_nothing_is_locked();
}

#[test]
fn exits_0_in_the_middle() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc2", &one(&[]));
    let error = error(&mut supervisor, 1, json!([{"work_ms": 5}, {"exit": 0}]));
    assert!(error.starts_with("[executor-died]") && error.contains("code 0"), "{error}");
    supervisor.finish();
}

#[test]
fn dumps_core() {
    let scene = Scene::new();
    let config = scene.config("pc2.toml", &one(&[]));
    // A pattern that is a path or a pipe may write anywhere: then no dump is wanted.
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("readable");
    let here = !pattern.contains(['/', '|']);
    let size = if here { "$(ulimit -H -c)" } else { "0" };
    let setup = format!("ulimit -S -c {size}");
    let mut supervisor = Supervisor::spawn(&mut scene.command_after(&setup, "pc2", &config));
    supervisor.ready("pc2");
    let error = error(&mut supervisor, 1, json!([{"signal": "SIGABRT"}]));
    assert!(error.starts_with("[executor-died]"), "{error}");
    let how = "was ended by signal 6 (SIGABRT)";
    assert!(error.contains(how), "{error}");
    let files = fs::read_dir(scene.path("")).expect("readable").flatten();
    let dumped = files.filter(|file| file.file_name().to_string_lossy().starts_with("core"));
    assert_eq!(error.contains(&format!("{how} and dumped core")), dumped.count() == 1, "{error}");
    if !here || !error.contains("dumped core") {
        let pattern = pattern.trim();
        skipped("dumps_core: a dump", &format!("this machine writes none here ({pattern})"));
    }
    supervisor.finish();
}

/// A cgroup with little memory, which ends with this.
struct LittleMemory(PathBuf);

impl LittleMemory {
    const BYTES: &str = "134217728";

    fn make() -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/mounts").map_err(|error| error.to_string())?;
        let mut mounted = mounts.lines().filter_map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            let &[_, path, kind, options, ..] = &fields[..] else { return None };
            let path = Path::new(path);
            let listed = |file| fs::read_to_string(path.join(file)).unwrap_or_default();
            let v1 = kind == "cgroup" && options.split(',').any(|option| option == "memory");
            let v2 = kind == "cgroup2" && listed("cgroup.subtree_control").contains("memory");
            (v1 || v2).then(|| (path.to_owned(), v2))
        });
        let (parent, v2) = mounted.next_back().ok_or("no cgroup with memory is mounted")?;
        let group = Self(parent.join(format!("seal-exec-test-{}", std::process::id())));
        fs::create_dir(&group.0).map_err(|error| format!("{}: {error}", group.0.display()))?;
        let limits: [(&str, &str); 2] = match v2 {
            true => [("memory.max", Self::BYTES), ("memory.swap.max", "0")],
            false => [
                ("memory.limit_in_bytes", Self::BYTES),
                ("memory.memsw.limit_in_bytes", Self::BYTES),
            ],
        };
        for (file, value) in limits {
            let path = group.0.join(file);
            // Where swap is not accounted for, there is no file for it.
            if path.exists() {
                fs::write(&path, value).map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
        Ok(group)
    }
}

impl Drop for LittleMemory {
    fn drop(&mut self) {
        // What was killed may be in it for a moment.
        eventually("the group is empty", || fs::remove_dir(&self.0).ok());
    }
}

#[test]
fn is_killed_because_memory_ran_out() {
    let group = match LittleMemory::make() {
        Ok(group) => group,
        Err(why) => return skipped("is_killed_because_memory_ran_out", &why),
    };
    let scene = Scene::new();
    let config = scene.config("pc2.toml", &format!("[supervisor]\ncgroup = 'never'\n{}", one(&[])));
    let setup = format!("echo $$ > {}/cgroup.procs", group.0.display());
    let mut supervisor = Supervisor::spawn(&mut scene.command_after(&setup, "pc2", &config));
    supervisor.ready("pc2");
    let steps = json!([{"allocate": 256 << 20}, {"answer": "never"}]);
    let error = error(&mut supervisor, 1, steps);
    assert!(error.starts_with("[executor-died]") && error.contains("SIGKILL"), "{error}");
    assert!(error.contains("killed by the kernel because its cgroup was out of memory"), "{error}");
    // It was not the supervisor's memory, and the next executor has room.
    assert_eq!(supervisor.ask(2, json!([{"allocate": 16 << 20}, {"answer": 2}])), 2);
    supervisor.finish();
}

#[test]
fn dies_with_last_words() {
    let scene = Scene::new();
    let mut supervisor = scene.start("pc2", &one(&[]));
    let mut steps: Vec<_> = (0..20).map(|n| json!({"complain": format!("line {n}")})).collect();
    steps.push(json!({"complain": format!("CUDA error {}", "x".repeat(100_000))}));
    steps.push(json!({"signal": "SIGKILL"}));
    let error = error(&mut supervisor, 1, steps.into());
    let words = "; its log ends: line 15 | line 16 | line 17 | line 18 | line 19 | CUDA error xxx";
    assert!(error.contains(words), "{error}");
    assert!(error.len() < 1500, "{} bytes", error.len());
    supervisor.await_log("line 3", 1);
    supervisor.finish();
}

#[test]
fn is_stopped_with_another_ones_hanging_task() {
    let scene = Scene::new();
    let own = "[supervisor.pc1]\ndeadline = '4s'\n";
    let both = executor("pc1", &[], "concurrent = 2\nstable_wait = '5s'");
    let mut supervisor = scene.start("pc1", &format!("{own}{both}"));
    supervisor.send(1, json!([{"touch": scene.path("1")}, {"await": scene.path("never")}]));
    scene.await_file("1");
    std::thread::sleep(Duration::from_millis(2500));
    // It loses its executor through no fault of its own, and is done by the next one.
    let log = json!({"log": [scene.path("runs"), "run"]});
    supervisor.send(2, json!([log, {"work_ms": 2000}, {"answer": 2}]));
    let error = supervisor.error(1);
    assert!(error.contains("request 1 ran longer than the deadline"), "{error}");
    assert_eq!(supervisor.output(2), 2);
    assert_eq!(scene.lines("runs").len(), 2);
    supervisor.finish();
}
