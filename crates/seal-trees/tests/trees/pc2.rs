//! PC2 over sectors in every state that other software, interruptions and damage leave behind.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use seal_host::{part_target, read_dir_names};
use seal_trees::{Part, Pc2Result, SealedState, Settings, TemporaryAux, TreesError, Watch};
use seal_types::{TREE_D, layer_file};

use crate::run::{
    Finished, QUIET, SMALL_BLOCKS, content, fails_and_changes_nothing, fails_once, flip_bit, run,
    run_checked, run_with,
};
use crate::support::{Vector, sha256};

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
    for finished in [false, true] {
        let planted = finished.then(|| Finished::plant(&vector, &sector));
        for last in 0..steps {
            let asked = AtomicU64::new(0);
            let cancelled = || asked.fetch_add(1, Ordering::Relaxed) == last;
            let watch = Watch { cancelled: &cancelled, ..QUIET };
            fails_once(&vector, &sector, &SMALL_BLOCKS, &watch, &|error| {
                matches!(error, TreesError::Cancelled)
            });
        }
        if let Some(planted) = planted {
            planted.remove(&sector);
        }
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
        for part in [format!(".{name}.part"), format!(".{name}.0123456789abcdef.part")] {
            fs::write(sector.cache.join(part), "half").expect("writable");
        }
    }
    for stale in [".sealed.part", ".sealed.0123456789abcdef.part"] {
        fs::write(sector.sealed.with_file_name(stale), "half a replica").expect("writable");
    }
    // Of another shape, as nothing in this one replaces.
    for name in ["sc-02-data-tree-c.dat", "sc-02-data-tree-r-last-15.dat"] {
        fs::write(sector.cache.join(name), "of another sector").expect("writable");
    }
    run(&vector, &sector).expect("a sector");
    assert_eq!(content(&sector), files);
}

#[test]
fn a_finished_sector_is_finished_all_the_time_that_pc2_runs_again() {
    let vector = Vector::load("shape-4KiB-2layers-a");
    let sector = vector.after_pc1();
    run(&vector, &sector).expect("a sector");
    let finished = content(&sector);
    let look = |part: Part, _, _| {
        let mut now = content(&sector);
        now.retain(|name, _| !name.contains(".part"));
        assert!(now == finished, "{part}");
    };
    run_with(&vector, &sector, &SMALL_BLOCKS, &Watch { progress: &look, ..QUIET })
        .expect("a sector");
    assert_eq!(content(&sector), finished);
}

#[test]
fn settings_change_no_byte() {
    for name in ["shape-16KiB-11layers-v1-b", "2KiB-v1-a"] {
        let vector = Vector::load(name);
        let sector = vector.after_pc1();
        run(&vector, &sector).expect("a sector");
        let files = content(&sector);
        for memory_bytes in [0, 8192, 65536] {
            let settings = Settings { memory_bytes, self_check_samples: 0, ..Settings::default() };
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
            matches!(error, TreesError::LayerMissing { .. })
        });
    assert_eq!(error, format!("layer file {} is not there: run PC1 again", layer.display()));
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
            // Also where a former PC2 has finished: with a damaged layer its results are all that
            // there is.
            if byte != 0 {
                Finished::plant(&vector, &sector);
            }
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
    for (file, byte, found_at) in [
        ("cache/sc-02-data-tree-c.dat", 5 * 32, vec![(tree_c, 5), (tree_c, 64)]),
        ("cache/sc-02-data-tree-c.dat", 67 * 32, vec![(tree_c, 67), (tree_c, 72)]),
        ("cache/sc-02-data-tree-r-last.dat", 0, vec![(tree_r_last, 0)]),
        ("sealed", 33 * 32, vec![("sealed", 33), (tree_r_last, 0)]),
    ] {
        let sector = vector.after_pc1();
        let dir = sector.sealed.parent().expect("a directory");
        let damage = |part, done, total| {
            if (part, done) == (Part::SelfCheck, 0) {
                assert_eq!(total, settings.self_check_samples);
                flip_bit(&part_of(&dir.join(file)), byte);
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

/// The part under which the file at `path` is being written.
fn part_of(path: &Path) -> PathBuf {
    let (dir, name) = (path.parent().expect("a directory"), path.file_name().expect("a name"));
    let parts = read_dir_names(dir).expect("readable").into_iter();
    let mut parts = parts.filter(|part| part_target(part.as_ref()) == Some(name));
    let part = parts.next().expect("it is being written");
    assert_eq!(parts.next(), None, "two parts of one file");
    dir.join(part)
}

#[test]
fn a_sealed_file_that_is_another_file_of_the_sector_is_refused_and_nothing_changes() {
    let vector = Vector::load("2KiB-v1-a");
    for name in [TREE_D, &layer_file(1), &layer_file(2), "sc-02-data-tree-c.dat", "p_aux"] {
        let sector = vector.after_pc1();
        let file = sector.cache.join(name);
        if !file.exists() {
            fs::write(&file, "of a former run").expect("writable");
        }
        for hard in [true, false] {
            fs::remove_file(&sector.sealed).expect("ours");
            if hard {
                fs::hard_link(&file, &sector.sealed).expect("one file system");
            } else {
                symlink(&file, &sector.sealed).expect("linkable");
            }
            let before = content(&sector);
            let error = run(&vector, &sector).expect_err("the same file");
            assert!(matches!(error, TreesError::SameFile(_)), "{error}");
            let (error, sealed) = (error.to_string(), sector.sealed.display().to_string());
            assert!(error.contains(&sealed) && error.contains(name), "{error}");
            assert_eq!(content(&sector), before);
        }
    }
}

#[test]
fn a_part_that_was_replaced_while_it_was_written_is_not_published() {
    let vector = Vector::load("2KiB-v1-a");
    for name in ["cache/sc-02-data-tree-c.dat", "cache/sc-02-data-tree-r-last.dat", "sealed"] {
        let sector = vector.after_pc1();
        let before = content(&sector);
        let dir = sector.sealed.parent().expect("a directory");
        let swap = |part, done, _| {
            if (part, done) == (Part::Publish, 0) {
                let path = part_of(&dir.join(name));
                let bytes = fs::read(&path).expect("readable");
                fs::remove_file(&path).expect("ours");
                fs::write(&path, vec![7; bytes.len()]).expect("writable");
            }
        };
        let watch = Watch { progress: &swap, ..QUIET };
        let error = run_with(&vector, &sector, &SMALL_BLOCKS, &watch).expect_err("another file");
        let TreesError::File(error) = error else { panic!("{error}") };
        assert!(error.source.to_string().contains("another process is at work"), "{error:?}");
        // It ended before p_aux; no file has bytes that nobody computed.
        let mut after = content(&sector);
        assert!(!after.contains_key("p_aux"));
        after.retain(|file, _| !file.contains(".part") && before.contains_key(file));
        let sealed = after.remove("../sealed").expect("there");
        assert!(sealed != [7; 2048], "{name} was published");
        let trees = ["sc-02-data-tree-c.dat", "sc-02-data-tree-r-last.dat"];
        for tree in trees.map(|tree| sector.cache.join(tree)).iter().filter(|tree| tree.exists()) {
            assert!(fs::read(tree).expect("readable").iter().any(|byte| *byte != 7), "{name}");
        }
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
fn a_tree_d_that_is_not_there_is_named() {
    let vector = Vector::load("2KiB-v1-a");
    let sector = vector.after_pc1();
    let tree_d = sector.cache.join(TREE_D);
    fs::remove_file(&tree_d).expect("removable");
    let missing =
        |error: &TreesError| matches!(error, TreesError::TreeDMissing { path } if *path == tree_d);
    fails_and_changes_nothing(&vector, &sector, &Settings::default(), &QUIET, missing);
    symlink(sector.cache.join("nothing"), &tree_d).expect("linkable");
    let error = run(&vector, &sector).expect_err("a link to nothing");
    assert!(missing(&error), "{error}");
}

#[test]
fn a_sealed_file_that_is_a_directory_is_found_before_anything_is_made() {
    let vector = Vector::load("2KiB-v1-a");
    let sector = vector.after_pc1();
    fs::remove_file(&sector.sealed).expect("removable");
    fs::create_dir(&sector.sealed).expect("writable");
    let never = |part: Part, _, _| panic!("{part} was begun");
    let error = run_with(&vector, &sector, &SMALL_BLOCKS, &Watch { progress: &never, ..QUIET })
        .expect_err("a directory");
    assert!(matches!(&error, TreesError::SealedNoFile { path } if path.ends_with("sealed")));
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

/// Another process that has the sector until its input ends.
fn holder(sector: &Path) -> Child {
    let mut holder = Command::new("flock")
        .arg(sector)
        .args(["-c", "echo; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut line = String::new();
    let output = holder.stdout.as_mut().expect("piped");
    BufReader::new(output).read_line(&mut line).expect("it has the lock");
    holder
}

#[test]
fn a_sector_that_an_ending_process_has_is_waited_for() {
    let vector = Vector::load("2KiB-v1-a");
    let sector = vector.after_pc1();
    let mut other = holder(&sector.cache);
    let (pid, input) = (other.id(), Mutex::new(other.stdin.take()));
    let told = |part, _, _| {
        if let Part::Waiting { pid: waited_for } = part {
            // The kernel may not tell who it is.
            assert!([0, pid].contains(&waited_for), "{part}");
            drop(input.lock().expect("one thread").take());
        }
    };
    let watch = Watch { progress: &told, ..QUIET };
    run_with(&vector, &sector, &Settings::default(), &watch).expect("a sector");
    assert!(input.into_inner().expect("one thread").is_none(), "it was waited for");
    assert!(other.wait().expect("ours").success());
}

#[test]
fn a_sector_is_waited_for_as_long_as_the_settings_say() {
    let vector = Vector::load("2KiB-v1-a");
    let sector = vector.after_pc1();
    let mut other = holder(&sector.cache);
    let longest = Duration::from_secs(1);
    let told = |part, _, total| {
        if let Part::Waiting { .. } = part {
            assert_eq!(total, 1);
        }
    };
    let watch = Watch { progress: &told, ..QUIET };
    let settings = Settings { lock_wait: longest, ..Settings::default() };
    let began = std::time::Instant::now();
    let error = run_with(&vector, &sector, &settings, &watch).expect_err("it is in use");
    assert!(matches!(error, TreesError::Busy { .. }), "{error}");
    assert!(began.elapsed() >= longest);
    drop(other.stdin.take());
    assert!(other.wait().expect("ours").success());
}

#[test]
fn a_wait_for_a_sector_ends_when_it_is_not_wanted_any_more() {
    let vector = Vector::load("2KiB-v1-a");
    let sector = vector.after_pc1();
    let mut other = holder(&sector.cache);
    let watch = Watch { cancelled: &|| true, ..QUIET };
    let error = run_with(&vector, &sector, &Settings::default(), &watch).expect_err("cancelled");
    assert!(matches!(error, TreesError::Cancelled), "{error}");
    drop(other.stdin.take());
    assert!(other.wait().expect("ours").success());
}

#[test]
fn unsupported_layers_are_named() {
    let mut vector = Vector::load("2KiB-v1-a");
    let sector = vector.after_pc1();
    vector.porep.layers = 3;
    fails_once(&vector, &sector, &Settings::default(), &QUIET, &|error| {
        matches!(error, TreesError::Layers { layers: 3 })
    });
}
