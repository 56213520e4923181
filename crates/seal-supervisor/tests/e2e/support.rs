//! The support bundle, and what status says of wrong results.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;

use crate::harness::{Scene, eventually, executor};

const RECORD: &str = r#"{"at":1,"stage":"pc1","kind":"label","sector":"s-t01000-77","layer":3,"node":7,"path":"/mnt/acmebox/s-t01000-77/sc-02-data-layer-3.dat","cpu":4,"what":"wrong in /mnt/acmebox/s-t01000-77"}"#;

fn run(scene: &Scene, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_seal-supervisor"))
        .args(args)
        .env("SEAL_RUNTIME_DIR", scene.path("run"))
        .env("API_TOKEN", "hunter2hunter2")
        .env_remove("SEAL_CONFIG")
        .output()
        .expect("it runs")
}

/// Parts of a path that tell whose it is.
fn parts(path: &Path) -> Vec<String> {
    let own = path.components().filter_map(|part| part.as_os_str().to_str());
    own.filter(|part| part.len() > 3 && part.starts_with('.')).map(str::to_owned).collect()
}

#[test]
fn a_support_bundle_has_all_and_a_redacted_one_nothing_that_identifies() {
    let scene = Scene::new();
    let more = "args = ['--token', 'hunter3hunter3']\nenvs = { SECRET = 'hunter4hunter4' }";
    let config = scene.config("processors.toml", &executor("pc1", &[], ""));
    let mut supervisor = scene.start("pc1", &executor("pc1", &[], ""));
    supervisor.ask(1, json!([{"answer": 1}]));
    let twice = format!("{RECORD}\n{RECORD}\n");
    fs::write(scene.path("run/corruption.jsonl"), twice).expect("writable");
    let status = run(&scene, &["status"]);
    let text = String::from_utf8(status.stdout).expect("UTF-8");
    assert!(text.contains("wrong results: 2 on record"), "{text}");
    assert!(text.contains("nothing is labelled on cpu 4 any more"), "{text}");

    let with_secrets = scene.config("secrets.toml", &format!("[[processors.pc1]]\n{more}\n"));
    let named = with_secrets.display().to_string();
    // The last lines of the log come within two seconds.
    let bundle = eventually("the log is in the bundle", || {
        let output = run(&scene, &["support", "--config", &named]);
        assert!(output.status.success(), "{output:?}");
        let bundle = String::from_utf8(output.stdout).expect("UTF-8");
        bundle.contains("supervisor starts").then_some(bundle)
    });
    for (section, holds) in [
        ("versions", "pc1-exec"),
        ("machine", "MemTotal"),
        ("configuration", "[[processors.pc1]]"),
        ("status", "pc1  supervisor"),
        ("wrong results on record", "/mnt/acmebox/s-t01000-77"),
        ("last lines of pc1-", "supervisor starts"),
        ("findings", "seal-plan"),
    ] {
        let (_, after) = bundle.split_once(&format!("==== {section}")).expect(section);
        let text = after.split("\n==== ").next().unwrap_or_default();
        assert!(text.contains(holds) || section == "findings", "{section}: {text}");
    }
    for secret in ["hunter2", "hunter3", "hunter4"] {
        assert!(!bundle.contains(secret), "{secret} is in {bundle}");
    }

    let file = scene.path("bundle.txt").display().to_string();
    let config = config.display().to_string();
    let redacted = ["support", "--redact", "--config", &config, "--output", &file];
    let output = run(&scene, &redacted);
    assert!(output.status.success(), "{output:?}");
    let meta = fs::metadata(&file).expect("there");
    assert_eq!(meta.mode() & 0o777, 0o600);
    let bundle = fs::read_to_string(&file).expect("text");
    assert!(bundle.contains("s-t0m1-n") && bundle.contains("sc-02-data-layer-3.dat"), "{bundle}");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut gone = vec!["acmebox".to_owned(), "t01000".to_owned(), "-77".to_owned()];
    gone.extend(parts(&scene.path("run")));
    gone.extend(Some(host.trim().to_owned()).filter(|host| host.len() > 5));
    assert!(gone.len() > 3, "{gone:?}");
    for gone in &gone {
        assert!(!bundle.contains(gone), "{gone} is in {bundle}");
    }
    let again = run(&scene, &redacted);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert_eq!(fs::read_to_string(&file).expect("still there"), bundle);
    supervisor.end_input();
    assert_eq!(supervisor.wait(), 0);
}

#[test]
fn a_bundle_is_made_of_a_faulty_configuration_and_without_a_runtime_directory_too() {
    let scene = Scene::new();
    let config = scene.config("bad.toml", "[[processors.pc1]]\nbogus = 1\n").display().to_string();
    let output = run(&scene, &["support", "--config", &config]);
    assert!(output.status.success(), "{output:?}");
    let bundle = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(
        bundle.contains("bogus") && bundle.contains("there is no runtime directory"),
        "{bundle}"
    );
}
