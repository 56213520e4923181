//! The rules against a machine of their own: a queue, resources, and a clock that is a number.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use crate::{
    Book, DUE_LONGEST, Decision, Free, Joining, Needs, OVERTAKEN_MOST, Order, Reason, Resource,
    Ticket, Verdict,
};

type Kind = &'static str;

fn lock(name: &str) -> Resource {
    Resource::Lock(name.to_owned())
}

fn needs(locks: &[&str]) -> Needs {
    locks.iter().map(|name| lock(name)).collect()
}

fn at(second: u64) -> Duration {
    Duration::from_secs(second)
}

/// One machine: what runs holds what it needs.
struct Machine {
    book: Book<Kind>,
    free: Free,
    now: Duration,
    running: VecDeque<(Ticket, Kind, Needs)>,
    /// Kinds in the order in which they started.
    log: Vec<Kind>,
}

impl Machine {
    fn new(locks: &[(&str, u32)]) -> Self {
        let free = locks.iter().map(|(name, count)| (lock(name), *count)).collect();
        let (running, log) = (VecDeque::new(), Vec::new());
        Self { book: Book::default(), free, now: at(0), running, log }
    }

    fn join(&mut self, kind: Kind, choices: &[&[&str]]) -> Ticket {
        self.join_spaced(kind, choices, Duration::ZERO)
    }

    fn join_spaced(&mut self, kind: Kind, choices: &[&[&str]], spacing: Duration) -> Ticket {
        let choices = choices.iter().map(|locks| needs(locks)).collect();
        self.book.join(Joining { kind, choices, spacing })
    }

    fn decide(&self) -> Vec<Verdict<Kind>> {
        self.book.decide(&self.free, self.now)
    }

    fn why(&self, ticket: Ticket) -> Decision<Kind> {
        let verdicts = self.decide();
        verdicts.into_iter().find(|verdict| verdict.ticket == ticket).expect("waits").decision
    }

    /// Starts all that may start; whether any did.
    fn start(&mut self) -> bool {
        let verdicts = self.decide();
        let mut any = false;
        for verdict in &verdicts {
            let Decision::Start { choices } = &verdict.decision else { continue };
            let choice = choices[0];
            let waiter = self.book.waiter(verdict.ticket).expect("it waits").clone();
            let needs = waiter.choices[choice].clone();
            for need in needs.iter() {
                if let Some(free) = self.free.get_mut(need) {
                    *free = free.checked_sub(1).expect("never more holders than the count");
                }
            }
            self.book.start(verdict, choice, self.now);
            self.running.push_back((verdict.ticket, waiter.kind, needs));
            self.log.push(waiter.kind);
            any = true;
        }
        any
    }

    /// Ends the task that has run the longest.
    fn end_one(&mut self) -> Option<(Ticket, Kind)> {
        let (ticket, kind, needs) = self.running.pop_front()?;
        for need in needs.iter() {
            if let Some(free) = self.free.get_mut(need) {
                *free += 1;
            }
        }
        Some((ticket, kind))
    }

    /// Lets the machine run; whatever ends comes again. Returns the kinds as they started.
    fn run_busy(&mut self, rounds: usize, choices: impl Fn(Kind) -> Vec<&'static [&'static str]>) {
        for _ in 0..rounds {
            self.start();
            let Some((_, kind)) = self.end_one() else { break };
            self.join(kind, &choices(kind));
        }
    }
}

#[test]
fn one_kind_is_served_in_the_order_of_its_tickets() {
    let mut machine = Machine::new(&[("gpu", 1)]);
    let tickets: Vec<_> = (0..5).map(|_| machine.join("pc2", &[&["gpu"]])).collect();
    for ticket in tickets {
        assert!(machine.start());
        assert!(!machine.start());
        assert_eq!(machine.end_one(), Some((ticket, "pc2")));
    }
}

#[test]
fn seven_of_one_kind_and_one_of_another_take_turns_under_constant_load() {
    let mut machine = Machine::new(&[("gpu1", 1)]);
    for _ in 0..7 {
        machine.join("pc2", &[&["gpu1"]]);
    }
    machine.join("c2", &[&["gpu1"]]);
    machine.run_busy(1000, |_| vec![&["gpu1"]]);
    for pair in machine.log.chunks(2) {
        assert_eq!(pair, ["pc2", "c2"]);
    }
}

#[test]
fn kinds_that_can_have_either_of_two_locks_take_turns_on_each() {
    let mut machine = Machine::new(&[("gpu1", 1), ("gpu2", 1)]);
    let either: &[&[&str]] = &[&["gpu1"], &["gpu2"]];
    for _ in 0..7 {
        machine.join("pc2", either);
    }
    machine.join("c2", either);
    machine.join("c2", either);
    let mut starts = BTreeMap::<Resource, Vec<Kind>>::new();
    for round in 0..400 {
        machine.start();
        let (_, kind, needs) = machine.running.back().expect("something runs").clone();
        let resource = needs.iter().next().expect("a lock").clone();
        if round > 10 {
            starts.entry(resource).or_default().push(kind);
        }
        // The tasks on the two locks take unequal times.
        if round % 3 == 0 {
            machine.running.swap(0, 1);
        }
        let (_, kind) = machine.end_one().expect("something runs");
        machine.join(kind, either);
    }
    for (resource, kinds) in starts {
        let again = kinds.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!(again <= 1, "{resource}: {kinds:?}");
    }
}

#[test]
fn by_arrival_and_by_priority_are_what_they_say() {
    for (order, c2_starts) in
        [(Order::Arrival, 100 / 8), (Order::Priority(vec!["c2"]), 99), (Order::Turns, 50)]
    {
        let mut machine = Machine::new(&[("gpu1", 1)]);
        machine.book.set_order(lock("gpu1"), order.clone());
        for _ in 0..7 {
            machine.join("pc2", &[&["gpu1"]]);
        }
        machine.start();
        machine.join("c2", &[&["gpu1"]]);
        machine.run_busy(99, |_| vec![&["gpu1"]]);
        let found = machine.log.iter().filter(|kind| **kind == "c2").count();
        assert!(found.abs_diff(c2_starts) <= 1, "{order:?}: {found}");
    }
}

#[test]
fn who_wants_nothing_in_common_does_not_wait_for_each_other() {
    let mut machine = Machine::new(&[("gpu1", 1), ("gpu2", 1)]);
    machine.join("pc2", &[&["gpu1"]]);
    machine.start();
    let waits = machine.join("pc2", &[&["gpu1"]]);
    let other = machine.join("pc2", &[&["gpu2"]]);
    assert_eq!(machine.why(waits), Decision::Wait(Reason::Taken(lock("gpu1"))));
    assert_eq!(machine.why(other), Decision::start(0));
}

#[test]
fn a_request_with_two_choices_takes_the_one_that_is_free() {
    let mut machine = Machine::new(&[("gpu1", 1), ("gpu2", 1)]);
    machine.join("c2", &[&["gpu1"]]);
    machine.start();
    let either = machine.join("pc2", &[&["gpu1"], &["gpu2"]]);
    assert_eq!(machine.why(either), Decision::start(1));
    machine.end_one();
    assert_eq!(machine.why(either), Decision::Start { choices: vec![0, 1] });
}

#[test]
fn one_who_is_behind_is_told_whom() {
    let mut machine = Machine::new(&[("gpu", 1)]);
    let first = machine.join("pc2", &[&["gpu"]]);
    let second = machine.join("pc2", &[&["gpu"]]);
    let Decision::Wait(reason) = machine.why(second) else { panic!("only one is free") };
    assert_eq!(reason, Reason::Behind { resource: lock("gpu"), ticket: first, kind: "pc2" });
    assert_eq!(reason.to_string(), "lock gpu goes to a task of pc2 that comes first");
}

#[test]
fn starts_of_a_kind_keep_their_distance_and_others_do_not_wait_for_it() {
    let mut machine = Machine::new(&[]);
    machine.now = at(100);
    let tickets: Vec<_> = (0..3).map(|_| machine.join_spaced("pc1", &[&[]], at(10))).collect();
    let other = machine.join("pc2", &[&[]]);
    assert!(machine.start());
    assert_eq!(machine.log, ["pc1", "pc2"]);
    assert!(machine.book.waiter(other).is_none());
    for (ticket, due) in tickets.into_iter().skip(1).zip([110, 120]) {
        assert_eq!(machine.why(ticket), Decision::Wait(Reason::Spacing { until: at(due) }));
        machine.now = at(due) - Duration::from_nanos(1);
        assert!(!machine.start(), "the interval is at least kept");
        machine.now = at(due);
        assert!(machine.start());
    }
}

#[test]
fn one_who_needs_much_is_overtaken_only_so_often() {
    let mut machine = Machine::new(&[("x", 1), ("y", 1)]);
    machine.join("a", &[&["x"]]);
    machine.join("b", &[&["y"]]);
    machine.start();
    let both = machine.join("c", &[&["x", "y"]]);
    // Whatever ends comes again, and never are both free at the same time.
    let mut rounds = 0;
    while machine.book.waiter(both).is_some() {
        let (_, kind) = machine.end_one().expect("something runs");
        machine.join(kind, &[if kind == "a" { &["x"] } else { &["y"] }]);
        machine.start();
        rounds += 1;
        assert!(rounds <= OVERTAKEN_MOST + 2, "it starves");
    }
    assert!(rounds > OVERTAKEN_MOST, "until then what is free is used");
}

#[test]
fn one_who_does_not_start_is_passed_over_until_it_is_heard_of() {
    let mut machine = Machine::new(&[("gpu", 1)]);
    let stopped = machine.join("pc2", &[&["gpu"]]);
    let other = machine.join("c2", &[&["gpu"]]);
    let verdicts = machine.decide();
    assert!(machine.book.note_due(&verdicts, machine.now));
    machine.now = DUE_LONGEST;
    let verdicts = machine.decide();
    assert!(!machine.book.note_due(&verdicts, machine.now));
    assert!(matches!(machine.why(other), Decision::Wait(Reason::Behind { .. })));
    machine.now += Duration::from_nanos(1);
    assert_eq!(machine.why(stopped), Decision::Wait(Reason::Silent));
    assert_eq!(machine.why(other), Decision::start(0));
    let verdicts = machine.decide();
    machine.book.note_due(&verdicts, machine.now);
    assert_eq!(machine.why(stopped), Decision::Wait(Reason::Silent), "it is still not heard of");
    assert!(machine.book.renew(stopped, &[needs(&["gpu"])]));
    assert_eq!(machine.why(stopped), Decision::start(0), "it has kept its place");
}

#[test]
fn a_book_is_read_back_from_its_text() {
    let mut machine = Machine::new(&[("gpu", 1)]);
    machine.book.set_order(lock("gpu"), Order::Priority(vec!["c2"]));
    machine.join("pc2", &[&["gpu"]]);
    machine.start();
    machine.join("c2", &[&["gpu", "x"], &[]]);
    let text = serde_json::to_string(&machine.book).expect("plain data");
    let book: Book<String> = serde_json::from_str(&text).expect("its own text");
    assert_eq!(serde_json::to_string(&book).expect("plain data"), text);
}

#[derive(Clone, Debug)]
enum Step {
    Join { kind: Kind, choices: Vec<Vec<&'static str>>, spacing: u64 },
    Leave(prop::sample::Index),
    Start,
    End,
    Wait(u64),
}

const LOCKS: [&str; 3] = ["x", "y", "z"];
const KINDS: [Kind; 3] = ["pc1", "pc2", "c2"];

fn any_step() -> impl Strategy<Value = Step> {
    let locks = prop::collection::vec(prop::sample::select(LOCKS.to_vec()), 0..3);
    let choices = prop::collection::vec(locks, 1..3);
    prop_oneof![
        4 => (prop::sample::select(KINDS.to_vec()), choices, prop_oneof![4 => Just(0), 1 => 1_u64..4])
            .prop_map(|(kind, choices, spacing)| Step::Join { kind, choices, spacing }),
        1 => any::<prop::sample::Index>().prop_map(Step::Leave),
        3 => Just(Step::Start),
        3 => Just(Step::End),
        1 => (0_u64..3).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn counts_hold_order_holds_and_nobody_waits_for_ever(
        steps in prop::collection::vec(any_step(), 0..60),
        counts in prop::array::uniform3(1_u32..3),
        orders in prop::array::uniform3(prop::sample::select(vec![
            Order::Turns, Order::Arrival, Order::Priority(vec!["c2", "pc1"]),
        ])),
    ) {
        let table: Vec<_> = LOCKS.into_iter().zip(counts).collect();
        let mut machine = Machine::new(&table);
        for (name, order) in LOCKS.into_iter().zip(orders) {
            machine.book.set_order(lock(name), order);
        }
        let mut last = BTreeMap::<(Kind, Vec<Needs>, Duration), Ticket>::new();
        for step in steps {
            match step {
                Step::Join { kind, choices, spacing } => {
                    let choices: Vec<_> = choices.iter().map(Vec::as_slice).collect();
                    machine.join_spaced(kind, &choices, at(spacing));
                }
                Step::Leave(index) => {
                    let tickets: Vec<_> = machine.book.waiting().map(|w| w.ticket).collect();
                    if !tickets.is_empty() {
                        machine.book.leave(tickets[index.index(tickets.len())]);
                    }
                }
                Step::Start => {
                    let verdicts = machine.decide();
                    let mut tickets: Vec<_> = verdicts.iter().map(|v| v.ticket).collect();
                    tickets.sort();
                    let waiting: Vec<_> = machine.book.waiting().map(|w| w.ticket).collect();
                    prop_assert_eq!(tickets, waiting, "one verdict for each");
                    // Of those alike, the earlier ticket starts first.
                    for verdict in verdicts.iter().filter(|v| matches!(v.decision, Decision::Start { .. })) {
                        let waiter = machine.book.waiter(verdict.ticket).expect("it waits");
                        let class = (waiter.kind, waiter.choices.clone(), waiter.spacing);
                        let before = last.insert(class, verdict.ticket);
                        prop_assert!(before.is_none_or(|before| before < verdict.ticket));
                    }
                    machine.start();
                    prop_assert!(!machine.start() , "one decision finds all that may start");
                }
                Step::End => { machine.end_one(); }
                Step::Wait(seconds) => machine.now += at(seconds),
            }
        }
        // No deadlock: with time passing and tasks ending, everybody starts.
        let mut rounds = 0;
        loop {
            machine.now += at(10);
            let started = machine.start();
            let ended = machine.end_one().is_some();
            if !started && !ended && machine.book.waiting().next().is_none() { break }
            rounds += 1;
            prop_assert!(rounds < 500, "{:?}", machine.decide());
        }
    }

    #[test]
    fn kinds_under_constant_load_each_get_their_share_of_a_lock(
        crowd in prop::collection::vec(prop::sample::select(KINDS.to_vec()), 1..12),
        count in 1_u32..4,
    ) {
        let mut machine = Machine::new(&[("gpu", count)]);
        for kind in &crowd {
            machine.join(kind, &[&["gpu"]]);
        }
        machine.run_busy(200, |_| vec![&["gpu"]]);
        let present: Vec<_> = KINDS.into_iter().filter(|kind| crowd.contains(kind)).collect();
        for kind in &present {
            let starts = machine.log.iter().filter(|it| *it == kind).count();
            // A kind with fewer requests than the lock has places cannot fill its share.
            let able = crowd.iter().filter(|it| *it == kind).count() >= count as usize;
            prop_assert!(!able || starts + 2 * count as usize >= 200 / present.len(), "{kind}: {starts}");
        }
    }
}

#[test]
fn a_start_in_the_future_of_another_clock_is_not_waited_for_longer_than_the_spacing() {
    let mut book = Book::default();
    let join = |book: &mut Book<Kind>| {
        let choices = vec![needs(&[])];
        book.join(Joining { kind: "pc1", choices, spacing: at(10) });
    };
    join(&mut book);
    // Who wrote this counts from an hour before.
    let verdicts = book.decide(&Free::new(), at(3700));
    book.start(&verdicts[0], 0, at(3700));
    join(&mut book);
    assert!(book.forget_future(at(100)));
    assert!(!book.forget_future(at(100)), "once");
    let decided = |now: u64| book.decide(&Free::new(), at(now))[0].decision.clone();
    assert_eq!(decided(101), Decision::Wait(Reason::Spacing { until: at(110) }));
    assert_eq!(decided(110), Decision::start(0));
}
