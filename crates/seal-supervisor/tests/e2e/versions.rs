//! Supervisors of this version and of an earlier one that share a runtime directory, as while a
//! machine is brought from one to the other: limits, locks and staggered starts hold between them,
//! none ends what belongs to the other, and each shows both.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use test_support::exposition::Exposition;
use test_support::revision::earlier;
use test_support::skip::skipped;

use crate::harness::{ACCEPTED, Scene, Supervisor, eventually, executor, is_alive};
use crate::namespaces::in_another_time;

/// The lock, limit and distance that all share.
const SHARED: &str = "[processors.ext_locks]\ngpu = 1\n\
    [processors.limitation.concurrent]\npc2 = 1\nc2 = 1\n";

/// The supervisor of each version, this one first.
struct Versions {
    now: PathBuf,
    before: PathBuf,
}

impl Versions {
    /// `None` after `test` was noted as skipped.
    fn of(test: &str) -> Option<Self> {
        let revision = earlier(test, &["seal-supervisor"]).expect("git and cargo can be used")?;
        Some(Self {
            now: env!("CARGO_BIN_EXE_seal-supervisor").into(),
            before: revision.binary("seal-supervisor"),
        })
    }

    /// Who is first, and who comes to it: both ways.
    fn pairs(&self) -> [(&Path, &Path); 2] {
        [(&self.before, &self.now), (&self.now, &self.before)]
    }
}

fn config(stage: &str) -> String {
    format!("{SHARED}{}", executor(stage, &[], "locks = ['gpu']"))
}

fn command(scene: &Scene, binary: &Path, stage: &str, config: &str) -> Command {
    let config = scene.config(&format!("{stage}.toml"), config);
    let mut command = scene.command_of(binary, stage, &config);
    command.args(["--restart-wait", "10ms", "--restart-wait-max", "50ms"]);
    command
}

fn start(scene: &Scene, binary: &Path, stage: &str, config: &str) -> Supervisor {
    begin(&mut command(scene, binary, stage, config), stage)
}

fn begin(command: &mut Command, stage: &str) -> Supervisor {
    let mut supervisor = Supervisor::spawn(command);
    supervisor.ready(stage);
    supervisor.await_log("executor is ready", 1);
    supervisor
}

fn status(scene: &Scene, binary: &Path) -> Value {
    let output = Command::new(binary)
        .args(["status", "--json"])
        .env("SEAL_RUNTIME_DIR", scene.path("run"))
        .env_remove("SEAL_CONFIG")
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn pid_in(scene: &Scene, name: &str) -> i64 {
    let pid = || scene.lines(name).first().and_then(|pid| pid.parse().ok());
    eventually("the daemon tells its number", pid)
}

#[test]
fn versions_share_limits_and_locks_and_end_only_what_the_dead_have_left() {
    let test = "versions_share_limits_and_locks_and_end_only_what_the_dead_have_left";
    let Some(versions) = Versions::of(test) else { return };
    for (first, second) in versions.pairs() {
        for stage in ["pc2", "c2"] {
            let scene = Scene::new();
            let daemon = |name: &str| json!({"daemon": scene.path(name)});
            let until = |name: &str| json!({"await": scene.path(name)});
            let mut holder = start(&scene, first, "pc2", &config("pc2"));
            holder.send(1, json!([daemon("one"), until("never"), {"answer": 1}]));
            let left = pid_in(&scene, "one");

            // The other finds it alive, waits for what it has, and ends nothing of it.
            let mut waiter = start(&scene, second, stage, &config(stage));
            let steps = json!([daemon("two"), until("go"), {"answer": 2}]);
            waiter.send(1, steps);
            waiter.await_log(ACCEPTED, 1);
            for looker in [first, second] {
                eventually("both tell who has it and who waits", || {
                    let told = status(&scene, looker);
                    let waits = told["queue"].as_array().is_some_and(|queue| queue.len() == 1);
                    let supervisors = told["supervisors"].as_array().map_or(0, Vec::len);
                    (supervisors == 2 && waits).then_some(())
                });
            }
            waiter.assert_no_line();
            assert!(is_alive(left), "{}", waiter.log());
            assert!(!waiter.log().contains("killed"), "{}", waiter.log());

            // What a killed one leaves behind keeps its lock, until it is ended.
            holder.signal(Signal::SIGKILL);
            holder.wait_status();
            let again = if second == versions.now { second } else { first };
            let mut third = start(&scene, again, "pc2", &config("pc2"));
            eventually("this version ends what is left of either", || {
                (!is_alive(left)).then_some(())
            });
            let running = pid_in(&scene, "two");

            // The one that comes back is no danger to the other's task either.
            third.signal(Signal::SIGKILL);
            third.wait_status();
            let mut third = start(&scene, first, "pc2", &config("pc2"));
            third.send(1, json!([{"answer": 3}]));
            third.await_log(ACCEPTED, 1);
            third.assert_no_line();
            assert!(is_alive(running), "{}", third.log());
            scene.touch("go");
            assert_eq!(waiter.output(1), 2);
            // What a task leaves has its lock, until its executor ends.
            waiter.finish();
            assert_eq!(third.output(1), 3);
            third.finish();
            scene.assert_nothing_is_locked();
        }
    }
}

#[test]
fn starts_keep_their_distance_between_versions() {
    let test = "starts_keep_their_distance_between_versions";
    let Some(versions) = Versions::of(test) else { return };
    for (first, second) in versions.pairs() {
        let scene = Scene::new();
        let stagger = "[processors.limitation.staggered]\npc1 = '400ms'\n";
        let config = format!("{stagger}{}", executor("pc1", &[], ""));
        let began = Instant::now();
        let mut one = start(&scene, first, "pc1", &config);
        let mut other = start(&scene, second, "pc1", &config);
        one.ask(1, json!([{"answer": 1}]));
        other.ask(1, json!([{"answer": 1}]));
        other.signal(Signal::SIGKILL);
        other.wait_status();
        one.ask(2, json!([{"answer": 2}]));
        let passed = began.elapsed();
        assert!(passed >= Duration::from_millis(800), "three starts took {passed:?}");
        one.finish();
    }
}

#[test]
fn an_earlier_version_in_another_time_namespace_ends_nothing_and_holds_nobody_up() {
    let test = "an_earlier_version_in_another_time_namespace_ends_nothing_and_holds_nobody_up";
    let Some(versions) = Versions::of(test) else { return };
    let tried = in_another_time(&Command::new("true")).output();
    if !tried.is_ok_and(|output| output.status.success()) {
        return skipped(test, "no time namespace can be made here (that takes root and unshare)");
    }
    let scene = Scene::new();
    // Cgroups are the whole machine's: the earlier version would end what others of it have there,
    // and they what it has.
    let stagger =
        "[supervisor]\ncgroup = 'never'\n[processors.limitation.staggered]\npc1 = '100ms'\n";
    let config = format!("{stagger}{}", executor("pc1", &[], "concurrent = 2"));
    let mut now = start(&scene, &versions.now, "pc1", &config);
    let daemon = |name: &str| json!({"daemon": scene.path(name)});
    let until = json!({"await": scene.path("go")});
    now.send(1, json!([daemon("one"), until, {"answer": 1}]));
    let ours = pid_in(&scene, "one");

    let plain = command(&scene, &versions.before, "pc1", &config);
    let mut before = begin(&mut in_another_time(&plain), "pc1");
    // It starts an hour after, by its clock.
    before.send(1, json!([daemon("two"), until, {"answer": 2}]));
    let theirs = pid_in(&scene, "two");
    assert!(is_alive(ours), "{}", before.log());
    now.ask(2, json!([{"answer": 2}]));
    let third = start(&scene, &versions.now, "pc1", &config);
    for supervisor in [&third, &before] {
        assert!(!supervisor.log().contains("killed"), "{}", supervisor.log());
    }
    assert!(is_alive(theirs), "it cannot be told that its supervisor has ended");
    scene.touch("go");
    now.output(1);
    before.output(1);
    for supervisor in [now, before, third] {
        supervisor.finish();
    }
}

#[test]
fn metrics_of_either_version_tell_of_both() {
    let Some(versions) = Versions::of("metrics_of_either_version_tell_of_both") else { return };
    for (serving, other) in versions.pairs() {
        let scene = Scene::new();
        let port = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr());
        let port = port.expect("a port").port();
        let mut serves = command(&scene, serving, "pc2", &config("pc2"));
        let mut serves = begin(serves.args(["--metrics", &port.to_string()]), "pc2");
        let mut other = start(&scene, other, "c2", &config("c2"));
        serves.ask(1, json!([{"answer": 1}]));
        other.ask(1, json!([{"answer": 1}]));
        let text = eventually("both are told of", || {
            let text = scrape(port)?;
            let told = |stage: &str| {
                let stage = format!("stage=\"{stage}\"");
                let done = |line: &str| line.starts_with("seal_tasks_done_total{");
                text.lines().any(|line| done(line) && line.contains(&stage) && line.ends_with(" 1"))
            };
            (told("pc2") && told("c2")).then_some(text)
        });
        if serving == versions.now {
            Exposition::parse(&text).unwrap_or_else(|error| panic!("{error:#}\n{text}"));
        }
        serves.finish();
        other.finish();
    }
}

/// The page of metrics, once somebody serves it.
fn scrape(port: u16) -> Option<String> {
    let mut client = TcpStream::connect(("127.0.0.1", port)).ok()?;
    client.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").ok()?;
    let mut text = String::new();
    client.read_to_string(&mut text).ok()?;
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}
