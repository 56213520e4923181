//! Executors in cgroups of the kernel's. Where none can be made, these tests are skipped by name.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use seal_host::{CgroupTree, CpuSet};
use serde_json::json;
use test_support::skip::skipped;

use crate::harness::{Scene, Supervisor, eventually, executor, is_alive};

/// Whether cgroups can be made here; if not, `test` is skipped.
fn cgroups_for(test: &str) -> bool {
    match CgroupTree::open() {
        Ok(tree) => {
            tree.close(Duration::ZERO).expect("empty");
            true
        }
        Err(errors) => {
            let reasons: Vec<_> = errors.iter().map(ToString::to_string).collect();
            skipped(test, &format!("no cgroup can be made: {}", reasons.join("; ")));
            false
        }
    }
}

/// The group of ours that a process is in, as `/proc` tells it.
fn group_of(pid: &serde_json::Value) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.splitn(3, ':').nth(2).filter(|p| ours(p)))?;
    Some(path.to_owned())
}

fn ours(path: &str) -> bool {
    path.contains("/seal-exec/")
}

/// The directory of the supervisor's groups, from its log.
fn directory(supervisor: &Supervisor) -> PathBuf {
    supervisor.await_log("supervisor starts", 1);
    let log = supervisor.log();
    let line = log.lines().find(|line| line.contains("supervisor starts")).expect("logged");
    let entry: serde_json::Value = serde_json::from_str(line).expect("JSON");
    entry["cgroups"].as_str().expect("cgroups are made").into()
}

fn one_cpu() -> u32 {
    let granted = seal_host::grantable_cpus(&(0..64).collect()).expect("asked");
    granted.iter().last().expect("this test runs on one")
}

#[test]
fn an_executor_has_a_cgroup_with_its_cpus_also_after_a_restart() {
    if !cgroups_for("an_executor_has_a_cgroup_with_its_cpus_also_after_a_restart") {
        return;
    }
    let scene = Scene::new();
    let cpu = one_cpu();
    let more = format!("cgroup = {{ cpuset = '{cpu}', group_name = 'a/b' }}\nconcurrent = 1");
    let mut supervisor = scene.start("pc2", &executor("pc2", &[], &more));
    let dir = directory(&supervisor);
    for (id, start) in [(1, 1), (3, 2)] {
        let told = supervisor.ask(id, json!(["describe"]));
        let group = group_of(&told["pid"]).expect("it is in a cgroup");
        assert!(group.ends_with(&format!("/a/b/pc2-0.{start}")), "{group}");
        assert_eq!(told["cpus"], cpu.to_string());
        let path = dir.join(format!("a/b/pc2-0.{start}"));
        let cpus = fs::read_to_string(path.join("cpuset.cpus")).expect("readable");
        assert_eq!(CpuSet::from_kernel(&cpus), Ok([cpu].into_iter().collect()));
        supervisor.send(id + 1, json!([{"signal": "SIGKILL"}]));
        supervisor.error(id + 1);
    }
    supervisor.finish();
    assert!(!dir.exists(), "{} is left behind", dir.display());
}

#[test]
fn a_grandchild_that_left_its_process_group_ends_with_its_executor() {
    if !cgroups_for("a_grandchild_that_left_its_process_group_ends_with_its_executor") {
        return;
    }
    let scene = Scene::new();
    let script = format!(
        "setsid sh -c 'echo $$ >> {}; exec sleep 1000' & exec {} c2",
        scene.text("grandchildren"),
        test_support::fake_exec().display()
    );
    let config = format!(
        "[[processors.c2]]\nbin = '/bin/sh'\nargs = ['-c', {script:?}]\n[supervisor]\ngrace = '1s'"
    );
    let mut supervisor = scene.start("c2", &config);
    let grandchild = |count: usize| {
        eventually("a grandchild starts", || {
            let pids = scene.lines("grandchildren");
            pids.get(count).and_then(|pid| pid.parse::<i64>().ok())
        })
    };
    let first = grandchild(0);
    supervisor.send(1, json!([{"signal": "SIGKILL"}]));
    supervisor.error(1);
    eventually("the grandchild ends with its executor", || (!is_alive(first)).then_some(()));
    supervisor.ask(2, json!([{"answer": 1}]));
    let second = grandchild(1);
    supervisor.finish();
    eventually("the grandchild ends with the supervisor", || (!is_alive(second)).then_some(()));
}

#[test]
fn what_a_killed_supervisor_leaves_is_ended_by_the_next_one() {
    if !cgroups_for("what_a_killed_supervisor_leaves_is_ended_by_the_next_one") {
        return;
    }
    let scene = Scene::new();
    let script = format!(
        "setsid sh -c 'echo $$ >> {}; exec sleep 1000' & exec {} c2",
        scene.text("grandchildren"),
        test_support::fake_exec().display()
    );
    let config = format!("[[processors.c2]]\nbin = '/bin/sh'\nargs = ['-c', {script:?}]");
    let mut killed = scene.start("c2", &config);
    let dir = directory(&killed);
    let pid: i64 = eventually("the grandchild starts", || {
        scene.lines("grandchildren").first().and_then(|pid| pid.parse().ok())
    });
    killed.signal(Signal::SIGKILL);
    killed.wait_status();
    assert!(dir.exists() && is_alive(pid), "nobody could have ended it");
    let next = scene.start("pc2", &executor("pc2", &[], ""));
    eventually("the grandchild ends", || (!is_alive(pid)).then_some(()));
    assert!(!dir.exists(), "{} is left behind", dir.display());
    next.finish();
}

#[test]
fn a_cgroup_that_was_removed_is_made_again_for_the_next_start() {
    if !cgroups_for("a_cgroup_that_was_removed_is_made_again_for_the_next_start") {
        return;
    }
    let scene = Scene::new();
    let config = executor("pc2", &[], "cgroup.group_name = 'a'");
    let args = ["--restart-wait", "1s", "--restart-wait-max", "1s"];
    let mut supervisor = scene.start_with("pc2", &config, &args);
    let dir = directory(&supervisor);
    supervisor.send(1, json!([{"signal": "SIGKILL"}]));
    supervisor.error(1);
    // All its executors are down, so anybody may remove it.
    eventually("the cgroup can be removed", || {
        let _ = fs::remove_dir(dir.join("a"));
        fs::remove_dir(&dir).ok()
    });
    let told = supervisor.ask(2, json!(["describe"]));
    let group = group_of(&told["pid"]).expect("it is in a cgroup");
    assert!(group.ends_with("/a/pc2-0.2"), "{group}");
    assert_eq!(supervisor.log().matches("it is made again").count(), 1, "{}", supervisor.log());
    supervisor.finish();
    assert!(!dir.exists(), "{} is left behind", dir.display());
}

#[test]
fn without_cgroups_affinity_does_the_same() {
    let scene = Scene::new();
    let cpu = one_cpu();
    let config = executor("pc1", &[], &format!("cgroup.cpuset = '{cpu}'"))
        + "[supervisor]\ncgroup = 'never'\n";
    let mut supervisor = scene.start("pc1", &config);
    let told = supervisor.ask(1, json!(["describe"]));
    assert_eq!(told["cpus"], cpu.to_string());
    assert_eq!(group_of(&told["pid"]).filter(|path| path.contains("/pc1-0.")), None);
    supervisor.finish();
}

#[test]
fn limits_of_an_executor_are_those_of_the_configuration() {
    let scene = Scene::new();
    let config = executor("pc1", &[], "") + "[supervisor.pc1]\nnofile = 77\nmemlock = '8KiB'\n";
    let mut supervisor = scene.start("pc1", &config);
    let pid = supervisor.ask(1, json!(["describe"]))["pid"].clone();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("readable");
    let soft = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_ascii_whitespace().next()).map(str::to_owned)
    };
    assert_eq!(soft("Max open files").as_deref(), Some("77"));
    assert_eq!(soft("Max locked memory").as_deref(), Some("8192"));
    supervisor.finish();
}
