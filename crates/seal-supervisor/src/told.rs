//! What an executor has told of a task: the parts that are worked on, why it waits, and how far the
//! whole is.

use std::time::Instant;

use seal_wire::{Progress, Whole};

/// Parts of a task that are remembered: as many as go on side by side, and none of an executor that
/// tells of ever new ones.
const PARTS: usize = 16;

/// What was told of a task.
#[derive(Debug, Default)]
pub(crate) struct TaskProgress {
    /// The parts that are not complete, or the last one; the one told of last comes last.
    parts: Vec<Part>,
    /// Why it does not go on.
    pub(crate) waits: Option<String>,
    /// How far all of it is.
    pub(crate) whole: Option<Whole>,
}

/// A part of a task.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) told: Progress,
    /// When something was first told of it, and how much was done then.
    pub(crate) first: (Instant, u64),
    pub(crate) last: Instant,
}

impl Part {
    fn is_complete(&self) -> bool {
        self.told.done >= self.told.total
    }
}

impl TaskProgress {
    /// Takes note of it; whether it is news: the same figure again is none.
    pub(crate) fn take(&mut self, told: Progress, now: Instant) -> bool {
        let waits = std::mem::replace(&mut self.waits, told.waits.clone());
        self.whole = told.whole.or(self.whole);
        if told.part == Progress::WAITING {
            return waits != self.waits;
        }
        let same = self.parts.iter().position(|part| part.told.part == told.part);
        let same = same.map(|index| self.parts.remove(index));
        let moved = same.as_ref().is_none_or(|part| part.told.done != told.done);
        let first = same.map_or((now, told.done), |part| part.first);
        self.parts.push(Part { told, first, last: now });
        if self.parts.iter().any(|part| !part.is_complete()) {
            self.parts.retain(|part| !part.is_complete());
        }
        let surplus = self.parts.len().saturating_sub(PARTS);
        self.parts.drain(..surplus);
        moved
    }

    /// The part that people want to know of: the last one that the task waits for.
    pub(crate) fn shown(&self) -> Option<&Part> {
        let ahead = |part: &&Part| !part.is_complete() && !part.told.beside;
        self.parts.iter().rev().find(ahead).or(self.parts.last())
    }
}

#[cfg(test)]
mod tests {
    use seal_wire::ProgressUnit;

    use super::*;

    fn part(name: &str, done: u64, beside: bool) -> Progress {
        let progress = Progress::of(1, name.to_owned(), (done, 10), ProgressUnit::Steps);
        Progress { beside, ..progress }
    }

    fn shown(progress: &TaskProgress) -> (&str, u64) {
        let part = progress.shown().expect("told");
        (part.told.part.as_str(), part.told.done)
    }

    #[test]
    fn what_goes_on_beside_does_not_hide_what_the_task_waits_for() {
        let (mut progress, now) = (TaskProgress::default(), Instant::now());
        for told in [part("layer 1", 3, false), part("copy", 9, true)] {
            assert!(progress.take(told, now));
        }
        assert_eq!(shown(&progress), ("layer 1", 3));
        assert!(!progress.take(part("copy", 9, true), now), "the same figure again");
        assert!(progress.take(part("copy", 10, true), now));
        assert_eq!(shown(&progress), ("layer 1", 3));
        // The pace of a part is since its begin, whatever is told between.
        let later = now + std::time::Duration::from_secs(5);
        progress.take(part("layer 1", 4, false), later);
        assert_eq!(progress.shown().expect("told").first, (now, 3));
        progress.take(part("layer 1", 10, false), later);
        assert_eq!(shown(&progress), ("layer 1", 10));
    }

    #[test]
    fn a_task_that_waits_is_known_to_until_it_goes_on() {
        let (mut progress, now) = (TaskProgress::default(), Instant::now());
        let why = Some("for a seat".to_owned());
        let waits = Progress { waits: why.clone(), ..part(Progress::WAITING, 0, false) };
        assert!(progress.take(waits.clone(), now));
        assert!(!progress.take(waits, now));
        assert!(progress.shown().is_none(), "no part is worked on");
        progress.take(Progress { waits: why.clone(), ..part("copy", 10, true) }, now);
        assert_eq!((&progress.waits, shown(&progress)), (&why, ("copy", 10)));
        assert!(progress.take(part(Progress::WAITING, 10, false), now));
        assert_eq!(progress.waits, None);
    }

    #[test]
    fn older_executors_tell_of_the_part_alone_and_none_may_tell_without_end() {
        let (mut progress, now) = (TaskProgress::default(), Instant::now());
        for number in 0..1000 {
            progress.take(part(&format!("part {number}"), 1, false), now);
        }
        assert_eq!(progress.parts.len(), PARTS);
        assert_eq!((shown(&progress), progress.whole), (("part 999", 1), None));
    }
}
