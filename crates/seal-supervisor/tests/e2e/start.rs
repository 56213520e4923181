//! Starting: ready lines, placement, and everything that stops a start.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use test_support::skip::skipped;

use crate::harness::{PATIENCE, Scene, Supervisor, executor, is_alive};

/// Runs a supervisor that cannot start and returns exit code and log.
fn refused(scene: &Scene, stage: &str, config: &str) -> (i32, String) {
    let config = scene.config("refused.toml", config);
    let output = scene.command(stage, &config).output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "nothing may be said ready");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().expect("no signal"), log)
}

fn dry_run(scene: &Scene, stage: &str, config: &Path) -> String {
    let output = scene.command(stage, config).arg("--dry-run").output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn it_is_ready_when_its_first_executor_is_and_others_join() {
    let scene = Scene::new();
    let late = executor("pc1", &["--ready-if", &scene.text("go")], "stable_wait = '60s'");
    let first = executor("pc1", &[], "concurrent = 1");
    let mut supervisor = scene.start_with("pc1", &(late + &first), &["--ready-within", "60s"]);
    let one = supervisor.ask(1, json!(["describe"]))["pid"].clone();
    assert_eq!(supervisor.ask(2, json!(["describe"]))["pid"], one, "only one is ready");
    scene.touch("go");
    supervisor.await_log("executor is ready", 2);
    supervisor.send(3, json!([{"await": scene.path("end")}, "describe"]));
    supervisor.send(4, json!([{"touch": scene.path("end")}, "describe"]));
    let pids = [supervisor.answer().1, supervisor.answer().1]
        .map(|output| output.expect("answered")["pid"].clone());
    assert!(pids.contains(&one) && pids[0] != pids[1], "{pids:?}");
    supervisor.finish();
}

#[test]
fn it_is_ready_in_time_although_all_executors_take_long_and_tasks_wait_for_them() {
    let scene = Scene::new();
    let late = executor("pc1", &["--ready-if", &scene.text("go")], "stable_wait = '60s'");
    let mut supervisor = scene.start_with("pc1", &late, &["--ready-within", "100ms"]);
    supervisor.send(1, json!([{"answer": 5}]));
    supervisor.assert_no_line();
    scene.touch("go");
    assert_eq!(supervisor.output(1), 5);
    supervisor.finish();
}

#[test]
fn the_time_to_be_ready_counts_from_the_start_of_the_supervisor() {
    let scene = Scene::new();
    let limits = scene.path("run/limits");
    fs::create_dir_all(&limits).expect("writable");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(scene.path("run"), private).expect("ours");
    let mutex = seal_host::Mutex::open(&limits.join("table.mutex")).expect("ours");
    let table = mutex.lock(PATIENCE).expect("nobody has it");
    let within = Duration::from_millis(2500);
    let late = executor("pc1", &["--never-ready"], "stable_wait = '60s'");
    let config = scene.config("late.toml", &late);
    let mut command = scene.command("pc1", &config);
    let began = Instant::now();
    let mut supervisor = Supervisor::spawn(command.args(["--ready-within", "2500ms"]));
    // The supervisor waits so long for the table of limits before it starts executors.
    thread::sleep(within);
    drop(table);
    supervisor.ready("pc1");
    let took = began.elapsed();
    assert!((within..within * 9 / 5).contains(&took), "{took:?}");
}

#[test]
fn junk_before_the_ready_line_does_no_harm() {
    let scene = Scene::new();
    let config = executor("c2", &["--junk-first", "loading ..."], "");
    let mut supervisor = scene.start("c2", &config);
    assert_eq!(supervisor.ask(1, json!([{"answer": 1}])), 1);
    supervisor.await_log("loading ...", 1);
    supervisor.finish();
}

#[test]
fn an_executor_that_dies_before_it_is_ready_fails_the_start() {
    let scene = Scene::new();
    let starts = scene.text("starts");
    let never = scene.text("never");
    let late = executor("pc2", &["--ready-if", &never, "--starts", &starts], "stable_wait = '60s'");
    let config = late + &executor("pc2", &["--die", "--starts", &starts], "");
    let (code, log) = refused(&scene, "pc2", &config);
    assert_eq!(code, 4, "{log}");
    assert!(log.contains("processors.pc2[1]") && log.contains("exited with code 9"), "{log}");
    for pid in scene.lines("starts") {
        assert!(!is_alive(pid.parse().expect("a pid")), "{pid} was left behind");
    }
}

#[test]
fn an_executor_that_is_never_ready_fails_the_start() {
    let scene = Scene::new();
    let config = executor("pc2", &["--never-ready"], "stable_wait = '300ms'");
    let (code, log) = refused(&scene, "pc2", &config);
    assert_eq!(code, 4, "{log}");
    assert!(log.contains("it was not ready within 300ms"), "{log}");
}

#[test]
fn a_machine_without_the_cpus_fails_the_start_and_names_them() {
    let scene = Scene::new();
    let config = executor("pc1", &[], "cgroup.cpuset = '0,8000-8002'");
    let (code, log) = refused(&scene, "pc1", &config);
    assert_eq!(code, 4, "{log}");
    assert!(log.contains("cpus 8000-8002 are missing; this machine has "), "{log}");
}

#[test]
fn a_machine_without_the_numa_node_fails_the_start() {
    let scene = Scene::new();
    let (code, log) = refused(&scene, "pc1", &executor("pc1", &[], "numa_preferred = 900"));
    assert_eq!(code, 4, "{log}");
    assert!(log.contains("numa_preferred = 900: this machine has "), "{log}");
}

#[test]
fn a_missing_executor_fails_the_start_and_is_named() {
    let scene = Scene::new();
    let (code, log) = refused(&scene, "c2", "[[processors.c2]]\nbin = '/no/such/c2-exec'");
    assert_eq!(code, 4, "{log}");
    assert!(log.contains("there is no executable /no/such/c2-exec"), "{log}");
}

#[test]
fn a_processor_without_arguments_is_started_and_spoken_of_as_the_worker_does() {
    let scene = Scene::new();
    let bin = scene.path("daemons");
    // The name that it is given is the one it says.
    let script = r#"#!/bin/sh
        echo "$2 $1 ready"
        while read -r line; do :; done"#;
    // A shell writes it: what this process writes to, a child of another test may hold open while
    // it is to be run.
    let written = Command::new("/bin/sh")
        .args(["-c", r#"echo "$1" > "$0" && chmod 755 "$0""#])
        .args([&*bin, script.as_ref()])
        .status();
    assert!(written.expect("it runs").success());
    let config = format!("[[processors.sealing_daemons]]\nbin = {bin:?}\n");
    let config = scene.config("daemons.toml", &config);
    for stage in ["EMPTY", "sealing_daemons"] {
        let mut supervisor = Supervisor::spawn(&mut scene.command(stage, &config));
        supervisor.ready("EMPTY");
        supervisor.await_log("executor is ready", 1);
        supervisor.finish();
    }
}

#[test]
fn what_has_no_effect_is_said_at_start() {
    let scene = Scene::new();
    let limits = "[processors.limitation.concurrent]\n[processors.limit]\nc2 = 1\n";
    let supervisor = scene.start("c2", &format!("{limits}{}", executor("c2", &[], "")));
    supervisor.await_log("c2.toml:3: processors.limit.c2 has no effect: ", 1);
    assert!(supervisor.log().contains("c2 has no limit"), "{}", supervisor.log());
    supervisor.finish();
}

#[test]
fn a_wrong_configuration_stops_the_start() {
    let scene = Scene::new();
    for (config, message) in [
        ("[[processors.c2]]\nlocks = ['gpu']", "refused.toml:2: processors.c2[0].locks[0]"),
        ("[[processors.pc1]]", "has no [[processors.c2]] table"),
        ("[[processors.c2]]\nconcurent = 1", "did you mean"),
    ] {
        let (code, log) = refused(&scene, "c2", config);
        assert_eq!(code, 3, "{log}");
        assert!(log.contains(message), "{log}");
    }
    let own = format!("[[processors.c2]]\nbin = {:?}", env!("CARGO_BIN_EXE_seal-supervisor"));
    let (code, log) = refused(&scene, "c2", &own);
    assert_eq!(code, 3, "{log}");
    assert!(log.contains("is the supervisor itself"), "{log}");
    let output = scene.command("c2", Path::new("/no/such.toml")).output().expect("it runs");
    assert_eq!(output.status.code(), Some(3));
    let output = scene.command("pc3", Path::new("x")).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_first_wait_that_is_longer_than_the_longest_stops_the_start() {
    let scene = Scene::new();
    let config = scene.config("c2.toml", &executor("c2", &[], ""));
    let output = scene.command("c2", &config).args(["--restart-wait", "1m"]).output();
    let output = output.expect("it runs");
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert!(log.contains("--restart-wait is 1m, longer than --restart-wait-max, 30s"), "{log}");
}

#[test]
fn a_runtime_directory_open_to_others_stops_the_start() {
    let scene = Scene::new();
    let run = scene.path("run");
    fs::create_dir(&run).expect("writable");
    let all: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(&run, all).expect("ours");
    let (code, log) = refused(&scene, "c2", &executor("c2", &[], ""));
    assert_eq!(code, 4, "{log}");
    assert!(log.contains("by SEAL_RUNTIME_DIR"), "{log}");
}

#[test]
fn both_schemes_can_be_tried_dry_on_any_machine() {
    let scene = Scene::new();
    for scheme in ["scheme-a.toml", "scheme-b.toml"] {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/schemes").join(scheme);
        for (stage, part) in [
            ("pc1", "  cpus         48-89 (42 in all, by "),
            ("pc2", "FIL_PROOFS_USE_GPU_TREE_BUILDER=1"),
            ("c2", "c2-exec"),
        ] {
            let text = dry_run(&scene, stage, &config);
            assert!(text.contains(part), "{text}");
        }
    }
    assert!(!scene.path("run").exists(), "a dry run leaves nothing behind");
}

#[test]
fn the_schemes_fail_on_a_smaller_machine_and_name_the_missing_cpus() {
    let online = seal_host::online_cpus(Path::new("/sys")).expect("readable");
    let missing = (0..42).collect::<seal_host::CpuSet>().minus(&online);
    if missing.is_empty() {
        skipped("the_schemes_fail_on_a_smaller_machine", "this machine has their cpus");
        return;
    }
    let scene = Scene::new();
    for scheme in ["scheme-a.toml", "scheme-b.toml"] {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/schemes").join(scheme);
        let output = scene.command("pc1", &config).output().expect("it runs");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{log}");
        assert!(log.contains(&format!("cpus {missing} are missing")), "{log}");
        let text = dry_run(&scene, "pc1", &config);
        assert!(text.contains(&format!("cpus {missing} are missing")), "{text}");
    }
}

#[test]
fn executors_lie_beside_the_supervisor_by_default() {
    let scene = Scene::new();
    let supervisor = scene.path("seal-supervisor");
    fs::copy(env!("CARGO_BIN_EXE_seal-supervisor"), &supervisor).expect("copied");
    fs::copy(test_support::fake_exec(), scene.path("pc1-exec")).expect("copied");
    let config = scene.config("c.toml", "[[processors.pc1]]\nargs = ['pc1']");
    let mut supervisor = Supervisor::spawn(&mut scene.command_of(&supervisor, "pc1", &config));
    supervisor.ready("pc1");
    let output = supervisor.ask(1, json!(["describe"]));
    assert_eq!(output["args"], json!([scene.path("pc1-exec"), "pc1"]));
    supervisor.finish();
}

#[test]
fn an_executor_runs_where_it_belongs_also_after_a_restart() {
    let scene = Scene::new();
    let all: seal_host::CpuSet = (0..64).collect();
    let granted = seal_host::grantable_cpus(&all).expect("asked");
    let cpu = granted.iter().last().expect("this test runs on one");
    let more = format!("cgroup.cpuset = '{cpu}'\nconcurrent = 1");
    let mut supervisor = scene.start("pc1", &executor("pc1", &[], &more));
    for id in [1, 3] {
        let told = supervisor.ask(id, json!(["describe"]));
        assert_eq!(told["cpus"], cpu.to_string());
        assert_eq!(told["group"], told["pid"], "it has a group of its own");
        assert_eq!(told["parent"], supervisor.pid());
        supervisor.send(id + 1, json!([{"signal": "SIGKILL"}]));
        supervisor.error(id + 1);
    }
    supervisor.finish();
}

#[test]
fn memory_of_the_preferred_node_is_preferred() {
    let scene = Scene::new();
    let name = "memory_of_the_preferred_node_is_preferred";
    let nodes = seal_host::online_nodes(Path::new("/sys")).expect("readable");
    let Some(node) = nodes.first() else { return skipped(name, "this kernel has no NUMA nodes") };
    let config = scene.config("c.toml", &executor("c2", &[], &format!("numa_preferred = {node}")));
    let mut supervisor = Supervisor::spawn(scene.command("c2", &config).arg("--once"));
    let first = supervisor.line_or_end();
    if first.is_none() && supervisor.log().contains("CAP_SYS_NICE") {
        return skipped(name, "memory policies are not permitted here");
    }
    assert_eq!(first.as_deref(), Some("c2 processor ready"));
    let told = supervisor.ask(1, json!(["describe"]));
    let memory = told["memory"].as_str().expect("text");
    assert!(memory.contains(&format!("prefer:{node}")), "{memory}");
    supervisor.finish();
}

#[test]
fn an_executor_has_the_environment_it_is_given_and_its_own_locks_alone() {
    let scene = Scene::new();
    let limits =
        "[processors.ext_locks]\ngpu = 1\nother = 1\n[processors.limitation.concurrent]\nc2 = 1\n";
    let inheriting = executor("c2", &[], "locks = ['gpu']\nenvs = { A = 'x', VC_CG_NAME = 'y' }");
    let config = scene.config("c.toml", &format!("{limits}{inheriting}"));
    let mut command = scene.command("c2", &config);
    let cpu = seal_host::allowed_cpus().expect("readable").first().expect("one").to_string();
    for (name, value) in [("VC_CG_NAME", "z"), ("VC_CG_CPUSET", &cpu), ("B", "z")] {
        command.env(name, value);
    }
    let mut supervisor = Supervisor::spawn(&mut command);
    supervisor.ready("c2");
    let told = supervisor.ask(1, json!(["describe"]));
    assert_eq!((&told["env"]["A"], &told["env"]["B"]), (&json!("x"), &json!("z")));
    for name in ["VC_CG_NAME", "VC_CG_CPUSET", "VENUS_WORKER_NUMA_PREFERRED"] {
        assert!(told["env"][name].is_null(), "{name} was passed on");
    }
    assert_eq!(
        told["cpus"], cpu,
        "the supervisor is there, and an executor without a place with it"
    );
    let run = scene.text("run");
    let files = told["files"].as_array().expect("files").iter();
    let mut inherited: Vec<_> =
        files.filter_map(|file| file.as_str()?.strip_prefix(&run).map(str::to_owned)).collect();
    inherited.sort();
    assert_eq!(inherited, ["/limits/limit-c2.slots", "/limits/lock-gpu.slots"]);
    supervisor.finish();

    let bare = executor("c2", &[], "inherit_envs = false\nenvs = { A = 'x' }");
    let mut supervisor = scene.start("c2", &bare);
    let mut env = supervisor.ask(1, json!(["describe"]))["env"].clone();
    let mark = env.as_object_mut().expect("names").remove("SEAL_SUPERVISED");
    assert!(mark.is_some(), "what it starts can be found");
    let run = scene.text("run");
    assert_eq!(
        env,
        json!({ "A": "x", "SEAL_EXEC_EVENTS": "1", "SEAL_LOCK_WAIT": "2m", "SEAL_LOG_FORM": "json",
            "SEAL_RUNTIME_DIR": run })
    );
    supervisor.finish();
}

#[test]
fn executors_are_told_how_long_an_ending_one_may_keep_its_locks() {
    let scene = Scene::new();
    let own = "[supervisor.pc1]\ndrain = 'task'\ndeadline = '1h'\n";
    for (own, args, set, told) in [
        ("", &[][..], None, "2m"),
        ("", &["--grace", "10m"], None, "11m"),
        (own, &["--grace", "10m"], None, "1h 11m"),
        (own, &[], Some("7s"), "7s"),
    ] {
        let config = scene.config("pc1.toml", &format!("{own}{}", executor("pc1", &[], "")));
        let mut command = scene.command("pc1", &config);
        command.args(args).env_remove("SEAL_LOCK_WAIT");
        if let Some(set) = set {
            command.env("SEAL_LOCK_WAIT", set);
        }
        let mut supervisor = Supervisor::spawn(&mut command);
        supervisor.ready("pc1");
        let env = &supervisor.ask(1, json!(["describe"]))["env"];
        assert_eq!(env["SEAL_LOCK_WAIT"], told, "{own} {args:?}");
        supervisor.finish();
    }
}

#[test]
fn dead_and_misspelt_settings_are_reported_at_start() {
    let scene = Scene::new();
    let envs = "envs = { FIL_PROOFS_MAXIMIZE_CACHING = '1', FIL_PROOFS_PARENTCACHE = 'x' }";
    let supervisor = scene.start("pc1", &executor("pc1", &[], envs));
    supervisor.await_log("FIL_PROOFS_MAXIMIZE_CACHING has no effect", 1);
    supervisor.await_log("did you mean FIL_PROOFS_PARENT_CACHE?", 1);
    supervisor.finish();
}

#[test]
fn version_and_help_are_told_on_standard_output() {
    let run = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_seal-supervisor"))
            .args(args)
            .output()
            .expect("it runs");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert!(run(&["--version"]).starts_with("seal-supervisor 0."));
    for args in [&["--help"][..], &["processor", "--help"]] {
        let help = run(args);
        assert!(help.contains("SEAL_RUNTIME_DIR") && help.contains("[[processors.pc1]]"), "{help}");
    }
}

#[test]
fn a_relative_runtime_directory_is_a_fault_of_the_configuration() {
    let scene = Scene::new();
    let config = scene.config("pc1.toml", &executor("pc1", &[], ""));
    for args in [&["--runtime-dir", "run-rel"][..], &[]] {
        let mut command = scene.command("pc1", &config);
        command.args(args).env("SEAL_RUNTIME_DIR", "run-rel").current_dir(scene.path("."));
        let output = command.output().expect("it runs");
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{log}");
        let absolute = scene.path("run-rel");
        assert!(log.contains("is not an absolute path"), "{log}");
        assert!(log.contains(&format!("such as {}", absolute.display())), "{log}");
        assert!(!absolute.exists());
    }
}
