//! The program as users start it: what goes to which output, and with which exit code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn machine(name: &str) -> String {
    root().join("crates/seal-plan/machines").join(name).display().to_string()
}

fn scheme(name: &str) -> String {
    root().join("tests/schemes").join(name).display().to_string()
}

/// Runs the program without anything that the environment could set.
fn seal_plan(args: &[&str]) -> Output {
    let output =
        Command::new(env!("CARGO_BIN_EXE_seal-plan")).args(args).env_remove("SEAL_CONFIG").output();
    output.expect("the program starts")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("no signal")
}

fn json(args: &[&str]) -> Value {
    let output = seal_plan(args);
    serde_json::from_str(&out(&output)).unwrap_or_else(|error| panic!("{args:?}: {error}"))
}

#[test]
fn propose_prints_a_configuration_and_nothing_else_for_every_machine() {
    let dir = root().join("crates/seal-plan/machines");
    let names: Vec<_> = fs::read_dir(dir)
        .expect("there")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
        .collect();
    assert!(names.len() >= 7, "{names:?}");
    let judge = |name: &str| {
        let size = if name == "laptop.toml" { "512MiB" } else { "32GiB" };
        let machine = machine(name);
        let args = ["propose", "--hardware", &machine, "--sector-size", size];
        let output = seal_plan(&args);
        assert_eq!(code(&output), 0, "{name}: {}", err(&output));
        let config = seal_config::parse(Path::new(name), &out(&output));
        let config = config.unwrap_or_else(|error| panic!("{name}: {error}"));
        let stages: Vec<_> = config.executors.keys().map(|stage| stage.name()).collect();
        assert_eq!(stages, ["pc1", "pc2", "c2"], "{name}");
        let told = err(&output);
        for words in ["resource", "there is", "memory", "cores", "What limits this machine:"] {
            assert!(told.contains(words), "{name}: no {words:?} in\n{told}");
        }
        let gpus = out(&output).contains("SEAL_C2_DEVICE");
        assert_eq!(told.contains("needs c2-exec built with cuda"), gpus, "{name}\n{told}");
        if gpus {
            assert!(out(&output).contains("# Needs c2-exec built with cuda (docs/gpu.md)"));
        }
    };
    let half = names.len() / 2;
    thread::scope(|scope| {
        for part in [&names[..half], &names[half..]] {
            scope.spawn(move || part.iter().for_each(|name| judge(name)));
        }
    });
}

#[test]
fn exit_codes_tell_findings_failures_and_wrong_command_lines_apart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("writable");
        path.display().to_string()
    };
    let hardware = machine("epyc7642x2.toml");
    let scheme = scheme("scheme-a.toml");
    let good = write(
        "good.toml",
        "[[processors.pc1]]\ncgroup.cpuset = '0-41'\nconcurrent = 2\nnuma_preferred = 0\n",
    );
    let broken = write("broken.toml", "[[processors.pc1]]\ncgroup.cpuset = '0-400'\n");
    let unreadable = write("unreadable.toml", "[[processors.pc1]\n");
    let gone = dir.path().join("gone.toml").display().to_string();
    let check = |config: &str| seal_plan(&["check", "--config", config, "--hardware", &hardware]);
    for (config, expected) in [(&good, 0), (&scheme, 0), (&broken, 1), (&unreadable, 1), (&gone, 3)]
    {
        let output = check(config);
        assert_eq!(code(&output), expected, "{config}: {}{}", out(&output), err(&output));
    }
    for (config, expected) in [(&good, 0), (&scheme, 1), (&broken, 1)] {
        let strict = ["check", "--config", config, "--hardware", &hardware, "--deny-warnings"];
        assert_eq!(code(&seal_plan(&strict)), expected, "{config}");
    }
    assert!(err(&check(&gone)).contains("gone.toml"), "{}", err(&check(&gone)));
    assert!(out(&check(&broken)).contains("error[cpu-missing]"), "{}", out(&check(&broken)));
    let run = |args: &[&str]| (code(&seal_plan(args)), err(&seal_plan(args)));
    for (args, expected, words) in [
        (&["check"][..], 2, "--config"),
        (&["prpose"], 2, "propose"),
        (&["calc", "--config", &scheme, "--pc1", "5"], 2, "--pc1"),
        (&["calc", "--config", &scheme, "--gpu-sharing", "shared"], 2, "--gpu-sharing"),
        (&["check", "--config", &scheme, "--disk", &gone], 4, "gone.toml"),
        (&["check", "--config", &scheme, "--times", &gone], 3, "gone.toml"),
        (&["propose", "--hardware", &gone], 3, "gone.toml"),
        (
            &["propose", "--hardware", &hardware, "--pc1", "100"],
            1,
            "carries 28 at most; ask for 28",
        ),
        (&["calc", "--config", &gone], 3, "gone.toml"),
        (&["simulate", "--config", &gone], 3, "gone.toml"),
        (&["--version"], 0, ""),
    ] {
        let (got, told) = run(args);
        assert_eq!(got, expected, "{args:?}: {told}");
        assert!(told.contains(words), "{args:?}: {told}");
    }
}

#[test]
fn json_has_the_documented_fields() {
    let (hardware, scheme) = (machine("epyc7642x2.toml"), scheme("scheme-a.toml"));
    let machine = json(&["hardware", "--hardware", &hardware, "--json"]);
    assert_eq!(machine["gpus"][1]["index"], 1, "{machine}");
    let verdict = json(&["check", "--config", &scheme, "--hardware", &hardware, "--json"]);
    assert_eq!((&verdict["errors"], &verdict["warnings"]), (&0.into(), &3.into()), "{verdict}");
    for finding in verdict["findings"].as_array().expect("a list") {
        for field in ["kind", "severity", "file", "line", "key", "reason", "remedy"] {
            assert!(!finding[field].is_null(), "{field} of {finding}");
        }
        assert_eq!(finding["severity"], "warning");
    }
    let times = root().join("tests/schemes/published.times.toml").display().to_string();
    let reports = json(&[
        "simulate",
        "--config",
        &scheme,
        "--hardware",
        &hardware,
        "--times",
        &times,
        "--days",
        "2",
        "--json",
    ]);
    let report = &reports[0];
    assert_eq!(report["stages"].as_array().map(Vec::len), Some(3), "{report}");
    assert!(report["sectors_per_day"].as_f64().is_some_and(|rate| rate > 50.0), "{report}");
}

#[test]
fn a_configuration_that_fails_is_named_beside_its_figures() {
    let hardware = machine("laptop.toml");
    let output =
        seal_plan(&["calc", "--config", &scheme("scheme-b.toml"), "--hardware", &hardware]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(err(&output).contains("these figures are of a set-up that fails"), "{}", err(&output));
    assert!(err(&output).contains("seal-plan check --config"), "{}", err(&output));
}

#[test]
fn a_picture_that_cannot_be_written_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let hardware = machine("epyc7642x2.toml");
    let draw = |svg: &Path| {
        let svg = svg.display().to_string();
        let scheme = scheme("scheme-a.toml");
        seal_plan(&["check", "--config", &scheme, "--hardware", &hardware, "--svg", &svg])
    };
    let names = || -> Vec<_> {
        let entries = fs::read_dir(dir.path()).expect("there");
        entries.map(|entry| entry.expect("readable").file_name()).collect()
    };
    let picture = dir.path().join("a.svg");
    assert_eq!(code(&draw(&picture)), 0);
    assert!(fs::read_to_string(&picture).expect("there").ends_with("</svg>\n"));
    assert_eq!(names(), ["a.svg"]);
    // A directory is in the place of the file.
    fs::remove_file(&picture).expect("ours");
    fs::create_dir(&picture).expect("writable");
    fs::write(picture.join("kept"), "").expect("writable");
    let output = draw(&picture);
    assert_eq!(code(&output), 1, "{}", err(&output));
    assert!(err(&output).contains("a.svg"), "{}", err(&output));
    assert_eq!(names(), ["a.svg"]);
    let output = draw(&dir.path().join("no/such.svg"));
    assert_eq!(code(&output), 1, "{}", err(&output));
}

#[test]
fn a_picture_never_takes_the_place_of_what_is_read() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (config, hardware) = (path("c.toml"), path("h.toml"));
    fs::copy(scheme("scheme-a.toml"), &config).expect("writable");
    fs::copy(machine("epyc7642x2.toml"), &hardware).expect("writable");
    std::os::unix::fs::symlink(&config, path("link.svg")).expect("writable");
    let files = || (fs::read(&config).expect("there"), fs::read(&hardware).expect("there"));
    let before = files();
    for svg in [&config, &hardware, &path("link.svg")] {
        for args in [
            &["check", "--config", &config, "--hardware", &hardware, "--svg", svg][..],
            &["propose", "--hardware", &hardware, "--svg", svg],
            &["simulate", "--config", &config, "--hardware", &hardware, "--svg", svg],
        ] {
            if args[0] == "propose" && *svg != hardware {
                continue;
            }
            let output = seal_plan(args);
            assert_ne!(code(&output), 0, "{args:?}");
            assert!(err(&output).contains("the same file"), "{args:?}: {}", err(&output));
            assert!(files() == before, "{args:?}");
        }
    }
}

#[test]
fn what_is_no_file_is_told_and_never_waited_for() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let fifo = dir.path().join("fifo").display().to_string();
    let made = Command::new("mkfifo").arg(&fifo).status().expect("every Linux has mkfifo");
    assert!(made.success());
    let (config, hardware) = (scheme("scheme-a.toml"), machine("epyc7642x2.toml"));
    for args in [
        &["check", "--config", &fifo, "--hardware", &hardware][..],
        &["check", "--config", &config, "--hardware", &fifo],
        &["check", "--config", &config, "--hardware", &hardware, "--times", &fifo],
    ] {
        let output = seal_plan(args);
        assert_ne!(code(&output), 0, "{args:?}");
        let told = err(&output) + &out(&output);
        assert!(told.contains(&fifo) && told.contains("regular file"), "{args:?}: {told}");
    }
}
