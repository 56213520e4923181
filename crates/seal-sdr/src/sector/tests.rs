//! Whole sectors whose parents cache or memory is taken away, or is wrong, while they are labelled.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::*;
use crate::manifest::tests::sealing;
use crate::{Sealing, SharedParents, UnitCores};
use seal_host::{Binding, MapError, MemoryFiles, MemoryPolicy, NodeId, read_dir_names};
use seal_sha256::Kernel;
use seal_types::{MANIFEST, SectorSize, layer_file};
use test_support::plain;
use test_support::skip::skipped;

const QUIET: Watch<'static> = Watch { progress: &|_, _, _| {}, cancelled: &|| false };
/// Bytes of one node in a parents cache.
const ENTRY: u64 = 14 * 4;

fn engine(producers: usize) -> Engine {
    let cores = UnitCores { consumer: 5, producers: vec![0; producers], node: None };
    Engine::start(&[cores], 2, Arc::new(|_| Ok(()))).expect("threads")
}

/// A sector of two layers and 32 KiB, whose parents cache has 14 pages. `graph` chooses one of many.
fn sector(graph: u8) -> Sealing {
    let mut sealing = sealing();
    sealing.porep.sector_size = SectorSize::new(32 << 10).expect("a size");
    sealing.porep.layers = 2;
    sealing.porep.porep_id.0 = [graph; 32];
    sealing
}

fn anonymous(sealing: &Sealing) -> Result<Region, SdrError> {
    let bytes = usize::try_from(sealing.porep.sector_size.bytes()).expect("small");
    Ok(Region::anonymous(bytes).expect("memory"))
}

/// Labels a sector over `parents` and stores its layers in `directory`.
fn label_in(
    engine: &Engine,
    sealing: &Sealing,
    parents: &Arc<ParentsCache>,
    memory: &mut dyn FnMut() -> Result<Region, SdrError>,
    directory: &Path,
) -> Result<(), SdrError> {
    fs::create_dir_all(directory).expect("writable");
    let seat = engine.take_seat(&|_| {}, &|| false).expect("a seat");
    let mut store = LayerStore::begin(directory, sealing, Vec::new()).expect("writable");
    let (porep, replica_id) = (&sealing.porep, sealing.replica_id);
    let job = Labelling { porep, parents, replica_id, kernel: Kernel::detect() };
    label_sector(engine, &seat, Some(5), memory, &job, &mut store, QUIET)
}

fn label(
    engine: &Engine,
    sealing: &Sealing,
    parents: &Arc<ParentsCache>,
    directory: &Path,
) -> Result<(), SdrError> {
    label_in(engine, sealing, parents, &mut || anonymous(sealing), directory)
}

/// Whether all layers are there and right.
fn check_layers(sealing: &Sealing, directory: &Path) {
    for (layer, labels) in (1..).zip(plain::label_layers(&sealing.porep, sealing.replica_id)) {
        let stored = fs::read(directory.join(layer_file(layer))).expect("stored");
        assert!(stored == labels.as_flattened(), "layer {layer} in {}", directory.display());
    }
}

fn stamp_of(cache: &Path) -> PathBuf {
    let name = cache.file_name().expect("a name").to_string_lossy();
    cache.with_file_name(format!(".{name}.seal-exec.json"))
}

/// Puts `parent` in the place of parent `index` of `node`, and sets the time of the last change
/// back: what a bad disk does, or bad memory to what is mapped.
fn spoil(cache: &Path, node: u64, index: u64, parent: impl Fn(u32) -> u32) {
    let file = File::options().read(true).write(true).open(cache).expect("writable");
    let modified = file.metadata().and_then(|meta| meta.modified()).expect("readable");
    let at = node * ENTRY + 4 * index;
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, at).expect("readable");
    let parent = parent(u32::from_le_bytes(bytes));
    file.write_all_at(&parent.to_le_bytes(), at).expect("writable");
    file.set_modified(modified).expect("writable");
}

#[test]
fn labels_over_a_wrong_parent_are_found_before_the_layer_has_its_name() {
    let sealing = sealing();
    let graph = Graph::new(&sealing.porep);
    let mut two_layers = sealing;
    two_layers.porep.layers = 2;
    for producers in [0, 1] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (parents, layers) = (dir.path().join("parents"), dir.path().join("layers"));
        let open = || Arc::new(ParentsCache::open(&graph, &parents, QUIET).expect("writable"));
        let (cache, engine) = (open(), engine(producers));
        let good = fs::read(cache.path()).expect("readable");
        label(&engine, &two_layers, &cache, &layers).expect("all is right");
        assert_eq!(read_dir_names(&layers).expect("readable").len(), 3);

        spoil(cache.path(), 40, 0, |parent| parent ^ 1);
        fs::remove_dir_all(&layers).expect("writable");
        let error = label(&engine, &two_layers, &cache, &layers).expect_err("a parent is wrong");
        let SdrError::BadParent { node: 40, index: 0, .. } = &error else { panic!("{error}") };
        let text = error.to_string();
        assert!(text.contains(&cache.path().display().to_string()), "{text}");
        assert!(text.contains("where the graph has "), "{text}");
        assert_eq!(read_dir_names(&layers).expect("readable"), [MANIFEST]);
        // The next one makes it again.
        assert!(!stamp_of(cache.path()).exists());
        label(&engine, &two_layers, &open(), &layers).expect("all is right");
        assert_eq!(fs::read(cache.path()).expect("readable"), good);
    }
}

#[test]
fn a_parents_cache_that_is_cut_fails_its_sector_by_name_and_no_other() {
    let (cut, sound) = (sector(1), sector(2));
    let length = (32 << 10) / 32 * ENTRY;
    for (producers, left) in [(0, 0), (1, 4096), (0, 3 * 4096 + 5), (2, length - 4)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (parents, shared) = (dir.path().join("parents"), SharedParents::default());
        let open = |sealing: &Sealing| {
            shared.open(&Graph::new(&sealing.porep), &parents, QUIET).expect("writable")
        };
        let (cut_cache, sound_cache) = (open(&cut), open(&sound));
        let (cut_dir, sound_dir) = (dir.path().join("cut"), dir.path().join("sound"));
        let file = File::options().write(true).open(cut_cache.path()).expect("writable");
        file.set_len(left).expect("writable");

        let engine = engine(producers);
        let failed = std::thread::scope(|scope| {
            let other = scope.spawn(|| label(&engine, &sound, &sound_cache, &sound_dir));
            let failed = label(&engine, &cut, &cut_cache, &cut_dir);
            other.join().expect("no panic").expect("nothing has happened to it");
            failed
        });
        let error = failed.expect_err("its parents are gone");
        let SdrError::ParentsMap(MapError::Cut { .. }) = &error else { panic!("{error}") };
        let text = error.to_string();
        let path = cut_cache.path().display();
        let told = format!("{path} was cut from {length} to {left} bytes while it was used");
        assert!(text.contains(&told), "{text}");
        assert_eq!(read_dir_names(&cut_dir).expect("readable"), [MANIFEST]);
        check_layers(&sound, &sound_dir);
        assert!(Arc::ptr_eq(&sound_cache, &open(&sound)), "there is nothing wrong with it");

        // The next one at the same unit opens the file anew and makes it again.
        let again = open(&cut);
        assert!(!Arc::ptr_eq(&cut_cache, &again));
        label(&engine, &cut, &again, &cut_dir).expect("all is right");
        check_layers(&cut, &cut_dir);
    }
}

#[test]
fn a_parent_that_no_node_can_have_is_named_and_the_unit_goes_on() {
    let sealing = sector(3);
    let graph = Graph::new(&sealing.porep);
    for producers in [0, 1, 2] {
        let engine = engine(producers);
        for (node, index, parent, wrong) in [
            (1, 0, 1, "which does not come before it"),
            (500, 2, 500, "which does not come before it"),
            (500, 5, 1023, "which does not come before it"),
            (77, 3, 1024, "where the graph has 1024 nodes"),
            (1023, 1, u32::MAX, "where the graph has 1024 nodes"),
            (300, 6, 1024, "where the graph has 1024 nodes"),
            (1023, 13, u32::MAX, "where the graph has 1024 nodes"),
        ] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let (parents, shared) = (dir.path().join("parents"), SharedParents::default());
            let open = || shared.open(&graph, &parents, QUIET).expect("writable");
            let (layers, cache) = (dir.path().join("layers"), open());
            spoil(cache.path(), node, index, |_| parent);
            let error = label(&engine, &sealing, &cache, &layers).expect_err("it has no label");
            let told = format!(
                "parents cache {}: parent {index} of node {node} is {parent}, {wrong}",
                cache.path().display()
            );
            assert!(error.to_string().starts_with(&told), "{error}");
            let layer = if index < 6 { 1 } else { 2 };
            assert!(!layers.join(layer_file(layer)).exists(), "{told}");
            // Others who use the same map stop too, and the next one checks the file.
            let other = label(&engine, &sealing, &cache, &layers).expect_err("it is not trusted");
            assert!(matches!(other, SdrError::DistrustedParents { .. }), "{other}");
            label(&engine, &sealing, &open(), &layers).expect("made again");
            check_layers(&sealing, &layers);
        }
    }
}

#[test]
fn label_memory_in_a_file_that_is_cut_fails_its_sector_by_name_and_no_other() {
    let shm = Path::new("/dev/shm");
    let Ok(dir) = tempfile::tempdir_in(shm) else {
        skipped("label memory in a file that is cut", "/dev/shm cannot be written");
        return;
    };
    let pattern = format!("{}/numa_$NUMA_NODE_INDEX", dir.path().display());
    let files = MemoryFiles::by_pattern(&pattern);
    let directory = files.directory(NodeId(0));
    fs::create_dir_all(&directory).expect("writable");
    let memory = directory.join("memory");
    let policy =
        MemoryPolicy { node: Some((NodeId(0), Binding::Preferred)), ..MemoryPolicy::default() };
    let (sealing, parents) = (sector(4), dir.path().join("parents"));
    let cache = Arc::new(
        ParentsCache::open(&Graph::new(&sealing.porep), &parents, QUIET).expect("writable"),
    );
    // Of the first layer, and of the second, which is asked for when the first is begun.
    for (producers, which) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        fs::write(&memory, vec![0; 32 << 10]).expect("writable");
        let engine = engine(producers);
        let (layers, other) = (dir.path().join("layers"), dir.path().join("other"));
        let mut asked = 0;
        let mut take = || {
            asked += 1;
            if asked != which + 1 {
                return anonymous(&sealing);
            }
            let region = files.take(32 << 10, &policy).expect("readable").expect("free");
            File::options()
                .write(true)
                .open(&memory)
                .and_then(|file| file.set_len(4096))
                .expect("writable");
            Ok(region)
        };
        let error = label_in(&engine, &sealing, &cache, &mut take, &layers).expect_err("cut");
        let told = format!(
            "memory for labels: {} was cut from 32768 to 4096 bytes while it was used",
            memory.display()
        );
        assert!(error.to_string().starts_with(&told), "{error}");
        assert!(!layers.join(layer_file(which + 1)).exists(), "{told}");
        label(&engine, &sealing, &cache, &other).expect("the parents are as they were");
        check_layers(&sealing, &other);
        fs::remove_dir_all(&layers).expect("writable");
    }
}
