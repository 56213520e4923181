//! How fast the tasks of a process went: the next one that has the same work is told a right time
//! from its begin.

use std::sync::{Mutex, PoisonError};

use crate::whole::{Paces, Plan, Whole};

/// Of so many kinds of work: an executor has few.
const KEPT: usize = 16;

/// What is remembered, by the weight of the plan, the last first.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<Vec<(f64, Paces)>>);

impl Memory {
    /// `plan`, with what an earlier task of the same work has shown.
    pub(crate) fn plan(&self, plan: Plan) -> Plan {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = kept.iter().find(|(weight, _)| *weight == plan.weight());
        match same {
            Some((_, paces)) => plan.knowing(paces),
            None => plan,
        }
    }

    /// Keeps what a task that is done has shown. Of one that was stopped on its way nothing is kept.
    pub(crate) fn keep(&self, whole: &Whole) {
        if !whole.is_done() {
            return;
        }
        let weight = whole.weight();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(of, _)| *of == weight);
        // Kinds that this one did not have, because an earlier run had done them, stay.
        let mut paces = at.map(|at| kept.remove(at).1).unwrap_or_default();
        paces.extend(whole.shown());
        kept.insert(0, (weight, paces));
        kept.truncate(KEPT);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Step;

    fn plan(labels: f64) -> Plan {
        let steps = [Step::new("columns", "column", 10.0), Step::new("rows", "row", labels)];
        Plan::default().then(steps)
    }

    /// Rows take ten times as long as they were thought to.
    fn done(plan: Plan, up_to: u64) -> Whole {
        let mut whole = Whole::new(plan);
        whole.at(Duration::from_secs(10), "columns", 1, 1);
        for step in 1..=up_to {
            whole.at(Duration::from_secs(10 + 10 * step), "rows", step, 10);
        }
        whole
    }

    fn left_of_next(memory: &Memory, labels: f64) -> f64 {
        let mut whole = Whole::new(memory.plan(plan(labels)));
        whole.at(Duration::from_secs(10), "columns", 1, 1);
        let left = whole.standing(Duration::from_secs(10)).left;
        left.expect("half of the work was seen").as_secs_f64()
    }

    #[test]
    fn the_next_task_of_the_same_work_is_told_a_right_time_from_its_begin() {
        let memory = Memory::default();
        assert_eq!(left_of_next(&memory, 10.0), 10.0);
        memory.keep(&done(plan(10.0), 10));
        assert_eq!(left_of_next(&memory, 10.0), 100.0);
        assert_eq!(left_of_next(&memory, 20.0), 20.0, "that is other work");
    }

    #[test]
    fn a_task_that_was_stopped_is_not_remembered() {
        let memory = Memory::default();
        memory.keep(&done(plan(10.0), 9));
        assert_eq!(left_of_next(&memory, 10.0), 10.0);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let memory = Memory::default();
        for labels in 1..100 {
            let labels = f64::from(labels);
            memory.keep(&done(plan(labels), 10));
        }
        assert_eq!(memory.0.into_inner().expect("no panic").len(), KEPT);
    }
}
