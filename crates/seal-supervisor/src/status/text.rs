//! The status for people.

use std::fmt::Write;

use super::corruption::corruption_told;
use super::document::{
    Device, Ended, Executor, Machine, Progress, Resource, Supervisor, Task, Waiting,
};

/// Tells all of it in lines of text.
pub(crate) fn tell(machine: &Machine) -> String {
    let mut text = String::new();
    if machine.supervisors.is_empty() {
        line(&mut text, &format!("no supervisor is running in {}", machine.runtime_dir));
    }
    let told = corruption_told(machine);
    told.iter().for_each(|told| line(&mut text, told));
    if !told.is_empty() {
        text.push('\n');
    }
    for supervisor in &machine.supervisors {
        tell_supervisor(&mut text, supervisor, machine.at);
    }
    if !machine.resources.is_empty() {
        text.push_str("limits and locks\n");
    }
    for resource in &machine.resources {
        tell_resource(&mut text, resource);
    }
    let waiting = waiting(machine);
    if !waiting.is_empty() {
        text.push_str("\nwaiting\n");
    }
    for waiter in waiting {
        let sector = waiter.sector.as_ref().map(|sector| format!(" sector {sector}"));
        let (stage, pid) = (&waiter.stage, waiting_at(machine, waiter));
        line(
            &mut text,
            &format!(
                "  {stage}{} of supervisor {pid} for {}: {}",
                sector.unwrap_or_default(),
                duration(waiter.waited),
                waiter.reason
            ),
        );
    }
    let mut ended: Vec<(&str, &Ended)> = machine
        .supervisors
        .iter()
        .flat_map(|s| s.history.iter().map(|task| (s.stage.as_str(), task)))
        .collect();
    ended.sort_by(|(_, one), (_, other)| other.ended.total_cmp(&one.ended));
    if !ended.is_empty() {
        text.push_str("\nlast tasks\n");
    }
    for (stage, task) in ended {
        tell_ended(&mut text, stage, task, machine.at);
    }
    text
}

fn tell_supervisor(text: &mut String, supervisor: &Supervisor, at: f64) {
    let Supervisor { stage, life, waiting, done, config, .. } = supervisor;
    let elsewhere = if supervisor.foreign { " (in another pid namespace)" } else { "" };
    let name = supervisor.name();
    let failed: u64 = supervisor.failed.values().sum();
    let why = supervisor.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    line(
        text,
        &format!(
            "{stage}  supervisor {name}{elsewhere} {life}{why} for {}, {waiting} waiting, {done} done, \
             {failed} failed  {config}",
            duration(at - supervisor.since)
        ),
    );
    // It writes every few seconds; a file that is older means that it hangs.
    if at - supervisor.written > 30.0 {
        line(text, &format!("  has said nothing for {}", duration(at - supervisor.written)));
    }
    for executor in &supervisor.executors {
        tell_executor(text, executor, at);
    }
    text.push('\n');
}

fn tell_executor(text: &mut String, executor: &Executor, at: f64) {
    let mut parts = vec![executor.key.clone()];
    if let Some(pid) = executor.pid {
        parts.push(format!("pid {pid}"));
    }
    let until = executor.until.map(|until| format!(", next start in {}", duration(until - at)));
    parts.push(format!(
        "{} for {}{}",
        executor.state,
        duration(at - executor.since),
        until.unwrap_or_default()
    ));
    parts.push(cpus(executor));
    if let Some(node) = executor.numa_node {
        let local = executor.live.as_ref().and_then(|live| live.percent_local);
        let local = local.map(|percent| format!(" ({percent:.0} % of its memory)"));
        parts.push(format!("node {node}{}", local.unwrap_or_default()));
    }
    if let Some(live) = &executor.live {
        parts.push(size(live.resident));
    }
    if let Some(gpu) = &executor.gpu {
        parts.push(format!("gpu {gpu}"));
    }
    let most = executor.concurrent.map(|count| format!(" of {count}"));
    parts.push(format!("{}{} tasks", executor.tasks.len(), most.unwrap_or_default()));
    if executor.restarts > 0 {
        parts.push(format!("{} restarts", executor.restarts));
    }
    line(text, &format!("  {}", parts.join("  ")));
    if let Some(why) = &executor.why {
        line(text, &format!("    {why}"));
    }
    if let Some(device) = &executor.device
        && let Some(told) = device_told(device, at)
    {
        line(text, &format!("    {told}"));
    }
    if let Some(end) = executor.last_end.as_ref().filter(|_| executor.restarts > 0) {
        line(text, &format!("    last end: {end}"));
    }
    for task in &executor.tasks {
        tell_task(text, task, at);
    }
}

/// What is to be said of a device; nothing of one that has never computed wrongly.
pub(crate) fn device_told(device: &Device, at: f64) -> Option<String> {
    if device.wrong == 0 && device.standing == "good" {
        return None;
    }
    let Device { name, standing, wrong, .. } = device;
    let standing = standing.replace('_', " ");
    let mut text = format!(
        "{name} computed wrongly {wrong} times, {standing} for {}",
        duration(at - device.since)
    );
    if let Some(reason) = &device.reason {
        let _ = write!(text, ": {reason}");
    }
    if let Some(instead) = &device.replaced_by {
        let _ = write!(text, "; tasks are computed by {instead}");
    }
    Some(text)
}

/// All who wait, those for limits and locks in the order in which they are to be served, then those
/// for an executor, which have no place in the common queue.
pub(crate) fn waiting(machine: &Machine) -> Vec<&Waiting> {
    let mut waiting: Vec<_> = machine.queue.iter().collect();
    waiting.extend(machine.supervisors.iter().flat_map(|supervisor| {
        let known = machine.queue.iter().filter(|waiter| is_of(waiter, supervisor)).count();
        supervisor.queue.iter().skip(known)
    }));
    waiting
}

fn is_of(waiter: &Waiting, supervisor: &Supervisor) -> bool {
    (waiter.supervisor, waiter.pid_namespace) == (supervisor.pid, supervisor.pid_namespace)
}

/// The name of the supervisor that a request waits at.
fn waiting_at(machine: &Machine, waiter: &Waiting) -> String {
    let supervisor = machine.supervisors.iter().find(|supervisor| is_of(waiter, supervisor));
    supervisor.map_or_else(|| waiter.supervisor.to_string(), Supervisor::name)
}

/// The cpus that were asked for and those that it has, where the two differ.
pub(crate) fn cpus(executor: &Executor) -> String {
    let has = executor.live.as_ref().map(|live| live.cpus.as_str());
    match (executor.cpus.as_deref(), has) {
        (Some(asked), Some(has)) if asked != has => format!("cpus {has} (asked for {asked})"),
        (Some(cpus), _) | (None, Some(cpus)) => format!("cpus {cpus}"),
        (None, None) => "any cpus".to_owned(),
    }
}

/// The sector of a task, which may be a bare number.
fn sector(name: Option<&str>) -> String {
    format!("sector {}", name.unwrap_or("unknown"))
}

fn tell_task(text: &mut String, task: &Task, at: f64) {
    let mut parts = vec![format!("req {}", task.req), sector(task.sector.as_deref())];
    parts.extend(whole(task));
    parts.extend(task.progress.as_ref().map(progress));
    parts.extend(task.waits.as_ref().map(|why| format!("waits {why}")));
    parts.push(format!("running for {}", duration(at - task.started)));
    if task.tries > 1 {
        parts.push(format!("try {}", task.tries));
    }
    if !task.holds.is_empty() {
        parts.push(format!("holds {}", task.holds.join(", ")));
    }
    line(text, &format!("    {}", parts.join("  ")));
}

fn tell_resource(text: &mut String, resource: &Resource) {
    let Resource { kind, name, count, held, .. } = resource;
    line(text, &format!("  {kind} {name}  {held} of {count} held"));
    for holder in &resource.holders {
        let sector = holder.sector.as_ref().map(|sector| format!(" sector {sector}"));
        line(
            text,
            &format!(
                "    {}{}, req {}, executor {}, for {}",
                holder.stage,
                sector.unwrap_or_default(),
                holder.req,
                holder.executor,
                duration(holder.held)
            ),
        );
    }
}

fn tell_ended(text: &mut String, stage: &str, task: &Ended, at: f64) {
    let sector = sector(task.sector.as_deref());
    let result = task.error.as_ref().map_or("done".to_owned(), |error| format!("failed: {error}"));
    line(
        text,
        &format!(
            "  {stage}  req {}  {sector}  ran {}  waited {}  {} ago  {result}",
            task.req,
            duration(task.ran),
            duration(task.waited),
            duration(at - task.ended)
        ),
    );
}

/// How far a whole task is, and how long it will still take.
pub(crate) fn whole(task: &Task) -> Option<String> {
    let mut text = format!("{:.0} % done", (task.whole? * 100.0).floor());
    if let Some(left) = task.left {
        let of = if task.waits.is_some() { " of work" } else { "" };
        let _ = write!(text, ", {}{of} left", duration(left));
    }
    Some(text)
}

/// How far a part of a task is, how fast it goes, and how long it will still take.
pub(crate) fn progress(progress: &Progress) -> String {
    let mut text = format!("{} {:.0} %", progress.part, share(progress) * 100.0);
    if progress.per_second > 0.0 {
        let _ = match progress.unit.as_str() {
            "bytes" => write!(text, ", {}/s", size(progress.per_second as u64)),
            unit => write!(text, ", {} {unit}/s", short(progress.per_second)),
        };
    }
    if let Some(left) = progress.left {
        let _ = write!(text, ", {} left", duration(left));
    }
    text
}

/// How much of a part is done, from 0 to 1.
pub(crate) fn share(progress: &Progress) -> f64 {
    if progress.total == 0 { 0.0 } else { (progress.done as f64 / progress.total as f64).min(1.0) }
}

/// A number in at most four digits and a unit.
fn short(number: f64) -> String {
    match number {
        n if n >= 1e9 => format!("{:.1} G", n / 1e9),
        n if n >= 1e6 => format!("{:.1} M", n / 1e6),
        n if n >= 1e3 => format!("{:.1} k", n / 1e3),
        n => format!("{n:.1}"),
    }
}

/// Seconds in the two largest units that matter.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s:02}s"),
        (0, h, m, _) => format!("{h}h {m:02}m"),
        (d, h, _, _) => format!("{d}d {h:02}h"),
    }
}

/// Bytes in a unit that leaves few digits.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 40 => format!("{:.1} TiB", b as f64 / (1_u64 << 40) as f64),
        b if b >= 1 << 30 => format!("{:.1} GiB", b as f64 / (1_u64 << 30) as f64),
        b if b >= 1 << 20 => format!("{} MiB", b >> 20),
        b => format!("{} KiB", b >> 10),
    }
}

fn line(text: &mut String, line: &str) {
    // What executors and requests wrote must not reach a terminal as it is.
    text.extend(line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }));
    text.push('\n');
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::document::{Holder, Live};
    use super::*;

    /// A machine on which everything happens at once.
    pub(crate) fn busy() -> Machine {
        let task = Task {
            req: 7,
            sector: Some("s-t01000-12".to_owned()),
            started: 940.0,
            waited: 5.0,
            tries: 2,
            holds: vec!["lock gpu1".to_owned(), "limit of pc2".to_owned()],
            progress: Some(Progress {
                part: "tree C".to_owned(),
                done: 30 << 30,
                total: 120 << 30,
                unit: "bytes".to_owned(),
                per_second: 2e9,
                left: Some(48.0),
            }),
            waits: Some("for a seat: all are taken".to_owned()),
            whole: Some(0.417),
            left: Some(11_000.0),
        };
        let ready = Executor {
            key: "processors.pc2[0]".to_owned(),
            pid: Some(301),
            state: "ready".to_owned(),
            since: 500.0,
            restarts: 1,
            last_end: Some("exited with code 9".to_owned()),
            cpus: Some("0-3".to_owned()),
            numa_node: Some(0),
            gpu: Some("0".to_owned()),
            device: Some(Device {
                name: "A100 (GPU-7)".to_owned(),
                standing: "suspect".to_owned(),
                since: 940.0,
                wrong: 1,
                reason: Some("row 3".to_owned()),
                replaced_by: None,
            }),
            concurrent: Some(1),
            live: Some(Live {
                cpus: "0-2".to_owned(),
                resident: 3 << 30,
                percent_local: Some(98.4),
            }),
            tasks: vec![task],
            ..Executor::default()
        };
        let looping = Executor {
            key: "processors.pc2[1]".to_owned(),
            state: "crash-loop".to_owned(),
            since: 990.0,
            until: Some(1060.0),
            ..Executor::default()
        };
        let waiting = |reason: &str, supervisor| Waiting {
            stage: "pc2".to_owned(),
            supervisor,
            waited: 61.0,
            reason: reason.to_owned(),
            ..Waiting::default()
        };
        let failed = Ended {
            req: 6,
            sector: Some("s-t01000-11".to_owned()),
            ended: 880.0,
            ran: 3.0,
            waited: 1.0,
            error: Some("[no-space] disk\u{1b}[31m full".to_owned()),
            ..Ended::default()
        };
        let supervisor = Supervisor {
            instance: "processors".to_owned(),
            pid: 300,
            stage: "pc2".to_owned(),
            life: "serving".to_owned(),
            config: "/etc/p.toml".to_owned(),
            written: 999.0,
            waiting: 2,
            done: 4,
            executors: vec![ready, looping],
            queue: vec![waiting("", 300), waiting("no executor has room", 300)],
            history: vec![failed],
            ..Supervisor::default()
        };
        let holder = Holder {
            stage: "pc2".to_owned(),
            req: 7,
            sector: Some("s-t01000-12".to_owned()),
            supervisor: 300,
            executor: 301,
            held: 60.0,
        };
        let lock = Resource {
            kind: "lock".to_owned(),
            name: "gpu1".to_owned(),
            count: 1,
            held: 1,
            holders: vec![holder],
        };
        Machine {
            at: 1000.0,
            runtime_dir: "/run/seal-exec".to_owned(),
            supervisors: vec![supervisor],
            resources: vec![lock],
            queue: vec![waiting("lock gpu1 is held by pc2 of sector s-t01000-12 (pid 301)", 300)],
            corruption: Vec::new(),
        }
    }

    #[test]
    fn everything_is_told() {
        let expected = "\
pc2  supervisor 300 serving for 16m 40s, 2 waiting, 4 done, 0 failed  /etc/p.toml
  processors.pc2[0]  pid 301  ready for 8m 20s  cpus 0-2 (asked for 0-3)  node 0 (98 % of its memory)  3.0 GiB  gpu 0  1 of 1 tasks  1 restarts
    A100 (GPU-7) computed wrongly 1 times, suspect for 1m 00s: row 3
    last end: exited with code 9
    req 7  sector s-t01000-12  41 % done, 3h 03m of work left  tree C 25 %, 1.9 GiB/s, 48s left  \
waits for a seat: all are taken  running for 1m 00s  try 2  holds lock gpu1, limit of pc2
  processors.pc2[1]  crash-loop for 10s, next start in 1m 00s  any cpus  0 tasks

limits and locks
  lock gpu1  1 of 1 held
    pc2 sector s-t01000-12, req 7, executor 301, for 1m 00s

waiting
  pc2 of supervisor 300 for 1m 01s: lock gpu1 is held by pc2 of sector s-t01000-12 (pid 301)
  pc2 of supervisor 300 for 1m 01s: no executor has room

last tasks
  pc2  req 6  sector s-t01000-11  ran 3s  waited 1s  2m 00s ago  failed: [no-space] disk\u{fffd}[31m full
";
        let text = tell(&busy());
        assert_eq!(text, expected, "{text}");
        let nobody = Machine { runtime_dir: "/run/x".to_owned(), ..Machine::default() };
        assert_eq!(tell(&nobody), "no supervisor is running in /run/x\n");
    }

    #[test]
    fn of_a_device_only_what_is_wrong_is_told() {
        let device = |standing: &str, wrong| Device {
            name: "A100 (GPU-7)".to_owned(),
            standing: standing.to_owned(),
            since: 940.0,
            wrong,
            reason: None,
            replaced_by: (wrong == 2).then(|| "cpu".to_owned()),
        };
        assert_eq!(device_told(&device("good", 0), 1000.0), None);
        // Of an executor that was started anew.
        let again = device_told(&device("good", 1), 1000.0).expect("not forgotten");
        assert_eq!(again, "A100 (GPU-7) computed wrongly 1 times, good for 1m 00s");
        let out = device_told(&device("left_out", 2), 1000.0).expect("left out");
        assert_eq!(
            out,
            "A100 (GPU-7) computed wrongly 2 times, left out for 1m 00s; tasks are computed by cpu"
        );
    }

    #[test]
    fn supervisors_with_one_pid_in_two_namespaces_stay_apart() {
        let mut machine = busy();
        let other =
            Supervisor { pid_namespace: 77, foreign: true, ..machine.supervisors[0].clone() };
        machine.supervisors.push(other);
        let told = tell(&machine);
        let name = "pc2  supervisor 300@77 (in another pid namespace) serving";
        assert!(told.contains(name), "{told}");
        // One of the requests of the first one is in the common queue, none of the other one's.
        assert_eq!(waiting(&machine).len(), 1 + 1 + 2);
    }

    #[test]
    fn a_supervisor_that_hangs_is_told() {
        let mut machine = busy();
        machine.supervisors[0].written = 900.0;
        assert!(tell(&machine).contains("  has said nothing for 1m 40s\n"));
    }

    #[test]
    fn numbers_are_short() {
        for (seconds, text) in
            [(-3.0, "0s"), (59.9, "59s"), (60.0, "1m 00s"), (7260.0, "2h 01m"), (9e4, "1d 01h")]
        {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!([1_u64 << 10, 5 << 20, 64 << 30].map(size), ["1 KiB", "5 MiB", "64.0 GiB"]);
        assert_eq!([3.0, 4200.0, 1.1e6, 2e9].map(short), ["3.0", "4.2 k", "1.1 M", "2.0 G"]);
    }
}
