//! Executors as the rules see them: how much room they have, and which one is tried first.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::num::NonZeroU32;

use crate::{Needs, Resource};

/// An executor.
#[derive(Clone, Debug)]
pub struct Place {
    /// Whether it takes requests now.
    pub ready: bool,
    /// Tasks it is running.
    pub running: u32,
    /// Tasks it runs at the same time; `None` is any number.
    pub concurrent: Option<NonZeroU32>,
    /// What each of its tasks holds.
    pub needs: Needs,
}

impl Place {
    /// How many more tasks it takes now. An executor that takes any number has no room for more
    /// than could ever run at the same time under `counts`; `u32::MAX` if nothing limits it.
    pub fn room(&self, counts: &BTreeMap<Resource, NonZeroU32>) -> u32 {
        if !self.ready {
            return 0;
        }
        let counted = self.needs.iter().filter_map(|need| counts.get(need));
        let most = counted.chain(&self.concurrent).map(|count| count.get()).min();
        most.map_or(u32::MAX, |most| most.saturating_sub(self.running))
    }

    /// The order in which executors are tried: the fewest running tasks first, then the one with
    /// the most room left.
    fn load(&self) -> (u32, Reverse<u32>) {
        let room = self.concurrent.map_or(u32::MAX, |most| most.get().saturating_sub(self.running));
        (self.running, Reverse(room))
    }
}

/// The executors that have room, as indices of `places`, the one to be tried first at the front.
///
/// ```
/// use std::collections::BTreeMap;
/// use seal_limits::{Needs, Place, in_order_of_load};
///
/// let place = |running| Place { ready: true, running, concurrent: None, needs: Needs::default() };
/// let order = in_order_of_load(&[place(2), place(0), place(1)], &BTreeMap::new());
/// assert_eq!(order, [1, 2, 0]);
/// ```
pub fn in_order_of_load(places: &[Place], counts: &BTreeMap<Resource, NonZeroU32>) -> Vec<usize> {
    let mut open: Vec<_> = (0..places.len()).filter(|at| places[*at].room(counts) > 0).collect();
    open.sort_by_key(|at| (places[*at].load(), *at));
    open
}

/// So many requests of one supervisor have a place in the queue at most. The others get theirs as
/// these start.
pub const TICKETS_MOST: usize = 64;

/// What can be started now on the executors of a supervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Openings {
    /// The executors with room, as indices, the one to be tried first at the front.
    pub order: Vec<usize>,
    /// What tasks on them need, in that order, each once.
    pub choices: Vec<Needs>,
    /// So many of the waiting requests there is room for.
    pub room: usize,
}

impl Openings {
    /// The openings on `places` for `waiting` requests, with so many of each resource.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use seal_limits::{Needs, Openings, Place};
    ///
    /// let one = std::num::NonZeroU32::new(1);
    /// let place = |running| Place { ready: true, running, concurrent: one, needs: Needs::default() };
    /// let openings = Openings::of(&[place(1), place(0)], 5, &BTreeMap::new());
    /// assert_eq!((openings.order, openings.room), (vec![1], 1));
    /// ```
    pub fn of(places: &[Place], waiting: usize, counts: &BTreeMap<Resource, NonZeroU32>) -> Self {
        let order = in_order_of_load(places, counts);
        let room = order.iter().map(|at| places[*at].room(counts) as usize);
        let room = room.fold(0_usize, usize::saturating_add).min(waiting);
        let mut choices: Vec<Needs> = Vec::new();
        for at in &order {
            let needs = &places[*at].needs;
            if !choices.contains(needs) {
                choices.push(needs.clone());
            }
        }
        Self { order, choices, room }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).expect("tests count from 1")
    }

    fn place(running: u32, concurrent: Option<u32>) -> Place {
        let needs = [Resource::Limit("pc1".to_owned())].into_iter().collect();
        Place { ready: true, running, concurrent: concurrent.map(count), needs }
    }

    #[test]
    fn the_least_loaded_with_room_is_tried_first() {
        let sick = Place { ready: false, ..place(0, None) };
        for (places, expected) in [
            (vec![place(2, None), place(1, None)], vec![1, 0]),
            (vec![place(1, Some(1)), place(3, Some(4))], vec![1]),
            (vec![place(1, Some(2)), place(1, Some(8))], vec![1, 0]),
            (vec![place(1, None), place(1, None)], vec![0, 1]),
            (vec![place(1, Some(1))], vec![]),
            (vec![sick.clone(), place(5, None)], vec![1]),
            (vec![sick], vec![]),
            (vec![], vec![]),
        ] {
            assert_eq!(in_order_of_load(&places, &BTreeMap::new()), expected, "{places:?}");
        }
    }

    #[test]
    fn room_is_never_more_than_could_run_at_the_same_time() {
        let counts = BTreeMap::from([(Resource::Limit("pc1".to_owned()), count(8))]);
        assert_eq!(place(0, None).room(&counts), 8);
        assert_eq!(place(3, Some(14)).room(&counts), 5);
        assert_eq!(place(3, Some(4)).room(&counts), 1);
        assert_eq!(place(9, None).room(&counts), 0);
        assert_eq!(place(9, None).room(&BTreeMap::new()), u32::MAX);
        assert_eq!(Place { ready: false, ..place(0, None) }.room(&counts), 0);
    }

    #[test]
    fn openings_name_each_choice_once_in_the_order_of_load() {
        let locked = |name: &str, running| {
            let needs = [Resource::Lock(name.to_owned())].into_iter().collect();
            Place { needs, ..place(running, Some(4)) }
        };
        let places = [locked("gpu1", 2), locked("gpu2", 1), locked("gpu1", 0), locked("gpu3", 4)];
        let openings = Openings::of(&places, 20, &BTreeMap::new());
        assert_eq!(openings.order, [2, 1, 0]);
        let names: Vec<_> =
            openings.choices.iter().flat_map(Needs::iter).map(Resource::name).collect();
        assert_eq!(names, ["gpu1", "gpu2"]);
        assert_eq!(openings.room, 2 + 3 + 4);
        assert_eq!(Openings::of(&places, 7, &BTreeMap::new()).room, 7);
        let endless = [place(0, None), place(0, None)];
        assert_eq!(Openings::of(&endless, 7, &BTreeMap::new()).room, 7);
    }
}
