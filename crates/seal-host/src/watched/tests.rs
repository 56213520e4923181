//! The handler, in this process where it must go on, in a child where the process must end.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Barrier;
use std::sync::atomic::AtomicU32;

use memmap2::{Mmap, MmapMut, MmapOptions};

use super::*;

/// A file of so many pages of `byte`.
fn file_of(pages: usize, byte: u8) -> File {
    let file = tempfile::tempfile().expect("a temporary file");
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![byte; pages * file_page()], 0)
        .expect("writable");
    file
}

fn map(file: &File) -> Mmap {
    // SAFETY: what it gives is read as bytes of any value.
    unsafe { MmapOptions::new().map(file) }.expect("mapped")
}

fn watched(file: &File) -> Watched<Mmap> {
    Watched::new(map(file), file_page(), false).expect("watched")
}

/// The first byte of every page.
fn firsts(map: &[u8]) -> Vec<u8> {
    black_box(map).iter().step_by(file_page()).copied().collect()
}

/// Many maps come and go in many threads while their files are cut under those who read them. Each
/// map must have its own fault and no other, and what lies in sound maps must stay.
#[test]
fn a_thousand_cuts_under_readers_fail_the_maps_that_were_cut_and_no_other() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 250;
    let sound = file_of(16, 7);
    let sound = watched(&sound);
    let cuts = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (sound, cuts) = (&sound, &cuts);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let (a, b) = (file_of(8, 1), file_of(8, 2));
                    let (cut, whole) = (watched(&a), watched(&b));
                    assert_eq!((firsts(&cut), cut.fault()), (vec![1; 8], None));
                    let left = (round + thread) % 8;
                    a.set_len((left * file_page()) as u64).expect("writable");
                    let mut expected = vec![1; left];
                    expected.resize(8, 0);
                    // Two threads meet the missing pages at the same time.
                    let together = Barrier::new(2);
                    let read = || {
                        together.wait();
                        firsts(&cut)
                    };
                    let found = std::thread::scope(|scope| {
                        let other = scope.spawn(read);
                        [read(), other.join().expect("it goes on")]
                    });
                    assert_eq!(found, [expected.clone(), expected]);
                    assert_eq!(cut.fault(), Some(MapFault::Gone));
                    assert_eq!((firsts(&whole), whole.fault()), (vec![2; 8], None));
                    assert_eq!(firsts(sound), [7; 16]);
                    cuts.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!((cuts.into_inner(), sound.fault()), (1000, None));
}

#[test]
fn memory_in_a_file_that_is_cut_can_be_written_on_without_reaching_the_file() {
    let file = file_of(4, 3);
    // SAFETY: what it gives is bytes of any value.
    let map = unsafe { MmapMut::map_mut(&file) }.expect("mapped");
    let mut map = Watched::new(map, file_page(), true).expect("watched");
    file.set_len(file_page() as u64).expect("writable");
    map.fill(9);
    assert_eq!((firsts(&map), map.fault()), (vec![9; 4], Some(MapFault::Gone)));
    assert_eq!(file.metadata().expect("open").len(), file_page() as u64);
}

#[test]
fn slots_are_used_again_without_the_faults_of_those_before() {
    let file = file_of(2, 1);
    let cut = watched(&file);
    file.set_len(0).expect("writable");
    assert_eq!(firsts(&cut), [0, 0]);
    drop(cut);
    let slots = || {
        let (mut next, mut count) = (FIRST.get(), 0);
        while let Some(slot) = next {
            (next, count) = (slot.next.get(), count + 1);
        }
        count
    };
    let file = file_of(1, 1);
    for _ in 0..1000 {
        assert_eq!(watched(&file).fault(), None);
    }
    // Other tests of this process have some at the same time.
    assert!(slots() < 200, "{} slots", slots());
}

/// Memory that fails cannot be made without harm, so the handler's answer is asked for directly.
#[test]
fn memory_that_fails_is_a_fault_of_its_own() {
    let file = file_of(4, 5);
    let page = file_page();
    let failed = watched(&file);
    let address = failed.as_ptr().addr() + page + 17;
    assert!(mend(BUS_MCEERR_AR, address));
    assert_eq!((firsts(&failed), failed.fault()), (vec![5, 0, 5, 5], Some(MapFault::Memory)));
    // A notice ahead of any access changes nothing.
    let noticed = watched(&file);
    assert!(mend(BUS_MCEERR_AO, noticed.as_ptr().addr()));
    assert_eq!((firsts(&noticed), noticed.fault()), (vec![5; 4], Some(MapFault::Memory)));
    // One that was cut too is memory first: that says what is to be done.
    assert!(mend(BUS_ADRERR, noticed.as_ptr().addr() + 3 * page));
    assert_eq!(noticed.fault(), Some(MapFault::Memory));
}

#[test]
fn what_is_not_a_fault_in_a_map_that_is_watched_is_left_to_others() {
    let file = file_of(2, 1);
    let (watched, plain) = (watched(&file), map(&file));
    let (inside, outside) = (watched.as_ptr().addr(), plain.as_ptr().addr());
    for code in [BUS_ADRERR, BUS_MCEERR_AR, BUS_MCEERR_AO] {
        assert!(!mend(code, outside), "{code}");
        assert!(!mend(code, 0), "{code}");
    }
    // Sent by somebody, or an address that is not aligned.
    for code in [libc::SI_USER, libc::SI_QUEUE, 1] {
        assert!(!mend(code, inside), "{code}");
    }
    assert_eq!(watched.fault(), None);
}

/// How a child ends that runs the test `name`, which is ignored otherwise.
fn child(name: &str) -> ExitStatus {
    let test = std::env::current_exe().expect("this test has a name");
    let name = format!("watched::tests::{name}");
    Command::new(test)
        .args(["--ignored", "--exact", &name, "--test-threads=1"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("it runs")
}

/// A map that is watched has failed and been mended, so that the handler is in force.
fn mended() {
    let file = file_of(2, 1);
    let cut = watched(&file);
    file.set_len(0).expect("writable");
    assert_eq!((firsts(&cut), cut.fault()), (vec![0, 0], Some(MapFault::Gone)));
}

fn no_core() {
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0)
        .expect("lower is allowed");
}

#[test]
#[ignore = "ends its process: run as a child by `a_fault_elsewhere_still_ends_the_process`"]
fn reads_a_page_that_nobody_watches() {
    no_core();
    mended();
    let file = file_of(2, 1);
    let plain = map(&file);
    file.set_len(0).expect("writable");
    firsts(&plain);
}

#[test]
#[ignore = "ends its process: run as a child by `a_fault_elsewhere_still_ends_the_process`"]
fn is_sent_the_signal() {
    no_core();
    mended();
    let _ = raise(Signal::SIGBUS);
}

#[test]
#[ignore = "run as a child by `a_fault_elsewhere_still_ends_the_process`"]
fn goes_on() {
    mended();
}

#[test]
fn a_fault_elsewhere_still_ends_the_process() {
    assert!(child("goes_on").success());
    for name in ["reads_a_page_that_nobody_watches", "is_sent_the_signal"] {
        let status = child(name);
        assert_eq!(status.signal(), Some(libc::SIGBUS), "{name}: {status}");
    }
}

static CALLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_call(_: c_int) {
    CALLED.fetch_add(1, Ordering::SeqCst);
}

#[test]
#[ignore = "changes its process: run as a child by `who_had_the_signal_before_still_has_it`"]
fn has_a_handler_before() {
    let before = SigAction::new(SigHandler::Handler(count_call), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler only counts.
    unsafe { sigaction(Signal::SIGBUS, &before) }.expect("installed");
    mended();
    assert_eq!(CALLED.load(Ordering::SeqCst), 0, "a fault in a map that is watched is ours");
    for times in 1..=2 {
        raise(Signal::SIGBUS).expect("sent");
        assert_eq!(CALLED.load(Ordering::SeqCst), times);
    }
    mended();
}

#[test]
fn who_had_the_signal_before_still_has_it() {
    let status = child("has_a_handler_before");
    assert!(status.success(), "{status}");
}
