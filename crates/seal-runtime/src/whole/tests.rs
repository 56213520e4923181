//! How right the whole progress of a task is told.

use super::*;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn left(whole: &Whole, now: f64) -> f64 {
    whole.standing(seconds(now)).left.expect("it can be told").as_secs_f64()
}

fn close(found: f64, wanted: f64) {
    // What was seen of one kind counts a little for the others.
    assert!((found - wanted).abs() <= 0.05 * wanted.max(1.0), "{found} and not {wanted}");
}

/// Two layers of 100, the data beside them, a check at the end.
fn layers() -> Whole {
    let layer = |number| Step::new(format!("layer {number}"), "label", 100.0);
    let plan = Plan::default()
        .then([Step::new("verify", "verify", 20.0).perhaps()])
        .then([layer(1), layer(2)])
        .beside([Step::new("copy", "copy", 30.0)])
        .then([Step::new("check", "check", 10.0)]);
    Whole::new(plan)
}

#[test]
fn the_share_is_of_all_parts_and_what_goes_on_beside_costs_nothing() {
    let mut whole = layers();
    assert_eq!(whole.standing(seconds(0.0)), Standing { share: 0.0, left: None });
    whole.at(seconds(5.0), "copy", 30, 30);
    assert_eq!(whole.standing(seconds(5.0)).share, 0.0, "layers take longer");
    whole.at(seconds(10.0), "layer 1", 50, 100);
    close(whole.standing(seconds(10.0)).share, 50.0 / 210.0);
    whole.at(seconds(40.0), "layer 2", 1, 1);
    whole.at(seconds(40.0), "layer 1", 1, 1);
    whole.at(seconds(42.0), "check", 1, 1);
    let end = whole.standing(seconds(42.0));
    assert_eq!(end, Standing { share: 1.0, left: Some(Duration::ZERO) });
}

#[test]
fn the_time_left_goes_by_the_pace_of_each_kind() {
    let mut whole = layers();
    whole.at(seconds(4.0), "verify", 1, 1);
    for step in 1..=10 {
        whole.at(seconds(4.0 + 2.0 * f64::from(step)), "layer 1", 10 * step as u64, 100);
    }
    // Layer 2, and the check at the pace of all.
    close(left(&whole, 24.0), 20.0 + 10.0 * 0.2);
    close(left(&whole, 24.5), 20.0 + 10.0 * 0.2);
    whole.at(seconds(26.0), "layer 2", 10, 100);
    // It has gone on since.
    close(left(&whole, 28.0), 16.0 + 10.0 * 0.2);
}

#[test]
fn what_goes_on_beside_slows_the_rest_only_until_it_is_done() {
    let mut whole = layers();
    // A second for a unit of labels while the data is copied at one for each, half of it after.
    for step in 1..=20_u64 {
        whole.at(seconds(step as f64), "copy", step, 30);
        whole.at(seconds(step as f64), "layer 1", step, 100);
    }
    whole.at(seconds(24.0), "layer 1", 28, 100);
    // Still 6 of the copy: nothing is known yet of labels alone.
    assert!(left(&whole, 24.0) > 85.0);
    whole.at(seconds(30.0), "layer 1", 30, 100);
    whole.at(seconds(30.0), "copy", 30, 30);
    whole.at(seconds(35.0), "layer 1", 40, 100);
    // Half of the way down from 1 to 0.5, and further with each label.
    let early = left(&whole, 35.0);
    assert!((80.0..150.0).contains(&early), "{early}");
    whole.at(seconds(65.0), "layer 1", 100, 100);
    let (found, wanted) = (left(&whole, 65.0), 50.0 + 10.0 * 0.5);
    assert!((found / wanted - 1.0).abs() < 0.1, "{found} and not {wanted}");
}

#[test]
fn a_lane_that_takes_longer_decides() {
    let mut whole = layers();
    whole.at(seconds(10.0), "layer 1", 100, 100);
    // Ten times slower than it was measured.
    whole.at(seconds(10.0), "copy", 10, 30);
    let copy = 20.0;
    whole.at(seconds(11.0), "layer 2", 90, 100);
    // Labels would be done in two seconds.
    let (found, most) = (left(&whole, 11.0), copy + 10.0 * 21.0 / 200.0);
    assert!((most / 2.0..most).contains(&found), "{found} of {most}");
}

#[test]
fn waiting_is_no_work() {
    let (mut one, mut other) = (layers(), layers());
    for whole in [&mut one, &mut other] {
        whole.at(seconds(10.0), "layer 1", 50, 100);
    }
    other.waits(seconds(10.0), true);
    other.waits(seconds(500.0), true);
    close(left(&other, 900.0), left(&one, 10.0));
    other.waits(seconds(1010.0), false);
    for (whole, now) in [(&mut one, 20.0), (&mut other, 1020.0)] {
        whole.at(seconds(now), "layer 1", 100, 100);
    }
    close(left(&other, 1020.0), left(&one, 20.0));
}

#[test]
fn what_an_earlier_run_did_counts_as_done_and_tells_nothing_of_the_pace() {
    let mut whole = layers();
    whole.at(seconds(1.0), "verify", 1, 1);
    whole.already("layer 1");
    close(whole.standing(seconds(1.0)).share, 120.0 / 230.0);
    whole.at(seconds(31.0), "layer 2", 50, 100);
    close(whole.standing(seconds(31.0)).share, 170.0 / 230.0);
    close(left(&whole, 31.0), 30.0 + 10.0 * 31.0 / 70.0);
}

#[test]
fn work_that_is_begun_anew_is_to_be_done_again() {
    let mut whole = layers();
    whole.at(seconds(10.0), "layer 1", 1, 1);
    whole.at(seconds(20.0), "layer 2", 1, 1);
    whole.at(seconds(21.0), "check", 1, 2);
    whole.at(seconds(21.0), "layer 1", 0, 1);
    let standing = whole.standing(seconds(21.0));
    assert_eq!(standing.share, 0.0);
    close(left(&whole, 21.0), 20.0 + 2.0);
}

#[test]
fn a_changed_pace_is_followed() {
    let plan = Plan::default().then([Step::new("labels", "label", 1e6)]);
    let mut whole = Whole::new(plan);
    let mut now = 0.0;
    for done in (0..=1000).step_by(5) {
        // Half as fast from the middle on: another sector has come.
        now += if done > 500 { 72.0 } else { 36.0 };
        whole.at(seconds(now), "labels", done, 1000);
        if done == 700 {
            let truth = 300.0 / 5.0 * 72.0;
            let found = left(&whole, now);
            assert!((found / truth - 1.0).abs() < 0.1, "{found} and not {truth}");
        }
    }
}

#[test]
fn parts_that_are_not_planned_change_nothing() {
    let mut whole = layers();
    whole.at(seconds(1.0), "something else", 1, 1);
    assert_eq!(whole.standing(seconds(1.0)), Standing { share: 0.0, left: None });
    assert!(whole.is_aside("copy") && !whole.is_aside("layer 1") && !whole.is_aside("other"));
}

#[test]
fn what_comes_before_the_begin_of_a_part_is_not_of_its_pace() {
    let mut whole = layers();
    // A device was opened, and nothing told of that.
    whole.at(seconds(50.0), "layer 1", 0, 10);
    whole.at(seconds(60.0), "layer 1", 5, 10);
    close(left(&whole, 60.0), 30.0 + 10.0 * 10.0 / 50.0);
}

#[test]
fn a_pace_that_is_known_counts_until_the_task_has_shown_its_own() {
    let steps = [Step::new("layer 1", "first", 100.0), Step::new("layer 2", "label", 100.0)];
    let copy = Step::new("copy", "copy", 50.0);
    let plan = Plan::default().then(steps).beside([copy]).expecting("label", 0.5);
    let mut whole = Whole::new(plan);
    // The copy slows the first layer, and nothing is seen of labels yet.
    for step in 1..=20_u64 {
        whole.at(seconds(2.0 * step as f64), "copy", 5 * step, 100);
        whole.at(seconds(2.0 * step as f64), "layer 1", 2 * step, 100);
    }
    let found = left(&whole, 40.0);
    close(found, 60.0 + 100.0 * 0.5);
    whole.at(seconds(100.0), "layer 1", 100, 100);
    for step in 1..=90_u64 {
        whole.at(seconds(100.0 + step as f64), "layer 2", step, 100);
    }
    // They take twice as long as they were thought to.
    close(left(&whole, 190.0), 10.0);
}
