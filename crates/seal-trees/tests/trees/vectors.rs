//! PC2 and tree D reproduce the reference vectors byte for byte, from layers that a plain
//! labelling makes.

use std::fs;
use std::path::Path;

use crate::support::{Sector, Vector, sha256};
use seal_host::{DirectoryLock, DirectoryLockError, FileError};
use seal_poseidon::Kernel;
use seal_trees::{
    Backend, Cpu, Pc2Job, Pc2Paths, Piece, RecordedLayers, SealedState, Settings, Watch,
    ZeroLeaves, build_tree_d, build_zero_tree_d, check_tree_d, comm_d_of_pieces, pre_commit2,
};
use seal_types::{SectorSize, TREE_D, layer_file};

const QUIET: Watch<'static> = Watch { progress: &|_, _, _| {}, cancelled: &|| false };

/// On every kernel in turn, with as many threads and as much memory as there are, and small
/// sectors with as few as possible.
fn reproduces(name: &str) {
    let vector = Vector::load(name);
    let sector = vector.after_pc1();
    for file in (1..=vector.porep.layers).map(layer_file) {
        let labels = fs::read(sector.cache.join(&file)).expect("readable");
        assert_eq!(sha256(&labels), vector.digest_of(&file), "{name}: {file} of the plain labels");
    }
    let plenty = Settings::default();
    let scant = Settings { memory_bytes: 100_000, ..plenty };
    for kernel in Kernel::available() {
        reproduces_on(&Cpu::new(kernel), &plenty, &vector, &sector);
        if vector.porep.sector_size < SectorSize::MIB_8 {
            reproduces_on(&Cpu::with_threads(kernel, 1), &scant, &vector, &sector);
        }
    }
}

/// A sector that is as PC1 left it, or was PC2's already, becomes the vector's.
pub(crate) fn reproduces_on(
    backend: &dyn Backend,
    settings: &Settings,
    vector: &Vector,
    sector: &Sector,
) {
    // As a worker does before it repeats PC2.
    fs::write(&sector.sealed, vector.staged()).expect("writable");
    let comm_d = vector.comm_d();
    let paths = Pc2Paths { cache_dir: &sector.cache, sealed_file: &sector.sealed };
    let digest = |layer| vector.digest_of(&layer_file(layer)).to_owned();
    let layer_digests: Vec<_> = (1..=vector.porep.layers).map(digest).collect();
    let job = Pc2Job { porep: &vector.porep, paths, comm_d, layer_digests: &layer_digests };
    let (result, report) = pre_commit2(&job, backend, settings, &QUIET).expect("a sector");
    assert!(report.layers_checked && report.memory_bytes as u64 <= settings.memory_bytes);

    assert_eq!(result.sealed_state, SealedState::Unsealed);
    let name = &vector.name;
    assert_eq!(result.comm_c.to_string(), vector.reference.comm_c, "{name}");
    assert_eq!(result.comm_r_last.to_string(), vector.reference.comm_r_last, "{name}");
    assert_eq!(result.comm_r.to_string(), vector.reference.comm_r, "{name}");
    is_sealed(vector, sector, &format!("{backend:?}"));
}

/// Tells a wrong digest as long as another one may work in the directory, who may record the right one.
#[derive(Debug)]
struct OfWhoWasThere<'a>(&'a Path, Vec<String>);

impl RecordedLayers for OfWhoWasThere<'_> {
    fn digests(&self) -> Result<Vec<String>, FileError> {
        Ok(match DirectoryLock::take(self.0) {
            Err(DirectoryLockError::Busy { .. }) => self.1.clone(),
            _ => vec!["00".repeat(32); self.1.len()],
        })
    }
}

#[test]
fn what_pc1_has_recorded_is_read_when_no_pc1_can_change_it_any_more() {
    let vector = Vector::load("2KiB-v1_1-a");
    let sector = vector.after_pc1();
    let paths = Pc2Paths { cache_dir: &sector.cache, sealed_file: &sector.sealed };
    let digest = |layer| vector.digest_of(&layer_file(layer)).to_owned();
    let digests = (1..=vector.porep.layers).map(digest).collect();
    let record = OfWhoWasThere(&sector.cache, digests);
    let (porep, comm_d) = (&vector.porep, vector.comm_d());
    let job = Pc2Job { porep, paths, comm_d, layer_digests: &record };
    let cpu = Cpu::new(Kernel::detect());
    pre_commit2(&job, &cpu, &Settings::default(), &QUIET).expect("the right digests");
}

/// Every file is the vector's, and there are no others. `by` made them.
pub(crate) fn is_sealed(vector: &Vector, sector: &Sector, by: &str) {
    let name = &vector.name;
    let replica = fs::read(&sector.sealed).expect("readable");
    assert_eq!(sha256(&replica), vector.reference.sealed_sha256, "{name}: replica, {by}");
    let mut names = Vec::new();
    for (file, digest) in &vector.reference.cache_files {
        let found = fs::read(sector.cache.join(file)).expect("readable");
        assert_eq!(found.len() as u64, digest.bytes, "{name}: {file}");
        assert_eq!(sha256(&found), digest.sha256, "{name}: {file}, {by}");
        names.push(file.clone());
    }
    names.push("t_aux".to_owned());
    names.sort();
    assert_eq!(seal_host::read_dir_names(&sector.cache).expect("readable"), names, "{name}");
}

#[test]
fn sectors_of_2_kib() {
    for name in ["2KiB-v1-a", "2KiB-v1_1-a", "2KiB-v1_1-cc"] {
        reproduces(name);
    }
}

#[test]
fn sectors_of_8_mib() {
    for name in ["8MiB-v1-b", "8MiB-v1_1-a", "8MiB-v1_1-cc"] {
        reproduces(name);
    }
}

#[test]
fn a_sub_tree_of_2() {
    reproduces("shape-4KiB-2layers-a");
}

#[test]
fn a_sub_tree_of_8_with_11_layers() {
    for name in ["shape-16KiB-11layers-a", "shape-16KiB-11layers-cc", "shape-16KiB-11layers-v1-b"] {
        reproduces(name);
    }
}

#[test]
fn sub_trees_of_8_under_a_top_of_2() {
    reproduces("shape-32KiB-11layers-a");
}

#[test]
fn tree_d_is_built_from_the_data() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for name in ["2KiB-v1-a", "8MiB-v1_1-a", "2KiB-v1_1-cc", "8MiB-v1_1-cc"] {
        let vector = Vector::load(name);
        let (nodes, comm_d) = (vector.porep.nodes(), vector.comm_d());
        let target = dir.path().join(name);
        let staged = vector.staged();
        build_tree_d(&target, nodes, &mut &staged[..], Path::new("staged"), comm_d, &QUIET)
            .expect("writable");
        check_tree_d(&target, nodes, comm_d).expect("a good tree");
        let digest = sha256(&fs::read(&target).expect("readable"));
        let wanted = vector.digest_of(TREE_D);
        assert_eq!(digest, wanted, "{name}");
        if vector.reference.data == "zero" {
            let root = build_zero_tree_d(&target, nodes, ZeroLeaves::Hole, &QUIET);
            assert_eq!(root.expect("writable"), comm_d, "{name}");
            assert_eq!(sha256(&fs::read(&target).expect("readable")), wanted, "{name}");
        }
    }
}

#[test]
fn comm_d_follows_from_the_piece() {
    for name in ["2KiB-v1-a", "8MiB-v1_1-a", "8MiB-v1_1-cc", "shape-32KiB-11layers-a"] {
        let vector = Vector::load(name);
        let size = vector.porep.sector_size;
        let piece = Piece { commitment: vector.comm_d(), unpadded_bytes: size.unpadded_bytes() };
        assert_eq!(comm_d_of_pieces(size, &[piece]), Ok(vector.comm_d()), "{name}");
        if vector.reference.data == "zero" {
            assert_eq!(comm_d_of_pieces(size, &[]), Ok(vector.comm_d()), "{name}");
        }
    }
}
