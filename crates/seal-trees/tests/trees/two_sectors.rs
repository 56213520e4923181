//! Two sectors at once on one device: what befalls one of them is the other's only as far as the
//! device has computed wrongly.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use seal_trees::{
    Backend, BlockView, ComputeError, ComputedWrongly, DeviceError, Gpu, NoRecord, Node, Part,
    Pc2Job, Pc2Paths, Session, Settings, Standing, Watch, Work, Worker, pre_commit2,
};
use test_support::cuda::set_script;
use test_support::plain;

use crate::support::Vector;
use crate::vectors::{is_sealed, reproduces_on};
use crate::wrong_device::{settings, stand_in, standing};

/// A sector of 2 KiB as one block.
const WORK: Work = Work { layers: 2, arity: 8, block_nodes: 64 };

/// Labels and data of a block.
struct Inputs {
    layers: Vec<Vec<Node>>,
    data: Vec<Node>,
}

impl Inputs {
    fn of(vector: &Vector) -> Self {
        let replica_id = vector.reference.replica_id().expect("a replica id");
        let layers = plain::label_layers(&vector.porep, replica_id);
        Self { layers, data: vector.staged().as_chunks().0.to_vec() }
    }

    fn compute(&self, worker: &mut dyn Worker) -> Result<(), ComputeError> {
        let (mut tree_c, mut replica, mut tree_r) =
            (vec![[0; 32]; 73], vec![[0; 32]; 64], vec![[0; 32]; 9]);
        worker.compute(BlockView {
            layers: self.layers.iter().map(|layer| &layer[..]).collect(),
            data: &self.data,
            tree_c: &mut tree_c,
            replica: &mut replica,
            tree_r: &mut tree_r,
        })
    }
}

fn begin(gpu: &Gpu) -> Box<dyn Session + '_> {
    gpu.begin().expect("the device is there")
}

fn device_error(error: ComputeError) -> DeviceError {
    let ComputeError::Device(error) = error else { panic!("{error:?}") };
    error
}

#[test]
fn memory_that_is_short_for_one_sector_is_nothing_to_another() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(library) = stand_in("no memory for the second of two", dir.path(), "") else { return };
    let inputs = Inputs::of(&Vector::load("2KiB-v1_1-a"));
    let gpu = Gpu::open(settings(&library, false)).expect("the stand-in works");
    let first = begin(&gpu);
    let mut worker = first.worker(&WORK).expect("it works");
    // More often than a sector is begun anew.
    for _ in 0..5 {
        set_script(&library, "fail cuMemHostAlloc 1 2");
        let error = begin(&gpu).memory(64).err().expect("there is none");
        assert!(error.to_string().contains("CUDA_ERROR_OUT_OF_MEMORY"), "{error}");
        set_script(&library, "");
        begin(&gpu).memory(64).expect("there is some again");
        inputs.compute(&mut *worker).expect("as before");
        // The device was not opened anew, or this were not to be had.
        first.memory(64).expect("of the same opening");
        first.confirm().expect("nothing is wrong");
    }
    assert_eq!((standing(&gpu), gpu.is_lost()), ((Standing::Good, 0), None));
}

#[test]
fn a_failure_is_of_the_opening_that_it_happened_in() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(library) = stand_in("a failure beside another sector", dir.path(), "") else { return };
    let inputs = Inputs::of(&Vector::load("2KiB-v1_1-a"));
    let gpu = Gpu::open(settings(&library, false)).expect("the stand-in works");
    let first = begin(&gpu);
    let mut worker = first.worker(&WORK).expect("it works");
    let mut late = first.worker(&WORK).expect("it works");

    set_script(&library, "fail cuMemHostAlloc 1 1");
    begin(&gpu).memory(64).err().expect("it fails");
    set_script(&library, "");
    let second = begin(&gpu);
    // What the first has goes on; what it has not yet is not of its opening any more, and that is
    // no wrong result.
    inputs.compute(&mut *worker).expect("as before");
    first.confirm().expect("nothing is wrong");
    for error in [first.memory(64).err(), first.worker(&WORK).err()] {
        let error = error.expect("its opening is over");
        assert!(error.downcast_ref::<ComputedWrongly>().is_none(), "{error}");
        assert!(error.to_string().contains("cuMemHostAlloc failed"), "{error}");
    }

    // A failure that comes late is nothing to the second opening.
    set_script(&library, "fail cuLaunchKernel 1 1");
    begin(&gpu);
    let error = device_error(inputs.compute(&mut *late).expect_err("it fails"));
    assert!(error.to_string().contains("cuLaunchKernel failed"), "{error}");
    set_script(&library, "");
    begin(&gpu);
    second.memory(64).expect("of the same opening");

    // Neither is a wrong result, which the device is marked for all the same.
    set_script(&library, "wrong seal_columns_2 1 0 all");
    begin(&gpu);
    let error = device_error(inputs.compute(&mut *worker).expect_err("it is wrong"));
    assert!(error.downcast_ref::<ComputedWrongly>().is_some(), "{error}");
    assert_eq!(standing(&gpu), (Standing::Suspect, 1));
    second.memory(64).expect("of the same opening");
    second.confirm().expect("nothing is wrong with the second");
    first.confirm().expect_err("the first is wrong");
    // A check that finds the same fault later is charged to the opening that computed.
    first.doubt("a node");
    assert_eq!(standing(&gpu), (Standing::Suspect, 1));
    second.confirm().expect("nothing is wrong with the second");
    second.doubt("a node");
    assert_eq!(standing(&gpu), (Standing::LeftOut, 2));
    second.confirm().expect_err("it is left out");
}

#[test]
fn a_sector_is_not_put_in_place_once_another_has_found_the_device_wrong() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(library) = stand_in("a device found out by another", dir.path(), "") else { return };
    let vector = Vector::load("2KiB-v1_1-a");
    // Without the self-check nothing of the sector is looked at after its last block.
    let unchecked = Settings { self_check_samples: 0, ..Settings::default() };
    for (number, replaceable) in [false, true].into_iter().enumerate() {
        let own = dir.path().join(format!("libcuda-{number}.so"));
        fs::copy(&library, &own).expect("copied");
        set_script(&own, "");
        let gpu = Gpu::open(settings(&own, replaceable)).expect("the stand-in works");
        let (sector, other) = (vector.after_pc1(), vector.after_pc1());
        let computed = AtomicU64::new(0);
        let progress = |part, done, total| {
            // When the last block has been written, the first time.
            if part == Part::Trees && done == total && computed.fetch_add(1, Ordering::Relaxed) == 0
            {
                // For good where the processor can take over.
                let then = u64::from(replaceable);
                set_script(&own, &format!("wrong seal_columns_2 1 {then} all"));
                reproduces_on(&gpu, &unchecked, &vector, &other);
            }
        };
        let watch = Watch { progress: &progress, cancelled: &|| false };
        let paths = Pc2Paths { cache_dir: &sector.cache, sealed_file: &sector.sealed };
        let porep = &vector.porep;
        let job = Pc2Job { porep, paths, comm_d: vector.comm_d(), layer_digests: &NoRecord };
        let (_, report) = pre_commit2(&job, &gpu, &unchecked, &watch).expect("made again");
        assert_eq!(computed.load(Ordering::Relaxed), 2, "computed once more");
        is_sealed(&vector, &sector, &report.device);
        let expected = if replaceable { (Standing::LeftOut, 2) } else { (Standing::Suspect, 1) };
        assert_eq!(standing(&gpu), expected);
        assert_eq!(report.device.starts_with("cpu ("), replaceable, "{}", report.device);
    }
}
