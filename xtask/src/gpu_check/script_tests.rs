//! The script with small programs in place of those that are gathered: what it says and leaves when
//! steps fail, hang or cannot be run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use test_support::skip::skipped;

use super::gather::SCRIPT;
use crate::cargo::root;

const ALL: [&str; 12] = [
    "device",
    "pipes",
    "correctness",
    "sectors",
    "sector",
    "sector-8-in-flight",
    "sector-large-batches",
    "predictions",
    "c2-params",
    "c2-cpu",
    "c2-gpu",
    "c2-gpu-warm",
];

/// A benchmark that writes what it is asked to measure.
const BENCH: &str = r#"echo "gpu-bench $*"
while [ $# -gt 0 ]; do
    if [ "$1" = --json ]; then echo '{}' > "$2"; fi
    shift
done"#;

/// A c2-exec that proves, and answers every line that it is told when it serves.
const C2_EXEC: &str = r#"[ "$1" = processor ] || exit 0
echo '{"name":"ready"}'
while read -r line; do
    number=${line#*\"id\":}
    echo "{\"id\":${number%%,*},\"err_msg\":null}"
done"#;

/// A directory as it is gathered.
struct Gathered {
    dir: TempDir,
}

impl Gathered {
    fn new() -> Self {
        let gathered = Self { dir: TempDir::new().expect("a directory") };
        let script = fs::read(root().join("scripts").join(SCRIPT)).expect("the script");
        fs::write(gathered.path(SCRIPT), script).expect("writable");
        executable(&gathered.path(SCRIPT));
        gathered.program("gpu-bench", BENCH);
        for name in ["device-tests", "sector-tests", "pc2-exec"] {
            gathered.program(name, "echo \"$0 $* $SEAL_TEST_CUDA\"");
        }
        gathered.program("c2-exec", C2_EXEC);
        gathered.file("c2-task.jsonl", "{\"id\":7,\"task\":{}}\n");
        gathered.file("needs.txt", "gpu-bench: libc.so.6 GLIBC_2.34\n");
        gathered
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("writable");
    }

    fn program(&self, name: &str, body: &str) {
        self.file(name, &format!("#!/usr/bin/env bash\n{body}\n"));
        executable(&self.path(name));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path(SCRIPT));
        command.args(arguments).arg(self.path("results"));
        for name in ["SEAL_TEST_CUDA", "SEAL_TEST_PTX", "SEAL_TEST_PTX_RUN", "LD_LIBRARY_PATH"] {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let started = Instant::now();
        let output = self.command(arguments).output().expect("bash is there");
        Run { output, took: started.elapsed(), steps: self.summary() }
    }

    /// Steps with their results and reasons.
    fn summary(&self) -> Vec<(String, String, String)> {
        let text = fs::read_to_string(self.path("results/summary.jsonl")).unwrap_or_default();
        text.lines()
            .map(|line| {
                let json: Value = serde_json::from_str(line).expect(line);
                assert!(json["seconds"].as_f64().is_some_and(|s| s >= 0.0), "{line}");
                let text = |key: &str| json[key].as_str().expect(line).to_owned();
                (text("step"), text("result"), text("why"))
            })
            .collect()
    }
}

fn executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("ours");
}

struct Run {
    output: Output,
    took: Duration,
    steps: Vec<(String, String, String)>,
}

impl Run {
    fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    fn complained(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// What came of a step, and why.
    fn of(&self, step: &str) -> (&str, &str) {
        let mut found = self.steps.iter().filter(|(name, ..)| name == step);
        let (_, result, why) = found.next().unwrap_or_else(|| panic!("{step}: {}", self.said()));
        assert!(found.next().is_none(), "{step}: {}", self.said());
        (result, why)
    }

    /// The steps that came to this, in order.
    fn that_were(&self, result: &str) -> Vec<&str> {
        let steps = self.steps.iter().filter(|(step, of, _)| of == result && step != "all");
        steps.map(|(step, ..)| &**step).collect()
    }
}

#[test]
fn every_step_is_run_in_order_and_told() {
    let gathered = Gathered::new();
    gathered.file("predictions.json", "{}");
    let run = gathered.run(&[]);
    assert_eq!(run.code(), Some(0), "{}{}", run.said(), run.complained());
    assert_eq!(run.that_were("right"), ALL);
    assert_eq!(run.of("all"), ("right", ""));
    let said = run.said();
    assert!(said.contains("every step that was run was right"), "{said}");
    assert!(said.contains("the C library here: "), "{said}");
    for (step, line) in [
        ("pipes", "gpu-bench --json"),
        ("correctness", "device-tests --test-threads 1 device"),
        ("sectors", "sector-tests gpu:: --test-threads 1 device"),
        ("predictions", "gpu-bench compare --predictions"),
    ] {
        let log = fs::read_to_string(gathered.path(&format!("results/{step}.log")));
        assert!(log.as_ref().is_ok_and(|log| log.contains(line)), "{step}: {log:?}");
        assert!(said.contains(line), "{said}");
    }
}

#[test]
fn a_step_that_fails_is_named_and_the_others_still_run() {
    let gathered = Gathered::new();
    gathered.program("device-tests", "echo 'a \"hash\" is wrong'; exit 101");
    gathered.program("sector-tests", "kill -SEGV $$");
    let run = gathered.run(&[]);
    assert_eq!(run.code(), Some(1));
    assert_eq!(run.of("correctness"), ("wrong", "exit code 101"));
    assert_eq!(run.of("sectors"), ("wrong", "ended by signal 11"));
    assert_eq!(run.of("all"), ("wrong", "failed: correctness sectors"));
    assert_eq!(run.that_were("left out"), ["predictions"]);
    assert_eq!(run.that_were("right").len(), ALL.len() - 3);
    assert!(run.said().contains("a \"hash\" is wrong"), "{}", run.said());
}

#[test]
fn a_step_that_hangs_is_ended_with_all_that_it_started() {
    let gathered = Gathered::new();
    let started = gathered.path("started");
    let hangs = format!("sleep 3600 & echo $! > {}; wait", started.display());
    gathered.program("device-tests", &hangs);
    // The step has what is left of all the time, less the seconds to end it.
    let run = gathered.run(&["--steps", "correctness,sectors", "--limit", "10"]);
    assert_eq!(run.code(), Some(1));
    let (result, why) = run.of("correctness");
    assert_eq!(result, "wrong");
    assert!(why.starts_with("ended after the ") && why.ends_with(" s that it may take"), "{why}");
    assert!(run.took < Duration::from_secs(30), "{:?}", run.took);
    let (_, why) = run.of("sectors");
    assert_eq!(why, "not run, because the 10 s of --limit are over");
    is_gone(&started);
}

#[test]
fn a_step_that_does_not_end_when_told_is_killed() {
    let gathered = Gathered::new();
    let started = gathered.path("started");
    let hangs = format!("trap '' TERM; echo $$ > {}; while :; do sleep 1; done", started.display());
    gathered.program("device-tests", &hangs);
    let run = gathered.run(&["--steps", "correctness", "--limit", "10"]);
    assert_eq!(run.code(), Some(1));
    let (_, why) = run.of("correctness");
    assert!(why.starts_with("ended after the "), "{why}");
    assert!(run.took < Duration::from_secs(30), "{:?}", run.took);
    is_gone(&started);
}

/// The process whose number stands in a file ends, if it has not yet.
fn is_gone(file: &Path) {
    let text = fs::read_to_string(file).expect("a number");
    let process = Path::new("/proc").join(text.trim());
    let since = Instant::now();
    // Nobody may be there to wait for it, so that its entry stays.
    let ended = |process: &Path| {
        fs::read_to_string(process.join("stat")).map_or(true, |stat| stat.contains(") Z "))
    };
    while !ended(&process) {
        assert!(since.elapsed() < Duration::from_secs(5), "process {} goes on", text.trim());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn who_ends_the_script_ends_what_it_runs() {
    let gathered = Gathered::new();
    let started = gathered.path("started");
    let hangs = format!("echo $$ > {}; exec sleep 3600", started.display());
    gathered.program("device-tests", &hangs);
    let mut command = gathered.command(&["--steps", "correctness"]);
    let mut script = command.stdout(Stdio::null()).spawn().expect("bash is there");
    wait_for(&mut script, &started);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(script.id()).expect("a process"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it runs");
    assert_eq!(script.wait().expect("a child").code(), Some(143));
    is_gone(&started);
}

/// Waits until a program has written the file.
fn wait_for(script: &mut Child, file: &Path) {
    let since = Instant::now();
    while fs::read_to_string(file).map_or(true, |text| !text.ends_with('\n')) {
        let ended = script.try_wait().expect("a child");
        assert!(ended.is_none() && since.elapsed() < Duration::from_secs(60), "{ended:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_library_that_is_missing_is_named_before_any_step() {
    let gathered = Gathered::new();
    let Some(()) = needs_a_library_that_is_not_there(&gathered, "device-tests") else { return };
    fs::remove_file(gathered.path("pc2-exec")).expect("it was there");
    let run = gathered.run(&[]);
    assert_eq!(run.code(), Some(1));
    let said = run.said();
    let named = said.find("libsealmissing.so.7 => not found").expect(&said);
    assert!(named < said.find("==> device:").expect(&said), "{said}");
    assert!(said.contains("gpu-bench: libc.so.6 GLIBC_2.34"), "{said}");
    let (result, why) = run.of("correctness");
    assert_eq!(result, "wrong");
    assert!(why.contains("libsealmissing.so.7"), "{why}");
    let (result, why) = run.of("sectors");
    assert!(result == "wrong" && why.contains("pc2-exec") && why.contains("is not in"), "{why}");
    assert_eq!(run.of("pipes"), ("right", ""));
}

/// Makes a program that needs a library, and takes the library away.
fn needs_a_library_that_is_not_there(gathered: &Gathered, name: &str) -> Option<()> {
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let compile = |source: &str, arguments: &[&str], to: &str| {
        gathered.file("source.c", source);
        let mut command = Command::new(&compiler);
        command.current_dir(gathered.dir.path()).args(["source.c", "-o", to]).args(arguments);
        command.output()
    };
    let library = ["-shared", "-fPIC", "-Wl,-soname,libsealmissing.so.7"];
    let made = compile("int missing(void) { return 0; }", &library, "libsealmissing.so");
    if made.is_err() {
        skipped("a program that misses a library", "no C compiler (cc, or the one in CC)");
        return None;
    }
    assert!(made.is_ok_and(|output| output.status.success()), "a library is compiled");
    let uses = "int missing(void); int main(void) { return missing(); }";
    let made = compile(uses, &["-L.", "-lsealmissing"], name).expect("the compiler is there");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::remove_file(gathered.path("libsealmissing.so")).expect("it was there");
    Some(())
}

#[test]
fn a_program_for_another_machine_is_named() {
    let gathered = Gathered::new();
    gathered.file("gpu-bench", "\x7fELF\x02\x01\x01\0\0 of no machine");
    executable(&gathered.path("gpu-bench"));
    let run = gathered.run(&["--steps", "device"]);
    assert_eq!(run.code(), Some(1));
    let (_, why) = run.of("device");
    assert!(why.starts_with("gpu-bench cannot be started here: "), "{why}");
    assert!(why.contains("Exec format error"), "{why}");
}

#[test]
fn a_c2_exec_that_dies_is_noticed_at_once() {
    let gathered = Gathered::new();
    for (body, says) in [
        ("exit 5", "c2-exec ended with 5 before it had answered three tasks"),
        ("read -r line; echo '{\"id\":1,\"err_msg\":null}'; kill -KILL $$", "ended with 137"),
        (
            "for id in 1 2 3; do read -r line; echo \"{\\\"id\\\":$id,\\\"err_msg\\\":\\\"no\\\"}\"; done; cat",
            "c2-exec did not prove all three tasks",
        ),
    ] {
        gathered.program("c2-exec", body);
        let run = gathered.run(&["--steps", "c2-gpu-warm"]);
        assert_eq!(run.code(), Some(1));
        assert_eq!(run.of("c2-gpu-warm"), ("wrong", "exit code 1"));
        assert!(run.said().contains(says), "{}", run.said());
        assert!(run.took < Duration::from_secs(20), "{:?}", run.took);
    }
}

#[test]
fn steps_that_were_not_chosen_are_left_out_and_told() {
    let gathered = Gathered::new();
    let run = gathered.run(&["--steps", "pipes,correctness"]);
    assert_eq!(run.code(), Some(0), "{}", run.said());
    assert_eq!(run.that_were("right"), ["pipes", "correctness"]);
    assert_eq!(run.that_were("left out").len(), ALL.len() - 2);
    assert_eq!(run.of("sectors"), ("left out", "not chosen"));
    assert!(run.said().contains("left out: device sectors sector "), "{}", run.said());
}

#[test]
fn without_c2_and_predictions_it_says_so() {
    let gathered = Gathered::new();
    for name in ["c2-exec", "c2-task.jsonl"] {
        fs::remove_file(gathered.path(name)).expect("it was there");
    }
    let run = gathered.run(&[]);
    assert_eq!(run.code(), Some(0), "{}", run.said());
    assert_eq!(run.that_were("left out"), ALL[7..]);
    assert!(run.of("c2-gpu").1.contains("c2-exec is not here"));
    assert!(run.of("predictions").1.contains("predictions.json is not here"));
    // Who asks for it by name is not content with less.
    for step in ["c2-gpu", "predictions"] {
        assert_eq!(gathered.run(&["--steps", step]).code(), Some(1), "{step}");
    }
    // What an earlier run has measured can be compared.
    gathered.file("predictions.json", "{}");
    let run = gathered.run(&["--steps", "predictions"]);
    assert_eq!((run.code(), run.of("predictions")), (Some(0), ("right", "")));
}

#[test]
fn on_a_stand_in_there_is_little_work_and_no_c2() {
    let gathered = Gathered::new();
    gathered.file("kernels.ptx", "");
    let mut command = gathered.command(&[]);
    command.env("SEAL_TEST_CUDA", "ptx");
    let output = command.output().expect("bash is there");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("SEAL_TEST_CUDA=ptx needs a file in SEAL_TEST_PTX"), "{said}");
    let file = gathered.path("kernels.ptx");
    let output = command.env("SEAL_TEST_PTX", &file).env("SEAL_TEST_PTX_RUN", &file).output();
    let output = output.expect("bash is there");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("--nodes 256 --batch 64"), "{said}");
    assert!(said.contains("no figure tells a speed"), "{said}");
    let run = Run { output, took: Duration::ZERO, steps: gathered.summary() };
    assert_eq!(run.that_were("left out"), ALL[7..]);
}

#[test]
fn what_is_not_understood_is_refused_before_anything_is_run() {
    let gathered = Gathered::new();
    for (arguments, says) in [
        (&["--step", "pipes"][..], "the option '--step' is not known"),
        (&["--steps", "pipes,speed"], "no step is called 'speed'"),
        (&["--steps", ""], "--steps names no step"),
        (&["--limit", "ten"], "--limit 'ten' is no number of seconds"),
        (&["--limit", "0"], "--limit '0' is no number of seconds"),
        (&["a"], "one directory too many"),
    ] {
        let run = gathered.run(arguments);
        assert_eq!(run.code(), Some(2), "{arguments:?}");
        assert!(run.complained().contains(says), "{arguments:?}: {}", run.complained());
        assert!(run.steps.is_empty() && run.said().is_empty(), "{}", run.said());
    }
    let mut command = gathered.command(&[]);
    let output = command.env("SEAL_TEST_CUDA", "host").output().expect("bash is there");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn help_and_list_tell_every_step_and_option() {
    let gathered = Gathered::new();
    let run = gathered.run(&["--list"]);
    assert_eq!(run.code(), Some(0));
    let said = run.said();
    let steps: Vec<_> = said.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(steps, ALL);
    let page = fs::read_to_string(root().join("docs/gpu.md")).expect("the page");
    for step in ALL {
        assert!(page.contains(&format!("`{step}`")), "docs/gpu.md does not tell of {step}");
    }
    let help = gathered.run(&["--help"]);
    assert_eq!(help.code(), Some(0));
    for option in ["--steps", "--limit", "--list", "RESULTS", "SEAL_TEST_CUDA=ptx"] {
        assert!(help.said().contains(option), "{}", help.said());
    }
    assert!(help.steps.is_empty());
}

#[test]
fn shellcheck_finds_nothing() {
    let script = root().join("scripts").join(SCRIPT);
    match Command::new("shellcheck").arg(&script).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
        Err(_) => skipped("shellcheck of gpu-check.sh", "no shellcheck"),
    }
}
