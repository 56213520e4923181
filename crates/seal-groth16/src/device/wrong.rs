//! Tests of a device that computes wrongly: once, twice, always, in its trials and for want of
//! memory.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use seal_wire::{DeviceStanding, ErrorCode};

use super::tests::scripted;
use super::*;
use crate::stand_in::{Act, Held as Hold, LABEL, Scripted};
use crate::{PROOF_BYTES, ProveStep};

fn go_on(_: ProveStep) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_device_that_computes_wrongly_once_is_marked_and_tried_and_proves_on() {
    let test = "a_device_that_computes_wrongly_once_is_marked_and_tried_and_proves_on";
    let device = Scripted::new([Act::Nothing]);
    let (reads, trials) = (device.reads.clone(), device.tried.clone());
    let Some((prover, task)) = scripted(test, device, Without::Refuse) else { return };
    let proof = prover.prove(&task, &mut go_on).expect("the second time");
    assert_eq!(proof.len(), PROOF_BYTES);
    assert_eq!(reads.load(Ordering::SeqCst), 2, "parameters are read anew");
    assert_eq!(trials.load(Ordering::SeqCst), 2, "tried when it was opened, and again");
    let report = prover.device_report().expect("a device");
    assert_eq!((report.standing, report.wrong), (DeviceStanding::Suspect, 1));
    assert_eq!(report.device, LABEL);
    assert_eq!(report.reason.as_deref(), Some("the proof of partition 0"));
}

#[test]
fn a_device_that_computes_wrongly_twice_is_left_out_and_tasks_say_so() {
    let test = "a_device_that_computes_wrongly_twice_is_left_out_and_tasks_say_so";
    for acts in [[Act::Other, Act::Nothing], [Act::Other, Act::Other]] {
        let device = Scripted::new(acts);
        let (reads, trials) = (device.reads.clone(), device.tried.clone());
        let Some((prover, task)) = scripted(test, device, Without::Refuse) else { return };
        // The next task is refused before anything is done for it.
        for _ in 0..2 {
            let error = prover.prove(&task, &mut go_on).expect_err("left out");
            assert_eq!(error.code(), ErrorCode::BadDevice, "{error}");
            let text = error.to_string();
            let named = [LABEL, "the proof of partition 0", "nothing is known against the sector"];
            assert!(named.iter().all(|named| text.contains(named)), "{text}");
            assert_eq!(reads.load(Ordering::SeqCst), 2);
            assert_eq!(trials.load(Ordering::SeqCst), 2);
        }
        let report = prover.device_report().expect("a device");
        assert_eq!((report.standing, report.wrong), (DeviceStanding::LeftOut, 2));
        assert!(!report.computes());
    }
}

#[test]
fn the_processor_takes_the_place_of_a_device_that_is_left_out_where_it_may() {
    let test = "the_processor_takes_the_place_of_a_device_that_is_left_out_where_it_may";
    let device = Scripted::new([Act::Other, Act::Other]);
    let reads = device.reads.clone();
    let Some((prover, task)) = scripted(test, device, Without::Processor) else { return };
    let proof = prover.prove(&task, &mut go_on).expect("the processor proves");
    assert_eq!(proof.len(), PROOF_BYTES);
    assert_eq!(reads.load(Ordering::SeqCst), 2, "the device reads nothing more");
    let report = prover.device_report().expect("a device");
    assert_eq!((report.standing, report.wrong), (DeviceStanding::LeftOut, 2));
    let replaced_by = report.replaced_by.expect("the processor");
    assert!(replaced_by.contains("processor") && prover.device() == replaced_by, "{replaced_by}");
}

#[test]
fn a_device_that_fails_its_trials_proves_nothing() {
    let test = "a_device_that_fails_its_trials_proves_nothing";
    let bad = || Scripted::default().with_trials([Act::Other, Act::Nothing]);
    let device = bad();
    let reads = device.reads.clone();
    let Some((prover, task)) = scripted(test, device, Without::Refuse) else { return };
    let error = prover.try_device(&mut go_on).expect_err("left out");
    assert_eq!(error.code(), ErrorCode::BadDevice);
    let error = prover.prove(&task, &mut go_on).expect_err("left out");
    assert!(error.to_string().contains("tried with"), "{error}");
    assert_eq!(reads.load(Ordering::SeqCst), 0, "no parameters were read");

    let Some((prover, _)) = scripted(test, bad(), Without::Processor) else { return };
    prover.try_device(&mut go_on).expect("the processor proves");
    assert!(prover.device_report().is_some_and(|report| report.replaced_by.is_some()));

    // Wrong once, and right when it is tried again.
    let device = Scripted::default().with_trials([Act::Other]);
    let Some((prover, _)) = scripted(test, device, Without::Refuse) else { return };
    prover.try_device(&mut go_on).expect("in use");
    let report = prover.device_report().expect("a device");
    assert_eq!((report.standing, report.wrong), (DeviceStanding::Suspect, 1));
}

#[test]
fn a_trial_after_a_wrong_proof_that_is_wrong_too_is_a_repeat() {
    let test = "a_trial_after_a_wrong_proof_that_is_wrong_too_is_a_repeat";
    let device = Scripted::new([Act::Other]).with_trials([Act::Right, Act::Nothing]);
    let Some((prover, task)) = scripted(test, device, Without::Refuse) else { return };
    let error = prover.prove(&task, &mut go_on).expect_err("left out");
    assert_eq!(error.code(), ErrorCode::BadDevice, "{error}");
    assert!(error.to_string().contains("tried with"), "{error}");
    assert_eq!(prover.device_report().map(|report| report.wrong), Some(2));
}

#[test]
fn a_device_that_cannot_be_tried_is_an_error_or_left_out() {
    let test = "a_device_that_cannot_be_tried_is_an_error_or_left_out";
    let device = || Scripted::default().with_trials([Act::Fail]);
    let Some((prover, _)) = scripted(test, device(), Without::Refuse) else { return };
    let error = prover.try_device(&mut go_on).expect_err("it failed");
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert!(error.to_string().contains("tried with"), "{error}");
    prover.try_device(&mut go_on).expect("the next time it does");
    assert_eq!(prover.device_report().map(|report| report.wrong), Some(0));

    let Some((prover, _)) = scripted(test, device(), Without::Processor) else { return };
    prover.try_device(&mut go_on).expect("the processor proves");
    let report = prover.device_report().expect("a device");
    assert_eq!((report.standing, report.wrong), (DeviceStanding::LeftOut, 0));
    assert!(report.reason.is_some_and(|reason| reason.contains("a launch failed")));
}

#[test]
fn a_wrong_proof_for_want_of_memory_is_not_held_against_the_device() {
    let test = "a_wrong_proof_for_want_of_memory_is_not_held_against_the_device";
    let device = Scripted::default();
    let device = device.clone().then([Act::Dropped(device.short.clone())]);
    let Some((prover, task)) = scripted(test, device, Without::Refuse) else { return };
    let error = prover.prove(&task, &mut go_on).expect_err("no memory");
    assert_eq!(error.code(), ErrorCode::Unavailable, "{error}");
    assert!(error.to_string().contains("for want of memory"), "{error}");
    let source = std::error::Error::source(&error).expect("how much").to_string();
    assert!(source.contains("9.00 GiB") && source.contains("another process"), "{source}");
    let report = prover.device_report().expect("a device");
    assert_eq!((report.standing, report.wrong), (DeviceStanding::Good, 0));
}

#[test]
fn a_trial_spoiled_for_want_of_memory_is_not_held_against_the_device() {
    let test = "a_trial_spoiled_for_want_of_memory_is_not_held_against_the_device";
    let spoiled = |times: usize| {
        let device = Scripted::default();
        let dropped = Act::Dropped(device.short.clone());
        device.with_trials(vec![dropped; times])
    };
    // Somebody took memory while it was tried, and has given it back.
    let Some((prover, _)) = scripted(test, spoiled(1), Without::Refuse) else { return };
    prover.try_device(&mut go_on).expect("the second time");
    let report = prover.device_report().expect("a device");
    assert_eq!((report.standing, report.wrong), (DeviceStanding::Good, 0));

    // And again.
    for without in [Without::Refuse, Without::Processor] {
        let device = spoiled(2);
        let trials = device.tried.clone();
        let Some((prover, _)) = scripted(test, device, without) else { return };
        let error = prover.try_device(&mut go_on).expect_err("no memory");
        assert_eq!(error.code(), ErrorCode::Unavailable, "{error}");
        let source = std::error::Error::source(&error).expect("how much").to_string();
        assert!(source.contains("9.00 GiB") && source.contains("another process"), "{source}");
        let report = prover.device_report().expect("a device");
        assert_eq!((report.standing, report.wrong), (DeviceStanding::Good, 0));
        prover.try_device(&mut go_on).expect("the next time there is memory");
        assert_eq!(trials.load(Ordering::SeqCst), 2);
    }
}

/// Waits until it is so; not for ever, but long enough for a busy machine.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(600), "{what}: not within ten minutes");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn proofs_from_one_reading_of_the_parameters_are_one_fault() {
    let test = "proofs_from_one_reading_of_the_parameters_are_one_fault";
    // What comes of both is no proof.
    let [first, second] = [0; 2].map(|_| Arc::new(Hold::default()));
    let device = Scripted::new([Act::Hold(first.clone()), Act::Hold(second.clone())]);
    let (reads, trials) = (device.reads.clone(), device.tried.clone());
    let Some((prover, task)) = scripted(test, device, Without::Refuse) else { return };
    let let_go = |held: &Hold| held.let_go.store(true, Ordering::SeqCst);
    let works = |held: &Hold| held.works.load(Ordering::SeqCst);
    let wrong = || prover.device_report().expect("a device").wrong;
    thread::scope(|scope| {
        let prove = || prover.prove(&task, &mut go_on);
        let one = scope.spawn(prove);
        until("the first proof", || works(&first));
        let other = scope.spawn(prove);
        until("the second task", || prover.proving.waiting() == 1);
        let_go(&first);
        until("the second proof", || works(&second));
        until("the mark", || wrong() == 1);
        // Begun before the mark, looked at after it.
        let_go(&second);
        for task in [one, other] {
            let proof = task.join().expect("no panic").expect("the second time");
            assert_eq!(proof.len(), PROOF_BYTES);
        }
    });
    let report = prover.device_report().expect("a device");
    assert_eq!((report.standing, report.wrong), (DeviceStanding::Suspect, 1));
    assert_eq!(reads.load(Ordering::SeqCst), 2, "read anew once");
    assert_eq!(trials.load(Ordering::SeqCst), 2, "tried when it was opened, and once more");
}

#[test]
fn a_device_that_is_too_small_is_an_error_or_left_to_the_processor() {
    let test = "a_device_that_is_too_small_is_an_error_or_left_to_the_processor";
    let small = || Scripted { small: true, ..Scripted::default() };
    let Some((prover, task)) = scripted(test, small(), Without::Refuse) else { return };
    let error = prover.prove(&task, &mut go_on).expect_err("too small");
    assert_eq!(error.code(), ErrorCode::Unsupported, "{error}");
    assert!(!error.code().retryable(), "its memory will not grow");
    let text = error.to_string();
    assert!(text.contains(LABEL) && text.contains("SEAL_GPU=optional"), "{text}");
    let source = std::error::Error::source(&error).expect("how much").to_string();
    assert!(source.contains("8.00 GiB in all"), "{source}");

    let Some((prover, task)) = scripted(test, small(), Without::Processor) else { return };
    let size = task.c1out.registered_proof.sector_size();
    let loaded = prover.load(size, 0, &mut go_on).expect("the processor proves");
    assert!(matches!(loaded.points, crate::load::LoadedPoints::Cpu(_)));
    let report = prover.device_report().expect("a device");
    assert_eq!((report.standing, report.wrong), (DeviceStanding::LeftOut, 0));
    assert!(report.computes());
}

#[test]
fn a_device_that_is_too_small_for_a_trial_is_an_error_or_left_to_the_processor() {
    let test = "a_device_that_is_too_small_for_a_trial_is_an_error_or_left_to_the_processor";
    let small = || Scripted { small_for_trials: true, ..Scripted::default() };
    let Some((prover, _)) = scripted(test, small(), Without::Refuse) else { return };
    let error = prover.try_device(&mut go_on).expect_err("too small");
    assert_eq!(error.code(), ErrorCode::Unsupported, "{error}");

    let Some((prover, _)) = scripted(test, small(), Without::Processor) else { return };
    prover.try_device(&mut go_on).expect("the processor proves");
    let report = prover.device_report().expect("a device");
    assert_eq!((report.standing, report.wrong), (DeviceStanding::LeftOut, 0));
    assert!(report.computes());
}
