//! The choice of the next request to start.

use std::cmp::Reverse;
use std::num::NonZeroU32;

use crate::Needs;

/// An executor as the rules see it.
#[derive(Clone, Debug)]
pub struct Place<K> {
    /// The kind of request it serves.
    pub kind: K,
    /// Whether it takes requests now.
    pub ready: bool,
    /// Tasks it is running.
    pub running: u32,
    /// Tasks it runs at the same time; `None` is any number.
    pub concurrent: Option<NonZeroU32>,
    /// What each of its tasks holds.
    pub needs: Needs,
}

/// Counted resources that are taken together or not at all.
pub trait Semaphores {
    /// What holds the resources of one task.
    type Held;

    /// Takes everything in `needs`, in its order, or nothing.
    fn try_take(&mut self, needs: &Needs) -> Option<Self::Held>;
}

/// A request that starts now.
#[derive(Debug, PartialEq, Eq)]
pub struct Start<H> {
    /// Its index among the waiting.
    pub request: usize,
    /// The index of its executor.
    pub place: usize,
    /// The resources it holds from now on.
    pub held: H,
}

impl<K> Place<K> {
    /// Whether it takes another request now, as far as it is concerned itself.
    pub fn has_room(&self) -> bool {
        self.ready && self.concurrent.is_none_or(|most| self.running < most.get())
    }

    /// The order in which executors are tried: the fewest running tasks first, then the one with
    /// the most room left.
    fn load(&self) -> (u32, Reverse<u32>) {
        let room = self.concurrent.map_or(u32::MAX, |most| most.get().saturating_sub(self.running));
        (self.running, Reverse(room))
    }
}

/// The first request, in the order of `waiting` (the kinds of the waiting requests as they came),
/// that may start now. Call it again until it finds none.
pub fn next_start<K: PartialEq, S: Semaphores>(
    waiting: impl IntoIterator<Item = K>,
    places: &[Place<K>],
    semaphores: &mut S,
) -> Option<Start<S::Held>> {
    let mut seen = Vec::new();
    for (request, kind) in waiting.into_iter().enumerate() {
        // What holds up the first of a kind holds up all of it: they go to the same executors.
        if seen.contains(&kind) {
            continue;
        }
        let mut open: Vec<_> = (0..places.len())
            .filter(|index| places[*index].kind == kind && places[*index].has_room())
            .collect();
        open.sort_by_key(|index| (places[*index].load(), *index));
        for place in open {
            if let Some(held) = semaphores.try_take(&places[place].needs) {
                return Some(Start { request, place, held });
            }
        }
        seen.push(kind);
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{Counters, Grant, Resource};

    fn count(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).expect("tests count from 1")
    }

    fn place(running: u32, concurrent: Option<u32>, locks: &[&str]) -> Place<&'static str> {
        let needs = locks.iter().map(|name| Resource::Lock((*name).to_owned())).collect();
        Place { kind: "pc2", ready: true, running, concurrent: concurrent.map(count), needs }
    }

    fn counters(locks: &[(&str, u32)]) -> Counters {
        let lock = |(name, most): &(&str, u32)| (Resource::Lock((*name).to_owned()), count(*most));
        locks.iter().map(lock).collect()
    }

    fn chosen(places: &[Place<&'static str>]) -> Option<usize> {
        next_start(["pc2"], places, &mut counters(&[("gpu", 1)])).map(|start| start.place)
    }

    #[test]
    fn the_least_loaded_with_room_is_chosen() {
        let sick = Place { ready: false, ..place(0, None, &[]) };
        for (places, expected) in [
            (vec![place(2, None, &[]), place(1, None, &[])], Some(1)),
            (vec![place(1, Some(1), &[]), place(3, Some(4), &[])], Some(1)),
            (vec![place(1, Some(2), &[]), place(1, Some(8), &[])], Some(1)),
            (vec![place(1, None, &[]), place(1, None, &[])], Some(0)),
            (vec![place(1, Some(1), &[])], None),
            (vec![sick.clone(), place(5, None, &[])], Some(1)),
            (vec![sick], None),
            (vec![], None),
        ] {
            assert_eq!(chosen(&places), expected, "{places:?}");
        }
    }

    #[test]
    fn an_executor_whose_lock_is_free_is_preferred_to_waiting() {
        let places = [place(0, None, &["gpu1"]), place(7, None, &["gpu2"])];
        let mut counters = counters(&[("gpu1", 1), ("gpu2", 1)]);
        let first = next_start(["pc2"], &places, &mut counters).expect("all is free");
        assert_eq!(first.place, 0);
        let second = next_start(["pc2"], &places, &mut counters).expect("gpu2 is free");
        assert_eq!(second.place, 1);
        assert!(next_start(["pc2"], &places, &mut counters).is_none());
        counters.give_back(first.held);
        assert!(next_start(["pc2"], &places, &mut counters).is_some());
        counters.give_back(second.held);
    }

    #[test]
    fn a_kind_that_waits_does_not_hold_up_another() {
        let mut pc1 = place(0, Some(1), &[]);
        pc1.kind = "pc1";
        let places = [place(1, Some(1), &[]), pc1];
        let start = next_start(["pc2", "pc2", "pc1"], &places, &mut counters(&[]));
        assert_eq!(start.map(|start| (start.request, start.place)), Some((2, 1)));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arrive(u8),
        End(prop::sample::Index),
        Ready(prop::sample::Index, bool),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0_u8..3).prop_map(Step::Arrive),
            2 => any::<prop::sample::Index>().prop_map(Step::End),
            1 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(i, r)| Step::Ready(i, r)),
        ]
    }

    fn any_place() -> impl Strategy<Value = Place<u8>> {
        let locks = prop::collection::vec(prop::sample::select(vec!["x", "y", "z"]), 0..3);
        (0_u8..3, prop::option::of(1_u32..4), locks).prop_map(|(kind, concurrent, locks)| Place {
            kind,
            ready: true,
            running: 0,
            concurrent: concurrent.map(count),
            needs: locks
                .into_iter()
                .map(|name| Resource::Lock(name.to_owned()))
                .chain([Resource::Limit(kind.to_string())])
                .collect(),
        })
    }

    struct Running {
        arrival: usize,
        place: usize,
        grant: Grant,
    }

    /// Starts all that may start and checks what must hold afterwards.
    fn settle(
        waiting: &mut Vec<(usize, u8)>,
        running: &mut Vec<Running>,
        places: &mut [Place<u8>],
        counters: &mut Counters,
        last: &mut BTreeMap<u8, usize>,
    ) {
        let kinds = |waiting: &[(usize, u8)]| waiting.iter().map(|(_, k)| *k).collect::<Vec<_>>();
        while let Some(start) = next_start(kinds(waiting), places, counters) {
            let (arrival, kind) = waiting.remove(start.request);
            assert_eq!(places[start.place].kind, kind);
            assert!(places[start.place].has_room());
            assert!(last.insert(kind, arrival).is_none_or(|before| before < arrival));
            places[start.place].running += 1;
            running.push(Running { arrival, place: start.place, grant: start.held });
        }
        // Whoever still waits could not run anywhere.
        for (_, kind) in waiting {
            for place in places.iter().filter(|place| place.kind == *kind && place.has_room()) {
                let grant = counters.try_take(&place.needs);
                assert!(grant.is_none(), "a request waits although {place:?} could take it");
            }
        }
    }

    proptest! {
        #[test]
        fn limits_hold_nobody_is_starved_and_everything_ends(
            mut places in prop::collection::vec(any_place(), 1..6),
            steps in prop::collection::vec(any_step(), 0..80),
            most in prop::array::uniform6(1_u32..4),
        ) {
            let names = ["x", "y", "z"].map(|name| Resource::Lock(name.to_owned()));
            let limits = ["0", "1", "2"].map(|kind| Resource::Limit(kind.to_owned()));
            let table: BTreeMap<_, _> =
                names.into_iter().chain(limits).zip(most.map(count)).collect();
            let mut counters: Counters = table.clone().into_iter().collect();
            let (mut waiting, mut running) = (Vec::new(), Vec::<Running>::new());
            let mut last = BTreeMap::new();
            let end = |task: Running, places: &mut [Place<u8>], counters: &mut Counters| {
                places[task.place].running -= 1;
                counters.give_back(task.grant);
                task.arrival
            };
            let mut arrivals = 0..;
            for step in steps {
                match step {
                    Step::Arrive(kind) => {
                        waiting.push((arrivals.next().expect("endless"), kind));
                    }
                    Step::End(index) if !running.is_empty() => {
                        let task = running.remove(index.index(running.len()));
                        end(task, &mut places, &mut counters);
                    }
                    Step::End(_) => {}
                    Step::Ready(index, ready) => {
                        let index = index.index(places.len());
                        places[index].ready = ready;
                    }
                }
                settle(&mut waiting, &mut running, &mut places, &mut counters, &mut last);
                for (resource, most) in &table {
                    let holders = running
                        .iter()
                        .filter(|task| places[task.place].needs.iter().any(|need| need == resource));
                    prop_assert!(holders.count() <= most.get() as usize, "{resource}");
                }
            }
            // No deadlock: with everybody ready, ending one task after the other empties the queue.
            places.iter_mut().for_each(|place| place.ready = true);
            waiting.retain(|(_, kind)| places.iter().any(|place| place.kind == *kind));
            settle(&mut waiting, &mut running, &mut places, &mut counters, &mut last);
            while !running.is_empty() {
                end(running.remove(0), &mut places, &mut counters);
                settle(&mut waiting, &mut running, &mut places, &mut counters, &mut last);
            }
            prop_assert!(waiting.is_empty(), "{} requests wait for ever", waiting.len());
        }
    }
}
