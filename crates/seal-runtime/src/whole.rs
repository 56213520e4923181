//! How far a whole task is, and how long it will still take: a model of its parts.
//!
//! A stage knows its parts ahead and what they take on the machine where they were measured. From
//! that comes how much of the work is done. How long the rest takes comes from how fast this task
//! goes: parts of one kind take time by their weight, each kind at its own pace, and a kind that has
//! not begun at the pace of all. What goes on beside takes cores and disks away, so a kind has one
//! pace alone and another in company. A pace that is known before, from an earlier task or a trial,
//! counts until the task has shown its own. While a task waits, no time passes here.
//!
//! No clock and no I/O: who calls says when, so that recorded runs can be replayed.

use std::collections::BTreeMap;
use std::time::Duration;

/// How long an observed pace is remembered: a sector that has to share its cores from now on is told
/// a right time again after a quarter of an hour.
const MEMORY: Duration = Duration::from_secs(15 * 60);

/// How much of all work is as good as an observation of the common pace.
const PRIOR: f64 = 0.03;

/// How much of the work must have been observed before it is said how long the rest takes.
const FIRST: f64 = 0.01;

/// A part of a task, with how long it takes, in any unit that is the same for all.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    part: String,
    kind: &'static str,
    weight: f64,
    sure: bool,
    aside: bool,
}

impl Step {
    /// The part that is told as `part`, one of `kind`: parts of a kind go at the same pace.
    pub fn new(part: impl ToString, kind: &'static str, weight: f64) -> Self {
        Self { part: part.to_string(), kind, weight, sure: true, aside: false }
    }

    /// It may be left out, and counts from its begin on.
    #[must_use]
    pub fn perhaps(self) -> Self {
        Self { sure: false, ..self }
    }

    /// People are rather told of the others that go on at the same time.
    #[must_use]
    pub fn aside(self) -> Self {
        Self { aside: true, ..self }
    }
}

/// The parts of a task: phases, one after the other, of lanes that go on side by side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    phases: Vec<Vec<Vec<Step>>>,
    known: Paces,
}

/// Seconds that a unit of weight takes, of each kind alone and in company.
pub(crate) type Paces = BTreeMap<(&'static str, Company), f64>;

impl Plan {
    /// A unit of weight of `kind` takes so many seconds when nothing goes on beside.
    #[must_use]
    pub fn expecting(mut self, kind: &'static str, pace: f64) -> Self {
        self.known.insert((kind, Company::Alone), pace);
        self
    }

    /// What another task of the same work has shown is known too, and better.
    pub(crate) fn knowing(mut self, paces: &Paces) -> Self {
        self.known.extend(paces);
        self
    }

    /// All weights: plans of the same work have the same.
    pub(crate) fn weight(&self) -> f64 {
        self.phases.iter().flatten().flatten().map(|step| step.weight).sum()
    }

    /// Then come `steps`, once all before are done.
    #[must_use]
    pub fn then(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.phases.push(vec![steps.into_iter().collect()]);
        self
    }

    /// Beside the phase that was added last go `steps`.
    #[must_use]
    pub fn beside(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        let lane = steps.into_iter().map(Step::aside).collect();
        match self.phases.last_mut() {
            Some(phase) => phase.push(lane),
            None => self.phases.push(vec![lane]),
        }
        self
    }
}

/// A step, and how much of it is done.
#[derive(Debug)]
struct State {
    step: Step,
    share: f64,
    begun: bool,
}

impl State {
    /// Its weight, if it is known to count.
    fn weight(&self) -> f64 {
        if self.step.sure || self.begun { self.step.weight } else { 0.0 }
    }

    fn left(&self) -> f64 {
        self.weight() * (1.0 - self.share)
    }
}

#[derive(Debug)]
struct Lane {
    steps: Vec<State>,
    /// When it went on last, without the time that the task has waited.
    moved: Option<f64>,
}

impl Lane {
    /// Whether something of it goes on.
    fn is_active(&self) -> bool {
        self.steps.iter().any(|state| state.begun) && self.sum(State::left) > 0.0
    }

    fn sum(&self, value: impl Fn(&State) -> f64) -> f64 {
        self.steps.iter().map(value).sum()
    }
}

/// How much was done in how much time, the longer ago the less it counts.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    seconds: f64,
    work: f64,
}

impl Pace {
    fn add(&mut self, seconds: f64, work: f64) {
        let keep = (-seconds / MEMORY.as_secs_f64()).exp();
        self.seconds = self.seconds * keep + seconds;
        self.work = self.work * keep + work;
    }
}

/// Whether others go on beside a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Company {
    Alone,
    Beside,
}

/// A task on its way through a plan.
#[derive(Debug)]
pub struct Whole {
    phases: Vec<Vec<Lane>>,
    known: Paces,
    paces: BTreeMap<(&'static str, Company), Pace>,
    /// Work that was seen to be done, all of it.
    observed: f64,
    /// Since when the task waits, and how long it has waited before.
    waits: Option<f64>,
    waited: f64,
}

/// How far a whole task is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// How much is done, from 0 to 1.
    pub share: f64,
    /// How long the rest takes, once that can be told.
    pub left: Option<Duration>,
}

impl Whole {
    /// A task that begins now.
    pub fn new(plan: Plan) -> Self {
        let state = |step| State { step, share: 0.0, begun: false };
        let lane =
            |steps: Vec<Step>| Lane { steps: steps.into_iter().map(state).collect(), moved: None };
        let phase = |lanes: Vec<Vec<Step>>| lanes.into_iter().map(lane).collect();
        Self {
            phases: plan.phases.into_iter().map(phase).collect(),
            known: plan.known,
            paces: BTreeMap::new(),
            observed: 0.0,
            waits: None,
            waited: 0.0,
        }
    }

    /// All weights of its plan.
    pub(crate) fn weight(&self) -> f64 {
        let steps = self.phases.iter().flatten().flat_map(|lane| &lane.steps);
        steps.map(|state| state.step.weight).sum()
    }

    /// The paces that the task has shown.
    pub(crate) fn shown(&self) -> Paces {
        let seen = self.paces.iter().filter(|(_, pace)| pace.work > 0.0);
        seen.map(|(kind, pace)| (*kind, pace.seconds / pace.work)).collect()
    }

    /// An earlier run has done `part`.
    pub fn already(&mut self, part: &str) {
        if let Some((phase, lane, step)) = self.find(part) {
            let state = &mut self.phases[phase][lane].steps[step];
            (state.share, state.begun) = (1.0, true);
        }
    }

    /// Whether people are rather told of other parts than of `part`.
    pub fn is_aside(&self, part: &str) -> bool {
        let found = self.find(part);
        found.is_some_and(|(phase, lane, step)| self.phases[phase][lane].steps[step].step.aside)
    }

    /// Since its begin, `now`, the task waits, or does not wait any more.
    pub fn waits(&mut self, now: Duration, waits: bool) {
        match (self.waits, waits) {
            (None, true) => self.waits = Some(now.as_secs_f64()),
            (Some(since), false) => {
                self.waited += now.as_secs_f64() - since;
                self.waits = None;
            }
            _ => {}
        }
    }

    /// At `now` after the begin, `done` of `total` of `part` are done. Parts that the plan does not
    /// have change nothing.
    pub fn at(&mut self, now: Duration, part: &str, done: u64, total: u64) {
        let Some((phase, lane, step)) = self.find(part) else { return };
        let now = self.active(now);
        let share = if total == 0 { 1.0 } else { (done as f64 / total as f64).min(1.0) };
        let before = self.phases[..phase].iter().flatten().filter_map(|lane| lane.moved);
        let begin = before.fold(0.0, f64::max);
        let state = &mut self.phases[phase][lane].steps[step];
        let first = !std::mem::replace(&mut state.begun, true);
        let more = share - std::mem::replace(&mut state.share, share);
        let (work, kind) = (more * state.step.weight, state.step.kind);
        if first {
            // Whatever of the phases before was not told of was not there to do.
            for state in self.phases[..phase].iter_mut().flatten().flat_map(|lane| &mut lane.steps)
            {
                state.share = 1.0;
            }
        }
        if more < 0.0 {
            self.begin_anew(phase, lane, step);
        }
        let others = self.phases[phase].iter().enumerate();
        let beside = others.filter(|(number, other)| *number != lane && other.is_active()).count();
        let company = if beside == 0 { Company::Alone } else { Company::Beside };
        let moved = &mut self.phases[phase][lane].moved;
        if first && share == 0.0 {
            // What was before, such as the opening of a device, tells nothing of this kind's pace.
            *moved = Some(now);
        }
        if more > 0.0 {
            let seconds = now - moved.unwrap_or(begin);
            *moved = Some(now);
            self.paces.entry((kind, company)).or_default().add(seconds.max(0.0), work);
            self.observed += work;
        } else if more < 0.0 {
            *moved = Some(now);
        }
    }

    /// What comes after a step that was begun anew is to be done anew as well.
    fn begin_anew(&mut self, phase: usize, lane: usize, step: usize) {
        let in_lane = self.phases[phase][lane].steps[step + 1..].iter_mut();
        for state in in_lane {
            state.share = 0.0;
        }
        for lane in self.phases[phase + 1..].iter_mut().flatten() {
            lane.moved = None;
            for state in &mut lane.steps {
                state.share = 0.0;
            }
        }
    }

    /// Whether nothing is left.
    pub(crate) fn is_done(&self) -> bool {
        self.observed > 0.0 && self.phases.iter().flatten().all(|lane| lane.sum(State::left) == 0.0)
    }

    /// How far it is at `now` after the begin.
    pub fn standing(&self, now: Duration) -> Standing {
        let largest = |phase: &Vec<Lane>, value: fn(&State) -> f64| {
            phase.iter().map(|lane| lane.sum(value)).fold(0.0, f64::max)
        };
        let total: f64 = self.phases.iter().map(|phase| largest(phase, State::weight)).sum();
        let left: f64 = self.phases.iter().map(|phase| largest(phase, State::left)).sum();
        let share = if total > 0.0 { (1.0 - left / total).clamp(0.0, 1.0) } else { 0.0 };
        Standing { share, left: self.left(self.active(now), total) }
    }

    /// How long the rest takes.
    fn left(&self, now: f64, total: f64) -> Option<Duration> {
        if self.observed < FIRST * total || self.observed <= 0.0 {
            return None;
        }
        let prior = PRIOR * total;
        let blend =
            |seen: Pace, otherwise: f64| (seen.seconds + prior * otherwise) / (seen.work + prior);
        // What was seen of all kinds, by the company.
        let seen = |wanted: &dyn Fn(Company) -> bool| {
            let paces = self.paces.iter().filter(|((_, company), _)| wanted(*company));
            paces.fold(Pace::default(), |sum, (_, pace)| Pace {
                seconds: sum.seconds + pace.seconds,
                work: sum.work + pace.work,
            })
        };
        let all = seen(&|_| true);
        let common = |company| blend(seen(&|c| c == company), all.seconds / all.work);
        let pace = |kind, company| {
            let other = match company {
                Company::Alone => Company::Beside,
                Company::Beside => Company::Alone,
            };
            let of = |company| self.paces.get(&(kind, company)).copied();
            let known = |company| self.known.get(&(kind, company)).copied();
            let otherwise = known(company)
                .or_else(|| of(other).map(|seen| blend(seen, common(company))))
                .or_else(|| known(other))
                .unwrap_or_else(|| common(company));
            blend(of(company).unwrap_or_default(), otherwise)
        };
        let takes = |state: &State, company| state.left() * pace(state.step.kind, company);
        let lane_left = |lane: &Lane, company| {
            // What is worked on now has gone on since it was last told of.
            let at = lane.steps.iter().find(|state| state.begun && state.share < 1.0);
            let since = lane.moved.map_or(0.0, |moved| now - moved).max(0.0);
            let takes = |state: &State| takes(state, company);
            lane.sum(takes) - at.map_or(0.0, |state| since.min(takes(state)))
        };
        let phase_left = |phase: &Vec<Lane>| {
            let lanes: Vec<_> = phase.iter().filter(|lane| lane.sum(State::left) > 0.0).collect();
            let beside: Vec<_> =
                lanes.iter().map(|lane| lane_left(lane, Company::Beside)).collect();
            // Side by side until the first is done; the others then have the machine for themselves.
            let together = match lanes.len() {
                0 | 1 => 0.0,
                _ => beside.iter().copied().fold(f64::INFINITY, f64::min),
            };
            let alone = lanes.iter().zip(beside).map(|(lane, beside)| {
                let rest = if beside > 0.0 { 1.0 - together / beside } else { 0.0 };
                rest * lane_left(lane, Company::Alone)
            });
            together + alone.fold(0.0, f64::max)
        };
        Duration::try_from_secs_f64(self.phases.iter().map(phase_left).sum()).ok()
    }

    /// The time that the task has not waited.
    fn active(&self, now: Duration) -> f64 {
        self.waits.unwrap_or(now.as_secs_f64()) - self.waited
    }

    fn find(&self, part: &str) -> Option<(usize, usize, usize)> {
        self.phases.iter().enumerate().find_map(|(phase, lanes)| {
            lanes.iter().enumerate().find_map(|(lane, steps)| {
                let step = steps.steps.iter().position(|state| state.step.part == part)?;
                Some((phase, lane, step))
            })
        })
    }
}

#[cfg(test)]
#[path = "whole/tests.rs"]
mod tests;
