//! Who among the waiting comes first.
//!
//! Requests of one kind come in the order of their tickets. Between kinds that want the same
//! resource its [`Order`] decides. What does not want the same does not wait for each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::book::{Served, Waiter};
use crate::{Needs, Resource};

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

/// All waiters in the order in which they would be served if each were served when it is due.
pub(crate) fn line_up<'a, K: Clone + Ord>(
    waiting: impl Iterator<Item = &'a Waiter<K>>,
    orders: &BTreeMap<Resource, Order<K>>,
    served: &Served<K>,
) -> Vec<&'a Waiter<K>> {
    // Waiters of one kind that want the same are a class, whose first one stands for all. There
    // are few classes, however many wait.
    let mut classes = BTreeMap::<(&K, Vec<&Needs>), Vec<&Waiter<K>>>::new();
    for waiter in waiting {
        let mut wants: Vec<_> = waiter.choices.iter().collect();
        wants.sort();
        classes.entry((&waiter.kind, wants)).or_default().push(waiter);
    }
    let mut queues: Vec<_> = classes.into_values().collect();
    for queue in &mut queues {
        queue.sort_by_key(|waiter| std::cmp::Reverse(waiter.ticket));
    }
    let mut served = served.clone();
    let mut line = Vec::new();
    while !queues.is_empty() {
        let heads: Vec<_> = queues.iter().filter_map(|queue| queue.last().copied()).collect();
        let free_to_go = |head: &&Waiter<K>| {
            !heads.iter().any(|other| comes_before(other, head, orders, &served))
        };
        // Different locks may put two kinds in different orders; then the earlier one goes first.
        let mut first = heads.iter().copied().filter(free_to_go).min_by_key(|head| head.ticket);
        first = first.or_else(|| heads.iter().copied().min_by_key(|head| head.ticket));
        let Some(first) = first else { break };
        for queue in &mut queues {
            queue.pop_if(|head| head.ticket == first.ticket);
        }
        queues.retain(|queue| !queue.is_empty());
        if let Some(choice) = first.choices.first() {
            served.note(&first.kind, choice);
        }
        line.push(first);
    }
    line
}

/// Whether `a` has precedence over `b` because of something that both want.
fn comes_before<K: Clone + Ord>(
    a: &Waiter<K>,
    b: &Waiter<K>,
    orders: &BTreeMap<Resource, Order<K>>,
    served: &Served<K>,
) -> bool {
    let shared = a.wants().find(|resource| b.wants().any(|other| other == *resource));
    let Some(resource) = shared else { return false };
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
