//! PC2 on disks that have too little room, or fill up on the way.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use seal_host::{SpaceError, free_bytes, read_dir_names};
use seal_poseidon::Kernel;
use seal_trees::{Cpu, NoRecord, Part, Pc2Job, Pc2Paths, Settings, TreesError, Watch, pre_commit2};
use seal_types::{Commitment, Porep, RegisteredProof, TREE_D, layer_file};
use test_support::skip::skipped;

use crate::run::{QUIET, SMALL_BLOCKS, content, flip_bit, run, run_checked, run_with};
use crate::support::Vector;

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
        let why = "the temporary directory and /dev/shm have room for 64 GiB";
        return skipped("too little space", why);
    };
    let dir = tempfile::tempdir_in(dir).expect("a temporary directory");
    let (cache, sealed) = (dir.path().join("cache"), dir.path().join("sealed"));
    let comm_d = sparse_sector(&porep, &cache, &sealed);
    // What there is of a former PC2 is too little to make room.
    let former = ["p_aux", "sc-02-data-tree-c-3.dat", "t_aux"];
    for name in former {
        fs::write(cache.join(name), "a result").expect("writable");
    }
    let paths = Pc2Paths { cache_dir: &cache, sealed_file: &sealed };
    let job = Pc2Job { porep: &porep, paths, comm_d, layer_digests: &NoRecord };
    let cpu = Cpu::new(Kernel::detect());
    let error = pre_commit2(&job, &cpu, &Settings::default(), &QUIET).expect_err("no room for it");
    let TreesError::Space(SpaceError::TooLittle { path, needed: found, .. }) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(path, &sealed.canonicalize().expect("a file"));
    // The replica and all of trees C and R last.
    assert_eq!(*found, needed + 16 * (4_908_534_048 + 9_586_976) + (1 << 16));
    let inputs = (1..=11).map(layer_file).chain([TREE_D.to_owned()]);
    let names: Vec<String> = inputs.chain(former.map(str::to_owned)).collect();
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

/// Names the directory in which the inner run of the next test works.
const FULL_DISK: &str = "SEAL_TREES_TEST_FULL_DISK";

#[test]
fn a_disk_that_fills_up_in_the_middle_leaves_a_sector_that_can_be_sealed() {
    let Some(dir) = std::env::var_os(FULL_DISK) else {
        return run_on_small_tmpfs(
            "space::a_disk_that_fills_up_in_the_middle_leaves_a_sector_that_can_be_sealed",
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

#[test]
fn former_results_make_room_only_when_they_can_be_made_again() {
    let Some(dir) = std::env::var_os(FULL_DISK) else {
        return run_on_small_tmpfs(
            "space::former_results_make_room_only_when_they_can_be_made_again",
        );
    };
    let vector = Vector::load("shape-16KiB-11layers-a");
    let recorded: Vec<_> =
        (1..=11).map(|layer| vector.digest_of(&layer_file(layer)).to_owned()).collect();
    let sector = vector.after_pc1_in(Path::new(&dir));
    run(&vector, &sector).expect("a sector");
    let finished = content(&sector);
    // All but what is needed beside the results that are there: 16 KiB less.
    let needed = 16384 + 8 * 32 * (73 + 9) + (1 << 16);
    let free = || free_bytes(Path::new(&dir)).expect("a file system");
    let filler = vec![1; usize::try_from(free() - needed + 16384).expect("of a small disk")];
    fs::write(Path::new(&dir).join("filler"), filler).expect("there is room");
    assert!(free() < needed);
    let run = |digests: &[String]| run_checked(&vector, &sector, &SMALL_BLOCKS, &QUIET, digests);

    let error = run(&[]).expect_err("nobody knows whether the layers are good");
    assert!(matches!(error, TreesError::Space(SpaceError::TooLittle { .. })), "{error}");
    assert_eq!(content(&sector), finished);

    let layer = sector.cache.join(layer_file(7));
    flip_bit(&layer, 1000);
    let error = run(&recorded).expect_err("a damaged layer");
    assert!(matches!(&error, TreesError::LayerDigest { path, .. } if *path == layer), "{error}");
    flip_bit(&layer, 1000);
    assert_eq!(content(&sector), finished);

    let tree_d = sector.cache.join(TREE_D);
    flip_bit(&tree_d, 100);
    let error = run(&recorded).expect_err("damaged data");
    assert!(matches!(&error, TreesError::Data { path, .. } if *path == tree_d), "{error}");
    flip_bit(&tree_d, 100);
    assert_eq!(content(&sector), finished);

    run(&recorded).expect("the former results make room");
    assert_eq!(content(&sector), finished);
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
        _ => return skipped(test, "no user namespace in which a tmpfs can be mounted"),
    }
    let binary = std::env::current_exe().expect("this test");
    let inner = mounted("exec \"$@\"").arg(binary).args(["--exact", test]).output();
    let inner = inner.expect("it ran before");
    let report = String::from_utf8_lossy(&inner.stdout);
    assert!(inner.status.success() && report.contains("1 passed"), "{report}");
}
