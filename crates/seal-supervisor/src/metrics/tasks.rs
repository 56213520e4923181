//! What is told of running tasks: how far the present part and the whole are, and what they wait for.

use super::render::{Labels, Out};
use crate::status::{Progress, SupervisorStatus, Task, share};

/// What a task can wait for, by the beginning of what its executor tells. The texts themselves name
/// processes and times, so that each would be a series of its own.
const WAITS: [(&str, &str); 8] = [
    ("for a seat:", "seat"),
    ("for memory:", "memory"),
    ("for its turn:", "turn"),
    ("for parameters:", "parameters"),
    ("for the parents cache:", "parents-cache"),
    ("for its executor,", "executor"),
    // `for pc1-exec, pid 7, which still works there`
    ("for ", "other-process"),
    ("", "other"),
];

/// The name of what a task waits for.
fn waits_for(text: &str) -> &'static str {
    let of = |(beginning, _): &&(&str, &str)| match *beginning {
        "for " => text.starts_with("for ") && text.contains("which still works there"),
        beginning => text.starts_with(beginning),
    };
    WAITS.iter().find(of).map_or("other", |(_, name)| name)
}

impl Out {
    pub(super) fn tasks(&mut self, supervisors: &[SupervisorStatus]) {
        type OfPart = fn(&Progress) -> Option<f64>;
        let families: [(&str, &str, OfPart); 3] = [
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
            self.each_task(supervisors, |out, labels, task| {
                let Some(progress) = &task.progress else { return };
                let Some(value) = value(progress) else { return };
                let more = [("part", progress.part.as_str()), ("unit", progress.unit.as_str())];
                let labels: Vec<_> = labels.iter().copied().chain(more).collect();
                out.sample(name, &labels, value);
            });
        }
        type OfTask = fn(&Task) -> Option<f64>;
        let families: [(&str, &str, OfTask); 2] = [
            (
                "seal_task_whole_ratio",
                "How much of all the work of a running task is done.",
                |task| task.whole,
            ),
            (
                "seal_task_whole_left_seconds",
                "How long all the rest of it will take, from when it goes on if it waits.",
                |task| task.left,
            ),
        ];
        for (name, help, value) in families {
            self.family(name, "gauge", help);
            self.each_task(supervisors, |out, labels, task| {
                if let Some(value) = value(task) {
                    out.sample(name, labels, value);
                }
            });
        }
        let name = "seal_task_waits";
        self.family(name, "gauge", "1 for what a running task waits for, if it does not go on.");
        self.each_task(supervisors, |out, labels, task| {
            let present = task.waits.as_deref().map(waits_for);
            for (_, what) in WAITS {
                let labels: Vec<_> = labels.iter().copied().chain([("for", what)]).collect();
                out.sample(name, &labels, f64::from(u8::from(present == Some(what))));
            }
        });
    }

    fn each_task(
        &mut self,
        supervisors: &[SupervisorStatus],
        mut tell: impl FnMut(&mut Self, Labels<'_>, &Task),
    ) {
        self.each_executor(supervisors, |out, labels, executor| {
            for task in &executor.tasks {
                let unknown = format!("request {}", task.req);
                let sector = task.sector.as_deref().unwrap_or(&unknown);
                let labels: Vec<_> = labels.iter().copied().chain([("sector", sector)]).collect();
                tell(out, &labels, task);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use test_support::exposition::Exposition;

    use super::*;
    use crate::metrics::render::render;
    use crate::status::{MachineStatus, busy};

    #[test]
    fn the_rest_of_a_whole_task_and_what_it_waits_for_are_told_in_series_that_stay() {
        let mut machine = busy();
        let task = [
            ("stage", "pc2"),
            ("supervisor", "processors"),
            ("executor", "processors.pc2[0]"),
            ("sector", "s-t01000-12"),
        ];
        let page = |machine: &MachineStatus| {
            Exposition::parse(&render(machine)).expect("a strict reader takes it")
        };
        let first = page(&machine);
        assert_eq!(first.value("seal_task_whole_ratio", &task), Some(0.417));
        assert_eq!(first.value("seal_task_whole_left_seconds", &task), Some(11_000.0));
        let waits = |page: &Exposition| {
            let present = WAITS.iter().filter(|(_, what)| {
                let labels = [&task[..], &[("for", what)]].concat();
                page.value("seal_task_waits", &labels).expect("it is always there") == 1.0
            });
            present.map(|(_, what)| *what).collect::<Vec<_>>()
        };
        assert_eq!(waits(&first), ["seat"]);
        // Other processes and times make no other series.
        for (text, what) in [
            (
                Some("for pc1-exec, pid 4711, which still works there, 120 s at most"),
                &["other-process"][..],
            ),
            (
                Some("for another process, which still works there, 660 s at most"),
                &["other-process"],
            ),
            (Some("for its executor, which runs 3 other tasks"), &["executor"]),
            (Some("for memory: partitions of other tasks have what there is"), &["memory"]),
            (
                Some("for the parents cache: another task or process makes one there"),
                &["parents-cache"],
            ),
            (Some("for its turn: a partition of another task is proved"), &["turn"]),
            (Some("for parameters: those for 32GiB are being loaded"), &["parameters"]),
            (Some("for Godot"), &["other"]),
            (Some("because"), &["other"]),
            (None, &[]),
        ] {
            machine.supervisors[0].executors[0].tasks[0].waits = text.map(str::to_owned);
            let page = page(&machine);
            assert_eq!(waits(&page), what, "{text:?}");
            let series = |page: &Exposition| page.series().cloned().collect::<Vec<_>>();
            assert_eq!(series(&page), series(&first), "{text:?}");
        }
        let task = &mut machine.supervisors[0].executors[0].tasks[0];
        (task.whole, task.left) = (None, None);
        assert!(!render(&machine).contains("\nseal_task_whole_"), "it tells nothing of it");
    }
}
