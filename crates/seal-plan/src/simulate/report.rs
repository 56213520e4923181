//! What a simulation has shown, as data. All times are seconds.

use std::time::Duration;

use seal_config::LockOrder;
use seal_limits::{OVERTAKEN_MOST, Resource};
use seal_types::SectorSize;
use serde::Serialize;

use super::model::Model;
use super::tally::Tally;
use super::{Locks, Options, Supply};
use crate::figures::disk_of_sector;
use crate::{Bytes, Hardware, Scheme};

const DAY: f64 = 86_400.0;

/// What a simulation has shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// The configuration.
    pub scheme: String,
    /// The machine.
    pub machine: String,
    /// Who got locks.
    pub lock_order: String,
    /// Where sectors came from.
    pub supply: String,
    /// Where random numbers began.
    pub seed: u64,
    /// The time before the statistics.
    pub warm_up_s: f64,
    /// The time of the statistics.
    pub seconds: f64,
    /// Sectors finished in that time.
    pub finished: u64,
    /// Tasks that ended in that time, of all stages.
    pub tasks: u64,
    /// Sectors finished in a day.
    pub sectors_per_day: f64,
    /// The same in bytes of sectors, as TiB.
    pub tib_per_day: f64,
    /// How long a sector takes on average, with all waiting.
    pub passage_mean_s: f64,
    /// How long the slowest one took.
    pub passage_longest_s: f64,
    /// Sectors on their way, on average.
    pub in_flight_mean: f64,
    /// Sectors on their way, at most.
    pub in_flight_peak: f64,
    /// The stages in the order of sealing.
    pub stages: Vec<StageReport>,
    /// Limits and locks.
    pub locks: Vec<LockReport>,
    /// Cores, by who uses them.
    pub cores: Vec<CoreGroupReport>,
    /// GPUs that are used.
    pub gpus: Vec<GpuReport>,
    /// Memory of tasks and executors.
    pub memory: MemoryReport,
    /// What is busy most, and so limits the rest.
    pub busiest: String,
    /// What is wrong, in words.
    pub findings: Vec<String>,
    /// How everything went over time.
    pub courses: Vec<Course>,
}

/// A stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StageReport {
    /// Its name.
    pub stage: String,
    /// Its executors; 0 of a stage that the worker does by itself.
    pub executors: usize,
    /// Where its time comes from.
    pub source: String,
    /// Tasks that ended.
    pub done: u64,
    /// How long they ran on average.
    pub run_mean_s: f64,
    /// Tasks that ran at the same time, on average.
    pub running_mean: f64,
    /// Tasks that ran at the same time, at most.
    pub running_peak: f64,
    /// How long requests waited on average.
    pub wait_mean_s: f64,
    /// How long one waited at most.
    pub wait_longest_s: f64,
    /// The sector that did.
    pub wait_longest_sector: u64,
    /// Whether it waits still.
    pub wait_longest_goes_on: bool,
    /// Requests that waited, on average.
    pub queue_mean: f64,
    /// Requests that waited, at most.
    pub queue_peak: f64,
    /// Requests that wait at the end.
    pub queue_end: f64,
    /// Tasks that were answered with an error.
    pub failed: u64,
    /// Tasks that were sent again because their executor died.
    pub sent_again: u64,
    /// Deaths of its executors.
    pub deaths: u64,
    /// How often in a row others took a lock for which it waited.
    pub passed_by: u64,
    /// Whether that is starvation: more often than the rules ever let it happen.
    pub starves: bool,
}

/// A limit or lock.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LockReport {
    /// Its name, with `lock` or `limit` before it.
    pub name: String,
    /// How many tasks may hold it.
    pub count: u32,
    /// Which part of it was held on average.
    pub utilisation: f64,
    /// How many held it at most.
    pub peak: f64,
}

/// Cores that the same executors use.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CoreGroupReport {
    /// The cpus.
    pub cpus: String,
    /// How many.
    pub count: usize,
    /// The executors; none of free cores.
    pub users: Vec<String>,
    /// Which part of them was busy on average.
    pub utilisation: f64,
}

/// A GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct GpuReport {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub model: String,
    /// The part of the time in which a task used it.
    pub utilisation: f64,
    /// Executors that used it at the same time, at most.
    pub users_peak: f64,
}

/// Memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MemoryReport {
    /// In use on average, in bytes.
    pub mean: f64,
    /// In use at most, in bytes.
    pub peak: f64,
    /// What there is for it, in bytes.
    pub usable: u64,
}

/// A quantity over time, from the beginning of the simulation.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Course {
    /// What it is.
    pub name: String,
    /// What is as much as there can be; `None` if nothing limits it.
    pub most: Option<f64>,
    /// The time of each value.
    pub step_s: f64,
    /// Means over that time.
    pub values: Vec<f64>,
}

impl Report {
    pub(super) fn new(
        model: &Model,
        scheme: &Scheme,
        hardware: &Hardware,
        options: &Options,
        supply: Supply,
        tally: &mut Tally,
        end: Duration,
    ) -> Self {
        // Statistics that never began are those of nothing.
        let begun = tally.begun().unwrap_or(end);
        let seconds = end.saturating_sub(begun).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let sectors_per_day =
            if seconds > 0.0 { tally.finished() as f64 / seconds * DAY } else { 0.0 };
        let sector = Bytes(scheme.sector_size.bytes());
        let mut report = Self {
            scheme: model.config.display().to_string(),
            machine: hardware.name.clone(),
            lock_order: said_of_locks(&options.locks),
            supply: said_of_supply(supply),
            seed: options.seed,
            warm_up_s: begun.as_secs_f64(),
            seconds,
            finished: tally.finished(),
            tasks: tally.stages.iter().map(|stage| stage.runs.count).sum(),
            sectors_per_day,
            tib_per_day: sectors_per_day * sector.in_gib() / 1024.0,
            passage_mean_s: tally.passage.mean().as_secs_f64(),
            passage_longest_s: tally.passage.longest.as_secs_f64(),
            in_flight_mean: tally.in_flight.mean(begun, end),
            in_flight_peak: tally.in_flight.peak(),
            stages: Vec::new(),
            locks: Vec::new(),
            cores: Vec::new(),
            gpus: Vec::new(),
            memory: MemoryReport {
                mean: tally.memory.mean(begun, end),
                peak: tally.memory.peak(),
                usable: hardware.usable().0,
            },
            busiest: String::new(),
            findings: Vec::new(),
            courses: Vec::new(),
        };
        report.stages = stages(model, tally, begun, end);
        report.locks = locks(model, tally, begun, end);
        report.cores = cores(model, tally, begun, end);
        report.gpus = gpus(hardware, tally, begun, end);
        report.courses = courses(model, hardware, tally, end);
        report.busiest = busiest(&report);
        report.findings = findings(&report, model, tally);
        report
    }
}

impl Report {
    /// Adds what is to be said of disks with room for so many sectors. `enough` would have been on
    /// their way, had there been room.
    pub(super) fn judge_disks(&mut self, size: SectorSize, room: Option<u32>, enough: Option<u32>) {
        let Some(room) = room else { return };
        let each = disk_of_sector(size);
        if self.in_flight_peak > f64::from(room) {
            self.findings.push(format!(
                "{:.0} sectors were on their way at the same time, and the disks have room for \
                 {room} of {each}; let the worker have fewer, or add disks",
                self.in_flight_peak
            ));
        } else if let Some(enough) = enough.filter(|enough| *enough > room) {
            self.findings.push(format!(
                "the disks have room for {room} sectors of {each}, so no more were on their way; \
                 {enough} would keep everything busy whatever happens"
            ));
        }
    }
}

fn said_of_locks(locks: &Locks) -> String {
    match locks {
        Locks::AsConfigured => "as configured".to_owned(),
        Locks::Greedy => "greedy: whoever looks first".to_owned(),
        Locks::Ordered(LockOrder::Turns) => "turns".to_owned(),
        Locks::Ordered(LockOrder::Arrival) => "arrival".to_owned(),
        Locks::Ordered(LockOrder::Priority(stages)) => {
            let names: Vec<_> = stages.iter().map(|stage| stage.name()).collect();
            format!("priority: {}", names.join(", "))
        }
    }
}

fn said_of_supply(supply: Supply) -> String {
    match supply {
        Supply::InFlight(1) => "1 sector on its way at all times".to_owned(),
        Supply::InFlight(count) => format!("{count} sectors on their way at all times"),
        Supply::Every { mean, random } => {
            let how = if random { ", at random" } else { "" };
            let mean = Duration::from_millis(u64::try_from(mean.as_millis()).unwrap_or(u64::MAX));
            format!("a sector every {}{how}", humantime::format_duration(mean))
        }
    }
}

fn stages(model: &Model, tally: &mut Tally, begun: Duration, end: Duration) -> Vec<StageReport> {
    let deaths = |at: usize| {
        let of_stage = model.machines.iter().zip(&tally.machines);
        of_stage.filter(|(given, _)| given.stage == at).map(|(_, machine)| machine.deaths).sum()
    };
    let deaths: Vec<u64> = (0..model.stages.len()).map(deaths).collect();
    let given = model.stages.iter().zip(deaths);
    given
        .zip(&mut tally.stages)
        .map(|((given, deaths), stage)| StageReport {
            stage: given.name.to_string(),
            executors: given.executors.len(),
            source: given.source.clone(),
            done: stage.runs.count,
            run_mean_s: stage.runs.mean().as_secs_f64(),
            running_mean: stage.running.mean(begun, end),
            running_peak: stage.running.peak(),
            wait_mean_s: stage.waits.mean().as_secs_f64(),
            wait_longest_s: stage.waits.longest.as_secs_f64(),
            wait_longest_sector: stage.longest_sector,
            wait_longest_goes_on: stage.longest_goes_on,
            queue_mean: stage.queue.mean(begun, end),
            queue_peak: stage.queue.peak(),
            queue_end: stage.queue.value(),
            failed: stage.failed,
            sent_again: stage.again,
            deaths,
            passed_by: stage.passed_most,
            starves: stage.passed_most > u64::from(OVERTAKEN_MOST),
        })
        .collect()
}

fn locks(model: &Model, tally: &mut Tally, begun: Duration, end: Duration) -> Vec<LockReport> {
    let held = tally.held.iter_mut().filter(|(it, _)| model.is_used(it));
    held.map(|(resource, level)| {
        let count = model.counts[resource].get();
        LockReport {
            name: resource.to_string(),
            count,
            utilisation: level.mean(begun, end) / f64::from(count),
            peak: level.peak(),
        }
    })
    .collect()
}

fn cores(model: &Model, tally: &mut Tally, begun: Duration, end: Duration) -> Vec<CoreGroupReport> {
    let groups = model.groups.iter().zip(&mut tally.groups);
    groups
        .map(|(group, level)| CoreGroupReport {
            cpus: group.cpus.to_string(),
            count: group.cpus.len(),
            users: group.users.iter().map(|at| model.machines[*at].name()).collect(),
            utilisation: level.mean(begun, end),
        })
        .collect()
}

fn gpus(hardware: &Hardware, tally: &mut Tally, begun: Duration, end: Duration) -> Vec<GpuReport> {
    let report = |(index, gpu): (&u32, &mut super::tally::GpuTally)| GpuReport {
        index: *index,
        model: hardware.gpu(*index).map(|gpu| gpu.model.clone()).unwrap_or_default(),
        utilisation: gpu.busy.mean(begun, end),
        users_peak: gpu.users.peak(),
    };
    tally.gpus.iter_mut().map(report).collect()
}

fn courses(model: &Model, hardware: &Hardware, tally: &mut Tally, end: Duration) -> Vec<Course> {
    let course = |name: String, most: Option<f64>, level: &mut super::level::Level| {
        let (step, values) = level.course(end);
        Course { name, most, step_s: step.as_secs_f64(), values }
    };
    let mut courses = Vec::new();
    for (given, stage) in model.stages.iter().zip(&mut tally.stages) {
        if !given.executors.is_empty() {
            let most = model.seats(given);
            courses.push(course(format!("{} running", given.name), most, &mut stage.running));
            courses.push(course(format!("{} waiting", given.name), None, &mut stage.queue));
        }
    }
    for (resource, level) in &mut tally.held {
        if matches!(resource, Resource::Lock(_)) && model.is_used(resource) {
            let most = f64::from(model.counts[resource].get());
            courses.push(course(resource.to_string(), Some(most), level));
        }
    }
    for (index, gpu) in &mut tally.gpus {
        courses.push(course(format!("GPU {index} busy"), Some(1.0), &mut gpu.busy));
    }
    let usable = hardware.usable().in_gib();
    let mut memory = course("memory in GiB".to_owned(), Some(usable), &mut tally.memory);
    memory.values.iter_mut().for_each(|bytes| *bytes /= f64::from(1_u32 << 30));
    courses.push(memory);
    courses.push(course("sectors on their way".to_owned(), None, &mut tally.in_flight));
    courses
}

/// What is busy most of the time.
fn busiest(report: &Report) -> String {
    let cores = report.cores.iter().filter(|group| !group.users.is_empty());
    let cores = cores
        .map(|group| (group.utilisation, format!("the cores of {}", group.users.join(" and "))));
    let gpus = report.gpus.iter().map(|gpu| (gpu.utilisation, format!("GPU {}", gpu.index)));
    let locks = report.locks.iter().map(|lock| (lock.utilisation, format!("the {}", lock.name)));
    let all = gpus.chain(locks).chain(cores);
    let most = all.fold(None::<(f64, String)>, |most, it| match most {
        Some(most) if most.0 >= it.0 - 1e-9 => Some(most),
        _ => Some(it),
    });
    most.map(|(part, name)| format!("{name} ({:.0} %)", part * 100.0)).unwrap_or_default()
}

fn findings(report: &Report, model: &Model, tally: &Tally) -> Vec<String> {
    let mut findings = Vec::new();
    for stage in &report.stages {
        let name = &stage.stage;
        if stage.starves {
            findings.push(format!(
                "{name} starves: {} times in a row others took a lock for which it waited; give the \
                 lock order = \"turns\" and run all stages under seal-supervisor",
                stage.passed_by
            ));
        }
        let queue = report.courses.iter().find(|course| course.name == format!("{name} waiting"));
        if let Some((early, late)) = queue.and_then(growth) {
            findings.push(format!(
                "requests of {name} pile up: {early:.0} waited in the second quarter of the time, \
                 {late:.0} in the last; {name} is slower than what comes before it, so disks fill"
            ));
        }
    }
    for (given, machine) in model.machines.iter().zip(&tally.machines) {
        if machine.given_up {
            findings.push(format!(
                "{} died and is not started again; set auto_restart = true for it",
                given.key
            ));
        }
    }
    for gpu in report.gpus.iter().filter(|gpu| gpu.users_peak > 1.0) {
        findings.push(format!(
            "GPU {} was used by {:.0} executors at the same time; give them a common lock, or a GPU \
             each",
            gpu.index, gpu.users_peak
        ));
    }
    #[expect(clippy::cast_precision_loss, reason = "a comparison for people")]
    let usable = report.memory.usable as f64;
    if report.memory.peak > usable {
        let gib = |bytes: f64| bytes / f64::from(1_u32 << 30);
        findings.push(format!(
            "tasks held {:.0} GiB of memory at the same time, and there are {:.0} GiB; run fewer",
            gib(report.memory.peak),
            gib(usable)
        ));
    }
    if report.finished == 0 {
        findings.push(
            "no sector was finished; simulate more days, or look at what the queues wait for"
                .to_owned(),
        );
    }
    findings
}

/// The means of the second and the last quarter of a queue that grows.
fn growth(queue: &Course) -> Option<(f64, f64)> {
    let quarter = queue.values.len() / 4;
    if quarter == 0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let early = mean(&queue.values[quarter..2 * quarter]);
    let late = mean(&queue.values[queue.values.len() - quarter..]);
    (late > 1.5 * early + 5.0).then_some((early, late))
}
