//! PC2 on a device: the vectors, each part of the work there or not, and devices that fail. The
//! device is a stand-in for the driver that runs the kernels' host build, or what nvcc has made of
//! them (`SEAL_TEST_CUDA=ptx`), or a real one with `SEAL_TEST_CUDA=device`; what takes a script is
//! left out then.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use seal_poseidon::Kernel;
use seal_trees::{
    Backend, Cpu, Gpu, GpuParts, GpuSettings, NoRecord, Pc2Job, Pc2Paths, Pc2Result, Settings,
    TreesError, Watch, pre_commit2,
};
use serde_json::{Value, json};
use test_support::cuda::{executes_ptx, left_behind, set_script};
use test_support::skip::{skipped, slow_tests};
use test_support::vector::vectors_dir;

use crate::support::{Sector, Vector};
use crate::vectors::{is_sealed, reproduces_on};

const QUIET: Watch<'static> = Watch { progress: &|_, _, _| {}, cancelled: &|| false };
const BOTH: GpuParts = GpuParts { columns: true, trees: true };

/// Whether a real device was asked for.
fn real() -> bool {
    std::env::var("SEAL_TEST_CUDA").is_ok_and(|value| value == "device")
}

/// The library of a stand-in with this script, for tests that do not work on a real device.
fn cuda_stand_in(test: &str, dir: &Path, script: &str) -> Option<PathBuf> {
    if real() {
        skipped(test, "a real device does not go by a script");
        return None;
    }
    test_support::cuda::cuda_stand_in(test, dir, script)
}

/// All vectors of sectors up to so many bytes.
fn sectors(most_bytes: u64) -> impl Iterator<Item = Vector> {
    let all = test_support::vector::Vector::all(&vectors_dir()).expect("the vectors are there");
    let vectors: Vec<_> = all
        .into_iter()
        .map(|(name, _)| Vector::load(&name))
        .filter(|vector| vector.porep.nodes() * seal_types::NODE_SIZE as u64 <= most_bytes)
        .collect();
    assert!(vectors.len() > 2, "vectors of at most {most_bytes} bytes");
    vectors.into_iter()
}

fn settings(library: &Path, parts: GpuParts) -> GpuSettings {
    GpuSettings {
        driver: Some(library.to_path_buf()),
        image: Some(b"the stand-in has its kernels within"),
        ..GpuSettings::new(parts, Kernel::detect())
    }
}

fn run(gpu: &dyn Backend, vector: &Vector, sector: &Sector) -> Result<Pc2Result, TreesError> {
    let paths = Pc2Paths { cache_dir: &sector.cache, sealed_file: &sector.sealed };
    let porep = &vector.porep;
    let job = Pc2Job { porep, paths, comm_d: vector.comm_d(), layer_digests: &NoRecord };
    pre_commit2(&job, gpu, &Settings::default(), &QUIET).map(|(result, _)| result)
}

#[test]
fn sectors_of_every_shape_are_made_on_a_device() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    // Shapes have no registered proof, so that no executor takes them.
    let mut names: Vec<_> = sectors(8 << 20).filter(|v| v.porep.nodes() < 1 << 14).collect();
    let of: Box<dyn Fn(GpuParts) -> GpuSettings> = if real() {
        // Large enough for several large batches; a stand-in takes long for it.
        names.push(Vector::load("8MiB-v1_1-a"));
        Box::new(|parts| GpuSettings::new(parts, Kernel::detect()))
    } else {
        let Some(library) = cuda_stand_in("sectors on a device", dir.path(), "") else { return };
        Box::new(move |parts| settings(&library, parts))
    };
    for vector in names {
        let sector = vector.after_pc1();
        for (columns, trees) in [(true, true), (true, false), (false, true)] {
            let gpu = Gpu::open(of(GpuParts { columns, trees })).expect("the device works");
            reproduces_on(&gpu, &Settings::default(), &vector, &sector);
        }
    }
}

/// Names a pc2-exec that has kernels.
const PC2_EXEC: &str = "SEAL_TEST_PC2_EXEC";

/// What users start, with the flag that they set.
#[test]
fn sectors_are_made_on_a_device_by_the_executor() {
    let test = "pc2-exec on a device";
    let Some(program) = std::env::var_os(PC2_EXEC) else {
        return skipped(test, "SEAL_TEST_PC2_EXEC names none (scripts/gpu-check.sh does)");
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    // The host build of the kernels goes through whole sectors in the test above, and who wants
    // little work has it done elsewhere.
    let little = std::env::var_os("SEAL_TEST_LITTLE").is_some_and(|value| value == "1");
    let most = match ((real() || executes_ptx()) && !little, slow_tests()) {
        (false, _) => 2 << 10,
        (true, false) => 8 << 20,
        (true, true) => 512 << 20,
    };
    let mut command = Command::new(program);
    if !real() {
        let Some(library) = cuda_stand_in(test, dir.path(), "") else { return };
        command.env("LD_LIBRARY_PATH", library.parent().expect("a directory"));
    }
    let task = dir.path().join("task.json");
    command.args(["run", "--task"]).arg(&task);
    command.env("FIL_PROOFS_USE_GPU_TREE_BUILDER", "1").env_remove("SEAL_GPU");
    command.env_remove("FIL_PROOFS_USE_GPU_COLUMN_BUILDER");
    for vector in sectors(most).filter(|v| v.reference.registered_proof.is_some()) {
        let name = &vector.name;
        let sector = vector.after_pc1();
        fs::write(&task, task_of(&vector, &sector).to_string()).expect("writable");
        let output = command.output().expect("pc2-exec starts");
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {log}");
        assert!(log.contains("gpu ") && log.contains("columns and trees"), "{name}: {log}");
        let answer: Value = serde_json::from_slice(&output.stdout).expect("an output");
        let bytes: Vec<u8> = serde_json::from_value(answer["comm_r"].clone()).expect("bytes");
        assert_eq!(hex::encode(bytes), vector.reference.comm_r, "{name}");
        is_sealed(&vector, &sector, "pc2-exec");
    }
}

/// The task of PC2 for a sector of a registered proof.
fn task_of(vector: &Vector, sector: &Sector) -> Value {
    let proof = vector.reference.registered_proof.expect("a proof");
    let store = |id: String| json!({ "path": sector.cache, "id": id, "size": vector.porep.nodes(), "rows_to_discard": 0 });
    let layers = (1..=vector.porep.layers).map(|layer| store(seal_types::layer_id(layer)));
    let stores = json!({ "labels": layers.collect::<Vec<_>>(), "_h": null });
    json!({
        "pc1out": {
            "registered_proof": proof.to_string(), "labels": { proof.shape_name(): stores },
            "config": store("tree-d".to_owned()), "comm_d": vector.comm_d().0,
        },
        "cache_dir": sector.cache,
        "sealed_file": sector.sealed,
    })
}

#[test]
fn a_sector_is_made_on_a_device_with_little_memory() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let name = "little memory on a device";
    let Some(library) = cuda_stand_in(name, dir.path(), "memory 2000") else { return };
    let vector = Vector::load("shape-16KiB-11layers-a");
    let sector = vector.after_pc1();
    // Room for four blocks of one node.
    let gpu = Gpu::open(settings(&library, BOTH)).expect("the stand-in works");
    assert_eq!(gpu.begin().expect("it works").largest_block(), 1);
    reproduces_on(&gpu, &Settings::default(), &vector, &sector);
    drop(gpu);

    // Not even for one.
    set_script(&library, "memory 400");
    let gpu = Gpu::open(settings(&library, BOTH)).expect("the stand-in works");
    let error = run(&gpu, &vector, &sector).expect_err("nothing has room");
    let TreesError::Device { source, .. } = &error else { panic!("{error}") };
    assert!(source.to_string().contains("no room for a batch of 1 nodes"), "{source}");
}

#[test]
fn batches_follow_the_memory_that_is_free_when_a_sector_begins() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let name = "memory of a device that others give back";
    let Some(library) = cuda_stand_in(name, dir.path(), "memory 2000") else { return };
    let vector = Vector::load("shape-16KiB-11layers-a");
    let sector = vector.after_pc1();
    let gpu = Gpu::open(settings(&library, BOTH)).expect("the stand-in works");
    for (memory, block) in [(2000, 1), (200_000, 64), (30_000, 8)] {
        set_script(&library, &format!("memory {memory}"));
        let session = gpu.begin().expect("it works");
        assert_eq!(session.largest_block(), block, "{memory} bytes");
        reproduces_on(&gpu, &Settings::default(), &vector, &sector);
    }
}

#[test]
fn batches_are_not_larger_than_the_user_allows() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(library) = cuda_stand_in("caps of batches", dir.path(), "") else { return };
    let vector = Vector::load("shape-16KiB-11layers-a");
    let sector = vector.after_pc1();
    for (most, block) in [(1, 1), (63, 8), (64, 64)] {
        let caps = GpuSettings {
            most_columns: Some(most),
            most_leaves: Some(100),
            ..settings(&library, BOTH)
        };
        let gpu = Gpu::open(caps).expect("the stand-in works");
        assert_eq!(gpu.begin().expect("it works").largest_block(), block);
        reproduces_on(&gpu, &Settings::default(), &vector, &sector);
    }
}

#[test]
fn a_device_that_disappears_fails_the_sector_and_is_lost_to_the_process() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let name = "a device that disappears";
    let Some(library) = cuda_stand_in(name, dir.path(), "") else { return };
    let vector = Vector::load("2KiB-v1_1-a");
    // In the trial before the sector, which has six kernels for blocks of two rows, and in it.
    for kernel in [1, 2, 7, 8, 12] {
        let sector = vector.after_pc1();
        let before = fs::read(&sector.sealed).expect("readable");
        let names = seal_host::read_dir_names(&sector.cache).expect("readable");
        // A library is loaded once: each device has its own copy.
        let own = dir.path().join(format!("libcuda-{kernel}.so"));
        fs::copy(&library, &own).expect("copied");
        set_script(&own, "");
        let gpu = Gpu::open(settings(&own, BOTH)).expect("the stand-in works");
        set_script(&own, &format!("lose {kernel}"));
        assert_eq!(gpu.is_lost(), None);
        let error = run(&gpu, &vector, &sector).expect_err("the device is lost");
        let TreesError::Device { device, source } = &error else { panic!("{error}") };
        assert!(device.contains("stand-in (GPU-00010203"), "{device}");
        assert!(source.to_string().contains("CUDA_ERROR_LAUNCH_FAILED"), "{source}");
        let why = gpu.is_lost().expect("719 is the end of a process");
        assert!(why.contains("stand-in") && why.contains("(719)"), "{why}");
        // The stand-in would survive being opened anew; a real context would not, so nobody asks.
        let error = run(&gpu, &vector, &sector).expect_err("the device is lost");
        let TreesError::Device { source, .. } = &error else { panic!("{error}") };
        assert!(source.to_string().contains("must be started anew"), "{source}");
        assert_eq!(fs::read(&sector.sealed).expect("readable"), before);
        assert_eq!(seal_host::read_dir_names(&sector.cache).expect("readable"), names);
        drop(gpu);
        assert_eq!(left_behind(&own).as_deref(), Some("memory 0 pinned 0 streams 0"));
    }
}

#[test]
fn a_device_with_a_passing_failure_is_opened_anew() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let name = "a passing failure of a device";
    let Some(library) = cuda_stand_in(name, dir.path(), "") else { return };
    let vector = Vector::load("2KiB-v1_1-a");
    let sector = vector.after_pc1();
    let gpu = Gpu::open(settings(&library, BOTH)).expect("the stand-in works");
    set_script(&library, "fail cuMemHostAlloc 1 1");
    let error = run(&gpu, &vector, &sector).expect_err("no pinned memory");
    assert!(matches!(error, TreesError::Device { .. }), "{error}");
    assert_eq!(gpu.is_lost(), None);
    set_script(&library, "");
    reproduces_on(&gpu, &Settings::default(), &vector, &sector);
}

#[test]
fn a_device_that_cannot_be_opened_anew_is_lost_and_the_processor_can_take_over() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let name = "a device that does not come back";
    let Some(library) = cuda_stand_in(name, dir.path(), "") else { return };
    let vector = Vector::load("2KiB-v1_1-a");
    let sector = vector.after_pc1();
    let gpu = Gpu::open(settings(&library, BOTH)).expect("the stand-in works");
    set_script(&library, "fail cuMemHostAlloc 1 1");
    run(&gpu, &vector, &sector).expect_err("no pinned memory");
    set_script(&library, "devices 0");
    for _ in 0..2 {
        let error = run(&gpu, &vector, &sector).expect_err("there is none any more");
        assert!(matches!(error, TreesError::Device { .. }), "{error}");
        let why = gpu.is_lost().expect("it cannot be opened");
        assert!(why.contains("cannot be opened anew"), "{why}");
    }
    reproduces_on(&Cpu::new(Kernel::detect()), &Settings::default(), &vector, &sector);
}

#[test]
fn a_label_that_is_no_element_is_named_as_on_the_processor() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let name = "bad labels on a device";
    let Some(library) = cuda_stand_in(name, dir.path(), "") else { return };
    let vector = Vector::load("2KiB-v1_1-a");
    let gpu = Gpu::open(settings(&library, BOTH)).expect("the stand-in works");
    let sector = vector.after_pc1();
    let layer = sector.cache.join(seal_types::layer_file(1));
    let mut labels = fs::read(&layer).expect("readable");
    labels[37 * 32 + 31] = 0xff;
    fs::write(&layer, labels).expect("writable");
    let message =
        |backend: &dyn Backend| run(backend, &vector, &sector).expect_err("no element").to_string();
    assert_eq!(message(&gpu), message(&Cpu::new(Kernel::detect())));
}
