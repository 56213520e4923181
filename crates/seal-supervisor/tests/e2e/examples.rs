//! The examples in the documentation do what they say.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use seal_config::{Config, StageName};
use seal_supervisor::{Machine, Plan};
use test_support::skip::skipped;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn example(name: &str) -> Config {
    let path = root().join("docs/examples").join(name);
    seal_config::load(&path).unwrap_or_else(|error| panic!("{error}"))
}

const STAGES: [StageName; 3] = [StageName::Pc1, StageName::Pc2, StageName::C2];

#[test]
fn the_worker_starts_one_supervisor_for_each_stage() {
    for scheme in ["a", "b"] {
        let config = example(&format!("scheme-{scheme}.worker.toml"));
        assert_eq!(config.executors.keys().copied().collect::<Vec<_>>(), STAGES);
        for (stage, executors) in &config.executors {
            let [executor] = &executors[..] else { panic!("{stage} has several processors") };
            assert!(executor.bin.as_ref().is_some_and(|bin| bin.ends_with("seal-supervisor")));
            let file = format!("/etc/seal-exec/scheme-{scheme}.processors.toml");
            assert_eq!(executor.args, ["processor", stage.name(), "--config", &file]);
        }
    }
}

#[test]
fn the_supervisors_run_what_the_schemes_say() {
    for scheme in ["a", "b"] {
        let ours = example(&format!("scheme-{scheme}.processors.toml"));
        let path = root().join(format!("tests/schemes/scheme-{scheme}.toml"));
        let theirs = seal_config::load(&path).expect("a scheme that must work");
        assert_eq!(ours.concurrent, theirs.concurrent);
        assert_eq!(ours.locks, theirs.locks);
        for stage in STAGES {
            let (ours, theirs) = (&ours.executors[&stage], &theirs.executors[&stage]);
            assert_eq!(ours.len(), theirs.len());
            for (our, their) in ours.iter().zip(theirs) {
                let served = stage.served().expect("one of ours");
                let bin = Path::new("/opt/seal-exec").join(served.executor());
                assert_eq!(our.bin.as_deref(), Some(&*bin));
                // The only setting that is left out has no effect in any software of today.
                let mut envs: BTreeMap<_, _> = their.envs.clone();
                envs.remove("FIL_PROOFS_MAXIMIZE_CACHING");
                // Other software uses a GPU that it sees, our C2 one that it is asked to use.
                if stage == StageName::C2 {
                    envs.insert("SEAL_C2_DEVICE".to_owned(), "cuda".to_owned());
                }
                let like_ours = seal_config::ExecutorConfig {
                    line: our.line,
                    bin: our.bin.clone(),
                    // Beside a binary, those by which a worker starts it.
                    args: vec!["processor".to_owned(), stage.to_string()],
                    envs,
                    ..their.clone()
                };
                assert_eq!(*our, like_ours);
            }
        }
    }
}

#[test]
fn nothing_is_to_be_said_against_them_on_their_machine() {
    let sys = tempfile::tempdir().expect("a temporary directory");
    test_support::write_sysfs(sys.path(), "0-95", &["0-47", "48-95"]).expect("writable");
    let machine = Machine::described(sys.path()).expect("readable");
    for scheme in ["a", "b"] {
        let config = example(&format!("scheme-{scheme}.processors.toml"));
        for stage in STAGES {
            let plan = Plan::new(&config, stage, Path::new("/opt/seal-exec/seal-supervisor"), None)
                .expect("it can be meant");
            assert_eq!(plan.doubts(&machine), [""; 0]);
            // The binaries are not where the examples look for them.
            let problems = plan.problems(&machine);
            let others: Vec<_> = problems
                .iter()
                .filter(|problem| !matches!(problem, seal_supervisor::Problem::NoProgram { .. }))
                .collect();
            assert!(others.is_empty(), "{others:?}");
            let own = plan.executors.iter().flat_map(|executor| executor.envs.keys());
            for name in own {
                assert_eq!(seal_options::env_warning(name), None, "{name}");
            }
        }
    }
}

#[test]
fn the_unit_delegates_what_the_supervisors_need() {
    let text = fs::read_to_string(root().join(UNIT)).expect("readable");
    for line in [
        "Delegate=cpuset memory",
        "RuntimeDirectoryMode=0700",
        "Environment=SEAL_RUNTIME_DIR=/run/seal-exec",
        "KillMode=mixed",
    ] {
        assert!(text.lines().any(|there| there == line), "{line} is missing");
    }
}

const UNIT: &str = "docs/examples/venus-worker.service";

/// What systemd here says against the unit with one of its additions, and its version. The worker,
/// which is not installed here, is replaced.
fn verified(addition: Option<&str>) -> Option<(String, u32)> {
    let version = Command::new("systemd-analyze").arg("--version").output().ok()?;
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let version = version.split_whitespace().nth(1)?.parse().expect("systemd 252 (...)");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let copy = |name: &str| {
        let text = fs::read_to_string(root().join("docs/examples").join(name)).expect("readable");
        let to = dir.path().join(name);
        fs::create_dir_all(to.parent().expect("a directory")).expect("writable");
        fs::write(to, text.replace("/opt/venus/venus-worker", "/bin/true")).expect("writable");
    };
    copy("venus-worker.service");
    addition.into_iter().for_each(|name| copy(&format!("venus-worker.service.d/{name}")));
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(dir.path().join("venus-worker.service"))
        .stdin(Stdio::null())
        .output()
        .expect("it has just run");
    let told = String::from_utf8_lossy(&output.stderr);
    // Units of this machine have faults of their own.
    let of_ours = told.lines().filter(|line| line.contains("venus-worker"));
    Some((of_ours.collect::<Vec<_>>().join("\n"), version))
}

#[test]
fn the_unit_has_nothing_that_systemd_does_not_know() {
    let name = "the_unit_has_nothing_that_systemd_does_not_know";
    for (addition, first) in
        [(None, 247), (Some("subgroup-247.conf"), 247), (Some("subgroup-254.conf"), 254)]
    {
        match verified(addition) {
            None => return skipped(name, "systemd-analyze is not there to judge the unit"),
            Some((told, version)) if version >= first => assert_eq!(told, "", "{addition:?}"),
            // That the file is read and judged at all shows where the key is not known.
            Some((told, _)) => {
                assert!(told.contains("Unknown key"), "{addition:?}: {told}");
                assert!(told.contains("'DelegateSubgroup'"), "{addition:?}: {told}");
                skipped(name, "this systemd is older than 254, for which one file is");
            }
        }
    }
}

#[test]
fn the_shell_for_older_systemd_goes_into_a_subgroup_and_becomes_the_worker() {
    let path = root().join("docs/examples/venus-worker.service.d/subgroup-247.conf");
    let text = fs::read_to_string(path).expect("readable");
    let command = text.lines().find_map(|line| line.strip_prefix("ExecStart=/bin/sh -c '"));
    let (script, worker) = command.and_then(|rest| rest.split_once("' ")).expect("a script");
    assert_eq!(worker, "/opt/venus/venus-worker daemon -c /etc/venus/venus-worker.toml");
    let unit = fs::read_to_string(root().join(UNIT)).expect("readable");
    assert!(unit.lines().any(|line| line.strip_prefix("ExecStart=") == Some(worker)));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let [groups, own] = ["groups", "cgroup"].map(|name| dir.path().join(name));
    let group = groups.join("system.slice/venus-worker.service");
    fs::create_dir_all(&group).expect("writable");
    fs::write(&own, "1:name=systemd:/other\n0::/system.slice/venus-worker.service\n")
        .expect("writable");
    let script = script
        .replace("$$", "$")
        .replace("/sys/fs/cgroup", groups.to_str().expect("UTF-8"))
        .replace("/proc/self/cgroup", own.to_str().expect("UTF-8"));
    let run = || {
        let output = Command::new("/bin/sh")
            .args(["-c", &script, "/bin/sh", "-c", "echo $$ $0 $1", "daemon", "-c"])
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{output:?}");
        let told = String::from_utf8(output.stdout).expect("UTF-8");
        (told, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // A restart finds the group there.
    for _ in 0..2 {
        let (told, log) = run();
        let (pid, arguments) = told.trim_end().split_once(' ').expect("told");
        assert_eq!((arguments, log.as_str()), ("daemon -c", ""));
        let procs = fs::read_to_string(group.join("worker/cgroup.procs")).expect("written");
        assert_eq!(procs.trim_end(), pid, "the shell has gone in and become the worker");
    }
    fs::remove_dir_all(&groups).expect("ours");
    fs::write(&groups, "no directory").expect("writable");
    let (told, log) = run();
    assert!(told.ends_with("daemon -c\n"), "{told}");
    assert!(log.contains("no subgroup: executors are placed by cpu affinity"), "{log}");
}
