//! A GPU that fails a sector. One that is lost: the task is answered, what waits is refused, and the
//! process ends in order with a code of its own, so that whoever started it starts it anew. One
//! that computes wrongly: the parent is told, and tasks fail because of it alone, or the processor
//! does them.

use std::fs;
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pc2_exec::{LayerCheck, Pc2};
use seal_options::{Common, LogChoice};
use seal_poseidon::Kernel;
use seal_runtime::{ServeOptions, serve};
use seal_trees::{Backend, Cpu, Gpu, GpuParts, GpuSettings, Settings};
use seal_types::{TREE_D, layer_file, layer_id};
use seal_wire::{ErrorCode, ExitCode};
use serde_json::{Value, json};
use test_support::cuda::{cuda_stand_in, set_script};
use test_support::plain;
use test_support::vector::Vector;

/// Names the stand-in for the driver, in the process that serves.
const LIBRARY: &str = "PC2_EXEC_TEST_LIBRARY";

/// Longer than a good run ever takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The log of the process that serves, in the test's directory.
const LOG: &str = "log";

/// What the stand-in does once the executor has its device.
const SCRIPT: &str = "PC2_EXEC_TEST_SCRIPT";

/// Whether the processor may take the place of the device.
const REPLACEABLE: &str = "PC2_EXEC_TEST_REPLACEABLE";

/// The process that serves, if this is it.
fn serves(expected: ExitCode) -> bool {
    let Some(library) = std::env::var_os(LIBRARY) else { return false };
    let script = std::env::var(SCRIPT).expect("given with the library");
    let replaceable = std::env::var_os(REPLACEABLE).is_some();
    assert_eq!(serve_on(Path::new(&library), &script, replaceable), expected);
    true
}

/// Serves the requests 1 and 2 for a sector in a process of its own, of the test `name`. Returns
/// the lines that it writes. If its input ends, so does it; otherwise it has to end by itself.
fn lines_of(
    name: &str,
    dir: &Path,
    script: &str,
    replaceable: bool,
    close: bool,
) -> Option<Vec<Value>> {
    let library = cuda_stand_in(name, dir, "")?;
    let task = sector(dir);
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command
        .args(["--exact", name, "--nocapture", "--test-threads", "1"])
        .env(LIBRARY, &library)
        .env(SCRIPT, script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(dir.join(LOG)).expect("writable"));
    if replaceable {
        command.env(REPLACEABLE, "1");
    }
    let mut child = command.spawn().expect("it starts");
    let mut requests = child.stdin.take().expect("piped");
    for id in [1, 2] {
        writeln!(requests, "{}", json!({ "id": id, "task": task })).expect("it reads");
    }
    let _open = (!close).then_some(requests);
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if started.elapsed() > PATIENCE {
            child.kill().expect("a child");
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut output = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut output).expect("text");
    // The exit code was looked at in the child.
    let log = || fs::read_to_string(dir.join(LOG)).unwrap_or_default();
    assert!(status.success(), "{status}: {output}\n{}", log());
    // The test harness writes there too.
    let lines = output.lines();
    Some(lines.filter_map(|line| serde_json::from_str(&line[line.find('{')?..]).ok()).collect())
}

/// The one answer to a request.
fn answer(lines: &[Value], id: u64) -> &Value {
    let of_id: Vec<_> =
        lines.iter().filter(|line| line["id"] == id && line["event"].is_null()).collect();
    let [answer] = of_id[..] else { panic!("one answer to {id}: {lines:?}") };
    answer
}

/// The error that a request was answered with.
fn error(lines: &[Value], id: u64) -> String {
    answer(lines, id)["err_msg"].as_str().expect("a failure").to_owned()
}

/// What was told of the device: its standing, how often it was wrong, and what stands in for it.
fn standings(lines: &[Value]) -> Vec<(String, u64, bool)> {
    let told = lines.iter().filter(|line| line["event"] == "device");
    told.map(|line| {
        let device = line["device"].as_str().expect("a name");
        assert!(device.starts_with("stand-in (GPU-00010203-"), "{device}");
        let standing = line["standing"].as_str().expect("text").to_owned();
        let wrong = line["wrong"].as_u64().expect("a number");
        (standing, wrong, line["replaced_by"].is_string())
    })
    .collect()
}

#[test]
fn an_executor_whose_gpu_is_lost_answers_refuses_and_ends() {
    if serves(ExitCode::DeviceLost) {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let name = "an_executor_whose_gpu_is_lost_answers_refuses_and_ends";
    // The input stays open: it is the executor that ends.
    let Some(lines) = lines_of(name, dir.path(), "lose 8\ngone 1", false, false) else { return };
    let started = lines.iter().find(|line| line["event"] == "started").expect("it was asked for");
    let device = started["device"].as_str().expect("what it runs on");
    assert!(device.starts_with("gpu stand-in (GPU-") && device.contains("columns and trees"));
    for id in [1, 2] {
        assert_eq!(ErrorCode::of_message(&error(&lines, id)), Some(ErrorCode::Unavailable));
    }
    assert!(error(&lines, 1).contains("CUDA_ERROR_LAUNCH_FAILED"), "{lines:?}");
    let refused = error(&lines, 2);
    assert!(refused.contains("lost") && refused.contains("send the request again"), "{refused}");
    // To be lost is not to compute wrongly.
    assert_eq!(standings(&lines), [("good".to_owned(), 0, false)]);
}

#[test]
fn an_executor_whose_gpu_computes_wrongly_says_so_and_blames_no_sector() {
    if serves(ExitCode::Success) {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let name = "an_executor_whose_gpu_computes_wrongly_says_so_and_blames_no_sector";
    let script = "wrong seal_columns_2 2 1 all";
    let Some(lines) = lines_of(name, dir.path(), script, false, true) else { return };
    for id in [1, 2] {
        let error = error(&lines, id);
        assert_eq!(ErrorCode::of_message(&error), Some(ErrorCode::BadDevice), "{error}");
        assert!(error.contains("stand-in (GPU-") && error.contains("columns of 2"), "{error}");
    }
    let standings = standings(&lines);
    assert_eq!(standings.first(), Some(&("good".to_owned(), 0, false)));
    assert_eq!(standings.last(), Some(&("left_out".to_owned(), 2, false)));
}

#[test]
fn the_processor_does_the_tasks_of_a_gpu_that_computes_wrongly() {
    if serves(ExitCode::Success) {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let name = "the_processor_does_the_tasks_of_a_gpu_that_computes_wrongly";
    let script = "wrong seal_rows_8 6 1 nonsense";
    let Some(lines) = lines_of(name, dir.path(), script, true, true) else { return };
    let vector = Vector::named("2KiB-v1_1-a").expect("a vector");
    for id in [1, 2] {
        let output = &answer(&lines, id)["output"];
        let comm_r: Vec<u8> = serde_json::from_value(output["comm_r"].clone()).expect("bytes");
        let hex: String = comm_r.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, vector.comm_r, "{lines:?}");
    }
    assert_eq!(standings(&lines).last(), Some(&("left_out".to_owned(), 2, true)));
    let device = |id: u64| {
        let started = lines.iter().find(|line| line["event"] == "started" && line["id"] == id);
        started.expect("it was told")["device"].as_str().expect("text").to_owned()
    };
    assert!(device(1).starts_with("gpu stand-in"), "{}", device(1));
    assert!(device(2).contains("in place of gpu stand-in"), "{}", device(2));
    // It was planned for the processor, and not done by it with what was planned for a device.
    let cpu = Cpu::new(Kernel::detect());
    let session = cpu.begin().expect("the processor is there");
    let log = fs::read_to_string(dir.path().join(LOG)).expect("text");
    let done: Vec<Value> = log
        .lines()
        .filter(|line| line.contains("PC2 done"))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(done.len(), 2, "{log}");
    for done in done {
        assert_eq!(done["device"], session.device(), "{log}");
        assert_eq!(done["block_nodes"], 64, "{log}");
        assert_eq!(done["workers"], session.workers(), "{log}");
    }
}

fn serve_on(library: &Path, script: &str, replaceable: bool) -> ExitCode {
    let _last_words = seal_runtime::init_logging(&LogChoice::default());
    let settings = GpuSettings {
        replaceable,
        driver: Some(library.to_path_buf()),
        image: Some(b"the stand-in has its kernels within"),
        ..GpuSettings::new(GpuParts { columns: true, trees: true }, Kernel::detect())
    };
    let backend = Arc::new(Gpu::open(settings).expect("the stand-in works"));
    set_script(library, script);
    let executor = Pc2 {
        backend,
        settings: Settings::default(),
        layer_check: LayerCheck::Recorded,
        corruption: None,
    };
    let common = Common { events: true, ..Common::default() };
    serve(Arc::new(executor), ServeOptions::new(NonZeroUsize::new(1), &common))
}

/// Makes a sector as PC1 leaves it and returns the task of PC2.
fn sector(dir: &Path) -> Value {
    let vector = Vector::named("2KiB-v1_1-a").expect("a vector");
    let porep = vector.porep().expect("a proof");
    let (cache, sealed) = (dir.join("cache"), dir.join("sealed"));
    let staged = vector.staged_bytes();
    fs::create_dir(&cache).expect("writable");
    fs::write(&sealed, &staged).expect("writable");
    fs::write(cache.join(TREE_D), plain::tree_d(&staged)).expect("writable");
    let replica_id = vector.replica_id().expect("a replica id");
    for (layer, labels) in (1..).zip(plain::label_layers(&porep, replica_id)) {
        fs::write(cache.join(layer_file(layer)), labels.as_flattened()).expect("writable");
    }
    let store = |id: String| json!({ "path": cache, "id": id, "size": 64, "rows_to_discard": 0 });
    let labels: Vec<_> = (1..=porep.layers).map(|layer| store(layer_id(layer))).collect();
    json!({
        "pc1out": {
            "registered_proof": "StackedDrg2KiBV1_1",
            "labels": { "StackedDrg2KiBV1": { "labels": labels, "_h": null } },
            "config": store("tree-d".to_owned()),
            "comm_d": vector.comm_d().expect("a commitment").0,
        },
        "cache_dir": cache,
        "sealed_file": sealed,
    })
}
