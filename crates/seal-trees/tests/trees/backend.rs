//! PC2 by backends that fail, and by one that computes nonsense.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{Sector, Vector};
use seal_poseidon::Kernel;
use seal_trees::{
    Backend, BlockView, ComputeError, Cpu, DeviceError, Memory, NoRecord, Pc2Job, Pc2Paths,
    Session, Settings, TreesError, Watch, Work, Worker, pre_commit2,
};

const QUIET: Watch<'static> = Watch { progress: &|_, _, _| {}, cancelled: &|| false };

/// As many samples as make sure that every leaf is among them.
const SETTINGS: Settings =
    Settings { memory_bytes: 16384, self_check_samples: 1000, lock_wait: Duration::ZERO };

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    NoSession,
    NoMemory,
    /// Too little memory for any block.
    ShortMemory,
    NoWorker,
    /// With this block of the sector.
    Block(usize),
    Panic(usize),
    /// The last node of an area of this block is wrong.
    Wrong(usize, Area),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Area {
    TreeC,
    Replica,
    TreeR,
}

/// The processor, which goes wrong.
#[derive(Debug)]
struct Failing {
    cpu: Cpu,
    fault: Fault,
    computed: AtomicUsize,
}

impl Backend for Failing {
    fn describe(&self) -> String {
        "device 7 of the test".to_owned()
    }

    fn begin(&self) -> Result<Box<dyn Session + '_>, DeviceError> {
        if self.fault == Fault::NoSession {
            return Err("no answer from the bus".into());
        }
        Ok(Box::new(FailingSession(self)))
    }
}

#[derive(Debug)]
struct FailingSession<'a>(&'a Failing);

impl Session for FailingSession<'_> {
    fn device(&self) -> String {
        self.0.describe()
    }

    fn workers(&self) -> usize {
        self.0.cpu.workers()
    }

    fn largest_block(&self) -> usize {
        self.0.cpu.largest_block()
    }

    fn memory(&self, bytes: usize) -> Result<Box<dyn Memory>, DeviceError> {
        match self.0.fault {
            Fault::NoMemory => Err(format!("no {bytes} bytes of pinned memory").into()),
            Fault::ShortMemory => self.0.cpu.memory(1),
            _ => self.0.cpu.memory(bytes),
        }
    }

    fn worker(&self, work: &Work) -> Result<Box<dyn Worker + '_>, DeviceError> {
        if self.0.fault == Fault::NoWorker {
            return Err("no stream".into());
        }
        Ok(Box::new(FailingWorker { backend: self.0, worker: self.0.cpu.worker(work)? }))
    }
}

struct FailingWorker<'a> {
    backend: &'a Failing,
    worker: Box<dyn Worker + 'a>,
}

impl Worker for FailingWorker<'_> {
    fn compute(&mut self, block: BlockView<'_>) -> Result<(), ComputeError> {
        let number = self.backend.computed.fetch_add(1, Ordering::Relaxed);
        let BlockView { layers, data, tree_c, replica, tree_r } = block;
        let block = BlockView {
            layers,
            data,
            tree_c: &mut *tree_c,
            replica: &mut *replica,
            tree_r: &mut *tree_r,
        };
        self.worker.compute(block)?;
        match self.backend.fault {
            Fault::Block(at) if at == number => {
                Err(ComputeError::Device("the device has fallen off the bus".into()))
            }
            Fault::Panic(at) if at == number => panic!("a defect of the device"),
            Fault::Wrong(at, area) if at == number => {
                let nodes = match area {
                    Area::TreeC => tree_c,
                    Area::Replica => replica,
                    Area::TreeR => tree_r,
                };
                nodes.last_mut().expect("not empty")[0] ^= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn content(sector: &Sector) -> BTreeMap<String, Vec<u8>> {
    let dir = sector.sealed.parent().expect("a directory");
    let mut files = BTreeMap::new();
    for dir in [dir, &sector.cache] {
        for name in seal_host::read_dir_names(dir).expect("readable") {
            if name != "cache" {
                files.insert(name.clone(), fs::read(dir.join(name)).expect("readable"));
            }
        }
    }
    files
}

fn run(vector: &Vector, sector: &Sector, backend: &dyn Backend) -> Result<String, TreesError> {
    let paths = Pc2Paths { cache_dir: &sector.cache, sealed_file: &sector.sealed };
    let comm_d = vector.comm_d();
    let job = Pc2Job { porep: &vector.porep, paths, comm_d, layer_digests: &NoRecord };
    let (result, report) = pre_commit2(&job, backend, &SETTINGS, &QUIET)?;
    assert_eq!(report.device, backend.describe());
    Ok(result.comm_r.to_string())
}

fn failing(fault: Fault) -> Failing {
    let cpu = Cpu::with_threads(Kernel::detect(), 2);
    Failing { cpu, fault, computed: AtomicUsize::new(0) }
}

#[test]
fn a_device_that_fails_is_named_and_nothing_is_changed() {
    let vector = Vector::load("shape-4KiB-2layers-a");
    let sector = vector.after_pc1();
    let before = content(&sector);
    for (fault, word) in [
        (Fault::NoSession, "no answer"),
        (Fault::NoMemory, "pinned memory"),
        (Fault::NoWorker, "no stream"),
        (Fault::Block(0), "off the bus"),
        (Fault::Block(9), "off the bus"),
        (Fault::Block(15), "off the bus"),
    ] {
        let error = run(&vector, &sector, &failing(fault)).expect_err("a fault");
        let TreesError::Device { device, source } = &error else { panic!("{error:?}") };
        assert_eq!(device, "device 7 of the test", "{fault:?}");
        assert!(source.to_string().contains(word), "{fault:?}: {source}");
        assert_eq!(content(&sector), before, "{fault:?}");
    }
    assert_eq!(
        run(&vector, &sector, &failing(Fault::Block(16))).expect("a sector"),
        vector.reference.comm_r
    );
}

#[test]
fn a_device_that_panics_or_gives_no_memory_ends_it_and_nothing_is_changed() {
    let vector = Vector::load("shape-4KiB-2layers-a");
    let sector = vector.after_pc1();
    let before = content(&sector);
    for fault in [Fault::Panic(0), Fault::Panic(11), Fault::ShortMemory] {
        let run = || run(&vector, &sector, &failing(fault));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        assert!(!matches!(outcome, Ok(Ok(_))), "{fault:?}");
        assert_eq!(content(&sector), before, "{fault:?}");
    }
}

#[test]
fn a_device_that_computes_nonsense_is_found_out_and_named() {
    let vector = Vector::load("shape-4KiB-2layers-a");
    for (area, file) in [
        (Area::TreeC, "sc-02-data-tree-c-"),
        (Area::Replica, "sealed"),
        (Area::TreeR, "sc-02-data-tree-r-last-"),
    ] {
        for block in [0, 6, 15] {
            let sector = vector.after_pc1();
            let before = content(&sector);
            let fault = Fault::Wrong(block, area);
            let error = run(&vector, &sector, &failing(fault)).expect_err("nonsense");
            let TreesError::SelfCheck { path, device, .. } = &error else { panic!("{error:?}") };
            assert_eq!(device, "device 7 of the test", "{fault:?}");
            let name = path.file_name().expect("a name").to_string_lossy();
            // A wrong node of the replica is also wrong in the tree over it.
            let found = name.starts_with(file)
                || area == Area::Replica && name.starts_with("sc-02-data-tree-r-last-");
            assert!(found, "{fault:?}: {error}");
            assert!(error.to_string().contains("device 7 of the test"), "{error}");
            assert_eq!(content(&sector), before, "{fault:?}");
        }
    }
}
