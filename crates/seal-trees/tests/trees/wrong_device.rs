//! Devices that compute wrongly or report what is not so: always, now and then, one kernel, one
//! node. What is found is the device's fault and not the sector's, nothing wrong gets a name, and
//! what takes the device's place makes the vector's bytes.

use std::fs;
use std::path::{Path, PathBuf};

use seal_poseidon::Kernel;
use seal_trees::{
    Backend, Cpu, CudaError, Gpu, GpuParts, GpuSettings, NoRecord, Pc2Job, Pc2Paths, Pc2Report,
    Settings, Standing, TreesError, Watch, WrongBefore, pre_commit2,
};
use test_support::cuda::{cuda_stand_in, set_script};
use test_support::skip::skipped;

use crate::support::{Sector, Vector};
use crate::vectors::{is_sealed, reproduces_on};

const QUIET: Watch<'static> = Watch { progress: &|_, _, _| {}, cancelled: &|| false };
const BOTH: GpuParts = GpuParts { columns: true, trees: true };

/// A stand-in, where tests do not run on a real device, which computes as it can.
pub(crate) fn stand_in(test: &str, dir: &Path, script: &str) -> Option<PathBuf> {
    if std::env::var("SEAL_TEST_CUDA").is_ok_and(|value| value == "device") {
        skipped(test, "a real device does not go by a script");
        return None;
    }
    cuda_stand_in(test, dir, script)
}

/// A device whose place the processor takes, or not.
pub(crate) fn settings(library: &Path, replaceable: bool) -> GpuSettings {
    GpuSettings {
        driver: Some(library.to_path_buf()),
        image: Some(b"the stand-in has its kernels within"),
        replaceable,
        ..GpuSettings::new(BOTH, Kernel::detect())
    }
}

fn run(
    gpu: &Gpu,
    vector: &Vector,
    sector: &Sector,
    settings: &Settings,
) -> Result<Pc2Report, TreesError> {
    let paths = Pc2Paths { cache_dir: &sector.cache, sealed_file: &sector.sealed };
    let porep = &vector.porep;
    let job = Pc2Job { porep, paths, comm_d: vector.comm_d(), layer_digests: &NoRecord };
    pre_commit2(&job, gpu, settings, &QUIET).map(|(_, report)| report)
}

/// A sector is not only computed by what has taken the device's place, but planned for it too.
fn planned_for_the_processor(report: &Pc2Report, vector: &Vector) {
    let cpu = Cpu::new(Kernel::detect());
    let cpu = cpu.begin().expect("it is there");
    assert_eq!(report.device, cpu.device());
    assert_eq!(report.block_nodes as u64, vector.porep.nodes());
    assert_eq!(report.stages.computing.threads, cpu.workers());
    assert_eq!(report.stages.reading.threads, cpu.readers());
}

#[test]
fn blocks_are_as_large_as_ever_after_a_device_that_is_opened_anew_fails_its_trial() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(library) = stand_in("a sector planned after failures", dir.path(), "") else { return };
    let vector = Vector::load("2KiB-v1_1-a");
    let gpu = Gpu::open(settings(&library, false)).expect("the stand-in works");
    let sector = vector.after_pc1();
    set_script(&library, "fail cuMemHostAlloc 1 1");
    run(&gpu, &vector, &sector, &Settings::default()).map(|_| ()).expect_err("it fails");
    // The trial of the device that is opened anew is wrong, and the next one good.
    set_script(&library, "wrong seal_rows_2 1 0 all");
    let report = run(&gpu, &vector, &sector, &Settings::default()).expect("a sector");
    is_sealed(&vector, &sector, &report.device);
    assert_eq!(standing(&gpu), (Standing::Suspect, 1));
    assert!(report.device.starts_with("gpu stand-in"), "{}", report.device);
    assert_eq!(report.block_nodes as u64, vector.porep.nodes());
    assert_eq!(report.stages.computing.threads, 4);
}

/// What a sector's files are, and which there are.
fn state(sector: &Sector) -> (Vec<u8>, Vec<String>) {
    let names = seal_host::read_dir_names(&sector.cache).expect("readable");
    (fs::read(&sector.sealed).expect("readable"), names.into_iter().collect())
}

pub(crate) fn standing(gpu: &Gpu) -> (Standing, u64) {
    let (device, opinion) = gpu.opinion().expect("a device");
    assert!(device.starts_with("stand-in (GPU-00010203-0405-"), "{device}");
    (opinion.standing, opinion.wrong)
}

/// Every kernel that PC2 uses, and how messages name it.
const KERNELS: [(&str, &str); 5] = [
    ("seal_columns_11", "columns of 11"),
    ("seal_columns_2", "columns of 2"),
    ("seal_rows_8", "rows of 8"),
    ("seal_rows_2", "rows of 2"),
    ("seal_encode", "the replica"),
];

#[test]
fn a_device_with_one_wrong_kernel_is_refused_when_it_is_opened() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(library) = stand_in("one wrong kernel", dir.path(), "") else { return };
    for (number, (kernel, named)) in KERNELS.into_iter().enumerate() {
        // All of it, and a single node of a whole batch; the last a row that has only one.
        for (fault, what) in ["all", "nonsense", "0", "1"].into_iter().enumerate() {
            let own = dir.path().join(format!("libcuda-{number}-{fault}.so"));
            fs::copy(&library, &own).expect("copied");
            set_script(&own, &format!("wrong {kernel} 1 0 {what}"));
            let error = Gpu::open(settings(&own, false)).expect_err("it computes wrongly");
            assert!(matches!(error, CudaError::Distrusted { .. }), "{error}");
            let told = error.to_string();
            for part in ["stand-in (GPU-00010203-", "tested or replaced"] {
                assert!(told.contains(part), "{part}: {told}");
            }
            // Rows over what is no element report it before it is looked at; what is spoilt at the
            // end of the field is none.
            let reported = told.contains("which is not so");
            assert!(told.contains(named) || reported, "{named}: {told}");
        }
    }
}

#[test]
fn a_device_that_was_left_out_stays_out_in_the_next_process() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let test = "a device that is on record";
    let Some(library) = stand_in(test, dir.path(), "") else { return };
    let good = Gpu::open(settings(&library, false)).expect("the stand-in works");
    let (device, _) = good.opinion().expect("a device");
    drop(good);
    let known = |wrong, replaceable| {
        let told = "row 3, by /run/x/corruption.jsonl".to_owned();
        let before = [(device.clone(), WrongBefore { wrong, told })].into();
        Gpu::open(GpuSettings { before, ..settings(&library, replaceable) })
    };
    let error = known(2, false).expect_err("it must not be used").to_string();
    assert!(error.contains(&device) && error.contains("corruption.jsonl"), "{error}");
    let replaced = known(2, true).expect("the processor takes its place");
    let (_, opinion) = replaced.opinion().expect("a device");
    assert_eq!((opinion.standing, opinion.wrong), (Standing::LeftOut, 0), "not counted twice");
    let vector = Vector::load("2KiB-v1_1-a");
    let sector = vector.after_pc1();
    let report = run(&replaced, &vector, &sector, &Settings::default()).expect("a sector");
    planned_for_the_processor(&report, &vector);
    is_sealed(&vector, &sector, &report.device);
    let suspect = known(1, false).expect("it is tried");
    let (_, opinion) = suspect.opinion().expect("a device");
    assert_eq!((opinion.standing, opinion.wrong), (Standing::Suspect, 0));
}

#[test]
fn a_device_that_calls_good_numbers_bad_is_refused_when_it_is_opened() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(library) = stand_in("false reports in a trial", dir.path(), "") else { return };
    for (number, (kernel, _)) in KERNELS.into_iter().enumerate() {
        // A node that is there, one that is not, and the last number that there is.
        for (fault, place) in [0_u64, 1 << 40, u64::MAX - 1].into_iter().enumerate() {
            let own = dir.path().join(format!("libcuda-{number}-{fault}.so"));
            fs::copy(&library, &own).expect("copied");
            set_script(&own, &format!("report {kernel} 1 0 {place}"));
            let error = Gpu::open(settings(&own, false)).expect_err("it reports what is not so");
            assert!(matches!(error, CudaError::Distrusted { .. }), "{kernel} {place}: {error}");
            assert!(error.to_string().contains("which is not so"), "{error}");
        }
    }
}

#[test]
fn a_device_that_fails_when_it_is_tried_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(library) = stand_in("a device that fails its trial", dir.path(), "lose 2") else {
        return;
    };
    // Nothing takes its place: it has computed nothing wrongly.
    let error = Gpu::open(settings(&library, true)).expect_err("it fails");
    assert!(matches!(error, CudaError::Trial { .. }) && error.is_loss(), "{error}");
    let told = error.to_string();
    assert!(told.starts_with("stand-in (GPU-00010203-") && told.contains("Xid"), "{told}");
}

#[test]
fn the_processor_takes_the_place_of_a_device_that_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let script = "wrong seal_rows_8 1 1 all";
    let Some(library) = stand_in("the processor instead", dir.path(), script) else { return };
    let vector = Vector::load("2KiB-v1_1-a");
    let sector = vector.after_pc1();
    let gpu = Gpu::open(settings(&library, true)).expect("the processor is there");
    assert_eq!(standing(&gpu), (Standing::LeftOut, 1));
    let told = gpu.describe();
    assert!(told.starts_with("cpu (") && told.contains("in place of gpu stand-in (GPU-"), "{told}");
    let (_, opinion) = gpu.opinion().expect("a device");
    assert!(opinion.reason.is_some_and(|reason| reason.contains("rows of 8")));
    assert!(opinion.replaced_by.is_some_and(|cpu| cpu.starts_with("cpu (")));
    reproduces_on(&gpu, &Settings::default(), &vector, &sector);
    assert_eq!(gpu.is_lost(), None);
}

/// Launches of each kernel in the trial before a sector of 2 KiB and in the sector itself: two
/// blocks of threads make no difference to it.
const OF_A_SECTOR: [(&str, u64, &str); 3] = [
    ("seal_columns_2", 1, "columns of 2 (column "),
    ("seal_encode", 1, "the replica (node "),
    ("seal_rows_8", 4, "rows of 8 (node "),
];

#[test]
fn a_sector_is_thrown_away_and_made_again_when_the_device_was_wrong_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(library) = stand_in("a device that is wrong once", dir.path(), "") else { return };
    let vector = Vector::load("2KiB-v1_1-a");
    for (number, (kernel, launches, _)) in OF_A_SECTOR.into_iter().enumerate() {
        // In the trial before the sector, and in the sector.
        for launch in 1..=2 * launches {
            for (fault, what) in ["all", "nonsense"].into_iter().enumerate() {
                let own = dir.path().join(format!("libcuda-{number}-{launch}-{fault}.so"));
                fs::copy(&library, &own).expect("copied");
                set_script(&own, "");
                let gpu = Gpu::open(settings(&own, false)).expect("the stand-in works");
                assert_eq!(standing(&gpu), (Standing::Good, 0));
                set_script(&own, &format!("wrong {kernel} {launch} 0 {what}"));
                let sector = vector.after_pc1();
                reproduces_on(&gpu, &Settings::default(), &vector, &sector);
                assert_eq!(standing(&gpu), (Standing::Suspect, 1), "{kernel} {launch} {what}");
                assert_eq!(gpu.is_lost(), None);
            }
        }
    }
}

#[test]
fn a_device_that_is_wrong_again_is_left_out_and_the_sector_is_not_blamed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(library) = stand_in("a device that is wrong again", dir.path(), "") else { return };
    let vector = Vector::load("2KiB-v1_1-a");
    for (number, (kernel, launches, named)) in OF_A_SECTOR.into_iter().enumerate() {
        for replaceable in [false, true] {
            let own = dir.path().join(format!("libcuda-{number}-{replaceable}.so"));
            fs::copy(&library, &own).expect("copied");
            set_script(&own, "");
            let gpu = Gpu::open(settings(&own, replaceable)).expect("the stand-in works");
            // From the sector on, also when it is opened anew.
            let script = format!("wrong {kernel} {} 1 all", launches + 1);
            set_script(&own, &script);
            let sector = vector.after_pc1();
            let before = state(&sector);
            // Nothing takes the check of every block away.
            let unchecked = Settings { self_check_samples: 0, ..Settings::default() };
            if replaceable {
                let report = run(&gpu, &vector, &sector, &unchecked).expect("a sector");
                is_sealed(&vector, &sector, &report.device);
                assert_eq!(standing(&gpu), (Standing::LeftOut, 2));
                planned_for_the_processor(&report, &vector);
                continue;
            }
            let error = run(&gpu, &vector, &sector, &unchecked).expect_err("it is wrong again");
            let TreesError::BadDevice { device, what } = &error else { panic!("{error}") };
            assert!(device.contains("stand-in (GPU-00010203"), "{device}");
            // A sum that is spoilt at its end may be no element any more, which rows over it report.
            let named = what.contains(named) || what.contains("which is not so");
            assert!(named, "{what}");
            assert!(error.to_string().contains("nothing is known against the sector"), "{error}");
            assert_eq!(standing(&gpu), (Standing::LeftOut, 2));
            assert_eq!(state(&sector), before, "the sector's files are as they were");
            // It stays so, without a look at the device, and the process lives.
            set_script(&own, "");
            let error = run(&gpu, &vector, &sector, &unchecked).expect_err("it is left out");
            assert!(matches!(error, TreesError::BadDevice { .. }), "{error}");
            assert_eq!((standing(&gpu), gpu.is_lost()), ((Standing::LeftOut, 2), None));
            assert!(!gpu.may_try_again());
        }
    }
}

#[test]
fn a_device_that_calls_good_nodes_bad_is_to_blame_and_not_the_sector() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(library) = stand_in("false reports in a sector", dir.path(), "") else { return };
    let vector = Vector::load("2KiB-v1_1-a");
    let mut number = 0;
    for (kernel, launches, _) in OF_A_SECTOR {
        for place in [0, 5, 1 << 40, u64::MAX - 1] {
            number += 1;
            let own = dir.path().join(format!("libcuda-{number}.so"));
            fs::copy(&library, &own).expect("copied");
            set_script(&own, "");
            let gpu = Gpu::open(settings(&own, false)).expect("the stand-in works");
            set_script(&own, &format!("report {kernel} {} 1 {place}", launches + 1));
            let sector = vector.after_pc1();
            let before = state(&sector);
            let error = run(&gpu, &vector, &sector, &Settings::default()).expect_err("not so");
            assert!(matches!(error, TreesError::BadDevice { .. }), "{kernel} {place}: {error}");
            assert!(error.to_string().contains("which is not so"), "{error}");
            assert_eq!(standing(&gpu), (Standing::LeftOut, 2));
            assert_eq!(state(&sector), before);
        }
    }
}

#[test]
fn a_label_that_is_bad_in_truth_is_the_sectors_fault() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(library) = stand_in("a label that is bad in truth", dir.path(), "") else { return };
    let vector = Vector::load("2KiB-v1_1-a");
    let gpu = Gpu::open(settings(&library, true)).expect("the stand-in works");
    let sector = vector.after_pc1();
    let layer = sector.cache.join(seal_types::layer_file(2));
    let mut labels = fs::read(&layer).expect("readable");
    labels[9 * 32 + 31] = 0xff;
    fs::write(&layer, labels).expect("writable");
    let error = run(&gpu, &vector, &sector, &Settings::default()).expect_err("no element");
    assert!(matches!(error, TreesError::NotCanonical { node: 9, .. }), "{error}");
    assert_eq!(standing(&gpu), (Standing::Good, 0));
}

#[test]
fn a_single_wrong_node_is_found_by_one_check_or_the_other() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(library) = stand_in("a single wrong node", dir.path(), "") else { return };
    let vector = Vector::load("2KiB-v1_1-a");
    // Of the sector's 64 nodes all are looked at again.
    let thorough = Settings { self_check_samples: 2000, ..Settings::default() };
    for (number, (kernel, launch, node)) in
        [("seal_columns_2", 2, 17), ("seal_encode", 2, 63), ("seal_rows_8", 5, 3)]
            .into_iter()
            .enumerate()
    {
        let own = dir.path().join(format!("libcuda-{number}.so"));
        fs::copy(&library, &own).expect("copied");
        set_script(&own, "");
        let gpu = Gpu::open(settings(&own, false)).expect("the stand-in works");
        set_script(&own, &format!("wrong {kernel} {launch} 0 {node}"));
        let sector = vector.after_pc1();
        let before = state(&sector);
        match run(&gpu, &vector, &sector, &thorough) {
            // One of 64 was drawn, and the sector made again.
            Ok(_) => {}
            Err(TreesError::SelfCheck { device, .. }) => {
                assert!(device.contains("stand-in (GPU-"), "{device}");
                assert_eq!(state(&sector), before);
            }
            Err(error) => panic!("{error}"),
        }
        // Either way it is marked, and tried again with the next sector.
        assert_eq!(standing(&gpu), (Standing::Suspect, 1), "{kernel}");
        reproduces_on(&gpu, &thorough, &vector, &sector);
    }
}

#[test]
fn a_device_that_is_wrong_every_so_often_does_not_survive_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(library) = stand_in("wrong every so often", dir.path(), "") else { return };
    let vector = Vector::load("shape-16KiB-11layers-a");
    let gpu = Gpu::open(settings(&library, true)).expect("the stand-in works");
    // Good for some sectors, since each has some eight batches and two trials.
    set_script(&library, "wrong seal_columns_11 20 25 all");
    let mut seen = Vec::new();
    for _ in 0..8 {
        let sector = vector.after_pc1();
        reproduces_on(&gpu, &Settings::default(), &vector, &sector);
        seen.push(standing(&gpu));
    }
    assert_eq!(seen.first(), Some(&(Standing::Good, 0)), "{seen:?}");
    assert!(seen.contains(&(Standing::Suspect, 1)), "{seen:?}");
    assert_eq!(seen.last(), Some(&(Standing::LeftOut, 2)), "{seen:?}");
}

#[test]
fn trees_alone_and_columns_alone_are_looked_at_too() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(library) = stand_in("wrong parts of a sector", dir.path(), "") else { return };
    let vector = Vector::load("2KiB-v1_1-a");
    for (number, (parts, kernel, launch)) in [
        (GpuParts { columns: true, trees: false }, "seal_columns_2", 2),
        (GpuParts { columns: false, trees: true }, "seal_encode", 2),
        (GpuParts { columns: false, trees: true }, "seal_rows_8", 8),
    ]
    .into_iter()
    .enumerate()
    {
        for (fault, what) in ["all", "nonsense"].into_iter().enumerate() {
            let own = dir.path().join(format!("libcuda-{number}-{fault}.so"));
            fs::copy(&library, &own).expect("copied");
            set_script(&own, "");
            let gpu = GpuSettings { parts, ..settings(&own, false) };
            let gpu = Gpu::open(gpu).expect("the stand-in works");
            set_script(&own, &format!("wrong {kernel} {launch} 1 {what}"));
            let sector = vector.after_pc1();
            let error = run(&gpu, &vector, &sector, &Settings::default()).expect_err("wrong");
            assert!(matches!(error, TreesError::BadDevice { .. }), "{kernel} {what}: {error}");
            assert_eq!(standing(&gpu), (Standing::LeftOut, 2));
        }
    }
}
