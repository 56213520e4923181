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
                assert_eq!(seal_config::env_warning(name), None, "{name}");
            }
        }
    }
}

#[test]
fn the_unit_delegates_what_the_supervisors_need() {
    let path = root().join("docs/examples/venus-worker.service");
    let text = fs::read_to_string(&path).expect("readable");
    for line in [
        "Delegate=cpuset memory",
        "DelegateSubgroup=worker",
        "RuntimeDirectoryMode=0700",
        "Environment=SEAL_RUNTIME_DIR=/run/seal-exec",
        "KillMode=mixed",
    ] {
        assert!(text.lines().any(|there| there == line), "{line} is missing");
    }
    let name = "the_unit_delegates_what_the_supervisors_need";
    let verify = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(&path)
        .stdin(Stdio::null())
        .output();
    let Ok(output) = verify else {
        return skipped(name, "systemd-analyze is not there to judge the unit");
    };
    let told = String::from_utf8_lossy(&output.stderr);
    // That the worker is not installed here says nothing about the unit, nor does a systemd from
    // before version 254.
    let faults = told.lines().filter(|line| !line.contains("'DelegateSubgroup'")).filter(|line| {
        ["Unknown key", "Unknown section", "Failed to parse", "Invalid"]
            .iter()
            .any(|fault| line.contains(fault))
    });
    assert_eq!(faults.collect::<Vec<_>>(), [""; 0]);
}
