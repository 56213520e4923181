//! Kills and stops, at moments that are told by the phases of a task: of executors, and of
//! supervisors and what they have started. Afterwards the task is done again, to the same bytes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use seal_wire::ErrorCode;

use super::Part;
use super::outcome::{Outcome, Verdict};
use super::phase::{Phases, START};
use super::program::{Program, await_nothing_in, children, pid};
use super::subject::{Binaries, Run, Start, Subject};
use crate::out::step;

/// A phase that few runs have is not aimed at for longer than so many times the undisturbed run.
const LATEST: u32 = 3;

/// After so many cases a phase that was not hit often enough is given up.
const MOST_CASES: u64 = 4000;

/// What is done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    End,
    /// SIGSTOP, and SIGCONT after some time.
    Pause,
    /// SIGSTOP, and SIGKILL after some time.
    PauseAndKill,
    /// The end of its input: it finishes what it has and ends.
    EndOfInput,
}

/// Who gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Itself,
    /// What it has started.
    Executor,
}

/// What happens in a case.
#[derive(Clone, Debug)]
struct Plan {
    blow: Blow,
    victim: Victim,
    phase: String,
    /// How long after the begin of the phase.
    delay: Duration,
    pause: Duration,
    /// The next one comes at once, while the former may still be ending.
    at_once: bool,
    /// There is no parents cache yet.
    new_parents: bool,
}

pub(super) struct Kills {
    /// PC1, PC2, and both behind a supervisor.
    small: Vec<Subject>,
    /// Both of one sector, one after the other.
    chain: [Subject; 2],
    /// The same with larger sectors, for the first cases of each.
    large: Vec<Subject>,
    larges: u64,
    /// How often each phase of each subject was hit.
    hits: BTreeMap<(String, String), u64>,
    /// Kills of PC1, PC2 and supervisors that came while there was a task. Stops, pauses and kills
    /// of supervised executors come beside.
    kills: [u64; 3],
    /// How often at least, if that is asked for.
    least: Option<u64>,
    cases: u64,
}

impl Kills {
    pub(super) fn new(binaries: &Binaries, dir: &Path, case: &str) -> Result<Self> {
        let small = subjects(binaries, dir, case)?;
        let chain = Subject::chain(binaries, &small[0], &dir.join("chain"))?;
        let known = small.iter().chain(&chain).flat_map(|subject| {
            subject.phases.all().map(|phase| ((subject.name.clone(), phase.name.clone()), 0))
        });
        let hits = known.collect();
        let (large, kills) = (Vec::new(), [0; 3]);
        Ok(Self { small, chain, large, larges: 0, hits, kills, least: None, cases: 0 })
    }

    /// Makes it a failure if a phase was hit less often at the end.
    pub(super) fn with_least(mut self, least: Option<u64>) -> Self {
        self.least = least;
        self
    }

    /// Lets the first `count` cases be those of the vector `case`: a third of them PC1, a third PC2,
    /// and a third both behind supervisors.
    pub(super) fn with_large(
        mut self,
        binaries: &Binaries,
        dir: &Path,
        case: &str,
        count: u64,
    ) -> Result<Self> {
        if count > 0 {
            step(&format!("undisturbed runs of {case}"));
            self.large = subjects(binaries, dir, case)?;
            self.larges = count;
        }
        Ok(self)
    }
}

fn subjects(binaries: &Binaries, dir: &Path, case: &str) -> Result<Vec<Subject>> {
    let pc1 = Subject::pc1(binaries, case, &dir.join("pc1"))?;
    let pc2 = Subject::pc2(binaries, &pc1, &dir.join("pc2"))?;
    let supervised = [
        Subject::supervised(binaries, &pc1, &dir.join("supervised-pc1"))?,
        Subject::supervised(binaries, &pc2, &dir.join("supervised-pc2"))?,
    ];
    Ok([pc1, pc2].into_iter().chain(supervised).collect())
}

impl Part for Kills {
    fn case(&mut self, number: u64, rng: &mut ChaCha8Rng) -> Result<Vec<Outcome>> {
        self.cases += 1;
        let count = self.small.len() as u64 + 1;
        let (turn, round) = (number % count, number / count);
        let Ok(at) = usize::try_from(turn) else { return Ok(Vec::new()) };
        // Supervisors are two of the subjects: half as many of each are large.
        let larges = if turn < 2 { self.larges.div_ceil(3) } else { self.larges.div_ceil(6) };
        let all = if round < larges { &self.large } else { &self.small };
        let mut cases = Vec::new();
        match all.get(at) {
            Some(subject) => cases.push((&subject.name, one(subject, Begin::Before, round, rng)?)),
            None if round < larges => {}
            None => {
                for (subject, begin) in self.chain.iter().zip([Begin::Before, Begin::AsLeft]) {
                    let case = one(subject, begin, round, rng)?;
                    let held = case.outcomes.iter().all(|outcome| outcome.verdict == Verdict::Held);
                    cases.push((&subject.name, case));
                    if !held {
                        break;
                    }
                }
            }
        }
        let mut outcomes = Vec::new();
        for (name, case) in cases {
            if case.killed {
                self.kills[at.min(2)] += 1;
            }
            for outcome in &case.outcomes {
                let hit = (name.clone(), outcome.hit.clone());
                // Some come when all is over, and some into a phase that is seen for the first time.
                if let Some(count) = self.hits.get_mut(&hit) {
                    *count += outcome.tries;
                }
            }
            outcomes.extend(case.outcomes);
        }
        Ok(outcomes)
    }

    fn reached(&self) -> Option<u64> {
        let rarest = self.hits.values().min().copied().unwrap_or(0);
        let wants = self.least.is_some_and(|least| rarest < least) && self.cases < MOST_CASES;
        if wants { Some(0) } else { self.kills.into_iter().min() }
    }

    fn finish(&mut self) -> Result<Vec<Outcome>> {
        let all = self.small.iter().chain(&self.chain);
        Ok(all.map(|subject| rarest(&self.hits, &subject.name, self.least)).collect())
    }
}

/// The phase of a subject that was hit least.
fn rarest(hits: &BTreeMap<(String, String), u64>, name: &str, least: Option<u64>) -> Outcome {
    let of_subject = hits.iter().filter(|((of, _), _)| of == name);
    let rarest = of_subject.min_by_key(|(_, count)| **count);
    let (phase, count) = rarest.map_or(("none", 0), |((_, phase), count)| (phase, *count));
    let verdict = match least {
        Some(least) if count < least => Verdict::Failed(format!("{least} are asked for")),
        _ => Verdict::Held,
    };
    Outcome {
        kind: format!("rarest phase of {name}"),
        hit: format!("{phase}: {count}"),
        tries: 0,
        verdict,
    }
}

/// From what a subject begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    /// From the state that is kept.
    Before,
    /// From what is there.
    AsLeft,
}

/// What came of a case.
struct Case {
    outcomes: Vec<Outcome>,
    /// Whether the subject itself was killed while it had a task.
    killed: bool,
}

/// One kill of `subject`. `round` chooses the phase, so that all are hit alike.
fn one(subject: &Subject, begin: Begin, round: u64, rng: &mut ChaCha8Rng) -> Result<Case> {
    let plan = Plan::draw(subject, round, rng);
    if begin == Begin::Before {
        subject.restore()?;
    }
    if plan.new_parents {
        subject.remove_parents()?;
    }
    let mut hit: Option<String> = None;
    let mut resume_at: Option<Instant> = None;
    let latest = subject.undisturbed * LATEST;
    let run = subject.attempt(&Start::default(), subject.patience(), &mut |program, phases| {
        if let Some(at) = resume_at
            && Instant::now() >= at
        {
            resume_at = None;
            let signal = if plan.blow == Blow::Pause { Signal::SIGCONT } else { Signal::SIGKILL };
            plan.signal(program, signal);
        }
        if hit.is_none() && plan.is_due(phases, latest) {
            hit = Some(phases.now().to_owned());
            resume_at = plan.strike(program);
        }
    })?;
    let verdict = judge(subject, &plan, &run, hit.is_some())?;
    let victim = match (plan.victim, plan.new_parents) {
        (Victim::Executor, _) => ", executor",
        (Victim::Itself, true) => ", no parents cache",
        (Victim::Itself, false) => "",
    };
    let killed = hit.is_some() && plan.kills();
    let outcome = Outcome {
        kind: format!("{}{victim} {}", subject.name, plan.blow.name()),
        hit: hit.unwrap_or_else(|| "after its end".to_owned()),
        tries: 1,
        verdict: Verdict::of(verdict),
    };
    Ok(Case { outcomes: vec![outcome], killed })
}

/// The run that was hit, then what it has left, then the task done again.
fn judge(subject: &Subject, plan: &Plan, run: &Run, hit: bool) -> Result<Result<(), String>> {
    let answered = answered_as_it_may(subject, plan, run, hit)?;
    if !plan.at_once {
        let left = await_nothing_in(&subject.work(), subject.patience());
        if !left.is_empty() {
            return Ok(Err(format!("{} processes are left running", left.len())));
        }
        if let Err(wrong) = subject.is_whole()? {
            return Ok(Err(format!("after the blow: {wrong}")));
        }
    }
    let again = subject.does_it()?.map_err(|wrong| format!("done again: {wrong}"));
    let left = await_nothing_in(&subject.work(), subject.patience());
    let none_left = if left.is_empty() {
        Ok(())
    } else {
        Err(format!("{} processes are left running at the end", left.len()))
    };
    Ok(answered.and(again).and(none_left))
}

fn answered_as_it_may(
    subject: &Subject,
    plan: &Plan,
    run: &Run,
    hit: bool,
) -> Result<Result<(), String>> {
    let killed = plan.kills();
    // Whoever is killed owes no answer, and one that was told to end before the task began neither:
    // the request may still lie in the pipe.
    let has_begun = run.ready && run.phase != START;
    let owes_none = hit && (killed || (plan.blow == Blow::End && !has_begun));
    if run.answers.is_empty() && owes_none {
        let hangs = run.status.is_none();
        return Ok(if hangs { Err("does not end after the blow".to_owned()) } else { Ok(()) });
    }
    if let [answer] = run.answers.as_slice()
        && let Some(error) = answer["err_msg"].as_str()
        && hit
    {
        let supervised = subject.name.starts_with("supervised");
        let may = match (plan.victim, plan.blow) {
            (Victim::Itself, Blow::End) if supervised => {
                &[ErrorCode::Cancelled, ErrorCode::ExecutorDied, ErrorCode::Unavailable]
            }
            (Victim::Itself, Blow::End | Blow::EndOfInput) => &[ErrorCode::Cancelled][..],
            (Victim::Executor, Blow::End) => {
                &[ErrorCode::Cancelled, ErrorCode::ExecutorDied, ErrorCode::Unavailable]
            }
            (Victim::Executor, _) => &[ErrorCode::ExecutorDied, ErrorCode::Unavailable],
            _ => &[],
        };
        let code = ErrorCode::of_message(error);
        if code.is_some_and(|code| may.contains(&code)) {
            return Ok(Ok(()));
        }
        return Ok(Err(format!("answers {error}")));
    }
    subject.judge_hindered(run).map(|verdict| verdict.map(|_| ()))
}

impl Plan {
    fn draw(subject: &Subject, round: u64, rng: &mut ChaCha8Rng) -> Self {
        let phases: Vec<_> = subject.phases.all().collect();
        let at = usize::try_from(round).unwrap_or(0) % phases.len();
        let phase = phases[at];
        let supervised = subject.name.starts_with("supervised");
        let victim =
            if supervised && rng.gen_bool(0.4) { Victim::Executor } else { Victim::Itself };
        let blow = match rng.gen_range(0..20) {
            0..14 => Blow::Kill,
            14..16 => Blow::End,
            16..17 => Blow::Pause,
            17..19 => Blow::PauseAndKill,
            _ if victim == Victim::Executor => Blow::Kill,
            _ => Blow::EndOfInput,
        };
        Self {
            blow,
            victim,
            phase: phase.name.clone(),
            // A short phase may be over when its first line has been read: half of the blows come
            // with that line.
            delay: phase.length.mul_f64(rng.gen_range(-1.0..1.0_f64).max(0.0)),
            pause: Duration::from_millis(rng.gen_range(20..400)),
            at_once: rng.gen_bool(0.5),
            new_parents: !supervised && subject.name == "pc1" && rng.gen_bool(0.15),
        }
    }

    /// Whether the subject itself is killed.
    fn kills(&self) -> bool {
        self.victim == Victim::Itself && matches!(self.blow, Blow::Kill | Blow::PauseAndKill)
    }

    /// Whether the moment has come, or will not come any more.
    fn is_due(&self, phases: &Phases, latest: Duration) -> bool {
        phases.within(&self.phase).is_some_and(|within| within >= self.delay)
            || phases.elapsed() > latest
    }

    /// Returns when the second signal is to come, if there is one.
    fn strike(&self, program: &mut Program) -> Option<Instant> {
        let signal = match self.blow {
            Blow::Kill => Signal::SIGKILL,
            Blow::End => Signal::SIGTERM,
            Blow::Pause | Blow::PauseAndKill => Signal::SIGSTOP,
            Blow::EndOfInput => {
                program.close_input();
                return None;
            }
        };
        self.signal(program, signal);
        (signal == Signal::SIGSTOP).then(|| Instant::now() + self.pause)
    }

    fn signal(&self, program: &Program, signal: Signal) {
        match self.victim {
            Victim::Itself => program.signal(signal),
            Victim::Executor => {
                for child in children(program.pid()) {
                    // One that has ended gets none.
                    let _ = kill(pid(child), signal);
                }
            }
        }
    }
}

impl Blow {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL",
            Self::End => "SIGTERM",
            Self::Pause => "SIGSTOP, SIGCONT",
            Self::PauseAndKill => "SIGSTOP, SIGKILL",
            Self::EndOfInput => "end of input",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{self, Script};
    use super::*;
    use rand::SeedableRng;

    fn failures(script: Script) -> Result<Vec<String>> {
        let dir = tempfile::tempdir()?;
        let subject = script::subject(&dir.path().canonicalize()?.join("pc1"), script)?;
        let mut failures = Vec::new();
        for round in 0..6 {
            let mut rng = ChaCha8Rng::seed_from_u64(round);
            for outcome in one(&subject, Begin::Before, round, &mut rng)?.outcomes {
                if let Verdict::Failed(reason) = outcome.verdict {
                    failures.push(reason);
                }
            }
        }
        Ok(failures)
    }

    #[test]
    fn an_honest_executor_has_no_failures() -> Result<()> {
        assert_eq!(failures(Script::Careful)?, [""; 0]);
        Ok(())
    }

    #[test]
    fn a_phase_that_is_hit_too_seldom_is_told() {
        let key = |subject: &str, phase: &str| (subject.to_owned(), phase.to_owned());
        let hits = BTreeMap::from([
            (key("pc1", "copy"), 30),
            (key("pc1", "layer 1 of 2"), 19),
            (key("pc2", "start"), 1),
        ]);
        let outcome = rarest(&hits, "pc1", Some(20));
        assert_eq!(outcome.hit, "layer 1 of 2: 19");
        assert!(matches!(outcome.verdict, Verdict::Failed(_)));
        assert_eq!(rarest(&hits, "pc1", Some(19)).verdict, Verdict::Held);
        assert_eq!(rarest(&hits, "pc2", None).verdict, Verdict::Held);
    }

    #[test]
    fn wrong_bytes_after_a_kill_are_found() -> Result<()> {
        let found = failures(Script::WrongAfterKill)?;
        let told = found.iter().any(|reason| reason.contains("sealed has other bytes"));
        assert!(told, "{found:?}");
        Ok(())
    }

    #[test]
    fn an_answer_given_twice_is_found() -> Result<()> {
        let found = failures(Script::Twice)?;
        assert!(found.iter().any(|reason| reason.contains("2 answers")), "{found:?}");
        Ok(())
    }

    #[test]
    fn a_panic_is_found() -> Result<()> {
        let found = failures(Script::Panics)?;
        assert!(found.iter().any(|reason| reason.contains("no answer")), "{found:?}");
        Ok(())
    }
}
