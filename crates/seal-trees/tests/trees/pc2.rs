//! PC2 over sectors in every state that other software, interruptions and damage leave behind.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{Sector, Vector, sha256};
use seal_host::{FileError, SpaceError, free_bytes, read_dir_names};
use seal_poseidon::Kernel;
use seal_trees::{
    Cpu, Part, Pc2Job, Pc2Paths, Pc2Result, SealedState, Settings, TemporaryAux, TreesError, Watch,
    pre_commit2,
};
use seal_types::{Commitment, Porep, RegisteredProof, TREE_D, layer_file};

const QUIET: Watch<'static> = Watch { progress: &|_, _, _| {}, cancelled: &|| false };

/// Small blocks, so that even the smallest sectors take several.
const SMALL_BLOCKS: Settings = Settings { memory_bytes: 8192, self_check_samples: 4 };

fn run(vector: &Vector, sector: &Sector) -> Result<Pc2Result, TreesError> {
    run_with(vector, sector, &Settings::default(), &QUIET)
}

fn run_with(
    vector: &Vector,
    sector: &Sector,
    settings: &Settings,
    watch: &Watch<'_>,
) -> Result<Pc2Result, TreesError> {
    run_checked(vector, sector, settings, watch, &[])
}

/// With digests of the layers.
fn run_checked(
    vector: &Vector,
    sector: &Sector,
    settings: &Settings,
    watch: &Watch<'_>,
    layer_digests: &[String],
) -> Result<Pc2Result, TreesError> {
    let paths = Pc2Paths { cache_dir: &sector.cache, sealed_file: &sector.sealed };
    let job = Pc2Job { porep: &vector.porep, paths, comm_d: vector.comm_d(), layer_digests };
    // The number of threads decides how large blocks are.
    let cpu = Cpu::with_threads(Kernel::detect(), 2);
    pre_commit2(&job, &cpu, settings, watch).map(|(result, _)| result)
}

/// Name and content of every file of the cache directory, and the sealed file.
fn content(sector: &Sector) -> BTreeMap<String, Vec<u8>> {
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

fn flip_bit(path: &Path, byte: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("a file");
    let mut at = [0];
    file.read_exact_at(&mut at, byte).expect("within the file");
    file.write_all_at(&[at[0] ^ 1], byte).expect("writable");
}

/// PC2 fails with an error that `is_it` accepts and leaves every file as it was.
fn fails_and_changes_nothing(
    vector: &Vector,
    sector: &Sector,
    settings: &Settings,
    watch: &Watch<'_>,
    is_it: impl Fn(&TreesError) -> bool,
) -> String {
    let before = content(sector);
    let error = run_with(vector, sector, settings, watch).expect_err("a fault");
    assert!(is_it(&error), "{error:?}");
    assert_eq!(content(sector), before, "{error}");
    error.to_string()
}

#[test]
fn a_second_run_gives_the_same_files() {
    let vector = Vector::load("shape-4KiB-2layers-a");
    let sector = vector.after_pc1();
    let first = run(&vector, &sector).expect("a sector");
    let files = content(&sector);
    let second = run(&vector, &sector).expect("a sector");
    assert_eq!(second, Pc2Result { sealed_state: SealedState::Replica, ..first });
    assert_eq!(content(&sector), files);
}

#[test]
fn whatever_the_sealed_file_holds_the_replica_is_the_same() {
    let vector = Vector::load("2KiB-v1_1-a");
    let sector = vector.after_pc1();
    let unsealed = fs::read(&sector.sealed).expect("readable");
    run(&vector, &sector).expect("a sector");
    let files = content(&sector);
    let replica = fs::read(&sector.sealed).expect("readable");
    let mixed = [&replica[..1024], &unsealed[1024..]].concat();
    let foreign = vec![0xa5; 2048];
    let long = [&unsealed[..], &[0]].concat();
    for (held, state) in [
        (&mixed[..], SealedState::Mixed),
        (&foreign[..], SealedState::Other),
        (&unsealed[..2016], SealedState::Other),
        (&long[..], SealedState::Other),
        (&[], SealedState::Other),
        (&unsealed[..], SealedState::Unsealed),
    ] {
        fs::write(&sector.sealed, held).expect("writable");
        let result = run(&vector, &sector).expect("a sector");
        assert_eq!(result.sealed_state, state);
        assert_eq!(content(&sector), files, "{state:?}");
    }
}

#[test]
fn an_interruption_at_any_point_leaves_a_sector_that_can_be_sealed() {
    let vector = Vector::load("shape-4KiB-2layers-a");
    let reference = vector.after_pc1();
    let steps = AtomicU64::new(0);
    let count = || {
        steps.fetch_add(1, Ordering::Relaxed);
        false
    };
    run_with(&vector, &reference, &SMALL_BLOCKS, &Watch { cancelled: &count, ..QUIET })
        .expect("a sector");
    let sealed = content(&reference);

    let sector = vector.after_pc1();
    let steps = steps.into_inner();
    assert_eq!(steps, 17 + 5 + 1, "starts, blocks, and samples");
    for last in 0..steps {
        let asked = AtomicU64::new(0);
        let cancelled = || asked.fetch_add(1, Ordering::Relaxed) == last;
        let watch = Watch { cancelled: &cancelled, ..QUIET };
        fails_and_changes_nothing(&vector, &sector, &SMALL_BLOCKS, &watch, |error| {
            matches!(error, TreesError::Cancelled)
        });
    }
    run_with(&vector, &sector, &SMALL_BLOCKS, &QUIET).expect("a sector");
    assert_eq!(without_t_aux(content(&sector)), without_t_aux(sealed));
}

/// `t_aux` holds the directory's name.
fn without_t_aux(mut files: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    files.remove("t_aux").expect("written by PC2");
    files
}

#[test]
fn what_a_killed_run_left_is_replaced() {
    let vector = Vector::load("shape-16KiB-11layers-v1-b");
    let sector = vector.after_pc1();
    run(&vector, &sector).expect("a sector");
    let files = content(&sector);
    for name in ["p_aux", "t_aux", "sc-02-data-tree-c-0.dat", "sc-02-data-tree-r-last-7.dat"] {
        fs::write(sector.cache.join(name), "of another replica id").expect("writable");
        fs::write(sector.cache.join(format!(".{name}.part")), "half").expect("writable");
    }
    let stale = sector.sealed.with_file_name(".sealed.part");
    fs::write(&stale, "half a replica").expect("writable");
    run(&vector, &sector).expect("a sector");
    assert_eq!(content(&sector), files);
}

#[test]
fn settings_change_no_byte() {
    for name in ["shape-16KiB-11layers-v1-b", "2KiB-v1-a"] {
        let vector = Vector::load(name);
        let sector = vector.after_pc1();
        run(&vector, &sector).expect("a sector");
        let files = content(&sector);
        for memory_bytes in [0, 8192, 65536] {
            let settings = Settings { memory_bytes, self_check_samples: 0 };
            run_with(&vector, &sector, &settings, &QUIET).expect("a sector");
            assert_eq!(content(&sector), files, "{name}, {memory_bytes} bytes");
        }
    }
}

#[test]
fn t_aux_names_the_stores_of_the_sector() {
    let vector = Vector::load("shape-32KiB-11layers-a");
    let sector = vector.after_pc1();
    run(&vector, &sector).expect("a sector");
    let bytes = fs::read(sector.cache.join("t_aux")).expect("readable");
    let wanted = TemporaryAux::new(&vector.porep, &sector.cache).expect("UTF-8");
    assert_eq!(bytes, wanted.to_bytes());
    assert_eq!(wanted.labels.len(), 11);
    assert_eq!((wanted.tree_c.size, wanted.tree_c.rows_to_discard), (Some(73), 0));
    assert_eq!((wanted.tree_r_last.size, wanted.tree_r_last.rows_to_discard), (Some(73), 1));
}

#[test]
fn a_layer_file_of_another_length_is_named_with_both_lengths() {
    let vector = Vector::load("2KiB-v1-a");
    let sector = vector.after_pc1();
    let layer = sector.cache.join(layer_file(2));
    let labels = fs::read(&layer).expect("readable");
    let long = [&labels[..], &labels[..32]].concat();
    for held in [&labels[..2016], &labels[..2047], &long[..], &[]] {
        fs::write(&layer, held).expect("writable");
        let error =
            fails_and_changes_nothing(&vector, &sector, &Settings::default(), &QUIET, |error| {
                matches!(error, TreesError::LayerSize { .. })
            });
        let start = format!("layer file {} has {} bytes and 2048", layer.display(), held.len());
        assert!(error.starts_with(&start), "{error}");
    }
    fs::remove_file(&layer).expect("removable");
    let error =
        fails_and_changes_nothing(&vector, &sector, &Settings::default(), &QUIET, |error| {
            matches!(error, TreesError::File(FileError { verb: "open", .. }))
        });
    assert_eq!(error, format!("cannot open {}", layer.display()));
}

#[test]
fn a_layer_file_that_is_cut_while_it_is_read_is_an_error() {
    let vector = Vector::load("shape-4KiB-2layers-a");
    let sector = vector.after_pc1();
    let layer = sector.cache.join(layer_file(1));
    let cut = |_: Part, _, _| {
        OpenOptions::new().write(true).open(&layer).expect("a file").set_len(64).expect("cut");
    };
    let error = run_with(&vector, &sector, &SMALL_BLOCKS, &Watch { progress: &cut, ..QUIET })
        .expect_err("a fault");
    assert_eq!(error.to_string(), format!("cannot read {}", layer.display()));
}

#[test]
fn a_label_that_is_no_element_is_named_with_its_node() {
    let vector = Vector::load("2KiB-v1-a");
    for (layer, node) in [(1, 63), (2, 40)] {
        let sector = vector.after_pc1();
        let path = sector.cache.join(layer_file(layer));
        let file = OpenOptions::new().write(true).open(&path).expect("a file");
        file.write_all_at(&[0xff; 32], node * 32).expect("writable");
        fails_and_changes_nothing(
            &vector,
            &sector,
            &SMALL_BLOCKS,
            &QUIET,
            |error| matches!(error, TreesError::NotCanonical { path: p, node: n } if *p == path && *n == node),
        );
    }
}

#[test]
fn a_layer_that_has_changed_since_pc1_is_named_with_both_digests() {
    for name in ["shape-16KiB-11layers-a", "2KiB-v1-a"] {
        let vector = Vector::load(name);
        let digest = |layer| vector.digest_of(&layer_file(layer)).to_owned();
        let recorded: Vec<_> = (1..=vector.porep.layers).map(digest).collect();
        let last = vector.porep.layers;
        for (layer, byte) in [(1, 0), (last, vector.porep.sector_size.bytes() - 32), (2, 777)] {
            let sector = vector.after_pc1();
            let path = sector.cache.join(layer_file(layer));
            flip_bit(&path, byte);
            let before = content(&sector);
            let error = run_checked(&vector, &sector, &SMALL_BLOCKS, &QUIET, &recorded);
            let error = error.expect_err("a damaged layer").to_string();
            let wanted = &recorded[layer as usize - 1];
            let found = sha256(&fs::read(&path).expect("readable"));
            for word in [&path.display().to_string(), wanted, &found] {
                assert!(error.contains(word), "{error}");
            }
            assert_eq!(content(&sector), before, "{error}");
            flip_bit(&path, byte);
            run_checked(&vector, &sector, &SMALL_BLOCKS, &QUIET, &recorded).expect("a sector");
        }
    }
}

#[test]
fn a_panic_on_the_way_ends_it_and_changes_nothing() {
    let vector = Vector::load("shape-4KiB-2layers-a");
    let sector = vector.after_pc1();
    let before = content(&sector);
    let defect = |part: Part, done, _| assert!(part != Part::Trees || done == 0, "a defect");
    let watch = Watch { progress: &defect, ..QUIET };
    let run = std::panic::AssertUnwindSafe(|| run_with(&vector, &sector, &SMALL_BLOCKS, &watch));
    let panic = std::panic::catch_unwind(run).expect_err("a panic");
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"a defect"));
    assert_eq!(content(&sector), before);
}

#[test]
fn a_tree_d_of_another_sector_is_refused() {
    let vector = Vector::load("2KiB-v1-a");
    let sector = vector.after_pc1();
    let other = Vector::load("2KiB-v1_1-cc").after_pc1();
    let tree_d = sector.cache.join(TREE_D);
    fs::copy(other.cache.join(TREE_D), &tree_d).expect("writable");
    let settings = Settings::default();
    fails_and_changes_nothing(
        &vector,
        &sector,
        &settings,
        &QUIET,
        |error| matches!(error, TreesError::TreeDRoot { path, .. } if *path == tree_d),
    );
    OpenOptions::new().write(true).open(&tree_d).expect("a file").set_len(4000).expect("cut");
    fails_and_changes_nothing(&vector, &sector, &settings, &QUIET, |error| {
        matches!(error, TreesError::TreeDSize { found: 4000, wanted: 4064, .. })
    });
}

#[test]
fn damaged_data_under_a_good_root_is_found() {
    let vector = Vector::load("2KiB-v1-a");
    let sector = vector.after_pc1();
    let tree_d = sector.cache.join(TREE_D);
    flip_bit(&tree_d, 17 * 32);
    fails_and_changes_nothing(
        &vector,
        &sector,
        &Settings::default(),
        &QUIET,
        |error| matches!(error, TreesError::Data { path, .. } if *path == tree_d),
    );
}

#[test]
fn a_damaged_inner_node_of_tree_d_is_found_by_the_self_check() {
    let vector = Vector::load("2KiB-v1-a");
    let sector = vector.after_pc1();
    // The first child of the root: on half of all paths, and beside the others.
    let node = 64 + 32 + 16 + 8 + 4;
    flip_bit(&sector.cache.join(TREE_D), node * 32);
    fails_and_changes_nothing(
        &vector,
        &sector,
        &SMALL_BLOCKS,
        &QUIET,
        |error| matches!(error, TreesError::SelfCheck { path, .. } if path.ends_with(TREE_D)),
    );
}

#[test]
fn a_result_that_is_damaged_before_it_is_published_is_found() {
    let vector = Vector::load("2KiB-v1-a");
    // More samples than nodes, so that nearly all nodes are among them.
    let settings = Settings { self_check_samples: 400, ..SMALL_BLOCKS };
    let (tree_c, tree_r_last) = ("sc-02-data-tree-c.dat", "sc-02-data-tree-r-last.dat");
    // The damaged file and byte, and where the check may find it: which comes first depends on
    // the samples.
    for (part_file, byte, found_at) in [
        ("cache/.sc-02-data-tree-c.dat.part", 5 * 32, vec![(tree_c, 5), (tree_c, 64)]),
        ("cache/.sc-02-data-tree-c.dat.part", 67 * 32, vec![(tree_c, 67), (tree_c, 72)]),
        ("cache/.sc-02-data-tree-r-last.dat.part", 0, vec![(tree_r_last, 0)]),
        (".sealed.part", 33 * 32, vec![("sealed", 33), (tree_r_last, 0)]),
    ] {
        let sector = vector.after_pc1();
        let dir = sector.sealed.parent().expect("a directory");
        let damage = |part, done, total| {
            if (part, done) == (Part::SelfCheck, 0) {
                assert_eq!(total, settings.self_check_samples);
                flip_bit(&dir.join(part_file), byte);
            }
        };
        let watch = Watch { progress: &damage, ..QUIET };
        fails_and_changes_nothing(&vector, &sector, &settings, &watch, |error| {
            matches!(error, TreesError::SelfCheck { path, node, device }
                if device.starts_with("cpu (Poseidon ")
                    && found_at.iter().any(|(name, at)| path.ends_with(name) && node == at))
        });
    }
}

#[test]
fn links_are_followed_and_stay_links() {
    let vector = Vector::load("2KiB-v1_1-cc");
    let sector = vector.after_pc1();
    let dir = sector.sealed.parent().expect("a directory");
    let (shared_tree, real_sealed) = (dir.join("shared-tree-d"), dir.join("real-sealed"));
    let tree_d = sector.cache.join(TREE_D);
    fs::rename(&tree_d, &shared_tree).expect("movable");
    symlink(&shared_tree, &tree_d).expect("linkable");
    fs::rename(&sector.sealed, &real_sealed).expect("movable");
    symlink(&real_sealed, &sector.sealed).expect("linkable");
    fs::set_permissions(&shared_tree, fs::Permissions::from_mode(0o444)).expect("own file");
    fs::set_permissions(&real_sealed, fs::Permissions::from_mode(0o640)).expect("own file");
    let tree_before = fs::metadata(&shared_tree).expect("a file");

    run(&vector, &sector).expect("a sector");
    for link in [&tree_d, &sector.sealed] {
        assert!(fs::symlink_metadata(link).expect("a file").is_symlink());
    }
    let tree_after = fs::metadata(&shared_tree).expect("a file");
    assert_eq!(
        (tree_before.ino(), tree_before.mtime_nsec(), tree_before.len()),
        (tree_after.ino(), tree_after.mtime_nsec(), tree_after.len())
    );
    let replica = fs::read(&real_sealed).expect("readable");
    assert_eq!(sha256(&replica), vector.reference.sealed_sha256);
    let mode = fs::metadata(&real_sealed).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}

#[test]
fn a_missing_sealed_file_is_named() {
    let vector = Vector::load("2KiB-v1-a");
    let sector = vector.after_pc1();
    fs::remove_file(&sector.sealed).expect("removable");
    let error = run(&vector, &sector).expect_err("a fault");
    assert_eq!(error.to_string(), format!("cannot find {}", sector.sealed.display()));
}

#[test]
fn a_sector_on_which_pc2_runs_is_busy() {
    let vector = Vector::load("2KiB-v1-a");
    let sector = vector.after_pc1();
    let second = Mutex::new(None);
    let start_another = |part, _, _| {
        if part == Part::Trees {
            let error = run(&vector, &sector).expect_err("it is being sealed");
            *second.lock().expect("one thread") = Some(error);
        }
    };
    let watch = Watch { progress: &start_another, ..QUIET };
    run_with(&vector, &sector, &Settings::default(), &watch).expect("a sector");
    let error = second.into_inner().expect("one thread").expect("it was started");
    assert!(
        matches!(&error, TreesError::Busy { cache_dir } if *cache_dir == sector.cache),
        "{error}"
    );
    // The lock ends with the run.
    run(&vector, &sector).expect("a sector");
}

#[test]
fn too_little_space_is_found_before_anything_is_written() {
    let porep = "StackedDrg64GiBV1_1".parse::<RegisteredProof>().expect("a proof").porep();
    let needed = porep.sector_size.bytes();
    // Disks may have room for the sector; file systems in memory hardly ever.
    let too_small = [std::env::temp_dir(), "/dev/shm".into()]
        .into_iter()
        .filter(|dir| dir.is_dir())
        .find(|dir| free_bytes(dir).expect("a file system") < needed);
    let Some(dir) = too_small else {
        return skipped("the temporary directory and /dev/shm have room for 64 GiB");
    };
    let dir = tempfile::tempdir_in(dir).expect("a temporary directory");
    let (cache, sealed) = (dir.path().join("cache"), dir.path().join("sealed"));
    let comm_d = sparse_sector(&porep, &cache, &sealed);
    let paths = Pc2Paths { cache_dir: &cache, sealed_file: &sealed };
    let job = Pc2Job { porep: &porep, paths, comm_d, layer_digests: &[] };
    let cpu = Cpu::new(Kernel::detect());
    let error = pre_commit2(&job, &cpu, &Settings::default(), &QUIET).expect_err("no room for it");
    let TreesError::Space(SpaceError::TooLittle { path, needed: found, .. }) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(path, &sealed.canonicalize().expect("a file"));
    // The replica and all of trees C and R last.
    assert_eq!(*found, needed + 16 * (4_908_534_048 + 9_586_976) + (1 << 16));
    let names: Vec<String> = (1..=11).map(layer_file).chain([TREE_D.to_owned()]).collect();
    let mut found = read_dir_names(&cache).expect("readable");
    found.sort_by_key(|name| names.iter().position(|wanted| wanted == name));
    assert_eq!(found, names);
}

/// A sector of holes, but for the root of tree D.
fn sparse_sector(porep: &Porep, cache: &Path, sealed: &Path) -> Commitment {
    fs::create_dir(cache).expect("writable");
    let bytes = porep.sector_size.bytes();
    let hole = |path: &Path, bytes| {
        let file = File::create(path).expect("writable");
        file.set_len(bytes).expect("a file system with holes");
        file
    };
    for layer in 1..=porep.layers {
        hole(&cache.join(layer_file(layer)), bytes);
    }
    hole(sealed, bytes);
    let comm_d = seal_trees::zero_commitment(bytes);
    let tree_d = hole(&cache.join(TREE_D), 2 * bytes - 32);
    tree_d.write_all_at(&comm_d.0, 2 * bytes - 64).expect("writable");
    comm_d
}

#[test]
fn unsupported_layers_are_named() {
    let mut vector = Vector::load("2KiB-v1-a");
    let sector = vector.after_pc1();
    vector.porep.layers = 3;
    fails_and_changes_nothing(&vector, &sector, &Settings::default(), &QUIET, |error| {
        matches!(error, TreesError::Layers { layers: 3 })
    });
}

/// Names the directory in which the inner run of the next test works.
const FULL_DISK: &str = "SEAL_TREES_TEST_FULL_DISK";

#[test]
fn a_disk_that_fills_up_in_the_middle_leaves_a_sector_that_can_be_sealed() {
    let Some(dir) = std::env::var_os(FULL_DISK) else {
        return run_on_small_tmpfs(
            "pc2::a_disk_that_fills_up_in_the_middle_leaves_a_sector_that_can_be_sealed",
        );
    };
    let vector = Vector::load("shape-16KiB-11layers-a");
    let filler = Path::new(&dir).join("filler");
    let left = Path::new(&dir).join("left");
    for (part, room) in [(Part::Trees, false), (Part::Publish, false), (Part::Trees, true)] {
        let sector = vector.after_pc1_in(Path::new(&dir));
        fs::write(&left, vec![0; 1 << 16]).expect("writable");
        let before = content(&sector);
        let fill = |now, done, _| {
            if now == part && (done > 0 || part == Part::Publish) && !filler.exists() {
                let mut file = File::create(&filler).expect("creatable");
                let mut block = 4096;
                while block > 0 {
                    if file.write_all(&vec![1; block]).is_err() {
                        block /= 2;
                    }
                }
                if room {
                    fs::remove_file(&left).expect("removable");
                }
            }
        };
        let watch = Watch { progress: &fill, ..QUIET };
        let result = run_with(&vector, &sector, &SMALL_BLOCKS, &watch);
        assert!(filler.exists());
        fs::remove_file(&filler).expect("removable");
        if room {
            // The space of all large files was taken at the start.
            assert_eq!(result.expect("a sector").comm_r.to_string(), vector.reference.comm_r);
            continue;
        }
        let error = result.expect_err("no space left");
        let TreesError::File(file) = &error else { panic!("{error:?}") };
        assert!(file.is_no_space() && file.verb == "write", "{error:?}");
        assert_eq!(content(&sector), before, "{error}");
        let result = run(&vector, &sector).expect("a sector");
        assert_eq!(result.comm_r.to_string(), vector.reference.comm_r);
    }
}

/// Runs one test of this binary in a mount namespace of its own, where a directory is a file
/// system of 1 MiB.
fn run_on_small_tmpfs(test: &str) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mounted = |command: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
        unshare.arg(format!("mount -t tmpfs -o size=1m none \"$0\" && {command}"));
        unshare.arg(dir.path());
        unshare.env(FULL_DISK, dir.path()).env("TMPDIR", dir.path());
        unshare
    };
    match mounted("true").output() {
        Ok(output) if output.status.success() => {}
        _ => return skipped("no user namespace in which a tmpfs can be mounted"),
    }
    let binary = std::env::current_exe().expect("this test");
    let inner = mounted("exec \"$@\"").arg(binary).args(["--exact", test]).output();
    let inner = inner.expect("it ran before");
    let report = String::from_utf8_lossy(&inner.stdout);
    assert!(inner.status.success() && report.contains("1 passed"), "{report}");
}

/// Says why a test did nothing, past the capture of the test harness.
fn skipped(why: &str) {
    let note = format!("skipped: {why}\n");
    _ = std::io::stderr().write_all(note.as_bytes());
}
