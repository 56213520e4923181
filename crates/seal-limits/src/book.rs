//! The book of those who wait, and of what must be remembered to be fair to them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::decide::{Free, Verdict, decide};
use crate::{Needs, Order, Resource};

/// A place in the queue. Smaller ones came earlier.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Deserialize, Serialize,
)]
#[serde(transparent)]
pub struct Ticket(pub u64);

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Waiter<K> {
    /// Its place in the queue.
    pub ticket: Ticket,
    /// Its kind: the stage of sealing.
    pub kind: K,
    /// What it needs; any of these will do, the preferred one first.
    pub choices: Vec<Needs>,
    /// The least time between two starts of its kind.
    pub spacing: Duration,
    /// How often somebody behind it got something that it waits for, because it could not use it.
    #[serde(default)]
    pub overtaken: u32,
    /// Since when it could have started.
    #[serde(default)]
    pub due: Option<Duration>,
}

/// How a request joins the queue.
#[derive(Clone, Debug)]
pub struct Joining<K> {
    /// Its kind.
    pub kind: K,
    /// What it needs; any of these will do, the preferred one first.
    pub choices: Vec<Needs>,
    /// The least time between two starts of its kind.
    pub spacing: Duration,
}

/// When each kind last got each resource, as numbers that only tell earlier from later.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(bound(deserialize = "K: Ord + Deserialize<'de>"))]
pub(crate) struct Served<K> {
    next: u64,
    last: BTreeMap<Resource, BTreeMap<K, u64>>,
}

/// Who waits, what was served, and when kinds last started. All that the rules go by, beside what
/// is free and what time it is.
///
/// Times are durations since any fixed moment, always the same one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(bound(deserialize = "K: Ord + Deserialize<'de>"))]
pub struct Book<K> {
    next: u64,
    waiting: BTreeMap<Ticket, Waiter<K>>,
    orders: BTreeMap<Resource, Order<K>>,
    served: Served<K>,
    started: BTreeMap<K, Duration>,
}

impl<K> Default for Served<K> {
    fn default() -> Self {
        Self { next: 1, last: BTreeMap::new() }
    }
}

impl<K> Default for Book<K> {
    fn default() -> Self {
        Self {
            next: 1,
            waiting: BTreeMap::new(),
            orders: BTreeMap::new(),
            served: Served::default(),
            started: BTreeMap::new(),
        }
    }
}

impl<K: Clone + Ord> Served<K> {
    pub(crate) fn note(&mut self, kind: &K, needs: &Needs) {
        for resource in needs.iter() {
            self.last.entry(resource.clone()).or_default().insert(kind.clone(), self.next);
        }
        self.next += 1;
    }

    /// 0 if never.
    pub(crate) fn last(&self, resource: &Resource, kind: &K) -> u64 {
        self.last.get(resource).and_then(|kinds| kinds.get(kind)).copied().unwrap_or(0)
    }
}

impl<K> Waiter<K> {
    /// Everything that one of its choices needs, in the order in which it is taken.
    pub(crate) fn wants(&self) -> impl Iterator<Item = &Resource> {
        let mut wants: Vec<_> = self.choices.iter().flat_map(Needs::iter).collect();
        wants.sort();
        wants.dedup();
        wants.into_iter()
    }
}

impl<K: Clone + Ord> Book<K> {
    /// Sets who gets `resource` first; the default is [`Order::Turns`]. Returns whether that is
    /// a change.
    pub fn set_order(&mut self, resource: Resource, order: Order<K>) -> bool {
        let same = self.orders.get(&resource) == Some(&order);
        self.orders.insert(resource, order);
        !same
    }

    /// Puts a request at the end of the queue.
    pub fn join(&mut self, joining: Joining<K>) -> Ticket {
        let Joining { kind, choices, spacing } = joining;
        let ticket = Ticket(self.next);
        self.next += 1;
        let waiter = Waiter { ticket, kind, choices, spacing, overtaken: 0, due: None };
        self.waiting.insert(ticket, waiter);
        ticket
    }

    /// Takes a request out of the queue without starting it.
    pub fn leave(&mut self, ticket: Ticket) -> Option<Waiter<K>> {
        self.waiting.remove(&ticket)
    }

    /// Says that whoever holds the ticket is awake and wants `choices` now. It keeps its place.
    /// Returns whether that is a change.
    pub fn renew(&mut self, ticket: Ticket, choices: &[Needs]) -> bool {
        let Some(waiter) = self.waiting.get_mut(&ticket) else { return false };
        let changed = waiter.choices != choices || waiter.due.is_some();
        waiter.due = None;
        if waiter.choices != choices {
            waiter.choices = choices.to_vec();
        }
        changed
    }

    /// Those who wait, in the order in which they came.
    pub fn waiting(&self) -> impl Iterator<Item = &Waiter<K>> {
        self.waiting.values()
    }

    /// The waiter with this ticket.
    pub fn waiter(&self, ticket: Ticket) -> Option<&Waiter<K>> {
        self.waiting.get(&ticket)
    }

    /// What is to become of each waiter now, in the order in which they are to be served. `free`
    /// tells how many of each limited resource are free; what it does not name is not limited.
    ///
    /// ```
    /// use std::time::Duration;
    /// use seal_limits::{Book, Decision, Free, Joining, Needs, Resource};
    ///
    /// let gpu = Resource::Lock("gpu1".to_owned());
    /// let mut book = Book::default();
    /// let mut join = |kind| {
    ///     let choices = vec![Needs::from(vec![gpu.clone()])];
    ///     book.join(Joining { kind, choices, spacing: Duration::ZERO })
    /// };
    /// let [first, _, third] = ["pc2", "pc2", "c2"].map(&mut join);
    /// let free = Free::from([(gpu.clone(), 1)]);
    /// let verdicts = book.decide(&free, Duration::ZERO);
    /// assert_eq!((verdicts[0].ticket, &verdicts[0].decision), (first, &Decision::start(0)));
    /// // The kinds take turns: next comes the one of the other kind.
    /// assert_eq!(verdicts[1].ticket, third);
    /// ```
    pub fn decide(&self, free: &Free, now: Duration) -> Vec<Verdict<K>> {
        decide(self, free, now)
    }

    /// Takes those out of the queue who start now, and remembers what fairness needs. Says which
    /// of its choices it got.
    pub fn start(&mut self, verdict: &Verdict<K>, choice: usize, now: Duration) {
        let Some(waiter) = self.waiting.remove(&verdict.ticket) else { return };
        if let Some(needs) = waiter.choices.get(choice) {
            self.served.note(&waiter.kind, needs);
        }
        self.started.insert(waiter.kind, now);
        for ticket in &verdict.overtakes {
            if let Some(overtaken) = self.waiting.get_mut(ticket) {
                overtaken.overtaken = overtaken.overtaken.saturating_add(1);
            }
        }
    }

    /// Notes since when those could start who are to and did not, so that one who never does is
    /// passed over in the end. Returns whether that changes anything.
    pub fn note_due(&mut self, verdicts: &[Verdict<K>], now: Duration) -> bool {
        let mut changed = false;
        for verdict in verdicts {
            let Some(waiter) = self.waiting.get_mut(&verdict.ticket) else { continue };
            let due = verdict.is_due().then(|| waiter.due.unwrap_or(now));
            changed |= due != waiter.due;
            waiter.due = due;
        }
        changed
    }

    /// Forgets all times, as after a restart of the clock.
    pub fn forget_times(&mut self) {
        self.started.clear();
        self.waiting.values_mut().for_each(|waiter| waiter.due = None);
    }

    /// Takes times that are later than `now` for now: who wrote them has another clock, as versions
    /// do in a time namespace that count from its beginning. Nobody waits for such a time to come.
    /// Returns whether there were any.
    pub fn forget_future(&mut self, now: Duration) -> bool {
        let due = self.waiting.values_mut().filter_map(|waiter| waiter.due.as_mut());
        let mut changed = false;
        for time in self.started.values_mut().chain(due).filter(|time| **time > now) {
            *time = now;
            changed = true;
        }
        changed
    }

    pub(crate) fn orders(&self) -> &BTreeMap<Resource, Order<K>> {
        &self.orders
    }

    pub(crate) fn served(&self) -> &Served<K> {
        &self.served
    }

    pub(crate) fn started(&self) -> &BTreeMap<K, Duration> {
        &self.started
    }
}
