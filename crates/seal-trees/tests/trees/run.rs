//! Runs of PC2 over sectors, good and faulty, and what they leave.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use seal_host::read_dir_names;
use seal_poseidon::Kernel;
use seal_trees::{Cpu, Pc2Job, Pc2Paths, Pc2Result, Settings, TreesError, Watch, pre_commit2};

use crate::support::{Sector, Vector};

pub(crate) const QUIET: Watch<'static> = Watch { progress: &|_, _, _| {}, cancelled: &|| false };

/// Small blocks, so that even the smallest sectors take several.
pub(crate) const SMALL_BLOCKS: Settings =
    Settings { memory_bytes: 8192, self_check_samples: 4, lock_wait: Duration::from_secs(120) };

pub(crate) fn run(vector: &Vector, sector: &Sector) -> Result<Pc2Result, TreesError> {
    run_with(vector, sector, &Settings::default(), &QUIET)
}

pub(crate) fn run_with(
    vector: &Vector,
    sector: &Sector,
    settings: &Settings,
    watch: &Watch<'_>,
) -> Result<Pc2Result, TreesError> {
    run_checked(vector, sector, settings, watch, &[])
}

/// With digests of the layers.
pub(crate) fn run_checked(
    vector: &Vector,
    sector: &Sector,
    settings: &Settings,
    watch: &Watch<'_>,
    layer_digests: &[String],
) -> Result<Pc2Result, TreesError> {
    let paths = Pc2Paths { cache_dir: &sector.cache, sealed_file: &sector.sealed };
    let layer_digests = &layer_digests.to_vec();
    let job = Pc2Job { porep: &vector.porep, paths, comm_d: vector.comm_d(), layer_digests };
    // The number of threads decides how large blocks are.
    let cpu = Cpu::with_threads(Kernel::detect(), 2);
    pre_commit2(&job, &cpu, settings, watch).map(|(result, _)| result)
}

/// Name and content of every file of the cache directory, and the sealed file.
pub(crate) fn content(sector: &Sector) -> BTreeMap<String, Vec<u8>> {
    let mut files: BTreeMap<_, _> = read_dir_names(&sector.cache)
        .expect("readable")
        .into_iter()
        .map(|name| (name.clone(), fs::read(sector.cache.join(name)).expect("readable")))
        .collect();
    let dir = sector.sealed.parent().expect("a directory");
    for name in read_dir_names(dir).expect("readable").into_iter().filter(|name| name != "cache") {
        files.insert(format!("../{name}"), fs::read(dir.join(&name)).expect("readable"));
    }
    files
}

pub(crate) fn flip_bit(path: &Path, byte: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("a file");
    let mut at = [0];
    file.read_exact_at(&mut at, byte).expect("within the file");
    file.write_all_at(&[at[0] ^ 1], byte).expect("writable");
}

/// PC2 fails with an error that `is_it` accepts and leaves every file as it was: in a sector as it
/// is, and in one that has the results of a former PC2 beside the same fault.
pub(crate) fn fails_and_changes_nothing(
    vector: &Vector,
    sector: &Sector,
    settings: &Settings,
    watch: &Watch<'_>,
    is_it: impl Fn(&TreesError) -> bool,
) -> String {
    let before = content(sector);
    let text = fails_once(vector, sector, settings, watch, &is_it);
    let planted = Finished::plant(vector, sector);
    assert_eq!(fails_once(vector, sector, settings, watch, &is_it), text);
    planted.remove(sector);
    assert_eq!(content(sector), before);
    text
}

pub(crate) fn fails_once(
    vector: &Vector,
    sector: &Sector,
    settings: &Settings,
    watch: &Watch<'_>,
    is_it: &dyn Fn(&TreesError) -> bool,
) -> String {
    let before = content(sector);
    let error = run_with(vector, sector, settings, watch).expect_err("a fault");
    assert!(is_it(&error), "{error:?}");
    assert_eq!(content(sector), before, "{error}");
    error.to_string()
}

/// The results of a former PC2, put into a sector.
pub(crate) struct Finished {
    names: Vec<String>,
    sealed: Option<Vec<u8>>,
}

impl Finished {
    /// Runs PC2 on a good sector of the same kind and puts what it made into `sector`.
    pub(crate) fn plant(vector: &Vector, sector: &Sector) -> Self {
        let good = vector.after_pc1();
        let inputs = read_dir_names(&good.cache).expect("readable");
        run(vector, &good).expect("a sector");
        let mut names = read_dir_names(&good.cache).expect("readable");
        names.retain(|name| !inputs.contains(name));
        for name in &names {
            fs::copy(good.cache.join(name), sector.cache.join(name)).expect("writable");
        }
        let sealed = fs::read(&sector.sealed).ok();
        if sealed.is_some() {
            fs::copy(&good.sealed, &sector.sealed).expect("writable");
        }
        Self { names, sealed }
    }

    pub(crate) fn remove(self, sector: &Sector) {
        for name in self.names {
            fs::remove_file(sector.cache.join(name)).expect("it is there");
        }
        if let Some(sealed) = self.sealed {
            fs::write(&sector.sealed, sealed).expect("writable");
        }
    }
}
