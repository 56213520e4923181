//! The groups of a process on hierarchies that behave as the kernel's.

use super::super::fake::{Fake, Sweep};
use super::*;
use crate::NodeId;

const TOP: &str = "/cg";

/// A `/proc` in which this process is in the group `own`.
fn proc_root(version: Version, own: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let this = dir.path().join("self");
    std::fs::create_dir_all(this.join("ns")).expect("writable");
    let (mountinfo, cgroup) = match version {
        Version::V1 => {
            ("1 1 0:1 / /cg rw - cgroup cgroup rw,cpuset\n", format!("2:cpuset:{own}\n"))
        }
        Version::V2 => ("1 1 0:1 / /cg rw - cgroup2 cgroup2 rw\n", format!("0::{own}\n")),
    };
    std::fs::write(this.join("mountinfo"), mountinfo).expect("writable");
    std::fs::write(this.join("cgroup"), cgroup).expect("writable");
    std::os::unix::fs::symlink("pid:[77]", this.join("ns/pid")).expect("writable");
    process(dir.path(), nix::unistd::getpid().as_raw(), 500);
    dir
}

/// Adds a process that started then.
fn process(proc_root: &Path, pid: i32, start: u64) {
    let dir = proc_root.join(pid.to_string());
    std::fs::create_dir_all(&dir).expect("writable");
    let zeros = "0 ".repeat(18);
    std::fs::write(dir.join("stat"), format!("{pid} (a) b) S {zeros}{start} 0 0\n"))
        .expect("writable");
}

fn cpus(list: &str) -> CpuSet {
    list.parse().expect("a list")
}

fn wanted(list: &str) -> Wanted {
    Wanted { cpus: Some(cpus(list)), only_node: None }
}

fn open(
    proc_root: &tempfile::TempDir,
    fake: &Arc<Fake>,
    is_root: bool,
) -> Result<CgroupTree, Vec<CgroupError>> {
    CgroupTree::open_on(proc_root.path(), fake.clone(), is_root)
}

/// The errors with their causes.
fn told(errors: &[CgroupError]) -> String {
    let told = errors.iter().map(|error| {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
        format!("{error}{}", cause.unwrap_or_default())
    });
    told.collect::<Vec<_>>().join("; ")
}

/// No machine has processes of such numbers.
const NOBODY: i32 = 5_000_000;

#[test]
fn a_group_has_what_was_asked_for_and_goes_with_what_is_in_it() {
    for version in [Version::V1, Version::V2] {
        let (proc_root, fake) =
            (proc_root(version, "/"), Arc::new(Fake::new(version, Path::new(TOP), "0-7")));
        let tree = open(&proc_root, &fake, true).expect("root may");
        assert_eq!(tree.available_cpus().expect("readable"), cpus("0-7"));
        let group = tree
            .create("gpu/pc2-0.1", &Wanted { cpus: Some(cpus("2-3")), only_node: Some(NodeId(1)) })
            .expect("the machine has them");
        assert!(tree.path().starts_with("/cg/seal-exec"));
        let path = tree.path().join("gpu/pc2-0.1");
        assert_eq!((group.path(), group.effective_cpus()), (&*path, &cpus("2-3")));
        assert_eq!(group.oom_kills(), (version == Version::V2).then_some(1));
        fake.set_procs(&path, &[40, 41]);
        assert!(group.has_processes());
        // One more within it, as a grandchild may have made.
        fake.add(&path.join("inner"), &[42]);
        group.kill();
        assert!(!group.has_processes());
        fake.remove_dir(&path.join("inner")).expect("empty now");
        tree.retire(group);
        assert_eq!(fake.paths().len(), 3, "{:?}", fake.paths());
        tree.close(Duration::ZERO).expect("empty");
        assert_eq!(fake.paths(), [PathBuf::from(TOP)]);
    }
}

#[test]
fn cpus_that_are_not_granted_are_an_error_and_leave_no_group() {
    for (version, message) in [
        (Version::V1, "cannot write \"6-9\" to /cg/seal-exec/"),
        (Version::V2, "asked for cpus 6-9 but the kernel grants 6-7;"),
    ] {
        let (proc_root, fake) =
            (proc_root(version, "/"), Arc::new(Fake::new(version, Path::new(TOP), "0-7")));
        let tree = open(&proc_root, &fake, true).expect("root may");
        let error = tree.create("pc1-0.1", &wanted("6-9")).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        // In version 2 a group that asks for nothing it can have gets all of its parent.
        assert!(tree.create("pc1-0.1", &wanted("9")).is_err());
        assert_eq!(fake.groups_in(tree.path()).expect("there"), [""; 0]);
    }
}

#[test]
fn memory_of_a_node_that_is_not_there_is_an_error() {
    for version in [Version::V1, Version::V2] {
        let (proc_root, fake) =
            (proc_root(version, "/"), Arc::new(Fake::new(version, Path::new(TOP), "0-7")));
        let tree = open(&proc_root, &fake, true).expect("root may");
        let wanted = Wanted { cpus: None, only_node: Some(NodeId(5)) };
        assert!(tree.create("pc1-0.1", &wanted).is_err());
        let any = tree.create("pc1-0.2", &Wanted::default()).expect("asks for nothing");
        assert_eq!(*any.effective_cpus(), cpus("0-7"));
    }
}

#[test]
fn a_service_with_processes_leaves_only_the_top_and_that_to_root() {
    let service = Path::new("/cg/a.service");
    let proc_root = proc_root(Version::V2, "/a.service");
    let fake = Arc::new(Fake::new(Version::V2, Path::new(TOP), "0-7"));
    fake.write(&Path::new(TOP).join("cgroup.subtree_control"), "+cpuset").expect("the top can");
    fake.add(service, &[9]);
    let errors = told(&open(&proc_root, &fake, false).unwrap_err());
    assert!(errors.contains("\"+cpuset\" to /cg/a.service/cgroup.subtree_control"), "{errors}");
    assert!(!errors.contains("/cg/seal-exec"), "{errors}");
    let tree = open(&proc_root, &fake, true).expect("root may");
    assert_eq!(tree.path().parent(), Some(Path::new("/cg/seal-exec")));
}

#[test]
fn a_delegated_unit_with_a_subgroup_serves_its_user() {
    let unit = Path::new("/cg/system.slice/worker.service");
    let proc_root = proc_root(Version::V2, "/system.slice/worker.service/main");
    let fake = Fake::new(Version::V2, Path::new(TOP), "0-7").read_only(Path::new(TOP));
    let fake = Arc::new(fake.read_only(Path::new("/cg/system.slice")));
    // What systemd has prepared before it gave the unit away.
    let open_fake = Fake::new(Version::V2, Path::new(TOP), "0-7");
    for group in [Path::new(TOP), Path::new("/cg/system.slice")] {
        if group != Path::new(TOP) {
            open_fake.add(group, &[]);
        }
        open_fake.write(&group.join("cgroup.subtree_control"), "+cpuset").expect("systemd may");
    }
    open_fake.add(unit, &[]);
    open_fake.add(&unit.join("main"), &[9]);
    fake.adopt(&open_fake);
    let tree = open(&proc_root, &fake, false).expect("it is delegated");
    assert_eq!(tree.path().parent(), Some(&*unit.join("seal-exec")));
    tree.create("c2-0.1", &wanted("4-5")).expect("the machine has them");
}

#[test]
fn without_rights_or_cpusets_every_place_is_told() {
    let proc_root = proc_root(Version::V2, "/");
    let fake = Fake::new(Version::V2, Path::new(TOP), "0-7").read_only(Path::new(TOP));
    let errors = told(&open(&proc_root, &Arc::new(fake), false).unwrap_err());
    assert!(errors.contains("Permission denied"), "{errors}");
    let empty = tempfile::tempdir().expect("a temporary directory");
    let fake = Arc::new(Fake::new(Version::V2, Path::new(TOP), "0-7"));
    assert!(told(&open(&empty, &fake, true).unwrap_err()).contains("self/mountinfo"));
    std::fs::write(proc_root.path().join("self/mountinfo"), "").expect("writable");
    let errors = told(&open(&proc_root, &fake, true).unwrap_err());
    assert_eq!(errors, "no cgroup hierarchy with cpusets is mounted");
}

/// A group as a process makes it, with one for a child in which `procs` are.
fn group_of(fake: &Fake, name: &str, procs: &[i32]) -> PathBuf {
    let group = Path::new("/cg/seal-exec").join(name);
    fake.add(&group, &[]);
    fake.add(&group.join("pc1-0.1"), procs);
    group
}

#[test]
fn groups_whose_lock_nobody_holds_are_swept_and_no_others() {
    for version in [Version::V1, Version::V2] {
        let (proc_root, fake) =
            (proc_root(version, "/"), Arc::new(Fake::new(version, Path::new(TOP), "0-7")));
        let tree = open(&proc_root, &fake, true).expect("root may");
        // Processes of this number are there or not: it says nothing, in whatever namespace.
        process(proc_root.path(), 31, 100);
        let dead = group_of(&fake, "s31-0123456789abcdef", &[301]);
        let alive = group_of(&fake, "s32-0123456789abcdef", &[302]);
        let by_hand = group_of(&fake, "by-hand", &[303]);
        let held = fake.claim(&alive).expect("there").expect("free");
        let swept = tree.sweep();
        assert_eq!((swept.removed, swept.killed), (vec![dead.clone()], vec![301]), "{version}");
        assert!(swept.errors.is_empty() && swept.unknown.is_empty());
        for group in [&alive, &by_hand, &tree.path().to_path_buf()] {
            assert!(fake.paths().contains(group), "{}", group.display());
        }
        // Whoever dies releases its lock.
        drop(held);
        let begin = Instant::now();
        while fake.paths().contains(&alive) {
            assert!(begin.elapsed().as_secs() < 60);
            tree.sweep();
        }
        assert!(fake.paths().contains(&by_hand));
    }
}

#[test]
fn a_new_group_that_one_who_sweeps_finds_before_it_is_locked_is_made_again() {
    // The last one is the first that happens.
    for sweeps in [[Sweep::Removed; 3].to_vec(), [Sweep::Holds; 60].to_vec(), {
        [[Sweep::Removed].as_slice(), &[Sweep::Holds; 30], &[Sweep::Removed]].concat()
    }] {
        let fake = Fake::new(Version::V2, Path::new(TOP), "0-7").swept(&sweeps);
        let (proc_root, fake) = (proc_root(Version::V2, "/"), Arc::new(fake));
        let tree =
            open(&proc_root, &fake, true).unwrap_or_else(|errors| panic!("{}", told(&errors)));
        assert!(fake.paths().contains(&tree.path().to_path_buf()), "{sweeps:?}");
        let other = open(&proc_root, &fake, true).expect("root may");
        assert_eq!(other.sweep().removed, Vec::<PathBuf>::new(), "it has its lock: {sweeps:?}");
        assert!(fake.paths().contains(&tree.path().to_path_buf()));
    }
}

#[test]
fn a_group_whose_lock_cannot_be_asked_for_is_left_and_told() {
    for code in [libc::EMFILE, libc::EACCES, libc::EIO, libc::ENOLCK, libc::EINVAL] {
        let (proc_root, fake) =
            (proc_root(Version::V2, "/"), Fake::new(Version::V2, Path::new(TOP), "0-7"));
        let fine = Arc::new(fake);
        let tree = open(&proc_root, &fine, true).expect("root may");
        let group = group_of(&fine, "s31-0123456789abcdef", &[301]);
        let broken = Fake::new(Version::V2, Path::new(TOP), "0-7").without_locks(code);
        broken.adopt(&fine);
        let broken = Arc::new(broken);
        let tree = CgroupTree { files: broken.clone(), ..tree };
        let swept = tree.sweep();
        assert!(swept.killed.is_empty() && swept.removed.is_empty(), "{swept:?}");
        assert!(
            swept
                .unknown
                .iter()
                .any(|(path, error)| { *path == group && error.raw_os_error() == Some(code) })
        );
        assert!(broken.paths().contains(&group));
    }
}

#[test]
fn a_kernel_without_locks_has_groups_that_nobody_sweeps() {
    let proc_root = proc_root(Version::V2, "/");
    let fake = Fake::new(Version::V2, Path::new(TOP), "0-7").without_locks(libc::ENOLCK);
    let fake = Arc::new(fake);
    let one = open(&proc_root, &fake, true).expect("groups are had all the same");
    let other = open(&proc_root, &fake, true).expect("groups are had all the same");
    assert!(other.sweep().removed.is_empty() && fake.paths().contains(&one.path().to_path_buf()));
}

#[test]
fn groups_of_an_earlier_version_are_swept_only_if_their_process_has_certainly_ended() {
    for version in [Version::V1, Version::V2] {
        let (proc_root, fake) =
            (proc_root(version, "/"), Arc::new(Fake::new(version, Path::new(TOP), "0-7")));
        let tree = open(&proc_root, &fake, true).expect("root may");
        process(proc_root.path(), 31, 100);
        let gone = group_of(&fake, &format!("77-{NOBODY}-100"), &[301]);
        for (name, procs) in [
            ("77-31-100", [311]), // alive
            ("77-31-99", [312]),  // another start, and its time namespace is not told
            ("78-30-100", [313]), // of another container
        ] {
            group_of(&fake, name, &procs);
        }
        let swept = tree.sweep();
        assert_eq!((swept.removed, swept.killed), (vec![gone], vec![301]));
        assert_eq!(fake.groups_in(Path::new("/cg/seal-exec")).expect("there").len(), 4);
        // They take nothing of ours for theirs: a name of three numbers.
        let own = tree.path().file_name().and_then(|name| name.to_str()).expect("a name");
        assert_eq!(EarlierOwner::parse(own, '-'), None);
    }
}

#[test]
fn a_group_that_somebody_has_removed_is_made_again_and_is_ours_as_before() {
    for version in [Version::V1, Version::V2] {
        let (proc_root, fake) =
            (proc_root(version, "/"), Arc::new(Fake::new(version, Path::new(TOP), "0-7")));
        let tree = open(&proc_root, &fake, true).expect("root may");
        let other = open(&proc_root, &fake, true).expect("root may");
        other.close(Duration::ZERO).expect("empty");
        // The family goes too, as the last supervisor's end takes it.
        for group in [tree.path(), Path::new("/cg/seal-exec")] {
            fake.remove_dir(group).expect("empty");
        }
        let other = open(&proc_root, &fake, true).expect("root may");
        for name in ["pc1-0.1", "gpu/pc2-0.1"] {
            let made = tree.create(name, &wanted("0-1")).expect("made again");
            assert_eq!(made.path(), tree.path().join(name));
            assert!(other.sweep().removed.is_empty(), "its lock is held again");
        }
    }
}

#[test]
fn a_sweep_takes_no_longer_for_many_groups_that_stay() {
    let (proc_root, fake) =
        (proc_root(Version::V2, "/"), Arc::new(Fake::new(Version::V2, Path::new(TOP), "0-7")));
    let tree = open(&proc_root, &fake, true).expect("root may");
    let family = Path::new("/cg/seal-exec");
    for pid in 30..38 {
        let group = family.join(format!("s{pid}-0123456789abcdef"));
        fake.add(&group, &[pid * 10, pid * 10 + 1]);
        // Every other one stays.
        if pid % 2 == 0 {
            fake.set_undead(&group, pid * 10);
        }
    }
    let began = Instant::now();
    let swept = tree.sweep();
    let took = began.elapsed();
    assert!(took < SWEEP_PATIENCE * 2, "{took:?}");
    assert_eq!((swept.errors.len(), swept.removed.len()), (4, 4), "{swept:?}");
    assert!(swept.killed.len() >= 16, "all were killed: {swept:?}");
}

#[test]
fn what_does_not_die_is_told_and_its_group_is_left() {
    let (proc_root, fake) =
        (proc_root(Version::V2, "/"), Arc::new(Fake::new(Version::V2, Path::new(TOP), "0-7")));
    let tree = open(&proc_root, &fake, true).expect("root may");
    let group = tree.create("pc1-0.1", &wanted("0-1")).expect("there");
    let path = group.path().to_path_buf();
    fake.set_procs(&path, &[50, 51]);
    fake.set_undead(&path, 51);
    tree.retire(group);
    assert_eq!(tree.collect(), 1);
    let again = tree.create("pc1-0.2", &wanted("0-1")).expect("under another name");
    tree.retire(again);
    let error = told(&[tree.close(Duration::from_millis(20)).unwrap_err()]);
    assert!(error.starts_with("cannot remove the cgroup /cg/seal-exec/"), "{error}");
    assert!(error.contains("busy"), "{error}");
}
