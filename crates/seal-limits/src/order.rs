//! Who among the waiting comes first.
//!
//! Requests of one kind come in the order of their tickets. Between kinds that want the same
//! resource its [`Order`] decides. What does not want the same does not wait for each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::book::{Served, Waiter};
use crate::{Free, Needs, Resource};

/// Who gets a lock first when several kinds of request wait for it. The place in a kind's limit is
/// wanted by that kind alone and always goes by arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Order<K> {
    /// The kinds take turns: the one that has had the lock the longest time ago comes first, so
    /// that none of them starves however many requests the others have.
    #[default]
    Turns,
    /// The request that came first, of whatever kind.
    Arrival,
    /// The request of the kind that is named first; kinds that are not named come last, by
    /// arrival. They can starve; that is what it means.
    Priority(Vec<K>),
}

/// Those who wait, to be served one after the other.
pub(crate) struct Line<'a, K> {
    /// Waiters of one kind that want the same are a class, whose first one stands for all. There
    /// are few classes, however many wait. The first one of each is at the end.
    classes: Vec<Vec<&'a Waiter<K>>>,
}

impl<'a, K: Clone + Ord> Line<'a, K> {
    pub(crate) fn of(waiting: impl Iterator<Item = &'a Waiter<K>>) -> Self {
        let mut classes = BTreeMap::<(&K, Vec<&Needs>), Vec<&Waiter<K>>>::new();
        for waiter in waiting {
            let mut wants: Vec<_> = waiter.choices.iter().collect();
            wants.sort();
            classes.entry((&waiter.kind, wants)).or_default().push(waiter);
        }
        let mut classes: Vec<_> = classes.into_values().collect();
        for class in &mut classes {
            class.sort_by_key(|waiter| std::cmp::Reverse(waiter.ticket));
        }
        Self { classes }
    }

    /// Who is next, with this left and this served.
    pub(crate) fn next(
        &mut self,
        orders: &BTreeMap<Resource, Order<K>>,
        served: &Served<K>,
        free: &Free,
    ) -> Option<&'a Waiter<K>> {
        let heads: Vec<_> = self.classes.iter().filter_map(|class| class.last().copied()).collect();
        let is_first = |head: &&Waiter<K>| {
            !heads.iter().any(|other| comes_before(other, head, orders, served, free))
        };
        // Different locks may put two kinds in different orders; then the earlier one goes first.
        let first = heads.iter().copied().filter(is_first).min_by_key(|head| head.ticket);
        let first = first.or_else(|| heads.iter().copied().min_by_key(|head| head.ticket))?;
        for class in &mut self.classes {
            class.pop_if(|head| head.ticket == first.ticket);
        }
        self.classes.retain(|class| !class.is_empty());
        Some(first)
    }
}

/// Whether `a` has precedence over `b` because of something that both want.
fn comes_before<K: Clone + Ord>(
    a: &Waiter<K>,
    b: &Waiter<K>,
    orders: &BTreeMap<Resource, Order<K>>,
    served: &Served<K>,
    free: &Free,
) -> bool {
    // Where they want several things in common, they compete for the one that is to be had.
    let shared: Vec<_> = a.wants().filter(|want| b.wants().any(|other| other == *want)).collect();
    let is_to_be_had = |resource: &&&Resource| {
        matches!(resource, Resource::Lock(_)) && free.get(**resource).is_some_and(|free| *free > 0)
    };
    let Some(resource) = shared.iter().find(is_to_be_had).or(shared.first()).copied() else {
        return false;
    };
    let by_ticket = a.ticket < b.ticket;
    if a.kind == b.kind {
        return by_ticket;
    }
    match orders.get(resource).unwrap_or(&Order::Turns) {
        Order::Arrival => by_ticket,
        Order::Priority(kinds) => {
            let rank = |kind: &K| kinds.iter().position(|named| named == kind);
            let [rank_a, rank_b] = [&a.kind, &b.kind].map(|kind| rank(kind).unwrap_or(usize::MAX));
            if rank_a == rank_b { by_ticket } else { rank_a < rank_b }
        }
        Order::Turns => {
            let [last_a, last_b] = [&a.kind, &b.kind].map(|kind| served.last(resource, kind));
            if last_a == last_b { by_ticket } else { last_a < last_b }
        }
    }
}
