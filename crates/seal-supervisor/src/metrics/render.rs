//! The text.

use std::fmt::Write;

use seal_wire::DeviceStanding;

use crate::status::{BOUNDS, Histogram, MachineStatus, SupervisorStatus, share};

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
    let mut out = Out { text: String::new() };
    out.supervisors(&machine.supervisors);
    out.executors(&machine.supervisors);
    out.devices(&machine.supervisors);
    out.tasks(&machine.supervisors);
    out.durations(&machine.supervisors);
    out.resources(machine);
    out.text
}

struct Out {
    text: String,
}

type Labels<'a> = &'a [(&'a str, &'a str)];

impl Out {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: Labels<'_>, value: f64) {
        self.text.push_str(name);
        let mut separator = '{';
        for (label, value) in labels {
            let _ = write!(self.text, "{separator}{label}=\"{}\"", escaped(value));
            separator = ',';
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
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
                let pid = supervisor.name();
                let labels = [("stage", supervisor.stage.as_str()), ("supervisor", &pid)];
                self.sample(name, &labels, value(supervisor));
            }
        }
        let name = "seal_tasks_failed_total";
        self.family(name, "counter", "Tasks that failed, by the code of their error.");
        for supervisor in supervisors {
            let pid = supervisor.name();
            for (code, count) in &supervisor.failed {
                let labels =
                    [("stage", supervisor.stage.as_str()), ("supervisor", &pid), ("code", code)];
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

    fn each_executor(
        &mut self,
        supervisors: &[SupervisorStatus],
        mut tell: impl FnMut(&mut Self, Labels<'_>, &crate::status::Executor),
    ) {
        for supervisor in supervisors {
            let pid = supervisor.name();
            for executor in &supervisor.executors {
                let labels = [
                    ("stage", supervisor.stage.as_str()),
                    ("supervisor", pid.as_str()),
                    ("executor", executor.key.as_str()),
                ];
                tell(self, &labels, executor);
            }
        }
    }

    fn tasks(&mut self, supervisors: &[SupervisorStatus]) {
        type Value = fn(&crate::status::Progress) -> Option<f64>;
        let families: [(&str, &str, Value); 3] = [
            (
                "seal_task_progress_ratio",
                "How much of the present part of a running task is done.",
                |progress| Some(share(progress)),
            ),
            (
                "seal_task_rate",
                "How fast that goes, in the unit told by `unit`, each second.",
                |p| Some(p.per_second),
            ),
            ("seal_task_left_seconds", "How long that part will still take.", |p| p.left),
        ];
        for (name, help, value) in families {
            self.family(name, "gauge", help);
            self.each_executor(supervisors, |out, labels, executor| {
                for task in &executor.tasks {
                    let Some(progress) = &task.progress else { continue };
                    let Some(value) = value(progress) else { continue };
                    let sector = task.sector.as_deref().unwrap_or_default();
                    let more = [
                        ("sector", sector),
                        ("part", progress.part.as_str()),
                        ("unit", progress.unit.as_str()),
                    ];
                    let labels: Vec<_> = labels.iter().copied().chain(more).collect();
                    out.sample(name, &labels, value);
                }
            });
        }
    }

    fn durations(&mut self, supervisors: &[SupervisorStatus]) {
        let name = "seal_task_duration_seconds";
        self.family(name, "histogram", "How long tasks ran, without waiting.");
        for supervisor in supervisors {
            let pid = supervisor.name();
            let measures = &supervisor.measures;
            for (result, by_executor) in [("done", &measures.done), ("failed", &measures.failed)] {
                for (executor, histogram) in by_executor {
                    let labels = [
                        ("stage", supervisor.stage.as_str()),
                        ("supervisor", &pid),
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
            let pid = supervisor.name();
            let labels = [("stage", supervisor.stage.as_str()), ("supervisor", &pid)];
            self.histogram(name, &labels, &supervisor.measures.waited);
        }
        let name = "seal_resource_hold_seconds";
        self.family(name, "histogram", "How long tasks held a limit or lock.");
        for supervisor in supervisors {
            let pid = supervisor.name();
            for (resource, histogram) in &supervisor.measures.held {
                let labels = [
                    ("stage", supervisor.stage.as_str()),
                    ("supervisor", &pid),
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
    use std::collections::BTreeSet;

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
        let own = "stage=\"pc2\",supervisor=\"300\"";
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
                "seal_task_progress_ratio{{{executor},sector=\"t01000-12\",part=\"tree C\",\
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

    /// What a scraper checks: every sample belongs to the family named last, each family is named
    /// once, and no line is there twice.
    #[test]
    fn the_text_is_well_formed() {
        let text = render(&busy());
        let (mut families, mut lines) = (BTreeSet::new(), BTreeSet::new());
        let mut family = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().expect("a name");
                assert!(families.insert(family), "{family} is there twice");
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().expect("a name");
                let base = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|suffix| name.strip_suffix(suffix).filter(|base| *base == family));
                assert!(name == family || base.is_some(), "{line} is not of {family}");
                let value = line.rsplit(' ').next().expect("a value");
                value.parse::<f64>().expect("a number");
                let series = line.rsplit_once(' ').expect("a value").0;
                assert!(lines.insert(series), "{series} is there twice");
            }
        }
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn supervisors_with_one_pid_in_two_namespaces_are_two_series() {
        let mut machine = busy();
        let mut other = machine.supervisors[0].clone();
        (other.pid_namespace, other.foreign) = (77, true);
        machine.supervisors.push(other);
        let text = render(&machine);
        for supervisor in ["300", "300@77"] {
            let line = format!("seal_queue_length{{stage=\"pc2\",supervisor=\"{supervisor}\"}} 2");
            assert_eq!(text.lines().filter(|there| *there == line).count(), 1, "{text}");
        }
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
