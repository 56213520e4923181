//! A GPU that is lost in the middle of a sector: the task is answered, what waits is refused, and
//! the process ends in order with a code of its own, so that whoever started it starts it anew.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pc2_exec::{LayerCheck, Pc2};
use seal_poseidon::Kernel;
use seal_runtime::{ServeOptions, serve};
use seal_trees::{Gpu, GpuParts, GpuSettings, Settings};
use seal_types::{TREE_D, layer_file, layer_id};
use seal_wire::{ErrorCode, ExitCode};
use serde_json::{Value, json};
use test_support::cuda::cuda_stand_in;
use test_support::plain;
use test_support::vector::Vector;

/// Names the stand-in for the driver, in the process that serves.
const LIBRARY: &str = "PC2_EXEC_TEST_LIBRARY";

/// Longer than a good run ever takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn an_executor_whose_gpu_is_lost_answers_refuses_and_ends() {
    if let Some(library) = std::env::var_os(LIBRARY) {
        let code = serve_on(Path::new(&library));
        assert_eq!(code, ExitCode::DeviceLost);
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let script = "lose 2\ngone 1";
    let Some(library) = cuda_stand_in("an executor whose gpu is lost", dir.path(), script) else {
        return;
    };
    let task = sector(dir.path());
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "an_executor_whose_gpu_is_lost_answers_refuses_and_ends"])
        .args(["--nocapture", "--test-threads", "1"])
        .env(LIBRARY, &library)
        .env(seal_wire::EVENTS, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    // The input stays open: it is the executor that ends.
    let mut requests = child.stdin.take().expect("piped");
    for id in [1, 2] {
        writeln!(requests, "{}", json!({ "id": id, "task": task })).expect("it reads");
    }
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if started.elapsed() > PATIENCE {
            child.kill().expect("a child");
            panic!("it lives on without its device");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut output = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut output).expect("text");
    // The test harness writes there too.
    let answers: Vec<Value> = output
        .lines()
        .filter_map(|line| serde_json::from_str(&line[line.find('{')?..]).ok())
        .collect();
    let started = answers.iter().find(|line| line["event"] == "started").expect("it was asked for");
    let device = started["device"].as_str().expect("what it runs on");
    assert!(device.starts_with("gpu stand-in (GPU-") && device.contains("columns and trees"));
    let error = |id: u64| {
        let of_id: Vec<_> =
            answers.iter().filter(|line| line["id"] == id && line["event"].is_null()).collect();
        let [answer] = &of_id[..] else { panic!("one answer to {id}: {output}") };
        answer["err_msg"].as_str().expect("a failure").to_owned()
    };
    for id in [1, 2] {
        assert_eq!(ErrorCode::of_message(&error(id)), Some(ErrorCode::Unavailable));
    }
    assert!(error(1).contains("CUDA_ERROR_LAUNCH_FAILED"), "{output}");
    assert!(error(2).contains("lost") && error(2).contains("send the request again"), "{output}");
    // The exit code was looked at in the child.
    assert!(status.success(), "{status}: {output}");
}

fn serve_on(library: &Path) -> ExitCode {
    let settings = GpuSettings {
        driver: Some(library.to_path_buf()),
        image: Some(b"the stand-in has its kernels within"),
        ..GpuSettings::new(GpuParts { columns: true, trees: true }, Kernel::detect())
    };
    let backend = Arc::new(Gpu::open(settings).expect("the stand-in works"));
    let executor =
        Pc2 { backend, settings: Settings::default(), layer_check: LayerCheck::Recorded };
    serve(Arc::new(executor), ServeOptions::concurrent(1))
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
