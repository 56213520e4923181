//! Caches that are made, checked, damaged and shared.

use super::*;
use seal_types::RegisteredProof;

const QUIET: Watch<'static> = Watch { progress: &|_, _, _| {}, cancelled: &|| false };

fn graph(name: &str) -> Graph {
    Graph::new(&name.parse::<RegisteredProof>().expect("a registered proof").porep())
}

fn cache_path(graph: &Graph, dir: &Path) -> PathBuf {
    dir.join(graph.cache_name() + ".cache")
}

#[test]
fn one_who_waits_for_a_maker_is_told_how_much_is_there_and_the_maker_of_its_last_steps() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let graph = graph("StackedDrg2KiBV1");
    let maker = fs::File::open(dir.path()).expect("a directory");
    maker.try_lock().expect("free");
    let path = cache_path(&graph, dir.path());
    let part = PartFile::create(&path).expect("writable");
    // Half of it.
    part.file().set_len(cache_bytes(&graph) / 2).expect("writable");
    let told = std::sync::Mutex::new(Vec::new());
    let progress = |part, done, total| {
        let mut told = told.lock().expect("no panic");
        if told.is_empty() {
            // The maker ends without a cache, and leaves what it had.
            maker.unlock().expect("held");
        }
        let part = match part {
            Part::AwaitParents { pid } => {
                // The kernel hides its locks from some.
                assert!([0, std::process::id()].contains(&pid), "{pid}");
                Part::AwaitParents { pid: 0 }
            }
            part => part,
        };
        told.push((part, done * 100 / total));
    };
    let watch = Watch { progress: &progress, ..QUIET };
    ParentsCache::open(&graph, dir.path(), watch).expect("writable");
    drop(part);
    let mut told = told.into_inner().expect("no panic");
    told.dedup();
    let expected = [
        (Part::AwaitParents { pid: 0 }, 50),
        (Part::AwaitParents { pid: 0 }, 100),
        (Part::MakeParents, 100),
        (Part::StoreParents, 0),
        (Part::StoreParents, 100),
    ];
    assert_eq!(told, expected);
}

#[test]
fn published_digests_are_reproduced() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for name in ["StackedDrg2KiBV1", "StackedDrg2KiBV1_1", "StackedDrg8MiBV1", "StackedDrg8MiBV1_1"]
    {
        // `open` fails when the digest is not the published one.
        let graph = graph(name);
        ParentsCache::open(&graph, dir.path(), QUIET).expect(name);
        let stamp = Stamp::read(&cache_path(&graph, dir.path())).expect("stamped");
        let published = parents_cache_digest(&graph.cache_name()).expect("published");
        assert_eq!(stamp.sha256, published.sha256);
    }
}

#[test]
fn published_names_are_those_of_the_graphs_they_are_said_to_be_of() {
    for published in seal_types::published_parents_caches() {
        let (size, api) = (published.sector_size, published.api_version);
        let proof = seal_types::RegisteredProof::find(size, api, seal_types::Feature::Interactive);
        let graph = Graph::new(&proof.expect("registered").porep());
        assert_eq!(graph.cache_name(), published.name, "{size} {api:?}");
    }
}

#[test]
fn a_damaged_cache_is_made_again_whatever_its_length() {
    for name in ["StackedDrg2KiBV1_1", "StackedDrg2KiBV1_1_Feat_SyntheticPoRep"] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let graph = graph(name);
        let path = cache_path(&graph, dir.path());
        ParentsCache::open(&graph, dir.path(), QUIET).expect("writable");
        let good = fs::read(&path).expect("readable");

        let mut flipped = good.clone();
        flipped[37 * ENTRY + 5] ^= 1;
        for bad in [&good[..good.len() - 4], &flipped, &[]] {
            fs::write(&path, bad).expect("writable");
            ParentsCache::open(&graph, dir.path(), QUIET).expect("made again");
            assert_eq!(fs::read(&path).expect("readable"), good, "{name}");
        }
    }
}

#[test]
fn damage_that_leaves_the_stamp_valid_is_found_when_asked_for() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let graph = graph("StackedDrg2KiBV1_1");
    let path = cache_path(&graph, dir.path());
    ParentsCache::open(&graph, dir.path(), QUIET).expect("writable");
    let good = fs::read(&path).expect("readable");
    let file = fs::File::options().write(true).open(&path).expect("writable");
    let modified = file.metadata().and_then(|meta| meta.modified()).expect("readable");
    file.write_all_at(&[good[700] ^ 4], 700).expect("writable");
    file.set_modified(modified).expect("writable");
    // As by a disk that changes what lies on it.
    let stamp = Stamp::read(&path).expect("stamped");
    Stamp::of(&file, &path, stamp.sha256).expect("readable").write_or_warn(&path);

    let trusted = ParentsCache::open(&graph, dir.path(), QUIET).expect("stamped");
    assert_ne!(fs::read(&path).expect("readable"), good);
    let checked = ParentsCache::check(&graph, dir.path(), QUIET).expect("made again");
    assert_eq!(fs::read(&path).expect("readable"), good);
    assert_eq!(trusted.sha256(), checked.sha256());
    assert_eq!(checked.path(), path);
}

#[test]
fn a_change_that_keeps_the_time_of_change_is_found_at_the_next_opening() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let graph = graph("StackedDrg2KiBV1_1");
    let path = cache_path(&graph, dir.path());
    ParentsCache::open(&graph, dir.path(), QUIET).expect("writable");
    let good = fs::read(&path).expect("readable");
    let file = fs::File::options().write(true).open(&path).expect("writable");
    let modified = file.metadata().and_then(|meta| meta.modified()).expect("readable");
    file.write_all_at(&u32::MAX.to_le_bytes(), 700).expect("writable");
    file.set_modified(modified).expect("writable");
    ParentsCache::open(&graph, dir.path(), QUIET).expect("made again");
    assert_eq!(fs::read(&path).expect("readable"), good);
}

#[test]
fn a_stamp_of_an_older_version_is_worth_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let graph = graph("StackedDrg2KiBV1_1");
    let path = cache_path(&graph, dir.path());
    ParentsCache::open(&graph, dir.path(), QUIET).expect("writable");
    let stamp_path = dir.path().join(format!(".{}.cache.seal-exec.json", graph.cache_name()));
    let mut stamp: serde_json::Value =
        serde_json::from_slice(&fs::read(&stamp_path).expect("stamped")).expect("JSON");
    let fields = stamp.as_object_mut().expect("an object");
    fields.remove("changed_s").and(fields.remove("changed_ns")).expect("both are there");
    fs::write(&stamp_path, stamp.to_string()).expect("writable");
    assert_eq!(Stamp::read(&path), None);
    ParentsCache::open(&graph, dir.path(), QUIET).expect("checked again");
    assert!(Stamp::read(&path).is_some());
}

#[test]
fn parents_that_are_not_the_published_ones_get_no_name() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let spoilt = graph("StackedDrg8MiBV1_1").spoilt();
    for error in [
        ParentsCache::open(&spoilt, dir.path(), QUIET).unwrap_err(),
        parents_digest(&spoilt, QUIET).unwrap_err(),
    ] {
        assert!(matches!(error, SdrError::WrongParents { .. }), "{error}");
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
    }
}

#[test]
fn the_digest_alone_is_that_of_the_file() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for name in ["StackedDrg2KiBV1_1", "StackedDrg8MiBV1_2_Feat_NonInteractivePoRep"] {
        let graph = graph(name);
        let cache = ParentsCache::open(&graph, dir.path(), QUIET).expect("writable");
        let file = fs::read(cache.path()).expect("readable");
        assert_eq!(hex::encode(Sha256::digest(file)), cache.sha256(), "{name}");
        for kernel in seal_sha256::ChaCha8::available() {
            let graph = graph.clone().drawing_with(kernel);
            assert_eq!(parents_digest(&graph, QUIET).expect(name), cache.sha256(), "{name}");
        }
    }
}

#[test]
fn a_stamp_is_worth_nothing_for_another_file() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let graph = graph("StackedDrg2KiBV1");
    let path = cache_path(&graph, dir.path());
    ParentsCache::open(&graph, dir.path(), QUIET).expect("writable");
    let first = Stamp::read(&path).expect("stamped");
    let copy = fs::read(&path).expect("readable");
    fs::remove_file(&path).expect("writable");
    fs::write(&path, copy).expect("writable");
    ParentsCache::open(&graph, dir.path(), QUIET).expect("checked again");
    let second = Stamp::read(&path).expect("stamped");
    assert_ne!(first, second);
    assert_eq!(first.sha256, second.sha256);
}

#[test]
fn waits_while_another_process_makes_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let graph = graph("StackedDrg2KiBV1");
    let path = cache_path(&graph, dir.path());
    ParentsCache::open(&graph, dir.path(), QUIET).expect("writable");
    // One that nobody has checked yet.
    Stamp::remove_or_warn(&path);
    let maker = fs::File::open(&path).expect("readable");
    maker.lock().expect("lockable");
    // The lock stays, so only the cancellation can end the wait.
    let asked = std::sync::atomic::AtomicU32::new(0);
    let give_up = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 1;
    let watch = Watch { cancelled: &give_up, ..QUIET };
    let error = ParentsCache::open(&graph, dir.path(), watch).unwrap_err();
    assert!(matches!(error, SdrError::Cancelled), "{error}");
    maker.unlock().expect("unlockable");
    ParentsCache::open(&graph, dir.path(), QUIET).expect("made");
}

#[test]
fn a_cache_that_was_checked_is_used_whoever_has_it_locked() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let graph = graph("StackedDrg2KiBV1");
    let path = cache_path(&graph, dir.path());
    ParentsCache::open(&graph, dir.path(), QUIET).expect("writable");
    let locked = fs::File::open(&path).expect("readable");
    locked.lock().expect("free");
    let watch = Watch { progress: &|part, _, _| panic!("{part}"), ..QUIET };
    ParentsCache::open(&graph, dir.path(), watch).expect("it is good");
}

#[test]
fn who_keeps_a_cache_or_its_directory_locked_and_makes_nothing_is_not_waited_for_without_end() {
    let still = Duration::from_millis(300);
    let graph = graph("StackedDrg2KiBV1");
    for name in [".", &(graph.cache_name() + ".cache")] {
        for is_whole in [true, false] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let path = cache_path(&graph, dir.path());
            if is_whole {
                ParentsCache::open(&graph, dir.path(), QUIET).expect("writable");
                Stamp::remove_or_warn(&path);
            } else if name != "." {
                fs::write(&path, "the beginning of one").expect("writable");
            }
            let locked = fs::File::open(dir.path().join(name)).expect("there");
            locked.lock().expect("free");
            let waits = std::sync::atomic::AtomicU32::new(0);
            let progress = |part, done, total| {
                if matches!(part, Part::AwaitParents { .. }) && done < total {
                    waits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            };
            let watch = Watch { progress: &progress, ..QUIET };
            let opened = ParentsCache::open_or_make(&graph, dir.path(), Check::Once, still, watch);
            let cache = opened.expect("it is made");
            let published = parents_cache_digest(&graph.cache_name()).expect("published");
            assert_eq!(cache.sha256(), published.sha256);
            // A good one needs no lock of the directory.
            let waited = waits.into_inner() > 0;
            assert_eq!(waited, name != "." || !is_whole, "{name} {is_whole}");
        }
    }
}

#[test]
fn a_maker_that_goes_on_is_waited_for_however_long_it_takes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let graph = graph("StackedDrg2KiBV1");
    let maker = fs::File::open(dir.path()).expect("a directory");
    maker.lock().expect("free");
    let part = PartFile::create(&cache_path(&graph, dir.path())).expect("writable");
    let still = Duration::from_millis(700);
    let began = std::time::Instant::now();
    let waits = std::sync::atomic::AtomicU64::new(0);
    let progress = |part_of, done, total| {
        if matches!(part_of, Part::AwaitParents { .. }) && done < total {
            // It writes for longer than it may do nothing, and then it ends.
            let count = waits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            part.file().set_len(count + 1).expect("writable");
            if began.elapsed() > 2 * still {
                let _ = maker.unlock();
            }
        }
        let is_made = matches!(part_of, Part::MakeParents);
        assert!(!is_made || began.elapsed() > 2 * still, "it was still being made");
    };
    let watch = Watch { progress: &progress, ..QUIET };
    ParentsCache::open_or_make(&graph, dir.path(), Check::Once, still, watch).expect("made");
}

#[test]
fn what_is_no_file_under_the_name_of_a_cache_is_told_by_name_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let graph = graph("StackedDrg2KiBV1");
    let path = cache_path(&graph, dir.path());
    fs::create_dir(&path).expect("writable");
    let error = ParentsCache::open(&graph, dir.path(), QUIET).unwrap_err();
    assert!(matches!(error, SdrError::ParentsFile { .. }), "{error}");
    let text = error.to_string();
    for words in [&*path.display().to_string(), "remove it", "FIL_PROOFS_PARENT_CACHE"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // What should be the directory is a file.
    let file = dir.path().join("file");
    fs::write(&file, "").expect("writable");
    let error = ParentsCache::open(&graph, &file, QUIET).unwrap_err();
    assert!(matches!(error, SdrError::ParentsDirectory { .. }), "{error}");
}

#[test]
fn many_who_want_the_same_cache_at_once_all_get_it() {
    let graph = graph("StackedDrg2KiBV1_1");
    for _ in 0..20 {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let gate = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    gate.wait();
                    ParentsCache::open(&graph, dir.path(), QUIET).expect("made once");
                });
            }
        });
        // The cache and its stamp.
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 2);
    }
}

#[test]
fn a_cancelled_making_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let watch = Watch { cancelled: &|| true, ..QUIET };
    let error = ParentsCache::open(&graph("StackedDrg8MiBV1"), dir.path(), watch).unwrap_err();
    assert!(matches!(error, SdrError::Cancelled), "{error}");
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
}
