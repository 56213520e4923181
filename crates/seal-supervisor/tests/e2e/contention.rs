//! Many supervisors at once, processes killed at random, and what must hold all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::{Scene, Supervisor, eventually, executor};

/// A task that works while no more than so many may have each of the locks.
fn exclusive(scene: &Scene, locks: &[(&str, usize)], who: &str) -> Value {
    let files = |(lock, count): &(&str, usize)| -> Vec<_> {
        (0..*count).map(|n| scene.path(&format!("oracle-{lock}.{n}"))).collect()
    };
    let files: Vec<_> = locks.iter().map(files).collect();
    let names: Vec<_> = locks.iter().map(|(lock, _)| *lock).collect();
    let text = format!("{who} {}", names.join("+"));
    json!([
        {"exclusive": {"locks": files, "ms": 5, "log": scene.path("log"), "text": text}},
        {"answer": who},
    ])
}

/// Random numbers that are the same at each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        // Marsaglia's xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn executors_of(pid: i64) -> Vec<i32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Sends requests and takes answers until each of `ids` is answered, at most `ahead` at a time.
/// Ends early, with what is unanswered, if the supervisor is killed.
fn drive(
    supervisor: &mut Supervisor,
    ids: &mut BTreeSet<u64>,
    ahead: usize,
    task: impl Fn(u64) -> Value,
    pid: &Mutex<i64>,
) -> u64 {
    let mut failed = 0;
    let mut unsent: Vec<_> = ids.iter().rev().copied().collect();
    let mut open = BTreeSet::new();
    *pid.lock().expect("no panic") = supervisor.pid();
    while !ids.is_empty() {
        while open.len() < ahead
            && let Some(id) = unsent.pop()
        {
            supervisor.try_send(&json!({"id": id, "task": task(id)}));
            open.insert(id);
        }
        let Some(line) = supervisor.line_or_end() else { return failed };
        let answer: Value = serde_json::from_str(&line).expect("answers are JSON");
        let id = answer["id"].as_u64().expect("answers have ids");
        assert!(open.remove(&id) && ids.remove(&id), "{id} was answered twice: {line}");
        if let Some(error) = answer["err_msg"].as_str() {
            assert!(error.starts_with("[executor-died]") && error.contains("SIGKILL"), "{error}");
            failed += 1;
        }
    }
    failed
}

#[test]
fn eight_supervisors_under_random_kills_never_exceed_a_count_and_lose_nothing() {
    const TASKS: u64 = 200;
    const LOCKS: [(&str, usize); 3] = [("x", 1), ("y", 1), ("z", 2)];
    const X: (&str, usize) = LOCKS[0];
    const Y: (&str, usize) = LOCKS[1];
    const Z: (&str, usize) = LOCKS[2];
    // What the executor of each supervisor takes, as it is written: some take two, in opposite
    // orders, which would be a deadlock if they were taken one after the other as written.
    const TAKES: [&[(&str, usize)]; 8] =
        [&[X], &[X, Y], &[Y, X], &[Z], &[Z, X], &[X, Z], &[Y, Z], &[Z, Y]];
    let scene = Scene::new();
    let mut config = "[supervisor]\ncgroup = 'never'\n[processors.ext_locks]\n".to_owned();
    for (lock, count) in LOCKS {
        config += &format!("{lock} = {count}\n");
    }
    let config_of = |number: usize| {
        let names: Vec<_> = TAKES[number].iter().map(|(lock, _)| *lock).collect();
        format!("{config}{}", executor("pc2", &[], &format!("concurrent = 1\nlocks = {names:?}")))
    };
    let start = |number: usize| {
        let path = scene.config(&format!("{number}.toml"), &config_of(number));
        let mut command = scene.command("pc2", &path);
        command.env("RUST_LOG", "warn").args(["--restart-wait", "10ms"]);
        command.args(["--restart-wait-max", "20ms", "--ready-within", "60s"]);
        let mut supervisor = Supervisor::spawn(&mut command);
        supervisor.ready("pc2");
        supervisor
    };
    let pids: Vec<_> = (0..8).map(|_| Mutex::new(0_i64)).collect();
    thread::scope(|scope| {
        let drive_one = |number: usize| {
            let (start, scene, pid) = (&start, &scene, &pids[number]);
            scope.spawn(move || {
                let mut ids: BTreeSet<_> = (0..TASKS).collect();
                while !ids.is_empty() {
                    let mut supervisor = start(number);
                    let task = |_| exclusive(scene, TAKES[number], &format!("s{number}"));
                    drive(&mut supervisor, &mut ids, 3, task, pid);
                    *pid.lock().expect("no panic") = 0;
                }
            })
        };
        let drivers: Vec<_> = (0..8).map(drive_one).collect();
        // The killer: executors often, whole supervisors now and then.
        let mut dice = Dice(0x5EA1);
        let mut kills = 0;
        // One that panics has finished too, and fails the test at the end of the scope.
        while drivers.iter().any(|driver| !driver.is_finished()) {
            thread::sleep(Duration::from_millis(20 + dice.below(30)));
            let pid = *pids[usize::try_from(dice.below(8)).expect("small")].lock().expect("ok");
            if pid == 0 || kills > 150 {
                continue;
            }
            kills += 1;
            let target = match executors_of(pid).first() {
                Some(executor) if dice.below(4) > 0 => *executor,
                _ => i32::try_from(pid).expect("pids are small"),
            };
            let _ = kill(Pid::from_raw(target), Signal::SIGKILL);
        }
        assert!(kills > 20, "only {kills} were killed");
    });
    let log = scene.lines("log");
    let violations: Vec<_> = log.iter().filter(|line| line.starts_with("VIOLATION")).collect();
    assert!(violations.is_empty(), "{violations:?}");
    assert!(log.len() >= 8 * usize::try_from(TASKS).expect("small") - 200, "{}", log.len());
    for two in ["s1 x+y", "s2 y+x", "s4 z+x", "s5 x+z"] {
        assert!(log.iter().filter(|line| *line == two).count() > 100, "{two} hardly ran");
    }
    scene.assert_nothing_is_locked();
}

#[test]
fn survivors_of_one_stage_are_served_first_come_first_served() {
    const TASKS: u64 = 60;
    let scene = Scene::new();
    let one = executor("pc2", &[], "concurrent = 1\nlocks = ['x']");
    let config = format!("[supervisor]\ncgroup = 'never'\n[processors.ext_locks]\nx = 1\n{one}");
    let config = scene.config("c.toml", &config);
    let start = || {
        let mut command = scene.command("pc2", &config);
        let mut supervisor = Supervisor::spawn(command.env("RUST_LOG", "warn"));
        supervisor.ready("pc2");
        supervisor
    };
    let supervisors: Vec<_> = (0..8).map(|_| start()).collect();
    let killed: Vec<_> = supervisors.iter().take(2).map(Supervisor::pid).collect();
    thread::scope(|scope| {
        for (number, mut supervisor) in supervisors.into_iter().enumerate() {
            let scene = &scene;
            scope.spawn(move || {
                let mut ids = (0..TASKS).collect();
                let task = |_| exclusive(scene, &[("x", 1)], &format!("{number}"));
                drive(&mut supervisor, &mut ids, 3, task, &Mutex::new(0));
                assert_eq!(ids.is_empty(), number >= 2, "two were killed, the others go on");
            });
        }
        for (count, pid) in killed.into_iter().enumerate() {
            eventually("the work goes on", || {
                (scene.lines("log").len() > 40 * (count + 1)).then_some(())
            });
            kill(Pid::from_raw(i32::try_from(pid).expect("small")), Signal::SIGKILL).expect("runs");
        }
    });
    let log = scene.lines("log");
    assert!(!log.iter().any(|line| line.starts_with("VIOLATION")), "{log:?}");
    // Whoever has had the lock queues behind all others. So between two starts of one, each of the
    // others starts at most once; but while the supervisors begin and end they do not all wait, and
    // one that the machine does not let run for a while may come to the queue late.
    let starts: Vec<u64> =
        log.iter().filter_map(|line| line.split(' ').next()?.parse().ok()).collect();
    let middle = &starts[50..starts.len() - 50];
    let mut between = BTreeMap::<u64, BTreeMap<u64, u32>>::new();
    let mut unfair = 0;
    for start in middle {
        let others = between.insert(*start, BTreeMap::new()).unwrap_or_default();
        unfair += usize::from(others.values().any(|count| *count > 1));
        for (who, seen) in &mut between {
            if who != start {
                *seen.entry(*start).or_default() += 1;
            }
        }
    }
    assert!(unfair * 20 <= middle.len(), "{unfair} of {}: {middle:?}", middle.len());
    scene.assert_nothing_is_locked();
}

/// Scheme B as its users have it, with scripted executors and without its cpus.
fn scheme_b() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/schemes/scheme-b.toml");
    let text = std::fs::read_to_string(path).expect("part of every clone");
    let mut config = "[supervisor]\ncgroup = 'never'\n".to_owned();
    for line in text.lines() {
        match line.strip_prefix("[[processors.").and_then(|rest| rest.strip_suffix("]]")) {
            Some(stage) => config += &executor(stage, &[], "concurrent = 1"),
            None if line.starts_with("cgroup") || line.starts_with("numa") => {}
            None if line.starts_with("concurrent") => {}
            None => config += &format!("{line}\n"),
        }
    }
    config
}

#[test]
fn seven_pc2_and_one_c2_under_constant_load_take_turns_on_scheme_bs_locks() {
    const ROUNDS: u64 = 160;
    let scene = Scene::new();
    let config = scene.config("b.toml", &scheme_b());
    let log = scene.path("log");
    // One pair of executors is enough: the others' lock is kept busy by nobody.
    let start = |stage: &str| {
        let mut command = scene.command(stage, &config);
        let mut supervisor = Supervisor::spawn(command.env("RUST_LOG", "warn"));
        supervisor.ready(stage);
        supervisor
    };
    let stop = Mutex::new(false);
    thread::scope(|scope| {
        for number in 0..8 {
            let stage = if number < 7 { "pc2" } else { "c2" };
            let mut supervisor = start(stage);
            let (log, stop) = (&log, &stop);
            scope.spawn(move || {
                let task = json!([{"work_ms": 4}, "describe"]);
                let mut next = 0;
                for _ in 0..4 {
                    supervisor.send(next, task.clone());
                    next += 1;
                }
                let mut answered = 0;
                while answered < next {
                    let (_, told) = supervisor.answer();
                    let gpu = told.expect("answered")["env"]["CUDA_VISIBLE_DEVICES"].clone();
                    crate::harness::append(log, &format!("{stage} {}", gpu.as_str().expect("set")));
                    answered += 1;
                    let mut ends = stop.lock().expect("no panic");
                    *ends |= stage == "c2" && answered >= ROUNDS;
                    if !*ends {
                        supervisor.send(next, task.clone());
                        next += 1;
                    }
                }
                supervisor.finish();
            });
        }
    });
    // Neither stage starves on either GPU: each has about half of the tasks while both have work.
    // By numbers c2 would have an eighth. Its one supervisor misses a turn when a loaded machine
    // does not let it run in time.
    for gpu in ["0", "1"] {
        let log = scene.lines("log");
        let of_gpu: Vec<_> = log.iter().filter(|line| line.ends_with(gpu)).collect();
        let last = of_gpu.iter().rposition(|line| line.starts_with("c2")).expect("c2 ran");
        let busy = &of_gpu[8..last];
        let c2 = busy.iter().filter(|line| line.starts_with("c2")).count();
        assert!(
            c2 * 100 >= busy.len() * 40 && c2 * 100 <= busy.len() * 60,
            "{c2} of {}",
            busy.len()
        );
    }
    scene.assert_nothing_is_locked();
}
