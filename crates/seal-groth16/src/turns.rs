//! Shares of a resource, given out in the order in which they are asked for, and what is kept of the
//! same resource for longer.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::step::LOOK_EVERY;

/// A number of units. Who asks first is served first, so that a large request is not overtaken
/// by small ones for ever.
pub(crate) struct Turns {
    total: u64,
    /// What shares and everything that is kept may come to together.
    whole: u64,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    free: u64,
    /// What is kept beside the shares, and how much of it for ever.
    kept: u64,
    for_ever: u64,
    /// The largest shares that go with what is kept: there is always room for each beside what is kept,
    /// or those who wait for one would wait for each other.
    largest: Vec<u64>,
    next: u64,
    waiting: VecDeque<u64>,
}

/// A place among those who wait, left when this is dropped, whatever the reason.
struct Place<'a> {
    turns: &'a Turns,
    ticket: u64,
}

impl<'a> Place<'a> {
    fn last(turns: &'a Turns) -> Self {
        let mut state = turns.lock();
        let ticket = state.next;
        state.next += 1;
        state.waiting.push_back(ticket);
        Self { turns, ticket }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.turns.lock().waiting.retain(|ticket| *ticket != self.ticket);
        self.turns.changed.notify_all();
    }
}

/// Units that go back when this is dropped.
pub(crate) struct Share<'a> {
    turns: &'a Turns,
    units: u64,
}

/// Units that are kept until this is dropped.
pub(crate) struct Kept {
    turns: Arc<Turns>,
    units: u64,
    /// The largest share that goes with it.
    share: u64,
}

impl Turns {
    pub(crate) fn new(total: u64) -> Self {
        Self::within(total, u64::MAX)
    }

    /// `total` for shares, and `whole` for these and all that is kept.
    pub(crate) fn within(total: u64, whole: u64) -> Self {
        let total = total.min(whole);
        let state = State {
            free: total,
            kept: 0,
            for_ever: 0,
            largest: Vec::new(),
            next: 0,
            waiting: VecDeque::new(),
        };
        Self { total, whole, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// What there is for shares and what is kept, without what is kept for ever.
    pub(crate) fn whole(&self) -> u64 {
        self.whole.saturating_sub(self.lock().for_ever)
    }

    /// Keeps `units` for ever, whether there is room for them or not.
    pub(crate) fn keep_for_ever(&self, units: u64) {
        let mut state = self.lock();
        state.kept = state.kept.saturating_add(units);
        state.for_ever = state.for_ever.saturating_add(units);
    }

    /// Keeps `units`, if there is room for them beside what is taken now, and always for the largest
    /// share that goes with anything kept, of which this has `largest`. At most `most` are kept,
    /// without what is kept for ever.
    pub(crate) fn keep(self: &Arc<Self>, units: u64, largest: u64, most: u64) -> Option<Kept> {
        let mut state = self.lock();
        let share = largest;
        let largest = state.largest.iter().copied().fold(largest, u64::max);
        let kept = state.kept.checked_add(units)?;
        if kept - state.for_ever > most {
            return None;
        }
        let taken = self.total - state.free;
        if kept.checked_add(taken.max(largest))? > self.whole {
            return None;
        }
        state.kept = kept;
        state.largest.push(share);
        Some(Kept { turns: self.clone(), units, share })
    }

    fn fits(&self, state: &State, units: u64) -> bool {
        let taken = self.total - state.free;
        let all = state.kept.saturating_add(taken).saturating_add(units);
        // Where nothing is taken nobody will give anything back: what is kept for ever was not asked
        // for, and must not stop all.
        state.free >= units && (taken == 0 || all <= self.whole)
    }

    /// How many units there are.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// How many wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Waits for `units`, and asks now and then whether to; `None` if there are not so many at
    /// all.
    pub(crate) fn take<E>(
        &self,
        units: u64,
        go_on: &mut (impl FnMut() -> Result<(), E> + ?Sized),
    ) -> Result<Option<Share<'_>>, E> {
        if units > self.total {
            return Ok(None);
        }
        let place = Place::last(self);
        let mut state = self.lock();
        while state.waiting.front() != Some(&place.ticket) || !self.fits(&state, units) {
            let waited = self.changed.wait_timeout(state, LOOK_EVERY);
            let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = guard;
            if timeout.timed_out() {
                drop(state);
                go_on()?;
                state = self.lock();
            }
        }
        state.free -= units;
        drop(state);
        // With the place goes who stands before the next one, which may fit as well.
        Ok(Some(Share { turns: self, units }))
    }

    /// Numbers are whole whatever panics.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        state.kept -= self.units;
        if let Some(at) = state.largest.iter().position(|share| *share == self.share) {
            state.largest.swap_remove(at);
        }
        drop(state);
        self.turns.changed.notify_all();
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
    use std::convert::Infallible;
    use std::sync::mpsc;
    use std::thread;

    /// Waits as long as it takes.
    fn take(turns: &Turns, units: u64) -> Option<Share<'_>> {
        let Ok(share) = turns.take(units, &mut || Ok::<_, Infallible>(()));
        share
    }

    fn wait_for(turns: &Turns, waiting: usize) {
        while turns.waiting() < waiting {
            thread::yield_now();
        }
    }

    #[test]
    fn what_is_not_there_at_all_is_refused_at_once() {
        let turns = Turns::new(3);
        assert!(take(&turns, 4).is_none());
        assert!(take(&turns, 3).is_some());
        assert!(take(&turns, 3).is_some(), "it came back");
    }

    #[test]
    fn shares_and_what_is_kept_are_one_sum() {
        let turns = Arc::new(Turns::within(u64::MAX, 10));
        assert_eq!((turns.total(), turns.whole()), (10, 10));
        turns.keep_for_ever(1);
        assert_eq!(turns.whole(), 9);
        let kept = turns.keep(4, 3, 10).expect("there is room for a share of 3 beside it");
        assert!(turns.keep(3, 3, 10).is_none(), "no share of 3 could be taken then");
        let share = take(&turns, 3).expect("there is room");
        let mut asked = 0;
        let mut go_on = || {
            asked += 1;
            Err("it waits")
        };
        assert_eq!(turns.take(3, &mut go_on).err(), Some("it waits"), "there are 2 left");
        assert_eq!(asked, 1);
        assert!(turns.keep(3, 1, 10).is_none());
        drop(kept);
        assert!(take(&turns, 6).is_some(), "what was kept came back");
        let again = turns.keep(6, 3, 10).expect("as large as may be");
        assert!(turns.keep(0, 1, 5).is_none(), "more is kept than may be");
        drop((again, share));
        assert!(take(&turns, 9).is_some());
    }

    #[test]
    fn what_is_kept_for_ever_does_not_stop_those_for_whom_there_was_room() {
        let turns = Arc::new(Turns::within(u64::MAX, 10));
        let _kept = turns.keep(6, 4, 10).expect("there is room for a share of 4");
        // Another circuit was compiled meanwhile.
        turns.keep_for_ever(2);
        let one = take(&turns, 4).expect("one at a time goes on");
        let mut go_on = || Err("it waits");
        assert_eq!(turns.take(1, &mut go_on).err(), Some("it waits"));
        drop(one);
        assert!(take(&turns, 4).is_some());
    }

    #[test]
    fn a_share_of_what_is_gone_is_not_kept_room_for() {
        let turns = Arc::new(Turns::within(u64::MAX, 10));
        drop(turns.keep(1, 8, 10).expect("there is room for a share of 8"));
        assert!(turns.keep(5, 5, 10).is_some());
    }

    #[test]
    fn a_large_request_is_not_overtaken() {
        let turns = Turns::new(2);
        let first = take(&turns, 1).expect("free");
        let (told, order) = mpsc::channel();
        thread::scope(|scope| {
            let large = told.clone();
            scope.spawn(|| {
                let _share = take(&turns, 2).expect("there are two");
                large.send("large").expect("open");
                drop(large);
            });
            wait_for(&turns, 1);
            scope.spawn(|| {
                // One unit is free, but the other came first.
                let _share = take(&turns, 1).expect("there are two");
                told.send("small").expect("open");
                drop(told);
            });
            wait_for(&turns, 2);
            drop(first);
        });
        assert_eq!(order.iter().collect::<Vec<_>>(), ["large", "small"]);
    }

    #[test]
    fn who_gives_up_leaves_the_place_to_the_next() {
        let turns = Turns::new(2);
        let first = take(&turns, 1).expect("free");
        thread::scope(|scope| {
            let (give_up, may_give_up) = mpsc::channel();
            let large = scope.spawn(|| {
                let mut go_on = move || {
                    let _ = may_give_up.recv();
                    Err("no more patience")
                };
                turns.take(2, &mut go_on).err()
            });
            wait_for(&turns, 1);
            let small = scope.spawn(|| take(&turns, 1).is_some());
            wait_for(&turns, 2);
            give_up.send(()).expect("it asks");
            assert_eq!(large.join().expect("no panic"), Some("no more patience"));
            assert!(small.join().expect("no panic"), "though the first unit is still taken");
        });
        drop(first);
        assert_eq!(turns.waiting(), 0);
        assert!(take(&turns, 2).is_some());
    }

    #[test]
    fn who_panics_while_waiting_is_in_nobodys_way() {
        let turns = Turns::new(1);
        let first = take(&turns, 1).expect("free");
        fn panics() -> Result<(), ()> {
            panic!("on purpose")
        }
        let waited =
            thread::scope(|scope| scope.spawn(|| turns.take(1, &mut panics).is_ok()).join());
        assert!(waited.is_err());
        assert_eq!(turns.waiting(), 0);
        drop(first);
        assert!(take(&turns, 1).is_some());
    }
}
