//! Shares of a resource, given out in the order in which they are asked for.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A number of units. Who asks first is served first, so that a large request is not overtaken
/// by small ones for ever.
pub(crate) struct Turns {
    total: u64,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    free: u64,
    next: u64,
    waiting: VecDeque<u64>,
}

/// Units that go back when this is dropped.
pub(crate) struct Share<'a> {
    turns: &'a Turns,
    units: u64,
}

impl Turns {
    pub(crate) fn new(total: u64) -> Self {
        let state = State { free: total, next: 0, waiting: VecDeque::new() };
        Self { total, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// How many units there are.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Waits for `units`; `None` if there are not so many at all.
    pub(crate) fn take(&self, units: u64) -> Option<Share<'_>> {
        if units > self.total {
            return None;
        }
        let mut state = self.lock();
        let ticket = state.next;
        state.next += 1;
        state.waiting.push_back(ticket);
        while state.waiting.front() != Some(&ticket) || state.free < units {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting.pop_front();
        state.free -= units;
        drop(state);
        // The next one may fit as well.
        self.changed.notify_all();
        Some(Share { turns: self, units })
    }

    /// Numbers are whole whatever panics.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.turns.lock().free += self.units;
        self.turns.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    #[test]
    fn what_is_not_there_at_all_is_refused_at_once() {
        let turns = Turns::new(3);
        assert!(turns.take(4).is_none());
        assert!(turns.take(3).is_some());
        assert!(turns.take(3).is_some(), "it came back");
    }

    #[test]
    fn a_large_request_is_not_overtaken() {
        let turns = Turns::new(2);
        let first = turns.take(1).expect("free");
        let (told, order) = mpsc::channel();
        thread::scope(|scope| {
            let waiting = |count: usize| {
                while turns.lock().waiting.len() < count {
                    thread::yield_now();
                }
            };
            let large = told.clone();
            scope.spawn(|| {
                let _share = turns.take(2).expect("there are two");
                large.send("large").expect("open");
                drop(large);
            });
            waiting(1);
            scope.spawn(|| {
                // One unit is free, but the other came first.
                let _share = turns.take(1).expect("there are two");
                told.send("small").expect("open");
                drop(told);
            });
            waiting(2);
            drop(first);
        });
        assert_eq!(order.iter().collect::<Vec<_>>(), ["large", "small"]);
    }
}
