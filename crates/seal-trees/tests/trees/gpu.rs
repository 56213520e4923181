//! PC2 on a device: the vectors, each part of the work there or not, and devices that fail. The
//! device is a stand-in for the driver that runs the kernels' host build.

use std::fs;
use std::path::Path;

use seal_poseidon::Kernel;
use seal_trees::{
    Backend, Cpu, Gpu, GpuParts, GpuSettings, Pc2Job, Pc2Paths, Pc2Result, Settings, TreesError,
    Watch, pre_commit2,
};
use test_support::cuda::{cuda_stand_in, left_behind, set_script};

use crate::support::{Sector, Vector};
use crate::vectors::reproduces_on;

const QUIET: Watch<'static> = Watch { progress: &|_, _, _| {}, cancelled: &|| false };
const BOTH: GpuParts = GpuParts { columns: true, trees: true };

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
    let job = Pc2Job { porep, paths, comm_d: vector.comm_d(), layer_digests: &[] };
    pre_commit2(&job, gpu, &Settings::default(), &QUIET).map(|(result, _)| result)
}

#[test]
fn sectors_of_every_shape_are_made_on_a_device() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(library) = cuda_stand_in("sectors on a device", dir.path(), "") else { return };
    for name in
        ["2KiB-v1_1-a", "shape-4KiB-2layers-a", "shape-16KiB-11layers-a", "shape-32KiB-11layers-a"]
    {
        let vector = Vector::load(name);
        let sector = vector.after_pc1();
        for (columns, trees) in [(true, true), (true, false), (false, true)] {
            let parts = GpuParts { columns, trees };
            let gpu = Gpu::open(settings(&library, parts)).expect("the stand-in works");
            reproduces_on(&gpu, &Settings::default(), &vector, &sector);
        }
    }
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
    assert_eq!(gpu.largest_block(), 1);
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
        assert_eq!(gpu.largest_block(), block);
        reproduces_on(&gpu, &Settings::default(), &vector, &sector);
    }
}

#[test]
fn a_device_that_disappears_fails_the_sector_and_leaves_it_as_it_was() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let name = "a device that disappears";
    let Some(library) = cuda_stand_in(name, dir.path(), "") else { return };
    let vector = Vector::load("2KiB-v1_1-a");
    for kernel in [1, 2, 5] {
        let sector = vector.after_pc1();
        let before = fs::read(&sector.sealed).expect("readable");
        let names = seal_host::read_dir_names(&sector.cache).expect("readable");
        // A library is loaded once: each device has its own copy.
        let own = dir.path().join(format!("libcuda-{kernel}.so"));
        fs::copy(&library, &own).expect("copied");
        set_script(&own, &format!("lose {kernel}"));
        let gpu = Gpu::open(settings(&own, BOTH)).expect("the stand-in works");
        let error = run(&gpu, &vector, &sector).expect_err("the device is lost");
        let TreesError::Device { device, source } = &error else { panic!("{error}") };
        assert!(device.contains("stand-in (GPU-00010203"), "{device}");
        assert!(source.to_string().contains("CUDA_ERROR_LAUNCH_FAILED"), "{source}");
        assert_eq!(fs::read(&sector.sealed).expect("readable"), before);
        assert_eq!(seal_host::read_dir_names(&sector.cache).expect("readable"), names);
        // The next sector opens it anew, which this device survives.
        reproduces_on(&gpu, &Settings::default(), &vector, &sector);
        drop(gpu);
        assert_eq!(left_behind(&own).as_deref(), Some("memory 0 pinned 0 streams 0"));
    }
}

#[test]
fn a_device_that_does_not_come_back_fails_every_sector_until_the_processor_takes_over() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let name = "a device that does not come back";
    let Some(library) = cuda_stand_in(name, dir.path(), "lose 1\ngone 1") else { return };
    let vector = Vector::load("2KiB-v1_1-a");
    let sector = vector.after_pc1();
    let gpu = Gpu::open(settings(&library, BOTH)).expect("the stand-in works");
    for _ in 0..3 {
        let error = run(&gpu, &vector, &sector).expect_err("the device is lost");
        assert!(matches!(error, TreesError::Device { .. }), "{error}");
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
