//! Several supervisors in one process: the kernel tells their open file descriptions apart.

use seal_limits::Order;

use super::*;

/// A supervisor with one executor.
struct Party {
    limits: SharedLimits,
    slots: ExecutorSlots,
    needs: Needs,
}

#[test]
fn the_time_of_the_machine_is_that_of_no_time_namespace() {
    let offsets = "monotonic           0         0\nboottime         3600         0\n";
    assert_eq!(boot_time_offset(offsets), 3600);
    assert_eq!(boot_time_offset("1 5 0\n7 -60 0\n"), -60);
    assert_eq!(boot_time_offset(""), 0);
}

fn lock(name: &str) -> Resource {
    Resource::Lock(name.to_owned())
}

fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("tests count from 1")
}

fn terms(stage: &str, counts: &[(&str, u32)], spacing: Duration) -> Terms {
    let counts = counts.iter().map(|(name, most)| (lock(name), count(*most))).collect();
    Terms { stage: stage.to_owned(), counts, orders: BTreeMap::new(), spacing }
}

fn join(dir: &tempfile::TempDir, stage: &str, counts: &[(&str, u32)]) -> Party {
    join_spaced(dir, stage, counts, Duration::ZERO)
}

fn join_spaced(
    dir: &tempfile::TempDir,
    stage: &str,
    counts: &[(&str, u32)],
    spacing: Duration,
) -> Party {
    let limits = SharedLimits::join(dir.path(), terms(stage, counts, spacing), None);
    let limits = limits.expect("they agree");
    let needs: Needs = counts.iter().map(|(name, _)| lock(name)).collect();
    let slots = limits.open_for(&needs).expect("can be opened");
    Party { limits, slots, needs }
}

impl Party {
    /// Wants to start so many tasks; what those hold that start.
    fn ask(&mut self, wanted: usize) -> Vec<Held> {
        let mut got = Vec::new();
        let Self { limits, slots, needs } = self;
        let stage = limits.terms.stage.clone();
        limits.round(|round| {
            loop {
                round.want(wanted - got.len(), std::slice::from_ref(needs));
                let Some(grant) = round.next() else { return };
                let holder = Holder {
                    stage: stage.clone(),
                    req: 7,
                    sector: Some("s-1".to_owned()),
                    supervisor: std::process::id(),
                    executor: 4242,
                    since: machine_time(),
                };
                got.extend(round.take(&grant, grant.choices[0], slots, &holder));
            }
        });
        assert!(limits.trouble.is_none(), "{:?}", limits.trouble);
        got
    }
}

fn scene() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[test]
fn a_count_holds_across_supervisors() {
    let dir = scene();
    let mut one = join(&dir, "pc2", &[("gpu", 2)]);
    let mut other = join(&dir, "c2", &[("gpu", 2)]);
    let mut first = one.ask(5);
    assert_eq!((first.len(), other.ask(1).len()), (2, 0));
    first.pop();
    one.ask(0);
    assert_eq!(other.ask(1).len(), 1);
}

#[test]
fn the_same_name_with_another_limit_is_an_error_that_names_both() {
    let dir = scene();
    let running = join(&dir, "pc2", &[("gpu", 2)]);
    let refused = SharedLimits::join(dir.path(), terms("c2", &[("gpu", 3)], Duration::ZERO), None);
    let error = refused.expect_err("they disagree").to_string();
    let own = std::process::id();
    for part in ["lock gpu is 3 here and 2 for the supervisor of pc2", &format!("pid {own}")] {
        assert!(error.contains(part), "{error}");
    }
    // Being refused changes nothing for who runs.
    let again = SharedLimits::join(dir.path(), terms("c2", &[("gpu", 3)], Duration::ZERO), None);
    assert!(again.is_err());
    // A limit of that name is something else, and a supervisor that is gone does not count.
    let limit = BTreeMap::from([(Resource::Limit("gpu".to_owned()), count(3))]);
    let other = Terms { counts: limit, ..terms("c2", &[], Duration::ZERO) };
    drop(SharedLimits::join(dir.path(), other, None).expect("another thing"));
    drop(running);
    join(&dir, "c2", &[("gpu", 3)]);
}

#[test]
fn another_order_of_a_lock_is_an_error_that_names_both() {
    let dir = scene();
    let ordered = |stage: &str, order: Order<String>| Terms {
        orders: BTreeMap::from([(lock("gpu"), order)]),
        ..terms(stage, &[("gpu", 1)], Duration::ZERO)
    };
    let join = |terms| SharedLimits::join(dir.path(), terms, None);
    let priority = |stages: [&str; 2]| Order::Priority(stages.map(str::to_owned).to_vec());
    let running = join(ordered("pc2", priority(["c2", "pc2"]))).expect("the first one");
    join(ordered("c2", priority(["c2", "pc2"]))).map(drop).expect("they agree");
    for (order, told) in [
        (Order::Turns, "the order of lock gpu is \"turns\" here and \"priority\" of c2, pc2 for"),
        (priority(["pc2", "c2"]), "is \"priority\" of pc2, c2 here and \"priority\" of c2, pc2"),
    ] {
        let error = join(ordered("c2", order)).expect_err("they disagree").to_string();
        assert!(error.contains(told), "{error}");
    }
    // What runs goes by its own order all the while.
    let table = Table::read(&dir.path().join("limits"), &boot_id()).expect("readable");
    let member = table.members.values().next().expect("it runs");
    assert_eq!(member.orders[&lock("gpu")], priority(["c2", "pc2"]));
    drop(running);
    join(ordered("c2", Order::Turns)).map(drop).expect("nobody disagrees any more");
}

#[test]
fn another_distance_of_starts_of_the_same_stage_is_an_error_that_names_both() {
    let dir = scene();
    let join = |stage, spacing| {
        SharedLimits::join(dir.path(), terms(stage, &[], Duration::from_secs(spacing)), None)
    };
    let _running = join("pc1", 300).expect("the first one");
    for (spacing, told) in [
        (60, "limitation.staggered of pc1 is 1m here and 5m for the supervisor of pc1"),
        (0, "limitation.staggered of pc1 is not set here and 5m for"),
    ] {
        let error = join("pc1", spacing).expect_err("they disagree").to_string();
        assert!(error.contains(told), "{error}");
    }
    join("pc1", 300).map(drop).expect("they agree");
    join("pc2", 60).map(drop).expect("another stage");
}

#[test]
fn stages_take_turns_and_within_one_the_first_comes_first() {
    let dir = scene();
    let mut greedy = join(&dir, "pc2", &[("gpu", 1)]);
    let mut second = join(&dir, "pc2", &[("gpu", 1)]);
    let mut patient = join(&dir, "c2", &[("gpu", 1)]);
    let held = greedy.ask(1);
    assert_eq!(held.len(), 1);
    assert!(second.ask(1).is_empty());
    assert!(greedy.ask(1).is_empty());
    assert!(patient.ask(1).is_empty());
    drop(held);
    assert!(greedy.ask(1).is_empty() && second.ask(1).is_empty(), "it is the other stage's turn");
    assert_eq!(greedy.limits.reasons(), ["lock gpu goes to a task of c2 that comes first"]);
    let held = patient.ask(1);
    assert_eq!(held.len(), 1);
    drop(held);
    assert!(greedy.ask(1).is_empty(), "the second one was first");
    assert_eq!(second.ask(1).len(), 1);
}

#[test]
fn who_holds_what_and_who_waits_can_be_seen() {
    let dir = scene();
    assert!(view(dir.path()).expect("readable").resources.is_empty());
    let mut one = join(&dir, "pc2", &[("gpu", 1)]);
    let mut other = join(&dir, "c2", &[("gpu", 1)]);
    let held = one.ask(1);
    other.ask(1);
    let seen = view(dir.path()).expect("readable");
    assert_eq!((seen.resources.len(), seen.resources[0].held), (1, 1));
    assert_eq!(seen.resources[0].holders[0].executor, 4242);
    assert_eq!(seen.queue[0].stage, "c2");
    assert_eq!(seen.queue[0].reason, "lock gpu is held by pc2 of sector s-1 (pid 4242)");
    assert_eq!(other.limits.reasons(), [seen.queue[0].reason.clone()]);
    drop(held);
    let seen = view(dir.path()).expect("readable");
    assert_eq!((seen.resources[0].held, seen.resources[0].holders.len()), (0, 0));
}

#[test]
fn a_supervisor_that_is_gone_leaves_neither_a_lock_nor_a_place_in_the_queue() {
    let dir = scene();
    let mut holder = join(&dir, "pc2", &[("gpu", 1)]);
    let mut waiter = join(&dir, "pc2", &[("gpu", 1)]);
    let mut last = join(&dir, "pc2", &[("gpu", 1)]);
    let held = holder.ask(1);
    assert!(waiter.ask(1).is_empty() && last.ask(1).is_empty());
    // As when they are killed: nothing is said, the kernel closes their files.
    for Party { limits, slots, .. } in [holder, waiter] {
        let mut limits = std::mem::ManuallyDrop::new(limits);
        limits.membership = Slots::open(&dir.path().join("limits/members.slots")).expect("opens");
        drop(slots);
    }
    held.into_iter().for_each(Held::leave_to_kernel);
    assert_eq!(last.ask(1).len(), 1);
}

#[test]
fn starts_keep_their_distance_across_supervisors_and_their_restarts() {
    let dir = scene();
    let spacing = Duration::from_secs(3600);
    let mut one = join_spaced(&dir, "pc1", &[], spacing);
    let mut other = join_spaced(&dir, "pc1", &[], spacing);
    assert_eq!(one.ask(2).len(), 1);
    assert!(other.ask(1).is_empty());
    drop((one, other));
    let mut later = join_spaced(&dir, "pc1", &[], spacing);
    assert!(later.ask(1).is_empty());
    let reason = &later.limits.reasons()[0];
    assert!(reason.starts_with("the last start was too short a time ago; "), "{reason}");
    let mut elsewhere = join_spaced(&dir, "pc2", &[], spacing);
    assert_eq!(elsewhere.ask(1).len(), 1, "it is another stage");
}

#[test]
fn a_lost_or_broken_table_costs_nothing_but_the_order() {
    let dir = scene();
    let mut one = join(&dir, "pc2", &[("gpu", 1)]);
    let mut other = join(&dir, "c2", &[("gpu", 1)]);
    let held = one.ask(1);
    assert!(other.ask(1).is_empty());
    for content in ["", "{\"boot\"", "[]"] {
        fs::write(dir.path().join("limits").join(table::TABLE), content).expect("writable");
        assert!(other.ask(1).is_empty() && one.ask(1).is_empty(), "the kernel still knows");
    }
    drop(held);
    assert_eq!(other.ask(1).len() + one.ask(1).len(), 1);
}

#[test]
fn a_removed_directory_is_made_again() {
    let dir = scene();
    let mut one = join(&dir, "pc2", &[("gpu", 1)]);
    let mut other = join(&dir, "c2", &[("gpu", 1)]);
    for removed in [dir.path().join("limits"), dir.path().to_path_buf()] {
        fs::remove_dir_all(removed).expect("ours");
        assert!(one.ask(1).is_empty() && other.ask(1).is_empty(), "others may hold something");
        (one.limits.rest_until, other.limits.rest_until) = (None, None);
        let held = one.ask(1);
        assert_eq!((held.len(), other.ask(1).len()), (1, 0));
        drop(held);
        assert_eq!(other.ask(1).len(), 1);
    }
}

#[test]
fn what_a_task_holds_is_held_in_the_directory_that_was_made_again() {
    let dir = scene();
    let mut one = join(&dir, "pc2", &[("gpu", 2)]);
    let mut other = join(&dir, "c2", &[("gpu", 2)]);
    let held = other.ask(1);
    assert_eq!(held.len(), 1);
    fs::remove_dir_all(dir.path().join("limits")).expect("ours");
    // Whoever comes first starts nothing; the other one takes what it has there too.
    assert!(one.ask(2).is_empty());
    assert!(other.ask(0).is_empty());
    (one.limits.rest_until, other.limits.rest_until) = (None, None);
    let first = one.ask(2);
    assert_eq!(first.len(), 1, "the other one still has its own");
    assert_eq!(view(dir.path()).expect("readable").resources[0].holders.len(), 2);
    drop(held);
    assert_eq!(one.ask(1).len(), 1, "it was released in both");
}

#[test]
fn tasks_are_told_when_there_is_no_use_in_waiting_for_the_directory() {
    let dir = scene();
    let mut party = join(&dir, "c2", &[("gpu", 1)]);
    let run = dir.path().to_path_buf();
    fs::remove_dir_all(&run).expect("ours");
    fs::write(&run, "").expect("writable");
    let Party { limits, .. } = &mut party;
    limits.round(|_| ());
    assert!(limits.hopeless().is_none(), "it may be well again soon");
    let trouble = limits.trouble.as_mut().expect("it cannot be made again");
    assert!(trouble.is_gone, "{trouble:?}");
    trouble.since = Duration::ZERO;
    let told = limits.hopeless().expect("long enough");
    assert!(told.contains("is not a directory"), "{told}");
    fs::remove_file(&run).expect("ours");
    limits.rest_until = None;
    limits.round(|_| ());
    assert!(limits.hopeless().is_none() && limits.trouble.is_none());
}

#[test]
fn a_symbolic_link_in_the_place_of_a_file_is_refused() {
    let dir = scene();
    fs::create_dir(dir.path().join("limits")).expect("writable");
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("limits/table.mutex")).expect("ok");
    let refused = SharedLimits::join(dir.path(), terms("c2", &[], Duration::ZERO), None);
    let LimitsError::File(error) = refused.expect_err("a link") else { panic!("a file's error") };
    assert_eq!(error.source.raw_os_error(), Some(nix::libc::ELOOP));
}

#[test]
fn a_stopped_supervisor_holds_up_nobody_for_long() {
    let dir = scene();
    let mut stopped = join(&dir, "pc2", &[("gpu", 1)]);
    let mut other = join(&dir, "pc2", &[("gpu", 1)]);
    let held = other.ask(1);
    assert!(stopped.ask(1).is_empty() && other.ask(1).is_empty());
    drop(held);
    assert!(other.ask(1).is_empty(), "the other one is first");
    // It could start now and does not. Time is what the table says it is.
    let dir_of_table = dir.path().join("limits");
    let mut table = Table::read(&dir_of_table, &boot_id()).expect("readable");
    let early = machine_time().saturating_sub(seal_limits::DUE_LONGEST * 2);
    table.book.forget_times();
    let free = seal_limits::Free::from([(lock("gpu"), 1)]);
    let verdicts = table.book.decide(&free, early);
    table.book.note_due(&verdicts, early);
    table.write(&dir_of_table).expect("writable");
    assert_eq!(other.ask(1).len(), 1);
}

#[test]
fn a_start_waits_for_a_table_that_is_held_longer_than_a_round_would() {
    let dir = scene();
    let (mut running, path) = (join(&dir, "pc2", &[("gpu", 1)]), dir.path().to_path_buf());
    let mutex = Mutex::open(&path.join("limits/table.mutex")).expect("can be opened");
    let guard = mutex.lock(PATIENCE).expect("free");
    std::thread::scope(|scope| {
        let start = scope.spawn(|| {
            let joined = SharedLimits::join(&path, terms("c2", &[], Duration::ZERO), None);
            joined.map(drop).map_err(|error| error.to_string())
        });
        // What runs goes on with its other work and tries again later.
        running.limits.round(|_| panic!("the table is not its own"));
        assert!(
            running
                .limits
                .trouble
                .as_ref()
                .is_some_and(|trouble| trouble.text.contains("is it stopped?"))
        );
        std::thread::sleep(2 * PATIENCE);
        drop(guard);
        assert_eq!(start.join().expect("no panic"), Ok(()));
    });
}
