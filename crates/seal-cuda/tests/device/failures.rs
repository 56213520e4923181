//! Devices that are not there, have too little memory, or disappear.

use seal_cuda::{BatchError, CudaError, Device, OpenOptions, Shape, Worker};
use test_support::cuda::{executes_ptx, left_behind, set_script};
use test_support::skip::skipped;

use crate::batches::{BOTH, Whole};
use crate::support::{open, scripted};

const SHAPE: Shape = Shape { layers: 2, arity: 8, nodes: 64 };

#[test]
fn a_missing_driver_is_named() {
    let options = OpenOptions {
        driver: Some("/nonexistent/libcuda.so.1".as_ref()),
        image: Some(b"image"),
        visible: None,
    };
    let error = Device::open(options).expect_err("there is none");
    assert!(matches!(error, CudaError::NoDriver { .. }), "{error}");
    assert!(error.to_string().contains("/nonexistent/libcuda.so.1"), "{error}");
}

#[test]
fn a_library_that_is_no_driver_is_named_with_what_it_lacks() {
    // The C library has none of the driver's functions.
    let options =
        OpenOptions { driver: Some("libc.so.6".as_ref()), image: Some(b"image"), visible: None };
    let error = Device::open(options).expect_err("it is no driver");
    assert!(matches!(error, CudaError::MissingFunction { .. }), "{error}");
    assert!(error.to_string().contains("libc.so.6 has no function cuDriverGetVersion"), "{error}");
}

#[test]
fn no_device_is_an_error_that_names_what_was_asked_for() {
    // An index or UUID in CUDA_VISIBLE_DEVICES that no device has shows none, as the driver reads
    // it.
    let Some((library, _dir)) = scripted("no device", "devices 0") else { return };
    let error = open(&library).expect_err("there is none");
    assert!(matches!(error, CudaError::NoDevice { .. }), "{error}");
    assert!(error.to_string().contains("CUDA_VISIBLE_DEVICES=\"0\""), "{error}");
}

#[test]
fn what_the_driver_says_is_in_the_error() {
    let script = "fail cuDevicePrimaryCtxRetain 1 719";
    let Some((library, _dir)) = scripted("a driver that fails", script) else { return };
    let error = open(&library).expect_err("it fails");
    let source = std::error::Error::source(&error).expect("what the driver says").to_string();
    let said =
        "cuDevicePrimaryCtxRetain failed with CUDA_ERROR_LAUNCH_FAILED (719): said by the stand-in";
    assert_eq!(source, said);
    let told = error.to_string();
    assert!(told.starts_with("stand-in (GPU-00010203-") && told.contains("Xid"), "{told}");
}

#[test]
fn a_driver_that_does_not_take_the_kernels_is_named_with_the_one_that_would() {
    let script = "fail cuModuleLoadData 1 222";
    let Some((library, _dir)) = scripted("a driver without our kernels", script) else { return };
    let error = open(&library).expect_err("it does not take them");
    assert!(error.to_string().contains("newer CUDA than the driver"), "{error}");
    let source = std::error::Error::source(&error).expect("what the driver says").to_string();
    assert!(source.starts_with("cuModuleLoadData failed"), "{source}");
}

#[test]
fn what_a_device_is_like_is_known() {
    let Some((library, _dir)) = scripted("what a device is like", "compute 8 6") else { return };
    let device = open(&library).expect("it works");
    let info = device.info();
    assert_eq!((info.compute, info.visible_devices, info.driver), ((8, 6), 1, 13000));
    assert!(info.to_string().starts_with("stand-in (GPU-00010203-0405-0607-"), "{info}");
    assert!(info.to_string().ends_with("driver for CUDA 13.0)"), "{info}");
}

#[test]
fn a_batch_that_does_not_fit_is_computed_in_pieces() {
    for (room, piece) in [(64, 64), (63, 8), (8, 8), (7, 1), (1, 1)] {
        let bytes = match room {
            64 | 8 | 1 => Shape { nodes: room, ..SHAPE }.device_bytes(),
            more => Shape { nodes: more + 1, ..SHAPE }.device_bytes() - 1,
        };
        let script = format!("memory {bytes}");
        let Some((library, _dir)) = scripted("batches in pieces", &script) else { return };
        let device = open(&library).expect("it works");
        let mut worker = Worker::new(&device, SHAPE, BOTH).expect("a smaller piece fits");
        assert_eq!(worker.piece_nodes(), piece, "with {bytes} bytes");
        for seed in 0..2 {
            let mut whole = Whole::new(SHAPE, seed);
            whole.compute(&mut worker).expect("canonical nodes");
            whole.assert_right();
        }
        // Nodes are named as in the whole batch.
        let mut whole = Whole::new(SHAPE, 9);
        whole.layers[1][61] = [0xff; 32];
        let error = whole.compute(&mut worker).expect_err("no element");
        assert!(matches!(error, BatchError::Label { layer: 1, node: 61 }), "{error}");
    }
}

#[test]
fn a_device_with_no_room_at_all_is_an_error() {
    let Some((library, _dir)) = scripted("no room on a device", "memory 100") else { return };
    let device = open(&library).expect("it works");
    let error = Worker::new(&device, SHAPE, BOTH).expect_err("nothing fits");
    assert!(matches!(error, CudaError::Memory { nodes: 1, free: 100, .. }), "{error}");
}

#[test]
fn a_device_that_disappears_fails_the_batch_and_every_later_one() {
    // Four kernels of a batch of eight nodes: columns, encoding, and a row of each tree.
    let shape = Shape { nodes: 8, ..SHAPE };
    for kernel in 1..=8 {
        let script = format!("lose {kernel}");
        let Some((library, _dir)) = scripted("a device that disappears", &script) else { return };
        let device = open(&library).expect("it works");
        let mut worker = Worker::new(&device, shape, BOTH).expect("it works");
        let mut first_failure = None;
        for batch in 0..4 {
            let mut whole = Whole::new(shape, batch);
            match whole.compute(&mut worker) {
                Ok(()) => {
                    assert!(first_failure.is_none(), "batch {batch} after a failure");
                    whole.assert_right();
                }
                Err(BatchError::Device(error)) => {
                    assert!(error.to_string().contains("CUDA_ERROR_LAUNCH_FAILED"), "{error}");
                    first_failure.get_or_insert(batch);
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(first_failure, Some((kernel - 1) / 4), "lost at kernel {kernel}");
        let error = Worker::new(&device, shape, BOTH).expect_err("the device is gone");
        assert!(!error.is_out_of_memory(), "{error}");
    }
}

#[test]
fn constants_of_another_width_are_refused() {
    let test = "constants of another width";
    if !executes_ptx() {
        return skipped(test, "the host build has its tables in the same program");
    }
    let Some((library, dir)) = scripted(test, "") else { return };
    // The library's `.ptx` file names program, text and seed, a line each.
    let named = format!("{}.ptx", library.display());
    let lines = std::fs::read_to_string(&named).expect("it is there");
    let text = lines.lines().nth(1).expect("it names the text");
    let ptx = std::fs::read_to_string(text).expect("it is there");
    for table in ["seal_constants_3", "seal_constants_9", "seal_constants_12"] {
        let declared = format!(".b8 {table}[");
        let at = ptx.find(&declared).expect("it is declared") + declared.len();
        let digits = ptx[at..].find(']').expect("its bytes");
        let bytes: usize = ptx[at..at + digits].parse().expect("a number");
        // An integer of one word where there were two, or the other way round.
        for other in [bytes - 4, bytes + 4] {
            let changed = dir.path().join("changed.ptx");
            let whole = format!("{}{other}{}", &ptx[..at], &ptx[at + digits..]);
            std::fs::write(&changed, whole).expect("it is written");
            let changed = changed.to_str().expect("a path that is text");
            std::fs::write(&named, lines.replace(text, changed)).expect("it is written");
            // A process loads a library once, and a device's kernels with it.
            let copy = dir.path().join(format!("libcuda-{table}-{other}.so"));
            std::fs::copy(&library, &copy).expect("it is copied");
            for ending in [".script", ".ptx"] {
                let from = format!("{}{ending}", library.display());
                let to = format!("{}{ending}", copy.display());
                std::fs::copy(from, to).expect("it is copied");
            }
            let error = open(&copy).expect_err("another table");
            assert!(matches!(error, CudaError::Constants { .. }), "{table}: {error}");
            assert!(error.to_string().contains(table), "{error}");
        }
    }
}

#[test]
fn everything_is_given_back_at_the_end() {
    let Some((library, _dir)) = scripted("giving everything back", "") else { return };
    let device = open(&library).expect("it works");
    let mut worker = Worker::new(&device, SHAPE, BOTH).expect("it works");
    let pinned = seal_cuda::PinnedMemory::take(&device, 4096).expect("it works");
    let mut whole = Whole::new(SHAPE, 1);
    whole.data[3] = [0xff; 32];
    whole.compute(&mut worker).expect_err("no element");
    drop(device);
    assert_eq!(left_behind(&library), None, "the device is still in use");
    drop((worker, pinned));
    assert_eq!(left_behind(&library).as_deref(), Some("memory 0 pinned 0 streams 0"));
    // Also when opening fails half-way.
    set_script(&library, "fail cuModuleGetGlobal_v2 2 500");
    std::fs::remove_file(format!("{}.left", library.display())).expect("it is there");
    open(&library).expect_err("a table is missing");
    assert_eq!(left_behind(&library).as_deref(), Some("memory 0 pinned 0 streams 0"));
}
