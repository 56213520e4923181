//! The text.

use std::collections::HashSet;
use std::fmt::Write;

use seal_types::shown;
use seal_wire::DeviceStanding;

use crate::status::{BOUNDS, Histogram, MachineStatus, SupervisorStatus};

/// The states that an executor can be in, of which one is 1.
const STATES: [&str; 8] = [
    "starting",
    "ready",
    "device-left-out",
    "ending",
    "waiting",
    "crash-loop",
    "given-up",
    "stopped",
];

/// All metrics.
pub(super) fn render(machine: &MachineStatus) -> String {
    let mut out = Out { text: String::new(), told: HashSet::new() };
    out.build_info(&machine.supervisors);
    out.supervisors(&machine.supervisors);
    out.executors(&machine.supervisors);
    out.devices(&machine.supervisors);
    out.tasks(&machine.supervisors);
    out.durations(&machine.supervisors);
    out.resources(machine);
    out.corruption(machine);
    out.text
}

pub(super) struct Out {
    text: String,
    /// The series that are there. One that is there twice makes scrapers refuse the whole page:
    /// whatever two tasks or supervisors call themselves, the first is told.
    told: HashSet<String>,
}

pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Out {
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    pub(super) fn sample(&mut self, name: &str, labels: Labels<'_>, value: f64) {
        let mut series = name.to_owned();
        let mut separator = '{';
        for (label, value) in labels {
            let _ = write!(series, "{separator}{label}=\"{}\"", escaped(&shown(value)));
            separator = ',';
        }
        if !labels.is_empty() {
            series.push('}');
        }
        if self.told.insert(series.clone()) {
            let _ = writeln!(self.text, "{series} {}", number(value));
        }
    }

    fn histogram(&mut self, name: &str, labels: Labels<'_>, histogram: &Histogram) {
        let mut count = 0;
        let bucket = format!("{name}_bucket");
        for (class, bound) in BOUNDS.iter().enumerate() {
            count += histogram.counts.get(class).copied().unwrap_or(0);
            let bound = bound.to_string();
            let labels: Vec<_> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            self.sample(&bucket, &labels, count as f64);
        }
        count += histogram.counts.get(BOUNDS.len()).copied().unwrap_or(0);
        let all: Vec<_> = labels.iter().copied().chain([("le", "+Inf")]).collect();
        self.sample(&bucket, &all, count as f64);
        self.sample(&format!("{name}_sum"), labels, histogram.sum);
        self.sample(&format!("{name}_count"), labels, count as f64);
    }

    fn build_info(&mut self, supervisors: &[SupervisorStatus]) {
        let name = "seal_build_info";
        self.family(name, "gauge", "1, with the version that runs.");
        for supervisor in supervisors {
            let instance = supervisor.label();
            let labels = [
                ("stage", supervisor.stage.as_str()),
                ("supervisor", &instance),
                ("version", &supervisor.version),
            ];
            self.sample(name, &labels, 1.0);
        }
    }

    fn supervisors(&mut self, supervisors: &[SupervisorStatus]) {
        type Value = fn(&SupervisorStatus) -> f64;
        let families: [(&str, &str, &str, Value); 5] = [
            ("seal_supervisor_start_time_seconds", "gauge", "When the supervisor started.", |s| {
                s.since
            }),
            (
                "seal_queue_length",
                "gauge",
                "Requests that wait for an executor, a limit or a lock.",
                |s| s.waiting as f64,
            ),
            ("seal_tasks_done_total", "counter", "Tasks that were done.", |s| s.done as f64),
            (
                "seal_tasks_again_total",
                "counter",
                "Tasks that were sent again because their executor died.",
                |s| s.again as f64,
            ),
            (
                "seal_executor_deaths_total",
                "counter",
                "Deaths of executors that were not asked to end.",
                |s| s.deaths as f64,
            ),
        ];
        for (name, kind, help, value) in families {
            self.family(name, kind, help);
            for supervisor in supervisors {
                let instance = supervisor.label();
                let labels = [("stage", supervisor.stage.as_str()), ("supervisor", &instance)];
                self.sample(name, &labels, value(supervisor));
            }
        }
        let name = "seal_tasks_failed_total";
        self.family(name, "counter", "Tasks that failed, by the code of their error.");
        for supervisor in supervisors {
            let instance = supervisor.label();
            for (code, count) in &supervisor.failed {
                let labels = [
                    ("stage", supervisor.stage.as_str()),
                    ("supervisor", &instance),
                    ("code", code),
                ];
                self.sample(name, &labels, *count as f64);
            }
        }
    }

    fn executors(&mut self, supervisors: &[SupervisorStatus]) {
        self.family("seal_executor_state", "gauge", "1 for the state that the executor is in.");
        self.each_executor(supervisors, |out, labels, executor| {
            for state in STATES {
                let labels: Vec<_> = labels.iter().copied().chain([("state", state)]).collect();
                let is = f64::from(u8::from(executor.state == state));
                out.sample("seal_executor_state", &labels, is);
            }
        });
        self.family("seal_executor_restarts_total", "counter", "Starts after the first one.");
        self.each_executor(supervisors, |out, labels, executor| {
            out.sample("seal_executor_restarts_total", labels, executor.restarts as f64);
        });
        self.family("seal_executor_tasks", "gauge", "Tasks that the executor runs.");
        self.each_executor(supervisors, |out, labels, executor| {
            out.sample("seal_executor_tasks", labels, executor.tasks.len() as f64);
        });
        self.family("seal_executor_resident_bytes", "gauge", "Resident memory of its process.");
        self.each_executor(supervisors, |out, labels, executor| {
            if let Some(live) = &executor.live {
                out.sample("seal_executor_resident_bytes", labels, live.resident as f64);
            }
        });
        self.family(
            "seal_executor_local_memory_ratio",
            "gauge",
            "How much of its memory lies on the NUMA node it was asked to use.",
        );
        self.each_executor(supervisors, |out, labels, executor| {
            if let Some(percent) = executor.live.as_ref().and_then(|live| live.percent_local) {
                out.sample("seal_executor_local_memory_ratio", labels, percent / 100.0);
            }
        });
    }

    fn devices(&mut self, supervisors: &[SupervisorStatus]) {
        let name = "seal_device_standing";
        self.family(name, "gauge", "1 for what the executor thinks of its device.");
        self.each_executor(supervisors, |out, labels, executor| {
            let Some(device) = &executor.device else { return };
            for standing in DeviceStanding::ALL.map(DeviceStanding::name) {
                let more = [("device", device.name.as_str()), ("standing", standing)];
                let labels: Vec<_> = labels.iter().copied().chain(more).collect();
                let is = f64::from(u8::from(device.standing == standing));
                out.sample(name, &labels, is);
            }
        });
        let name = "seal_device_wrong_total";
        self.family(name, "counter", "How often the device computed wrongly.");
        self.each_executor(supervisors, |out, labels, executor| {
            let Some(device) = &executor.device else { return };
            let more = [("device", device.name.as_str())];
            let labels: Vec<_> = labels.iter().copied().chain(more).collect();
            out.sample(name, &labels, device.wrong as f64);
        });
    }

    pub(super) fn each_executor(
        &mut self,
        supervisors: &[SupervisorStatus],
        mut tell: impl FnMut(&mut Self, Labels<'_>, &crate::status::Executor),
    ) {
        for supervisor in supervisors {
            let instance = supervisor.label();
            for executor in &supervisor.executors {
                let labels = [
                    ("stage", supervisor.stage.as_str()),
                    ("supervisor", instance.as_str()),
                    ("executor", executor.key.as_str()),
                ];
                tell(self, &labels, executor);
            }
        }
    }

    fn durations(&mut self, supervisors: &[SupervisorStatus]) {
        let name = "seal_task_duration_seconds";
        self.family(name, "histogram", "How long tasks ran, without waiting.");
        for supervisor in supervisors {
            let instance = supervisor.label();
            let measures = &supervisor.measures;
            for (result, by_executor) in [("done", &measures.done), ("failed", &measures.failed)] {
                for (executor, histogram) in by_executor {
                    let labels = [
                        ("stage", supervisor.stage.as_str()),
                        ("supervisor", &instance),
                        ("executor", executor),
                        ("result", result),
                    ];
                    self.histogram(name, &labels, histogram);
                }
            }
        }
        let name = "seal_task_waiting_seconds";
        self.family(name, "histogram", "How long tasks waited before they ran.");
        for supervisor in supervisors {
            let instance = supervisor.label();
            let labels = [("stage", supervisor.stage.as_str()), ("supervisor", &instance)];
            self.histogram(name, &labels, &supervisor.measures.waited);
        }
        let name = "seal_resource_hold_seconds";
        self.family(name, "histogram", "How long tasks held a limit or lock.");
        for supervisor in supervisors {
            let instance = supervisor.label();
            for (resource, histogram) in &supervisor.measures.held {
                let labels = [
                    ("stage", supervisor.stage.as_str()),
                    ("supervisor", &instance),
                    ("resource", resource),
                ];
                self.histogram(name, &labels, histogram);
            }
        }
    }

    fn resources(&mut self, machine: &MachineStatus) {
        for (name, help, value) in [
            ("seal_resource_count", "How many tasks may hold a limit or lock.", 0),
            ("seal_resource_held", "How many hold it.", 1),
        ] {
            self.family(name, "gauge", help);
            for resource in &machine.resources {
                let values = [resource.count, resource.held];
                let labels = [("kind", resource.kind.as_str()), ("name", &resource.name)];
                self.sample(name, &labels, f64::from(values[value]));
            }
        }
        self.family(
            "seal_resource_queue_length",
            "gauge",
            "Requests that wait for limits and locks.",
        );
        self.sample("seal_resource_queue_length", &[], machine.queue.len() as f64);
    }
}

/// A number as the format has it.
fn number(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".to_owned()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        value.to_string()
    }
}

fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use test_support::exposition::Exposition;

    use super::*;
    use crate::status::busy;

    #[test]
    fn what_happens_is_measured() {
        let mut machine = busy();
        let supervisor = &mut machine.supervisors[0];
        supervisor.failed.insert("no-space".to_owned(), 1);
        for seconds in [0.5, 30.0, 100_000.0] {
            let done = supervisor.measures.done.entry("processors.pc2[0]".to_owned());
            done.or_default().add(seconds);
        }
        let text = render(&machine);
        let own = "stage=\"pc2\",supervisor=\"processors\"";
        let executor = format!("{own},executor=\"processors.pc2[0]\"");
        for line in [
            format!("seal_tasks_done_total{{{own}}} 4"),
            format!("seal_tasks_failed_total{{{own},code=\"no-space\"}} 1"),
            format!("seal_executor_state{{{executor},state=\"ready\"}} 1"),
            format!("seal_executor_state{{{executor},state=\"crash-loop\"}} 0"),
            format!("seal_task_duration_seconds_bucket{{{executor},result=\"done\",le=\"1\"}} 1"),
            format!("seal_task_duration_seconds_bucket{{{executor},result=\"done\",le=\"60\"}} 2"),
            format!(
                "seal_task_duration_seconds_bucket{{{executor},result=\"done\",le=\"+Inf\"}} 3"
            ),
            format!("seal_task_duration_seconds_sum{{{executor},result=\"done\"}} 100030.5"),
            format!(
                "seal_task_progress_ratio{{{executor},sector=\"s-t01000-12\",part=\"tree C\",\
                 unit=\"bytes\"}} 0.25"
            ),
            "seal_resource_held{kind=\"lock\",name=\"gpu1\"} 1".to_owned(),
            "seal_resource_queue_length 1".to_owned(),
            format!(
                "seal_device_standing{{{executor},device=\"A100 (GPU-7)\",standing=\"suspect\"}} 1"
            ),
            format!(
                "seal_device_standing{{{executor},device=\"A100 (GPU-7)\",standing=\"good\"}} 0"
            ),
            format!("seal_device_wrong_total{{{executor},device=\"A100 (GPU-7)\"}} 1"),
        ] {
            assert!(text.lines().any(|there| there == line), "{line}\n{text}");
        }
    }

    fn parsed(machine: &MachineStatus) -> Exposition {
        let text = render(machine);
        Exposition::parse(&text).unwrap_or_else(|error| panic!("{error:#}\n{text}"))
    }

    /// A machine with all that can be told, some of it twice and some of it hostile.
    fn crowded() -> MachineStatus {
        let mut machine = busy();
        let supervisor = &mut machine.supervisors[0];
        supervisor.failed.insert("no-space".to_owned(), 1);
        supervisor.failed.insert(String::new(), 2);
        for executor in ["processors.pc2[0]", "processors.pc2[1]"] {
            for measure in [&mut supervisor.measures.done, &mut supervisor.measures.failed] {
                measure.entry(executor.to_owned()).or_default().add(5.0);
            }
        }
        supervisor.measures.held.entry("lock gpu1".to_owned()).or_default().add(1.0);
        supervisor.measures.waited.add(1e9);
        let executor = &mut supervisor.executors[0];
        let task = executor.tasks[0].clone();
        for (req, sector) in [(8, None), (9, None), (10, Some("a\"b\\c\nd\u{1b}[31m\u{e9}"))] {
            let mut task = task.clone();
            (task.req, task.sector) = (req, sector.map(str::to_owned));
            executor.tasks.push(task);
        }
        let progress = executor.tasks[3].progress.as_mut().expect("it tells");
        (progress.per_second, progress.left) = (f64::INFINITY, Some(f64::NAN));
        // The same sector again, which only a sender that repeats itself makes.
        executor.tasks.push(task);
        // A second supervisor of the stage, one in another namespace, one of an older version.
        for (instance, namespace) in [("processors-2", 0), ("processors", 77), ("", 78)] {
            let mut other = machine.supervisors[0].clone();
            other.instance = instance.to_owned();
            (other.pid_namespace, other.foreign) = (namespace, namespace > 0);
            machine.supervisors.push(other);
        }
        machine
    }

    #[test]
    fn a_strict_reader_takes_the_text_whatever_there_is() {
        let machine = crowded();
        let page = parsed(&machine);
        let done = |supervisor: &str| {
            page.value("seal_tasks_done_total", &[("stage", "pc2"), ("supervisor", supervisor)])
        };
        let names = ["processors", "processors-2", "300@78", "300@77"];
        assert_eq!(names.map(done), [Some(4.0), Some(4.0), Some(4.0), None]);
        let parts = |series: &&(String, test_support::exposition::Labels)| {
            series.0 == "seal_task_progress_ratio" && series.1["supervisor"] == "processors"
        };
        let sectors: Vec<_> =
            page.series().filter(parts).map(|(_, labels)| labels["sector"].as_str()).collect();
        let hostile = "a\"b\\c\\nd\\u{1b}[31m\u{e9}";
        assert_eq!(sectors, [hostile, "request 8", "request 9", "s-t01000-12"]);
        parsed(&MachineStatus::default());
    }

    /// What was counted goes on in the same series, or a graph begins anew at every restart.
    #[test]
    fn series_are_the_same_after_a_restart() {
        let before = busy();
        let mut after = before.clone();
        let supervisor = &mut after.supervisors[0];
        (supervisor.pid, supervisor.start_ticks, supervisor.since) = (4000, 99_999, 990.0);
        for executor in &mut supervisor.executors {
            executor.pid = executor.pid.map(|pid| pid + 4000);
        }
        let series =
            |machine: &MachineStatus| parsed(machine).series().cloned().collect::<Vec<_>>();
        assert_eq!(series(&before), series(&after));
    }

    #[test]
    fn sectors_of_two_miners_with_one_number_are_two_series() {
        let mut machine = busy();
        let tasks = &mut machine.supervisors[0].executors[0].tasks;
        tasks.push(tasks[0].clone());
        for (task, miner) in tasks.iter_mut().zip([1000, 1001]) {
            task.sector = Some(format!("s-t0{miner}-77"));
        }
        let page = parsed(&machine);
        let of = |series: &&(String, test_support::exposition::Labels)| {
            series.0 == "seal_task_rate" && series.1["sector"].ends_with("-77")
        };
        assert_eq!(page.series().filter(of).count(), 2);
    }

    #[test]
    fn the_version_of_each_supervisor_is_told() {
        let mut machine = busy();
        machine.supervisors[0].version = "1.2.3".to_owned();
        let labels = [("stage", "pc2"), ("supervisor", "processors"), ("version", "1.2.3")];
        assert_eq!(parsed(&machine).value("seal_build_info", &labels), Some(1.0));
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
