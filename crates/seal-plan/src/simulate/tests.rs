//! The simulator against schedules worked out by hand, and against queueing theory.

use std::path::Path;
use std::time::Duration;

use seal_config::{Config, LockOrder, StageName};
use seal_types::SectorSize;

use super::{Locks, Options, Report, StageReport, Supply, Until, WarmUp, show, simulate};
use crate::times::{StageTimes, Times};
use crate::{Hardware, Scheme, hardware};

const PC1: StageName = StageName::Pc1;
const PC2: StageName = StageName::Pc2;
const C2: StageName = StageName::C2;

/// Two PC1 at once, and a lock that PC2 and C2 share.
const SHARED: &str = r#"
    processors.limitation.concurrent.pc1 = 2
    processors.ext_locks.gpu = 1
    processors.pc1 = [{ cgroup.cpuset = "0-5" }]
    processors.pc2 = [{ cgroup.cpuset = "6-8", locks = ["gpu"] }]
    processors.c2 = [{ cgroup.cpuset = "6-11", locks = ["gpu"] }]
"#;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn epyc() -> Hardware {
    let path = root().join("crates/seal-plan/machines/epyc7642x2.toml");
    hardware::load(&path).expect("a machine of ours")
}

fn config(text: &str) -> Config {
    seal_config::parse(Path::new("w.toml"), text).expect("a good configuration")
}

/// These stages, with fixed times and no wait for randomness.
fn times(stages: &[(StageName, u64)]) -> Times {
    let mut times = Times::new(SectorSize::GIB_32);
    let fixed = |(stage, time): &(StageName, u64)| {
        (*stage, StageTimes { ready: Duration::ZERO, ..StageTimes::fixed(seconds(*time), "hand") })
    };
    times.stages = stages.iter().map(fixed).collect();
    times.seed_wait = Duration::ZERO;
    times
}

fn options(supply: Supply, until: Until) -> Options {
    Options {
        supply: Some(supply),
        until,
        warm_up: WarmUp::Time(Duration::ZERO),
        seed: 1,
        locks: Locks::AsConfigured,
    }
}

fn run(config: &Config, times: &Times, options: &Options) -> Report {
    let hardware = epyc();
    let scheme = Scheme::of(config, &hardware, times.sector_size);
    simulate(config, &scheme, &hardware, times, options).expect("it can be simulated")
}

fn stage(report: &Report, name: StageName) -> &StageReport {
    report.stages.iter().find(|stage| stage.stage == name.name()).expect("it is there")
}

fn near(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() < 1e-6, "{what}: {found}, by hand {expected}");
}

fn within(found: f64, expected: f64, part: f64, what: &str) {
    assert!((found / expected - 1.0).abs() < part, "{what}: {found}, expected {expected}");
}

/// The schedule by hand, PC1 10 s, PC2 4 s, C2 3 s, three sectors on their way:
///
/// | | PC1 | PC2 | C2 |
/// |---|---|---|---|
/// | 1 | 0-10 | 10-14 | 14-17 |
/// | 2 | 0-10 | 17-21 | 21-24 |
/// | 3 | 10-20 | 24-28 | 28-31 |
/// | 4 | 17-27 | from 31 | |
/// | 5 | from 24 | | |
/// | 6 | from 31 | | |
#[test]
fn turns_on_a_lock_are_those_of_a_schedule_by_hand() {
    let times = times(&[(PC1, 10), (PC2, 4), (C2, 3)]);
    let report = run(&config(SHARED), &times, &options(Supply::InFlight(3), Until::Sectors(3)));
    near(report.seconds, 31.0, "the third one is finished");
    near(report.sectors_per_day, 3.0 / 31.0 * 86_400.0, "sectors a day");
    // 17, 24 and 31 since 0.
    near(report.passage_mean_s, 24.0, "passage");
    let [pc1, pc2, c2] = [PC1, PC2, C2].map(|name| stage(&report, name));
    near(pc1.running_mean, (10.0 + 10.0 + 10.0 + 10.0 + 7.0) / 31.0, "pc1 running");
    // Sector 3 waits from 0 to 10; the others find a place at once.
    near(pc1.wait_mean_s, 10.0 / 6.0, "pc1 waits");
    near(pc2.wait_longest_s, 7.0, "pc2 waits at most");
    assert_eq!(pc2.wait_longest_sector, 2);
    near(pc2.queue_mean, (7.0 + 4.0 + 4.0) / 31.0, "pc2 queue");
    near(pc2.wait_mean_s, (7.0 + 4.0 + 4.0) / 4.0, "pc2 waits");
    near(c2.wait_longest_s, 0.0, "c2 waits at most");
    near(report.locks[0].utilisation, 21.0 / 31.0, "lock gpu");
    near(report.in_flight_mean, 3.0, "on their way");
    assert_eq!((pc2.passed_by, c2.passed_by), (1, 0));
    assert_eq!((pc1.done, pc2.done, c2.done), (4, 3, 3));
}

/// As above, but at 14 PC2 goes on with sector 2, so that C2 of 1 runs from 18 to 21. A request has
/// a place in the book only when there is room for it: PC2 of 3 has since 20, C2 of 2 not before
/// 21. So PC2 of 3 runs from 21 to 25, C2 of 2 from 25 to 28, C2 of 3 from 28 to 31.
#[test]
fn arrival_at_a_lock_is_that_of_a_schedule_by_hand() {
    let times = times(&[(PC1, 10), (PC2, 4), (C2, 3)]);
    let mut options = options(Supply::InFlight(3), Until::Sectors(3));
    options.locks = Locks::Ordered(LockOrder::Arrival);
    let report = run(&config(SHARED), &times, &options);
    near(report.seconds, 31.0, "the third one is finished");
    near(report.passage_mean_s, (21.0 + 28.0 + 31.0) / 3.0, "passage");
    let [pc2, c2] = [PC2, C2].map(|name| stage(&report, name));
    near(pc2.wait_longest_s, 4.0, "pc2 waits at most");
    near(c2.wait_mean_s, (4.0 + 7.0 + 3.0) / 3.0, "c2 waits");
}

/// As by arrival until 21, when C2 goes on with sector 2 until 24 and has nothing more to do: PC2
/// finds out when it looks, two sevenths after a full second.
#[test]
fn a_greedy_lock_goes_to_the_stage_that_had_it() {
    let times = times(&[(PC1, 10), (PC2, 4), (C2, 3)]);
    let mut options = options(Supply::InFlight(3), Until::Sectors(3));
    options.locks = Locks::Greedy;
    let report = run(&config(SHARED), &times, &options);
    near(report.seconds, 31.0 + 2.0 / 7.0, "the third one is finished");
    near(report.passage_mean_s, (21.0 + 24.0 + 31.0 + 2.0 / 7.0) / 3.0, "passage");
    assert_eq!((stage(&report, PC2).passed_by, stage(&report, C2).passed_by), (1, 0));
}

#[test]
fn priority_lets_the_named_stage_go_first() {
    let times = times(&[(PC1, 1), (PC2, 4), (C2, 3)]);
    let mut options = options(Supply::InFlight(30), Until::Sectors(200));
    options.locks = Locks::Ordered(LockOrder::Priority(vec![PC2, C2]));
    let report = run(&config(SHARED), &times, &options);
    assert!(stage(&report, C2).starves, "{:?}", stage(&report, C2));
    options.locks = Locks::Ordered(LockOrder::Priority(vec![C2, PC2]));
    options.warm_up = WarmUp::Sectors(50);
    let report = run(&config(SHARED), &times, &options);
    // Every PC2 is followed by the C2 of its sector.
    assert_eq!((stage(&report, C2).passed_by, stage(&report, PC2).passed_by), (0, 1));
    near(report.passage_longest_s, stage(&report, PC2).wait_longest_s + 1.0 + 7.0, "passage");
}

#[test]
fn starts_keep_their_distance_and_a_delay_needs_no_executor() {
    let text = r#"
        processors.limitation.staggered.pc1 = "5s"
        processors.pc1 = [{ cgroup.cpuset = "0-47", envs = { SEAL_PC1_LANES = "1" } }]
    "#;
    let times = times(&[(StageName::AddPieces, 2), (PC1, 7)]);
    let report = run(&config(text), &times, &options(Supply::InFlight(4), Until::Sectors(4)));
    // All have their pieces at 2; PC1 starts at 2, 7, 12 and 17.
    near(report.seconds, 17.0 + 7.0, "the fourth one is finished");
    let pc1 = stage(&report, PC1);
    near(pc1.running_peak, 2.0, "pc1 running");
    near(pc1.wait_longest_s, 15.0, "the fourth one waits");
}

#[test]
fn executors_are_filled_evenly_and_tasks_wait_for_a_unit() {
    // Units of two cores: three in 0-8, one in 9-11.
    let text = r#"
        [[processors.pc1]]
        cgroup.cpuset = "0-8"
        concurrent = 3
        envs = { SEAL_PC1_LANES = "1" }
        [[processors.pc1]]
        cgroup.cpuset = "9-11"
        concurrent = 3
        envs = { SEAL_PC1_LANES = "1" }
    "#;
    let times = times(&[(PC1, 10)]);
    let report = run(&config(text), &times, &options(Supply::InFlight(6), Until::Sectors(6)));
    // Three at a time in the first executor, one after the other in the second.
    near(report.seconds, 20.0, "the sixth one is finished");
    near(stage(&report, PC1).running_peak, 4.0, "at the same time");
    let busy: Vec<_> = report.cores.iter().map(|group| (group.count, group.utilisation)).collect();
    assert_eq!((busy[0], busy[1].0), ((6, 1.0), 2));
}

#[test]
fn sectors_that_share_a_unit_take_longer() {
    let text = "processors.pc1 = [{ cgroup.cpuset = \"0-2\", concurrent = 2 }]";
    let times = times(&[(PC1, 100)]);
    let report = run(&config(text), &times, &options(Supply::InFlight(2), Until::Sectors(2)));
    // The time is that of two at once; the first one begins alone.
    near(report.passage_mean_s, (100.0 / 1.13 + 100.0) / 2.0, "a sector");
}

#[test]
fn waiting_is_that_of_queueing_theory() {
    let text = "processors.limitation.concurrent.pc2 = 1\n[[processors.pc2]]";
    let config = config(text);
    // M/D/1, and with spread M/G/1: Pollaczek and Khinchine.
    for (load, spread, sectors) in [(0.5, 0.0, 400_000), (0.8, 0.0, 900_000), (0.7, 0.8, 900_000)] {
        let mut times = times(&[(PC2, 100)]);
        times.stages.get_mut(&PC2).expect("it is there").spread = spread;
        let mean = seconds(100).div_f64(load);
        let supply = Supply::Every { mean, random: true };
        let mut options = options(supply, Until::Sectors(sectors));
        options.warm_up = WarmUp::Sectors(1000);
        let report = run(&config, &times, &options);
        let pc2 = stage(&report, PC2);
        let wait = load * 100.0 * (1.0 + spread * spread) / (2.0 * (1.0 - load));
        let case = format!("load {load}, spread {spread}");
        within(report.locks[0].utilisation, load, 0.01, &format!("{case}: utilisation"));
        within(pc2.run_mean_s, 100.0, 0.01, &format!("{case}: run"));
        within(pc2.wait_mean_s, wait, 0.02, &format!("{case}: wait"));
        // Little's law.
        let arrivals = load / 100.0;
        within(pc2.queue_mean, arrivals * wait, 0.02, &format!("{case}: queue"));
        within(report.in_flight_mean, arrivals * wait + load, 0.02, &format!("{case}: all"));
    }
}

#[test]
fn several_executors_behind_one_queue_are_that_of_queueing_theory() {
    // M/M/c has Erlang's C formula; a spread of 1 is close to it only for exponential times, so
    // the number that is busy is judged, which does not depend on the distribution.
    let text = "processors.pc2 = [{ concurrent = 2 }, { concurrent = 3 }]";
    let mut times = times(&[(PC2, 100)]);
    times.stages.get_mut(&PC2).expect("it is there").spread = 1.0;
    let supply = Supply::Every { mean: seconds(50), random: true };
    let report = run(&config(text), &times, &options(supply, Until::Sectors(300_000)));
    // Both processes work on one task after the other, so two run at most, and the load is full.
    near(stage(&report, PC2).running_peak, 2.0, "two processes");
    let text = r#"processors.pc2 = [{ bin = "/opt/x" , concurrent = 2 }, { bin = "/opt/x", concurrent = 3 }]"#;
    let report = run(&config(text), &times, &options(supply, Until::Sectors(300_000)));
    within(stage(&report, PC2).running_mean, 2.0, 0.02, "running");
    near(stage(&report, PC2).running_peak, 5.0, "five at most");
}

#[test]
fn the_same_seed_gives_the_same_and_another_one_does_not() {
    let config = config(SHARED);
    let mut times = times(&[(PC1, 1000), (PC2, 400), (C2, 300)]);
    for stage in times.stages.values_mut() {
        (stage.spread, stage.fails, stage.dies) = (0.2, 0.01, Some(seconds(50_000)));
    }
    let mut options = options(Supply::InFlight(5), Until::Sectors(3000));
    for locks in [Locks::AsConfigured, Locks::Greedy] {
        options.locks = locks;
        options.seed = 7;
        let first = run(&config, &times, &options);
        assert_eq!(first, run(&config, &times, &options));
        options.seed = 8;
        let other = run(&config, &times, &options);
        assert_ne!(first.passage_mean_s, other.passage_mean_s);
        within(other.sectors_per_day, first.sectors_per_day, 0.03, "another seed");
    }
}

#[test]
fn tasks_that_fail_are_sent_again() {
    let mut times = times(&[(PC2, 10)]);
    times.stages.get_mut(&PC2).expect("it is there").fails = 0.2;
    times.retry_wait = seconds(3);
    let text = "processors.limitation.concurrent.pc2 = 1\n[[processors.pc2]]";
    let report = run(&config(text), &times, &options(Supply::InFlight(1), Until::Sectors(40_000)));
    let pc2 = stage(&report, PC2);
    assert_eq!(pc2.done, report.finished + pc2.failed);
    within(pc2.done as f64 / report.finished as f64, 1.0 / 0.8, 0.02, "tasks a sector");
    // Each failure costs another task and the wait before it.
    let expected = 10.0 / 0.8 + 3.0 * 0.2 / 0.8;
    within(report.passage_mean_s, expected, 0.02, "passage");
}

#[test]
fn deaths_cost_what_is_not_kept() {
    let text = r#"
        [supervisor.pc1]
        retry = 1000
        restart_wait = "1s"
        restart_wait_max = "1s"
        [[processors.pc1]]
        cgroup.cpuset = "0-1"
        concurrent = 1
    "#;
    // A part of length s is done after (e^(s/d) - 1) d of work if deaths come every d.
    for (parts, dies) in [(1_u32, 1000_u64), (10, 1000), (10, 300)] {
        let mut times = times(&[(PC1, 1000)]);
        let pc1 = times.stages.get_mut(&PC1).expect("it is there");
        (pc1.parts, pc1.dies, pc1.ready) = (parts, Some(seconds(dies)), seconds(9));
        let report =
            run(&config(text), &times, &options(Supply::InFlight(1), Until::Sectors(20_000)));
        let (parts, dies) = (f64::from(parts), dies as f64);
        let work = parts * ((1000.0 / parts / dies).exp() - 1.0) * dies;
        let pc1 = stage(&report, PC1);
        let case = format!("{parts} parts, {dies}");
        let worked = pc1.running_mean * report.seconds / report.finished as f64;
        within(worked, work, 0.03, &format!("{case}: work for a sector"));
        let deaths = pc1.deaths as f64 / report.finished as f64;
        within(deaths, work / dies, 0.03, &format!("{case}: deaths"));
        assert_eq!((pc1.sent_again, pc1.failed), (pc1.deaths, 0));
        // A second before the start and nine until it is ready.
        within(report.passage_mean_s, work + 10.0 * deaths, 0.03, &format!("{case}: passage"));
    }
}

#[test]
fn a_task_is_sent_again_only_as_often_as_configured_and_then_begins_anew() {
    let mut times = times(&[(PC1, 1000)]);
    let pc1 = times.stages.get_mut(&PC1).expect("it is there");
    (pc1.parts, pc1.dies) = (10, Some(seconds(400)));
    times.retry_wait = seconds(60);
    let text = "processors.pc1 = [{ cgroup.cpuset = \"0-1\", concurrent = 1 }]";
    let report = run(&config(text), &times, &options(Supply::InFlight(1), Until::Sectors(2000)));
    let pc1 = stage(&report, PC1);
    assert!(pc1.failed > 0 && pc1.sent_again > pc1.failed, "{pc1:?}");
    assert_eq!(pc1.deaths, pc1.failed + pc1.sent_again);
}

#[test]
fn an_executor_that_is_not_restarted_is_told_of_and_its_stage_stands_still() {
    let mut times = times(&[(PC2, 100)]);
    times.stages.get_mut(&PC2).expect("it is there").dies = Some(seconds(1000));
    let text = "processors.pc2 = [{ auto_restart = false }]";
    let report =
        run(&config(text), &times, &options(Supply::InFlight(2), Until::Time(seconds(100_000))));
    near(report.seconds, 100_000.0, "it goes on to the end");
    assert!(stage(&report, PC2).queue_end > 0.0);
    let told = report
        .findings
        .iter()
        .any(|finding| finding.starts_with("processors.pc2[0] died and is not started again"));
    assert!(told, "{:?}", report.findings);
}

#[test]
fn warming_up_is_left_out() {
    let times = times(&[(PC1, 10), (PC2, 4), (C2, 3)]);
    let mut options = options(Supply::InFlight(3), Until::Sectors(50));
    options.warm_up = WarmUp::Sectors(20);
    let report = run(&config(SHARED), &times, &options);
    // The lock is the narrow place: seven seconds a sector.
    assert_eq!(report.finished, 50);
    near(report.seconds, 350.0, "fifty sectors");
    near(report.locks[0].utilisation, 1.0, "lock");
    assert_eq!(report.busiest, "the lock gpu (100 %)");
}

/// Of software of today, as in the file that the documentation names.
fn of_today() -> Times {
    let mut times = Times::new(SectorSize::GIB_32);
    times.read(&root().join("tests/schemes/published.times.toml")).expect("times of ours");
    times
}

fn scheme(name: &str, locks: Locks, times: &Times) -> Report {
    let config = seal_config::load(&root().join("tests/schemes").join(name)).expect("a scheme");
    let options = Options {
        supply: None,
        until: Until::Time(Duration::from_secs(30 * 86_400)),
        warm_up: WarmUp::Time(Duration::from_secs(3 * 86_400)),
        seed: 1,
        locks,
    };
    run(&config, times, &options)
}

#[test]
fn scheme_b_starves_under_a_greedy_lock_and_not_under_a_fair_one() {
    let today = of_today();
    let greedy = scheme("scheme-b.toml", Locks::Greedy, &today);
    let fair = scheme("scheme-b.toml", Locks::AsConfigured, &today);
    let starving = |report: &Report| -> Vec<String> {
        let stages = report.stages.iter().filter(|stage| stage.starves);
        stages.map(|stage| stage.stage.clone()).collect()
    };
    assert!(starving(&greedy).contains(&"c2".to_owned()), "{}", show(&[greedy]));
    assert!(greedy.findings.iter().any(|finding| finding.starts_with("c2 starves")));
    assert_eq!(starving(&fair), [""; 0], "{}", show(&[fair]));
    for name in [PC2, C2] {
        assert!(stage(&fair, name).passed_by <= 2, "{}", show(&[fair]));
    }
    // What waits for a turn waits for one task of the other stage, not for a crowd of them.
    let [long, short] = [&greedy, &fair].map(|report| stage(report, C2).wait_longest_s);
    assert!(long > 5.0 * short, "{long} {short}");
    // And sectors come in crowds: all of them before C2, then all of them before PC1.
    let [crowd, even] = [&greedy, &fair].map(|report| stage(report, C2).queue_peak);
    assert!(crowd > 10.0 * even, "{crowd} {even}");
}

#[test]
fn statistics_of_a_time_without_events_are_of_that_time() {
    // Fourteen minutes, in which no PC1 ends.
    let config = seal_config::load(&root().join("tests/schemes/scheme-a.toml")).expect("a scheme");
    let options = Options {
        supply: None,
        until: Until::Time(seconds(864)),
        warm_up: WarmUp::Time(seconds(86)),
        seed: 1,
        locks: Locks::AsConfigured,
    };
    let report = run(&config, &of_today(), &options);
    assert_eq!((report.warm_up_s, report.seconds), (86.0, 778.0));
    assert_eq!(report.finished, 0);
    within(stage(&report, PC1).running_mean, 28.0, 0.001, "pc1 running");
}

#[test]
fn scheme_a_has_nobody_who_could_starve() {
    let today = of_today();
    for locks in [Locks::Greedy, Locks::AsConfigured] {
        let report = scheme("scheme-a.toml", locks, &today);
        assert!(report.stages.iter().all(|stage| stage.passed_by == 0));
        // One GPU for PC2 alone: a sector every 1424 seconds.
        within(report.sectors_per_day, 86_400.0 / 1424.0, 0.02, "sectors a day");
        assert!(report.busiest.starts_with("GPU 0"), "{}", report.busiest);
    }
}

#[test]
fn memory_and_cores_are_those_of_the_tasks() {
    let mut fast = of_today();
    for name in [PC2, C2] {
        fast.stages.get_mut(&name).expect("it is there").time = Some(seconds(60));
    }
    let report = scheme("scheme-a.toml", Locks::AsConfigured, &fast);
    let gib = |bytes: f64| bytes / f64::from(1 << 30);
    // 28 sectors of two layers, and at most one PC2 (2 GiB) and C2 (45 GiB and a task's 42).
    let peak = gib(report.memory.peak);
    assert!((28.0 * 64.0 + 45.0..=28.0 * 64.0 + 89.0 + 1e-6).contains(&peak), "{peak}");
    within(report.sectors_per_day, 28.0 * 86_400.0 / 10_320.0, 0.02, "sectors a day");
    let pc1 = &report.cores[0];
    assert_eq!((pc1.count, pc1.users.as_slice()), (28, &["pc1[0]".to_owned()][..]));
    within(pc1.utilisation, 1.0, 0.01, "the cores of pc1");
    within(stage(&report, PC1).running_mean, 28.0, 0.01, "pc1 running");
}

#[test]
fn what_cannot_be_simulated_is_told() {
    let hardware = epyc();
    let hand = times(&[(PC1, 10)]);
    for (text, said) in [
        ("[processors]", "has no executor of any stage of sealing"),
        ("processors.tree_d = [{ bin = \"/x\" }]", "processors.tree_d[0] takes for 32GiB"),
        ("processors.window_post = [{ bin = \"/x\" }]", "has no executor of any stage"),
    ] {
        let config = config(text);
        let scheme = Scheme::of(&config, &hardware, SectorSize::GIB_32);
        let options = options(Supply::InFlight(1), Until::Sectors(1));
        let error = simulate(&config, &scheme, &hardware, &hand, &options).expect_err(text);
        assert!(error.to_string().contains(said), "{text}: {error}");
    }
}

#[test]
fn what_nobody_told_is_estimated_for_each_executor() {
    // Eight cores take half as long as four.
    let text = r#"
        [[processors.pc2]]
        cgroup.cpuset = "0-3"
        [[processors.pc2]]
        cgroup.cpuset = "4-11"
    "#;
    let mut untold = Times::new(SectorSize::GIB_32);
    let no_spread = StageTimes { spread: 0.0, ..StageTimes::unknown(PC2) };
    untold.stages.insert(PC2, no_spread);
    let options = options(Supply::InFlight(2), Until::Sectors(300));
    let report = run(&config(text), &untold, &options);
    let hardware = epyc();
    let scheme = Scheme::of(&config(text), &hardware, SectorSize::GIB_32);
    let estimate = crate::estimate::stage_time(
        &scheme.executors[0],
        &hardware,
        SectorSize::GIB_32,
        &untold.given(),
    );
    let slow = estimate.expect("our own executor").time.as_secs_f64();
    within(report.sectors_per_day, 86_400.0 * (1.0 + 2.0) / slow, 0.01, "sectors a day");
    // The calculator knows the limit that a long run approaches.
    let limit = crate::throughput::throughput(&scheme, &hardware, &untold.given());
    within(report.sectors_per_day, limit.sectors_per_day, 0.01, "as calculated");
    assert!(report.stages[0].source.contains("AVX2 and FMA"), "{}", report.stages[0].source);
}

#[test]
fn a_long_run_approaches_what_the_calculator_says() {
    let times = of_today();
    for name in ["scheme-a.toml", "scheme-b.toml"] {
        let report = scheme(name, Locks::AsConfigured, &times);
        let config = seal_config::load(&root().join("tests/schemes").join(name)).expect("a scheme");
        let scheme = Scheme::of(&config, &epyc(), SectorSize::GIB_32);
        let limit = crate::throughput::throughput(&scheme, &epyc(), &times.given());
        within(report.sectors_per_day, limit.sectors_per_day, 0.01, name);
    }
}
