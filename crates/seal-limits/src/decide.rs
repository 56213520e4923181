//! The decision: who may start now, and why the others wait.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::book::{Book, Served, Ticket, Waiter};
use crate::order::Line;
use crate::{Needs, Resource};

/// How many of each limited resource are free.
pub type Free = BTreeMap<Resource, u32>;

/// So often a request that needs several resources is overtaken by others that can use those of
/// them that are free. Then they are kept for it.
pub const OVERTAKEN_MOST: u32 = 8;

/// One who could start and does not for so long is passed over until it is heard of again: its
/// process may be stopped, and others must not wait for it.
pub const DUE_LONGEST: Duration = Duration::from_secs(5);

/// What is to become of a waiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict<K> {
    /// Who.
    pub ticket: Ticket,
    /// What.
    pub decision: Decision<K>,
    /// Those before it in the queue who wait for something that it gets when it starts.
    pub overtakes: Vec<Ticket>,
}

/// Start or wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<K> {
    /// It starts, with one of these of its choices, the preferred one first.
    Start {
        /// Indices of its choices that are free; at least one.
        choices: Vec<usize>,
    },
    /// It waits.
    Wait(Reason<K>),
}

/// Why a request waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason<K> {
    /// All of a resource that it needs is held by running tasks.
    Taken(Resource),
    /// A resource is free, and goes to somebody who comes first.
    Behind {
        /// The resource.
        resource: Resource,
        /// Who comes first.
        ticket: Ticket,
        /// Its kind.
        kind: K,
    },
    /// Nothing that it could run on has room.
    NoRoom,
    /// The last start of its kind was too short a time ago.
    Spacing {
        /// When it may start.
        until: Duration,
    },
    /// It could start, but was not heard of for so long that others go before it.
    Silent,
}

impl<K> Decision<K> {
    /// Start with this choice.
    pub fn start(choice: usize) -> Self {
        Self::Start { choices: vec![choice] }
    }
}

impl<K> Verdict<K> {
    /// Whether the waiter is to start, or would if it were awake.
    pub fn is_due(&self) -> bool {
        matches!(self.decision, Decision::Start { .. } | Decision::Wait(Reason::Silent))
    }
}

impl<K: fmt::Display> fmt::Display for Reason<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(resource) => write!(f, "{resource} is taken"),
            Self::Behind { resource, kind, .. } => {
                write!(f, "{resource} goes to a task of {kind} that comes first")
            }
            Self::NoRoom => f.write_str("no executor has room"),
            Self::Spacing { .. } => f.write_str("the last start was too short a time ago"),
            Self::Silent => f.write_str("its supervisor does not take what is free for it"),
        }
    }
}

/// What is left while waiters are gone through in their order.
struct Left<K> {
    free: Free,
    /// Who got the last free one of a resource in this round.
    gone_to: BTreeMap<Resource, (Ticket, K)>,
    started: BTreeMap<K, Duration>,
    served: Served<K>,
}

pub(crate) fn decide<K: Clone + Ord>(
    book: &Book<K>,
    free: &Free,
    now: Duration,
) -> Vec<Verdict<K>> {
    let is_silent =
        |waiter: &Waiter<K>| waiter.due.is_some_and(|due| now.saturating_sub(due) > DUE_LONGEST);
    let awake = book.waiting().filter(|waiter| !is_silent(waiter));
    let mut left = Left {
        free: free.clone(),
        gone_to: BTreeMap::new(),
        started: book.started().clone(),
        served: book.served().clone(),
    };
    let mut verdicts: Vec<Verdict<K>> = Vec::new();
    let mut passed: Vec<&Waiter<K>> = Vec::new();
    let mut line = Line::of(awake);
    while let Some(waiter) = line.next(book.orders(), &left.served, &left.free) {
        let decision = left.serve(waiter, now);
        let mut overtakes = Vec::new();
        match &decision {
            Decision::Start { choices } => {
                if let Some(needs) = choices.first().and_then(|at| waiter.choices.get(*at)) {
                    let hit = |other: &&&Waiter<K>| other.wants().any(|want| needs.contains(want));
                    overtakes.extend(passed.iter().filter(hit).map(|other| other.ticket));
                }
            }
            // Who waits for its time loses nothing to others.
            Decision::Wait(Reason::Spacing { .. } | Reason::Silent | Reason::NoRoom) => {}
            Decision::Wait(Reason::Taken(_) | Reason::Behind { .. }) => passed.push(waiter),
        }
        verdicts.push(Verdict { ticket: waiter.ticket, decision, overtakes });
    }
    let silent = book.waiting().filter(|waiter| is_silent(waiter)).map(|waiter| Verdict {
        ticket: waiter.ticket,
        decision: Decision::Wait(Reason::Silent),
        overtakes: Vec::new(),
    });
    verdicts.extend(silent);
    verdicts
}

impl<K: Clone + Ord> Left<K> {
    fn serve(&mut self, waiter: &Waiter<K>, now: Duration) -> Decision<K> {
        if let Some(last) = self.started.get(&waiter.kind) {
            let until = last.saturating_add(waiter.spacing);
            if until > now {
                return Decision::Wait(Reason::Spacing { until });
            }
        }
        let is_open =
            |at: &usize| waiter.choices.get(*at).is_some_and(|needs| self.missing(needs).is_none());
        let choices: Vec<_> = (0..waiter.choices.len()).filter(is_open).collect();
        if let Some(needs) = choices.first().and_then(|at| waiter.choices.get(*at)) {
            self.take(waiter, needs);
            self.served.note(&waiter.kind, needs);
            self.started.insert(waiter.kind.clone(), now);
            return Decision::Start { choices };
        }
        let Some(needs) = waiter.choices.first() else { return Decision::Wait(Reason::NoRoom) };
        let Some(resource) = self.missing(needs).cloned() else {
            return Decision::Wait(Reason::NoRoom);
        };
        let reason = match self.gone_to.get(&resource) {
            Some((ticket, kind)) => {
                let (ticket, kind) = (*ticket, kind.clone());
                Reason::Behind { resource, ticket, kind }
            }
            None => Reason::Taken(resource),
        };
        if waiter.overtaken >= OVERTAKEN_MOST {
            self.take(waiter, needs);
        }
        // The order of the others is that in which they would be served after it.
        self.served.note(&waiter.kind, needs);
        Decision::Wait(reason)
    }

    /// The first thing in `needs` of which none is left.
    fn missing<'a>(&self, needs: &'a Needs) -> Option<&'a Resource> {
        needs.iter().find(|need| self.free.get(need) == Some(&0))
    }

    /// Takes what is left of `needs`.
    fn take(&mut self, waiter: &Waiter<K>, needs: &Needs) {
        for need in needs.iter() {
            if let Some(left) = self.free.get_mut(need).filter(|left| **left > 0) {
                *left -= 1;
                self.gone_to.insert(need.clone(), (waiter.ticket, waiter.kind.clone()));
            }
        }
    }
}
