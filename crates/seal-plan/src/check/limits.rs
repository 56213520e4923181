//! Limits, locks and times that contradict each other or that nothing uses.

use std::collections::BTreeSet;

use seal_config::{LockOrder, StageName};
use seal_types::Stage;

use super::{Checking, Severity};
use crate::throughput::{Limit, throughput};
use crate::{Executor, Scheme};

impl Checking<'_> {
    pub(super) fn limits(&mut self) {
        for stage in self.config.concurrent.keys().copied().collect::<Vec<_>>() {
            self.stage_limit(stage);
        }
        for executor in self.scheme.executors.clone() {
            self.tasks_that_wait_inside(&executor);
        }
        self.locks();
        self.staggered();
        self.deadlines();
    }

    fn stage_limit(&mut self, stage: StageName) {
        let Some(limit) = self.scheme.limits.get(&stage).map(|limit| limit.get()) else { return };
        let key = self.limit_key(stage);
        let tables = self.config.executors.get(&stage).map_or(&[][..], |tables| tables);
        if tables.is_empty() {
            self.find(
                ("limit-unused", Severity::Warning),
                &key,
                format!("limits {stage}, which has no executor here"),
                format!("add a [[processors.{stage}]] table, or remove the limit"),
            );
            return;
        }
        // What all executors take together, as they are written.
        let counts: Option<Vec<u32>> =
            tables.iter().map(|table| table.concurrent.map(std::num::NonZeroU32::get)).collect();
        let counts = counts.unwrap_or_else(|| {
            // Without numbers of their own PC2 and C2 take one task after the other.
            let one_each = matches!(stage.served(), Some(Stage::Pc2 | Stage::C2));
            let own = self.scheme.stage(stage).map(|executor| executor.own);
            if one_each { own.map(|own| own.unwrap_or(limit)).collect() } else { vec![limit] }
        });
        let sum = counts.iter().fold(0_u32, |sum, count| sum.saturating_add(*count));
        if sum < limit {
            self.find(
                ("limit-never-reached", Severity::Warning),
                &key,
                format!("allows {limit} tasks, but all executors of {stage} take only {sum}"),
                format!("lower it to {sum}, or add executors"),
            );
        } else if sum > limit {
            self.find(
                ("limit-below-concurrent", Severity::Warning),
                &key,
                format!(
                    "allows {limit} tasks, but the executors of {stage} could take {sum}: {} of \
                     their places are never used",
                    sum - limit
                ),
                format!("raise it to {sum}, or lower what the executors take"),
            );
        }
    }

    /// The key under which the limit of a stage is written.
    fn limit_key(&self, stage: StageName) -> String {
        // The older table is ignored where the newer one is.
        let newer = format!("processors.limitation.concurrent.{stage}");
        match self.config.places.get(&newer) {
            Some(_) => newer,
            None => format!("processors.limit.{stage}"),
        }
    }

    /// Tasks beyond what an executor runs at a time are handed to it all the same: they wait
    /// inside, and hold limit and locks.
    fn tasks_that_wait_inside(&mut self, executor: &Executor) {
        let tables = self.config.executors.get(&executor.stage);
        let table = tables.and_then(|tables| tables.get(executor.index));
        let (Some(own), Some(wanted)) = (executor.own, table.and_then(|table| table.concurrent))
        else {
            return;
        };
        if wanted.get() > own {
            self.find(
                ("tasks-wait-inside", Severity::Warning),
                &format!("{}.concurrent", executor.key),
                format!(
                    "hands it {wanted} tasks, and it works on {own} at a time: the others wait \
                     inside while they hold their places and locks"
                ),
                format!("lower it to {own}, or add args = [\"--concurrent\", \"{wanted}\"]"),
            );
        }
    }

    fn locks(&mut self) {
        let used: BTreeSet<String> =
            self.scheme.executors.iter().flat_map(|executor| executor.locks.clone()).collect();
        for (name, lock) in self.scheme.locks.clone() {
            let quoted = crate::check::quoted_key(&name);
            if !used.contains(&name) {
                self.find(
                    ("lock-unused", Severity::Warning),
                    &format!("processors.ext_locks.{quoted}"),
                    "no executor holds this lock, so it keeps nothing apart".to_owned(),
                    format!("add locks = [{name:?}] to those that need it, or remove it"),
                );
                continue;
            }
            let stages: BTreeSet<StageName> = self
                .scheme
                .executors
                .iter()
                .filter(|executor| executor.locks.contains(&name))
                .map(|executor| executor.stage)
                .collect();
            if let LockOrder::Priority(named) = &lock.order {
                let key = format!("supervisor.locks.{quoted}.priority");
                let strangers: Vec<_> = named
                    .iter()
                    .filter(|stage| !stages.contains(stage))
                    .map(|s| s.name())
                    .collect();
                // Where no list is written, all stages are in it.
                if self.config.places.get(&key).is_some() && !strangers.is_empty() {
                    self.find(
                        ("lock-priority-unused", Severity::Warning),
                        &key,
                        format!("names {}, which never hold this lock", strangers.join(", ")),
                        "name stages whose executors have the lock",
                    );
                }
            }
        }
    }

    /// A distance between starts that allows fewer tasks than everything else would.
    fn staggered(&mut self) {
        let against = self.against;
        let mut without = self.scheme.clone();
        for (stage, distance) in std::mem::take(&mut without.staggered) {
            let alone =
                Scheme { staggered: [(stage, distance)].into_iter().collect(), ..without.clone() };
            let with = throughput(&alone, against.hardware, against.given);
            let free = throughput(&without, against.hardware, against.given);
            if with.limit == Limit::Staggered(stage) {
                self.find(
                    ("staggered-limits", Severity::Warning),
                    &format!("processors.limitation.staggered.{stage}"),
                    format!(
                        "{} between starts of {stage} allow {:.1} sectors a day, where {:.1} could \
                         be sealed",
                        humantime::format_duration(distance),
                        with.sectors_per_day,
                        free.sectors_per_day
                    ),
                    format!(
                        "make it shorter than {}",
                        humantime::format_duration(std::time::Duration::from_secs(whole_seconds(
                            86_400.0 / free.sectors_per_day
                        )))
                    ),
                );
            }
        }
    }

    /// A deadline that ends tasks before they can be done.
    fn deadlines(&mut self) {
        let against = self.against;
        let mut told = BTreeSet::new();
        for executor in self.scheme.executors.clone() {
            let stage = executor.stage;
            let Some(deadline) = self.config.supervisor.stage(stage).deadline else { continue };
            let time = crate::estimate::stage_time(
                &executor,
                against.hardware,
                against.sector_size,
                against.given,
            );
            let Some(time) = time.filter(|time| time.time > deadline) else { continue };
            if !told.insert(stage) {
                continue;
            }
            let own = format!("supervisor.{stage}.deadline");
            let key = match self.config.places.get(&own) {
                Some(_) => own,
                None => "supervisor.deadline".to_owned(),
            };
            let takes = std::time::Duration::from_secs(time.time.as_secs());
            self.find(
                ("deadline-short", Severity::Warning),
                &key,
                format!(
                    "ends a {stage} after {}, and one takes about {} ({})",
                    humantime::format_duration(deadline),
                    humantime::format_duration(takes),
                    time.source
                ),
                "give it at least twice the time a task takes, or use no_progress instead",
            );
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rounded positive number of seconds in a day or so"
)]
fn whole_seconds(seconds: f64) -> u64 {
    seconds.clamp(1.0, 1e9) as u64
}
