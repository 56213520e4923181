//! The groups of a process on hierarchies that behave as the kernel's.

use super::super::fake::Fake;
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

fn own_name() -> String {
    format!("77-{}-500", nix::unistd::getpid())
}

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
        let path = PathBuf::from(format!("/cg/seal-exec/{}/gpu/pc2-0.1", own_name()));
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
    assert_eq!(tree.path(), Path::new("/cg/seal-exec").join(own_name()));
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
    assert_eq!(tree.path(), unit.join("seal-exec").join(own_name()));
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

#[test]
fn groups_of_dead_processes_are_swept_and_no_others() {
    for version in [Version::V1, Version::V2] {
        let (proc_root, fake) =
            (proc_root(version, "/"), Arc::new(Fake::new(version, Path::new(TOP), "0-7")));
        let tree = open(&proc_root, &fake, true).expect("root may");
        let family = Path::new("/cg/seal-exec");
        process(proc_root.path(), 31, 100);
        for (name, procs) in [
            ("77-30-100", &[301][..]), // dead
            ("77-31-100", &[311]),     // alive
            ("77-31-99", &[312]),      // its pid is another's now
            ("78-30-100", &[313]),     // of another container
            ("by-hand", &[314]),
        ] {
            fake.add(&family.join(name), &[]);
            fake.add(&family.join(name).join("pc1-0.1"), procs);
        }
        let mut swept = tree.sweep();
        swept.removed.sort();
        swept.killed.sort_unstable();
        assert_eq!(swept.removed, ["77-30-100", "77-31-99"].map(|name| family.join(name)));
        assert_eq!(swept.killed, [301, 312]);
        assert!(swept.errors.is_empty(), "{:?}", swept.errors);
        let mut left = fake.groups_in(family).expect("there");
        left.sort();
        let mut wanted = vec!["77-31-100".to_owned(), "78-30-100".to_owned(), "by-hand".to_owned()];
        wanted.push(own_name());
        wanted.sort();
        assert_eq!(left, wanted);
    }
}

#[test]
fn a_sweep_takes_no_longer_for_many_groups_that_stay() {
    let (proc_root, fake) =
        (proc_root(Version::V2, "/"), Arc::new(Fake::new(Version::V2, Path::new(TOP), "0-7")));
    let tree = open(&proc_root, &fake, true).expect("root may");
    let family = Path::new("/cg/seal-exec");
    for pid in 30..38 {
        let group = family.join(format!("77-{pid}-100"));
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

#[test]
fn names_of_groups_are_those_of_processes() {
    let owner = Owner { namespace: 1, pid: 2, start: 3 };
    assert_eq!(Owner::parse(&owner.to_string()), Some(owner));
    for name in ["", "1-2", "1-2-3-4", "a-b-c", "1-2-"] {
        assert_eq!(Owner::parse(name), None, "{name}");
    }
    let this = Owner::this(Path::new("/proc")).expect("this process is there");
    assert!(this.is_alive(Path::new("/proc")));
    assert!(!Owner { start: this.start + 1, ..this }.is_alive(Path::new("/proc")));
}
